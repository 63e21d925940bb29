"""What programs read of nodes and do with them: their life, deployments, packs, events, alerts, configuration, commands, the audit log."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from fleet_server import db
from fleet_server.models import Alert, Role, Scope
from fleet_server.services import accounts
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.program(demo=False)


def _changed(client: FlaskClient, address: str, change: dict[str, Any]) -> Any:
    tag = client.get(address).headers["ETag"]
    return client.patch(address, json=change, headers={"If-Match": tag})


def test_pack_is_found_from_its_node_and_shows_its_bytes(client: FlaskClient) -> None:
    (newest,) = client.get("/api/v1/nodes/n-000002/packs?limit=1").get_json()["items"]
    assert (newest["spool"], newest["seq"]) == (7, 24)
    pack = client.get(f"/api/v1/packs/{newest['id']}").get_json()
    assert (pack["node_id"], pack["seq"]) == ("n-000002", 24)
    assert {reading["channel"] for reading in pack["readings"]} == {"sat", "do", "tw", "bat"}
    assert client.get("/api/v1/nodes/n-000002/packs?spool=8").get_json()["items"] == []


def test_quarantine_is_filtered_by_reason(client: FlaskClient) -> None:
    (entry,) = client.get("/api/v1/quarantine?reason=pack_not_array").get_json()["items"]
    assert entry["node_id"] == "n-000001"
    assert client.get("/api/v1/quarantine?node_id=n-000002").get_json()["items"] == []


def test_summary_is_the_fleet_in_figures_and_of_whole_kinds_only_for_who_sees_all(
    client: FlaskClient, world: World
) -> None:
    told = client.get("/api/v1/summary").get_json()
    assert (told["nodes"], told["by_health"]["fresh"], told["by_health"]["troubled"]) == (3, 1, 2)
    assert told["packs"]["stored"] == sum(
        client.get(f"/api/v1/nodes/n-00000{number}").get_json()["packs"] for number in (1, 2, 3)
    )
    with world.sessions() as session:
        roles = [Role.WATERS_OFFICE]
        accounts.create_user(
            session, "wilma", small_world.PASSWORD, now=NOW, roles=roles, scope=Scope.WATERS
        )
    scoped = world.program("wilma", demo=False).get("/api/v1/summary").get_json()
    assert (scoped["nodes"], scoped["packs"], scoped["quarantined"]) == (1, None, None)


def test_head_of_the_audit_log_is_its_newest_entry(client: FlaskClient) -> None:
    (newest,) = client.get("/api/v1/audit?limit=1").get_json()["items"]
    head = client.get("/api/v1/audit/head").get_json()
    assert head == {"seq": newest["seq"], "sha256": newest["sha256"]}


def test_node_moves_to_another_site(client: FlaskClient) -> None:
    def stands() -> Any:
        address = "/api/v1/deployments?node_id=n-000002&is_open=true"
        return client.get(address).get_json()["items"]

    (deployment,) = stands()
    address = f"/api/v1/deployments/{deployment['id']}"
    early = _changed(client, address, {"to_at": "2026-07-14T06:00:00Z"})
    assert (early.status_code, early.get_json()["code"]) == (409, "conflict")
    assert _changed(client, address, {"to_at": "2026-07-14T12:00:01Z"}).status_code == 200
    assert stands() == []
    again = _changed(client, address, {"to_at": "2026-07-14T13:00:00Z"})
    assert again.status_code == 409
    site = {"code": "pond-2", "name": "Pond", "kind": "water", "latitude": 51, "longitude": 7}
    client.post("/api/v1/sites", json=site)
    there = {"node_id": "n-000002", "site_code": "pond-2", "from_at": "2026-07-14T12:00:01Z"}
    made = client.post("/api/v1/deployments", json=there)
    assert made.status_code == 201
    assert client.get(made.headers["Location"]).get_json() == made.get_json()
    assert [one["site_code"] for one in stands()] == ["pond-2"]


def test_configuration_is_changed_by_who_read_it(client: FlaskClient) -> None:
    address = "/api/v1/nodes/n-000001/configuration"
    changed = _changed(client, address, {"settings": {"publish_s": 7200}})
    assert (changed.get_json()["version"], changed.get_json()["settings"]["publish_s"]) == (2, 7200)
    wrong = _changed(client, address, {"settings": {"publish_s": -1}})
    assert (wrong.status_code, wrong.get_json()["code"]) == (400, "configuration_wrong")


def test_password_of_a_network_is_never_shown(client: FlaskClient) -> None:
    address = "/api/v1/nodes/n-000003/configuration"
    changed = _changed(client, address, {"settings": {"wifi": [["city", "top secret word"]]}})
    assert changed.get_json()["settings"]["wifi"] == ["city"]
    assert "top secret" not in client.get(address).text + client.get("/api/v1/audit").text


def test_command_is_ordered_once_and_found_again(client: FlaskClient) -> None:
    address, key = "/api/v1/nodes/n-000001/commands", {"Idempotency-Key": "blink"}
    made = [client.post(address, json={"name": "identify"}, headers=key) for _ in range(2)]
    assert made[0].status_code == 201
    assert made[0].get_json() == made[1].get_json()
    assert len(client.get(address).get_json()["items"]) == 1
    assert client.get(made[0].headers["Location"]).get_json()["state"] == "pending"
    elsewhere = made[0].headers["Location"].replace("n-000001", "n-000002")
    assert client.get(elsewhere).status_code == 404


def test_many_are_rehearsed_and_then_configured(client: FlaskClient) -> None:
    wanted = {"settings": {"publish_s": 1800}, "node_ids": ["n-000001", "n-000002", "n-nobody"]}
    before = client.get("/api/v1/nodes/n-000002/configuration").get_json()
    for query, outcomes in (
        ("?dry_run=true", ["done", "done", "refused"]),
        ("", ["done", "done", "refused"]),
        ("", ["unchanged", "unchanged", "refused"]),
    ):
        answer = client.post(f"/api/v1/nodes/configure{query}", json=wanted).get_json()
        assert [result["outcome"] for result in answer["results"]] == outcomes
        assert answer["is_dry_run"] == (query != "")
        now = client.get("/api/v1/nodes/n-000002/configuration").get_json()
        assert (now == before) == (query != "")


def test_rehearsed_command_is_never_told(client: FlaskClient) -> None:
    wanted = {"name": "reboot", "node_ids": ["n-000003"]}
    answer = client.post("/api/v1/nodes/command?dry_run=true", json=wanted).get_json()
    assert answer["results"][0]["outcome"] == "done"
    assert client.get("/api/v1/nodes/n-000003/commands").get_json()["items"] == []


def test_audit_log_is_read_by_what_was_done_to_whom(client: FlaskClient) -> None:
    entries = client.get("/api/v1/audit?action=node_deployed&subject=node%20n-000001").get_json()
    assert [entry["subject"] for entry in entries["items"]] == ["node n-000001"]


def test_node_is_registered_and_goes_its_way(client: FlaskClient) -> None:
    wanted = {"label": "lime-77", "model": "tree-3", "site_code": "kortum"}
    made = client.post("/api/v1/nodes", json=wanted)
    assert (made.status_code, made.get_json()["state"]) == (201, "registered")
    assert client.post("/api/v1/nodes", json=wanted).get_json()["code"] == "label_taken"
    address = made.headers["Location"]
    assert client.get("/api/v1/nodes?state=registered").get_json()["items"][0]["id"] in address
    closed = client.post(f"{address}/state", json={"state": "deployed"})
    assert (closed.status_code, closed.get_json()["code"]) == (409, "node_state_refused")
    gone = client.post(f"{address}/state", json={"state": "retired", "reason": "never built"})
    assert (gone.status_code, gone.get_json()["state"]) == (200, "retired")


def test_alert_is_found_and_acknowledged(world: World, client: FlaskClient) -> None:
    with world.sessions() as session, db.writing(session):
        for node_id in ("n-000001", "n-000002"):
            session.add(
                Alert(
                    kind="offline",
                    subject=f"node {node_id}",
                    node_id=node_id,
                    severity="warning",
                    details={"silent_s": 9000},
                    opened_at=NOW,
                )
            )
    newest, older = client.get("/api/v1/alerts?is_open=true&kind=offline").get_json()["items"]
    assert (newest["node_id"], older["node_id"]) == ("n-000002", "n-000001")
    page = client.get("/api/v1/alerts?limit=1").get_json()
    assert client.get(page["next"]).get_json()["items"] == [older]
    address = f"/api/v1/alerts/{newest['id']}"
    answer = client.post(f"{address}/acknowledgement", json={"note": "I drive there"})
    assert answer.get_json()["acknowledged_by"] == small_world.USER
    assert client.get(address).get_json()["note"] == "I drive there"
    unseen = client.get("/api/v1/alerts?is_acknowledged=false").get_json()["items"]
    assert [alert["node_id"] for alert in unseen] == ["n-000001"]
    assert client.get("/api/v1/alerts/99").status_code == 404


def test_maintenance_window_is_made_and_ended(client: FlaskClient) -> None:
    wanted = {
        "scope": "node",
        "key": "n-000001",
        "from_at": "2026-07-14T12:00:00Z",
        "to_at": "2026-07-15T12:00:00Z",
        "reason": "crown cut",
    }
    made = client.post("/api/v1/silences", json=wanted)
    assert made.status_code == 201
    address = made.headers["Location"]
    assert client.get("/api/v1/silences").get_json()["items"] == [made.get_json()]
    assert client.delete(address).status_code == 428
    assert client.delete(address, headers={"If-Match": made.headers["ETag"]}).status_code == 204
    assert client.get("/api/v1/silences").get_json()["items"] == []
    backwards = client.post("/api/v1/silences", json={**wanted, "to_at": wanted["from_at"]})
    assert (backwards.status_code, backwards.get_json()["code"]) == (400, "silence_wrong")


def test_out_of_scope_is_not_there_for_programs(world: World) -> None:
    with world.sessions() as session:
        accounts.create_user(
            session,
            "wanda",
            small_world.PASSWORD,
            now=NOW,
            roles=[Role.OPERATOR],
            scope=Scope.WATERS,
        )
    client = world.program("wanda", demo=False)
    tree = "/api/v1/nodes/n-000001"
    for address in (
        tree,
        f"{tree}/packs",
        f"{tree}/events",
        f"{tree}/configuration",
        f"{tree}/commands",
        "/api/v1/packs/1",
        "/api/v1/deployments/1",
        "/api/v1/alerts/1",
        "/api/v1/sites/kortum",
    ):
        assert client.get(address).status_code == 404, address
    for address in ("sites", "deployments", "quarantine"):
        assert "kortum" not in client.get(f"/api/v1/{address}").text
        assert "n-000001" not in client.get(f"/api/v1/{address}").text
    answer = client.post(
        "/api/v1/nodes/command", json={"name": "reboot", "node_ids": ["n-000001"]}
    ).get_json()
    assert answer["results"][0]["code"] == "not_found"


def test_rules_of_alerts_are_read_and_changed_by_who_read_them(client: FlaskClient) -> None:
    page = client.get("/api/v1/alert-rules?limit=3").get_json()
    assert [one["kind"] for one in page["items"]] == ["battery", "campaign", "certificate"]
    assert len(client.get(page["next"]).get_json()["items"]) == 3
    address = "/api/v1/alert-rules/battery"
    changed = _changed(client, address, {"thresholds": {"days": 20}, "escalate_after_s": None})
    assert changed.get_json()["thresholds"] == {"days": 20, "clear_days": 45}
    assert changed.get_json()["escalate_after_s"] is None
    for wrong in ({"thresholds": {"months": 1}}, {"clear_after_s": -1}):
        answer = _changed(client, address, wrong)
        assert (answer.status_code, answer.get_json()["code"]) == (400, "alert_rule_wrong")
    assert client.get("/api/v1/alert-rules/nonsense").status_code == 404


def test_recipients_of_alerts_are_made_shown_without_their_secret_and_removed(
    client: FlaskClient,
) -> None:
    hook = {"name": "hook", "channel": "webhook", "address": "https://example.org/x"}
    made = client.post("/api/v1/alert-recipients", json=hook)
    assert (made.status_code, made.get_json()["secret"][:6]) == (201, "whsec_")
    address = made.headers["Location"]
    shown = client.get(address).get_json()
    assert "secret" not in shown
    assert shown["min_severity"] == "warning"
    account = {"name": "me", "account": small_world.USER}
    assert client.post("/api/v1/alert-recipients", json=account).get_json()["account"] == small_world.USER  # fmt: skip
    for wrong, status in (({"name": "x"}, 400), ({"name": "x", "account": "nobody"}, 404), (hook, 409)):  # fmt: skip
        assert client.post("/api/v1/alert-recipients", json=wrong).status_code == status
    assert _changed(client, address, {"is_active": False}).get_json()["is_active"] is False
    names = [one["name"] for one in client.get("/api/v1/alert-recipients").get_json()["items"]]
    assert names == ["hook", "me"]
    tag = client.get(address).headers["ETag"]
    assert client.delete(address, headers={"If-Match": tag}).status_code == 204
    assert client.get(address).status_code == 404


def test_work_of_an_alert_is_ordered_once(client: FlaskClient, world: World) -> None:
    with world.sessions() as session, db.writing(session):
        alert = Alert(
            kind="battery",
            subject="node n-000003",
            node_id="n-000003",
            severity="warning",
            details={"days_low": 12},
            opened_at=NOW,
        )
        session.add(alert)
        session.flush()
        number = alert.id
    first = client.post(f"/api/v1/alerts/{number}/work-order").get_json()["work_order"]
    assert client.post(f"/api/v1/alerts/{number}/work-order").get_json() == {"work_order": first}
    order = client.get(f"/api/v1/work-orders/{first}").get_json()
    assert (order["kind"], order["node_id"]) == ("battery", "n-000003")
    assert client.get(f"/api/v1/alerts/{number}").get_json()["work_order_id"] == first
