"""Whatever is asked of the feed, it answers or refuses; it never fails."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.feeds.sensorthings.paths import ENTITY_SETS, NAVIGATION
from tests.fleet_server.world_fixtures import World

ANSWERS = {200, 400, 404, 501}
_NAVIGATIONS = sorted({name for names in NAVIGATION.values() for name in names})
_IDS = st.sampled_from(
    ["(1)", "(0)", "(100030)", "(2983291200)", "(9007199254740991)", "(-1)", "(x)", ""]
)
_NAMES = st.sampled_from(
    [
        "id",
        "name",
        "description",
        "result",
        "phenomenonTime",
        "resultTime",
        "time",
        "@iot.id",
        "properties/kind",
        "properties/depthCm",
        "Thing/name",
        "Datastream/@iot.id",
        "x",
    ]
)
_LITERALS = st.sampled_from(
    [
        "1",
        "-1",
        "1.5",
        "1e300",
        "999999999999999999",
        "'a'",
        "'\0'",
        "'",
        "2026-07-14T12:00:00Z",
        "0001-01-01",
        "null",
    ]
)
_COMPARISONS = st.builds(
    lambda name, operator, literal: f"{name} {operator} {literal}",
    _NAMES,
    st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le", "in"]),
    _LITERALS,
)
_OPTIONS = st.one_of(
    st.builds("$top={}".format, st.integers(-1, 2000)),
    st.builds("$skip={}".format, st.integers(-1, 2**33)),
    st.builds("$count={}".format, st.sampled_from(["true", "false", "x"])),
    st.builds(
        "$orderby={}{}".format,
        st.lists(_NAMES, max_size=3).map(" desc,".join),
        st.sampled_from(["", " desc", " ASC", ",id desc", " x"]),
    ),
    st.builds(
        "$filter={}".format, st.lists(_COMPARISONS, min_size=1, max_size=3).map(" and ".join)
    ),
    st.builds("$select={}".format, st.lists(_NAMES, max_size=3).map(",".join)),
    st.builds(
        "$skiptoken={}".format,
        st.sampled_from(["WzFd", "WzEsMV0", "WyJhIl0", "W251bGxd", "WzFlOTk5XQ", "é"]),
    ),
    st.text(max_size=20),
)
_NESTED = st.lists(_OPTIONS.filter(lambda text: ")" not in text), max_size=2).map(";".join)
_EXPANDS = st.builds("$expand={}({})".format, st.sampled_from(_NAVIGATIONS), _NESTED)
_PATHS = st.one_of(
    st.builds("{}{}".format, st.sampled_from(ENTITY_SETS), _IDS),
    st.builds(
        "{}{}/{}{}".format, st.sampled_from(ENTITY_SETS), _IDS, st.sampled_from(_NAVIGATIONS), _IDS
    ),
    st.text(max_size=20),
)


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.app().test_client()


@given(path=_PATHS, options=st.lists(st.one_of(_OPTIONS, _EXPANDS), max_size=3))
def test_any_request_is_answered_or_refused(
    client: FlaskClient, path: str, options: list[str]
) -> None:
    query = "&".join(quote(option, safe="$=(),;") for option in options)
    answer = client.get(f"/v1.1/{quote(path, safe='/()')}?{query}")
    assert answer.status_code in ANSWERS | {301, 308}, answer.text[:300]
