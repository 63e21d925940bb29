"""`fleet site`, `fleet node swap-sensor` and `replace` as they are typed, over a real database; it is noon on 1 July 2026."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, deployed_node, register_node
from sqlalchemy import select
from sqlalchemy.orm import Session
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.models import Channel, Deployment, Sensor, Site

CADASTRE = (
    "Baumnr;Baumart;Ostwert;Nordwert\n4711;Tilia cordata;376136,71;5704913,89\n4712;;;5704913,89\n"
)


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    """n-000001 stands at a site since a month; tree-21 stands nowhere."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{NOON_S}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            deployed_node(opened, "n-000001")
            register_node(opened, "n-000002", label="tree-21")
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def codes(session: Session) -> set[str]:
    session.rollback()
    return set(session.scalars(select(Site.code)))


def test_file_is_rehearsed_and_then_imported_with_a_report_by_row(
    session: Session, fleet: Answering, tmp_path: Path
) -> None:
    file = tmp_path / "bäume.csv"
    file.write_text(CADASTRE, encoding="cp1252")
    given = ["site", "import", str(file), "--crs", "EPSG:25832", "--map", "code=Baumnr", "--kind", "tree"]  # fmt: skip
    rehearsed = fleet(*given, "--dry-run")
    assert rehearsed.status == 1  # a row is wrong
    assert rehearsed.out.splitlines() == [
        "1 new, 0 changed, 0 the same, 1 wrong.",
        "Row 3: The row has half a position; give both values or none.",
        "Nothing was changed; without --dry-run it is.",
    ]
    assert "4711" not in codes(session)
    done = json.loads(fleet(*given, "--json").out)
    assert (done["new"], done["crs"], done["columns"]["code"]) == (1, "EPSG:25832", "Baumnr")
    assert "4711" in codes(session)
    file.write_text("\n".join(CADASTRE.splitlines()[:2]), encoding="utf-8-sig")
    again = fleet(*given)
    assert (again.status, again.out) == (0, "0 new, 0 changed, 1 the same, 0 wrong.\n")
    kept = list((tmp_path / "data" / "files" / "imports").iterdir())
    assert len(kept) == 2  # each file that was imported, by its hash


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["import", "nowhere.csv"], 2, "does not exist"),
        (["import", "{file}", "--crs", "EPSG:31467"], 2, "no coordinate system"),
        (["import", "{file}", "--map", "colour=Baumart"], 2, "a field is one of code"),
        (["import", "{file}", "--map", "code=Nr"], 2, "no column 'Nr'"),
        (["edit", "nowhere", "--name", "x"], 1, "There is no site nowhere"),
        (["edit", "n-000001-site"], 2, "Say what is to be changed"),
        (["edit", "n-000001-site", "--x", "7.2"], 2, "give --x and --y"),
        (["edit", "n-000001-site", "--x", "51.4", "--y", "7.2"], 2, "look swapped"),
        (["close", "n-000001-site"], 1, "take it down first"),
        (["close", "nowhere"], 1, "There is no site nowhere"),
    ],
)
def test_wrong_use_is_one_sentence(
    session: Session, fleet: Answering, tmp_path: Path, arguments: list[str], status: int, sentence: str
) -> None:  # fmt: skip
    file = tmp_path / "a.csv"
    file.write_text(CADASTRE)
    answer = fleet("site", *(word.replace("{file}", str(file)) for word in arguments))
    assert answer.status == status
    assert is_one_sentence(answer.err, sentence)


def test_site_is_changed_closed_listed_and_opened_again(session: Session, fleet: Answering) -> None:
    place = ["--kind", "tree", "--latitude", "51.49", "--longitude", "7.22"]
    fleet("node", "add-site", "linde", "--name", "Linde", *place)
    where = ["--x", "376136.71", "--y", "5704913.89", "--crs", "25832"]
    edited = fleet("site", "edit", "linde", "--species", "Tilia", "--planted-year", "1950", *where, "--json")  # fmt: skip
    told = json.loads(edited.out)
    assert (told["species"], told["planted_year"], told["name"]) == ("Tilia", 1950, "Linde")
    assert round(told["latitude"], 5) == 51.4818
    assert fleet("site", "close", "linde") == (0, "Site linde is closed.\n", "")
    assert fleet("site", "list", "--find", "tilia").out == "linde  tree  Linde  (closed)\n"
    assert fleet("site", "list", "--state", "bare").out == "There is no such site.\n"
    assert fleet("site", "reopen", "linde") == (0, "Site linde is open.\n", "")


def test_probe_is_swapped_and_node_replaced_by_command(session: Session, fleet: Answering) -> None:
    at = "2026-07-01T11:00:00Z"
    swapped = fleet("node", "swap-sensor", "n-000001", "w30", "--serial", "W-9", "--at", at)
    assert swapped == (0, f"Sensor W-9 is in slot w30 of n-000001 (n-000001) since {at}.\n", "")
    future = fleet("node", "replace", "n-000001", "tree-21", "--at", "2026-07-02T00:00:00Z")
    assert (future.status, "lies in the future" in future.err) == (2, True)
    replaced = fleet("node", "replace", "n-000001", "tree-21", "--json")
    assert json.loads(replaced.out)["new_node_id"] == "n-000002"
    session.rollback()
    standing = session.scalars(select(Deployment).where(Deployment.to_at.is_(None))).one()
    assert (standing.node_id, standing.from_at) == ("n-000002", NOON)
    serials = select(Sensor.serial).join(Channel, Channel.sensor_id == Sensor.id)
    assert "W-9" in session.scalars(serials.where(Channel.deployment_id == standing.id)).all()


def test_depth_is_given_with_the_deployment(session: Session, fleet: Answering) -> None:
    fleet("node", "end-deployment", "n-000001", "--to", "2026-07-01T10:00:00Z")
    given = ["node", "deploy", "tree-21", "--site", "n-000001-site"]
    wrong = fleet(*given, "--depth", "w30=deep")
    assert (wrong.status, "is not SLOT=CM" in wrong.err) == (2, True)
    assert fleet(*given, "--depth", "w30=25").status == 0
    session.rollback()
    key = select(Channel.depth_cm).where(Channel.key == "r30", Channel.from_at > NOON - timedelta(hours=1))  # fmt: skip
    assert session.scalars(key).one() == 25
