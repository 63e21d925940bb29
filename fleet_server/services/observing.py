"""From raw readings to observations: which channel, sensor and calibration a reading had, then `measurement.pipeline`.

`make_observations` is the one way: ingest, readings whose time or deployment became known later, and `fleet verify` all go through it.
Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from sqlalchemy import Table, select, tuple_, update
from sqlalchemy.orm import Session

from fleet_server.measurement import pipeline
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.models import (
    Calibration,
    Channel,
    Deployment,
    Lineage,
    Observation,
    ObservationCount,
    Pack,
    RawReading,
)
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.services import bulk
from fleet_server.wire.senml import Reading
from fleet_server.wire.states import QualityFlag

RULE_SET = "gross_range/1"
"""Name of the quality rules in a lineage; their limits are part of the pipeline's version."""

_MAX_DEPTH = 4  # of conversions that need conversions; a circle in a node model ends here
_QUERY_KEYS = 400
_PACKS_AT_ONCE = 1000
_NO_INPUT = -1
_REMEMBERED_NODES = 20_000  # of about 4 KB each

_OBSERVATION_COLUMNS = (
    "datastream_id",
    "sampled_at",
    "value",
    "u",
    "flag",
    "tests",
    "lineage_id",
    "known_from",
    "pack_id",
)


@dataclass(frozen=True, slots=True)
class SampledPack:
    """The readings of one pack with a known time."""

    pack_id: int
    node_id: str
    sampled_s: int
    readings: Sequence[Reading]


@dataclass(frozen=True, slots=True)
class ValidCalibration:
    """One version of a sensor's calibration with the time that it is valid for."""

    id: int
    version: int
    from_s: float
    to_s: float
    parameters: CalibrationParameters


@dataclass(frozen=True, slots=True)
class DeployedChannel:
    """What a key of a node means from–to, with all calibrations of its sensor."""

    key: str
    sensor_id: int
    datastream_id: int
    property: str
    conversion: str
    needs: tuple[tuple[str, str], ...]
    from_s: float
    to_s: float
    calibrations: tuple[ValidCalibration, ...]

    def calibration_at(self, sampled_s: int) -> ValidCalibration | None:
        """The newest version that is valid at that time."""
        valid = [c for c in self.calibrations if c.from_s <= sampled_s < c.to_s]
        return max(valid, key=lambda calibration: calibration.version, default=None)


ChannelBook = Mapping[tuple[str, str], Sequence[DeployedChannel]]
"""Channels by (node id, key), each with all its periods."""

LineageKey = tuple[int, int, str, str, str, str, str, float]
"""sensor, calibration, inputs, conversion, correction, rule set, pipeline version, k"""


@dataclass(frozen=True, slots=True)
class MadeObservation:
    """One observation, not stored yet; `value` and `u` are None when the reading failed."""

    pack_id: int
    key: str
    datastream_id: int
    sampled_s: int
    value: float | None
    u: float | None
    flag: int
    tests: int
    lineage: LineageKey


def load_channels(session: Session, node_ids: Iterable[str]) -> ChannelBook:
    """All channels that these nodes ever had. Two statements."""
    book: dict[tuple[str, str], list[DeployedChannel]] = defaultdict(list)
    rows = session.execute(
        select(
            Deployment.node_id,
            Channel.key,
            Channel.sensor_id,
            Channel.datastream_id,
            Channel.property,
            Channel.conversion,
            Channel.needs,
            Channel.from_at,
            Channel.to_at,
        )
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Deployment.node_id.in_(sorted(set(node_ids))))
        .order_by(Channel.from_at, Channel.id)
    ).all()
    calibrations = _load_calibrations(session, {row.sensor_id for row in rows})
    for row in rows:
        book[row.node_id, row.key].append(
            DeployedChannel(
                key=row.key,
                sensor_id=row.sensor_id,
                datastream_id=row.datastream_id,
                property=row.property,
                conversion=row.conversion,
                needs=tuple(sorted(row.needs.items())),
                from_s=row.from_at.timestamp(),
                to_s=_end_s(row.to_at),
                calibrations=tuple(calibrations[row.sensor_id, row.property]),
            )
        )
    return book


