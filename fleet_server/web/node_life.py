"""Where a node stands in its life, on its page: what it can become, each behind a form that says so again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from flask import flash, redirect, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import Node
from fleet_server.services import node_life
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web
from fleet_server.web.node_states import state_word
from fleet_server.wire.states import NodeState


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


@web.post("/fleet/nodes/<node_id:node_id>/state")
@needs(Right.SEE_FLEET)  # each way has a right of its own
def change_state(node_id: str) -> Response:
    """Bring a node into a state, and back to its page."""
    wanted = request.form.get("state", "")
    if wanted not in tuple(NodeState):
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="state", allowed=", ".join(NodeState)
        )
    reason = request.form.get("reason", "").replace("\0", "")
    node_life.change_state(
        current_session(), node_id, NodeState(wanted), now=clock.now(), reason=reason
    )
    flash(gettext("The node is %(state)s now.", state=state_word(NodeState(wanted))))
    return redirect(url_for("web.node", node_id=node_id, _anchor="life"), code=303)
