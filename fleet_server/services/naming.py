"""What people call a node."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import Node
from fleet_server.services import auditing, enrolment, rights


def label_node(session: Session, node_id: str, label: str, *, now: datetime) -> None:
    """Call a node by another label. Committed on return; the same label changes nothing.

    Raises:
        EnrolmentWrong: no node can be called so.
        NotFound: no such node.
    """
    enrolment.check_label(label)
    with db.writing(session):
        node = session.get(Node, node_id, with_for_update=True)
        if node is None:
            raise NotFound("There is no node %(node_id)s.", node_id=node_id)
        rights.check_node_model(session, node.model, node_id=node_id)
        if node.label == label:
            return
        was, node.label = node.label, label
        session.flush()
        auditing.record(
            session, "node_labelled", subject=f"node {node_id}", now=now, label=label, was=was
        )