def remembered_channels(session: Session, versions: Mapping[str, int]) -> ChannelBook:
    """Channels of these nodes; read from the database only where this process has not read that version before.

    The caller holds the nodes' receipt rows: what it read there is their current `channels_version`.
    """
    memory = _MEMORIES.setdefault(session.get_bind(), _Memory())
    stale = [node for node, version in versions.items() if memory.versions.get(node) != version]
    if stale:
        if len(memory.versions) > _REMEMBERED_NODES:
            memory.forget()
            stale = list(versions)
        for (node_id, key), channels in load_channels(session, stale).items():
            memory.channels[node_id, key] = channels
        memory.versions |= {node_id: versions[node_id] for node_id in stale}
    return memory.channels


def make_observations(packs: Sequence[SampledPack], book: ChannelBook) -> list[MadeObservation]:
    """Observations of all readings that have a channel with a calibration at their time, in the order of the packs.

    A reading's observation depends on its own pack only, never on the company it is made in.
    """
    items = _items(packs, book)
    if not items:
        return []
    length = len(items)
    # One row more than there are readings: the one that stands for an input that is not there.
    values = np.full(length + 1, np.nan)
    us = np.full(length + 1, np.nan, dtype=np.float32)
    flags = np.full(length + 1, QualityFlag.MISSING, dtype=np.int16)
    tests = np.zeros(length + 1, dtype=np.int32)
    for _, members in sorted(_groups(items).items()):
        observed = _observe(items, members, values=values, us=us, flags=flags, tests=tests)
        values[members], us[members] = observed.value, observed.u
        flags[members], tests[members] = observed.flag, observed.tests
    columns = zip(
        items,
        values[:-1].tolist(),
        us[:-1].tolist(),
        flags[:-1].tolist(),
        tests[:-1].tolist(),
        strict=True,
    )
    return [
        MadeObservation(
            pack_id=item.pack.pack_id,
            key=item.channel.key,
            datastream_id=item.channel.datastream_id,
            sampled_s=item.pack.sampled_s,
            value=None if math.isnan(value) else value,
            u=None if math.isnan(u) else u,
            flag=flag,
            tests=test_bits,
            lineage=_lineage_key(item, items),
        )
        for item, value, u, flag, test_bits in columns
    ]


def store_observations(
    session: Session, made: Sequence[MadeObservation], *, now: datetime
) -> set[tuple[int, str]]:
    """Store observations, their lineage and their counts in the caller's transaction.

    Returns:
        (pack, key) of those that were not stored because their datastream has a value for that instant already.
    """
    firsts: dict[tuple[int, int], MadeObservation] = {}
    doubles: set[tuple[int, str]] = set()
    for observation in made:
        known = firsts.setdefault((observation.datastream_id, observation.sampled_s), observation)
        if known is not observation:
            doubles.add((observation.pack_id, observation.key))
    lineage_ids = lineage_ids_of(session, {observation.lineage for observation in firsts.values()})
    known_s = int(now.timestamp())
    rows = [
        (
            made_one.datastream_id,
            made_one.sampled_s,
            made_one.value,
            made_one.u,
            made_one.flag,
            made_one.tests,
            lineage_ids[made_one.lineage],
            known_s,
            made_one.pack_id,
        )
        for made_one in firsts.values()
    ]
    inserted = bulk.insert_rows(
        session, _table(Observation), _OBSERVATION_COLUMNS, rows, if_absent=True
    )
    if inserted < len(rows):
        for key in _taken(session, firsts):
            double = firsts.pop(key)
            doubles.add((double.pack_id, double.key))
    _count(session, firsts)
    return doubles


