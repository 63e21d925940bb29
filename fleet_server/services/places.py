"""Coordinates of cities' files, as WGS84: which systems are read, and what may be wrong with a place that lies nowhere.

Inside everything is WGS84 in degrees. ETRS89 is taken as equal to it, as the EPSG register does (transformation 1149, within a metre:
the plate moves 2.5 cm a year against WGS84).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from pyproj import Transformer

from fleet_server.errors import Invalid, Said

WGS84 = 4326
UTM_32 = 25832
_UTM_32_WITH_ZONE = 4647
_LONGEST_CODE = 6

SYSTEMS: Mapping[int, str] = {
    UTM_32: "ETRS89 / UTM 32N",
    25833: "ETRS89 / UTM 33N",
    _UTM_32_WITH_ZONE: "ETRS89 / UTM 32N, easting with zone (zE-N)",
    WGS84: "WGS84, degrees",
    4258: "ETRS89, degrees",
}
"""EPSG codes that a file may be in, the usual one first."""
_IN_DEGREES = frozenset({WGS84, 4258})

# Germany's outermost points (Federal Agency for Cartography and Geodesy: 47.27–55.06° N, 5.87–15.04° E), and a little more.
_SOUTH, _NORTH, _WEST, _EAST = 47.2, 55.1, 5.8, 15.1
# What they look like in metres: UTM zones 32 and 33; Gauss–Krüger zones 2 to 5 begin with their number.
_EASTINGS_M, _NORTHINGS_M = (-200_000, 1_100_000), (5_200_000, 6_150_000)
_GAUSS_KRUEGER_EASTINGS_M = (2_300_000, 5_700_000)
_EASTINGS_WITH_ZONE_M = (32_000_000, 33_999_999)


class SystemUnknown(Invalid):
    """Not one of the coordinate systems that are read."""

    code = "system_unknown"


class PlaceWrong(Invalid):
    """The coordinates name no place in Germany; the sentence says what they look like."""

    code = "place_wrong"


@dataclass(frozen=True)
class Place:
    """WGS84 in degrees."""

    latitude: float
    longitude: float


def epsg_of(text: str) -> int:
    """The code in `EPSG:25832`, `25832` or `WGS84`.

    Raises:
        SystemUnknown: it is none of `SYSTEMS`.
    """
    name = text.strip().upper().replace(" ", "")
    if name in ("WGS84", "CRS84"):
        return WGS84
    found = re.fullmatch(rf"(?:EPSG:{{1,2}})?([0-9]{{1,{_LONGEST_CODE}}})", name, re.ASCII)
    if found is None or int(found[1]) not in SYSTEMS:
        known = ", ".join(f"EPSG:{code}" for code in SYSTEMS)
        raise SystemUnknown(
            "%(text)r is no coordinate system that is read here; there are %(known)s. Convert the file into "
            "one of them first.",
            text=text,
            known=known,
        )
    return int(found[1])


def place_of(x: float, y: float, *, epsg: int) -> Place:
    """Where (x east, y north) of a system lies.

    Raises:
        PlaceWrong: not in Germany; with what the numbers look like instead.

    >>> place = place_of(376_136.7147, 5_704_913.8927, epsg=25832)
    >>> round(place.latitude, 6), round(place.longitude, 6)
    (51.4818, 7.2162)
    """
    hint = _mistake(x, y, epsg)
    if hint is None:
        longitude, latitude = _to_wgs84(epsg).transform(x, y)
        if _is_in_germany(latitude, longitude):
            # 1e-9 degrees are a tenth of a millimetre: the same file gives the same place on every machine.
            return Place(round(latitude, 9), round(longitude, 9))
        hint = Said("it lies outside Germany")
    raise PlaceWrong(
        "The position %(x)s, %(y)s cannot be: %(hint)s.", x=f"{x:.10g}", y=f"{y:.10g}", hint=hint
    )


def coordinates_of(place: Place, *, epsg: int) -> tuple[float, float]:
    """(x east, y north) of a place in a system."""
    x, y = _from_wgs84(epsg).transform(place.longitude, place.latitude)
    return float(x), float(y)


def _mistake(x: float, y: float, epsg: int) -> Said | None:
    """What coordinates look like that are not of this system; None when they may be."""
    if epsg in _IN_DEGREES:
        if _is_in_germany(y, x):
            return None
        if _is_in_germany(x, y):
            return Said("latitude and longitude look swapped; swap the two columns")
    else:
        if _are_metres(x, y, epsg):
            return None
        if _are_metres(y, x, epsg):
            return Said("easting and northing look swapped; swap the two columns")
    if _is_in_germany(y, x) or _is_in_germany(x, y):
        return Said("these look like degrees; say that the file is in EPSG:4326")
    if _within(_EASTINGS_WITH_ZONE_M, x) and _within(_NORTHINGS_M, y):
        return Said("the easting begins with its zone; say that the file is in EPSG:4647")
    if _within(_NORTHINGS_M, y) and _within(_GAUSS_KRUEGER_EASTINGS_M, x):
        return Said(
            "these look like Gauss–Krüger coordinates; convert the file to EPSG:25832 first"
        )
    if _are_metres(x, y, UTM_32):
        return Said("these look like metres; say that the file is in EPSG:25832")
    return Said("it lies outside Germany")


def _are_metres(x: float, y: float, epsg: int) -> bool:
    eastings = _EASTINGS_WITH_ZONE_M if epsg == _UTM_32_WITH_ZONE else _EASTINGS_M
    return _within(eastings, x) and _within(_NORTHINGS_M, y)


def _is_in_germany(latitude: float, longitude: float) -> bool:
    return _SOUTH <= latitude <= _NORTH and _WEST <= longitude <= _EAST


def _within(limits: tuple[float, float], value: float) -> bool:
    return limits[0] <= value <= limits[1]


def _to_wgs84(epsg: int) -> Transformer:
    return _transformer(epsg, WGS84)


def _from_wgs84(epsg: int) -> Transformer:
    return _transformer(WGS84, epsg)


class _OfThread(threading.local):
    """A transformer is for one thread (pyproj's documentation, "Multithreading")."""

    def __init__(self) -> None:
        self.transformers: dict[tuple[int, int], Transformer] = {}


_MADE = _OfThread()


def _transformer(source: int, target: int) -> Transformer:
    known = _MADE.transformers.get((source, target))
    if known is None:
        known = Transformer.from_crs(source, target, always_xy=True)
        _MADE.transformers[source, target] = known
    return known
