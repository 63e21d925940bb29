"""How values, flags, times and places are written for people, in their language. Local time exists only here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime

from flask_babel import (
    format_date,
    format_datetime,
    format_decimal,
    get_locale,
    gettext,
    lazy_gettext,
)
from markupsafe import Markup

from fleet_server.services.commanding import CommandOverview, CommandState
from fleet_server.services.configuring import Standing
from fleet_server.services.flag_reasons import Quantity
from fleet_server.services.fleet_totals import TROUBLED
from fleet_server.services.health import Freshness
from fleet_server.services.overviews import EventOverview, SiteOverview
from fleet_server.wire.commands import Result
from fleet_server.wire.states import BatteryLevel, QualityFlag

# UCUM's codes are what people write, but for these.
UNIT_SYMBOLS = {
    "Cel": "°C",
    "m3/m3": "m³/m³",
    "uS/cm": "µS/cm",
    "Ohm": "Ω",
    "pH": "",
    "1": "",
}

PROPERTY_WORDS = {
    "soil_water_tension": lazy_gettext("Soil water tension"),
    "soil_water_content": lazy_gettext("Soil water content"),
    "available_water": lazy_gettext("Water that plants can take (% nFK)"),
    "ammonia_fraction": lazy_gettext("Share of un-ionised ammonia"),
    "soil_permittivity": lazy_gettext("Soil permittivity"),
    "soil_temperature": lazy_gettext("Soil temperature"),
    "dissolved_oxygen": lazy_gettext("Dissolved oxygen"),
    "oxygen_saturation": lazy_gettext("Oxygen saturation"),
    "water_temperature": lazy_gettext("Water temperature"),
    "water_level": lazy_gettext("Water level"),
    "ph": lazy_gettext("pH"),
    "conductivity_25": lazy_gettext("Conductivity at 25 °C"),
    "turbidity": lazy_gettext("Turbidity"),
    "wiper_age": lazy_gettext("Time since the probe was wiped"),
    "probe_counts": lazy_gettext("Counts of the probe"),
    "soil_moisture_index": lazy_gettext("Soil moisture index (relative)"),
    "soil_conductivity": lazy_gettext("Soil conductivity"),
    "air_temperature": lazy_gettext("Air temperature"),
    "contact_closed": lazy_gettext("Contact closed"),
    "reference_resistance": lazy_gettext("Reference resistance"),
    "battery_voltage": lazy_gettext("Battery voltage"),
}

KIND_WORDS = {"tree": lazy_gettext("Tree"), "water": lazy_gettext("Water")}


@dataclass(frozen=True)
class Word:
    """A state in three ways, so that colour never has to carry it alone."""

    symbol: str
    word: object
    meaning: object


FLAG_WORDS = {
    QualityFlag.GOOD: Word("✓", lazy_gettext("good"), lazy_gettext("passed every test")),
    QualityFlag.NOT_EVALUATED: Word(
        "○", lazy_gettext("not evaluated"), lazy_gettext("not tested yet")
    ),
    QualityFlag.SUSPECT: Word(
        "▲", lazy_gettext("suspect"), lazy_gettext("unusual: look before you act on it")
    ),
    QualityFlag.BAD: Word("✕", lazy_gettext("bad"), lazy_gettext("failed a test: do not use it")),
    QualityFlag.MISSING: Word(
        "–", lazy_gettext("missing"), lazy_gettext("the sensor gave no value")
    ),
}

HEALTH_WORDS = {
    Freshness.FRESH.value: Word("✓", lazy_gettext("well"), lazy_gettext("It reports on schedule.")),
    Freshness.LATE.value: Word(
        "▲", lazy_gettext("late"), lazy_gettext("It missed its last publishing time.")
    ),
    Freshness.OFFLINE.value: Word(
        "✕", lazy_gettext("silent"), lazy_gettext("Nothing was heard of it for several periods.")
    ),
    Freshness.MUTED.value: Word(
        "▲",
        lazy_gettext("sparing"),
        lazy_gettext("Its battery is low: it measures on and sends again when it is charged."),
    ),
    Freshness.NEVER_SEEN.value: Word(
        "○", lazy_gettext("new"), lazy_gettext("It is enrolled and was never heard.")
    ),
    TROUBLED: Word(
        "▲", lazy_gettext("troubled"), lazy_gettext("It reports on schedule, and an error with it.")
    ),
}


EVENT_WORDS = {
    "crash": lazy_gettext("Wake ended by a fault"),
    "battery": lazy_gettext("Battery"),
    "battery_swap": lazy_gettext("Battery swapped or charged"),
    "limit_crossed": lazy_gettext("Limit crossed"),
    "limit_cleared": lazy_gettext("Limit no longer crossed"),
    "field_mode": lazy_gettext("Field mode"),
    "answer": lazy_gettext("Answer to a command"),
}

# What an event tells, by the names on the wire. Others stand as they came: those of a command's answer are the operator's own words.
DETAIL_WORDS = {
    "boot": lazy_gettext("number of its boot"),
    "by": lazy_gettext("begun by"),
    "cause": lazy_gettext("cause"),
    "heap": lazy_gettext("free heap, bytes"),
    "key": lazy_gettext("channel"),
    "kind": lazy_gettext("kind of limit"),
    "level": lazy_gettext("level"),
    "limit": lazy_gettext("limit, raw"),
    "mv": lazy_gettext("now, mV"),
    "name": lazy_gettext("command"),
    "result": lazy_gettext("result"),
    "slot": lazy_gettext("firmware slot"),
    "trace": lazy_gettext("where it was, innermost last"),
    "value": lazy_gettext("value, raw"),
    "version": lazy_gettext("firmware"),
    "was_mv": lazy_gettext("before, mV"),
    "what": lazy_gettext("what"),
    "where": lazy_gettext("where"),
    "why": lazy_gettext("why"),
}
DETAIL_VALUE_WORDS = {
    ("by", "power_on"): lazy_gettext("switching it on"),
    ("by", "button"): lazy_gettext("its button"),
    ("kind", "below"): lazy_gettext("below"),
    ("kind", "above"): lazy_gettext("above"),
    ("kind", "fall"): lazy_gettext("fall within an hour"),
    ("cause", "exception"): lazy_gettext("error in the firmware"),
    ("cause", "brown_out"): lazy_gettext("the supply gave way"),
    ("cause", "watchdog"): lazy_gettext("it hung"),
}
# What only programs need.
_MACHINE_DETAILS = ("id",)

BATTERY_WORDS = {
    BatteryLevel.NORMAL: "",
    BatteryLevel.LOW: lazy_gettext("low: sends rarely"),
    BatteryLevel.MUTE: lazy_gettext("very low: measures without sending"),
    BatteryLevel.STOP: lazy_gettext("empty: has stopped"),
}


def event_words(name: str) -> str:
    return str(EVENT_WORDS.get(name, name))


def event_details(event: EventOverview) -> list[tuple[str, str]]:
    """What an event tells: (what, how much or which), in words where there are any."""
    return [
        (str(DETAIL_WORDS.get(key, key)), _detail_value(key, value))
        for key, value in event.details
        if key not in _MACHINE_DETAILS
    ]


def _detail_value(key: str, value: float | str) -> str:
    if key == "result":
        return str(COMMAND_WORDS.get(str(value), value))
    if key == "level" and value in set(BatteryLevel):
        return str(BATTERY_WORDS[BatteryLevel(value)]) or gettext("good again")
    return detail(DETAIL_VALUE_WORDS.get((key, str(value)), value))


def detail(value: object) -> str:
    """A value that a node told; an empty text is seen as such."""
    return str(value) or "–"


def battery_words(level: BatteryLevel) -> str:
    return str(BATTERY_WORDS[level])


STANDING_WORDS = {
    Standing.IN_FORCE: Word("✓", lazy_gettext("in force"), lazy_gettext("The node runs it.")),
    Standing.TRIAL: Word(
        "○",
        lazy_gettext("on trial"),
        lazy_gettext("The node runs it, and goes back by itself when it does not lead here."),
    ),
    Standing.WAITING: Word(
        "○", lazy_gettext("waiting"), lazy_gettext("The node hears of it when it connects.")
    ),
    Standing.ROLLED_BACK: Word(
        "✕", lazy_gettext("rolled back"), lazy_gettext("It failed; the node runs the one before.")
    ),
    Standing.REFUSED: Word(
        "✕",
        lazy_gettext("refused"),
        lazy_gettext("The node cannot take it; it runs the one before."),
    ),
}

COMMAND_WORDS = {
    CommandState.PENDING.value: lazy_gettext("pending"),
    CommandState.EXPIRED.value: lazy_gettext("expired"),
    CommandState.CANCELED.value: lazy_gettext("taken back"),
    Result.DONE.value: lazy_gettext("done"),
    Result.FAILED.value: lazy_gettext("failed"),
    Result.REFUSED.value: lazy_gettext("refused"),
    Result.UNSUPPORTED.value: lazy_gettext("not possible on this node"),
    Result.INTERRUPTED.value: lazy_gettext("interrupted; it may have happened or not"),
}


REFUSAL_WORDS = {
    "handshake_failed": lazy_gettext("No certificate of this fleet, or a revoked one."),
    "handshake_timed_out": lazy_gettext("A connection that did not go on with its handshake."),
    "connect_timed_out": lazy_gettext("A connection that did not say who it is."),
    "connect_malformed": lazy_gettext("A connection that began with something else than MQTT."),
    "protocol_unsupported": lazy_gettext("A connection in another version of MQTT."),
    "connections_exceeded": lazy_gettext("More connections than the broker may have open."),
    "wrong_listener": lazy_gettext("A certificate whose name does not belong at this door."),
    "client_id_not_own": lazy_gettext("A node that came under another's name."),
    "certificate_revoked": lazy_gettext("A revoked certificate."),
    "will_denied": lazy_gettext("A will for a topic that is not one's own."),
    "publish_denied": lazy_gettext("A message on a topic that is not one's own."),
    "retain_denied": lazy_gettext("A message that a node wanted to be kept."),
    "subscribe_denied": lazy_gettext("A wish to read what is for others."),
    "packet_too_large": lazy_gettext("A packet of more than 64 KiB."),
    "packet_malformed": lazy_gettext("A packet that is no MQTT."),
    "packet_timed_out": lazy_gettext("A connection that fell silent."),
    "send_timed_out": lazy_gettext("A connection that took nothing."),
}


def refusal_words(reason: str) -> str:
    return str(REFUSAL_WORDS.get(reason, reason))


ORDER_WORDS = {
    "label": lazy_gettext("by label"),
    "-label": lazy_gettext("by label, from the end"),
    "heard": lazy_gettext("longest silent first"),
    "-heard": lazy_gettext("heard last first"),
    "battery": lazy_gettext("lowest battery first"),
    "-battery": lazy_gettext("fullest battery first"),
}


def order_word(sorting: str) -> str:
    """How a list of nodes is sorted."""
    return str(ORDER_WORDS.get(sorting, sorting))


def flag_words(number: int) -> Word:
    return FLAG_WORDS[QualityFlag(number)]


def health_words(name: str) -> Word:
    return HEALTH_WORDS[name]


def standing_words(standing: Standing) -> Word:
    return STANDING_WORDS[standing]


def command_word(command: CommandOverview) -> str:
    """What became of a command."""
    is_answered = command.state is CommandState.ANSWERED and command.result is not None
    name = command.result if is_answered else command.state.value
    return str(COMMAND_WORDS.get(name or "", name))


def unit_symbol(unit: str) -> str:
    return UNIT_SYMBOLS.get(unit, unit)


def kind_word(kind: str) -> str:
    return str(KIND_WORDS.get(kind, kind))


def channel_title(property_name: str, depth_cm: int) -> str:
    """`Soil temperature, 30 cm`"""
    name = str(PROPERTY_WORDS.get(property_name, property_name.replace("_", " ")))
    return f"{name}, {depth_cm}\N{NO-BREAK SPACE}cm" if depth_cm else name


def decimals_for(expanded_u: float | None) -> int:
    """Decimals that a value with this uncertainty deserves: U to two significant digits (GUM 7.2.6), at most three.

    >>> decimals_for(0.53), decimals_for(4.2), decimals_for(58.0), decimals_for(None)
    (2, 1, 0, 2)
    """
    if expanded_u is None or not math.isfinite(expanded_u) or expanded_u <= 0:
        return 2
    return min(3, max(0, 1 - math.floor(math.log10(expanded_u))))


def quantity(value: float, expanded_u: float | None) -> str:
    return decimal(value, decimals_for(expanded_u))


def uncertainty(expanded_u: float) -> str:
    return decimal(expanded_u, decimals_for(expanded_u))


def decimal(value: float, decimals: int = 1) -> str:
    if not math.isfinite(value):
        return "–"
    shape = "#,##0." + "0" * decimals if decimals else "#,##0"
    return str(format_decimal(value, format=shape)).replace("-", "−")


def quantity_in_words(number: Quantity) -> str:
    """A number within a sentence, with its unit: `0,31 m³/m³`."""
    digits = number.digits()
    decimals = len(digits.partition(".")[2]) if "e" not in digits else 6
    written, symbol = decimal(float(number), decimals), unit_symbol(number.unit)
    return f"{written}\N{NO-BREAK SPACE}{symbol}" if symbol else written


def as_typed(number: float) -> str:
    """A number in a field, as its reader types one: `20,5`, without a mark at thousands."""
    return str(format_decimal(round(number, 9), format="0.#########"))


def whole(number: int | None) -> str:
    return "–" if number is None else str(format_decimal(number, format="#,##0"))


def volts(millivolts: int | None) -> str:
    return "–" if millivolts is None else f"{decimal(millivolts / 1000, 2)}\N{NO-BREAK SPACE}V"


def local_time(time: datetime) -> str:
    """`1 Jul 2026, 14:15` or `01.07.2026, 14:15`, in the city's time zone."""
    is_german = str(get_locale()).startswith("de")
    return str(format_datetime(time, "dd.MM.yyyy, HH:mm" if is_german else "d MMM yyyy, HH:mm"))