def observe_stored(session: Session, *, node_id: str, now: datetime) -> int:
    """Make the observations that stored readings of a node lack although their time and channel are known by now.

    Part of the caller's transaction, which holds the node's receipt row. Safe to repeat. Returns how many were made.
    """
    book = load_channels(session, [node_id])
    if not book:
        return 0
    pack_ids = session.scalars(
        select(Pack.id).where(Pack.node_id == node_id).order_by(Pack.id)
    ).all()
    count = 0
    for some in bulk.chunks(pack_ids, _PACKS_AT_ONCE):
        packs, known_doubles = _stored_packs(session, node_id, some)
        made = make_observations(packs, book)
        made = [one for one in made if (one.pack_id, one.key) not in known_doubles]
        present = _present(session, made)
        missing = [one for one in made if (one.datastream_id, one.sampled_s) not in present]
        doubles = store_observations(session, missing, now=now)
        doubles |= {
            (one.pack_id, one.key)
            for one in made
            if present.get((one.datastream_id, one.sampled_s), one.pack_id) != one.pack_id
        }
        mark_duplicate_instants(session, doubles)
        count += len(missing)
    return count


def mark_duplicate_instants(session: Session, readings: Iterable[tuple[int, str]]) -> None:
    """Note on stored raw readings that their datastream had a value for that instant already."""
    for pack_id, key in sorted(readings):
        session.execute(
            update(RawReading)
            .where(RawReading.pack_id == pack_id, RawReading.channel == key)
            .values(status=DUPLICATE_INSTANT)
        )


def has_observations_from(
    session: Session, datastream_ids: Sequence[int], from_at: datetime
) -> bool:
    """True when one of the datastreams has an observation sampled at `from_at` or later."""
    found = select(Observation.datastream_id).where(
        Observation.datastream_id.in_(datastream_ids), Observation.sampled_at >= from_at
    )
    return session.scalar(found.limit(1)) is not None


def lineage_ids_of(session: Session, keys: Iterable[LineageKey]) -> dict[LineageKey, int]:
    """Ids of these lineages; those that are new are stored in the caller's transaction."""
    wanted = set(keys)
    memory = _MEMORIES.setdefault(session.get_bind(), _Memory())
    known = {key: memory.lineages[key] for key in wanted if key in memory.lineages}
    if len(known) < len(wanted):
        found = _known_lineages(session, wanted - known.keys())
        known |= found
        memory.lineages |= found
    missing = sorted(wanted - known.keys())
    if missing:
        bulk.insert_rows(session, _table(Lineage), _LINEAGE_COLUMNS, missing, if_absent=True)
        # Not remembered yet: this transaction may be rolled back.
        known |= _known_lineages(session, set(missing))
    return known


def stored_lineages(session: Session) -> dict[int, LineageKey]:
    """What every lineage says, by id."""
    columns = [getattr(Lineage, name) for name in _LINEAGE_COLUMNS]
    return {row[-1]: tuple(row[:-1]) for row in session.execute(select(*columns, Lineage.id))}


_LINEAGE_COLUMNS = (
    "sensor_id",
    "calibration_id",
    "inputs",
    "conversion",
    "correction",
    "rule_set",
    "pipeline_version",
    "coverage_factor",
)


def _known_lineages(session: Session, keys: set[LineageKey]) -> dict[LineageKey, int]:
    found: dict[LineageKey, int] = {}
    columns = [getattr(Lineage, name) for name in _LINEAGE_COLUMNS]
    for sensor_ids in bulk.chunks(sorted({key[0] for key in keys}), 5000):
        rows = session.execute(
            select(*columns, Lineage.id).where(Lineage.sensor_id.in_(sensor_ids))
        )
        found |= {tuple(row[:-1]): row[-1] for row in rows if tuple(row[:-1]) in keys}
    return found


