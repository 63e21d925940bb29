"""What a node said day by day: how long its battery lasts, said as an interval; whether its radio gets worse."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.measurement.trend import Line, Trend, theil_sen, units_until
from fleet_server.models import NodeDay, NodeTrend
from fleet_server.services import trends
from fleet_server.services.ingest import store_batch

DAY = timedelta(days=1)


def test_a_third_of_wild_points_does_not_move_the_line() -> None:
    y = 3600 - 5.0 * np.arange(30)
    y[[2, 5, 7, 11, 13, 17, 19, 23]] += np.array([900, -700, 800, -500, 650, 1200, -900, 700])
    line = theil_sen(np.arange(30), y).line
    assert line.slope == pytest.approx(-5)
    assert line.level == pytest.approx(3600 - 5 * 29)


def test_interval_holds_the_true_day_about_nine_times_in_ten() -> None:
    """500 batteries that fall by 5 mV a day with 15 mV of noise, 250 mV above the limit."""
    random = np.random.default_rng(1)
    days, hits = np.arange(28), 0
    for _ in range(500):
        y = 3600 + 5 * (27 - days) + random.normal(0, 15, 28)
        ends = units_until(theil_sen(days, y), 3350)
        assert ends is not None
        hits += ends[0] <= 50 <= (ends[1] or np.inf)
    assert 0.85 <= hits / 500 <= 0.97


@pytest.mark.parametrize(
    ("trend", "ends"),
    [
        (Trend(Line(-2, 3400), Line(-4, 3390), Line(-1, 3410)), (10, 60)),
        (Trend(Line(-2, 3400), Line(-4, 3390), Line(1, 3410)), (10, None)),
        (Trend(Line(1, 3400), Line(-4, 3390), Line(2, 3410)), None),
        (Trend(Line(-2, 3300), Line(-4, 3290), Line(-1, 3310)), (0, 0)),
    ],
)
def test_what_is_sure_is_told_and_nothing_more(
    trend: Trend, ends: tuple[float, float | None] | None
) -> None:
    assert units_until(trend, 3350) == ends


def test_battery_that_was_swapped_is_judged_from_then_on() -> None:
    old = [(day, 3500 - 10 * day) for day in range(15)]
    new = [(day, 4100 - 5 * day) for day in range(15, 25)]
    assert trends.battery_days(old, limit_mv=3350, today=14) == (1, 1)
    assert trends.battery_days(old + new[:6], limit_mv=3350, today=20) is None  # too few days yet
    low, high = trends.battery_days(old + new, limit_mv=3350, today=24) or (0, 0)
    assert low == high == 126


def test_days_are_kept_once_and_trends_come_from_them(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    for ago in range(20, -1, -1):
        now = NOON - ago * DAY
        said = {"battery_mv": 3500 + 5 * ago, "rssi_dbm": -70 if ago > 2 else -85}
        store_batch(session, [node.state(**said)], now=now)
        trends.note_day(session, now=now, since=now - DAY)
        trends.note_day(session, now=now, since=now - DAY)
    days = session.scalars(select(NodeDay).order_by(NodeDay.day)).all()
    assert [row.battery_mv for row in days] == [3500 + 5 * ago for ago in range(20, -1, -1)]
    assert {row.power_ups for row in days} == {0}
    assert trends.make_trends(session, now=NOON) == 1
    trend = session.get_one(NodeTrend, "n-000001")
    assert (trend.battery_days_low, trend.battery_days_high) == (30, 30)
    assert (trend.rssi_before_dbm, trend.rssi_now_dbm) == (-70, -85)
    later = NOON + (trends.KEPT_DAYS - 10) * DAY
    trends.make_trends(session, now=later)
    assert session.scalar(select(NodeDay.day).order_by(NodeDay.day)) == trends.day_of(NOON) - 10


def test_each_reset_of_a_day_counts(session: Session) -> None:
    deployed_node(session)
    for power_up in range(1, 7):
        now = NOON + timedelta(minutes=power_up)
        store_batch(session, [SimulatedNode(power_up=power_up).state()], now=now)
        trends.note_day(session, now=now, since=now - timedelta(hours=1))
    assert session.scalars(select(NodeDay.power_ups)).one() == 5


def test_what_was_said_before_is_not_noted_again_under_today(session: Session) -> None:
    deployed_node(session)
    store_batch(session, [SimulatedNode().state()], now=NOON)
    trends.note_day(session, now=NOON + 2 * DAY, since=NOON - DAY)
    assert session.scalars(select(NodeDay)).all() == []
