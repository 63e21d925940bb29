"""`fleet serve` and `fleet user` as a person and the demo use them."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet_server import db
from fleet_server.cli.processes import own_program
from fleet_server.cli.user import user
from fleet_server.errors import Invalid
from fleet_server.services import authority

_PATIENCE_S = 60


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    authority.initialise(folder / "ca", valid_from=datetime.now(UTC))
    engine = db.make_engine(f"sqlite:///{folder / 'fleet.sqlite3'}")
    db.upgrade(engine)
    engine.dispose()
    return folder


def fleet(data_dir: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [own_program("fleet"), *arguments],
        input=given,
        capture_output=True,
        text=True,
        env={**os.environ, "FLEET_DATA_DIR": str(data_dir)},
        timeout=_PATIENCE_S,
    )


def test_serve_answers_on_both_listeners_and_ends_cleanly(data_dir: Path) -> None:
    command = [own_program("fleet"), "serve", "--port", "0", "--node-port", "0", "--json"]
    environment = {**os.environ, "FLEET_DATA_DIR": str(data_dir)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as serving:
        assert serving.stdout is not None
        ready = json.loads(serving.stdout.readline())
        assert ready["event"] == "ready"
        with urllib.request.urlopen(f"{ready['url']}/readyz", timeout=10) as answer:  # noqa: S310 - our own
            assert answer.status == 200
        root = authority.AuthorityFiles(data_dir / "ca").root_certificate
        trusting = ssl.create_default_context(cafile=str(root))
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(ready["node_url"], timeout=10, context=trusting)  # noqa: S310 - our own
        refused.value.close()
        serving.send_signal(signal.SIGTERM)
        _, errors = serving.communicate(timeout=20)
    assert serving.returncode == 0
    assert "Traceback" not in errors


def test_taken_port_is_told_in_one_sentence(data_dir: Path) -> None:

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = fleet(data_dir, "serve", "--port", port, "--node-port", "0")
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Traceback" not in done.stderr


def test_account_is_made_listed_and_given_a_new_password(data_dir: Path) -> None:
    def run(*arguments: str, given: str = "") -> Result:
        return CliRunner().invoke(user, [*arguments, "--data", str(data_dir)], input=given)

    made = run("add", "anna", "--password-stdin", "--json", given="a long password\n")
    assert json.loads(made.stdout)["name"] == "anna"
    again = run("add", "anna", "--password-stdin", given="a long password\n")
    assert str(again.exception) == "There is already an account 'anna'."
    short = run("passwd", "anna", "--password-stdin", given="short\n")
    assert isinstance(short.exception, Invalid)
    asked = run("passwd", "anna", given="another long one\nanother long one\n")
    assert asked.exit_code == 0
    listed = json.loads(run("list", "--json").stdout)
    assert [one["name"] for one in listed["users"]] == ["anna"]
