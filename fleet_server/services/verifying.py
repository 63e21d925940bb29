"""Recomputing everything from the packs as received, through the functions that made it, and saying what does not agree.

Nothing is judged by comparing stored results with each other: a pack is decoded again, its time is looked up again, its observations are
made again by `observing.make_observations`. A fault is reported once, as the kind that it is: what hangs on a damaged pack or
lineage is not reported on top of it.
"""

from __future__ import annotations

import hashlib
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from fleet_server.models import (
    Datastream,
    Gap,
    Node,
    Observation,
    Pack,
    Quarantine,
    RawReading,
    Receipt,
)
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.models.receipt import NO_SPOOL
from fleet_server.services import bulk, timing
from fleet_server.services.observing import (
    ChannelBook,
    MadeObservation,
    SampledPack,
    load_channels,
    make_observations,
    stored_lineages,
)
from fleet_server.wire.errors import WireError
from fleet_server.wire.senml import EventPack, Reading, decode_event, decode_pack
from fleet_server.wire.senml import Pack as WirePack

_PACKS_AT_ONCE = 1000
_FINDINGS_MAX = 100


@dataclass
class Report:
    """What was counted. `findings` says in sentences where, the first hundred of them."""

    packs: int = 0
    gaps: int = 0
    declared_lost: int = 0
    duplicates: int = 0
    readings_without_observation: int = 0
    packs_damaged: int = 0
    receipts_wrong: int = 0
    observations_not_reproducible: int = 0
    audit_chain_ok: bool = True  # true while nothing is audited yet
    findings: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int | bool]:
        """The counts by their stable names."""
        return {name: getattr(self, name) for name in _COUNTS}

    @property
    def is_clean(self) -> bool:
        """True when nothing is wrong. Packs that the node declared lost are lost, but accounted for."""
        faults = [getattr(self, name) for name in _COUNTS if name not in _NO_FAULTS]
        return self.audit_chain_ok and not any(faults)

    def find(self, kind: str, sentence: str, *, count: int = 1) -> None:
        """Count a fault and say where it is."""
        setattr(self, kind, getattr(self, kind) + count)
        if len(self.findings) < _FINDINGS_MAX:
            self.findings.append(sentence)


_COUNTS = (
    "packs",
    "gaps",
    "declared_lost",
    "duplicates",
    "readings_without_observation",
    "packs_damaged",
    "receipts_wrong",
    "observations_not_reproducible",
    "audit_chain_ok",
)
_NO_FAULTS = ("packs", "declared_lost", "audit_chain_ok")


def verify(session: Session, *, on_progress: Callable[[int, int], None] | None = None) -> Report:
    """Recompute everything as it was at one moment. Reads only; memory is bounded by one node's packs of some days.

    `on_progress` is told from time to time how many packs are done, and how many there are.
    """
    if session.in_transaction():
        session.commit()
    # Packs that arrive meanwhile must not be seen by one query and missed by the next. SQLite's reading is a snapshot anyway.
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    report = Report()
    lineages = _Lineages(session)
    reproduced = _Reproduced()
    total = session.scalar(select(func.count()).select_from(Pack)) or 0
    for node_id in session.scalars(select(Node.node_id).order_by(Node.node_id)).all():
        _verify_node(session, node_id, report, lineages, reproduced)
        if on_progress is not None:
            on_progress(report.packs, total)
    lineages.report(report)
    _verify_nothing_else(session, report, reproduced)
    return report


@dataclass
class _Reproduced:
    """What the packs account for."""

    observations: int = 0
    damaged_packs: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _PackRow:
    """A stored pack, read again from its bytes."""

    id: int
    node_id: str
    spool: int
    seq: int
    power_up: int
    uptime_ms: int
    claimed_s: int | None
    content: WirePack | EventPack | None
    """None: the bytes are not what they were."""


@dataclass(frozen=True, slots=True)
class _StoredReading:
    raw_value: float | None
    status: str | None
    sampled_s: int | None
    is_estimated: bool


_Readings = Mapping[int, Mapping[str, _StoredReading]]
"""Stored readings by pack and channel key."""


