"""Corrections on pages and in the API: what an approval would change, how far a correction is, and all versions of a value. Without a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from corrections import FIRST, LATER, calibrate, measured
from databases import SqliteDatabases, hurried_engine
from factories import NOON
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.errors import Unavailable
from fleet_server.measurement.drift import Check
from fleet_server.models import CalibrationKind, Channel, Revision, Role, observation_id
from fleet_server.services import (
    accounts,
    backup_troubles,
    calibrating,
    correcting,
    revising,
    revision_list,
    rights,
)
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.correcting import NewCorrection
from tests.fleet_server.small_world import PASSWORD
from tests.fleet_server.world_fixtures import World

GERMAN = {"Accept-Language": "de"}


@pytest.fixture
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """A tree-3 that measured for an hour, a draft for its thermometer, and no correction yet."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        made = db.session_factory(engine)
        with made() as session:
            for name, role in (("dora", Role.DATA_STEWARD), ("wanda", Role.WATERS_OFFICE)):
                accounts.create_user(session, name, PASSWORD, now=NOON, roles=[role])
            measured(session)
            calibrating.draft_calibration(
                session,
                NewCalibration(
                    serial="n-000001/d30",
                    property="soil_temperature",
                    kind=CalibrationKind.OFFSET,
                    performed_by="tina",
                    performed_at=NOON,
                    points=(NewPoint(1.5, 0.0, 0.02),),
                ),
                now=NOON,
            )
        yield made
        engine.dispose()


