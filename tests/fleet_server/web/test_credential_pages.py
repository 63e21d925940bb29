"""Certificates, tokens and revocation as a person sees and does them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from factories import NOON
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.models import Node
from fleet_server.services import accounts, authority, enrolment, rolling_over
from fleet_server.services.enrolment import TokenRefused
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World, csrf_token, log_in


def request_pem() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    signed = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def enrol(session: Session, token: str, ca_dir: Path, **changed: str) -> str:
    given = {"label": "tree-01", "model": "tree-3", **changed}
    node = enrolment.enrol_node(
        session, token=token, csr_pem=request_pem(), ca_dir=ca_dir, now=clock.now(), **given
    )
    return node.node_id


class Desk:
    """An operator at a desk; the fleet has one node."""

    def __init__(self, client: FlaskClient, sessions: sessionmaker[Session], ca_dir: Path) -> None:
        self.client = client
        self.sessions = sessions
        self.ca_dir = ca_dir
        with sessions() as session:
            token = enrolment.create_token(session, uses=1, now=clock.now())
            self.node_id = enrol(session, token, ca_dir)

    def send(self, page: str, address: str, **fields: str) -> str:
        token = csrf_token(self.client.get(page).text)
        answer = self.client.post(
            address, data={"csrf_token": token, **fields}, follow_redirects=True
        )
        return answer.text


@pytest.fixture
def desk(sessions: sessionmaker[Session], tmp_path: Path) -> Desk:
    authority.initialise(tmp_path / "ca")
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        engine = session.get_bind().engine
    world = World(engine, sessions, engine.url.render_as_string(hide_password=False), tmp_path)
    client = world.app().test_client()
    log_in(client)
    return Desk(client, sessions, tmp_path / "ca")


def test_a_token_is_shown_once_good_for_what_it_says_and_revoked_for_good(desk: Desk) -> None:
    page = desk.send(
        "/fleet/tokens",
        "/fleet/tokens",
        uses="3",
        hours="24",
        model="pond-1",
        note="<b>spring",
    )
    (token,) = re.findall(r"<strong>([\w-]{32})</strong>", page)
    later = desk.client.get("/fleet/tokens").text
    assert token not in later
    assert "&lt;b&gt;spring" in later
    with desk.sessions() as session:
        with pytest.raises(TokenRefused):
            enrol(session, token, desk.ca_dir, model="tree-3")
        enrol(session, token, desk.ca_dir, model="pond-1", label="pond-7")
        number = enrolment.tokens(session, limit=1)[0].id

    page = desk.send("/fleet/tokens", f"/fleet/tokens/{number}/revoke")
    assert f"Token {number} is revoked." in page
    with desk.sessions() as session, pytest.raises(TokenRefused):
        enrol(session, token, desk.ca_dir, model="pond-1", label="pond-8")


def test_a_token_that_cannot_be_is_refused_with_the_form_as_it_was(desk: Desk) -> None:
    page = desk.send("/fleet/tokens", "/fleet/tokens", uses="0", hours="24", note="spring")
    assert "uses wants a whole number from 1 to 10000." in page
    assert 'value="spring"' in page


def test_a_node_is_revoked_by_who_types_its_id_and_says_why(desk: Desk) -> None:
    address = f"/fleet/nodes/{desk.node_id}"
    refused = desk.send(address, f"{address}/revoke", reason="stolen", confirm="n-other")
    assert "once more" in refused
    assert not authority.revoked_serials(desk.ca_dir)

    page = desk.send(address, f"{address}/revoke", reason="stolen", confirm=desk.node_id)

    assert "This node is revoked" in page
    assert "Revoke this node" not in page
    with desk.sessions() as session:
        node = session.get_one(Node, desk.node_id)
        assert node.state == "revoked"
        assert int(node.certificate_serial or "", 16) in authority.revoked_serials(desk.ca_dir)


def test_a_certificate_is_signed_anew_when_a_person_wants_it(desk: Desk) -> None:
    address = f"/fleet/nodes/{desk.node_id}"
    page = desk.send(address, f"{address}/renew-certificate")
    assert "Another certificate is offered" in page
    assert "liegt bereit" in desk.client.get(address, headers={"Accept-Language": "de"}).text


def test_the_page_of_credentials_says_what_ends_when_and_how_far_a_change_of_the_root_is(
    desk: Desk,
) -> None:
    page = desk.client.get("/fleet/credentials").text
    assert "fleet ca lock" in page
    assert "tree-01" in page
    assert "The root changes" not in page

    with desk.sessions() as session:
        token = enrolment.create_token(session, uses=1, now=clock.now())
        rolling_over.begin(session, desk.ca_dir, now=clock.now())
        enrol(session, token, desk.ca_dir, label="tree-02")
    page = desk.client.get("/fleet/credentials").text
    german = desk.client.get("/fleet/credentials", headers={"Accept-Language": "de"}).text

    assert "1 of 2 nodes trust the new root." in page
    assert "fleet ca root switch" in page
    assert "1 von 2 Knoten vertrauen der neuen Wurzel." in german
    for wrong in ("7", "x.y", "99999999999.n-1"):
        assert desk.client.get(f"/fleet/credentials?after={wrong}").status_code == 400
