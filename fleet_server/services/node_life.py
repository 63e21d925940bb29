"""A node's life: which state follows which, who may bring it about, and what that leaves in the audit log.

`WAYS` is the whole of it. Nothing else writes `Node.state`, except the two functions that make a node (here and in enrolment).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Said, listed
from fleet_server.models import Deployment, Node, NodeStatus
from fleet_server.services import auditing, rights
from fleet_server.services.rights import Right
from fleet_server.wire.states import NodeState

REASON_MAX_LENGTH = 300
_AT_ONCE = 500
_S = NodeState


class WayClosed(Conflict):
    """No way leads from the node's state to the one that is wanted; `fields` has both and what would be allowed."""

    code = "node_state_refused"


class ReasonWanted(Invalid):
    """This change says why."""

    code = "reason_wanted"


@dataclass(frozen=True)
class Way:
    """How a node comes from one state to another.

    `action` is the word of the audit log. `comes_by`: what it is a part of, where nobody can ask for it by itself.
    """

    right: Right
    action: str
    wants_reason: bool = False
    comes_by: Said | None = None


_HEARD = Said("its first message")
_DEPLOYING = Said("putting it at a site")
_LEAVING = Said("ending its deployment")
_ENROLLING = Said("enrolling it at the bench")
_REVOKING = Said("revoking its certificates (`fleet node revoke`)")
_SUSPECT = Way(Right.OPERATE_NODES, "node_quarantined", wants_reason=True)
_LOSE = Way(Right.MOUNT_NODES, "node_lost", wants_reason=True)
_SEND_IN = Way(Right.MOUNT_NODES, "node_sent_to_maker", wants_reason=True)
_RETIRE = Way(Right.OPERATE_NODES, "node_retired", wants_reason=True)
_REVOKE = Way(Right.ADMIT_NODES, "node_revoked", comes_by=_REVOKING)
_TAKE_BACK = Way(Right.OPERATE_NODES, "node_taken_back", wants_reason=True)
_FIND = Way(Right.MOUNT_NODES, "node_found", wants_reason=True)
_RETURN = Way(Right.MOUNT_NODES, "node_returned", wants_reason=True)
_ENROL = Way(Right.ADMIT_NODES, "node_enrolled", comes_by=_ENROLLING)
_DEPLOY = Way(Right.MOUNT_NODES, "node_deployed", comes_by=_DEPLOYING)
_LEAVE = Way(Right.MOUNT_NODES, "node_taken_down", comes_by=_LEAVING)

_ASIDE = {_S.QUARANTINED: _SUSPECT, _S.LOST: _LOSE, _S.RMA: _SEND_IN, _S.REVOKED: _REVOKE}

