"""Observations made again from their packs: value, u, flag, test bits, lineage; and the counts kept of them.

Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from fleet_server.measurement import quality
from fleet_server.models import Datastream, Observation, ObservationCount
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.services import bulk, person_flags
from fleet_server.services.observing import (
    ChannelBook,
    LineageKey,
    MadeObservation,
    load_channels,
    make_observations,
    month_of,
    named_inputs,
    stored_lineages,
)
from fleet_server.services.verification.judged import check_judged, check_persons, reached_of
from fleet_server.services.verification.judged_then import check_judged_then
from fleet_server.services.verification.packs import (
    SERVER_CLOCK_STEP_S,
    CheckedPacks,
    sampled_pack,
)
from fleet_server.services.verification.report import Report
from fleet_server.services.verification.versions import (
    check_history,
    removed_instants,
    waiting_of,
)

_PACKS_AT_ONCE = 1000
# Of lost observations so many are looked for elsewhere; where more are lost nobody moved them one by one.
_LOOKED_FOR_MAX = 1000
_SENTENCES_MAX = 100
_LEVEL = "calibrated"

Instant = tuple[int, int]
"""datastream, seconds UTC"""


@dataclass(frozen=True, slots=True)
class _StoredObservation:
    value: float | None
    u: float | None
    flag: int
    tests: int
    lineage_id: int
    known_s: int
    pack_id: int | None


@dataclass(slots=True)
class _Unlike:
    """Observations that one calibration should have given and did not."""

    count: int = 0
    sentences: list[str] = field(default_factory=list)
    inputs: set[int] | None = None
    """Calibrations that all of them needed besides."""

    def add(self, one: MadeObservation, sentence: str) -> None:
        self.count += 1
        if len(self.sentences) < _SENTENCES_MAX:
            self.sentences.append(sentence)
        inputs = _input_calibrations(one.lineage)
        self.inputs = inputs if self.inputs is None else self.inputs & inputs


class ObservationCheck:
    """Judges the observations of all packs, some packs at a time, and at the end what is left over."""

    def __init__(self, session: Session, report: Report, damaged_ids: set[int]) -> None:
        self._session = session
        self._report = report
        self._damaged_ids = damaged_ids
        self._lineages = stored_lineages(session)
        self._node_id = ""
        self._book: ChannelBook | None = None
        self._reproduced = 0
        self._counts: Tally[tuple[int, int]] = Tally()  # by datastream and month
        self._lost: list[MadeObservation] = []
        self._made_by_losers: dict[int, set[Instant]] = {}
        self._lineages_right: Tally[int] = Tally()
        self._lineages_wrong: dict[int, list[MadeObservation]] = defaultdict(list)
        self._given: Tally[int] = Tally()  # values, by calibration
        self._unlike: dict[int, _Unlike] = defaultdict(_Unlike)
        self._waiting = waiting_of(session)
        self._reached = reached_of(session)

    def begin_node(self, node_id: str) -> None:
        """What the packs that follow were measured with."""
        self._node_id = node_id
        try:
            self._book = load_channels(self._session, [node_id])
        except ValueError as problem:
            self._give_up_node(problem)

    def check(self, checked: CheckedPacks) -> None:
        """Judge the observations of these packs."""
        made = self._make(checked)
        if made is None:
            # They are counted as they stand.
            self._damaged_ids.update(pack.pack_id for pack in checked.sound)
            return
        stored = _load_observations(self._session, made)
        doubles = {
            (pack.pack_id, key)
            for pack in checked.sound
            for key, reading in checked.readings[pack.pack_id].items()
            if reading.status == DUPLICATE_INSTANT
        }
        early: dict[int, list[MadeObservation]] = defaultdict(list)
        for one in made:
            found = stored.get((one.datastream_id, one.sampled_s))
            is_double = (one.pack_id, one.key) in doubles
            if is_double and (found is None or found.pack_id != one.pack_id):
                continue  # the observation is that of the instant's first reading, and judged with it
            if found is not None and self._is_of_another(found, one):
                self._report_double(one, "a second one")
                continue
            self._counts[one.datastream_id, month_of(one.sampled_s)] += 1
            if found is None:
                self._lose(one, made)
                continue
            self._reproduced += 1
            if is_double:
                self._report_double(one, "not a second one")
            elif self._waits(one) and not self._is_in_force(one, found):
                continue  # a revision has not come to it yet: judged by the lineage that it names
            elif self._judge(one, found) and (
                found.known_s < checked.stored_s[one.pack_id] - SERVER_CLOCK_STEP_S
            ):
                early[one.pack_id].append(one)
        for pack_id, key in sorted(doubles - {(one.pack_id, one.key) for one in made}):
            self._report.find(
                "packs_damaged", f"The raw reading {key} of pack {pack_id} is not a second one."
            )
        self._report_early(early, checked)

    def _make(self, checked: CheckedPacks) -> list[MadeObservation] | None:
        if self._book is None:
            return None
        try:
            return list(make_observations(checked.sound, self._book))
        except ValueError as problem:
            self._give_up_node(problem)
            return None

    def _give_up_node(self, problem: ValueError) -> None:
        """A calibration or channel that cannot be used at all."""
        self._book = None
        self._report.find(
            "observations_not_reproducible",
            f"Nothing of node {self._node_id} can be made again: {problem}",
        )

    def report_rest(self) -> None:
        """What can be said only when all packs are done: lineages, calibrations, what comes from no pack, the counts."""
        self._report_lineages()
        self._report_calibrations()
        for datastream_id, sampled_s in removed_instants(
            self._session, self._report, self._waiting, self._lineages
        ):
            self._reproduced += 1
            self._counts[datastream_id, month_of(sampled_s)] += 1
        check_history(self._session, self._report, self._lineages)
        check_judged(self._session, self._report)
        check_judged_then(self._session, self._report)
        check_persons(self._session, self._report)
        self._report.observations = self._reproduced
        of_damaged = self._count_of_damaged()
        total = self._session.scalar(
            select(func.count())
            .select_from(Observation)
            .join(Datastream, Datastream.id == Observation.datastream_id)
            .where(Datastream.level == _LEVEL)
        )
        orphans = (total or 0) - self._reproduced - of_damaged
        orphans -= self._report_lost(look_elsewhere=orphans > 0)
        if orphans > 0:
            self._report.find(
                "observations_not_reproducible",
                f"{orphans} observations come from no pack.",
                count=orphans,
            )
        self._report_counts()

    # -- one observation

    def _is_of_another(self, found: _StoredObservation, one: MadeObservation) -> bool:
        """Whether the stored observation was made from the pack that it names, and that is not this one's."""
        if found.pack_id is None or found.pack_id == one.pack_id:
            return False
        pack = sampled_pack(self._session, found.pack_id)
        if pack is None:
            return False
        try:
            made = make_observations([pack], load_channels(self._session, [pack.node_id]))
        except ValueError:
            return False  # that node's channels are a fault of their own
        instants = {(other.datastream_id, other.sampled_s) for other in made}
        return (one.datastream_id, one.sampled_s) in instants

    def _waits(self, one: MadeObservation) -> bool:
        waiting = self._waiting.get(one.datastream_id, ())
        return any(found.has(one.sampled_s) for found in waiting)

    def _is_in_force(self, one: MadeObservation, found: _StoredObservation) -> bool:
        """Whether it is what calibrations and rules give today."""
        return (
            self._is_reproduced(one, found) and self._lineages.get(found.lineage_id) == one.lineage
        )

    def _is_reproduced(self, one: MadeObservation, found: _StoredObservation) -> bool:
        reached_s = self._reached.get(one.datastream_id)
        is_judged = reached_s is not None and one.sampled_s <= reached_s
        return _is_reproduced(one, found, is_judged=is_judged)

    def _judge(self, one: MadeObservation, found: _StoredObservation) -> bool:
        calibration_id = one.lineage[1]
        if not self._is_reproduced(one, found):
            sentence = f"The observation of {_where(one)} is another one."
            self._unlike[calibration_id].add(one, sentence)
            return False
        self._given[calibration_id] += one.value is not None
        if self._lineages.get(found.lineage_id) == one.lineage:
            self._lineages_right[found.lineage_id] += 1
        else:
            self._lineages_wrong[found.lineage_id].append(one)
        return True

    def _report_double(self, one: MadeObservation, what: str) -> None:
        self._report.find(
            "packs_damaged", f"The raw reading of {_where(one)} is {what} of its instant."
        )

    def _lose(self, one: MadeObservation, made: Sequence[MadeObservation]) -> None:
        if len(self._lost) >= _LOOKED_FOR_MAX:
            self._report_one_lost(one)
            return
        self._lost.append(one)
        if one.pack_id not in self._made_by_losers:
            self._made_by_losers[one.pack_id] = {
                (other.datastream_id, other.sampled_s)
                for other in made
                if other.pack_id == one.pack_id
            }

    def _report_early(
        self, early: Mapping[int, list[MadeObservation]], checked: CheckedPacks
    ) -> None:
        """Nothing is known before its pack was stored: one that says so is one fault, a pack of which all do is one too."""
        packs = {pack.id: pack for pack in checked.packs}
        for pack_id, observations in sorted(early.items()):
            if len(observations) > 1:
                packs[pack_id].damaged("was stored after its observations were known", self._report)
                continue
            self._report.find(
                "observations_not_reproducible",
                f"The observation of {_where(observations[0])} is older than its pack.",
            )

    # -- the rest

    def _report_lineages(self) -> None:
        """An observation that names another's lineage is one fault; so is a lineage that nothing agrees with any more."""
        for lineage_id, observations in sorted(self._lineages_wrong.items()):
            if self._lineages_right[lineage_id]:
                for one in observations:
                    self._report.find(
                        "observations_not_reproducible",
                        f"The observation of {_where(one)} names a lineage ({lineage_id}) that did not make it.",
                    )
            else:
                self._report.find(
                    "observations_not_reproducible",
                    f"Lineage {lineage_id} does not say what made its {len(observations)} observations.",
                )

    def _report_calibrations(self) -> None:
        """A calibration that gives none of its observations any more is one fault, with all values that needed them."""
        changed = {
            calibration_id
            for calibration_id, unlike in self._unlike.items()
            if unlike.count > 1 and not self._given[calibration_id]
        }
        for calibration_id, unlike in sorted(self._unlike.items()):
            if (unlike.inputs or set()) & (changed - {calibration_id}):
                continue
            if calibration_id in changed:
                self._report.find(
                    "observations_not_reproducible",
                    f"Calibration {calibration_id} gives none of its {unlike.count} observations.",
                )
                continue
            for sentence in unlike.sentences:
                self._report.find("observations_not_reproducible", sentence)
            further = unlike.count - len(unlike.sentences)
            if further:
                self._report.find(
                    "observations_not_reproducible",
                    f"{further} further observations of calibration {calibration_id} are other ones.",
                    count=further,
                )

    def _count_of_damaged(self) -> int:
        """Observations of damaged packs cannot be judged, but they are counted as they stand."""
        count = 0
        for some in bulk.chunks(sorted(self._damaged_ids), _PACKS_AT_ONCE):
            rows = self._session.execute(
                select(Observation.datastream_id, Observation.sampled_at)
                .join(Datastream, Datastream.id == Observation.datastream_id)
                .where(Observation.pack_id.in_(some), Datastream.level == _LEVEL)
            )
            for datastream_id, sampled_at in rows:
                count += 1
                self._counts[datastream_id, month_of(int(sampled_at.timestamp()))] += 1
        return count

    def _report_lost(self, *, look_elsewhere: bool) -> int:
        """Readings without observation. One that stands under another instant was moved. Returns how many were."""
        strays = self._strays() if look_elsewhere and self._lost else {}
        moved = 0
        for one in self._lost:
            found = next(
                (
                    instant
                    for instant, stored in strays.get(one.pack_id, {}).items()
                    if self._is_reproduced(one, stored)
                    and self._lineages.get(stored.lineage_id) == one.lineage
                ),
                None,
            )
            if found is None:
                self._report_one_lost(one)
                continue
            del strays[one.pack_id][found]
            moved += 1
            self._report.find(
                "observations_not_reproducible",
                f"The observation of {_where(one)} stands in datastream {found[0]} at {_at(found[1])}.",
            )
        return moved

    def _report_one_lost(self, one: MadeObservation) -> None:
        self._report.find(
            "readings_without_observation", f"There is no observation of {_where(one)}."
        )

    def _strays(self) -> dict[int, dict[Instant, _StoredObservation]]:
        """Observations that name a pack which lacks some, and are none of those it makes."""
        strays: dict[int, dict[Instant, _StoredObservation]] = defaultdict(dict)
        for some in bulk.chunks(sorted(self._made_by_losers), _PACKS_AT_ONCE):
            rows = self._session.scalars(select(Observation).where(Observation.pack_id.in_(some)))
            for row in rows:
                instant = (row.datastream_id, int(row.sampled_at.timestamp()))
                if row.pack_id is not None and instant not in self._made_by_losers[row.pack_id]:
                    strays[row.pack_id][instant] = _stored(row)
        return strays

    def _report_counts(self) -> None:
        rows = self._session.execute(
            select(ObservationCount.datastream_id, ObservationCount.month, ObservationCount.count)
            .join(Datastream, Datastream.id == ObservationCount.datastream_id)
            .where(Datastream.level == _LEVEL)
        )
        said = {(datastream_id, month): count for datastream_id, month, count in rows}
        for datastream_id, month in sorted(said.keys() | self._counts.keys()):
            counted = self._counts[datastream_id, month]
            if said.get((datastream_id, month), 0) != counted:
                self._report.find(
                    "observations_not_reproducible",
                    f"The count of datastream {datastream_id} in {month} says"
                    f" {said.get((datastream_id, month), 'nothing')}; right is {counted}.",
                )


