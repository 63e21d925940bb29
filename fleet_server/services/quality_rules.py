"""Limits of the quality tests that are in force: a datastream's own, else its property's, else the defaults; and how they are changed.

A change holds for all values, those of the past too: they are judged again (`judging`), and those whose flag becomes another one get a new
version. Another gross range is part of a value's lineage: it orders a revision. Nothing that was set is ever changed or deleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused
from fleet_server.measurement import learning
from fleet_server.measurement import rules as measurement_rules
from fleet_server.measurement.quality import GROSS_RANGES
from fleet_server.measurement.rules import Rules, to_data
from fleet_server.measurement.windows import Series
from fleet_server.models import Datastream, Observation, RuleSet, Site
from fleet_server.services import (
    auditing,
    judged_streams,
    keyset,
    own_ranges,
    revising,
    rights,
)

LONGEST_REASON = 500
"""Characters."""
_LEVEL = "calibrated"
"""What is judged."""
_BY_ID = keyset.Sorting((RuleSet.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class
_LEARNED_ROWS = 100_000
_LEVEL_OF_ITS_OWN = frozenset({"water_level"})
"""Properties whose usual values are a site's own."""


class TooFewDays(Refused):
    """There is too little to learn from."""

    code = "too_few_days_to_learn_from"


class RulesWrong(Invalid):
    """Limits cannot be like this."""

    code = "quality_rules_wrong"


@dataclass(frozen=True)
class InForce:
    """`version` 0: the defaults. `is_of_series`: somebody set them for this datastream alone."""

    rules: Rules
    version: int
    is_of_series: bool = False


@dataclass(frozen=True)
class LimitChange:
    """One limit that a version has another number for: `spike.suspect`; None: it had none, or has none."""

    name: str
    before: object
    after: object


@dataclass(frozen=True)
class RuleVersion:
    """One version with what it changed against the one before it, or against what held before the first."""

    made: RuleSet
    changes: Sequence[LimitChange]


def rules_in_force(
    session: Session, datastream: Datastream, *, at: datetime | None = None
) -> InForce | None:
    """What a datastream is judged by, or was `at` some time; None for a property that is not judged."""
    for datastream_id in (datastream.id, None):
        newest = _newest(session, datastream.property, datastream_id, at=at)
        if newest is not None and newest.limits is not None:
            return InForce(
                measurement_rules.from_data(newest.limits),
                newest.version,
                datastream_id is not None,
            )
    rules = measurement_rules.default_rules(datastream.property, datastream.depth_cm)
    return None if rules is None else InForce(rules, 0)


def rules_of(
    session: Session,
    observed_property: str,
    datastream: Datastream | None,
    *,
    depth_cm: int = 0,
) -> InForce:
    """What values of a property are judged by, or those of one datastream.

    Raises:
        NotFound: they are not judged.
    """
    found = None
    if datastream is not None:
        found = rules_in_force(session, datastream)
    else:
        newest = _newest(session, observed_property, None)
        if newest is not None and newest.limits is not None:
            return InForce(measurement_rules.from_data(newest.limits), newest.version)
        rules = measurement_rules.default_rules(observed_property, depth_cm)
        found = None if rules is None else InForce(rules, 0)
    if found is None:
        raise _not_judged(observed_property)
    return found


def rules_if(
    session: Session,
    observed_property: str,
    limits: Mapping[str, Any] | None,
    datastream: Datastream,
    *,
    is_for_series: bool,
) -> Rules:
    """What a datastream would be judged by if these limits were put in force, for itself or for all of its property.

    Raises:
        RulesWrong: they are no limits; the sentence says where.
    """
    if limits is not None:
        return measurement_rules.from_data(check_limits(limits, observed_property))
    if is_for_series:
        return rules_of(session, observed_property, None, depth_cm=datastream.depth_cm).rules
    rules = measurement_rules.default_rules(observed_property, datastream.depth_cm)
    if rules is None:
        raise _not_judged(observed_property)
    return rules


def check_limits(limits: Mapping[str, Any], observed_property: str) -> dict[str, Any]:
    """These limits as they are kept. Raises RulesWrong when they are none; the sentence says where."""
    try:
        rules = measurement_rules.from_data(limits)
    except ValueError as problem:
        raise RulesWrong("These are no limits: %(what)s", what=str(problem)) from problem
    unit = GROSS_RANGES[observed_property].unit
    if rules.gross.unit != unit:
        raise RulesWrong(
            "The unit of %(property)s is %(unit)s; leave it as it is.",
            property=observed_property,
            unit=unit,
        )
    return to_data(rules)


