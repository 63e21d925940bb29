"""The wiring diagram of a node model as SVG: board pins at the left, circuits in the middle, probes at the right.

One block per circuit, so that no lines cross: what comes from the board, what is soldered between, which wire of the
probe goes to which terminal. Supplies and ground are named at each end instead of drawn through the sheet. Made from
the same connections as the parts list (`connections.py`); nothing here knows a probe or a board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hardware.assumptions import assumptions
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
    rail_of,
    sensor_type_of,
    supply_circuits,
    supply_of,
)
from hardware.parts import Part
from hardware.svg import Drawing, wrap

_WIDTH = 1160
_ROW, _GAP = 26, 30
_PIN_X, _PIN_WIDTH = 24, 150
_BOX_X, _BOX_WIDTH = 300, 440
_PROBE_X, _PROBE_WIDTH = 930, 206
_NOTE_X, _NOTE_WIDTH = 425, 190
_SIZE, _SMALL = 12, 10.5
_NOTE_ROW = 14

_BOARD_FILL, _CIRCUIT_FILL, _PROBE_FILL, _RAIL_FILL = "#e8eef7", "#f6f2e4", "#e9f3ea", "#f7e3e3"
_PIN_LINE = "#49618a"

# What cable makers call their insulation, as a screen shows it; an unknown name is drawn grey.
_COLOURS = {
    "black": "#1a1a1a", "blue": "#1f5fbf", "brown": "#7a4a21", "green": "#2b8a3e", "grey": "#888888", "orange": "#e8760c",
    "pink": "#e58fb4", "red": "#c92a2a", "violet": "#7048a8", "white": "#ffffff", "yellow": "#f2c200", "bare": "#b8b8b8",
}  # fmt: skip
_UNKNOWN_COLOUR = "#888888"


@dataclass(frozen=True)
class _Left:
    """Something that comes from the board's side: a pin, or a rail's name when `gpio` is None."""

    label: str
    gpio: int | None
    leads_to: str


@dataclass(frozen=True)
class _Right:
    """A terminal at the circuit's right, with the wire that goes to it (None: a rail that leaves here)."""

    terminal: str
    wire: Wire | None


@dataclass(frozen=True)
class _Probe:
    """A box at the right, with its terminals."""

    title: Sequence[str]
    rights: Sequence[_Right]


@dataclass(frozen=True)
class _Block:
    """One circuit with everything at its left and right."""

    title: str
    lefts: Sequence[_Left]
    notes: Sequence[str]
    probes: Sequence[_Probe]


def wiring_diagram(model: NodeModel, board: BoardType) -> str:
    """The diagram of one node as an SVG document."""
    drawing = Drawing()
    heading = f"Wiring {model.id}: {model.title}"
    drawing.text(_PIN_X, 34, heading, size=20, bold=True)
    drawing.text(_PIN_X, 56, f"Board: {board.manufacturer} {board.title}", size=_SIZE)
    y = 66.0
    notes = [note for note in (board.note, _assumed_colours(model, board)) if note]
    for line in (line for note in notes for line in wrap(note, _WIDTH - 2 * _PIN_X, _SMALL)):
        y += _NOTE_ROW
        drawing.text(_PIN_X, y, line, size=_SMALL, fill="#555")
    y += 2.4 * _ROW
    for x, width, column in (
        (_PIN_X, _PIN_WIDTH, "board"),
        (_BOX_X, _BOX_WIDTH, "circuit, clamps"),
        (_PROBE_X, _PROBE_WIDTH, "probe"),
    ):
        drawing.text(x + width / 2, y - 24, column, size=_SIZE, anchor="middle", fill="#555")
    for block in _blocks(model, board):
        y = _draw(drawing, block, y) + _GAP
    return drawing.render(_WIDTH, y, title=heading)


