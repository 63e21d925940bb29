"""Files that offices keep their trees and waters in, read as a table: CSV, GeoJSON, GeoPackage. Bytes in, rows out; no database of ours.

What cannot be read at all is refused with one sentence (`FileWrong`); what is wrong in one row is the importing's business
(`site_importing.py`), which knows what the columns mean.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import shapely
from shapely.errors import ShapelyError

from fleet_server.services.tables import (
    FileWrong,
    Row,
    Table,
    checked_columns,
    read_csv,
    read_text,
    refuse_large_or_empty,
    refuse_too_many,
)

_WGS84 = 4326
_SQLITE_MAGIC = b"SQLite format 3\0"
_LONGEST_CELL = 20_000
# A table that is a view could compute for ever: what a file of this size holds is read in far fewer steps.
_MOST_SQLITE_STEPS = 20_000_000
_SQLITE_STEPS_AT_ONCE = 100_000
# GeoPackage 1.3, 2.1.3.1.1: bytes of the envelope by its indicator code.
_ENVELOPE_BYTES = {0: 0, 1: 32, 2: 48, 3: 48, 4: 64}
_GEOPACKAGE_MAGIC = b"GP"


def read_table(data: bytes, *, layer: str | None = None) -> Table:
    """The table in a file, whose kind is seen from its content.

    Args:
        layer: which table of a GeoPackage that holds several.

    Raises:
        FileWrong: too large, of another kind, damaged, or empty.
    """
    refuse_large_or_empty(data)
    if data.startswith(_SQLITE_MAGIC):
        table = _read_geopackage(data, layer)
    else:
        table = _read_text_file(data)
    if not table.rows:
        raise FileWrong("The file has no rows below its head.")
    return table


def _read_text_file(data: bytes) -> Table:
    found = read_text(data)
    if found is None:
        raise FileWrong(
            "This is neither text (CSV, GeoJSON) in UTF-8 or Windows-1252 nor a GeoPackage."
        )
    text, encoding = found
    return _read_geojson(text) if text.lstrip()[:1] == "{" else read_csv(text, encoding=encoding)


# ------------------------------------------------------------------------------------------------------------- GeoJSON


def _read_geojson(text: str) -> Table:
    """RFC 7946: WGS84, unless the file names another system as the format's first version (2008) allowed."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise FileWrong(
            "The file is no GeoJSON: %(problem)s.", problem=_first_line(problem)
        ) from problem
    features = document.get("features")
    if document.get("type") != "FeatureCollection" or not isinstance(features, list):
        raise FileWrong("A GeoJSON file of sites is a FeatureCollection.")
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, feature in enumerate(features, start=1):
        if not isinstance(feature, dict):
            raise FileWrong("Feature %(number)s of the file is none.", number=number)
        properties = feature.get("properties") or {}
        if not isinstance(properties, dict):
            raise FileWrong("The properties of feature %(number)s are none.", number=number)
        cells = {str(name).strip(): _cell(value) for name, value in properties.items()}
        columns |= dict.fromkeys(cells)
        rows.append(Row(number, cells, _geojson_position(feature.get("geometry"))))
        refuse_too_many(rows)
    names = checked_columns(list(columns)) if columns else ()
    return Table(names, tuple(rows), has_geometry=True, epsg=_geojson_epsg(document))


def _geojson_position(geometry: object) -> tuple[float, float] | None:
    if not isinstance(geometry, dict):
        return None
    try:
        return _position(shapely.from_geojson(json.dumps(geometry)))
    except (ShapelyError, ValueError, TypeError, RecursionError):
        return None


def _geojson_epsg(document: Mapping[str, Any]) -> int:
    crs = document.get("crs")
    try:
        name = str(crs["properties"]["name"]) if isinstance(crs, dict) else ""
    except (KeyError, TypeError):
        name = ""
    number = name.rpartition(":")[2]
    if not name or name.endswith("CRS84"):
        return _WGS84
    return int(number[:9]) if number.isascii() and number.isdecimal() else _WGS84


# ---------------------------------------------------------------------------------------------------------- GeoPackage


