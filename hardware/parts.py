"""What has to be bought: one part as a data file names it. The list for a node: `parts_list.py`."""

from __future__ import annotations

from dataclasses import dataclass

from hardware.data_files import CatalogueError
from hardware.strict_toml import StrictTable

# Orders of magnitude for a single piece, for planning; not an offer (our estimate, 2026).
PRICE_CLASSES = {
    "a": "up to 2 €",
    "b": "2 to 10 €",
    "c": "10 to 50 €",
    "d": "50 to 200 €",
    "e": "over 200 €",
}


@dataclass(frozen=True)
class Part:
    """`number` is the manufacturer's own; `place` says where it goes, empty when the title does."""

    title: str
    manufacturer: str
    number: str
    quantity: int
    price_class: str
    place: str


def read_parts(table: StrictTable, *, at_least: int = 0) -> tuple[Part, ...]:
    """The array `parts` of a data file. Raises CatalogueError for a quantity or price class that is none."""
    return table.rows("parts", _part, at_least=at_least)


def _part(table: StrictTable) -> Part:
    part = Part(
        title=table.text("title"),
        manufacturer=table.text("manufacturer"),
        number=table.text("number"),
        quantity=table.whole("quantity"),
        price_class=table.text("price_class"),
        place=table.text("place", ""),
    )
    if part.quantity < 1:
        raise CatalogueError(f"{table.where}: quantity must be 1 or more.")
    if part.price_class not in PRICE_CLASSES:
        raise CatalogueError(
            f"{table.where}: price_class must be one of {', '.join(PRICE_CLASSES)}, not {part.price_class}."
        )
    return part
