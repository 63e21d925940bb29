"""An operator groups nodes, wants settings of many, follows the waves, and orders commands, in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from databases import hurried_engine
from factories import NOON, register_node
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.models import Role
from fleet_server.services import accounts, commanding, staging
from tests.fleet_server.services.fleet_of_nodes import connect
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World

GERMAN = {"Accept-Language": "de"}
HOSTILE = "<b>east</b>"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, sqlite_databases: Any) -> Iterator[World]:
    """Three nodes at trees and one at a pond, an operator, and somebody who looks on."""
    from fleet_server import db

    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        sessions: sessionmaker[Session] = db.session_factory(engine)
        with sessions() as session:
            accounts.create_user(session, USER, PASSWORD, now=NOON, roles=[Role.OPERATOR])
            accounts.create_user(session, "second", PASSWORD, now=NOON, roles=[Role.OPERATOR])
            accounts.create_user(session, "looker", PASSWORD, now=NOON, roles=[Role.AUDITOR])
            for number in (1, 2, 3):
                register_node(session, f"n-{number:06x}", label=f"tree-0{number}")
            register_node(session, "n-000004", label="pond-04", model="pond-1")
        clock.use_clock(f"{int(NOON.timestamp())}@0x0")
        yield World(engine, sessions, url, tmp_path_factory.mktemp("changes"))
        clock.use_clock(clock.REAL)
        engine.dispose()


def browser(world: World, name: str) -> FlaskClient:
    return world.program(name, demo=False, approval_above=2)


@pytest.fixture(scope="module")
def anna(world: World) -> FlaskClient:
    return browser(world, USER)


def numbers(page: str) -> list[str]:
    """What the tally of a preview says."""
    return re.findall(r"<li><b>(\d+)</b>", page)


def test_a_group_gets_a_setting_in_waves_with_a_second_persons_approval(
    world: World, anna: FlaskClient
) -> None:
    made = anna.post("/fleet/groups", data={"name": HOSTILE, "site_kind": "tree", "priority": "1"})
    group = made.headers["Location"]
    page = anna.get(group).text
    assert "tree-02" in page
    assert HOSTILE not in page
    assert "nach Regel" in anna.get(group, headers=GERMAN).text

    wish = {"layer": f"group {group.rsplit('/', 1)[1]}", "settings": "sample_s=300\nlow_mv=3300"}
    preview = anna.post("/fleet/configuration/preview", data=wish).text
    assert numbers(preview) == ["3", "0", "0", "0"]
    assert "need somebody else" in preview
    assert "There was no change yet." in anna.get("/fleet/configuration").text
    proposed = anna.post(
        "/fleet/configuration/changes", data={**wish, "canaries": "1", "soak_hours": "0"}
    )
    change = proposed.headers["Location"]
    assert "awaits approval" in anna.get(change).text
    assert anna.post(f"{change}/approve").status_code == 403
    assert browser(world, "second").post(f"{change}/approve").status_code == 303
    with world.sessions() as session:
        staging.advance_all(session, now=NOON)
        assert re.search(r'data-label="Told" class="right">1<', anna.get(change).text)
        connect(session, [f"n-{number:06x}" for number in (1, 2, 3)], NOON)
    drift = anna.get("/fleet/drift?model=pond-1").text
    assert "pond-04" in drift
    assert "tree-01" not in drift
    assert anna.get("/fleet/drift?reason=bored").status_code == 400
    assert "wird beobachtet" not in anna.get(change, headers=GERMAN).text
    assert anna.post(f"{change}/pause").status_code == 303
    assert "angehalten" in anna.get("/fleet/configuration", headers=GERMAN).text
    assert anna.post(f"{change}/roll_back").status_code == 303
    with world.sessions() as session:
        staging.advance_all(session, now=NOON)
    assert "taken back" in anna.get(change).text


def test_a_wish_that_cannot_be_is_told_beside_the_form_and_what_was_typed_stays(
    anna: FlaskClient,
) -> None:
    for typed, says in (
        ("sample_s=5", "sample_s must be a whole number from 60"),
        ("sample_s", "is not NAME=VALUE"),
        ("", "Name a setting"),
        ('wifi=[["a", "geheimnis"]]', "Wi-Fi networks are given with --wifi-file"),
    ):
        for address in ("preview", "changes"):
            answer = anna.post(
                f"/fleet/configuration/{address}", data={"layer": "model tree-3", "settings": typed}
            )
            assert answer.status_code == 400
            assert says in answer.text
    assert "Say whose settings" in anna.post("/fleet/configuration/preview", data={}).text


def test_a_nodes_page_says_who_wants_each_setting_and_takes_wishes_and_commands(
    world: World, anna: FlaskClient
) -> None:
    node = "/fleet/nodes/n-000004"
    assert anna.post(f"{node}/configuration", data={"settings": "low_mv=3300"}).status_code == 303
    anna.post(f"{node}/tags", data={"tag": "young"})
    page = anna.get(node).text
    assert re.search(r"low_mv</th><td[^>]*>3300</td><td[^>]*>this node<", page)
    assert re.search(r"sample_s</th><td[^>]*>900</td><td[^>]*>model pond-1, as provisioned<", page)
    assert "young" in page
    german = anna.get(node, headers=GERMAN).text
    assert "Modell pond-1, wie ausgeliefert" in german
    assert anna.post(f"{node}/commands", data={"name": "reboot"}).status_code == 400
    assert (
        anna.post(f"{node}/commands", data={"name": "factory_reset", "yes": "1"}).status_code == 303
    )
    typed = {"name": "resend", "arguments": "from=1\nto=7"}
    assert anna.post(f"{node}/commands", data=typed).status_code == 303
    with world.sessions() as session:
        orders = commanding.pending_orders(session, ["n-000004"], now=NOON)["n-000004"]
    by_name = {one["name"]: one for one in orders}
    assert by_name["factory_reset"]["args"] == {"confirm": "n-000004"}
    assert by_name["resend"]["args"] == {"from": 1, "to": 7}
    back = anna.post(
        f"/fleet/commands/{by_name['resend']['id']}/cancel", data={"node_id": "n-000004"}
    )
    assert back.headers["Location"].endswith("/fleet/nodes/n-000004#commands")
    assert "taken back" in anna.get(node).text


def test_many_nodes_are_told_after_a_look_at_how_many(anna: FlaskClient) -> None:
    typed = {"name": "self_test", "site_kind": "tree"}
    assert "Say which nodes" in anna.post("/fleet/commands/preview", data={"name": "reboot"}).text
    preview = anna.post("/fleet/commands/preview", data=typed).text
    assert "told to 3 nodes" in preview
    form = preview[preview.index('action="/fleet/commands"') :].partition("</form>")[0]
    sent = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
    sent.pop("csrf_token")
    assert sent == {**typed, "confirmed_nodes": "3"}
    for other in ({"confirmed_nodes": "2"}, {"site_kind": "water"}, {"confirmed_nodes": ""}):
        refused = anna.post("/fleet/commands", data={**sent, **other})
        assert (refused.status_code, "confirm that number" in refused.text) == (400, True)
    listed = anna.get(anna.post("/fleet/commands", data=sent).headers["Location"]).text
    assert listed.count("self_test</th>") == 3
    assert anna.get("/fleet/commands?state=answered").text.count("self_test</th>") == 0
    assert anna.get("/fleet/commands?state=asleep").status_code == 400


def test_who_may_only_look_is_offered_no_form(world: World) -> None:
    looker = browser(world, "looker")
    for address in ("configuration", "groups", "commands", "drift", "nodes/n-000001"):
        page = looker.get(f"/fleet/{address}")
        assert page.status_code == 200
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]+)"', page.text)
        assert forms == ["/logout"]
