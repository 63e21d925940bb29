"""What of a node nobody has stated: the key `assumed` of every data file that it is built from, by what it is for.

Every data file names its `source`, and in `assumed` the paths of those figures that the source does not cover: our own
estimate, or what is usual. Price classes are estimates everywhere and are not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from hardware.boards import BoardType
from hardware.catalogue import NodeModel
from hardware.connections import interface_circuits, panel_circuits, sensor_type_of, supply_circuits
from hardware.mounting import gland_of_slot, load_enclosure

Use = Literal["wiring", "mounting", "parts", "energy"]

# Which keys of a data file a purpose rests on, by how their path begins.
_KEYS: dict[Use, tuple[str, ...]] = {
    "wiring": ("wires", "note"),
    "mounting": ("mounting", "margin_mm", "hole_mm", "spacing_mm"),
    "parts": ("parts",),
    "energy": (
        "current", "time", "warm_up_ms", "stabilise_ms", "measure_ms",
        "active_ma", "asleep_ua", "efficiency", "battery",
    ),
}  # fmt: skip


def assumptions(model: NodeModel, board: BoardType, use: Use) -> dict[str, tuple[str, ...]]:
    """Paths by file (`sensors/ds18b20`), of those files that the node is built from and have any for this use."""
    found: dict[str, tuple[str, ...]] = {}
    for file, assumed in _files(model, board):
        paths = tuple(path for path in assumed if _begins_with(path, _KEYS[use]))
        if paths:
            found[file] = paths
    return found


def in_words(found: dict[str, tuple[str, ...]]) -> str:
    """One line for a person, empty when nothing is assumed: `assumed: sensors/y504 wires.colour; …`."""
    files = (f"{file} {', '.join(paths)}" for file, paths in found.items())
    return f"assumed: {'; '.join(files)}" if found else ""


def _begins_with(path: str, keys: tuple[str, ...]) -> bool:
    return path.replace("[", ".").split(".")[0] in keys


def _files(model: NodeModel, board: BoardType) -> Iterator[tuple[str, tuple[str, ...]]]:
    enclosure = load_enclosure(model.enclosure)
    yield f"node_models/{model.id}", model.assumed
    yield f"boards/{board.id}", board.assumed
    for supply in supply_circuits(model):
        yield f"supplies/{supply.supply.id}", supply.supply.assumed
    for circuit in (*interface_circuits(model), *panel_circuits(model)):
        yield f"interfaces/{circuit.interface.id}", circuit.interface.assumed
    for slot in model.slots:
        yield f"sensors/{slot.sensor_type}", sensor_type_of(slot).assumed
    yield f"enclosures/{enclosure.id}", enclosure.assumed
    for slot in model.slots:
        gland = gland_of_slot(enclosure, slot)
        if gland is not None:
            yield f"glands/{gland.id}", gland.assumed
