"""Whatever order, loss and repetition packs arrive in: each is stored once, and the receipt says what is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node, register_node
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.models import Gap, Node, ObservationCount, Pack, Receipt
from fleet_server.services.ingest import Message, store_batch
from fleet_server.services.verifying import verify
from fleet_server.wire.senml import encode_pack
from fleet_server.wire.topics import TopicKind

_LAST = 12


@dataclass(frozen=True)
class Arrival:
    """One message: which pack, what its node held then, and whether it can be read."""

    seq: int
    oldest: int
    is_rubbish: bool


arrivals = st.lists(
    st.builds(
        lambda seq, below, is_rubbish: Arrival(seq, max(1, seq - below), is_rubbish),
        st.integers(1, _LAST),
        st.integers(0, _LAST),
        st.sampled_from([False, False, False, True]),
    ),
    max_size=40,
)


@given(arrivals=arrivals, batch_size=st.integers(1, 7))
def test_any_schedule_stores_each_pack_once_and_the_receipt_is_the_highest_without_a_hole(
    session: Session, arrivals: Sequence[Arrival], batch_size: int
) -> None:
    """Every example is a node of its own in the same database."""
    number = 1 + (session.scalar(select(func.count()).select_from(Node)) or 0)
    node = SimulatedNode(node_id=register_node(session, f"n-{number:06x}"))
    messages = [_message(node, arrival) for arrival in arrivals]
    for start in range(0, len(messages), batch_size):
        store_batch(session, messages[start : start + batch_size], now=NOON)

    came = {arrival.seq for arrival in arrivals}
    sound = {arrival.seq for arrival in arrivals if not arrival.is_rubbish}
    oldest = max((arrival.oldest for arrival in arrivals if not arrival.is_rubbish), default=1)
    session.expire_all()
    seqs = session.scalars(select(Pack.seq).where(Pack.node_id == node.node_id)).all()
    assert sorted(seqs) == sorted(sound)
    assert session.get_one(Receipt, node.node_id).seq == _expected_receipt(came, sound, oldest)
    gaps = select(Gap.from_seq, Gap.to_seq).where(Gap.node_id == node.node_id)
    lost = [seq for first, last in session.execute(gaps) for seq in range(first, last + 1)]
    assert sorted(lost) == sorted(set(range(1, oldest)) - came)


def _message(node: SimulatedNode, arrival: Arrival) -> Message:
    # Rubbish: a time far ahead of us, in an envelope around the very same body.
    at_s = 4_000_000_000 if arrival.is_rubbish else NOON_S
    payload = encode_pack(
        node_id=node.node_id,
        time_utc_s=at_s,
        oldest=arrival.oldest,
        spool=node.spool,
        seq=arrival.seq,
        power_up=node.power_up,
        uptime_ms=arrival.seq,
        readings=[("bat", arrival.seq, None)],
    )
    return Message(TopicKind.TELEMETRY, node.node_id, payload)


def _expected_receipt(came: set[int], sound: set[int], oldest: int) -> int:
    if not sound:
        return 0  # which spool the node uses is learnt from a pack, not from rubbish
    receipt = oldest - 1
    while receipt + 1 in came:
        receipt += 1
    return receipt


@pytest.mark.needs_postgresql
def test_several_workers_store_each_pack_once_and_no_receipt_jumps_a_hole(
    sessions: sessionmaker[Session],
) -> None:
    nodes = [SimulatedNode(node_id=f"n-{number:06x}") for number in range(1, 6)]
    with sessions() as session:
        for node in nodes:
            deployed_node(session, node.node_id)
    messages = [node.pack(seq) for seq in range(1, 21) for node in nodes]
    faults: list[BaseException] = []

    def work(shift: int) -> None:
        try:
            # Every worker brings everything, each from another place on: as after a broken acknowledgement.
            turned = messages[shift:] + messages[:shift]
            for start in range(0, len(turned), 7):
                with sessions() as session:
                    store_batch(session, turned[start : start + 7], now=NOON)
        except BaseException as fault:  # noqa: BLE001 - handed to the test
            faults.append(fault)

    workers = [threading.Thread(target=work, args=(shift,)) for shift in (0, 33, 66)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert faults == []
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Pack)) == 100
        assert set(session.scalars(select(Receipt.seq))) == {20}
        assert sum(session.scalars(select(ObservationCount.count))) == 700
        assert verify(session).is_clean