class _Memory:
    """What this process has read of one database: channels by version, lineages (which never change)."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.channels: dict[tuple[str, str], Sequence[DeployedChannel]] = {}
        self.lineages: dict[LineageKey, int] = {}

    def forget(self) -> None:
        self.versions.clear()
        self.channels.clear()
        self.lineages.clear()


_MEMORIES: WeakKeyDictionary[Any, _Memory] = WeakKeyDictionary()  # by engine


# ------------------------------------------------------------------------------------------------------------- making


@dataclass(slots=True)
class _Item:
    """One reading on its way: its inputs are positions in the list of items, `_NO_INPUT` when there is none."""

    pack: SampledPack
    channel: DeployedChannel
    calibration: ValidCalibration
    raw: float | None
    reason: str | None
    inputs: tuple[int, ...] = ()
    depth: int = 0


def _items(packs: Sequence[SampledPack], book: ChannelBook) -> list[_Item]:
    items: list[_Item] = []
    for pack in packs:
        positions: dict[str, int] = {}
        for key, raw, reason in pack.readings:
            channel = _channel_at(book, pack.node_id, key, pack.sampled_s)
            calibration = channel.calibration_at(pack.sampled_s) if channel else None
            if channel is not None and calibration is not None:
                positions[key] = len(items)
                items.append(_Item(pack, channel, calibration, raw, reason))
        for position in positions.values():
            item = items[position]
            if item.channel.needs:
                item.inputs = tuple(positions.get(key, _NO_INPUT) for _, key in item.channel.needs)
        for position in positions.values():
            items[position].depth = _depth(items, position)
    return items


def _channel_at(
    book: ChannelBook, node_id: str, key: str, sampled_s: int
) -> DeployedChannel | None:
    for channel in book.get((node_id, key), ()):
        if channel.from_s <= sampled_s < channel.to_s:
            return channel
    return None


def _depth(items: list[_Item], position: int, limit: int = _MAX_DEPTH) -> int:
    inputs = [known for known in items[position].inputs if known != _NO_INPUT]
    if not inputs or limit == 0:
        return 0
    return 1 + max(_depth(items, known, limit - 1) for known in inputs)


def _groups(items: list[_Item]) -> dict[tuple[int, str, str, tuple[str, ...]], list[int]]:
    """Readings that one call can observe together, by (depth, conversion, property, names of inputs)."""
    groups: dict[tuple[int, str, str, tuple[str, ...]], list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        names = tuple(name for name, _ in item.channel.needs)
        group = (item.depth, item.channel.conversion, item.channel.property, names)
        groups[group].append(position)
    return groups


def _observe(
    items: list[_Item],
    members: list[int],
    *,
    values: np.ndarray[Any, Any],
    us: np.ndarray[Any, Any],
    flags: np.ndarray[Any, Any],
    tests: np.ndarray[Any, Any],
) -> pipeline.Observed:
    channel = items[members[0]].channel
    inputs = {}
    for place, (name, _) in enumerate(channel.needs):
        at = np.array([items[member].inputs[place] for member in members])
        inputs[name] = pipeline.Observed(values[at], us[at], flags[at], tests[at])
    calibrations = [items[member].calibration.parameters for member in members]
    is_one = all(calibration == calibrations[0] for calibration in calibrations)
    raws = [items[member].raw for member in members]
    with np.errstate(all="ignore"):  # absurd raw values overflow; what comes of it is judged below
        observed = pipeline.observe(
            channel.conversion,
            [math.nan if raw is None else raw for raw in raws],
            inputs,
            calibrations[0] if is_one else calibrations,
            observed_property=channel.property,
            reasons=[items[member].reason for member in members],
        )
    is_absurd = np.isinf(observed.value) | np.isinf(observed.u)
    if not is_absurd.any():
        return observed
    return pipeline.Observed(
        np.where(is_absurd, np.nan, observed.value),
        np.where(is_absurd, np.float32(np.nan), observed.u),
        np.where(is_absurd, np.int16(QualityFlag.BAD), observed.flag),
        observed.tests,
    )


def _lineage_key(item: _Item, items: list[_Item]) -> LineageKey:
    inputs = ",".join(
        f"{name}={'none' if at == _NO_INPUT else items[at].calibration.id}"
        for (name, _), at in zip(item.channel.needs, item.inputs, strict=False)
    )
    return (
        item.channel.sensor_id,
        item.calibration.id,
        inputs,
        item.channel.conversion,
        "",
        RULE_SET,
        pipeline.VERSION,
        item.calibration.parameters.k,
    )


# ------------------------------------------------------------------------------------------------------------- storing


def _load_calibrations(
    session: Session, sensor_ids: Iterable[int]
) -> dict[tuple[int, str], list[ValidCalibration]]:
    found: dict[tuple[int, str], list[ValidCalibration]] = defaultdict(list)
    for some in bulk.chunks(sorted(sensor_ids), 5000):
        for row in session.scalars(select(Calibration).where(Calibration.sensor_id.in_(some))):
            parameters = CalibrationParameters(
                slope=row.slope,
                offset=row.offset,
                u_slope=row.u_slope,
                u_offset=row.u_offset,
                cov=row.slope_offset_covariance,
                u_abs=row.u_absolute,
                u_rel=row.u_relative,
                k=row.coverage_factor,
            )
            found[row.sensor_id, row.property].append(
                ValidCalibration(
                    row.id,
                    row.version,
                    row.valid_from.timestamp(),
                    _end_s(row.valid_to),
                    parameters,
                )
            )
    return found


def _end_s(end_at: datetime | None) -> float:
    return math.inf if end_at is None else end_at.timestamp()


def _taken(
    session: Session, firsts: Mapping[tuple[int, int], MadeObservation]
) -> list[tuple[int, int]]:
    """Keys whose stored observation is of another pack."""
    present = _present(session, list(firsts.values()))
    return [key for key, pack_id in present.items() if pack_id != firsts[key].pack_id]


def _present(
    session: Session, made: Sequence[MadeObservation]
) -> dict[tuple[int, int], int | None]:
    """Packs of the observations that are stored under the keys of these."""
    present: dict[tuple[int, int], int | None] = {}
    keys = sorted({(one.datastream_id, one.sampled_s) for one in made})
    for some in bulk.chunks(keys, _QUERY_KEYS):
        wanted = [(stream, datetime.fromtimestamp(at, UTC)) for stream, at in some]
        rows = session.execute(
            select(Observation.datastream_id, Observation.sampled_at, Observation.pack_id).where(
                tuple_(Observation.datastream_id, Observation.sampled_at).in_(wanted)
            )
        )
        present |= {(stream, int(at.timestamp())): pack_id for stream, at, pack_id in rows}
    return present


def _count(session: Session, stored: Iterable[tuple[int, int]]) -> None:
    counts: dict[tuple[int, int], int] = defaultdict(int)
    months: dict[int, int] = {}
    for datastream_id, sampled_s in stored:
        if sampled_s not in months:
            at = datetime.fromtimestamp(sampled_s, UTC)
            months[sampled_s] = at.year * 100 + at.month
        counts[datastream_id, months[sampled_s]] += 1
    rows = [(*key, count) for key, count in sorted(counts.items())]
    columns = ("datastream_id", "month", "count")
    bulk.add_to_counts(session, _table(ObservationCount), columns, rows)


def _stored_packs(
    session: Session, node_id: str, pack_ids: Sequence[int]
) -> tuple[list[SampledPack], set[tuple[int, str]]]:
    """Packs with a known time, in the order given, and which of their readings are second ones of their instant.

    Those are among the readings nevertheless: another channel's conversion may need them.
    """
    found: dict[int, tuple[int, list[Reading]]] = {}
    doubles: set[tuple[int, str]] = set()
    rows = session.execute(
        select(
            RawReading.pack_id,
            RawReading.channel,
            RawReading.raw_value,
            RawReading.status,
            RawReading.sampled_at,
        ).where(RawReading.pack_id.in_(pack_ids))
    )
    for pack_id, key, raw_value, status, sampled_at in rows:
        if sampled_at is None:
            continue
        _, readings = found.setdefault(pack_id, (int(sampled_at.timestamp()), []))
        if status == DUPLICATE_INSTANT:
            doubles.add((pack_id, key))
            status = None
        readings.append((key, raw_value, status))
    packs = [
        SampledPack(pack_id, node_id, *found[pack_id]) for pack_id in pack_ids if pack_id in found
    ]
    return packs, doubles


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table
