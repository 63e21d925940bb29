"""Values are made anew after a calibration changed: all that it went into, at once per datastream, and nothing that was known is lost."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from corrections import FIRST, HOUR, LATER, calibrate, measured, values
from factories import NOON, deployed_node
from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import (
    Channel,
    Datastream,
    Observation,
    ObservationHistory,
    Revision,
    RevisionStream,
    Sensor,
    UtcSeconds,
)
from fleet_server.services import revising, revision_list
from fleet_server.services.ingest import store_batch
from fleet_server.services.known_then import observations_as_of
from fleet_server.services.revision_list import Earlier
from fleet_server.services.verifying import verify


def work_off(session: Session, now: datetime = LATER) -> None:
    while revising.advance(session, now=now):
        pass


def test_new_calibration_changes_its_values_and_those_that_they_went_into(session: Session) -> None:
    measured(session)
    before = {key: values(session, key) for key in ("t30", "r30", "t60", "r60")}
    calibrate(session, "t30", offset=-1.5)

    work_off(session)

    assert values(session, "t30") == [value - 1.5 for value in before["t30"] if value is not None]
    assert all(new != old for new, old in zip(values(session, "r30"), before["r30"], strict=True))
    assert values(session, "t60") == before["t60"]
    assert values(session, "r60") == before["r60"]
    assert verify(session).is_clean


def test_what_was_known_before_is_kept_with_since_and_until_when(session: Session) -> None:
    measured(session)
    before = session.execute(
        select(Observation.value, Observation.u, Observation.lineage_id, Observation.pack_id)
        .join(Channel, Channel.datastream_id == Observation.datastream_id)
        .where(Channel.key == "t30")
        .order_by(Observation.sampled_at)
    ).all()
    revision_id = calibrate(session, "t30", offset=-1.5)
    work_off(session)

    kept = session.execute(
        select(ObservationHistory)
        .join(Channel, Channel.datastream_id == ObservationHistory.datastream_id)
        .where(Channel.key == "t30")
        .order_by(ObservationHistory.sampled_at)
    ).scalars()
    rows = list(kept)
    assert [(row.value, row.u, row.lineage_id, row.pack_id) for row in rows] == [
        tuple(row) for row in before
    ]
    assert {(row.known_from, row.known_to) for row in rows} == {(NOON + HOUR, LATER)}
    assert {row.revision_id for row in rows} == {revision_id}


def test_only_what_was_sampled_within_its_time_becomes_a_new_version(session: Session) -> None:
    measured(session)
    third = NOON + timedelta(seconds=3 * 900)
    revision_id = calibrate(session, "t30", offset=-1.5, from_at=third)
    work_off(session)

    assert values(session, "t30") == [19.875, 19.875, 18.375, 18.375]
    told = session.execute(
        select(Channel.key, RevisionStream.compared, RevisionStream.changed)
        .join(Channel, Channel.datastream_id == RevisionStream.datastream_id)
        .where(RevisionStream.revision_id == revision_id)
        .order_by(Channel.key)
    ).all()
    assert [tuple(row) for row in told] == [("r30", 2, 2), ("t30", 2, 2)]


def test_rehearsal_tells_what_would_change_and_changes_nothing(session: Session) -> None:
    measured(session)
    calibrate(session, "t30", offset=-1.5)
    before = values(session, "t30")
    stream = session.scalars(select(Datastream.id).join(Channel).where(Channel.key == "t30")).one()

    (change,) = revising.changes(session, [stream])

    assert (change.compared, change.changed, change.removed) == (4, 4, 0)
    assert (change.largest, change.mean) == (1.5, -1.5)
    assert (change.after - change.before).tolist() == [-1.5] * 4
    assert values(session, "t30") == before


def test_what_arrives_before_the_switch_is_made_by_the_new_calibration(session: Session) -> None:
    node = measured(session)
    calibrate(session, "t30", offset=-1.5)
    store_batch(session, node.packs([5, 6]), now=LATER)

    assert values(session, "t30") == [19.875] * 4 + [18.375] * 2
    report = verify(session)
    assert report.is_clean, report.findings
    work_off(session)
    assert values(session, "t30") == [18.375] * 6
    assert verify(session).is_clean


def test_two_corrections_in_one_second_are_two_versions(session: Session) -> None:
    measured(session, 1)
    calibrate(session, "t30", offset=-1.5)
    work_off(session, LATER)
    calibrate(session, "t30", offset=-2.0)
    work_off(session, LATER)  # in the same second

    rows = session.execute(
        select(ObservationHistory.value, ObservationHistory.known_from, ObservationHistory.known_to)
        .join(Channel, Channel.datastream_id == ObservationHistory.datastream_id)
        .where(Channel.key == "t30")
        .order_by(ObservationHistory.known_from)
    ).all()
    second = timedelta(seconds=1)
    assert [tuple(row) for row in rows] == [
        (19.875, NOON + HOUR, LATER),
        (18.375, LATER, LATER + second),
    ]
    assert values(session, "t30") == [17.875]


def test_of_two_revisions_that_wait_each_tells_what_it_changed_and_what_the_other_made_already(
    session: Session,
) -> None:
    measured(session)
    first = calibrate(session, "t30", offset=-1.5)
    second = calibrate(session, "t30", offset=-2.0, from_at=NOON + timedelta(seconds=3 * 900))
    work_off(session)

    lines = [revision_list.revision_of(session, one) for one in (first, second) if one]
    assert [(line.compared, line.changed, list(line.made_earlier)) for line in lines] == [
        (8, 8, []),
        (4, 0, [Earlier(first or 0, 4)]),
    ]
    page = revision_list.stream_page(session, second or 0, limit=5)
    assert [list(one.made_earlier) for one in page.items] == [[Earlier(first or 0, 2)]] * 2
    assert values(session, "t30") == [18.375, 18.375, 17.875, 17.875]


def test_probe_that_measured_nothing_yet_needs_no_revision(session: Session) -> None:
    deployed_node(session)
    assert calibrate(session, "t30", offset=-1.5) is None
    assert session.scalars(select(Revision)).all() == []
    assert session.scalars(select(Sensor)).first() is not None


def as_of(session: Session, key: str, moment: datetime) -> list[float | None]:
    known = observations_as_of(moment)
    stream = select(Channel.datastream_id).where(Channel.key == key)
    return list(
        session.scalars(
            select(known.c.value)
            .where(known.c.datastream_id.in_(stream))
            .order_by(known.c.sampled_at)
        )
    )


def test_answer_of_any_moment_is_what_was_answered_then(session: Session) -> None:
    """Packs, a late pack and two corrections; after each step the answer is kept, and asked for again at the end."""
    node = measured(session)
    answers = {NOON: [], NOON + HOUR: values(session, "r30")}
    assert as_of(session, "r30", NOON) == []
    steps = (
        lambda now: calibrate(session, "t30", offset=-1.5, now=now),
        lambda now: work_off(session, now),
        lambda now: store_batch(session, [node.pack(7), node.pack(5)], now=now),
        lambda now: calibrate(session, "r30", offset=0.5, from_at=NOON + HOUR, now=now),
        lambda now: work_off(session, now),
        lambda now: store_batch(session, [node.pack(6)], now=now),
    )
    for number, step in enumerate(steps):
        now = LATER + number * HOUR
        step(now)
        answers[now] = values(session, "r30")

    assert {moment: as_of(session, "r30", moment) for moment in answers} == answers
    assert len({tuple(answer) for answer in answers.values()}) == 6
    assert verify(session).is_clean


PLANTED = {
    "value": "value = value + 0.0000001",
    "uncertainty": "u = u * 1.001",
    "flag": "flag = 3",
    "tests": "tests = tests + 16",
    "lineage": "lineage_id = (SELECT min(id) FROM lineage WHERE id <> lineage_id)",
    "time": "known_to = {later}",
}


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("what", PLANTED)
def test_one_changed_number_of_a_version_is_found(session: Session, what: str) -> None:
    measured(session)
    calibrate(session, "t30", offset=-1.5)
    work_off(session)
    is_sqlite = session.get_bind().dialect.name == "sqlite"
    later = "known_to + 1" if is_sqlite else "known_to + interval '1 second'"
    with db.writing(session):
        stream, sampled_at = session.execute(
            select(ObservationHistory.datastream_id, func.min(ObservationHistory.sampled_at))
            .group_by(ObservationHistory.datastream_id)
            .limit(1)
        ).one()
        changed = session.execute(
            text(
                f"UPDATE observation_history SET {PLANTED[what].format(later=later)}"  # noqa: S608 - our own table above
                " WHERE datastream_id = :stream AND sampled_at = :sampled_at"
            ).bindparams(bindparam("sampled_at", type_=UtcSeconds())),
            {"stream": stream, "sampled_at": sampled_at},
        )
        assert changed.rowcount == 1

    report = verify(session)

    assert report.observations_not_reproducible == 1
    assert f"The version of datastream {stream} at 2026-07-01 12:15:00" in report.findings[0]


def test_waiting_value_that_its_own_lineage_does_not_give_is_found(session: Session) -> None:
    measured(session)
    calibrate(session, "t30", offset=-1.5)
    assert verify(session).is_clean
    with db.writing(session):
        stream = select(Channel.datastream_id).where(Channel.key == "r30").scalar_subquery()
        session.execute(
            update(Observation)
            .where(Observation.datastream_id == stream, Observation.sampled_at == FIRST)
            .values(value=12.5)
        )
    assert verify(session).observations_not_reproducible == 1
