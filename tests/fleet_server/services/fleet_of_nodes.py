"""Many nodes that talk: registered rows, and state messages as a node sends them that heard its desired configuration."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from factories import NOON, SimulatedNode, register_node
from sqlalchemy import event, insert, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Configuration, Node, NodeStatus, Receipt
from fleet_server.services import node_settings
from fleet_server.services.ingest import store_batch
from fleet_server.wire.configuration import sha256_hex
from fleet_server.wire.states import ConfigState, NodeState


def register(session: Session, count: int, *, model: str = "tree-3", first: int = 1) -> list[str]:
    """Nodes `n-000001` … that nobody has heard yet."""
    return [
        register_node(session, f"n-{number:06x}", model=model)
        for number in range(first, first + count)
    ]


def register_many(session: Session, count: int, *, model: str = "tree-3", first: int = 1) -> None:
    """As `register`, in one piece: for thousands."""
    settings = node_settings.provisioned_settings(model)
    ids = [f"n-{number:06x}" for number in range(first, first + count)]
    rows: list[tuple[type, list[dict[str, Any]]]] = [
        (
            Node,
            [
                {
                    "node_id": one,
                    "label": one,
                    "model": model,
                    "state": NodeState.ENROLLED,
                    "enrolled_at": NOON,
                    "public_key_sha256": one,
                }
                for one in ids
            ],
        ),
        (NodeStatus, [{"node_id": one} for one in ids]),
        (Receipt, [{"node_id": one, "spool": 0, "seq": 0, "highest_seq": 0} for one in ids]),
        (
            Configuration,
            [
                {
                    "node_id": one,
                    "version": 1,
                    "settings": settings,
                    "sha256": sha256_hex(1, settings),
                    "changed_at": NOON,
                }
                for one in ids
            ],
        ),
    ]
    with db.writing(session):
        for table, values in rows:
            session.execute(insert(table), values)


def say(session: Session, node_id: str, now: datetime, **fields: object) -> None:
    """A state message of a node, received at `now`."""
    node = SimulatedNode(node_id)
    store_batch(session, [node.state(at_s=int(now.timestamp()), **fields)], now=now)


def connect(
    session: Session,
    node_ids: Iterable[str],
    now: datetime,
    *,
    state: ConfigState = ConfigState.CONFIRMED,
) -> None:
    """The nodes hear what they shall be, and say how they stand to it."""
    rows = session.execute(
        select(Configuration.node_id, Configuration.version, Configuration.sha256).where(
            Configuration.node_id.in_(list(node_ids))
        )
    )
    runs_it = state in (ConfigState.CONFIRMED, ConfigState.TRIAL)
    messages = [
        SimulatedNode(node_id).state(
            at_s=int(now.timestamp()),
            config_version=version if runs_it else version - 1,
            config_sha256=sha256 if runs_it else "0" * 64,
            config_state=state,
            config_reason=None if runs_it else "wifi 1 not found",
        )
        for node_id, version, sha256 in rows
    ]
    store_batch(session, messages, now=now)


def told(session: Session, node_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What the nodes are told now, one after the other."""
    rows = session.execute(
        select(Configuration.node_id, Configuration.settings).where(
            Configuration.node_id.in_(node_ids)
        )
    )
    settings = {node_id: dict(values) for node_id, values in rows}
    return [settings[node_id] for node_id in node_ids]


@contextmanager
def statements(session: Session) -> Iterator[list[str]]:
    """Every statement that the database is asked inside the block; many rows in one call are one."""
    seen: list[str] = []
    engine = session.get_bind().engine

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)
