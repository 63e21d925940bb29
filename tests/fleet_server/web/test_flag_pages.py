"""A series' flags on the page: why values are not good, and what a steward says of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON
from flask.testing import FlaskClient
from judged_world import SPIKE_AT, STEP_S
from judged_world import World as Measured

from fleet_server import db
from fleet_server.models import Role
from fleet_server.services import accounts
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

GERMAN = {"Accept-Language": "de"}


@pytest.fixture(scope="module")
def world(
    sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        yield World(engine, db.session_factory(engine), url, tmp_path_factory.mktemp("data"))
        engine.dispose()


@pytest.fixture(scope="module")
def page(world: World) -> str:
    with world.sessions() as session:
        measured = Measured(session)
        measured.judge()
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        accounts.create_user(session, "mounter", PASSWORD, now=NOON, roles=[Role.TECHNICIAN])
        return f"/fleet/flags/{measured.rows()[0].datastream_id}"


@pytest.fixture(scope="module")
def steward(world: World, page: str) -> FlaskClient:
    client = world.app().test_client()
    log_in(client)
    return client


def test_page_tells_why_a_value_is_not_good_in_both_languages(
    steward: FlaskClient, page: str
) -> None:
    english = steward.get(page).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "It rose 8 °C in 15 min; at most 0.75 °C is believed." in english
    german = steward.get(page, headers=GERMAN).text.replace("\N{NO-BREAK SPACE}", " ")
    assert "Er stieg um 8 °C in 15 min; geglaubt wird höchstens 0,75 °C." in german


def test_steward_says_something_and_what_is_none_is_refused_with_what_was_typed(
    steward: FlaskClient, page: str
) -> None:
    at = NOON + timedelta(seconds=STEP_S * SPIKE_AT)
    form = {
        "csrf_token": csrf_token(steward.get(page).text),
        "from": f"{at - timedelta(hours=1):%Y-%m-%dT%H:%M}Z",
        "to": f"{at + timedelta(hours=1):%Y-%m-%dT%H:%M}Z",
        "flag": "bad",
        "reason": "the sun & <b>more</b>",
    }
    for change, sentence in [
        ({"flag": "x"}, "Choose what you say of the values."),
        ({"reason": " "}, "Say why; it is kept with the flag."),
        ({"from": ""}, "Say from when on."),
        ({"to": form["from"]}, "A range ends after it begins."),
    ]:
        refused = steward.post(page, data=form | change)
        assert refused.status_code == 400
        assert sentence in refused.text
    assert steward.post(page, data=form).status_code == 303
    told = steward.get(page).text
    assert f"{USER}: the sun &amp; &lt;b&gt;more&lt;/b&gt;" in told
    assert "Nobody said anything of it." not in told


def test_technician_looks_and_says_nothing(world: World, page: str) -> None:
    client = world.app().test_client()
    log_in(client, name="mounter")
    assert 'id="say"' not in client.get(page).text
    token = csrf_token(client.get("/fleet/").text)
    assert client.post(page, data={"csrf_token": token}).status_code == 403
    assert client.get("/fleet/flags/4000000").status_code == 404