def _verify_node(
    session: Session, node_id: str, report: Report, lineages: _Lineages, reproduced: _Reproduced
) -> None:
    book = load_channels(session, [node_id])
    came: dict[int, list[int]] = defaultdict(list)
    pack_ids = session.scalars(
        select(Pack.id).where(Pack.node_id == node_id).order_by(Pack.id)
    ).all()
    for some in bulk.chunks(pack_ids, _PACKS_AT_ONCE):
        packs = _load_packs(session, some)
        report.packs += len(packs)
        for pack in packs:
            came[pack.spool].append(pack.seq)
        readings = _load_readings(session, some)
        sound = _sound_packs(session, packs, readings, report, reproduced)
        _verify_observations(session, sound, readings, book, report, lineages, reproduced)
    _verify_sequences(session, node_id, came, report)


# --------------------------------------------------------------------------------------------------------------- packs


def _load_packs(session: Session, pack_ids: Sequence[int]) -> list[_PackRow]:
    rows = session.execute(
        select(*Pack.__table__.columns).where(Pack.id.in_(pack_ids)).order_by(Pack.id)
    )
    packs = []
    for row in rows:
        content = _read_again(row)
        # What the row says about a pack counts only as far as its bytes say so, if they can be trusted.
        source = row if content is None else content
        claimed_s = None if row.claimed_at is None else int(row.claimed_at.timestamp())
        is_same = (
            content is not None and claimed_s == content.time_utc_s and _is_row_of(row, content)
        )
        packs.append(
            _PackRow(
                row.id,
                row.node_id,
                source.spool,
                source.seq,
                source.power_up,
                source.uptime_ms,
                content.time_utc_s if content is not None else claimed_s,
                content if is_same else None,
            )
        )
    return packs


def _read_again(row: Row[Any]) -> WirePack | EventPack | None:
    if hashlib.sha256(row.payload).digest() != row.payload_sha256:
        return None
    try:
        if row.kind == "telemetry":
            return decode_pack(row.payload)
        return decode_event(row.payload)
    except WireError:
        return None


def _is_row_of(row: Row[Any], content: WirePack | EventPack) -> bool:
    said = (row.node_id, row.spool, row.seq, row.power_up, row.uptime_ms, row.body_sha256.hex())
    return said == (
        content.node_id,
        content.spool,
        content.seq,
        content.power_up,
        content.uptime_ms,
        content.body_sha256,
    )


def _load_readings(session: Session, pack_ids: Sequence[int]) -> _Readings:
    found: dict[int, dict[str, _StoredReading]] = defaultdict(dict)
    rows = session.execute(
        select(
            RawReading.pack_id,
            RawReading.channel,
            RawReading.raw_value,
            RawReading.status,
            RawReading.sampled_at,
            RawReading.time_estimated,
        ).where(RawReading.pack_id.in_(pack_ids))
    )
    for pack_id, channel, raw_value, status, sampled_at, is_estimated in rows:
        sampled_s = None if sampled_at is None else int(sampled_at.timestamp())
        found[pack_id][channel] = _StoredReading(raw_value, status, sampled_s, is_estimated)
    return found


def _sound_packs(
    session: Session,
    packs: Sequence[_PackRow],
    readings: _Readings,
    report: Report,
    reproduced: _Reproduced,
) -> list[SampledPack]:
    """Packs whose bytes are as received, with their readings and the time that they were sampled at."""
    untimed = {(pack.node_id, pack.power_up) for pack in packs if pack.claimed_s is None}
    anchors = timing.load_anchors(session, untimed)
    sound = []
    for pack in packs:
        if pack.content is None:
            _damaged(pack, "is not as received", report, reproduced)
        elif isinstance(pack.content, WirePack):
            stored = readings.get(pack.id, {})
            sampled_s = _sampled_s(pack, stored, anchors.get((pack.node_id, pack.power_up), ()))
            if not _agree(pack.content.readings, stored, sampled_s, pack.claimed_s is None):
                _damaged(pack, "and its raw readings disagree", report, reproduced)
            elif sampled_s is not None:
                sound.append(SampledPack(pack.id, pack.node_id, sampled_s, pack.content.readings))
    return sound


def _damaged(pack: _PackRow, what: str, report: Report, reproduced: _Reproduced) -> None:
    reproduced.damaged_packs.add(pack.id)
    report.find(
        "packs_damaged",
        f"Pack {pack.id} (node {pack.node_id}, spool {pack.spool}, sequence {pack.seq}) {what}.",
    )


