"""A water's state: every limit just below, at and just above it, there and back; and whatever is missing or flagged, unknown is never good."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.city.evidence import UNKNOWN, WATER_STATES, Reading, Stream
from fleet_server.city.rules import WaterRules
from fleet_server.city.water_status import (
    AMMONIUM,
    LEVEL,
    OXYGEN,
    PH,
    SATURATION,
    TEMPERATURE,
    ExpectedLow,
    Memory,
    Rung,
    Water,
    WaterState,
    memory_from_data,
    memory_to_data,
    next_state,
)

AT = datetime(2026, 8, 8, 20, 0, tzinfo=UTC)
RULES = WaterRules()
QUARTER = timedelta(minutes=15)
SOUND = {OXYGEN: 8.0, TEMPERATURE: 20.0, PH: 8.0, SATURATION: 90.0, LEVEL: 1.0}


def stream(
    of: str,
    values: Sequence[float | None],
    *,
    flags: Sequence[int] | None = None,
    depth_cm: int = 30,
    ago: timedelta = QUARTER,
    u: float | None = None,
) -> Stream:
    """Quarter hours of which the newest was `ago`."""
    flags = flags or [1] * len(values)
    first = AT - ago - QUARTER * (len(values) - 1)
    readings = tuple(
        Reading(first + QUARTER * place, value, u, flag)
        for place, (value, flag) in enumerate(zip(values, flags, strict=True))
    )
    return Stream(
        sorted(SOUND).index(of) + 1, of, depth_cm, readings, since=AT - timedelta(days=30)
    )


def look(
    *streams: Stream,
    previous: Memory | None = None,
    at: datetime = AT,
    rules: WaterRules = RULES,
    lowest_m: float | None = None,
    expected: ExpectedLow | None = None,
    ammonium: Stream | None = None,
) -> WaterState:
    water = Water(streams, 3600, lowest_m, expected, ammonium)
    return next_state(previous or {}, water, rules, at=at)


def sound(*but: str) -> list[Stream]:
    return [stream(of, [value] * 4) for of, value in SOUND.items() if of not in but]


def kinds(found: WaterState) -> list[str]:
    return [reason.kind for reason in found.reasons]


def stood(state: str, name: str = "oxygen_mg_l/30") -> Memory:
    return {name: Rung(state, AT - QUARTER * 2)}


LIMITS = [
    (OXYGEN, 6.0, "good", "watch", -1),
    (OXYGEN, 4.0, "watch", "warning", -1),
    (OXYGEN, 3.0, "warning", "alarm", -1),
    (OXYGEN, 2.0, "alarm", "emergency", -1),
    (PH, 9.0, "good", "watch", 1),
    (PH, 9.5, "watch", "warning", 1),
    (TEMPERATURE, 25.0, "good", "watch", 1),
    (TEMPERATURE, 28.0, "watch", "warning", 1),
    (SATURATION, 150.0, "good", "watch", 1),
    (LEVEL, 0.8, "good", "warning", -1),
]
BACK = {OXYGEN: 0.5, PH: 0.1, TEMPERATURE: 0.5, SATURATION: 10.0, LEVEL: 0.02}
NAMES = {OXYGEN: "oxygen_mg_l/30", PH: "ph/30", TEMPERATURE: "temperature_c/30",
         SATURATION: "saturation_pct/30", LEVEL: "below_lowest_m/30"}  # fmt: skip


@pytest.mark.parametrize(("of", "limit", "before", "beyond", "towards"), LIMITS)
def test_states_begin_beyond_their_limits_and_end_beyond_the_hysteresis(
    of: str, limit: float, before: str, beyond: str, towards: int
) -> None:
    def state(value: float, previous: Memory) -> str:
        streams = [*sound(of), stream(of, [value] * 3)]
        return look(*streams, previous=previous, lowest_m=0.8).state

    step = 0.001
    back = limit - towards * BACK[of]
    assert state(limit - towards * step, {}) == before
    assert state(limit, {}) == before
    assert state(limit + towards * step, {}) == beyond
    was = stood(beyond, NAMES[of])
    assert state(limit - towards * step, was) == beyond
    assert state(back + towards * step, was) == beyond
    assert state(back - towards * step, was) == before
    assert state(back - towards * step, stood("emergency", NAMES[of])) == before


@pytest.mark.parametrize(
    ("values", "was", "state"),
    [
        ([8.0, 5.0, 8.0], "good", "good"),
        ([5.0, 8.0, 5.0], "good", "watch"),
        ([5.0, 5.0, 8.0], "good", "watch"),
        ([3.9, 1.0, 3.9], "good", "warning"),
        ([1.0, 1.0, 9.0], "good", "emergency"),
        ([9.0, 1.0, 9.0], "watch", "good"),
        ([1.0, 9.0, 6.4], "watch", "watch"),
        ([9.0, 9.0, 9.0, 2.5, 9.0], "good", "good"),
    ],
)
def test_two_of_three_readings_decide(values: list[float], was: str, state: str) -> None:
    rules = WaterRules(swing_mg_l=RULES.swing_mg_l.__class__(0.5))
    found = look(*sound(OXYGEN), stream(OXYGEN, values), previous=stood(was), rules=rules)
    assert found.state == state


def test_one_reading_alone_makes_it_worse_at_once_and_never_better() -> None:
    rest = sound(OXYGEN)
    assert look(*rest, stream(OXYGEN, [1.5])).state == "emergency"
    assert look(*rest, stream(OXYGEN, [9.0]), previous=stood("alarm")).state == "alarm"
    assert look(*rest, stream(OXYGEN, [9.0, 9.0]), previous=stood("alarm")).state == "good"


@pytest.mark.parametrize(
    ("low", "state", "was", "later"),
    [(4.0, "good", "warning", "warning"), (3.99, "warning", "good", "warning"),
     (2.5, "warning", "good", "warning"), (2.49, "alarm", "good", "alarm"),
     (4.49, "good", "warning", "warning"), (4.5, "good", "warning", "good")],
)  # fmt: skip
def test_the_night_that_is_expected_warns_before_it_comes(
    low: float, state: str, was: str, later: str
) -> None:
    expected = ExpectedLow(low, AT - timedelta(hours=1), AT + timedelta(hours=9))
    assert look(*sound(), expected=expected).state == state
    found = look(*sound(), expected=expected, previous=stood(was, "forecast_mg_l/0"))
    assert found.state == later
    over = ExpectedLow(low, AT - timedelta(hours=12), AT - timedelta(seconds=1))
    assert look(*sound(), expected=over).state == "good"
    not_yet = ExpectedLow(low, AT + timedelta(seconds=1), AT + timedelta(hours=9))
    assert look(*sound(), expected=not_yet).state == "good"


@pytest.mark.parametrize(("night", "state"), [(6.99, "watch"), (7.0, "good"), (7.01, "good")])
def test_day_and_night_far_apart_are_the_sign_of_a_bloom(night: float, state: str) -> None:
    oxygen = stream(OXYGEN, [13.0, night, *[10.0] * 60])
    found = look(*sound(OXYGEN), oxygen)
    assert found.state == state
    assert ("swing" in kinds(found)) is (state == "watch")


def test_a_swing_of_suspect_values_is_no_bloom() -> None:
    flags = [1, 3, *[1] * 60]
    oxygen = stream(OXYGEN, [13.0, 1.0, *[10.0] * 60], flags=flags)
    assert look(*sound(OXYGEN), oxygen).state == "good"


@pytest.mark.parametrize(("bottom", "state"), [(17.0, "good"), (16.99, "watch"), (20.5, "good")])
def test_warm_water_on_cold_is_layered(bottom: float, state: str) -> None:
    deep = stream(TEMPERATURE, [bottom] * 3, depth_cm=200)
    found = look(*sound(), deep)
    assert found.state == state
    assert ("layered" in kinds(found)) is (state == "watch")


@pytest.mark.parametrize(
    ("total", "days_ago", "state"),
    [(0.6, 1.0, "good"), (0.65, 1.0, "good"), (0.66, 1.0, "warning"), (5.0, 6.9, "warning"),
     (5.0, 7.1, "good")],
)  # fmt: skip
def test_ammonia_is_reckoned_where_somebody_measured_ammonium(
    total: float, days_ago: float, state: str
) -> None:
    """Emerson: 3.8205 % of it at 20 °C and pH 8; 0.025 mg/L are reached at 0.6544 mg/L."""
    laboratory = Stream(9, AMMONIUM, 0, (Reading(AT - timedelta(days=days_ago), total, None, 2),))
    assert look(*sound(), ammonium=laboratory).state == state


def test_a_level_is_judged_only_where_somebody_said_how_low_it_may_be() -> None:
    low = stream(LEVEL, [0.1] * 3)
    assert look(*sound(LEVEL), low).state == "good"
    assert look(*sound(LEVEL), low, lowest_m=0.5).state == "warning"


# ------------------------------------------------------------------------------------------------------------ nothing heard


@pytest.mark.parametrize(
    ("period_s", "minutes", "state"),
    [(900, 44, "good"), (900, 45, "warning"), (3600, 179, "good"), (3600, 180, "warning"),
     (86_400, 179, "good"), (86_400, 180, "warning")],
)  # fmt: skip
def test_silence_is_a_warning_after_three_periods_and_at_most_three_hours(
    period_s: int, minutes: int, state: str
) -> None:
    ago = timedelta(minutes=minutes)
    streams = [stream(of, [value] * 4, ago=ago) for of, value in SOUND.items()]
    found = next_state({}, Water(tuple(streams), period_s), RULES, at=AT)
    assert found.state == state
    assert ("silent" in kinds(found)) is (state == "warning")


def test_what_stood_before_the_silence_holds_for_a_day() -> None:
    silent = stream(OXYGEN, [1.5] * 3, ago=timedelta(hours=5))
    held = {"oxygen_mg_l/30": Rung("emergency", AT - timedelta(hours=5))}
    found = look(*sound(OXYGEN), silent, previous=held)
    assert (found.state, set(kinds(found)) >= {"held", "silent", "too_old"}) == ("emergency", True)
    assert found.memory["oxygen_mg_l/30"] == held["oxygen_mg_l/30"]
    later = {"oxygen_mg_l/30": Rung("emergency", AT - timedelta(hours=24, seconds=1))}
    assert look(*sound(OXYGEN), silent, previous=later).state == "warning"


def test_a_probe_that_is_new_is_waited_for() -> None:
    new = Stream(1, OXYGEN, 30, (), since=AT - timedelta(minutes=30))
    found = look(*sound(OXYGEN), new)
    assert (found.state, kinds(found)[0]) == (UNKNOWN, "never_read")
    old = Stream(1, OXYGEN, 30, (), since=AT - timedelta(hours=3))
    assert look(*sound(OXYGEN), old).state == "warning"


def test_without_an_oxygen_probe_no_water_is_good() -> None:
    found = look(*sound(OXYGEN))
    assert (found.state, "not_measured" in kinds(found)) == (UNKNOWN, True)
    assert look(*sound(OXYGEN), rules=WaterRules(good_needs=())).state == "good"
    assert look().state == UNKNOWN


@pytest.mark.parametrize("of", [PH, TEMPERATURE, SATURATION])
def test_a_probe_that_fails_makes_it_unknown_and_hides_nothing_bad(of: str) -> None:
    failed = stream(of, [None] * 4, flags=[9] * 4)
    assert look(*sound(of), failed).state == UNKNOWN
    oxygen = stream(OXYGEN, [5.0] * 3)
    assert look(*sound(of, OXYGEN), failed, oxygen).state == "watch"


@pytest.mark.parametrize(
    ("flag", "low", "high"),
    [(1, "alarm", "good"), (2, "alarm", "good"), (3, "alarm", "warning"),
     (4, "warning", "warning"), (9, "warning", "warning")],
)  # fmt: skip
def test_flags_decide_what_oxygen_may_say(flag: int, low: str, high: str) -> None:
    """Readings of the last hours that nobody can trust are as none: silence."""
    for value, state in ((2.5, low), (8.0, high)):
        oxygen = stream(OXYGEN, [value] * 13, flags=[flag] * 13)
        assert look(*sound(OXYGEN), oxygen).state == state


def test_suspect_readings_alone_end_no_alarm_and_begin_one() -> None:
    high, low = (stream(OXYGEN, [value] * 3, flags=[3] * 3) for value in (9.0, 1.5))
    rest = sound(OXYGEN)
    assert look(*rest, high, previous=stood("alarm")).state == "alarm"
    assert look(*rest, low, previous=stood("alarm")).state == "emergency"


def test_a_reason_names_the_reading_that_decides_and_when_it_is_over() -> None:
    oxygen = stream(OXYGEN, [3.9, 3.5, 3.2], u=0.15)
    found = look(*sound(OXYGEN), oxygen)
    why = found.reasons[0]
    assert (why.kind, why.state, why.sampled_at) == (
        "dissolved_oxygen_beyond", "warning", AT - QUARTER * 2,
    )  # fmt: skip
    assert why.numbers == {"value": 3.5, "expanded_u": 0.3, "limit": 4.0, "back_at": 4.5}
    better = look(*sound(OXYGEN), stream(OXYGEN, [4.2] * 3, u=0.15), previous=found.memory).reasons[
        0
    ]
    assert (better.kind, better.state) == ("dissolved_oxygen_not_back", "warning")


def test_the_band_says_what_it_may_be_at_worst() -> None:
    assert look(*sound(OXYGEN), stream(OXYGEN, [6.2] * 3, u=0.1)).at_worst == "good"
    assert look(*sound(OXYGEN), stream(OXYGEN, [6.2] * 3, u=0.11)).at_worst == "watch"
    assert look(*sound(OXYGEN), stream(OXYGEN, [4.1] * 3, u=0.2)).at_worst == "warning"


def test_what_is_remembered_survives_as_data() -> None:
    found = look(*sound(OXYGEN), stream(OXYGEN, [3.5] * 3))
    assert memory_from_data(memory_to_data(found.memory)) == found.memory
    assert memory_from_data(None) == {}


# ----------------------------------------------------------------------------------------------------------- whatever comes

_OXYGEN_VALUES = st.none() | st.sampled_from(
    [float("nan"), 0.0, 1.99, 2.0, 2.49, 3.0, 3.99, 4.5, 5.99, 6.0, 6.5, 9.0, 14.0]
)
_ROWS = st.lists(st.tuples(_OXYGEN_VALUES, st.sampled_from([1, 2, 3, 4, 9])), max_size=5)
_PREVIOUS = st.none() | st.sampled_from(WATER_STATES)
_NO_SWING = WaterRules(swing_mg_l=type(RULES.swing_mg_l)(0.5))
"""A lower highest value is a smaller swing: that sign alone is no ladder of the reading's own."""


