"""A tree's state: every limit just below, at and just above it; and whatever is missing or flagged, unknown is never good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.city.evidence import TREE_STATES, UNKNOWN, Reading, Stream
from fleet_server.city.rules import ContentLimits, Fits, TensionLimits, TreeRules
from fleet_server.city.tree_status import (
    CONTENT,
    RELATIVE,
    TENSION,
    Tree,
    TreeState,
    age_in_years,
    inferred,
    state_of_tree,
)
from fleet_server.measurement.soil_water import SOIL_CLASSES, extractable_water_of_class

AT = datetime(2026, 7, 13, 4, 0, tzinfo=UTC)
RULES = TreeRules()


def read(
    value: float | None, flag: int = 1, *, hours_ago: float = 1.0, u: float | None = None
) -> Reading:
    return Reading(AT - timedelta(hours=hours_ago), value, u, flag)


def stream(
    value: float | None, depth_cm: int = 60, of: str = TENSION, flag: int = 1, **more: float
) -> Stream:
    return Stream(depth_cm, of, depth_cm, (read(value, flag, **more),))


def judged(
    *streams: Stream, age: int | None = 10, soil: str | None = "Sl4", rules: TreeRules = RULES
) -> TreeState:
    return state_of_tree(Tree(streams, age, soil), rules, at=AT)


def kinds(found: TreeState) -> list[str]:
    return [reason.kind for reason in found.reasons]


@pytest.mark.parametrize(
    ("age", "depth_cm", "moderate", "critical"),
    [
        (0, 30, 25.0, 33.0),
        (0, 90, 25.0, 33.0),
        (1, 30, 25.0, 33.0),
        (1, 60, 25.0, 33.0),
        (2, 30, 62.0, 81.0),
        (2, 60, 25.0, 33.0),
        (2, 90, 25.0, 33.0),
        (3, 60, 32.0, 80.0),
        (3, 90, 32.0, 80.0),
        (80, 60, 32.0, 80.0),
        (None, 30, 32.0, 80.0),
        (None, 60, 32.0, 80.0),
    ],
)
def test_tension_is_judged_by_age_and_depth_below_at_and_above_each_limit(
    age: int | None, depth_cm: int, moderate: float, critical: float
) -> None:
    cases = {
        0.0: "good",
        moderate - 0.01: "good",
        moderate: "moderate",
        moderate + 0.01: "moderate",
        critical - 0.01: "moderate",
        critical: "moderate",
        critical + 0.01: "critical",
        239.0: "critical",
    }
    found = {value: judged(stream(value, depth_cm), age=age).state for value in cases}
    assert found == cases


@pytest.mark.parametrize("depth_cm", [10, 30, 44])
def test_from_the_third_year_on_the_upper_soil_is_not_judged(depth_cm: int) -> None:
    found = judged(stream(200.0, depth_cm), stream(10.0, 60), age=3)
    assert found.state == "good"
    assert "depth_not_judged" in kinds(found)
    assert judged(stream(1.0, depth_cm), age=3).state == UNKNOWN


REW_OF_SL4 = {  # at 30 cm PWP = 0.30 − 0.18, nFK − eGP = 0.18 − 0.06
    0.1559: "critical",
    0.1561: "moderate",
    0.1679: "moderate",
    0.1681: "good",
}
AVAILABLE_OF_SL4 = {0.1739: "critical", 0.1741: "moderate", 0.2099: "moderate", 0.2101: "good"}


@pytest.mark.parametrize(("content", "state"), REW_OF_SL4.items())
def test_extractable_water_is_judged_by_the_soil_class(content: float, state: str) -> None:
    assert judged(stream(content, 30, CONTENT)).state == state


@pytest.mark.parametrize(("content", "state"), AVAILABLE_OF_SL4.items())
def test_available_water_is_judged_where_the_rules_say_so(content: float, state: str) -> None:
    rules = TreeRules(content=(ContentLimits(50.0, 30.0, "available_pct"),))
    assert judged(stream(content, 30, CONTENT), rules=rules).state == state


def test_exactly_at_a_limit_of_water_content_the_state_is_the_better_one() -> None:
    def at_limit(content: float) -> float:
        return float(extractable_water_of_class(content, 0.0, SOIL_CLASSES["Sl4"], 30)[0])

    rules = TreeRules(content=(ContentLimits(at_limit(0.18), at_limit(0.15)),))
    assert judged(stream(0.18, 30, CONTENT), rules=rules).state == "good"
    assert judged(stream(0.15, 30, CONTENT), rules=rules).state == "moderate"


def test_without_a_soil_class_water_content_says_nothing() -> None:
    found = judged(stream(0.3, 30, CONTENT), soil=None)
    assert (found.state, kinds(found)) == (UNKNOWN, ["no_soil_class"])


def test_a_relative_index_is_no_state() -> None:
    found = judged(stream(0.9, 30, RELATIVE))
    assert (found.state, kinds(found)) == (UNKNOWN, ["no_probe", "relative_only"])


@pytest.mark.parametrize(
    ("at_60", "at_90", "state"),
    [
        (10.0, 10.0, "good"),
        (10.0, 40.0, "moderate"),
        (40.0, 10.0, "moderate"),
        (90.0, 40.0, "critical"),
        (None, 10.0, UNKNOWN),
        (None, 40.0, "moderate"),
        (None, 90.0, "critical"),
        (None, None, UNKNOWN),
    ],
)
def test_the_driest_depth_decides_and_a_missing_one_is_never_good(
    at_60: float | None, at_90: float | None, state: str
) -> None:
    assert judged(stream(at_60, 60), stream(at_90, 90)).state == state


def test_a_city_may_let_one_depth_of_two_be_enough() -> None:
    rules = TreeRules(good_needs_depths=1)
    assert judged(stream(None, 60), stream(10.0, 90), rules=rules).state == "good"
    assert judged(stream(None, 60), stream(None, 90), rules=rules).state == UNKNOWN


@pytest.mark.parametrize(
    ("flag", "dry", "wet"),
    [(1, "critical", "good"), (2, "critical", "good"), (3, "critical", UNKNOWN),
     (4, UNKNOWN, UNKNOWN), (9, UNKNOWN, UNKNOWN)],
)  # fmt: skip
def test_flags_decide_what_a_reading_may_say(flag: int, dry: str, wet: str) -> None:
    assert judged(stream(90.0, flag=flag)).state == dry
    assert judged(stream(10.0, flag=flag)).state == wet


def test_a_newer_suspect_reading_makes_it_worse_and_never_better() -> None:
    def both(trusted: float, suspect: float) -> str:
        older, newer = read(trusted, hours_ago=2), read(suspect, 3, hours_ago=1)
        return judged(Stream(1, TENSION, 60, (older, newer))).state

    assert both(10.0, 90.0) == "critical"
    assert both(90.0, 10.0) == "critical"
    assert both(10.0, 11.0) == "good"


@pytest.mark.parametrize(("hours", "state"), [(23.99, "good"), (24.0, UNKNOWN), (500.0, UNKNOWN)])
def test_an_old_reading_says_nothing_of_today(hours: float, state: str) -> None:
    found = judged(stream(10.0, hours_ago=hours))
    assert found.state == state
    if state == UNKNOWN:
        (why,) = found.reasons
        assert (why.kind, round(why.numbers["hours"], 2)) == ("too_old", hours)


def test_a_reading_of_later_is_not_read() -> None:
    assert judged(stream(10.0, hours_ago=-0.01)).state == UNKNOWN


def test_the_band_says_what_it_may_be_at_worst() -> None:
    assert judged(stream(30.0, u=0.9)).at_worst == "good"
    assert judged(stream(30.0, u=1.0)).at_worst == "moderate"
    assert judged(stream(30.0, u=25.1)).at_worst == "critical"
    assert judged(stream(0.19, 30, CONTENT, u=0.0)).at_worst == "critical"  # the soil class's own


def test_a_reason_names_its_observation_and_its_limit() -> None:
    (why,) = judged(stream(45.5, u=1.5)).reasons
    assert (why.kind, why.state, why.property) == ("tension_moderate", "moderate", TENSION)
    assert why.numbers == {"value": 45.5, "expanded_u": 3.0, "limit": 32.0}
    assert (why.depth_cm, why.datastream_id, why.flag) == (60, 60, 1)
    assert why.sampled_at == AT - timedelta(hours=1)


def test_a_tree_without_probes_is_unknown() -> None:
    found = judged()
    assert (found.state, found.at_worst, kinds(found)) == (UNKNOWN, UNKNOWN, ["no_probe"])


def test_a_tree_of_a_group_is_inferred_with_a_wider_band_and_its_own_age() -> None:
    reference = Tree((stream(30.0, u=0.5),), age_years=20)
    tree = inferred(Tree((), age_years=1), reference)
    found = state_of_tree(tree, RULES, at=AT)
    assert (found.state, kinds(found)) == ("moderate", ["inferred_tension_moderate"])
    old = state_of_tree(inferred(Tree((), age_years=20), reference), RULES, at=AT)
    assert (old.state, old.at_worst) == ("good", "moderate")
    assert state_of_tree(reference, RULES, at=AT).at_worst == "good"


def test_rules_by_soil_class_hold_for_that_soil_alone() -> None:
    sandy = TensionLimits(15.0, 25.0, Fits(soil_classes=("Ss", "mS")))
    rules = TreeRules(tension=(sandy, *RULES.tension))
    assert judged(stream(20.0), soil="Ss", rules=rules).state == "moderate"
    assert judged(stream(20.0), soil="Lu", rules=rules).state == "good"
    assert judged(stream(20.0), soil=None, rules=rules).state == "good"


def test_age_counts_years_of_the_calendar() -> None:
    assert [age_in_years(year, 2026) for year in (2026, 2025, 2024, 2027, None)] == [
        0, 1, 2, 0, None,
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- whatever comes

_VALUES = st.none() | st.sampled_from([float("nan"), 0.0, 24.9, 31.9, 32.0, 80.0, 80.1, 200.0])
_READINGS = st.builds(
    read, _VALUES, st.sampled_from([1, 2, 3, 4, 9]),
    hours_ago=st.sampled_from([0.5, 5.0, 23.0, 25.0, 300.0]),
    u=st.none() | st.sampled_from([0.0, 2.0, 60.0]),
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> tuple[Stream, ...]:
    found = []
    for depth_cm in draw(st.sets(st.sampled_from([30, 60, 90]))):
        readings = sorted(draw(st.lists(_READINGS, max_size=3)), key=lambda one: one.sampled_at)
        found.append(Stream(depth_cm, TENSION, depth_cm, tuple(readings)))
    return tuple(found)


def _newest_trusted(one: Stream) -> Reading | None:
    day = [
        reading
        for reading in one.readings
        if reading.flag in (1, 2)
        and reading.value is not None
        and reading.value == reading.value
        and reading.sampled_at > AT - timedelta(hours=24)
    ]
    return day[-1] if day else None


@given(streams(), st.sampled_from([None, 0, 1, 2, 3, 50]))
def test_good_is_said_only_when_every_judged_depth_is_known_to_be(
    given_streams: tuple[Stream, ...], age: int | None
) -> None:
    found = judged(*given_streams, age=age)
    judged_streams = [one for one in given_streams if RULES.tension_of(age, one.depth_cm, None)]
    if found.state == "good":
        assert judged_streams
        for one in judged_streams:
            newest, limits = _newest_trusted(one), RULES.tension_of(age, one.depth_cm, None)
            assert newest is not None
            assert newest.value is not None
            assert limits is not None
            assert limits.moderate_kpa is not None
            assert newest.value < limits.moderate_kpa
    assert found.reasons


@given(streams(), st.sampled_from([None, 1, 2, 10]), st.data())
def test_a_drier_reading_never_makes_a_better_state(
    given_streams: tuple[Stream, ...], age: int | None, data: st.DataObject
) -> None:
    places = [
        (place, number)
        for place, one in enumerate(given_streams)
        for number, reading in enumerate(one.readings)
        if reading.value is not None
    ]
    if not places:
        return
    place, number = data.draw(st.sampled_from(places))
    one = given_streams[place]
    old = one.readings[number]
    assert old.value is not None
    drier = Reading(old.sampled_at, old.value + data.draw(st.floats(0, 200)), old.u, old.flag)
    readings = (*one.readings[:number], drier, *one.readings[number + 1 :])
    changed = list(given_streams)
    changed[place] = Stream(one.datastream_id, one.property, one.depth_cm, readings)
    before, after = judged(*given_streams, age=age), judged(*changed, age=age)
    assert _rank(after.state) >= _rank(before.state)
    assert _rank(after.at_worst) >= _rank(before.at_worst) or after.state != before.state


@given(streams(), st.sampled_from([None, 1, 2, 10]))
def test_what_is_suspect_never_makes_a_better_state(
    given_streams: tuple[Stream, ...], age: int | None
) -> None:
    without = [
        Stream(
            one.datastream_id, one.property, one.depth_cm,
            tuple(reading for reading in one.readings if reading.flag != 3),
        )
        for one in given_streams
    ]  # fmt: skip
    assert _rank(judged(*given_streams, age=age).state) >= _rank(judged(*without, age=age).state)


def _rank(state: str) -> float:
    """Unknown lies between good and what calls for water."""
    return 0.5 if state == UNKNOWN else float(TREE_STATES.index(state))
