"""A node's wiring as a harness in the language of WireViz (YAML), for those who draw and change theirs with it.

WireViz is not needed here and nothing of it is used; its words are those of its own syntax page (docs/syntax.md of WireViz
0.4). Made of the same blocks as our diagram. Pins and wires are referred to by number, because names such as GND come
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import yaml

from hardware.assumptions import assumptions, in_words
from hardware.boards import BoardType
from hardware.catalogue import NodeModel
from hardware.circuit_blocks import BATTERY_PLUS, Block, Left, Probe, Right, blocks_of
from hardware.connections import sensor_type_of
from hardware.parts import Part

# WireViz's letters (after IEC 60757) for what cable makers call their insulation; bare wire is copper. Others go without.
_COLOURS = {
    "black": "BK", "blue": "BU", "brown": "BN", "green": "GN", "grey": "GY", "orange": "OG", "pink": "PK", "red": "RD",
    "violet": "VT", "white": "WH", "yellow": "YE", "turquoise": "TQ", "beige": "BG", "bare": "CU",
}  # fmt: skip
_BOARD = "board"


def wireviz_harness(model: NodeModel, board: BoardType) -> str:
    """The harness of one node as YAML: board, circuits and probes are connectors, what runs between them cables.

    Its bill of materials, as WireViz makes it, is our parts list without the box and its glands.
    """
    notes = [board.note, in_words(assumptions(model, board, "wiring"))]
    content: dict[str, Any] = {
        "metadata": {
            "title": _words(f"Wiring {model.id}: {model.title}"),
            "notes": _words("\n".join(filter(None, notes))),
        },
        "connectors": {},
        "cables": {},
        "connections": [],
    }
    blocks = _named(blocks_of(model, board))
    pins = _board_pins(blocks)
    title = f"{board.manufacturer} {board.title}"
    content["connectors"][_BOARD] = _connector(title, pins, board.parts)
    for name, block in blocks.items():
        content["connectors"][name] = _circuit(block)
        _connect_left(content, name, blocks, pins)
        _connect_right(content, name, block, model)
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    return text


def _named(blocks: Sequence[Block]) -> dict[str, Block]:
    """The blocks by the names of their connectors."""
    return {
        f"{'supply' if block.is_supply else 'circuit'}-{number}": block
        for number, block in enumerate(blocks, start=1)
    }


def _connect_left(
    content: dict[str, Any], name: str, blocks: dict[str, Block], board_pins: Sequence[str]
) -> None:
    """What comes from the board, from a supply or from the battery: one bundle from each."""
    block = blocks[name]
    sources: dict[str, list[Left]] = {}
    for left in block.lefts:
        sources.setdefault(_source(left, block, blocks), []).append(left)
    for source, lefts in sources.items():
        cable = f"{name}-from-{source}"
        theirs = [
            board_pins.index(left.label) + 1
            if source == _BOARD
            else _clamp_number(left.label, blocks[source])
            for left in lefts
        ]
        ours = [block.lefts.index(left) + 1 for left in lefts]
        content["cables"][cable] = {
            "category": "bundle",
            "wirecount": len(lefts),
            "ignore_in_bom": True,
        }
        content["connections"].append([{source: theirs}, {cable: _count(lefts)}, {name: ours}])


def _connect_right(content: dict[str, Any], name: str, block: Block, model: NodeModel) -> None:
    """The probes and their leads; what has none is among the circuit's parts."""
    clamp = len(block.lefts)
    for probe in block.probes:
        ours = [clamp + number for number in _count(probe.rights)]
        clamp += len(probe.rights)
        if not probe.name or not probe.rights:
            continue
        end, lead = _end_and_lead(probe)
        content["connectors"][end], content["cables"][lead] = _probe(probe, model), _lead(probe)
        wires = _count(probe.rights)
        content["connections"].append([{name: ours}, {lead: wires}, {end: wires}])


