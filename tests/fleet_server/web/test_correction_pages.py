"""A probe's drift and fouling on the page: what a visit found, approved by somebody else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from flask.testing import FlaskClient

from fleet_server.models import Role
from fleet_server.services import accounts
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World

PAGE = "/fleet/corrections/of/n-000001/d30"
GERMAN = {"Accept-Language": "de"}
FORM = {
    "property": "soil_temperature",
    "from": f"{NOW - timedelta(hours=3):%Y-%m-%dT%H:%M}Z",
    "to": f"{NOW - timedelta(hours=1):%Y-%m-%dT%H:%M}Z",
    "low_standard": "0",
    "low_reading": "-0,4",
    "note": "ice & <b>water</b>",
}


@pytest.fixture(scope="module")
def ada(world: World) -> FlaskClient:
    return world.program()


@pytest.fixture(scope="module")
def grace(world: World) -> FlaskClient:
    with world.sessions() as session:
        accounts.create_user(session, "grace", PASSWORD, now=NOW, roles=[Role.DATA_STEWARD])
        accounts.create_user(session, "looker", PASSWORD, now=NOW, roles=[Role.AUDITOR])
    return world.program("grace")


def test_what_a_visit_found_is_drafted_with_a_comma_and_approved_by_somebody_else(
    world: World, ada: FlaskClient, grace: FlaskClient
) -> None:
    assert f'href="{PAGE}"' in ada.get("/fleet/calibrations/probes/n-000001/d30").text
    assert ada.post(PAGE, data=FORM).status_code == 303
    page = ada.get(PAGE).text
    assert "good" in page
    assert "ice &amp; &lt;b&gt;water&lt;/b&gt;" in page
    own = ada.post("/fleet/corrections/1/approve")
    assert own.status_code == 400
    assert "Who wrote a drift correction does not approve it" in own.text
    assert grace.post("/fleet/corrections/1/approve").status_code == 303
    german = grace.get(PAGE, headers=GERMAN).text
    assert "Drift und Bewuchs" in german
    assert "abgelesen als −0,4" in german
    assert (
        grace.post("/fleet/corrections/1/withdraw", data={"reason": "wrong ice"}).status_code == 303
    )
    assert "wrong ice" in grace.get(PAGE).text
    looker = world.program("looker")
    assert looker.get(PAGE).status_code == 200
    assert "Keep as a draft" not in looker.get(PAGE).text
    assert looker.post(PAGE, data=FORM).status_code == 403


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"from": ""}, "Give the times of both visits."),
        ({"low_reading": ""}, "Lower standard wants both"),
        ({"low_reading": "cold"}, "Lower standard wants a number."),
        ({"low_standard": "", "low_reading": ""}, "There is nothing to put right"),
        ({"property": "mood"}, "Values of mood are not put right for drift"),
    ],
)
def test_form_that_cannot_be_comes_back_as_it_was_typed(
    ada: FlaskClient, change: dict[str, str], sentence: str
) -> None:
    answer = ada.post(PAGE, data={**FORM, **change})
    assert answer.status_code == 400
    assert sentence in answer.text
    assert "ice &amp; &lt;b&gt;water&lt;/b&gt;" in answer.text


def test_probe_that_is_not_there_is_not_found(ada: FlaskClient) -> None:
    assert ada.get("/fleet/corrections/of/nix").status_code == 404
