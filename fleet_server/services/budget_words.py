"""The parts of an uncertainty in words, and what would make it smaller; pages say it in their reader's language (decision 0068)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from fleet_server.errors import Said, listed
from fleet_server.measurement.budget import Shape
from fleet_server.models import CalibrationKind
from fleet_server.services import observing
from fleet_server.services.budgeting import Part, ValueBudget
from fleet_server.services.flag_reasons import Quantity


def part_said(name: str) -> Said:
    """What one part is."""
    return _PARTS[name]


def shape_said(shape: Shape) -> Said:
    """How it is spread."""
    return _SHAPES[shape]


def source_said(part: Part, conversion: str) -> Said:
    """Which calibration and standards a part comes from, or which conversion."""
    calibration = part.calibration
    if calibration is None:
        return Said("conversion %(name)s", name=conversion)
    number = str(calibration.id)
    if calibration.kind == CalibrationKind.FACTORY:
        return Said("calibration %(number)s, the maker's word", number=number)
    if not part.standards:
        return Said(
            "calibration %(number)s of %(who)s", number=number, who=calibration.performed_by
        )
    names = listed(f"{one.name} {one.lot}".strip() for one in part.standards)
    return Said(
        "calibration %(number)s of %(who)s against %(standards)s",
        number=number,
        who=calibration.performed_by,
        standards=names,
    )


def freedom_said(degrees_of_freedom: float) -> str:
    """Degrees of freedom, cut to a whole number as tables of t want it; ∞ where there is no end."""
    if math.isinf(degrees_of_freedom) or degrees_of_freedom > 9999:
        return "∞"
    return str(math.floor(degrees_of_freedom))


def standing_said(found: ValueBudget) -> Said:
    """Whether anybody calibrated the probe beside its maker."""
    if not found.is_site_calibrated:
        return Said(
            "Nobody has calibrated this probe where it works: u is its maker's word, or our judgement, on all probes of its type."
        )
    calibration = found.calibration
    return Said(
        "The probe was calibrated by %(who)s at %(when)s.",
        who=calibration.performed_by,
        when=observing.drifts_since(calibration),
    )


def remedies_said(found: ValueBudget) -> list[Said]:
    """What would make u smaller, best first, one sentence each; one that says so when nothing does."""
    unit = found.datastream.unit
    told = [
        _REMEDIES[one.code](Quantity(found.u, unit), Quantity(one.u, unit))
        for one in found.remedies
    ]
    return told or [Said("Nothing that we know of would make it much surer.")]


_PARTS: Final[Mapping[str, Said]] = {
    "resolution": Said("the last digit that the probe sends"),
    "circuit": Said("the node's own resistors"),
    "temperature": Said("the thermometer that the reading is put right by"),
    "temperature_assumed": Said("a temperature that nobody measured: all that may be"),
    "formula": Said("published formulas that differ"),
    "pressure": Said("the air's pressure, which nobody measured"),
    "alpha": Said("how waters differ in what warmth does to their conductivity"),
    "sound": Said("the speed of sound that the probe assumes"),
    "humidity": Said("the air's humidity, which nobody measured"),
    "fit": Said("the calibration's coefficients, without its standards"),
    "reference": Said("the standards that it was calibrated against"),
    "probe": Said("the probe itself"),
    "probe_relative": Said("the probe itself, in proportion to the value"),
    "drift": Said("the time since the probe was calibrated"),
    "correction": Said("what a correction of drift and fouling leaves open"),
}

_SHAPES: Final[Mapping[Shape, Said]] = {
    Shape.NORMAL: Said("normal"),
    Shape.RECTANGULAR: Said("rectangular"),
}

_REMEDIES: Final[Mapping[str, Callable[[Quantity, Quantity], Said]]] = {
    "calibrate": lambda now, then: Said(
        "A calibration where it works would bring u from %(now)s to about %(then)s.",
        now=now,
        then=then,
    ),
    "calibrate_again": lambda now, then: Said(
        "Calibrated anew, its u would be about %(then)s instead of %(now)s.", now=now, then=then
    ),
    "thermometer": lambda now, then: Said(
        "With a thermometer that works beside it, u would be about %(then)s instead of %(now)s.",
        now=now,
        then=then,
    ),
    "better_thermometer": lambda now, then: Said(
        "With a better thermometer beside it, u could go down to %(then)s instead of %(now)s.",
        now=now,
        then=then,
    ),
}
