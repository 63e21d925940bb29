"""The map as SVG: sites as dots, dense ones as one larger dot with their number, a scale bar. No tiles, nothing from elsewhere, no script.

Projected as web maps are (spherical Mercator, EPSG:3857: x = λ, y = ln tan(π/4 + φ/2)): north is up, and a circle stays one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet_server.services.site_map import MapCell, MapPoint, SiteHealth, SiteMap, worst
from fleet_server.services.sites import Box

WIDTH, HEIGHT = 640, 440
_MARGIN = 28.0
_DOT, _MOST_DOT = 9.0, 26.0
# Dots nearer than that are one: two fingers' breadth on a phone.
_APART = 30.0
# A single site, or several at one corner: not drawn larger than a street.
_LEAST_DEGREES = 0.004
_LONGEST_BAR = 140.0
_METRES_PER_DEGREE = 111_320.0  # of a great circle: 40,075 km / 360


@dataclass(frozen=True)
class Dot:
    """One dot: `count` sites, and the worst of their states."""

    x: float
    y: float
    radius: float
    count: int
    title: str
    health: SiteHealth
    address: str


@dataclass(frozen=True)
class ScaleBar:
    length: float
    metres: int


@dataclass(frozen=True)
class DrawnMap:
    width: int
    height: int
    total: int
    dots: tuple[Dot, ...]
    scale: ScaleBar | None
    health_counts: Mapping[SiteHealth, int]


@dataclass(frozen=True)
class Addresses:
    """Where dots lead: one site, or the part of the map that a dot stands for."""

    of_site: Callable[[MapPoint], str]
    of_box: Callable[[Box], str]


def draw_map(found: SiteMap, addresses: Addresses) -> DrawnMap:
    """Dots for everything that was found, in a frame that holds all of it."""
    if found.box is None:
        return DrawnMap(WIDTH, HEIGHT, 0, (), None, {})
    frame = _Frame(found.box)
    dots = [_cell_dot(cell, frame, addresses) for cell in found.cells] + _dots_of(
        found.points, frame, addresses
    )
    counts: dict[SiteHealth, int] = defaultdict(int)
    for point in found.points:
        counts[point.health] += 1
    ordered = {state: counts[state] for state in SiteHealth if counts[state]}
    return DrawnMap(WIDTH, HEIGHT, found.total, tuple(dots), frame.scale_bar(), ordered)


class _Frame:
    """Degrees → places in the drawing."""

    def __init__(self, box: Box) -> None:
        lack_x = max(0.0, _LEAST_DEGREES - (box.east - box.west)) / 2
        lack_y = max(0.0, _LEAST_DEGREES - (box.north - box.south)) / 2
        self._west = box.west - lack_x
        self._top = _mercator(min(box.north + lack_y, 85.0))
        width = box.east - box.west + 2 * lack_x
        height = self._top - _mercator(max(box.south - lack_y, -85.0))
        self._per_degree = min((WIDTH - 2 * _MARGIN) / width, (HEIGHT - 2 * _MARGIN) / height)
        self._left = (WIDTH - width * self._per_degree) / 2
        self._above = (HEIGHT - height * self._per_degree) / 2
        self._latitude = (box.south + box.north) / 2

    def place(self, latitude: float, longitude: float) -> tuple[float, float]:
        x = self._left + (longitude - self._west) * self._per_degree
        y = self._above + (self._top - _mercator(latitude)) * self._per_degree
        return round(x, 1), round(y, 1)

    def scale_bar(self) -> ScaleBar:
        """The longest round length that fits."""
        metres_per_unit = (
            _METRES_PER_DEGREE * math.cos(math.radians(self._latitude)) / self._per_degree
        )
        longest_m = _LONGEST_BAR * metres_per_unit
        power = 10 ** math.floor(math.log10(longest_m))
        metres = max(step * power for step in (1, 2, 5) if step * power <= longest_m)
        return ScaleBar(round(metres / metres_per_unit, 1), max(1, round(metres)))


def _mercator(latitude: float) -> float:
    """In degrees, as longitudes are."""
    return math.degrees(math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2)))


def _dots_of(points: tuple[MapPoint, ...], frame: _Frame, addresses: Addresses) -> list[Dot]:
    groups: dict[tuple[int, int], list[tuple[MapPoint, float, float]]] = defaultdict(list)
    for point in points:
        x, y = frame.place(point.latitude, point.longitude)
        groups[int(x // _APART), int(y // _APART)].append((point, x, y))
    return [_dot(group, addresses) for _, group in sorted(groups.items())]


def _dot(group: list[tuple[MapPoint, float, float]], addresses: Addresses) -> Dot:
    points = [point for point, _, _ in group]
    if len(group) == 1:
        (point, x, y) = group[0]
        return Dot(x, y, _DOT, 1, point.name, point.health, addresses.of_site(point))
    box = Box(
        min(point.longitude for point in points),
        min(point.latitude for point in points),
        max(point.longitude for point in points),
        max(point.latitude for point in points),
    )
    return Dot(
        x=round(sum(x for _, x, _ in group) / len(group), 1),
        y=round(sum(y for _, _, y in group) / len(group), 1),
        radius=_radius(len(group)),
        count=len(group),
        title=", ".join(sorted(point.name for point in points)[:3]),
        health=worst([point.health for point in points]),
        address=addresses.of_box(box),
    )


def _cell_dot(cell: MapCell, frame: _Frame, addresses: Addresses) -> Dot:
    x, y = frame.place(cell.latitude, cell.longitude)
    return Dot(x, y, _radius(cell.count), cell.count, "", cell.health, addresses.of_box(cell.box))


def _radius(count: int) -> float:
    """Grows with the number's digits: its area says nothing, its number does."""
    return min(_MOST_DOT, _DOT + 4.0 + 3.0 * math.log10(count))


def box_text(box: Box) -> str:
    """As it stands in an address, a little larger so that nothing on its edge is lost: 1e-6 degrees are a decimetre.

    >>> box_text(Box(7.2, 51.4, 7.3, 51.5))
    '7.199999,51.399999,7.300001,51.500001'
    """
    west, south = box.west - 1e-6, box.south - 1e-6
    east, north = box.east + 1e-6, box.north + 1e-6
    return ",".join(f"{value:.6f}" for value in (west, south, east, north))


def box_of(text: str) -> Box | None:
    """From an address; None when it is none.

    >>> box_of("7.2,51.4,7.3,51.5"), box_of("7,8,9"), box_of("7.3,51.4,7.2,51.5"), box_of("nan,1,2,3")
    (Box(west=7.2, south=51.4, east=7.3, north=51.5), None, None, None)
    """
    parts = text.split(",")
    try:
        west, south, east, north = (float(part) for part in parts)
    except ValueError:
        return None
    is_box = -180 <= west <= east <= 180 and -90 <= south <= north <= 90
    return Box(west, south, east, north) if is_box else None
