"""Sites: trees and waters with their place and what the office knows of them. Made, changed, closed; never deleted.

Which node stands at a site is in `deploying.py`, how whole files come in is in `site_importing.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Said
from fleet_server.measurement.soil_water import SOIL_CLASSES
from fleet_server.models import Deployment, Site
from fleet_server.services import auditing, judged_streams, rights

KINDS = ("tree", "water")
KIND_WORDS = {"tree": Said("tree"), "water": Said("water")}
_LONGEST_CODE, _LONGEST_NAME, _LONGEST_DESCRIPTION = 64, 200, 2000
_LONGEST_WORD = 120
_EARLIEST_YEAR = 1000  # some limes are older than any cadastre
_LARGEST_AREA_M2, _GREATEST_DEPTH_M = 1e9, 500.0
_LARGEST_PIT_M2, _LARGEST_CROWN_M2, _GREATEST_LEVEL_M = 10_000.0, 10_000.0, 500.0
_MOST_DETAILS, _LONGEST_DETAIL_NAME, _LONGEST_DETAIL = 100, 80, 500
_LONGEST_SEARCH = 80


class SiteExists(Conflict):
    """The site's code is taken."""

    code = "site_exists"


class SiteWrong(Invalid):
    """The site cannot be like this."""

    code = "site_wrong"


class SiteInUse(Conflict):
    """A node stands at the site."""

    code = "site_in_use"


@dataclass(frozen=True)
class NewSite:
    """A place to measure; position in WGS84 degrees. `details`: what else is known of it, name → text."""

    code: str
    name: str
    kind: str
    latitude: float
    longitude: float
    description: str = ""
    species: str | None = None
    tree_number: str | None = None
    planted_year: int | None = None
    area_m2: float | None = None
    depth_m: float | None = None
    lowest_level_m: float | None = None
    soil_class: str | None = None
    unsealed_m2: float | None = None
    crown_m2: float | None = None
    tree_group: str | None = None
    is_group_reference: bool = False
    details: Mapping[str, str] = field(default_factory=dict)


class SiteState(StrEnum):
    """What a list may be narrowed to."""

    OPEN = "open"
    WITH_NODE = "with_node"
    BARE = "bare"  # open, and no node stands there
    CLOSED = "closed"


@dataclass(frozen=True)
class Box:
    """Degrees; west ≤ east, south ≤ north."""

    west: float
    south: float
    east: float
    north: float


@dataclass(frozen=True)
class SiteFilter:
    """Which sites of those that the actor may see; empty: all. `text` is looked for in code, name, tree number and species."""

    kind: str | None = None
    state: SiteState | None = None
    text: str = ""
    box: Box | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """As conditions on `Site`."""
        found: list[ColumnElement[bool]] = []
        if self.kind is not None:
            found.append(Site.kind == self.kind)
        if self.state is not None:
            found += _state_conditions(self.state)
        if self.box is not None:
            found += [
                Site.latitude.between(self.box.south, self.box.north),
                Site.longitude.between(self.box.west, self.box.east),
            ]
        text = self.text.strip()[:_LONGEST_SEARCH].replace("\0", "")
        if text:
            searched = (Site.code, Site.name, Site.tree_number, Site.species)
            found.append(or_(*(column.icontains(text, autoescape=True) for column in searched)))
        return found


def _state_conditions(state: SiteState) -> list[ColumnElement[bool]]:
    if state is SiteState.CLOSED:
        return [Site.closed_at.is_not(None)]
    is_open: list[ColumnElement[bool]] = [Site.closed_at.is_(None)]
    if state is SiteState.OPEN:
        return is_open
    with_node = select(Deployment.site_id).where(Deployment.to_at.is_(None))
    is_in = Site.id.in_(with_node) if state is SiteState.WITH_NODE else Site.id.not_in(with_node)
    return [*is_open, is_in]


def create_site(session: Session, site: NewSite, *, is_public: bool, now: datetime) -> Site:
    """A new site. Committed on return.

    Raises:
        SiteWrong: code, name, kind, position or something else cannot be.
        SiteExists: the code is taken.
    """
    values = checked_values(dataclasses.asdict(site), now=now)
    with db.writing(session):
        if find_site(session, site.code) is not None:
            raise SiteExists("There is already a site %(code)s.", code=site.code)
        rights.check_site_kind(session, site.kind, what=kind_unknown(site.kind))
        check_reference(session, None, values)
        row = Site(**values, is_public=is_public, created_at=now)
        session.add(row)
        session.flush()
        auditing.record(
            session,
            "site_made",
            subject=f"site {site.code}",
            now=now,
            name=site.name,
            kind=site.kind,
            is_public=is_public,
        )
    return row


def find_site(session: Session, code: str) -> Site | None:
    """The site with this code."""
    return session.scalar(select(Site).where(Site.code == code))