WAYS: Mapping[NodeState, Mapping[NodeState, Way]] = MappingProxyType(
    {
        _S.REGISTERED: {
            _S.FLASHED: Way(Right.MOUNT_NODES, "node_flashed"),
            _S.ENROLLING: _ENROL,
            _S.RETIRED: _RETIRE,
        },
        _S.FLASHED: {_S.ENROLLING: _ENROL, _S.RETIRED: _RETIRE},
        _S.ENROLLING: {
            _S.ENROLLED: Way(Right.ADMIT_NODES, "node_first_heard", comes_by=_HEARD),
            _S.DEPLOYED: _DEPLOY,
            _S.RETIRED: _RETIRE,
            **_ASIDE,
        },
        _S.ENROLLED: {
            _S.CALIBRATED: Way(Right.STEWARD_DATA, "node_calibrated"),
            _S.DEPLOYED: _DEPLOY,
            _S.RETIRED: _RETIRE,
            **_ASIDE,
        },
        _S.CALIBRATED: {
            _S.ENROLLED: Way(Right.STEWARD_DATA, "node_calibration_voided", wants_reason=True),
            _S.DEPLOYED: _DEPLOY,
            _S.RETIRED: _RETIRE,
            **_ASIDE,
        },
        _S.DEPLOYED: {
            _S.MAINTENANCE: Way(Right.MOUNT_NODES, "node_maintenance_begun", wants_reason=True),
            _S.ENROLLED: _LEAVE,
            **_ASIDE,
        },
        _S.MAINTENANCE: {
            _S.DEPLOYED: Way(Right.MOUNT_NODES, "node_maintenance_ended"),
            _S.ENROLLED: _LEAVE,
            **_ASIDE,
        },
        _S.QUARANTINED: {
            _S.ENROLLED: _TAKE_BACK,
            _S.DEPLOYED: _TAKE_BACK,
            _S.LOST: _LOSE,
            _S.RMA: _SEND_IN,
            _S.RETIRED: _RETIRE,
            _S.REVOKED: _REVOKE,
        },
        _S.LOST: {
            _S.ENROLLED: _FIND,
            _S.DEPLOYED: _FIND,
            _S.QUARANTINED: _SUSPECT,
            _S.RETIRED: _RETIRE,
            _S.REVOKED: _REVOKE,
        },
        _S.RMA: {
            _S.ENROLLED: _RETURN,
            _S.DEPLOYED: _RETURN,
            _S.LOST: _LOSE,
            _S.RETIRED: _RETIRE,
            _S.REVOKED: _REVOKE,
        },
        _S.RETIRED: {_S.REVOKED: _REVOKE},
        _S.REVOKED: {},
    }
)
"""From → to → how. A retired node keeps its certificate until that is revoked; what is revoked stays so."""

OUT_OF_SERVICE = (_S.RETIRED, _S.REVOKED)
NOT_REACHABLE = (_S.REGISTERED, _S.FLASHED, *OUT_OF_SERVICE)
"""Has no identity yet, or none any more: nobody waits for what such a node says."""
_STANDS = (_S.DEPLOYED, _S.MAINTENANCE)
_STANDS_NOWHERE = (_S.ENROLLED, _S.CALIBRATED, _S.RETIRED)


def change_state(
    session: Session, node_id: str, state: NodeState, *, now: datetime, reason: str = ""
) -> Node:
    """Somebody brings a node into a state. Committed on return; not safe to repeat: the second time it is refused.

    Raises:
        NotFound: no such node.
        WayClosed: no way leads there; the sentence says what would be allowed.
        NotAllowed: the actor lacks the right for this way.
        ReasonWanted: this way wants one.
    """
    with db.writing(session):
        node = _node(session, node_id)
        way = _way(session, node, state)
        if way.comes_by is not None:
            raise WayClosed(
                "%(node_id)s becomes %(wanted)s by %(deed)s, not by itself. %(ways)s",
                node_id=node_id,
                deed=way.comes_by,
                ways=_allowed(session, node),
                **_fields(session, node, state),
            )
        rights.require(rights.actor_of(session), way.right)
        told = reason.strip()
        if way.wants_reason and not told:
            raise ReasonWanted(
                "Say why %(node_id)s becomes %(state)s.", node_id=node_id, state=state
            )
        if len(told) > REASON_MAX_LENGTH or not told.isprintable():
            raise ReasonWanted(
                "A reason is one line of at most %(longest)s characters.", longest=REASON_MAX_LENGTH
            )
        _move(session, node, state, way, now=now, reason=told)
    return node


def pass_on(
    session: Session,
    node: Node,
    state: NodeState,
    *,
    now: datetime,
    by: str | None = None,
    reason: str = "",
    **details: auditing.Detail,
) -> None:
    """A state that comes by another deed; part of the caller's transaction, whose rights were checked there.

    Args:
        by: who did it, where that is nobody with an account.
        reason: why, where that deed wants one.
        details: what the deed adds to the audit entry.

    Raises:
        WayClosed: no way leads there.
    """
    way = _way(session, node, state)
    if way.comes_by is None:
        # Who puts a lost node at a site says first that, and where, it was found.
        raise WayClosed(
            "%(node_id)s is %(state)s; somebody must say first what became of it. %(ways)s",
            node_id=node.node_id,
            ways=_allowed(session, node),
            **_fields(session, node, state),
        )
    _move(session, node, state, way, now=now, reason=reason, by=by, **details)


