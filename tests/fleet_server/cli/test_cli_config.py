"""`fleet config`, `fleet group` and orders to many as an operator types them, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, SimulatedNode, register_node
from sqlalchemy.orm import Session
from typed_commands import Answer, Answering, answering

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import staging
from fleet_server.services.ingest import store_batch
from tests.fleet_server.services.fleet_of_nodes import connect


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    """tree-01 to tree-03 and pond-04, never heard."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{NOON_S}@0x0")
        monkeypatch.chdir(tmp_path)
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            for number in (1, 2, 3):
                register_node(opened, f"n-{number:06x}", label=f"tree-0{number}")
            register_node(opened, "n-000004", label="pond-04", model="pond-1")
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def told(answer: Answer) -> Any:
    assert answer.status == 0, answer.err
    return json.loads(answer.out)


def test_a_group_gets_a_setting_in_waves_and_gives_it_back(
    session: Session, fleet: Answering
) -> None:
    made = told(fleet("group", "add", "Innenstadt", "--site-kind", "tree", "--json"))
    assert made == {"id": 1, "name": "Innenstadt", "members": 3}
    typed = ("config", "set", "--group", "Innenstadt", "sample_s=300", "--canaries", "1")
    dry = fleet(*typed, "--waves", "100", "--dry-run")
    assert dry.out.splitlines()[:2] == [
        "3 nodes change, 0 already have it, 0 are told something else by a later layer, 0 cannot.",
        "Nodes in each wave: 1, 2. Nothing was changed.",
    ]
    assert "n-000002  tree-02 (tree-3): changes" in dry.out
    assert fleet("config", "changes").out == "There was no change yet.\n"

    done = fleet(*typed, "--waves", "100", "--soak-hours", "0")
    assert done.out == (
        "Change 1 of group Innenstadt: sample_s=300. It is running, wave 1 of 2: 3 nodes, 1 told, 0 reached,"
        " 0 in force, 0 failed; 0 cannot.\n"
    )
    (first,) = [
        one["node_id"] for one in told(fleet("config", "change", "1", "--json"))["nodes"] if one["told_at"]
    ]  # fmt: skip
    shown = fleet("node", "show", first).out
    assert "sample_s=300  (from group Innenstadt)" in shown
    assert "publish_s=3600  (from model tree-3, provisioned)" in shown
    connect(session, [first], NOON)
    staging.advance_all(session, now=NOON)
    assert "wave 2: 2 nodes, 2 told, 0 reached" in fleet("config", "change", "1").out
    assert fleet("config", "show").out == "group Innenstadt: sample_s=300\n"
    drift = told(fleet("config", "drift", "--group", "Innenstadt", "--json"))
    assert (drift["counts"]["waiting"], len(drift["nodes"])) == (2, 2)

    assert "It is rolling back" in fleet("config", "roll-back", "1", "--reason", "too much").out
    staging.advance_all(session, now=NOON)
    assert told(fleet("config", "changes", "--json"))["changes"][0]["state"] == "rolled_back"
    assert "sample_s=900  (from model tree-3, provisioned)" in fleet("node", "show", first).out


def test_a_command_to_many_is_rehearsed_ordered_listed_and_taken_back(
    session: Session, fleet: Answering
) -> None:
    everybody = ("node", "order", "reboot", "--all")
    assert fleet(*everybody, "--dry-run").out == (
        "4 nodes would be told reboot; 0 have too many commands waiting.\n"
    )
    refused = fleet(*everybody, "--confirm-nodes", "3")
    assert (refused.status, refused.err) == (
        1,
        "fleet: reboot would be told to 4 nodes; confirm that number.\n",
    )
    ordered = told(fleet(*everybody, "--confirm-nodes", "4", "--json"))
    assert (ordered["told"], ordered["busy"]) == (4, 0)
    batch = ("node", "commands", "--batch", ordered["batch"], "--json")
    listed = told(fleet(*batch))["commands"]
    assert {one["state"] for one in listed} == {"pending"}
    answered, canceled = (
        next(one["id"] for one in listed if one["node_id"] == node) for node in ("n-000001", "n-000002")
    )  # fmt: skip
    details = {"id": answered, "name": "reboot", "result": "done"}
    store_batch(session, [SimulatedNode("n-000001").event(1, "answer", details)], now=NOON)
    assert fleet("node", "cancel", str(canceled)).status == 0
    states = sorted(one["state"] for one in told(fleet(*batch))["commands"])
    assert states == ["answered", "canceled", "pending", "pending"]
    again = fleet("node", "cancel", str(canceled))
    assert (again.status, again.err) == (
        1,
        f"fleet: Command {canceled} is canceled; only a pending one can be taken back.\n",
    )
    found = told(fleet("node", "commands", "--state", "answered", "--json"))
    assert [one["id"] for one in found["commands"]] == [answered]


def test_schema_of_a_model_is_shown(session: Session, fleet: Answering) -> None:
    schema = told(fleet("node", "schema", "pond-1", "--json"))
    assert schema["properties"]["sample_s"] == {
        "type": "integer",
        "minimum": 60,
        "maximum": 86_400,
        "description": "seconds",
    }


WRONG = (
    ("config set sample_s=300", 2, "Say whose settings: --fleet, --model MODEL or --group GROUP."),
    ("config set --fleet --model tree-3 sample_s=300", 2, "Say whose settings"),
    ("config set --fleet", 2, "Name a setting, like publish_s=1800."),
    ("config set --fleet colour=1", 2, "colour is no setting of a node; there are every_s"),
    ("config set --fleet sample_s=7200", 2, "publish_s must be at least sample_s."),
    ("config set --fleet sample_s=300 --waves 50,5", 2, "Shares of the waves rise and end with"),
    ("config set --fleet sample_s=300 --waves x", 2, "'x' is no list of percent, like 5,25,100."),
    ("config set --model tree-9 sample_s=300", 1, "There is no node model tree-9; there are"),
    ("config set --group nobody sample_s=300", 1, "There is no group nobody."),
    ('config set --fleet wifi=[["a","geheimnis"]]', 2, "Give networks with --wifi-file"),
    ("config pause 7", 1, "There is no change 7."),
    ("config drift --reason bored", 2, "'bored' is not one of"),
    ("group add 17", 2, "A group's name is no number"),
    ("group add east --near 1,2", 2, "near wants latitude, longitude (WGS84 degrees)"),
    ("group join nobody --node tree-01", 1, "There is no group nobody."),
    ("group tag two_words --node tree-09", 1, "There is no node tree-09;"),
    ("group tag x", 2, "Say which nodes: by name, model, site kind, tag or place."),
    ("node order self_test", 2, "Say which nodes, or --all."),
    ("node order dance --all", 2, "dance is no command of a node; there are resend"),
    ("node order factory_reset --all", 2, "factory_reset is ordered node by node."),
    ("node cancel 5", 1, "There is no command 5."),
    ("node schema tree-9", 1, "There is no node model tree-9; there are"),
)


@pytest.mark.parametrize(("typed", "status", "says"), WRONG)
def test_what_cannot_be_is_told_in_one_sentence_and_changes_nothing(
    session: Session, fleet: Answering, typed: str, status: int, says: str
) -> None:
    ended = fleet(*typed.split())
    assert (ended.status, ended.out) == (status, "")
    assert says in ended.err.strip().splitlines()[-1]
    assert "Traceback" not in ended.err
    assert "geheimnis" not in ended.err
    assert told(fleet("config", "show", "--json"))["layers"] == []
    assert told(fleet("config", "changes", "--json"))["changes"] == []
    assert told(fleet("group", "list", "--json"))["groups"] == []