def site_of(session: Session, site_id: int) -> Site:
    """A site that the actor has to do with.

    Raises:
        NotFound: there is none with this number.
    """
    site = session.get(Site, site_id)
    if site is None:
        raise NotFound("There is no site %(code)s.", code=site_id)
    rights.check_site_kind(session, site.kind, what=Said("site %(code)s", code=site_id))
    return site


def change_site(
    session: Session, site_id: int, changes: Mapping[str, object], *, now: datetime
) -> Site:
    """Change what is known of a site: any of NewSite's fields but code and kind, and `is_public`. Committed on return.

    Only what differs is written and noted; a site that is already so stays as it is.

    Raises:
        NotFound: no such site.
        SiteWrong: a value cannot be, or the field is not one that changes.
    """
    for name in ("code", "kind"):
        if name in changes:
            raise SiteWrong(
                "A site's code and kind stay what they are; make another site instead.", name=name
            )
    values = checked_values(changes, now=now)
    with db.writing(session):
        site = site_of(session, site_id)
        session.refresh(site, with_for_update=True)
        check_reference(session, site, values)
        changed = write_changes(session, site, values)
        if changed:
            auditing.record(
                session,
                "site_changed",
                subject=f"site {site.code}",
                now=now,
                changes={name: told(value) for name, value in changed.items()},
            )
    return site


def write_changes(session: Session, site: Site, values: Mapping[str, object]) -> dict[str, object]:
    """Give the row those values that it does not have yet; which these were. Part of the caller's transaction."""
    changed = {name: value for name, value in values.items() if getattr(site, name) != value}
    if "latitude" in changed or "longitude" in changed:
        place = [changed.get(name, getattr(site, name)) for name in ("latitude", "longitude")]
        judged_streams.note_moved(session, site, *(float(str(degrees)) for degrees in place))
    for name, value in changed.items():
        setattr(site, name, value)
    return changed


def check_reference(session: Session, site: Site | None, values: Mapping[str, object]) -> None:
    """One tree of a group stands for the others of it.

    Args:
        site: as it is; None: it is new.
        values: what it becomes; what is not named stays.

    Raises:
        SiteWrong: another one does so already, or it is in no group.
    """

    def becomes(name: str) -> object:
        return values[name] if name in values else getattr(site, name, None)

    group = becomes("tree_group")
    if group is not None and (site.kind if site else values.get("kind")) != "tree":
        raise SiteWrong("Only trees are in a group of trees.")
    if not becomes("is_group_reference"):
        return
    if group is None:
        raise SiteWrong("A tree that stands for its group is in one; name the group.")
    query = select(Site.code).where(Site.tree_group == group, Site.is_group_reference)
    other = session.scalar(query if site is None else query.where(Site.id != site.id))
    if other is not None:
        raise SiteWrong(
            "%(code)s stands for the group %(group)s already; take that from it first.",
            code=other,
            group=group,
        )


def close_site(session: Session, site_id: int, *, now: datetime) -> None:
    """Nothing is mounted there any more; its readings stay. Committed on return. Safe to repeat.

    Raises:
        SiteInUse: a node stands there.
    """
    with db.writing(session):
        site = site_of(session, site_id)
        session.refresh(site, with_for_update=True)
        standing = session.scalar(
            select(Deployment.node_id).where(
                Deployment.site_id == site_id, Deployment.to_at.is_(None)
            )
        )
        if standing is not None:
            raise SiteInUse(
                "Node %(node_id)s stands at %(code)s; take it down first.",
                node_id=standing,
                code=site.code,
            )
        if site.closed_at is None:
            site.closed_at = now
            auditing.record(session, "site_closed", subject=f"site {site.code}", now=now)


def reopen_site(session: Session, site_id: int, *, now: datetime) -> None:
    """The site is in use again. Committed on return. Safe to repeat."""
    with db.writing(session):
        site = site_of(session, site_id)
        if site.closed_at is not None:
            site.closed_at = None
            auditing.record(session, "site_reopened", subject=f"site {site.code}", now=now)


def kind_unknown(kind: str) -> Said:
    """What somebody asked for who has nothing to do with this kind of site."""
    return Said("kind of site %(kind)s for you", kind=KIND_WORDS.get(kind, kind))


