"""How many values per second a correction makes anew, from stored raw readings to the switch, against the bare reading and writing of its rows.

The bare run reads the same rows of the same database into NumPy, and writes as many: the old versions into the history, new ones in their
place; it is rolled back. Both run in turns. Beside it: the arithmetic alone, in memory, on one core; what the quality tests add to a reading
that comes in batches of a day, and of an hour; one year of one channel, from the order to the moment when a reader sees it; and the most
memory that the process ever had until then, the filling included.
"""

from __future__ import annotations

import resource
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Table, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import Conflict
from fleet_server.measurement import pipeline
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.in_context import Context, judge
from fleet_server.measurement.rules import DEFAULTS
from fleet_server.measurement.streaming import Stream
from fleet_server.measurement.windows import Series
from fleet_server.models import (
    Calibration,
    CalibrationStatus,
    Channel,
    Node,
    Observation,
    ObservationHistory,
    Pack,
    RawReading,
    Revision,
    RevisionStream,
)
from fleet_server.services import bulk, deploying, enrolment, observing, revising
from fleet_server.services.observing import SampledPack
from fleet_server.services.recomputing import StreamRecomputer, Versions
from fleet_server.wire.states import NodeState

MEMORY_GOAL_ROWS_S = 5_000_000
YEAR_GOAL_S = 2.0
MEMORY_GOAL_MB = 500
STREAMING_GOAL_US = 20
_MODEL, _SAMPLE_S = "tree-3", 900
_YEAR = 35_040  # values of a year, every fifteen minutes
_PACKS_AT_ONCE = 5_000
_KEYS = ("r30", "t30", "r60", "t60", "r90", "t90", "bat")
_CORRECTED = "soil_temperature"
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_ROWS_IN_MEMORY = 2_000_000
_ROWS_OF_A_PIECE = 20_000  # its columns stay in a processor's cache
_ROWS_STREAMED = 20_000
_HOUR_ROWS, _DAY_ROWS = 4, 96


def measure(
    *, rows: int = 500_000, rounds: int = 3, database_url: str | None = None
) -> dict[str, Any]:
    """Fill a database, then correct every thermometer as often as there are rounds.

    Args:
        rows: how many values become a new version in each round, about.
        rounds: how many times both run.
        database_url: an empty PostgreSQL database; SQLite in a scratch folder when None.

    Raises:
        Conflict: the database is not empty.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="stadtsensor-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        engine = db.make_engine(database_url or f"sqlite:///{folder / 'bench.sqlite3'}")
        stack.callback(engine.dispose)
        db.upgrade(engine)
        sessions = db.session_factory(engine)
        with sessions() as session:
            if session.scalar(select(Pack.id).limit(1)) is not None:
                raise Conflict("The database for a benchmark must be empty.")
        packs = min(_YEAR, max(rows // 6, 100))
        nodes = max(
            1, round(rows / 6 / packs)
        )  # of each pack three tensions and three temperatures
        _fill(sessions, nodes, packs)
        before_kb = _peak_kb()
        measured = []
        for number in range(rounds):
            bare_s, bare_rows = _bare(sessions)
            own_s, own_rows = _correct(sessions, offset=0.25 * (number + 1))
            measured.append((bare_rows / bare_s, own_rows / own_s, own_rows))
        year_s = _one_channel(sessions)
        peak_kb = _peak_kb()
    measured.sort(key=lambda one: one[1] / one[0])
    limit, figure, changed = measured[len(measured) // 2]
    ratios = [round(own / bare, 3) for bare, own, _ in measured]
    in_memory = _in_memory()
    return {
        "figure": round(figure),
        "unit": "values/s",
        "limit": round(limit),
        "ratio": round(figure / limit, 3),
        "lowest_ratio": ratios[0],
        "highest_ratio": ratios[-1],
        "in_memory_values_s": round(in_memory),
        "in_memory_goal_values_s": MEMORY_GOAL_ROWS_S,
        "streaming_us_by_day": round(_streaming_us(_DAY_ROWS), 1),
        "streaming_us_by_hour": round(_streaming_us(_HOUR_ROWS), 1),
        "streaming_goal_us": STREAMING_GOAL_US,
        "one_channel_values": packs,
        "one_channel_visible_s": round(year_s, 2),
        "one_channel_goal_s": YEAR_GOAL_S,
        "peak_memory_mb": round(peak_kb / 1024),
        "peak_memory_goal_mb": MEMORY_GOAL_MB,
        "memory_grown_mb": round((peak_kb - before_kb) / 1024),
        "values": changed,
        "rounds": rounds,
        "database": "postgresql" if database_url else "sqlite",
    }


def _fill(sessions: sessionmaker[Session], nodes: int, packs: int) -> None:
    """Raw readings and observations as ingest leaves them; the packs' bytes are not looked at by what is measured."""
    end = _BEGIN + timedelta(seconds=_SAMPLE_S * packs)
    for number in range(nodes):
        node_id = f"n-{number + 1:06x}"
        with sessions() as session:
            _deploy(session, node_id, now=end)
            for start in range(0, packs, _PACKS_AT_ONCE):
                _store(session, node_id, start, min(start + _PACKS_AT_ONCE, packs), now=end)


