"""Where a node stands in its life, on its page: what it can become, each behind a form that says so again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flask import flash, redirect, request, url_for
from flask_babel import gettext, lazy_gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import Node
from fleet_server.services import node_life
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web
from fleet_server.wire.states import NodeState

STATE_WORDS = {
    NodeState.REGISTERED: lazy_gettext("registered"),
    NodeState.FLASHED: lazy_gettext("flashed"),
    NodeState.ENROLLING: lazy_gettext("enrolling"),
    NodeState.ENROLLED: lazy_gettext("enrolled"),
    NodeState.CALIBRATED: lazy_gettext("calibrated"),
    NodeState.DEPLOYED: lazy_gettext("deployed"),
    NodeState.MAINTENANCE: lazy_gettext("in maintenance"),
    NodeState.RETIRED: lazy_gettext("retired"),
    NodeState.QUARANTINED: lazy_gettext("not trusted"),
    NodeState.LOST: lazy_gettext("lost"),
    NodeState.RMA: lazy_gettext("at its maker's"),
    NodeState.REVOKED: lazy_gettext("revoked"),
}
STATE_MEANINGS = {
    NodeState.REGISTERED: lazy_gettext("On the list; it is still to be built."),
    NodeState.FLASHED: lazy_gettext("Its board carries the firmware; it is still to be enrolled."),
    NodeState.ENROLLING: lazy_gettext("It has its identity; its first message is awaited."),
    NodeState.ENROLLED: lazy_gettext("It was heard; it stands at no site."),
    NodeState.CALIBRATED: lazy_gettext("Its probes were compared with a reference."),
    NodeState.DEPLOYED: lazy_gettext("It measures at its site; it calls for help when something is wrong."),
    NodeState.MAINTENANCE: lazy_gettext("Somebody works on it; it does not call for help."),
    NodeState.RETIRED: lazy_gettext("It is used no more. There is no way back."),
    NodeState.QUARANTINED: lazy_gettext("What it sends is kept, but look before you trust it."),
    NodeState.LOST: lazy_gettext("Nobody knows where it is."),
    NodeState.RMA: lazy_gettext("It was sent in, to be repaired or replaced."),
    NodeState.REVOKED: lazy_gettext("Its certificate is void for ever: nothing of it is accepted. There is no way back."),
}  # fmt: skip


@dataclass(frozen=True)
class Life:
    """What the node's page shows of its life; `ways` are (state, whether a reason is wanted)."""

    state: NodeState
    since: datetime | None
    reason: str | None
    ways: tuple[tuple[NodeState, bool], ...]


@web.app_template_global()
def life_of(node_id: str) -> Life:
    """For the node's page, whose view has checked that the node is in scope."""
    session = current_session()
    node = session.get_one(Node, node_id)
    ways = node_life.ways_of(session, node)
    return Life(
        NodeState(node.state),
        node.state_since,
        node.state_reason,
        tuple((state, way.wants_reason) for state, way in ways.items()),
    )


@web.app_template_global()
def state_word(state: NodeState) -> str:
    return str(STATE_WORDS[NodeState(state)])


@web.app_template_global()
def state_meaning(state: NodeState) -> str:
    return str(STATE_MEANINGS[NodeState(state)])


@web.post("/fleet/nodes/<node_id:node_id>/state")
@needs(Right.SEE_FLEET)  # each way has a right of its own
def change_state(node_id: str) -> Response:
    """Bring a node into a state, and back to its page."""
    wanted = request.form.get("state", "")
    if wanted not in tuple(NodeState):
        raise Invalid(f"state wants one of {', '.join(NodeState)}.")
    reason = request.form.get("reason", "").replace("\0", "")
    node_life.change_state(
        current_session(), node_id, NodeState(wanted), now=clock.now(), reason=reason
    )
    flash(gettext("The node is %(state)s now.", state=state_word(NodeState(wanted))))
    return redirect(url_for("web.node", node_id=node_id, _anchor="life"), code=303)
