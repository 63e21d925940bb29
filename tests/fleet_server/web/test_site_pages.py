"""Sites on the page: planned, imported from a file, drawn on a map, and closed; without a script."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from judged_world import Thermometer
from sqlalchemy import insert, select
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from fleet_server import db
from fleet_server.models import Datastream, Role, Scope, Site
from fleet_server.services import accounts, sites
from fleet_server.services.day_means import DayMean, DaySeries
from fleet_server.services.site_map import MOST_SINGLE_SITES, MapPoint, SiteHealth, SiteMap
from fleet_server.services.sites import Box, NewSite
from fleet_server.web.drawn_days import draw_days
from fleet_server.web.drawn_map import Addresses, draw_map
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World, csrf_token, log_in, operator_at

CADASTRE = (
    "Baumnr;Baumart;Ostwert;Nordwert;Straße\n"
    "4711;Tilia cordata;376136,71;5704913,89;Königsallee\n"
    "4712;Tilia cordata;5704913,89;376136,71;Königsallee\n"
).encode("cp1252")


@pytest.fixture(scope="module")
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """One database for all tests of this file; each has sites of its own."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        yield db.session_factory(engine)
        engine.dispose()


@pytest.fixture(scope="module")
def planner(
    sessions: sessionmaker[Session], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        deployed_node(session)
    yield from operator_at(NOON + timedelta(hours=1), sessions, tmp_path_factory.mktemp("files"))


def post(client: FlaskClient, path: str, form_at: str, **fields: object) -> TestResponse:
    """As a browser sends the form of page `form_at`."""
    token = csrf_token(client.get(form_at).text)
    return client.post(path, data={"csrf_token": token, **fields})


def upload(client: FlaskClient, form_at: str, data: bytes) -> TestResponse:
    """A file as the raw body of a form: the test client would keep a large one open."""
    token = csrf_token(client.get(form_at).text)
    body = (
        f'--x\r\nContent-Disposition: form-data; name="csrf_token"\r\n\r\n{token}\r\n'
        '--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    ).encode()
    content_type = "multipart/form-data; boundary=x"
    body += data + b"\r\n--x--\r\n"
    return client.post("/fleet/sites/import", data=body, content_type=content_type)


def site_with(sessions: sessionmaker[Session], code: str) -> Site:
    with sessions() as session:
        found = sites.find_site(session, code)
    assert found is not None
    return found


def test_file_is_previewed_before_anything_changes_and_imported_by_a_second_click(
    planner: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    path = "/fleet/sites/import"
    file = (io.BytesIO(CADASTRE), "bäume.csv")
    preview = post(planner, path, path, file=file, kind="tree")
    assert preview.status_code == 200
    assert "<b>1</b>new" in preview.text
    assert "easting and northing look swapped" in preview.text
    assert '<option value="Ostwert" selected>Ostwert</option>' in preview.text
    with sessions() as session:
        assert sites.find_site(session, "4711") is None

    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', preview.text))
    fields |= {"column_code": "Baumnr", "column_x": "Ostwert", "column_y": "Nordwert"}
    fields |= {"kind": "tree", "epsg": "25832", "step": "apply"}
    done = planner.post(path, data=fields)
    assert (done.status_code, done.headers["Location"]) == (303, "/fleet/sites")
    assert "Imported: 1 new, 0 changed, 0 the same, 1 wrong." in planner.get("/fleet/sites").text
    tree = site_with(sessions, "4711")
    # The species was not named as one this time: it is kept under its own name.
    assert tree.details == {"Baumart": "Tilia cordata", "Straße": "Königsallee"}


def test_file_that_is_none_and_one_that_is_too_long_are_told_on_the_page(
    planner: FlaskClient,
) -> None:
    path = "/fleet/sites/import"
    for data, sentence in ((b"\xff\xd8\0\0", "neither text"), (b"", "Choose a file.")):
        answer = post(planner, path, path, file=(io.BytesIO(data), "a.csv" if data else ""))
        assert answer.status_code == 400
        assert sentence in answer.text
    answer = upload(planner, path, b"code;x;y\n" + b"a" * (10 * 1024 * 1024))
    assert (answer.status_code, "more than 10 MB" in answer.text) == (400, True)
    assert upload(planner, path, bytes(11 * 1024 * 1024)).status_code == 413


def test_who_is_not_logged_in_may_send_no_long_request(planner: FlaskClient) -> None:
    stranger = planner.application.test_client()
    assert upload(stranger, "/login", bytes(2 * 1024 * 1024)).status_code == 413


def test_site_is_made_changed_closed_and_opened_again_by_forms(
    planner: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    new = {"code": "teich", "name": "Teich", "kind": "water", "epsg": "25832", "area_m2": "1200,5"}
    wrong = post(planner, "/fleet/sites/new", "/fleet/sites/new", **new, x="51.48", y="7.21")
    assert wrong.status_code == 400
    assert "these look like degrees" in wrong.text
    assert 'value="Teich"' in wrong.text  # nothing has to be typed again
    made = post(planner, "/fleet/sites/new", "/fleet/sites/new", **new, x="376136,7", y="5704913,9")
    assert made.status_code == 303
    pond = site_with(sessions, "teich")
    assert (pond.area_m2, round(pond.latitude, 4)) == (1200.5, 51.4818)
    page = f"/fleet/sites/{pond.id}"
    change = {"name": "Stadtparkteich", "details": "Ufer: Beton\nSteg: ja", "is_public": "1"}
    assert post(planner, f"{page}/edit", f"{page}/edit", **change).status_code == 303
    changed = site_with(sessions, "teich")
    assert (changed.name, changed.is_public) == ("Stadtparkteich", True)
    assert changed.details == {"Ufer": "Beton", "Steg": "ja"}
    assert (changed.latitude, changed.area_m2) == (pond.latitude, None)
    assert post(planner, f"{page}/close", page).status_code == 303
    assert "closed" in planner.get("/fleet/sites?state=closed").text
    assert "Stadtparkteich" not in planner.get("/fleet/sites?state=open").text
    assert post(planner, f"{page}/reopen", page).status_code == 303
    assert site_with(sessions, "teich").closed_at is None


def test_site_where_a_node_stands_is_not_closed(planner: FlaskClient) -> None:
    answer = post(planner, "/fleet/sites/1/close", "/fleet/sites/1")
    assert answer.status_code == 409
    assert "take it down first" in answer.text


def test_site_page_shows_place_nodes_and_probes_in_both_languages(planner: FlaskClient) -> None:
    page = planner.get("/fleet/sites/1").text
    assert "ETRS89 / UTM 32N" in page
    assert "watermark_200ss" in page
    assert "Soil water tension, 30\N{NO-BREAK SPACE}cm" in page
    assert "Knoten und Sonden" in planner.get("/fleet/sites/1", headers={"Accept-Language": "de"}).text  # fmt: skip


@pytest.mark.parametrize(
    "query", ["kind=house", "state=gone", "box=1,2,3", "box=nan,1,2,3", "after=x"]
)
def test_address_that_no_list_knows_is_one_sentence(planner: FlaskClient, query: str) -> None:
    answer = planner.get(f"/fleet/sites?{query}")
    assert answer.status_code == 400
    assert " wants " in answer.text


def test_list_and_map_of_many_sites_ask_as_little_as_of_few(
    planner: FlaskClient, sessions: sessionmaker[Session], tmp_path: Path
) -> None:
    """The last but one that looks at the list: it fills it."""
    engine = sessions.kw["bind"]
    world = World(engine, sessions, str(engine.url), tmp_path)
    with world.statements() as few:
        planner.get("/fleet/sites")
    rows = [
        {
            "code": f"s-{number:05d}",
            "name": f"Baum {number}",
            "kind": "tree",
            "latitude": 51.4 + number % 50 / 500,
            "longitude": 7.1 + number // 50 / 500,
            "description": "",
            "details": {},
            "is_public": True,
            "created_at": NOON,
        }
        for number in range(MOST_SINGLE_SITES + 1)
    ]
    with db.writing(sessions) as session:
        session.execute(insert(Site), rows)
    with world.statements() as many:
        page = planner.get("/fleet/sites").text
    assert len(many) <= len(few)
    assert re.search(r"Sites: 2,00\d", page)  # the map tells how many there are
    assert 10 < page.count("<circle") < 500
    # Page by page, each site once.
    codes: list[str] = re.findall(r'<span class="id quiet small mono">([^<]+)</span>', page)
    following = re.search(r'href="([^"]+after=[^"]+)"', page)
    assert following
    second = planner.get(following[1].replace("&amp;", "&")).text
    codes += re.findall(r'<span class="id quiet small mono">([^<]+)</span>', second)
    with sessions() as session:
        first = session.scalars(select(Site.code).order_by(Site.code).limit(len(codes))).all()
    assert sorted(codes) == sorted(first)
    # A dense dot leads to its own part of the map, where sites are told apart and listed.
    box = re.search(r'href="([^"]*box=[^"]+)"', page)
    assert box
    part = planner.get(box[1].replace("&amp;", "&")).text
    assert 0 < part.count("Baum ") < len(rows)


def test_waters_office_sees_no_tree_on_list_and_map(
    planner: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        roles, scope = [Role.WATERS_OFFICE], Scope.WATERS
        accounts.create_user(session, "wanda", PASSWORD, now=NOON, roles=roles, scope=scope)
    client = planner.application.test_client()
    log_in(client, name="wanda")
    page = client.get("/fleet/sites").text
    assert "Site of n-000001" not in page
    assert "<title>Site of n-000001" in planner.get("/fleet/sites?text=n-000001").text
    assert "<circle" not in client.get("/fleet/sites?text=n-000001").text
    assert client.get("/fleet/sites/1").status_code == 404
    assert client.get("/fleet/sites/1/edit").status_code == 404


# --- the drawing ---


def point(number: int, latitude: float, longitude: float, health: SiteHealth) -> MapPoint:
    return MapPoint(number, f"s{number}", f"Site {number}", latitude, longitude, health)


def drawn(*points: MapPoint):  # type: ignore[no-untyped-def]
    box = Box(
        min(one.longitude for one in points),
        min(one.latitude for one in points),
        max(one.longitude for one in points),
        max(one.latitude for one in points),
    )
    addresses = Addresses(lambda one: f"/site/{one.site_id}", lambda _: "/part")
    return draw_map(SiteMap(len(points), box, points=points), addresses)


def test_north_is_up_east_is_right_and_everything_lies_inside() -> None:
    made = drawn(
        point(1, 51.50, 7.10, SiteHealth.FRESH),
        point(2, 51.45, 7.30, SiteHealth.OFFLINE),
    )
    by_title = {dot.title: dot for dot in made.dots}
    north_west, south_east = by_title["Site 1"], by_title["Site 2"]
    assert north_west.x < south_east.x
    assert north_west.y < south_east.y
    for dot in made.dots:
        assert dot.radius <= dot.x <= made.width - dot.radius
        assert dot.radius <= dot.y <= made.height - dot.radius
    assert north_west.address == "/site/1"


def test_dense_sites_are_one_dot_with_their_number_and_the_worst_of_their_states() -> None:
    near = [point(number, 51.45 + number * 1e-6, 7.1, SiteHealth.FRESH) for number in range(20)]
    late = point(20, 51.45, 7.1, SiteHealth.LATE)
    far = point(21, 51.6, 7.4, SiteHealth.BARE)
    dots = drawn(*near, late, far).dots
    assert sorted(dot.count for dot in dots) == [1, 21]
    dense = max(dots, key=lambda dot: dot.count)
    assert (dense.health, dense.address) == (SiteHealth.LATE, "/part")


def test_scale_bar_is_as_long_as_it_says() -> None:
    """Against the length of a degree of longitude: 111.32 km · cos(latitude)."""
    made = drawn(point(1, 51.40, 7.10, SiteHealth.FRESH), point(2, 51.40, 7.30, SiteHealth.FRESH))
    west, east = sorted(made.dots, key=lambda dot: dot.x)
    metres_per_unit = 0.2 * 111_320 * 0.62388 / (east.x - west.x)
    assert made.scale is not None
    assert made.scale.length * metres_per_unit == pytest.approx(made.scale.metres, rel=0.01)
    assert str(made.scale.metres)[0] in "125"


def test_single_site_and_none_are_drawn_too() -> None:
    (dot,) = drawn(point(1, 51.40, 7.10, SiteHealth.NEVER_SEEN)).dots
    assert 0 < dot.x < 640
    addresses = Addresses(lambda _: "", lambda _: "")
    assert draw_map(SiteMap(0, None), addresses).dots == ()


def test_new_site_made_by_a_service_is_on_the_public_map_only_when_it_is_public(
    planner: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        for code, is_public in (("seen", True), ("hidden", False)):
            new = NewSite(code, f"Site {code}", "tree", 51.47, 7.2)
            sites.create_site(session, new, is_public=is_public, now=NOON)
    settings = planner.application.config["FLEET_SETTINGS"]
    engine = sessions.kw["bind"]
    city = World(engine, sessions, str(engine.url), settings.data_dir).app(demo=False)
    page = city.test_client().get("/?text=Site").text
    assert "Site seen" in page
    assert "Site hidden" not in page
    assert "<circle" in page
    assert "<circle" not in city.test_client().get("/?text=hidden").text
    with sessions() as session:
        sites.close_site(session, site_with(sessions, "seen").id, now=NOON)
    assert "Site seen" not in city.test_client().get("/?text=seen").text


GERMAN = {"Accept-Language": "de"}
REFUSED = {
    "a site that is used": ("/fleet/sites/1/close", {}, "bauen Sie ihn erst ab"),
    "a place in its own words": (
        "/fleet/sites/new",
        {"code": "x", "name": "X", "kind": "tree", "epsg": "25832", "x": "51.48", "y": "7.21"},
        "kann nicht sein: das sieht nach Grad aus; sagen Sie, dass die Datei in EPSG:4326 ist.",
    ),
    "a word within": (
        "/fleet/sites/new",
        {"code": "x" * 65, "name": "X", "kind": "tree", "epsg": "4326", "x": "7.21", "y": "51.48"},
        "Zu lang oder nicht druckbar: Code eines Messorts, höchstens 64 Zeichen.",
    ),
    "states, and what brings them": (
        "/fleet/nodes/n-000001/state",
        {"state": "enrolled"},
        "„aufgenommen“ wird n-000001 durch das Ende seines Einsatzes, nicht von selbst. "
        "Er kann werden: in Wartung,",
    ),
    "a time of the city's clock": (
        "/field/nodes/n-000001/mount",
        {"site_code": "n-000001-site"},
        "ist seit 01.06.2026, 14:00 an einem Messort; beenden Sie erst diesen Einsatz.",
    ),
    "a site that is none": ("/fleet/sites/999999/close", {}, "Es gibt keinen Messort 999999."),
    "an address that is none": ("/fleet/sites/1/open", {}, "Unter dieser Adresse gibt es nichts."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_german_is_told_in_german_why_something_is_refused(planner: FlaskClient, case: str) -> None:
    path, fields, sentence = REFUSED[case]
    token = csrf_token(planner.get("/fleet/sites/new").text)
    answer = planner.post(path, data={"csrf_token": token, **fields}, headers=GERMAN)
    assert answer.status_code >= 400
    assert sentence in answer.text


def test_rows_of_a_file_are_refused_in_german(planner: FlaskClient) -> None:
    path = "/fleet/sites/import"
    token = csrf_token(planner.get(path).text)
    file = (io.BytesIO(b"code;x;y;Pflanzjahr\na;376136;5704913;bald\n"), "a.csv")
    data = {"csrf_token": token, "file": file, "kind": "tree"}
    preview = planner.post(path, data=data, headers=GERMAN)
    assert "Keine Zahl (Pflanzjahr): „bald“." in preview.text


def test_page_of_a_site_shows_its_days_with_band_and_the_way_to_their_values(
    sessions: sessionmaker[Session], planner: FlaskClient
) -> None:
    with sessions() as session:
        world = Thermometer.__new__(Thermometer)
        world.session, world.node = session, SimulatedNode()
        world.send(range(1, 61))
        world.judge()
        world.aggregate()
        site_id = session.scalars(
            select(Datastream.site_id).where(Datastream.level == "daily")
        ).one()
    page = planner.get(f"/fleet/sites/{site_id}").text
    assert page.count('class="band"') == page.count('class="line-after"') == 1
    assert "1 Jul 2026" in page
    assert "39 %" in page
    assert "2026-06-30T22:00:00Z%20and%20phenomenonTime%20lt%202026-07-01T22:00:00Z" in page
    (mean,) = re.findall(r'/fleet/observations/\d+(?=" title="[^"]*">1 Jul 2026<)', page)
    told = planner.get(mean).text
    assert "Made of other values" in told
    assert "mean of a local day" in told
    assert all(f"<dt>{word}</dt>" in told for word in ("Lowest", "Highest", "Complete"))
    assert "<dd>39 %</dd>" in told
    assert "Mittel eines Tages" in planner.get(mean, headers={"Accept-Language": "de"}).text
    german = planner.get(f"/fleet/sites/{site_id}", headers={"Accept-Language": "de"}).text
    assert "Nach Tagen" in german


def test_line_through_days_is_cut_where_a_day_has_no_value() -> None:
    def day(number: int, value: float | None) -> DayMean:
        begin = NOON + timedelta(days=number)
        return DayMean(number, begin, begin + timedelta(days=1), value, 0.5, 1, value, value, 1.0)

    values = [1.0, 2.0, None, 3.0]
    days = [day(number, value) for number, value in enumerate(values)]
    drawn = draw_days(DaySeries(1, "ph", 0, "pH", days[::-1]))
    assert drawn is not None
    assert len(drawn.lines) == len(drawn.bands) == 2
    assert (drawn.lowest, drawn.highest) == (0.5, 3.5)
    assert draw_days(DaySeries(1, "ph", 0, "pH", [day(0, None)])) is None
