"""Rules of the city as data: read back as they were written, and refused with the place where they are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet_server.city.evidence import Reason, reason_from_data, reason_to_data
from fleet_server.city.rules import DEFAULTS, KINDS, TreeRules, from_data, to_data


@pytest.mark.parametrize("kind", KINDS)
def test_rules_are_the_same_after_they_were_data(kind: str) -> None:
    written = json.loads(json.dumps(to_data(DEFAULTS[kind])))
    assert from_data(kind, written) == DEFAULTS[kind]
    assert from_data(kind, {}) == DEFAULTS[kind]


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        ("trees", [], "trees must be an object"),
        ("trees", {"tensions": []}, "trees has no tensions; it has tension, content,"),
        ("trees", {"tension": {}}, "trees.tension must be a list"),
        ("trees", {"tension": [{"moderate_kpa": 3}]}, "trees.tension[0] lacks critical_kpa"),
        ("trees", {"tension": [{"moderate_kpa": "3", "critical_kpa": 4}]}, "moderate_kpa must be a number"),
        ("trees", {"tension": [{"moderate_kpa": 80, "critical_kpa": 32}]}, "trees.tension[0]: moderate must be below critical"),
        ("trees", {"tension": [{"moderate_kpa": 80, "critical_kpa": None}]}, "both numbers, or both null"),
        ("trees", {"tension": [{"moderate_kpa": 1, "critical_kpa": float("nan")}]}, "finite numbers"),
        ("trees", {"content": [{"moderate": 0.3, "critical": 0.4}]}, "trees.content[0]: moderate must be above critical"),
        ("trees", {"content": [{"moderate": 0.4, "critical": 0.3, "measure": "pf"}]}, "measure is one of rew, available_pct"),
        ("trees", {"content": [{"moderate": 0.4, "critical": 0.3, "fits": {"soil_classes": ["Loam"]}}]}, "Loam is no soil class of KA5"),
        ("trees", {"content": [{"moderate": 0.4, "critical": 0.3, "fits": {"from_year": 3, "to_year": 2}}]}, "from_year must not be after to_year"),
        ("trees", {"content": [{"moderate": 0.4, "critical": 0.3, "fits": {"from_depth_cm": 60, "to_depth_cm": 60}}]}, "from_depth_cm must be above to_depth_cm"),
        ("trees", {"content": [{"moderate": 0.4, "critical": 0.3}] * 201}, "at most 200 rows"),
        ("trees", {"good_needs_depths": 0}, "good_needs_depths is from 1 to 20"),
        ("trees", {"oldest_reading_h": float("nan")}, "oldest_reading_h must be from 0.25 to 744"),
        ("trees", {"inferred_spread": -1}, "inferred_spread must be from 0 to 2"),
        ("waters", {"oxygen_mg_l": 4}, "waters.oxygen_mg_l must be an object"),
        ("waters", {"oxygen_mg_l": {"watch": 4}}, "waters.oxygen_mg_l lacks hysteresis"),
        ("waters", {"oxygen_mg_l": {"hysteresis": 0.5, "watch": 3, "warning": 4}}, "waters.oxygen_mg_l: from watch to emergency its limits must fall"),
        ("waters", {"ph": {"hysteresis": 0.1, "watch": 9.5, "alarm": 9}}, "waters.ph: from watch to emergency its limits must rise"),
        ("waters", {"ph": {"hysteresis": -0.1}}, "waters.ph: hysteresis must not be negative"),
        ("waters", {"good_needs": ["turbidity"]}, "good_needs knows dissolved_oxygen,"),
        ("waters", {"silent_periods": 0}, "silent_periods must be from 1 to 100"),
        ("waters", {"held_h": True}, "waters.held_h must be a number"),
    ],
)  # fmt: skip
def test_what_are_no_rules_is_refused_with_its_place(kind: str, data: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r".") as problem:
        from_data(kind, data)
    assert sentence in str(problem.value)


def test_a_reason_is_the_same_after_it_was_data() -> None:
    bare = Reason("no_probe", "unknown")
    assert reason_from_data(json.loads(json.dumps(reason_to_data(bare)))) == bare


def test_the_first_row_that_fits_holds() -> None:
    rules = TreeRules()
    assert rules.tension_of(2, 30, None) == rules.tension[1]
    assert rules.tension_of(2, 60, None) == rules.tension[2]
    assert rules.tension_of(3, 30, None) is None
    assert rules.tension_of(None, 30, None) == rules.tension[-1]
