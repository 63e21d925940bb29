"""SensorThings 1.1 over a real database: every entity, every navigation, paging that meets each observation once."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient
from sqlalchemy import func, select

from fleet_server.feeds.sensorthings import vocabulary
from fleet_server.feeds.sensorthings.paths import ENTITY_SETS, NAVIGATION, PROPERTIES
from fleet_server.models import Calibration, Observation, Pack, RawReading, observation_key
from fleet_server.wire.senml import decode_pack
from hardware import catalogue
from tests.fleet_server import small_world
from tests.fleet_server.world_fixtures import World

ROOT = "http://localhost/v1.1"
# Deeper nesting than Python's JSON reader takes, in a query that is not too long.
_DEEP_TOKEN = base64.urlsafe_b64encode(b"[" * 2900).decode().rstrip("=")


@pytest.fixture(scope="module")
def client(world: World) -> FlaskClient:
    return world.app().test_client()


def get(client: FlaskClient, address: str) -> Any:
    """The JSON behind a path below the service's root, or behind an absolute link of it."""
    parts = urlsplit(address if address.startswith("http") else f"{ROOT}/{address}")
    answer = client.get(f"{parts.path}?{parts.query}")
    assert answer.status_code == 200, (address, answer.text[:300])
    return answer.get_json()


def walk(client: FlaskClient, address: str) -> list[dict[str, Any]]:
    """All entities of a collection, page by page."""
    found: list[dict[str, Any]] = []
    link: str | None = address
    while link:
        page = get(client, link)
        found += page["value"]
        link = page.get("@iot.nextLink")
        assert link is None or link.startswith(f"{ROOT}/")
    return found


def test_landing_page_names_every_entity_set_and_what_is_conformed_to(client: FlaskClient) -> None:
    for path in ("/v1.1", "/v1.1/"):
        page = client.get(path).get_json()
        assert {one["name"] for one in page["value"]} == set(ENTITY_SETS)
        assert all(one["url"] == f"{ROOT}/{one['name']}" for one in page["value"])
        assert all("/iot_sensing/1.1/req/" in one for one in page["serverSettings"]["conformance"])


@pytest.mark.parametrize("name", ENTITY_SETS)
def test_every_entity_has_its_links_and_every_link_answers(client: FlaskClient, name: str) -> None:
    entity = get(client, f"{name}?$top=1")["value"][0]
    assert entity["@iot.selfLink"] == f"{ROOT}/{name}({entity['@iot.id']})"
    assert get(client, entity["@iot.selfLink"]) == entity
    for navigation, (_, is_many) in NAVIGATION[name].items():
        linked = get(client, entity[f"{navigation}@iot.navigationLink"])
        assert ("value" in linked) == is_many
        if is_many:
            assert linked["value"], f"{name}/{navigation} is empty"


@pytest.mark.parametrize(
    ("name", "mandatory"),
    [
        ("Things", {"name", "description"}),
        ("Locations", {"name", "description", "encodingType", "location"}),
        ("HistoricalLocations", {"time"}),
        ("Datastreams", {"name", "description", "observationType", "unitOfMeasurement"}),
        ("Sensors", {"name", "description", "encodingType", "metadata"}),
        ("ObservedProperties", {"name", "description", "definition"}),
        ("Observations", {"phenomenonTime", "resultTime", "result"}),
        ("FeaturesOfInterest", {"name", "description", "encodingType", "feature"}),
    ],
)
def test_every_entity_has_what_the_standard_demands(
    client: FlaskClient, name: str, mandatory: set[str]
) -> None:
    """OGC 18-088, chapter 8.2: the mandatory properties of each entity."""
    for entity in get(client, name)["value"]:
        assert mandatory <= entity.keys()


def test_inverse_navigations_lead_back(client: FlaskClient) -> None:
    for stream in walk(client, "Datastreams")[::4]:
        own = stream["@iot.selfLink"]
        thing = get(client, f"{own}/Thing")
        sensor = get(client, f"{own}/Sensor")
        observed = get(client, f"{own}/ObservedProperty")
        for parent in (thing, sensor, observed):
            children = walk(client, f"{parent['@iot.selfLink']}/Datastreams")
            assert stream["@iot.id"] in {child["@iot.id"] for child in children}


