"""A few shapes for drawings in SVG, written as text: nothing but what our sheets need.

Coordinates are in the drawing's unit (pixels or millimetres); a text's size too. Everything that is shown goes through
one place that escapes it.
"""

from __future__ import annotations

from html import escape

FONT = "DejaVu Sans, Verdana, Arial, sans-serif"
# Average width of a letter, as a share of the font's size: a little above that of the widest font above.
_LETTER = 0.58


class Drawing:
    """Shapes in the order in which they were added; later ones lie on top."""

    def __init__(self) -> None:
        self._shapes: list[str] = []

    def rect(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "none",
        stroke: str = "#333",
        line: float = 1,
        radius: float = 0,
    ) -> None:
        """A box; `x`, `y` is its upper left corner."""
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" fill="{fill}" '
            f'stroke="{stroke}" stroke-width="{line:g}"/>'
        )

    def line(
        self,
        x1: float,
        y1: float,
        x2: float,
        y2: float,
        *,
        stroke: str = "#333",
        line: float = 1,
        dash: str = "",
    ) -> None:
        """A straight line; `dash` as in SVG's stroke-dasharray."""
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self._shapes.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{stroke}" stroke-width="{line:g}"{dashes}/>'
        )

    def circle(
        self, x: float, y: float, radius: float, *, fill: str = "none", line: float = 1
    ) -> None:
        """A circle about its centre."""
        self._shapes.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="#333" stroke-width="{line:g}"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        content: str,
        *,
        size: float,
        anchor: str = "start",
        bold: bool = False,
        fill: str = "#222",
    ) -> None:
        """One line of text on the base line `y`; `anchor`: start, middle or end."""
        weight = ' font-weight="bold"' if bold else ""
        self._shapes.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" text-anchor="{anchor}"{weight} fill="{fill}">'
            f"{escape(content)}</text>"
        )

    def render(self, width: float, height: float, *, title: str, unit: str = "") -> str:
        """The whole as an SVG element; `title` is what a screen reader says."""
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}{unit}" height="{height:g}{unit}" '
            f'viewBox="0 0 {width:g} {height:g}" font-family="{FONT}" role="img">\n'
            f"<title>{escape(title)}</title>\n" + "\n".join(self._shapes) + "\n</svg>\n"
        )


def wrap(content: str, width: float, size: float) -> list[str]:
    """The text in lines that fit `width` at this size; a word that is wider stands alone."""
    letters = max(1, int(width / (size * _LETTER)))
    lines: list[str] = []
    for word in content.split():
        if lines and len(lines[-1]) + 1 + len(word) <= letters:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
