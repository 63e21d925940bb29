"""The inbox of alerts, their rules and recipients, and a node's life on its page: without JavaScript, in both languages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select, update

from fleet_server import clock, db
from fleet_server.models import Alert, AlertKind, AlertRecipient, Delivery, Node, NodeStatus, Role
from fleet_server.services import accounts, alert_rules, alerting, scheduling, silencing
from tests.fleet_server import small_world
from tests.fleet_server.world_fixtures import World, log_in

NOW = small_world.NOW


@pytest.fixture
def client(sqlite_world: World) -> FlaskClient:
    return sqlite_world.program(demo=False)


@pytest.fixture
def alert_id(sqlite_world: World) -> int:
    """`n-000001` is offline, the other two were heard."""
    later = NOW + timedelta(hours=5)
    with sqlite_world.sessions() as session:
        with db.writing(session):
            others = update(NodeStatus).where(NodeStatus.node_id != "n-000001")
            session.execute(others.values(last_heard_at=later))
        alerting.look(session, now=later, wall_now=later, is_quick=True)
        (one,) = alerting.alerts(session, alerting.Wanted(kinds=[AlertKind.OFFLINE]), limit=9)
    return one.id


def test_inbox_says_what_is_wrong_and_somebody_takes_it_up(
    client: FlaskClient, alert_id: int, sqlite_world: World
) -> None:
    page = client.get("/fleet/alerts").text
    assert "Not heard since 2026-07-14 12:00 UTC" in page
    assert "tree-01" in page
    german = client.get("/fleet/alerts", headers={"Accept-Language": "de"}).text
    assert "Verstummt" in german
    assert "Sich kümmern" in german
    assert "Nothing calls for help" in client.get("/fleet/alerts?kind=battery").text
    assert client.get("/fleet/alerts?kind=nonsense").status_code == 400
    assert client.get("/fleet/alerts?before=x").status_code == 400
    on_node = client.get("/fleet/nodes/n-000001").text
    assert "Not heard since" in on_node

    answer = client.post(
        f"/fleet/alerts/{alert_id}/acknowledge",
        data={"note": "<b>on my way</b>", "next": "//evil.example"},
    )
    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/")
    assert not answer.headers["Location"].startswith("//")
    page = client.get("/fleet/alerts").text
    assert "&lt;b&gt;on my way&lt;/b&gt;" in page
    assert "operator looks after it" in page
    assert client.post("/fleet/alerts/999999/acknowledge").status_code == 404
    ordered = client.post(f"/fleet/alerts/{alert_id}/work")
    assert ordered.status_code == 303
    assert ordered.headers["Location"] in client.get("/fleet/alerts").text
    assert "Not heard since" in client.get(ordered.headers["Location"]).text
    with sqlite_world.sessions() as session:
        assert session.get_one(Alert, alert_id).acknowledged_by == small_world.USER


def test_inbox_says_that_no_worker_looks(client: FlaskClient, sqlite_world: World) -> None:
    assert "Nobody has looked" not in client.get("/fleet/alerts").text
    with sqlite_world.sessions() as session:
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        scheduling.add_jobs(session, ["look_quickly"], wall_now=long_ago)
        scheduling.note_run(session, "look_quickly", every_s=60, wall_now=long_ago, error=None)
    assert "Nobody has looked" in client.get("/fleet/alerts").text


def test_who_may_only_look_is_offered_no_deeds(sqlite_world: World, alert_id: int) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(session, "ola", small_world.PASSWORD, now=NOW, roles=[Role.AUDITOR])
    client = sqlite_world.app(demo=False).test_client()
    log_in(client, name="ola")
    page = client.get("/fleet/alerts").text
    assert "Not heard since" in page
    assert "Look after it" not in page
    assert "Becomes:" not in client.get("/fleet/nodes/n-000001").text


def test_open_alerts_are_figures_for_whoever_watches(client: FlaskClient, alert_id: int) -> None:
    figures = client.get("/metrics").text
    assert re.search(r'fleet_alerts_open\{kind="offline",severity="warning"\} 1\.0', figures)
    assert 'fleet_messages{state="given_up"} 0.0' in figures


def test_rules_windows_and_recipients_are_changed_on_one_page(
    client: FlaskClient, sqlite_world: World
) -> None:
    rule = {"is_active": "on", "severity": "urgent", "days": "10", "clear_days": "20", "clear_after_s": "60", "escalate_after_s": ""}  # fmt: skip
    assert client.post("/fleet/alerts/rules/battery", data=rule).status_code == 303
    wrong = client.post("/fleet/alerts/rules/battery", data=rule | {"days": "ten"})
    assert wrong.status_code == 400
    assert "days wants a whole number." in wrong.text
    assert client.post("/fleet/alerts/rules/nonsense", data=rule).status_code == 404
    window = {"scope": "site", "key": "kortum", "hours": "4", "reason": "pruning"}
    assert client.post("/fleet/alerts/silences", data=window).status_code == 303
    assert client.post("/fleet/alerts/silences", data=window | {"key": "x"}).status_code == 400
    assert "pruning" in client.get("/fleet/alerts").text
    office = {"name": "office", "channel": "mail", "address": "a@example.org", "min_severity": "notice", "language": "de", "site_kind": ""}  # fmt: skip
    assert client.post("/fleet/alerts/recipients", data=office).status_code == 303
    again = client.post("/fleet/alerts/recipients", data=office)
    assert again.status_code == 400
    assert "There is already a recipient office." in again.text
    hook = office | {"name": "hook", "channel": "webhook", "address": "https://example.org/x"}
    shown = client.post("/fleet/alerts/recipients", data=hook).text
    secret = re.search(r"whsec_[\w+/=]+", shown)
    assert secret is not None
    account = office | {"name": "me", "channel": "account", "address": small_world.USER}
    assert client.post("/fleet/alerts/recipients", data=account).status_code == 303
    nobody = client.post(
        "/fleet/alerts/recipients", data=account | {"name": "x", "address": "nobody"}
    )
    assert "There is no account" in nobody.text
    settings_page = client.get("/fleet/alerts/settings").text
    assert f"account {small_world.USER}: no mail address" in settings_page
    assert secret[0] not in settings_page
    assert "https://example.org/x" in settings_page
    with sqlite_world.sessions() as session:
        held = alert_rules.rules(session)[AlertKind.BATTERY]
        assert (held.severity, held.thresholds["days"], held.escalate_after_s) == ("urgent", 10, None)  # fmt: skip
        (silence,) = silencing.silences(session, now=clock.now())
        number = session.scalar(select(AlertRecipient.id).where(AlertRecipient.name == "hook"))
    assert client.post(f"/fleet/alerts/silences/{silence.id}/end").status_code == 303
    for deed in ("test", "off", "on"):
        assert client.post(f"/fleet/alerts/recipients/{number}/{deed}").status_code == 303
    with sqlite_world.sessions() as session:
        assert session.scalars(select(Delivery.occasion)).all() == ["test"]
    assert client.post(f"/fleet/alerts/recipients/{number}/remove").status_code == 303
    assert "https://example.org/x" not in client.get("/fleet/alerts/settings").text


def test_node_is_brought_into_a_state_on_its_page(client: FlaskClient, sqlite_world: World) -> None:
    page = client.get("/fleet/nodes/n-000002").text
    assert "Becomes: in maintenance" in page
    assert "Becomes: retired" not in page  # it stands at its site
    address = "/fleet/nodes/n-000002/state"
    assert client.post(address, data={"state": "nonsense"}).status_code == 400
    refused = client.post(address, data={"state": "retired", "reason": "old"})
    assert refused.status_code == 409
    assert "cannot become retired. It can become:" in refused.text
    assert client.post(address, data={"state": "maintenance"}).status_code == 400  # why?
    done = client.post(address, data={"state": "maintenance", "reason": "new wiper"})
    assert done.status_code == 303
    assert "new wiper" in client.get("/fleet/nodes/n-000002").text
    with sqlite_world.sessions() as session:
        assert session.get_one(Node, "n-000002").state == "maintenance"
