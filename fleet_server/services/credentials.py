"""Certificates of nodes after enrolment: signed anew for the same key in good time, seen in use, taken back.

A certificate has a name that the node says at each connect. `current` is the one it was last seen with; an `offered` one stands in its
desired state until it is seen; what it replaced stays good for `KEPT_FOR` and is then put on the revocation list, never before the node
was seen with the new one. So a node always has one that is good, whichever of the two it holds.

TLS libraries judge certificates by the machine's clock: `now` is real UTC here, never a demo's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from sqlalchemy import func, select, tuple_, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused
from fleet_server.models import (
    Certificate,
    CertificateState,
    Configuration,
    Node,
    NodeStatus,
    RootState,
    TrustedRoot,
)
from fleet_server.models.outbox import DESIRED
from fleet_server.services import auditing, authority, bulk, node_life, outbox, rights
from fleet_server.services.authority import IssuedCertificate
from fleet_server.wire.credentials import name_of
from fleet_server.wire.states import ConfigState, NodeState

KEPT_FOR = timedelta(days=7)
"""How long a certificate stays good after its node was seen with another one."""
NOT_TRIED_AGAIN_FOR = timedelta(days=7)
"""How long after a node gave up an offered certificate another one is signed."""
ASKED_AGAIN_AFTER = timedelta(hours=1)
"""A node that asks more often gets the same certificate again."""
AT_ONCE = 20
"""In one transaction: each signature is written to disk first, and on SQLite ingest waits for it."""
_NAMED_AT_ONCE = 500
_ON_THE_LIST = "its certificates were on the revocation list already when the database was restored"
_GONE = node_life.OUT_OF_SERVICE
_MAX_REASON = node_life.REASON_MAX_LENGTH


class RenewalRefused(Refused):
    """Who asks is no node that gets a certificate; which of the reasons it is stands in the log, not in the answer."""

    code = "renewal_refused"


class RevocationWrong(Invalid):
    """A revocation that says not why."""

    code = "revocation_wrong"


@dataclass(frozen=True)
class Renewal:
    """What a node is to hold instead of what it has; None: as it has it."""

    certificate: bytes | None
    roots: tuple[bytes, ...] | None


@dataclass(frozen=True)
class Tended:
    """What one pass has done."""

    seen: int = 0
    signed: int = 0
    revoked: int = 0

    def __bool__(self) -> bool:
        return bool(self.seen or self.signed or self.revoked)


@dataclass(frozen=True)
class CredentialsOfNode:
    """The credentials part of a node's page. `roots`: (name, whether it is known here) of those that the node trusts."""

    node_id: str
    state: str
    current: Certificate | None
    offered: Certificate | None
    earlier: Sequence[Certificate]
    said_certificate: str | None
    said_state: str | None
    roots: Sequence[str]
    is_due: bool

    @property
    def certificates(self) -> list[Certificate]:
        """All of them, newest first."""
        known = (self.offered, self.current, *self.earlier)
        return sorted((one for one in known if one), key=lambda one: -one.id)


def enter_issued(
    session: Session,
    node_id: str,
    issued: IssuedCertificate,
    *,
    now: datetime,
    state: CertificateState = CertificateState.CURRENT,
) -> Certificate:
    """Note a certificate that was just signed, in the caller's transaction."""
    der = x509.load_pem_x509_certificate(issued.pem.encode()).public_bytes(Encoding.DER)
    row = Certificate(
        node_id=node_id,
        name=name_of(der),
        serial=f"{issued.serial:x}",
        der=der,
        issued_at=now,
        renew_at=now + (issued.not_after - now) * 2 / 3,
        expires_at=issued.not_after,
        state=state,
        changed_at=now,
    )
    session.add(row)
    session.flush()
    return row


def tend(session: Session, ca_dir: Path, *, now: datetime, limit: int = AT_ONCE) -> Tended:
    """One pass over all nodes: note which certificates are in use, sign those that are due, take back what was replaced.

    At most `limit` of each, oldest first, so that no pass holds others up for long. Committed on return, each of the three by itself;
    safe to repeat, also after a crash half-way.

    Raises:
        AuthorityMissing: the authority lives on another machine; its worker does this.
        FleetError: its keys cannot be used.
    """
    return Tended(
        seen=note_in_use(session, now=now, limit=limit),
        signed=renew_due(session, ca_dir, now=now, limit=limit),
        revoked=revoke_replaced(session, ca_dir, now=now, limit=limit),
    )


