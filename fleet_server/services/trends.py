"""What a node said of itself day by day, and what follows from that: how long its battery lasts, whether its radio gets worse.

Days are kept by two statements for every five thousand nodes; trends are made anew once a day, reading all of them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
from sqlalchemy import Integer, case, delete, literal, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from fleet_server import db
from fleet_server.measurement.trend import theil_sen, units_until
from fleet_server.models import Node, NodeDay, NodeStatus, NodeTrend
from fleet_server.services import bulk
from hardware import catalogue

KEPT_DAYS = 60
BATTERY_DAYS = 28
"""The last weeks only: a cell falls faster towards its end, and in another season."""
BATTERY_DAYS_MIN = 7
SWAPPED_MV = 150
"""Between two days no cell of ours recovers by as much: it was swapped or charged, and what was before says nothing more."""
RADIO_NOW_DAYS, RADIO_BEFORE_DAYS = 3, 28
RADIO_DAYS_MIN = 10
_LONGEST_DAYS = 3650
_ROWS_AT_ONCE = 1000
_NODES_AT_ONCE = 5000


def day_of(moment: datetime) -> int:
    """Days since 1970-01-01, UTC."""
    return int(moment.timestamp()) // 86_400


def note_day(session: Session, *, now: datetime, since: datetime) -> None:
    """Keep what nodes that were heard since then said last, under today. Committed on return; safe to repeat.

    Two statements for every five thousand nodes, in a transaction of its own: readings wait for no more than that.
    """
    begin = max(datetime.fromtimestamp(day_of(now) * 86_400, UTC), since)
    last = ""
    while node_ids := _heard_since(session, begin, after=last):
        last = node_ids[-1]
        _note_day(session, NodeStatus.node_id.between(node_ids[0], last), now=now, begin=begin)


def _heard_since(session: Session, begin: datetime, *, after: str) -> list[str]:
    return list(
        session.scalars(
            select(NodeStatus.node_id)
            .where(NodeStatus.last_state_at >= begin, NodeStatus.node_id > after)
            .order_by(NodeStatus.node_id)
            .limit(_NODES_AT_ONCE)
        )
    )


def _note_day(
    session: Session, which: ColumnElement[bool], *, now: datetime, begin: datetime
) -> None:
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    said = select(
        NodeStatus.node_id,
        literal(day_of(now), Integer).label("day"),
        NodeStatus.battery_mv,
        NodeStatus.rssi_dbm,
        NodeStatus.spool_depth,
        NodeStatus.power_up,
        literal(0, Integer).label("power_ups"),
    ).where(NodeStatus.last_state_at >= begin, which)
    names = ("node_id", "day", "battery_mv", "rssi_dbm", "spool_depth", "power_up", "power_ups")
    statement = insert(NodeDay).from_select(names, said)
    new = statement.excluded
    has_restarted = case((NodeDay.power_up != new.power_up, 1), else_=0)
    with db.writing(session):
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["node_id", "day"],
                set_={
                    "battery_mv": new.battery_mv,
                    "rssi_dbm": new.rssi_dbm,
                    "spool_depth": new.spool_depth,
                    "power_up": new.power_up,
                    "power_ups": NodeDay.power_ups + has_restarted,
                },
            )
        )


def make_trends(session: Session, *, now: datetime) -> int:
    """Trends of all nodes from their days, and days that are too old forgotten. Committed on return; returns how many nodes."""
    today = day_of(now)
    rows = [_trend(days, now=now) for days in _days_by_node(session, since=today - BATTERY_DAYS)]
    session.rollback()  # only read so far; SQLite's writers need not wait for the arithmetic
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    for some in bulk.chunks(rows, _ROWS_AT_ONCE):
        statement = insert(NodeTrend)
        changed = {name: statement.excluded[name] for name in some[0] if name != "node_id"}
        with db.writing(session):
            session.execute(
                statement.on_conflict_do_update(index_elements=["node_id"], set_=changed), some
            )
    with db.writing(session):
        session.execute(delete(NodeDay).where(NodeDay.day < today - KEPT_DAYS))
    return len(rows)


def _days_by_node(session: Session, *, since: int) -> Iterator[list[Any]]:
    query = (
        select(NodeDay.node_id, Node.model, NodeDay.day, NodeDay.battery_mv, NodeDay.rssi_dbm)
        .join(Node, Node.node_id == NodeDay.node_id)
        .where(NodeDay.day >= since)
        .order_by(NodeDay.node_id, NodeDay.day)
        .execution_options(yield_per=10_000)
    )
    for _, days in groupby(session.execute(query), key=lambda row: row.node_id):
        yield list(days)


def _trend(days: Sequence[Any], *, now: datetime) -> dict[str, Any]:
    limits = catalogue.load_node_model(days[0].model).battery_limits
    ends = None
    if limits is not None:
        points = [(row.day, row.battery_mv) for row in days if row.battery_mv is not None]
        ends = battery_days(points, limit_mv=limits.mute_mv, today=day_of(now))
    before, latest = _radio(days, today=day_of(now))
    low, high = ends or (None, None)
    return {
        "node_id": days[0].node_id,
        "battery_days_low": low,
        "battery_days_high": high,
        "rssi_before_dbm": before,
        "rssi_now_dbm": latest,
        "made_at": now,
    }


def battery_days(
    points: Iterable[tuple[int, int]], *, limit_mv: int, today: int
) -> tuple[int, int | None] | None:
    """Days from today until the battery reaches the limit, from (day, mV) in time order: the ends of an interval of about 90 %.

    None while there is too little to say. The far end is None when it may last for ever.

    >>> battery_days([(day, 3700 - 10 * day) for day in range(20)], limit_mv=3350, today=19)
    (16, 16)
    """
    since: list[tuple[int, int]] = []
    for day, millivolts in points:
        if since and millivolts - since[-1][1] >= SWAPPED_MV:
            since = []
        since.append((day, millivolts))
    if len(since) < BATTERY_DAYS_MIN:
        return None
    ends = units_until(theil_sen(*zip(*since, strict=True)), limit_mv)
    if ends is None:
        return None
    passed = today - since[-1][0]
    low, high = ends
    far = None if high is None or high > _LONGEST_DAYS else max(0, round(high) - passed)
    return min(max(0, int(low) - passed), _LONGEST_DAYS), far


def _radio(days: Sequence[Any], *, today: int) -> tuple[int | None, int | None]:
    """Medians of the days before and of the last days, in dBm."""
    begin = today - RADIO_NOW_DAYS
    heard = [
        row for row in days if row.rssi_dbm is not None and row.day > today - RADIO_BEFORE_DAYS
    ]
    before = [row.rssi_dbm for row in heard if row.day <= begin]
    latest = [row.rssi_dbm for row in heard if row.day > begin]
    if len(before) < RADIO_DAYS_MIN or not latest:
        return None, None
    return round(float(np.median(before))), round(float(np.median(latest)))
