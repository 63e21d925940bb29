"""`fleet correction` as it is typed, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from corrections import LATER, measured, values
from databases import SqliteDatabases
from sqlalchemy.orm import Session
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli import database
from fleet_server.cli.main import main

VISITS = ("--from", "2026-07-01T12:00:00Z", "--to", "2026-07-01T13:00:00Z")
PROBE = ("n-000001/d30", "soil_temperature")


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    """A node has measured four times."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_REVISION_BACKUPS", "off")
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{int(LATER.timestamp())}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            measured(opened)
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def test_correction_from_the_draft_to_the_values_and_back(
    session: Session, fleet: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_console_user", lambda: "ada")
    status, out, _ = fleet("correction", "draft", *PROBE, *VISITS, "--low", "−0,4=0", "--json")
    drafted = json.loads(out)
    assert (status, drafted["status"], drafted["rating"]) == (0, "draft", "good")
    assert drafted["low"] == {"standard": 0.0, "reading": -0.4}
    number = str(drafted["id"])
    status, _, err = fleet("correction", "approve", number)
    assert (status, is_one_sentence(err, "Who wrote a drift correction does not approve it")) == (
        1,
        True,
    )

    monkeypatch.setattr(database, "_console_user", lambda: "grace")
    assert fleet("correction", "approve", number).status == 0
    assert json.loads(fleet("recompute", "--reason", "now", "--json").out)["changed"] == 6
    session.rollback()
    assert values(session, "t30") == pytest.approx([19.975, 20.075, 20.175, 19.875])
    assert (
        "approved  n-000001/d30 soil_temperature version 1"
        in fleet("correction", "list", PROBE[0]).out
    )

    assert fleet("correction", "withdraw", number, "--reason", "wrong ice").status == 0
    fleet("recompute", "--reason", "now")
    session.rollback()
    assert values(session, "t30") == [19.875] * 4
    assert json.loads(fleet("recompute", "--check", "--json").out)["not_reproducible"] == 0


def test_calibration_under_a_correction_says_so_before_and_wants_a_word_at_its_approval(
    session: Session, fleet: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_console_user", lambda: "ada")
    fleet("correction", "draft", *PROBE, *VISITS, "--low", "-0.4=0")
    at = ("--at", VISITS[1], "--by", "ada", "--point", "1.5=0±0.02")
    probe = ("--serial", PROBE[0], "--property", PROBE[1], "--kind", "offset")
    status, out, err = fleet("calibration", "new", *probe, *at, "--json")
    assert status == 0, err
    draft = str(json.loads(out)["calibration"])
    monkeypatch.setattr(database, "_console_user", lambda: "grace")
    fleet("correction", "approve", "1")
    dry = fleet("calibration", "approve", draft, "--dry-run").out
    assert "Drift correction 1 holds within its time" in dry
    assert "--withdraw-correction 1" in dry
    status, _, err = fleet("calibration", "approve", draft)
    assert (status, is_one_sentence(err, "Drift correction 1 holds within its time")) == (1, True)
    status, _, err = fleet("calibration", "approve", draft, "--keep-correction", "0")
    assert (status, is_one_sentence(err, "is not in the range")) == (2, True)
    assert fleet("calibration", "approve", draft, "--keep-correction", "1").status == 0
    again = ("calibration", "withdraw", draft, "--reason", "wrong ice")
    assert fleet(*again).status == 1
    assert fleet(*again, "--withdraw-correction", "1").status == 0
    assert "withdrawn  n-000001/d30" in fleet("correction", "list", PROBE[0]).out


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (("draft", *PROBE, *VISITS), "There is nothing to put right"),
        (("draft", *PROBE, *VISITS, "--low", "cold"), "'cold' is no check"),
        (("draft", "nix", PROBE[1], *VISITS, "--fouling", "1"), "There is no sensor nix."),
        (
            ("draft", PROBE[0], "mood", *VISITS, "--fouling", "1"),
            "Values of mood are not put right",
        ),
        (("approve", "9"), "There is no drift correction 9."),
        (("approve", "9" * 20), "is not in the range"),
        (("withdraw", "9" * 20, "--reason", "x"), "is not in the range"),
        (("draft", PROBE[0], "ph", *VISITS, "--fouling", "1"), "which delivers no ph"),
        (("draft", *PROBE, *VISITS, "--fouling", "1.000,5"), "'1.000,5' is no number"),
        (("draft", *PROBE, *VISITS, "--fouling", "1_0"), "'1_0' is no number"),
        (("draft", *PROBE, *VISITS, "--low", "٣=0"), "is no check"),
        (("withdraw", "9", "--reason", "x"), "There is no drift correction 9."),
        (("list", "nix"), "There is no sensor nix."),
    ],
)
def test_wrong_use_is_one_sentence(
    session: Session, fleet: Answering, typed: tuple[str, ...], sentence: str
) -> None:
    status, _, err = fleet("correction", *typed)
    assert status in (1, 2)
    assert is_one_sentence(err, sentence), err
