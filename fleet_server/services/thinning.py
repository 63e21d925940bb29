"""Thinned packs: what a node kept of packs that it gave up unsent. Their gaps get their reason, their extremes become ranges.

A range says between which values a datastream lay, with uncertainty; it is never an observation, and nothing that reads
observations sees it. Everything here is part of the caller's transaction, which holds the nodes' receipt rows. Inside this module
times are integer seconds UTC.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Table, or_, select, tuple_
from sqlalchemy.orm import Session

from fleet_server.measurement import pipeline
from fleet_server.models import Gap, ObservedRange, Pack, ThinnedPack, ThinnedReading
from fleet_server.models.gap import BELOW_OLDEST, DECLARED_LOST, THINNED
from fleet_server.services import bulk, timing
from fleet_server.services.observing import (
    ChannelBook,
    Layout,
    LineageKey,
    MadeObservation,
    SampledPack,
    lineage_ids_of,
    load_channels,
    make_observations,
)
from fleet_server.services.sequences import Range
from fleet_server.wire.senml import TIME_BEFORE_UTC_S, Extreme, Reading
from fleet_server.wire.senml import ThinnedPack as WireThinnedPack

_MAX_INPUTS = (
    3  # of a conversion, with those that they need themselves: sixteen corners and those of knots
)
_QUERY_KEYS = 400


class Day(NamedTuple):
    """Which packs a thinned one stands for. A node that nobody hears for months copies it: two packs may have the same day."""

    node_id: str
    spool: int
    from_seq: int
    to_seq: int


@dataclass(frozen=True, slots=True)
class TimedPack:
    """A thinned pack whose packs were sampled from `from_s` to `to_s`."""

    pack_id: int
    day: Day
    from_s: int
    to_s: int
    packs: int
    extremes: Sequence[Extreme]

    @property
    def node_id(self) -> str:
        return self.day.node_id


class MadeRange(NamedTuple):
    """One range, not stored yet; values are None when nothing could be read, or nothing made of it."""

    pack_id: int
    datastream_id: int
    from_s: int
    to_s: int
    lowest: float | None
    u_lowest: float | None
    highest: float | None
    u_highest: float | None
    flag: int
    packs: int
    lineage: LineageKey


# --------------------------------------------------------------------------------------------------------------- ingest


def store(session: Session, new: Sequence[tuple[int, WireThinnedPack]], *, now: datetime) -> None:
    """Store new thinned packs (with the ids of their packs), and the ranges of those whose times are known."""
    if not new:
        return
    times = _times(session, {pack_id: stamps_of(pack) for pack_id, pack in new})
    packs = [
        (
            pack_id,
            pack.node_id,
            pack.spool,
            pack.from_seq,
            pack.to_seq,
            pack.packs,
            pack.until_power_up,
            pack.until_uptime_ms,
            *times[pack_id],
        )
        for pack_id, pack in new
    ]
    bulk.insert_rows(session, _table(ThinnedPack), _PACK_COLUMNS, packs)
    readings = [
        (pack_id, key, lowest, highest, reason)
        for pack_id, pack in new
        for key, lowest, highest, reason in pack.extremes
    ]
    bulk.insert_rows(session, _table(ThinnedReading), _READING_COLUMNS, readings)
    timed = [timed_pack(pack_id, pack, *times[pack_id]) for pack_id, pack in new]
    _store_ranges(session, [pack for pack in timed if pack is not None], now=now)


def ends_after(pack: WireThinnedPack, utc_s: int) -> bool:
    """True when a thinned pack says itself that the last of its packs was sampled after that time."""
    if pack.time_utc_s is None or pack.until_power_up != pack.power_up:
        return False
    return pack.time_utc_s * 1000 + pack.until_uptime_ms - pack.uptime_ms > utc_s * 1000


def explain_gaps(session: Session, packs: Iterable[WireThinnedPack]) -> None:
    """What was declared lost below the oldest before anybody knew that it had been thinned gets that reason."""
    for pack in sorted(packs, key=lambda pack: (pack.node_id, pack.spool, pack.seq)):
        gaps = session.scalars(
            select(Gap).where(
                Gap.node_id == pack.node_id,
                Gap.spool == pack.spool,
                Gap.reason == BELOW_OLDEST,
                Gap.from_seq <= pack.to_seq,
                Gap.to_seq >= pack.from_seq,
            )
        ).all()
        for gap in gaps:
            noticed_at, hole = gap.noticed_at, (gap.from_seq, gap.to_seq)
            session.delete(gap)
            session.flush()
            for from_seq, to_seq, reason in cut(hole, [(pack.from_seq, pack.to_seq)]):
                session.add(
                    Gap(
                        node_id=pack.node_id,
                        spool=pack.spool,
                        from_seq=from_seq,
                        to_seq=to_seq,
                        state=DECLARED_LOST,
                        reason=reason,
                        noticed_at=noticed_at,
                    )
                )
            session.flush()


def pieces(
    session: Session, node_id: str, spool: int, holes: Sequence[Range]
) -> list[tuple[int, int, str]]:
    """Holes below the oldest, in ascending order, cut where the reason changes: (first, last, reason)."""
    if not holes:
        return []
    rows = session.execute(
        select(ThinnedPack.from_seq, ThinnedPack.to_seq)
        .where(
            ThinnedPack.node_id == node_id,
            ThinnedPack.spool == spool,
            ThinnedPack.from_seq <= holes[-1][1],
            ThinnedPack.to_seq >= holes[0][0],
        )
        .order_by(ThinnedPack.from_seq)
    )
    thinned = [(row.from_seq, row.to_seq) for row in rows]
    return [piece for hole in holes for piece in cut(hole, thinned)]


def cut(hole: Range, thinned: Iterable[Range]) -> list[tuple[int, int, str]]:
    """A hole in pieces with their reasons; `thinned` is in ascending order.

    >>> cut((1, 10), [(0, 3), (2, 5), (8, 99)])
    [(1, 3, 'thinned'), (4, 5, 'thinned'), (6, 7, 'below_oldest'), (8, 10, 'thinned')]
    """
    found, (at, last) = [], hole
    for first_thinned, last_thinned in thinned:
        begin, end = max(at, first_thinned), min(last, last_thinned)
        if begin > end:
            continue
        if at < begin:
            found.append((at, begin - 1, BELOW_OLDEST))
        found.append((begin, end, THINNED))
        at = end + 1
    if at <= last:
        found.append((at, last, BELOW_OLDEST))
    return found


def repair_times(session: Session, power_ups: set[timing.PowerUp], *, now: datetime) -> None:
    """Give thinned packs that wait for an anchor of these power-ups their times, and make their ranges."""
    node_ids = sorted({node_id for node_id, _ in power_ups})
    waiting = (
        select(ThinnedPack, Pack.power_up, Pack.uptime_ms, Pack.claimed_at)
        .join(Pack, Pack.id == ThinnedPack.pack_id)
        .where(
            ThinnedPack.node_id.in_(node_ids),
            or_(ThinnedPack.from_at.is_(None), ThinnedPack.to_at.is_(None)),
        )
        .order_by(ThinnedPack.pack_id)
    )
    rows = session.execute(waiting).all()
    if not rows:
        return
    times = _times(session, {row[0].pack_id: _stored_stamps(*row) for row in rows})
    for pack, *_ in rows:
        pack.from_at, pack.to_at = map(_at, times[pack.pack_id])
    session.flush()
    for node_id in sorted({pack.node_id for pack, *_ in rows}):
        observe_stored(session, node_id=node_id, now=now)


# -------------------------------------------------------------------------------------------------------------- ranges


def observe_stored(session: Session, *, node_id: str, now: datetime) -> None:
    """Make the ranges that a node's thinned packs lack although their times and channels are known. Safe to repeat."""
    _store_ranges(session, load_timed(session, node_id), now=now)


