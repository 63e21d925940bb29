"""Calibrations on pages: standards, a draft by hand, its approval by another person, the steps on a phone. Without a script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.test import TestResponse

from fleet_server import clock, db
from fleet_server.models import Role, Standard
from fleet_server.services import accounts, certifying, ingest
from fleet_server.services.revising import Change
from fleet_server.web.drawn_change import draw_change
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import World, csrf_token, log_in

SERIAL = "n-000001/ph"
NOW = NOON + timedelta(hours=1)


@pytest.fixture(scope="module")
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """A pond-3 in field mode; the tests of this file go on from one another."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        made = db.session_factory(engine)
        with made() as session:
            accounts.create_user(session, USER, PASSWORD, now=NOON, roles=[Role.TECHNICIAN])
            accounts.create_user(session, "dora", PASSWORD, now=NOON, roles=[Role.DATA_STEWARD])
            deployed_node(session, model="pond-3")
        yield made
        engine.dispose()


@pytest.fixture(scope="module")
def clients(
    sessions: sessionmaker[Session], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FlaskClient, FlaskClient]]:
    """A technician's browser, and a data steward's."""
    engine = sessions.kw["bind"]
    clock.use_clock(f"{int(NOW.timestamp())}@0x0")
    url = engine.url.render_as_string(hide_password=False)
    app = World(engine, sessions, url, tmp_path_factory.mktemp("files")).app()
    technician, steward = app.test_client(), app.test_client()
    log_in(technician)
    log_in(steward, name="dora")
    yield technician, steward
    clock.use_clock(clock.REAL)


def post(client: FlaskClient, path: str, form_at: str, **fields: object) -> TestResponse:
    """As a browser sends the form of page `form_at`."""
    token = csrf_token(client.get(form_at).text)
    return client.post(path, data={"csrf_token": token, **fields})


def test_standard_is_added_and_what_is_wrong_with_one_is_said_beside_the_form(
    clients: tuple[FlaskClient, FlaskClient],
) -> None:
    technician, _ = clients
    path = "/fleet/calibrations/standards"
    buffer = {"name": "Puffer 7", "kind": "solution", "property": "ph", "points": "20: 6,881\n25: 6.865", "lot": "L-7", "expires": "2026-08-01"}  # fmt: skip
    wrong = post(technician, path, path, **buffer, u="0")
    assert (wrong.status_code, "above zero" in wrong.text) == (400, True)
    assert 'value="Puffer 7"' in wrong.text  # nothing has to be typed again
    assert post(technician, path, path, **buffer, u="0,01").status_code == 303
    old = {**buffer, "name": "Puffer 4", "points": "4.0", "expires": "2026-06-30", "u": "0.01"}
    assert post(technician, path, path, **old).status_code == 303
    page = technician.get(path).text
    assert "6.881" in page
    assert "expired" in page
    assert "4 Puffer" not in page


def test_draft_by_hand_is_fitted_seen_with_its_residuals_and_approved_by_another(
    clients: tuple[FlaskClient, FlaskClient],
) -> None:
    technician, steward = clients
    form = f"/fleet/calibrations/new?serial={SERIAL}"
    given = {"serial": SERIAL, "property": "ph", "kind": "linear", "performed_by": "tina"}
    wrong = post(technician, "/fleet/calibrations/new", form, **given, environment="hot")
    assert (wrong.status_code, "in a line of its own" in wrong.text) == (400, True)
    made = post(technician, "/fleet/calibrations/new", form, **given, environment="temperature_c: 21,5")  # fmt: skip
    page = made.headers["Location"]
    for indicated, standard in (("7,02", {"standard": "1", "temperature": "20"}), ("4.05", {"reference": "4.0", "u_reference": "0.01"})):  # fmt: skip
        assert post(technician, f"{page}/points", page, indicated=indicated, **standard).status_code == 303  # fmt: skip
    for fields, sentence in (
        ({"indicated": "NaN"}, "wants a number"),
        ({"indicated": "7", "standard": "2"}, "take a fresh one"),
        ({"indicated": "7", "standard": "1", "temperature": "90"}, "not at 90 °C"),
        ({"indicated": "7"}, "which standard it is"),
    ):
        refused = post(technician, f"{page}/points", page, **fields)
        assert (refused.status_code, sentence in refused.text) == (400, True), sentence
    draft = technician.get(page).text
    assert draft.count("<circle") == 2
    assert "What becomes of a reading" in draft
    assert "<script" not in draft.replace('src="/static/menu.js" defer></script>', "").replace("<script nonce", "")  # fmt: skip
    assert "/approve" not in draft  # a technician may not
    assert post(technician, f"{page}/own", page, u_drift_absolute="0,2").status_code == 303
    assert "0,2" in technician.get(page, headers={"Accept-Language": "de"}).text
    wrong = post(technician, f"{page}/own", page, u_absolute="-1")
    assert (wrong.status_code, "from 0 to" in wrong.text) == (400, True)
    assert technician.post(f"{page}/approve").status_code in (400, 403)

    seen = steward.get(page).text
    sha256 = re.search(r'name="sha256" value="([0-9a-f]{64})"', seen)
    assert sha256 is not None
    post(technician, f"{page}/points", page, indicated="10.02", reference="9.8", u_reference="0.02")
    late = post(steward, f"{page}/approve", page, sha256=sha256[1], begin="now")
    assert (late.status_code, "look again" in late.text) == (400, True)
    sha256 = re.search(r'name="sha256" value="([0-9a-f]{64})"', steward.get(page).text)
    assert sha256 is not None
    assert "Nothing: no value was sampled" in steward.get(page).text
    done = post(steward, f"{page}/approve", page, sha256=sha256[1], begin="now")
    assert done.status_code == 303
    approved = steward.get(page, headers={"Accept-Language": "de"}).text
    assert "freigegeben" in approved

    sheet = steward.get(f"{page}/certificate.pdf")
    assert (sheet.mimetype, sheet.data[:4]) == ("application/pdf", b"%PDF")
    told = steward.get(f"{page}/certificate.json").get_json()
    assert certifying.digest(told["certificate"]) == told["sha256"]
    assert told["certificate"]["environment"] == {"temperature_c": 21.5}
    assert told["certificate"]["points"][0]["standard"]["lot"] == "L-7"


