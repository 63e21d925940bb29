"""Limits that values are judged by, of a property or of one series: in force, who changed what, tried before they are set."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any

from flask import redirect, render_template, request
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.measurement.quality import GROSS_RANGES
from fleet_server.measurement.rules import Rules, default_rules, to_data
from fleet_server.models import Datastream
from fleet_server.services import flagging, quality_rules, rehearsing_rules, rights
from fleet_server.services.rehearsing_rules import RulesRehearsal
from fleet_server.services.rights import Right
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.limit_words import LIMIT_WORDS, TEST_WORDS, limit_unit

_Answer = str | Response | tuple[str, int]
_TESTS = tuple(TEST_WORDS)
_MINUTE_S = 60


@dataclass(frozen=True)
class Field:
    """One limit in the form; `name` is `spike.suspect`, times are in minutes."""

    name: str
    word: object
    unit: str
    value: str


@dataclass(frozen=True)
class Test:
    """One test in the form; `is_made`: it is asked for."""

    name: str
    word: object
    is_made: bool
    fields: list[Field]


@web.get("/fleet/limits")
@needs(Right.SEE_FLEET)
def limits() -> str:
    """All properties, and the series that have limits of their own."""
    found = quality_rules.newest_of_each(current_session())
    return render_template(
        "limits.html",
        properties=sorted(GROSS_RANGES),
        general={made.property: made for made, stream, _ in found if stream is None},
        own=[one for one in found if one[1] is not None and one[0].limits is not None],
    )


@web.get("/fleet/limits/<name>")
@needs(Right.SEE_FLEET)
def limits_of_property(name: str) -> str:
    """A property's limits and their versions."""
    return _page(name, None)


@web.post("/fleet/limits/<name>")
@needs(Right.STEWARD_DATA)
def set_limits_of_property(name: str) -> _Answer:
    """Try other limits of a property, or put them in force."""
    return _act(name, None)


@web.get("/fleet/limits/series/<row_id:datastream_id>")
@needs(Right.SEE_FLEET)
def limits_of_series(datastream_id: int) -> str:
    """One series' limits and their versions."""
    stream = flagging.series_with_id(current_session(), datastream_id)
    return _page(stream.property, stream)


@web.post("/fleet/limits/series/<row_id:datastream_id>")
@needs(Right.STEWARD_DATA)
def set_limits_of_series(datastream_id: int) -> _Answer:
    """Try other limits of a series, or put them in force."""
    stream = flagging.series_with_id(current_session(), datastream_id)
    return _act(stream.property, stream)


def _act(observed_property: str, stream: Datastream | None) -> _Answer:
    session = current_session()
    rules = quality_rules.rules_of(session, observed_property, stream).rules
    deed = forms.text("do")
    if deed not in ("try", "set", "general"):
        return _page(observed_property, stream, fault=gettext("Choose what to do.")), 400
    if deed == "try":
        told, fault = forms.tried(
            lambda: rehearsing_rules.rehearse_rules(
                session,
                observed_property,
                _typed_limits(rules, observed_property),
                now=clock.now(),
                datastream_id=None if stream is None else stream.id,
            )
        )
        page = _page(observed_property, stream, told=told, fault=fault, is_typed=True)
        return (page, 400) if told is None else page
    made, fault = forms.tried(
        lambda: quality_rules.set_rules(
            session,
            observed_property,
            None if deed == "general" else _typed_limits(rules, observed_property),
            reason=forms.text("reason"),
            author=rights.actor_of(session).name,
            now=clock.now(),
            datastream_id=None if stream is None else stream.id,
        )
    )
    if made is None:
        return _page(observed_property, stream, fault=fault, is_typed=True), 400
    return redirect(request.path, code=303)


def _page(
    observed_property: str,
    stream: Datastream | None,
    *,
    told: RulesRehearsal | None = None,
    fault: str = "",
    is_typed: bool = False,
) -> str:
    session = current_session()
    in_force = quality_rules.rules_of(session, observed_property, stream)
    tests = _tests(in_force.rules, observed_property, stream)
    seasons = "\n".join(
        f"{one.from_day} {one.to_day} {one.low:g} {one.high:g}"
        for one in in_force.rules.climatology
    )
    if is_typed:
        tests = [_as_typed(test) for test in tests]
        seasons = forms.typed().get("climatology", "")
    return render_template(
        "limits_of.html",
        observed_property=observed_property,
        stream=stream,
        site=None if stream is None else flagging.site_of(session, stream),
        in_force=in_force,
        tests=tests,
        seasons=seasons,
        versions=quality_rules.versions_of(session, observed_property, stream),
        told=told,
        reason=forms.text("reason") if is_typed else "",
        fault=fault,
    )


