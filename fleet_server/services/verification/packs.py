"""Packs against their bytes: the pack's own row, its raw readings or its event, and the times that anchors give.

Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

import hashlib
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from fleet_server.models import Event, Pack, RawReading
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.services import timing
from fleet_server.services.ingest import FUTURE_MARGIN_S
from fleet_server.services.observing import SampledPack
from fleet_server.services.timing import AnchorRow, PowerUp
from fleet_server.services.verification.report import Report
from fleet_server.wire.errors import PackIdentity, WireError
from fleet_server.wire.senml import EventPack, ThinnedPack, decode_event, decode_telemetry
from fleet_server.wire.senml import Pack as WirePack

AnyPack = WirePack | ThinnedPack | EventPack

SERVER_CLOCK_STEP_S = 86_400
"""Times that the server wrote one after the other may stand the wrong way round by this much: its clock can be set back."""


class StoredTime(NamedTuple):
    """When a reading was sampled, as its row says it."""

    utc_s: int | None
    is_estimated: bool
    interval_s: int | None


_UNKNOWN = StoredTime(None, False, None)


class StoredReading(NamedTuple):
    """A raw reading's row."""

    raw_value: float | None
    status: str | None
    time: StoredTime


class _StoredEvent(NamedTuple):
    node_id: str
    name: str
    details: list[list[float | str]]
    happened_s: int | None


@dataclass(frozen=True, slots=True)
class StoredPack:
    """A stored pack, read again from its bytes."""

    id: int
    identity: PackIdentity
    """As its bytes say; as its row does, where they cannot be read."""
    stored_s: int
    content: AnyPack | None
    """None: the row is not what was received."""
    oldest: int
    """Lowest sequence that the node held when it sent this; 0 where that cannot be read."""

    def damaged(self, what: str, report: Report) -> None:
        """Report this pack."""
        node_id, spool, seq = self.identity
        report.find(
            "packs_damaged",
            f"Pack {self.id} (node {node_id}, spool {spool}, sequence {seq}) {what}.",
        )


Readings = Mapping[int, Mapping[str, StoredReading]]
"""Stored readings by pack and channel key."""


@dataclass
class CheckedPacks:
    """Some packs of one node."""

    packs: list[StoredPack]
    readings: Readings
    sound: list[SampledPack] = field(default_factory=list)
    """Those that are as received and have a time: their observations are now to be judged."""
    stored_s: dict[int, int] = field(default_factory=dict)
    thinned: list[tuple[int, ThinnedPack]] = field(default_factory=list)
    """Ids and contents of those that stand for others."""


class PackCheck:
    """Judges the packs of one node, some at a time."""

    def __init__(self, session: Session, report: Report, damaged_ids: set[int]) -> None:
        self._session = session
        self._report = report
        self._damaged_ids = damaged_ids
        self._timed_rightly: Tally[PowerUp] = Tally()
        self._timed_wrongly: dict[PowerUp, list[StoredPack]] = defaultdict(list)

    def check(self, pack_ids: Sequence[int]) -> CheckedPacks:
        """Judge these packs, all but their times' faults, which `report_times` reports."""
        packs = _load_packs(self._session, pack_ids)
        readings = _load_readings(self._session, pack_ids)
        events = _load_events(self._session, pack_ids)
        checked = CheckedPacks(packs, readings, stored_s={pack.id: pack.stored_s for pack in packs})
        anchors = timing.load_anchors(self._session, _untimed(packs))
        for pack in packs:
            if pack.content is None:
                self._damage(pack, "is not as received")
                continue
            stored = readings.get(pack.id, {})
            event = events.get(pack.id)
            if not _is_read_from(pack.content, stored, event):
                self._damage(pack, "and what was read from it disagree")
                continue
            if isinstance(pack.content, ThinnedPack):
                checked.thinned.append((pack.id, pack.content))
                continue
            times = _possible_times(pack.content, anchors)
            if self._has_possible_time(pack, pack.content, times, stored, event) and stored:
                sampled = _sampled_pack(pack, stored)
                if sampled is not None:
                    checked.sound.append(sampled)
        return checked

    def report_times(self) -> None:
        """A pack whose time no anchor gives is one fault; so are anchors that give none of their packs' times any more."""
        for power_up, packs in sorted(self._timed_wrongly.items()):
            if len(packs) > 1 and not self._timed_rightly[power_up]:
                self._report.find(
                    "packs_damaged",
                    f"The anchors of node {power_up[0]}'s power-up {power_up[1]} do not give the times of its"
                    f" {len(packs)} packs.",
                )
                continue
            for pack in packs:
                pack.damaged("was not sampled when its readings say", self._report)

    def _damage(self, pack: StoredPack, what: str) -> None:
        self._damaged_ids.add(pack.id)
        pack.damaged(what, self._report)

    def _has_possible_time(
        self,
        pack: StoredPack,
        content: AnyPack,
        times: set[StoredTime],
        stored: Mapping[str, StoredReading],
        event: _StoredEvent | None,
    ) -> bool:
        is_right = {reading.time for reading in stored.values()} <= times and (
            len({reading.time for reading in stored.values()}) <= 1
            and (event is None or event.happened_s in {time.utc_s for time in times})
        )
        power_up = (pack.identity.node_id, content.power_up)
        if is_right:
            self._timed_rightly[power_up] += content.time_utc_s is None
        elif content.time_utc_s is None:
            self._damaged_ids.add(pack.id)
            self._timed_wrongly[power_up].append(pack)
        else:
            self._damage(pack, "was not sampled when its readings say")
        return is_right


def read_identity(kind: str, payload: bytes) -> PackIdentity | None:
    """Whose and which pack these bytes are, as far as that can be read."""
    try:
        content: AnyPack = decode_event(payload) if kind == "event" else decode_telemetry(payload)
    except WireError as fault:
        return fault.identity
    return content.identity


