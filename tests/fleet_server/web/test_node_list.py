"""The operator's list of nodes: filters in the address, page by page, kept views, and the same done to many."""

from __future__ import annotations

import html
import re

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role
from fleet_server.services import accounts, grouping
from fleet_server.services.selecting import Selection
from fleet_server.web import node_list
from tests.fleet_server import small_world
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World, csrf_token


@pytest.fixture(scope="module")
def operator(sqlite_world: World) -> FlaskClient:
    with sqlite_world.sessions() as session:
        group = grouping.create_group(session, "inner city", now=NOW)
        grouping.add_members(session, group.id, Selection(node_ids=("n-000001",)), now=NOW)
        grouping.tag_nodes(session, Selection(node_ids=("n-000003",)), "shade", now=NOW)
    return sqlite_world.browser()


def _nodes(page: str) -> list[str]:
    return re.findall(r'href="/fleet/nodes/(n-[0-9a-f]+)"', page)


def _follow(page: str, words: str) -> str:
    found = re.search(rf'<a href="([^"]+)">{words}', page)
    assert found, words
    return html.unescape(found[1])


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["n-000003", "n-000002", "n-000001"]),
        ("sort=-label", ["n-000001", "n-000002", "n-000003"]),
        ("health=fresh", ["n-000002"]),
        ("health=troubled&model=tree-3", ["n-000003", "n-000001"]),
        ("health=offline", []),
        ("label=pond", ["n-000002"]),
        ("site=kortum&label=&model=", ["n-000001"]),
        ("heard_before=2026-07-14T12:00:00Z", []),
        ("heard_before=2026-07-14T13:59", []),  # by the city's clock, as a browser's field says it
        ("heard_before=2026-07-14T14:01", ["n-000003", "n-000002", "n-000001"]),
        ("group=inner city", ["n-000001"]),
        ("group=nobody", []),
        ("tag=shade", ["n-000003"]),
    ],
)
def test_filters_stand_in_the_address(operator: FlaskClient, query: str, ids: list[str]) -> None:
    assert _nodes(operator.get(f"/fleet/?{query}").text) == ids


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("colour=red", "colour is no filter of nodes; known are model"),
        ("health=unwell", "health wants one of fresh, troubled"),
        ("battery_below_mv=-1", "battery_below_mv wants a whole number"),
        ("heard_before=noon", "heard_before wants a time like"),
        ("after=nonsense", "after wants what the page before gave"),
        ("label=%00", "has a NUL"),
    ],
)
def test_filter_that_cannot_be_is_one_sentence(
    operator: FlaskClient, query: str, says: str
) -> None:
    answer = operator.get(f"/fleet/?{query}")
    assert answer.status_code == 400
    assert says in html.unescape(answer.text)


def test_list_goes_on_page_by_page_with_its_filters(
    operator: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_list, "PAGE_SIZE", 1)
    first = operator.get("/fleet/?model=tree-3&sort=-label").text
    following = _follow(first, "More nodes")
    second = operator.get(following).text
    assert [_nodes(first), _nodes(second)] == [["n-000001"], ["n-000003"]]
    assert "More nodes" not in second
    assert _nodes(operator.get(_follow(second, "← To the beginning")).text) == ["n-000001"]


def test_view_is_kept_shown_to_whom_it_is_for_and_taken_away(
    sqlite_world: World, operator: FlaskClient
) -> None:
    with sqlite_world.sessions() as session:
        accounts.create_user(session, "tom", small_world.PASSWORD, now=NOW, roles=[Role.OPERATOR])
    other = sqlite_world.browser("tom")
    token = csrf_token(operator.get("/fleet/").text)
    query = "model=pond-1&label=pond"
    for name, more in (("my ponds", {}), ("all ponds", {"is_shared": "on"})):
        kept = operator.post(
            "/fleet/views", data={"csrf_token": token, "name": name, "query": query, **more}
        )
        assert kept.status_code == 303
        assert kept.headers["Location"] == f"/fleet/?{query}"
    page = operator.get("/fleet/").text
    assert f'href="/fleet/?{html.escape(query)}">my ponds' in page
    seen = other.get("/fleet/").text
    assert "all ponds" in seen
    assert "my ponds" not in seen
    forget = _forget_address(page)
    strange = other.post(forget, data={"csrf_token": csrf_token(seen)})
    assert strange.status_code == 404
    assert operator.post(forget, data={"csrf_token": token}).status_code == 303
    assert len(re.findall("/forget", operator.get("/fleet/").text)) == 1


def _forget_address(page: str) -> str:
    return re.findall(r'action="(/fleet/views/\d+/forget)"', page)[0]


