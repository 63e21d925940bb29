"""Which values follow from others at a site: per cent saturation, per cent nFK, ammonia fraction; and how they are made.

A derived value is an observation of a datastream of its own (level `derived`), at an instant at which all of its inputs are. It is made together
with the means of its inputs (`aggregating`), from the same stored values. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.measurement import deriving
from fleet_server.measurement.derived import FORMULAS
from fleet_server.measurement.place import station_pressure
from fleet_server.measurement.soil_water import SOIL_CLASSES, stated_capacities
from fleet_server.models import AggregatedStream, Datastream, DerivedStream, Observation, Site
from fleet_server.services import aggregated_streams
from fleet_server.services.observing import LineageKey
from fleet_server.services.typed_values import typed_number

LEVEL = "derived"
VERSION: Final = "deriving/1"
"""Names this arithmetic in lineages. Whatever changes one bit of a result changes it."""

FLAG_RULE: Final = "worst_input/1"
SOIL_CLASS: Final = "soil_class"
FIELD_CAPACITY: Final = "field_capacity"
AVAILABLE_CAPACITY: Final = "available_capacity"
ALTITUDE: Final = "altitude_m"
"""What derived values need to know of a site: its soil class, and names of its details."""

_U_PRESSURE_HPA: Final = 10.0
"""How far the weather's pressure is from the standard atmosphere's; about the standard deviation in Germany. Ours."""
_U_CAPACITY: Final = 0.02
"""Of a site's own retention points. Ours."""

Stated = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Rule:
    """What follows from what: `inputs` are observed properties by the formula's arguments. The first leads."""

    property: str
    unit: str
    formula: str
    inputs: Mapping[str, str]


RULES: Final = (
    Rule(
        "oxygen_saturation",
        "%",
        "percent_saturation",
        {"oxygen_mg_l": "dissolved_oxygen", "temperature_c": "water_temperature"},
    ),
    Rule("available_water", "%", "available_water_pct", {"water_content": "soil_water_content"}),
    Rule(
        "ammonia_fraction",
        "1",
        "ammonia_fraction",
        {"ph": "ph", "temperature_c": "water_temperature"},
    ),
)
PROPERTIES: Final = frozenset(one for rule in RULES for one in rule.inputs.values())
"""Observed properties that anything follows from."""


@dataclass(frozen=True)
class Plan:
    """One datastream that a site could have. `missing`: names of the details that have to be stated for it."""

    rule: Rule
    depth_cm: int
    inputs: Mapping[str, int]
    stated: Stated | None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Derivation:
    """A derived datastream as it is stored."""

    datastream_id: int
    formula: str
    inputs: Mapping[str, int]
    stated: Stated | None

    @property
    def leading_id(self) -> int:
        return next(iter(self.inputs.values()))


def plans_of(session: Session, site_id: int) -> list[Plan]:
    """What could follow at a site from what nodes measure there, but for what a probe delivers itself. Two statements."""
    site = session.get_one(Site, site_id)
    streams = session.execute(
        select(Datastream.id, Datastream.property, Datastream.depth_cm)
        .where(Datastream.site_id == site_id, Datastream.level == "calibrated")
        .order_by(Datastream.id)
    ).all()
    at = {(row.property, row.depth_cm): row.id for row in streams}
    plans = []
    for rule in RULES:
        leading = next(iter(rule.inputs.values()))
        for depth_cm in sorted(depth for name, depth in at if name == leading):
            inputs = {name: at.get((one, depth_cm)) for name, one in rule.inputs.items()}
            known = {name: one for name, one in inputs.items() if one is not None}
            if len(known) < len(inputs) or (rule.property, depth_cm) in at:
                continue
            stated, missing = _stated(rule.formula, site, depth_cm)
            plans.append(Plan(rule, depth_cm, known, stated, missing))
    return plans


def settle(session: Session, site_id: int, *, now: datetime) -> None:
    """Make the datastreams that a site can have by now, and take over what is stated. Committed on return; safe to repeat.

    Where that is new, the leading input is marked from its beginning, so that values follow from what is there.
    """
    stored = {(one.formula, one.leading_id): one for one in derivations_at(session, site_id)}
    for plan in plans_of(session, site_id):
        leading_id = next(iter(plan.inputs.values()))
        found = stored.get((plan.rule.formula, leading_id))
        if found is None and plan.stated is None:
            continue
        if found is not None and found.stated == plan.stated:
            continue
        with db.writing(session):
            if found is None:
                _make_stream(session, site_id, plan, now)
            else:
                row = session.get_one(DerivedStream, found.datastream_id)
                row.stated = None if plan.stated is None else _as_json(plan.stated)
            _mark_all(session, leading_id, now)


def derivations_at(session: Session, site_id: int) -> list[Derivation]:
    """The derived datastreams of a site. One statement."""
    rows = session.scalars(
        select(DerivedStream)
        .join(Datastream, Datastream.id == DerivedStream.datastream_id)
        .where(Datastream.site_id == site_id)
        .order_by(DerivedStream.datastream_id)
        .execution_options(populate_existing=True)
    )
    return [_derivation(row) for row in rows]


