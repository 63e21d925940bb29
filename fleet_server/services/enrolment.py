"""Giving a node its identity: tokens for the bench, node ids, certificates, and the rows that every node has from then on."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import Configuration, EnrolmentToken, Node, NodeStatus, Receipt
from fleet_server.models.outbox import DESIRED, RECEIPT
from fleet_server.models.receipt import NO_SPOOL
from fleet_server.services import (
    auditing,
    authority,
    credentials,
    keyset,
    layering,
    node_life,
    outbox,
    rights,
)
from fleet_server.wire.configuration import PUBLISH_S, WIFI, sha256_hex
from fleet_server.wire.states import NodeState
from hardware import catalogue

DEFAULT_TOKEN_LIFETIME = timedelta(hours=24)
LABEL_MAX_LENGTH = 64
MOST_USES = 10_000
NOTE_MAX_LENGTH = 200
_NEWEST_FIRST = keyset.Sorting((EnrolmentToken.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class
_NODE_ID_BYTES = 3
# 16.7 million ids: even with a million nodes, 20 draws fail once in 10²⁴ enrolments.
_DRAWS = 20


class TokenRefused(Refused):
    """The enrolment token is unknown, used up, expired, revoked or for another node. Which of these is not told to who has no token."""

    code = "enrolment_token_refused"


class EnrolmentWrong(Invalid):
    """What the bench sent cannot become a node."""

    code = "enrolment_wrong"


class KeyInUse(Conflict):
    """Another node has this key."""

    code = "key_in_use"


class TokenStanding(StrEnum):
    """Whether a token is still good."""

    GOOD = "good"
    USED_UP = "used_up"
    EXPIRED = "expired"
    REVOKED = "revoked"


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
    model: str | None = None,
    label: str | None = None,
) -> str:
    """A token for `uses` enrolments. It is shown this once; only its hash is kept. Committed on return.

    Args:
        model: Only nodes of this model.
        label: Only the node with this label.

    Raises:
        EnrolmentWrong: no such token can be.
    """
    _check_token(uses, note, model, label)
    token = secrets.token_urlsafe(24)
    with db.writing(session):
        row = EnrolmentToken(
            token_sha256=_sha256_hex(token.encode()),
            note=note,
            uses_left=uses,
            created_at=now,
            expires_at=now + lifetime,
            model=model,
            label=label,
            made_by=rights.actor_of(session).name,
        )
        session.add(row)
        session.flush()
        auditing.record(
            session,
            "token_made",
            subject=f"token {row.id}",
            now=now,
            uses=uses,
            note=note,
            model=model,
            label=label,
            until=row.expires_at.isoformat(),
        )
    return token


def tokens(
    session: Session, *, limit: int, before_id: int | None = None
) -> Sequence[EnrolmentToken]:
    """Newest first; `before_id`: the last one of the page before. One statement."""
    query = select(EnrolmentToken).order_by(EnrolmentToken.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(EnrolmentToken.id < before_id)
    return session.scalars(query).all()


def token_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[EnrolmentToken]:
    """The same as pages for programs. One statement."""
    return keyset.page_of(
        session,
        select(EnrolmentToken),
        _NEWEST_FIRST,
        limit=limit,
        after=after,
        made=lambda row: row[0],
    )


def standing_of_token(token: EnrolmentToken, *, now: datetime) -> TokenStanding:
    """Whether a token is still good, and else why not."""
    if token.revoked_at is not None:
        return TokenStanding.REVOKED
    if token.uses_left == 0:
        return TokenStanding.USED_UP
    return TokenStanding.EXPIRED if token.expires_at <= now else TokenStanding.GOOD


def revoke_token(session: Session, token_id: int, *, now: datetime) -> None:
    """Let nobody enrol with a token any more; nodes that it has enrolled stay. Committed on return; safe to repeat.

    Raises:
        NotFound: there is no such token.
    """
    with db.writing(session):
        row = session.get(EnrolmentToken, token_id, with_for_update=True)
        if row is None:
            raise NotFound("There is no token %(token_id)s.", token_id=token_id)
        if row.revoked_at is None:
            row.revoked_at = now
            auditing.record(session, "token_revoked", subject=f"token {token_id}", now=now)


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
        token_id = _use_token(session, token, now, label=label, model=model)
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
        credentials.enter_issued(session, node.node_id, certificate, now=datetime.now(UTC))
        anchors = tuple(authority.trust_anchors_pem(ca_dir))
        session.get_one(NodeStatus, node.node_id).roots = credentials.names_of_roots(anchors)
    return EnrolledNode(node.node_id, certificate.pem, anchors)


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
        raise EnrolmentWrong(
            "A label has 1 to %(longest)s printable characters.", longest=LABEL_MAX_LENGTH
        )


def _check_token(uses: int, note: str, model: str | None, label: str | None) -> None:
    if not 1 <= uses <= MOST_USES:
        raise EnrolmentWrong("A token is good for 1 to %(most)s nodes.", most=MOST_USES)
    if len(note) > NOTE_MAX_LENGTH or not set(note).isdisjoint("\0\r\n"):
        raise EnrolmentWrong(
            "A note is one line of at most %(longest)s characters.", longest=NOTE_MAX_LENGTH
        )
    if label is not None:
        check_label(label)
    if model is not None and model not in catalogue.node_model_ids():
        raise EnrolmentWrong(_no_model(model))


def _no_model(model: str) -> str:
    return f"{model!r} is not a node model; there are {', '.join(catalogue.node_model_ids())}."


def check_label_and_model(label: str, model: str) -> None:
    """Raises EnrolmentWrong for what no node can be called or be."""
    check_label(label)
    if model not in catalogue.node_model_ids():
        raise EnrolmentWrong(_no_model(model))
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
                "%(label)s is registered as %(registered_model)s, not as %(model)s; build that, or use another label.",
                label=label,
                registered_model=waiting.model,
                model=model,
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


def _use_token(session: Session, token: str, now: datetime, *, label: str, model: str) -> int:
    used = session.execute(
        update(EnrolmentToken)
        .where(
            EnrolmentToken.token_sha256 == _sha256_hex(token.encode()),
            EnrolmentToken.uses_left > 0,
            EnrolmentToken.expires_at > now,
            EnrolmentToken.revoked_at.is_(None),
            or_(EnrolmentToken.model.is_(None), EnrolmentToken.model == model),
            or_(EnrolmentToken.label.is_(None), EnrolmentToken.label == label),
        )
        .values(uses_left=EnrolmentToken.uses_left - 1)
        .returning(EnrolmentToken.id)
    ).scalar()
    if used is None:
        raise TokenRefused(
            "The enrolment token is not valid (any more), or is for another node; ask for a new one."
        )
    return used


def _already_enrolled(
    session: Session, node: Node, token_id: int, label: str, model: str, ca_dir: Path
) -> EnrolledNode:
    if (node.label, node.model) != (label, model) or node.certificate_pem is None:
        raise KeyInUse(
            "This key belongs to node %(node_id)s (%(label)s, %(model)s).",
            node_id=node.node_id,
            label=node.label,
            model=node.model,
        )
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
