"""Small line drawings as SVG text, for the documents: panels one below the other, each with a title, a unit, lines, bands and dots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, LEFT, RIGHT, HEIGHT = 720, 44, 10, 150
_TOP, _GAP, _FOOT = 30, 58, 26
BLUE, ORANGE, RED, GREY, GREEN = "#1b5e8c", "#b26a00", "#b00020", "#777777", "#2e7d32"


@dataclass
class Panel:
    """One set of axes; x and y in the numbers of the data."""

    title: str
    unit: str
    x_span: tuple[float, float]
    y_span: tuple[float, float]
    x_labels: Sequence[tuple[float, str]]
    digits: int = 0
    shapes: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def _at(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (x0, x1), (y0, y1) = self.x_span, self.y_span
        across = LEFT + (WIDTH - LEFT - RIGHT) * (np.asarray(x, float) - x0) / (x1 - x0)
        down = HEIGHT * (1 - (np.clip(np.asarray(y, float), y0, y1) - y0) / (y1 - y0))
        return across, down

    def line(
        self, x: np.ndarray, y: np.ndarray, colour: str, name: str = "", dash: str = ""
    ) -> None:
        """A line with gaps where there is no number; of what falls on one pixel the least and the greatest are kept."""
        across, down = self._at(x, y)
        style = f' stroke-dasharray="{dash}"' if dash else ""
        for piece in _pieces(down):
            for_x, for_y = _thinned(across[piece], down[piece])
            self.shapes.append(
                f'<polyline points="{_points(for_x, for_y)}" fill="none" stroke="{colour}"'
                f' stroke-width="1.2"{style}/>'
            )
        self._name(colour, name)

    def band(
        self, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, name: str = ""
    ) -> None:
        is_known = np.isfinite(low) & np.isfinite(high)
        across, below = self._at(x[is_known], low[is_known])
        _, above = self._at(x[is_known], high[is_known])
        outline = _points(np.append(across, across[::-1]), np.append(above, below[::-1]))
        self.shapes.append(f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.18"/>')
        self._name(colour, name)

    def dots(
        self, x: np.ndarray, y: np.ndarray, colour: str, name: str = "", *, radius: float = 3.0
    ) -> None:
        is_known = np.isfinite(y)
        across, down = self._at(np.asarray(x)[is_known], np.asarray(y)[is_known])
        self.shapes += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{radius:g}" fill="{colour}"/>'
            for a, b in zip(across, down, strict=True)
        ]
        self._name(colour, name)

    def _name(self, colour: str, name: str) -> None:
        if name:
            self.legend.append((colour, name))

    def drawn(self, top: float) -> str:
        parts = [f'<g transform="translate(0 {top})">']
        for share in (0.0, 0.5, 1.0):
            value = self.y_span[0] + share * (self.y_span[1] - self.y_span[0])
            y = HEIGHT * (1 - share)
            parts.append(f'<path d="M{LEFT} {y:.0f}H{WIDTH - RIGHT}" stroke="#ccc"/>')
            parts.append(
                f'<text x="{LEFT - 4}" y="{y + 4:.0f}" text-anchor="end">'
                f"{value:.{self.digits}f}</text>"
            )
        parts.append(f'<text x="2" y="-8">{self.unit}</text>')
        parts.append(f'<text x="{LEFT}" y="-8">{self.title}</text>')
        end = WIDTH - RIGHT
        for colour, name in reversed(self.legend):
            parts.append(f'<text x="{end}" y="-8" text-anchor="end" fill="{colour}">{name}</text>')
            end -= 14 + round(6.3 * len(name))
        for x, text in self.x_labels:
            across, _ = self._at(np.array([x]), np.array([self.y_span[0]]))
            parts.append(
                f'<path d="M{across[0]:.1f} {HEIGHT}v4" stroke="#777"/>'
                f'<text x="{across[0]:.1f}" y="{HEIGHT + 16}" text-anchor="middle">{text}</text>'
            )
        return "\n".join([*parts, *self.shapes, "</g>"])


def drawing(panels: Sequence[Panel]) -> str:
    """The panels as one SVG."""
    height = _TOP + len(panels) * (HEIGHT + _GAP) - _GAP + _FOOT
    body = [panel.drawn(_TOP + row * (HEIGHT + _GAP)) for row, panel in enumerate(panels)]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        *body,
        "</svg>\n",
    ])  # fmt: skip


def days_of_month(times_s: np.ndarray, every: int = 5) -> list[tuple[float, str]]:
    """Labels at midnights (UTC): "5 Jul"."""
    first, last = int(times_s[0] // 86_400), int(times_s[-1] // 86_400)
    labels = []
    for day in range(first + 1, last + 1, every):
        if times_s[-1] - day * 86_400 < (times_s[-1] - times_s[0]) / 40:
            break  # no room for it
        stamp = np.datetime64(day, "D").item()
        labels.append((day * 86_400.0, f"{stamp.day} {stamp:%b}"))
    return labels


def _pieces(y: np.ndarray) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.isfinite(y), [False]])))
    return [slice(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1]


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    column = np.floor(x / 1.5).astype(int)
    if np.unique(column).size * 2 >= x.size:
        return x, y
    kept: list[int] = []
    for rows in np.split(np.arange(x.size), np.flatnonzero(np.diff(column)) + 1):
        kept += sorted({int(rows[np.argmin(y[rows])]), int(rows[np.argmax(y[rows])])})
    return x[kept], y[kept]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
