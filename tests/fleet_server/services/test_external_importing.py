"""Other people's measurements become observations: whole or not at all, over each other and back again, and provable from their bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from external_world import (
    LABORATORY,
    LATER,
    POND_FILE,
    POND_RULES,
    act_as,
    external_values,
    imported,
    make_sites,
)
from factories import NOON
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import FleetError, NotFound
from fleet_server.models import (
    AuditEntry,
    Base,
    ExternalImport,
    ExternalValue,
    Lineage,
    Observation,
    ObservationCount,
    ObservationHistory,
    Revision,
    RevisionStream,
    Scope,
)
from fleet_server.services import external_importing, hand_readings, known_then
from fleet_server.services.external_importing import AlreadyImported, ImportElsewhere, ImportWrong
from fleet_server.services.hand_readings import HandReading, ReadingWrong
from fleet_server.services.verification.external import check_external
from fleet_server.services.verification.report import Report
from fleet_server.services.verifying import verify

CORRECTED = "Zeit;O2;T\n01.07.2026 15:00;8,4;\n01.07.2026 17:00;8,6;\n"


@pytest.fixture
def pond(session: Session) -> Session:
    make_sites(session)
    act_as(session, "ada")
    return session


def counts(session: Session, *models: type[Base]) -> list[int]:
    return [session.scalar(select(func.count()).select_from(model)) or 0 for model in models]


def test_file_becomes_observations_that_name_import_row_and_what_stood_there(pond: Session) -> None:
    done = imported(pond)
    assert (done.plan.new, done.plan.replacing, done.plan.empty, done.plan.limits) == (5, 0, 1, 1)
    assert external_values(pond, "dissolved_oxygen") == {"12:00": 8.1, "13:00": 8.3, "14:00": None}
    rows = pond.execute(
        select(Observation, ExternalImport, ExternalValue)
        .join(Lineage, Lineage.id == Observation.lineage_id)
        .join(ExternalImport, ExternalImport.id == Lineage.import_id)
        .join(
            ExternalValue,
            (ExternalValue.import_id == Lineage.import_id)
            & (ExternalValue.datastream_id == Observation.datastream_id)
            & (ExternalValue.sampled_at == Observation.sampled_at),
        )
        .order_by(ExternalValue.row, ExternalValue.given)
    ).all()
    assert [(one.row, one.given) for _, _, one in rows] == [
        (2, "20,5"),
        (2, "8,1"),
        (3, "8,3"),
        (4, "20,9"),
        (4, "< 0,5"),
    ]
    assert {(by.source, by.report_number, by.author) for _, by, _ in rows} == {
        ("Umweltlabor", "4711", "ada")
    }
    assert [(one.u and round(one.u, 6), one.flag) for one, _, _ in rows] == [
        (None, 2),
        (0.2, 2),
        (0.2, 2),
        (None, 2),
        (None, 9),
    ]
    assert pond.get_one(ExternalImport, done.import_id).content == POND_FILE.encode()
    actions = pond.scalars(select(AuditEntry.action).order_by(AuditEntry.seq)).all()
    assert actions[-1] == "measurements_imported"
    assert verify(pond).is_clean


def test_rehearsal_says_the_same_and_writes_nothing(pond: Session) -> None:
    data = POND_FILE.encode()
    plan = external_importing.plan_import(pond, data, POND_RULES, now=LATER)
    assert (plan.new, plan.streams["teich dissolved_oxygen 0 cm"]) == (5, 3)
    assert counts(pond, ExternalImport, ExternalValue, Observation) == [0, 0, 0]
    imported(pond)
    other = external_importing.plan_import(pond, CORRECTED.encode(), POND_RULES, now=LATER)
    assert (other.new, other.replacing) == (1, 1)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (POND_FILE + "01.07.2026 17:00;acht;\n", "'acht' is no number"),
        (POND_FILE + "02.07.2026 14:00;8,1;\n", "lies in the future"),
    ],
)
def test_file_with_one_wrong_cell_is_not_imported_at_all(
    pond: Session, text: str, sentence: str
) -> None:
    done = imported(pond, text)
    assert (done.import_id, done.plan.wrong_count) == (None, 1)
    assert sentence in done.plan.wrong[0].sentence
    assert done.plan.wrong[0].row == 5
    assert counts(pond, ExternalImport, ExternalValue, Observation) == [0, 0, 0]


@pytest.mark.parametrize(
    ("code", "name", "sentence"),
    [
        ("weiher", "dissolved_oxygen", "There is no site weiher"),
        ("linde", "water_level", "linde is a tree, where no water_level"),
        ("teich", "soil_temperature", "teich is a water, where no soil_temperature"),
    ],
)
def test_value_that_cannot_be_of_its_site_is_told(
    pond: Session, code: str, name: str, sentence: str
) -> None:
    unit = {"dissolved_oxygen": "mg/L", "water_level": "m", "soil_temperature": "°C"}[name]
    column = replace(POND_RULES.values[0], property=name, unit=unit, depth_cm=30)
    done = imported(pond, rules=replace(POND_RULES, site_code=code, values=(column,)))
    assert done.import_id is None
    assert sentence in done.plan.wrong[0].sentence


def test_who_looks_after_trees_finds_no_pond(pond: Session) -> None:
    number = imported(pond).import_id
    assert number is not None
    act_as(pond, "tilda", Scope.TREES)
    assert "no site teich" in imported(pond, CORRECTED).plan.wrong[0].sentence
    with pytest.raises(NotFound):
        external_importing.import_of(pond, number)
    with pytest.raises(NotFound):
        external_importing.withdraw_import(pond, number, reason="not mine", now=LATER)
    assert external_importing.import_page(pond, limit=10).items == []


def test_same_file_is_recognised_until_it_is_withdrawn(pond: Session) -> None:
    number = imported(pond).import_id
    with pytest.raises(AlreadyImported, match=f"is import {number} of 2026"):
        imported(pond)
    with pytest.raises(AlreadyImported):
        external_importing.plan_import(pond, POND_FILE.encode(), POND_RULES, now=LATER)
    assert number is not None
    external_importing.withdraw_import(pond, number, reason="too early", now=LATER)
    assert imported(pond, minutes=1).plan.new == 5
    assert verify(pond).is_clean


def test_corrected_file_makes_new_versions_and_its_withdrawal_puts_back_what_was_before(
    pond: Session,
) -> None:
    imported(pond)
    second = imported(pond, CORRECTED, minutes=10)
    assert (second.plan.new, second.plan.replacing) == (1, 1)
    after = {"12:00": 8.1, "13:00": 8.4, "14:00": None, "15:00": 8.6}
    assert external_values(pond, "dissolved_oxygen") == after
    revision = pond.scalars(select(Revision)).one()
    assert (revision.kind, revision.state, revision.author) == ("import", "done", "ada")
    stream = pond.scalars(select(RevisionStream)).one()
    assert (stream.changed, stream.removed) == (1, 0)
    assert stream.largest_change == pytest.approx(0.1)
    assert verify(pond).is_clean

    assert second.import_id is not None
    now = LATER + timedelta(minutes=20)
    external_importing.withdraw_import(pond, second.import_id, reason="wrong pond", now=now)
    before = {"12:00": 8.1, "13:00": 8.3, "14:00": None}
    assert external_values(pond, "dissolved_oxygen") == before
    assert verify(pond).is_clean
    with pytest.raises(ImportElsewhere):
        external_importing.withdraw_import(pond, second.import_id, reason="again", now=now)

    def known(minutes: int) -> list[float | None]:
        query = select(Observation.value).where(Observation.u.is_not(None))
        moment = LATER + timedelta(minutes=minutes)
        return sorted(pond.scalars(known_then.as_of(query, moment)), key=lambda one: one or 0)

    assert [known(minutes) for minutes in (-1, 0, 10, 20)] == [
        [],
        [8.1, 8.3],
        [8.1, 8.4, 8.6],
        [8.1, 8.3],
    ]


def test_withdrawing_what_was_replaced_changes_no_value(pond: Session) -> None:
    first = imported(pond)
    imported(pond, CORRECTED, minutes=10)
    assert first.import_id is not None
    external_importing.withdraw_import(pond, first.import_id, reason="all wrong", now=LATER)
    assert external_values(pond, "dissolved_oxygen") == {"13:00": 8.4, "15:00": 8.6}
    assert external_values(pond, "water_temperature") == {}
    assert pond.scalar(select(func.sum(ObservationCount.count))) == 2
    assert verify(pond).is_clean


def test_changes_within_one_second_are_versions_one_after_the_other(pond: Session) -> None:
    for text in (CORRECTED, CORRECTED.replace("8,4", "8,5"), CORRECTED.replace("8,4", "8,7")):
        number = imported(pond, text).import_id
        assert number is not None
    external_importing.withdraw_import(pond, number, reason="no", now=LATER)
    external_importing.withdraw_import(pond, number - 1, reason="no", now=LATER)
    imported(pond, CORRECTED.replace("8,4", "8,8"))
    starts = pond.scalars(
        select(ObservationHistory.known_from)
        .where(ObservationHistory.value.in_((8.4, 8.5, 8.7)))
        .order_by(ObservationHistory.known_from)
    ).all()
    assert starts == [LATER + timedelta(seconds=second) for second in range(len(starts))]
    assert verify(pond).is_clean


DAMAGES: dict[str, Callable[[], Any]] = {
    "value": lambda: (
        update(Observation).where(Observation.value == 8.1).values(value=8.100000000000001)
    ),
    "u": lambda: update(Observation).where(Observation.value == 8.1).values(u=0.20000002),
    "flag": lambda: update(Observation).where(Observation.value == 8.1).values(flag=1),
    "lineage": lambda: (
        update(Observation)
        .where(Observation.value == 8.1)
        .values(lineage_id=select(func.max(Lineage.id)).scalar_subquery())
    ),
    "removed": lambda: delete(Observation).where(Observation.value == 8.1),
    "given value": lambda: (
        update(ExternalValue).where(ExternalValue.value == 8.1).values(value=8.0)
    ),
    "what stood there": lambda: (
        update(ExternalValue).where(ExternalValue.value == 8.1).values(given="8,2")
    ),
    "a limit": lambda: (
        update(ExternalValue).where(ExternalValue.limit_sign == "<").values(limit_value=0.4)
    ),
    "bytes": lambda: update(ExternalImport).where(ExternalImport.id == 1).values(content=b"x"),
    "hash": lambda: update(ExternalImport).where(ExternalImport.id == 1).values(content_sha256="x"),
    "rules": lambda: (
        update(ExternalImport)
        .where(ExternalImport.id == 1)
        .values(rules=replace(POND_RULES, zone="UTC").stored())
    ),
    "older version": lambda: (
        update(ObservationHistory).where(ObservationHistory.value == 8.3).values(value=8.35)
    ),
    "end of a version": lambda: (
        update(ObservationHistory)
        .where(ObservationHistory.value == 8.3)
        .values(known_to=LATER + timedelta(hours=2))
    ),
    "early end of a version": lambda: (
        update(ObservationHistory)
        .where(ObservationHistory.value == 8.3)
        .values(known_to=LATER + timedelta(minutes=5))
    ),
    "known before it came": lambda: (
        update(Observation)
        .where(Observation.value == 8.1)
        .values(known_from=LATER - timedelta(hours=1))
    ),
    "count": lambda: update(ObservationCount).values(count=ObservationCount.count + 1),
    "lineage's factor": lambda: (
        update(Lineage).where(Lineage.import_id == 1).values(coverage_factor=3.0)
    ),
    "taken back by nobody": lambda: (
        update(ExternalImport)
        .where(ExternalImport.id == 2)
        .values(withdrawn_at=LATER, withdrawn_by="mallory")
    ),
}


def test_each_planted_change_is_found(pond: Session) -> None:
    imported(pond)
    imported(pond, CORRECTED, minutes=10)
    assert verify(pond).is_clean
    unseen = []
    for name, damage in DAMAGES.items():
        with suppress(_Undone), db.writing(pond):
            pond.execute(damage())
            report = Report()
            check_external(pond, report)
            if not report.observations_not_reproducible:
                unseen.append(name)
            raise _Undone
    assert unseen == []
    assert verify(pond).is_clean


class _Undone(Exception):
    """What a damage changed is rolled back."""


def test_hand_reading_is_kept_as_a_file_of_its_own(pond: Session) -> None:
    reading = HandReading(
        "teich", "water_level", "1,42", "m", NOON, u="0,01", instrument="staff", source="Ada Kern"
    )
    number = hand_readings.take_down(pond, reading, now=LATER)
    assert external_values(pond, "water_level") == {"12:00": 1.42}
    row = external_importing.import_of(pond, number)
    assert (row.kind, row.source, row.instrument) == ("hand", "Ada Kern", "staff")
    assert b"1,42;m;0,01" in row.content
    with pytest.raises(AlreadyImported):
        hand_readings.take_down(pond, reading, now=LATER)
    assert verify(pond).is_clean


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"value": ""}, "There is no value"),
        ({"value": "142"}, None),
        ({"value": "1420"}, "no possible water_level"),
        ({"unit": "furlong"}, "is not given in 'furlong'"),
        ({"site_code": "weiher"}, "no site weiher"),
        ({"source": " "}, "Who measured"),
        ({"at": LATER + timedelta(hours=1)}, "lies in the future"),
        ({"property": "soil_temperature", "unit": "C"}, "At which depth"),
        ({"u": "0"}, "An uncertainty of 0 cannot be"),
        ({"note": "x" * 501}, "at most 500 characters"),
    ],
)
def test_hand_reading_that_cannot_be_is_one_sentence(
    pond: Session, changes: dict[str, Any], sentence: str | None
) -> None:
    reading = HandReading("teich", "water_level", "1,42", "m", NOON, source="Ada")
    reading = replace(reading, **changes)
    if sentence is None:
        hand_readings.take_down(pond, reading, now=LATER)
        return
    with pytest.raises(FleetError, match=sentence) as caught:
        hand_readings.take_down(pond, reading, now=LATER)
    assert isinstance(caught.value, ReadingWrong | ImportWrong)
    assert counts(pond, ExternalImport) == [0]


def test_import_needs_a_source_and_a_withdrawal_a_reason(pond: Session) -> None:
    with pytest.raises(ImportWrong, match="Who measured"):
        imported(pond, origin=replace(LABORATORY, source=" "))
    number = imported(pond).import_id
    assert number is not None
    with pytest.raises(ImportWrong, match="Say why"):
        external_importing.withdraw_import(pond, number, reason=" ", now=LATER)
    with pytest.raises(NotFound):
        external_importing.withdraw_import(pond, 99, reason="none", now=LATER)
    with db.writing(pond):
        assert counts(pond, ExternalImport) == [1]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_imported_and_withdrawn_in_any_order_each_instant_has_its_newest_value(
    pond: Session, seed: int
) -> None:
    """Beside a model of a few lines; and what was known after each step is answered again afterwards."""
    chance = random.Random(seed)
    files: dict[int, dict[str, float]] = {}
    seen: list[tuple[datetime, dict[str, float | None]]] = []
    for step in range(12):
        now = LATER + timedelta(seconds=3 * step)
        if files and chance.random() < 0.4:
            number = chance.choice([*files])
            del files[number]
            external_importing.withdraw_import(pond, number, reason="no", now=now)
        else:
            hours = sorted(chance.sample(range(10, 16), chance.randint(1, 4)))
            given = {f"{hour}:00": round(chance.uniform(6, 9), 3) for hour in hours}
            rows = "".join(f"2026-07-01T{at}:00Z;{value};\n" for at, value in given.items())
            done = external_importing.import_measurements(
                pond, f"Zeit;O2;T\n{rows}".encode(), POND_RULES, LABORATORY, now=now
            )
            assert done.import_id is not None
            files[done.import_id] = given
        wanted: dict[str, float | None] = {}
        for number in sorted(files):
            wanted |= files[number]
        found = external_values(pond, "dissolved_oxygen")
        assert found == dict(sorted(wanted.items())), step
        seen.append((now, dict(found)))
    assert verify(pond).is_clean
    query = select(Observation.sampled_at, Observation.value).order_by(Observation.sampled_at)
    for moment, values in seen:
        then = known_then.as_of(query, moment + timedelta(seconds=2))
        assert {f"{at:%H:%M}": value for at, value in pond.execute(then)} == values
