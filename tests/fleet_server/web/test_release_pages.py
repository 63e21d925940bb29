"""Releases on the pages: who signed them, what is in them, who runs them; in German and English, for who may see the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.app import create_app
from fleet_server.models import NodeStatus
from fleet_server.services import accounts, releases
from fleet_server.settings import load_settings
from tests.fleet_server import small_world
from tests.fleet_server.services.release_city import City
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World


@pytest.fixture(scope="module")
def city(sqlite_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    with sqlite_world.sessions() as session:
        made = City(session, tmp_path_factory.mktemp("city"))
        made.trust()
        made.desk.release("0.7.0", 7, sources=made.sources, notes="<b>Wärmer</b>\nsecond line")
        made.send_files()
        made.publish(now=NOW)
        _run(session, "n-000001", "0.7.0")
        yield made


def _run(session: Session, node_id: str, version: str) -> None:
    release = releases.release_of(session, "tree-3", version)
    with db.writing(session):
        session.execute(
            update(NodeStatus)
            .where(NodeStatus.node_id == node_id)
            .values(version=version, bundle_sha256=release.bundle_sha256)
        )


@pytest.fixture(scope="module")
def client(sqlite_world: World, city: City) -> FlaskClient:
    app = sqlite_world.app(data_dir=city.keys_dir.parent)
    app.config["WTF_CSRF_ENABLED"] = False
    made = app.test_client()
    made.post("/login", data={"name": small_world.USER, "password": small_world.PASSWORD})
    return made


def _page(client: FlaskClient, address: str, language: str = "en") -> str:
    answer = client.get(address, headers={"Accept-Language": language})
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_list_shows_releases_with_support_nodes_and_who_signs(client: FlaskClient) -> None:
    page = _page(client, "/fleet/releases")
    assert page.count(">0.7.0</a>") == 2
    assert "2031-12-31" in page
    assert "wanted: 1 of 1 keys" in page
    assert "author" in page
    german = _page(client, "/fleet/releases", "de")
    assert "Firmware-Versionen" in german
    assert "verlangt: 1 von 1 Schlüsseln" in german
    only = _page(client, "/fleet/releases?model=pond-1&component=micropython&versions=<1.28")
    assert only.count(">0.7.0</a>") == 1
    assert "No release fits." in _page(client, "/fleet/releases?versions=>9")
    assert "is no range of versions" in _page(client, "/fleet/releases?versions=%3E%3E1")


def test_a_release_shows_signatures_parts_and_the_nodes_that_run_it(
    client: FlaskClient, city: City
) -> None:
    release = releases.release_of(city.session, "tree-3", "0.7.0")
    page = _page(client, f"/fleet/releases/{release.id}")
    keyid = city.desk.card("author").keyid
    assert "✓ signed: author" in " ".join(page.split())
    assert keyid[:16] in page
    assert "node/cycle.mpy" in page
    assert "cpe" not in page
    assert ">tree-01</a>" in page
    assert "&lt;b&gt;Wärmer&lt;/b&gt;<br>second line" in page
    sbom = client.get(f"/fleet/releases/{release.id}/sbom.cdx.json")
    assert sbom.get_json()["bomFormat"] == "CycloneDX"
    assert 'filename="tree-3-0.7.0.cdx.json"' in sbom.headers["Content-Disposition"]
    assert client.get("/fleet/releases/999").status_code == 404


def test_whom_a_vulnerability_concerns_is_one_page(client: FlaskClient) -> None:
    page = _page(
        client, "/fleet/releases/nodes?purl=pkg:github/micropython/micropython&versions=<1.28"
    )
    assert ">tree-01</a>" in page
    assert "micropython 1.27.0" in page
    assert "No node runs such a version." in _page(
        client, "/fleet/releases/nodes?component=micropython&versions=>1.27"
    )
    hostile = small_world.HOSTILE
    page = client.get("/fleet/releases/nodes", query_string={"component": hostile, "versions": ""})
    assert hostile not in page.text
    assert (
        client.get("/fleet/releases/nodes", query_string={"component": "x" * 201}).status_code
        == 400
    )


def test_the_list_asks_as_many_statements_for_many_as_for_one(
    sqlite_world: World, client: FlaskClient
) -> None:
    with sqlite_world.statements() as for_one:
        _page(client, "/fleet/releases?model=pond-1")
    with sqlite_world.statements() as for_all:
        _page(client, "/fleet/releases")
    assert len(for_one) == len(for_all)


def test_nobody_sees_releases_without_login(sqlite_world: World, city: City) -> None:
    stranger = sqlite_world.app().test_client()
    for address in (
        "/fleet/releases",
        "/fleet/releases/1",
        "/fleet/releases/nodes",
        "/fleet/releases/1/sbom.cdx.json",
    ):
        assert stranger.get(address).status_code == 302


def test_a_server_without_releases_says_what_to_do(
    sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    with sessions() as session:
        accounts.create_user(session, small_world.USER, small_world.PASSWORD, now=NOW)
    app = create_app(load_settings({}, data_dir=tmp_path, demo=True), sessions)
    app.config["WTF_CSRF_ENABLED"] = False
    client = app.test_client()
    client.post("/login", data={"name": small_world.USER, "password": small_world.PASSWORD})
    assert "fleet release trust" in _page(client, "/fleet/releases")
