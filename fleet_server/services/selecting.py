"""Which nodes are meant: by model, kind of site, tag, group, place or name. For groups' rules, lists and orders to many."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.orm import Session

from fleet_server.errors import Invalid
from fleet_server.models import Deployment, Node, NodeGroupMember, NodeTag, Site
from fleet_server.services import layering, rights
from hardware import catalogue

SITE_KINDS = ("tree", "water")
LONGEST_RADIUS_M = 50_000
# The mean radius of the Earth (IUGG, 6,371.0 km): a degree of a great circle.
_METRES_PER_DEGREE = math.tau * 6_371_000 / 360


class SelectionWrong(Invalid):
    """No nodes can be meant by this."""

    code = "selection_wrong"


@dataclass(frozen=True)
class Selection:
    """Nodes for which all of this is so; what is None does not matter. `near`: latitude, longitude (WGS84 degrees), radius in metres."""

    model: str | None = None
    site_kind: str | None = None
    tag: str | None = None
    near: tuple[float, float, int] | None = None
    group: str | None = None
    node_ids: tuple[str, ...] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for: all nodes are meant."""
        return all(value is None for value in dataclasses.astuple(self))

    def check(self) -> None:
        """Raises SelectionWrong, with one sentence."""
        if self.model is not None and self.model not in catalogue.node_model_ids():
            known = ", ".join(catalogue.node_model_ids())
            raise SelectionWrong(
                "%(model)s is no node model; there are %(known)s.", model=self.model, known=known
            )
        if self.site_kind is not None and self.site_kind not in SITE_KINDS:
            raise SelectionWrong(
                "site kind must be tree or water, not %(site_kind)s.", site_kind=self.site_kind
            )
        if self.near is not None:
            latitude, longitude, radius_m = self.near
            if not (
                -90 < latitude < 90
                and -180 <= longitude <= 180
                and 1 <= radius_m <= LONGEST_RADIUS_M
            ):
                raise SelectionWrong(
                    "near wants latitude, longitude (WGS84 degrees) and a radius of 1 to %(radius_m)s "
                    "metres, like 51.4818,7.2162,800.",
                    radius_m=LONGEST_RADIUS_M,
                )


EVERYBODY = Selection()


def as_rule(selection: Selection) -> dict[str, Any]:
    """A selection as a group's rule keeps it.

    Raises:
        SelectionWrong: it cannot be a rule.
    """
    selection.check()
    if selection.group is not None or selection.node_ids is not None:
        raise SelectionWrong("A group's rule goes by model, site kind, tag and place.")
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(selection).items()
        if value is not None
    }


def of_rule(rule: Mapping[str, Any]) -> Selection:
    """What `as_rule` kept."""
    near = rule.get("near")
    return Selection(**{**rule, "near": None if near is None else (near[0], near[1], near[2])})


def near_of(text: str) -> tuple[float, float, int]:
    """`51.4818,7.2162,800` as latitude, longitude, metres. Raises SelectionWrong for anything else."""
    try:
        latitude, longitude, radius_m = text.split(",")
        near = float(latitude), float(longitude), int(radius_m)
    except ValueError:
        near = (math.nan, math.nan, 0)
    Selection(near=near).check()
    return near


def nodes(session: Session, selection: Selection) -> Select[str]:
    """Ids of the nodes in service that are meant and that the actor has to do with; whoever asks orders and limits it.

    Raises:
        SelectionWrong: no nodes can be meant by it.
        NotFound: there is no such group.
    """
    selection.check()
    query = select(Node.node_id).where(layering.in_service(), *_conditions(session, selection))
    models = rights.node_models(session)
    return query if models is None else query.where(Node.model.in_(models))


def _conditions(session: Session, selection: Selection) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if selection.model is not None:
        conditions.append(Node.model == selection.model)
    if selection.site_kind is not None:
        conditions.append(Node.model.in_(_models_for(selection.site_kind)))
    if selection.tag is not None:
        tagged = select(NodeTag.node_id).where(NodeTag.tag == selection.tag)
        conditions.append(Node.node_id.in_(tagged))
    if selection.near is not None:
        conditions.append(Node.node_id.in_(_standing_near(*selection.near)))
    if selection.group is not None:
        group = layering.find_group(session, selection.group)
        members = select(NodeGroupMember.node_id).where(NodeGroupMember.group_id == group.id)
        conditions.append(Node.node_id.in_(members))
    if selection.node_ids is not None:
        conditions.append(Node.node_id.in_(selection.node_ids))
    return conditions


def _models_for(site_kind: str) -> list[str]:
    models = (catalogue.load_node_model(name) for name in catalogue.node_model_ids())
    return [model.id for model in models if model.site_kind == site_kind]


def _standing_near(latitude: float, longitude: float, radius_m: int) -> Select[str]:
    """Nodes at sites within the radius; on the plane that touches the Earth there, good to 0.1 % up to 50 km at our latitudes."""
    north_m = (Site.latitude - latitude) * _METRES_PER_DEGREE
    east_m = (Site.longitude - longitude) * (_METRES_PER_DEGREE * math.cos(math.radians(latitude)))
    return (
        select(Deployment.node_id)
        .join(Site, Site.id == Deployment.site_id)
        .where(
            Deployment.to_at.is_(None),
            north_m * north_m + east_m * east_m <= float(radius_m) ** 2,
        )
    )
