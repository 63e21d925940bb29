"""Revisions as people and programs see them: which there were, how far each has come, what it changed. Reads only.

Whoever has to do with one kind of sites sees what was made anew there, and counts of that alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import (
    Channel,
    Datastream,
    Deployment,
    MadeEarlier,
    Revision,
    RevisionStream,
    Site,
)
from fleet_server.services import keyset, rights

_NEWEST_FIRST = keyset.Sorting((Revision.id,), (int,), is_descending=True)  # type: ignore[arg-type] # columns of a class
_BY_STREAM = keyset.Sorting((RevisionStream.datastream_id,), (int,))  # type: ignore[arg-type] # a column of a class


@dataclass(frozen=True)
class Earlier:
    """So many values were made anew by that revision already, while another waited."""

    revision_id: int
    changed: int


@dataclass(frozen=True)
class RevisionLine:
    """A revision with how far it has come: `switched` of `streams` datastreams; counts are of those.

    `made_earlier`: what others made of its values while it waited; `changed` is without them.
    """

    revision: Revision
    streams: int
    switched: int
    compared: int
    changed: int
    removed: int
    made_earlier: Sequence[Earlier]

    @property
    def is_done(self) -> bool:
        return self.revision.state == "done"


@dataclass(frozen=True)
class RevisionStreamLine:
    """One datastream of a revision; `node_id` feeds it now, or did last; `made_earlier` as in the whole."""

    stream: RevisionStream
    datastream: Datastream
    site: Site
    node_id: str | None
    made_earlier: Sequence[Earlier]


@dataclass(frozen=True)
class Waiting:
    """How many revisions are not done, since when the oldest was ordered, and which one says why it does not go on."""

    open: int
    oldest_at: datetime | None
    faulty_id: int | None


def revision_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[RevisionLine]:
    """Revisions that the actor has to do with, newest first. Three statements."""
    page: keyset.Page[Revision] = keyset.page_of(
        session,
        select(Revision).where(_concerns_actor(session)),
        _NEWEST_FIRST,
        limit=limit,
        after=after,
        made=lambda row: row.Revision,
    )
    return keyset.Page(_lines(session, page.items), page.next_key)


def revision_of(session: Session, revision_id: int) -> RevisionLine:
    """One of them. Raises NotFound."""
    query = select(Revision).where(Revision.id == revision_id, _concerns_actor(session))
    found = session.scalar(query.execution_options(populate_existing=True))
    if found is None:
        raise NotFound("There is no revision %(revision_id)s.", revision_id=revision_id)
    (line,) = _lines(session, [found])
    return line


def stream_page(
    session: Session, revision_id: int, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[RevisionStreamLine]:
    """Datastreams of a revision, in the order in which they are switched. The caller has found it (`revision_of`). Two statements."""
    feeding = (
        select(Deployment.node_id)
        .join(Channel, Channel.deployment_id == Deployment.id)
        .where(Channel.datastream_id == RevisionStream.datastream_id)
        .order_by(Channel.from_at.desc(), Channel.id.desc())
        .limit(1)
        .correlate(RevisionStream)
        .scalar_subquery()
    )
    query = (
        select(RevisionStream, Datastream, Site, feeding.label("node_id"))
        .join(Datastream, Datastream.id == RevisionStream.datastream_id)
        .join(Site, Site.id == Datastream.site_id)
        .where(RevisionStream.revision_id == revision_id, _is_own(session))
        .execution_options(populate_existing=True)
    )
    page: keyset.Page[Any] = keyset.page_of(
        session, query, _BY_STREAM, limit=limit, after=after, made=lambda row: row[:4]
    )
    earlier: dict[int, list[Earlier]] = defaultdict(list)
    for made in session.scalars(
        select(MadeEarlier)
        .where(
            MadeEarlier.revision_id == revision_id,
            MadeEarlier.datastream_id.in_([row[0].datastream_id for row in page.items]),
        )
        .order_by(MadeEarlier.by_id)
    ):
        earlier[made.datastream_id].append(Earlier(made.by_id, made.changed))
    lines = []
    for row in page.items:
        stream, datastream, site, node_id = row
        lines.append(RevisionStreamLine(stream, datastream, site, node_id, earlier[stream.datastream_id]))  # fmt: skip
    return keyset.Page(lines, page.next_key)


def waiting(session: Session) -> Waiting:
    """What waits, of all there are. Two statements."""
    is_open = Revision.state != "done"
    count, oldest_at = session.execute(
        select(func.count(), func.min(Revision.ordered_at)).where(is_open)
    ).one()
    faulty = select(Revision.id).where(is_open, Revision.fault.is_not(None))
    return Waiting(count, oldest_at, session.scalar(faulty.order_by(Revision.id).limit(1)))


def _is_own(session: Session) -> ColumnElement[bool]:
    return Site.kind.in_(rights.actor_of(session).site_kinds)


def _concerns_actor(session: Session) -> ColumnElement[bool]:
    return (
        select(RevisionStream.revision_id)
        .join(Datastream, Datastream.id == RevisionStream.datastream_id)
        .join(Site, Site.id == Datastream.site_id)
        .where(RevisionStream.revision_id == Revision.id, _is_own(session))
        .correlate(Revision)
        .exists()
    )


def _lines(session: Session, revisions: Sequence[Revision]) -> list[RevisionLine]:
    rows = session.execute(
        select(
            RevisionStream.revision_id,
            func.count(),
            func.count(RevisionStream.switched_at),
            func.sum(RevisionStream.compared),
            func.sum(RevisionStream.changed),
            func.sum(RevisionStream.removed),
        )
        .join(Datastream, Datastream.id == RevisionStream.datastream_id)
        .join(Site, Site.id == Datastream.site_id)
        .where(RevisionStream.revision_id.in_([one.id for one in revisions]), _is_own(session))
        .group_by(RevisionStream.revision_id)
    )
    counts = {row[0]: tuple(int(number) for number in row[1:]) for row in rows}
    earlier: dict[int, list[Earlier]] = defaultdict(list)
    for revision_id, by_id, changed in session.execute(
        select(MadeEarlier.revision_id, MadeEarlier.by_id, func.sum(MadeEarlier.changed))
        .join(Datastream, Datastream.id == MadeEarlier.datastream_id)
        .join(Site, Site.id == Datastream.site_id)
        .where(MadeEarlier.revision_id.in_([one.id for one in revisions]), _is_own(session))
        .group_by(MadeEarlier.revision_id, MadeEarlier.by_id)
        .order_by(MadeEarlier.revision_id, MadeEarlier.by_id)
    ):
        earlier[revision_id].append(Earlier(by_id, int(changed)))
    lines = []
    for one in revisions:
        streams, switched, compared, changed, removed = counts[one.id]
        lines.append(RevisionLine(one, streams, switched, compared, changed, removed, earlier[one.id]))  # fmt: skip
    return lines