def test_place_is_geojson_with_longitude_first(client: FlaskClient) -> None:
    location = get(client, "Things(1)/Locations")["value"][0]
    assert location["location"] == {"type": "Point", "coordinates": [7.21, 51.48]}
    assert location["encodingType"] == "application/geo+json"


def test_units_are_ucum_codes(client: FlaskClient) -> None:
    units = {one["unitOfMeasurement"]["definition"] for one in walk(client, "Datastreams")}
    assert units == {"ucum:kPa", "ucum:Cel", "ucum:mg/L", "ucum:%", "ucum:mV", "ucum:Ohm"}


@pytest.mark.parametrize(
    ("unit", "ucum"), [("pH", "[pH]"), ("FNU", "{FNU}"), ("uS/cm", "uS/cm"), ("1", "1")]
)
def test_unit_that_ucum_writes_otherwise_is_written_as_ucum_does(unit: str, ucum: str) -> None:
    assert vocabulary.unit_of_measurement(unit)["definition"] == f"ucum:{ucum}"


def test_vocabulary_knows_every_property_and_unit_of_the_catalogue() -> None:
    for model_id in catalogue.node_model_ids():
        for slot in catalogue.load_node_model(model_id).slots:
            for channel in slot.channels:
                assert channel.property in vocabulary.BY_KEY
                assert channel.unit in vocabulary.UNIT_NAMES


# --- one observation, all the way back ---


def test_observation_leads_back_to_raw_reading_calibration_and_pack(
    world: World, client: FlaskClient
) -> None:
    streams = walk(client, "Datastreams?$filter=id gt 0")
    oxygen = next(one for one in streams if one["properties"]["property"] == "dissolved_oxygen")
    observation = get(
        client, f"Datastreams({oxygen['@iot.id']})/Observations?$orderby=phenomenonTime desc&$top=1"
    )["value"][0]
    origin, quality = observation["parameters"], observation["resultQuality"]
    with world.sessions() as session:
        raw = session.get(RawReading, (origin["packId"], origin["channel"]))
        pack = session.get(Pack, origin["packId"])
        calibration = session.get(Calibration, origin["calibrationId"])
        assert raw is not None
        assert pack is not None
        assert calibration is not None
        assert raw.raw_value == origin["rawResult"]
        assert (pack.node_id, pack.spool, pack.seq) == (
            origin["nodeId"],
            origin["spool"],
            origin["seq"],
        )
        sent = {key: value for key, value, _ in decode_pack(pack.payload).readings}
        assert sent[origin["channel"]] == origin["rawResult"]
        value = calibration.offset + calibration.slope * origin["rawResult"]
        assert observation["result"] == pytest.approx(value, rel=1e-12)
    assert quality["U"] == pytest.approx(quality["k"] * quality["u"])
    assert quality["flag"] == origin["qcFlag"] == 1
    sensor = get(client, f"Sensors({origin['sensorId']})")
    assert origin["calibrationId"] in {
        one["calibrationId"] for one in sensor["metadata"]["calibrations"]
    }
    assert origin["sensorId"] in {one["sensorId"] for one in oxygen["properties"]["sensors"]}


def test_failed_reading_is_an_observation_without_result_and_says_why(client: FlaskClient) -> None:
    page = get(client, "Things(2)/Datastreams?$filter=id gt 0&$expand=Observations($top=7)")
    failed = [one for one in page["value"][0]["Observations"] if one["result"] is None]
    assert len(failed) == 1
    assert failed[0]["resultQuality"]["flagName"] == "missing"
    assert failed[0]["resultQuality"]["u"] is None
    assert failed[0]["parameters"]["rawStatus"] == "timeout"


def test_observation_id_is_datastream_and_seconds(client: FlaskClient) -> None:
    for one in get(client, "Observations?$top=5")["value"]:
        datastream_id, sampled_at = observation_key(one["@iot.id"])
        assert one["phenomenonTime"] == sampled_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        assert one["Datastream@iot.navigationLink"].endswith("/Datastream")
        assert get(client, one["Datastream@iot.navigationLink"])["@iot.id"] == datastream_id


# --- paging ---


