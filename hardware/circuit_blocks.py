"""A node's wiring as blocks: per circuit what comes from the board, what is soldered between, which wire goes where.

The diagram (`wiring_diagram.py`) and the harness for WireViz (`wireviz_harness.py`) are made of these, so that they
cannot disagree. Nothing here knows a probe, a board or a way of drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hardware.boards import BoardType
from hardware.catalogue import NodeModel, Slot, Wire
from hardware.circuits import BATTERY
from hardware.connections import (
    BOARD_SUPPLY,
    GROUND,
    InterfaceCircuit,
    SupplyCircuit,
    clamp_of,
    interface_circuits,
    panel_circuits,
    rail_of,
    sensor_type_of,
    supply_circuits,
    supply_of,
)
from hardware.parts import Part

BATTERY_PLUS = "battery +"


@dataclass(frozen=True)
class Left:
    """Something that comes from the board's side: a pin, or a rail's name when `gpio` is None."""

    label: str
    gpio: int | None
    leads_to: str


@dataclass(frozen=True)
class Right:
    """A clamp of the circuit, with the wire that goes to it (None: a rail that leaves here)."""

    clamp: str
    wire: Wire | None


@dataclass(frozen=True)
class Probe:
    """What hangs on a circuit. `slot` is None for the battery and for a supply's outgoing rail (no `name` either)."""

    name: str
    title: str
    rights: Sequence[Right]
    slot: Slot | None = None


@dataclass(frozen=True)
class Block:
    """One circuit with everything at its left and right. `is_supply`: its clamp is a rail that others are fed from."""

    title: str
    slots: Sequence[Slot]
    is_supply: bool
    lefts: Sequence[Left]
    parts: Sequence[Part]
    note: str
    probes: Sequence[Probe]


def blocks_of(model: NodeModel, board: BoardType) -> tuple[Block, ...]:
    """Supplies first; the battery and then lamp and button last."""
    circuits = interface_circuits(model)
    return (
        *(_supply_block(one, board) for one in supply_circuits(model) if one.supply.parts),
        *(_interface_block(one, board) for one in circuits if one.interface.id != BATTERY),
        *(_battery_block(one, model, board) for one in circuits if one.interface.id == BATTERY),
        *(_interface_block(one, board) for one in panel_circuits(model)),
    )


def names_of(slots: Sequence[Slot]) -> str:
    """The slots' ids in one line."""
    return ", ".join(slot.id for slot in slots)


def _supply_block(circuit: SupplyCircuit, board: BoardType) -> Block:
    supply = circuit.supply
    source = BOARD_SUPPLY if supply.source_of_power == "board" else BATTERY_PLUS
    lefts = [Left(source, None, "in"), Left(GROUND, None, GROUND)]
    if circuit.gate is not None:
        lefts.insert(0, Left(board.pin_name(circuit.gate), circuit.gate, "ON"))
    return Block(
        title=f"Supply {supply.title}, for {names_of(circuit.slots)}",
        slots=circuit.slots,
        is_supply=True,
        lefts=lefts,
        parts=supply.parts,
        note="",
        probes=[Probe("", "", [Right(rail_of(supply), None)])],
    )


def _interface_block(circuit: InterfaceCircuit, board: BoardType) -> Block:
    interface = circuit.interface
    lefts = [
        Left(board.pin_name(gpio), gpio, role.leads_to)
        for name, gpio in circuit.pins
        if (role := interface.pin(name)) is not None
    ]
    clamps = [right.clamp for slot in circuit.slots for right in _probe(slot).rights]
    own = [terminal.id for terminal in interface.terminals]
    rails = dict.fromkeys([*interface.rails, *(clamp for clamp in clamps if clamp not in own)])
    feeds = _feeding_pins(circuit.slots)
    for rail in sorted(rails, key=lambda rail: rail == GROUND):
        pins = feeds.get(rail, ())
        lefts += [Left(board.pin_name(gpio), gpio, rail) for gpio in pins] or [
            Left(rail, None, rail)
        ]
    return Block(
        title=": ".join(filter(None, (interface.title, names_of(circuit.slots)))),
        slots=circuit.slots,
        is_supply=False,
        lefts=lefts,
        parts=interface.parts,
        note=interface.note,
        probes=[_probe(slot) for slot in circuit.slots],
    )


def _feeding_pins(slots: Sequence[Slot]) -> dict[str, list[int]]:
    """Rails that are nothing but a pin, by name: they come straight from the board."""
    feeds: dict[str, list[int]] = {}
    for slot in slots:
        supply = supply_of(slot)
        if supply.gate and not supply.parts:
            pins = feeds.setdefault(rail_of(supply), [])
            pins += [slot.pins[supply.gate]] if slot.pins[supply.gate] not in pins else []
    return feeds


def _battery_block(circuit: InterfaceCircuit, model: NodeModel, board: BoardType) -> Block:
    battery = model.battery
    lefts = [Left(board.pin_name(gpio), gpio, "divider") for _, gpio in circuit.pins]
    lefts += [Left("battery socket +", None, BATTERY_PLUS), Left(GROUND, None, "battery −")]
    return Block(
        title=f"{circuit.interface.title}: {names_of(circuit.slots)}",
        slots=circuit.slots,
        is_supply=False,
        lefts=lefts,
        parts=board.battery.parts,
        note="",
        probes=[
            Probe(
                "battery",
                f"{battery.cells} × {battery.cell_mah} mAh, {battery.voltage_v:g} V",
                [
                    Right(BATTERY_PLUS, Wire("red", "+", "")),
                    Right("battery −", Wire("black", "−", "")),
                ],
            )
        ],
    )


def _probe(slot: Slot) -> Probe:
    sensor_type = sensor_type_of(slot)
    name = f"{slot.id}, {slot.depth_cm} cm" if slot.depth_cm else slot.id
    rights = [Right(clamp_of(slot, wire), wire) for wire in sensor_type.wires]
    return Probe(name, sensor_type.title, rights, slot)