def _deploy(session: Session, node_id: str, *, now: datetime) -> None:
    with db.writing(session):
        session.add(
            Node(
                node_id=node_id,
                label=node_id,
                model=_MODEL,
                state=NodeState.ENROLLED,
                enrolled_at=_BEGIN,
                public_key_sha256=node_id,
            )
        )
        session.flush()
        enrolment.add_companion_rows(session, node_id, _MODEL, now=_BEGIN)
    site = deploying.NewSite(f"{node_id}-site", node_id, "tree", 51.48, 7.22)
    deploying.create_site(session, site, is_public=True, now=now)
    deploying.deploy_node(session, node_id, site_code=site.code, from_at=_BEGIN, now=_BEGIN)


def _store(session: Session, node_id: str, start: int, end: int, *, now: datetime) -> None:
    count = end - start
    seqs = np.arange(start + 1, end + 1)
    times_s = int(_BEGIN.timestamp()) + seqs * _SAMPLE_S
    phase = seqs / 96 * 2 * np.pi
    columns = {
        key: np.round(6000 + 3000 * np.sin(phase / 20))
        if key[0] == "r"
        else np.round(280 + 60 * np.sin(phase))
        for key in _KEYS
    } | {"bat": np.full(count, 3900.0)}
    with db.writing(session):
        ids = bulk.reserve_ids(session, _table(Pack), count)
        now_s = int(now.timestamp())
        bulk.insert_columns(
            session,
            _table(Pack),
            {
                "id": ids,
                "node_id": [node_id] * count,
                "spool": np.full(count, 1),
                "seq": seqs,
                "kind": ["telemetry"] * count,
                "received_at": np.full(count, now_s),
                "stored_at": np.full(count, now_s),
                "claimed_at": times_s,
                "power_up": np.full(count, 1),
                "uptime_ms": seqs * _SAMPLE_S * 1000,
                "body_sha256": [bytes(32)] * count,
                "payload_sha256": [bytes(32)] * count,
                "payload": [b""] * count,
            },
        )
        bulk.insert_columns(
            session,
            _table(RawReading),
            {
                "pack_id": np.tile(ids, len(_KEYS)),
                "channel": [key for key in _KEYS for _ in range(count)],
                "raw_value": np.concatenate([columns[key] for key in _KEYS]),
                "status": [None] * (count * len(_KEYS)),
                "sampled_at": np.tile(times_s, len(_KEYS)),
                "time_estimated": [False] * (count * len(_KEYS)),
            },
        )
        rows = zip(*(columns[key].tolist() for key in _KEYS), strict=True)
        made = observing.make_observations(
            [
                SampledPack(
                    pack_id,
                    node_id,
                    time_s,
                    [(key, raw, None) for key, raw in zip(_KEYS, row, strict=True)],
                )
                for pack_id, time_s, row in zip(ids, times_s.tolist(), rows, strict=True)
            ],
            observing.load_channels(session, [node_id]),
        )
        observing.store_observations(session, made, now=now)


