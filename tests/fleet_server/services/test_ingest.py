"""Packs are stored exactly once, and nothing that a node sends stops the stream behind it."""

from __future__ import annotations

import random
from datetime import timedelta

import cbor2
import pytest
from factories import NOON, NOON_S, POND_READINGS, SimulatedNode, deployed_node, register_node
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.models import (
    Anchor,
    Counter,
    Event,
    Gap,
    Node,
    NodeStatus,
    Observation,
    ObservationCount,
    Outbox,
    Pack,
    Quarantine,
    RawReading,
    Receipt,
)
from fleet_server.services import deploying, overviews
from fleet_server.services.ingest import Message, store_batch
from fleet_server.services.verifying import verify
from fleet_server.wire.senml import encode_pack
from fleet_server.wire.topics import TopicKind


def receipt_of(session: Session, node_id: str = "n-000001") -> tuple[int, int]:
    session.expire_all()
    receipt = session.get_one(Receipt, node_id)
    return receipt.spool, receipt.seq


def count(session: Session, model: type) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def test_pack_becomes_readings_observations_and_a_receipt(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    result = store_batch(session, [node.pack()], now=NOON)
    assert (result.packs_stored, result.observations_made) == (1, 7)
    assert count(session, RawReading) == 7
    assert count(session, Observation) == 7
    assert receipt_of(session) == (node.spool, 1)
    assert result.receipts_moved == {"n-000001": (node.spool, 1)}
    assert sum(session.scalars(select(ObservationCount.count))) == 7
    pack = session.scalars(select(Pack)).one()
    assert pack.payload == node.pack(1).payload
    assert session.get_one(NodeStatus, "n-000001").last_heard_at == NOON


def test_channels_that_were_not_due_are_no_readings_and_nothing_is_missing(
    session: Session,
) -> None:
    """A node says a reason for a channel that it could not read; one that was not due is not in the pack at all."""
    deployed_node(session)
    node = SimulatedNode()
    due = {key: value for key, value in node.readings.items() if key not in ("r90", "t90")}
    store_batch(session, [node.pack(1), node.pack(2, readings=due)], now=NOON)
    store_batch(session, [node.pack(3, readings={**due, "t30": "crc"})], now=NOON)

    assert (count(session, RawReading), count(session, Observation)) == (17, 17)
    assert count(session, Gap) == count(session, Quarantine) == 0
    assert receipt_of(session) == (node.spool, 3)
    report = verify(session)
    assert report.is_clean, report.findings


def test_resent_pack_is_stored_once_and_counted(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1)], now=NOON)
    result = store_batch(session, [node.pack(1), node.pack(1)], now=NOON)
    assert (result.packs_stored, result.packs_resent) == (0, 2)
    assert count(session, Pack) == 1
    assert sum(session.scalars(select(ObservationCount.count))) == 7
    counts = session.execute(select(Counter.name, Counter.count)).all()
    assert sorted(map(tuple, counts)) == [("packs_resent", 2), ("packs_stored", 1)]


def test_receipt_waits_below_a_hole(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs([1, 2, 5, 6]), now=NOON)
    assert receipt_of(session) == (node.spool, 2)
    store_batch(session, node.packs([4]), now=NOON)
    assert receipt_of(session) == (node.spool, 2)
    store_batch(session, node.packs([3]), now=NOON)
    assert receipt_of(session) == (node.spool, 6)


def test_what_lies_below_oldest_is_declared_lost_and_does_not_hold_the_receipt_up(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs([1, 3]), now=NOON)
    store_batch(session, [node.pack(9, oldest=6)], now=NOON)
    gaps = session.execute(select(Gap.from_seq, Gap.to_seq, Gap.state)).all()
    assert sorted(gaps) == [(2, 2, "declared_lost"), (4, 5, "declared_lost")]
    assert receipt_of(session) == (node.spool, 5)
    store_batch(session, node.packs([6, 7, 8]), now=NOON)
    assert receipt_of(session) == (node.spool, 9)


def test_pack_that_was_declared_lost_and_comes_late_shrinks_its_gap(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(9, oldest=9)], now=NOON)
    store_batch(session, node.packs([4]), now=NOON)
    gaps = session.execute(select(Gap.from_seq, Gap.to_seq)).all()
    assert sorted(gaps) == [(1, 3), (5, 8)]
    assert receipt_of(session) == (node.spool, 9)


