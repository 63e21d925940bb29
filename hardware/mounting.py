"""Where a node's holes go: in the soil for its probes, in its box for their leads.

Boxes (`enclosures/*.toml`: the face that looks down, which glands fit it) and glands (`glands/*.toml`) are data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hardware import data_files
from hardware.catalogue import NodeModel, Slot
from hardware.connections import sensor_type_of
from hardware.data_files import CatalogueError
from hardware.parts import Part, read_parts
from hardware.strict_toml import StrictTable

_MM_PER_CM = 10


@dataclass(frozen=True)
class Gland:
    """A cable gland: its hole, the leads that it clamps, and the least distance between two centres."""

    id: str
    title: str
    hole_mm: float
    clamps_from_mm: float
    clamps_to_mm: float
    spacing_mm: float
    parts: tuple[Part, ...]
    source: str
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class Enclosure:
    """A box. Its face that looks down takes the glands; `margin_mm` stays free at its left and right."""

    id: str
    title: str
    face_width_mm: float
    face_height_mm: float
    margin_mm: float
    glands: tuple[Gland, ...]
    parts: tuple[Part, ...]
    source: str
    assumed: tuple[str, ...]


@dataclass(frozen=True)
class GlandHole:
    """One hole in the box, its centre from the left edge and the middle line of the face."""

    slot: Slot
    gland: Gland
    x_mm: float
    y_mm: float


@dataclass(frozen=True)
class SoilHole:
    """One hole in the soil for the probes of some slots, side by side. `depth_mm`: from the surface to its bottom."""

    name: str
    slots: tuple[Slot, ...]
    diameter_mm: int
    depth_mm: int


def load_gland(gland_id: str) -> Gland:
    """The gland of this id. Raises CatalogueError when unknown or wrongly written."""
    return _load_gland(gland_id, data_files.folders())


def parse_gland(text: str, *, name: str) -> Gland:
    """A gland from TOML text; `name` is what an error calls the file."""
    table = StrictTable.from_toml(text, name, CatalogueError)
    gland = Gland(
        id=table.text("id"),
        title=table.text("title"),
        hole_mm=table.amount("hole_mm", above_zero=True),
        clamps_from_mm=table.amount("clamps_from_mm", above_zero=True),
        clamps_to_mm=table.amount("clamps_to_mm", above_zero=True),
        spacing_mm=table.amount("spacing_mm", above_zero=True),
        parts=read_parts(table, at_least=1),
        source=table.text("source"),
        assumed=table.paths("assumed"),
    )
    table.finish()
    return gland


def load_enclosure(enclosure_id: str) -> Enclosure:
    """The box of this id. Raises CatalogueError when unknown or wrongly written."""
    return _load(enclosure_id, data_files.folders())


def parse_enclosure(text: str, *, name: str) -> Enclosure:
    """A box from TOML text; `name` is what an error calls the file."""
    table = StrictTable.from_toml(text, name, CatalogueError)
    enclosure = Enclosure(
        id=table.text("id"),
        title=table.text("title"),
        face_width_mm=table.amount("face_width_mm", above_zero=True),
        face_height_mm=table.amount("face_height_mm", above_zero=True),
        margin_mm=table.amount("margin_mm"),
        glands=tuple(load_gland(gland_id) for gland_id in table.texts("glands")),
        parts=read_parts(table, at_least=1),
        source=table.text("source"),
        assumed=table.paths("assumed"),
    )
    table.finish()
    return enclosure


def gland_of_slot(enclosure: Enclosure, slot: Slot) -> Gland | None:
    """The smallest gland of the box that clamps the slot's lead; None for a slot without a lead.

    Raises:
        CatalogueError: no gland of this box clamps it.
    """
    lead_mm = sensor_type_of(slot).mounting.cable_mm
    if not lead_mm:
        return None
    for gland in sorted(enclosure.glands, key=lambda one: one.hole_mm):
        if gland.clamps_from_mm <= lead_mm <= gland.clamps_to_mm:
            return gland
    raise CatalogueError(
        f"Slot {slot.id}: no gland of the box {enclosure.id} clamps a lead of {lead_mm:g} mm."
    )


def gland_holes(model: NodeModel) -> tuple[GlandHole, ...]:
    """The holes for the leads, in the order of the slots, in as many rows as they need, each row in the middle.

    Raises:
        CatalogueError: they do not fit the face.
    """
    enclosure = load_enclosure(model.enclosure)
    leads = [
        (slot, gland)
        for slot in model.slots
        if (gland := gland_of_slot(enclosure, slot)) is not None
    ]
    if not leads:
        return ()
    spacing = max(gland.spacing_mm for _, gland in leads)
    per_row = int((enclosure.face_width_mm - 2 * enclosure.margin_mm) // spacing) + 1
    rows = [leads[at : at + per_row] for at in range(0, len(leads), per_row)]
    if len(rows) * spacing > enclosure.face_height_mm:
        raise CatalogueError(
            f"Node model {model.id}: {len(leads)} leads do not fit the box {enclosure.id}."
        )
    holes = []
    for row_number, row in enumerate(rows):
        y_mm = (row_number - (len(rows) - 1) / 2) * spacing
        left_mm = (enclosure.face_width_mm - (len(row) - 1) * spacing) / 2
        holes += [
            GlandHole(slot, gland, left_mm + at * spacing, y_mm)
            for at, (slot, gland) in enumerate(row)
        ]
    return tuple(holes)


def soil_holes(model: NodeModel) -> tuple[SoilHole, ...]:
    """The holes in the soil, shallow ones first; a probe's middle lies at its slot's depth.

    Raises:
        CatalogueError: probes at different depths share a hole.
    """
    groups: dict[str, list[Slot]] = {}
    for slot in model.slots:
        if sensor_type_of(slot).mounting.place == "soil":
            groups.setdefault(slot.hole, []).append(slot)
    holes = [_soil_hole(model, name, slots) for name, slots in groups.items()]
    return tuple(sorted(holes, key=lambda hole: hole.depth_mm))


def _soil_hole(model: NodeModel, name: str, slots: list[Slot]) -> SoilHole:
    if len({slot.depth_cm for slot in slots}) > 1:
        raise CatalogueError(
            f"Node model {model.id}: slots {', '.join(slot.id for slot in slots)} share the hole {name} but not the depth."
        )
    mountings = [sensor_type_of(slot).mounting for slot in slots]
    longest_mm = max(mounting.length_mm for mounting in mountings)
    return SoilHole(
        name=name,
        slots=tuple(slots),
        diameter_mm=sum(mounting.hole_mm for mounting in mountings),
        depth_mm=slots[0].depth_cm * _MM_PER_CM + (longest_mm + 1) // 2,
    )


@cache
def _load(enclosure_id: str, among: tuple[Path, ...]) -> Enclosure:
    text, name = data_files.read("enclosures", enclosure_id, among)
    enclosure = parse_enclosure(text, name=name)
    data_files.check_id(enclosure.id, enclosure_id, name)
    return enclosure


@cache
def _load_gland(gland_id: str, among: tuple[Path, ...]) -> Gland:
    text, name = data_files.read("glands", gland_id, among)
    gland = parse_gland(text, name=name)
    data_files.check_id(gland.id, gland_id, name)
    return gland
