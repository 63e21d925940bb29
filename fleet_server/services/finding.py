"""Finding a node by what somebody in the field has before them: its label, its id, a probe's serial number, the sticker's code. Reads only."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from fleet_server.models import Channel, Deployment, Node, Sensor, Site
from fleet_server.services import rights

_LONGEST = 300
_MOST = 20
# What the sticker's code holds (provisioning/label.py): the address of the node's page, or `stadtsensor:n-3f9a1c`.
_IN_CODE = re.compile(r"(?:stadtsensor:|/nodes/)([a-z0-9][a-z0-9-]{0,31})(?![a-z0-9-])")
_ID_TAIL = re.compile(r"[0-9a-f]{4,12}")


@dataclass(frozen=True)
class FoundNode:
    node_id: str
    label: str
    model: str
    site_name: str | None


def find_nodes(session: Session, text: str) -> list[FoundNode]:
    """Nodes that the actor has to do with and that `text` may mean, at most twenty, the exact ones first. At most two statements.

    Only labels that begin so and serial numbers that are so are looked for: both have an index.
    """
    wanted = text.strip().replace("\0", "")[:_LONGEST]
    if not wanted:
        return []
    in_code = _IN_CODE.search(wanted)
    if in_code is not None:
        wanted = in_code[1]
    exact = _nodes(session, _means(wanted))
    return exact or _nodes(session, Node.label.istartswith(wanted, autoescape=True))


def _means(wanted: str) -> ColumnElement[bool]:
    lowered = wanted.lower()
    ids = [lowered]
    if _ID_TAIL.fullmatch(lowered):
        ids.append(f"n-{lowered}")
    has_probe = (
        select(Deployment.node_id)
        .join(Channel, Channel.deployment_id == Deployment.id)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Sensor.serial == wanted, Channel.to_at.is_(None))
    )
    return or_(Node.node_id.in_(ids), Node.label == wanted, Node.node_id.in_(has_probe))


def _nodes(session: Session, condition: ColumnElement[bool]) -> list[FoundNode]:
    query = (
        select(Node.node_id, Node.label, Node.model, Site.name)
        .outerjoin(Deployment, (Deployment.node_id == Node.node_id) & Deployment.to_at.is_(None))
        .outerjoin(Site, Site.id == Deployment.site_id)
        .where(condition)
        .order_by(Node.label, Node.node_id)
        .limit(_MOST)
    )
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Node.model.in_(models))
    return [FoundNode(*row) for row in session.execute(query)]