def _stream(rows: Sequence[tuple[float | None, int]], ago_min: int) -> Stream:
    values, flags = [value for value, _ in rows], [flag for _, flag in rows]
    return stream(OXYGEN, values, flags=flags, ago=timedelta(minutes=ago_min))


def _counts(one: Reading, within: timedelta) -> bool:
    has_value = one.value is not None and one.value == one.value
    return one.flag in (1, 2) and has_value and one.sampled_at > AT - within


@given(_ROWS, st.sampled_from([1, 170, 200]), _PREVIOUS, st.lists(st.sampled_from([1, 2, 3, 4, 9]), min_size=3, max_size=3))  # fmt: skip
def test_good_is_said_only_when_everything_judged_is_known(
    rows: list[tuple[float | None, int]], ago_min: int, was: str | None, flags: list[int]
) -> None:
    oxygen = _stream(rows, ago_min)
    others = [
        stream(of, [SOUND[of]] * 3, flags=[flag] * 3)
        for of, flag in zip((TEMPERATURE, PH, SATURATION), flags, strict=True)
    ]
    found = look(oxygen, *others, previous=stood(was) if was else {})
    if found.state == "good":
        assert set(flags) <= {1, 2}
        assert any(_counts(one, timedelta(hours=3)) for one in oxygen.readings)
    assert found.reasons