# ------------------------------------------------------------------------------------------------------------- private


def _load_observations(
    session: Session, made: Sequence[MadeObservation]
) -> dict[Instant, _StoredObservation]:
    if not made:
        return {}
    times = [one.sampled_s for one in made]
    wanted = {(one.datastream_id, one.sampled_s) for one in made}
    rows = session.execute(
        select(*Observation.__table__.columns).where(
            Observation.datastream_id.in_(sorted({one.datastream_id for one in made})),
            Observation.sampled_at.between(
                datetime.fromtimestamp(min(times), UTC), datetime.fromtimestamp(max(times), UTC)
            ),
        )
    )
    found = {}
    for row in rows:
        key = (row.datastream_id, int(row.sampled_at.timestamp()))
        if key in wanted:
            found[key] = _stored(row)
    return found


def _stored(row: Observation | Row[Any]) -> _StoredObservation:
    return _StoredObservation(
        row.value,
        row.u,
        row.flag,
        row.tests,
        row.lineage_id,
        int(row.known_from.timestamp()),
        row.pack_id,
    )


def _is_reproduced(one: MadeObservation, found: _StoredObservation, *, is_judged: bool) -> bool:
    """Whether it is what the reading by itself gives, and, if it was judged since, what was filled in (`judged` looks at that)."""
    flag, tests = one.flag, one.tests
    if one.value is not None:
        filled = found.tests if is_judged else found.tests & person_flags.BITS
        tests = quality.merged_tests(one.tests, filled)
        flag = quality.flag_of_tests(tests)
    return (
        one.value == found.value
        and _single(one.u) == _single(found.u)
        and (flag, tests, one.pack_id) == (found.flag, found.tests, found.pack_id)
    )


def _single(u: float | None) -> float | None:
    """In single precision, as it is stored: PostgreSQL hands out the shortest text of it, SQLite the full number."""
    return None if u is None else float(np.float32(u))


def _input_calibrations(lineage: LineageKey) -> set[int]:
    return {calibration_id for calibration_id, _ in named_inputs(lineage[2]).values()}


def _where(one: MadeObservation) -> str:
    return (
        f"datastream {one.datastream_id} at {_at(one.sampled_s)}"
        f" (pack {one.pack_id}, channel {one.key})"
    )


def _at(utc_s: int) -> str:
    return f"{datetime.fromtimestamp(utc_s, UTC):%F %T}"
