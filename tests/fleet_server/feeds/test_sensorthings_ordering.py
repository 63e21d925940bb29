"""`$orderby` on every entity set: any properties, any page size, and the pages are one plain sort of the whole."""

from __future__ import annotations

import base64
import json
import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from factories import deployed_node
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from fleet_server import db
from fleet_server.feeds.sensorthings.entities import SETS
from fleet_server.feeds.sensorthings.paths import ENTITY_SETS, NAVIGATION
from fleet_server.services import deploying
from tests.fleet_server import small_world
from tests.fleet_server.world_fixtures import World

_GUIDE = Path(__file__).parents[3] / "docs" / "city" / "reading_the_feed.md"
_LONG = "ü" * 2000
_SITES = (
    # code, name, description: names that are equal, that begin equally for longer than an order looks, and that differ in case
    ("twin-1", "Ehrenfeld", ""),
    ("twin-2", "Ehrenfeld", "Ehrenfeld"),
    ("umlaut", "Ährenweg", _LONG + "b"),
    ("case", "ehrenfeld", _LONG + "a"),
    ("quote", "O'Hara \\ 50 %", "😀" * 300),
    ("long-1", _LONG + "b", "same"),
    ("long-2", _LONG + "a", "same"),
)
_WEEK = "phenomenonTime ge 2026-07-10T00:00:00Z"


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    with world.sessions() as session:
        for code, name, description in _SITES:
            site = deploying.NewSite(code, name[:100], "tree", 51.5, 7.2)
            made = deploying.create_site(session, site, is_public=True, now=small_world.NOW)
            with db.writing(session):  # as long as they could be once
                made.name, made.description = name, description
                session.add(made)
        # Streams without a single observation.
        deployed_node(session, "n-00000a", from_at=small_world.NOW - timedelta(days=1))
    return world.app().test_client()


def get(client: FlaskClient, address: str) -> Any:
    parts = urlsplit(address if address.startswith("http") else f"/v1.1/{address}")
    answer = client.get(f"{parts.path}?{parts.query}")
    assert answer.status_code == 200, (address[:300], answer.text[:300])
    return answer.get_json()


