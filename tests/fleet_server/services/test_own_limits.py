"""Limits of one series or of a property: its own range, what they would change, who changed what."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from factories import NOON
from judged_world import SPIKE_AT, World
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.errors import Invalid, NotFound
from fleet_server.measurement.quality import GROSS_RANGES, QualityTest
from fleet_server.measurement.rules import DEFAULTS, Spike, to_data
from fleet_server.models import (
    AuditEntry,
    Lineage,
    Observation,
    ObservationHistory,
    Revision,
    RuleSet,
    Scope,
)
from fleet_server.services import quality_rules, rehearsing_rules, revising, rights
from fleet_server.services.rights import Actor
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night

PROPERTY = "soil_temperature"
LATER = NOON + timedelta(days=2)


@pytest.fixture
def world(session: Session) -> World:
    made = World(session, 40)
    made.judge()
    return made


def _limits(**tests: Any) -> dict[str, Any]:
    return to_data(replace(DEFAULTS[PROPERTY], **tests))


def _range(low: float, high: float) -> Any:
    return replace(GROSS_RANGES[PROPERTY], fail=(low, high), suspect=(low, high))


def _set(world: World, limits: dict[str, Any] | None, *, is_for_series: bool = True) -> RuleSet:
    return quality_rules.set_rules(
        world.session, PROPERTY, limits, reason="a cold room", author="Ada", now=LATER,
        datastream_id=world.rows()[0].datastream_id if is_for_series else None,
    )  # fmt: skip


def _settle(world: World, days: int) -> None:
    while revising.advance(world.session, now=NOON + timedelta(days=days)):
        pass
    world.judge(now=NOON + timedelta(days=days))


def test_value_out_of_its_series_own_range_is_bad_before_and_after_it_was_set_and_all_of_it_is_proved(
    world: World,
) -> None:
    own = _limits(gross=_range(0.0, 21.0))
    _set(world, own)
    assert verify(world.session).is_clean, "what waits for the revision is not claimed"
    _settle(world, 3)
    world.send(range(41, 61))
    _settle(world, 4)
    rows = world.rows()
    for row, result in zip(rows, world.results(QualityTest.GROSS_RANGE), strict=True):
        assert result == (3 if row.value > 21.0 else 1)
    assert Counter(row.value > 21.0 for row in rows) == {False: 55, True: 5}
    named = {world.session.get_one(Lineage, row.lineage_id).rule_set for row in rows}
    assert named == {"gross_range/1:0.0,21.0,0.0,21.0"}
    assert {row.flag for row in world.rows("t60")} == {1}, "another depth keeps its property's"
    revision = world.session.scalars(select(Revision).where(Revision.kind == "rules")).one()
    assert (revision.reason, revision.author, revision.state) == ("a cold room", "Ada", "done")
    assert verify(world.session).is_clean
    _set(world, None)
    _settle(world, 5)
    assert {row.flag for row in world.rows()[40:]} == {1}
    stream_id = world.rows()[0].datastream_id
    kept = world.session.scalar(
        select(func.count())
        .select_from(ObservationHistory)
        .where(ObservationHistory.datastream_id == stream_id)
    )
    assert kept > 60
    assert verify(world.session).is_clean, "versions that were judged by the own range, too"


def test_own_range_may_be_wider_than_its_propertys_and_what_is_worked_out_with_it_keeps_its_flag(
    world: World,
) -> None:
    """Tension at 30 cm is worked out with this thermometer: what that is told of it does not depend on limits."""
    tensions = [(row.flag, row.tests) for row in world.rows("r30")]
    assert {flag for flag, _ in tensions} == {1}
    _set(world, _limits(gross=_range(-50.0, 90.0), spike=None, rate=None))
    _settle(world, 3)
    assert {row.flag for row in world.rows()} == {1}
    assert [(row.flag, row.tests) for row in world.rows("r30")] == tensions
    _set(world, _limits(gross=_range(-50.0, -40.0)))
    _settle(world, 4)
    assert {row.flag for row in world.rows()} == {4}
    assert [(row.flag, row.tests) for row in world.rows("r30")] == tensions
    assert verify(world.session).is_clean


@pytest.mark.parametrize("is_for_series", [True, False])
def test_dry_run_tells_by_flags_what_then_happens_and_changes_nothing(
    world: World, *, is_for_series: bool
) -> None:
    limits = _limits(spike=Spike(20.0, 40.0), rate=None, gross=_range(20.0, 60.0))
    stream_id = world.rows()[0].datastream_id
    before = {
        (row.datastream_id, row.sampled_at): (row.flag, row.tests)
        for key in ("t30", "t60", "t90")
        for row in world.rows(key)
    }
    told = rehearsing_rules.rehearse_rules(
        world.session, PROPERTY, limits, now=LATER,
        datastream_id=stream_id if is_for_series else None,
    )  # fmt: skip
    after = {
        (row.datastream_id, row.sampled_at): (row.flag, row.tests)
        for key in ("t30", "t60", "t90")
        for row in world.rows(key)
    }
    assert after == before
    assert world.session.scalar(select(func.count()).select_from(RuleSet)) == 0
    spike = next(step for step in told.steps if step.before == 4)
    assert [one.value for one in spike.examples] == [world.rows()[SPIKE_AT - 1].value]
    world.session.rollback()
    _set(world, limits, is_for_series=is_for_series)
    _settle(world, 3)
    found: Counter[tuple[int, int]] = Counter()
    for key in ("t30", "t60", "t90"):
        for row in world.rows(key):
            was = before[row.datastream_id, row.sampled_at][0]
            if row.flag != was and row.sampled_at <= NOON + timedelta(hours=7):
                found[was, row.flag] += 1
    told_of = {(step.before, step.after): step.count for step in told.steps}
    assert told_of == dict(found)
    assert told.compared >= told.changed > 0
    again = rehearsing_rules.rehearse_rules(
        world.session, PROPERTY, limits, now=LATER,
        datastream_id=stream_id if is_for_series else None,
    )  # fmt: skip
    assert again.changed == 0


def test_every_version_tells_who_changed_which_limit_and_why(world: World) -> None:
    _set(world, _limits(spike=Spike(20.0, 40.0)))
    _set(world, _limits(spike=None))
    _set(world, None)
    stream = rehearsing_rules.rehearse_rules(
        world.session, PROPERTY, None, now=LATER, datastream_id=world.rows()[0].datastream_id
    ).streams[0][0]
    third, second, first = quality_rules.versions_of(world.session, PROPERTY, stream)
    assert [(one.name, one.before, one.after) for one in first.changes] == [
        ("spike.suspect", 2.0, 20.0),
        ("spike.fail", 5.0, 40.0),
    ]
    assert ("spike.fail", 40.0, None) in [(o.name, o.before, o.after) for o in second.changes]
    assert ("spike.fail", None, 5.0) in [(o.name, o.before, o.after) for o in third.changes]
    assert (third.made.version, third.made.author, third.made.reason) == (3, "Ada", "a cold room")
    audited = select(func.count()).where(AuditEntry.action == "quality_rules_set")
    assert world.session.scalar(audited) == 3


def test_who_has_to_do_with_waters_changes_no_limits_of_soil(world: World) -> None:
    stream_id = world.rows()[0].datastream_id
    world.session.rollback()
    rights.act_as(world.session, Actor("wanda", frozenset(rights.Right), Scope.WATERS))
    with pytest.raises(rights.NotAllowed, match="none of your business"):
        _set(world, _limits(rate=None), is_for_series=False)
    with pytest.raises(NotFound):
        rehearsing_rules.rehearse_rules(
            world.session, PROPERTY, None, now=LATER, datastream_id=stream_id
        )
    assert quality_rules.newest_of_each(world.session) == []


def test_dry_run_of_what_are_no_limits_is_refused(world: World) -> None:
    for observed_property, limits, kind, sentence in [
        (PROPERTY, {"gross": 1}, Invalid, "rules.gross must be an object"),
        ("ph", {"gross": 1}, Invalid, "rules.gross must be an object"),
        ("wind", None, NotFound, "Values of wind are not judged"),
    ]:
        with pytest.raises(kind, match=sentence):
            rehearsing_rules.rehearse_rules(world.session, observed_property, limits, now=LATER)
    assert world.session.scalar(select(func.count()).select_from(Observation)) > 0
