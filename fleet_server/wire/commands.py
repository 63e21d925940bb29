"""Commands that a node knows, and how it answers. The node's side: firmware/node/commands.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from fleet_server.wire.senml import U32_MAX

ANSWER = "answer"
"""Name of the event that answers a command: `id`, `name`, `result`, then details."""


class CommandName(StrEnum):
    RESEND = "resend"  # packs from–to once more
    DUMP_LOG = "dump_log"  # what the node remembers of its own troubles
    IDENTIFY = "identify"  # blink
    READ_NOW = "read_now"  # every probe, as a pack of its own
    SELF_TEST = "self_test"  # every probe: which gives a value, which does not and why
    FACTORY_RESET = "factory_reset"  # as provisioned again
    REBOOT = "reboot"


class Result(StrEnum):
    """What became of a command, in the node's words."""

    DONE = "done"
    FAILED = "failed"
    REFUSED = "refused"  # its arguments cannot be
    UNSUPPORTED = "unsupported"  # this node cannot do it
    EXPIRED = "expired"  # it came too late and was not begun
    INTERRUPTED = "interrupted"  # begun and cut short: it may have happened or not


def find_fault(name: str, arguments: Mapping[str, Any], *, node_id: str) -> str | None:
    """Why a node would not carry this out, in one sentence; None when it would."""
    if name not in tuple(CommandName):
        return f"{name} is no command of a node; there are {', '.join(CommandName)}."
    wanted = _ARGUMENTS.get(CommandName(name), {})
    surplus = sorted(arguments.keys() - wanted.keys())
    if surplus:
        return f"{name} takes no {surplus[0]}."
    for key, is_possible in wanted.items():
        if key not in arguments:
            return f"{name} needs {key}=…; " + _hint(name, node_id)
        if not is_possible(arguments[key], node_id):
            return f"{name}: {key} cannot be {arguments[key]}; " + _hint(name, node_id)
    if name == CommandName.RESEND and arguments["from"] > arguments["to"]:
        return f"{name}: from must be at most to."
    return None


def _hint(name: str, node_id: str) -> str:
    if name == CommandName.FACTORY_RESET:
        return f"it forgets what the node was told, so confirm it with confirm={node_id}."
    return "from and to are numbers of packs, like from=10 to=20."


def _is_sequence(value: object, _: str) -> bool:
    return type(value) is int and 0 <= value <= U32_MAX


def _is_own_id(value: object, node_id: str) -> bool:
    return value == node_id


_ARGUMENTS: Mapping[CommandName, Mapping[str, Callable[[object, str], bool]]] = {
    CommandName.RESEND: {"from": _is_sequence, "to": _is_sequence},
    CommandName.FACTORY_RESET: {"confirm": _is_own_id},
}
