"""One root takes another's place, or one broker another's, and no node is left behind.

A root in three steps: `begin` tells every node of the next one, `switch` lets the broker show it, `finish` lets the old one go. Each
waits until the nodes have followed, who say at each connect which roots they trust; whoever forces a step can be told beforehand how
many would be left behind. A node that was forced past finds its way by the nodes' own listener, which shows the old root until `finish`
(`credentials.renew_for_bearer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Refused
from fleet_server.models import Node, NodeStatus, RootState, TrustedRoot
from fleet_server.models.outbox import DESIRED
from fleet_server.services import auditing, authority, node_life, outbox, rights
from fleet_server.wire.credentials import name_of

_SHOWN, _NAMED = 20, 5


class NodesMissing(Refused):
    """Nodes have not followed yet; `fields["count"]` says how many."""

    code = "nodes_missing"


class StepWrong(Conflict):
    """Another step of the roll-over is due."""

    code = "roll_over_step_wrong"


@dataclass(frozen=True)
class Straggler:
    """A node that has not followed yet."""

    node_id: str
    label: str
    last_heard_at: datetime | None


@dataclass(frozen=True)
class RollOver:
    """How far a change of the root is. `step`: what is due next, None while nothing changes."""

    roots: Sequence[TrustedRoot]
    step: str | None
    nodes: int
    followed: int
    stragglers: Sequence[Straggler]

    @property
    def missing(self) -> int:
        return self.nodes - self.followed


def begin(session: Session, ca_dir: Path, *, now: datetime) -> str:
    """Make the next root, if there is none yet, and tell every node of it. Returns its name. Committed on return; safe to repeat.

    Raises:
        RollOverUnderWay: the last one is not over.
    """
    following = authority.make_next_root(ca_dir, now=now)
    current = authority.read_certificate(authority.existing_files(ca_dir).root_certificate)
    with db.writing(session):
        is_new = session.get(TrustedRoot, _name(following)) is None
        for certificate, state in ((current, RootState.CURRENT), (following, RootState.NEXT)):
            if session.get(TrustedRoot, _name(certificate)) is None:
                session.add(_row(certificate, state, now=now))
        session.flush()
        if is_new:
            _tell_everybody(session, now=now)
            _record(session, "root_announced", following, now=now)
    return _name(following)


def switch(session: Session, ca_dir: Path, *, now: datetime, force: bool = False) -> str:
    """Let the broker's certificate come from the next root. Returns its name. Committed on return; safe to repeat after a crash.

    Raises:
        NodesMissing: nodes do not trust it yet, and `force` was not given.
        StepWrong: no next root was announced.
    """
    state = roll_over(session)
    following = _root_in(state, RootState.NEXT)
    if following is None:
        raise StepWrong("No next root was announced; begin with `fleet ca root next`.")
    _refuse_missing(state, "do not trust the next root", force=force)
    if authority.existing_files(ca_dir).next_root_certificate.exists():
        authority.switch_root(ca_dir)
    with db.writing(session):
        _move(session, RootState.CURRENT, RootState.OLD, now=now)
        _move(session, RootState.NEXT, RootState.CURRENT, now=now)
        certificate = x509.load_der_x509_certificate(following.der)
        _record(session, "root_switched", certificate, now=now, left_behind=state.missing)
    return following.name


def finish(session: Session, ca_dir: Path, *, now: datetime, force: bool = False) -> str:
    """Let the old root go: no listener shows it, nodes are told to trust it no more. Returns its name. Committed on return.

    Raises:
        NodesMissing: nodes do not trust the new root yet, and `force` was not given: those could not be reached any more.
        StepWrong: there is no old root.
    """
    state = roll_over(session)
    old = _root_in(state, RootState.OLD)
    if old is None:
        raise StepWrong("There is no old root to let go of.")
    _refuse_missing(state, "do not trust the new root", force=force)
    authority.drop_old_root(ca_dir)
    with db.writing(session):
        _move(session, RootState.OLD, RootState.DROPPED, now=now)
        _tell_everybody(session, now=now)
        certificate = x509.load_der_x509_certificate(old.der)
        _record(session, "root_dropped", certificate, now=now, left_behind=state.missing)
    return old.name


def roll_over(session: Session) -> RollOver:
    """How far it is. A fixed number of statements, however many nodes."""
    order = (RootState.CURRENT, RootState.NEXT, RootState.OLD, RootState.DROPPED)
    newest_first = select(TrustedRoot).order_by(TrustedRoot.changed_at.desc(), TrustedRoot.name)
    roots = sorted(
        session.scalars(newest_first), key=lambda root: order.index(RootState(root.state))
    )
    by_state = {root.state: root for root in roots}
    step = None
    wanted = by_state.get(RootState.CURRENT)
    if RootState.NEXT in by_state:
        step, wanted = "switch", by_state[RootState.NEXT]
    elif RootState.OLD in by_state:
        step = "finish"
    nodes = session.scalars(_count()).one()
    if wanted is None:
        return RollOver(roots, None, nodes, nodes, ())
    trusts = NodeStatus.roots.contains(wanted.name)
    followed = session.scalars(_count().where(trusts)).one()
    return RollOver(roots, step, nodes, followed, _stragglers(session, ~trusts))


# ---------------------------------------------------------------------------------------------------------------- private


def _count() -> Select[int]:
    return (
        select(func.count())
        .select_from(NodeStatus)
        .join(Node, Node.node_id == NodeStatus.node_id)
        .where(Node.state.not_in(node_life.NOT_REACHABLE))
    )


def _stragglers(session: Session, lacks: ColumnElement[bool]) -> list[Straggler]:
    """Those who were heard last come first: they will be back soonest."""
    query = (
        select(Node.node_id, Node.label, NodeStatus.last_heard_at)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(Node.state.not_in(node_life.NOT_REACHABLE), or_(NodeStatus.roots.is_(None), lacks))
        .order_by(NodeStatus.last_heard_at.desc(), Node.node_id)
        .limit(_SHOWN)
    )
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Node.model.in_(models))
    return [Straggler(*row) for row in session.execute(query)]


def _refuse_missing(state: RollOver, what: str, *, force: bool) -> None:
    if state.missing and not force:
        named = [one.label for one in state.stragglers[:_NAMED]]
        names = ", ".join(named) + (", …" if state.missing > len(named) else "")
        raise NodesMissing(
            "%(missing)s of %(nodes)s nodes %(what)s yet (%(names)s). Wait until they were heard, or force it.",
            missing=state.missing,
            nodes=state.nodes,
            what=what,
            names=names,
            count=state.missing,
        )


def _root_in(state: RollOver, wanted: RootState) -> TrustedRoot | None:
    return next((root for root in state.roots if root.state == wanted), None)


def _move(session: Session, before: RootState, after: RootState, *, now: datetime) -> None:
    session.execute(
        update(TrustedRoot)
        .where(TrustedRoot.state == before)
        .values(state=after, changed_at=now)
        .execution_options(synchronize_session="fetch")
    )


def _tell_everybody(session: Session, *, now: datetime) -> None:
    node_ids = list(
        session.scalars(select(Node.node_id).where(Node.state.not_in(node_life.NOT_REACHABLE)))
    )
    outbox.mark_changed(session, DESIRED, node_ids, now=now)


def _record(
    session: Session, action: str, root: x509.Certificate, *, now: datetime, left_behind: int = 0
) -> None:
    auditing.record(
        session,
        action,
        subject=f"root {_name(root)}",
        now=now,
        until=root.not_valid_after_utc.isoformat(),
        left_behind=left_behind,
    )


def _row(certificate: x509.Certificate, state: RootState, *, now: datetime) -> TrustedRoot:
    return TrustedRoot(
        name=_name(certificate),
        der=_der(certificate),
        state=state,
        expires_at=certificate.not_valid_after_utc,
        changed_at=now,
    )


def _name(certificate: x509.Certificate) -> str:
    return name_of(_der(certificate))


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
