"""Enrolment over the nodes' listener: who bears a token gets an identity, everyone else one clear sentence."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from flask.testing import FlaskClient
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.app import create_node_app
from fleet_server.models import Node, SignedMetadata
from fleet_server.services import authority, enrolment, ingest
from fleet_server.settings import load_settings
from fleet_server.wire.senml import encode_pack
from fleet_server.wire.topics import TopicKind


def certificate_request(key: ec.EllipticCurvePrivateKey | None = None) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whatever")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = made.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    authority.initialise(data_dir / "ca", valid_from=datetime.now(UTC))
    return data_dir


@pytest.fixture
def client(ca_dir: Path, sessions: sessionmaker[Session]) -> FlaskClient:
    settings = load_settings(
        {},
        data_dir=ca_dir,
        broker_url="mqtts://127.0.0.1:18883?service_port=18884",
        ntp_server="ntp.example.org",
        topic_prefix="city",
    )
    return create_node_app(settings, sessions).test_client()


@pytest.fixture
def token(session: Session) -> str:
    return enrolment.create_token(session, uses=2, now=clock.now())


def ask(token: str, /, **changed: Any) -> dict[str, Any]:
    asked = {
        "token": token,
        "label": "tree-01",
        "model": "tree-3",
        "csr_pem": certificate_request(),
    }
    return asked | changed


def test_enrolled_node_gets_identity_authority_and_link(client: FlaskClient, token: str) -> None:
    answer = client.post("/node/v1/enrol", json=ask(token))
    assert answer.status_code == 201, answer.text
    given = answer.get_json()
    certificate = x509.load_pem_x509_certificate(given["certificate_pem"].encode())
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == [given["node_id"]]
    assert x509.load_pem_x509_certificate(given["ca_pem"][0].encode())
    assert given["link"] == {
        "host": "127.0.0.1",
        "port": 18883,
        "tls": True,
        "server_name": "localhost",
        "ntp": "ntp.example.org",
        "prefix": "city",
        "renew": ["localhost", 443, "localhost"],
    }


def test_enrolled_node_gets_the_newest_root_of_releases_where_there_is_one(
    client: FlaskClient, session: Session, token: str
) -> None:
    assert "tuf_root" not in client.post("/node/v1/enrol", json=ask(token)).get_json()
    now = clock.now()
    with db.writing(session):
        session.add_all(
            SignedMetadata(
                role="root", version=n, data=b"root %d" % n, expires_at=now, stored_at=now
            )
            for n in (1, 2)
        )
    given = client.post("/node/v1/enrol", json=ask(token, label="tree-02")).get_json()
    assert base64.b64decode(given["tuf_root"]) == b"root 2"


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"token": "wrong"}, 403, "enrolment_token_refused"),
        ({"model": "tree-99"}, 400, "enrolment_wrong"),
        ({"label": ""}, 400, "enrolment_wrong"),
        ({"csr_pem": "nonsense"}, 400, None),
        ({"token": 5}, 400, "invalid"),
        ({"csr_pem": None}, 400, "invalid"),
        ({"token": "\ud800"}, 400, "invalid"),
        ({"token": "\0"}, 403, "enrolment_token_refused"),
        ({"label": "a\0b"}, 400, "enrolment_wrong"),
    ],
)
def test_wrong_enrolment_is_refused_and_makes_no_node(
    client: FlaskClient,
    session: Session,
    token: str,
    changed: dict[str, Any],
    status: int,
    code: str | None,
) -> None:
    answer = client.post("/node/v1/enrol", json=ask(token, **changed))
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert code is None or answer.get_json()["code"] == code
    assert session.scalar(select(func.count()).select_from(Node)) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 5000, b"x" * 70_000])
def test_body_that_is_no_object_is_refused(client: FlaskClient, body: bytes) -> None:
    answer = client.post("/node/v1/enrol", data=body)
    assert answer.status_code in (400, 413)
    assert answer.mimetype == "application/problem+json"


def test_token_is_good_for_so_many_nodes(client: FlaskClient, token: str) -> None:
    statuses = [client.post("/node/v1/enrol", json=ask(token)).status_code for _ in range(3)]
    assert statuses == [201, 201, 403]


def test_same_key_again_is_the_same_node(client: FlaskClient, token: str) -> None:
    request = certificate_request(ec.generate_private_key(ec.SECP256R1()))
    first, again = (
        client.post("/node/v1/enrol", json=ask(token, csr_pem=request)).get_json() for _ in range(2)
    )
    assert first["node_id"] == again["node_id"]


def test_listener_offers_nothing_else(client: FlaskClient) -> None:
    assert client.get("/").status_code == 404
    assert client.get("/fleet/").status_code == 404
    assert client.get("/node/v1/enrol").status_code == 405


def test_a_bench_is_told_what_is_stored_of_the_node_that_it_enrolled(
    client: FlaskClient, session: Session, token: str
) -> None:
    node_id = client.post("/node/v1/enrol", json=ask(token)).get_json()["node_id"]
    asked = {"token": token, "node_id": node_id}
    before = client.post("/node/v1/heard", json=asked)
    assert (before.status_code, before.headers["Cache-Control"]) == (200, "no-store")
    assert before.get_json() == {
        "node_id": node_id,
        "label": "tree-01",
        "packs": 0,
        "first_stored_at": None,
        "readings": [],
    }

    for seq, resistance in ((1, 9085), (2, 9000)):
        payload = encode_pack(
            node_id=node_id,
            spool=7,
            oldest=1,
            seq=seq,
            power_up=1,
            uptime_ms=seq * 1000,
            time_utc_s=None,
            readings=[("r30", resistance, None), ("t30", None, "absent")],
        )
        message = ingest.Message(TopicKind.TELEMETRY, node_id, payload)
        ingest.store_batch(session, [message], now=clock.now())
    # A token that is used up still may ask.
    client.post("/node/v1/enrol", json=ask(token))
    after = client.post("/node/v1/heard", json=asked).get_json()
    assert after["packs"] == 2
    assert datetime.fromisoformat(after["first_stored_at"]).tzinfo is not None
    assert after["readings"] == [
        {"channel": "r30", "raw_value": 9085.0, "status": None},
        {"channel": "t30", "raw_value": None, "status": "absent"},
    ]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"token": "wrong"}, 403),
        ({"node_id": "n-nobody"}, 404),
        ({"node_id": None}, 400),
        ({"token": 5}, 400),
    ],
)
def test_what_is_stored_of_a_node_is_told_to_nobody_without_a_token(
    client: FlaskClient, token: str, changed: dict[str, Any], status: int
) -> None:
    node_id = client.post("/node/v1/enrol", json=ask(token)).get_json()["node_id"]
    answer = client.post("/node/v1/heard", json={"token": token, "node_id": node_id} | changed)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


def test_a_token_that_has_expired_tells_nothing(
    client: FlaskClient, session: Session, token: str
) -> None:
    node_id = client.post("/node/v1/enrol", json=ask(token)).get_json()["node_id"]
    old = enrolment.create_token(session, uses=1, now=clock.now() - timedelta(hours=25))
    answer = client.post("/node/v1/heard", json={"token": old, "node_id": node_id})
    assert answer.status_code == 403