def has_ranges_from(session: Session, datastream_ids: Sequence[int], from_at: datetime) -> bool:
    """True when one of the datastreams has a range that reaches `from_at` or later."""
    found = select(ObservedRange.datastream_id).where(
        ObservedRange.datastream_id.in_(datastream_ids), ObservedRange.to_at >= from_at
    )
    return session.scalar(found.limit(1)) is not None


def load_timed(session: Session, node_id: str) -> list[TimedPack]:
    """A node's thinned packs with known times, as stored, by pack id."""
    rows = session.execute(
        select(ThinnedPack, ThinnedReading)
        .join(ThinnedReading, ThinnedReading.pack_id == ThinnedPack.pack_id)
        .where(
            ThinnedPack.node_id == node_id,
            ThinnedPack.from_at <= ThinnedPack.to_at,  # both known, and possible
        )
        .order_by(ThinnedPack.pack_id)
    )
    packs: dict[int, ThinnedPack] = {}
    extremes: dict[int, list[Extreme]] = defaultdict(list)
    for pack, reading in rows:
        packs[pack.pack_id] = pack
        extremes[pack.pack_id].append(
            Extreme(reading.channel, reading.lowest, reading.highest, reading.status)
        )
    return [
        TimedPack(
            pack_id,
            Day(node_id, pack.spool, pack.from_seq, pack.to_seq),
            _s(pack.from_at),
            _s(pack.to_at),
            pack.packs,
            extremes[pack_id],
        )
        for pack_id, pack in packs.items()
    ]


