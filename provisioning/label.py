"""The sticker on a node: who it is for people, and as a QR code for phones. 62 × 29 mm, as SVG and as PDF.

The code holds the address of the node's page when the bench knows where the pages are, else `stadtsensor:NODE_ID`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import segno
from markupsafe import escape
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas

WIDTH_MM, HEIGHT_MM = 62.0, 29.0
# Four modules of white round the code are what readers want (ISO/IEC 18004, quiet zone).
_QR_MM, _MARGIN_MM = 23.0, 3.0
_TEXT_X_MM = _MARGIN_MM + _QR_MM + _MARGIN_MM
_TEXT_MM = WIDTH_MM - _TEXT_X_MM - _MARGIN_MM
_HEAD_MM, _LINE_MM = 5.0, 2.4
_MOST_LINES = 7
# A letter of Helvetica is on average about half as wide as it is high; longer lines are made smaller.
_WIDTH_OF_LETTER = 0.56


@dataclass(frozen=True)
class Label:
    """What stands on the sticker."""

    label: str
    node_id: str
    model: str
    mac: str
    serials: Mapping[str, str] = field(default_factory=dict)
    pages_url: str | None = None

    @property
    def code(self) -> str:
        """What a phone reads."""
        if self.pages_url is None:
            return f"stadtsensor:{self.node_id}"
        return f"{self.pages_url.rstrip('/')}/fleet/nodes/{self.node_id}"

    @property
    def lines(self) -> list[str]:
        """The small print. More probes than there is room for are counted."""
        serials = [f"{slot} {serial}" for slot, serial in self.serials.items()]
        room = _MOST_LINES - 2
        if len(serials) > room:
            serials = [*serials[: room - 1], f"and {len(serials) - room + 1} probes more"]
        return [f"{self.node_id}   {self.model}", self.mac, *serials]


def qr_modules(code: str) -> Sequence[Sequence[int]]:
    """The QR code as rows of 0 and 1, without a border; a quarter of it may be dirty."""
    return tuple(tuple(row) for row in segno.make_qr(code, error="q").matrix)


def label_svg(label: Label) -> str:
    """The sticker as one SVG, in millimetres."""
    modules = qr_modules(label.code)
    step = _QR_MM / len(modules)
    dark = "".join(
        f"M{x} {y}h1v1h-1z" for y, row in enumerate(modules) for x, bit in enumerate(row) if bit
    )
    texts = "".join(
        f'<text x="{_TEXT_X_MM:g}" y="{y:.2f}" font-size="{size:.2f}"{weight}>{escape(text)}</text>'
        for text, y, size, weight in _placed(label)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_MM:g}mm" height="{HEIGHT_MM:g}mm"'
        f' viewBox="0 0 {WIDTH_MM:g} {HEIGHT_MM:g}" font-family="Helvetica, Arial, sans-serif">'
        f"<title>{escape(label.label)}</title>"
        f'<rect width="100%" height="100%" fill="#fff"/>'
        f'<path transform="translate({_MARGIN_MM:g} {_MARGIN_MM:g}) scale({step:.6f})" d="{dark}"/>'
        f"{texts}</svg>\n"
    )


def label_pdf(label: Label) -> bytes:
    """The sticker as a PDF of one page of its size. The same label gives the same bytes."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pagesize=(WIDTH_MM * mm, HEIGHT_MM * mm), invariant=1)
    canvas.setTitle(label.label)
    modules = qr_modules(label.code)
    step = _QR_MM / len(modules) * mm
    top = (HEIGHT_MM - _MARGIN_MM) * mm
    for number, row in enumerate(modules, start=1):
        for x, bit in enumerate(row):
            if bit:
                canvas.rect(_MARGIN_MM * mm + x * step, top - number * step, step, step, 0, 1)
    for text, y, size, weight in _placed(label):
        canvas.setFont("Helvetica-Bold" if weight else "Helvetica", size * mm)
        canvas.drawString(_TEXT_X_MM * mm, (HEIGHT_MM - y) * mm, text)
    canvas.save()
    return buffer.getvalue()


def _placed(label: Label) -> list[tuple[str, float, float, str]]:
    """(text, baseline from the top in mm, size in mm, weight as an attribute)."""
    y: float = _MARGIN_MM + _HEAD_MM
    placed = [(label.label, y, _fitting(label.label, _HEAD_MM), ' font-weight="bold"')]
    for line in label.lines:
        y += _LINE_MM * 1.25
        placed.append((line, y, _fitting(line, _LINE_MM), ""))
    return placed


def _fitting(text: str, size_mm: float) -> float:
    return min(size_mm, _TEXT_MM / (len(text) * _WIDTH_OF_LETTER))
