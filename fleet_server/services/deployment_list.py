"""Where nodes stood and stand, in pages. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import Deployment, Node, Site
from fleet_server.services import keyset, rights, site_view
from fleet_server.services.site_view import ProbePeriod

_BY_ID = keyset.Sorting((Deployment.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class


@dataclass(frozen=True)
class DeploymentLine:
    """A node at a site, from–to; an open end is None."""

    id: int
    node_id: str
    site_code: str
    from_at: datetime
    to_at: datetime | None


@dataclass(frozen=True)
class OneDeployment(DeploymentLine):
    """… with which probe was at which channel and depth, from–to."""

    channels: tuple[ProbePeriod, ...]


def deployment_page(
    session: Session,
    *,
    limit: int,
    after: keyset.Key | None = None,
    node_id: str | None = None,
    site_code: str | None = None,
    is_open: bool | None = None,
) -> keyset.Page[DeploymentLine]:
    """Deployments at sites that the actor has to do with, those that were made last first. One statement."""
    query = (
        select(Deployment, Site.code)
        .join(Site, Site.id == Deployment.site_id)
        .where(Site.kind.in_(rights.actor_of(session).site_kinds))
    )
    if node_id is not None:
        query = query.where(Deployment.node_id == node_id)
    if site_code is not None:
        query = query.where(Site.code == site_code)
    if is_open is not None:
        query = query.where(Deployment.to_at.is_(None) == is_open)
    return keyset.page_of(session, query, _BY_ID, limit=limit, after=after, made=_line)


def deployment(session: Session, deployment_id: int) -> OneDeployment:
    """Raises NotFound when there is none, or the actor has nothing to do with it."""
    found = session.execute(
        select(Deployment, Site.code, Node.model)
        .join(Site, Site.id == Deployment.site_id)
        .join(Node, Node.node_id == Deployment.node_id)
        .where(Deployment.id == deployment_id)
    ).first()
    if found is None:
        raise NotFound("There is no deployment %(deployment_id)s.", deployment_id=deployment_id)
    rights.check_node_model(session, found.model, node_id=found.Deployment.node_id)
    (channels,) = site_view.probes_of_deployments(session, [deployment_id]).values()
    return OneDeployment(**vars(_line(found)), channels=tuple(channels))


def _line(row: Any) -> DeploymentLine:
    stands: Deployment = row.Deployment
    return DeploymentLine(stands.id, stands.node_id, row.code, stands.from_at, stands.to_at)