def test_same_identity_with_another_body_is_quarantined_and_the_first_stays(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    forged = node.pack(1, readings={"bat": 1})
    result = store_batch(session, [node.pack(1), forged], now=NOON)
    assert result.quarantined == 1
    assert session.scalars(select(Quarantine.reason)).one() == "body_differs"
    assert session.scalars(select(Pack.payload)).one() == node.pack(1).payload


def test_quarantined_pack_with_readable_identity_does_not_hold_the_receipt_up(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    broken = node.pack(2, at_s=NOON_S + 3 * 86_400)  # three days ahead of us
    store_batch(session, [node.pack(1), broken, node.pack(3)], now=NOON)
    assert session.scalars(select(Quarantine.reason)).one() == "time_in_future"
    assert receipt_of(session) == (node.spool, 3)


def test_new_spool_replaces_the_old_one_and_late_packs_of_the_old_do_not_bring_it_back(
    session: Session,
) -> None:
    deployed_node(session)
    old = SimulatedNode(spool=0xAAAA)
    new = SimulatedNode(spool=0xBBBB, started_s=NOON_S + 450)
    store_batch(session, old.packs([1, 2]), now=NOON)
    store_batch(session, new.packs([1]), now=NOON)
    assert receipt_of(session) == (0xBBBB, 1)
    store_batch(session, old.packs([3]), now=NOON)
    assert receipt_of(session) == (0xBBBB, 1)
    assert count(session, Pack) == 4


def test_state_that_names_the_old_spool_again_finds_its_receipt_where_it_was(
    session: Session,
) -> None:
    deployed_node(session)
    old = SimulatedNode(spool=0xAAAA)
    new = SimulatedNode(spool=0xBBBB, started_s=NOON_S + 450)
    store_batch(session, [*old.packs([1]), old.pack(5, oldest=4), old.pack(4)], now=NOON)
    store_batch(session, new.packs([1]), now=NOON)
    store_batch(session, [old.state(spool=0xAAAA, oldest=4, newest=5)], now=NOON)
    assert receipt_of(session) == (0xAAAA, 5)
    assert session.execute(select(Gap.from_seq, Gap.to_seq)).all() == [(2, 3)]


def test_failed_reading_is_an_observation_without_a_value(session: Session) -> None:
    deployed_node(session, model="pond-1")
    node = SimulatedNode(readings={**POND_READINGS, "do": "timeout", "sat": "range"})
    store_batch(session, [node.pack()], now=NOON)
    rows = session.execute(
        select(RawReading.channel, RawReading.raw_value, RawReading.status)
    ).all()
    assert {row.channel: (row.raw_value, row.status) for row in rows}["do"] == (None, "timeout")
    failed = session.execute(
        select(Observation.value, Observation.u, Observation.flag).where(
            Observation.value.is_(None)
        )
    ).all()
    assert sorted(failed, key=lambda row: row.flag) == [(None, None, 4), (None, None, 9)]


def test_second_reading_of_one_instant_stays_a_raw_reading(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    again = node.pack(2, at_s=NOON_S + 900)
    store_batch(session, [node.pack(1), again], now=NOON)
    third = node.pack(3, at_s=NOON_S + 900)
    store_batch(session, [third], now=NOON)
    assert count(session, Observation) == 7
    statuses = session.execute(
        select(RawReading.pack_id, RawReading.status).where(RawReading.channel == "r30")
    ).all()
    assert [status for _, status in sorted(statuses)] == [
        None,
        "duplicate_instant",
        "duplicate_instant",
    ]
    assert sum(session.scalars(select(ObservationCount.count))) == 7


def test_pack_without_time_gets_it_from_an_anchor_of_its_power_up(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1, knows_time=False)], now=NOON)
    assert count(session, Observation) == 0
    assert receipt_of(session) == (node.spool, 1)
    store_batch(session, [node.state(at_s=NOON_S + 3600)], now=NOON)
    assert count(session, Observation) == 7
    reading = session.scalars(select(RawReading).where(RawReading.channel == "r30")).one()
    assert reading.sampled_at == NOON + timedelta(seconds=900)
    assert reading.time_estimated
    assert reading.time_interval_s == 1 + 27  # 1 s of rounding, 1 % of the 2,700 s between them


def test_pack_without_time_after_the_anchor_has_its_time_at_once(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1, knows_time=False), node.state(at_s=NOON_S + 3600)], now=NOON)
    assert count(session, Observation) == 7


