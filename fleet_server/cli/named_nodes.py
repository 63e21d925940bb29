"""What the commands about one node have in common: finding it by what people call it, and writing times."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import Conflict, NotFound
from fleet_server.models import Node


def find_node(session: Session, id_or_label: str) -> Node:
    """The node with this id, else the only one with this label.

    Raises:
        NotFound: there is none.
        Conflict: several nodes have this label.
    """
    by_id = session.get(Node, id_or_label)
    if by_id is not None:
        return by_id
    labelled = session.scalars(
        select(Node).where(Node.label == id_or_label).order_by(Node.enrolled_at, Node.node_id)
    ).all()
    if not labelled:
        raise NotFound(f"There is no node {id_or_label}; `fleet node list` shows them all.")
    if len(labelled) > 1:
        which = ", ".join(f"{one.node_id} ({_since(one)})" for one in labelled)
        raise Conflict(f"Several nodes are labelled {id_or_label}: {which}; name one by its id.")
    return labelled[0]


def _since(node: Node) -> str:
    return f"enrolled {node.enrolled_at:%Y-%m-%d}" if node.enrolled_at else str(node.state)


def moment_text(moment: datetime | None) -> str | None:
    """As `2026-07-01T12:00:00Z`."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else None
