"""The worker's decisions: a history of states with their reasons, made of what was known, by the rules in force."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from city_world import DRY, SOUND, WET, City
from factories import NOON
from fleet_of_nodes import statements
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.errors import NotFound
from fleet_server.jobs import city as city_job
from fleet_server.models import CityState, Scope
from fleet_server.services import city_rules, city_states, city_words, rights, sites
from fleet_server.services.city_rules import RuleScope
from fleet_server.settings import Settings

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


@pytest.fixture
def city(session: Session) -> City:
    return City(session)


def as_office(session: Session, scope: Scope) -> None:
    rights.act_as(session, rights.Actor("office", frozenset(rights.Right), scope))


def history(city: City) -> list[tuple[str, bool]]:
    """State and whether it is over, the oldest first."""
    rows = city.session.execute(select(CityState.state, CityState.to_at).order_by(CityState.id))
    return [(state, to_at is not None) for state, to_at in rows]


def test_a_state_begins_and_ends_with_what_is_measured(city: City) -> None:
    tree = city.add_site("linde", planted_year=2000)
    city.look()
    assert city.state(tree) == "unknown"
    city.measure(tree, WET)
    city.look(NOON + HOUR)
    city.measure(tree, DRY, at=NOON + HOUR)
    city.look(NOON + 2 * HOUR)
    assert history(city) == [("unknown", True), ("good", True), ("critical", False)]
    rows = city_states.history_of(city.session, tree.id, limit=10)
    assert [(row.from_at, row.to_at) for row in rows] == [
        (NOON + 2 * HOUR, None),
        (NOON + HOUR, NOON + 2 * HOUR),
        (NOON, NOON + HOUR),
    ]


def test_another_number_keeps_the_state_and_its_beginning(city: City) -> None:
    tree = city.add_site("linde", planted_year=2000)
    city.measure(tree, DRY)
    city.look()
    city.measure(tree, {("soil_water_tension", 60): 95.0}, at=NOON + HOUR)
    city.look(NOON + HOUR)
    row = city_states.state_of(city.session, tree.id)
    assert row is not None
    assert (row.from_at, row.evaluated_at, row.state) == (NOON, NOON + HOUR, "critical")
    assert {reason["numbers"]["value"] for reason in row.reasons if "numbers" in reason} == {
        95.0, 90.0,
    }  # fmt: skip
    assert city.session.scalar(select(func.count()).select_from(CityState)) == 1


def test_a_state_names_its_observations_and_says_why(city: City) -> None:
    tree = city.add_site("linde", planted_year=2000)
    city.measure(tree, {**WET, ("soil_water_tension", 60): 45.5}, u=1.5)
    city.look()
    found = city_states.explain(city.session, tree.id, now=NOON)
    assert (found.state, found.rules.version) == ("moderate", 0)
    first = found.reasons[0]
    assert (first.datastream_id, first.sampled_at) == (
        city.streams(tree)["soil_water_tension", 60], NOON,
    )  # fmt: skip
    assert str(city_words.said(first)) == (
        "Soil water tension at 60 cm is 45.5 kPa ± 3 kPa, 32 kPa or more."
    )


def test_silence_of_a_water_becomes_a_warning_by_the_clock_alone(city: City) -> None:
    pond = city.add_site("teich", "pond-1")
    city.measure(pond, SOUND, count=4)
    for minutes, state in ((1, "good"), (179, "good"), (180, "warning")):
        city.look(NOON + timedelta(minutes=minutes))
        assert city.state(pond) == state


def test_ladders_of_a_water_have_a_memory_between_two_looks(city: City) -> None:
    pond = city.add_site("teich", "pond-1")
    oxygen = ("dissolved_oxygen", 0)
    for hour, value, state in ((0, 3.9, "warning"), (1, 4.3, "warning"), (2, 4.5, "watch"),
                               (3, 6.4, "watch"), (4, 6.5, "good")):  # fmt: skip
        city.measure(pond, {**SOUND, oxygen: value}, at=NOON + hour * HOUR, count=3)
        city.look(NOON + hour * HOUR)
        assert city.state(pond) == state


def test_a_tree_without_probes_is_inferred_from_the_one_that_stands_for_its_group(
    city: City,
) -> None:
    measured = city.add_site("linde", planted_year=2000, tree_group="Ring", is_group_reference=True)
    other = city.bare_site("linde-2", planted_year=2000, tree_group="Ring")
    young = city.bare_site("linde-3", planted_year=2026, tree_group="Ring")
    alone = city.bare_site("linde-4", planted_year=2000)
    city.measure(measured, dict.fromkeys(WET, 30.0))
    city.look()
    states = {site.code: city.state(site) for site in (measured, other, young, alone)}
    assert states == {
        "linde": "good", "linde-2": "good", "linde-3": "moderate", "linde-4": "not looked at",
    }  # fmt: skip
    row = city_states.state_of(city.session, other.id)
    assert row is not None
    assert (row.is_inferred, row.at_worst) == (True, "moderate")
    assert row.reasons[0]["kind"] == "inferred_tension_good"


def test_a_site_s_rules_beat_its_group_s_and_these_everybody_s(city: City) -> None:
    tree = city.add_site("linde", planted_year=2000, tree_group="Ring")
    other = city.add_site("eiche-alt", planted_year=2000)
    for site in (tree, other):
        city.measure(site, dict.fromkeys(WET, 30.0))

    def set_limit(limit: float | None, scope: RuleScope) -> int:
        row = {"moderate_kpa": limit, "critical_kpa": 200.0}
        body = None if limit is None else {"tension": [row]}
        made = city_rules.set_rules(
            city.session, "trees", body, scope=scope, reason="test", author="Ada", now=NOON
        )
        return made.version

    def states(hours: int) -> tuple[str, str]:
        city.look(NOON + hours * HOUR)
        return city.state(tree), city.state(other)

    assert states(0) == ("good", "good")
    assert set_limit(20.0, RuleScope()) == 1
    assert states(1) == ("moderate", "moderate")
    assert set_limit(40.0, RuleScope(tree_group="Ring")) == 1
    assert states(2) == ("good", "moderate")
    assert set_limit(25.0, RuleScope(site_id=tree.id)) == 1
    assert states(3) == ("moderate", "moderate")
    assert set_limit(None, RuleScope(site_id=tree.id)) == 2
    assert states(4) == ("good", "moderate")
    row = city_states.state_of(city.session, tree.id)
    assert row is not None
    assert row.rule_set_id is not None
    in_force = city_rules.rules_in_force(city.session, "trees", tree.id, at=NOON)
    assert in_force.scope == RuleScope(tree_group="Ring")


def test_what_came_later_changes_nothing_of_what_was_decided_before(city: City) -> None:
    """A later value moved by 100 kPa: every explanation of an earlier moment stays."""
    tree = city.add_site("linde", planted_year=2000)
    pond = city.add_site("teich", "pond-1")
    for hour in range(6):
        at = NOON + hour * HOUR
        sampled_at = at - timedelta(minutes=10)
        city.measure(tree, dict.fromkeys(WET, 20.0 + 10 * hour), at=sampled_at)
        city.measure(pond, {**SOUND, ("dissolved_oxygen", 0): 8.0 - hour}, at=sampled_at)
        city.look(at)

    def explained() -> list[object]:
        return [
            (found.state, found.reasons)
            for site in (tree, pond)
            for hour in range(5)
            for found in [
                city_states.explain(
                    city.session, site.id, now=NOON + 9 * HOUR, at=NOON + hour * HOUR
                )
            ]
        ]

    before = explained()
    last, between = (NOON + hours * HOUR - timedelta(minutes=10) for hours in (5, 3.1))
    city.correct(tree, ("soil_water_tension", 60), last, 170.0)
    city.correct(pond, ("dissolved_oxygen", 0), last, 0.1)
    late = NOON + 6 * HOUR
    city.measure(tree, {("soil_water_tension", 60): 150.0}, at=between, known_from=late)
    city.measure(pond, {("dissolved_oxygen", 0): 0.1}, at=between, count=3, known_from=late)
    assert explained() == before
    now = city_states.explain(city.session, tree.id, now=NOON + 5 * HOUR)
    assert any(reason.numbers.get("value") == 170.0 for reason in now.reasons)


def test_looks_are_bounded_begin_with_who_waits_longest_and_may_be_repeated(city: City) -> None:
    trees = [city.add_site(f"linde-{number}") for number in range(3)]
    for done in (1, 2, 3):
        assert city_states.evaluate_due(city.session, now=NOON, limit=1) == 1
        assert sum(city.state(site) != "not looked at" for site in trees) == done
    assert city_states.evaluate_due(city.session, now=NOON, limit=10) == 0
    assert city.look(NOON + timedelta(seconds=60)) == 3
    assert city.session.scalar(select(func.count()).select_from(CityState)) == 3


def test_a_look_that_breaks_off_leaves_what_is_done_and_the_next_goes_on(
    city: City, sessions: sessionmaker[Session]
) -> None:
    trees = [city.add_site(f"linde-{number}") for number in range(3)]
    engine = sessions.kw["bind"]
    written = []

    def die_at_the_second(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INTO city_state" in statement:
            written.append(statement)
            if len(written) == 2:
                raise ConnectionAbortedError

    event.listen(engine, "before_cursor_execute", die_at_the_second)
    try:
        with pytest.raises(ConnectionAbortedError):
            city_states.evaluate_due(city.session, now=NOON, sites_at_once=1)
    finally:
        event.remove(engine, "before_cursor_execute", die_at_the_second)
    assert [city.state(tree) for tree in trees] == ["unknown", "not looked at", "not looked at"]
    assert city.look() == 2
    assert [city.state(tree) for tree in trees] == ["unknown"] * 3
    assert city.session.scalar(select(func.count()).select_from(CityState)) == 3


def test_who_finds_that_another_worker_was_quicker_writes_nothing(
    city: City, sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = city.add_site("linde", planted_year=2000)
    city.measure(tree, DRY)
    decide = city_states.decide

    def decide_slowly(*asked: Any, at: datetime) -> Any:
        found = decide(*asked, at=at)
        monkeypatch.setattr(city_states, "decide", decide)
        with sessions() as other:
            city_states.evaluate_due(other, now=at + SECOND)
        return found

    for hours in (0, 1):  # without a row, and with one
        monkeypatch.setattr(city_states, "decide", decide_slowly)
        city.look(NOON + hours * HOUR)
        city.session.expire_all()
        rows = city_states.history_of(city.session, tree.id, limit=9)
        assert [row.evaluated_at for row in rows] == [NOON + hours * HOUR + SECOND]


def test_a_look_takes_as_many_statements_for_eight_sites_as_for_two(city: City) -> None:
    counts = []
    for size in (1, 4):
        for number in range(size):
            site = city.add_site(f"linde-{size}-{number}", tree_group=f"Ring {size}")
            city.measure(site, WET)
            city.measure(city.add_site(f"teich-{size}-{number}", "pond-1"), SOUND)
        with statements(city.session) as asked:
            assert city_states.evaluate_due(city.session, now=NOON) == 2 * size
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_the_worst_is_listed_first_unknown_before_good_and_all_are_counted(city: City) -> None:
    for code, value in (("a", 10.0), ("b", 40.0), ("c", 90.0), ("d", None)):
        site = city.add_site(f"linde-{code}", planted_year=2000)
        city.measure(site, dict.fromkeys(WET, value))
    city.look()
    city.add_site("linde-e")
    pages, after = [], None
    while True:
        page = city_states.states_of(city.session, "trees", limit=2, after=after)
        pages += [(one.site.code, one.state) for one in page.items]
        after = page.next_key
        if after is None:
            break
    assert pages == [
        ("linde-c", "critical"), ("linde-b", "moderate"), ("linde-d", "unknown"),
        ("linde-e", "unknown"), ("linde-a", "good"),
    ]  # fmt: skip
    assert list(city_states.counts_of(city.session, "trees").items()) == [
        ("critical", 1), ("moderate", 1), ("unknown", 2), ("good", 1),
    ]  # fmt: skip
    only = city_states.states_of(city.session, "trees", limit=9, state="unknown")
    assert [one.site.code for one in only.items] == ["linde-d", "linde-e"]


def test_an_office_sees_and_rules_what_is_its_own(city: City) -> None:
    pond = city.add_site("teich", "pond-1")
    as_office(city.session, Scope.TREES)
    for ask in (
        lambda: city_states.states_of(city.session, "waters", limit=1),
        lambda: city_states.counts_of(city.session, "waters"),
        lambda: city_states.explain(city.session, pond.id, now=NOON),
        lambda: city_rules.set_rules(
            city.session, "waters", {}, reason="mine", author="Ada", now=NOON
        ),
    ):
        with pytest.raises(NotFound):
            ask()
    assert city_states.counts_of(city.session, "trees") == {}


def test_a_closed_site_is_decided_no_more(city: City) -> None:
    tree = city.bare_site("linde-zu", tree_group="Ring")
    city.add_site("linde", tree_group="Ring", is_group_reference=True)
    assert city.look() == 2
    sites.close_site(city.session, tree.id, now=NOON)
    assert city.look(NOON + HOUR) == 1


def test_the_worker_s_job_decides(city: City) -> None:
    tree = city.add_site("linde", planted_year=2000)
    city.measure(tree, DRY)
    city_job.decide_states(city.session, Settings(), NOON)
    assert city.state(tree) == "critical"