@pytest.mark.parametrize(
    "order",
    [
        "",
        "&$orderby=id desc",
        "&$orderby=phenomenonTime",
        "&$orderby=phenomenonTime desc",
        "&$orderby=phenomenonTime desc,id asc",
    ],
)
def test_walk_meets_every_observation_exactly_once(
    world: World, client: FlaskClient, order: str
) -> None:
    met = [one["@iot.id"] for one in walk(client, f"Observations?$top=97&$select=id{order}")]
    with world.sessions() as session:
        stored = session.scalar(select(func.count()).select_from(Observation))
    assert len(met) == len(set(met)) == stored


@pytest.mark.parametrize("order", ["result", "result desc", "resultTime desc,result"])
def test_walk_by_result_meets_failed_readings_too_and_last(client: FlaskClient, order: str) -> None:
    stream = get(client, "Things(2)/Datastreams?$top=1")["value"][0]["@iot.selfLink"]
    met = walk(client, f"{stream}/Observations?$top=5&$orderby={order}")
    assert len({one["@iot.id"] for one in met}) == len(met) == 24
    results = [one["result"] for one in met]
    known = [one for one in results if one is not None]
    assert results == known + [None] * (24 - len(known))
    assert known == sorted(known, reverse=order == "result desc")


def test_walk_is_undisturbed_by_packs_that_arrive_meanwhile(
    sqlite_world: World,
) -> None:
    client = sqlite_world.app().test_client()
    before = {one["@iot.id"] for one in walk(client, "Observations?$select=id")}
    met: list[int] = []
    link: str | None = "Observations?$top=50&$orderby=phenomenonTime desc&$select=id"
    seq = 25
    while link:
        page = get(client, link)
        met += [one["@iot.id"] for one in page["value"]]
        link = page.get("@iot.nextLink")
        with sqlite_world.sessions() as session:
            now = small_world.NOW + timedelta(seconds=900 * (seq - 24))
            small_world.send_packs(session, small_world.NODES[0], first_seq=seq, packs=1, now=now)
        seq += 1
    assert len(met) == len(set(met))
    assert before <= set(met)


def test_count_is_that_of_the_rows(world: World, client: FlaskClient) -> None:
    with world.sessions() as session:
        stored = session.scalar(select(func.count()).select_from(Observation))
    assert get(client, "Observations?$top=0&$count=true") == {"@iot.count": stored, "value": []}
    for path in ("Datastreams(3)/Observations", "FeaturesOfInterest(100030)/Observations"):
        count = get(client, f"{path}?$count=true&$top=1")["@iot.count"]
        assert count == len(walk(client, path)) > 0
    for name in ENTITY_SETS:
        if name != "Observations":
            assert get(client, f"{name}?$top=0&$count=TRUE")["@iot.count"] == len(
                walk(client, name)
            )


def test_skip_passes_over_entities(client: FlaskClient) -> None:
    everything = [one["@iot.id"] for one in walk(client, "Datastreams")]
    assert [one["@iot.id"] for one in walk(client, "Datastreams?$skip=5&$top=4")] == everything[5:]


@pytest.mark.parametrize(
    "query",
    [
        "%24top=2&%24orderby=name+desc",
        "$top=2&$orderby=name%20DESC",
        "$orderby=name Desc&$top=2",
        "$TOP=2&$OrderBy=name desc",
    ],
)
def test_encodings_that_clients_use_are_understood(client: FlaskClient, query: str) -> None:
    page = client.get(f"/v1.1/Things?{query}").get_json()
    names = [one["name"] for one in page["value"]]
    assert len(names) == 2
    assert names == sorted(names, reverse=True)


# --- expansion ---


def test_expansion_is_what_the_navigation_answers(client: FlaskClient) -> None:
    page = get(client, "Datastreams?$expand=Thing,Sensor,ObservedProperty,Observations($top=3)")
    assert len(page["value"]) == 20
    for stream in page["value"][::6]:
        for name in ("Thing", "Sensor", "ObservedProperty"):
            assert stream[name] == get(client, stream[f"{name}@iot.navigationLink"])
        assert (
            stream["Observations"]
            == get(client, f"{stream['@iot.selfLink']}/Observations?$top=3")["value"]
        )
        rest = walk(client, stream["Observations@iot.nextLink"])
        assert len(rest) == 21


