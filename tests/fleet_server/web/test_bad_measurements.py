"""What a person can get wrong about calibrations and corrections, on the console, on a page and by a program: one sentence, and nothing is written."""

from __future__ import annotations

import html
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from corrections import LATER, measured
from databases import SqliteDatabases, hurried_engine
from factories import NOON
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli import database
from fleet_server.cli.main import main
from fleet_server.models import (
    AuditEntry,
    Calibration,
    CalibrationKind,
    CalibrationPoint,
    DriftCorrection,
    Observation,
    Revision,
    Role,
    Standard,
    StandardKind,
)
from fleet_server.services import accounts, calibrating, rights, standards
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.standards import NewStandard
from tests.fleet_server.small_world import PASSWORD
from tests.fleet_server.world_fixtures import World

SERIAL, PROPERTY = "n-000001/d30", "soil_temperature"
EARLY, LATE = "2026-07-01T12:00:00Z", "2026-07-01T13:00:00Z"
STANDARD = {"kind": "solution", "property": "ph", "name": "b", "u": 0.01, "points": [[20, 7]]}
WRITTEN = (Calibration, CalibrationPoint, DriftCorrection, Standard, Revision, AuditEntry)


@dataclass(frozen=True)
class Bench:
    """A node that measured, an expired standard, one calibration that is approved, and drafts that cannot be."""

    sessions: sessionmaker[Session]
    url: str
    steward: FlaskClient
    drafts: dict[str, int]

    def written(self) -> list[object]:
        """All that bad input must leave as it is."""
        with self.sessions() as session:
            counts = [session.scalar(select(func.count()).select_from(one)) for one in WRITTEN]
            states = session.execute(
                select(Calibration.id, Calibration.status, Calibration.edited_by)
            )
            return [*counts, *states.all(), *session.scalars(select(Observation.value))]


