"""`fleet convert`: one formula at work, with the uncertainty of its result."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from typing import Any

import click

from fleet_server.cli.answers import answer, json_option
from fleet_server.measurement.derived import FORMULAS, Argument, Formula
from fleet_server.measurement.soil_water import (
    SOIL_CLASSES,
    TEXTURES,
    stated_capacities,
    stated_curve,
)
from fleet_server.measurement.uncertainty import combined_uncertainty

# ± as typed, and as typed where it cannot be.
_PLUS_MINUS = re.compile(r"±|\+/-|\+-")


class _UsedWrongly(click.ClickException):
    exit_code = 2


@click.command()
@click.argument("quantity", required=False)
@click.argument("arguments", metavar="[NAME=VALUE]...", nargs=-1)
@click.option(
    "--soil",
    metavar="CLASS",
    help="What nobody measured of the soil, by its class: loam, sandy loam, … or one of KA5 (Sl4).",
)
@click.option(
    "--depth-cm", type=click.FloatRange(0, 500), default=40.0, help="For a soil class of KA5."
)
@click.option("--list", "wants_list", is_flag=True, help="Name every quantity with its arguments.")
@json_option
def convert(
    quantity: str | None,
    arguments: tuple[str, ...],
    *,
    soil: str | None,
    depth_cm: float,
    wants_list: bool,
    as_json: bool,
) -> None:
    """Work out one QUANTITY from its arguments.

    A value may carry its standard uncertainty: 20±0.15 (or 20+-0.15). The result then carries one too.

    Example: fleet convert oxygen_saturation temperature_c=20±0.15 pressure_hpa=1003 --json
    fleet convert available_water_pct water_content=0.20±0.03 --soil Sl4 --depth-cm 30
    """
    if wants_list:
        _show_list(as_json=as_json)
        return
    if quantity is None:
        raise _UsedWrongly("Name a quantity; fleet convert --list names them all.")
    formula = _formula(quantity)
    if soil is None:
        result = evaluate(formula, arguments)
    else:
        by_class, source = _arguments_of_soil(formula, soil, depth_cm)
        result = evaluate(formula, (*arguments, *by_class))
        result["source"] += f"; {soil} after {source}"
    answer(result, _as_text(formula, result), as_json=as_json)


def evaluate(formula: Formula, arguments: Iterable[str]) -> dict[str, Any]:
    """Work a formula out from arguments as typed, `name=value` or `name=value±uncertainty`.

    Returns:
        `value`, `unit`, `source`, and `standard_uncertainty` when an argument carried one.

    Raises:
        click.ClickException: exit code 2 when an argument is wrong, 1 when the arguments together have no result.
    """
    given = _read(formula, arguments)
    values = {argument.name: argument.default for argument in formula.arguments}
    values |= {name: value for name, (value, _) in given.items()}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise _UsedWrongly(f"{formula.name} needs {_in_words(missing)} as well.")
    for argument in formula.arguments:
        _check_range(argument, values[argument.name])

    def function(**inputs: float) -> float:
        return float(formula.function(**inputs))

    numbers = {name: value for name, value in values.items() if value is not None}
    value = function(**numbers)
    uncertainties = {name: u for name, (_, u) in given.items() if u is not None}
    u = combined_uncertainty(function, numbers, uncertainties)
    if not (math.isfinite(value) and math.isfinite(u)):
        raise click.ClickException(f"{formula.name} has no value for these arguments together.")
    result: dict[str, Any] = {"value": value, "unit": formula.unit}
    if uncertainties:
        result["standard_uncertainty"] = u
    return {**result, "source": formula.source}


def _formula(quantity: str) -> Formula:
    if quantity in FORMULAS:
        return FORMULAS[quantity]
    close = difflib.get_close_matches(quantity, FORMULAS, n=1)
    hint = f"did you mean {close[0]}?" if close else "fleet convert --list names them all."
    raise _UsedWrongly(f"There is no quantity {quantity}; {hint}")


def _arguments_of_soil(formula: Formula, soil: str, depth_cm: float) -> tuple[list[str], str]:
    """What a class of soil states, as arguments are typed, and where that stands."""
    if soil in TEXTURES:
        stated, source = stated_curve(TEXTURES[soil]), "Carsel and Parrish 1988"
    elif soil in SOIL_CLASSES:
        stated, source = stated_capacities(SOIL_CLASSES[soil], depth_cm), "KA5 (AG Boden 2005)"
    else:
        close = difflib.get_close_matches(soil, [*TEXTURES, *SOIL_CLASSES], n=1)
        hint = (
            f"did you mean {close[0]}?"
            if close
            else f"there are {_in_words([*TEXTURES])}, and those of KA5."
        )
        raise _UsedWrongly(f"There is no soil {soil}; {hint}")
    if not stated.keys() <= {argument.name for argument in formula.arguments}:
        raise _UsedWrongly(f"{soil} says nothing about {formula.name}.")
    return [f"{name}={value}±{u}" for name, (value, u) in stated.items()], source


def _read(formula: Formula, arguments: Iterable[str]) -> dict[str, tuple[float, float | None]]:
    known = [argument.name for argument in formula.arguments]
    given: dict[str, tuple[float, float | None]] = {}
    for text in arguments:
        # A terminal without UTF-8 hands ± over as two raw bytes.
        typed = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        name, equals, number = typed.partition("=")
        if not equals:
            raise _UsedWrongly(f"{typed} is not of the form name=value.")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it takes {_in_words(known)}."
            raise _UsedWrongly(f"{formula.name} takes no {name}; {hint}")
        if name in given:
            raise _UsedWrongly(f"{name} is given twice.")
        given[name] = _number_with_uncertainty(name, number)
    return given


def _number_with_uncertainty(name: str, text: str) -> tuple[float, float | None]:
    number, *rest = _PLUS_MINUS.split(text)
    if len(rest) > 1:
        raise _UsedWrongly(f"{name} has more than one uncertainty.")
    value = _number(name, number)
    if not rest:
        return value, None
    u = _number(f"The uncertainty of {name}", rest[0])
    if u < 0:
        raise _UsedWrongly(f"The uncertainty of {name} must not be negative.")
    return value, u


def _number(what: str, text: str) -> float:
    try:
        # int() and float() would also take 1_000.
        value = math.nan if "_" in text else float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        hint = " (write a decimal point)" if "," in text else ""
        raise _UsedWrongly(f"{what} must be a number, not {text or 'nothing'}{hint}.")
    return value


def _check_range(argument: Argument, value: float | None) -> None:
    if value is not None and not argument.minimum <= value <= argument.maximum:
        raise _UsedWrongly(
            f"{argument.name} must lie between {argument.minimum:.6g} and {argument.maximum:.6g}, "
            f"not at {value:.6g}."
        )


def _as_text(formula: Formula, result: dict[str, Any]) -> str:
    unit = "" if formula.unit in ("", "1") else f" {formula.unit}"
    text = f"{formula.name} = {result['value']:.7g}{unit}"
    if "standard_uncertainty" in result:
        text += f"\nstandard uncertainty {result['standard_uncertainty']:.3g}{unit}"
    return f"{text}\nafter {result['source']}"


def _show_list(*, as_json: bool) -> None:
    lines = [
        f"{formula.name} ({formula.unit or '1'}): "
        + " ".join(
            a.name if a.default is None else f"[{a.name}={a.default:g}]" for a in formula.arguments
        )
        for formula in FORMULAS.values()
    ]
    described = [_described(formula) for formula in FORMULAS.values()]
    answer({"quantities": described}, "\n".join(lines), as_json=as_json)


def _described(formula: Formula) -> dict[str, Any]:
    return {
        "quantity": formula.name,
        "unit": formula.unit,
        "source": formula.source,
        "arguments": [
            {
                "name": argument.name,
                "minimum": argument.minimum,
                "maximum": argument.maximum,
                "default": argument.default,
            }
            for argument in formula.arguments
        ],
    }


def _in_words(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
