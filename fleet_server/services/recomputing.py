"""Observations of one datastream made again from stored raw readings, as columns: by what is in force now, or by the lineages they name.

Reads only. Memory is bounded by `BLOCK` readings, and by the differences found. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    cast,
    extract,
    func,
    select,
    type_coerce,
)
from sqlalchemy.orm import Session

from fleet_server.measurement import pipeline, quality
from fleet_server.models import (
    Channel,
    Deployment,
    JudgedStream,
    Observation,
    ObservationHistory,
    Pack,
    RawReading,
)
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.services import bulk, observing, own_ranges, person_flags
from fleet_server.services.observing import (
    Assumed,
    ChannelBook,
    DeployedChannel,
    Layout,
    LineageKey,
)

BLOCK = 50_000
"""Observations that are looked at together."""

Version = type[Observation] | type[ObservationHistory]


@dataclass(frozen=True, slots=True)
class Versions:
    """Stored versions of one datastream's observations as columns, by time; `known_s`: since when they are known."""

    times_s: NDArray[np.int64]
    pack_ids: NDArray[np.int64]
    values: NDArray[np.float64]
    us: NDArray[np.float32]
    flags: NDArray[np.int16]
    tests: NDArray[np.int32]
    lineage_ids: NDArray[np.int64]
    known_s: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.times_s)

    def take(self, places: NDArray[Any]) -> Versions:
        """Those at these places."""
        return Versions(
            self.times_s[places],
            self.pack_ids[places],
            self.values[places],
            self.us[places],
            self.flags[places],
            self.tests[places],
            self.lineage_ids[places],
            self.known_s[places],
        )


@dataclass(frozen=True, slots=True)
class Made:
    """What the same readings give; rows as in the `Versions` that they were made for. `lineage_places` is −1 where nothing makes one."""

    values: NDArray[np.float64]
    us: NDArray[np.float32]
    flags: NDArray[np.int16]
    tests: NDArray[np.int32]
    lineage_places: NDArray[np.int64]
    lineages: tuple[LineageKey, ...]

    def take(self, places: NDArray[Any]) -> Made:
        """Those at these places."""
        return Made(
            self.values[places],
            self.us[places],
            self.flags[places],
            self.tests[places],
            self.lineage_places[places],
            self.lineages,
        )

    @property
    def is_made(self) -> NDArray[np.bool_]:
        """Where there is an observation at all."""
        return self.lineage_places >= 0

    def differs_from(self, stored: Versions) -> NDArray[np.bool_]:
        """Where value, u, flag or tests are other bits."""
        is_other: NDArray[np.bool_] = (
            ~_same(self.values, stored.values)
            | ~_same(self.us, stored.us)
            | (self.flags != stored.flags)
            | (self.tests != stored.tests)
        )
        return is_other


@dataclass(frozen=True, slots=True)
class TakenApart:
    """One version in its parts: what its pack's readings meant, its own row in that, raw readings and what was observed of each by key."""

    layout: Layout
    row: int
    times_s: NDArray[np.int64]
    raws: Mapping[str, NDArray[np.float64]]
    observed: Mapping[str, pipeline.Observed]

    @property
    def raw(self) -> NDArray[np.float64]:
        """Its own raw reading, shape (1,)."""
        return self.raws[self.layout.keys[self.row]]

    @property
    def inputs(self) -> dict[str, pipeline.Observed]:
        """What its conversion needed and had, by name."""
        layout = self.layout
        names = layout.kinds[self.row][-1]
        return {
            name: self.observed[layout.keys[other]]
            for name, other in zip(names, layout.inputs[self.row], strict=True)
            if other != observing.NO_INPUT
        }


@dataclass(frozen=True, slots=True)
class Tally:
    """By what it shows that none of some versions was changed or added: how many, and sums of what a change changes."""

    count: int = 0
    lineages: int = 0
    known: int = 0
    tests: int = 0

    def plus(self, block: Versions) -> Tally:
        """With these, too."""
        return Tally(
            self.count + len(block),
            self.lineages + int(block.lineage_ids.sum()),
            self.known + int(block.known_s.sum()),
            self.tests + int(block.tests.sum(dtype=np.int64)),
        )


