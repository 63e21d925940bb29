"""From raw readings to observations: which channel, sensor and calibration a reading had, then `measurement.pipeline`.

`make_observations` is the one way: ingest, readings whose time or deployment became known later, and `fleet verify` all go through it.
Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table, select, tuple_, update
from sqlalchemy.orm import Session

from fleet_server.measurement import drift, pipeline
from fleet_server.measurement.calibration import CalibrationParameters
from fleet_server.measurement.drift import Correction
from fleet_server.measurement.quality import GrossRange
from fleet_server.models import (
    IN_FORCE,
    Calibration,
    Channel,
    CorrectionStatus,
    Deployment,
    DriftCorrection,
    Lineage,
    Observation,
    ObservationCount,
    Pack,
    RawReading,
)
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.services import aggregated_streams, bulk, own_ranges
from fleet_server.services.binary_copy import Column
from fleet_server.wire.senml import Reading
from fleet_server.wire.states import QualityFlag

_MAX_DEPTH = 4  # of conversions that need conversions; a circle in a node model ends here
_QUERY_KEYS = 400
_PACKS_AT_ONCE = 1000
_MONTHS = 1_000_000  # more than any month, as `month_of` has it
NO_INPUT = -1  # the last row, which is empty
_REMEMBERED_NODES = 20_000  # of about 8 KB each
_REMEMBERED_LAYOUTS = 8  # of one node: its packs are alike but for a probe that comes or goes


IndexArray = NDArray[np.intp]


class SampledPack(NamedTuple):
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
class ValidCorrection:
    """What is put right of a sensor's values between two visits, in one version."""

    id: int
    version: int
    correction: Correction

    def covers(self, sampled_s: int) -> bool:
        """The later visit left the probe clean and adjusted: what is sampled then is right already."""
        return self.correction.from_s <= sampled_s < self.correction.to_s


@dataclass(frozen=True, slots=True)
class Assumed:
    """A calibration that is not in force, taken as if it were from then on."""

    calibration: Calibration
    from_at: datetime


@dataclass(frozen=True, slots=True)
class DeployedChannel:
    """What a key of a node means from–to, with all calibrations and corrections of its sensor."""

    key: str
    sensor_id: int
    datastream_id: int
    property: str
    conversion: str
    needs: tuple[tuple[str, str], ...]
    from_s: float
    to_s: float
    calibrations: tuple[ValidCalibration, ...]
    corrections: tuple[ValidCorrection, ...] = ()
    own_range: GrossRange | None = None
    """What its values are judged by; None: their property's."""

    def calibration_at(self, sampled_s: int) -> ValidCalibration | None:
        """The newest version that is valid at that time."""
        valid = [c for c in self.calibrations if c.from_s <= sampled_s < c.to_s]
        return max(valid, key=lambda calibration: calibration.version, default=None)

    def correction_at(self, sampled_s: int) -> ValidCorrection | None:
        """The newest version that covers that time."""
        covering = [one for one in self.corrections if one.covers(sampled_s)]
        return max(covering, key=lambda correction: correction.version, default=None)


LineageKey = tuple[int, int, str, str, str, str, str, float]
"""sensor, calibration, inputs, conversion, correction, rule set, pipeline version, k"""