@pytest.fixture
def steward(sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[FlaskClient]:
    engine = sessions.kw["bind"]
    clock.use_clock(f"{int(LATER.timestamp())}@0x0")
    url = engine.url.render_as_string(hide_password=False)
    world = World(engine, sessions, url, tmp_path)
    yield world.program("dora", demo=False)
    clock.use_clock(clock.REAL)


@pytest.fixture
def corrected(sessions: sessionmaker[Session]) -> None:
    """The thermometer was calibrated, and its values made anew; another one's correction waits."""
    with sessions() as session:
        calibrate(session, "t30", offset=-1.5)
        while revising.advance(session, now=LATER, make_backup=lambda: "backups/1"):
            pass
        calibrate(session, "t60", offset=0.5)


def draft_address(client: FlaskClient) -> str:
    listed = client.get("/fleet/calibrations?status=draft").text
    return re.findall(r'href="(/fleet/calibrations/\d+)"', listed)[0]


def test_approver_sees_what_would_change_before_and_after(steward: FlaskClient) -> None:
    address = draft_address(steward)
    page = steward.get(address).text
    assert "of 8 values 8 get a new version and 0 go" in page
    assert "−1.50\N{NO-BREAK SPACE}°C" in page  # in the mean
    assert (page.count('class="line-before"'), page.count('class="line-after"')) == (2, 2)
    assert "Was sich ändern würde" in steward.get(address, headers=GERMAN).text
    of_api = address.replace("/fleet", "/api/v1")
    sha256 = steward.get(of_api).get_json()["sha256"]
    told = steward.post(f"{of_api}/rehearse-approval", json={"sha256": sha256}).get_json()
    assert (told["changed"], told["newest_max"], told["is_cut"]) == (8, 20_000, False)
    means = {one["property"]: one["mean"] for one in told["changes"]}
    assert means["soil_temperature"] == pytest.approx(-1.5)
    assert "Nothing was made anew yet." in steward.get("/fleet/revisions").text


def test_correction_is_seen_waiting_held_up_and_watched_to_its_end(
    steward: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        calibrate(session, "t30", offset=-1.5)
        with pytest.raises(Unavailable):
            revising.advance(session, now=LATER, make_backup=_no_room)
    waiting = steward.get("/fleet/revisions/1").text
    assert "0 of 2 data streams" in waiting
    assert "<script>no room" not in waiting
    assert "&lt;script&gt;no room" in waiting
    assert 'data-source="/fleet/revisions/1/live"' in waiting
    assert '<noscript><meta http-equiv="refresh"' in waiting
    assert "held up" in steward.get("/fleet/revisions").text
    assert "kommt nicht voran" in steward.get("/fleet/revisions", headers=GERMAN).text
    with sessions() as session, pytest.raises(Unavailable):
        revising.advance(session, now=LATER, make_backup=_full)
    assert (
        "The backup cannot be written to /mnt: No space" in steward.get("/fleet/revisions/1").text
    )
    german = steward.get("/fleet/revisions/1", headers=GERMAN).text
    assert "Die Sicherung kann nicht nach /mnt geschrieben werden: No space" in german
    assert "fleet_revisions_open 1.0" in steward.get("/metrics").text
    stream = steward.get("/fleet/revisions/1/live", buffered=False)
    first = next(iter(stream.response)).decode()  # type: ignore[call-overload] # werkzeug's
    assert first.startswith("event: standing\ndata: ")
    stream.close()

    with sessions() as session:
        while revising.advance(session, now=LATER, make_backup=lambda: "backups/1"):
            pass

    done = steward.get("/fleet/revisions/1").text
    for words in ("2 of 2 data streams", "Ada", "Grace", "backups/1", "1.50\N{NO-BREAK SPACE}°C"):
        assert words in done
    assert re.search(r'href="/fleet/nodes/n-000001\?range=30d#channel-\d+"', done)
    assert "data-source" not in done
    assert "event: ended" in steward.get("/fleet/revisions/1/live").text


def _full() -> str:
    raise backup_troubles.not_writable(Path("/mnt"), OSError(28, "No space left on device"))


def _no_room() -> str:
    raise Unavailable("<script>no room")


@pytest.mark.usefixtures("corrected")
def test_value_has_a_page_with_every_version_and_who_changed_it(
    steward: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        stream = session.scalars(select(Channel.datastream_id).where(Channel.key == "t30")).one()
    number = observation_id(stream, FIRST)
    assert f"/fleet/observations/{number}" in steward.get("/fleet/nodes/n-000001").text
    page = steward.get(f"/fleet/observations/{number}").text
    newest, oldest = page.index("Version 2"), page.index("Version 1")
    assert newest < page.index("approved by Grace") < oldest
    assert oldest < page.index("Made when the reading came.")
    told = steward.get(f"/api/v1/observations/{number}").get_json()
    assert [one["value"] for one in told["versions"]] == [19.875, 18.375]
    assert told["versions"][0]["known_to"] == told["versions"][1]["known_from"]
    assert told["versions"][1]["made_in"]["author"] == "Ada"
    assert "Fassung 2" in steward.get(f"/fleet/observations/{number}", headers=GERMAN).text
    for nobody in ("0", "5", str(2**53 - 1), str(2**60)):
        assert steward.get(f"/fleet/observations/{nobody}").status_code == 404
        assert steward.get(f"/api/v1/observations/{nobody}").status_code == 404


@pytest.mark.usefixtures("corrected")
def test_programs_read_corrections_in_pages(steward: FlaskClient) -> None:
    page = steward.get("/api/v1/revisions?limit=1").get_json()
    (one,) = page["items"]
    assert (one["id"], one["state"], one["datastreams_switched"]) == (2, "waiting", 0)
    (before,) = steward.get(page["next"]).get_json()["items"]
    assert (before["state"], before["changed"]) == ("done", 8)
    streams = steward.get("/api/v1/revisions/1/datastreams").get_json()["items"]
    assert {one["property"]: one["changed"] for one in streams} == {
        "soil_temperature": 4,
        "soil_water_tension": 4,
    }
    assert steward.get("/api/v1/revisions/9").status_code == 404
    assert steward.get("/fleet/revisions/9").status_code == 404
    assert steward.get("/fleet/revisions?after=nonsense").status_code == 400


@pytest.mark.usefixtures("corrected")
def test_list_asks_as_many_statements_however_many_corrections_there_are(
    sessions: sessionmaker[Session],
) -> None:
    world = World(sessions.kw["bind"], sessions, "", Path())
    counts = []
    for limit in (1, 50):
        with sessions() as session, world.statements() as seen:
            page = revision_list.revision_page(session, limit=limit)
        asked = [one for one in seen if one.startswith("SELECT")]
        counts.append((len(page.items), len(asked)))
    assert counts == [(1, 3), (2, 3)]


def test_revision_that_another_was_quicker_than_says_so(
    steward: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        calibrate(session, "t30", offset=-1.5)
        calibrate(session, "t30", offset=-2.0)
        while revising.advance(session, now=LATER):
            pass
    page = steward.get("/fleet/revisions/2").text
    assert "8 values were made by revision 1 already, while this one waited." in page
    assert page.count("4 by revision 1 already") == 2
    assert "8 by revision 1 already" in steward.get("/fleet/revisions").text
    assert "already" not in steward.get("/fleet/revisions/1").text
    assert (
        "8 Werte hat schon Neuberechnung 1 gemacht"
        in steward.get("/fleet/revisions/2", headers=GERMAN).text
    )
    told = steward.get("/api/v1/revisions/2").get_json()
    assert (told["changed"], told["made_earlier"]) == (0, [{"revision_id": 1, "changed": 8}])
    streams = steward.get("/api/v1/revisions/2/datastreams").get_json()["items"]
    assert [one["made_earlier"][0]["changed"] for one in streams] == [4, 4]


def test_approver_says_what_becomes_of_a_drift_correction_under_the_calibration(
    steward: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        rights.act_as(session, rights.Actor("ada", frozenset(rights.Right)))
        visit = NewCorrection("n-000001/d30", "soil_temperature", NOON, LATER, low=Check(0.0, -0.4))
        number = correcting.draft_correction(session, visit, now=LATER).id
        rights.act_as(session, rights.Actor("grace", frozenset(rights.Right)))
        correcting.approve_correction(session, number, now=LATER)
    address = draft_address(steward)
    page = steward.get(address).text
    sha256 = re.findall(r'name="sha256" value="([0-9a-f]{64})"', page)[0]
    assert f"Drift correction {number} holds within its time" in page
    assert f'href="/fleet/corrections/of/n-000001/d30#correction-{number}"' in page
    assert page.count(f'name="correction-{number}"') == 2
    assert f"Driftkorrektur {number} gilt innerhalb" in steward.get(address, headers=GERMAN).text
    form = {"sha256": sha256, "begin": "draft", "correction-x": "keep"}
    refused = steward.post(f"{address}/approve", data=form)
    assert refused.status_code == 400
    assert "say of each whether it stays or is withdrawn" in refused.text

    of_api = address.replace("/fleet", "/api/v1")
    told = steward.get(of_api).get_json()
    assert [one["id"] for one in told["corrections"]] == [number]
    wanted = {"sha256": told["sha256"]}
    rehearsed = steward.post(f"{of_api}/rehearse-approval", json=wanted).get_json()
    assert [one["id"] for one in rehearsed["corrections"]] == [number]
    unsaid = steward.post(f"{of_api}/approve", json=wanted)
    assert (unsaid.status_code, unsaid.get_json()["code"]) == (409, "corrections_hold")
    both = {**wanted, "keep_corrections": [number], "withdraw_corrections": [number]}
    assert steward.post(f"{of_api}/approve", json=both).status_code == 400

    said = {**form, f"correction-{number}": "withdraw"}
    assert steward.post(f"{address}/approve", data=said).status_code == 303
    at_probe = steward.get("/fleet/corrections/of/n-000001/d30", headers=GERMAN).text
    assert re.search(r"Kalibrierung \d+ wurde freigegeben\.", at_probe)


@pytest.mark.usefixtures("corrected")
@pytest.mark.parametrize(
    ("reason", "href", "said"),
    [
        (
            "calibration 7 of n-000001/d60 was withdrawn",
            "/fleet/calibrations/7",
            "Kalibrierung 7 von n-000001/d60 wurde zurückgezogen.",
        ),
        (
            "drift correction 7 of n-000001/d60 was approved",
            "/fleet/corrections/of/n-000001/d60#correction-7",
            "Driftkorrektur 7 von n-000001/d60 wurde freigegeben.",
        ),
        (
            "correction 7 of n-000001/d60 was withdrawn",  # as it was written once
            "/fleet/corrections/of/n-000001/d60#correction-7",
            "Driftkorrektur 7 von n-000001/d60 wurde zurückgezogen.",
        ),
    ],
)
def test_reason_that_we_gave_is_told_in_the_readers_language_and_any_other_as_typed(
    steward: FlaskClient, sessions: sessionmaker[Session], reason: str, href: str, said: str
) -> None:
    with sessions() as session, db.writing(session):
        session.get_one(Revision, 2).reason = reason
    page = steward.get("/fleet/revisions", headers=GERMAN).text
    assert f'<a class="flow" href="{href}">{said}</a>' in page
    assert "ice water" in page
    assert "Neuberechnungen" in page
    assert "Korrektur" not in page