def test_copy_with_a_time_repairs_the_copy_without(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1, knows_time=False), node.pack(2, knows_time=False)], now=NOON)
    store_batch(session, [node.pack(1)], now=NOON)
    assert count(session, Pack) == 2
    assert count(session, Observation) == 14
    assert count(session, Anchor) == 1


def test_anchor_of_another_power_up_gives_no_time(session: Session) -> None:
    deployed_node(session)
    node, later = SimulatedNode(), SimulatedNode(power_up=0x9002)
    store_batch(session, [node.pack(1, knows_time=False)], now=NOON)
    store_batch(session, [later.state(at_s=NOON_S + 3600)], now=NOON)
    assert count(session, Observation) == 0


def test_readings_from_before_the_deployment_was_known_are_observed_when_it_is(
    session: Session,
) -> None:
    register_node(session, "n-000001")
    node = SimulatedNode()
    store_batch(session, node.packs(range(1, 5)), now=NOON)
    assert count(session, Observation) == 0
    site = deploying.NewSite("tree-1", "Linden", "tree", 51.48, 7.22)
    deploying.create_site(session, site, is_public=True, now=NOON)
    deploying.deploy_node(
        session,
        "n-000001",
        site_code="tree-1",
        from_at=NOON + timedelta(seconds=2 * 900),
        now=NOON,
    )
    assert count(session, Observation) == 3 * 7


def test_state_is_what_the_fleet_knows_of_a_node(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.state(battery_mv=3777, spool_depth=3, last_error="dns")], now=NOON)
    status = session.get_one(NodeStatus, "n-000001")
    assert (status.battery_mv, status.spool_depth, status.last_error) == (3777, 3, "dns")
    assert status.last_state_at == NOON


