"""Limits on the page: what holds, what others would change, and who set them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON
from flask.testing import FlaskClient
from judged_world import World as Measured
from sqlalchemy import func, select

from fleet_server import clock, db
from fleet_server.models import Role, RuleSet
from fleet_server.services import accounts
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

GERMAN = {"Accept-Language": "de"}
PROPERTY = "/fleet/limits/soil_temperature"
_INPUT = re.compile(r'<input id="([^"]+)" name="([^"]+)" type="text" value="([^"]*)"')
_TICKED = re.compile(r'<input type="checkbox" name="([^"]+)" value="1" checked>')


@pytest.fixture(scope="module")
def world(
    sqlite_databases: SqliteDatabases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        clock.use_clock(f"{int(NOON.timestamp()) + 3 * 86_400}@0x0")
        yield World(engine, db.session_factory(engine), url, tmp_path_factory.mktemp("data"))
        clock.use_clock(clock.REAL)
        engine.dispose()


@pytest.fixture(scope="module")
def page(world: World) -> str:
    with world.sessions() as session:
        measured = Measured(session)
        measured.judge()
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        accounts.create_user(session, "mounter", PASSWORD, now=NOON, roles=[Role.TECHNICIAN])
        return f"/fleet/limits/series/{measured.rows()[0].datastream_id}"


@pytest.fixture(scope="module")
def steward(world: World, page: str) -> FlaskClient:
    client = world.app().test_client()
    log_in(client)
    return client


def _form(client: FlaskClient, page: str) -> dict[str, str]:
    """What a browser would send of the page as it is."""
    text = client.get(page).text
    form = {name: value for _, name, value in _INPUT.findall(text)}
    form |= dict.fromkeys(_TICKED.findall(text), "1")
    return form | {"csrf_token": csrf_token(text), "climatology": ""}


def test_steward_tries_limits_sees_which_flags_would_change_then_puts_them_in_force(
    steward: FlaskClient, world: World, page: str
) -> None:
    form = _form(steward, page)
    assert (form["spike.suspect"], form["spike.within_s"], form["gross.fail_high"]) == (
        "2",
        "180",
        "60",
    )
    same = steward.post(page, data=form | {"do": "try"})
    assert "With these limits 0 of 48 values of the last year" in same.text
    form |= {"spike.suspect": "20,5", "spike.fail": "40", "do": "try"}
    del form["rate.made"]
    tried = steward.post(page, data=form)
    assert tried.status_code == 200
    assert "With these limits 3 of 48 values of the last year" in tried.text
    assert len(re.findall(r'href="/fleet/observations/\d+"', tried.text)) == 3
    assert 'value="20,5"' in tried.text
    german = steward.post(page, data=form, headers=GERMAN).text
    assert (
        "Mit diesen Grenzen bekämen 3 von 48 Werten des letzten Jahres ein anderes Flag." in german
    )
    with world.sessions() as session:
        assert session.scalar(select(func.count()).select_from(RuleSet)) == 0
    refused = steward.post(page, data=form | {"do": "set"})
    assert refused.status_code == 400
    assert "Say why the limits become other ones." in refused.text
    form |= {"do": "set", "reason": "a <b>sunny</b> spot"}
    assert steward.post(page, data=form).status_code == 303
    told = steward.get(page).text
    assert "In force is version 1." in told
    assert f"<strong>1</strong> {USER}" in told
    assert "a &lt;b&gt;sunny&lt;/b&gt; spot" in told
    assert "Spike, suspect from: 2.0 → 20.5" in told
    assert page in steward.get("/fleet/limits").text
    back = _form(steward, page) | {"do": "general", "reason": "no sun"}
    assert steward.post(page, data=back).status_code == 303
    assert "In force are the limits as delivered." in steward.get(page).text


def test_what_are_no_limits_is_refused_in_a_sentence_with_what_was_typed(
    steward: FlaskClient, page: str
) -> None:
    for change, sentence in [
        ({"spike.suspect": "much"}, "Spike, suspect from wants a number."),
        ({"gross.fail_low": "70"}, "gross: suspect must be a span within fail."),
        ({"climatology": "1 366"}, "Write each season in a line of its own"),
        ({"spike.fail": ""}, "rules.spike.fail must be a number."),
        ({"do": "x"}, "Choose what to do."),
    ]:
        refused = steward.post(page, data=_form(steward, page) | {"do": "try"} | change)
        assert refused.status_code == 400, change
        assert sentence in refused.text.replace("&#39;", "'")


def test_propertys_limits_hold_seasons_and_a_test_that_was_switched_off_comes_back(
    steward: FlaskClient,
) -> None:
    form = _form(steward, PROPERTY) | {
        "do": "set",
        "reason": "winter",
        "climatology": "335 59 -5 12",
    }
    del form["exposed.made"]
    assert steward.post(PROPERTY, data=form).status_code == 303
    told = steward.get(PROPERTY).text
    assert "335 59 -5 12" in told
    assert 'name="exposed.made" value="1" checked' not in told
    again = _form(steward, PROPERTY) | {"do": "set", "reason": "x", "exposed.made": "1"}
    assert steward.post(PROPERTY, data=again).status_code == 303
    assert 'name="exposed.made" value="1" checked' in steward.get(PROPERTY).text
    assert "Sondenlauf" not in steward.get("/fleet/limits", headers=GERMAN).text


def test_technician_looks_and_sets_nothing(world: World, page: str) -> None:
    client = world.app().test_client()
    log_in(client, name="mounter")
    assert 'value="set"' not in client.get(page).text
    assert "fieldset disabled" in client.get(page).text
    token = csrf_token(client.get("/fleet/").text)
    for address in (page, PROPERTY):
        assert client.post(address, data={"csrf_token": token, "do": "set"}).status_code == 403
    assert client.get("/fleet/limits/wind").status_code == 404
    assert client.get("/fleet/limits/series/4000000").status_code == 404
