"""What operations and programs ask: health, readiness, figures, the API's description."""

from __future__ import annotations

import pytest
from brokers import free_port
from sqlalchemy import text

from fleet_server import db
from fleet_server.app import create_app
from fleet_server.broker.refusals import Refusal, Tally
from fleet_server.settings import load_settings
from tests.fleet_server.world_fixtures import World, log_in


def test_health_and_readiness_answer_without_login(world: World) -> None:
    client = world.app().test_client()
    assert client.get("/healthz").get_json() == {"status": "ok"}
    assert client.get("/readyz").get_json() == {"status": "ready"}


def test_readiness_fails_where_the_tables_are_of_another_version(
    sqlite_databases: object, tmp_path: object
) -> None:
    with sqlite_databases.fresh() as url:  # type: ignore[attr-defined]
        engine = db.make_engine(url)
        with db.writing(engine) as session:
            session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
        settings = load_settings({}, data_dir=tmp_path, database_url=url)
        answer = create_app(settings, db.session_factory(engine)).test_client().get("/readyz")
        engine.dispose()
    assert answer.status_code == 503
    assert "update this installation" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    "path", ["/", "/fleet/", "/v1.1/Things", "/api/v1/nodes", "/metrics", "/readyz"]
)
def test_while_the_database_is_away_who_asks_for_it_is_told_so(
    sqlite_world: World, path: str
) -> None:
    """Also who is logged in, whose account nobody can look up."""
    before = sqlite_world.app().test_client()
    log_in(before)
    engine = db.make_engine(f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/fleet")
    app = create_app(sqlite_world.settings(), db.session_factory(engine))
    client = app.test_client()
    session = before.get_cookie("stadtsensor")
    assert session is not None
    client.set_cookie("stadtsensor", session.value)
    answer = client.get(path, headers={"Accept": "application/json"})
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    assert "connection" in answer.get_json()["detail"]
    page = client.get("/", headers={"Accept": "text/html"})
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert client.get("/healthz").status_code == 200


def test_metrics_tell_nodes_packs_and_quarantine(world: World) -> None:
    figures = world.app().test_client().get("/metrics").text
    assert 'fleet_nodes{health="fresh"} 1.0' in figures
    assert "fleet_packs_stored 72.0" in figures
    assert "fleet_packs_missing 0.0" in figures
    assert "fleet_quarantine_entries 1.0" in figures


def test_metrics_tell_what_the_broker_has_refused_where_it_runs(sqlite_world: World) -> None:
    client = sqlite_world.app().test_client()
    assert "fleet_broker" not in client.get("/metrics").text
    tally = Tally(sqlite_world.settings().broker_status_path)
    tally.refuse(Refusal.PUBLISH_DENIED, client="n-000002")
    tally.write(clients=["n-000001", "svc-ingest"])
    figures = client.get("/metrics").text
    assert 'fleet_broker_refused_total{reason="publish_denied"} 1.0' in figures
    assert 'fleet_broker_refused_total{reason="will_denied"} 0.0' in figures
    assert "fleet_broker_clients 2.0" in figures


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"refused": {"x": "y"}}', '{"refused": 3}'])
def test_status_that_is_none_leaves_the_other_metrics(sqlite_world: World, text: str) -> None:
    path = sqlite_world.settings().broker_status_path
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    figures = sqlite_world.app().test_client().get("/metrics").text
    assert "fleet_packs_stored" in figures
    assert "fleet_broker" not in figures


@pytest.mark.parametrize(
    ("header", "status"), [({}, 401), ({"Authorization": "Bearer wrong"}, 401), (None, 200)]
)
def test_metrics_may_be_closed_by_a_token(
    sqlite_world: World, header: dict[str, str] | None, status: int
) -> None:
    client = sqlite_world.app(metrics_token="prometheus").test_client()
    given = {"Authorization": "Bearer prometheus"} if header is None else header
    answer = client.get("/metrics", headers=given)
    assert answer.status_code == status


def test_nodes_are_json_for_who_is_logged_in(world: World) -> None:
    client = world.app().test_client()
    refused = client.get("/api/v1/nodes")
    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    log_in(client)
    nodes = client.get("/api/v1/nodes").get_json()["items"]
    pond = next(node for node in nodes if node["id"] == "n-000002")
    assert (pond["label"], pond["receipt_seq"]) == ("pond-01", 24)
    assert pond["last_heard_at"] == "2026-07-14T12:00:00+00:00"
    assert client.get("/api/v1/nodes/n-000002").get_json()["packs"] == 24


def test_api_describes_itself_without_login(sqlite_world: World) -> None:
    described = sqlite_world.app().test_client().get("/api/openapi.json").get_json()
    assert described["openapi"].startswith("3.1")
    assert "/api/v1/nodes" in described["paths"]


def test_wrong_method_is_a_problem_document(sqlite_world: World) -> None:
    answer = sqlite_world.app().test_client().delete("/healthz")
    assert answer.mimetype == "application/problem+json"
    assert answer.status_code == 405
