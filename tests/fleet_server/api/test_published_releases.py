"""Releases from the author's desk through `provision release publish` to what nodes fetch, over real HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import SqliteDatabases
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.app import create_app, create_node_app
from fleet_server.cli.serve import listen, url_of
from fleet_server.models import Role, Scope
from fleet_server.services import accounts, keys, online_keys, release_repository
from fleet_server.settings import Settings, load_settings
from fleet_server.wire.manifest import decode_manifest
from hardware.virtual_board.esp_image import micropython
from provisioning.main import main
from provisioning.release_keys import card_from
from tests.fleet_server.small_world import PASSWORD
from tests.releases import Desk, small_sources

NOW = datetime.now(UTC).replace(microsecond=0)
Ended = tuple[int, str, str]


@pytest.fixture
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """What the services do is tried on both databases; this is about the way there."""
    with sqlite_databases.fresh() as url:
        engine = db.make_engine(url)
        yield db.session_factory(engine)
        engine.dispose()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = load_settings({}, data_dir=tmp_path / "data")
    online_keys.make_keys(made.release_keys_dir)
    return made


@pytest.fixture
def desk(settings: Settings, session: Session, tmp_path: Path) -> Desk:
    cards = online_keys.cards(settings.release_keys_dir)
    made = Desk(
        tmp_path / "releases",
        now=NOW,
        online={role: card_from(card, what=role) for role, card in cards.items()},
    )
    made.release("0.7.0", 7, sources=small_sources(tmp_path / "sources"))
    root = made.folder.metadata("root", 1)
    release_repository.trust_root(session, root, settings.release_keys_dir, now=clock.now())
    return made


@pytest.fixture
def author_key(session: Session) -> str:
    """An API key of a release author."""
    person = accounts.create_user(
        session, "anna", PASSWORD, now=clock.now(), roles=[Role.RELEASE_AUTHOR]
    )
    made = keys.make_key(
        session,
        person.id,
        roles=[Role.RELEASE_AUTHOR],
        scope=Scope.ALL,
        lifetime=timedelta(days=7),
        note="release tools",
        now=clock.now(),
    )
    return made.secret


@pytest.fixture
def pages(settings: Settings, sessions: sessionmaker[Session]) -> Iterator[str]:
    server = listen(create_app(settings, sessions), "127.0.0.1", 0, threads=2)
    thread = threading.Thread(target=server.serve)
    thread.start()
    yield url_of(server)
    server.stop()
    thread.join()


@pytest.fixture
def nodes(settings: Settings, sessions: sessionmaker[Session]) -> FlaskClient:
    """What nodes ask."""
    return create_node_app(settings, sessions).test_client()


@pytest.fixture
def provision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Ended]:
    def run(typed: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["provision", *shlex.split(typed)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


def test_what_the_author_publishes_is_what_nodes_fetch(
    desk: Desk,
    author_key: str,
    pages: str,
    nodes: FlaskClient,
    settings: Settings,
    sessions: sessionmaker[Session],
    provision: Callable[[str], Ended],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROVISION_API_KEY", author_key)
    typed = f"release publish --folder {desk.folder.path} --server {pages} --json"
    code, out, err = provision(typed)
    assert code == 0, err
    assert json.loads(out) == {
        "event": "published",
        "files": 2,
        "releases": [{"model": "tree-3", "version": "0.7.0"}],
    }
    code, out, _ = provision(typed)
    assert (code, json.loads(out)) == (0, {"event": "published", "files": 0, "releases": []})
    for name in ("1.root.json", "1.targets.json", "1.tree-3.json"):
        answer = nodes.get(f"/node/v1/tuf/metadata/{name}")
        assert answer.data == (desk.folder.path / "metadata" / name).read_bytes()
        assert "immutable" in answer.headers["Cache-Control"]
    for name, data in desk.targets().items():
        assert nodes.get(f"/node/v1/tuf/targets/{name}").data == data
    timestamp = nodes.get("/node/v1/tuf/metadata/timestamp.json")
    assert json.loads(timestamp.data)["signed"]["_type"] == "timestamp"
    assert timestamp.headers["Cache-Control"] == "no-cache"
    _check_bundle(nodes, desk)
    _check_ranges(nodes, desk)
    _check_missing(nodes)
    _check_reading(create_app(settings, sessions).test_client(), author_key)


def _check_bundle(nodes: FlaskClient, desk: Desk) -> None:
    """All files of a release in a row, in the manifest's order."""
    (content,) = [data for name, data in desk.targets().items() if name.endswith(".cbor")]
    manifest = decode_manifest(content)
    files = [nodes.get(f"/node/v1/tuf/targets/files/{one.sha256.hex()}") for one in manifest.files]

    whole = nodes.get(f"/node/v1/tuf/targets/bundles/{manifest.bundle_sha256}")

    assert whole.data == b"".join(one.data for one in files)
    assert len(whole.data) == manifest.size_bytes