def _streams(session: Session) -> list[int]:
    """Those that a correction of every thermometer concerns."""
    return list(
        session.scalars(
            select(Channel.datastream_id)
            .where(Channel.property.in_((_CORRECTED, "soil_water_tension")))
            .order_by(Channel.datastream_id)
        )
    )


class _Undone(Exception):
    """The bare run leaves nothing behind."""


def _bare(sessions: sessionmaker[Session]) -> tuple[float, int]:
    """Seconds and rows of reading, NumPy and writing alone."""
    rows = 0
    with sessions() as session:
        revision_id = _some_revision(session)
        began_s = time.perf_counter()
        for datastream_id in _streams(session):
            recomputer = StreamRecomputer(session, datastream_id)
            for block in recomputer.blocks():
                raws = recomputer.raw_values(block)
                rows += len(block)
                with suppress(_Undone), db.writing(session):
                    _write(session, datastream_id, revision_id, block, raws)
                    raise _Undone
        return time.perf_counter() - began_s, rows


def _some_revision(session: Session) -> int:
    with db.writing(session):
        revision = Revision(
            kind="software",
            reason="bench",
            author="bench",
            state="done",
            ordered_at=_BEGIN,
            known_at=_BEGIN,
        )
        session.add(revision)
        session.flush()
        return revision.id


def _write(
    session: Session, datastream_id: int, revision_id: int, block: Versions, raws: Any
) -> None:
    length = len(block)
    known_s = int(block.known_s.max()) + 1
    streams = np.full(length, datastream_id)
    bulk.insert_columns(
        session,
        _table(ObservationHistory),
        {
            "datastream_id": streams,
            "sampled_at": block.times_s,
            "known_from": block.known_s,
            "value": block.values,
            "u": block.us,
            "flag": block.flags,
            "tests": block.tests,
            "lineage_id": block.lineage_ids,
            "pack_id": block.pack_ids,
            "known_to": np.full(length, known_s),
            "revision_id": np.full(length, revision_id),
        },
    )
    bulk.update_columns(
        session,
        _table(Observation),
        {
            "datastream_id": streams,
            "sampled_at": block.times_s,
            "value": raws,
            "u": block.us,
            "flag": block.flags,
            "tests": block.tests,
            "lineage_id": block.lineage_ids,
            "known_from": np.full(length, known_s),
        },
        key=("datastream_id", "sampled_at"),
    )


def _correct(sessions: sessionmaker[Session], *, offset: float) -> tuple[float, int]:
    """Seconds and values of a correction of every thermometer."""
    now = datetime.now(UTC).replace(microsecond=0)
    with sessions() as session:
        for sensor_id in set(
            session.scalars(select(Channel.sensor_id).where(Channel.property == _CORRECTED))
        ):
            with db.writing(session):
                _calibrate(session, sensor_id, offset, now)
        with db.writing(session):
            revision_id = revising.order_for_streams(
                session,
                _streams(session),
                kind="calibration",
                reason="bench",
                author="bench",
                now=now,
            )
        began_s = time.perf_counter()
        while revising.advance(session, now=now):
            pass
        seconds = time.perf_counter() - began_s
        changed = session.scalars(
            select(RevisionStream.changed).where(RevisionStream.revision_id == revision_id)
        )
        return seconds, sum(changed)


def _calibrate(session: Session, sensor_id: int, offset: float, now: datetime) -> None:
    last = session.scalars(
        select(Calibration)
        .where(Calibration.sensor_id == sensor_id, Calibration.property == _CORRECTED)
        .order_by(Calibration.version.desc())
        .limit(1)
    ).one()
    last.status = CalibrationStatus.SUPERSEDED
    session.flush()
    session.add(
        Calibration(
            sensor_id=sensor_id,
            property=_CORRECTED,
            version=last.version + 1,
            status=CalibrationStatus.APPROVED,
            kind="linear",
            slope=1.0,
            offset=offset,
            u_absolute=0.1,
            u_relative=0.0,
            valid_from=last.valid_from,
            valid_to=None,
            performed_by="bench",
            reference="bench",
            created_at=now,
        )
    )