def test_nested_expansion_that_map_clients_send(client: FlaskClient) -> None:
    page = get(
        client,
        "Things?$expand=Datastreams($select=id,name;"
        "$expand=Observations($top=1;$orderby=phenomenonTime desc)),Locations",
    )
    assert len(page["value"]) == 3
    for thing in page["value"]:
        assert thing["Locations"][0]["location"]["type"] == "Point"
        for stream in thing["Datastreams"]:
            assert {"@iot.id", "name", "Observations"} <= stream.keys()
            assert "unitOfMeasurement" not in stream
            assert stream["Observations"][0]["phenomenonTime"] == "2026-07-14T12:00:00Z"


def test_expansion_of_one_entity_and_with_a_slash(client: FlaskClient) -> None:
    entity = get(client, "Datastreams(1)?$expand=Thing/Locations")
    assert entity["Thing"]["Locations"][0]["@iot.id"] == entity["Thing"]["@iot.id"]
    observation = get(client, "Observations?$top=1&$expand=Datastream,FeatureOfInterest")["value"][
        0
    ]
    assert observation["Datastream"]["@iot.id"] == 1
    assert observation["FeatureOfInterest"]["@iot.id"] == 100030


def test_nested_count_counts_each_parents_children(client: FlaskClient) -> None:
    page = get(
        client,
        "Things?$expand=Datastreams($count=true;$top=1;$expand=Observations($top=0;$count=true))",
    )
    assert [one["Datastreams@iot.count"] for one in page["value"]] == [8, 4, 8]
    assert page["value"][0]["Datastreams"][0]["Observations@iot.count"] == 24
    assert page["value"][0]["Datastreams"][0]["Observations"] == []


@pytest.mark.parametrize(
    ("query", "most"),
    [
        ("Things", 1),
        ("Datastreams", 2),
        ("Sensors", 3),
        ("Observations?$top=100", 6),
        ("Observations?$top=100&$count=true", 7),
        ("Things(1)/Datastreams", 3),
        ("Datastreams?$expand=Thing,Sensor,ObservedProperty,Observations($top=5)", 13),
        ("Things?$expand=Datastreams($expand=Observations($top=1))", 9),
        ("Observations?$top=200&$expand=Datastream,FeatureOfInterest", 9),
    ],
)
def test_request_asks_a_fixed_number_of_statements(
    world: World, client: FlaskClient, query: str, most: int
) -> None:
    with world.statements() as statements:
        get(client, query)
    asked = [one for one in statements if not one.startswith(("BEGIN", "PRAGMA"))]
    assert len(asked) <= most, asked


# --- selection, references, properties, filters ---


def test_select_gives_what_was_asked_for(client: FlaskClient) -> None:
    assert get(client, "Things(1)?$select=id,name") == {
        "@iot.id": 1,
        "name": "Kortumstraße, Linde 12",
    }
    assert get(client, "Things(1)?$select=Locations") == {
        "Locations@iot.navigationLink": f"{ROOT}/Things(1)/Locations"
    }


@pytest.mark.parametrize("name", ENTITY_SETS)
def test_every_property_of_an_entity_can_be_selected_alone(client: FlaskClient, name: str) -> None:
    entity = get(client, f"{name}?$top=1")["value"][0]
    for key, value in entity.items():
        assert get(client, f"{name}?$top=1&$select={key}")["value"] == [{key: value}]
    # Of an optional property that it does not have, there is nothing to show.
    for key in PROPERTIES[name]:
        assert get(client, f"{name}?$top=1&$select={key}")["value"][0].keys() <= {key}


