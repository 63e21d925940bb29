"""What a person can type wrongly, command by command: exit 2 and one sentence; exit 1 when it was typed well and did not work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from databases import SqliteDatabases
from typed_commands import (
    Typed,
    is_one_sentence,
    make_files_that_are_none,
    tuning_undone,
    typing,
)

from fleet_server.cli.main import main
from fleet_server.services import authority

_BROKER_FORM = "broker_url must be embedded, mqtts://host:port or mqtt://host:port."
_DATABASE_FORM = "database_url must begin with sqlite:/// or postgresql+psycopg://."
_BROKER_PORT = "broker_url has a port that is not a number from 1 to 65535."
_DATABASE_PORT = "database_url has a port that is not a number from 1 to 65535."
_NO_MACHINE = "is no name or address of a machine, like broker.example.org or 10.0.0.7."
_DEMO = "demo --data made --port 0"

# What was typed, the exit code, what the sentence says. `data` is a server's folder, `made` one that must not come about.
WRONG = (
    (f"{_DEMO} --scene nothing", 2, "is a TOML file or one of bochum_summer"),
    (f"{_DEMO} --scene garbage", 2, "garbage is not valid TOML: Invalid statement (at line 1, column 1)."),
    (f"{_DEMO} --scene noise", 2, "The scene noise is not a text in UTF-8."),
    (f"{_DEMO} --scene empty", 2, "is a TOML file or one of bochum_summer"),
    (f"{_DEMO} --scene half.toml", 2, "half.toml: the key title is missing."),
    (f"{_DEMO} --scene real", 2, "needs the folder of its measured files (--series DIR)."),
    (f"{_DEMO} --series nothing", 2, "Directory 'nothing' does not exist."),
    (f"{_DEMO} --series garbage", 2, "Directory 'garbage' is a file."),
    (f"{_DEMO} --series empty", 2, "is not in empty."),
    (f"{_DEMO} --broker-url nonsense", 2, _BROKER_FORM),
    (f"{_DEMO} --broker-url ''", 2, _BROKER_FORM),
    (f"{_DEMO} --broker-url https://broker.example.org", 2, _BROKER_FORM),
    (f"{_DEMO} --broker-url mqtts://", 2, _BROKER_FORM),
    (f"{_DEMO} --broker-url mqtts://127.0.0.1:abc", 2, _BROKER_PORT),
    (f"{_DEMO} --broker-url mqtts://127.0.0.1:65536", 2, _BROKER_PORT),
    (f"{_DEMO} --broker-url mqtts://127.0.0.1:9?service_port=x", 2, _BROKER_PORT),
    (f"{_DEMO} --broker-url mqtts://127.0.0.1:9?service_port=-1", 2, _BROKER_PORT),
    (f"{_DEMO} --broker-url mqtts://127.0.0.1:9?service_port=9", 2, "nodes and services different ports."),
    (f"{_DEMO} --broker-url mqtts://[::1", 2, "broker_url is no address (Invalid IPv6 URL)."),
    (f"{_DEMO} --broker-url mqtt://broker.example.org", 2, "unless the broker is on this machine."),
    (f"{_DEMO} --database-url nonsense", 2, _DATABASE_FORM),
    (f"{_DEMO} --database-url ''", 2, _DATABASE_FORM),
    (f"{_DEMO} --database-url mysql://host/fleet", 2, _DATABASE_FORM),
    (f"{_DEMO} --database-url sqlite:///", 2, "must name a file, as in sqlite:///fleet.sqlite3."),
    (f"{_DEMO} --database-url postgresql+psycopg://host:abc/fleet", 2, _DATABASE_PORT),
    (f"{_DEMO} --database-url postgresql+psycopg://a:b@host:0/fleet", 2, _DATABASE_PORT),
    (f"{_DEMO} --speed nan", 2, "nan is not a number to reckon with."),
    (f"{_DEMO} --nodes 0", 2, "0 is not in the range 1<=x<=2000."),
    (f"{_DEMO} --days many", 2, "'many' is not a valid integer range."),
    (f"{_DEMO} --seed 1.5", 2, "'1.5' is not a valid integer."),
    (f"{_DEMO} surplus", 2, "Got unexpected extra argument (surplus)"),
    ("demo --data made --port 65536", 2, "65536 is not in the range 0<=x<=65535."),
    ("demo --data garbage", 2, "Directory 'garbage' is a file."),
    ("demo --data demo --port 0 --broker-url mqtts://127.0.0.1:9", 1, "says how to start one."),
    (
        "demo --data demo --port 0 --database-url postgresql+psycopg://127.0.0.1:9/fleet",
        1,
        "Connection refused",
    ),
    ("nothing", 2, "No such command 'nothing'."),
    ("db nothing", 2, "No such command 'nothing'."),
    ("db upgrade --database-url nonsense", 2, _DATABASE_FORM),
    ("db upgrade --database-url postgresql+psycopg://h:x/d", 2, _DATABASE_PORT),
    ("db upgrade --database-url postgresql+psycopg://127.0.0.1:9/d", 1, "Connection refused"),
    ("db upgrade --database-url postgresql+psycopg://127.0.0.1:9/d?nonsense=1", 2, 'option "nonsense".'),
    ("db upgrade --data garbage", 2, "Directory 'garbage' is a file."),
    ("db check --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("db check --database-url sqlite:///noise", 1, "file is not a database"),
    ("broker embedded --data data --host 192.0.2.7", 2, "use mosquitto for others."),
    ("broker embedded --data empty", 1, "make one with `fleet ca init`."),
    ("broker config --data data --node-port 8884", 2, "The listeners need different ports."),
    ("broker config --data data --host 'a b'", 2, _NO_MACHINE),
    ("broker config --data data --host ''", 2, _NO_MACHINE),
    ("broker config --data data --service-bind '0.0.0.0\nallow_anonymous true'", 2, _NO_MACHINE),
    ("broker config --data data --user nosuchuser", 2, "no user 'nosuchuser' on this machine."),
    ("broker config --data data --out garbage", 2, "Directory 'garbage' is a file."),
    ("broker config --data empty", 1, "make one with `fleet ca init`."),
    ("broker mosquitto --data data --configuration nothing", 2, "fleet broker config"),
    ("broker mosquitto --data data --configuration noise", 2, "fleet broker config"),
    ("broker mosquitto --data data --configuration doors", 2, "fleet broker config"),
    ("broker mosquitto --data data --configuration garbage", 2, "fleet broker config"),
    ("broker mosquitto --data empty", 1, "make one with `fleet ca init`."),
    ("broker resync --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("broker kick n-000001 --data data", 1, "ends revoked sessions by itself, within a second."),
    ("ca init --data made --host ''", 2, _NO_MACHINE),
    ("ca init --data made --host under_score.example.org", 2, _NO_MACHINE),
    ("ca init --data garbage", 2, "Directory 'garbage' is a file."),
    ("ca init --data made --valid-since-days -1", 2, "-1 is not in the range 0<=x<=3650."),
    ("ca issue nothing --data data", 2, "there are broker, node-listener, svc-ingest"),
    ("ca issue n-000001 --csr garbage --data data", 2, "not a certificate request in PEM format."),
    ("ca issue n-000001 --csr nothing --data data", 2, "File 'nothing' does not exist."),
    ("ca issue N! --csr garbage --data data", 2, "cannot be a node's name."),
    ("ca issue svc-ingest --data empty", 1, "make one with `fleet ca init`."),
    ("ca revoke nothing --data data", 1, "No certificate was issued for 'nothing'."),
    ("ca crl --data empty", 1, "make one with `fleet ca init`."),
    ("user add '' --password-stdin --data data", 2, "A name has 1 to 64 printable characters."),
    ("user add anna --password-stdin --data data", 2, "A password has at least 12 characters."),
    ("user passwd anna --data data", 2, "give it with --password-stdin."),
    ("user list --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("token create --uses 0 --data data", 2, "0 is not in the range 1<=x<=10000."),
    ("token create --hours 9999 --data data", 2, "9999 is not in the range 1<=x<=744."),
    ("token create --note \udcff --data data", 2, "What was typed is no text in UTF-8."),
    ("node list --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("node deploy \udcff --site x --data data", 2, "What was typed is no text in UTF-8."),
    ("serve --data garbage", 2, "Directory 'garbage' is a file."),
    ("serve --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("serve --data data --port 65536", 2, "port must be at most 65535."),
    ("serve --data data --port 8443", 2, "port and node_port must differ."),
    ("serve --data data --database-url postgresql+psycopg://h:x/d", 2, _DATABASE_PORT),
    ("ingest --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("ingest --data data --name ''", 2, "is not 1 to 32 letters, digits, - and _."),
    ("worker --data empty", 1, "or make a new one with `fleet db upgrade`."),
    ("worker --data data --name a/b", 2, "is not 1 to 32 letters, digits, - and _."),
    ("verify --data nothing", 1, "Name a data folder with --data."),
    ("verify --data garbage", 2, "Directory 'garbage' is a file."),
    ("verify --database-url nonsense", 2, _DATABASE_FORM),
    ("verify --database-url postgresql+psycopg://127.0.0.1:9/d", 1, "Connection refused"),
    ("convert", 2, "fleet convert --list names them all."),
    ("convert nothing", 2, "fleet convert --list names them all."),
    ("convert oxygen_saturation temperature_c=warm", 2, "must be a number, not warm."),
    ("convert oxygen_saturation temperature_c=400", 2, "must lie between 0 and 40, not at 400."),
    ("convert ph potential_mv=0 temperature_c=20 slope=nan", 2, "did you mean"),
    ("bench ingest --packs 1", 2, "1 is not in the range 100<=x<=1000000."),
    ("bench ingest --database-url nonsense", 2, _DATABASE_FORM),
    ("bench ingest --broker nothing", 2, "'nothing' is not one of 'embedded', 'mosquitto'."),
    ("bench board --seconds nan", 2, "nan is not a number to reckon with."),
    ("bench all --markdown --output nothing/benchmarks.md", 1, "to write benchmarks.md to."),
    ("bench all --markdown --database-url nonsense", 2, _DATABASE_FORM),
)  # fmt: skip

WRONG_SETTINGS = (
    ("FLEET_PUBLIC_URL", "http://[::1", "serve --data data", "(Invalid IPv6 URL)."),
    ("FLEET_DATA_DIR", "~nosuchuser/fleet", "serve", "names no home folder."),
    ("FLEET_CONFIG", "nothing.toml", "ingest", "(No such file or directory)."),
    ("FLEET_CONFIG", "garbage", "ingest", "(at line 1, column 1))."),
    ("FLEET_NOTHING", "1", "worker", "docs/configuration.md lists them all."),
    ("FLEET_PORT", "high", "worker", "FLEET_PORT must be a whole number, not 'high'."),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases) -> Path:
    """Where the commands are typed: a server's folder, and files that are none of what is asked for."""
    made = tmp_path_factory.mktemp("typed")
    make_files_that_are_none(made)
    (made / "doors").write_text("listener high 127.0.0.1\n")
    (made / "half.toml").write_text('id = "half"\n')
    authority.initialise(made / "data" / "ca", valid_from=datetime.now(UTC))
    with sqlite_databases.fresh() as url:
        Path(url.removeprefix("sqlite:///")).rename(made / "data" / "fleet.sqlite3")
        yield made


@pytest.fixture
def fleet(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Typed]:
    """A command as it is typed in the folder, by somebody who types nothing more."""
    monkeypatch.chdir(folder)
    with Path(os.devnull).open() as nobody, tuning_undone():
        monkeypatch.setattr(sys, "stdin", nobody)
        yield typing("fleet", main, monkeypatch, capsys)


@pytest.mark.filterwarnings("ignore:Can not control echo:UserWarning")
@pytest.mark.parametrize(("typed", "status", "sentence"), WRONG)
def test_wrong_use_is_told_in_one_sentence_and_leaves_nothing_behind(
    fleet: Typed, folder: Path, typed: str, status: int, sentence: str
) -> None:
    ended, err = fleet(typed)
    assert (ended, is_one_sentence(err, sentence)) == (status, True), err
    assert not (folder / "made").exists()
    assert list((folder / "empty").iterdir()) == []


@pytest.mark.parametrize(("name", "value", "typed", "sentence"), WRONG_SETTINGS)
def test_setting_that_cannot_be_stops_the_start(
    fleet: Typed,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    typed: str,
    sentence: str,
) -> None:
    monkeypatch.setenv(name, value)
    ended, err = fleet(typed)
    assert (ended, is_one_sentence(err, sentence)) == (2, True), err