class MadeObservation(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Observations:
    """Observations as columns, not stored yet; `values` and `us` are NaN where the reading failed. Iterates over its rows."""

    pack_ids: NDArray[np.int64]
    keys: NDArray[np.object_]
    datastream_ids: NDArray[np.int64]
    times_s: NDArray[np.int64]
    values: NDArray[np.float64]
    us: NDArray[np.float32]
    flags: NDArray[np.int16]
    tests: NDArray[np.int32]
    lineage_places: IndexArray
    """Where in `lineages` each one's lineage is."""
    lineages: Sequence[LineageKey]

    def __len__(self) -> int:
        return len(self.pack_ids)

    def __iter__(self) -> Iterator[MadeObservation]:
        return map(
            MadeObservation,
            self.pack_ids.tolist(),
            self.keys.tolist(),
            self.datastream_ids.tolist(),
            self.times_s.tolist(),
            _none_for_nan(self.values),
            _none_for_nan(self.us),
            self.flags.tolist(),
            self.tests.tolist(),
            [self.lineages[place] for place in self.lineage_places.tolist()],
        )

    def take(self, places: IndexArray | Sequence[int]) -> Observations:
        """Those at these places, in this order."""
        at = np.asarray(places, np.intp)
        return Observations(
            self.pack_ids[at],
            self.keys[at],
            self.datastream_ids[at],
            self.times_s[at],
            self.values[at],
            self.us[at],
            self.flags[at],
            self.tests[at],
            self.lineage_places[at],
            self.lineages,
        )


class ChannelBook:
    """What the keys of nodes mean, at any time. Empty (false) when none of its nodes was ever deployed."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, list[DeployedChannel]]] = {}
        self._layouts: dict[str, dict[tuple[str, ...], Layout]] = {}

    def __bool__(self) -> bool:
        return bool(self._channels)

    def add(self, node_id: str, channel: DeployedChannel) -> None:
        """Enter one period of a node's key."""
        self._channels.setdefault(node_id, {}).setdefault(channel.key, []).append(channel)
        self._layouts.pop(node_id, None)

    def channels_of(self, node_id: str) -> Mapping[str, Sequence[DeployedChannel]]:
        """All periods of a node's keys."""
        return self._channels.get(node_id, {})

    def replace(self, node_ids: Iterable[str], other: ChannelBook) -> None:
        """Let `other` say all there is to know of these nodes."""
        for node_id in node_ids:
            self._layouts.pop(node_id, None)
            self._channels[node_id] = other._channels.get(node_id, {})

    def layout_of(self, pack: SampledPack, keys: tuple[str, ...]) -> Layout:
        """What the readings of this pack, which has these keys, mean; worked out once for all packs alike."""
        known = self._layouts.setdefault(pack.node_id, {})
        layout = known.get(keys)
        if layout is None or not layout.from_s <= pack.sampled_s < layout.to_s:
            if len(known) >= _REMEMBERED_LAYOUTS:
                known.clear()
            layout = lay_out(self._channels.get(pack.node_id, {}), keys, pack.sampled_s)
            known[keys] = layout
        return layout


def load_channels(
    session: Session,
    node_ids: Iterable[str],
    *,
    assumed: Sequence[Assumed] = (),
    ranges: own_ranges.Ranges | None = None,
) -> ChannelBook:
    """All channels that these nodes ever had. Four statements, five where somebody set limits.

    Args:
        assumed: each is taken for the newest of its probe.
        ranges: datastreams' own, instead of those in force.
    """
    book = ChannelBook()
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
    sensor_ids = {row.sensor_id for row in rows}
    calibrations = _load_calibrations(session, sensor_ids)
    corrections = _load_corrections(session, sensor_ids)
    if ranges is None:
        ranges = own_ranges.in_force(session, {row.datastream_id for row in rows})
    for one in assumed:
        others = calibrations[one.calibration.sensor_id, one.calibration.property]
        newest = max((other.version for other in others), default=0)
        others.append(
            replace(
                _valid_calibration(one.calibration),
                version=max(one.calibration.version, newest + 1),
                from_s=one.from_at.timestamp(),
            )
        )
    for row in rows:
        book.add(
            row.node_id,
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
                corrections=tuple(corrections[row.sensor_id, row.property]),
                own_range=ranges.get(row.datastream_id),
            ),
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
        memory.book.replace(stale, load_channels(session, stale))
        memory.versions |= {node_id: versions[node_id] for node_id in stale}
    return memory.book


def make_observations(packs: Sequence[SampledPack], book: ChannelBook) -> Observations:
    """Observations of all readings that have a channel with a calibration at their time, in the order of the packs.

    A reading's observation depends on its own pack only, never on the company it is made in.
    """
    rows = _arrange(packs, book)
    length = len(rows.raws)
    # One row more than there are readings: the last stands for an input that is not there.
    values = np.full(length + 1, np.nan)
    us = np.full(length + 1, np.nan, dtype=np.float32)
    flags = np.full(length + 1, QualityFlag.MISSING, dtype=np.int16)
    tests = np.zeros(length + 1, dtype=np.int32)
    raws = np.array(rows.raws, dtype=np.float64)  # NaN where there is none
    counts = [len(layout.places) for layout in rows.layouts]
    times_s = np.repeat(np.array(rows.times_s, np.int64), counts)
    for kind, parts in sorted(rows.parts_by_kind.items()):  # inputs before what needs them
        members = np.concatenate([part.members for part in parts])
        observed = _observe(
            kind,
            raws[members],
            _inputs(kind, parts, pipeline.Observed(values, us, flags, tests)),
            _calibrations(parts),
            [rows.reasons[member] for member in members.tolist()] if any(rows.reasons) else None,
            times_s[members],
            put_right([(part.correction, part.members.size) for part in parts], times_s[members]),
        )
        values[members], us[members] = observed.value, observed.u
        flags[members], tests[members] = observed.flag, observed.tests
    _judge_by_own_ranges(rows, raws, pipeline.Observed(values, us, flags, tests), times_s)
    places: dict[LineageKey, int] = {}
    for layout in rows.starts_by_layout:
        for lineage in layout.lineages:
            places.setdefault(lineage, len(places))
    return Observations(
        np.repeat(np.array(rows.pack_ids, np.int64), counts),
        np.array(_joined(rows.layouts, lambda layout: layout.keys), np.object_),
        np.array(_joined(rows.layouts, lambda layout: layout.datastream_ids), np.int64),
        times_s,
        values[:-1],
        us[:-1],
        flags[:-1],
        tests[:-1],
        np.array(
            _joined(rows.layouts, lambda layout: [places[one] for one in layout.lineages]), np.intp
        ),
        tuple(places),
    )


def observe_columns(
    layout: Layout,
    times_s: NDArray[np.int64],
    raws: Mapping[str, NDArray[np.float64]],
    reasons: Mapping[str, Sequence[str | None]],
) -> dict[str, pipeline.Observed]:
    """The same for packs that one layout is of, given as one column for each key of the layout, as long as `times_s`; NaN: no value.

    `reasons` has the keys of which a reading has one. The bits are those of `make_observations`.
    """
    length = times_s.size
    nothing = pipeline.Observed(
        np.full(length, np.nan),
        np.full(length, np.nan, dtype=np.float32),
        np.full(length, QualityFlag.MISSING, dtype=np.int16),
        np.zeros(length, dtype=np.int32),
    )
    observed: dict[int, pipeline.Observed] = {NO_INPUT: nothing}
    for row in sorted(range(len(layout.keys)), key=lambda row: layout.kinds[row][0]):
        kind, key = layout.kinds[row], layout.keys[row]
        observed[row] = _observe(
            kind,
            raws[key],
            {
                name: observed.get(other, nothing)
                for name, other in zip(kind[-1], layout.inputs[row], strict=True)
            },
            layout.calibrations[row],
            reasons.get(key),
            times_s,
            put_right([(layout.corrections[row], times_s.size)], times_s),
        )
    found = {key: observed[row] for row, key in enumerate(layout.keys)}
    for row, own_range in enumerate(layout.own_ranges):
        if own_range is None:
            continue
        kind, key = layout.kinds[row], layout.keys[row]
        found[key] = _observe(
            kind,
            raws[key],
            {
                name: observed.get(other, nothing)
                for name, other in zip(kind[-1], layout.inputs[row], strict=True)
            },
            layout.calibrations[row],
            reasons.get(key),
            times_s,
            put_right([(layout.corrections[row], times_s.size)], times_s),
            own_range,
        )
    return found


def store_observations(
    session: Session, made: Observations, *, now: datetime
) -> set[tuple[int, str]]:
    """Store observations, their lineage and their counts in the caller's transaction.

    Returns:
        (pack, key) of those that were not stored because their datastream has a value for that instant already.
    """
    with storing_observations(session, made, now=now) as doubles:
        pass
    return doubles


@contextmanager
def storing_observations(
    session: Session, made: Observations, *, now: datetime
) -> Iterator[set[tuple[int, str]]]:
    """The same while the block computes, without using the session; what it is given is complete when it has ended."""
    firsts, others = _firsts(made)
    doubles = _pack_keys(others)
    columns = _observation_columns(session, firsts, now)
    with bulk.inserting(session, _table(Observation), columns, if_absent=True) as insertion:
        yield doubles
    if insertion.result() < len(firsts):
        is_taken = _taken(session, firsts)
        doubles |= _pack_keys(firsts.take(np.flatnonzero(is_taken)))
        firsts = firsts.take(np.flatnonzero(~is_taken))
    _count(session, firsts)
    aggregated_streams.mark_late(
        session, firsts.datastream_ids, firsts.times_s, now_s=int(now.timestamp())
    )


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
        rows = [
            (place, one)
            for place, one in enumerate(made)
            if (one.pack_id, one.key) not in known_doubles
        ]
        present = _present(session, [one for _, one in rows])
        missing = [
            place for place, one in rows if (one.datastream_id, one.sampled_s) not in present
        ]
        doubles = store_observations(session, made.take(missing), now=now)
        doubles |= {
            (one.pack_id, one.key)
            for _, one in rows
            if present.get((one.datastream_id, one.sampled_s), one.pack_id) != one.pack_id
        }
        mark_duplicate_instants(session, doubles)
        count += len(missing)
    return count


def converted(session: Session, *, node_id: str, key: str, pack_ids: Sequence[int]) -> Observations:
    """What a channel's stored readings mean before calibration, with the observations beside them. Nothing is stored.

    For whoever calibrates the channel: its values are converted readings in the published unit, those of others are as published.
    """
    bare = ChannelBook()
    periods = load_channels(session, [node_id]).channels_of(node_id).values()
    for channel in itertools.chain.from_iterable(periods):
        as_is = replace(channel, calibrations=(_AS_CONVERTED,)) if channel.key == key else channel
        bare.add(node_id, as_is)
    packs, _ = _stored_packs(session, node_id, pack_ids)
    return make_observations(packs, bare)


_AS_CONVERTED = ValidCalibration(0, 0, -math.inf, math.inf, CalibrationParameters())


def mark_duplicate_instants(session: Session, readings: Iterable[tuple[int, str]]) -> None:
    """Note on stored raw readings that their datastream had a value for that instant already."""
    for pack_id, key in sorted(readings):
        session.execute(
            update(RawReading)
            .where(RawReading.pack_id == pack_id, RawReading.channel == key)
            .values(status=DUPLICATE_INSTANT)
        )


def month_of(sampled_s: int) -> int:
    """The month under which an observation is counted, as `ObservationCount` has it.

    >>> month_of(1_700_000_000)
    202311
    """
    at = datetime.fromtimestamp(sampled_s, UTC)
    return at.year * 100 + at.month


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
    """What every lineage of values that nodes measured says, by id."""
    columns = [getattr(Lineage, name) for name in _LINEAGE_COLUMNS]
    query = select(*columns, Lineage.id).where(Lineage.import_id.is_(None))
    return {row[-1]: tuple(row[:-1]) for row in session.execute(query)}


def lineages_by_id(session: Session, ids: Iterable[int]) -> dict[int, LineageKey]:
    """What these lineages say."""
    columns = [getattr(Lineage, name) for name in _LINEAGE_COLUMNS]
    rows = session.execute(select(*columns, Lineage.id).where(Lineage.id.in_(sorted(ids))))
    return {row[-1]: tuple(row[:-1]) for row in rows}


def lineage_key_of(lineage: Lineage) -> LineageKey:
    """What one lineage says."""
    key: LineageKey = tuple(getattr(lineage, name) for name in _LINEAGE_COLUMNS)
    return key


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
        self.book = ChannelBook()
        self.lineages: dict[LineageKey, int] = {}

    def forget(self) -> None:
        self.versions.clear()
        self.book = ChannelBook()
        self.lineages.clear()


_MEMORIES: WeakKeyDictionary[Any, _Memory] = WeakKeyDictionary()  # by engine


# ------------------------------------------------------------------------------------------------------------- making


_Kind = tuple[int, str, str, tuple[str, ...]]
"""(depth, conversion, property, names of inputs): readings that one call of the pipeline can observe together"""


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """What the readings of one node's packs mean that have the same keys in the same order, from–to.

    One row for each reading that has a channel and a calibration; `inputs` are rows of the same pack, `NO_INPUT` where there
    is none.
    """

    from_s: float
    to_s: float
    places: tuple[int, ...]
    """Of the rows' readings in the pack."""
    keys: tuple[str, ...]
    datastream_ids: tuple[int, ...]
    lineages: tuple[LineageKey, ...]
    calibrations: tuple[CalibrationParameters, ...]
    corrections: tuple[Correction | None, ...]
    kinds: tuple[_Kind, ...]
    inputs: tuple[tuple[int, ...], ...]
    own_ranges: tuple[GrossRange | None, ...]

    @property
    def conversions(self) -> tuple[str, ...]:
        """Of the rows."""
        return tuple(conversion for _, conversion, _, _ in self.kinds)


class Means(NamedTuple):
    """What a reading is measured with."""

    channel: DeployedChannel
    calibration: ValidCalibration
    correction: ValidCorrection | None


def means_at(channel: DeployedChannel, sampled_s: int) -> Means | None:
    """The channel itself with what is in force at that time."""
    calibration = channel.calibration_at(sampled_s)
    if calibration is None:
        return None
    return Means(channel, calibration, channel.correction_at(sampled_s))


def lay_out(
    channels: Mapping[str, Sequence[DeployedChannel]],
    keys: Sequence[str],
    sampled_s: int,
    *,
    choose: Callable[[DeployedChannel, int], Means | None] = means_at,
) -> Layout:
    """What readings with these keys, of one node at one time, mean."""
    found: dict[str, Means] = {}
    places = []
    edges = {-math.inf, math.inf}
    for place, key in enumerate(keys):
        for channel in channels.get(key, ()):
            edges |= {channel.from_s, channel.to_s}
            if not channel.from_s <= sampled_s < channel.to_s:
                continue
            edges |= {edge for c in channel.calibrations for edge in (c.from_s, c.to_s)}
            edges |= {edge for c in channel.corrections for edge in _edges(c.correction)}
            means = choose(channel, sampled_s)
            if means is not None:
                found[key] = means
                places.append(place)
            break
    rows = {key: row for row, key in enumerate(found)}
    inputs = {
        key: tuple(rows.get(needed, NO_INPUT) for _, needed in means.channel.needs)
        for key, means in found.items()
    }
    return Layout(
        from_s=max(edge for edge in edges if edge <= sampled_s),
        to_s=min(edge for edge in edges if edge > sampled_s),
        places=tuple(places),
        keys=tuple(found),
        datastream_ids=tuple(means.channel.datastream_id for means in found.values()),
        lineages=tuple(_lineage_key(key, found) for key in found),
        calibrations=tuple(means.calibration.parameters for means in found.values()),
        corrections=tuple(
            None if means.correction is None else means.correction.correction
            for means in found.values()
        ),
        kinds=tuple(
            (
                _depth([*inputs.values()], row),
                means.channel.conversion,
                means.channel.property,
                tuple(name for name, _ in means.channel.needs),
            )
            for row, means in enumerate(found.values())
        ),
        inputs=tuple(inputs.values()),
        own_ranges=tuple(means.channel.own_range for means in found.values()),
    )


def _depth(inputs: Sequence[Sequence[int]], row: int, limit: int = _MAX_DEPTH) -> int:
    known = [other for other in inputs[row] if other != NO_INPUT]
    if not known or limit == 0:
        return 0
    return 1 + max(_depth(inputs, other, limit - 1) for other in known)


def _lineage_key(key: str, found: Mapping[str, Means]) -> LineageKey:
    channel, calibration, correction = found[key]
    inputs = ",".join(
        f"{name}={_named(found[needed]) if needed in found else 'none'}"
        for name, needed in channel.needs
    )
    return (
        channel.sensor_id,
        calibration.id,
        inputs,
        channel.conversion,
        "" if correction is None else str(correction.id),
        own_ranges.name_of(channel.own_range),
        pipeline.VERSION,
        calibration.parameters.k,
    )


def _named(means: Means) -> str:
    """An input's calibration, and its correction behind a slash where it has one: `17` or `17/3`."""
    correction = "" if means.correction is None else f"/{means.correction.id}"
    return f"{means.calibration.id}{correction}"


def named_inputs(inputs: str) -> dict[str, tuple[int, int | None]]:
    """What a lineage's `inputs` names: calibration and correction by the input's name; those that were there.

    >>> named_inputs("reference=none,temperature=17/3")
    {'temperature': (17, 3)}
    """
    named: dict[str, tuple[int, int | None]] = {}
    for one in inputs.split(","):
        name, _, numbers = one.partition("=")
        calibration, _, correction = numbers.partition("/")
        if calibration.isdigit():
            named[name] = int(calibration), int(correction) if correction.isdigit() else None
    return named


@dataclass(frozen=True, slots=True)
class _Part:
    """One channel in all packs of one layout, with the rows of its inputs by name."""

    members: IndexArray
    inputs: Mapping[str, IndexArray]
    calibration: CalibrationParameters
    correction: Correction | None
    own_range: GrossRange | None


@dataclass(slots=True)
class _Rows:
    """Packs on their way, in their order, and as columns their readings that have a channel."""

    layouts: list[Layout] = field(default_factory=list)
    pack_ids: list[int] = field(default_factory=list)
    times_s: list[int] = field(default_factory=list)
    raws: list[float | None] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    starts_by_layout: dict[Layout, list[int]] = field(default_factory=lambda: defaultdict(list))
    parts_by_kind: dict[_Kind, list[_Part]] = field(default_factory=lambda: defaultdict(list))


def _arrange(packs: Sequence[SampledPack], book: ChannelBook) -> _Rows:
    rows = _Rows()
    for pack in packs:
        if not pack.readings:
            continue
        keys, raws, reasons = zip(*pack.readings, strict=True)
        layout = book.layout_of(pack, keys)
        rows.starts_by_layout[layout].append(len(rows.raws))
        rows.layouts.append(layout)
        rows.pack_ids.append(pack.pack_id)
        rows.times_s.append(pack.sampled_s)
        if len(layout.places) == len(keys):
            rows.raws += raws
            rows.reasons += reasons
        else:
            rows.raws += [raws[place] for place in layout.places]
            rows.reasons += [reasons[place] for place in layout.places]
    for layout, some in rows.starts_by_layout.items():
        starts = np.array(some)
        for row, kind in enumerate(layout.kinds):
            inputs = {
                name: np.full_like(starts, NO_INPUT) if other == NO_INPUT else starts + other
                for name, other in zip(kind[-1], layout.inputs[row], strict=True)
            }
            part = _Part(
                starts + row,
                inputs,
                layout.calibrations[row],
                layout.corrections[row],
                layout.own_ranges[row],
            )
            rows.parts_by_kind[kind].append(part)
    return rows


def _joined(layouts: Sequence[Layout], part: Callable[[Layout], Sequence[Any]]) -> list[Any]:
    """A part of each layout, one after the other; worked out once for all that are alike."""
    parts = {layout: part(layout) for layout in set(layouts)}
    return list(itertools.chain.from_iterable(map(parts.__getitem__, layouts)))


def _inputs(
    kind: _Kind, parts: Sequence[_Part], observed: pipeline.Observed
) -> dict[str, pipeline.Observed]:
    inputs = {}
    for name in kind[-1]:
        at = np.concatenate([part.inputs[name] for part in parts])
        inputs[name] = pipeline.Observed(
            observed.value[at], observed.u[at], observed.flag[at], observed.tests[at]
        )
    return inputs


def _calibrations(
    parts: Sequence[_Part],
) -> CalibrationParameters | Sequence[CalibrationParameters]:
    first = parts[0].calibration
    if all(part.calibration == first for part in parts):
        return first
    return [part.calibration for part in parts for _ in range(part.members.size)]


def _observe(
    kind: _Kind,
    raws: NDArray[np.float64],
    inputs: Mapping[str, pipeline.Observed],
    calibrations: CalibrationParameters | Sequence[CalibrationParameters],
    reasons: Sequence[str | None] | None,
    times_s: NDArray[np.int64],
    correct: pipeline.Correct | None,
    own_range: GrossRange | None = None,
) -> pipeline.Observed:
    _, conversion, observed_property, _ = kind
    with np.errstate(all="ignore"):  # absurd raw values overflow; what comes of it is judged below
        observed = pipeline.observe(
            conversion,
            raws,
            inputs,
            calibrations,
            observed_property=observed_property,
            reasons=reasons,
            times_s=times_s,
            correct=correct,
            own_range=own_range,
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


def _judge_by_own_ranges(
    rows: _Rows,
    raws: NDArray[np.float64],
    observed: pipeline.Observed,
    times_s: NDArray[np.int64],
) -> None:
    """Put right flags and tests of channels with a range of their own, last: what others work with is judged by its property's range.

    So a value's bits depend on its own lineage alone.
    """
    found = []
    for kind, parts in rows.parts_by_kind.items():
        for part in parts:
            if part.own_range is None:
                continue
            members = part.members
            made = _observe(
                kind,
                raws[members],
                _inputs(kind, [part], observed),
                part.calibration,
                [rows.reasons[member] for member in members.tolist()],
                times_s[members],
                put_right([(part.correction, members.size)], times_s[members]),
                part.own_range,
            )
            found.append((members, made))
    for members, made in found:
        observed.flag[members], observed.tests[members] = made.flag, made.tests


def put_right(
    corrections: Sequence[tuple[Correction | None, int]], times_s: NDArray[np.int64]
) -> pipeline.Correct | None:
    """What puts values right of which so many, one after the other, have each of these corrections; None where none has one."""
    if all(correction is None for correction, _ in corrections):
        return None

    def correct(
        values: NDArray[np.float64], us: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, us = values.copy(), us.copy()
        start = 0
        for correction, length in corrections:
            rows = slice(start, start + length)
            if correction is not None:
                values[rows], us[rows] = drift.correct(
                    times_s[rows], values[rows], us[rows], correction
                )
            start += length
        return values, us

    return correct


def _none_for_nan(column: NDArray[Any]) -> list[float | None]:
    numbers: list[float | None] = column.tolist()
    for place in np.flatnonzero(np.isnan(column)).tolist():
        numbers[place] = None
    return numbers


# ------------------------------------------------------------------------------------------------------------- storing


def calibrations_by_id(
    session: Session, ids: Iterable[int]
) -> dict[int, tuple[int, ValidCalibration]]:
    """These calibrations, each with its sensor, in force or not."""
    found = {}
    for some in bulk.chunks(sorted(ids), 5000):
        for row in session.scalars(select(Calibration).where(Calibration.id.in_(some))):
            found[row.id] = row.sensor_id, _valid_calibration(row)
    return found


def _load_calibrations(
    session: Session, sensor_ids: Iterable[int]
) -> dict[tuple[int, str], list[ValidCalibration]]:
    found: dict[tuple[int, str], list[ValidCalibration]] = defaultdict(list)
    for some in bulk.chunks(sorted(sensor_ids), 5000):
        valid = select(Calibration).where(
            Calibration.sensor_id.in_(some), Calibration.status.in_(IN_FORCE)
        )
        for row in session.scalars(valid):
            found[row.sensor_id, row.property].append(_valid_calibration(row))
    return found


def parameters_of(row: Calibration) -> CalibrationParameters:
    """A calibration's numbers as the pipeline takes them."""
    return CalibrationParameters(
        slope=row.slope,
        offset=row.offset,
        curve=row.curve,
        u_slope=row.u_slope,
        u_offset=row.u_offset,
        u_curve=row.u_curve,
        cov=row.slope_offset_covariance,
        cov_offset_curve=row.offset_curve_covariance,
        cov_slope_curve=row.slope_curve_covariance,
        u_abs=row.u_absolute,
        u_rel=row.u_relative,
        k=row.coverage_factor,
        u_drift_abs=row.u_drift_absolute,
        u_drift_rel=row.u_drift_relative,
        # Of one that does not drift it is not told apart when.
        since_s=drifts_since(row).timestamp() if is_drifting(row) else 0.0,
    )


def is_drifting(row: Calibration) -> bool:
    """Whether its u grows with time."""
    return row.u_drift_absolute > 0.0 or row.u_drift_relative > 0.0


def drifts_since(row: Calibration) -> datetime:
    """When the probe was in its standards: from then on its u grows, however far back the calibration holds."""
    return row.performed_at or row.valid_from


def _valid_calibration(row: Calibration) -> ValidCalibration:
    return ValidCalibration(
        row.id,
        row.version,
        row.valid_from.timestamp(),
        _end_s(row.valid_to),
        parameters_of(row),
    )


def corrections_by_id(
    session: Session, ids: Iterable[int]
) -> dict[int, tuple[int, ValidCorrection]]:
    """These corrections, each with its sensor, in force or not."""
    found = {}
    for some in bulk.chunks(sorted(ids), 5000):
        for row in session.scalars(select(DriftCorrection).where(DriftCorrection.id.in_(some))):
            found[row.id] = row.sensor_id, valid_correction(row)
    return found


def _load_corrections(
    session: Session, sensor_ids: Iterable[int]
) -> dict[tuple[int, str], list[ValidCorrection]]:
    found: dict[tuple[int, str], list[ValidCorrection]] = defaultdict(list)
    for some in bulk.chunks(sorted(sensor_ids), 5000):
        approved = select(DriftCorrection).where(
            DriftCorrection.sensor_id.in_(some),
            DriftCorrection.status == CorrectionStatus.APPROVED,
        )
        for row in session.scalars(approved):
            found[row.sensor_id, row.property].append(valid_correction(row))
    return found


def valid_correction(row: DriftCorrection) -> ValidCorrection:
    """A row as arithmetic takes it."""
    correction = Correction(
        from_s=row.from_at.timestamp(),
        to_s=row.to_at.timestamp(),
        fouling=row.fouling,
        fouling_relative=row.fouling_relative,
        low=_drift_check(row.low_standard, row.low_reading),
        high=_drift_check(row.high_standard, row.high_reading),
    )
    return ValidCorrection(row.id, row.version, correction)


def _drift_check(standard: float | None, reading: float | None) -> drift.Check | None:
    return None if standard is None or reading is None else drift.Check(standard, reading)


def _edges(correction: Correction) -> tuple[float, float]:
    return correction.from_s, correction.to_s


def _end_s(end_at: datetime | None) -> float:
    return math.inf if end_at is None else end_at.timestamp()


def _firsts(made: Observations) -> tuple[Observations, Observations]:
    """The first observation of each datastream and instant, by datastream and time; and the others."""
    _, places = np.unique(_instants(made), return_index=True)
    firsts = made.take(places)
    if len(firsts) == len(made):
        return firsts, made.take([])
    is_other = np.ones(len(made), np.bool_)
    is_other[places] = False
    return firsts, made.take(np.flatnonzero(is_other))


def _instants(made: Observations) -> NDArray[np.int64]:
    """Datastream and time as one number: a time is below 2³², a datastream below 2²²."""
    return (made.datastream_ids << 32) + made.times_s


def _pack_keys(made: Observations) -> set[tuple[int, str]]:
    return set(zip(made.pack_ids.tolist(), made.keys.tolist(), strict=True))


def _taken(session: Session, firsts: Observations) -> NDArray[np.bool_]:
    """Of which of these the stored observation is of another pack."""
    rows = list(firsts)
    present = _present(session, rows)
    return np.array(
        [
            present.get((one.datastream_id, one.sampled_s), one.pack_id) != one.pack_id
            for one in rows
        ],
        np.bool_,
    )


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


def _observation_columns(
    session: Session, firsts: Observations, now: datetime
) -> dict[str, Column]:
    lineage_ids = lineage_ids_of(session, firsts.lineages)
    ids = np.array([lineage_ids[lineage] for lineage in firsts.lineages], np.int64)
    return {
        "datastream_id": firsts.datastream_ids,
        "sampled_at": firsts.times_s,
        "value": firsts.values,
        "u": firsts.us,
        "flag": firsts.flags,
        "tests": firsts.tests,
        "lineage_id": ids[firsts.lineage_places],
        "known_from": np.full(len(firsts), int(now.timestamp()), np.int64),
        "pack_id": firsts.pack_ids,
    }


def _count(session: Session, stored: Observations) -> None:
    times_s, at = np.unique(stored.times_s, return_inverse=True)
    months = np.array([month_of(time_s) for time_s in times_s.tolist()], np.int64)[at]
    pairs, counts = np.unique(stored.datastream_ids * _MONTHS + months, return_counts=True)
    rows = [
        (*divmod(pair, _MONTHS), count)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
    ]
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
