"""Files as offices have them become sites: read, previewed, imported once, and again without harm."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from factories import NOON
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import AuditEntry, Role, Scope, Site
from fleet_server.services import places, rights, site_importing, sites
from fleet_server.services.places import PlaceWrong
from fleet_server.services.site_files import read_table
from fleet_server.services.site_importing import ImportPlan, ImportRules
from fleet_server.services.tables import FileWrong

CADASTRE = (
    "Baum-Nr.;Baumart;Ostwert;Nordwert;Pflanzjahr;Straße\n"
    "4711;Tilia cordata;376136,71;5704913,89;1987;Königsallee\n"
    "4712;Platanus × hispanica;376.240,50;5.704.800,00;;Königsallee\n"
)


def plan_of(session: Session, data: str | bytes, **given_rules: object) -> ImportPlan:
    table, rules = _read(data, **given_rules)
    return site_importing.plan_import(session, table, rules, now=NOON)


def do_import(session: Session, data: str | bytes, **given_rules: object) -> ImportPlan:
    table, rules = _read(data, **given_rules)
    raw = data.encode() if isinstance(data, str) else data
    return site_importing.import_sites(session, table, rules, data=raw, now=NOON)


def _read(data: str | bytes, **given_rules: object):  # type: ignore[no-untyped-def] # of two
    table = read_table(data.encode() if isinstance(data, str) else data)
    found = {"columns": site_importing.guess_columns(table), "kind": "tree"}
    found["epsg"] = site_importing.guess_epsg(table) or places.UTM_32
    return table, ImportRules(**{**found, **given_rules})  # type: ignore[arg-type]


def known(session: Session) -> dict[str, Site]:
    session.expire_all()
    return {site.code: site for site in session.scalars(select(Site))}


# --- what comes in ---


def test_cadastre_of_trees_becomes_sites_with_everything_it_knows(session: Session) -> None:
    plan = do_import(session, CADASTRE)
    assert plan.counts == {"new": 2, "changed": 0, "same": 0, "wrong": 0}
    tree = known(session)["4711"]
    assert (tree.name, tree.kind, tree.species) == ("Tilia cordata 4711", "tree", "Tilia cordata")
    assert (tree.tree_number, tree.planted_year) == ("4711", 1987)
    assert tree.details == {"Straße": "Königsallee"}
    assert (tree.latitude, tree.longitude) == pytest.approx((51.4818, 7.2162), abs=1e-6)
    assert not tree.is_public
    entry = session.scalars(select(AuditEntry)).one()
    assert (entry.action, entry.details["new"]) == ("sites_imported", ["4711", "4712"])


GROUPED = (
    "Baum-Nr.;x;y;Bodenart KA5;Baumscheibe m²;Baumgruppe;Referenzbaum\n"
    "1;376136;5704913;sl4;4,5;Ring;ja\n"
    "2;376137;5704913;Sl4;6;Ring;nein\n"
)


def test_what_a_tree_stands_in_and_for_comes_in_with_it(session: Session) -> None:
    assert do_import(session, GROUPED).counts["new"] == 2
    first, second = known(session)["1"], known(session)["2"]
    assert (first.soil_class, first.unsealed_m2, first.tree_group) == ("Sl4", 4.5, "Ring")
    assert (first.is_group_reference, second.is_group_reference) == (True, False)
    assert do_import(session, GROUPED).counts["same"] == 2


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("3;376136;5704913;Lehm;1;Ring;nein", "Lehm is no soil class of KA5"),
        ("3;376136;5704913;;-1;Ring;nein", "unsealed ground is from 0 to 10000 m²"),
        ("3;376136;5704913;;1;;ja", "name the group"),
        ("3;376136;5704913;;1;Ring;ja", "1 stands for the group Ring already"),
        ("2;;;;;;ja", "1 stands for the group Ring already"),
        ("3;376136;5704913;;1;Ring;vielleicht", "neither yes (ja) nor no (nein)"),
    ],
)
def test_a_group_has_one_tree_that_stands_for_it(session: Session, row: str, sentence: str) -> None:
    do_import(session, GROUPED)
    head = GROUPED.partition("\n")[0]
    plan = do_import(session, f"{head}\n{row}\n")
    assert sentence in plan.wrong[0].sentence
    assert plan.counts["wrong"] == 1


def test_two_rows_that_stand_for_one_group_are_told(session: Session) -> None:
    both = GROUPED.replace("nein", "ja")
    plan = do_import(session, both)
    assert (plan.counts["new"], plan.counts["wrong"]) == (1, 1)
    assert plan.wrong[0].sentence == "Row 2 stands for the group Ring already."


def test_preview_writes_nothing(session: Session) -> None:
    assert plan_of(session, CADASTRE).counts["new"] == 2
    assert known(session) == {}
    assert session.scalar(select(func.count()).select_from(AuditEntry)) == 0


def test_second_import_of_the_same_file_changes_nothing_and_notes_nothing(session: Session) -> None:
    do_import(session, CADASTRE)
    again = do_import(session, CADASTRE)
    assert again.counts == {"new": 0, "changed": 0, "same": 2, "wrong": 0}
    assert session.scalar(select(func.count()).select_from(AuditEntry)) == 1


def test_later_import_changes_only_what_it_tells_and_what_differs(session: Session) -> None:
    do_import(session, CADASTRE)
    later = "Baum-Nr.;Baumart;Pflegegang\n4711;Tilia tomentosa;2\n4712;;\n"
    plan = do_import(
        session, later, columns={"code": "Baum-Nr.", "species": "Baumart", "x": "Baumart", "y": "Baumart"}
    )  # fmt: skip
    assert plan.counts == {
        "new": 0,
        "changed": 0,
        "same": 1,
        "wrong": 1,
    }  # a species is no position
    plan = do_import(session, "code;species;x;y;Pflegegang\n4711;Tilia tomentosa;;;2\n4712;;;;\n")
    assert plan.changed == {"4711": ("species", "details")}
    tree = known(session)["4711"]
    assert tree.species == "Tilia tomentosa"
    assert tree.details == {"Straße": "Königsallee", "Pflegegang": "2"}
    assert (tree.planted_year, tree.latitude) == (1987, pytest.approx(51.4818, abs=1e-6))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize("separator", [";", ",", "\t"])
def test_file_is_read_whatever_spreadsheet_wrote_it(encoding: str, separator: str) -> None:
    rows = [["Baumnr", "Straße", "x", "y"], ["1", "Königsallee", '"376136,7"', '"5704913,9"']]
    text = "\r\n".join(separator.join(row) for row in rows)
    table = read_table(text.encode(encoding))
    assert table.columns == ("Baumnr", "Straße", "x", "y")
    assert table.rows[0].cells["Straße"] == "Königsallee"
    assert table.rows[0].number == 2


def test_row_has_the_number_of_its_line_even_below_a_cell_of_two_lines() -> None:
    table = read_table(b'code;text\n1;"a\nb"\n\n2;c\n')
    assert [row.number for row in table.rows] == [2, 5]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The file is empty."),
        (b"code;x;y\n", "no rows below its head"),
        (b"code;code\n1;2\n", "two columns 'code'"),
        (b"PK\x03\x04rest", "save it as CSV"),
        (b"\xff\xd8\xff\xe0\0\0", "neither text"),
        (b'{"type": "Feature"}', "FeatureCollection"),
        (b'{"type": "FeatureCollection", "features": [7]}', "Feature 1 of the file is none"),
        (b"{" * 5000, "no GeoJSON"),
        (b"SQLite format 3\0" + b"x" * 500, "GeoPackage cannot be read"),
        (b'code;"x\n' + b"y" * 200_000, "no CSV"),
        (b"a" * (10 * 1024 * 1024 + 1), "more than 10 MB"),
    ],
)
def test_file_that_cannot_be_read_is_one_sentence(data: bytes, sentence: str) -> None:
    with pytest.raises(FileWrong, match=sentence) as caught:
        read_table(data)
    assert "\n" not in str(caught.value)


def test_columns_are_asked_for_where_they_cannot_be_guessed(session: Session) -> None:
    text = "Schluessel;Hier;Dort\na;376136;5704913\n"
    with pytest.raises(FileWrong, match="Which column is the site's code"):
        plan_of(session, text)
    with pytest.raises(FileWrong, match="Which columns are the position"):
        plan_of(session, text, columns={"code": "Schluessel"})
    with pytest.raises(FileWrong, match="no column 'Nirgends'"):
        plan_of(session, text, columns={"code": "Nirgends"})
    columns = {"code": "Schluessel", "x": "Hier", "y": "Dort"}
    assert plan_of(session, text, columns=columns).new == ("a",)


def test_each_wrong_row_is_told_with_its_number_and_the_others_come_in(session: Session) -> None:
    text = (
        "code;x;y;Pflanzjahr;kind\n"
        "a;376136;5704913;1987;Baum\n"
        ";376136;5704913;;Baum\n"
        "a;376136;5704913;;Baum\n"
        "c;376136;;;Baum\n"
        "d;viel;5704913;;Baum\n"
        "e;376136;5704913;3000;Baum\n"
        "f;376136;5704913;;Brücke\n"
        "g;376136;5704913;;Baum;zuviel\n"
        "h;;;;Baum\n"
    )
    plan = do_import(session, text, kind=None)
    assert list(known(session)) == ["a"]
    assert plan.counts == {"new": 1, "changed": 0, "same": 0, "wrong": 8}
    told = {row.number: row.sentence for row in plan.wrong}
    for number, sentence in {
        3: "no code",
        4: "stands in row 2 already",
        5: "half a position",
        6: "'viel' is no number",
        7: "planting year lies between",
        8: "neither a tree",
        9: "more cells",
        10: "has no position",
    }.items():
        assert sentence in told[number]


def test_what_a_site_is_stays_and_who_has_nothing_to_do_with_it_changes_nothing(
    session: Session,
) -> None:
    do_import(session, CADASTRE)
    plan = plan_of(session, CADASTRE, kind="water")
    assert [row.sentence for row in plan.wrong] == [
        f"{code} is a tree; what it is stays." for code in ("4711", "4712")
    ]
    right = rights.rights_of([Role.OPERATOR])
    rights.act_as(session, rights.Actor("wanda", right, Scope.WATERS))
    tree = sites.NewSite("linde", "Linde", "tree", 51.48, 7.22)
    with pytest.raises(NotFound):
        sites.create_site(session, tree, is_public=True, now=NOON)
    with pytest.raises(NotFound):
        sites.change_site(session, known(session)["4711"].id, {"name": "Mine"}, now=NOON)
    later = CADASTRE.replace("1987", "1988") + "1;Tilia;376136;5704913;;\n"
    plan = do_import(session, later)
    assert plan.counts == {"new": 0, "changed": 0, "same": 0, "wrong": 3}


# --- GeoJSON and GeoPackage ---


def geojson(properties: Mapping[str, object], geometry: object, **more: object) -> bytes:
    feature = {"type": "Feature", "properties": properties, "geometry": geometry}
    document = {"type": "FeatureCollection", "features": [feature], **more}
    return json.dumps(document).encode()


def test_pond_that_is_an_area_gets_a_place_inside_it(session: Session) -> None:
    # An L: its centre of gravity lies outside.
    ring = [[7.2, 51.4], [7.3, 51.4], [7.3, 51.41], [7.21, 51.41], [7.21, 51.5], [7.2, 51.5], [7.2, 51.4]]  # fmt: skip
    properties = {"id": "teich", "name": "Stadtparkteich", "Fläche": 12_500.5, "Tiefe": 2}
    data = geojson(properties, {"type": "Polygon", "coordinates": [ring]})
    do_import(session, data, kind="water")
    pond = known(session)["teich"]
    assert (pond.area_m2, pond.depth_m, pond.name) == (12_500.5, 2.0, "Stadtparkteich")
    in_foot = 7.2 <= pond.longitude <= 7.3 and 51.4 <= pond.latitude <= 51.41
    in_stem = 7.2 <= pond.longitude <= 7.21 and 51.4 <= pond.latitude <= 51.5
    assert in_foot or in_stem


def test_geojson_in_another_system_says_so_itself(session: Session) -> None:
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::25832"}}
    point = {"type": "Point", "coordinates": [376136.7147, 5704913.8927]}
    do_import(session, geojson({"code": "a"}, point, crs=crs))
    assert known(session)["a"].latitude == pytest.approx(51.4818, abs=1e-7)


def test_feature_without_a_place_is_a_wrong_row(session: Session) -> None:
    for geometry in (None, {"type": "Point", "coordinates": []}, {"type": "Nonsense"}):
        plan = plan_of(session, geojson({"code": "a"}, geometry))
        assert [row.sentence for row in plan.wrong] == ["a is new and has no position."]


def geopackage(path: Path, *, layers: tuple[str, ...] = ("baeume",), envelope: int = 0) -> bytes:
    """As GDAL writes it: header, envelope, WKB point, in EPSG:25832."""
    bounds = struct.pack("<4d", 376136, 376137, 5704913, 5704914) if envelope else b""
    header = b"GP\0" + bytes([0b001 | envelope << 1]) + struct.pack("<i", 25832)
    blob = header + bounds + struct.pack("<BI2d", 1, 1, 376136.7147, 5704913.8927)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(
            "CREATE TABLE gpkg_spatial_ref_sys (srs_id, organization_coordsys_id);"
            "INSERT INTO gpkg_spatial_ref_sys VALUES (25832, 25832);"
            "CREATE TABLE gpkg_contents (table_name, data_type);"
            "CREATE TABLE gpkg_geometry_columns (table_name, column_name, srs_id);"
        )
        for layer in layers:
            database.execute("INSERT INTO gpkg_contents VALUES (?, 'features')", [layer])
            database.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', 25832)", [layer])
            quoted = layer.replace('"', '""')
            database.execute(f'CREATE TABLE "{quoted}" (fid, geom, Baumnr, Pflanzjahr)')
            insertion = f'INSERT INTO "{quoted}" VALUES (1, ?, 4711, 1987)'  # noqa: S608 - quoted
            database.execute(insertion, [blob])
    database.close()
    return path.read_bytes()


@pytest.mark.parametrize("envelope", [0, 1])
def test_geopackage_is_read_with_its_own_system(
    session: Session, tmp_path: Path, envelope: int
) -> None:
    do_import(session, geopackage(tmp_path / "a.gpkg", envelope=envelope))
    tree = known(session)["4711"]
    assert tree.latitude == pytest.approx(51.4818, abs=1e-7)
    assert (tree.planted_year, tree.details) == (1987, {"fid": "1"})


def test_geopackage_with_several_layers_asks_which(tmp_path: Path) -> None:
    data = geopackage(tmp_path / "a.gpkg", layers=("baeume", 'mit "Zeichen"'))
    with pytest.raises(FileWrong, match="name one of baeume, mit"):
        read_table(data)
    assert len(read_table(data, layer='mit "Zeichen"').rows) == 1
    with pytest.raises(FileWrong, match="no layer 'weg'"):
        read_table(data, layer="weg")


def test_geopackage_that_computes_for_ever_is_stopped(tmp_path: Path) -> None:
    geopackage(tmp_path / "a.gpkg")
    with sqlite3.connect(tmp_path / "a.gpkg") as database:
        database.executescript(
            "DROP TABLE baeume; CREATE VIEW baeume AS WITH RECURSIVE n(x) AS"
            " (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(x) AS Baumnr, x'00' AS geom FROM n;"
        )
    database.close()
    with pytest.raises(FileWrong, match="cannot be read: interrupted"):
        read_table((tmp_path / "a.gpkg").read_bytes())


# --- places ---

_ORACLE = Transformer.from_crs(25832, 4326, always_xy=True)


@given(st.floats(290_000, 900_000), st.floats(5_240_000, 6_090_000))
def test_place_and_its_coordinates_are_pyprojs_to_a_centimetre_both_ways(
    east_m: float, north_m: float
) -> None:
    longitude, latitude = _ORACLE.transform(east_m, north_m)
    if not (47.2 <= latitude <= 55.1 and 5.8 <= longitude <= 15.1):
        with pytest.raises(PlaceWrong):
            places.place_of(east_m, north_m, epsg=25832)
        return
    place = places.place_of(east_m, north_m, epsg=25832)
    # A degree is 111 km at most.
    assert abs(place.latitude - latitude) * 111_320 < 0.01
    assert abs(place.longitude - longitude) * 111_320 < 0.01
    assert places.coordinates_of(place, epsg=25832) == pytest.approx((east_m, north_m), abs=0.01)


@pytest.mark.parametrize(
    ("x", "y", "epsg", "hint"),
    [
        (51.48, 7.21, 4326, "latitude and longitude look swapped"),
        (5704913, 376136, 25832, "easting and northing look swapped"),
        (7.21, 51.48, 25832, "say that the file is in EPSG:4326"),
        (51.48, 7.21, 25832, "say that the file is in EPSG:4326"),
        (376136, 5704913, 4326, "say that the file is in EPSG:25832"),
        (32376136, 5704913, 25832, "say that the file is in EPSG:4647"),
        (2586000, 5706000, 25832, "Gauss–Krüger"),
        (2.35, 48.86, 4326, "outside Germany"),
        (0, 0, 25832, "outside Germany"),
        (float("nan"), 5704913, 25832, "outside Germany"),
    ],
)
def test_wrong_coordinates_are_told_with_what_they_look_like(
    x: float, y: float, epsg: int, hint: str
) -> None:
    with pytest.raises(PlaceWrong, match=hint):
        places.place_of(x, y, epsg=epsg)


def test_easting_with_its_zone_is_the_same_place() -> None:
    plain = places.place_of(376136.7147, 5704913.8927, epsg=25832)
    assert places.place_of(32376136.7147, 5704913.8927, epsg=4647) == plain


def test_system_is_known_by_its_number_and_unknown_ones_are_named() -> None:
    assert [places.epsg_of(text) for text in ("EPSG:25832", "25832", "wgs84", "epsg::4326")] == [
        25832,
        25832,
        4326,
        4326,
    ]
    with pytest.raises(places.SystemUnknown, match="there are EPSG:25832"):
        places.epsg_of("EPSG:31467")


@pytest.mark.parametrize(
    ("text", "epsg"),
    [
        ("code;x;y\na;376136;5704913\n", 25832),
        ("code;lon;lat\na;7,21;51,48\n", 4326),
        ("code;x;y\na;32376136;5704913\n", 4647),
        ("code;x;y\na;1;2\n", None),
    ],
)
def test_system_is_guessed_from_the_positions(text: str, epsg: int | None) -> None:
    assert site_importing.guess_epsg(read_table(text.encode())) == epsg


# --- one site by hand ---


def test_site_is_changed_only_where_it_differs_and_the_log_says_how(session: Session) -> None:
    new = sites.NewSite("linde", "Linde", "tree", 51.48, 7.22, species="Tilia", planted_year=1950)
    site = sites.create_site(session, new, is_public=True, now=NOON)
    assert site.planted_year == 1950
    sites.change_site(session, site.id, {"species": "Tilia", "latitude": 51.5}, now=NOON)
    entries = session.scalars(
        select(AuditEntry).where(AuditEntry.action == "site_changed").order_by(AuditEntry.seq)
    ).all()
    assert [entry.details for entry in entries] == [{"changes": {"latitude": "51.5"}}]
    sites.change_site(session, site.id, {"species": "Tilia"}, now=NOON)
    assert session.scalar(select(func.count()).select_from(AuditEntry)) == 2


_IMPOSSIBLE_CHANGES: tuple[tuple[dict[str, object], str], ...] = (
    ({"code": "x"}, "code and kind stay what they are"),
    ({"kind": "water"}, "code and kind stay what they are"),
    ({"latitude": float("nan")}, "WGS84 degrees"),
    ({"name": " "}, "has a code and a name"),
    ({"name": "a\nb"}, "printable"),
    ({"planted_year": 900}, "planting year lies"),
    ({"area_m2": -1.0}, "area in m²"),
    ({"colour": "red"}, "A site has no colour"),
    ({"details": {"": "x"}}, "name has 1 to"),
)


def test_change_that_cannot_be_is_one_sentence_and_changes_nothing(session: Session) -> None:
    new = sites.NewSite("linde", "Linde", "tree", 51.48, 7.22)
    site = sites.create_site(session, new, is_public=True, now=NOON)
    for changes, sentence in _IMPOSSIBLE_CHANGES:
        with pytest.raises(sites.SiteWrong, match=sentence):
            sites.change_site(session, site.id, changes, now=NOON)
    assert session.scalar(select(func.count()).select_from(AuditEntry)) == 1
