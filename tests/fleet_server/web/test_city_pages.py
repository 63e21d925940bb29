"""The offices' pages: today's decisions first, unknown named, each with its reason; in both languages, on paper, and only for who is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from city_world import SOUND, WET, City
from databases import SqliteDatabases, hurried_engine
from factories import NOON
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import Role, Scope
from fleet_server.services import accounts
from tests.fleet_server.small_world import HOSTILE, PASSWORD, USER
from tests.fleet_server.world_fixtures import World, log_in, operator_at

GERMAN = {"Accept-Language": "de"}


@pytest.fixture(scope="module")
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """Five trees and two ponds of which the worker made states at noon."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        made = db.session_factory(engine)
        with made() as session:
            accounts.create_user(session, USER, PASSWORD, now=NOON)
            _build(City(session))
        yield made
        engine.dispose()


def _build(city: City) -> None:
    for code, value in (("gut", 10.0), ("mittel", 60.0), ("duerr", 90.0), ("stumm", None)):
        site = city.add_site(code, planted_year=2000, tree_group=code, is_group_reference=True)
        city.measure(site, dict.fromkeys(WET, value), u=3.0)
    city.bare_site("nachbar", planted_year=2000, tree_group="mittel", description=HOSTILE)
    pond = city.add_site("teich", "pond-1")
    city.measure(pond, {**SOUND, ("dissolved_oxygen", 0): 2.5}, count=3)
    city.measure(city.add_site("weiher", "pond-1"), SOUND, count=3)
    city.look()


@pytest.fixture(scope="module")
def office(
    sessions: sessionmaker[Session], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    yield from operator_at(NOON + timedelta(minutes=1), sessions, tmp_path_factory.mktemp("files"))


def plain(page: str) -> str:
    """What a reader reads."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.partition("<main")[2]))


def test_the_driest_tree_is_first_and_unknown_is_named_before_good(office: FlaskClient) -> None:
    page = plain(office.get("/city/trees").text)
    headings = [
        "✕ critical: Water it first.",
        "▲ moderate: It gets dry: on the next round.",
        "? unknown: Nobody can say: look what is wrong.",
        "✓ good: It has water.",
    ]
    places = [page.index(heading) for heading in headings]
    assert places == sorted(places)
    for name, place, following in zip(
        ("Site duerr", "Site mittel", "Site stumm", "Site gut"),
        places,
        [*places[1:], len(page)],
        strict=True,
    ):
        assert name in page[place:following]
    assert "Soil water tension at 60 cm is 90 kPa ± 6 kPa, above 80 kPa." in page
    assert "Soil water tension at 60 cm: the last usable reading is 390 days old." in page
    assert "Site teich" not in page


def test_an_inferred_tree_says_so_and_what_it_may_be(office: FlaskClient) -> None:
    page = plain(office.get("/city/trees?state=moderate").text)
    assert page.count("Site nachbar") == 1
    assert "inferred, not measured here" in page
    assert "within its uncertainty it may be critical" in page
    assert "Inferred from another tree of its group." in page


def test_a_water_that_calls_for_somebody_is_first_with_its_reason(office: FlaskClient) -> None:
    page = plain(office.get("/city/waters").text)
    assert page.index("✕ alarm: Act before tonight.") < page.index("✓ good: Nothing is to be done.")
    assert "Dissolved oxygen is 2.5 mg/L ± 0.2 mg/L, below 3 mg/L." in page


def test_the_same_in_german(office: FlaskClient) -> None:
    page = plain(office.get("/city/waters", headers=GERMAN).text)
    assert "✕ Alarm: Vor der Nacht handeln." in page
    assert "Gelöster Sauerstoff: 2,5 mg/L ± 0,2 mg/L, unter 3 mg/L." in page
    trees = plain(office.get("/city/trees", headers=GERMAN).text)
    assert "✕ kritisch: Zuerst gießen." in trees


def test_a_page_may_be_narrowed_to_a_state_and_to_no_other_word(office: FlaskClient) -> None:
    page = plain(office.get("/city/trees?state=critical").text)
    assert "Site duerr" in page
    assert "Site gut" not in page
    wrong = office.get("/city/trees?state=alarm")
    assert (wrong.status_code, "state wants one of critical, moderate" in wrong.text) == (400, True)


def test_on_paper_there_is_one_line_for_every_site(office: FlaskClient) -> None:
    page = office.get("/city/trees?view=print").text
    assert page.count("<tr><td ") == 5
    assert plain(page).index("Site duerr") < plain(page).index("Site gut")


def test_what_nobody_has_looked_at_for_a_while_is_said_to_be_perhaps_over(
    office: FlaskClient,
) -> None:
    assert 'role="alert"' not in office.get("/city/trees").text
    clock.use_clock(f"{int((NOON + timedelta(minutes=16)).timestamp())}@0x0")
    try:
        page = office.get("/city/trees").text
    finally:
        clock.use_clock(f"{int((NOON + timedelta(minutes=1)).timestamp())}@0x0")
    assert "what stands here may be over" in page
    assert 'role="alert"' in page


def test_a_site_s_own_page_has_its_state(office: FlaskClient) -> None:
    address = re.search(r'href="(/fleet/sites/\d+)">Site duerr', office.get("/city/trees").text)
    assert address
    page = plain(office.get(address[1]).text)
    assert "✕ critical" in page
    assert "is 90 kPa ± 6 kPa, above 80 kPa." in page


def test_without_login_there_is_only_the_way_to_it(office: FlaskClient) -> None:
    answer = office.application.test_client().get("/city/waters")
    assert (answer.status_code, answer.headers["Location"].startswith("/login")) == (302, True)


def test_an_office_sees_its_own_decisions_and_no_link_to_others(
    office: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        accounts.create_user(
            session, "baumamt", PASSWORD, now=NOON, roles=[Role.TREES_OFFICE], scope=Scope.TREES
        )
    trees = office.application.test_client()
    log_in(trees, name="baumamt")
    page = trees.get("/city/trees")
    assert page.status_code == 200
    assert "/city/waters" not in page.text
    assert trees.get("/city/waters").status_code == 404
    assert trees.get("/city/waters?state=alarm").status_code == 404


def test_a_page_takes_a_fixed_number_of_statements(
    office: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    world = World(sessions.kw["bind"], sessions, "", None)  # type: ignore[arg-type] # only to count
    with world.statements() as few:
        office.get("/city/trees?state=good")
    with world.statements() as many:
        office.get("/city/trees")
    assert len(few) == len(many)
