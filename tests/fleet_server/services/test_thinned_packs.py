"""What a node kept of packs that it gave up: accounted for, observed as a range, and never taken for a reading."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from factories import NOON, NOON_S, TREE_READINGS, SimulatedNode, deployed_node, register_node
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict
from fleet_server.models import (
    Channel,
    Datastream,
    Gap,
    Lineage,
    Observation,
    ObservedRange,
    Pack,
    Quarantine,
    RawReading,
    Receipt,
    ThinnedPack,
    ThinnedReading,
)
from fleet_server.services import deploying
from fleet_server.services.ingest import Message, store_batch
from fleet_server.services.verifying import Report, verify

DAY = 96
EXTREMES = {
    **{key: (value, value * 1.5) for key, value in TREE_READINGS.items()},
    "t30": (160, 320),
    "r90": "open",
}
LATER = NOON + timedelta(days=60)


def gaps(session: Session) -> list[tuple[int, int, str, str]]:
    rows = session.execute(select(Gap.from_seq, Gap.to_seq, Gap.state, Gap.reason))
    return sorted(tuple(row) for row in rows)


def receipt(session: Session) -> int:
    session.expire_all()
    return session.get_one(Receipt, "n-000001").seq


def count(session: Session, model: type) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


def ranges(session: Session) -> dict[tuple[str, int], ObservedRange]:
    """By property and depth; of one site."""
    rows = session.execute(
        select(Datastream.property, Datastream.depth_cm, ObservedRange).join(
            Datastream, Datastream.id == ObservedRange.datastream_id
        )
    )
    return {(name, depth): row for name, depth, row in rows}


def assert_clean(session: Session) -> Report:
    report = verify(session)
    assert report.findings == []
    return report


# --- sequences ---


def test_what_was_thinned_is_accounted_for_as_lost_with_its_own_reason(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode(oldest=DAY + 1)
    store_batch(session, [node.thinned(1, DAY, seq=DAY + 2), node.pack(DAY + 1)], now=LATER)

    assert gaps(session) == [(1, DAY, "declared_lost", "thinned")]
    assert receipt(session) == DAY + 2
    assert assert_clean(session).declared_lost == DAY


ARRIVALS = {
    "pack 1": lambda node: node.pack(1, oldest=1),
    "pack 5": lambda node: node.pack(5, oldest=1),
    "thinned 2 to 10": lambda node: node.thinned(2, 10, seq=26, oldest=11),
    "thinned 14 to 20": lambda node: node.thinned(14, 20, seq=27, oldest=21),
    "newest": lambda node: node.pack(28, oldest=26),
}
SETTLED = [
    (2, 4, "declared_lost", "thinned"),
    (6, 10, "declared_lost", "thinned"),
    (11, 13, "declared_lost", "below_oldest"),
    (14, 20, "declared_lost", "thinned"),
    (21, 25, "declared_lost", "below_oldest"),
]


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("order", list(itertools.permutations(ARRIVALS))[::23])
def test_in_whichever_order_they_come_the_books_are_the_same(
    session: Session, order: tuple[str, ...]
) -> None:
    deployed_node(session)
    for name in order:
        store_batch(session, [ARRIVALS[name](SimulatedNode())], now=LATER)

    assert gaps(session) == SETTLED
    assert_clean(session)


def test_all_at_once_gives_the_same_books(session: Session) -> None:
    deployed_node(session)
    store_batch(session, [make(SimulatedNode()) for make in ARRIVALS.values()], now=LATER)

    assert gaps(session) == SETTLED
    assert_clean(session)


def test_thinned_pack_of_what_the_node_still_holds_declares_nothing_lost(session: Session) -> None:
    """The power went between the thinned pack and the giving up: `_oldest` says what is held."""
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.thinned(1, 3, seq=5, oldest=1)], now=LATER)
    assert gaps(session) == []
    assert receipt(session) == 0
    store_batch(session, node.packs([1, 2, 3, 4]), now=LATER)

    assert gaps(session) == []
    assert receipt(session) == 5
    assert_clean(session)


def test_thinned_pack_that_comes_again_is_stored_once(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    first = store_batch(session, [node.thinned(1, 3, seq=5)], now=LATER)
    again = store_batch(session, [node.thinned(1, 3, seq=5)] * 2, now=LATER)

    assert (first.packs_stored, again.packs_stored, again.packs_resent) == (1, 0, 2)
    assert count(session, ThinnedPack) == 1


def test_copy_under_another_sequence_leaves_the_first_range(session: Session) -> None:
    """A node that nobody heard for months copies what it had thinned before."""
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.thinned(1, 3, seq=5, oldest=5)], now=LATER)
    before = {key: row.pack_id for key, row in ranges(session).items()}
    store_batch(session, [node.thinned(1, 3, seq=9, oldest=9)], now=LATER)

    assert {key: row.pack_id for key, row in ranges(session).items()} == before
    assert count(session, ThinnedPack) == 2
    assert_clean(session)


def test_copy_from_a_clock_that_went_another_second_leaves_the_first_range(
    session: Session,
) -> None:
    deployed_node(session)
    node, later = SimulatedNode(), SimulatedNode(started_s=NOON_S + 1)
    store_batch(session, [node.thinned(1, 3, seq=5, oldest=5)], now=LATER)
    store_batch(session, [later.thinned(1, 3, seq=9, oldest=9)], now=LATER)

    assert {row.from_at.second for row in session.scalars(select(ObservedRange))} == {0}
    assert_clean(session)


@pytest.mark.parametrize("knows_first", [True, False], ids=["with its anchor", "before its anchor"])
def test_copy_that_is_timed_before_its_original_makes_the_ranges(
    session: Session, knows_first: bool
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    anchor, copy = node.state(at_s=NOON_S + 90_000), node.thinned(1, 3, seq=9, oldest=9)
    store_batch(session, [node.thinned(1, 3, seq=5, oldest=5, knows_time=False)], now=LATER)
    for messages in [[anchor, copy]] if knows_first else [[copy], [anchor]]:
        store_batch(session, messages, now=LATER)

    assert len(ranges(session)) == count(session, ObservedRange) == len(TREE_READINGS)
    assert_clean(session)


# --- ranges ---


def test_extremes_become_ranges_and_no_observation(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.thinned(1, DAY, extremes=EXTREMES)], now=LATER)

    found = ranges(session)
    temperature = found["soil_temperature", 30]
    assert (temperature.lowest, temperature.highest) == (10.0, 20.0)
    assert (temperature.u_lowest, temperature.u_highest) == (pytest.approx(0.25, abs=0.05),) * 2
    assert temperature.from_at == datetime.fromtimestamp(NOON_S + 900, UTC)
    assert temperature.to_at == datetime.fromtimestamp(NOON_S + DAY * 900, UTC)
    assert (temperature.flag, temperature.packs) == (1, DAY)
    assert count(session, Observation) == 0
    assert count(session, RawReading) == 0
    assert_clean(session)


def test_a_range_holds_every_value_that_the_inputs_allow(session: Session) -> None:
    """Tension needs the soil's temperature: nobody knows which of the day's went with which resistance."""
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.thinned(1, 4, seq=90, extremes=EXTREMES, oldest=1)], now=LATER)
    corners = [
        node.pack(50 + at, readings={**TREE_READINGS, "r30": ohm, "t30": raw})
        for at, (ohm, raw) in enumerate(itertools.product(EXTREMES["r30"], EXTREMES["t30"]))
    ]
    store_batch(session, corners, now=LATER)

    found = ranges(session)["soil_water_tension", 30]
    values = session.scalars(
        select(Observation.value).where(Observation.datastream_id == found.datastream_id)
    ).all()
    assert len(set(values)) == 4
    assert (found.lowest, found.highest) == (min(values), max(values))


def test_a_range_holds_what_lies_where_the_pieces_of_a_formula_do_not_meet(
    session: Session,
) -> None:
    """The curve of a Watermark steps at 8 kΩ: in cold soil the highest tension is not at the highest resistance."""
    deployed_node(session)
    node, cold = SimulatedNode(), {"t30": 16}
    day = node.thinned(1, 4, seq=90, oldest=1, extremes={"r30": (7_200, 8_600), "t30": (16, 16)})
    store_batch(session, [day], now=LATER)
    between = [
        node.pack(50 + at, readings={**TREE_READINGS, **cold, "r30": ohm})
        for at, ohm in enumerate(range(7_200, 8_601, 200))
    ]
    store_batch(session, between, now=LATER)

    found = ranges(session)["soil_water_tension", 30]
    values = session.scalars(
        select(Observation.value).where(Observation.datastream_id == found.datastream_id)
    ).all()
    assert max(values) > max(values[0], values[-1]) + 0.5
    assert found.lowest - 0.03 <= min(values) <= max(values) <= found.highest + 0.03


def test_a_channel_without_any_value_has_an_empty_range_flagged_as_its_readings_were(
    session: Session,
) -> None:
    deployed_node(session)
    store_batch(session, [SimulatedNode().thinned(1, 9, extremes=EXTREMES)], now=LATER)

    found = ranges(session)["soil_water_tension", 90]
    assert (found.lowest, found.u_lowest, found.highest, found.flag) == (None, None, None, 4)
    status = select(ThinnedReading.status).where(ThinnedReading.channel == "r90")
    assert session.scalars(status).one() == "open"


def test_a_range_over_a_change_of_calibration_is_not_made(session: Session) -> None:
    deployed_node(session)
    channel = session.scalars(select(Channel).where(Channel.key == "t30")).one()
    with db.writing(session):
        session.execute(
            update(Channel)
            .where(Channel.id == channel.id)
            .values(to_at=datetime.fromtimestamp(NOON_S + 5 * 900, UTC))
        )
    store_batch(session, [SimulatedNode().thinned(1, 9, extremes=EXTREMES)], now=LATER)

    found = ranges(session)
    assert ("soil_temperature", 30) not in found
    assert ("soil_water_tension", 30) not in found, "it needs that temperature"
    assert ("soil_temperature", 60) in found
    assert_clean(session)


@pytest.mark.parametrize("anchor_first", [True, False])
def test_thinned_pack_without_a_time_gets_it_from_the_anchor_of_its_power_up(
    session: Session, anchor_first: bool
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    messages = [node.thinned(1, 9, knows_time=False), node.state(at_s=NOON_S + 90_000)]
    for message in reversed(messages) if anchor_first else messages:
        store_batch(session, [message], now=LATER)

    found = ranges(session)["soil_temperature", 60]
    assert found.from_at == datetime.fromtimestamp(NOON_S + 900, UTC)
    assert found.to_at == datetime.fromtimestamp(NOON_S + 9 * 900, UTC)
    assert_clean(session)


def test_a_range_over_two_power_ups_needs_the_anchors_of_both(session: Session) -> None:
    deployed_node(session)
    node, after = SimulatedNode(), SimulatedNode(power_up=0x9002, started_s=NOON_S + 4000)
    thinned = node.thinned(
        1, 9, knows_time=False, until_power_up=after.power_up, until_uptime_ms=2_700_000
    )
    store_batch(session, [thinned, node.state(at_s=NOON_S + 90_000)], now=LATER)
    assert ranges(session) == {}
    assert_clean(session)
    store_batch(session, [after.state(at_s=after.started_s + 90_000)], now=LATER)

    found = ranges(session)["soil_temperature", 60]
    assert found.from_at == datetime.fromtimestamp(NOON_S + 900, UTC)
    assert found.to_at == datetime.fromtimestamp(after.started_s + 2_700, UTC)
    assert_clean(session)


def test_ranges_are_made_when_the_node_is_deployed_later(session: Session) -> None:
    register_node(session, "n-000001", model="tree-3")
    store_batch(session, [SimulatedNode().thinned(1, 9, extremes=EXTREMES)], now=LATER)
    assert ranges(session) == {}
    deploying.create_site(
        session, deploying.NewSite("a", "A", "tree", 51.48, 7.22), is_public=True, now=LATER
    )

    deploying.deploy_node(
        session, "n-000001", site_code="a", from_at=NOON - timedelta(days=1), now=LATER
    )

    assert ranges(session)["soil_temperature", 30].highest == 20.0
    assert_clean(session)


def test_a_deployment_does_not_end_before_its_ranges(session: Session) -> None:
    deployed_node(session)
    store_batch(session, [SimulatedNode().thinned(1, 9)], now=LATER)

    with pytest.raises(Conflict, match="later"):
        deploying.end_deployment(
            session,
            "n-000001",
            to_at=datetime.fromtimestamp(NOON_S + 8 * 900, UTC),
            now=LATER,
        )


# --- bad input ---


def test_thinned_pack_that_cannot_be_is_quarantined_and_stops_nothing(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    wild = {
        "extremes_wrong": node.thinned(1, 2, seq=11, extremes={"bat": (5, 4)}),
        "thinned_range_wrong": node.thinned(5, 40, seq=12, oldest=1),
        "thinned_packs_wrong": node.thinned(1, 2, seq=13, packs=3),
        "thinned_time_wrong": node.thinned(1, 2, seq=14, until_uptime_ms=1),
        "time_in_future": node.thinned(1, 2, seq=15, until_uptime_ms=1 << 52),
    }
    store_batch(session, [*wild.values(), node.pack(16, oldest=11)], now=LATER)

    assert set(session.scalars(select(Quarantine.reason))) == set(wild)
    assert count(session, ThinnedPack) == 0
    assert receipt(session) == 16


def test_an_end_beyond_all_time_is_stored_without_one(session: Session) -> None:
    """Of a power-up that nobody can date yet; what an anchor then says is no time."""
    deployed_node(session)
    node = SimulatedNode()
    wild = node.thinned(1, 2, seq=11, oldest=11, knows_time=False, until_uptime_ms=1 << 52)
    store_batch(session, [wild, node.state(at_s=NOON_S + 900)], now=LATER)

    assert count(session, ThinnedPack) == 1
    assert ranges(session) == {}
    assert_clean(session)


# --- verifying ---


@pytest.fixture
def full(session: Session) -> Session:
    deployed_node(session)
    node = SimulatedNode()
    messages: list[Message] = [node.pack(1), node.thinned(2, 9, seq=11, extremes=EXTREMES)]
    store_batch(session, [*messages, node.pack(10, oldest=10)], now=LATER)
    assert_clean(session)
    return session


def _first_range() -> object:
    return select(func.min(ObservedRange.datastream_id)).scalar_subquery()


def _another_range(session: Session) -> ObservedRange:
    row = session.scalars(select(ObservedRange).limit(1)).one()
    columns = {c.name: getattr(row, c.name) for c in ObservedRange.__table__.columns}
    return ObservedRange(**{**columns, "from_at": NOON - timedelta(days=3)})


DAMAGES: dict[str, tuple[str, Callable[[Session], object]]] = {
    "a range's value": (
        "observations_not_reproducible",
        lambda s: s.execute(
            update(ObservedRange)
            .where(ObservedRange.datastream_id == _first_range())
            .values(highest=99.0)
        ),
    ),
    "a range's end": (
        "observations_not_reproducible",
        lambda s: s.execute(
            update(ObservedRange)
            .where(ObservedRange.datastream_id == _first_range())
            .values(to_at=LATER)
        ),
    ),
    "a range's lineage": (
        "observations_not_reproducible",
        lambda s: s.execute(
            update(ObservedRange)
            .where(ObservedRange.datastream_id == _first_range())
            .values(lineage_id=select(func.max(Lineage.id)).scalar_subquery())
        ),
    ),
    "a range that is gone": (
        "readings_without_observation",
        lambda s: s.execute(
            delete(ObservedRange).where(ObservedRange.datastream_id == _first_range())
        ),
    ),
    "a range of nothing": ("observations_not_reproducible", lambda s: s.add(_another_range(s))),
    "a lowest value": (
        "packs_damaged",
        lambda s: s.execute(
            update(ThinnedReading).where(ThinnedReading.channel == "r30").values(lowest=1)
        ),
    ),
    "a thinned range": ("packs_damaged", lambda s: s.execute(update(ThinnedPack).values(to_seq=8))),
    "a thinned pack's time": (
        "packs_damaged",
        lambda s: s.execute(update(ThinnedPack).values(from_at=NOON)),
    ),
    "a thinned pack's row": ("packs_damaged", lambda s: s.execute(delete(ThinnedPack))),
    "a gap that is called thinned": (
        "gaps",
        lambda s: s.execute(update(Gap).values(to_seq=10).where(Gap.from_seq == 2)),
    ),
    "a byte of the pack": (
        "packs_damaged",
        lambda s: s.execute(update(Pack).where(Pack.seq == 11).values(payload=b"\x80")),
    ),
}


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(("kind", "damage"), DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_found_and_called_what_it_is(
    full: Session, kind: str, damage: Callable[[Session], object]
) -> None:
    with db.writing(full):
        damage(full)
    full.expire_all()

    report = verify(full)
    assert not report.is_clean
    assert report.counts()[kind], report.findings
