"""Standards: what they are worth at a temperature, until when, and which may still be used."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused, Said
from fleet_server.measurement import derived
from fleet_server.models import Standard, StandardKind
from fleet_server.services import auditing, keyset, rights
from fleet_server.services.flag_reasons import Number
from hardware import vocabulary

_LONGEST = 120
_MOST_POINTS = 40
_LARGEST = 1e9
_HIGHEST_ID = 2**31 - 1
_COLDEST_C, _WARMEST_C = -50.0, 150.0
_PRESSURES_HPA = (500.0, 1100.0)
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2199, 12, 31, tzinfo=UTC)
_SATURATED = ("dissolved_oxygen", "oxygen_saturation")
_BY_NAME = keyset.Sorting((Standard.name, Standard.id), (str, int))  # type: ignore[arg-type] # columns of a class


class StandardWrong(Invalid):
    """A standard cannot be like this, or is worth nothing under these circumstances."""

    code = "standard_wrong"


class StandardTaken(Conflict):
    """A standard of this name and lot is there already."""

    code = "standard_taken"


class StandardExpired(Refused):
    """Nothing may be calibrated against it any more."""

    code = "standard_expired"


@dataclass(frozen=True)
class NewStandard:
    """As `Standard` has it."""

    kind: StandardKind
    property: str
    name: str
    u: float
    points: Sequence[tuple[float, float]] = ()
    lot: str = ""
    certificate: str = ""
    expires_at: datetime | None = None


def add_standard(session: Session, new: NewStandard, *, now: datetime) -> Standard:
    """Put a standard on the list. Committed on return.

    Raises:
        StandardWrong: it cannot be like this.
        StandardTaken: there is one of this name and lot.
    """
    _check(new)
    name, lot = new.name.strip(), new.lot.strip()
    with db.writing(session):
        known = select(Standard.id).where(Standard.name == name, Standard.lot == lot)
        if session.scalar(known) is not None:
            raise StandardTaken(
                "There is a standard %(name)s of lot %(lot)s already.", name=name, lot=lot or "–"
            )
        made = Standard(
            kind=new.kind,
            property=new.property,
            name=name,
            lot=lot,
            certificate=new.certificate.strip(),
            points=[[float(at), float(value)] for at, value in new.points],
            u=float(new.u),
            expires_at=new.expires_at,
            created_at=now,
            created_by=rights.actor_of(session).name,
        )
        session.add(made)
        session.flush()
        auditing.record(
            session, "standard_added", subject=f"standard {made.id}", now=now, name=name, lot=lot
        )
    return made


def discard_standard(session: Session, standard_id: int, *, now: datetime) -> Standard:
    """Nothing is calibrated against it any more; what was stays. Committed on return. Safe to repeat. Raises NotFound."""
    with db.writing(session):
        found = session.get(Standard, standard_id, with_for_update=True, populate_existing=True)
        if found is None:
            raise _unknown(standard_id)
        if found.discarded_at is None:
            found.discarded_at = now
            auditing.record(
                session, "standard_discarded", subject=f"standard {standard_id}", now=now
            )
    return found


def standard_of(session: Session, standard_id: int) -> Standard:
    """Raises NotFound."""
    # A number may be any that was typed into a draft; a database has none beyond.
    found = session.get(Standard, standard_id) if 0 < standard_id <= _HIGHEST_ID else None
    if found is None:
        raise _unknown(standard_id)
    return found


def standard_page(
    session: Session,
    *,
    limit: int,
    after: keyset.Key | None = None,
    observed_property: str | None = None,
    usable_at: datetime | None = None,
) -> keyset.Page[Standard]:
    """Standards by name; only those that may be used at a time, or that are for a property, where given. One statement."""
    conditions: list[ColumnElement[bool]] = []
    if observed_property is not None:
        conditions.append(Standard.property == observed_property)
    if usable_at is not None:
        conditions.append(Standard.discarded_at.is_(None))
        conditions.append(or_(Standard.expires_at.is_(None), Standard.expires_at > usable_at))
    query = select(Standard).where(*conditions)
    return keyset.page_of(
        session, query, _BY_NAME, limit=limit, after=after, made=lambda row: row[0]
    )


def check_usable(standard: Standard, observed_property: str, *, at: datetime) -> None:
    """Raises StandardExpired, or StandardWrong when it is for another property."""
    if standard.property != observed_property:
        raise StandardWrong(
            "Standard %(name)s is for %(property)s, not for %(wanted)s.",
            name=standard.name,
            property=standard.property,
            wanted=observed_property,
        )
    if standard.expires_at is not None and standard.expires_at <= at:
        raise StandardExpired(
            "Standard %(name)s of lot %(lot)s expired on %(expires_at)s: take a fresh one.",
            name=standard.name,
            lot=standard.lot or "–",
            expires_at=standard.expires_at,
        )
    if standard.discarded_at is not None and standard.discarded_at <= at:
        raise StandardExpired(
            "Standard %(name)s of lot %(lot)s was discarded: take another one.",
            name=standard.name,
            lot=standard.lot or "–",
        )


def value_of(
    standard: Standard, *, temperature_c: float | None, pressure_hpa: float | None = None
) -> float | None:
    """What it is worth then, in its published unit; None for an instrument, which shows it.

    Raises:
        StandardWrong: temperature or pressure is wanted and not given, or the standard says nothing of that temperature.
    """
    if standard.kind == StandardKind.INSTRUMENT:
        return None
    if standard.kind == StandardKind.AIR_SATURATION:
        return _saturated(standard, temperature_c, pressure_hpa)
    pairs = standard.points
    if len(pairs) == 1:
        return pairs[0][1]
    if temperature_c is None:
        raise StandardWrong(
            "Standard %(name)s is worth something else at each temperature: give its temperature.",
            name=standard.name,
        )
    lowest, highest = pairs[0][0], pairs[-1][0]
    if not lowest <= temperature_c <= highest:
        raise StandardWrong(
            "Standard %(name)s says what it is worth between %(lowest)s and %(highest)s °C, not at %(temperature)s °C.",
            name=standard.name,
            lowest=Number(lowest),
            highest=Number(highest),
            temperature=Number(temperature_c),
        )
    return _between(pairs, temperature_c)


def _between(pairs: Sequence[Sequence[float]], at: float) -> float:
    for (before, low), (after, high) in itertools.pairwise(pairs):
        if at <= after:
            return low + (high - low) * (at - before) / (after - before)
    return pairs[-1][1]


def _saturated(
    standard: Standard, temperature_c: float | None, pressure_hpa: float | None
) -> float:
    if standard.property == "oxygen_saturation":
        return 100.0
    if temperature_c is None or pressure_hpa is None:
        raise StandardWrong(
            "How much oxygen saturated water has depends on its temperature and the air's pressure there: give both."
        )
    if not _PRESSURES_HPA[0] <= pressure_hpa <= _PRESSURES_HPA[1]:
        raise StandardWrong(
            "The air's pressure where the probe is lies between %(lowest)s and %(highest)s hPa, not reduced to sea level.",
            lowest=Number(_PRESSURES_HPA[0]),
            highest=Number(_PRESSURES_HPA[1]),
        )
    worth = float(derived.oxygen_saturation(temperature_c, 0.0, pressure_hpa))
    if math.isnan(worth):
        raise StandardWrong(
            "Water of %(temperature)s °C is none.", temperature=Number(temperature_c)
        )
    return worth


def _check(new: NewStandard) -> None:
    if new.property not in vocabulary.PROPERTIES:
        raise StandardWrong("There is no property %(property)s.", property=new.property)
    for what, text, least in (
        (Said("name"), new.name, 1),
        (Said("lot"), new.lot, 0),
        (Said("certificate"), new.certificate, 0),
    ):
        if not least <= len(text.strip()) <= _LONGEST or not text.isprintable():
            raise StandardWrong(
                "A standard's %(what)s has %(least)s to %(longest)s printable characters.",
                what=what,
                least=least,
                longest=_LONGEST,
            )
    if not (math.isfinite(new.u) and 0 < new.u <= _LARGEST):
        raise StandardWrong(
            "A standard's uncertainty u is a number above zero, in the unit of its property."
        )
    if new.expires_at is not None and not _EARLIEST <= new.expires_at <= _LATEST:
        raise StandardWrong(
            "A standard expires between %(earliest_year)s and %(latest_year)s.",
            earliest_year=_EARLIEST.year,
            latest_year=_LATEST.year,
        )
    _check_points(new)


def _check_points(new: NewStandard) -> None:
    if new.kind in (StandardKind.AIR_SATURATION, StandardKind.INSTRUMENT):
        if new.points:
            raise StandardWrong(
                "What a reference instrument shows, and what air-saturated water is worth, is not known beforehand: give no values."
            )
        if new.kind == StandardKind.AIR_SATURATION and new.property not in _SATURATED:
            raise StandardWrong("Only probes of oxygen are calibrated in air-saturated water.")
        return
    if not 1 <= len(new.points) <= _MOST_POINTS:
        raise StandardWrong(
            "Say what the standard is worth: 1 to %(most)s pairs of °C and value.",
            most=_MOST_POINTS,
        )
    for temperature_c, value in new.points:
        is_number = math.isfinite(temperature_c) and math.isfinite(value)
        if not (is_number and _COLDEST_C <= temperature_c <= _WARMEST_C and abs(value) <= _LARGEST):
            raise StandardWrong(
                "A standard's values are numbers of at most %(largest)s, and a temperature lies between %(coldest)s and %(warmest)s °C.",
                largest=Number(_LARGEST),
                coldest=Number(_COLDEST_C),
                warmest=Number(_WARMEST_C),
            )
    temperatures = [temperature_c for temperature_c, _ in new.points]
    if any(after <= before for before, after in itertools.pairwise(temperatures)):
        raise StandardWrong("A standard's temperatures ascend, each once.")


def _unknown(standard_id: int) -> NotFound:
    return NotFound("There is no standard %(standard_id)s.", standard_id=standard_id)