# -------------------------------------------------------------------------------------------------------------- the form


def _tests(rules: Rules, observed_property: str, stream: Datastream | None) -> list[Test]:
    """The tests that these limits ask for, and those that the general ones do, as they are offered again."""
    default = default_rules(observed_property, 0 if stream is None else stream.depth_cm)
    found = [_range(rules)]
    for name in _TESTS:
        if name == "gross":
            continue
        made = getattr(rules, name)
        shown = made if made is not None else getattr(default, name, None)
        if shown is not None:
            fields = [
                _field(name, field, getattr(shown, field), rules, is_relative=_is_relative(shown))
                for field in _numbers_of(shown)
            ]
            found.append(Test(name, TEST_WORDS[name], made is not None, fields))
    return found


def _range(rules: Rules) -> Test:
    numbers = {
        "fail_low": rules.gross.fail[0],
        "suspect_low": rules.gross.suspect[0],
        "suspect_high": rules.gross.suspect[1],
        "fail_high": rules.gross.fail[1],
    }
    fields = [_field("gross", name, number, rules) for name, number in numbers.items()]
    return Test("gross", TEST_WORDS["gross"], True, fields)


def _field(
    test: str, name: str, number: float, rules: Rules, *, is_relative: bool = False
) -> Field:
    shown = number / _MINUTE_S if name.endswith("_s") else number
    return Field(
        f"{test}.{name}",
        LIMIT_WORDS[name],
        limit_unit(name, rules.gross.unit, is_relative=is_relative),
        "" if math.isinf(shown) else f"{shown:.12g}",
    )


def _numbers_of(test: Any) -> list[str]:
    """Names of the limits that are numbers; the others (`is_relative`, `statistic`) belong to the property."""
    hints = typing.get_type_hints(type(test))
    return [one.name for one in dataclasses.fields(test) if hints[one.name] in (int, float)]


def _is_relative(test: Any) -> bool:
    return bool(getattr(test, "is_relative", False))


def _as_typed(test: Test) -> Test:
    typed = forms.typed()
    return dataclasses.replace(
        test,
        is_made=test.name == "gross" or f"{test.name}.made" in typed,
        fields=[
            dataclasses.replace(field, value=typed.get(field.name, "")) for field in test.fields
        ],
    )


def _typed_limits(rules: Rules, observed_property: str) -> dict[str, Any]:
    """Limits as they were typed; what the form does not show stays as it is in force, or as the general ones have it."""
    default = default_rules(observed_property)
    data, general = to_data(rules), {} if default is None else to_data(default)
    typed = forms.typed()
    for result in ("fail", "suspect"):
        ends = (f"{result}_low", f"{result}_high")
        if all(f"gross.{end}" in typed for end in ends):
            data["gross"][result] = [_number("gross", end) for end in ends]
    if "climatology" in typed:
        data["climatology"] = _typed_seasons()
    for name in _TESTS:
        if name == "gross":
            continue
        shown = [
            field for field in typed if field.startswith(f"{name}.") and field != f"{name}.made"
        ]
        if f"{name}.made" not in typed:
            data.pop(name, None)
            continue
        limits = dict(data.get(name) or general.get(name) or {})
        for field in shown:
            limit = field.partition(".")[2]
            if limit in LIMIT_WORDS:
                limits[limit] = _number(name, limit)
        data[name] = limits
    return data


def _number(test: str, limit: str) -> float | int | None:
    what = f"{TEST_WORDS[test]}, {LIMIT_WORDS[limit]}"
    number = forms.number(f"{test}.{limit}", what)
    if number is None or not limit.endswith("_s"):
        return number
    return round(number * _MINUTE_S)


def _typed_seasons() -> list[dict[str, Any]]:
    found = []
    for line in forms.text("climatology").splitlines():
        if not line.strip():
            continue
        try:
            begin, end, low, high = line.replace(",", ".").split()
            found.append(
                {"from_day": int(begin), "to_day": int(end), "low": float(low), "high": float(high)}
            )
        except ValueError as problem:
            raise Invalid(
                gettext(
                    "Write each season in a line of its own, like 152 243 0.5 1.8: days of the year, then low and high."
                )
            ) from problem
    return found
