"""Giving a node its identity: tokens for the bench, node ids, certificates, and the rows that every node has from then on."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, Refused
from fleet_server.models import Configuration, EnrolmentToken, Node, NodeStatus, Receipt
from fleet_server.models.outbox import DESIRED, RECEIPT
from fleet_server.models.receipt import NO_SPOOL
from fleet_server.services import auditing, authority, layering, node_life, outbox
from fleet_server.wire.configuration import PUBLISH_S, WIFI, sha256_hex
from fleet_server.wire.states import NodeState
from hardware import catalogue

DEFAULT_TOKEN_LIFETIME = timedelta(hours=24)
LABEL_MAX_LENGTH = 64
_NODE_ID_BYTES = 3
# 16.7 million ids: even with a million nodes, 20 draws fail once in 10²⁴ enrolments.
_DRAWS = 20


class TokenRefused(Refused):
    """The enrolment token is unknown, used up or expired. Which of these is not told to who has no token."""

    code = "enrolment_token_refused"


class EnrolmentWrong(Invalid):
    """What the bench sent cannot become a node."""

    code = "enrolment_wrong"


class KeyInUse(Conflict):
    """Another node has this key."""

    code = "key_in_use"


@dataclass(frozen=True)
class EnrolledNode:
    """What the bench writes to the node's flash."""

    node_id: str
    certificate_pem: str
    ca_pem: tuple[str, ...]
    """Authorities that the node pins: the current one and, while it changes, the next."""


def create_token(
    session: Session,
    *,
    uses: int,
    now: datetime,
    lifetime: timedelta = DEFAULT_TOKEN_LIFETIME,
    note: str = "",
) -> str:
    """A token for `uses` enrolments. It is shown this once; only its hash is kept. Committed on return."""
    if uses < 1:
        raise EnrolmentWrong("A token must be good for at least one node.")
    token = secrets.token_urlsafe(24)
    with db.writing(session):
        row = EnrolmentToken(
            token_sha256=_sha256_hex(token.encode()),
            note=note,
            uses_left=uses,
            created_at=now,
            expires_at=now + lifetime,
        )
        session.add(row)
        session.flush()
        auditing.record(
            session, "token_made", subject=f"token {row.id}", now=now, uses=uses, note=note
        )
    return token


def enrol_node(
    session: Session,
    *,
    token: str,
    label: str,
    model: str,
    csr_pem: str,
    ca_dir: Path,
    now: datetime,
) -> EnrolledNode:
    """Give the node that holds the request's key its id and certificate. Committed on return.

    Safe to repeat: the same key with the same label and model gets the identity that it already has, and uses no token up.

    Raises:
        TokenRefused: the token is not good (any more).
        EnrolmentWrong: label or node model cannot be.
        RequestWrong: the certificate request is not one for an EC P-256 key.
        KeyInUse: the key belongs to a node of another label or model.
    """
    check_label_and_model(label, model)
    key_sha256 = _key_sha256(csr_pem)
    with db.writing(session):
        token_id = _use_token(session, token, now)
        known = session.scalar(select(Node).where(Node.public_key_sha256 == key_sha256))
        if known is not None:
            return _already_enrolled(session, known, token_id, label, model, ca_dir)
        node = _node_to_enrol(session, label, model, now=now)
        certificate = authority.sign_node_request(ca_dir, csr_pem, node_id=node.node_id)
        node.enrolled_at = now
        node.enrolment_token_id = token_id
        node.public_key_sha256 = key_sha256
        node.certificate_serial = f"{certificate.serial:x}"
        node.certificate_pem = certificate.pem
        node.certificate_expires_at = certificate.not_after
        node_life.pass_on(
            session,
            node,
            NodeState.ENROLLING,
            now=now,
            by=f"token {token_id}",
            label=label,
            model=model,
            certificate=f"{certificate.serial:x}",
        )
        mark_everything_of_a_node(session, node.node_id, now=now)
    return EnrolledNode(node.node_id, certificate.pem, tuple(authority.trust_anchors_pem(ca_dir)))


def registered_node(session: Session, label: str) -> Node | None:
    """The node of this label that is on the list and was not enrolled yet."""
    waiting = select(Node).where(
        Node.label == label, Node.state.in_((NodeState.REGISTERED, NodeState.FLASHED))
    )
    return session.scalars(waiting.with_for_update().limit(1)).first()


