"""`fleet recompute` as it is typed, and the worker's job that does the same; over a real database, with a real backup."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from corrections import LATER, calibrate, measured, values
from databases import SqliteDatabases
from factories import SimulatedNode
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.errors import FleetError
from fleet_server.jobs import revisions
from fleet_server.models import Calibration, Observation, Revision
from fleet_server.services.ingest import store_batch
from fleet_server.settings import load_settings


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    """A node has measured four times."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
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


def forge_calibration(session: Session) -> None:
    """A factory calibration that is another one than its values were made with: software that was changed does the same."""
    with db.writing(session):
        session.execute(
            update(Calibration).where(Calibration.property == "soil_temperature").values(offset=0.5)
        )


def test_rehearsal_says_what_would_change_and_the_command_then_does_it(
    session: Session, fleet: Answering, tmp_path: Path
) -> None:
    forge_calibration(session)
    status, out, _ = fleet("recompute", "--dry-run", "--json")
    told = json.loads(out)
    assert (status, told["compared"], told["changed"], told["removed"]) == (0, 28, 24, 0)
    assert {row["name"]: row["largest_change"] for row in told["datastreams"]}[
        "n-000001-site soil_temperature 30 cm"
    ] == 0.5
    assert values(session, "t30") == [19.875] * 4
    assert "by 0.5 at most" in fleet("recompute", "--dry-run", "--property", "soil_temperature").out

    assert json.loads(fleet("recompute", "--check", "--json").out)["not_reproducible"] > 0
    status, out, _ = fleet("recompute", "--reason", "new software", "--json")
    assert (status, json.loads(out)["changed"]) == (0, 24)
    session.rollback()
    assert values(session, "t30") == [20.375] * 4
    revision = session.scalars(select(Revision)).one()
    assert (revision.state, revision.reason, revision.known_at) == ("done", "new software", LATER)

    backup = Path(revision.backup or "")
    assert backup.is_relative_to(tmp_path / "data" / "backups_before_revisions")
    with sqlite3.connect(backup / "database.sqlite3") as kept:
        assert kept.execute(
            "SELECT DISTINCT value FROM observation WHERE datastream_id = 4"
        ).fetchall() == [(19.875,)]

    assert "nothing was changed" in fleet("recompute", "--reason", "again").out


def test_check_proves_every_version_and_finds_a_changed_bit_but_tells_of_no_gap(
    session: Session, fleet: Answering, tmp_path: Path
) -> None:
    calibrate(session, "t30", offset=-1.5)
    assert json.loads(fleet("recompute", "--check", "--json").out) == {
        "observations": 28,
        "versions": 0,
        "waiting": 8,
        "not_reproducible": 0,
    }
    revisions.work_off_revisions(session, load_settings(), LATER)
    told = json.loads(fleet("recompute", "--check", "--json").out)
    assert (told["versions"], told["waiting"], told["not_reproducible"]) == (8, 0, 0)
    with db.writing(session):
        session.execute(update(Observation).where(Observation.datastream_id == 4).values(u=0.5))
    status, out, err = fleet("recompute", "--check")
    assert status == 1
    assert "1 finding." in out
    assert err == "Calibration 9 gives none of its 4 observations.\n"
    store_batch(session, [SimulatedNode().pack(9)], now=LATER)  # 5 to 8 never came
    err = fleet("recompute", "--check").err
    assert ("is another one" in err, "never came" in err) == (True, False)
    assert "never came" in fleet("verify", "--data", str(tmp_path / "data")).err


def test_backup_that_cannot_be_made_holds_a_correction_up_and_says_so(
    session: Session, tmp_path: Path
) -> None:
    calibrate(session, "t30", offset=-1.5)
    (tmp_path / "full").write_text("no folder")
    settings = load_settings(revision_backups=str(tmp_path / "full"))
    with pytest.raises(FleetError, match="cannot be written"):
        revisions.work_off_revisions(session, settings, LATER)
    revision = session.scalars(select(Revision)).one()
    assert revision.state == "waiting"
    assert "cannot be written" in (revision.fault or "")
    assert values(session, "t30") == [19.875] * 4

    revisions.work_off_revisions(session, load_settings(revision_backups="off"), LATER)
    session.expire_all()
    assert (revision.state, revision.fault, revision.backup) == ("done", None, None)
    assert values(session, "t30") == [18.375] * 4


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ((), "Say why with --reason, or look first with --dry-run."),
        (("--reason", "  "), "Say why with --reason"),
        (("--reason", "x" * 501), "A reason has 1 to 500 characters"),
        (("--reason", "one\ntwo"), "in one line"),
        (("--check", "--dry-run"), "--check looks at everything; leave out the other options."),
        (("--dry-run", "--site", "nix"), "There are no values of nix; look at `fleet site list`."),
        (("--dry-run", "--from", "yesterday"), "'yesterday' is no time"),
        (
            ("--dry-run", "--from", "2026-07-02T00:00:00Z", "--to", "2026-07-01T00:00:00Z"),
            "--to must be later than --from.",
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    session: Session, fleet: Answering, typed: tuple[str, ...], sentence: str
) -> None:
    status, _, err = fleet("recompute", *typed)
    assert status in (1, 2)
    assert is_one_sentence(err, sentence), err
