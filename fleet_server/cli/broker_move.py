"""What `fleet broker move` does and says."""

from __future__ import annotations

from fleet_server import clock
from fleet_server.cli.answers import answer
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import moment_text
from fleet_server.services import moving
from fleet_server.services.moving import BrokerAddress, Follower

_SHOWN = 20


def move_broker(
    host: str,
    port: int,
    server_name: str | None,
    *,
    look: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Tell the nodes, unless only to `look`, and say how far they are."""
    target = BrokerAddress.checked(host, port, server_name)
    key = settings_of(data_dir).session_key
    with open_session(data_dir) as session:
        if look:
            state = moving.progress(session, target)
        else:
            state = moving.move_broker(session, target, now=clock.now(), secret_key=key)
    fields = {
        "told": state.told,
        "followed": state.followed,
        "waiting": [
            {
                "node_id": one.node_id,
                "label": one.label,
                "standing": one.standing,
                "reason": one.reason,
                "last_heard_at": moment_text(one.last_heard_at),
            }
            for one in state.waiting
        ],
    }
    lines = [f"{state.followed} of {state.followed + len(state.waiting)} nodes have followed."]
    lines += [_line(one) for one in state.waiting[:_SHOWN]]
    if len(state.waiting) > _SHOWN:
        lines.append(f"  … and {len(state.waiting) - _SHOWN} more (--json names them all)")
    if not state.waiting:
        lines.append("The broker need not be found at the old address any more.")
    answer(fields, "\n".join(lines), as_json=as_json)


def _line(one: Follower) -> str:
    heard = moment_text(one.last_heard_at) or "never"
    standing = one.standing or "not told"
    return f"  {one.label} ({one.node_id}): {standing}, heard {heard}" + (
        f" – {one.reason}" if one.reason else ""
    )