def test_withdrawal_wants_a_reason_and_the_record_stays(
    clients: tuple[FlaskClient, FlaskClient],
) -> None:
    technician, steward = clients
    listed = technician.get("/fleet/calibrations?status=approved").text
    page = re.findall(r'href="(/fleet/calibrations/\d+)"', listed)[0]
    silent = post(steward, f"{page}/withdraw", page, reason=" ")
    assert (silent.status_code, "Reason: 1 to" in silent.text) == (400, True)
    assert post(steward, f"{page}/withdraw", page, reason="falsche Flasche").status_code == 303
    assert "falsche Flasche" in technician.get(page).text
    assert technician.get("/fleet/calibrations?status=never").status_code == 400


def test_probes_are_listed_with_what_is_due_and_each_has_its_page(
    clients: tuple[FlaskClient, FlaskClient],
) -> None:
    technician, _ = clients
    assert SERIAL in technician.get("/fleet/calibrations/probes?type=ezo_ph").text
    assert "No probe is due." in technician.get("/fleet/calibrations/probes?due=1").text
    page = technician.get(f"/fleet/calibrations/probes/{SERIAL}").text
    assert "EZO pH circuit" in page
    assert "by its maker only" in page
    assert technician.get("/fleet/calibrations/probes/nobody").status_code == 404


def test_steps_on_a_phone_end_in_a_draft_with_its_fit(
    clients: tuple[FlaskClient, FlaskClient], sessions: sessionmaker[Session]
) -> None:
    technician, _ = clients
    chooser = "/field/nodes/n-000001/calibrate"
    assert chooser in technician.get("/field/nodes/n-000001").text
    nothing = post(technician, chooser, chooser, key="bat")
    assert (nothing.status_code, "no channel bat" in nothing.text) == (400, True)
    begun = post(technician, chooser, chooser, key="tw")
    page = begun.headers["Location"]
    assert "nothing new" in technician.get(page).text
    early = post(technician, page.replace("?watch=1", "/take"), page, step="ice")
    assert (early.status_code, "switch field mode on" in early.text) == (400, True)
    readings = {"ph": 7000.0, "tw": 5.0, "do": 850.0, "ec": 50_000.0, "bat": 3900.0}
    node = SimulatedNode(started_s=NOON_S, readings=readings)
    newest_s = int(NOW.timestamp())
    with sessions() as session:
        packs = [node.pack(at_s=newest_s - 30 * number) for number in range(8, 0, -1)]
        ingest.store_batch(session, packs, now=NOW)
    live = technician.get(page).text
    assert "steady for 210 s" in live
    assert "0.3125 °C" in live
    assert 'http-equiv="refresh"' in live
    assert post(technician, page.replace("?watch=1", "/take"), page, step="ice").status_code == 303
    taken = technician.get(page).text
    assert "All steps are taken" in taken
    again = post(technician, page.replace("?watch=1", "/take"), f"{page}&step=ice", step="ice")
    assert again.status_code == 303
    assert post(technician, chooser, chooser, key="tw").headers["Location"] == page
    german = technician.get(page, headers={"Accept-Language": "de"}).text
    assert "Eiswasser" in german


def test_buffers_are_offered_nearest_first_and_expired_ones_not_at_all(
    clients: tuple[FlaskClient, FlaskClient], sessions: sessionmaker[Session]
) -> None:
    technician, _ = clients
    path = "/fleet/calibrations/standards"
    for name, worth in (("Puffer 10", "10.0"), ("Puffer vier", "4.0")):
        fields = {"name": name, "kind": "solution", "property": "ph", "points": worth, "u": "0.01"}
        post(technician, path, path, **fields)
    chooser = "/field/nodes/n-000001/calibrate"
    page = post(technician, chooser, chooser, key="ph").headers["Location"]
    offered = re.findall(r'<option value="\d+">([^<]+)</option>', technician.get(f"{page}&step=ph4").text)  # fmt: skip
    assert [one.strip() for one in offered] == ["Puffer vier", "Puffer 7 L-7", "Puffer 10"]
    with sessions() as session:
        assert session.query(Standard).count() == 4


def test_what_would_change_is_drawn_before_and_after_within_the_drawing() -> None:
    times = np.arange(1000) * 900
    before = np.full(1000, 7.0)
    before[500] = np.nan
    change = Change(1, 1000, 1000, 0, 0.5, 0.5, 0, times, before, before + 0.5)
    drawn = draw_change(change)
    assert drawn is not None
    assert drawn.before != drawn.after
    for path in (drawn.before, drawn.after):
        places = [tuple(map(float, one.split())) for one in re.split("[ML]", path)[1:]]
        assert 150 < len(places) <= 2 * 281  # of a thousand
        assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in places)
    assert (drawn.before.count("M"), drawn.after.count("M")) == (2, 2)  # there is a gap in both
    assert (drawn.lowest, drawn.highest) == (7.0, 7.5)
    nothing = Change(1, 5, 0, 0, None, None, 0, times[:0], before[:0], before[:0])
    assert draw_change(nothing) is None
