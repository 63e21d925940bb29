"""Thinned packs against their bytes: what they say, when that was, their ranges, and the gaps that name them.

Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.models import Gap, ObservedRange, ThinnedPack, ThinnedReading
from fleet_server.models.gap import THINNED
from fleet_server.services import bulk, sequences, thinning, timing
from fleet_server.services.observing import load_channels, stored_lineages
from fleet_server.services.sequences import Range
from fleet_server.services.thinning import Day, MadeRange, TimedPack
from fleet_server.services.verification.report import Report
from fleet_server.wire.senml import ThinnedPack as WireThinnedPack

_PACKS_AT_ONCE = 1000

_Ranges = dict[tuple[int, int, int], ObservedRange]
"""(datastream, begin, pack): what is stored"""
_Extremes = dict[str, tuple[float | None, float | None, str | None]]


class ThinnedCheck:
    """Judges the thinned packs, one node's at a time, and at the end what is left over."""

    def __init__(self, session: Session, report: Report, damaged_ids: set[int]) -> None:
        self._session = session
        self._report = report
        self._damaged_ids = damaged_ids
        self._lineages = stored_lineages(session)
        self._named: dict[tuple[str, int], list[Range]] = defaultdict(list)
        self._reproduced = 0

    def check(self, node_id: str, packs: Sequence[tuple[int, WireThinnedPack]]) -> None:
        """Judge one node's packs, with their ids."""
        for _, pack in packs:
            self._named[node_id, pack.spool].append((pack.from_seq, pack.to_seq))
        sound = self._sound(packs)
        if not sound:
            return
        try:
            ranges = thinning.make_ranges(sound, load_channels(self._session, [node_id], ranges={}))
        except ValueError:
            # That nothing of this node can be made again is found at its observations.
            self._damaged_ids.update(pack.pack_id for pack in sound)
            return
        days = {pack.pack_id: pack.day for pack in sound}
        made: dict[tuple[Day, int], list[MadeRange]] = defaultdict(list)
        for one in ranges:
            made[days[one.pack_id], one.datastream_id].append(one)
        stored = self._stored_ranges([pack.pack_id for pack in sound])
        held = {place[:2] for place in stored}
        for copies in made.values():
            self._compare(copies, stored, held)

    def report_rest(self) -> None:
        """Ranges that come from no pack, and gaps that no thinned pack explains."""
        total = self._session.scalar(select(func.count()).select_from(ObservedRange)) or 0
        of_damaged = 0
        for some in bulk.chunks(sorted(self._damaged_ids), _PACKS_AT_ONCE):
            found = select(func.count()).where(ObservedRange.pack_id.in_(some))
            of_damaged += self._session.scalar(found) or 0
            # What hangs on a damaged pack is not a fault of its own.
            for row in self._session.scalars(
                select(ThinnedPack).where(ThinnedPack.pack_id.in_(some))
            ):
                self._named[row.node_id, row.spool].append((row.from_seq, row.to_seq))
        orphans = total - self._reproduced - of_damaged
        if orphans > 0:
            self._report.find(
                "observations_not_reproducible",
                f"{orphans} ranges come from no thinned pack.",
                count=orphans,
            )
        self._check_gaps()

    def _check_gaps(self) -> None:
        rows = self._session.execute(
            select(Gap.node_id, Gap.spool, Gap.from_seq, Gap.to_seq)
            .where(Gap.reason == THINNED)
            .order_by(Gap.node_id, Gap.spool, Gap.from_seq)
        )
        for node_id, spool, from_seq, to_seq in rows:
            named = sequences.merged(self._named[node_id, spool])
            if sequences.common(named, from_seq, to_seq) != [(from_seq, to_seq)]:
                self._report.find(
                    "gaps",
                    f"Node {node_id}, spool {spool}: no thinned pack stands for {from_seq} to {to_seq}.",
                )

    def _sound(self, packs: Sequence[tuple[int, WireThinnedPack]]) -> list[TimedPack]:
        """Packs whose rows say what their bytes say, with a known time."""
        stamps = {pack_id: thinning.stamps_of(pack) for pack_id, pack in packs}
        anchors = timing.load_anchors(self._session, thinning.power_ups_of(stamps.values()))
        rows = self._stored(list(stamps))
        sound = []
        for pack_id, pack in packs:
            row, extremes = rows.get(pack_id, (None, {}))
            said = {e.key: (e.lowest, e.highest, e.reason) for e in pack.extremes}
            if row is None or _numbers(row) != _said_numbers(pack) or extremes != said:
                self._damage(pack_id, "and what was read from it disagree")
                continue
            stored = (_seconds(row.from_at), _seconds(row.to_at))
            if stored not in thinning.possible_times(stamps[pack_id], anchors):
                self._damage(pack_id, "was not sampled when its row says")
                continue
            timed = thinning.timed_pack(pack_id, pack, *stored)
            if timed is not None:
                sound.append(timed)
        return sound

    def _damage(self, pack_id: int, what: str) -> None:
        self._damaged_ids.add(pack_id)
        self._report.find("packs_damaged", f"The thinned pack {pack_id} {what}.")

    def _stored(self, pack_ids: Sequence[int]) -> dict[int, tuple[ThinnedPack, _Extremes]]:
        found: dict[int, tuple[ThinnedPack, _Extremes]] = {}
        for some in bulk.chunks(pack_ids, _PACKS_AT_ONCE):
            for row in self._session.scalars(
                select(ThinnedPack).where(ThinnedPack.pack_id.in_(some))
            ):
                found[row.pack_id] = (row, {})
            for one in self._session.scalars(
                select(ThinnedReading).where(ThinnedReading.pack_id.in_(some))
            ):
                if one.pack_id in found:
                    found[one.pack_id][1][one.channel] = (one.lowest, one.highest, one.status)
        return found

    def _stored_ranges(self, pack_ids: Sequence[int]) -> _Ranges:
        found = {}
        for some in bulk.chunks(pack_ids, _PACKS_AT_ONCE):
            for row in self._session.scalars(
                select(ObservedRange).where(ObservedRange.pack_id.in_(some))
            ):
                found[row.datastream_id, int(row.from_at.timestamp()), row.pack_id] = row
        return found

    def _compare(
        self, copies: Sequence[MadeRange], stored: _Ranges, held: set[tuple[int, int]]
    ) -> None:
        """Judge one day's range of one datastream, which is that of any of the packs that stand for the day."""
        first = copies[0]
        at = datetime.fromtimestamp(first.from_s, UTC)
        where = f"datastream {first.datastream_id} from {at:%F %T}"
        for one in copies:
            row = stored.get((one.datastream_id, one.from_s, one.pack_id))
            if row is None:
                continue
            self._reproduced += 1
            if not _is_reproduced(one, row) or self._lineages.get(row.lineage_id) != one.lineage:
                self._report.find(
                    "observations_not_reproducible", f"The range of {where} is another one."
                )
            return
        if not any((one.datastream_id, one.from_s) in held for one in copies):
            self._report.find("readings_without_observation", f"There is no range of {where}.")


def _numbers(row: ThinnedPack) -> tuple[object, ...]:
    return (
        row.node_id,
        row.spool,
        row.from_seq,
        row.to_seq,
        row.packs,
        row.until_power_up,
        row.until_uptime_ms,
    )


def _said_numbers(pack: WireThinnedPack) -> tuple[object, ...]:
    return (
        pack.node_id,
        pack.spool,
        pack.from_seq,
        pack.to_seq,
        pack.packs,
        pack.until_power_up,
        pack.until_uptime_ms,
    )


def _is_reproduced(one: MadeRange, row: ObservedRange) -> bool:
    us = (one.u_lowest, one.u_highest), (row.u_lowest, row.u_highest)
    said = (row.lowest, row.highest, row.flag, row.packs, row.pack_id, _seconds(row.to_at))
    return said == (
        one.lowest,
        one.highest,
        one.flag,
        one.packs,
        one.pack_id,
        one.to_s,
    ) and [*map(_single, us[0])] == [*map(_single, us[1])]


def _single(u: float | None) -> float | None:
    return None if u is None else float(np.float32(u))


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
