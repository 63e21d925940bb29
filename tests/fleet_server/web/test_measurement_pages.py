"""Others' measurements on pages: a file rehearsed and imported, a reading taken down on the phone, both beside the probe's values."""

from __future__ import annotations

import io
import re
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from fleet_server.models import Datastream, Observation, Role, Scope, Site
from fleet_server.services import accounts
from tests.fleet_server.small_world import NOW, PASSWORD
from tests.fleet_server.world_fixtures import World

IMPORT = "/fleet/measurements/import"
GERMAN = {"Accept-Language": "de"}


@pytest.fixture(scope="module")
def ada(world: World) -> FlaskClient:
    return world.program()


@pytest.fixture(scope="module")
def tree(world: World) -> tuple[int, str, str, float]:
    """Id and code of a tree's site, and a soil temperature at 30 cm there with its instant in UTC."""
    with world.sessions() as session:
        site_id, code, at, value = session.execute(
            select(Site.id, Site.code, Observation.sampled_at, Observation.value)
            .join(Datastream, Datastream.site_id == Site.id)
            .join(Observation, Observation.datastream_id == Datastream.id)
            .where(Datastream.property == "soil_temperature", Observation.value.is_not(None))
            .where(Datastream.depth_cm == 30, Observation.flag == 1)
            .order_by(Observation.sampled_at)
            .limit(1)
        ).one()
        return site_id, code, f"{at:%Y-%m-%dT%H:%M:%SZ}", value


def rehearse(client: FlaskClient, text: str, **fields: str) -> TestResponse:
    """Upload a file, then say what its three columns are."""
    first = client.post(IMPORT, data={"file": (io.BytesIO(text.encode()), "labor & co.csv")})
    assert first.status_code == 200
    digest = re.search(r'name="sha256" value="([0-9a-f]{64})"', first.text)
    assert digest is not None
    given = {
        "sha256": digest[1],
        "file_name": "labor & co.csv",
        "role_0": "time",
        "role_1": "value",
        "property_1": "soil_temperature",
        "unit_1": "°C",
        "depth_1": "30",
        "role_2": "u",
        "zone": "Europe/Berlin",
        "k": "2",
        "kind": "laboratory",
        "source": "Labor <i>Nord</i>",
        "report_number": "4711",
    }
    return client.post(IMPORT, data={**given, **fields})


def test_file_is_rehearsed_imported_compared_and_withdrawn(
    ada: FlaskClient, tree: tuple[int, str, str, float]
) -> None:
    site_id, code, at, value = tree
    typed = f"{value + 0.1:.1f}".replace(".", ",")
    text = f"Zeit;Temperatur;U\n{at};{typed};0,4\n"
    told = rehearse(ada, text, site_code=code)
    assert told.status_code == 200
    assert f"{code} soil_temperature 30 cm" in told.text
    done = rehearse(ada, text, site_code=code, step="apply")
    assert done.status_code == 303
    page = ada.get(done.headers["Location"]).text
    assert "Labor &lt;i&gt;Nord&lt;/i&gt;" in page
    assert f"{typed.replace(',', '.')} ± 0.4" in page
    assert "4711" in page
    again = rehearse(ada, text, site_code=code, step="apply")
    assert again.status_code == 400
    assert "nothing is imported twice" in again.text

    number = done.headers["Location"].rpartition("/")[2]
    file = ada.get(f"/fleet/measurements/{number}/file")
    assert file.data == text.encode()
    assert "attachment" in file.headers["Content-Disposition"]
    points = ada.get(f"/fleet/sites/{site_id}/check-points").text
    assert "Labor &lt;i&gt;Nord&lt;/i&gt;" in points
    assert "agrees" in points
    address = re.search(r"/fleet/observations/\d+", points)
    assert address is not None
    observation = ada.get(address[0]).text
    assert f"{typed} °C, row 2" in observation
    assert "Taken over when it was imported." in observation
    serial = re.search(r"/fleet/calibrations/probes/([^\"]+)", points)
    assert serial is not None
    assert "agrees" in ada.get(f"/fleet/check-points/of/{serial[1]}").text

    number_of_value = address[0].rpartition("/")[2]
    over = f"/fleet/check-points/{number_of_value}/take-over"
    assert "When was the probe right?" in ada.post(over, data={}).text
    taken = ada.post(over, data={"from": "2026-07-14T07:00"})
    assert taken.status_code == 303
    assert f"/fleet/measurements/{number}" in ada.get(taken.headers["Location"]).text

    german = ada.get("/fleet/measurements", headers=GERMAN).text
    assert "Messungen anderer" in german
    withdraw = f"/fleet/measurements/{number}/withdraw"
    assert ada.post(withdraw, data={"reason": " "}).status_code == 400
    assert ada.post(withdraw, data={"reason": "wrong tree"}).status_code == 303
    assert "wrong tree" in ada.get(f"/fleet/measurements/{number}").text
    assert "agrees" not in ada.get(f"/fleet/sites/{site_id}/check-points").text


