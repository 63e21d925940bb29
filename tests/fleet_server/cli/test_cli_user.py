"""`fleet user` beyond accounts: keys, resets, sessions, second factors."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.cli.user import user
from fleet_server.errors import NotFound
from fleet_server.models import Role
from fleet_server.services import accounts, auditing, keys, logins, second_factor
from fleet_server.services.keys import BeyondOwner

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    engine = db.make_engine(f"sqlite:///{folder / 'fleet.sqlite3'}")
    db.upgrade(engine)
    with db.session_factory(engine)() as session:
        accounts.create_user(session, "root", None, now=datetime.now(UTC))
        accounts.create_user(session, "anna", None, now=datetime.now(UTC), roles=[Role.AUDITOR])
    engine.dispose()
    return folder


@pytest.fixture
def run(data_dir: Path) -> Run:
    def runner(*arguments: str) -> Result:
        return CliRunner().invoke(user, [*arguments, "--data", str(data_dir)])

    return runner


def test_key_is_made_listed_and_revoked(run: Run, data_dir: Path) -> None:
    options = ("--role", "auditor", "--days", "90", "--note", "weekly report")
    made = json.loads(run("key", "add", "anna", *options, "--json").stdout)
    assert made["secret"].startswith("sk_")
    assert (made["owner"], made["scope"], made["last_used_at"]) == ("anna", "all", None)
    listed = run("key", "list", "anna").stdout
    assert f"{made['id']}: weekly report; auditor for all; until" in listed
    assert made["secret"] not in listed
    assert f"Revoked key {made['id']} of anna." in run("key", "revoke", str(made["id"])).stdout
    assert json.loads(run("key", "list", "anna", "--json").stdout)["keys"][0]["revoked_at"]
    with _session(data_dir) as session:
        newest = auditing.newest_entries(session, limit=1)[0]
        assert newest.actor.startswith("console ")
        assert newest.action == "key_revoked"
        with pytest.raises(keys.KeyRefused):
            keys.find_key(session, made["secret"], now=datetime.now(UTC))


def _session(data_dir: Path) -> Session:
    return db.session_factory(db.make_engine(f"sqlite:///{data_dir / 'fleet.sqlite3'}"))()


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ("key add anna --role operator --days 9 --note x", BeyondOwner),
        ("key add nobody --role operator --days 9 --note x", NotFound),
        ("key revoke 999", NotFound),
        ("reset nobody", NotFound),
        ("log-out nobody", NotFound),
        ("no-second-factor anna", NotFound),
    ],
)
def test_what_cannot_be_done_is_told_in_one_sentence(
    run: Run, arguments: str, kind: type[Exception]
) -> None:
    assert isinstance(run(*arguments.split()).exception, kind)


@pytest.mark.parametrize("days", ["0", "367", "x"])
def test_key_for_longer_than_a_year_is_used_wrongly(run: Run, days: str) -> None:
    done = run("key", "add", "anna", "--role", "auditor", "--days", days, "--note", "x")
    assert done.exit_code == 2


def test_reset_gives_a_link_whose_code_sets_a_password(run: Run, data_dir: Path) -> None:
    made = json.loads(run("reset", "anna", "--json").stdout)
    assert made["link"] == f"http://127.0.0.1:8080/reset#{made['code']}"
    with _session(data_dir) as session:
        done = accounts.finish_reset(
            session, made["code"], "three words of mine", now=datetime.now(UTC)
        )
        assert done.name == "anna"


def test_somebody_is_logged_out_and_loses_a_second_factor(run: Run, data_dir: Path) -> None:
    now = datetime.now(UTC)
    with _session(data_dir) as session:
        anna = accounts.account_named(session, "anna")
        secret = logins.begin(session, anna.id, browser="?", now=now)
        second_factor.begin(session, anna, secret_key="k" * 32, now=now)
    assert "Ended 1 sessions of anna." in run("log-out", "anna").stdout
    assert "without a second factor" in run("no-second-factor", "anna").stdout
    with _session(data_dir) as session:
        assert logins.find(session, secret) is None
