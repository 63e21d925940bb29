"""The authority's keys, roots that follow one another, tokens and revocation, as an operator types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from databases import SqliteDatabases
from factories import register_node

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import authority, key_files

PASSPHRASE = "korrekt pferd batterie"


class Answer(NamedTuple):
    status: int
    said: Any
    err: str


Fleet = Callable[..., Answer]


@pytest.fixture
def fleet(
    sqlite_databases: SqliteDatabases,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Fleet]:
    """Commands in a folder with an authority, and a database with one node, tree-01."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["fleet", *arguments, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        status = ended.value.code or 0
        assert isinstance(status, int)
        return Answer(status, json.loads(out) if out else None, err)

    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "secret").write_text(PASSPHRASE + "\n")
        authority.initialise(tmp_path / "ca")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            register_node(session, "n-1", label="tree-01")
        yield run
        engine.dispose()
        clock.use_clock(clock.REAL)
        key_files.unlock_with(key_files.no_passphrase)


def places(answer: Answer) -> dict[str, tuple[str | None, str | None]]:
    return {one["name"]: (one["key"], one["next_step"]) for one in answer.said["entries"]}


def test_status_says_where_each_key_is_and_what_to_do_next(fleet: Fleet) -> None:
    found = places(fleet("ca", "status"))
    assert found["root"] == (
        "in the clear",
        "fleet ca root export FILE && fleet ca root remove FILE",
    )
    assert found["issuing"] == ("in the clear", "fleet ca lock")
    assert found["broker"] == ("in the clear", None)
    assert found["revocations of nodes"] == (None, None)


def test_locked_keys_sign_only_for_who_knows_the_passphrase(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(fleet("ca", "lock", "--passphrase-file", "secret").said["keys"]) == 3
    assert places(fleet("ca", "status"))["issuing"] == ("encrypted", None)
    refused = fleet("ca", "crl")
    assert (refused.status, refused.said) == (1, None)
    assert "FLEET_CA_PASSPHRASE" in refused.err

    monkeypatch.setenv("FLEET_CA_PASSPHRASE", "another one")
    assert "does not open with this passphrase" in fleet("ca", "crl").err
    monkeypatch.delenv("FLEET_CA_PASSPHRASE")
    monkeypatch.setenv("FLEET_CA_PASSPHRASE_FILE", "secret")
    assert fleet("ca", "crl").status == 0
    assert fleet("ca", "issue", "svc-ingest").status == 0
    assert len(fleet("ca", "unlock").said["keys"]) == 3
    monkeypatch.delenv("FLEET_CA_PASSPHRASE_FILE")
    assert fleet("ca", "crl").status == 0
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "ca").rglob("*.key")} == {0o600}


def test_a_passphrase_that_protects_nothing_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("1234567\n")
    assert fleet("ca", "lock", "--passphrase-file", "short").status == 2
    assert places(fleet("ca", "status"))["issuing"][0] == "in the clear"


def test_the_roots_key_leaves_the_machine_only_after_its_copy_was_opened(
    fleet: Fleet, tmp_path: Path
) -> None:
    root_key = tmp_path / "ca" / "root.key"
    before = root_key.read_bytes()
    assert fleet("ca", "root", "export", "stick.key", "--passphrase-file", "secret").status == 0
    assert fleet("ca", "root", "export", "stick.key", "--passphrase-file", "secret").status == 1
    (tmp_path / "other").write_text("another passphrase")
    for copy, passphrase in (
        ("stick.key", "other"),
        ("ca/issuing.key", "secret"),
        ("secret", "secret"),
    ):
        refused = fleet("ca", "root", "remove", copy, "--passphrase-file", passphrase)
        assert refused.status == 1
        assert root_key.read_bytes() == before

    assert fleet("ca", "root", "remove", "stick.key", "--passphrase-file", "secret").status == 0
    assert not root_key.exists()
    assert places(fleet("ca", "status"))["root"] == ("not here", None)
    assert fleet("ca", "issue", "broker").status == 0, "nothing daily needs it"
    again = fleet("ca", "root", "remove", "stick.key", "--passphrase-file", "secret")
    assert (again.status, again.said) == (1, None)


def test_a_change_of_the_root_waits_for_the_nodes_and_says_for_which(fleet: Fleet) -> None:
    assert fleet("ca", "root", "switch").status == 1
    # It is not built yet, so nobody waits for it.
    assert fleet("node", "register", "tree-02", "--model", "tree-3").status == 0
    begun = fleet("ca", "root", "next").said
    assert (begun["next_step"], begun["nodes"], begun["followed"]) == ("switch", 1, 0)
    assert [one["label"] for one in begun["missing"]] == ["tree-01"]
    refused = fleet("ca", "root", "switch")
    assert "1 of 1 nodes do not trust the next root yet (tree-01). Wait" in refused.err

    assert fleet("ca", "root", "switch", "--force").said["next_step"] == "finish"
    assert fleet("ca", "root", "next").status == 1, "the last one is not over"
    assert fleet("ca", "root", "finish").status == 1
    assert fleet("ca", "root", "finish", "--force").said["next_step"] is None
    assert [one["state"] for one in fleet("ca", "root", "status").said["roots"]] == [
        "current",
        "dropped",
    ]


def test_a_token_is_listed_without_its_secret_and_revoked(fleet: Fleet) -> None:
    secret = fleet("token", "create", "--model", "pond-1", "--label", "pond-7").said["token"]
    listed = fleet("token", "list")
    (one,) = listed.said["tokens"]
    assert (one["standing"], one["model"], one["label"]) == ("good", "pond-1", "pond-7")
    assert secret not in json.dumps(listed.said)
    assert fleet("token", "revoke", str(one["token_id"])).status == 0
    assert fleet("token", "list").said["tokens"][0]["standing"] == "revoked"
    assert fleet("token", "revoke", "999").status == 1
    assert fleet("token", "create", "--model", "pond-99").status == 2


def test_a_node_is_revoked_with_a_reason_that_stands_in_the_audit_log(fleet: Fleet) -> None:
    assert fleet("node", "revoke", "tree-01", "--reason", " ").status == 2
    assert fleet("node", "revoke", "tree-01", "--reason", "stolen").status == 0
    (entry,) = [
        one for one in fleet("audit", "list").said["entries"] if one["action"] == "node_revoked"
    ]
    assert (entry["subject"], entry["details"]["reason"]) == ("node n-1", "stolen")
    assert fleet("node", "renew", "tree-01").status == 1


def test_a_broker_that_moves_tells_every_node_and_names_who_has_not_followed(fleet: Fleet) -> None:
    fleet("node", "register", "tree-02", "--model", "tree-3")
    looked = fleet("broker", "move", "--host", "new.example.org", "--look").said
    assert (looked["told"], looked["followed"]) == (0, 0)
    moved = fleet("broker", "move", "--host", "new.example.org").said
    assert (moved["told"], moved["followed"]) == (1, 0)
    assert [(one["label"], one["standing"]) for one in moved["waiting"]] == [("tree-01", "waiting")]
