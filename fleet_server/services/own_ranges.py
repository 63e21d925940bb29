"""Gross ranges that a datastream's own limits, or its property's, put in place of those that the property is published with.

A lineage names the range as numbers, so that a version that was replaced can be made again whatever holds by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from fleet_server.measurement import rules as measurement_rules
from fleet_server.measurement.quality import GROSS_RANGES, GrossRange
from fleet_server.models import Datastream, RuleSet
from fleet_server.services import bulk

RULE_SET = "gross_range/1"
"""Name of the range test in a lineage; the properties' own ranges are part of the pipeline's version."""

Ranges = Mapping[int, GrossRange]
"""By datastream; one that is left out has its property's."""

_STREAMS_AT_ONCE = 5000


def in_force(session: Session, datastream_ids: Iterable[int]) -> dict[int, GrossRange]:
    """Of these datastreams those that have another range than their property. One statement where nobody ever set limits, else two."""
    wanted = sorted(set(datastream_ids))
    of_property, of_stream = _newest(session, wanted)
    if not of_property and not of_stream:
        return {}
    found: dict[int, GrossRange] = {}
    for some in bulk.chunks(wanted, _STREAMS_AT_ONCE):
        rows = session.execute(
            select(Datastream.id, Datastream.property).where(Datastream.id.in_(some))
        )
        for datastream_id, observed_property in rows:
            gross = of_stream.get(datastream_id) or of_property.get(observed_property)
            if gross is not None and gross != GROSS_RANGES.get(observed_property):
                found[datastream_id] = gross
    return found


def name_of(gross: GrossRange | None) -> str:
    """How a lineage names the range that a value was judged by; None: its property's.

    >>> name_of(None), name_of(GrossRange("m", fail=(-0.1, 2.5), suspect=(0.0, 2.0)))
    ('gross_range/1', 'gross_range/1:-0.1,2.5,0.0,2.0')
    """
    if gross is None:
        return RULE_SET
    return f"{RULE_SET}:{','.join(map(repr, (*gross.fail, *gross.suspect)))}"


def named(rule_set: str, observed_property: str) -> GrossRange | None:
    """The range that a lineage names; None where it names its property's, or nothing that can be read.

    >>> named("gross_range/1:-0.1,inf,0.0,2.0", "water_level").fail
    (-0.1, inf)
    """
    name, _, numbers = rule_set.partition(":")
    base = GROSS_RANGES.get(observed_property)
    try:
        low, high, suspect_low, suspect_high = map(float, numbers.split(","))
    except ValueError:
        return None
    if name != RULE_SET or base is None:
        return None
    return GrossRange(base.unit, fail=(low, high), suspect=(suspect_low, suspect_high))


def _newest(
    session: Session, datastream_ids: list[int]
) -> tuple[dict[str, GrossRange], dict[int, GrossRange]]:
    """The ranges of the newest limits of properties, and of these datastreams."""
    of_property: dict[str, GrossRange | None] = {}
    of_stream: dict[int, GrossRange | None] = {}
    for some in bulk.chunks(datastream_ids, _STREAMS_AT_ONCE):
        rows = session.execute(
            select(RuleSet.property, RuleSet.datastream_id, RuleSet.limits)
            .where(or_(RuleSet.datastream_id.is_(None), RuleSet.datastream_id.in_(some)))
            .order_by(RuleSet.version)
        )
        for observed_property, datastream_id, limits in rows:
            gross = None if limits is None else measurement_rules.from_data(limits).gross
            if datastream_id is None:
                of_property[observed_property] = gross
            else:
                of_stream[datastream_id] = gross
    return (
        {name: gross for name, gross in of_property.items() if gross is not None},
        {number: gross for number, gross in of_stream.items() if gross is not None},
    )
