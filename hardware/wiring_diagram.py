"""The wiring diagram of a node model as SVG: board pins at the left, circuits in the middle, probes at the right.

One block per circuit (`circuit_blocks.py`), so that no lines cross. Supplies and ground are named at each end instead of
drawn through the sheet. Nothing here knows a probe or a board.
"""

from __future__ import annotations

from collections.abc import Sequence

from hardware.assumptions import assumptions
from hardware.boards import BoardType
from hardware.catalogue import NodeModel
from hardware.circuit_blocks import Block, Left, Probe, Right, blocks_of, names_of
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
    for block in blocks_of(model, board):
        y = _draw(drawing, block, y) + _GAP
    return drawing.render(_WIDTH, y, title=heading)


def _assumed_colours(model: NodeModel, board: BoardType) -> str:
    """Which probes' wire colours nobody has stated, as a sentence; empty when all are."""
    found = assumptions(model, board, "wiring")
    slots = [slot for slot in model.slots if f"sensors/{slot.sensor_type}" in found]
    if not slots:
        return ""
    return (
        f"Assumed, not stated by the maker: the wire colours of {names_of(slots)}. Compare with the sheet that came with "
        "the probe before you switch on."
    )


def _notes(block: Block) -> list[str]:
    lines = [
        f"{part.quantity} × {part.number}, {part.title}: {part.place}"
        if part.place
        else f"{part.quantity} × {part.number}, {part.title}"
        for part in block.parts
    ]
    return [*lines, *([block.note] if block.note else [])]


def _title(probe: Probe) -> list[str]:
    if not probe.name:
        return []
    return [probe.name, *wrap(probe.title, _PROBE_WIDTH - 60, _SMALL)]


# --- drawing ---


def _draw(drawing: Drawing, block: Block, top: float) -> float:
    """Draw one block below `top`; returns where it ends."""
    notes = [line for note in _notes(block) for line in (*wrap(note, _NOTE_WIDTH, _SMALL), "")][:-1]
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


def _probe_height(probe: Probe) -> float:
    return max(len(probe.rights) * _ROW, len(_title(probe)) * _NOTE_ROW) + 16


def _draw_lefts(drawing: Drawing, lefts: Sequence[Left], top: float) -> None:
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


def _draw_probe(drawing: Drawing, probe: Probe, top: float) -> None:
    if probe.name:
        height = _probe_height(probe) - 8
        drawing.rect(_PROBE_X, top + 4, _PROBE_WIDTH, height, fill=_PROBE_FILL, radius=6)
        for number, line in enumerate(_title(probe)):
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


def _draw_right(drawing: Drawing, right: Right, y: float) -> None:
    edge = _BOX_X + _BOX_WIDTH
    drawing.text(edge - 10, y + 4, right.clamp, size=_SMALL, anchor="end")
    drawing.circle(edge, y, 3, fill="#333")
    if right.wire is None:
        return
    colour = _COLOURS.get(right.wire.colour, _UNKNOWN_COLOUR)
    drawing.line(edge, y, _PROBE_X, y, stroke="#333", line=5)
    drawing.line(edge, y, _PROBE_X, y, stroke=colour, line=3.4)
    drawing.text((edge + _PROBE_X) / 2, y - 6, right.wire.colour, size=_SMALL, anchor="middle")
    drawing.text(_PROBE_X + 8, y + 4, right.wire.signal, size=_SMALL)
