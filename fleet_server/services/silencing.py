"""Maintenance windows: from–to nobody is called for a node, a site, a group, a model or all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused, Said
from fleet_server.models import Node, NodeGroup, Scope, Silence, Site
from fleet_server.services import auditing, grouping, keyset, rights
from hardware import catalogue

LONGEST = timedelta(days=90)
REASON_MAX_LENGTH = 300
SCOPES = ("node", "site", "group", "model", "all")


_BY_END = keyset.Sorting((Silence.to_at, Silence.id), (datetime, int))  # type: ignore[arg-type] # columns of a class


class SilenceWrong(Invalid):
    """A maintenance window cannot be like this."""

    code = "silence_wrong"


def silence(
    session: Session,
    *,
    scope: str,
    key: str,
    from_at: datetime,
    to_at: datetime,
    reason: str,
    now: datetime,
) -> Silence:
    """Call nobody for these nodes in that time; alerts that are open stay so, and are not escalated. Committed on return.

    Args:
        scope: one of SCOPES; `key` is the node's id, the site's code, the group's name or the node model, and empty for `all`.

    Raises:
        SilenceWrong: scope, time or reason cannot be.
        NotFound: what it is for is not there for the actor.
    """
    told = reason.strip()
    if scope not in SCOPES:
        raise SilenceWrong(
            "A maintenance window is for one of %(scopes)s.", scopes=", ".join(SCOPES)
        )
    if not now < to_at or not from_at < to_at <= from_at + LONGEST:
        raise SilenceWrong("A maintenance window ends in the future, after 90 days at most.")
    if not 1 <= len(told) <= REASON_MAX_LENGTH or not told.isprintable():
        raise SilenceWrong(
            "Say in one line of at most %(longest)s characters what for.", longest=REASON_MAX_LENGTH
        )
    with db.writing(session):
        _CHECKS[scope](session, key)
        row = Silence(
            scope=scope,
            key="" if scope == "all" else key,
            from_at=from_at,
            to_at=to_at,
            reason=told,
            made_by=rights.actor_of(session).name,
            made_at=now,
        )
        session.add(row)
        session.flush()
        auditing.record(
            session,
            "alerts_silenced",
            subject=_subject(row),
            now=now,
            silence=row.id,
            since=from_at.isoformat(),
            until=to_at.isoformat(),
            reason=told,
        )
    return row


def end_silence(session: Session, silence_id: int, *, now: datetime) -> None:
    """It ends now, or never begins. Committed on return; safe to repeat.

    Raises:
        NotFound: there is none.
    """
    with db.writing(session):
        row = session.get(Silence, silence_id, with_for_update=True)
        if row is None:
            raise NotFound("There is no maintenance window %(silence_id)s.", silence_id=silence_id)
        _CHECKS[row.scope](session, row.key)
        if row.to_at <= now:
            return
        auditing.record(
            session, "silence_ended", subject=_subject(row), now=now, silence=silence_id
        )
        if now > row.from_at:
            row.to_at = now
        else:
            session.delete(row)


def silence_of(session: Session, silence_id: int) -> Silence:
    """Raises NotFound when there is none, or the actor has nothing to do with it."""
    row = session.get(Silence, silence_id)
    if row is None:
        raise NotFound("There is no maintenance window %(silence_id)s.", silence_id=silence_id)
    _CHECKS[row.scope](session, row.key)
    return row


def silence_page(
    session: Session, *, now: datetime, limit: int, after: keyset.Key | None = None
) -> keyset.Page[Silence]:
    """Those that hold or will, by their end, in pages. One statement."""
    return keyset.page_of(
        session,
        select(Silence).where(Silence.to_at > now),
        _BY_END,
        limit=limit,
        after=after,
        made=lambda row: row[0],
    )


def silences(session: Session, *, now: datetime) -> list[Silence]:
    """Those that hold or will, by their end. One statement."""
    return list(session.scalars(select(Silence).where(Silence.to_at > now).order_by(Silence.to_at)))


def _subject(row: Silence) -> str:
    return f"{row.scope} {row.key}" if row.key else "fleet"


def _check_node(session: Session, key: str) -> None:
    node = session.get(Node, key)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=key)
    rights.check_node_model(session, node.model, node_id=key)


def _check_site(session: Session, key: str) -> None:
    site = session.scalar(select(Site).where(Site.code == key))
    if site is None:
        raise NotFound("There is no site %(code)s.", code=key)
    rights.check_site_kind(session, site.kind, what=Said("site %(code)s", code=key))


def _check_group(session: Session, key: str) -> None:
    group = session.scalar(select(NodeGroup).where(NodeGroup.name == key))
    if group is None:
        raise NotFound("There is no group %(name)s.", name=key)
    grouping.check_group_whole(session, group)


def _check_model(session: Session, key: str) -> None:
    if key not in catalogue.node_model_ids():
        raise NotFound("There is no %(what)s.", what=Said("node model %(model)s", model=key))
    kind = catalogue.load_node_model(key).site_kind
    rights.check_site_kind(session, kind, what=Said("node model %(model)s", model=key))


def _check_all(session: Session, _key: str) -> None:
    if rights.actor_of(session).scope is not Scope.ALL:
        raise Refused("Only who has to do with all sites can silence all of them.")


_CHECKS: Mapping[str, Callable[[Session, str], None]] = {
    "node": _check_node,
    "site": _check_site,
    "group": _check_group,
    "model": _check_model,
    "all": _check_all,
}