def _assumed_colours(model: NodeModel, board: BoardType) -> str:
    """Which probes' wire colours nobody has stated, as a sentence; empty when all are."""
    found = assumptions(model, board, "wiring")
    slots = [slot for slot in model.slots if f"sensors/{slot.sensor_type}" in found]
    if not slots:
        return ""
    return (
        f"Assumed, not stated by the maker: the wire colours of {_names(slots)}. Compare with the sheet that came with "
        "the probe before you switch on."
    )


def _blocks(model: NodeModel, board: BoardType) -> list[_Block]:
    supplies = [_supply_block(one, board) for one in supply_circuits(model) if one.supply.parts]
    circuits = interface_circuits(model)
    return [
        *supplies,
        *(_interface_block(one, board) for one in circuits if one.interface.id != BATTERY),
        *(_battery_block(one, model, board) for one in circuits if one.interface.id == BATTERY),
    ]


def _supply_block(circuit: SupplyCircuit, board: BoardType) -> _Block:
    supply = circuit.supply
    source = BOARD_SUPPLY if supply.source_of_power == "board" else "battery +"
    lefts = [_Left(source, None, "in"), _Left(GROUND, None, GROUND)]
    if circuit.gate is not None:
        lefts.insert(0, _Left(board.pin_name(circuit.gate), circuit.gate, "ON"))
    return _Block(
        title=f"Supply {supply.title}, for {_names(circuit.slots)}",
        lefts=lefts,
        notes=_notes(supply.parts),
        probes=[_Probe([], [_Right(rail_of(supply), None)])],
    )


