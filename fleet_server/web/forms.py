"""What people type into forms: read strictly, refused in one sentence that says what is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import TypeVar
from zoneinfo import ZoneInfo

from flask import request
from flask_babel import gettext

from fleet_server.errors import FleetError, Invalid
from fleet_server.http_shared.languages import TIME_ZONE
from fleet_server.services.typed_values import typed_number
from fleet_server.web.faults import in_words

_T = TypeVar("_T")
CITY = ZoneInfo(TIME_ZONE)
_WHOLE = re.compile(r"-?[0-9]{1,9}", re.ASCII)


def text(name: str) -> str:
    """A field as typed, trimmed; PostgreSQL knows no NUL."""
    return request.form.get(name, "").replace("\0", "").strip()


def whole(name: str, what: str) -> int | None:
    """A whole number; None for nothing."""
    typed = text(name)
    if not typed:
        return None
    if not _WHOLE.fullmatch(typed):
        raise Invalid(gettext("%(what)s wants a whole number.", what=what))
    return int(typed)


def number(name: str, what: str) -> float | None:
    """A number with decimal point or comma; None for nothing."""
    typed = text(name)
    if not typed:
        return None
    try:
        return typed_number(typed)
    except ValueError as problem:
        raise Invalid(gettext("%(what)s wants a number.", what=what)) from problem


def moment(name: str, *, now: datetime) -> datetime:
    """A time of the city's clock that is past; `now` for nothing."""
    typed = text(name)
    if not typed:
        return now
    try:
        local = datetime.fromisoformat(typed)
    except ValueError as problem:
        raise Invalid(gettext("Write the time like 2026-07-01 14:30.")) from problem
    found = (local if local.tzinfo else local.replace(tzinfo=CITY)).astimezone(now.tzinfo)
    if local.tzinfo is None and found.astimezone(CITY).replace(tzinfo=None) != local:
        raise Invalid(gettext("There was no such hour: the clocks were put forward."))
    if found > now:
        raise Invalid(gettext("This time lies in the future."))
    return found


def end_of_day(name: str) -> datetime:
    """The end of a day of the city's calendar."""
    try:
        day = date.fromisoformat(text(name))
    except ValueError as problem:
        raise Invalid(gettext("Write the day like 2026-07-01.")) from problem
    return datetime.combine(day, time(23, 59, 59), CITY)


def lines(name: str, *, example: str) -> dict[str, str]:
    """`name: text` in each line, like `example`."""
    found: dict[str, str] = {}
    for line in text(name).splitlines():
        key, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise Invalid(
                gettext(
                    "Write each detail in a line of its own, like %(example)s.", example=example
                )
            )
        if key.strip():
            found[key.strip()] = value.strip()
    return found


def upload(name: str, *, most_bytes: int) -> bytes:
    """The content of a chosen file; nothing when none was chosen."""
    file = request.files.get(name)
    if file is None or not file.filename:
        return b""
    # One byte more than allowed is enough for the service to see that it is too much.
    return file.stream.read(most_bytes + 1)


def tried(do: Callable[[], _T]) -> tuple[_T | None, str]:
    """What `do` gives, or the sentence why not: for a form that is shown again with what was typed."""
    try:
        return do(), ""
    except FleetError as problem:
        return None, in_words(problem)


def typed() -> Mapping[str, str]:
    """All fields as they were sent, to be shown again."""
    return {name: value.replace("\0", "") for name, value in request.form.items()}
