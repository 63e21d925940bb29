"""`fleet node state`, `fleet node register` and `fleet alert` as an operator types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from databases import SqliteDatabases
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import alerting, scheduling
from fleet_server.services.ingest import store_batch


class Answer(NamedTuple):
    status: int
    out: str
    err: str


Fleet = Callable[..., Answer]


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setattr(clock, "now", lambda: NOON + timedelta(hours=4))
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            deployed_node(opened)
            store_batch(opened, [SimulatedNode().state()], now=NOON)
            yield opened
        engine.dispose()


@pytest.fixture
def fleet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Fleet:
    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["fleet", *arguments, "--data", str(tmp_path)])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr()
        return Answer(int(ended.value.code or 0), told.out, told.err)

    return run


def test_state_is_changed_or_refused_with_what_would_be_allowed(
    session: Session, fleet: Fleet
) -> None:
    done = fleet("node", "state", "n-000001", "maintenance", "--reason", "new probe")
    assert done == (0, "n-000001 (n-000001) was deployed and is maintenance now.\n", "")
    refused = fleet("node", "state", "n-000001", "retired", "--reason", "old")
    assert refused.status == 1
    assert "cannot become retired. It can become: deployed" in refused.err
    assert fleet("node", "state", "n-000001", "lost").status == 2  # why?
    assert fleet("node", "state", "n-000001", "gone").status == 2


def test_list_is_previewed_and_registered(session: Session, fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("label,model\ntree-07,tree-3\ntree-08,tree-99\n", encoding="utf-8")
    wrong = fleet("node", "register", "--csv", str(file))
    assert wrong.status == 1
    assert wrong.out.splitlines()[0].startswith("row 3: 'tree-99' is not a node model")
    file.write_text("label,model\ntree-07,tree-3\n", encoding="utf-8")
    preview = fleet("node", "register", "--csv", str(file), "--dry-run", "--json")
    assert json.loads(preview.out)["applied"] is False
    assert fleet("node", "register", "--csv", str(file)).out == "Registered 1 nodes.\n"
    again = fleet("node", "register", "tree-07", "--model", "tree-3")
    assert (again.status, "registered already" in again.err) == (1, True)
    assert fleet("node", "register").status == 2
    missing = fleet("node", "register", "--csv", str(tmp_path / "none.csv"))
    assert (missing.status, "Traceback" in missing.err) == (1, False)
    file.write_bytes(b"label,model\n\xff,x\n")
    assert fleet("node", "register", "--csv", str(file)).status == 2


def test_alerts_are_listed_taken_up_and_silenced(session: Session, fleet: Fleet) -> None:
    assert fleet("alert", "list").out == "Nothing calls for help.\n"
    alerting.look(session, now=NOON + timedelta(hours=4), wall_now=NOON)
    (one,) = json.loads(fleet("alert", "list", "--node", "n-000001", "--json").out)["alerts"]
    assert (one["kind"], one["severity"], one["acknowledged_by"]) == ("offline", "warning", None)
    taken = fleet("alert", "ack", str(one["id"]), "--note", "on my way")
    assert taken.out.endswith(f"looks after alert {one['id']}.\n")
    assert "looks after it" in fleet("alert", "list").out
    assert fleet("alert", "ack", "999").status == 1
    window = ("alert", "silence", "node", "n-000001", "--hours", "2", "--reason", "new probe")
    assert "until 2026-07-01T18:00:00Z" in fleet(*window).out
    assert fleet("alert", "silence", "site", "x", "--hours", "2", "--reason", "r").status == 1


def test_backup_is_noted_when_it_was_made_and_when_it_could_not_be(
    session: Session, fleet: Fleet, tmp_path: Path
) -> None:
    def noted() -> tuple[bool, str | None]:
        (job,) = [one for one in scheduling.jobs(session) if one.name == scheduling.BACKUP]
        session.rollback()
        return job.ran_at is not None, job.error

    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    assert fleet("db", "backup", str(in_the_way / "below")).status == 1
    ran, error = noted()
    assert (ran, error is not None and "cannot be written" in error) == (False, True)
    session.expunge_all()
    assert fleet("db", "backup", str(tmp_path / "backups")).status == 0
    assert noted() == (True, None)