def _sampled_s(
    pack: _PackRow, stored: Mapping[str, _StoredReading], anchors: Sequence[timing.AnchorRow]
) -> int | None:
    """When the pack was sampled: as its node sent it, else as one of its power-up's anchors says.

    Anchors that came later may be nearer than the one that was used; any of them makes a stored time right.
    """
    if pack.claimed_s is not None:
        return pack.claimed_s
    estimates = (timing.from_anchor(anchor, pack.uptime_ms) for anchor in anchors)
    possible = {known.utc_s for known in estimates if known is not None}
    for reading in stored.values():
        if reading.sampled_s in possible:
            return reading.sampled_s
    known = timing.estimate(anchors, pack.uptime_ms)
    return None if known is None else known.utc_s


def _agree(
    sent: Iterable[Reading],
    stored: Mapping[str, _StoredReading],
    sampled_s: int | None,
    is_estimated: bool,
) -> bool:
    sent_by_key = {key: (value, reason) for key, value, reason in sent}
    if sent_by_key.keys() != stored.keys():
        return False
    for key, reading in stored.items():
        value, reason = sent_by_key[key]
        if reading.raw_value != value or reading.status not in (reason, DUPLICATE_INSTANT):
            return False
        if reading.sampled_s != sampled_s:
            return False
        if reading.is_estimated != (is_estimated and sampled_s is not None):
            return False
    return True


# -------------------------------------------------------------------------------------------------------- observations


def _verify_observations(
    session: Session,
    packs: Sequence[SampledPack],
    readings: _Readings,
    book: ChannelBook,
    report: Report,
    lineages: _Lineages,
    reproduced: _Reproduced,
) -> None:
    made = make_observations(packs, book)
    if not made:
        return
    stored = _load_observations(session, made)
    for one in made:
        found = stored.get((one.datastream_id, one.sampled_s))
        where = (
            f"datastream {one.datastream_id} at {datetime.fromtimestamp(one.sampled_s, UTC):%F %T}"
            f" (pack {one.pack_id}, channel {one.key})"
        )
        is_double = readings[one.pack_id][one.key].status == DUPLICATE_INSTANT
        if is_double and (found is None or found.pack_id != one.pack_id):
            continue  # the observation is that of the instant's first reading, and judged with it
        if found is None:
            report.find("readings_without_observation", f"There is no observation of {where}.")
        elif is_double:
            reproduced.observations += 1
            report.find("packs_damaged", f"The raw reading of {where} is not a second one.")
        else:
            reproduced.observations += 1
            if _is_reproduced(one, found):
                lineages.note(one, found.lineage_id)
            else:
                report.find(
                    "observations_not_reproducible", f"The observation of {where} is another one."
                )


@dataclass(frozen=True, slots=True)
class _StoredObservation:
    value: float | None
    u: float | None
    flag: int
    tests: int
    lineage_id: int
    pack_id: int | None


