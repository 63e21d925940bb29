"""The query options of a SensorThings request (OGC 18-088, chapter 9.3), parsed strictly. No database here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from fleet_server.errors import Invalid
from fleet_server.http_shared.paging import with_query
from fleet_server.http_shared.problems import NotBuilt

DEFAULT_TOP = 100
MAX_TOP = 1000
MAX_SKIP = 2**31
MAX_QUERY_CHARACTERS = 4000
"""Without the page token, which is ours: a nextLink shall never be too long to follow."""

MAX_TOKEN_CHARACTERS = 8000
MAX_ORDER_KEYS = 5
MAX_COMPARISONS = 20
MAX_EXPAND_DEPTH = 3


@dataclass(frozen=True)
class Comparison:
    """One `property operator literal`; several are joined by `and`."""

    name: str
    operator: str
    value: int | float | str | datetime


@dataclass(frozen=True)
class Options:
    """What a request asks of one entity set; `order` is (property, is_descending)."""

    top: int | None = None
    skip: int = 0
    count: bool = False
    order: tuple[tuple[str, bool], ...] = ()
    select: tuple[str, ...] = ()
    expand: tuple[tuple[str, Options], ...] = ()
    where: tuple[Comparison, ...] = ()
    skip_token: str | None = None
    as_of: datetime | None = None
    """What was known at that moment is asked for; None: what is known now."""
    as_given: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def page_size(self) -> int:
        return min(DEFAULT_TOP if self.top is None else self.top, MAX_TOP)


_AS_OF = "asof"
_NOT_BUILT = {
    "$search": "$search is not part of SensorThings 1.1.",
    "$apply": "$apply is not part of SensorThings 1.1.",
    "$resultformat": "$resultFormat is not built yet; answers come as plain JSON entities.",
}


def parse_options(query: str) -> Options:
    """Options of a raw query string.

    Raises:
        Invalid: an option is unknown, given twice or unreadable.
        NotBuilt: the option is part of the standard, but not of this server.
    """
    parts = [part.partition("=") for part in query.split("&") if part]
    pairs = [(unquote_plus(name), unquote_plus(value)) for name, _, value in parts]
    _refuse_long(pairs)
    return _options(pairs, depth=0)


def _refuse_long(pairs: list[tuple[str, str]]) -> None:
    # As a nextLink writes it, which may be longer than it came.
    lengths: dict[bool, int] = {True: 0, False: 0}
    for name, value in pairs:
        lengths[name.strip().lower() == "$skiptoken"] += len(with_query("", {name: value}))
    if lengths[False] > MAX_QUERY_CHARACTERS:
        raise Invalid(f"The query is longer than {MAX_QUERY_CHARACTERS} characters.")
    if lengths[True] > MAX_TOKEN_CHARACTERS:
        raise Invalid("$skiptoken is not one that a nextLink of this request gave.")


def _options(pairs: list[tuple[str, str]], *, depth: int) -> Options:
    given: dict[str, str] = {}
    parsed: dict[str, object] = {}
    for name, value in pairs:
        key = name.strip().lower()
        if key in _NOT_BUILT:
            raise NotBuilt(_NOT_BUILT[key])
        if not key.startswith("$") and key != _AS_OF:
            continue  # OData 4.01 part 1, 11.2.1: custom options that a service does not know are ignored
        if key in given:
            raise Invalid(f"{name} is given twice.")
        if key == _AS_OF and depth:
            raise Invalid("asOf is asked of the whole answer: it stands outside of $expand.")
        given[key] = value
        parsed |= _option(key, value.strip(), depth=depth)
    return Options(**parsed, as_given=given)  # type: ignore[arg-type] # names and types are _option's


def _option(key: str, value: str, *, depth: int) -> dict[str, object]:
    match key:
        case "$top":
            return {"top": _whole_number("$top", value, MAX_SKIP)}
        case "$skip":
            return {"skip": _whole_number("$skip", value, MAX_SKIP)}
        case "$count":
            return {"count": _truth("$count", value)}
        case "$orderby":
            return {"order": _orders(value)}
        case "$select":
            return {"select": _selection(value)}
        case "$expand":
            return {"expand": _expand(value, depth=depth)}
        case "$filter":
            return {"where": parse_filter(value)}
        case "$skiptoken":
            return {"skip_token": value}
        case "asof":
            return {"as_of": _moment_asked_for(value)}
    raise Invalid(
        f"{key} is not a query option of SensorThings 1.1; "
        f"known are $top, $skip, $count, $orderby, $expand, $select and $filter."
    )


def _moment_asked_for(text: str) -> datetime:
    if not _TIME.fullmatch(text):
        raise Invalid(f"asOf wants a time like 2026-07-01T12:00:00Z, not {_quoted(text)}.")
    return _time(text).replace(microsecond=0)


def _whole_number(name: str, text: str, highest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) > highest:
        raise Invalid(f"{name} wants a whole number from 0 to {highest}, not {_quoted(text)}.")
    return int(text)


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise Invalid(f"{name} wants true or false, not {_quoted(text)}.")
    return text.lower() == "true"


def _selection(text: str) -> tuple[str, ...]:
    names = tuple(item.strip() for item in _split(text, ","))
    if not all(names):
        raise Invalid(f"$select wants names, separated by single commas, not {_quoted(text)}.")
    return names


def _orders(text: str) -> tuple[tuple[str, bool], ...]:
    orders = tuple(_order(item) for item in _split(text, ","))
    if len(orders) > MAX_ORDER_KEYS:
        raise Invalid(f"$orderby takes at most {MAX_ORDER_KEYS} properties.")
    names = [name for name, _ in orders]
    for name in names:
        if names.count(name) > 1:
            raise Invalid(f"$orderby names {name} twice.")
    return orders


def _order(text: str) -> tuple[str, bool]:
    words = text.split()
    if len(words) not in (1, 2) or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
        raise Invalid(
            f"$orderby wants `property`, `property asc` or `property desc`, not {_quoted(text)}."
        )
    return words[0], len(words) == 2 and words[1].lower() == "desc"


def _expand(text: str, *, depth: int) -> tuple[tuple[str, Options], ...]:
    if depth >= MAX_EXPAND_DEPTH:
        raise NotBuilt(f"$expand goes {MAX_EXPAND_DEPTH} levels deep and no further.")
    expanded: dict[str, Options] = {}
    for item in _split(text, ","):
        name, _, inside = item.strip().partition("(")
        if inside and not inside.endswith(")"):
            raise Invalid(f"$expand has an open bracket in {_quoted(item)}.")
        pairs = [
            (key.strip(), value)
            for key, _, value in (part.partition("=") for part in _split(inside[:-1], ";") if part)
        ]
        head, _, rest = name.strip().partition("/")
        if rest:  # Datastreams/Observations is short for Datastreams($expand=Observations)
            pairs = [("$expand", rest + (f"({inside}" if inside else ""))]
        nested = _options(pairs, depth=depth + 1)
        if nested.skip_token is not None:
            raise Invalid("$skiptoken stands in nextLinks only, not inside $expand.")
        expanded[head] = _merged(expanded[head], nested) if head in expanded else nested
    return tuple(expanded.items())


def _merged(one: Options, other: Options) -> Options:
    """`Datastreams/Sensor,Datastreams/Thing` names one navigation twice: both are expanded."""
    if one.as_given.keys() - {"$expand"} or other.as_given.keys() - {"$expand"}:
        raise Invalid("$expand names one navigation twice with different options.")
    return Options(expand=one.expand + other.expand, as_given=one.as_given)


def _split(text: str, separator: str) -> Iterator[str]:
    """Split outside brackets and quotes."""
    depth, is_quoted, begin = 0, False, 0
    for at, character in enumerate(text):
        if character == "'":
            is_quoted = not is_quoted
        elif is_quoted:
            continue
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                break
        elif character == separator and depth == 0:
            yield text[begin:at]
            begin = at + 1
    if depth or is_quoted:
        raise Invalid(f"A bracket or quote is not closed in {_quoted(text)}.")
    yield text[begin:]


_COMPARISON = re.compile(
    r"\s*(?P<name>@iot\.id|[A-Za-z]+)\s+(?P<operator>eq|ne|gt|ge|lt|le)\s+(?P<literal>\S.*?)\s*",
    re.IGNORECASE | re.DOTALL,
)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+ -]\d\d:\d\d)?)?", re.IGNORECASE
)


def parse_filter(text: str) -> tuple[Comparison, ...]:
    """Comparisons joined by `and`: the part of `$filter` that is answered today.

    Raises:
        NotBuilt: anything else that `$filter` may say.
    """
    if re.search(r"\bor\b|\bnot\b|[()]|/", re.sub(r"'[^']*'", "", text), re.IGNORECASE):
        raise NotBuilt(
            "$filter answers comparisons joined by `and` today, such as "
            "phenomenonTime ge 2026-07-01T00:00:00Z and phenomenonTime lt 2026-08-01T00:00:00Z."
        )
    parts = re.split(r"\s+and\s+", text, flags=re.IGNORECASE)
    if len(parts) > MAX_COMPARISONS:
        raise Invalid(f"$filter takes at most {MAX_COMPARISONS} comparisons.")
    return tuple(_comparison(part) for part in parts)


def _comparison(text: str) -> Comparison:
    found = _COMPARISON.fullmatch(text)
    if not found:
        raise Invalid(f"$filter cannot read {_quoted(text)}; it wants `property operator value`.")
    return Comparison(found["name"], found["operator"].lower(), _literal(found["literal"]))


def _literal(text: str) -> int | float | str | datetime:
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"-?\d{1,18}(\.\d{1,18})?([eE][+-]?\d{1,3})?", text):
        return float(text)
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if _TIME.fullmatch(text):
        return _time(text)
    raise Invalid(f"$filter cannot read the value {_quoted(text)}.")


def _time(text: str) -> datetime:
    # An unescaped + in an address arrives as a space: ...T08:00:00 02:00 means +02:00.
    text = re.sub(r" (\d\d:\d\d)$", r"+\1", text.upper())
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{_quoted(text)} is no time.") from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise Invalid(f"{_quoted(text)} is outside the calendar.") from None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