def timed_pack(
    pack_id: int, pack: WireThinnedPack, from_s: int | None, to_s: int | None
) -> TimedPack | None:
    """A thinned pack with its times; None when they are not known, or cannot be."""
    if from_s is None or to_s is None or to_s < from_s:
        return None
    day = Day(pack.node_id, pack.spool, pack.from_seq, pack.to_seq)
    return TimedPack(pack_id, day, from_s, to_s, pack.packs, pack.extremes)


def make_ranges(packs: Sequence[TimedPack], book: ChannelBook) -> list[MadeRange]:
    """Ranges of all channels that had one and the same calibration, and so had their inputs, from begin to end.

    A value is made of each corner: the channel's lowest and highest raw value, and its conversion's knots between them, with those
    of its inputs. Between the lowest and the highest of them lies every value that was, because all conversions are monotonic in
    each argument from knot to knot.
    """
    corners = list(_corners(packs, book))
    made = make_observations([corner.as_pack(at) for at, corner in enumerate(corners)], book)
    own = {one.pack_id: one for one in made if one.key == corners[one.pack_id].key}
    by_channel: dict[tuple[int, str], list[MadeObservation | None]] = defaultdict(list)
    for at, corner in enumerate(corners):
        by_channel[corner.place, corner.key].append(own.get(at))
    ranges = []
    for (place, _), found in by_channel.items():
        ones = [one for one in found if one is not None]
        if len(ones) == len(found) and len({(o.datastream_id, o.lineage) for o in ones}) == 1:
            ranges.append(_range_of(packs[place], ones))
    return ranges


@dataclass(frozen=True, slots=True)
class _Corner:
    """One combination of extremes of a channel and of what its conversion needs."""

    place: int
    key: str
    node_id: str
    sampled_s: int
    readings: tuple[Reading, ...]

    def as_pack(self, number: int) -> SampledPack:
        return SampledPack(number, self.node_id, self.sampled_s, self.readings)


def _corners(packs: Sequence[TimedPack], book: ChannelBook) -> Iterator[_Corner]:
    for place, pack in enumerate(packs):
        extremes = {extreme.key: extreme for extreme in pack.extremes}
        layout = book.layout_of(SampledPack(0, pack.node_id, pack.from_s, ()), tuple(extremes))
        knots = dict(zip(layout.keys, map(_knots_of, layout.conversions), strict=True))
        for key in extremes:
            involved = [key, *_inputs_of(key, layout)[:_MAX_INPUTS]]
            ends = [_ends(extremes[other], knots.get(other, ())) for other in involved]
            # The same at both ends of time, so that another calibration there is noticed.
            for readings in itertools.product(*ends):
                for sampled_s in {pack.from_s, pack.to_s}:
                    yield _Corner(place, key, pack.node_id, sampled_s, readings)


def _ends(extreme: Extreme, knots: Iterable[float]) -> list[Reading]:
    lowest, highest = extreme.lowest, extreme.highest
    if lowest is None or highest is None:
        return [(extreme.key, None, extreme.reason)]
    between = [knot for knot in knots if lowest < knot < highest]
    return [(extreme.key, value, None) for value in (lowest, *between, highest)]