def _load_observations(
    session: Session, made: Sequence[MadeObservation]
) -> dict[tuple[int, int], _StoredObservation]:
    times = [one.sampled_s for one in made]
    wanted = {(one.datastream_id, one.sampled_s) for one in made}
    rows = session.execute(
        select(
            Observation.datastream_id,
            Observation.sampled_at,
            Observation.value,
            Observation.u,
            Observation.flag,
            Observation.tests,
            Observation.lineage_id,
            Observation.pack_id,
        ).where(
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
            found[key] = _StoredObservation(
                row.value, row.u, row.flag, row.tests, row.lineage_id, row.pack_id
            )
    return found


def _is_reproduced(one: MadeObservation, found: _StoredObservation) -> bool:
    return (
        one.value == found.value
        and _single(one.u) == _single(found.u)
        and (one.flag, one.tests, one.pack_id) == (found.flag, found.tests, found.pack_id)
    )


def _single(u: float | None) -> float | None:
    """In single precision, as it is stored: PostgreSQL hands out the shortest text of it, SQLite the full number."""
    return None if u is None else float(np.float32(u))


class _Lineages:
    """Stored lineages against what made the observations that name them."""

    def __init__(self, session: Session) -> None:
        self._stored = stored_lineages(session)
        self._right: Tally[int] = Tally()
        self._wrong: dict[int, list[MadeObservation]] = defaultdict(list)

    def note(self, one: MadeObservation, lineage_id: int) -> None:
        if self._stored.get(lineage_id) == one.lineage:
            self._right[lineage_id] += 1
        else:
            self._wrong[lineage_id].append(one)

    def report(self, report: Report) -> None:
        """An observation that names another's lineage is one fault; so is a lineage that nothing agrees with any more."""
        for lineage_id, observations in sorted(self._wrong.items()):
            if self._right[lineage_id]:
                for one in observations:
                    at = datetime.fromtimestamp(one.sampled_s, UTC)
                    report.find(
                        "observations_not_reproducible",
                        f"The observation of datastream {one.datastream_id} at {at:%F %T} names a lineage"
                        f" ({lineage_id}) that did not make it.",
                    )
            else:
                report.find(
                    "observations_not_reproducible",
                    f"Lineage {lineage_id} does not say what made its {len(observations)} observations.",
                )


# ----------------------------------------------------------------------------------------------- sequences and the rest


def _verify_sequences(
    session: Session, node_id: str, came: Mapping[int, list[int]], report: Report
) -> None:
    """Holes, packs stored twice, and whether the receipt says what is there."""
    declared = _declared(session, node_id)
    quarantined = _quarantined(session, node_id)
    for spool, seqs in sorted(came.items()):
        twice = len(seqs) - len(set(seqs))
        if twice:
            report.find(
                "duplicates", f"Node {node_id}, spool {spool}: {twice} packs twice.", count=twice
            )
        accounted = _ranges([*seqs, *quarantined[spool]], declared[spool])
        open_holes = _holes_between(accounted, 1, max(seqs))
        missing = sum(last - first + 1 for first, last in open_holes)
        if missing:
            report.find(
                "gaps",
                f"Node {node_id}, spool {spool}: {missing} packs never came, the first is"
                f" {open_holes[0][0]}.",
                count=missing,
            )
    for ranges in declared.values():
        report.declared_lost += sum(last - first + 1 for first, last in ranges)
    receipt = session.get(Receipt, node_id)
    said = None if receipt is None else (receipt.spool, receipt.seq)
    spool = NO_SPOOL if receipt is None else receipt.spool
    accounted = _ranges([*came.get(spool, ()), *quarantined[spool]], declared[spool])
    expected = _contiguous(accounted)
    is_without_spool = spool == NO_SPOOL and bool(came)
    if said != (spool, expected) or is_without_spool:
        report.find(
            "receipts_wrong",
            f"The receipt of node {node_id} says {said}; right is sequence {expected}"
            f"{' of a spool that the node used' if is_without_spool else ''}.",
        )


def _ranges(seqs: Iterable[int], declared: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sequences that came, were quarantined or declared lost, as ascending ranges that do not touch.

    >>> _ranges([3, 1, 2, 9], [(4, 6)])
    [(1, 6), (9, 9)]
    """
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*((seq, seq) for seq in set(seqs)), *declared]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _holes_between(
    accounted: Sequence[tuple[int, int]], first: int, last: int
) -> list[tuple[int, int]]:
    found, expected = [], first
    for start, end in accounted:
        if start > expected:
            found.append((expected, min(start - 1, last)))
        expected = max(expected, end + 1)
    return [(start, end) for start, end in found if start <= end]


def _contiguous(accounted: Sequence[tuple[int, int]]) -> int:
    """The highest sequence with nothing missing below it."""
    return next((last for first, last in accounted if first <= 1 <= last), 0)


def _declared(session: Session, node_id: str) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    rows = session.execute(
        select(Gap.spool, Gap.from_seq, Gap.to_seq).where(Gap.node_id == node_id)
    )
    for spool, from_seq, to_seq in rows:
        found[spool].append((from_seq, to_seq))
    return found


def _quarantined(session: Session, node_id: str) -> dict[int, set[int]]:
    found: dict[int, set[int]] = defaultdict(set)
    rows = session.execute(
        select(Quarantine.spool, Quarantine.seq).where(
            Quarantine.node_id == node_id, Quarantine.seq.is_not(None)
        )
    )
    for spool, seq in rows:
        if spool is not None and seq is not None:
            found[spool].add(seq)
    return found


def _verify_nothing_else(session: Session, report: Report, reproduced: _Reproduced) -> None:
    """Every calibrated observation comes from a pack."""
    calibrated = (
        select(func.count())
        .select_from(Observation)
        .join(Datastream, Datastream.id == Observation.datastream_id)
        .where(Datastream.level == "calibrated")
    )
    total = session.scalar(calibrated) or 0
    of_damaged = 0
    for some in bulk.chunks(sorted(reproduced.damaged_packs), _PACKS_AT_ONCE):
        of_damaged += session.scalar(calibrated.where(Observation.pack_id.in_(some))) or 0
    orphans = total - reproduced.observations - of_damaged
    if orphans > 0:
        report.find(
            "observations_not_reproducible",
            f"{orphans} observations come from no pack.",
            count=orphans,
        )
