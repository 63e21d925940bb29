"""Rules that the city decides by: which are in force, and how they become other ones. A site's own beat its group's, these beat everybody's.

Every change is a version with a reason and an author; nothing is overwritten. What a change would have meant is in `city_rehearsing.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.city import rules as city_rules
from fleet_server.city.rules import DEFAULTS, KINDS, Rules
from fleet_server.errors import Invalid, NotFound, Said
from fleet_server.models import CityRuleSet, Site
from fleet_server.services import auditing, keyset, rights

SITE_KINDS: Mapping[str, str] = {"trees": "tree", "waters": "water"}
"""Kind of rules → kind of the sites that they are for."""
_LONGEST_REASON = 500
_NEWEST_FIRST = keyset.Sorting((CityRuleSet.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class


class CityRulesWrong(Invalid):
    """Rules cannot be like this."""

    code = "city_rules_wrong"


@dataclass(frozen=True)
class RuleScope:
    """What rules hold for: one site, a group of trees, or (neither) all sites of their kind."""

    site_id: int | None = None
    tree_group: str | None = None


EVERYWHERE = RuleScope()


@dataclass(frozen=True)
class InForce:
    """`rule_set_id` None and `version` 0: the defaults. `scope`: where they were set."""

    rules: Rules
    rule_set_id: int | None
    version: int
    scope: RuleScope


class RuleBook:
    """Rules of one kind as they were in force at a moment, for any site. Reads once, when it is made; one statement."""

    def __init__(self, session: Session, kind: str, *, at: datetime) -> None:
        _check_kind(kind)
        self._default = InForce(DEFAULTS[kind], None, 0, EVERYWHERE)
        self._newest: dict[RuleScope, InForce | None] = {}
        rows = session.scalars(
            select(CityRuleSet)
            .where(CityRuleSet.kind == kind, CityRuleSet.created_at <= at)
            .order_by(CityRuleSet.version, CityRuleSet.id)
        )
        for row in rows:
            self._newest[RuleScope(row.site_id, row.tree_group)] = _in_force(row)

    def with_rules(self, scope: RuleScope, rules: Rules | None) -> RuleBook:
        """As if these had been set for that scope; None: as if the more general ones held there again."""
        other = copy.copy(self)
        made = None if rules is None else InForce(rules, None, 0, scope)
        other._newest = {**self._newest, scope: made}
        return other

    def of(self, site_id: int | None = None, tree_group: str | None = None) -> InForce:
        """What a site of this group is decided by; without either, what holds everywhere."""
        own, group = RuleScope(site_id=site_id), RuleScope(tree_group=tree_group)
        for scope in (own, group, EVERYWHERE):
            found = self._newest.get(scope)
            if found is not None:
                return found
        return self._default


def rules_in_force(
    session: Session, kind: str, site_id: int | None = None, *, at: datetime
) -> InForce:
    """What a site is decided by at a moment; without a site, what holds everywhere.

    Raises:
        NotFound: there is no such site of this kind, or no such kind of rules.
    """
    group = None if site_id is None else _site(session, kind, site_id).tree_group
    return RuleBook(session, kind, at=at).of(site_id, group)


def set_rules(
    session: Session,
    kind: str,
    body: Mapping[str, Any] | None,
    *,
    scope: RuleScope = EVERYWHERE,
    reason: str,
    author: str,
    now: datetime,
) -> CityRuleSet:
    """Put other rules in force; None: the more general ones again. Committed on return.

    The worker decides by them the next time that it looks at a site.

    Raises:
        NotFound: there is no such kind, site or group.
        CityRulesWrong: they are no rules; the sentence says where. Or nobody says why.
    """
    checked = None if body is None else city_rules.to_data(checked_rules(kind, body))
    _check_kind(kind)
    if not 1 <= len(reason.strip()) <= _LONGEST_REASON:
        raise CityRulesWrong(
            "Say in at most %(longest)s characters why the rules become other ones.",
            longest=_LONGEST_REASON,
        )
    rights.check_site_kind(session, SITE_KINDS[kind], what=Said("kind of rules %(kind)s for you", kind=kind))  # fmt: skip
    with db.writing(session):
        subject = _checked_scope(session, kind, scope)
        made = CityRuleSet(
            kind=kind,
            site_id=scope.site_id,
            tree_group=scope.tree_group,
            version=_newest_version(session, kind, scope) + 1,
            body=checked,
            reason=reason.strip(),
            author=author,
            created_at=now,
        )
        session.add(made)
        session.flush()
        auditing.record(
            session,
            "city_rules_set",
            subject=f"city rules {made.id}",
            now=now,
            kind=kind,
            scope=subject,
            version=made.version,
            reason=made.reason,
        )
    return made


def rule_page(
    session: Session, *, limit: int, after: keyset.Key | None = None, kind: str | None = None
) -> keyset.Page[CityRuleSet]:
    """Every version there ever was of what the actor has to do with, the newest first. One statement."""
    site_kinds = rights.actor_of(session).site_kinds
    kinds = [name for name, site_kind in SITE_KINDS.items() if site_kind in site_kinds]
    query = select(CityRuleSet).where(CityRuleSet.kind.in_(kinds))
    if kind is not None:
        query = query.where(CityRuleSet.kind == kind)
    return keyset.page_of(
        session, query, _NEWEST_FIRST, limit=limit, after=after, made=lambda row: row[0]
    )


def rule_set(session: Session, rule_set_id: int) -> CityRuleSet:
    """Raises NotFound when there is none, or the actor has nothing to do with its kind."""
    found = session.get(CityRuleSet, rule_set_id)
    if found is None:
        raise NotFound("There are no rules %(number)s.", number=rule_set_id)
    kind = SITE_KINDS[found.kind]
    rights.check_site_kind(session, kind, what=Said("rules %(number)s", number=rule_set_id))
    return found


def checked_rules(kind: str, body: Mapping[str, Any]) -> Rules:
    """Raises CityRulesWrong, NotFound."""
    _check_kind(kind)
    try:
        return city_rules.from_data(kind, body)
    except ValueError as problem:
        raise CityRulesWrong("These are no rules: %(what)s", what=str(problem)) from problem


def _in_force(row: CityRuleSet) -> InForce | None:
    if row.body is None:
        return None
    scope = RuleScope(row.site_id, row.tree_group)
    return InForce(city_rules.from_data(row.kind, row.body), row.id, row.version, scope)


def _newest_version(session: Session, kind: str, scope: RuleScope) -> int:
    newest = session.scalar(
        select(CityRuleSet.version)
        .where(
            CityRuleSet.kind == kind,
            CityRuleSet.site_id.is_not_distinct_from(scope.site_id),
            CityRuleSet.tree_group.is_not_distinct_from(scope.tree_group),
        )
        .order_by(CityRuleSet.version.desc())
        .limit(1)
    )
    return newest or 0


def _checked_scope(session: Session, kind: str, scope: RuleScope) -> str:
    """What the audit log calls it."""
    if scope.site_id is not None and scope.tree_group is not None:
        raise CityRulesWrong("Rules hold for a site or for a group, not for both.")
    if scope.site_id is not None:
        return f"site {_site(session, kind, scope.site_id).code}"
    if scope.tree_group is None:
        return "all"
    query = select(Site.id).where(Site.tree_group == scope.tree_group).limit(1)
    if kind != "trees" or session.scalar(query) is None:
        raise NotFound("There is no group of %(kind)s %(name)s.", kind=kind, name=scope.tree_group)
    return f"group {scope.tree_group}"


def _site(session: Session, kind: str, site_id: int) -> Site:
    _check_kind(kind)
    site = session.get(Site, site_id)
    if site is None or site.kind != SITE_KINDS[kind]:
        raise NotFound("There is no site %(code)s of the %(kind)s.", code=site_id, kind=kind)
    rights.check_site_kind(session, site.kind, what=Said("site %(code)s", code=site.code))
    return site


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise NotFound(
            "There are no rules of %(kind)s; there are those of %(known)s.",
            kind=kind,
            known=", ".join(KINDS),
        )
