"""What a person says of values wins over every test, is kept with its author, and holds for what comes late."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from corrections import calibrate
from factories import NOON
from judged_world import SPIKE_AT, STEP_S, World
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import FleetError, NotFound
from fleet_server.measurement.quality import QualityTest
from fleet_server.models import (
    AuditEntry,
    Datastream,
    Observation,
    ObservationHistory,
    PersonFlag,
    Revision,
    Site,
)
from fleet_server.services import flag_reasons, flagging, revising
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night

LATER = NOON + timedelta(days=2)
GOOD, SUSPECT, BAD = 1, 3, 4


@pytest.fixture
def world(session: Session) -> World:
    return World(session)


def at(seq: int) -> datetime:
    return NOON + timedelta(seconds=STEP_S * seq)


def say(
    world: World, from_seq: int, to_seq: int, flag: int | None, **changes: object
) -> flagging.Flagged:
    stream = world.rows()[0].datastream_id
    world.session.rollback()
    given = {"reason": "seen it", "author": "Ada", "now": LATER, **changes}
    return flagging.give_flag(
        world.session, stream, from_at=at(from_seq), to_at=at(to_seq), flag=flag, **given  # type: ignore[arg-type]
    )  # fmt: skip


def flags(world: World) -> list[int]:
    return [row.flag for row in world.rows()]


def test_what_a_person_says_is_there_at_once_is_a_version_and_can_be_proved(world: World) -> None:
    said = say(world, 5, 9, BAD)
    assert (said.values, said.changed) == (4, 4)
    assert flags(world)[3:9] == [GOOD, BAD, BAD, BAD, BAD, GOOD]
    assert world.session.scalar(select(func.count()).select_from(ObservationHistory)) == 4
    revision = world.session.scalars(select(Revision)).one()
    assert (revision.author, revision.reason) == ("Ada", "seen it")
    assert world.session.scalar(
        select(AuditEntry.subject).where(AuditEntry.action == "values_flagged").order_by(AuditEntry.seq)
    ) == f"flag {said.id}"  # fmt: skip
    assert verify(world.session).is_clean


def test_person_wins_over_the_tests_before_and_after_they_are_made(world: World) -> None:
    say(world, SPIKE_AT, SPIKE_AT + 1, GOOD)
    world.judge()
    assert flags(world)[SPIKE_AT - 1] == GOOD
    assert flags(world)[SPIKE_AT] == SUSPECT
    say(world, 1, 60, BAD)
    assert set(flags(world)[:59]) == {BAD}
    say(world, 1, 60, None, reason="not all of them", author="Grace")
    assert flags(world)[SPIKE_AT - 2 : SPIKE_AT + 2] == [SUSPECT, BAD, SUSPECT, GOOD]
    assert [(one.flag, one.author) for one in flagging.flags_of(world.session, world.rows()[0].datastream_id)] == [
        (None, "Grace"), (BAD, "Ada"), (GOOD, "Ada"),
    ]  # fmt: skip
    assert verify(world.session).is_clean


def test_persons_word_stays_when_the_value_is_corrected_and_judged_again(world: World) -> None:
    say(world, 5, 9, BAD)
    world.judge()
    calibrate(world.session, "t30", offset=-1.5, now=LATER)
    while revising.advance(world.session, now=LATER):
        pass
    assert flags(world)[4:8] == [BAD] * 4
    world.judge(now=LATER + timedelta(days=1))
    assert flags(world)[4:8] == [BAD] * 4
    assert verify(world.session).is_clean


def test_value_that_comes_late_into_a_flagged_time_is_flagged_when_it_is_judged(
    world: World,
) -> None:
    say(world, 55, 90, BAD)
    world.send(range(61, 100))
    assert flags(world)[60] == GOOD
    assert verify(world.session).is_clean
    world.judge()
    assert set(flags(world)[54:85]) == {BAD}
    assert verify(world.session).is_clean


def test_flag_that_no_person_gave_is_found(world: World) -> None:
    row = world.rows()[10]
    with db.writing(world.session):
        world.session.execute(
            update(Observation)
            .where(
                Observation.datastream_id == row.datastream_id,
                Observation.sampled_at == row.sampled_at,
            )
            .values(tests=row.tests | BAD - 1 << 2 * QualityTest.PERSON, flag=BAD)
        )
    assert verify(world.session).observations_not_reproducible == 1


@pytest.mark.parametrize(
    ("from_seq", "to_seq", "flag", "reason", "sentence"),
    [
        (9, 9, BAD, "why", "A range ends after it begins."),
        (5, 9, 2, "why", "A person says good, suspect or bad."),
        (5, 9, BAD, " ", "Say why; it is kept with the flag."),
        (5, 9, BAD, "x" * 501, "Say why, in at most 500 characters."),
    ],
)
def test_flag_that_is_none_is_refused_and_nothing_is_written(
    world: World, from_seq: int, to_seq: int, flag: int, reason: str, sentence: str
) -> None:
    with pytest.raises(FleetError) as refused:
        say(world, from_seq, to_seq, flag, reason=reason)
    assert str(refused.value) == sentence
    assert world.session.scalar(select(func.count()).select_from(PersonFlag)) == 0


def test_flag_on_more_values_than_one_is_for_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flagging, "LARGEST_RANGE", 10)
    with pytest.raises(flagging.RangeTooLarge, match="These are 59 values"):
        say(world, 1, 60, BAD)
    assert set(flags(world)) == {GOOD}


def test_why_a_value_is_flagged_is_told_with_its_numbers_and_the_person(world: World) -> None:
    world.judge()
    say(world, SPIKE_AT, SPIKE_AT + 1, SUSPECT, reason="the sun")
    stream = world.session.get_one(Datastream, world.rows()[0].datastream_id)
    verdict = flagging.why(world.session, stream, at(SPIKE_AT))
    assert verdict.person is not None
    assert (verdict.observation.flag, verdict.person.reason) == (SUSPECT, "the sun")
    assert [str(flag_reasons.said(one, "soil_temperature")) for one in verdict.reasons] == [
        "It is 7.97 °C off the line between its neighbours in time (20.3 °C); at most 5 °C is believed.",
        "It rose 8 °C in 15 min; at most 0.75 °C is believed.",
    ]
    assert flagging.why(world.session, stream, at(3)).reasons == []
    with pytest.raises(NotFound, match="Nothing was sampled there"):
        flagging.why(world.session, stream, at(3) + timedelta(seconds=7))


def test_series_of_a_site_is_found_by_its_depth_and_doubt_is_said(world: World) -> None:
    site = world.session.get_one(Datastream, world.rows()[0].datastream_id).site_id
    code = world.session.get_one(Site, site).code
    found = flagging.find_datastream(world.session, code, "soil_temperature", 30)
    assert found.id == world.rows()[0].datastream_id
    with pytest.raises(
        flagging.FlagWrong, match="is measured at 30, 60, 90 cm; say at which depth"
    ):
        flagging.find_datastream(world.session, code, "soil_temperature", None)
    with pytest.raises(NotFound, match="There are no values of ph at"):
        flagging.find_datastream(world.session, code, "ph", None)
