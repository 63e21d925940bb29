"""`fleet verify` finds each kind of damage, and calls it what it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from databases import Databases, hurried_engine
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import Column, Delete, Table, Update, delete, func, insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.models import (
    Anchor,
    Base,
    Calibration,
    Channel,
    Counter,
    Deployment,
    Event,
    ExternalImport,
    Gap,
    Lineage,
    Observation,
    ObservationCount,
    Outbox,
    Pack,
    Quarantine,
    RawReading,
    Receipt,
)
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night

CLEAN = {
    "packs": 30,
    "gaps": 0,
    "declared_lost": 4,
    "duplicates": 0,
    "readings_without_observation": 0,
    "packs_damaged": 0,
    "receipts_wrong": 0,
    "observations_not_reproducible": 0,
    "audit_chain_ok": True,
}
NODE, OTHER = "n-000001", "n-000002"
LAST = 18
FAILED, UNTIMED, SECOND, EVENT, UNTIMED_EVENT, UNREADABLE = 7, 8, 9, 11, 12, 14
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Kept:
    """A database, and all its rows as they are before a test."""

    sessions: sessionmaker[Session]
    rows: dict[Table, list[dict[str, Any]]]

    def restore(self) -> None:
        with self.sessions() as session, db.writing(session):
            for table in reversed(self.rows):
                session.execute(delete(table))
            for table, rows in self.rows.items():
                if rows:
                    session.execute(insert(table), rows)


@pytest.fixture(
    scope="module",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgresql)],
)
def kept(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """Made once for all tests of this file: they damage it by the hundred."""
    source: Databases = request.getfixturevalue(
        "sqlite_databases" if request.param == "sqlite" else "postgresql_server"
    )
    with source.fresh() as url:
        engine = hurried_engine(url)
        sessions = db.session_factory(engine)
        with sessions() as session:
            _live(session)
            rows = {
                table: [dict(row) for row in session.execute(select(*_written(table))).mappings()]
                for table in Base.metadata.sorted_tables
            }
        yield Kept(sessions, rows)
        engine.dispose()


def _written(table: Table) -> list[Column[Any]]:
    """Columns that are not computed by the database itself."""
    return [column for column in table.columns if column.computed is None]


@pytest.fixture
def full(kept: Kept) -> Iterator[Session]:
    """What `_live` leaves."""
    with kept.sessions() as session:
        yield session
    kept.restore()


def _live(session: Session) -> None:
    """Two nodes that have been through everything: failed readings, estimated times, events, a loss, a quarantined pack."""
    for node_id in (NODE, OTHER):
        deployed_node(session, node_id)
        node = SimulatedNode(node_id=node_id)
        batch = [node.pack(seq) for seq in range(1, 7)]
        batch.append(node.pack(FAILED, readings={**node.readings, "t30": "crc", "r60": "open"}))
        batch.append(node.pack(UNTIMED, knows_time=False))
        batch.append(node.pack(SECOND, at_s=NOON_S + 900))
        batch.append(node.pack(10))
        batch.append(node.event(EVENT, "crash", {"cause": "wdt", "heap": 31_000}))
        batch.append(node.event(UNTIMED_EVENT, "reset", {"cause": "power"}, knows_time=False))
        batch.append(node.pack(13, knows_time=False))
        batch.append(node.pack(UNREADABLE, at_s=NOON_S + 3 * 86_400))
        batch += [node.pack(LAST, oldest=17), node.pack(17, oldest=17)]
        store_batch(session, batch, now=NOON)
        store_batch(session, [node.state(at_s=NOON_S + 9000)], now=NOON)


@pytest.mark.also_on_postgresql
def test_untouched_database_is_clean(full: Session) -> None:
    report = verify(full)
    assert report.counts() == CLEAN
    assert report.is_clean
    assert report.findings == []


# --- one row is damaged


@dataclass(frozen=True)
class Damage:
    """One changed row, and as what it is to be found."""

    column: str
    """`table.column`, or `table.*` for a row that is gone or was made up."""
    what: str
    do: Callable[[Session], Any]
    kind: str
    count: int = 1
    declared_lost: int = 4

    def __str__(self) -> str:
        return f"{self.column} {self.what}"


def _pack_id(session: Session, seq: int = 1) -> int:
    where = (Pack.node_id == NODE) & (Pack.seq == seq)
    return session.scalars(select(Pack.id).where(where)).one()


def _pack(of: int = 1, **columns: Any) -> Callable[[Session], Any]:
    return lambda s: s.execute(update(Pack).where(Pack.id == _pack_id(s, of)).values(**columns))


def _flip(column: str, at: int) -> Callable[[Session], Any]:
    def flip(session: Session) -> None:
        where = Pack.id == _pack_id(session)
        data = bytearray(session.scalars(select(getattr(Pack, column)).where(where)).one())
        data[at] ^= 1
        session.execute(update(Pack).where(where).values({column: bytes(data)}))

    return flip


def _reading(statement: Update | Delete, session: Session, of: int = 1, key: str = "r30") -> None:
    where = (RawReading.pack_id == _pack_id(session, of)) & (RawReading.channel == key)
    session.execute(statement.where(where))


def _raw(of: int = 1, key: str = "r30", **columns: Any) -> Callable[[Session], Any]:
    return lambda s: _reading(update(RawReading).values(**columns), s, of, key)


def _event(of: int = EVENT, **columns: Any) -> Callable[[Session], Any]:
    return lambda s: s.execute(
        update(Event).where(Event.pack_id == _pack_id(s, of)).values(**columns)
    )


def _an_observation(session: Session) -> Any:
    """One of tension, which needs the temperature of its depth."""
    of_pack = Observation.pack_id == _pack_id(session, 2)
    return session.scalars(
        select(Observation).where(of_pack).order_by(Observation.datastream_id)
    ).first()


def _observed(**columns: Any) -> Callable[[Session], Any]:
    def change(session: Session) -> None:
        row = _an_observation(session)
        where = (Observation.datastream_id == row.datastream_id) & (
            Observation.sampled_at == row.sampled_at
        )
        session.execute(update(Observation).where(where).values(**columns))

    return change


def _name_another_lineage(session: Session) -> None:
    used = select(Observation.lineage_id).where(
        Observation.datastream_id == _an_observation(session).datastream_id
    )
    other = session.scalars(select(Lineage.id).where(Lineage.id.not_in(used))).first()
    _observed(lineage_id=other)(session)


def _name_another_pack(session: Session) -> None:
    _observed(pack_id=_pack_id(session, 3))(session)


def _move_to_another_datastream(session: Session) -> None:
    free = session.scalars(
        select(Observation.datastream_id).order_by(Observation.datastream_id.desc())
    ).first()
    _observed(datastream_id=free, sampled_at=NOON + YEAR)(session)


def _forget_observation(session: Session) -> None:
    session.delete(_an_observation(session))
    session.flush()


def _invent_observation(session: Session) -> None:
    row = _an_observation(session)
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


def _lineage(**columns: Any) -> Callable[[Session], Any]:
    return lambda s: s.execute(
        update(Lineage).where(Lineage.id == _an_observation(s).lineage_id).values(**columns)
    )


def _name_an_import(session: Session) -> None:
    """Let a node's lineage say that somebody else gave the value."""
    texts = ("source", "method", "instrument", "report_number", "note", "file_name")
    given = ExternalImport(
        **dict.fromkeys((*texts, "withdrawn_reason"), ""),
        kind="hand",
        content=b"",
        content_sha256=hashlib.sha256(b"").hexdigest(),
        rules={},
        reader_version="",
        values_count=0,
        author="",
        imported_at=NOON,
    )
    session.add(given)
    session.flush()
    _lineage(sensor_id=None, calibration_id=None, import_id=given.id)(session)