def add_companion_rows(session: Session, node_id: str, model: str, *, now: datetime) -> None:
    """The rows of a node that has its identity, and both retained messages due."""
    add_rows_of_a_node(session, node_id, model, now=now)
    mark_everything_of_a_node(session, node_id, now=now)


def add_rows_of_a_node(session: Session, node_id: str, model: str, *, now: datetime) -> None:
    """The rows that every node has from its registration on: status, receipt, configuration."""
    settings = layering.first_settings(session, node_id, model)
    network = settings[WIFI][0][0] if WIFI in settings else None
    session.add_all(
        [
            NodeStatus(node_id=node_id, publish_s=settings[PUBLISH_S], network=network),
            Receipt(node_id=node_id, spool=NO_SPOOL, seq=0, highest_seq=0),
            Configuration(
                node_id=node_id,
                version=1,
                settings=settings,
                sha256=sha256_hex(1, settings),
                changed_at=now,
            ),
        ]
    )
    session.flush()


def mark_everything_of_a_node(session: Session, node_id: str, *, now: datetime) -> None:
    """Both retained messages are due, so that a node that finds none knows that something is wrong."""
    outbox.mark_changed(session, RECEIPT, [node_id], now=now)
    outbox.mark_changed(session, DESIRED, [node_id], now=now)


def check_label(label: str) -> None:
    """Raises EnrolmentWrong when no node can be called so."""
    if not 1 <= len(label) <= LABEL_MAX_LENGTH or not label.isprintable():
        raise EnrolmentWrong(f"A label has 1 to {LABEL_MAX_LENGTH} printable characters.")


def check_label_and_model(label: str, model: str) -> None:
    """Raises EnrolmentWrong for what no node can be called or be."""
    check_label(label)
    if model not in catalogue.node_model_ids():
        known = ", ".join(catalogue.node_model_ids())
        raise EnrolmentWrong(f"{model!r} is not a node model; there are {known}.")
    try:
        catalogue.load_node_model(model)
    except catalogue.CatalogueError as mistake:
        raise EnrolmentWrong(str(mistake)) from mistake


def _node_to_enrol(session: Session, label: str, model: str, *, now: datetime) -> Node:
    """The row that was registered under this label, else a new one."""
    waiting = registered_node(session, label)
    if waiting is not None:
        if waiting.model != model:
            raise EnrolmentWrong(
                f"{label} is registered as {waiting.model}, not as {model}; build that, or use another label."
            )
        return waiting
    node = Node(
        node_id=new_node_id(session),
        label=label,
        model=model,
        state=NodeState.REGISTERED,
        state_since=now,
    )
    session.add(node)
    session.flush()
    add_rows_of_a_node(session, node.node_id, model, now=now)
    return node


def _use_token(session: Session, token: str, now: datetime) -> int:
    used = session.execute(
        update(EnrolmentToken)
        .where(
            EnrolmentToken.token_sha256 == _sha256_hex(token.encode()),
            EnrolmentToken.uses_left > 0,
            EnrolmentToken.expires_at > now,
        )
        .values(uses_left=EnrolmentToken.uses_left - 1)
        .returning(EnrolmentToken.id)
    ).scalar()
    if used is None:
        raise TokenRefused("The enrolment token is not valid (any more); ask for a new one.")
    return used


def _already_enrolled(
    session: Session, node: Node, token_id: int, label: str, model: str, ca_dir: Path
) -> EnrolledNode:
    if (node.label, node.model) != (label, model) or node.certificate_pem is None:
        raise KeyInUse(f"This key belongs to node {node.node_id} ({node.label}, {node.model}).")
    session.execute(
        update(EnrolmentToken)
        .where(EnrolmentToken.id == token_id)
        .values(uses_left=EnrolmentToken.uses_left + 1)
    )
    anchors = tuple(authority.trust_anchors_pem(ca_dir))
    return EnrolledNode(node.node_id, node.certificate_pem, anchors)


def new_node_id(session: Session) -> str:
    """An id that no node has or had."""
    for _ in range(_DRAWS):
        node_id = f"n-{secrets.token_hex(_NODE_ID_BYTES)}"
        if session.get(Node, node_id) is None:
            return node_id
    raise Conflict("No free node id was found.")


def _key_sha256(csr_pem: str) -> str:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError) as error:
        raise authority.RequestWrong("This is not a certificate request in PEM format.") from error
    return _sha256_hex(key)


def _sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