def ways_of(session: Session, node: Node) -> dict[NodeState, Way]:
    """What the actor may make of this node now. One statement."""
    actor = rights.actor_of(session)
    return {
        state: way
        for state, way in _open_ways(session, node).items()
        if way.comes_by is None and way.right in actor.rights
    }


def note_first_contacts(session: Session, *, now: datetime) -> int:
    """Nodes that were heard since they got their identity are enrolled now. Committed on return; returns how many."""
    moved = 0
    while True:
        with db.writing(session):
            heard = session.scalars(
                select(Node)
                .join(NodeStatus, NodeStatus.node_id == Node.node_id)
                .where(Node.state == _S.ENROLLING, NodeStatus.last_heard_at.is_not(None))
                .order_by(Node.node_id)
                .limit(_AT_ONCE)
                .with_for_update(of=Node, skip_locked=True)
            ).all()
            for node in heard:
                pass_on(session, node, _S.ENROLLED, now=now)
        moved += len(heard)
        if len(heard) < _AT_ONCE:
            return moved


def _move(
    session: Session,
    node: Node,
    state: NodeState,
    way: Way,
    *,
    now: datetime,
    reason: str,
    by: str | None = None,
    **details: auditing.Detail,
) -> None:
    before = node.state
    node.state, node.state_since, node.state_reason = state, now, reason or None
    session.flush()
    told = {"reason": reason} if reason else {}
    auditing.record(
        session,
        way.action,
        subject=f"node {node.node_id}",
        now=now,
        by=by,
        **{"from": before, "to": str(state), **told, **details},
    )


def _node(session: Session, node_id: str) -> Node:
    node = session.get(Node, node_id, with_for_update=True, populate_existing=True)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, node.model, node_id=node_id)
    return node


def _way(session: Session, node: Node, state: NodeState) -> Way:
    way = _open_ways(session, node).get(state)
    if way is None:
        raise WayClosed(
            "%(node_id)s is %(state)s%(where)s and cannot become %(wanted)s. %(ways)s",
            node_id=node.node_id,
            where=_where(session, node),
            ways=_allowed(session, node),
            **_fields(session, node, state),
        )
    return way


def _open_ways(session: Session, node: Node) -> dict[NodeState, Way]:
    """The table's ways, without those that contradict where the node stands."""
    ways = WAYS[NodeState(node.state)]
    stands = _stands(session, node)
    closed: Sequence[NodeState] = _STANDS_NOWHERE if stands else _STANDS
    return {
        state: way for state, way in ways.items() if state not in closed or way.comes_by is not None
    }


def _stands(session: Session, node: Node) -> bool:
    at_a_site = select(Deployment.id).where(
        Deployment.node_id == node.node_id, Deployment.to_at.is_(None)
    )
    return session.scalar(at_a_site.limit(1)) is not None


def _where(session: Session, node: Node) -> str:
    return Said(" at a site") if _stands(session, node) else ""


def _allowed(session: Session, node: Node) -> Said:
    ways = _open_ways(session, node)
    asked = [state for state, way in ways.items() if way.comes_by is None]
    by_itself = [
        Said("%(state)s (by %(deed)s)", state=state, deed=way.comes_by)
        for state, way in ways.items()
        if way.comes_by
    ]
    allowed = [*asked, *by_itself]
    if not allowed:
        return Said("Nothing comes after that.")
    return Said("It can become: %(states)s.", states=listed(allowed))


def _fields(session: Session, node: Node, state: NodeState) -> dict[str, object]:
    allowed = [str(one) for one, way in _open_ways(session, node).items() if way.comes_by is None]
    return {"state": NodeState(node.state), "wanted": state, "allowed": allowed}