def _words(text: str) -> str:
    """Text as WireViz takes it, which is HTML."""
    return escape(text, quote=False)


def _count(things: Sequence[object]) -> list[int]:
    return list(range(1, len(things) + 1))


def _connector(title: str, pins: Sequence[str], parts: Sequence[Part]) -> dict[str, Any]:
    connector: dict[str, Any] = {
        "type": _words(title),
        "pinlabels": [_words(pin) for pin in pins],
        "ignore_in_bom": True,
    }
    if parts:
        connector["additional_components"] = [_component(part) for part in parts]
    return connector


def _board_pins(blocks: dict[str, Block]) -> list[str]:
    """Every pin and rail of the board that something is wired to."""
    labels = (
        left.label
        for block in blocks.values()
        for left in block.lefts
        if _source(left, block, blocks) == _BOARD
    )
    return list(dict.fromkeys(labels))


def _outgoing(block: Block) -> list[Right]:
    """Clamps of the block that other blocks are fed from."""
    rights = [right for probe in block.probes for right in probe.rights]
    return [right for right in rights if block.is_supply or right.clamp == BATTERY_PLUS]


def _source(left: Left, block: Block, blocks: dict[str, Block]) -> str:
    """The connector that it comes from: the supply of one of the block's own slots, the battery, or the board."""
    if left.gpio is not None:
        return _BOARD
    ours = {slot.id for slot in block.slots}
    for name, other in blocks.items():
        may_feed = not other.is_supply or not ours.isdisjoint(slot.id for slot in other.slots)
        if other is not block and may_feed and _clamp_number(left.label, other):
            return name
    return _BOARD


def _clamp_number(rail: str, block: Block) -> int:
    """The pin of the block's connector that the rail leaves at; 0 when it does not leave here."""
    clamps = [right for probe in block.probes for right in probe.rights]
    for number, right in enumerate(clamps, start=len(block.lefts) + 1):
        if right.clamp == rail and right in _outgoing(block):
            return number
    return 0


def _circuit(block: Block) -> dict[str, Any]:
    pins = [left.leads_to for left in block.lefts]
    pins += [right.clamp for probe in block.probes for right in probe.rights]
    inside = [probe.slot for probe in block.probes if probe.slot and not probe.rights]
    parts = [*block.parts, *(part for slot in inside for part in sensor_type_of(slot).parts)]
    note = {"notes": _words(block.note)} if block.note else {}
    return {**_connector(block.title, pins, parts), **note}


def _component(part: Part) -> dict[str, Any]:
    return {
        "type": _words(f"{part.title}: {part.place}" if part.place else part.title),
        "qty": part.quantity,
        "manufacturer": _words(part.manufacturer),
        "mpn": _words(part.number),
    }


def _end_and_lead(probe: Probe) -> tuple[str, str]:
    """Names of the probe's connector and of its lead."""
    slot_id = probe.slot.id if probe.slot is not None else probe.name
    kind = "probe-" if probe.slot is not None else ""
    return f"{kind}{slot_id}", f"lead-{slot_id}"


def _probe(probe: Probe, model: NodeModel) -> dict[str, Any]:
    signals = [right.wire.signal if right.wire else right.clamp for right in probe.rights]
    parts = model.parts if probe.slot is None else sensor_type_of(probe.slot).parts
    return {**_connector(probe.title, signals, parts), "notes": _words(probe.name)}


def _lead(probe: Probe) -> dict[str, Any]:
    wires = [right.wire for right in probe.rights if right.wire is not None]
    lead: dict[str, Any] = {
        "wirecount": len(wires),
        "colors": [_COLOURS.get(wire.colour, "") for wire in wires],
        "wirelabels": [_words(f"{wire.colour}: {wire.signal}") for wire in wires],
        "ignore_in_bom": True,
    }
    if probe.slot is not None:
        lead["length"] = sensor_type_of(probe.slot).mounting.cable_m
    return lead
