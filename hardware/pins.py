"""Whether a node model's pins fit its board: nothing twice, and every pin able to do what its circuit asks of it.

Those of its slots, and those of its lamp and its button.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hardware.boards import BoardType
from hardware.circuits import BATTERY, PANEL, Interface, PinRole, load_interface, load_supply
from hardware.data_files import CatalogueError

if TYPE_CHECKING:
    from hardware.catalogue import NodeModel, SensorType, Slot


# Options of a slot that name a peripheral of the chip, which can only be on one set of pins.
_PERIPHERALS = {"uart": "UART", "i2c": "I²C"}
# The switch of a supply, where the interface itself has no use for it.
_GATE = PinRole(
    role="", use="output", is_shared=False, is_optional=False, leads_to="ON of the load switch"
)


@dataclass(frozen=True)
class _Use:
    """One pin of one slot, or of the lamp or the button (`owner`). `is_gate`: it switches the probe's supply."""

    owner: str
    options: Mapping[str, Any]
    interface: Interface
    role: PinRole
    gpio: int
    is_gate: bool

    def __str__(self) -> str:
        return f"{self.owner} ({self.role.role})"


def check_pins(model: NodeModel, board: BoardType, *, name: str) -> None:
    """Refuse the first conflict between a model's slots, its lamp, its button and a board.

    A pin may be used twice only as the switch of a supply (the node keeps it on until the last probe is read), or where
    the interface says that probes share it (a bus): then for the same role, with all other shared pins the same, and
    with another address for each probe.

    Raises:
        CatalogueError: one sentence that names the file `name`, slots, pin and why.
    """
    uses = [*(use for slot in model.slots for use in _uses(slot, name)), *_panel_uses(model)]
    for use in uses:
        fault = _fault(use, board)
        if fault:
            raise CatalogueError(f"{name}: {use} {fault}.")
    for fault in (*_clashes(uses), *_bus_clashes(model)):
        raise CatalogueError(f"{name}: {fault}.")
    for slot in model.slots:
        fault = _bus_fault(slot, board) or _battery_fault(slot, board)
        if fault:
            raise CatalogueError(f"{name}: slot {slot.id} {fault}.")


def _uses(slot: Slot, name: str) -> list[_Use]:
    """The slot's pins with their roles. Raises CatalogueError when a role is missing or unknown."""
    sensor_type, interface = _sensor_type(slot), _interface(slot)
    for pin in interface.pins:
        if pin.role not in slot.pins and not pin.is_optional:
            raise CatalogueError(
                f"{name}: slot {slot.id} has no pin {pin.role}, which interface {interface.id} needs."
            )
    gate = load_supply(sensor_type.supply.rail).gate
    if gate and gate not in slot.pins:
        raise CatalogueError(
            f"{name}: slot {slot.id} has no pin {gate}, which switches its supply {sensor_type.supply.rail}."
        )
    uses = []
    for role, gpio in slot.pins.items():
        pin_role = interface.pin(role) or (replace(_GATE, role=role) if role == gate else None)
        if pin_role is None:
            raise CatalogueError(
                f"{name}: slot {slot.id} has a pin {role}, which interface {interface.id} does not know."
            )
        owner = f"slot {slot.id}"
        uses.append(_Use(owner, slot.options, interface, pin_role, gpio, is_gate=role == gate))
    return uses


def _panel_uses(model: NodeModel) -> Iterator[_Use]:
    for key, gpio in model.panel.items():
        interface = load_interface(PANEL[key])
        for role in interface.pins:
            yield _Use(f"the {interface.id}", {}, interface, role, gpio, is_gate=False)


def _fault(use: _Use, board: BoardType) -> str | None:
    """Why this pin cannot do it, as the rest of a sentence."""
    pins, gpio, duty = board.pins, use.gpio, use.role.use
    if gpio not in pins.exposed and gpio not in pins.flash:
        return f"uses GPIO{gpio}, which is not on the board {board.id}; {_free(board, duty)}"
    for group, what in (
        (pins.flash, "belongs to the flash chip"),
        (pins.strapping, "decides how the chip starts (strapping pin)"),
        (pins.console, "is the console that the board is provisioned over"),
        (pins.on_board, f"is taken by a part of the board {board.id}"),
    ):
        if gpio in group and not _starts(use, board):
            return f"uses GPIO{gpio}, which {what}; {_free(board, duty)}"
    if duty in ("output", "bidirectional") and gpio in pins.input_only:
        return f"drives GPIO{gpio}, which can only be an input; {_free(board, duty)}"
    if duty == "analog" and gpio in pins.adc2:
        return (
            f"reads GPIO{gpio} on ADC2, which does not work while Wi-Fi is on; {_free(board, duty)}"
        )
    if duty == "analog" and gpio not in pins.adc1:
        return f"reads GPIO{gpio}, which has no analogue input; {_free(board, duty)}"
    if duty == "wake" and gpio not in pins.wakes:
        return f"listens to GPIO{gpio}, which cannot wake the chip; {_free(board, duty)}"
    return None


