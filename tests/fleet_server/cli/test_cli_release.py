"""`fleet release` as whoever runs the server types it."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from databases import SqliteDatabases
from sqlalchemy import update
from sqlalchemy.orm import Session
from typed_commands import Answering, answering

from fleet_server import db
from fleet_server.cli.main import main
from fleet_server.jobs.releases import keep_metadata_fresh
from fleet_server.models import NodeStatus
from fleet_server.services import key_files, online_keys, releases, releasing
from fleet_server.services.backups import back_up
from fleet_server.services.file_store import open_store
from fleet_server.services.releasing import Published
from fleet_server.settings import load_settings
from provisioning.release_keys import card_from
from tests.releases import Desk, small_sources

from factories import deployed_node  # isort: skip

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Session]:
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            yield opened
        engine.dispose()


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", "release", main=main, monkeypatch=monkeypatch, capsys=capsys)


def _desk(told: dict[str, object], path: Path) -> Desk:
    made = Desk(
        path / "releases",
        now=NOW,
        online={role: card_from(card, what=role) for role, card in told.items()},
    )
    made.release("0.7.0", 7, sources=small_sources(path / "sources"))
    return made


def _publish(session: Session, desk: Desk) -> None:
    settings = load_settings()
    store = open_store(settings.files_url)
    for path in (desk.folder.path / "targets" / "files").iterdir():
        releasing.keep_file(store, path.name, path.read_bytes())
    documents = {
        f"{path.parent.name}/{path.name.partition('.')[2]}": path.read_bytes()
        for path in (desk.folder.path / "targets" / "tree-3").iterdir()
    }
    given = Published(
        desk.folder.roots(), desk.folder.newest("targets"), desk.folder.roles(), documents
    )
    releasing.publish(
        session, given, store=lambda: store, keys_dir=settings.release_keys_dir, now=NOW
    )


def test_from_the_servers_keys_to_the_nodes_that_run_a_part(
    session: Session, fleet: Answering, tmp_path: Path
) -> None:
    assert "There are no releases" in fleet("status").out
    keys = json.loads(fleet("keys", "--json").out)
    assert json.loads(fleet("keys", "--json").out) == keys
    assert stat.S_IMODE((tmp_path / "data/release_keys/snapshot.key").stat().st_mode) == 0o600
    desk = _desk(keys, tmp_path)
    root = desk.folder.path / "metadata/1.root.json"
    assert fleet("trust", str(root)).out == "Root 1 is trusted.\n"
    _publish(session, desk)
    (one,) = json.loads(fleet("list", "--json").out)["releases"]
    assert (one["model"], one["version"], one["counter"], one["nodes"]) == ("tree-3", "0.7.0", 7, 0)
    assert "signed by root-1, root-2" in fleet("status").out
    assert fleet("nodes", "--component", "micropython").out == "No node runs such a version.\n"
    node = deployed_node(session)
    release = releases.release_of(session, "tree-3", "0.7.0")
    with db.writing(session):
        session.execute(
            update(NodeStatus)
            .where(NodeStatus.node_id == node.node_id)
            .values(model="tree-3", version=release.version, bundle_sha256=release.bundle_sha256)
        )
    told = fleet("nodes", "--component", "micropython", "--versions", "<1.28", "--json")
    assert [found["node_id"] for found in json.loads(told.out)["nodes"]] == [node.node_id]
    _backed_up(session, tmp_path)
    _renewed(session)


def _backed_up(session: Session, path: Path) -> None:
    """Keys, metadata and files are in a backup."""
    engine = session.get_bind()
    backup = back_up(engine, path / "data", path / "backups", now=NOW)  # type: ignore[arg-type] # an engine
    assert {"release_keys/snapshot.key", "release_keys/timestamp.key"} <= set(backup.files)
    assert [name for name in backup.files if name.startswith("files/releases/")]


def _renewed(session: Session) -> None:
    """By what the worker does."""
    settings = load_settings()
    keep_metadata_fresh(session, settings, NOW + timedelta(days=2))
    before = (settings.release_keys_dir / "timestamp.key").rename(settings.data_dir / "away")
    with pytest.raises(online_keys.OnlineKeysMissing):
        keep_metadata_fresh(session, settings, NOW + timedelta(days=4))
    before.rename(settings.release_keys_dir / "timestamp.key")


def test_keys_are_locked_where_a_passphrase_is_known(
    session: Session, fleet: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_CA_PASSPHRASE", "four random words here")
    keys = json.loads(fleet("keys", "--json").out)
    assert b"ENCRYPTED" in (tmp_path / "data/release_keys/timestamp.key").read_bytes()
    assert set(keys) == {"snapshot", "timestamp"}
    monkeypatch.setenv("FLEET_CA_PASSPHRASE", "")
    locked = fleet("keys")
    assert (locked.status, "is encrypted: give its passphrase" in locked.err) == (1, True)
    key_files.unlock_with(key_files.no_passphrase)


def test_what_is_typed_wrongly_is_one_sentence(
    session: Session, fleet: Answering, tmp_path: Path
) -> None:
    (tmp_path / "garbage").write_text("\0garbage = [[[")
    for arguments, status, said in (
        (("trust", "nowhere.json"), 2, "nowhere.json cannot be read"),
        (("trust", str(tmp_path / "garbage")), 1, "is no TUF metadata"),
        (("nodes", "--versions", ">>1"), 2, "is no range of versions"),
        (("list", "--model", "no-such"), 0, ""),
    ):
        ended = fleet(*arguments)
        assert ended.status == status, arguments
        assert said in ended.err
        assert len(ended.err.splitlines()) == (1 if said else 0)
