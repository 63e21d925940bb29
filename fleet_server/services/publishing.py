"""What must go out to the nodes: changed receipts and desired states, claimed from the outbox and read fresh.

Which changes happened is coalesced to one row per kind and node. What is published is read when it is claimed, and one
publisher at a time holds a row, so a node never sees a receipt go back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Update, func, or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Unavailable
from fleet_server.models import Configuration, Node, NodeStatus, Outbox, Receipt
from fleet_server.models.outbox import DESIRED, RECEIPT
from fleet_server.services import assigning, commanding, configuring, credentials
from fleet_server.services.configuring import SecretKey, no_secret_key
from fleet_server.services.outbox import mark_changed
from fleet_server.wire import desired
from fleet_server.wire.desired import DesiredState
from fleet_server.wire.topics import TopicKind

log = structlog.get_logger(__name__)

# A publisher that has not confirmed within this time is taken for dead. Confirming takes milliseconds.
LEASE_S = 15

_TOPICS = {RECEIPT: TopicKind.RECEIPT, DESIRED: TopicKind.DESIRED}


@dataclass(frozen=True)
class DueMessage:
    """One retained message to publish; hand it to `mark_published` when the broker has it."""

    kind: TopicKind
    node_id: str
    payload: bytes
    version: int


def claim_due(
    session: Session,
    *,
    wall_now: datetime,
    limit: int = 500,
    now: datetime | None = None,
    secret_key: SecretKey = no_secret_key,
) -> list[DueMessage]:
    """Claim up to `limit` changed states, oldest first, and read what they are now. Committed on return.

    A claim ends with `mark_published`, or by itself after `LEASE_S`; then the row is due again.

    Args:
        now: The fleet's time, by which commands expire; by default the wall clock's.
        secret_key: Under which passwords of Wi-Fi networks were sealed.
    """
    with db.writing(session):
        due = (
            select(Outbox.kind, Outbox.key)
            .where(
                Outbox.published_version < Outbox.version,
                or_(Outbox.claimed_until.is_(None), Outbox.claimed_until <= wall_now),
            )
            .order_by(Outbox.changed_at)
            .limit(limit)
            .with_for_update(skip_locked=True)  # nothing on SQLite, which has one writer anyway
        )
        keys = session.execute(due).all()
        if not keys:
            return []
        claimed = []
        for kind in _TOPICS:
            node_ids = [key for row_kind, key in keys if row_kind == kind]
            if not node_ids:
                continue
            rows = session.execute(
                update(Outbox)
                .where(Outbox.kind == kind, Outbox.key.in_(node_ids))
                .values(claimed_until=wall_now + timedelta(seconds=LEASE_S))
                .returning(Outbox.key, Outbox.version)
            ).all()
            versions = {row.key: row.version for row in rows}
            payloads = _payloads(
                session, kind, node_ids, now=now or wall_now, secret_key=secret_key
            )
            claimed += [
                DueMessage(_TOPICS[kind], node_id, payloads[node_id], versions[node_id])
                for node_id in node_ids
                if node_id in payloads
            ]
        return claimed


def _payloads(
    session: Session, kind: str, node_ids: list[str], *, now: datetime, secret_key: SecretKey
) -> dict[str, bytes]:
    if kind == DESIRED:
        states = desired_states(session, node_ids, now=now, secret_key=secret_key)
        return {node_id: desired.encode_desired(state) for node_id, state in states.items()}
    rows = session.execute(
        select(Receipt.node_id, Receipt.spool, Receipt.seq).where(Receipt.node_id.in_(node_ids))
    )
    return {
        node_id: desired.encode_receipt(desired.Receipt(spool=spool, seq=seq))
        for node_id, spool, seq in rows
    }


def desired_states(
    session: Session, node_ids: Sequence[str], *, now: datetime, secret_key: SecretKey
) -> Mapping[str, DesiredState]:
    """What these nodes shall be and do. Left out are nodes that are not registered, and those whose passwords cannot be read:
    they keep what they were told.
    """
    rows = session.execute(
        select(
            Configuration.node_id,
            Configuration.version,
            Configuration.settings,
            Configuration.renewed_certificate,
            NodeStatus.roots,
        )
        .join(NodeStatus, NodeStatus.node_id == Configuration.node_id)
        .where(Configuration.node_id.in_(node_ids))
    )
    roots = credentials.roots_to_trust(session)
    orders = commanding.pending_orders(session, node_ids, now=now)
    releases = assigning.releases_to_tell(session, node_ids)
    states = {}
    for node_id, version, settings, certificate, trusted in rows:
        try:
            values = configuring.opened_settings(node_id, settings, secret_key=secret_key)
        except Unavailable as broken:
            log.error("desired_state_not_published", node_id=node_id, reason=str(broken))
            continue
        states[node_id] = DesiredState(
            config_version=version,
            config_values=values,
            release=releases.get(node_id),
            commands=tuple(orders.get(node_id, ())),
            certificate=certificate,
            roots=credentials.roots_to_tell(roots, trusted),
        )
    return states


def mark_published(session: Session, messages: Iterable[DueMessage]) -> None:
    """The broker has these. A change that came in between stays due. Safe to repeat."""
    with db.writing(session):
        for message in messages:
            session.execute(
                _still_unpublished(message).values(
                    published_version=message.version, claimed_until=None
                )
            )


def mark_everything_changed(session: Session, *, now: datetime) -> int:
    """Publish all states of all nodes again: after the broker lost its memory. Returns how many nodes. Committed on return."""
    with db.writing(session):
        node_ids = list(session.scalars(select(Node.node_id)))
        for kind in _TOPICS:
            mark_changed(session, kind, node_ids, now=now)
        session.execute(update(Outbox).values(claimed_until=None))
    return len(node_ids)


def count_due(session: Session) -> int:
    """How many states wait to be published."""
    waiting = select(func.count()).where(Outbox.published_version < Outbox.version)
    return session.scalar(waiting) or 0


def give_back(session: Session, messages: Iterable[DueMessage]) -> None:
    """End the claim on those of these that the broker does not have: they are due again at once. Committed on return."""
    with db.writing(session):
        for message in messages:
            session.execute(_still_unpublished(message).values(claimed_until=None))


def _still_unpublished(message: DueMessage) -> Update:
    """A change of the message's row, unless this version or a later one is out already."""
    kinds = {topic: kind for kind, topic in _TOPICS.items()}
    return update(Outbox).where(
        Outbox.kind == kinds[message.kind],
        Outbox.key == message.node_id,
        Outbox.published_version < message.version,
    )


def published_total(session: Session) -> int:
    """A number that rises with everything published: two equal ones mean the same memory of the same broker."""
    return int(session.scalar(select(func.sum(Outbox.published_version))) or 0)
