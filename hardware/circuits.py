"""What stands between a board's pins and a probe's wires, as data: interfaces and supplies.

An interface (`interfaces/*.toml`) says which pins a probe of its kind takes, what each pin must be able to do, which
terminals the probe's wires go to, and what has to be soldered between them. A supply (`supplies/*.toml`) says where a
probe's voltage comes from and what that costs. Which circuits a node has: `connections.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

from hardware import data_files
from hardware.data_files import CatalogueError
from hardware.parts import Part, read_parts
from hardware.strict_toml import StrictTable

# wake: an input that ends deep sleep.
PinUse = Literal["input", "output", "bidirectional", "analog", "wake"]
PinHold = Literal["", "low", "high"]
SupplySource = Literal["board", "battery"]

# Terminals that every probe has, whatever its interface.
SUPPLY_TERMINAL, GROUND_TERMINAL = "supply", "ground"
# The interface of the node's own battery, whose circuit the board's file names.
BATTERY = "battery"
# What a node has for whoever stands before it: a node model's key for its pin → the interface that hangs there.
PANEL = {"led": "lamp", "button": "button"}


@dataclass(frozen=True)
class PinRole:
    """One pin that an interface takes. `is_shared`: all probes on the same bus use the same one.

    `holds`: where the circuit holds the pin while the chip starts; empty when that is not certain.
    """

    role: str
    use: PinUse
    is_shared: bool
    is_optional: bool
    leads_to: str
    holds: PinHold = ""


@dataclass(frozen=True)
class Terminal:
    """Where a wire of a probe is clamped; `meaning` says what it leads to inside."""

    id: str
    meaning: str


@dataclass(frozen=True)
class Interface:
    """A way to speak with a probe. `rails`: what its circuit is fed with, beside what the probe itself takes.

    `bus`: interfaces of the same bus may share their shared pins, with other addresses; its own id when the file names
    none. `active_ma`: what the circuit draws from the board's 3.3 V while its probe is on.
    """

    id: str
    bus: str
    title: str
    pins: tuple[PinRole, ...]
    rails: tuple[str, ...]
    terminals: tuple[Terminal, ...]
    active_ma: float
    asleep_ua: float
    parts: tuple[Part, ...]
    note: str
    source: str
    assumed: tuple[str, ...]

    def pin(self, role: str) -> PinRole | None:
        """The pin with this role, or None."""
        return next((pin for pin in self.pins if pin.role == role), None)


@dataclass(frozen=True)
class Supply:
    """A voltage for probes. `gate` is the role of the pin that switches it, empty when it is always there.

    `source`: the board's regulated 3.3 V, or the battery through a converter of this `efficiency` (0–1).
    """

    id: str
    title: str
    voltage_v: float
    source_of_power: SupplySource
    efficiency: float
    gate: str
    active_ma: float
    asleep_ua: float
    parts: tuple[Part, ...]
    source: str
    assumed: tuple[str, ...]


def interface_ids() -> tuple[str, ...]:
    """Every interface that we have data for, sorted."""
    return data_files.ids("interfaces")


def load_interface(interface_id: str) -> Interface:
    """The interface of this id. Raises CatalogueError when unknown or wrongly written."""
    return _interface(interface_id, data_files.folders())


def load_supply(supply_id: str) -> Supply:
    """The supply of this id. Raises CatalogueError when unknown or wrongly written."""
    return _supply(supply_id, data_files.folders())


def parse_interface(text: str, *, name: str) -> Interface:
    """An interface from TOML text; `name` is what an error calls the file."""
    table = StrictTable.from_toml(text, name, CatalogueError)
    interface_id = table.text("id")
    interface = Interface(
        id=interface_id,
        bus=table.text("bus", interface_id),
        title=table.text("title"),
        pins=table.rows("pins", _pin, at_least=1),
        rails=table.texts("rails"),
        terminals=table.rows("terminals", _terminal, at_least=0),
        active_ma=table.amount("active_ma"),
        asleep_ua=table.amount("asleep_ua"),
        parts=read_parts(table),
        note=table.text("note", ""),
        source=table.text("source"),
        assumed=table.paths("assumed"),
    )
    table.finish()
    return interface


def parse_supply(text: str, *, name: str) -> Supply:
    """A supply from TOML text; `name` is what an error calls the file."""
    table = StrictTable.from_toml(text, name, CatalogueError)
    supply = Supply(
        id=table.text("id"),
        title=table.text("title"),
        voltage_v=table.amount("voltage_v", above_zero=True),
        source_of_power=cast(
            "SupplySource", table.choice("source_of_power", get_args(SupplySource))
        ),
        efficiency=table.number("efficiency"),
        gate=table.text("gate"),
        active_ma=table.amount("active_ma"),
        asleep_ua=table.amount("asleep_ua"),
        parts=read_parts(table),
        source=table.text("source"),
        assumed=table.paths("assumed"),
    )
    table.finish()
    if not 0 < supply.efficiency <= 1:
        raise CatalogueError(f"{name}: efficiency must be above 0 and at most 1.")
    return supply


@cache
def _interface(interface_id: str, among: tuple[Path, ...]) -> Interface:
    text, name = data_files.read("interfaces", interface_id, among)
    interface = parse_interface(text, name=name)
    data_files.check_id(interface.id, interface_id, name)
    return interface


@cache
def _supply(supply_id: str, among: tuple[Path, ...]) -> Supply:
    text, name = data_files.read("supplies", supply_id, among)
    supply = parse_supply(text, name=name)
    data_files.check_id(supply.id, supply_id, name)
    return supply


def _pin(table: StrictTable) -> PinRole:
    return PinRole(
        role=table.text("role"),
        use=cast("PinUse", table.choice("use", get_args(PinUse))),
        is_shared=table.truth("is_shared", default=False),
        is_optional=table.truth("is_optional", default=False),
        leads_to=table.text("leads_to"),
        holds=cast("PinHold", table.choice("holds", ("low", "high"))) if table.has("holds") else "",
    )


def _terminal(table: StrictTable) -> Terminal:
    return Terminal(id=table.text("id"), meaning=table.text("meaning"))