def _starts(use: _Use, board: BoardType) -> bool:
    """Whether the circuit holds a strapping pin where the chip starts what is in its flash."""
    holding = {"low": board.pins.start_low, "high": board.pins.start_high}
    return use.gpio in holding.get(use.role.holds, ())


def _free(board: BoardType, duty: str) -> str:
    """Which pins would do: the rest of a sentence."""
    pins = board.pins
    able = [
        gpio
        for gpio in pins.free
        if (duty != "analog" or gpio in pins.adc1)
        and (duty != "wake" or gpio in pins.wakes)
        and (duty in ("analog", "input", "wake") or gpio not in pins.input_only)
    ]
    return f"take one of {', '.join(map(str, able))}"


def _clashes(uses: list[_Use]) -> Iterator[str]:
    seen: dict[int, _Use] = {}
    for use in uses:
        other = seen.setdefault(use.gpio, use)
        if other is use or (other.is_gate and use.is_gate and other.owner != use.owner):
            continue
        if not _may_share(other, use):
            yield f"{other} and {use} both use GPIO{use.gpio}"
        elif _peripherals(other) != _peripherals(use):
            yield (
                f"{other} and {use} are on one bus at GPIO{use.gpio}, but on "
                f"{_peripherals(other)} and on {_peripherals(use)}"
            )
        elif _address(other) == _address(use):
            yield (
                f"{other} and {use} are on one bus at GPIO{use.gpio} and have the same address "
                f"{_address(use)}"
            )


def _may_share(one: _Use, other: _Use) -> bool:
    return (
        one.role.is_shared
        and one.owner != other.owner
        and (one.interface.bus, one.role.role) == (other.interface.bus, other.role.role)
    )


def _peripherals(use: _Use) -> str:
    """Which part of the chip speaks with the slot's probe, such as "UART 2"."""
    named = [
        f"{title} {use.options[option]}"
        for option, title in _PERIPHERALS.items()
        if option in use.options
    ]
    return ", ".join(named) or "none"


def _bus_clashes(model: NodeModel) -> Iterator[str]:
    """Slots that name the same UART or I²C bus, though it can only be on one set of pins."""
    first: dict[tuple[str, object], Slot] = {}
    for slot in model.slots:
        for option, title in _PERIPHERALS.items():
            number = slot.options.get(option)
            other = first.setdefault((option, number), slot)
            if number is None or other is slot:
                continue
            interface, others = _interface(slot), _interface(other)
            if interface.bus != others.bus:
                yield f"slot {other.id} and slot {slot.id} both use {title} {number}"
            for role in (pin.role for pin in interface.pins if pin.is_shared):
                if other.pins.get(role) != slot.pins.get(role):
                    yield (
                        f"slot {other.id} and slot {slot.id} are both on {title} {number}, but have "
                        f"{role} on GPIO{other.pins.get(role)} and on GPIO{slot.pins.get(role)}"
                    )


def _address(use: _Use) -> object:
    """What tells probes on one bus apart."""
    return use.options.get("address")


def _bus_fault(slot: Slot, board: BoardType) -> str | None:
    uart = slot.options.get("uart")
    if uart is not None and uart not in board.uarts:
        return f"uses UART {uart}; the board {board.id} has {', '.join(map(str, board.uarts))} for probes"
    return None


def _battery_fault(slot: Slot, board: BoardType) -> str | None:
    divider_milli = slot.options.get("divider_milli")
    if _interface(slot).id != BATTERY or divider_milli == board.battery.divider_milli:
        return None
    return (
        f"has divider_milli = {divider_milli}, but the resistors of the board {board.id} make "
        f"{board.battery.divider_milli}"
    )


def _interface(slot: Slot) -> Interface:
    return load_interface(_sensor_type(slot).interface)


def _sensor_type(slot: Slot) -> SensorType:
    from hardware.catalogue import load_sensor_type

    return load_sensor_type(slot.sensor_type)
