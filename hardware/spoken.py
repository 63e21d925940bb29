"""How a probe of a known interface is spoken to, as data: so that a new one is a TOML file and no code.

Lives here: the tables `[modbus]` and `[ezo]` of `sensors/*.toml` and the `register` of a quantity, read and checked. Not
here: what a driver makes of them (`firmware/node/sensors/`), and how they get to a node
(`provisioning/node_configuration.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hardware.strict_toml import StrictTable

KINDS = ("u8", "u16", "s16", "u32", "s32", "f32")
"""What a register may hold: `u8` is its first byte alone, those of 32 bits take the next register too."""

ORDERS = ("abcd", "cdab", "badc", "dcba")
"""How the four bytes of 32 bits arrive; a is the highest."""

PARITIES = ("none", "even", "odd")

BAUDS = (1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200)

# The node's own ten (firmware/node/errors.py).
REASONS = (
    "absent",
    "timeout",
    "crc",
    "por",
    "range",
    "short",
    "open",
    "spread",
    "frame",
    "error",
)

TEMPERATURE_PARTS = {"Cel": 1, "Cel/16": 16}
"""Raw units of a thermometer that a node can tell another probe of, with how many of them are one degree Celsius."""

WIPE_AGE = "wipe_age"
"""In place of a register: seconds since the node last had the wiper turn."""


@dataclass(frozen=True)
class Register:
    """Where a number stands: its first register, kind and, of 32 bits, the order of its bytes."""

    at: int
    kind: str
    order: str

    @property
    def end(self) -> int:
        """The first register after it."""
        return self.at + (2 if self.kind.endswith("32") else 1)


@dataclass(frozen=True)
class Guard:
    """A number that has to be within limits, or what it speaks for is `reason`: an error code, a sign of an impossible state."""

    register: Register
    minimum: int
    maximum: int
    reason: str
    properties: tuple[str, ...]
    meaning: str


@dataclass(frozen=True)
class Modbus:
    """A Modbus RTU probe. `reads`: (register, count) of the only requests that it answers; empty: any. `start`: of the one
    that sets a measurement going. `wipe`: the register whose writing, with no value, has the wiper turn."""

    function: int
    baud: int
    parity: str
    reads: tuple[tuple[int, int], ...]
    start: tuple[int, int] | None
    wipe: int | None
    guards: tuple[Guard, ...]


@dataclass(frozen=True)
class Ezo:
    """An Atlas EZO circuit on I²C. `digits`: of its reading after the point; the raw unit counts the last of them.
    `default_c`: the water's temperature that it goes by when it is told no other. `is_told`: whether a node tells it one."""

    digits: int
    default_c: float
    is_told: bool


def register(table: StrictTable) -> Register:
    """A place on a Modbus probe."""
    at, kind, order = table.whole("at"), table.text("kind"), table.text("order", "")
    if not 0 <= at <= 0xFFFF:
        raise table.mistake("at must be a register from 0 to 65535.")
    if kind not in KINDS:
        raise table.mistake(f"kind must be one of {', '.join(KINDS)}, not {kind}.")
    if kind.endswith("32") != (order in ORDERS):
        raise table.mistake(
            f"order must be one of {', '.join(ORDERS)} for 32 bits, and left out for fewer."
        )
    return Register(at, kind, order)


def modbus(table: StrictTable) -> Modbus:
    """The table `[modbus]`."""
    talk = Modbus(
        function=table.whole("function"),
        baud=table.whole("baud"),
        parity=table.text("parity"),
        reads=table.rows("reads", _request, at_least=0),
        start=table.one("start", _request) if table.has("start") else None,
        wipe=table.whole("wipe") if table.has("wipe") else None,
        guards=table.rows("guards", _guard, at_least=0),
    )
    if talk.function not in (3, 4):
        raise table.mistake("function must be 3 (holding) or 4 (input registers).")
    if talk.baud not in BAUDS:
        raise table.mistake(f"baud must be one of {', '.join(map(str, BAUDS))}, not {talk.baud}.")
    if talk.parity not in PARITIES:
        raise table.mistake(f"parity must be one of {', '.join(PARITIES)}.")
    return talk


def ezo(table: StrictTable) -> Ezo:
    """The table `[ezo]`."""
    talk = Ezo(
        digits=table.whole("digits"),
        default_c=table.number("default_c"),
        is_told=table.truth("is_told", default=True),
    )
    if not 0 <= talk.digits <= 4:
        raise table.mistake("digits must be from 0 to 4.")
    return talk


def stretches(registers: Iterable[Register]) -> tuple[tuple[int, int], ...]:
    """(first, count) of neighbouring registers: a probe answers for those that it has, and often for no others.

    >>> stretches([Register(5, "u32", "abcd"), Register(4, "u16", ""), Register(100, "u8", "")])
    ((4, 3), (100, 1))
    """
    found: list[tuple[int, int]] = []
    for register in sorted(registers, key=lambda one: one.at):
        if found and register.at <= sum(found[-1]):
            first, count = found.pop()
            found.append((first, max(count, register.end - first)))
        else:
            found.append((register.at, register.end - register.at))
    return tuple(found)


def _request(table: StrictTable) -> tuple[int, int]:
    return table.whole("at"), table.whole("count")


def _guard(table: StrictTable) -> Guard:
    guard = Guard(
        register=table.one("register", register),
        minimum=table.whole("minimum"),
        maximum=table.whole("maximum"),
        reason=table.text("reason"),
        properties=table.texts("properties"),
        meaning=table.text("meaning"),
    )
    if guard.reason not in REASONS:
        raise table.mistake(f"reason must be one of {', '.join(REASONS)}.")
    return guard