def _interface_block(circuit: InterfaceCircuit, board: BoardType) -> _Block:
    interface = circuit.interface
    lefts = [
        _Left(board.pin_name(gpio), gpio, role.leads_to)
        for name, gpio in circuit.pins
        if (role := interface.pin(name)) is not None
    ]
    clamps = [right.terminal for slot in circuit.slots for right in _probe(slot).rights]
    own = [terminal.id for terminal in interface.terminals]
    rails = dict.fromkeys([*interface.rails, *(clamp for clamp in clamps if clamp not in own)])
    feeds = _feeding_pins(circuit.slots)
    for rail in sorted(rails, key=lambda rail: rail == GROUND):
        pins = feeds.get(rail, ())
        lefts += [_Left(board.pin_name(gpio), gpio, rail) for gpio in pins] or [
            _Left(rail, None, rail)
        ]
    note = [interface.note] if interface.note else []
    return _Block(
        title=f"{interface.title}: {_names(circuit.slots)}",
        lefts=lefts,
        notes=[*_notes(interface.parts), *note],
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


def _battery_block(circuit: InterfaceCircuit, model: NodeModel, board: BoardType) -> _Block:
    battery = model.battery
    lefts = [_Left(board.pin_name(gpio), gpio, "divider") for _, gpio in circuit.pins]
    lefts += [_Left("battery socket +", None, "battery +"), _Left(GROUND, None, "battery −")]
    cells = f"{battery.cells} × {battery.cell_mah} mAh"
    return _Block(
        title=f"{circuit.interface.title}: {_names(circuit.slots)}",
        lefts=lefts,
        notes=_notes(board.battery.parts),
        probes=[
            _Probe(
                ["battery", f"{cells}, {battery.voltage_v:g} V"],
                [
                    _Right("battery +", Wire("red", "+", "")),
                    _Right("battery −", Wire("black", "−", "")),
                ],
            )
        ],
    )


def _probe(slot: Slot) -> _Probe:
    sensor_type = sensor_type_of(slot)
    title = [f"{slot.id}, {slot.depth_cm} cm" if slot.depth_cm else slot.id]
    title += wrap(sensor_type.title, _PROBE_WIDTH - 60, _SMALL)
    return _Probe(title, [_Right(clamp_of(slot, wire), wire) for wire in sensor_type.wires])


def _notes(parts: Sequence[Part]) -> list[str]:
    return [
        f"{part.quantity} × {part.number}, {part.title}: {part.place}"
        if part.place
        else f"{part.quantity} × {part.number}, {part.title}"
        for part in parts
    ]


def _names(slots: Sequence[Slot]) -> str:
    return ", ".join(slot.id for slot in slots)


# --- drawing ---


def _draw(drawing: Drawing, block: _Block, top: float) -> float:
    """Draw one block below `top`; returns where it ends."""
    notes = [line for note in block.notes for line in (*wrap(note, _NOTE_WIDTH, _SMALL), "")][:-1]
    heights = [max(len(probe.rights), 1) * _ROW for probe in block.probes]
    right_height = sum(_probe_height(probe) for probe in block.probes)
    height = (
        max(len(block.lefts) * _ROW, len(notes) * _NOTE_ROW + 12, right_height, sum(heights)) + 12
    )
    drawing.text(_BOX_X, top, block.title, size=_SIZE, bold=True)
    top += 8
    drawing.rect(_BOX_X, top, _BOX_WIDTH, height, fill=_CIRCUIT_FILL, radius=6)
    _draw_lefts(drawing, block.lefts, top)
    for number, line in enumerate(notes):
        drawing.text(_NOTE_X, top + 20 + number * _NOTE_ROW, line, size=_SMALL, fill="#444")
    y = top
    for probe in block.probes:
        _draw_probe(drawing, probe, y)
        y += _probe_height(probe)
    return top + height


def _probe_height(probe: _Probe) -> float:
    return max(len(probe.rights) * _ROW, len(probe.title) * _NOTE_ROW) + 16


def _draw_lefts(drawing: Drawing, lefts: Sequence[_Left], top: float) -> None:
    for number, left in enumerate(lefts):
        y = top + 18 + number * _ROW
        is_pin = left.gpio is not None
        fill, stroke = (_BOARD_FILL, _PIN_LINE) if is_pin else (_RAIL_FILL, "#a33")
        drawing.rect(
            _PIN_X, y - 10, _PIN_WIDTH, 20, fill=fill, stroke=stroke, radius=3 if is_pin else 10
        )
        drawing.text(_PIN_X + _PIN_WIDTH / 2, y + 4, left.label, size=_SIZE, anchor="middle")
        drawing.line(_PIN_X + _PIN_WIDTH, y, _BOX_X, y, stroke=stroke, line=1.6)
        drawing.circle(_BOX_X, y, 3, fill=stroke)
        for line_number, line in enumerate(wrap(left.leads_to, _NOTE_X - _BOX_X - 16, _SMALL)[:2]):
            drawing.text(_BOX_X + 10, y + 4 + line_number * 12, line, size=_SMALL)


def _draw_probe(drawing: Drawing, probe: _Probe, top: float) -> None:
    if probe.title:
        height = _probe_height(probe) - 8
        drawing.rect(_PROBE_X, top + 4, _PROBE_WIDTH, height, fill=_PROBE_FILL, radius=6)
        for number, line in enumerate(probe.title):
            drawing.text(
                _PROBE_X + _PROBE_WIDTH - 8,
                top + 20 + number * _NOTE_ROW,
                line,
                size=_SIZE if number == 0 else _SMALL,
                anchor="end",
                bold=number == 0,
            )
    for number, right in enumerate(probe.rights):
        _draw_right(drawing, right, top + 20 + number * _ROW)


def _draw_right(drawing: Drawing, right: _Right, y: float) -> None:
    edge = _BOX_X + _BOX_WIDTH
    drawing.text(edge - 10, y + 4, right.terminal, size=_SMALL, anchor="end")
    drawing.circle(edge, y, 3, fill="#333")
    if right.wire is None:
        return
    colour = _COLOURS.get(right.wire.colour, _UNKNOWN_COLOUR)
    drawing.line(edge, y, _PROBE_X, y, stroke="#333", line=5)
    drawing.line(edge, y, _PROBE_X, y, stroke=colour, line=3.4)
    drawing.text((edge + _PROBE_X) / 2, y - 6, right.wire.colour, size=_SMALL, anchor="middle")
    drawing.text(_PROBE_X + 8, y + 4, right.wire.signal, size=_SMALL)