class StreamRecomputer:
    """Makes observations of one datastream again. What nodes and probes were there is read once, when it is made.

    `assumed`: calibrations that `make` takes as if they were in force; `ranges`: what it judges by instead of the ranges in force.
    """

    def __init__(
        self,
        session: Session,
        datastream_id: int,
        *,
        assumed: Sequence[Assumed] = (),
        ranges: own_ranges.Ranges | None = None,
    ) -> None:
        self._session = session
        self.datastream_id = datastream_id
        rows = session.execute(
            select(Deployment.node_id, Channel.key)
            .join(Channel, Channel.deployment_id == Deployment.id)
            .where(Channel.datastream_id == datastream_id)
            .distinct()
        ).all()
        self._keys: dict[str, set[str]] = defaultdict(set)
        for node_id, key in rows:
            self._keys[node_id].add(key)
        self._book: ChannelBook = observing.load_channels(
            session, self._keys, assumed=assumed, ranges=ranges
        )
        self._calibrations: dict[int, tuple[int, observing.ValidCalibration]] = {}
        self._corrections: dict[int, tuple[int, observing.ValidCorrection]] = {}
        reached = session.scalar(
            select(JudgedStream.reached).where(JudgedStream.datastream_id == datastream_id)
        )
        self._judged_to_s = -1 if reached is None else int(reached.timestamp())

    def blocks(
        self,
        *,
        from_s: int | None = None,
        to_s: int | None = None,
        version: Version = Observation,
    ) -> Iterator[Versions]:
        """Stored versions sampled within `from_s` … `to_s` (the end is outside), some at a time, those from packs only."""
        start_s = from_s
        while True:
            block = self._block(version, start_s, to_s)
            if len(block) < BLOCK:
                if len(block):
                    yield block
                return
            # Versions of one instant must not be cut apart: the last instant is read again.
            is_before = block.times_s < block.times_s[-1]
            if not is_before.any():
                yield block
                return
            yield block.take(np.flatnonzero(is_before))
            start_s = int(block.times_s[-1])

    def tally(self, *, from_s: int | None = None, to_s: int | None = None) -> Tally:
        """Of all current versions that `blocks` gives, as they are now."""
        row = self._rows(
            self._within(
                select(
                    func.count(),
                    func.coalesce(func.sum(Observation.lineage_id), 0),
                    func.coalesce(func.sum(self._epoch(Observation.known_from)), 0),
                    func.coalesce(func.sum(cast(Observation.tests, BigInteger)), 0),
                ),
                Observation,
                from_s,
                to_s,
            )
        )[0]
        return Tally(*(int(number) for number in row))

    def make(self, stored: Versions) -> Made:
        """What the readings of these give by the calibrations, corrections and rules in force now."""
        return self._make(stored, np.zeros(len(stored), np.int64), {0: None})

    def remake(self, stored: Versions, lineages: Mapping[int, LineageKey]) -> Made:
        """What they give by the lineages that they name; nothing for a lineage that is unknown or of other software."""
        self._remember(lineages, stored.lineage_ids)
        ids, kinds = np.unique(stored.lineage_ids, return_inverse=True)
        named = {place: lineages.get(lineage_id) for place, lineage_id in enumerate(ids.tolist())}
        is_ours = {
            place: lineage is not None and lineage[6] == pipeline.VERSION
            for place, lineage in named.items()
        }
        made = self._make(stored, kinds.astype(np.int64), named)
        is_possible = np.array([is_ours[kind] for kind in kinds.tolist()], np.bool_)
        return Made(
            made.values,
            made.us,
            made.flags,
            made.tests,
            np.where(is_possible, made.lineage_places, -1),
            made.lineages,
        )

    def taken_apart(
        self, stored: Versions, lineages: Mapping[int, LineageKey]
    ) -> TakenApart | None:
        """All that made one version, by the lineage that it names; None where that makes nothing.

        `stored` has one row.
        """
        self._remember(lineages, stored.lineage_ids)
        lineage = lineages.get(int(stored.lineage_ids[0]))
        if lineage is None or lineage[6] != pipeline.VERSION:
            return None
        for node_id, members in self._by_node(stored):
            readings = self._readings(node_id, stored.times_s[members], stored.pack_ids[members])
            for layout, rows in self._by_layout(
                node_id, readings, np.zeros(members.size, np.int64), {0: lineage}
            ):
                if self.datastream_id in layout.datastream_ids:
                    raws = {key: readings.raws[key][rows] for key in layout.keys}
                    return TakenApart(
                        layout,
                        layout.datastream_ids.index(self.datastream_id),
                        readings.times_s[rows],
                        raws,
                        observing.observe_columns(
                            layout,
                            readings.times_s[rows],
                            raws,
                            readings.reasons_at(layout.keys, rows),
                        ),
                    )
        return None

    def raw_values(self, stored: Versions) -> NDArray[np.float64]:
        """The raw readings alone that these were made from, NaN where there is none."""
        raws = np.full(len(stored), np.nan)
        for node_id, members in self._by_node(stored):
            readings = self._readings(node_id, stored.times_s[members], stored.pack_ids[members])
            for key in self._keys[node_id]:
                found = readings.raws[key]
                raws[members] = np.where(np.isnan(found), raws[members], found)
        return raws

    # -- private

    def _rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[Any]:
        """Plain rows: the session would make each of them anew."""
        return self._session.connection().execute(query).all()

    def _within(
        self,
        query: Select[*tuple[Any, ...]],
        version: Version,
        from_s: int | None,
        to_s: int | None,
    ) -> Select[*tuple[Any, ...]]:
        query = query.where(
            version.datastream_id == self.datastream_id, version.pack_id.is_not(None)
        )
        if from_s is not None:
            query = query.where(version.sampled_at >= _moment(from_s))
        return query if to_s is None else query.where(version.sampled_at < _moment(to_s))

    def _block(self, version: Version, start_s: int | None, end_s: int | None) -> Versions:
        query = (
            select(
                self._epoch(version.sampled_at),
                version.pack_id,
                version.value,
                version.u,
                version.flag,
                version.tests,
                version.lineage_id,
                self._epoch(version.known_from),
            )
            .order_by(version.sampled_at, version.known_from)
            .limit(BLOCK)
        )
        rows = self._rows(self._within(query, version, start_s, end_s))
        columns = list(zip(*rows, strict=True)) or [()] * 8
        return Versions(
            np.array(columns[0], np.int64),
            np.array(columns[1], np.int64),
            np.array(columns[2], np.float64),
            np.array(columns[3], np.float32),
            np.array(columns[4], np.int16),
            np.array(columns[5], np.int32),
            np.array(columns[6], np.int64),
            np.array(columns[7], np.int64),
        )

    def _epoch(self, column: Any) -> ColumnElement[int]:
        return epoch_of(self._session, column)

    def _make(
        self,
        stored: Versions,
        kinds: NDArray[np.int64],
        named: Mapping[int, LineageKey | None],
    ) -> Made:
        """`kinds` tells for each row which lineage of `named` it is made by; None: what is in force."""
        length = len(stored)
        values = np.full(length, np.nan)
        us = np.full(length, np.nan, dtype=np.float32)
        flags = np.zeros(length, dtype=np.int16)
        tests = np.zeros(length, dtype=np.int32)
        lineage_places = np.full(length, -1, dtype=np.int64)
        places: dict[LineageKey, int] = {}
        for node_id, members in self._by_node(stored):
            readings = self._readings(node_id, stored.times_s[members], stored.pack_ids[members])
            for layout, rows in self._by_layout(node_id, readings, kinds[members], named):
                if self.datastream_id not in layout.datastream_ids:
                    continue
                row = layout.datastream_ids.index(self.datastream_id)
                observed = observing.observe_columns(
                    layout,
                    readings.times_s[rows],
                    {key: readings.raws[key][rows] for key in layout.keys},
                    readings.reasons_at(layout.keys, rows),
                )[layout.keys[row]]
                at = members[rows]
                values[at], us[at] = observed.value, observed.u
                flags[at], tests[at] = observed.flag, observed.tests
                lineage_places[at] = places.setdefault(layout.lineages[row], len(places))
        # What was filled in later stays: whoever changes values has them judged again.
        persons = stored.tests & np.int32(person_flags.BITS)
        filled = np.where(stored.times_s <= self._judged_to_s, stored.tests, persons)
        flags, tests = quality.merged(values, flags, tests, filled)
        return Made(values, us, flags, tests, lineage_places, tuple(places))

    def _by_node(self, stored: Versions) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Which of these came from which node."""
        if len(self._keys) == 1:
            yield next(iter(self._keys)), np.arange(len(stored))
            return
        node_of = {
            row[0]: row[1]
            for row in self._session.execute(
                select(Pack.id, Pack.node_id).where(
                    bulk.is_among(self._session, Pack.id, stored.pack_ids)
                )
            )
        }
        nodes = np.array([node_of.get(pack_id, "") for pack_id in stored.pack_ids.tolist()])
        for node_id in sorted(self._keys):
            members = np.flatnonzero(nodes == node_id)
            if members.size:
                yield node_id, members

    def _readings(
        self, node_id: str, times_s: NDArray[np.int64], pack_ids: NDArray[np.int64]
    ) -> _Readings:
        """Raw readings of these packs, of the keys that can have to do with this datastream."""
        keys = sorted(_needed_keys(self._book.channels_of(node_id), self._keys[node_id]))
        rows = self._rows(
            select(
                RawReading.channel, RawReading.pack_id, RawReading.raw_value, RawReading.status
            ).where(
                bulk.is_among(self._session, RawReading.pack_id, pack_ids),
                RawReading.channel.in_(keys),
            )
        )
        columns = list(zip(*rows, strict=True)) or [()] * 4
        channels = np.array(columns[0], dtype=np.str_)
        of_packs = np.array(columns[1], np.int64)
        values = np.array(columns[2], np.float64)
        statuses = np.array(columns[3], dtype=np.object_)
        order = np.unique(pack_ids)
        back = np.searchsorted(order, pack_ids)
        found = _Readings(times_s, {}, {}, {})
        for key in keys:
            is_key = channels == key
            places = np.searchsorted(order, of_packs[is_key])
            raw = np.full(order.size, np.nan)
            raw[places] = values[is_key]
            is_present = np.zeros(order.size, np.bool_)
            is_present[places] = True
            found.raws[key], found.is_present[key] = raw[back], is_present[back]
            if any(status is not None for status in statuses[is_key].tolist()):
                reasons = np.full(order.size, None, dtype=np.object_)
                reasons[places] = statuses[is_key]
                # Of a second reading of its instant the value is good; another channel may have needed it.
                reasons[reasons == DUPLICATE_INSTANT] = None
                found.reasons[key] = reasons[back]
        return found

    def _by_layout(
        self,
        node_id: str,
        readings: _Readings,
        kinds: NDArray[np.int64],
        named: Mapping[int, LineageKey | None],
    ) -> Iterator[tuple[Layout, NDArray[np.intp]]]:
        """Rows that one layout is of: the same keys present, the same probes and calibrations, the same lineage."""
        channels = self._book.channels_of(node_id)
        keys = sorted(readings.is_present)
        mask = np.zeros(kinds.size, np.int64)
        for bit, key in enumerate(keys):
            mask |= readings.is_present[key].astype(np.int64) << bit
        groups, of_group = np.unique(np.stack([mask, kinds]), axis=1, return_inverse=True)
        for group, (present, kind) in enumerate(groups.T.tolist()):
            rows = np.flatnonzero(of_group.ravel() == group)
            here = [key for bit, key in enumerate(keys) if present >> bit & 1]
            times_s = readings.times_s[rows]
            choose = self._choice_of(node_id, named[kind])
            start = 0
            while start < rows.size:
                layout = observing.lay_out(channels, here, int(times_s[start]), choose=choose)
                end = int(np.searchsorted(times_s, layout.to_s, side="left"))
                yield layout, rows[start:end]
                start = end

    def _remember(self, lineages: Mapping[int, LineageKey], lineage_ids: NDArray[np.int64]) -> None:
        """The calibrations and corrections that these lineages name, whatever probe they are of."""
        named: set[int] = set()
        corrections: set[int] = set()
        for lineage_id in np.unique(lineage_ids).tolist():
            if lineage_id in lineages:
                _, calibration_id, inputs, _, correction, *_ = lineages[lineage_id]
                given = [*observing.named_inputs(inputs).values()]
                named |= {calibration_id, *(one for one, _ in given)}
                corrections |= {one for _, one in given if one is not None}
                corrections |= {int(correction)} if correction.isdigit() else set()
        missing = named - self._calibrations.keys()
        if missing:
            self._calibrations |= observing.calibrations_by_id(self._session, missing)
        missing = corrections - self._corrections.keys()
        if missing:
            self._corrections |= observing.corrections_by_id(self._session, missing)

    def _choice_of(
        self, node_id: str, lineage: LineageKey | None
    ) -> Callable[[DeployedChannel, int], observing.Means | None]:
        """The means that a lineage names, whatever is in force; for what it does not name, what is."""
        if lineage is None:
            return observing.means_at
        sensor_id, calibration_id, inputs, conversion, correction, rule_set, *_ = lineage
        named = observing.named_inputs(inputs)
        put_right = self._corrections.get(int(correction)) if correction.isdigit() else None

        def choose(channel: DeployedChannel, sampled_s: int) -> observing.Means | None:
            if channel.datastream_id == self.datastream_id:
                own = self._calibration_of(node_id, channel.key, calibration_id)
                if own is None or own[0] != sensor_id:
                    return None
                mounted = replace(
                    channel,
                    sensor_id=sensor_id,
                    conversion=conversion,
                    own_range=own_ranges.named(rule_set, channel.property),
                )
                return _named_means(mounted, own[1], put_right, sampled_s)
            for name in self._names_of(node_id, channel.key):
                if name in named:
                    given, put_right_by = named[name]
                    found = self._calibration_of(node_id, channel.key, given)
                    if found is None:
                        return None
                    mounted = replace(channel, sensor_id=found[0])
                    of_input = None if put_right_by is None else self._corrections.get(put_right_by)
                    return _named_means(mounted, found[1], of_input, sampled_s)
            return observing.means_at(channel, sampled_s)

        return choose

    def _calibration_of(
        self, node_id: str, key: str, calibration_id: int
    ) -> tuple[int, observing.ValidCalibration] | None:
        """A calibration with its probe, if that ever fed this key."""
        found = self._calibrations.get(calibration_id)
        channels = self._book.channels_of(node_id).get(key, ())
        is_possible = found is not None and found[0] in {one.sensor_id for one in channels}
        return found if is_possible else None

    def _names_of(self, node_id: str, key: str) -> set[str]:
        """By which names of inputs this datastream's conversions call for a key."""
        channels = self._book.channels_of(node_id)
        return {
            name
            for own in self._keys[node_id]
            for channel in channels.get(own, ())
            for name, needed in channel.needs
            if needed == key
        }


