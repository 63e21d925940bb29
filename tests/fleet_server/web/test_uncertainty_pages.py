"""What a value's uncertainty is made of, on a page, for programs and in a terminal."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from fleet_server.models import Channel, Observation, Role, Scope, observation_id
from fleet_server.services import accounts
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World

GERMAN = {"Accept-Language": "de"}


@pytest.fixture(scope="module")
def ada(world: World) -> FlaskClient:
    return world.program()


@pytest.fixture(scope="module")
def number(world: World) -> int:
    """Of the newest tension with a value."""
    with world.sessions() as session:
        row = session.scalars(
            select(Observation)
            .join(Channel, Channel.datastream_id == Observation.datastream_id)
            .where(Channel.key == "r30", Observation.value.is_not(None))
            .order_by(Observation.datastream_id, Observation.sampled_at.desc())
        ).first()
        assert row is not None
        return observation_id(row.datastream_id, row.sampled_at)


def test_page_of_a_value_leads_to_its_parts_whose_shares_add_up(
    ada: FlaskClient, number: int
) -> None:
    address = f"/fleet/observations/{number}/uncertainty"
    assert address in ada.get(f"/fleet/observations/{number}").text
    page = ada.get(address)
    assert page.status_code == 200
    shares = [float(one) for one in re.findall(r"</svg> ([\d.]+) %", page.text)]
    assert len(shares) >= 4
    assert sum(shares) == pytest.approx(100.0)
    assert shares == sorted(shares, reverse=True)
    assert "Nobody has calibrated this probe where it works" in page.text
    assert "A calibration where it works would bring u from" in page.text
    assert "style=" not in page.text
    german = ada.get(address, headers=GERMAN).text
    assert re.search(r"brächte u von \d,\d+ kPa auf etwa \d,\d+ kPa|brächte u von \d,\d+\xa0kPa auf etwa \d,\d+\xa0kPa", german)  # fmt: skip
    assert "die Sonde selbst, im Verhältnis zum Wert" in german
    assert re.search(r"</svg> \d+,\d %", german)


def test_page_of_a_series_is_of_its_newest_value_and_a_site_leads_there(ada: FlaskClient) -> None:
    site = re.search(r'href="(/fleet/uncertainty/\d+)"', ada.get("/fleet/sites/1").text)
    assert site is not None
    assert ada.get(site[1]).status_code == 200
    assert ada.get("/fleet/uncertainty/999999").status_code == 404


def test_program_gets_the_same_by_observation_and_by_channel(
    world: World, ada: FlaskClient, number: int
) -> None:
    told = ada.get(f"/api/v1/observations/{number}/uncertainty").get_json()
    assert sum(one["u"] ** 2 for one in told["parts"]) == pytest.approx(told["u"] ** 2)
    assert sum(one["share_pct"] for one in told["parts"]) == pytest.approx(100.0)
    assert told["expanded_u"] == told["k"] * told["u"]
    assert told["is_site_calibrated"] is False
    assert told["remedies"][0]["code"] == "calibrate"
    of_channel = ada.get("/api/v1/nodes/n-000001/uncertainty/r30")
    assert of_channel.status_code == 200
    assert of_channel.get_json()["observation"] == number
    nothing = ada.get("/api/v1/nodes/n-000001/uncertainty/x9")
    assert nothing.status_code == 404
    assert "it has bat, " in nothing.get_json()["detail"]
    with world.sessions() as session:
        accounts.create_user(session, "walter", PASSWORD, now=NOW, roles=[Role.AUDITOR], scope=Scope.WATERS)  # fmt: skip
    walter = world.program("walter")
    for address in (
        f"/api/v1/observations/{number}/uncertainty",
        f"/fleet/observations/{number}/uncertainty",
        "/api/v1/nodes/n-000001/uncertainty/r30",
        "/api/v1/nodes/n-000001/uncertainty/x9",
    ):
        answer = walter.get(address)
        assert answer.status_code == 404
        assert "r60" not in answer.text
