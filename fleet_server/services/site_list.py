"""The list of sites, in pages. Reads only."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound, Said
from fleet_server.models import Site
from fleet_server.services import deploying, keyset, rights
from fleet_server.services.overviews import Shown, seen
from fleet_server.services.sites import Box, SiteFilter, SiteState

_BY_CODE = keyset.Sorting((Site.code,), (str,))  # type: ignore[arg-type] # a column of a class


def site_page(
    session: Session,
    *,
    limit: int,
    after: keyset.Key | None = None,
    kind: str | None = None,
    name: str | None = None,
    text: str = "",
    state: SiteState | None = None,
    box: Box | None = None,
    shown: Shown = Shown.OWN,
) -> keyset.Page[Site]:
    """Sites that the actor may see, by code: of a kind, whose name begins so, or as `SiteFilter` has it. One statement."""
    wanted = SiteFilter(text=text, state=state, box=box)
    query = select(Site).where(seen(session, shown), *wanted.conditions())
    if kind is not None:
        query = query.where(Site.kind == kind)
    if name:
        query = query.where(Site.name.startswith(name, autoescape=True))
    return keyset.page_of(
        session, query, _BY_CODE, limit=limit, after=after, made=lambda row: row[0]
    )


def site_with_code(session: Session, code: str) -> Site:
    """Raises NotFound when there is none, or the actor has nothing to do with it."""
    site = deploying.find_site(session, code)
    if site is None:
        raise NotFound("There is no site %(code)s.", code=code)
    rights.check_site_kind(session, site.kind, what=Said("site %(code)s", code=code))
    return site