def walk(client: FlaskClient, address: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    link: str | None = address
    while link:
        page = get(client, link)
        found += page["value"]
        link = page.get("@iot.nextLink")
    return found


def value_of(entity: dict[str, Any], path: str) -> Any:
    """What the entity shows under a path of `$orderby`; a text as far as an order looks at it."""
    value: Any = entity
    for name in path.split("/"):
        value = value.get("@iot.id" if name == "id" else name)
    return value[:200] if isinstance(value, str) else value


def plainly_sorted(
    entities: list[dict[str, Any]], orders: list[tuple[str, bool]]
) -> list[dict[str, Any]]:
    """By each property in turn, what has no value last, and at the end by id in the last one's direction."""
    done = list(entities)
    last_is_descending = orders[-1][1] if orders else False
    for path, is_descending in reversed([*orders, ("id", last_is_descending)]):
        known = [one for one in done if value_of(one, path) is not None]
        unknown = [one for one in done if value_of(one, path) is None]
        known.sort(key=lambda one: value_of(one, path), reverse=is_descending)
        done = known + unknown
    return done


def as_option(orders: list[tuple[str, bool]]) -> str:
    return ",".join(f"{path} desc" if is_descending else path for path, is_descending in orders)


_COLLECTIONS = (
    *((name, name, "") for name in ENTITY_SETS if name != "Observations"),
    ("Things(1)/Datastreams", "Datastreams", ""),
    ("Observations", "Observations", _WEEK),
    ("Datastreams(4)/Observations", "Observations", ""),
    ("Datastreams(11)/Observations", "Observations", ""),
    ("FeaturesOfInterest(200000)/Observations", "Observations", ""),
)


@st.composite
def _questions(draw: st.DrawFn) -> tuple[str, str, str, list[tuple[str, bool]], int]:
    address, name, where = draw(st.sampled_from(_COLLECTIONS))
    paths = draw(st.lists(st.sampled_from(sorted(SETS[name].attributes)), unique=True, max_size=4))
    orders = [(path, draw(st.booleans())) for path in paths]
    return address, name, where, orders, draw(st.integers(1, 9))


@given(question=_questions())
@example(question=("Datastreams(4)/Observations", "Observations", "", [("result", True)], 9))
@example(question=("Observations", "Observations", _WEEK, [("result", False), ("id", True)], 9))
@example(question=("Datastreams", "Datastreams", "", [("phenomenonTime", True)], 9))
@example(question=("Things", "Things", "", [("name", True), ("description", False)], 9))
def test_pages_of_any_order_are_one_plain_sort(
    client: FlaskClient, question: tuple[str, str, str, list[tuple[str, bool]], int]
) -> None:
    address, name, where, orders, pages = question
    to_one = [one for one, (_, is_many) in NAVIGATION[name].items() if not is_many]
    narrowed = f"$filter={quote(where)}" if where else "$top=1000"
    expanded = f"&$expand={','.join(to_one)}" if to_one else ""
    everything = _everything(client, f"{address}?{narrowed}{expanded}")
    size = max(1, len(everything) // pages)
    asked = f"&$orderby={as_option(orders)}" if orders else ""
    condition = f"&$filter={quote(where)}" if where else ""
    met = walk(client, f"{address}?$select=id&$top={size}{asked}{condition}")
    expected = plainly_sorted(everything, orders)
    assert [one["@iot.id"] for one in met] == [one["@iot.id"] for one in expected]


@cache
def _everything(client: FlaskClient, address: str) -> list[dict[str, Any]]:
    return walk(client, address)


@pytest.mark.parametrize("name", ENTITY_SETS)
def test_every_set_is_ordered_by_its_names_and_ids(client: FlaskClient, name: str) -> None:
    wanted = {"HistoricalLocations": {"time"}, "Observations": {"phenomenonTime", "result"}}
    assert {"id"} | wanted.get(name, {"name", "description"}) <= SETS[name].attributes.keys()


@pytest.mark.parametrize("name", ENTITY_SETS)
def test_guide_names_what_a_set_may_be_ordered_by(name: str) -> None:
    (row,) = re.findall(rf"^\| {name} \|(.*)\|$", _GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", row)) == SETS[name].attributes.keys()


@pytest.mark.parametrize(
    ("parents", "children", "orders"),
    [
        ("Things", "Datastreams", [("name", True)]),
        ("Things", "Datastreams", [("properties/property", False), ("properties/depthCm", True)]),
        ("ObservedProperties", "Datastreams", [("Thing/name", True), ("id", False)]),
        ("Datastreams", "Observations", [("result", True)]),
        ("Datastreams", "Observations", [("phenomenonTime", True)]),
        ("FeaturesOfInterest", "Observations", [("result", False), ("id", True)]),
    ],
)
def test_expanded_children_and_their_next_pages_are_in_the_order_asked_for(
    client: FlaskClient, parents: str, children: str, orders: list[tuple[str, bool]]
) -> None:
    inside = f"$top=3;$orderby={as_option(orders)};$select=id"
    for parent in walk(client, f"{parents}?$expand={children}({inside})")[::2]:
        expected = walk(
            client, f"{parent['@iot.selfLink']}/{children}?$orderby={as_option(orders)}&$select=id"
        )
        assert parent[children] == expected[:3]
        assert (f"{children}@iot.nextLink" in parent) == (len(expected) > 3)
        if len(expected) > 3:
            rest = walk(client, parent[f"{children}@iot.nextLink"])
            assert parent[children] + rest == expected


def test_next_link_of_long_texts_is_short_enough_to_follow(client: FlaskClient) -> None:
    order = "$orderby=description desc,name"
    page = get(client, f"Things?$top=1&{order}")
    lengths = []
    while "@iot.nextLink" in page:
        lengths.append(len(page["@iot.nextLink"]))
        page = get(client, page["@iot.nextLink"])
    assert len(lengths) == len(walk(client, "Things")) - 1
    assert 1000 < max(lengths) < 8000


def test_longest_query_leads_to_a_next_link_that_answers(client: FlaskClient) -> None:
    padding = "&$filter=" + quote("name ne '" + "x" * 3800 + "'")
    assert len(walk(client, f"Things?$top=3{padding}")) == len(walk(client, "Things"))


def test_over_all_streams_result_may_order_a_month_but_not_everything(client: FlaskClient) -> None:
    month = "phenomenonTime ge 2026-06-14T00:00:00Z"
    refused = client.get("/v1.1/Observations?$orderby=result")
    assert refused.status_code == 400
    assert refused.get_json()["detail"] == (
        "$orderby on result wants one Datastream, as in /Datastreams(1)/Observations, or a $filter on "
        "phenomenonTime besides, for at most 31 days."
    )
    for where, status in (
        (month, 200),
        ("phenomenonTime ge 2026-06-12T00:00:00Z", 400),
        ("phenomenonTime ge 2020-01-01 and phenomenonTime lt 2020-02-01", 200),
        ("phenomenonTime ge 2020-01-01 and phenomenonTime lt 2020-02-02", 400),
        ("phenomenonTime eq 2020-01-01", 200),
        ("phenomenonTime lt 2026-07-14", 400),
        ("phenomenonTime ne 2026-07-14", 400),
    ):
        for option in ("&$orderby=result", "&$orderby=resultTime desc,id", ""):
            wanted = where if option else f"{where} and result gt 5"
            answer = client.get(f"/v1.1/Observations?$filter={quote(wanted)}{option}")
            assert answer.status_code == status, (wanted, option)
    # Behind a time, it orders only what was sampled at once.
    assert client.get("/v1.1/Observations?$orderby=phenomenonTime,result").status_code == 200


def _token(values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("address", "values"),
    [
        ("Things?$orderby=name", ["\ud800", 1]),
        ("Things?$orderby=name", ["a\0", 1]),
        ("Things?$orderby=name", [1, 1]),
        ("Things?$orderby=name", ["a"]),
        ("Datastreams(1)/Observations?$orderby=result", [0, 10**400, 1, 1]),
        ("Datastreams(1)/Observations?$orderby=result", [0, float("nan"), 1, 1]),
        ("Datastreams(1)/Observations?$orderby=result", [0, float("inf"), 1, 1]),
        ("Datastreams(1)/Observations?$orderby=result", [0, "1", 1, 1]),
        ("Datastreams(1)/Observations?$orderby=result", [0, 1, 10**30, 1]),
        ("Datastreams?$orderby=phenomenonTime", [0, 2**40, 1, 1]),
        ("Datastreams?$orderby=phenomenonTime", [True, 1, 1, 1]),
        ("Things", {"a": 1}),
    ],
)
def test_page_token_that_no_link_gave_is_refused(
    client: FlaskClient, address: str, values: object
) -> None:
    joint = "&" if "?" in address else "?"
    answer = client.get(f"/v1.1/{address}{joint}$skiptoken={_token(values)}")
    assert answer.status_code == 400, answer.text[:300]
    assert answer.get_json()["detail"] == (
        "$skiptoken is not one that a nextLink of this request gave."
    )