def versions_of(
    session: Session, observed_property: str, datastream: Datastream | None
) -> list[RuleVersion]:
    """All that was ever set for a property, or for one datastream of it, the newest first, each with what it changed."""
    datastream_id = None if datastream is None else datastream.id
    rows = session.scalars(
        select(RuleSet)
        .where(RuleSet.property == observed_property, _is_of(datastream_id))
        .order_by(RuleSet.version)
    ).all()
    depth_cm = 0 if datastream is None else datastream.depth_cm
    found = []
    # Of a property that has limits of its own a series' first version is compared with those of today.
    general = to_data(rules_of(session, observed_property, None, depth_cm=depth_cm).rules)
    if datastream is None:
        default = measurement_rules.default_rules(observed_property)
        general = {} if default is None else to_data(default)
    before = general
    for row in rows:
        after = general if row.limits is None else row.limits
        found.append(RuleVersion(row, _changes(before, after)))
        before = after
    return found[::-1]


def version_page(
    session: Session, *, limit: int, after: keyset.Key | None, observed_property: str | None = None
) -> keyset.Page[RuleSet]:
    """All versions of all limits that are the actor's business, the newest first."""
    query = (
        select(RuleSet)
        .outerjoin(Datastream, Datastream.id == RuleSet.datastream_id)
        .outerjoin(Site, Site.id == Datastream.site_id)
        .where(or_(Site.id.is_(None), Site.kind.in_(rights.actor_of(session).site_kinds)))
    )
    if observed_property is not None:
        query = query.where(RuleSet.property == observed_property)
    return keyset.page_of(session, query, _BY_ID, limit=limit, after=after, made=lambda row: row[0])


def newest_of_each(session: Session) -> list[tuple[RuleSet, Datastream | None, Site | None]]:
    """The newest version of every property and datastream that limits were ever set for and that are the actor's business."""
    other = aliased(RuleSet)
    is_newer = (
        exists()
        .where(
            other.property == RuleSet.property,
            func.coalesce(other.datastream_id, 0) == func.coalesce(RuleSet.datastream_id, 0),
            other.version > RuleSet.version,
        )
        .correlate(RuleSet)
    )
    rows = session.execute(
        select(RuleSet, Datastream, Site)
        .outerjoin(Datastream, Datastream.id == RuleSet.datastream_id)
        .outerjoin(Site, Site.id == Datastream.site_id)
        .where(
            ~is_newer,
            or_(Site.id.is_(None), Site.kind.in_(rights.actor_of(session).site_kinds)),
        )
        .order_by(RuleSet.property, Site.name, Datastream.depth_cm)
    )
    return [(row[0], row[1], row[2]) for row in rows]


def version_with_id(session: Session, rule_set_id: int) -> RuleSet:
    """One that is the actor's business. Raises NotFound."""
    found = session.scalar(
        select(RuleSet)
        .outerjoin(Datastream, Datastream.id == RuleSet.datastream_id)
        .outerjoin(Site, Site.id == Datastream.site_id)
        .where(
            RuleSet.id == rule_set_id,
            or_(Site.id.is_(None), Site.kind.in_(rights.actor_of(session).site_kinds)),
        )
    )
    if found is None:
        raise NotFound("There are no limits with the number %(number)s.", number=rule_set_id)
    return found


def learned(session: Session, datastream: Datastream) -> Rules:
    """The rules in force, widened to what the first thirty good days of a datastream did (`measurement.learning`).

    Raises:
        NotFound: they are not judged.
        TooFewDays: there are no thirty such days yet.
    """
    in_force = rules_of(session, datastream.property, datastream)
    rows = session.execute(
        select(Observation.sampled_at, Observation.value, Observation.flag)
        .where(Observation.datastream_id == datastream.id, Observation.value.is_not(None))
        .order_by(Observation.sampled_at)
        .limit(_LEARNED_ROWS)
    ).all()
    series = Series(
        np.array([int(row.sampled_at.timestamp()) for row in rows], np.int64),
        np.array([row.value for row in rows], np.float64),
    )
    flags = np.array([row.flag for row in rows], np.int16)
    found = learning.learn(
        series,
        flags,
        in_force.rules,
        with_climatology=datastream.property in _LEVEL_OF_ITS_OWN,
    )
    if found is None:
        raise TooFewDays(
            "A site's limits are learned from its first %(days)s good days; so many there are not yet.",
            days=learning.ACCEPTED_DAYS,
        )
    return found