@given(_ROWS, _PREVIOUS, st.data())
def test_a_worse_reading_never_makes_a_better_state(
    rows: list[tuple[float | None, int]], was: str | None, data: st.DataObject
) -> None:
    places = [place for place, (value, _) in enumerate(rows) if value is not None]
    if not places:
        return
    place = data.draw(st.sampled_from(places))
    worse = list(rows)
    value = rows[place][0]
    assert value is not None
    worse[place] = (value - data.draw(st.floats(0, 10)), rows[place][1])
    previous = stood(was) if was else {}
    before = look(*sound(OXYGEN), _stream(rows, 1), previous=previous, rules=_NO_SWING)
    after = look(*sound(OXYGEN), _stream(worse, 1), previous=previous, rules=_NO_SWING)
    assert _rank(after.state) >= _rank(before.state)


@given(_ROWS, _PREVIOUS)
def test_what_is_suspect_never_makes_a_better_state(
    rows: list[tuple[float | None, int]], was: str | None
) -> None:
    previous = stood(was) if was else {}
    without = [(None, 9) if flag == 3 else (value, flag) for value, flag in rows]
    with_it = look(*sound(OXYGEN), _stream(rows, 1), previous=previous)
    assert _rank(with_it.state) >= _rank(
        look(*sound(OXYGEN), _stream(without, 1), previous=previous).state
    )


@given(
    st.floats(0.5, 12.0), st.lists(st.floats(0.0, 0.499), min_size=4, max_size=20), _PREVIOUS
)  # fmt: skip
def test_a_wiggle_within_the_hysteresis_changes_the_state_at_most_once(
    level: float, wiggle: list[float], was: str | None
) -> None:
    memory = stood(was) if was else {}
    states = []
    for end in range(3, len(wiggle) + 1):
        oxygen = stream(OXYGEN, [level + one for one in wiggle[:end]])
        found = look(*sound(OXYGEN), oxygen, previous=memory)
        memory = found.memory
        states.append(found.state)
    assert sum(a != b for a, b in itertools.pairwise(states)) <= 1


def _rank(state: str) -> float:
    """Unknown lies between good and what calls somebody."""
    return 0.5 if state == UNKNOWN else float(WATER_STATES.index(state))
