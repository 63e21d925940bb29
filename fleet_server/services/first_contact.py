"""Has a node been heard for the first time? Asked by the bench that has just enrolled it, on behalf of a technician."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import EnrolmentToken, Node, Pack, RawReading
from fleet_server.services.enrolment import TokenRefused


@dataclass(frozen=True)
class FirstReading:
    """One channel of the first pack: a value in the driver's raw unit, or the reason why there is none."""

    channel: str
    raw_value: float | None
    status: str | None


@dataclass(frozen=True)
class FirstContact:
    """What is stored of a node; `first_stored_at` is None and `readings` is empty until something is."""

    node_id: str
    label: str
    packs: int
    first_stored_at: datetime | None
    readings: tuple[FirstReading, ...]


def first_contact(session: Session, *, token: str, node_id: str, now: datetime) -> FirstContact:
    """What the fleet has stored of a node, for who bears a token that has not expired, used up or not. Reads only.

    Raises:
        TokenRefused: the token is none, or has expired.
        NotFound: there is no such node.
    """
    token_sha256 = hashlib.sha256(token.encode()).hexdigest()
    known = select(EnrolmentToken.id).where(
        EnrolmentToken.token_sha256 == token_sha256, EnrolmentToken.expires_at > now
    )
    if session.scalar(known) is None:
        raise TokenRefused("The enrolment token is not valid (any more); ask for a new one.")
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    packs = session.scalar(select(func.count()).where(Pack.node_id == node_id)) or 0
    first = session.scalar(
        select(Pack)
        .where(Pack.node_id == node_id, Pack.kind == "telemetry")
        .order_by(Pack.stored_at, Pack.seq)
        .limit(1)
    )
    return FirstContact(
        node_id=node_id,
        label=node.label,
        packs=packs,
        first_stored_at=None if first is None else first.stored_at,
        readings=() if first is None else _readings(session, first.id),
    )


def _readings(session: Session, pack_id: int) -> tuple[FirstReading, ...]:
    rows = session.scalars(
        select(RawReading).where(RawReading.pack_id == pack_id).order_by(RawReading.channel)
    )
    return tuple(FirstReading(row.channel, row.raw_value, row.status) for row in rows)