def local_day(time: datetime) -> str:
    """`1 Jul 2026` or `01.07.2026`: the day that a moment lies in, in the city."""
    is_german = str(get_locale()).startswith("de")
    return str(format_datetime(time, "dd.MM.yyyy" if is_german else "d MMM yyyy"))


def as_utc(time: datetime) -> str:
    """`2026-07-01T12:15:00Z`, as the feed takes it."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def day(named: date) -> str:
    """`31 Dec 2031` or `31.12.2031`: a day that was named as such, in no time zone."""
    is_german = str(get_locale()).startswith("de")
    return str(format_date(named, "dd.MM.yyyy" if is_german else "d MMM yyyy"))


def place(site: SiteOverview) -> str:
    """`51.48° N, 7.21° E`: whole words for the letters are in the translation."""
    north = gettext("N") if site.latitude >= 0 else gettext("S")
    east = gettext("E") if site.longitude >= 0 else gettext("W")
    latitude, longitude = (decimal(abs(x), 5) for x in (site.latitude, site.longitude))
    return f"{latitude}° {north}, {longitude}° {east}"


def current_page(*endpoints: str, endpoint: str | None) -> Markup:
    """The `aria-current` attribute of a link in the navigation."""
    return Markup(' aria-current="page"') if endpoint in endpoints else Markup()