def test_wrong_cells_are_told_and_nothing_is_imported(
    ada: FlaskClient, tree: tuple[int, str, str, float]
) -> None:
    text = f"Zeit;T;U\n{tree[2]};<b>warm</b>;\n31.02.2026 12:00;8;\n"
    told = rehearse(ada, text, site_code=tree[1], step="apply")
    assert told.status_code == 200
    assert "&lt;b&gt;warm&lt;/b&gt;" in told.text
    assert "is no number" in told.text
    assert "no such day" in told.text
    listed = ada.get("/fleet/measurements").text
    assert listed.count("labor &amp; co.csv") <= 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"role_0": ""}, "Which column is the time?"),
        ({"role_1": "time"}, "Two columns are the same"),
        ({"role_1": ""}, "belongs to values that stand before it"),
        ({"role_1": "sweet"}, "Say what each column is."),
        ({"site_code": ""}, "Where was measured?"),
        ({"flags": "good: 7"}, "one of 1, 2, 3, 4, 9"),
        ({"zone": "Bochum"}, "There is no time zone"),
        ({"source": " ", "step": "apply"}, "Who measured?"),
        ({"kind": "rumour", "step": "apply"}, "Choose what it is."),
    ],
)
def test_what_was_chosen_wrongly_is_one_sentence_and_stays_typed(
    ada: FlaskClient, tree: tuple[int, str, str, float], fields: dict[str, str], sentence: str
) -> None:
    told = rehearse(
        ada, f"Zeit;T;U\n{tree[2]};20,5;\n", **{"site_code": tree[1], "note": "typed", **fields}
    )
    assert told.status_code == 400
    assert sentence in told.text
    assert "typed" in told.text


def test_reading_is_taken_down_on_the_phone(
    world: World, tree: tuple[int, str, str, float]
) -> None:
    with world.sessions() as session:
        roles = [Role.TECHNICIAN]
        accounts.create_user(session, "tina", PASSWORD, now=NOW, roles=roles, scope=Scope.TREES)
        accounts.create_user(session, "looker", PASSWORD, now=NOW, roles=[Role.AUDITOR])
    tina, address = world.program("tina"), f"/field/sites/{tree[0]}/measure"
    assert f'href="{address}"' in tina.get(f"/fleet/sites/{tree[0]}").text
    assert "water_level" not in tina.get(address).text
    form = {"property": "soil_water_tension", "value": "2,1", "unit": "pF", "source": "Tina"}
    missing = tina.post(address, data=form)
    assert missing.status_code == 400
    assert "At which depth" in missing.text
    for wrong, sentence in (
        ({"unit": "psi"}, "Bodenwasserspannung wird nicht in &#39;psi&#39; angegeben"),
        ({"value": "-5", "unit": "kPa"}, "−5 kPa kann Bodenwasserspannung nicht sein"),
        ({"property": "air_temperature", "value": "999", "unit": "°C"}, "999 °C kann Luft"),
        ({"at": "2026-03-29T02:30"}, "Diese Stunde gab es nicht: Die Uhren wurden vorgestellt."),
    ):
        told = tina.post(address, data={**form, "depth_cm": "30", **wrong}, headers=GERMAN)
        assert told.status_code == 400
        assert sentence in told.text
    assert "Lufttemperatur (°C, K, °F)" in told.text
    at = f"{NOW - timedelta(minutes=30):%Y-%m-%dT%H:%M}Z"
    assert tina.post(address, data={**form, "depth_cm": "30", "at": at}).status_code == 303
    page = tina.get(f"/fleet/sites/{tree[0]}/check-points", headers=GERMAN).text
    assert "Unsicherheit nicht bekannt" in page
    assert world.program("looker").get(address).status_code == 403