def set_rules(
    session: Session,
    observed_property: str,
    limits: Mapping[str, Any] | None,
    *,
    reason: str,
    author: str,
    now: datetime,
    datastream_id: int | None = None,
) -> RuleSet:
    """Put other limits in force for a property, or for one datastream of it; None: the general ones again. Committed on return.

    All that they hold for is judged again from its beginning; where the gross range is another one, a revision makes the values anew.

    Raises:
        NotFound: there is no such property, or no such datastream of it that nodes feed.
        RulesWrong: they are no limits; the sentence says where.
        NotAllowed: they would hold at sites that the actor has nothing to do with.
    """
    if observed_property not in GROSS_RANGES:
        raise _not_judged(observed_property)
    if not reason.strip():
        raise RulesWrong("Say why the limits become other ones.")
    if len(reason.strip()) > LONGEST_REASON:
        raise RulesWrong("Say why, in at most %(most)s characters.", most=LONGEST_REASON)
    checked = None if limits is None else check_limits(limits, observed_property)
    with db.writing(session):
        concerned = _concerned(session, observed_property, datastream_id)
        if datastream_id is not None:
            stream = session.get(Datastream, datastream_id)
            if stream is None or (stream.property, stream.level) != (observed_property, _LEVEL):
                raise NotFound(
                    "There is no datastream %(number)s of %(property)s.",
                    number=datastream_id,
                    property=observed_property,
                )
        ranges = own_ranges.in_force(session, concerned)
        earlier = _newest(session, observed_property, datastream_id)
        made = RuleSet(
            property=observed_property,
            datastream_id=datastream_id,
            version=(earlier.version if earlier else 0) + 1,
            limits=checked,
            reason=reason.strip(),
            author=author,
            created_at=now,
        )
        session.add(made)
        session.flush()
        judged_streams.begin_again(
            session, observed_property=observed_property, datastream_id=datastream_id
        )
        auditing.record(
            session,
            "quality_rules_set",
            subject=f"quality rules {made.id}",
            now=now,
            property=observed_property,
            datastream=datastream_id,
            version=made.version,
            reason=made.reason,
        )
        after = own_ranges.in_force(session, concerned)
        revising.order_for_streams(
            session,
            [one for one in concerned if after.get(one) != ranges.get(one)],
            kind="rules",
            reason=made.reason,
            author=author,
            now=now,
        )
    return made


def _concerned(
    session: Session, observed_property: str, datastream_id: int | None
) -> Sequence[int]:
    """Datastreams that the limits can hold for. Raises NotAllowed where some are none of the actor's business."""
    if datastream_id is not None:
        return [datastream_id]
    query = select(Datastream.id).where(
        Datastream.property == observed_property, Datastream.level == _LEVEL
    )
    kinds = rights.actor_of(session).site_kinds
    is_elsewhere = exists().where(Site.id == Datastream.site_id, Site.kind.not_in(kinds))
    if session.scalar(query.where(is_elsewhere).limit(1)) is not None:
        raise rights.NotAllowed(
            "Limits of %(property)s hold at sites that are none of your business, too; set them for single series.",
            property=observed_property,
        )
    return session.scalars(query.order_by(Datastream.id)).all()


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[LimitChange]:
    """Limits that differ, in the order in which they are written."""
    flat = [_flat(one) for one in (before, after)]
    names = list(dict.fromkeys([*flat[0], *flat[1]]))
    return [
        LimitChange(name, flat[0].get(name), flat[1].get(name))
        for name in names
        if flat[0].get(name) != flat[1].get(name)
    ]


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    """`{"spike": {"fail": 2}}` as `{"spike.fail": 2}`; lists are one limit."""
    found: dict[str, Any] = {}
    for name, part in data.items():
        if isinstance(part, Mapping):
            found |= {f"{name}.{inner}": value for inner, value in _flat(part).items()}
        else:
            found[name] = part
    return found


def _newest(
    session: Session,
    observed_property: str,
    datastream_id: int | None,
    *,
    at: datetime | None = None,
) -> RuleSet | None:
    query = select(RuleSet).where(RuleSet.property == observed_property, _is_of(datastream_id))
    if at is not None:
        query = query.where(RuleSet.created_at <= at)
    return session.scalar(query.order_by(RuleSet.version.desc()).limit(1))


def _is_of(datastream_id: int | None) -> ColumnElement[bool]:
    if datastream_id is None:
        return RuleSet.datastream_id.is_(None)
    return RuleSet.datastream_id == datastream_id


def _not_judged(observed_property: str) -> NotFound:
    return NotFound(
        "Values of %(property)s are not judged; choose one of %(known)s.",
        property=observed_property,
        known=", ".join(sorted(GROSS_RANGES)),
    )