@dataclass(frozen=True, slots=True)
class _Readings:
    """Raw readings of some packs as columns by key; NaN: no value."""

    times_s: NDArray[np.int64]
    raws: dict[str, NDArray[np.float64]]
    is_present: dict[str, NDArray[np.bool_]]
    reasons: dict[str, NDArray[np.object_]]
    """Of the keys of which a reading has one."""

    def reasons_at(
        self, keys: Sequence[str], rows: NDArray[np.intp]
    ) -> dict[str, Sequence[str | None]]:
        return {key: self.reasons[key][rows].tolist() for key in keys if key in self.reasons}


def epoch_of(session: Session, column: Any) -> ColumnElement[int]:
    """A moment as integer seconds, without an object per row."""
    if session.get_bind().dialect.name == "sqlite":
        return type_coerce(column, Integer)
    return cast(extract("epoch", column), BigInteger)


def _named_means(
    channel: DeployedChannel,
    calibration: observing.ValidCalibration,
    correction: tuple[int, observing.ValidCorrection] | None,
    sampled_s: int,
) -> observing.Means | None:
    """None where the correction is another probe's, or of another time."""
    if correction is None:
        return observing.Means(channel, calibration, None)
    sensor_id, put_right = correction
    if sensor_id != channel.sensor_id or not put_right.covers(sampled_s):
        return None
    return observing.Means(channel, calibration, put_right)


def _needed_keys(channels: Mapping[str, Sequence[DeployedChannel]], keys: set[str]) -> set[str]:
    """These and all that their conversions need, and so on."""
    needed, new = set(keys), set(keys)
    while new:
        new = {
            other for key in new for channel in channels.get(key, ()) for _, other in channel.needs
        } - needed
        needed |= new
    return needed


def _same(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    """Equal, or no value on both sides."""
    equal: NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return equal


def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)
