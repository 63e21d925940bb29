"""The sheet that goes to the tree or pond: what to drill where, how each probe is put in, in which order.

One self-contained HTML page that prints on A4 in black and white; drawings are in millimetres. The gland template is
1:1 and has a ruler, because printers shrink pages. What it says comes from the data files only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from hardware.assumptions import assumptions
from hardware.boards import BoardType
from hardware.catalogue import Mounting, NodeModel, Slot
from hardware.connections import sensor_type_of
from hardware.mounting import (
    Enclosure,
    GlandHole,
    SoilHole,
    gland_holes,
    load_enclosure,
    soil_holes,
)
from hardware.svg import Drawing, wrap

_MM_PER_CM = 10
_PAGE_MM = 184

_STYLE = """
@page { size: A4; margin: 12mm; }
body { font: 10pt/1.35 "DejaVu Sans", Verdana, Arial, sans-serif; color: #111; max-width: 186mm; margin: 6mm auto; }
h1 { font-size: 15pt; margin: 0 0 1mm; } h2 { font-size: 11.5pt; margin: 6mm 0 2mm; }
section { break-inside: avoid; } table { border-collapse: collapse; width: 100%; }
th, td { border: 0.2mm solid #888; padding: 0.8mm 1.5mm; text-align: left; vertical-align: top; font-size: 8.5pt; }
th { background: #eee; } ol { margin: 1mm 0; padding-left: 6mm; } li { margin: 0.6mm 0; }
p { margin: 1mm 0; } .small { font-size: 8pt; color: #444; } svg { display: block; margin: 1mm 0; }
@media screen { body { padding: 0 3mm; } .fits svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; } }
"""

# What a figure is called at the drill.
_FIGURES = {
    "cable_mm": "thickness of the lead",
    "cable_m": "length of the lead",
    "length_mm": "length of the probe",
    "hole_mm": "diameter of the hole",
    "margin_mm": "what stays free at the edges",
    "spacing_mm": "distance between two holes",
}


def mounting_sheet(model: NodeModel, board: BoardType) -> str:
    """The sheet of one node as an HTML document.

    Raises:
        CatalogueError: the leads do not fit the box, or probes that share a hole do not share a depth.
    """
    enclosure, holes, glands = (
        load_enclosure(model.enclosure),
        soil_holes(model),
        gland_holes(model),
    )
    heading = f"Mounting {model.id}: {model.title}"
    sections = [
        _soil_section(holes) if holes else "",
        _outside_section(model),
        _steps_section(model),
        _box_section(enclosure, glands),
        _assumed_line(model, board),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(heading)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(heading)}</h1>\n"
        f"<p>Board: {escape(board.manufacturer)} {escape(board.title)}. Box: {escape(enclosure.title)}.</p>\n"
        '<p class="small">Site ______________________ &nbsp; Node ______________ &nbsp; Mounted by ______________ '
        "&nbsp; Date ____________</p>\n"
        + "\n".join(filter(None, sections))
        + "\n</body>\n</html>\n"
    )


def _assumed_line(model: NodeModel, board: BoardType) -> str:
    files = [
        f"{file.split('/')[1]}: {', '.join(_FIGURES.get(path.split('.')[-1], path) for path in paths)}"
        for file, paths in assumptions(model, board, "mounting").items()
    ]
    if not files:
        return ""
    words = f"Assumed, so measure before you drill: {'; '.join(files)}."
    return f'<p class="small">{escape(words)}</p>'


def _section(title: str, *content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(content) + "\n</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return (
        '<div class="wide"><table>\n'
        + "\n".join([row(head, "th"), *(row(cells, "td") for cells in rows)])
        + "\n</table></div>"
    )


# --- in the soil ---


def _soil_section(holes: Sequence[SoilHole]) -> str:
    rows = [
        (
            hole.name,
            f"{hole.diameter_mm} mm",
            f"{hole.depth_mm / _MM_PER_CM:.1f} cm",
            ", ".join(_probe_words(slot) for slot in hole.slots),
            "; ".join(dict.fromkeys(_mounting(slot).orientation for slot in hole.slots)),
        )
        for hole in holes
    ]
    return _section(
        "Holes in the soil",
        "<p>Holes at least 20 cm apart, so that none drains into another. "
        "Ask for plans of pipes and cables before you drill.</p>",
        f'<div class="fits">{_soil_drawing(holes)}</div>',
        _table(("hole", "drill", "to depth", "probes", "how they stand"), rows),
    )


def _soil_drawing(holes: Sequence[SoilHole]) -> str:
    """The holes side by side, to scale in depth, wider than they are."""
    deepest_mm = max(hole.depth_mm for hole in holes)
    scale = 75 / deepest_mm
    drawing, surface = Drawing(), 12.0
    bottom = surface + deepest_mm * scale + 8
    drawing.rect(22, surface, _PAGE_MM - 24, bottom - surface, fill="#f2ece2", stroke="none")
    drawing.line(22, surface, _PAGE_MM - 2, surface, line=0.6)
    drawing.text(_PAGE_MM - 2, surface - 2, "surface", size=3, anchor="end")
    for cm in range(0, deepest_mm // _MM_PER_CM + 1, 10):
        y = surface + cm * _MM_PER_CM * scale
        drawing.line(19, y, 22, y, line=0.2)
        drawing.text(18, y + 1, f"{cm} cm", size=2.8, anchor="end")
    width = (_PAGE_MM - 30) / len(holes)
    for number, hole in enumerate(holes):
        _draw_hole(drawing, hole, 26 + number * width, surface, scale, width)
    return drawing.render(_PAGE_MM, bottom, title="Depths of the holes", unit="mm")


def _draw_hole(
    drawing: Drawing, hole: SoilHole, x: float, surface: float, scale: float, width: float
) -> None:
    floor = surface + hole.depth_mm * scale
    drawing.rect(x, surface, 9, floor - surface, fill="#ffffff", line=0.3)
    for number, slot in enumerate(hole.slots):
        mounting = _mounting(slot)
        middle = surface + slot.depth_cm * _MM_PER_CM * scale
        length = mounting.length_mm * scale
        centre = x + 9 * (number + 0.5) / len(hole.slots)
        drawing.rect(centre - 1.4, middle - length / 2, 2.8, length, fill="#b9d3bc", line=0.3)
        drawing.line(centre, surface - 3, centre, middle - length / 2, stroke="#2b6b36", line=0.5)
    texts = [
        f"Ø {hole.diameter_mm} mm, {hole.depth_mm / _MM_PER_CM:.1f} cm deep",
        *(f"{slot.id}: middle at {slot.depth_cm} cm" for slot in hole.slots),
    ]
    lines = [line for text in texts for line in wrap(text, width - 13, 2.8)]
    # Beside the probes; the shallowest hole's words begin at the surface.
    first = max(surface + 4, floor - len(lines) * 3.6)
    for number, line in enumerate(lines):
        drawing.text(x + 11, first + number * 3.6, line, size=2.8)


# --- in the water and above it ---


def _outside_section(model: NodeModel) -> str:
    slots = [slot for slot in model.slots if _mounting(slot).place in ("water", "above_water")]
    if not slots:
        return ""
    rows = [
        (
            _probe_words(slot),
            "in the water" if _mounting(slot).place == "water" else "above the water",
            _mounting(slot).orientation,
            f"{_mounting(slot).cable_m:g} m",
        )
        for slot in slots
    ]
    return _section("Probes at the water", _table(("probe", "where", "how it hangs", "lead"), rows))


def _steps_section(model: NodeModel) -> str:
    """Each type's steps once, with the slots that they are for."""
    by_type: dict[str, list[Slot]] = {}
    for slot in model.slots:
        if _mounting(slot).steps:
            by_type.setdefault(slot.sensor_type, []).append(slot)
    lists = []
    for slots in by_type.values():
        names = ", ".join(slot.id for slot in slots)
        steps = "".join(f"<li>{escape(step)}</li>" for step in _mounting(slots[0]).steps)
        lists.append(
            f"<p><b>{escape(sensor_type_of(slots[0]).title)}</b> ({escape(names)})</p>\n<ol>{steps}</ol>"
        )
    return _section("Putting the probes in", *lists) if lists else ""


# --- the box ---


def _box_section(enclosure: Enclosure, glands: Sequence[GlandHole]) -> str:
    rows = [
        (
            str(number),
            _probe_words(hole.slot),
            f"{_mounting(hole.slot).cable_mm:g} mm",
            hole.gland.title,
            f"{hole.gland.hole_mm:g} mm",
            f"{hole.x_mm:g} mm",
            _across(hole.y_mm),
        )
        for number, hole in enumerate(glands, start=1)
    ]
    return _section(
        "Lead holes in the box, 1:1",
        "<p>The long side that looks down, seen from outside. Measure the ruler before you trust the template; pilot with "
        "3 mm. Leave each lead a drip loop below its gland.</p>",
        f'<div class="wide">{_box_drawing(enclosure, glands)}</div>',
        _table(
            ("no.", "for", "lead", "gland", "drill", "from the left edge", "from the middle line"),
            rows,
        ),
    )


def _across(y_mm: float) -> str:
    if not y_mm:
        return "on it"
    return f"{abs(y_mm):g} mm {'below' if y_mm > 0 else 'above'}"


def _box_drawing(enclosure: Enclosure, glands: Sequence[GlandHole]) -> str:
    drawing = Drawing()
    left = (_PAGE_MM - enclosure.face_width_mm) / 2
    top, middle = 3.0, 3 + enclosure.face_height_mm / 2
    drawing.rect(left, top, enclosure.face_width_mm, enclosure.face_height_mm, line=0.3, radius=2)
    drawing.line(
        left, middle, left + enclosure.face_width_mm, middle, stroke="#888", line=0.15, dash="4 1.5"
    )
    for number, hole in enumerate(glands, start=1):
        x, y = left + hole.x_mm, middle + hole.y_mm
        drawing.circle(x, y, hole.gland.hole_mm / 2, line=0.3)
        drawing.line(x - 3, y, x + 3, y, line=0.15)
        drawing.line(x, y - 3, x, y + 3, line=0.15)
        drawing.text(
            x, y + hole.gland.hole_mm / 2 + 4, f"{number}: {hole.slot.id}", size=3, anchor="middle"
        )
    ruler = top + enclosure.face_height_mm + 7
    drawing.line(left, ruler, left + 100, ruler, line=0.3)
    for mm in range(0, 101, 10):
        drawing.line(left + mm, ruler - 2, left + mm, ruler, line=0.2)
    drawing.text(left + 103, ruler, "this ruler is 100 mm long", size=3)
    return drawing.render(_PAGE_MM, ruler + 3, title="Template of the lead holes", unit="mm")


def _probe_words(slot: Slot) -> str:
    return f"{slot.id} ({sensor_type_of(slot).title})"


def _mounting(slot: Slot) -> Mounting:
    return sensor_type_of(slot).mounting