def sampled_pack(session: Session, pack_id: int) -> SampledPack | None:
    """One pack with the time that its readings say; None when there is no sound one with a time."""
    packs = _load_packs(session, [pack_id])
    stored = _load_readings(session, [pack_id]).get(pack_id)
    return _sampled_pack(packs[0], stored) if packs and stored else None


def _sampled_pack(pack: StoredPack, stored: Mapping[str, StoredReading]) -> SampledPack | None:
    sampled_s = next(iter(stored.values())).time.utc_s
    if sampled_s is None or not isinstance(pack.content, WirePack):
        return None
    return SampledPack(pack.id, pack.identity.node_id, sampled_s, pack.content.readings)


# ------------------------------------------------------------------------------------------------------------- loading


def _load_packs(session: Session, pack_ids: Sequence[int]) -> list[StoredPack]:
    rows = session.execute(
        select(*Pack.__table__.columns).where(Pack.id.in_(pack_ids)).order_by(Pack.id)
    )
    packs = []
    for row in rows:
        content = _read_again(row)
        packs.append(
            StoredPack(
                id=row.id,
                # What the row says about a pack counts only where its bytes cannot be trusted.
                identity=PackIdentity(row.node_id, row.spool, row.seq)
                if content is None
                else content.identity,
                stored_s=_seconds(row.stored_at),
                content=content if content is not None and _is_row_of(row, content) else None,
                oldest=0 if content is None else content.oldest,
            )
        )
    return packs


def _read_again(row: Row[Any]) -> AnyPack | None:
    if hashlib.sha256(row.payload).digest() != row.payload_sha256:
        return None
    try:
        is_event = row.kind != "telemetry"
        return decode_event(row.payload) if is_event else decode_telemetry(row.payload)
    except WireError:
        return None


def _is_row_of(row: Row[Any], content: AnyPack) -> bool:
    said = (row.node_id, row.spool, row.seq, row.power_up, row.uptime_ms, row.body_sha256.hex())
    if said != (*content.identity, content.power_up, content.uptime_ms, content.body_sha256):
        return False
    if (None if row.claimed_at is None else _seconds(row.claimed_at)) != content.time_utc_s:
        return False
    received_s, stored_s = _seconds(row.received_at), _seconds(row.stored_at)
    is_too_early = (content.time_utc_s or 0) > received_s + FUTURE_MARGIN_S
    return not is_too_early and received_s <= stored_s + SERVER_CLOCK_STEP_S


def _load_readings(session: Session, pack_ids: Sequence[int]) -> Readings:
    found: dict[int, dict[str, StoredReading]] = defaultdict(dict)
    rows = session.execute(
        select(
            RawReading.pack_id,
            RawReading.channel,
            RawReading.raw_value,
            RawReading.status,
            RawReading.sampled_at,
            RawReading.time_estimated,
            RawReading.time_interval_s,
        ).where(RawReading.pack_id.in_(pack_ids))
    )
    for pack_id, channel, raw_value, status, sampled_at, is_estimated, interval_s in rows:
        sampled_s = None if sampled_at is None else _seconds(sampled_at)
        time = StoredTime(sampled_s, is_estimated, interval_s)
        found[pack_id][channel] = StoredReading(raw_value, status, time)
    return found


def _load_events(session: Session, pack_ids: Sequence[int]) -> Mapping[int, _StoredEvent]:
    rows = session.execute(
        select(Event.pack_id, Event.node_id, Event.name, Event.details, Event.happened_at).where(
            Event.pack_id.in_(pack_ids)
        )
    )
    return {
        pack_id: _StoredEvent(node_id, name, details, None if at is None else _seconds(at))
        for pack_id, node_id, name, details, at in rows
    }


# ------------------------------------------------------------------------------------------------------------- judging


def _is_read_from(
    content: AnyPack,
    stored: Mapping[str, StoredReading],
    event: _StoredEvent | None,
) -> bool:
    if isinstance(content, EventPack):
        details = [list(detail) for detail in content.details]
        said = None if event is None else (event.node_id, event.name, event.details)
        return not stored and said == (content.node_id, content.event, details)
    if isinstance(content, ThinnedPack):
        return not stored and event is None  # what was read from it is judged in thinned.py
    sent = {key: (value, reason) for key, value, reason in content.readings}
    return (
        event is None
        and sent.keys() == stored.keys()
        and all(_is_as_sent(reading, *sent[key]) for key, reading in stored.items())
    )


def _is_as_sent(reading: StoredReading, value: float | None, reason: str | None) -> bool:
    if reading.status == DUPLICATE_INSTANT and reading.time.utc_s is None:
        return False  # a second one of which instant?
    return reading.raw_value == value and reading.status in (reason, DUPLICATE_INSTANT)


def _untimed(packs: Iterable[StoredPack]) -> set[PowerUp]:
    return {
        (pack.identity.node_id, pack.content.power_up)
        for pack in packs
        if pack.content is not None and pack.content.time_utc_s is None
    }


def _possible_times(
    content: AnyPack, anchors: Mapping[PowerUp, Sequence[AnchorRow]]
) -> set[StoredTime]:
    """As the node sent it, else as any anchor of its power-up says: which of them was there first is not known any more."""
    if content.time_utc_s is not None:
        return {StoredTime(content.time_utc_s, False, None)}
    estimates = [
        timing.from_anchor(anchor, content.uptime_ms)
        for anchor in anchors.get((content.node_id, content.power_up), ())
    ]
    return {
        _UNKNOWN if known is None else StoredTime(known.utc_s, True, known.interval_s)
        for known in estimates
    } or {_UNKNOWN}


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())