def _knots_of(conversion: str) -> tuple[float, ...]:
    known = pipeline.CONVERSIONS.get(conversion)
    return () if known is None else known.knots


def _inputs_of(key: str, layout: Layout) -> list[str]:
    """Keys of the same pack that the channel's conversion needs, and what those need."""
    if key not in layout.keys:
        return []
    rows = [layout.keys.index(key)]
    found: list[str] = []
    while rows:
        for other in layout.inputs[rows.pop()]:
            if other >= 0 and layout.keys[other] not in (key, *found):
                found.append(layout.keys[other])
                rows.append(other)
    return found


def _range_of(pack: TimedPack, ones: Sequence[MadeObservation]) -> MadeRange:
    values = [(one.value, one.u or 0.0) for one in ones if one.value is not None]
    lowest = highest = u_lowest = u_highest = None
    if len(values) == len(ones):
        # Of equal values the one that is less sure.
        lowest, u_lowest = min(values, key=lambda pair: (pair[0], -pair[1]))
        highest, u_highest = max(values)
    return MadeRange(
        pack.pack_id,
        ones[0].datastream_id,
        pack.from_s,
        pack.to_s,
        lowest,
        u_lowest,
        highest,
        u_highest,
        max(one.flag for one in ones),
        pack.packs,
        ones[0].lineage,
    )


def _store_ranges(session: Session, packs: Sequence[TimedPack], *, now: datetime) -> None:
    if not packs:
        return
    # Extremes cannot be made again when somebody sets other limits: they keep to their property's range.
    book = load_channels(session, {pack.node_id for pack in packs}, ranges={})
    made = _first_of_each_day(session, packs, make_ranges(packs, book))
    lineage_ids = lineage_ids_of(session, {one.lineage for one in made})
    known_s = int(now.timestamp())
    rows = [(*one[1:-1], lineage_ids[one.lineage], known_s, one.pack_id) for one in made]
    # Days that overlap because a node lost part of its flash may begin alike: the first ones stay.
    bulk.insert_rows(session, _table(ObservedRange), _RANGE_COLUMNS, rows, if_absent=True)


def _first_of_each_day(
    session: Session, packs: Sequence[TimedPack], made: Sequence[MadeRange]
) -> list[MadeRange]:
    """What is new: a copy of a day that has its ranges already makes none, though its node's clock may say another second."""
    days = {pack.pack_id: pack.day for pack in packs}
    seen = _observed_days(session, set(days.values()), {one.datastream_id for one in made})
    firsts = []
    for one in made:
        key = (days[one.pack_id], one.datastream_id)
        if key not in seen:
            seen.add(key)
            firsts.append(one)
    return firsts


def _observed_days(
    session: Session, days: set[Day], datastream_ids: set[int]
) -> set[tuple[Day, int]]:
    """Days and datastreams of the ranges that are stored."""
    observed: set[tuple[Day, int]] = set()
    for some in bulk.chunks(sorted(days), _QUERY_KEYS):
        found = session.execute(
            select(
                ThinnedPack.pack_id,
                ThinnedPack.from_at,
                ThinnedPack.node_id,
                ThinnedPack.spool,
                ThinnedPack.from_seq,
                ThinnedPack.to_seq,
            ).where(
                tuple_(
                    ThinnedPack.node_id,
                    ThinnedPack.spool,
                    ThinnedPack.from_seq,
                    ThinnedPack.to_seq,
                ).in_(some)
            )
        ).all()
        stands_for = {
            row.pack_id: Day(row.node_id, row.spool, row.from_seq, row.to_seq) for row in found
        }
        starts = sorted({row.from_at for row in found if row.from_at is not None})
        for begins in bulk.chunks(starts, _QUERY_KEYS):
            ranges = session.execute(
                select(ObservedRange.pack_id, ObservedRange.datastream_id).where(
                    ObservedRange.datastream_id.in_(sorted(datastream_ids)),
                    ObservedRange.from_at.in_(begins),
                )
            )
            observed |= {
                (stands_for[pack_id], datastream_id)
                for pack_id, datastream_id in ranges
                if pack_id in stands_for
            }
    return observed