def _one_channel(sessions: sessionmaker[Session]) -> float:
    """Seconds from the order to the moment when a reader sees all of one channel's values anew."""
    now = datetime.now(UTC).replace(microsecond=0)
    with sessions() as session:
        channel = session.scalars(
            select(Channel).where(Channel.key == "bat").order_by(Channel.id).limit(1)
        ).one()
        began_s = time.perf_counter()
        with db.writing(session):
            last = session.scalars(
                select(Calibration)
                .where(
                    Calibration.sensor_id == channel.sensor_id,
                    Calibration.property == channel.property,
                )
                .order_by(Calibration.version.desc())
                .limit(1)
            ).one()
            last.status = CalibrationStatus.SUPERSEDED
            session.flush()
            session.add(
                Calibration(
                    sensor_id=channel.sensor_id,
                    property=channel.property,
                    version=last.version + 1,
                    status=CalibrationStatus.APPROVED,
                    kind="linear",
                    slope=1.01,
                    offset=0.0,
                    u_absolute=5.0,
                    u_relative=0.0,
                    valid_from=last.valid_from,
                    valid_to=None,
                    performed_by="bench",
                    reference="bench",
                    created_at=now,
                )
            )
            session.flush()
            revising.order_revision(
                session,
                kind="calibration",
                reason="bench",
                author="bench",
                sensor_id=channel.sensor_id,
                observed_property=channel.property,
                now=now,
            )
        while revising.advance(session, now=now):
            pass
        return time.perf_counter() - began_s


def _in_memory() -> float:
    """Tensions per second: conversion with its thermometer, calibration, uncertainty, flags, and the tests among other values."""
    raw = np.round(np.linspace(500, 30_000, _ROWS_IN_MEMORY))
    factory = CalibrationParameters(u_abs=0.29)
    temperature = pipeline.observe(
        "sixteenths",
        np.full(_ROWS_IN_MEMORY, 318.0),
        {},
        factory,
        observed_property=_CORRECTED,
    )
    values = np.empty(_ROWS_IN_MEMORY)
    began_s = time.perf_counter()
    for start in range(0, _ROWS_IN_MEMORY, _ROWS_OF_A_PIECE):
        rows = slice(start, start + _ROWS_OF_A_PIECE)
        values[rows] = pipeline.observe(
            "watermark_tension",
            raw[rows],
            {
                "temperature": pipeline.Observed(
                    temperature.value[rows],
                    temperature.u[rows],
                    temperature.flag[rows],
                    temperature.tests[rows],
                )
            },
            CalibrationParameters(u_abs=1.5, u_rel=0.06),
            observed_property="soil_water_tension",
        ).value
    times_s = np.arange(_ROWS_IN_MEMORY) * _SAMPLE_S
    judge(Series(times_s, values), DEFAULTS["soil_water_tension"], Context())
    return _ROWS_IN_MEMORY / (time.perf_counter() - began_s)


def _streaming_us(batch_rows: int) -> float:
    """Microseconds for each reading that the tests among other values take when readings come in batches."""
    times_s = np.arange(_ROWS_STREAMED) * _SAMPLE_S
    values = 40.0 + 20.0 * np.sin(times_s / 86_400.0)
    stream = Stream(DEFAULTS["soil_water_tension"])
    began_s = time.perf_counter()
    for start in range(0, _ROWS_STREAMED, batch_rows):
        rows = slice(start, start + batch_rows)
        stream.push(Series(times_s[rows], values[rows]), Context())
    return 1e6 * (time.perf_counter() - began_s) / _ROWS_STREAMED


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table
