"""Which releases there are, who signed them, what is in them, and which nodes run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session, defer

from fleet_server.errors import NotFound
from fleet_server.models import Node, NodeStatus, Release, ReleaseComponent
from fleet_server.services import keyset, release_repository, rights
from fleet_server.services.release_repository import RoleState
from fleet_server.services.version_ranges import read_range

FIRMWARE = "stadtsensor-node"
"""What the parts list calls the firmware as a whole."""
_NEWEST_FIRST = keyset.Sorting((Release.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class
_BY_NODE = keyset.Sorting((Node.node_id,), (str,))  # type: ignore[arg-type] # a column of a class
_RUNS = and_(
    NodeStatus.bundle_sha256 == Release.bundle_sha256,
    NodeStatus.version == Release.version,
    NodeStatus.model == Release.model,
)
"""A node runs a release when it says so: model, version and hash of its bundle; the same files may be a release of several models."""


@dataclass(frozen=True)
class ReleaseFilter:
    """Which releases a list shows. `versions`: a range of the component's, or of the release's where no component is named."""

    model: str | None = None
    component: str | None = None
    purl: str | None = None
    versions: str = ""
    is_withdrawn: bool | None = None


@dataclass(frozen=True)
class ReleaseLine:
    """A release in a list; `nodes`: how many run it."""

    release: Release
    nodes: int


@dataclass(frozen=True)
class RunningNode:
    """A node that runs a release with a part that was asked for."""

    node_id: str
    label: str
    model: str
    version: str
    release_id: int
    component: str
    component_version: str
    purl: str


@dataclass(frozen=True)
class SignedRelease:
    """A release with the role that signs it; None when its role is not there any more."""

    release: Release
    role: RoleState | None
    nodes: int
    components: Sequence[ReleaseComponent] = field(default_factory=tuple)


def release_of(session: Session, model: str, version: str) -> Release:
    """One release. Raises NotFound: there is none, or not for the actor."""
    release = session.scalar(
        select(Release).where(Release.model == model, Release.version == version)
    )
    if release is None or not _may_see(session, release):
        raise NotFound(f"There is no release {version} for {model}.")
    return release


def releases_of(
    session: Session, model: str, *, is_withdrawn: bool | None = False
) -> list[Release]:
    """Releases of a model, the highest counter first; without the withdrawn ones unless asked for (None: both)."""
    query = select(Release).where(Release.model == model).order_by(Release.counter.desc())
    if is_withdrawn is not None:
        gone = Release.withdrawn_at.is_not(None)
        query = query.where(gone if is_withdrawn else ~gone)
    return list(session.scalars(query))


def find(session: Session, release_id: int) -> Release:
    """One release by its number. Raises NotFound."""
    release = session.get(Release, release_id)
    if release is None or not _may_see(session, release):
        raise NotFound(f"There is no release {release_id}.")
    return release


def signed_release(session: Session, release_id: int) -> SignedRelease:
    """Everything about a release that a person asks. Raises NotFound."""
    release = find(session, release_id)
    states = {state.role: state for state in release_repository.role_states(session)}
    nodes = session.scalar(
        select(func.count())
        .select_from(NodeStatus)
        .join(Release, _RUNS)
        .where(Release.id == release_id)
    )
    components = session.scalars(
        select(ReleaseComponent)
        .where(ReleaseComponent.release_id == release_id)
        .order_by(ReleaseComponent.place)
    ).all()
    return SignedRelease(release, states.get(release.model), nodes or 0, components)


def release_page(
    session: Session, wanted: ReleaseFilter, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[ReleaseLine]:
    """Releases, newest first, without their parts lists. Three statements at most.

    Raises:
        RangeWrong: the range is none.
    """
    query: Select[Any] = (
        select(Release)
        .options(defer(Release.sbom), defer(Release.manifest))
        .where(*_conditions(session, wanted))
    )
    page = keyset.page_of(
        session, query, _NEWEST_FIRST, limit=limit, after=after, made=lambda row: row.Release
    )
    counts = _node_counts(session, page.items)
    lines = [ReleaseLine(one, counts.get(_what_runs(one), 0)) for one in page.items]
    return keyset.Page(lines, page.next_key)


_Bundle = tuple[str | None, str | None, str | None]
"""Model, version and hash: what a node says that it runs."""


def _node_counts(session: Session, shown: Sequence[Release]) -> dict[_Bundle, int]:
    """How many nodes run each: all of them in one pass over the nodes."""
    rows = session.execute(
        select(NodeStatus.model, NodeStatus.version, NodeStatus.bundle_sha256, func.count())
        .where(NodeStatus.bundle_sha256.in_({one.bundle_sha256 for one in shown}))
        .group_by(NodeStatus.model, NodeStatus.version, NodeStatus.bundle_sha256)
    )
    return {(model, version, sha256): count for model, version, sha256, count in rows}


def _what_runs(release: Release) -> _Bundle:
    return release.model, release.version, release.bundle_sha256


def nodes_with(
    session: Session,
    wanted: ReleaseFilter,
    *,
    limit: int,
    after: keyset.Key | None = None,
) -> keyset.Page[RunningNode]:
    """Nodes that run a release with this component in this range of versions (or this purl), by their id.

    Where neither is named, the component is the firmware itself. A node that runs two parts of one name is there once. Two statements at most.

    Raises:
        RangeWrong: the range is none.
    """
    if wanted.component is None and wanted.purl is None:
        wanted = replace(wanted, component=FIRMWARE)
    of_release = select(Release.id).where(*_conditions(session, wanted))
    first = (
        select(func.min(ReleaseComponent.place))
        .where(ReleaseComponent.release_id == Release.id, *_component_conditions(session, wanted))
        .correlate(Release)
        .scalar_subquery()
    )
    query: Any = (
        select(
            Node.node_id,
            Node.label,
            Node.model,
            Release.version,
            Release.id.label("release_id"),
            ReleaseComponent.name,
            ReleaseComponent.version.label("component_version"),
            ReleaseComponent.purl,
        )
        .select_from(Node)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .join(Release, _RUNS)
        .join(
            ReleaseComponent,
            and_(ReleaseComponent.release_id == Release.id, ReleaseComponent.place == first),
        )
        .where(Release.id.in_(of_release))
    )
    return keyset.page_of(
        session,
        query,
        _BY_NODE,
        limit=limit,
        after=after,
        made=lambda row: RunningNode(
            row.node_id,
            row.label,
            row.model,
            row.version,
            row.release_id,
            row.name,
            row.component_version,
            row.purl,
        ),
    )


def highest_counters(session: Session) -> dict[str, int]:
    """Of every model that has a release."""
    query = select(Release.model, func.max(Release.counter)).group_by(Release.model)
    return {row[0]: row[1] for row in session.execute(query)}


def component_names(session: Session) -> list[str]:
    """Names of all parts of all releases, for a person to choose from."""
    return list(
        session.scalars(
            select(ReleaseComponent.name).distinct().order_by(ReleaseComponent.name).limit(1000)
        )
    )


def _conditions(session: Session, wanted: ReleaseFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    models = rights.node_models(session)
    if models is not None:
        found.append(Release.model.in_(models))
    if wanted.model is not None:
        found.append(Release.model == wanted.model)
    if wanted.is_withdrawn is not None:
        gone = Release.withdrawn_at.is_not(None)
        found.append(gone if wanted.is_withdrawn else ~gone)
    if wanted.component is not None or wanted.purl is not None:
        with_it = select(ReleaseComponent.release_id).where(*_component_conditions(session, wanted))
        found.append(Release.id.in_(with_it))
    elif wanted.versions:
        asked = read_range(wanted.versions)
        versions = session.scalars(select(Release.version).distinct())
        found.append(Release.version.in_([one for one in versions if asked.holds(one)]))
    return found


def _component_conditions(session: Session, wanted: ReleaseFilter) -> list[ColumnElement[bool]]:
    """Of parts: those of the name or purl whose version is in the range. The few versions that there are are compared here."""
    named: list[ColumnElement[bool]] = []
    if wanted.component is not None:
        named.append(ReleaseComponent.name == wanted.component)
    if wanted.purl is not None:
        # `pkg:github/micropython/micropython` means each of its versions.
        begun = ReleaseComponent.purl.startswith(f"{wanted.purl}@", autoescape=True)
        named.append(or_(ReleaseComponent.purl == wanted.purl, begun))
    if not wanted.versions:
        return named
    asked = read_range(wanted.versions)
    pairs = session.execute(
        select(ReleaseComponent.name, ReleaseComponent.version).where(*named).distinct()
    )
    matching = [(name, version) for name, version in pairs if asked.holds(version)]
    return [*named, tuple_(ReleaseComponent.name, ReleaseComponent.version).in_(matching)]


def _may_see(session: Session, release: Release) -> bool:
    models = rights.node_models(session)
    return models is None or release.model in models


def is_supported(release: Release, now: datetime) -> bool:
    """Whether security updates are still made for it; it is on the day itself."""
    return now.date() <= release.support_until.date()