def all_derivations(session: Session) -> list[Derivation]:
    """Those of all sites."""
    rows = session.scalars(select(DerivedStream).order_by(DerivedStream.datastream_id))
    return [_derivation(row) for row in rows]


def instants(inputs: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Times that all have."""
    common = inputs[0]
    for other in inputs[1:]:
        common = np.intersect1d(common, other)
    return common


def derive(formula: str, inputs: Mapping[str, deriving.Column], stated: Stated) -> deriving.Derived:
    """Work a formula out; what is stated counts as good."""
    columns = {name: deriving.Column(value, u) for name, (value, u) in stated.items()}
    return deriving.derive(FORMULAS[formula], {**inputs, **columns})


def lineage_of(
    formula: str, stated: Stated, leading: tuple[int, int, float], k: float
) -> LineageKey:
    """Probe and calibration of the leading input's value; what is stated stands among the inputs as `name=value±u`."""
    sensor_id, calibration_id, _ = leading
    return (
        sensor_id,
        calibration_id,
        ",".join(f"{name}={value!r}±{u!r}" for name, (value, u) in sorted(stated.items())),
        formula,
        "",
        FLAG_RULE,
        VERSION,
        k,
    )


def stated_in(inputs: str) -> dict[str, tuple[float, float]]:
    """What a derived value's lineage says that was stated.

    >>> stated_in("available_capacity=0.18±0.02,field_capacity=0.3±0.03")
    {'available_capacity': (0.18, 0.02), 'field_capacity': (0.3, 0.03)}
    """
    found = {}
    for pair in filter(None, inputs.split(",")):
        name, _, numbers = pair.partition("=")
        value, _, u = numbers.partition("±")
        found[name] = float(value), float(u)
    return found


# ---------------------------------------------------------------------------------------------------------------- private


def _stated(formula: str, site: Site, depth_cm: int) -> tuple[Stated | None, tuple[str, ...]]:
    """What the site's data and details state for a formula, or what is missing for it."""
    said = {name.strip().lower(): text for name, text in site.details.items()}
    if formula == "percent_saturation":
        altitude_m = _number(said.get(ALTITUDE), -400.0, 5_000.0)
        if altitude_m is None:
            return None, (ALTITUDE,)
        return {"pressure_hpa": (float(station_pressure(altitude_m)), _U_PRESSURE_HPA)}, ()
    if formula == "available_water_pct":
        own = _own_capacities(said)
        if own is not None:
            return own, ()
        soil_class = SOIL_CLASSES.get(site.soil_class or "")
        if soil_class is None:
            return None, (SOIL_CLASS,)
        return stated_capacities(soil_class, float(depth_cm)), ()
    return {}, ()


def _own_capacities(said: Mapping[str, str]) -> Stated | None:
    """A site's own retention points win over its soil class."""
    capacity = _number(said.get(FIELD_CAPACITY), 0.05, 0.8)
    available = _number(said.get(AVAILABLE_CAPACITY), 0.03, 0.6)
    if capacity is None or available is None or available > capacity:
        return None
    return {
        "field_capacity": (capacity, _U_CAPACITY),
        "available_capacity": (available, _U_CAPACITY),
    }


def _number(text: str | None, low: float, high: float) -> float | None:
    """A number as people in the city write it, within limits; None for anything else."""
    try:
        number = typed_number((text or "").strip())
    except ValueError:
        return None
    return number if low <= number <= high else None


def _derivation(row: DerivedStream) -> Derivation:
    stated = None
    if row.stated is not None:
        stated = {name: (float(value), float(u)) for name, (value, u) in row.stated.items()}
    # The formula's rule has the order; a database keeps none in JSON.
    rule = next(one for one in RULES if one.formula == row.formula)
    inputs = {name: int(row.inputs[name]) for name in rule.inputs}
    return Derivation(row.datastream_id, row.formula, inputs, stated)


def _as_json(stated: Stated) -> dict[str, list[float]]:
    return {name: [value, u] for name, (value, u) in stated.items()}


def _make_stream(session: Session, site_id: int, plan: Plan, now: datetime) -> None:
    stream = Datastream(
        site_id=site_id,
        property=plan.rule.property,
        unit=plan.rule.unit,
        depth_cm=plan.depth_cm,
        level=LEVEL,
        created_at=now,
        source_id=next(iter(plan.inputs.values())),
    )
    session.add(stream)
    session.flush()
    session.add(
        DerivedStream(
            datastream_id=stream.id,
            formula=plan.rule.formula,
            inputs=dict(plan.inputs),
            stated=None if plan.stated is None else _as_json(plan.stated),
        )
    )


def _mark_all(session: Session, datastream_id: int, now: datetime) -> None:
    """All values of a datastream, as if they had changed."""
    made_to = session.scalar(
        select(AggregatedStream.made_to).where(AggregatedStream.datastream_id == datastream_id)
    )
    first = session.scalar(
        select(Observation.sampled_at)
        .where(Observation.datastream_id == datastream_id)
        .order_by(Observation.sampled_at)
        .limit(1)
    )
    if made_to is not None and first is not None and first < made_to:
        aggregated_streams.mark_changed(
            session,
            datastream_id,
            int(first.timestamp()),
            int(made_to.timestamp()) - 1,
            known_s=int(now.timestamp()),
        )
