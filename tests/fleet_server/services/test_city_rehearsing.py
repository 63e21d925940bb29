"""A dry run of rules: what they would have meant for what was measured, day by day, and nothing is changed by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from city_world import SOUND, WET, City
from factories import NOON
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.city.rules import DEFAULTS, to_data
from fleet_server.errors import FleetError
from fleet_server.models import AuditEntry, CityRuleSet, CityState
from fleet_server.services import city_rehearsing, city_rules
from fleet_server.services.city_rehearsing import Tally
from fleet_server.services.city_rules import RuleScope

DAY = timedelta(days=1)
pytestmark = pytest.mark.once_on_postgresql


@pytest.fixture
def city(session: Session) -> City:
    return City(session)


def stricter(moderate_kpa: float, critical_kpa: float) -> dict[str, object]:
    return {"tension": [{"moderate_kpa": moderate_kpa, "critical_kpa": critical_kpa}]}


def test_stricter_rules_tell_how_many_more_sites_would_have_been_critical(city: City) -> None:
    """Ten mornings: one tree dries out by 10 kPa a day, the other stays wet."""
    drying = city.add_site("linde", planted_year=2000)
    wet = city.add_site("linde-nass", planted_year=2000)
    for day in range(10):
        at = NOON - DAY * (9 - day) - timedelta(hours=9)
        city.measure(drying, dict.fromkeys(WET, 5.0 + 10 * day), at=at)
        city.measure(wet, WET, at=at)
    found = city_rehearsing.rehearse(city.session, "trees", stricter(25.0, 50.0), days=10, now=NOON)
    assert (found.sites, found.days) == (2, 10)
    assert found.before == {
        "good": Tally(2, 13), "moderate": Tally(1, 5), "critical": Tally(1, 2),
    }  # fmt: skip
    assert found.after == {
        "good": Tally(2, 12), "moderate": Tally(1, 3), "critical": Tally(1, 5),
    }  # fmt: skip
    assert found.changed == {"linde": 4}
    for table in (CityRuleSet, CityState, AuditEntry):
        of_tables = select(func.count()).select_from(table)
        if table is AuditEntry:
            of_tables = of_tables.where(AuditEntry.action == "city_rules_set")
        assert city.session.scalar(of_tables) == 0


def test_a_site_with_rules_of_its_own_keeps_them_when_those_of_all_are_rehearsed(
    city: City,
) -> None:
    tree = city.add_site("linde", planted_year=2000)
    city.measure(tree, WET, at=NOON - timedelta(hours=9))
    city_rules.set_rules(
        city.session, "trees", stricter(8.0, 9.0), scope=RuleScope(site_id=tree.id),
        reason="x", author="Ada", now=NOON - DAY,
    )  # fmt: skip
    everywhere = city_rehearsing.rehearse(
        city.session, "trees", stricter(50.0, 60.0), days=1, now=NOON
    )
    assert everywhere.before == everywhere.after == {"critical": Tally(1, 1)}
    without = city_rehearsing.rehearse(
        city.session, "trees", None, scope=RuleScope(site_id=tree.id), days=1, now=NOON
    )
    assert without.after == {"good": Tally(1, 1)}


def test_a_water_is_rehearsed_hour_by_hour_with_its_memory(city: City) -> None:
    """Oxygen at 5.8 for an hour, then at 6.3: with a hysteresis of 0.5 mg/L the watch stays, with none it ends."""
    pond = city.add_site("teich", "pond-1")
    for hour, value in ((6, 8.0), (5, 5.8), (4, 6.3), (3, 6.3), (2, 6.3), (1, 7.0), (0, 7.0)):
        at = NOON - timedelta(hours=hour)
        city.measure(pond, {**SOUND, ("dissolved_oxygen", 0): value}, at=at, count=3)
    body = to_data(DEFAULTS["waters"])
    body["oxygen_mg_l"]["hysteresis"] = 0.0
    found = city_rehearsing.rehearse(city.session, "waters", body, days=1, now=NOON)
    assert found.before["watch"] == Tally(1, 4)
    assert found.after["watch"] == Tally(1, 1)
    assert found.before["unknown"] == found.after["unknown"]
    assert "warning" not in found.before


@pytest.mark.parametrize(
    "now", [datetime(2026, 3, 30, 12, tzinfo=UTC), datetime(2026, 10, 26, 12, tzinfo=UTC)]
)
def test_each_day_has_one_morning_when_the_clocks_change_too(city: City, now: datetime) -> None:
    """The nights to 29 March and to 25 October have 23 and 25 hours."""
    city.add_site("linde", planted_year=2000)
    found = city_rehearsing.rehearse(city.session, "trees", {}, days=3, now=now)
    assert found.before == {"unknown": Tally(1, 3)}


@pytest.mark.parametrize(
    ("kind", "body", "days", "sentence"),
    [
        ("trees", {"tension": 1}, 10, "These are no rules: trees.tension must be a list."),
        ("trees", {}, 0, "A rehearsal looks back 1 to 366 days."),
        ("bushes", {}, 10, "There are no rules of bushes; there are those of trees, waters."),
    ],
)
def test_what_cannot_be_rehearsed_is_one_sentence(
    city: City, kind: str, body: dict[str, object], days: int, sentence: str
) -> None:
    with pytest.raises(FleetError) as problem:
        city_rehearsing.rehearse(city.session, kind, body, days=days, now=NOON)
    assert str(problem.value) == sentence
