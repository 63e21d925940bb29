"""The parts of one node: what its board, circuits, probes, box and model name, with quantities added up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hardware.boards import BoardType
from hardware.catalogue import NodeModel
from hardware.circuits import BATTERY
from hardware.connections import (
    interface_circuits,
    interface_of,
    panel_circuits,
    sensor_type_of,
    supply_circuits,
)
from hardware.mounting import gland_of_slot, load_enclosure
from hardware.parts import Part


@dataclass(frozen=True)
class Line:
    """One line to order. `used_for`: which slots or units the pieces are for, and where in them they go."""

    manufacturer: str
    number: str
    title: str
    quantity: int
    price_class: str
    used_for: tuple[str, ...]


def parts_list(model: NodeModel, board: BoardType) -> tuple[Line, ...]:
    """Every part of one node, each once: board first, then what the slots need, then lamp and button, box and battery."""
    found: dict[tuple[str, str], list[tuple[Part, str]]] = {}
    for part, user in _parts(model, board):
        found.setdefault((part.manufacturer, part.number), []).append((part, user))
    return tuple(_line(pieces) for pieces in found.values())


def _line(pieces: list[tuple[Part, str]]) -> Line:
    part = pieces[0][0]
    users: dict[str, list[str]] = {}
    for one, user in pieces:
        users.setdefault(one.place, []).append(user)
    uses = [
        f"{', '.join(names)}: {place}" if place else ", ".join(names)
        for place, names in users.items()
    ]
    return Line(
        manufacturer=part.manufacturer,
        number=part.number,
        title=part.title,
        quantity=sum(one.quantity for one, _ in pieces),
        price_class=part.price_class,
        used_for=tuple(uses),
    )


def _parts(model: NodeModel, board: BoardType) -> Iterator[tuple[Part, str]]:
    """Each part with what it is for."""
    yield from _for("board", board.parts)
    for supply in supply_circuits(model):
        yield from _for(supply.supply.title, supply.supply.parts)
    for circuit in interface_circuits(model):
        names = ", ".join(slot.id for slot in circuit.slots)
        yield from _for(names, circuit.interface.parts)
    for slot in model.slots:
        yield from _for(slot.id, sensor_type_of(slot).parts)
        if interface_of(slot).id == BATTERY:
            yield from _for(slot.id, board.battery.parts)
    for circuit in panel_circuits(model):
        yield from _for(circuit.interface.id, circuit.interface.parts)
    enclosure = load_enclosure(model.enclosure)
    yield from _for("box", enclosure.parts)
    for slot in model.slots:
        gland = gland_of_slot(enclosure, slot)
        if gland is not None:
            yield from _for(f"lead of {slot.id}", gland.parts)
    yield from _for("battery", model.parts)


def _for(user: str, parts: Iterable[Part]) -> Iterator[tuple[Part, str]]:
    return ((part, user) for part in parts)
