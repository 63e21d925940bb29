"""Limits of the quality tests that are in force: a datastream's own, else its property's, else the defaults; and how they are changed.

A change holds for all values, those of the past too: they are judged again (`judging`), and those whose flag becomes another one get a new
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound, Refused
from fleet_server.measurement import learning
from fleet_server.measurement import rules as measurement_rules
from fleet_server.measurement.quality import GROSS_RANGES
from fleet_server.measurement.rules import Rules
from fleet_server.measurement.windows import Series
from fleet_server.models import Datastream, Observation, RuleSet
from fleet_server.services import auditing, judged_streams

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
    """`version` 0: the defaults."""

    rules: Rules
    version: int


def rules_in_force(session: Session, datastream: Datastream) -> InForce | None:
    """What a datastream is judged by; None for a property that is not judged."""
    for datastream_id in (datastream.id, None):
        newest = _newest(session, datastream.property, datastream_id)
        if newest is not None and newest.limits is not None:
            return InForce(measurement_rules.from_data(newest.limits), newest.version)
    rules = measurement_rules.default_rules(datastream.property, datastream.depth_cm)
    return None if rules is None else InForce(rules, 0)


def rules_of(session: Session, observed_property: str, datastream: Datastream | None) -> InForce:
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
        rules = measurement_rules.default_rules(observed_property)
        found = None if rules is None else InForce(rules, 0)
    if found is None:
        raise _not_judged(observed_property)
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

    All that they hold for is judged again from its beginning.

    Raises:
        NotFound: there is no such property, or no such datastream of it.
        RulesWrong: they are no limits; the sentence says where.
    """
    if observed_property not in GROSS_RANGES:
        raise _not_judged(observed_property)
    if not reason.strip():
        raise RulesWrong("Say why the limits become other ones.")
    checked = None if limits is None else _checked(limits, observed_property)
    with db.writing(session):
        if datastream_id is not None:
            stream = session.get(Datastream, datastream_id)
            if stream is None or stream.property != observed_property:
                raise NotFound(
                    "There is no datastream %(number)s of %(property)s.",
                    number=datastream_id,
                    property=observed_property,
                )
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
    return made


def _newest(session: Session, observed_property: str, datastream_id: int | None) -> RuleSet | None:
    is_theirs = (
        RuleSet.datastream_id.is_(None)
        if datastream_id is None
        else RuleSet.datastream_id == datastream_id
    )
    return session.scalar(
        select(RuleSet)
        .where(RuleSet.property == observed_property, is_theirs)
        .order_by(RuleSet.version.desc())
        .limit(1)
    )


def _not_judged(observed_property: str) -> NotFound:
    return NotFound(
        "Values of %(property)s are not judged; choose one of %(known)s.",
        property=observed_property,
        known=", ".join(sorted(GROSS_RANGES)),
    )


def _checked(limits: Mapping[str, Any], observed_property: str) -> dict[str, Any]:
    try:
        rules = measurement_rules.from_data(limits)
    except ValueError as problem:
        raise RulesWrong("These are no limits: %(what)s", what=str(problem)) from problem
    if rules.gross != GROSS_RANGES[observed_property]:
        raise RulesWrong("The gross range belongs to the property; leave it as it is.")
    return measurement_rules.to_data(rules)