# --------------------------------------------------------------------------------------------------------------- times


class Stamps(NamedTuple):
    """What says when a thinned pack begins and ends: `claimed_s` is the begin's time where the node knew it."""

    node_id: str
    claimed_s: int | None
    power_up: int
    uptime_ms: int
    until_power_up: int
    until_uptime_ms: int


def times_of(
    stamps: Stamps, anchors: Mapping[timing.PowerUp, Sequence[timing.AnchorRow]]
) -> tuple[int | None, int | None]:
    """When the first and the last of the packs were sampled, as far as that is known."""
    node_id, from_s = stamps.node_id, stamps.claimed_s
    if from_s is None:
        from_s = _estimate(anchors.get((node_id, stamps.power_up), ()), stamps.uptime_ms)
    if stamps.until_power_up != stamps.power_up:
        until = anchors.get((node_id, stamps.until_power_up), ())
        return from_s, _estimate(until, stamps.until_uptime_ms)
    if from_s is None:
        return None, None
    to_s = from_s + round((stamps.until_uptime_ms - stamps.uptime_ms) / 1000)
    return from_s, to_s if to_s < TIME_BEFORE_UTC_S else None


def possible_times(
    stamps: Stamps, anchors: Mapping[timing.PowerUp, Sequence[timing.AnchorRow]]
) -> set[tuple[int | None, int | None]]:
    """What the times may have been found to be: anchors that came later may be nearer than those that were used.

    A pack may also have been stored before there was any; then it is repaired with the next one.
    """
    begin, end = (stamps.node_id, stamps.power_up), (stamps.node_id, stamps.until_power_up)
    found = set()
    for first in _one_by_one(anchors.get(begin, ())):
        for until in [first] if begin == end else _one_by_one(anchors.get(end, ())):
            found.add(times_of(stamps, {begin: first, end: until}))
    return found


def _one_by_one(anchors: Sequence[timing.AnchorRow]) -> list[Sequence[timing.AnchorRow]]:
    return [[anchor] for anchor in anchors] or [[]]


def _times(
    session: Session, stamps: Mapping[int, Stamps]
) -> dict[int, tuple[int | None, int | None]]:
    anchors = timing.load_anchors(session, power_ups_of(stamps.values()))
    return {pack_id: times_of(one, anchors) for pack_id, one in stamps.items()}


def power_ups_of(stamps: Iterable[Stamps]) -> set[timing.PowerUp]:
    """Whose anchors are asked for."""
    return {
        (one.node_id, power_up) for one in stamps for power_up in (one.power_up, one.until_power_up)
    }


def _estimate(anchors: Sequence[timing.AnchorRow], uptime_ms: int) -> int | None:
    known = timing.estimate(anchors, uptime_ms)
    return None if known is None else known.utc_s


def stamps_of(pack: WireThinnedPack) -> Stamps:
    """What a thinned pack says about when it begins and ends."""
    return Stamps(
        pack.node_id,
        pack.time_utc_s,
        pack.power_up,
        pack.uptime_ms,
        pack.until_power_up,
        pack.until_uptime_ms,
    )


def _stored_stamps(
    row: ThinnedPack, power_up: int, uptime_ms: int, claimed_at: datetime | None
) -> Stamps:
    claimed_s = None if claimed_at is None else _s(claimed_at)
    return Stamps(
        row.node_id, claimed_s, power_up, uptime_ms, row.until_power_up, row.until_uptime_ms
    )


_PACK_COLUMNS = (
    "pack_id",
    "node_id",
    "spool",
    "from_seq",
    "to_seq",
    "packs",
    "until_power_up",
    "until_uptime_ms",
    "from_at",
    "to_at",
)
_READING_COLUMNS = ("pack_id", "channel", "lowest", "highest", "status")
_RANGE_COLUMNS = (
    "datastream_id",
    "from_at",
    "to_at",
    "lowest",
    "u_lowest",
    "highest",
    "u_highest",
    "flag",
    "packs",
    "lineage_id",
    "known_from",
    "pack_id",
)


def _s(at: datetime | None) -> int:
    assert at is not None  # noqa: S101 - asked for with a time only
    return int(at.timestamp())


def _at(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table