@pytest.fixture(scope="module")
def bench(
    sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        sessions = db.session_factory(engine)
        clock.use_clock(f"{int(LATER.timestamp())}@0x0")
        with sessions() as session:
            accounts.create_user(session, "dora", PASSWORD, now=NOON, roles=[Role.DATA_STEWARD])
            measured(session)
            drafts = _drafts(session)
        world = World(engine, sessions, url, tmp_path_factory.mktemp("bench"))
        yield Bench(sessions, url, world.program("dora", demo=False), drafts)
        clock.use_clock(clock.REAL)
        engine.dispose()


def _drafts(session: Session) -> dict[str, int]:
    rights.act_as(session, rights.Actor("tina", frozenset(rights.Right)))
    expired = NewStandard(
        StandardKind.SOLUTION, PROPERTY, "ice", 0.01, [(20.0, 0.0)], expires_at=NOON
    )
    standards.add_standard(session, expired, now=NOON - timedelta(days=1))

    def draft(
        kind: CalibrationKind,
        points: Sequence[NewPoint],
        valid_from: datetime,
        valid_to: datetime | None = None,
    ) -> int:
        new = NewCalibration(
            SERIAL, PROPERTY, kind, "tina", NOON, points, valid_from=valid_from, valid_to=valid_to
        )
        return calibrating.draft_calibration(session, new, now=LATER).calibration.id

    ice = (NewPoint(1.5, 0.0, 0.02),)
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    far = [NewPoint(1e-9 * one, 9e8 * one * one, 0.01) for one in (-1.0, 0.0, 1.0)]
    made = {
        "approved": draft(CalibrationKind.OFFSET, ice, NOON + timedelta(minutes=30)),
        "second": draft(CalibrationKind.OFFSET, ice, NOON),
        "before all": draft(CalibrationKind.OFFSET, ice, long_ago, long_ago + timedelta(days=1)),
        "overflows": draft(CalibrationKind.QUADRATIC, far, NOON),
        "one point": draft(CalibrationKind.LINEAR, ice, NOON),
        "same twice": draft(CalibrationKind.LINEAR, [*ice, NewPoint(1.5, 0.1, 0.02)], NOON),
    }
    rights.act_as(session, rights.Actor("grace", frozenset(rights.Right)))
    calibrating.approve_calibration(session, made["approved"], now=LATER)
    return made


@pytest.fixture
def fleet(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Answering:
    monkeypatch.setenv("FLEET_DATABASE_URL", bench.url)
    monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("FLEET_DEMO", "true")
    monkeypatch.setenv("FLEET_CLOCK", f"{int(LATER.timestamp())}@0x0")
    monkeypatch.setattr(database, "_console_user", lambda: "carla")
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


NEW = f"calibration new --serial {SERIAL} --property {PROPERTY} --by tina --at {EARLY}"
VISIT = f"correction draft {SERIAL} {PROPERTY} --from {EARLY} --to {LATE}"
TYPED = [
    (f"{NEW} --point nan=0±0.02", "is no point"),
    (f"{NEW} --point inf=0±0.02", "is no point"),
    (f"{NEW} --point 1e300=0±0.02", "below 1e+09"),
    (f"{NEW} --point 1.5=0±0", "above zero"),
    (f"{NEW} --point 1.000,5=0±0.02", "write it like"),
    (f"{NEW} --point 1.5", "write it like"),
    (f"{NEW} --point 1.5=standard:1", "expired"),
    (f"{NEW} --point 1.5=standard:{'9' * 30}", "standard"),
    (f"{NEW} --u-absolute nan", "nan"),
    (f"{NEW} --u-absolute -1", "from 0 to"),
    (f"{NEW} --environment pressure_hpa=inf", "finite"),
    (f"calibration new --serial {SERIAL} --property ph --by tina --at {EARLY}", "delivers no ph"),
    (NEW.replace(EARLY, "2026-07-03T00:00:00Z"), "not in the future"),
    (NEW.replace(EARLY, "1999-07-02T00:00:00Z"), "2000 or later"),
    (NEW.replace(EARLY, "yesterday"), "yesterday"),
    ("calibration approve {second}", "within the time of this one"),
    ("calibration approve {before all}", "the probe was mounted nowhere"),
    ("calibration approve {overflows}", "cannot be trusted"),
    ("calibration approve {one point}", "cannot be trusted"),
    ("calibration approve {same twice}", "cannot be trusted"),
    ("calibration approve {approved}", "with a draft only"),
    ("calibration approve {second} --sha256 00", "was changed since you looked"),
    ("calibration certificate {second}", "has no certificate"),
    (
        "calibration standards add b --kind solution --property ph --worth 20=nan --u 0.01",
        "6.881",
    ),
    ("calibration standards add b --kind solution --property ph --worth 20=6_8 --u 0.01", "6.881"),
    ("calibration standards add b --kind solution --property ph --worth 20=7 --u inf", "inf"),
    (f"{VISIT} --fouling nan", "nan"),
    (f"{VISIT} --fouling 1.000,5", "1.000,5"),
    (f"{VISIT} --low=-0.4=nan", "is no check"),
    (
        f"correction draft {SERIAL} {PROPERTY} --from {LATE} --to {EARLY} --low=-0.4=0",
        "comes after",
    ),
    (f"recompute --dry-run --from {LATE} --to {EARLY}", "later than"),
    (f"recompute --reason x --from {LATE} --to {LATE}", "later than"),
    ("recompute --dry-run --site nowhere", "no values of nowhere"),
    ("convert watermark_tension resistance_ohm=nan temperature_c=20", "nan"),
    ("convert watermark_tension resistance_ohm=7802 temperature_c=20,5", "20,5"),
]


@pytest.mark.parametrize(("typed", "sentence"), TYPED)
def test_what_cannot_be_is_one_sentence_on_the_console(
    bench: Bench, fleet: Answering, typed: str, sentence: str
) -> None:
    before = bench.written()
    for name, number in bench.drafts.items():
        typed = typed.replace(f"{{{name}}}", str(number))
    answer = fleet(*shlex.split(typed))
    assert answer.status in (1, 2)
    assert is_one_sentence(answer.err, sentence), answer.err
    assert bench.written() == before


POINT = {"indicated": "1.5", "reference": "0", "u_reference": "0.02", "stage": "fit", "step": "9"}
VISIT_FORM = {
    "property": PROPERTY,
    "from": EARLY,
    "to": LATE,
    "low_standard": "0",
    "low_reading": "1",
}
NEW_FORM = {"serial": SERIAL, "property": PROPERTY, "kind": "offset", "performed_by": "tina"}
STANDARD_FORM = {"kind": "solution", "property": "ph", "name": "b", "u": "0.01", "points": "20: 7"}
POINTS, APPROVAL = "/fleet/calibrations/{second}/points", "/fleet/calibrations/{second}/approve"
VISITS, STANDARDS = f"/fleet/corrections/of/{SERIAL}", "/fleet/calibrations/standards"
FORMS = [
    (POINTS, {**POINT, "indicated": "NaN"}, "Reading of the probe wants a number."),
    (POINTS, {**POINT, "reference": "inf"}, "What the standard is worth wants a number."),
    (POINTS, {**POINT, "u_reference": "-0,02"}, "that of a standard is above zero"),
    (POINTS, {**POINT, "temperature": "1e400"}, "Temperature of the standard wants a number."),
    (POINTS, {**POINT, "indicated": "999999999999"}, "below 1e+09"),
    (POINTS, {**POINT, "standard": "1", "reference": ""}, "expired"),
    (POINTS, {**POINT, "standard": "99"}, "There is no standard 99."),
    (POINTS, {**POINT, "stage": "never"}, "stage"),
    (APPROVAL, {"begin": "draft"}, "was changed since you looked"),
    ("/fleet/calibrations/new", {**NEW_FORM, "u_absolute": "nan"}, "own u wants a number"),
    ("/fleet/calibrations/new", {**NEW_FORM, "u_absolute": "-1"}, "a number from 0 to 1e+09"),
    ("/fleet/calibrations/new", {**NEW_FORM, "environment": "cold"}, "like pressure_hpa: 1009.5."),
    ("/fleet/calibrations/new", {**NEW_FORM, "performed_at": "2026-07-09T00:00"}, "in the future"),
    ("/fleet/calibrations/new", {**NEW_FORM, "performed_at": "soon"}, "Write the time like"),
    (STANDARDS, {**STANDARD_FORM, "points": "20: NaN"}, "is worth like 20: 6.881."),
    (STANDARDS, {**STANDARD_FORM, "points": "20:"}, "is worth like 20: 6.881."),
    (STANDARDS, {**STANDARD_FORM, "points": ": 7"}, "is worth like 20: 6.881."),
    (STANDARDS, {**STANDARD_FORM, "points": "20: 1_000"}, "is worth like 20: 6.881."),
    (STANDARDS, {**STANDARD_FORM, "points": "20: 7\n20: 8"}, "temperatures ascend"),
    (STANDARDS, {**STANDARD_FORM, "u": "0"}, "above zero"),
    (VISITS, {**VISIT_FORM, "fouling": "inf"}, "Fouling wants a number."),
    (VISITS, {**VISIT_FORM, "low_reading": "NaN"}, "Lower standard wants a number."),
    (VISITS, {**VISIT_FORM, "from": LATE, "to": EARLY}, "comes after the earlier"),
    (VISITS, {**VISIT_FORM, "to": "2026-07-09T00:00Z"}, "lies in the future"),
]


@pytest.mark.parametrize(("address", "form", "sentence"), FORMS)
def test_what_cannot_be_is_one_sentence_on_its_page(
    bench: Bench, address: str, form: dict[str, str], sentence: str
) -> None:
    before = bench.written()
    answer = bench.steward.post(address.format(**bench.drafts), data=form)
    assert answer.status_code == 400
    (said,) = re.findall(r'<p class="fault"[^>]*>(.*?)</p>', answer.text, flags=re.DOTALL)
    assert sentence in html.unescape(said)
    assert bench.written() == before


API = "/api/v1/calibrations"
API_POINT = {"indicated": 1.5, "reference": 0.0, "u_reference": 0.02}
API_NEW = {"serial": SERIAL, "property": PROPERTY, "kind": "offset", "performed_by": "tina"}
API_VISIT = {"serial": SERIAL, "property": PROPERTY, "from_at": EARLY, "to_at": LATE}
ASKED: list[tuple[str, dict[str, Any], int, str]] = [
    (f"{API}/{{second}}/points", {**API_POINT, "indicated": math.nan}, 400, "not finite"),
    (f"{API}/{{second}}/points", {**API_POINT, "indicated": "inf"}, 422, "not permitted"),
    (f"{API}/{{second}}/points", {**API_POINT, "reference": "1,5"}, 422, "reference"),
    (f"{API}/{{second}}/points", {**API_POINT, "indicated": 1e300}, 400, "below 1e+09"),
    (f"{API}/{{second}}/points", {"indicated": 1.5, "standard_id": 1}, 403, "expired"),
    (f"{API}/{{second}}/approve", {"sha256": "0" * 64}, 409, "was changed since you looked"),
    (API, {**API_NEW, "u_absolute": math.inf}, 400, "not finite"),
    (API, {**API_NEW, "u_absolute": 1e300}, 400, "from 0 to 1e+09"),
    (API, {**API_NEW, "environment": {"pressure_hpa": 1e300}}, 400, "finite number"),
    (API, {**API_NEW, "valid_from": LATE, "valid_to": EARLY}, 400, "ends after it begins"),
    (API, {**API_NEW, "points": [API_POINT, {**API_POINT, "u_reference": 0}]}, 400, "above zero"),
    ("/api/v1/standards", {**STANDARD, "points": [[20, math.nan]]}, 400, "not finite"),
    ("/api/v1/standards", {**STANDARD, "points": [[20, 1e300]]}, 400, "at most 1e+09"),
    ("/api/v1/standards", {**STANDARD, "points": [[20]]}, 422, "points"),
    ("/api/v1/corrections", {**API_VISIT, "fouling": math.nan}, 400, "not finite"),
    ("/api/v1/corrections", {**API_VISIT, "fouling": 1e300}, 422, "fouling"),
    ("/api/v1/corrections", {**API_VISIT, "fouling": 1, "to_at": EARLY}, 400, "comes after"),
]


@pytest.mark.parametrize(("address", "body", "status", "sentence"), ASKED)
def test_what_cannot_be_is_one_sentence_for_a_program(
    bench: Bench, address: str, body: dict[str, Any], status: int, sentence: str
) -> None:
    before = bench.written()
    answer = bench.steward.post(address.format(**bench.drafts), json=body)
    assert answer.status_code == status, answer.text
    assert sentence in answer.get_json()["detail"]
    assert bench.written() == before
