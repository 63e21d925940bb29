"""When a pack was sampled, if the node did not know: derived from anchors (uptime ↔ UTC) of the same power-up.

Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Table, select, tuple_, update
from sqlalchemy.orm import Session

from fleet_server.models import Anchor, Event, Pack, RawReading
from fleet_server.services import bulk
from fleet_server.services.observing import SampledPack
from fleet_server.wire.senml import TIME_BEFORE_UTC_S, TIME_FROM_UTC_S, Reading

# In deep sleep the ESP32 counts with its RC oscillator; calibrated at boot, it walks with temperature by less than this.
SLEEP_CLOCK_DRIFT = 0.01
# The anchor's UTC and the pack's own time are whole seconds.
ROUNDING_S = 1

_QUERY_KEYS = 400

PowerUp = tuple[str, int]
"""node id, power_up id"""


class AnchorRow(NamedTuple):
    """At `uptime_ms` of this power-up it was `utc_s`."""

    node_id: str
    power_up: int
    uptime_ms: int
    utc_s: int


class KnownTime(NamedTuple):
    """A sampling time; `interval_s` is the half-width of its interval, None when the node sent it itself."""

    utc_s: int
    interval_s: int | None


def estimate(anchors: Iterable[AnchorRow], uptime_ms: int) -> KnownTime | None:
    """The time at which a power-up's clock stood at `uptime_ms`, from the anchor nearest to it; None without a usable anchor.

    >>> estimate([AnchorRow("n-1", 7, 900_000, 1_700_000_900)], 0)
    KnownTime(utc_s=1700000000, interval_s=10)
    """
    nearest = min(anchors, key=lambda anchor: abs(anchor.uptime_ms - uptime_ms), default=None)
    return None if nearest is None else from_anchor(nearest, uptime_ms)


def from_anchor(anchor: AnchorRow, uptime_ms: int) -> KnownTime | None:
    """The time that one anchor gives; None when no node can have been there."""
    distance_ms = uptime_ms - anchor.uptime_ms
    utc_s = anchor.utc_s + round(distance_ms / 1000)
    if not TIME_FROM_UTC_S <= utc_s < TIME_BEFORE_UTC_S:
        return None
    interval_s = ROUNDING_S + math.ceil(abs(distance_ms) * SLEEP_CLOCK_DRIFT / 1000)
    return KnownTime(utc_s, interval_s)


def store_anchors(session: Session, anchors: set[AnchorRow]) -> set[AnchorRow]:
    """Store anchors in the caller's transaction; returns those of power-ups where packs may wait for one."""
    table: Table = _table(Anchor)
    columns = ("node_id", "power_up", "uptime_ms", "utc_at")
    rows = sorted({tuple(anchor)[:3]: tuple(anchor) for anchor in anchors}.values())
    inserted = bulk.insert_rows(session, table, columns, rows, if_absent=True)
    return anchors if inserted else set()


def load_anchors(
    session: Session, power_ups: Iterable[PowerUp]
) -> Mapping[PowerUp, Sequence[AnchorRow]]:
    """Anchors of these power-ups, by uptime."""
    found: dict[PowerUp, list[AnchorRow]] = defaultdict(list)
    for some in bulk.chunks(sorted(power_ups), _QUERY_KEYS):
        rows = session.execute(
            select(Anchor.node_id, Anchor.power_up, Anchor.uptime_ms, Anchor.utc_at)
            .where(tuple_(Anchor.node_id, Anchor.power_up).in_(some))
            .order_by(Anchor.uptime_ms)
        )
        for node_id, power_up, uptime_ms, utc_at in rows:
            row = AnchorRow(node_id, power_up, uptime_ms, int(utc_at.timestamp()))
            found[node_id, power_up].append(row)
    return found


def repair(session: Session, power_ups: set[PowerUp]) -> list[SampledPack]:
    """Give stored packs of these power-ups that have no time the one their anchors say, in the caller's transaction.

    Returns:
        Those packs with their readings, by id: their observations are now to be made.
    """
    waiting = _waiting(session, power_ups)
    if not waiting:
        return []
    anchors = load_anchors(session, power_ups)
    repaired = []
    for pack_id, (power_up, uptime_ms, readings) in sorted(waiting.items()):
        known = estimate(anchors.get(power_up, ()), uptime_ms)
        if known is None:
            continue
        at = datetime.fromtimestamp(known.utc_s, UTC)
        session.execute(
            update(RawReading)
            .where(RawReading.pack_id == pack_id, RawReading.sampled_at.is_(None))
            .values(sampled_at=at, time_estimated=True, time_interval_s=known.interval_s)
        )
        repaired.append(SampledPack(pack_id, power_up[0], known.utc_s, readings))
    return repaired


def _waiting(
    session: Session, power_ups: set[PowerUp]
) -> dict[int, tuple[PowerUp, int, list[Reading]]]:
    found: dict[int, tuple[PowerUp, int, list[Reading]]] = {}
    for some in bulk.chunks(sorted(power_ups), _QUERY_KEYS):
        rows = session.execute(
            select(
                Pack.id,
                Pack.node_id,
                Pack.power_up,
                Pack.uptime_ms,
                RawReading.channel,
                RawReading.raw_value,
                RawReading.status,
            )
            .join(RawReading, RawReading.pack_id == Pack.id)
            .where(
                tuple_(Pack.node_id, Pack.power_up).in_(some),
                Pack.claimed_at.is_(None),
                RawReading.sampled_at.is_(None),
            )
        )
        for pack_id, node_id, power_up, uptime_ms, channel, raw_value, status in rows:
            entry = found.setdefault(pack_id, ((node_id, power_up), uptime_ms, []))
            entry[2].append((channel, raw_value, status))
    return found


def repair_events(session: Session, power_ups: set[PowerUp]) -> None:
    """Give events of these power-ups that have no time the one their anchors say, in the caller's transaction."""
    anchors = load_anchors(session, power_ups)
    for some in bulk.chunks(sorted(power_ups), _QUERY_KEYS):
        rows = session.execute(
            select(Event, Pack.node_id, Pack.power_up, Pack.uptime_ms)
            .join(Pack, Pack.id == Event.pack_id)
            .where(tuple_(Pack.node_id, Pack.power_up).in_(some), Event.happened_at.is_(None))
        ).all()
        for event, node_id, power_up, uptime_ms in rows:
            known = estimate(anchors.get((node_id, power_up), ()), uptime_ms)
            if known is not None:
                event.happened_at = datetime.fromtimestamp(known.utc_s, UTC)
    session.flush()


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table