def test_reference_and_property_paths(client: FlaskClient) -> None:
    assert get(client, "Things(1)/$ref") == {"@iot.selfLink": f"{ROOT}/Things(1)"}
    references = get(client, "Things(2)/Datastreams/$ref")["value"]
    assert all(set(one) == {"@iot.selfLink"} for one in references)
    assert get(client, "Things(1)/name") == {"name": "Kortumstraße, Linde 12"}
    raw = client.get("/v1.1/Things(1)/name/$value")
    assert (raw.text, raw.mimetype) == ("Kortumstraße, Linde 12", "text/plain")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("Observations?$filter=phenomenonTime eq 2026-07-14T12:00:00Z", 20),
        ("Observations?$filter=phenomenonTime ge 2026-07-14T13:45:00%2B02:00", 40),
        ("Observations?$filter=phenomenonTime ge 2026-07-14T13:45:00+02:00", 40),
        ("Datastreams(1)/Observations?$filter=phenomenonTime gt 2026-07-14T11:00:00Z and phenomenonTime le 2026-07-14T11:45:00Z", 3),
        ("Observations?$filter=id eq 2983276800", 0),
        ("Things?$filter=id eq 2", 1),
        ("Things?$filter=@iot.id ge 2", 2),
        ("Things?$filter=name eq 'Stadtparkteich'", 1),
        ("Things?$filter=name eq 'it''s'", 0),
        ("Things?$filter=id eq 999999999999999999", 0),
        ("Observations?$filter=id lt -5", 0),
        ("Observations?$filter=id gt 999999999999999999", 0),
    ],
)  # fmt: skip
def test_filter_compares(client: FlaskClient, query: str, count: int) -> None:
    page = get(client, f"{query}&$count=true")
    assert page["@iot.count"] == len(page["value"]) == count


def test_filter_by_id_finds_the_observation(client: FlaskClient) -> None:
    wanted = get(client, "Observations?$skip=40&$top=1")["value"][0]["@iot.id"]
    found = get(client, f"Observations?$filter=id eq {wanted}")["value"]
    assert [one["@iot.id"] for one in found] == [wanted]
    later = get(client, f"Observations?$filter=id gt {wanted}&$top=1")["value"][0]
    assert later["@iot.id"] > wanted


# --- refusals ---


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("Nothing", 404),
        ("Things(99)", 404),
        ("Things(0)", 404),
        ("Things(-1)", 404),
        ("Things(99999999999999999999)", 404),
        ("Things(1)/Sensors", 404),
        ("Things/Datastreams", 404),
        ("Things(1)/nope", 404),
        ("Datastreams(1)/Thing(1)", 404),
        ("Observations(1)", 404),
        ("Observations(9007199254740991)", 404),
        ("Observations(9007199254740991)/Datastream", 404),
        ("Things(99)/Datastreams", 404),
        ("Things(1)/Datastreams(17)", 404),
        ("Things(1)/$value", 404),
        ("Things?$top=-1", 400),
        ("Things?$top=x", 400),
        ("Things?$top=1&$top=2", 400),
        ("Things?$skip=-1", 400),
        ("Things?$count=maybe", 400),
        ("Things?$orderby=latitude", 400),
        ("Things?$orderby=name sideways", 400),
        ("Things?$orderby=", 400),
        ("Things?$orderby=name,,id", 400),
        ("Things?$orderby=name,name desc", 400),
        ("Things?$orderby=properties", 400),
        ("Things?$orderby=properties/nothing", 400),
        ("Things?$orderby=Datastreams/name", 400),
        ("Datastreams?$orderby=id,name,description,phenomenonTime,Thing/id,Thing/name", 400),
        ("Datastreams?$filter=phenomenonTime gt 2026-07-14", 400),
        ("Things?$filter=id gt 99&$select=nothing", 400),
        ("Things?$filter=id gt 99&$expand=Nothing", 400),
        ("Things?$filter=id gt 99&$expand=Datastreams($expand=Thing($select=nothing))", 400),
        ("Things?$filter=id gt 99&$expand=Datastreams($expand=Thing($top=1))", 400),
        ("Datastreams?$expand=Observations($top=0;$orderby=nothing)", 400),
        ("Datastreams?$expand=Observations($top=0;$filter=nothing eq 1)", 400),
        ("Datastreams?$expand=Observations($top=one)", 400),
        ("Datastreams?$expand=Thing($orderby=name)", 400),
        ("Things?$expand=", 400),
        ("Things?$select=", 400),
        ("Things?$select=name,,id", 400),
        ("Things?$select=observedArea", 400),
        ("Things?$filter=" + " and ".join(["id gt 1"] * 21), 400),
        (f"Things?$filter=name eq '{'x' * 4000}'", 400),
        (f"Things?$skiptoken={'x' * 9000}", 400),
        ("?$top=1", 400),
        ("Things?$expand=Nothing", 400),
        ("Things?$expand=Datastreams(", 400),
        ("Things?$select=nothing", 400),
        ("Things?$unknown=1", 400),
        ("Things?$filter=name eq", 400),
        ("Things?$filter=name eq 5", 400),
        ("Things?$filter=latitude gt 5", 400),
        ("Things?$filter=id eq 'x'", 400),
        ("Observations?$filter=phenomenonTime gt 2026-13-01", 400),
        ("Observations?$filter=phenomenonTime gt 0001-01-01T00:00:00%2B23:00", 400),
        ("Observations?$filter=result gt 5", 400),
        ("Observations?$orderby=result", 400),
        ("Things(1)?$top=1", 400),
        ("Things?$skiptoken=abc", 400),
        ("Things?$skiptoken=WyJ4Il0", 400),
        ("Observations?$skiptoken=WzEsMV0x", 400),
        (f"Observations?$skiptoken={_DEEP_TOKEN}", 400),
        ("Observations?$skiptoken=Wy0xLDk5OTk5OTk5OTk5OTk5OTk5OTk5XQ", 400),
        ("Things?$filter=startswith(name,'S')", 501),
        ("Things?$filter=id eq 1 or id eq 2", 501),
        ("Things?$filter=Datastreams/id eq 1", 501),
        ("Things?$resultFormat=CSV", 501),
        ("Observations?asOf=yesterday", 400),
        ("Observations?asOf=2126-01-01T00:00:00Z", 400),
        ("Datastreams?$expand=Observations(asOf=2026-01-01T00:00:00Z)", 400),
        ("Things?$expand=Datastreams($expand=Thing($expand=Datastreams($expand=Thing)))", 501),
    ],
)  # fmt: skip
def test_request_that_cannot_be_answered_is_told_so_in_one_sentence(
    client: FlaskClient, address: str, status: int
) -> None:
    answer = client.get(f"/v1.1/{address}" if address[0] != "?" else f"/v1.1{address}")
    assert answer.status_code == status, answer.text[:300]
    assert answer.mimetype == "application/problem+json"
    problem = answer.get_json()
    assert problem["status"] == status
    assert (
        problem["detail"].endswith((".", ")", "FeaturesOfInterest."))
        or "/v1.1/" in problem["detail"]
    )