def test_outbox_holds_one_row_however_often_a_receipt_moves(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    for seq in range(1, 6):
        store_batch(session, [node.pack(seq)], now=NOON)
    rows = session.scalars(select(Outbox).where(Outbox.kind == "receipt")).all()
    assert len(rows) == 1
    assert rows[0].version > rows[0].published_version


def test_message_of_a_node_that_nobody_registered_is_quarantined(session: Session) -> None:
    result = store_batch(session, [SimulatedNode(node_id="n-ffffff").pack()], now=NOON)
    assert result.quarantined == 1
    assert session.scalars(select(Quarantine.reason)).one() == "node_unknown"


def _of_another_node() -> bytes:
    return SimulatedNode(node_id="n-000002").pack(1).payload


def _in_2106() -> bytes:
    envelope, *body = cbor2.loads(SimulatedNode().pack(2).payload)
    return cbor2.dumps([{**envelope, -3: 0xFFFFFFF0}, *body])


GARBAGE = {
    "empty": b"",
    "random": random.Random(1).randbytes(200),
    "64 KiB": b"\x9f" * 65_536,
    "more than a broker lets through": b"\x00" * 70_000,
    "CBOR that is no pack": cbor2.dumps({"temperature": 20}),
    "an array of maps": cbor2.dumps([{}, {}, {}, {}, {}]),
    "deep nesting": b"\x81" * 5_000,
    "wrong node inside": _of_another_node(),
    "the year 2106": _in_2106(),
    "truncated": SimulatedNode().pack(2).payload[:-3],
    "infinity": SimulatedNode().pack(2).payload[:-2] + b"\xf9\x7c\x00",
}


@pytest.mark.parametrize("kind", [TopicKind.TELEMETRY, TopicKind.EVENT, TopicKind.STATE, None])
def test_garbage_is_quarantined_with_a_reason_and_the_stream_goes_on(
    session: Session, kind: TopicKind | None
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    garbage = [Message(kind, node.node_id, payload) for payload in GARBAGE.values()]
    result = store_batch(session, [*garbage, node.pack(1)], now=NOON)
    assert result.quarantined == len(GARBAGE)
    assert result.packs_stored == 1
    rows = session.scalars(select(Quarantine)).all()
    assert len(rows) == len(GARBAGE)
    assert all(row.reason and row.sentence and len(row.payload) <= 65_536 for row in rows)
    assert receipt_of(session)[1] >= 1


def test_quarantine_is_listed_with_its_first_bytes_even_when_there_are_none(
    session: Session,
) -> None:
    deployed_node(session)
    for payload in (b"", b"\xff\x20"):
        store_batch(session, [Message(TopicKind.TELEMETRY, "n-000001", payload)], now=NOON)
    listed = overviews.quarantine_entries(session)
    assert [(entry.size_bytes, entry.begin_hex) for entry in listed] == [(2, "ff 20"), (0, "")]


def test_the_same_garbage_again_is_counted_not_kept_twice(session: Session) -> None:
    deployed_node(session)
    garbage = Message(TopicKind.TELEMETRY, "n-000001", b"garbage")
    for _ in range(3):
        store_batch(session, [garbage, garbage], now=NOON)
    row = session.scalars(select(Quarantine)).one()
    assert row.times_received == 6


def test_absurd_values_become_bad_observations_without_a_value(session: Session) -> None:
    deployed_node(session, model="pond-1")
    node = SimulatedNode(readings={**POND_READINGS, "do": 3e38, "sat": -3e38})
    result = store_batch(session, [node.pack()], now=NOON)
    assert result.packs_stored == 1
    flags = session.scalars(select(Observation.flag)).all()
    assert sorted(flags) == [1, 1, 4, 4]


def test_empty_batch_does_nothing(session: Session) -> None:
    assert store_batch(session, [], now=NOON).packs_stored == 0


def test_event_shares_the_packs_sequence_and_is_kept_with_its_details(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    crash = node.event(2, "crash", {"cause": "wdt", "heap": 31_000, "trace": "line 1\0line 2"})
    store_batch(session, [node.pack(1), crash, node.pack(3)], now=NOON)
    assert receipt_of(session) == (node.spool, 3)
    event = session.scalars(select(Event)).one()
    assert event.name == "crash"
    assert event.details == [["cause", "wdt"], ["heap", 31_000], ["trace", "line 1\0line 2"]]
    assert event.happened_at == NOON + timedelta(seconds=1800)


def test_event_without_time_gets_it_from_an_anchor(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.event(1, "reset", {}, knows_time=False)], now=NOON)
    store_batch(session, [node.state(at_s=NOON_S + 3600)], now=NOON)
    session.expire_all()
    event = session.scalars(select(Event)).one()
    assert event.happened_at == NOON + timedelta(seconds=900)


def test_uptime_that_no_node_can_have_gives_no_time_and_does_not_stop_the_others(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    payload = encode_pack(
        node_id=node.node_id,
        time_utc_s=None,
        oldest=1,
        spool=node.spool,
        seq=1,
        power_up=node.power_up,
        uptime_ms=(1 << 53) - 1,
        readings=[("bat", 3900, None)],
    )
    absurd = Message(TopicKind.TELEMETRY, node.node_id, payload)
    store_batch(session, [absurd, node.pack(2, knows_time=False)], now=NOON)
    store_batch(session, [node.state(at_s=NOON_S + 3600)], now=NOON)
    assert count(session, Observation) == 7
    assert receipt_of(session) == (node.spool, 2)


@given(
    position=st.integers(0, 1 << 16),
    change=st.binary(min_size=1, max_size=6),
    kind=st.sampled_from([TopicKind.TELEMETRY, TopicKind.EVENT, TopicKind.STATE]),
)
def test_damaged_message_is_stored_or_quarantined_and_the_next_one_goes_through(
    session: Session, position: int, change: bytes, kind: TopicKind
) -> None:
    node_id = "n-000001"
    if session.get(Node, node_id) is None:
        deployed_node(session, node_id)
    seq = 1 + (session.scalar(select(func.max(Pack.seq)).where(Pack.seq < 100_000)) or 0)
    node = SimulatedNode(node_id)
    sound = {
        TopicKind.TELEMETRY: node.pack(seq, at_s=NOON_S),
        TopicKind.EVENT: node.event(seq, "crash", {"cause": "wdt"}),
        TopicKind.STATE: node.state(at_s=NOON_S),
    }[kind].payload
    at = position % len(sound)
    damaged = sound[:at] + change + sound[at + len(change) :]
    before = count(session, Pack)
    other = SimulatedNode(node_id, spool=0x77).pack(seq, at_s=NOON_S)
    result = store_batch(session, [Message(kind, node_id, damaged), other], now=NOON)
    done = result.packs_stored + result.packs_resent + result.quarantined + result.states_stored
    assert done == 2
    assert count(session, Pack) == before + result.packs_stored
