"""The circuits that a node model needs between its board and its probes: which, how many, on which pins.

Everything that is drawn, bought or fed comes from here, so that diagram, parts list and energy estimate cannot
disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hardware.catalogue import NodeModel, SensorType, Slot, Wire, load_sensor_type
from hardware.circuits import (
    GROUND_TERMINAL,
    PANEL,
    SUPPLY_TERMINAL,
    Interface,
    Supply,
    load_interface,
    load_supply,
)

# What the rails are called at the clamps.
GROUND, BOARD_SUPPLY = "GND", "3V3"


@dataclass(frozen=True)
class InterfaceCircuit:
    """One interface as built; several slots hang on it when it is a bus. `pins`: (role, GPIO)."""

    interface: Interface
    pins: tuple[tuple[str, int], ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class SupplyCircuit:
    """One supply as built, with the GPIO that switches it (None: always on) and the slots that it feeds."""

    supply: Supply
    gate: int | None
    slots: tuple[Slot, ...]


def sensor_type_of(slot: Slot) -> SensorType:
    """What is mounted in a slot."""
    return load_sensor_type(slot.sensor_type)


def interface_circuits(model: NodeModel) -> tuple[InterfaceCircuit, ...]:
    """In the order of the slots; probes that share a bus share one circuit."""
    groups: dict[object, list[Slot]] = {}
    for slot in model.slots:
        groups.setdefault(_bus_key(slot), []).append(slot)
    return tuple(_interface_circuit(slots) for slots in groups.values())


def panel_circuits(model: NodeModel) -> tuple[InterfaceCircuit, ...]:
    """Lamp and button, as far as the model has them: circuits without a probe."""
    return tuple(
        InterfaceCircuit(load_interface(PANEL[key]), ((key, gpio),), ())
        for key, gpio in model.panel.items()
    )


def supply_circuits(model: NodeModel) -> tuple[SupplyCircuit, ...]:
    """In the order of the slots; one per supply and pin that switches it."""
    groups: dict[tuple[str, int | None], list[Slot]] = {}
    for slot in model.slots:
        supply = supply_of(slot)
        groups.setdefault((supply.id, slot.pins.get(supply.gate)), []).append(slot)
    return tuple(
        SupplyCircuit(load_supply(supply_id), gate, tuple(slots))
        for (supply_id, gate), slots in groups.items()
    )


def supply_of(slot: Slot) -> Supply:
    """What feeds the slot's probe."""
    return load_supply(sensor_type_of(slot).supply.rail)


def interface_of(slot: Slot) -> Interface:
    """How the slot's probe is spoken to."""
    return load_interface(sensor_type_of(slot).interface)


def rail_of(supply: Supply) -> str:
    """What the supply's clamp is called."""
    is_the_boards = supply.source_of_power == "board" and not supply.gate
    return BOARD_SUPPLY if is_the_boards else supply.title


def clamp_of(slot: Slot, wire: Wire) -> str:
    """Which clamp a wire of the slot's probe goes to."""
    if wire.to == SUPPLY_TERMINAL:
        return rail_of(supply_of(slot))
    return GROUND if wire.to == GROUND_TERMINAL else wire.to


def _bus_key(slot: Slot) -> object:
    interface = interface_of(slot)
    shared = tuple(
        (pin.role, slot.pins[pin.role])
        for pin in interface.pins
        if pin.is_shared and pin.role in slot.pins
    )
    return (interface.id, shared) if shared else slot.id


def _interface_circuit(slots: list[Slot]) -> InterfaceCircuit:
    interface = interface_of(slots[0])
    pins = _unique(
        (pin.role, slot.pins[pin.role])
        for pin in interface.pins
        for slot in slots
        if pin.role in slot.pins
    )
    return InterfaceCircuit(interface, pins, tuple(slots))


def _unique(pairs: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple(dict.fromkeys(pairs))