def note_in_use(session: Session, *, now: datetime, limit: int = AT_ONCE) -> int:
    """Make current what nodes say that they connect with; the one before is superseded. Returns how many. Committed on return."""
    query = (
        select(Certificate)
        .join(NodeStatus, NodeStatus.node_id == Certificate.node_id)
        .where(
            Certificate.state.in_((CertificateState.OFFERED, CertificateState.SUPERSEDED)),
            Certificate.name == NodeStatus.certificate,
            # In the talk in which it was told, it still says the one before; on trial it may go back.
            NodeStatus.credential_state != ConfigState.TRIAL,
        )
        .order_by(Certificate.id)
        .limit(limit)
    )
    with db.writing(session):
        found = session.scalars(query).all()
        for certificate in found:
            _make_current(session, certificate, now=now)
        if found:
            node_ids = [certificate.node_id for certificate in found]
            outbox.mark_changed(session, DESIRED, node_ids, now=now)
    return len(found)


def renew_due(session: Session, ca_dir: Path, *, now: datetime, limit: int = AT_ONCE) -> int:
    """Sign anew what has lived two thirds of its life, for the same key, and offer it. Returns how many. Committed on return.

    An offer that the node gave up is followed by another after a while; one that waits until it is itself due, too.
    """
    offered = (
        select(Certificate.node_id)
        .where(
            Certificate.state == CertificateState.OFFERED,
            Certificate.renew_at > now,
        )
        .scalar_subquery()
    )
    given_up = (
        select(Certificate.node_id)
        .join(NodeStatus, NodeStatus.node_id == Certificate.node_id)
        .where(
            Certificate.state == CertificateState.OFFERED,
            NodeStatus.credential_state.in_((ConfigState.ROLLED_BACK, ConfigState.REFUSED)),
            Certificate.changed_at <= now - NOT_TRIED_AGAIN_FOR,
        )
        .scalar_subquery()
    )
    query = (
        select(Certificate)
        .join(Node, Node.node_id == Certificate.node_id)
        .where(
            Certificate.state == CertificateState.CURRENT,
            Certificate.renew_at <= now,
            Node.state.not_in(_GONE),
            Certificate.node_id.not_in(offered) | Certificate.node_id.in_(given_up),
        )
        .order_by(Certificate.renew_at)
        .limit(limit)
        .with_for_update(of=Node, skip_locked=True)
    )
    with db.writing(session):
        due = session.scalars(query).all()
        for certificate in due:
            _offer_another(session, ca_dir, certificate, now=now)
    return len(due)


def revoke_replaced(session: Session, ca_dir: Path, *, now: datetime, limit: int = AT_ONCE) -> int:
    """Put certificates on the revocation list whose nodes were seen with another one since `KEPT_FOR`. Committed on return.

    Only while the node's last word is that it holds the current one.
    """
    current = select(Certificate.node_id, Certificate.name).where(
        Certificate.state == CertificateState.CURRENT
    )
    query = (
        select(Certificate)
        .join(NodeStatus, NodeStatus.node_id == Certificate.node_id)
        .where(
            Certificate.state == CertificateState.SUPERSEDED,
            Certificate.changed_at <= now - KEPT_FOR,
            tuple_(NodeStatus.node_id, NodeStatus.certificate).in_(current),
        )
        .order_by(Certificate.changed_at)
        .limit(limit)
    )
    with db.writing(session):
        replaced = session.scalars(query).all()
        if not replaced:
            return 0
        # The list first: what the database calls revoked is on it.
        authority.revoke_node_serials(ca_dir, [int(one.serial, 16) for one in replaced], now=now)
        for certificate in replaced:
            certificate.state, certificate.changed_at = CertificateState.REVOKED, now
    return len(replaced)


