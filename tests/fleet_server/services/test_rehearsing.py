"""What an approval would change is told beforehand, by what makes it afterwards; and every version of a value says where it came from."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from corrections import FIRST, HOUR, LATER, calibrate, measured, values
from factories import NOON
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import (
    Calibration,
    CalibrationKind,
    Channel,
    Observation,
    ObservationHistory,
    Revision,
    RevisionStream,
    Scope,
    observation_id,
)
from fleet_server.services import (
    calibrating,
    rehearsing,
    revising,
    revision_list,
    rights,
    version_history,
)
from fleet_server.services.calibrating import (
    CalibrationElsewhere,
    CalibrationRecord,
    FitRefused,
    NewCalibration,
    NewPoint,
)

ICE = NewCalibration(
    serial="n-000001/d30",
    property="soil_temperature",
    kind=CalibrationKind.OFFSET,
    performed_by="tina",
    performed_at=NOON,
    points=(NewPoint(1.5, 0.0, 0.02),),
    valid_from=NOON + timedelta(seconds=2 * 900),
)


def act(session: Session, name: str, scope: Scope = Scope.ALL) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right), scope))


def draft(session: Session, new: NewCalibration = ICE) -> CalibrationRecord:
    act(session, "tina")
    return calibrating.draft_calibration(session, new, now=LATER)


def id_of(session: Session, key: str, sampled_at: datetime = FIRST) -> int:
    stream = session.scalars(select(Channel.datastream_id).where(Channel.key == key)).first()
    assert stream is not None
    return observation_id(stream, sampled_at)


def test_rehearsal_of_a_draft_tells_what_its_approval_then_does(session: Session) -> None:
    measured(session, 5)
    record = draft(session)
    before = {key: values(session, key) for key in ("t30", "r30")}

    told = rehearsing.rehearse_approval(session, record.calibration.id)

    assert {key: values(session, key) for key in before} == before  # nothing was changed
    assert session.scalar(select(func.count()).select_from(Revision)) == 0
    assert (told.compared, told.changed, told.removed, told.is_cut) == (8, 8, 0, False)
    act(session, "dora")
    calibrating.approve_calibration(session, record.calibration.id, now=LATER)
    while revising.advance(session, now=LATER):
        pass
    done = {
        one.datastream_id: (one.compared, one.changed, one.removed, one.largest_change)
        for one in session.scalars(select(RevisionStream))
    }
    assert done == {
        one.stream.id: (
            one.change.compared,
            one.change.changed,
            one.change.removed,
            one.change.largest,
        )
        for one in told.streams
    }
    for one in told.streams:  # bit by bit, the tension beside the thermometer, too
        now = session.scalars(
            select(Observation.value)
            .where(
                Observation.datastream_id == one.stream.id,
                Observation.sampled_at >= record.calibration.valid_from,
            )
            .order_by(Observation.sampled_at)
        ).all()
        assert one.change.after.tolist() == now
    own = next(one.change for one in told.streams if one.stream.property == "soil_temperature")
    assert own.mean == pytest.approx(-1.5)


def test_rehearsal_looks_at_the_newest_values_and_says_so(session: Session) -> None:
    measured(session, 5)
    record = draft(session)
    told = rehearsing.rehearse_approval(session, record.calibration.id, newest_max=2)
    assert (told.is_cut, [one.change.compared for one in told.streams]) == (True, [2, 2])
    newest_s = int((NOON + timedelta(seconds=5 * 900)).timestamp())
    assert {int(one.change.times_s[-1]) for one in told.streams} == {newest_s}


def test_only_a_draft_that_could_be_approved_is_rehearsed(session: Session) -> None:
    measured(session, 1)
    untrusted = draft(session, replace(ICE, points=()))
    with pytest.raises(FitRefused):
        rehearsing.rehearse_approval(session, untrusted.calibration.id)
    factory = session.scalars(select(Calibration.id).order_by(Calibration.id).limit(1)).one()
    with pytest.raises(CalibrationElsewhere):
        rehearsing.rehearse_approval(session, factory)
    act(session, "waters", Scope.WATERS)
    with pytest.raises(NotFound):
        rehearsing.rehearse_approval(session, untrusted.calibration.id)


def test_every_version_says_since_when_until_when_by_what_and_by_whom(session: Session) -> None:
    measured(session)
    first = calibrate(session, "t30", offset=-1.5)
    while revising.advance(session, now=LATER):
        pass
    second = calibrate(session, "t30", offset=-2.0, now=LATER + HOUR)
    waiting = version_history.history_of(session, id_of(session, "t30"))
    assert [one.id for one in waiting.waits_for] == [second]
    while revising.advance(session, now=LATER + HOUR):
        pass

    found = version_history.history_of(session, id_of(session, "t30"))

    assert [one.value for one in found.versions] == [19.875, 18.375, 17.875]
    assert [(one.known_from, one.known_to) for one in found.versions] == [
        (NOON + HOUR, LATER),
        (LATER, LATER + HOUR),
        (LATER + HOUR, None),
    ]
    assert [one.made_in and one.made_in.id for one in found.versions] == [None, first, second]
    newest = found.versions[-1]
    assert newest.made_in is not None
    assert (newest.made_in.author, newest.made_in.approver) == ("Ada", "Grace")
    assert (newest.made_by.sensor.serial, newest.made_by.calibration.offset) == (ICE.serial, -2.0)
    assert (found.is_current, found.waits_for) == (True, [])
    tension = version_history.history_of(session, id_of(session, "r30"))
    inputs = [one.made_by.inputs["temperature"] for one in tension.versions]
    assert [one and one.offset for one in inputs] == [0.0, -1.5, -2.0]


def test_value_that_nothing_makes_any_more_keeps_its_versions(session: Session) -> None:
    measured(session, 1)
    with db.writing(session):
        channel = session.scalars(select(Channel).where(Channel.key == "t30")).one()
        for one in session.scalars(
            select(Calibration).where(Calibration.sensor_id == channel.sensor_id)
        ):
            one.status = "withdrawn"
        session.flush()
        ordered = revising.order_for_streams(
            session,
            [channel.datastream_id],
            kind="calibration",
            reason="a wrong bottle",
            author="Ada",
            now=LATER,
        )
    while revising.advance(session, now=LATER):
        pass
    found = version_history.history_of(session, id_of(session, "t30"))
    assert not found.is_current
    (last,) = found.versions
    assert (last.known_to, last.replaced_in and last.replaced_in.id) == (LATER, ordered)


def test_who_has_to_do_with_waters_sees_nothing_of_trees(session: Session) -> None:
    measured(session, 1)
    revision_id = calibrate(session, "t30", offset=-1.5)
    assert revision_id is not None
    line = revision_list.revision_of(session, revision_id)
    assert (line.streams, line.switched, line.is_done) == (2, 0, False)
    act(session, "waters", Scope.WATERS)
    assert revision_list.revision_page(session, limit=10).items == []
    for ask in (
        lambda: revision_list.revision_of(session, revision_id),
        lambda: version_history.history_of(session, id_of(session, "t30")),
        lambda: version_history.history_of(session, 2**53 - 1),
    ):
        with pytest.raises(NotFound):
            ask()


def test_of_a_long_past_the_newest_versions_are_shown_and_the_others_counted(
    session: Session,
) -> None:
    measured(session, 1)
    revision_id = calibrate(session, "t30", offset=-1.5)
    while revising.advance(session, now=LATER + HOUR):
        pass
    with db.writing(session):
        kept = session.scalars(
            select(ObservationHistory)
            .join(Channel, Channel.datastream_id == ObservationHistory.datastream_id)
            .where(Channel.key == "t30")
        ).one()
        columns = {name: getattr(kept, name) for name in ObservationHistory.__table__.c.keys()}  # noqa: SIM118
        for number in range(149):
            begun = kept.known_to - timedelta(seconds=149 - number)
            known = {"known_from": begun, "known_to": begun + timedelta(seconds=1)}
            session.add(ObservationHistory(**{**columns, **known}))
        kept.known_to -= timedelta(seconds=149)

    found = version_history.history_of(session, id_of(session, "t30"))

    assert (len(found.versions), found.older) == (100, 51)
    assert [found.versions[place].number for place in (0, -1)] == [52, 151]
    assert {one.made_in.id for one in found.versions if one.made_in} == {revision_id}
    assert found.is_current
