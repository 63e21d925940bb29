"""A node gets its identity once, and everything it needs from then on."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from factories import NOON
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Configuration, EnrolmentToken, Node, NodeStatus, Outbox, Receipt
from fleet_server.services import authority, enrolment
from fleet_server.services.enrolment import EnrolledNode, EnrolmentWrong, KeyInUse, TokenRefused


@pytest.fixture(scope="module")
def ca_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    authority.initialise(folder)
    return folder


def request_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def enrol(session: Session, ca_dir: Path, token: str, **changes: str) -> EnrolledNode:
    given = {"label": "tree-01", "model": "tree-3", "csr_pem": request_pem(), **changes}
    return enrolment.enrol_node(session, token=token, ca_dir=ca_dir, now=NOON, **given)


def test_enrolled_node_has_its_certificate_and_all_its_rows(session: Session, ca_dir: Path) -> None:
    token = enrolment.create_token(session, uses=1, now=NOON)
    enrolled = enrol(session, ca_dir, token)
    certificate = x509.load_pem_x509_certificate(enrolled.certificate_pem.encode())
    (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common_name.value == enrolled.node_id
    assert enrolled.ca_pem == tuple(authority.trust_anchors_pem(ca_dir))
    node = session.get_one(Node, enrolled.node_id)
    assert (node.label, node.model, node.state) == ("tree-01", "tree-3", "enrolling")
    assert node.certificate_serial == f"{certificate.serial_number:x}"
    assert session.get_one(NodeStatus, enrolled.node_id).last_heard_at is None
    assert session.get_one(Receipt, enrolled.node_id).seq == 0
    assert session.get_one(Configuration, enrolled.node_id).settings == {
        "sample_s": 900,
        "publish_s": 3600,
    }
    due = session.execute(select(Outbox.kind, Outbox.key)).all()
    assert sorted(due) == [("desired", enrolled.node_id), ("receipt", enrolled.node_id)]


def test_token_is_kept_as_its_hash_only(session: Session) -> None:
    token = enrolment.create_token(session, uses=1, now=NOON)
    assert token not in session.scalars(select(EnrolmentToken.token_sha256)).one()


def test_used_up_expired_or_unknown_token_is_refused_alike(session: Session, ca_dir: Path) -> None:
    used = enrolment.create_token(session, uses=1, now=NOON)
    enrol(session, ca_dir, used)
    expired = enrolment.create_token(
        session, uses=1, now=NOON - timedelta(days=2), lifetime=timedelta(days=1)
    )
    sentences = set()
    for token in (used, expired, "guessed"):
        with pytest.raises(TokenRefused) as caught:
            enrol(session, ca_dir, token)
        sentences.add(str(caught.value))
    assert len(sentences) == 1
    assert len(session.scalars(select(Node.node_id)).all()) == 1


def test_enrolment_that_lost_its_answer_can_be_repeated(session: Session, ca_dir: Path) -> None:
    token = enrolment.create_token(session, uses=2, now=NOON)
    csr_pem = request_pem()
    first = enrol(session, ca_dir, token, csr_pem=csr_pem)
    assert enrol(session, ca_dir, token, csr_pem=csr_pem) == first
    assert session.scalars(select(EnrolmentToken.uses_left)).one() == 1
    with pytest.raises(KeyInUse):
        enrol(session, ca_dir, token, csr_pem=csr_pem, label="another")


@pytest.mark.parametrize(
    "changes",
    [{"model": "tree-99"}, {"label": ""}, {"label": "a\nb"}, {"label": "x" * 65}],
)
def test_enrolment_that_cannot_be_is_refused_and_costs_no_use(
    session: Session, ca_dir: Path, changes: dict[str, str]
) -> None:
    token = enrolment.create_token(session, uses=1, now=NOON)
    with pytest.raises(EnrolmentWrong):
        enrol(session, ca_dir, token, **changes)
    assert session.scalars(select(EnrolmentToken.uses_left)).one() == 1


def test_request_that_is_none_is_refused_and_costs_no_use(session: Session, ca_dir: Path) -> None:
    token = enrolment.create_token(session, uses=1, now=NOON)
    with pytest.raises(authority.RequestWrong):
        enrol(session, ca_dir, token, csr_pem="no request")
    assert session.scalars(select(EnrolmentToken.uses_left)).one() == 1