def renew_node(session: Session, node_id: str, ca_dir: Path, *, now: datetime) -> Certificate:
    """Offer a node another certificate for its key now, whether it is due or not. Committed on return.

    Raises:
        NotFound: no such node, or it was enrolled without a certificate.
        RenewalRefused: it is retired or revoked.
    """
    with db.writing(session):
        node = _node(session, node_id, is_locked=True)
        current = _of_node(session, node_id, CertificateState.CURRENT)
        if current is None or node.state in _GONE:
            raise RenewalRefused(
                "Node %(node_id)s is %(state)s; it gets no certificate.",
                node_id=node_id,
                state=NodeState(node.state),
            )
        return _offer_another(session, ca_dir, current, now=now)


def renew_for_bearer(
    session: Session, presented_der: bytes, ca_dir: Path, *, now: datetime
) -> Renewal:
    """What a node needs that asks with its own key and certificate, whose date is not looked at. Committed on return.

    The caller's TLS has seen that the certificate was signed by the fleet and that the node holds its key. A node that asks again
    gets what it was offered, not another one.

    Raises:
        RenewalRefused: its key is not the one that is registered for the node of this name, or it was revoked.
    """
    presented = x509.load_der_x509_certificate(presented_der)
    with db.writing(session):
        node = _node_with_key_of(session, presented)
        if node is None or not _may_renew(session, node, presented, ca_dir):
            raise RenewalRefused("This certificate is not renewed; the node must be enrolled anew.")
        known = _entered(session, node, presented, now=now)
        wanted = _wanted_certificate(session, known, ca_dir, now=now)
    status = session.get_one(NodeStatus, known.node_id)
    return Renewal(
        certificate=None if wanted.id == known.id else wanted.der,
        roots=roots_to_tell(roots_to_trust(session), status.roots, is_lost=True),
    )


def revoke_node(
    session: Session, node_id: str, reason: str, ca_dir: Path, *, now: datetime
) -> list[str]:
    """Take a node out for good: its certificates are revoked, what it says is stored no more. Returns their serials.

    The broker that we run ends its session within a second. Committed on return; safe to repeat after a crash half-way.

    Raises:
        NotFound: no such node.
        RevocationWrong: no reason, or a longer one than anybody reads.
        WayClosed: it has no identity yet.
        FleetError: the authority cannot sign the list; then nothing has changed.
    """
    reason = " ".join(reason.split())
    if not 1 <= len(reason) <= _MAX_REASON:
        raise RevocationWrong(
            "A revocation wants a reason of 1 to %(longest)s characters.", longest=_MAX_REASON
        )
    with db.writing(session):
        node = _node(session, node_id, is_locked=True)
        certificates = session.scalars(
            select(Certificate).where(Certificate.node_id == node_id).order_by(Certificate.id)
        ).all()
        # The authority may have signed more than a database says that was restored since.
        numbers = {int(certificate.serial, 16) for certificate in certificates}
        numbers |= authority.serials_by_name(ca_dir).get(node_id, set())
        serials = [f"{number:x}" for number in sorted(numbers)]
        authority.revoke_node_serials(ca_dir, numbers, now=now)
        for certificate in certificates:
            if certificate.state != CertificateState.REVOKED:
                certificate.state, certificate.changed_at = CertificateState.REVOKED, now
        session.execute(
            update(Configuration)
            .where(Configuration.node_id == node_id)
            .values(renewed_certificate=None)
        )
        if node.state != NodeState.REVOKED:
            node_life.pass_on(
                session, node, NodeState.REVOKED, now=now, reason=reason, certificates=serials
            )
    return serials


def follow_list(session: Session, ca_dir: Path, *, now: datetime) -> list[str]:
    """Take out the nodes whose every certificate is on the revocation list: they were revoked after the backup from which the database
    came. Returns their ids. Committed on return; safe to repeat.

    Raises:
        AuthorityMissing: the authority lives on another machine.
    """
    revoked = authority.revoked_serials(ca_dir)
    by_name = authority.serials_by_name(ca_dir)
    gone = sorted(name for name, serials in by_name.items() if serials <= revoked)
    with db.writing(session):
        nodes = [
            node
            for some in bulk.chunks(gone, _NAMED_AT_ONCE)
            for node in session.scalars(
                select(Node).where(Node.node_id.in_(some), Node.state != NodeState.REVOKED)
            )
        ]
        for node in nodes:
            session.execute(
                update(Certificate)
                .where(Certificate.node_id == node.node_id)
                .values(state=CertificateState.REVOKED, changed_at=now)
            )
            _offer(session, node.node_id, None)
            node_life.pass_on(
                session, node, NodeState.REVOKED, now=now, reason=_ON_THE_LIST, certificates=[]
            )
    return [node.node_id for node in nodes]


