"""Whom a campaign is for: what the list of nodes is filtered by, and what would become of each node."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from fleet_server.models import Node, NodeStatus, Release
from fleet_server.services import layering, node_list, rights
from fleet_server.services.campaign_rules import Running
from fleet_server.services.node_list import NodeFilter
from fleet_server.wire.manifest import decode_manifest
from fleet_server.wire.states import SlotState


@dataclass(frozen=True)
class Target(NodeFilter):
    """All that is given must hold, as in the list of nodes; nothing: all nodes of the release's model in service."""

    node_ids: tuple[str, ...] | None = None

    def as_fields(self) -> dict[str, Any]:
        """As JSON keeps it."""
        given = {
            name: value for name, value in dataclasses.asdict(self).items() if value is not None
        }
        if self.heard_before is not None:
            given["heard_before"] = self.heard_before.isoformat()
        if self.node_ids is not None:
            given["node_ids"] = list(self.node_ids)
        return given


def of_fields(fields: Mapping[str, Any]) -> Target:
    """What `as_fields` made."""
    given = dict(fields)
    if "heard_before" in given:
        given["heard_before"] = datetime.fromisoformat(given["heard_before"])
    if "node_ids" in given:
        given["node_ids"] = tuple(given["node_ids"])
    return Target(**given)


class Prospect(StrEnum):
    """What a campaign is for a node."""

    UPDATES = "updates"
    HAS_IT = "has_it"
    NEWER = "newer"  # it runs a later release, and would refuse this one


class Meant(NamedTuple):
    """A node that a campaign is for."""

    node_id: str
    is_fresh: bool
    prospect: Prospect


def meant_nodes(
    session: Session, release: Release, target: Target, *, now: datetime
) -> list[Meant]:
    """All nodes that are meant and that the actor has to do with, by chance, but always the same one. One statement."""
    allows_downgrade = decode_manifest(release.manifest).allow_downgrade
    rows = session.execute(nodes_query(session, release.model, target, now=now)).all()
    found = [
        Meant(
            row.node_id,
            row.late_at is not None and row.late_at > now,
            _prospect(row, release, allows_downgrade),
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: _lot(release.id, one.node_id))


def nodes_query(
    session: Session, model: str, target: Target, *, now: datetime
) -> Select[*tuple[Any, ...]]:
    """Nodes of the model with what they say that they run."""
    query = (
        select(
            Node.node_id,
            NodeStatus.late_at,
            NodeStatus.counter,
            NodeStatus.bundle_sha256,
            NodeStatus.micropython,
            NodeStatus.image_sha256,
            NodeStatus.slot_state,
        )
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(
            Node.model == model,
            layering.in_service(),
            layering.has_identity(),
            *node_list.conditions(target, now=now),
        )
    )
    if target.node_ids is not None:
        query = query.where(Node.node_id.in_(target.node_ids))
    models = rights.node_models(session)
    return query if models is None else query.where(Node.model.in_(models))


def canaries_first(nodes: Sequence[Meant], canaries: int) -> list[Meant]:
    """As canaries, nodes that are heard: what is learnt of others comes late."""
    fresh = [one for one in nodes if one.is_fresh][:canaries]
    chosen = {one.node_id for one in fresh}
    return fresh + [one for one in nodes if one.node_id not in chosen]


def _prospect(row: Any, release: Release, allows_downgrade: bool) -> Prospect:
    said = Running(row.counter, row.bundle_sha256, row.micropython, row.image_sha256)
    wanted = Running(
        release.counter, release.bundle_sha256, release.image_micropython, release.image_sha256
    )
    if said.is_release(wanted) and row.slot_state == SlotState.CONFIRMED:
        return Prospect.HAS_IT
    if row.counter is not None and row.counter > release.counter and not allows_downgrade:
        return Prospect.NEWER
    return Prospect.UPDATES


def _lot(release_id: int, node_id: str) -> bytes:
    # Another order for each release: it must not always be the same nodes that go ahead.
    return hashlib.sha256(f"{release_id} {node_id}".encode()).digest()
