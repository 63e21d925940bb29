"""`fleet verify` finds each kind of damage, and calls it what it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import (
    Gap,
    Lineage,
    Observation,
    ObservationCount,
    Pack,
    RawReading,
    Receipt,
)
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

CLEAN = {
    "packs": 20,
    "gaps": 0,
    "declared_lost": 0,
    "duplicates": 0,
    "readings_without_observation": 0,
    "packs_damaged": 0,
    "receipts_wrong": 0,
    "observations_not_reproducible": 0,
    "audit_chain_ok": True,
}


@pytest.fixture
def full(session: Session) -> Session:
    """Two nodes with ten packs each: failed readings, an estimated time, a second reading of an instant."""
    for node_id, model in (("n-000001", "tree-3"), ("n-000002", "tree-3")):
        deployed_node(session, node_id, model=model)
        node = SimulatedNode(node_id=node_id)
        packs = [node.pack(seq) for seq in range(1, 7)]
        packs.append(node.pack(7, readings={**node.readings, "t30": "crc", "r60": "open"}))
        packs.append(node.pack(8, knows_time=False))
        packs.append(node.pack(9, at_s=NOON_S + 900))
        packs.append(node.pack(10))
        store_batch(session, packs, now=NOON)
        store_batch(session, [node.state(at_s=NOON_S + 9000)], now=NOON)
    return session


def test_untouched_database_is_clean(full: Session) -> None:
    report = verify(full)
    assert report.counts() == CLEAN
    assert report.is_clean
    assert report.findings == []


def _first_pack(session: Session) -> int:
    return session.scalars(select(Pack.id).order_by(Pack.id)).first() or 0


def _flip_pack_byte(session: Session) -> None:
    pack_id = _first_pack(session)
    payload = bytearray(session.scalars(select(Pack.payload).where(Pack.id == pack_id)).one())
    payload[-1] ^= 1
    session.execute(update(Pack).where(Pack.id == pack_id).values(payload=bytes(payload)))


def _flip_envelope_byte(session: Session) -> None:
    pack_id = _first_pack(session)
    payload = bytearray(session.scalars(select(Pack.payload).where(Pack.id == pack_id)).one())
    payload[5] ^= 1
    session.execute(update(Pack).where(Pack.id == pack_id).values(payload=bytes(payload)))


def _renumber_pack(session: Session) -> None:
    session.execute(update(Pack).where(Pack.id == _first_pack(session)).values(seq=99))


def _change_raw_value(session: Session) -> None:
    where = (RawReading.pack_id == _first_pack(session)) & (RawReading.channel == "r30")
    session.execute(update(RawReading).where(where).values(raw_value=2001))


def _an_observation(session: Session) -> tuple[int, object]:
    row = session.execute(
        select(Observation.datastream_id, Observation.sampled_at)
        .where(Observation.value.is_not(None))
        .order_by(Observation.sampled_at, Observation.datastream_id)
    ).first()
    assert row is not None
    return row[0], row[1]


def _change_observation(session: Session, **columns: object) -> None:
    datastream_id, sampled_at = _an_observation(session)
    session.execute(
        update(Observation)
        .where(Observation.datastream_id == datastream_id, Observation.sampled_at == sampled_at)
        .values(**columns)
    )


def _name_another_lineage(session: Session) -> None:
    datastream_id, _ = _an_observation(session)
    used = select(Observation.lineage_id).where(Observation.datastream_id == datastream_id)
    other = session.scalars(select(Lineage.id).where(Lineage.id.not_in(used))).first()
    _change_observation(session, lineage_id=other)


def _change_lineage(session: Session) -> None:
    first = select(func.min(Observation.lineage_id)).scalar_subquery()
    session.execute(update(Lineage).where(Lineage.id == first).values(pipeline_version="0"))


def _forget_observation(session: Session) -> None:
    datastream_id, sampled_at = _an_observation(session)
    session.execute(
        delete(Observation).where(
            Observation.datastream_id == datastream_id, Observation.sampled_at == sampled_at
        )
    )


def _invent_observation(session: Session) -> None:
    row = session.scalars(select(Observation)).first()
    assert row is not None
    session.add(
        Observation(
            datastream_id=row.datastream_id,
            sampled_at=NOON.replace(year=2020),
            value=1.0,
            u=0.1,
            flag=1,
            tests=1,
            lineage_id=row.lineage_id,
            known_from=NOON,
            pack_id=row.pack_id,
        )
    )
    session.flush()


DAMAGES: dict[str, tuple[Callable[[Session], None], str]] = {
    "a byte of a pack's body": (_flip_pack_byte, "packs_damaged"),
    "a byte of a pack's envelope": (_flip_envelope_byte, "packs_damaged"),
    "a pack's sequence number": (_renumber_pack, "packs_damaged"),
    "a raw value": (_change_raw_value, "packs_damaged"),
    "a value": (lambda s: _change_observation(s, value=12.5), "observations_not_reproducible"),
    "a u": (lambda s: _change_observation(s, u=0.5), "observations_not_reproducible"),
    "a flag": (lambda s: _change_observation(s, flag=3), "observations_not_reproducible"),
    "test bits": (lambda s: _change_observation(s, tests=2), "observations_not_reproducible"),
    "which lineage": (_name_another_lineage, "observations_not_reproducible"),
    "a lineage": (_change_lineage, "observations_not_reproducible"),
    "a lost observation": (_forget_observation, "readings_without_observation"),
    "an invented observation": (_invent_observation, "observations_not_reproducible"),
    "a receipt that says too much": (
        lambda s: s.execute(update(Receipt).where(Receipt.node_id == "n-000001").values(seq=11)),  # type: ignore[dict-item, return-value]
        "receipts_wrong",
    ),
    "a receipt that says too little": (
        lambda s: s.execute(update(Receipt).where(Receipt.node_id == "n-000001").values(seq=9)),  # type: ignore[dict-item, return-value]
        "receipts_wrong",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_reported_once_and_as_what_it_is(full: Session, damage: str) -> None:
    do, kind = DAMAGES[damage]
    with db.writing(full):
        do(full)
    report = verify(full)
    assert report.counts() == {**CLEAN, kind: 1}
    assert not report.is_clean
    assert len(report.findings) == 1


def test_pack_that_never_came_is_a_gap(full: Session) -> None:
    store_batch(full, [SimulatedNode().pack(12)], now=NOON)
    assert verify(full).counts() == {**CLEAN, "packs": 21, "gaps": 1}


def test_pack_that_the_node_declared_lost_is_counted_and_no_fault(full: Session) -> None:
    store_batch(full, [SimulatedNode().pack(13, oldest=13)], now=NOON)
    report = verify(full)
    assert report.counts() == {**CLEAN, "packs": 21, "declared_lost": 2}
    assert report.is_clean
    assert full.scalars(select(Gap.reason)).all() == ["below_oldest"]


def test_counts_of_observations_agree_with_the_observations(full: Session) -> None:
    counted = sum(full.scalars(select(ObservationCount.count)))
    assert counted == full.scalar(select(func.count()).select_from(Observation))


def test_progress_ends_when_all_packs_are_done(full: Session) -> None:
    seen: list[tuple[int, int]] = []
    verify(full, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 20), (20, 20)]