def credentials_of(session: Session, node_id: str, *, now: datetime) -> CredentialsOfNode:
    """What a node's page says of its certificates. Three statements.

    Raises:
        NotFound: no such node, or it is out of scope.
    """
    node = _node(session, node_id)
    status = session.get_one(NodeStatus, node_id)
    certificates = session.scalars(
        select(Certificate).where(Certificate.node_id == node_id).order_by(Certificate.id.desc())
    ).all()
    by_state = {certificate.state: certificate for certificate in certificates}
    current = by_state.get(CertificateState.CURRENT)
    return CredentialsOfNode(
        node_id=node_id,
        state=node.state,
        current=current,
        offered=by_state.get(CertificateState.OFFERED),
        earlier=[
            one
            for one in certificates
            if one.state in (CertificateState.SUPERSEDED, CertificateState.REVOKED)
        ],
        said_certificate=status.certificate,
        said_state=status.credential_state,
        roots=(status.roots or "").split(),
        is_due=current is not None and current.renew_at <= now,
    )


@dataclass(frozen=True)
class ExpiryRow:
    """A node in the list of those whose certificate ends first."""

    node_id: str
    label: str
    expires_at: datetime
    is_offered: bool
    last_heard_at: datetime | None


def next_to_expire(
    session: Session, *, limit: int, after: tuple[datetime, str] | None = None
) -> list[ExpiryRow]:
    """Nodes in the order in which their certificates end; `after`: the last row of the page before. One statement."""
    offered = (
        select(func.count())
        .where(Certificate.node_id == Node.node_id, Certificate.state == CertificateState.OFFERED)
        .correlate(Node)
        .scalar_subquery()
    )
    query = (
        select(
            Node.node_id,
            Node.label,
            Node.certificate_expires_at,
            offered,
            NodeStatus.last_heard_at,
        )
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(Node.certificate_expires_at.is_not(None), Node.state.not_in(_GONE))
        .order_by(Node.certificate_expires_at, Node.node_id)
        .limit(limit)
    )
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Node.model.in_(models))
    if after is not None:
        query = query.where(tuple_(Node.certificate_expires_at, Node.node_id) > after)
    return [
        ExpiryRow(node_id, label, expires_at, bool(count), heard_at)
        for node_id, label, expires_at, count, heard_at in session.execute(query)
    ]


def roots_to_trust(session: Session) -> list[TrustedRoot]:
    """What every node is to trust, the one that the broker shows first; empty while no root was ever changed. One statement."""
    order = (RootState.CURRENT, RootState.NEXT, RootState.OLD)
    found = session.scalars(select(TrustedRoot).where(TrustedRoot.state.in_(order))).all()
    return sorted(found, key=lambda root: order.index(RootState(root.state)))


def names_of_roots(anchors: Iterable[str]) -> str:
    """The names of roots in PEM, as a node that trusts them would say them."""
    loaded = [x509.load_pem_x509_certificate(pem.encode()) for pem in anchors]
    return " ".join(name_of(root.public_bytes(Encoding.DER)) for root in loaded)


def roots_to_tell(
    wanted: Sequence[TrustedRoot], trusted: str | None, *, is_lost: bool = False
) -> tuple[bytes, ...] | None:
    """What is told to a node that has said that it trusts `trusted`; None: nothing, as it trusts these.

    Args:
        is_lost: It found no way to the broker, so what it once said counts for nothing.
    """
    if not wanted:
        return None
    trusts_these = {root.name for root in wanted} == set((trusted or "").split())
    return None if trusts_these and not is_lost else tuple(root.der for root in wanted)


# ---------------------------------------------------------------------------------------------------------------- private


def _node(session: Session, node_id: str, *, is_locked: bool = False) -> Node:
    """`is_locked`: nobody else changes its certificates until the transaction ends."""
    node = session.get(Node, node_id, with_for_update=is_locked or None)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, node.model, node_id=node_id)
    return node


