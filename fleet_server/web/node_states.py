"""How the states of a node's life are called, and what each means, in the reader's language."""

from __future__ import annotations

from flask_babel import lazy_gettext

from fleet_server.wire.states import NodeState

_STATES = {
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
_MEANINGS = {
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


def state_word(state: NodeState) -> str:
    return str(_STATES[NodeState(state)])


def state_meaning(state: NodeState) -> str:
    return str(_MEANINGS[NodeState(state)])