def _check_ranges(nodes: FlaskClient, desk: Desk) -> None:
    """A node goes on where its last wake ended."""
    name, whole = max(desk.targets().items(), key=lambda pair: len(pair[1]))
    address, size = f"/node/v1/tuf/targets/{name}", len(whole)

    def ask(asked: str) -> tuple[int, bytes, str | None]:
        answer = nodes.get(address, headers={"Range": asked})
        return answer.status_code, answer.data, answer.headers.get("Content-Range")

    assert ask("bytes=10-") == (206, whole[10:], f"bytes 10-{size - 1}/{size}")
    assert ask("bytes=10-19") == (206, whole[10:20], f"bytes 10-19/{size}")
    assert ask("bytes=-5") == (206, whole[-5:], f"bytes {size - 5}-{size - 1}/{size}")
    assert ask(f"bytes={size}-")[0] == 416
    assert ask("bytes=0-1,5-6") == (200, whole, None)
    assert ask("parts=1")[0] == 200
    tag = nodes.get(address).headers["ETag"]
    again = nodes.get(address, headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")


def _check_missing(nodes: FlaskClient) -> None:
    for path in (
        "metadata/2.root.json", "metadata/root.json", "metadata/1.timestamp.json", "metadata/9999999999.root.json",
        "metadata/..%2f..%2fsecret_key", "metadata/1.nobody.json", "metadata/%00", "targets/files/abc", f"targets/files/{'0' * 64}", f"targets/bundles/{'0' * 64}", "targets/bundles/%00",
        f"targets/tree-3/{'0' * 64}.0.7.0.cbor", "targets/tree-3/x",
        f"targets/%00/{'0' * 64}.0.7.0.cbor", f"targets/tree-3/{'0' * 64}.%00.cbor", "targets/files/..%2f..%2fsecret_key", "targets/%00/%00.cbor",
    ):  # fmt: skip
        answer = nodes.get(f"/node/v1/tuf/{path}")
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json"), path


def _check_reading(client: FlaskClient, key: str) -> None:
    bearer = {"Authorization": f"Bearer {key}"}

    def get(path: str) -> dict[str, Any]:
        answer = client.get(f"/api/v1/{path}", headers=bearer)
        assert answer.status_code == 200, answer.text
        return answer.get_json()  # type: ignore[no-any-return]

    (line,) = get("releases?component=micropython&versions=<1.28")["items"]
    assert (line["model"], line["version"], line["counter"], line["nodes"]) == (
        "tree-3",
        "0.7.0",
        7,
        0,
    )
    whole = get(f"releases/{line['id']}")
    assert [one["holder"] for one in whole["role"]["signatures"] if one["has_signed"]] == ["author"]
    assert get(f"releases/{line['id']}/sbom")["bomFormat"] == "CycloneDX"
    assert get("components/nodes?purl=pkg:github/micropython/micropython")["items"] == []
    roles = get("releases/repository")
    assert [role["role"] for role in roles["roles"]] == [
        "root", "targets", "tree-3", "snapshot", "timestamp",
    ]  # fmt: skip
    assert roles["counters"] == {"tree-3": 7}
    assert set(get("releases/online-keys")) == {"snapshot", "timestamp"}
    refused = client.get("/api/v1/releases?versions=rubbish!", headers=bearer)
    assert (refused.status_code, refused.get_json()["code"]) == (400, "version_range_wrong")
    wrong = client.post(
        "/api/v1/releases/files", json={"sha256": "0" * 64, "content": "%"}, headers=bearer
    )
    assert wrong.status_code == 422
    wrong = client.post(
        "/api/v1/releases/files", json={"sha256": "0" * 64, "content": "QUJD"}, headers=bearer
    )
    assert (wrong.status_code, wrong.get_json()["code"]) == (400, "release_refused")


def test_an_image_is_published_and_fetched_by_ranges(
    desk: Desk,
    author_key: str,
    pages: str,
    nodes: FlaskClient,
    settings: Settings,
    sessions: sessionmaker[Session],
    provision: Callable[[str], Ended],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """One that is longer than a request may usually be."""
    image = micropython("1.28.0", more=bytes(1_200_000))
    desk.release("0.8.0", 8, sources=small_sources(tmp_path / "small"), image=image)
    monkeypatch.setenv("PROVISION_API_KEY", author_key)
    code, _, err = provision(f"release publish --folder {desk.folder.path} --server {pages}")
    assert code == 0, err
    sha256 = hashlib.sha256(image).hexdigest()
    address = f"/node/v1/tuf/targets/files/{sha256}"
    part = nodes.get(address, headers={"Range": f"bytes=1000-{len(image) - 1}"})
    assert (part.status_code, part.data) == (206, image[1000:])
    client = create_app(settings, sessions).test_client()
    shown = client.get("/api/v1/releases", headers={"Authorization": f"Bearer {author_key}"})
    newest, before = shown.get_json()["items"]
    assert (newest["image_micropython"], newest["image_bytes"], newest["image_sha256"]) == (
        "1.28.0",
        len(image),
        sha256,
    )
    assert (before["image_micropython"], before["image_sha256"]) == (None, None)


def test_many_releases_at_once_may_be_long(
    settings: Settings, sessions: sessionmaker[Session], author_key: str, desk: Desk
) -> None:
    client = create_app(settings, sessions).test_client()
    bearer = {"Authorization": f"Bearer {author_key}"}
    document = base64.b64encode(bytes(200_000)).decode()
    long = {"documents": {f"tree-3/{n}.cbor": document for n in range(8)}}
    answer = client.post("/api/v1/releases", json=long, headers=bearer)
    assert (answer.status_code, answer.get_json()["code"]) == (400, "release_refused")
    assert client.post("/api/v1/releases", json=long).status_code in (401, 413)
    longer = {"documents": {f"tree-3/{n}.cbor": document for n in range(70)}}
    assert client.post("/api/v1/releases", json=longer, headers=bearer).status_code == 413


def test_nobody_but_an_author_publishes(
    settings: Settings, sessions: sessionmaker[Session], session: Session
) -> None:
    client = create_app(settings, sessions).test_client()
    client.application.config["WTF_CSRF_ENABLED"] = False
    accounts.create_user(
        session, "otto", PASSWORD, now=clock.now(), roles=[Role.OPERATOR, Role.RELEASE_APPROVER]
    )
    client.post("/login", data={"name": "otto", "password": PASSWORD})
    content = base64.b64encode(b"x").decode()
    for path, body in (
        ("releases", {}),
        ("releases/files", {"sha256": "0" * 64, "content": content}),
        ("releases/files/missing", {"sha256": []}),
    ):
        answer = client.post(f"/api/v1/{path}", json=body)
        assert (answer.status_code, answer.get_json()["code"]) == (403, "not_allowed")


_WRONG = (
    ("--server ftp://x", 2, "not the address of the fleet's pages"),
    ("--server http://fleet.example", 2, "http only on this machine"),
    ("--server http://127.0.0.1:1", 1, "cannot be reached"),
    ("--server https://127.0.0.1:1 --server-ca nowhere.crt", 2, "CA file nowhere.crt"),
    ("--server {pages} --api-key wrong", 1, "The fleet refused it"),
    ("--server {pages} --folder nowhere", 2, "There is no repository in nowhere"),
)


def test_publishing_that_cannot_be_says_why(
    desk: Desk, pages: str, provision: Callable[[str], Ended]
) -> None:
    for typed, code, said in _WRONG:
        more = typed.format(pages=pages)
        if "--api-key" not in more:
            more += " --api-key x"
        if "--folder" not in more:
            more += f" --folder {desk.folder.path}"
        ended, out, err = provision(f"release publish {more}")
        assert (ended, out) == (code, ""), typed
        assert said in err