@pytest.mark.parametrize("method", ["post", "patch", "put", "delete"])
def test_writing_is_refused(client: FlaskClient, method: str) -> None:
    answer = getattr(client, method)("/v1.1/Things", json={"name": "x"})
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert answer.mimetype == "application/problem+json"


def test_sites_that_are_not_public_are_not_in_the_feed(world: World) -> None:
    client = world.app(demo=False).test_client()
    assert [one["@iot.id"] for one in walk(client, "Things")] == [1, 3]
    assert client.get("/v1.1/Things(2)").status_code == 404
    assert len(walk(client, "Datastreams")) == 16
    assert {one["@iot.id"] // 100_000 for one in walk(client, "FeaturesOfInterest")} == {1, 3}
    hidden = "Datastreams(9)"
    assert client.get(f"/v1.1/{hidden}").status_code == 404
    assert client.get(f"/v1.1/{hidden}/Observations").status_code == 404
    streams = {one["@iot.id"] >> 31 for one in walk(client, "Observations?$select=id")}
    assert streams.isdisjoint(range(9, 13))
    assert get(client, "Observations?$count=true&$top=0")["@iot.count"] == 16 * 24
    sensors = {one["name"].partition("/")[0] for one in walk(client, "Sensors")}
    assert sensors == {"n-000001", "n-000003"}


def test_feed_may_be_read_from_any_page(client: FlaskClient) -> None:
    assert client.get("/v1.1/Things").headers["Access-Control-Allow-Origin"] == "*"


def test_links_begin_with_the_configured_address(sqlite_world: World) -> None:
    client = sqlite_world.app(public_url="https://sensors.example.org").test_client()
    assert (
        client.get("/v1.1")
        .get_json()["value"][0]["url"]
        .startswith("https://sensors.example.org/v1.1/")
    )