@pytest.mark.parametrize("name", ["", " ", "x" * 61, "a\nb"])
def test_view_without_a_name_that_can_be_is_not_kept(operator: FlaskClient, name: str) -> None:
    token = csrf_token(operator.get("/fleet/").text)
    answer = operator.post("/fleet/views", data={"csrf_token": token, "name": name, "query": ""})
    assert answer.status_code == 400


def test_filter_stays_in_its_field_in_words_of_the_reader(operator: FlaskClient) -> None:
    page = operator.get(
        "/fleet/?heard_before=2026-07-14T12:00:00Z&state=enrolled",
        headers={"Accept-Language": "de"},
    ).text
    assert 'type="datetime-local" value="2026-07-14T14:00"' in page
    assert '<option value="enrolled" selected>aufgenommen</option>' in page


def _many(operator: FlaskClient, **form: object) -> str:
    token = csrf_token(operator.get("/fleet/").text)
    return operator.post(
        "/fleet/many", data={"csrf_token": token, **form}, follow_redirects=True
    ).text


def _rehearsed(page: str) -> dict[str, object]:
    """What the page's form would send to have done what it says."""
    (tag,) = re.findall(r'name="rehearsed" value="([^"]+)"', page)
    node_ids = re.findall(r'name="node_id" value="([^"]+)"', page)
    return {"confirmed": "yes", "rehearsed": tag, "node_id": node_ids}


def _publish_s(operator: FlaskClient, node_id: str) -> int:
    found = operator.get(f"/api/v1/nodes/{node_id}/configuration").get_json()
    return int(found["settings"]["publish_s"])


def test_many_are_rehearsed_before_they_are_changed(operator: FlaskClient) -> None:
    wanted = {"action": "publish_s", "value": "7200"}
    rehearsed = _many(operator, which="found", query="model=tree-3", **wanted)
    assert "This was a rehearsal" in rehearsed
    assert _publish_s(operator, "n-000001") == 3600
    confirmed = _rehearsed(rehearsed)
    assert sorted(confirmed["node_id"]) == ["n-000001", "n-000003"]
    assert "done to 2 nodes" in _many(operator, **confirmed, **wanted)
    assert _publish_s(operator, "n-000001") == 7200
    assert "are so already" in _many(operator, node_id=confirmed["node_id"], **wanted)


def test_exactly_what_was_rehearsed_is_done_or_nothing(operator: FlaskClient) -> None:
    wanted = {"action": "publish_s", "value": "5400"}
    confirmed = _rehearsed(_many(operator, node_id=["n-000001", "n-000003"], **wanted))
    alone = _many(operator, node_id="n-000003", **wanted)
    assert "done to 1 nodes" in _many(operator, **_rehearsed(alone), **wanted)
    outdated = _many(operator, **confirmed, **wanted)  # n-000003 is so already
    assert "nothing was done. Look once more" in outdated
    assert _publish_s(operator, "n-000001") == 7200
    assert "done to 1 nodes" in _many(operator, **_rehearsed(outdated), **wanted)
    assert _publish_s(operator, "n-000001") == 5400
    assert "This was a rehearsal" in _many(operator, **confirmed, **{**wanted, "value": "9000"})


def test_rehearsal_says_when_one_person_alone_may_not(sqlite_world: World) -> None:
    strict = sqlite_world.browser(demo=False, approval_above=1)
    both = ["n-000001", "n-000003"]
    page = html.unescape(_many(strict, node_id=both, action="publish_s", value="600"))
    assert "2 nodes are more than 1: put them into a group" in page
    assert 'name="confirmed"' not in page
    forced = {"confirmed": "yes", "rehearsed": "x", "node_id": both}
    _many(strict, **forced, action="publish_s", value="600")
    assert _publish_s(strict, "n-000001") != 600


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"action": "reboot"}, "No node is chosen"),
        ({"action": "explode", "node_id": "n-000001"}, "action wants one of identify"),
        ({"action": "publish_s", "value": "soon", "node_id": "n-000001"}, "whole number"),
        ({"action": "reboot", "node_id": "n-nobody"}, "There is no node n-nobody"),
        ({"action": "reboot", "node_id": "n-00000a"}, "There is no node n-00000a"),
        ({"action": "reboot", "node_id": "n-\0" + "x" * 9000}, "There is no node n-"),
        ({"action": "reboot", "which": "found", "query": "colour=red"}, "colour is no filter"),
        ({"action": "reboot", "node_id": [f"n-{n:06x}" for n in range(1001)]}, "At most 1000"),
    ],
)
def test_what_cannot_be_done_to_many_is_one_sentence(
    operator: FlaskClient, form: dict[str, str], says: str
) -> None:
    assert says in html.unescape(_many(operator, **form))
