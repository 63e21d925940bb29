"""`fleet calibration` as it is typed, over a real database; it is noon on 1 July 2026."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy.orm import Session
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import certifying, ingest, rights

SERIAL = "n-000001/ph"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def session(
    sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    """n-000001, a pond-3, stands at a site since a month. The tests of this file go on from one another."""
    with pytest.MonkeyPatch.context() as patch, sqlite_databases.fresh() as url:
        patch.setenv("FLEET_DATABASE_URL", url)
        patch.setenv("FLEET_DATA_DIR", str(tmp_path_factory.mktemp("data")))
        patch.setenv("FLEET_DEMO", "true")
        patch.setenv("FLEET_CLOCK", f"{NOON_S}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            deployed_node(opened, "n-000001", model="pond-3")
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Answering:
    return answering("fleet", "calibration", main=main, monkeypatch=monkeypatch, capsys=capsys)


def as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "dora")


def test_buffers_points_fit_approval_and_certificate_by_commands(
    fleet: Answering, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    numbers = []
    for name, worth in (("pH 7", ("20=6.881", "25=6.865")), ("pH 4", ("20=4.002", "25=4.008"))):
        options = [part for one in worth for part in ("--worth", one)]
        given = ("--kind", "solution", "--property", "ph", "--u", "0.01", "--lot", "L", *options)
        numbers.append(json.loads(fleet("standards", "add", name, *given, "--json").out)["id"])
    new = ("new", "--serial", SERIAL, "--property", "ph", "--by", "tina")
    made = json.loads(fleet(*new, "--point", f"6.95=standard:{numbers[0]}@20", "--json").out)
    assert made["faults"][0]["code"] == "points"
    calibration = str(made["calibration"])
    untrusted = fleet("fit", calibration)
    assert (untrusted.status, is_one_sentence(untrusted.err, "too few points: 1")) == (1, True)
    fleet("point", calibration, f"4.02=standard:{numbers[1]}@20", "--step", "four")
    told = fleet("point", calibration, f"4.03=standard:{numbers[1]}@20", "--step", "four")
    assert "fit four: 4.03 in 4.002 ± 0.01" in told.out
    assert fleet("fit", calibration).status == 0
    own = fleet("approve", calibration)
    assert (own.status, is_one_sentence(own.err, "had no hand in it")) == (1, True)

    as_somebody_else(monkeypatch)
    approved = json.loads(fleet("approve", calibration, "--json").out)

    assert (approved["status"], approved["approval"]["by"]) == ("approved", "console dora")
    sheet = tmp_path / "certificate.pdf"
    certificate = json.loads(fleet("certificate", calibration, "--pdf", str(sheet), "--json").out)
    assert certifying.digest(certificate["certificate"]) == certificate["sha256"]
    assert sheet.read_bytes().startswith(b"%PDF")
    again = tmp_path / "again.pdf"
    fleet("certificate", calibration, "--pdf", str(again))
    assert again.read_bytes() == sheet.read_bytes()
    if (reader := shutil.which("pdftotext")) is not None:
        text = subprocess.run([reader, sheet, "-"], capture_output=True, check=True).stdout.decode()
        for words in (SERIAL, "Approved by console dora", "pH 4", certificate["sha256"][:16]):
            assert words in text
    listed = json.loads(fleet("list", "--serial", SERIAL, "--json").out)["calibrations"]
    assert [one["status"] for one in listed] == ["approved"]
    gone = fleet("withdraw", calibration, "--reason", "wrong bottle")
    assert "(withdrawn)" in gone.out


def test_draft_comes_from_a_file_and_what_does_not_fit_is_one_sentence(
    fleet: Answering, tmp_path: Path
) -> None:
    file = tmp_path / "draft.json"
    good = {"serial": SERIAL, "property": "ph", "performed_by": "tina", "performed_at": f"{NOON:%Y-%m-%dT%H:%M:%SZ}", "points": [{"indicated": 7, "reference": 6.9, "u_reference": 0.01}]}  # fmt: skip
    file.write_text(json.dumps(good))
    assert json.loads(fleet("new", str(file), "--json").out)["points"][0]["reference"] == 6.9
    before = fleet("list", "--json").out
    point = good["points"][0]  # type: ignore[index]
    for content, sentence in (
        ("{", "no JSON"),
        ("[]", "is a JSON object"),
        (json.dumps({**good, "luck": 1}), "no member luck"),
        (json.dumps({**good, "kind": "cubic"}), "kind must be one of"),
        (json.dumps({**good, "points": [{**point, "indicated": "7,0"}]}), "indicated must be"),  # type: ignore[dict-item]
        (json.dumps({**good, "points": [{**point, "u_reference": None}]}), "which standard"),  # type: ignore[dict-item]
        ('{"serial": "x", "property": "ph", "performed_by": "t", "u_absolute": NaN}', "u_absolute"),
        (json.dumps({**good, "performed_at": "yesterday"}), "a time with its zone"),
    ):
        file.write_text(content)
        wrong = fleet("new", str(file))
        assert (wrong.status, is_one_sentence(wrong.err, sentence)) == (2, True), wrong.err
    file.write_bytes("ä".encode("latin-1"))
    for given, sentence in (
        (["new", str(file)], "no text in UTF-8"),
        (["new", str(tmp_path / "none.json")], "no file"),
        (["new"], "Give a FILE"),
        (["new", "--serial", SERIAL, "--property", "ph", "--by", "t", "--point", "7"], "no point"),
        (
            ["standards", "add", "x", "--kind", "solution", "--property", "ph", "--u", "nan"],
            "not a",
        ),
    ):
        wrong = fleet(*given)
        assert (wrong.status, is_one_sentence(wrong.err, sentence)) == (2, True), wrong.err
    assert fleet("list", "--json").out == before


def test_step_is_taken_by_command_when_the_reading_stands_still(
    session: Session, fleet: Answering
) -> None:
    readings = {"ph": 7000.0, "tw": 320.0, "do": 850.0, "ec": 50_000.0, "bat": 3900.0}
    node = SimulatedNode(started_s=NOON_S - 3600, readings=readings)
    packs = [node.pack(at_s=NOON_S - 30 * number) for number in range(8, 0, -1)]
    ingest.store_batch(session, packs, now=NOON)
    guided = json.loads(fleet("guide", "n-000001", "tw", "--json").out)
    assert (guided["reading"], guided["is_steady"], guided["next"]) == (20.0, True, "ice")
    taken = json.loads(fleet("take", str(guided["calibration"]), "ice", "--json").out)
    assert taken["parameters"]["offset"] == -20.0
    again = fleet("guide", "n-000001", "tw")
    assert f"Calibration {guided['calibration']} of n-000001/t: 20 Cel, steady" in again.out
    wrong = fleet("take", str(guided["calibration"]), "boiling")
    assert (wrong.status, is_one_sentence(wrong.err, "no step boiling")) == (1, True)
    assert "it has ice." in wrong.err
    wrong = fleet("guide", "n-000001", "x9")
    assert (wrong.status, is_one_sentence(wrong.err, "step by step; it has")) == (1, True)


def test_guide_says_what_to_type_next(session: Session, fleet: Answering) -> None:
    first = fleet("guide", "n-000001", "ph").out
    assert "too few readings yet" in first or "steady" in first
    number = first.split()[1]
    assert f"take {number} ph7 --standard NUMBER --temperature °C" in first
    assert "standard 1: pH 7 L" in first
    assert "take" in fleet("guide", "n-000001", "do").out
    done = fleet("guide", "n-000001", "tw").out
    assert "All steps are taken" in done
    assert "No usable standard" in fleet("guide", "n-000001", "ec").out


@pytest.mark.parametrize(
    ("typed", "indicated"),
    [("−3,5=0±0,02", -3.5), ("7,02=7.00+-0.01", 7.02), (".5=0±1e-2", 0.5), ("7.02 = 7 ± 0.01", 7.02)],
)  # fmt: skip
def test_point_is_understood_as_people_write_numbers(
    fleet: Answering, typed: str, indicated: float
) -> None:
    new = ("new", "--serial", SERIAL, "--property", "ph", "--by", "tina", "--u-drift", "0,2")
    made = json.loads(fleet(*new, "--point", typed, "--json").out)
    assert made["points"][0]["indicated"] == indicated
    assert made["parameters"]["u_drift_absolute"] == 0.2
    own = ("own", str(made["calibration"]), "--u-drift", "0", "--u-absolute", "0,04", "--json")
    changed = json.loads(fleet(*own).out)["parameters"]
    assert (changed["u_drift_absolute"], changed["u_absolute"]) == (0.0, 0.04)
    wrong = fleet("own", str(made["calibration"]))
    assert (wrong.status, is_one_sentence(wrong.err, "Say which")) == (2, True)


@pytest.mark.parametrize(
    "typed",
    ["1_0=7±0.01", "٧=7±0.01", "7=7±0.0١", "1.000,5=7±0.1", "nan=7±0.01", "7=inf±1", "1e400=7±1", "7=standard:١", "7=standard:1_0", "7=standard:1@2_0"],
)  # fmt: skip
def test_point_that_is_no_number_is_one_sentence(fleet: Answering, typed: str) -> None:
    new = ("new", "--serial", SERIAL, "--property", "ph", "--by", "tina")
    wrong = fleet(*new, "--point", typed)
    assert (wrong.status, is_one_sentence(wrong.err, "no point")) == (2, True), wrong.err


def test_dry_run_tells_what_the_approval_of_a_draft_would_change(fleet: Answering) -> None:
    of_probe = ("--serial", "n-000001/t", "--property", "water_temperature", "--kind", "offset")
    point = ("--by", "tina", "--point", "0.5=0.0±0.02")
    at = ("--at", f"{NOON - HOUR:%Y-%m-%dT%H:%M:%SZ}")
    made = json.loads(fleet("new", *of_probe, *point, *at, "--json").out)
    dry_run = ("approve", str(made["calibration"]), "--dry-run")
    told = json.loads(fleet(*dry_run, "--json").out)
    changes = {one["property"]: one for one in told["changes"]}
    water = changes["water_temperature"]
    assert (water["changed"], water["mean"], water["largest"]) == (8, -0.5, 0.5)
    text = fleet(*dry_run).out
    assert "water_temperature 0 cm: 8 of 8 values change, by -0.5 in the mean" in text
    assert text.endswith("Nothing was changed.\n")
    again = json.loads(fleet("show", str(made["calibration"]), "--json").out)
    assert again["status"] == "draft"
    late = json.loads(fleet("new", *of_probe, *point, "--json").out)
    assert "would change no value" in fleet("approve", str(late["calibration"]), "--dry-run").out
    begin = ("--from", f"{NOON:%Y-%m-%dT%H:%M:%SZ}")
    assert "would change no value" in fleet(*dry_run, *begin).out
    wrong = fleet(*dry_run, "--sha256", "0" * 64)
    assert (wrong.status, is_one_sentence(wrong.err, "look again")) == (1, True)
    wrong = fleet("approve", "1", "--dry-run")
    assert (wrong.status, is_one_sentence(wrong.err, "is no draft")) == (1, True)


def test_probes_are_listed_with_when_they_are_due(fleet: Answering) -> None:
    rows = json.loads(fleet("probes", "--type", "ezo_ph", "--json").out)["probes"]
    assert [(one["serial"], one["is_due"]) for one in rows] == [(SERIAL, False)]
    assert fleet("probes", "--due").out == "There is no such probe.\n"
    assert rights.Right.CALIBRATE in rights.RIGHTS[rights.Role.TECHNICIAN]