def told(value: object) -> auditing.Detail:
    """A value as an audit entry can keep it: without fractions."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): told(one) for key, one in value.items()}
    return str(value)


# ------------------------------------------------------------------------------------------------------------- checking


def checked_values(values: Mapping[str, object], *, now: datetime) -> dict[str, object]:
    """The same values as the table keeps them: trimmed, and None for nothing.

    Raises:
        SiteWrong: with one sentence on the first that cannot be.
    """
    _check_code_and_name(values)
    checks: Mapping[str, Callable[[object], object]] = {
        "code": lambda value: _text(value, Said("code"), _LONGEST_CODE),
        "name": lambda value: _text(value, Said("name"), _LONGEST_NAME),
        "kind": _kind,
        "latitude": lambda value: _degrees(value, 90.0),
        "longitude": lambda value: _degrees(value, 180.0),
        "description": lambda value: _description(value),
        "is_public": bool,
        "species": lambda value: _word(value, Said("species")),
        "tree_number": lambda value: _word(value, Said("tree number")),
        "planted_year": lambda value: _year(value, now.year),
        "area_m2": lambda value: _size(value, Said("area in m²"), _LARGEST_AREA_M2),
        "depth_m": lambda value: _size(value, Said("depth in m"), _GREATEST_DEPTH_M),
        "lowest_level_m": _level,
        "soil_class": _soil_class,
        "unsealed_m2": lambda value: _ground(value, Said("unsealed ground"), _LARGEST_PIT_M2),
        "crown_m2": lambda value: _ground(value, Said("ground below the crown"), _LARGEST_CROWN_M2),
        "tree_group": lambda value: _word(value, Said("group of trees")),
        "is_group_reference": bool,
        "details": _details,
    }
    unknown = next((name for name in values if name not in checks), None)
    if unknown is not None:
        raise SiteWrong("A site has no %(unknown)s.", unknown=unknown)
    return {name: checks[name](value) for name, value in values.items()}


def _check_code_and_name(values: Mapping[str, object]) -> None:
    given = [str(values[name]).strip() for name in ("code", "name") if name in values]
    if not all(given):
        raise SiteWrong("A site has a code and a name; give both.")


def _text(value: object, what: str, longest: int) -> str:
    text = str(value).strip()
    if len(text) > longest or not text.isprintable():
        raise SiteWrong(
            "A site's %(what)s has at most %(longest)s printable characters.",
            what=what,
            longest=longest,
        )
    return text


def _word(value: object, what: str) -> str | None:
    text = _text("" if value is None else value, what, _LONGEST_WORD)
    return text or None


def _kind(value: object) -> str:
    if value not in KINDS:
        raise SiteWrong("A site is a tree or a water, not %(value)r.", value=value)
    return str(value)


def _degrees(value: object, most: float) -> float:
    number = value if isinstance(value, int | float) else math.nan
    if not -most <= number <= most:  # NaN is in no range
        raise SiteWrong(
            "A site's position is given in WGS84 degrees: latitude from -90 to 90, longitude from -180 to 180."
        )
    return float(number)


def _description(value: object) -> str:
    text = str(value).strip().replace("\r\n", "\n")
    if len(text) > _LONGEST_DESCRIPTION or "\0" in text:
        raise SiteWrong(
            "A site's description has at most %(longest)s characters.", longest=_LONGEST_DESCRIPTION
        )
    return text


def _year(value: object, this_year: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or not _EARLIEST_YEAR <= value <= this_year + 1:
        raise SiteWrong(
            "A tree's planting year lies between %(earliest_year)s and %(this_year)s, not %(value)s.",
            earliest_year=_EARLIEST_YEAR,
            this_year=this_year + 1,
            value=value,
        )
    return value


def _size(value: object, what: str, most: float) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 < value <= most:
        raise SiteWrong(
            "A water's %(what)s is more than 0 and at most %(most)g, not %(value)s.",
            what=what,
            most=most,
            value=value,
        )
    return float(value)


def _ground(value: object, what: str, most: float) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not 0 <= value <= most:
        raise SiteWrong(
            "A tree's %(what)s is from 0 to %(most)g m², not %(value)s.",
            what=what,
            most=most,
            value=value,
        )
    return float(value)


def _level(value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not abs(value) <= _GREATEST_LEVEL_M:
        raise SiteWrong(
            "A water's lowest level is at most %(most)g m above or below where it is measured from, not %(value)s.",
            most=_GREATEST_LEVEL_M,
            value=value,
        )
    return float(value)


def _soil_class(value: object) -> str | None:
    """As KA5 writes it, however it was typed."""
    text = _word(value, Said("soil class"))
    if text is None:
        return None
    found = {name.lower(): name for name in SOIL_CLASSES}.get(text.lower())
    if found is None:
        raise SiteWrong(
            "%(value)s is no soil class of KA5; it is one of %(known)s.",
            value=text,
            known=", ".join(SOIL_CLASSES),
        )
    return found


def _details(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > _MOST_DETAILS:
        raise SiteWrong(
            "At most %(most)s details of a site are kept, each with its name.", most=_MOST_DETAILS
        )
    details: dict[str, str] = {}
    for key, text in value.items():
        name, kept = str(key).strip(), str(text).strip()
        if not 1 <= len(name) <= _LONGEST_DETAIL_NAME or not name.isprintable():
            raise SiteWrong(
                "A detail's name has 1 to %(longest)s characters.", longest=_LONGEST_DETAIL_NAME
            )
        if len(kept) > _LONGEST_DETAIL or "\0" in kept:
            raise SiteWrong(
                "The detail %(name)r has more than %(longest)s characters.",
                name=name,
                longest=_LONGEST_DETAIL,
            )
        if kept:
            details[name] = kept
    return details
