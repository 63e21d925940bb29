"""`fleet node configure`, `command` and `show` as an operator types them, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, SimulatedNode, register_node
from sqlalchemy.orm import Session
from typed_commands import Answering, answering

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import publishing
from fleet_server.services.ingest import store_batch
from fleet_server.settings import load_settings

NODE = "n-000001"


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    """pond-01, never heard."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{NOON_S}@0x0")
        monkeypatch.chdir(tmp_path)
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            register_node(opened, NODE, label="pond-01", model="pond-1")
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", "node", main=main, monkeypatch=monkeypatch, capsys=capsys)


def shown(fleet: Answering) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fleet("show", "pond-01", "--json").out)
    return found


def test_settings_are_wanted_shown_and_taken_back(session: Session, fleet: Answering) -> None:
    done = fleet("configure", "pond-01", "publish_s=1800", 'limits=[["do", "below", 4, 4.5]]')
    assert done == (
        0,
        f"pond-01 ({NODE}) shall run configuration 2; it hears of it when it connects.\n",
        "",
    )
    assert shown(fleet)["configuration"] == {
        "version": 2,
        "settings": {"sample_s": 900, "publish_s": 1800, "limits": [["do", "below", 4, 4.5]]},
        "running_version": None,
        "origins": {
            "sample_s": "model pond-1, provisioned",
            "publish_s": f"node {NODE}",
            "limits": f"node {NODE}",
        },
        "standing": "waiting",
        "reason": None,
        "held_back": None,
    }
    assert fleet("configure", NODE, "limits=", "--json").status == 0
    assert "limits" not in shown(fleet)["configuration"]["settings"]


def test_networks_come_from_the_technicians_file_and_no_password_is_shown(
    session: Session, fleet: Answering
) -> None:
    Path("wifi.toml").write_text('[[network]]\nssid = "stadt"\npassword = "geheimnis"\n')
    done = fleet("configure", "pond-01", "--wifi-file", "wifi.toml", "--json")
    assert json.loads(done.out)["settings"]["wifi"] == ["stadt"]
    assert "geheimnis" not in done.out + fleet("show", "pond-01").out
    key = load_settings().session_key
    told = publishing.desired_states(session, [NODE], now=NOON, secret_key=key)[NODE]
    assert told.config_values["wifi"] == [["stadt", "geheimnis"]]


def test_a_command_and_its_answer_are_shown(session: Session, fleet: Answering) -> None:
    done = fleet("command", "pond-01", "resend", "from=1", "to=7", "--hours", "1", "--json")
    number = json.loads(done.out)["id"]
    assert "resend: pending, until 2026-07-01T13:00:00Z" in fleet("show", "pond-01").out
    details = {"id": number, "name": "resend", "result": "done", "from": 3, "to": 7}
    store_batch(session, [SimulatedNode(NODE).event(8, "answer", details)], now=NOON)
    assert "resend: done (from=3, to=7)" in fleet("show", "pond-01").out
    (command,) = shown(fleet)["commands"]
    assert (command["state"], command["result"]) == ("answered", "done")
    assert command["details"] == {"from": 3, "to": 7}
    assert command["arguments"] == {"from": 1, "to": 7}


WRONG = (
    ("configure pond-01", 2, "Name a setting, like publish_s=1800."),
    ("configure pond-01 publish_s", 2, "'publish_s' is not NAME=VALUE, like publish_s=1800."),
    ("configure pond-01 =5", 2, "is not NAME=VALUE"),
    ("configure pond-01 sample_s=60 sample_s=61", 2, "sample_s is given twice."),
    ("configure pond-01 sample_s=NaN", 2, "must be a whole number from 60 to 86400 seconds."),
    ("configure pond-01 publish_s=600", 2, "publish_s must be at least sample_s."),
    ("configure pond-01 limits=[[", 2, "limits must be a list of at most 16"),
    ('configure pond-01 limits=[["r30","below",4,5]]', 2, "there is no channel r30;"),
    ('configure pond-01 wifi=[["stadt","geheimnis"]]', 2, "Give networks with --wifi-file"),
    ("configure pond-01 --wifi-file nothing", 2, "cannot be read: No such file or directory."),
    ("configure pond-01 --wifi-file garbage", 2, "garbage must hold [[network]] tables"),
    ("configure pond-02 publish_s=1800", 1, "There is no node pond-02;"),
    ("command pond-01 dance", 2, "dance is no command of a node; there are resend"),
    ("command pond-01 resend", 2, "resend needs from=…"),
    ("command pond-01 factory_reset", 2, f"confirm it with confirm={NODE}."),
    ("command pond-01 reboot --hours nan", 2, "nan is not a number to reckon with."),
    ("command pond-01 reboot --hours 169", 2, "169.0 is not in the range"),
    ("show pond-02", 1, "There is no node pond-02;"),
)


@pytest.mark.parametrize(("typed", "status", "says"), WRONG)
def test_what_cannot_be_is_told_in_one_sentence_and_changes_nothing(
    session: Session, fleet: Answering, typed: str, status: int, says: str
) -> None:
    Path("garbage").write_text("password = geheimnis [[[")
    ended = fleet(*typed.split())
    assert (ended.status, ended.out) == (status, "")
    assert says in ended.err.strip().splitlines()[-1]
    assert "Traceback" not in ended.err
    assert "geheimnis" not in ended.err
    assert shown(fleet)["configuration"]["version"] == 1
    assert shown(fleet)["commands"] == []