def _of_node(session: Session, node_id: str, state: CertificateState) -> Certificate | None:
    return session.scalar(
        select(Certificate).where(Certificate.node_id == node_id, Certificate.state == state)
    )


def _make_current(session: Session, certificate: Certificate, *, now: datetime) -> None:
    node = session.get_one(Node, certificate.node_id, with_for_update=True)
    before = _of_node(session, certificate.node_id, CertificateState.CURRENT)
    if before is not None:
        before.state, before.changed_at = CertificateState.SUPERSEDED, now
        session.flush()  # two cannot be current, not even for a moment
    certificate.state, certificate.changed_at = CertificateState.CURRENT, now
    node.certificate_serial = certificate.serial
    node.certificate_expires_at = certificate.expires_at
    node.certificate_pem = (
        x509.load_der_x509_certificate(certificate.der).public_bytes(Encoding.PEM).decode()
    )
    _offer(session, certificate.node_id, None)
    session.flush()
    auditing.record(
        session,
        "certificate_in_use",
        subject=f"node {certificate.node_id}",
        now=now,
        certificate=certificate.serial,
        replaces=None if before is None else before.serial,
    )


def _offer_another(
    session: Session, ca_dir: Path, current: Certificate, *, now: datetime
) -> Certificate:
    """Sign the key of the current certificate once more and put it into the desired state."""
    node_id = current.node_id
    issued = authority.sign_node_again(ca_dir, current.der, node_id=node_id, now=now)
    waiting = _of_node(session, node_id, CertificateState.OFFERED)
    if waiting is not None:
        waiting.state, waiting.changed_at = CertificateState.SUPERSEDED, now
        session.flush()
    offered = enter_issued(session, node_id, issued, now=now, state=CertificateState.OFFERED)
    _offer(session, node_id, offered.der)
    outbox.mark_changed(session, DESIRED, [node_id], now=now)
    auditing.record(
        session,
        "certificate_renewed",
        subject=f"node {node_id}",
        now=now,
        certificate=offered.serial,
        for_the_key_of=current.serial,
    )
    return offered


def _offer(session: Session, node_id: str, der: bytes | None) -> None:
    session.execute(
        update(Configuration)
        .where(Configuration.node_id == node_id)
        .values(renewed_certificate=der)
    )


def _node_with_key_of(session: Session, presented: x509.Certificate) -> Node | None:
    key = presented.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return session.scalar(
        select(Node)
        .where(Node.public_key_sha256 == hashlib.sha256(key).hexdigest())
        .with_for_update()
    )


def _may_renew(session: Session, node: Node, presented: x509.Certificate, ca_dir: Path) -> bool:
    names = [name.value for name in presented.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    known = _with_serial(session, presented.serial_number)
    return (
        names == [node.node_id]
        and node.state not in _GONE
        and (known is None or known.state != CertificateState.REVOKED)
        and presented.serial_number not in authority.revoked_serials(ca_dir)
    )


def _with_serial(session: Session, serial: int) -> Certificate | None:
    return session.scalar(select(Certificate).where(Certificate.serial == f"{serial:x}"))


def _entered(
    session: Session, node: Node, presented: x509.Certificate, *, now: datetime
) -> Certificate:
    """The presented certificate as it stands here. One that was signed after the backup from which the database came is entered."""
    known = _with_serial(session, presented.serial_number)
    if known is not None:
        return known
    issued = IssuedCertificate(
        node.node_id,
        presented.serial_number,
        presented.not_valid_after_utc,
        presented.public_bytes(Encoding.PEM).decode(),
    )
    return enter_issued(session, node.node_id, issued, now=now, state=CertificateState.SUPERSEDED)


def _wanted_certificate(
    session: Session, known: Certificate, ca_dir: Path, *, now: datetime
) -> Certificate:
    """What is offered, when that lasts or was signed just now; else the current one while it lasts; else another."""
    offered = _of_node(session, known.node_id, CertificateState.OFFERED)
    if offered is not None and (
        now < offered.renew_at or now < offered.issued_at + ASKED_AGAIN_AFTER
    ):
        return offered
    current = _of_node(session, known.node_id, CertificateState.CURRENT)
    if current is not None and now < current.renew_at:
        return current
    return _offer_another(session, ca_dir, current or known, now=now)