def _another(column: str) -> Callable[[Session], Any]:
    """Let a lineage name another sensor or calibration."""

    def change(session: Session) -> None:
        own = session.get_one(Lineage, _an_observation(session).lineage_id)
        values = session.scalars(select(getattr(Lineage, column)).distinct()).all()
        _lineage(**{column: next(one for one in values if one != getattr(own, column))})(session)

    return change


def _calibration(property_name: str, **columns: Any) -> Callable[[Session], Any]:
    def change(session: Session) -> None:
        row = session.scalars(
            select(Calibration).where(Calibration.property == property_name)
        ).first()
        assert row is not None
        session.execute(update(Calibration).where(Calibration.id == row.id).values(**columns))

    return change


def _count(**columns: Any) -> Callable[[Session], Any]:
    return lambda s: s.execute(
        update(ObservationCount)
        .where(ObservationCount.datastream_id == _an_observation(s).datastream_id)
        .values(**columns)
    )


def _of_node(model: Any, **columns: Any) -> Callable[[Session], Any]:
    return lambda s: s.execute(update(model).where(model.node_id == NODE).values(**columns))


def _outbox(kind: str, **columns: Any) -> Callable[[Session], Any]:
    where = (Outbox.kind == kind) & (Outbox.key == NODE)
    return lambda s: s.execute(update(Outbox).where(where).values(**columns))


