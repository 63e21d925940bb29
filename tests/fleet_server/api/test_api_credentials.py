"""Tokens, certificates and revocation for programs."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from fleet_server.services import authority
from tests.fleet_server.world_fixtures import World


@pytest.fixture(scope="module")
def client(sqlite_world: World) -> FlaskClient:
    """An operator's program; the authority is on the same machine."""
    authority.initialise(sqlite_world.data_dir / "ca")
    return sqlite_world.program()


def test_a_token_is_made_listed_without_its_secret_and_revoked(client: FlaskClient) -> None:
    wanted = {"uses": 2, "model": "tree-3", "note": "spring"}
    secrets = [
        client.post("/api/v1/tokens", json=wanted, headers={"Idempotency-Key": "once"}).get_json()
        for _ in range(2)
    ]
    assert secrets[0] == secrets[1], "sent again it is made once"
    client.post("/api/v1/tokens", json={})

    page = client.get("/api/v1/tokens?limit=1").get_json()
    older = client.get(page["next"]).get_json()["items"]
    assert (page["items"][0]["model"], older[0]["model"]) == (None, "tree-3")
    assert secrets[0]["token"] not in client.get("/api/v1/tokens").text

    number = older[0]["id"]
    assert client.post(f"/api/v1/tokens/{number}/revoke").status_code == 204
    assert client.get(page["next"]).get_json()["items"][0]["standing"] == "revoked"
    assert client.post("/api/v1/tokens/999999/revoke").status_code == 404
    assert client.post("/api/v1/tokens", json={"model": "tree-99"}).status_code == 400
    assert client.post("/api/v1/tokens", json={"uses": 0}).status_code == 422


def test_a_node_is_revoked_with_a_reason(client: FlaskClient) -> None:
    node_id = client.get("/api/v1/nodes?limit=1").get_json()["items"][0]["id"]
    address = f"/api/v1/nodes/{node_id}"
    assert client.get(f"{address}/credentials").status_code == 200
    assert client.post(f"{address}/revoke", json={"reason": ""}).status_code == 422
    assert client.post(f"{address}/revoke", json={"reason": "stolen"}).status_code == 200
    assert client.get("/api/v1/nodes?state=revoked").get_json()["items"][0]["id"] == node_id
    refused = client.post(f"{address}/renew-certificate")
    assert (refused.status_code, refused.get_json()["code"]) == (403, "renewal_refused")
