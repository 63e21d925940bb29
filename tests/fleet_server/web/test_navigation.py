"""The head of every page: one line of links and a menu, both without any script; each page says where one is."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role
from fleet_server.services import accounts
from fleet_server.web import navigation
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World, csrf_token, log_in


@pytest.fixture(scope="module")
def anna(sqlite_world: World) -> FlaskClient:
    """An administrator."""
    return sqlite_world.browser()


def _head(page: str) -> str:
    return page[page.index("<header") : page.index("</header>")]


def _current(page: str) -> set[str]:
    """Addresses of the links of the head that say: one is here."""
    return set(re.findall(r'href="([^"]+)"[^>]* aria-current="page"', _head(page)))


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/", "/"),
        ("/fleet/", "/fleet/"),
        ("/fleet/nodes/n-000001", "/fleet/"),
        ("/fleet/packs/1", "/fleet/"),
        ("/fleet/alerts/settings", "/fleet/alerts"),
        ("/fleet/sites/1/edit", "/fleet/sites"),
        ("/field/", "/field/"),
        ("/field/nodes/n-000001/swap", "/field/"),
        ("/field/work/new", "/field/work"),
        ("/fleet/people/1", "/fleet/people"),
        ("/fleet/account/second-factor", "/fleet/account"),
        ("/api/docs", "/api/docs"),
    ],
)
def test_page_says_in_its_head_where_one_is(anna: FlaskClient, path: str, place: str) -> None:
    assert _current(anna.get(path).text) == {place}


def test_page_that_answers_a_form_stands_where_the_form_was(anna: FlaskClient) -> None:
    token = csrf_token(anna.get("/fleet/groups").text)
    answer = anna.post("/fleet/groups", data={"csrf_token": token, "name": ""})
    assert answer.status_code == 400
    assert _current(answer.text) == {"/fleet/groups"}


def test_each_link_stands_in_the_bar_or_in_the_menu_and_leads_somewhere(anna: FlaskClient) -> None:
    head = _head(anna.get("/fleet/").text)
    bar, menu = head.split("<details")
    short = re.findall(r'<li><a href="([^"]+)"', bar)
    assert len(short) == 3  # what a phone has room for
    for group in navigation.GROUPS:
        for link in group.links:
            assert f">{link.word}</a>" in (bar if link.is_short else menu)
    for address in re.findall(r'<a href="([^"]+)"', menu):
        assert anna.get(address).status_code == 200


def test_who_may_not_is_offered_no_link(sqlite_world: World) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(session, "tim", small_world.PASSWORD, now=NOW, roles=[Role.TECHNICIAN])
    technician = sqlite_world.app().test_client()
    stranger = _head(technician.get("/").text)
    assert re.findall(r'<li[^>]*><a href="([^"]+)"', stranger) == ["/"]
    log_in(technician, name="tim")
    head = _head(technician.get("/fleet/").text)
    assert "/fleet/drift" in head
    for address in ("/fleet/people", "/fleet/tokens", "/fleet/audit"):
        assert f'href="{address}"' not in head