def _delete(statement: Delete) -> Callable[[Session], Any]:
    return lambda s: s.execute(statement)


PACKS, SEEN, RECEIPTS = "packs_damaged", "observations_not_reproducible", "receipts_wrong"
LOST, GAPS = "readings_without_observation", "gaps"

DAMAGES = [
    Damage("pack.payload", "body", _flip("payload", -1), PACKS),
    Damage("pack.payload", "envelope", _flip("payload", 5), PACKS),
    Damage("pack.payload_sha256", "", _flip("payload_sha256", 0), PACKS),
    Damage("pack.body_sha256", "", _flip("body_sha256", 0), PACKS),
    Damage("pack.node_id", "", _pack(node_id=OTHER, spool=7), PACKS),
    Damage("pack.spool", "", _pack(spool=7), PACKS),
    Damage("pack.seq", "", _pack(seq=99), PACKS),
    Damage("pack.kind", "", _pack(kind="event"), PACKS),
    Damage("pack.claimed_at", "moved", _pack(claimed_at=NOON), PACKS),
    Damage("pack.claimed_at", "forgotten", _pack(claimed_at=None), PACKS),
    Damage("pack.claimed_at", "made up", _pack(UNTIMED, claimed_at=NOON), PACKS),
    Damage("pack.power_up", "", _pack(power_up=7), PACKS),
    Damage("pack.power_up", "of an untimed one", _pack(UNTIMED, power_up=7), PACKS),
    Damage("pack.uptime_ms", "", _pack(uptime_ms=7), PACKS),
    Damage("pack.uptime_ms", "of an untimed one", _pack(UNTIMED, uptime_ms=7), PACKS),
    Damage("pack.received_at", "after it was stored", _pack(received_at=NOON + YEAR), PACKS),
    Damage("pack.received_at", "before it was sampled", _pack(received_at=NOON - YEAR), PACKS),
    Damage("pack.stored_at", "after its observations", _pack(stored_at=NOON + YEAR), PACKS),
    Damage("pack.stored_at", "before it was received", _pack(stored_at=NOON - YEAR), PACKS),
    Damage("raw_reading.raw_value", "", _raw(raw_value=2001), PACKS),
    Damage("raw_reading.raw_value", "made up", _raw(FAILED, "r60", raw_value=1), PACKS),
    Damage("raw_reading.status", "failed", _raw(status="crc"), PACKS),
    Damage("raw_reading.status", "another reason", _raw(FAILED, "r60", status="crc"), PACKS),
    Damage("raw_reading.status", "second", _raw(status="duplicate_instant"), PACKS),
    Damage("raw_reading.status", "not second", _raw(SECOND, status=None), PACKS),
    Damage("raw_reading.sampled_at", "moved", _raw(sampled_at=NOON), PACKS),
    Damage("raw_reading.sampled_at", "forgotten", _raw(sampled_at=None), PACKS),
    Damage("raw_reading.sampled_at", "of an untimed one", _raw(UNTIMED, sampled_at=NOON), PACKS),
    Damage("raw_reading.time_estimated", "", _raw(time_estimated=True), PACKS),
    Damage("raw_reading.time_estimated", "not", _raw(UNTIMED, time_estimated=False), PACKS),
    Damage("raw_reading.time_interval_s", "made up", _raw(time_interval_s=5), PACKS),
    Damage("raw_reading.time_interval_s", "changed", _raw(UNTIMED, time_interval_s=5), PACKS),
    Damage("raw_reading.time_interval_s", "lost", _raw(UNTIMED, time_interval_s=None), PACKS),
    Damage("raw_reading.channel", "", _raw(channel="r99"), PACKS),
    Damage("raw_reading.pack_id", "", lambda s: _raw(pack_id=_pack_id(s, EVENT))(s), PACKS, 2),
    Damage("raw_reading.*", "gone", lambda s: _reading(delete(RawReading), s), PACKS),
    Damage("event.name", "", _event(name="boot"), PACKS),
    Damage("event.details", "", _event(details=[["cause", "wdt"], ["heap", 31_001]]), PACKS),
    Damage("event.happened_at", "", _event(happened_at=NOON), PACKS),
    Damage("event.happened_at", "forgotten", _event(happened_at=None), PACKS),
    Damage("event.happened_at", "of an untimed one", _event(UNTIMED_EVENT, happened_at=NOON), PACKS),
    Damage("event.node_id", "", _event(node_id=OTHER), PACKS),
    Damage("event.pack_id", "", lambda s: _event(pack_id=_pack_id(s))(s), PACKS, 2),
    Damage("event.*", "gone", _delete(delete(Event).where(Event.name == "crash", Event.node_id == NODE)), PACKS),
    Damage("anchor.utc_at", "", _of_node(Anchor, utc_at=NOON), PACKS),
    Damage("anchor.uptime_ms", "", _of_node(Anchor, uptime_ms=1), PACKS),
    Damage("anchor.power_up", "", _of_node(Anchor, power_up=1), PACKS),
    Damage("anchor.node_id", "", _of_node(Anchor, node_id=OTHER, uptime_ms=1), PACKS),
    Damage("anchor.*", "gone", _delete(delete(Anchor).where(Anchor.node_id == NODE)), PACKS),
    Damage("quarantine.seq", "", _of_node(Quarantine, seq=99), PACKS),
    Damage("quarantine.seq", "forgotten", _of_node(Quarantine, seq=None), PACKS),
    Damage("quarantine.spool", "", _of_node(Quarantine, spool=99), PACKS),
    Damage("quarantine.node_id", "", _of_node(Quarantine, node_id=OTHER), PACKS),
    Damage("quarantine.kind", "", _of_node(Quarantine, kind="state"), PACKS),
    Damage("quarantine.payload", "", _of_node(Quarantine, payload=b"\x80"), PACKS),
    Damage("quarantine.payload_sha256", "", _of_node(Quarantine, payload_sha256=b"\0" * 32), PACKS),
    Damage("quarantine.*", "gone", _delete(delete(Quarantine).where(Quarantine.node_id == NODE)), GAPS),
    Damage("observation.value", "", _observed(value=12.5), SEEN),
    Damage("observation.value", "forgotten", _observed(value=None), SEEN),
    Damage("observation.u", "", _observed(u=0.5), SEEN),
    Damage("observation.flag", "", _observed(flag=3), SEEN),
    Damage("observation.tests", "", _observed(tests=2), SEEN),
    Damage("observation.lineage_id", "", _name_another_lineage, SEEN),
    Damage("observation.pack_id", "another", _name_another_pack, SEEN),
    Damage("observation.pack_id", "none", _observed(pack_id=None), SEEN),
    Damage("observation.known_from", "before its pack", _observed(known_from=NOON - YEAR), SEEN),
    Damage("observation.sampled_at", "", _observed(sampled_at=NOON + YEAR), SEEN),
    Damage("observation.datastream_id", "", _move_to_another_datastream, SEEN),
    Damage("observation.*", "gone", _forget_observation, LOST),
    Damage("observation.*", "made up", _invent_observation, SEEN),
    Damage("lineage.pipeline_version", "", _lineage(pipeline_version="0"), SEEN),
    Damage("lineage.rule_set", "", _lineage(rule_set="none"), SEEN),
    Damage("lineage.conversion", "", _lineage(conversion="none"), SEEN),
    Damage("lineage.correction", "", _lineage(correction="some"), SEEN),
    Damage("lineage.inputs", "", _lineage(inputs="temperature=1"), SEEN),
    Damage("lineage.coverage_factor", "", _lineage(coverage_factor=3.0), SEEN),
    Damage("lineage.calibration_id", "", _another("calibration_id"), SEEN),
    Damage("lineage.sensor_id", "", _another("sensor_id"), SEEN),
    Damage("lineage.import_id", "", _name_an_import, SEEN),
    Damage("calibration.offset", "", _calibration("soil_water_tension", offset=0.5), SEEN),
    Damage("calibration.slope", "", _calibration("battery_voltage", slope=1.5), SEEN),
    Damage("calibration.offset", "that others need", _calibration("soil_temperature", offset=0.5), SEEN),
    Damage("calibration.u_absolute", "", _calibration("battery_voltage", u_absolute=0.5), SEEN),
    Damage("calibration.u_relative", "", _calibration("battery_voltage", u_relative=0.5), SEEN),
    Damage("calibration.u_slope", "", _calibration("battery_voltage", u_slope=0.5), SEEN),
    Damage("calibration.u_offset", "", _calibration("battery_voltage", u_offset=500.0), SEEN),
    Damage("calibration.curve", "", _calibration("battery_voltage", curve=0.5), SEEN),
    Damage("calibration.u_curve", "", _calibration("battery_voltage", u_curve=0.5), SEEN),
    Damage("calibration.u_drift_absolute", "", _calibration("battery_voltage", u_drift_absolute=500.0), SEEN),
    Damage("calibration.u_drift_relative", "", _calibration("battery_voltage", u_drift_relative=5.0), SEEN),
    Damage("calibration.coverage_factor", "", _calibration("battery_voltage", coverage_factor=3), SEEN),
    Damage("observation_count.count", "", _count(count=7), SEEN),
    Damage("observation_count.month", "", _count(month=202001), SEEN, 2),
    Damage("observation_count.*", "gone", lambda s: s.execute(delete(ObservationCount).where(ObservationCount.datastream_id == _an_observation(s).datastream_id)), SEEN),
    Damage("observation_count.*", "made up", lambda s: s.execute(insert(ObservationCount).values(datastream_id=_an_observation(s).datastream_id, month=202001, count=1)), SEEN),
    Damage("gap.*", "gone", _delete(delete(Gap).where(Gap.node_id == NODE)), GAPS, 2, 2),
    Damage("gap.to_seq", "narrowed", _of_node(Gap, to_seq=15), GAPS, 1, 3),
    Damage("gap.from_seq", "narrowed", _of_node(Gap, from_seq=16), GAPS, 1, 3),
    Damage("gap.to_seq", "widened", _of_node(Gap, to_seq=17), GAPS),
    Damage("gap.to_seq", "widened far", _of_node(Gap, to_seq=2**40), GAPS),
    Damage("gap.from_seq", "widened", _of_node(Gap, from_seq=13), GAPS),
    Damage("gap.from_seq", "below one", _of_node(Gap, from_seq=0), GAPS),
    Damage("gap.state", "", _of_node(Gap, state="open"), GAPS, 2, 2),
    Damage("receipt.seq", "too much", _of_node(Receipt, seq=LAST + 1), RECEIPTS),
    Damage("receipt.seq", "too little", _of_node(Receipt, seq=LAST - 1), RECEIPTS),
    Damage("receipt.seq", "within a gap", _of_node(Receipt, seq=15), RECEIPTS),
    Damage("receipt.seq", "nothing", _of_node(Receipt, seq=0), RECEIPTS),
    Damage("receipt.spool", "", _of_node(Receipt, spool=7), RECEIPTS),
    Damage("receipt.spool", "none", _of_node(Receipt, spool=0, seq=0), RECEIPTS),
    Damage("receipt.highest_seq", "too much", _of_node(Receipt, highest_seq=LAST + 1), RECEIPTS),
    Damage("receipt.highest_seq", "too little", _of_node(Receipt, highest_seq=LAST - 1), RECEIPTS),
    Damage("receipt.*", "gone", _delete(delete(Receipt).where(Receipt.node_id == NODE)), RECEIPTS),
    Damage("counter.count", "of packs", _of_node(Counter, count=7), PACKS),
    Damage("counter.*", "gone", _delete(delete(Counter).where(Counter.node_id == NODE)), PACKS),
    Damage("outbox.*", "gone", _delete(delete(Outbox).where(Outbox.kind == "receipt", Outbox.key == NODE)), RECEIPTS),
    Damage("outbox.*", "desired gone", _delete(delete(Outbox).where(Outbox.kind == "desired", Outbox.key == NODE)), RECEIPTS),
    Damage("outbox.version", "", _outbox("receipt", version=-1), RECEIPTS),
    Damage("outbox.published_version", "", _outbox("receipt", published_version=99), RECEIPTS),
    Damage("outbox.claimed_until", "", _outbox("receipt", claimed_until=datetime(2100, 1, 1, tzinfo=UTC)), RECEIPTS),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_damage_is_reported_once_and_as_what_it_is(full: Session, damage: Damage) -> None:
    with db.writing(full):
        damage.do(full)
    report = verify(full)
    expected = {damage.kind: damage.count, "declared_lost": damage.declared_lost}
    assert report.counts() == {**CLEAN, **expected}, report.findings
    assert not report.is_clean
    # A row under another key is missing at one place and too much at another.
    assert len(report.findings) in (1, damage.count)


UNSEEN = {
    "pack.id", "quarantine.id", "calibration.id", "lineage.id",  # what other rows refer to
    "calibration.sensor_id", "calibration.property", "calibration.valid_from", "calibration.valid_to",  # below
    "calibration.status",  # below
    "calibration.version", "calibration.kind", "calibration.performed_by", "calibration.reference",
    "calibration.created_at", "calibration.slope_offset_covariance",  # 0 without u_slope and u_offset: nothing else fits
    "calibration.offset_curve_covariance", "calibration.slope_curve_covariance",  # 0 without u_curve
    # The record beside the numbers; of an approved one the certificate and the audit log say it, too.
    "calibration.drift_due_at", "calibration.degrees_of_freedom", "calibration.fit", "calibration.performed_at", "calibration.procedure",
    "calibration.environment", "calibration.previous_id", "calibration.author", "calibration.edited_by",
    "calibration.approved_by", "calibration.approved_at", "calibration.withdrawn_by", "calibration.withdrawn_at",
    "calibration.withdrawn_reason", "calibration.certificate", "calibration.certificate_sha256",
    "gap.node_id", "gap.spool",  # a row that is gone, and one made up
    "gap.reason", "gap.noticed_at",
    "quarantine.reason", "quarantine.sentence", "quarantine.received_at", "quarantine.last_received_at",
    "quarantine.times_received",
    "receipt.node_id", "receipt.channels_version", "receipt.moved_at",
    "observation_count.datastream_id",
    "counter.name", "counter.node_id",
    "outbox.kind", "outbox.key", "outbox.changed_at",
}  # fmt: skip
"""Columns that nothing else in the database says too (docs/decisions/0024), and keys."""

TABLES = (
    Pack, RawReading, Event, Anchor, Quarantine, Observation, Lineage, Calibration, ObservationCount, Gap, Receipt, Outbox,
    Counter,
)  # fmt: skip


def test_every_column_of_what_was_received_and_made_of_it_is_damaged_once_or_known_to_be_unseen() -> (
    None
):
    columns = {
        f"{model.__tablename__}.{column.key}"
        for model in TABLES
        for column in model.__table__.columns
    }
    damaged = {damage.column for damage in DAMAGES}
    assert columns - damaged == UNSEEN
    assert {f"{model.__tablename__}.*" for model in TABLES} - damaged == {
        # Others refer to them: the database keeps them.
        "pack.*", "lineage.*", "calibration.*",
    }  # fmt: skip


# --- what people enter

ENTERED = {
    "which sensor is calibrated": (Calibration, {"sensor_id": 1}),
    "which property is calibrated": (Calibration, {"property": "none"}),
    "since when a calibration is valid": (Calibration, {"valid_from": NOON + YEAR}),
    "until when a calibration is valid": (Calibration, {"valid_to": NOON - YEAR}),
    "whether a calibration counts": (Calibration, {"status": "withdrawn"}),
    "which key a channel has": (Channel, {"key": "r99"}),
    "which sensor a channel has": (Channel, {"sensor_id": 2}),
    "which datastream a channel fills": (Channel, {"datastream_id": 2}),
    "how a channel is converted": (Channel, {"conversion": "linear"}),
    "what a channel needs": (Channel, {"needs": {"temperature": "t90"}}),
    "since when a channel is": (Channel, {"from_at": NOON + YEAR}),
    "until when a channel is": (Channel, {"to_at": NOON - timedelta(days=1)}),
    "whose deployment it is": (Deployment, {"node_id": OTHER}),
}


@pytest.mark.parametrize("what", ENTERED)
def test_change_of_what_people_entered_is_noticed_by_what_it_made(full: Session, what: str) -> None:
    model, columns = ENTERED[what]
    with db.writing(full):
        if model is Deployment:
            full.execute(
                update(Deployment).where(Deployment.node_id == OTHER).values(to_at=NOON + YEAR)
            )
        first = select(func.min(model.id)).scalar_subquery()
        if model is Calibration:
            first = select(func.max(model.id)).scalar_subquery()
        full.execute(update(model).where(model.id == first).values(**columns))
    report = verify(full)
    assert not report.is_clean
    assert report.gaps == report.receipts_wrong == report.duplicates == 0


# --- what was lost


def _ranges(session: Session) -> list[tuple[int, int]]:
    session.expire_all()
    return sorted((gap.from_seq, gap.to_seq) for gap in session.scalars(select(Gap)))


@pytest.mark.also_on_postgresql
def test_pack_that_never_came_is_a_gap(full: Session) -> None:
    store_batch(full, [SimulatedNode().pack(LAST + 2)], now=NOON)
    assert verify(full).counts() == {**CLEAN, "packs": 31, "gaps": 1}


def test_receipt_that_ends_within_a_hole_is_wrong_beside_the_gap(full: Session) -> None:
    store_batch(full, [SimulatedNode().pack(LAST + 4)], now=NOON)
    with db.writing(full):
        _of_node(Receipt, seq=LAST + 2)(full)
    assert verify(full).counts() == {**CLEAN, "packs": 31, "gaps": 3, "receipts_wrong": 1}


def test_pack_that_the_node_declared_lost_is_counted_and_no_fault(full: Session) -> None:
    store_batch(full, [SimulatedNode().pack(LAST + 3, oldest=LAST + 3)], now=NOON)
    report = verify(full)
    assert report.counts() == {**CLEAN, "packs": 31, "declared_lost": 6}
    assert report.is_clean


@pytest.mark.parametrize("said_by", ["pack", "state"])
def test_gap_row_that_is_gone_is_missed_and_the_receipt_that_ends_with_it_is_not_blamed(
    full: Session, said_by: str
) -> None:
    node = SimulatedNode()
    oldest = LAST + 4
    store_batch(full, [node.pack(LAST + 6, oldest=oldest if said_by == "pack" else 17)], now=NOON)
    if said_by == "state":
        # Nothing keeps a state's bytes; what the node said last is a hint.
        said = node.state(spool=node.spool, oldest=oldest, newest=LAST + 6)
        store_batch(full, [said], now=NOON)
    assert full.get_one(Receipt, NODE).seq == LAST + 3
    assert verify(full).counts() == {**CLEAN, "packs": 31, "declared_lost": 7, "gaps": 2}
    with db.writing(full):
        full.execute(delete(Gap).where(Gap.from_seq == LAST + 1))
    assert verify(full).counts() == {**CLEAN, "packs": 31, "gaps": 5}


def test_receipted_number_that_is_nowhere_any_more_is_a_gap_and_the_receipt_is_not_blamed(
    full: Session,
) -> None:
    node = SimulatedNode()
    unreadable = node.pack(LAST + 1, at_s=NOON_S + 3 * 86_400)
    store_batch(full, [unreadable, node.pack(LAST + 2)], now=NOON)
    with db.writing(full):
        full.execute(delete(Quarantine).where(Quarantine.seq == LAST + 1))
    report = verify(full)
    assert report.counts() == {**CLEAN, "packs": 31, "gaps": 1}
    assert report.findings[0].endswith("although the receipt says so, the first is 19.")


def test_gap_row_that_reaches_into_what_is_still_to_come_is_found(full: Session) -> None:
    store_batch(full, [SimulatedNode().pack(LAST + 9, oldest=LAST + 4)], now=NOON)
    assert verify(full).counts() == {**CLEAN, "packs": 31, "declared_lost": 7, "gaps": 5}
    with db.writing(full):
        full.execute(update(Gap).where(Gap.from_seq == LAST + 1).values(to_seq=LAST + 5))
    assert verify(full).counts() == {**CLEAN, "packs": 31, "declared_lost": 7, "gaps": 6}


# --- the rest


@pytest.mark.also_on_postgresql
def test_many_times_that_their_anchor_does_not_give_are_one_fault_and_a_single_one_is_its_packs(
    full: Session,
) -> None:
    with db.writing(full):
        _of_node(Anchor, utc_at=NOON)(full)
    (finding,) = verify(full).findings
    assert (
        finding
        == "The anchors of node n-000001's power-up 36865 do not give the times of its 3 packs."
    )
    with db.writing(full):
        _of_node(Anchor, utc_at=NOON + timedelta(seconds=9000))(full)
        _raw(UNTIMED, sampled_at=NOON)(full)
    (finding,) = verify(full).findings
    assert finding.endswith("sequence 8) was not sampled when its readings say.")


def test_changed_calibration_is_one_fault_however_many_values_need_it(full: Session) -> None:
    with db.writing(full):
        _calibration("soil_temperature", offset=0.5)(full)
    (finding,) = verify(full).findings
    assert finding.endswith("gives none of its 11 observations.")


@pytest.mark.also_on_postgresql
def test_counts_of_observations_agree_with_the_observations(full: Session) -> None:
    counted = sum(full.scalars(select(ObservationCount.count)))
    assert counted == full.scalar(select(func.count()).select_from(Observation))


def test_progress_ends_when_all_packs_are_done(full: Session) -> None:
    seen: list[tuple[int, int]] = []
    verify(full, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(15, 30), (30, 30)]