def _read_geopackage(data: bytes, layer: str | None) -> Table:
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            # Bytes 18 and 19 say "written ahead", which memory cannot (sqlite.org/c3ref/deserialize.html): the log is another file.
            database.deserialize(data[:18] + b"\1\1" + data[20:])
            database.execute("PRAGMA trusted_schema = OFF")
            database.execute("PRAGMA query_only = ON")
            _limit_steps(database)
            return _read_layer(database, layer)
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as problem:
            raise FileWrong(
                "The GeoPackage cannot be read: %(problem)s.", problem=_first_line(problem)
            ) from problem


def _limit_steps(database: sqlite3.Connection) -> None:
    left = [_MOST_SQLITE_STEPS // _SQLITE_STEPS_AT_ONCE]

    def count() -> int:
        left[0] -= 1
        return int(left[0] < 0)

    database.set_progress_handler(count, _SQLITE_STEPS_AT_ONCE)


def _read_layer(database: sqlite3.Connection, wanted: str | None) -> Table:
    layers = {
        str(name): (str(column), int(epsg or 0))
        for name, column, epsg in database.execute(
            "SELECT c.table_name, g.column_name, s.organization_coordsys_id FROM gpkg_contents c"
            " JOIN gpkg_geometry_columns g ON g.table_name = c.table_name"
            " LEFT JOIN gpkg_spatial_ref_sys s ON s.srs_id = g.srs_id"
            " WHERE c.data_type = 'features' ORDER BY c.table_name"
        )
    }
    if not layers:
        raise FileWrong("The GeoPackage has no layer with places.")
    if wanted is None and len(layers) > 1:
        raise FileWrong(
            "The GeoPackage has several layers; name one of %(layers)s.", layers=", ".join(layers)
        )
    name = wanted if wanted is not None else next(iter(layers))
    if name not in layers:
        raise FileWrong(
            "The GeoPackage has no layer %(name)r, but %(layers)s.",
            name=name,
            layers=", ".join(layers),
        )
    geometry_column, epsg = layers[name]
    quoted = name.replace('"', '""')
    cursor = database.execute(f'SELECT * FROM "{quoted}"')  # noqa: S608 - quoted, of the file's own
    head = [str(column[0]) for column in cursor.description]
    rows: list[Row] = []
    for number, values in enumerate(cursor, start=1):
        found = dict(zip(head, values, strict=True))
        geometry = found.pop(geometry_column, None)
        cells = {key: _cell(value) for key, value in found.items()}
        rows.append(Row(number, cells, _geopackage_position(geometry)))
        refuse_too_many(rows)
    columns = checked_columns([column for column in head if column != geometry_column])
    return Table(columns, tuple(rows), has_geometry=True, epsg=epsg if epsg > 0 else None)


def _geopackage_position(blob: object) -> tuple[float, float] | None:
    """A place from the standard's binary (GeoPackage 1.3, 2.1.3: magic, version, flags, srs id, envelope, then WKB)."""
    if not isinstance(blob, bytes) or len(blob) < 8 or blob[:2] != _GEOPACKAGE_MAGIC:
        return None
    flags = blob[3]
    envelope_bytes = _ENVELOPE_BYTES.get((flags >> 1) & 0b111)
    is_empty, is_extended = flags & 0b10000, flags & 0b100000
    if envelope_bytes is None or is_empty or is_extended:
        return None
    try:
        return _position(shapely.from_wkb(blob[8 + envelope_bytes :]))
    except (ShapelyError, ValueError, struct.error):
        return None


# --------------------------------------------------------------------------------------------------------------- cells


def _position(geometry: Any) -> tuple[float, float] | None:
    """A point as it is; of lines and areas a point that lies on them."""
    if geometry is None or geometry.is_empty:
        return None
    point = geometry if geometry.geom_type == "Point" else geometry.representative_point()
    if point.is_empty or not (math.isfinite(point.x) and math.isfinite(point.y)):
        return None
    return float(point.x), float(point.y)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, bytes):
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.strip().replace("\0", "")[:_LONGEST_CELL]


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")
