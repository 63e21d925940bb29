"""A release author plans a campaign in a browser, somebody else approves it, and both watch it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import pytest
from databases import SqliteDatabases
from factories import NOON, register_node
from flask.testing import FlaskClient
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import Node, Role
from fleet_server.services import accounts, alerting, campaign_steps
from tests.fleet_server.services.campaign_fleet import IMAGE, Talker, add_release
from tests.fleet_server.small_world import PASSWORD
from tests.fleet_server.world_fixtures import World

GERMAN = {"Accept-Language": "de"}


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases
) -> Iterator[World]:
    """Three nodes at trees and a release; an author, an approver, and somebody who looks on."""
    with sqlite_databases.fresh() as url:
        engine = db.make_engine(url)
        sessions: sessionmaker[Session] = db.session_factory(engine)
        roles = {
            "anna": Role.RELEASE_AUTHOR,
            "bert": Role.RELEASE_APPROVER,
            "olga": Role.OPERATOR,
            "looker": Role.TECHNICIAN,
        }
        with sessions() as session:
            for name, role in roles.items():
                accounts.create_user(session, name, PASSWORD, now=NOON, roles=[role])
            for number in (1, 2, 3):
                node_id = register_node(session, f"n-{number:06x}", label=f"tree-0{number}")
                Talker(session, node_id).say(NOON)
            add_release(session)
        clock.use_clock(f"{int(NOON.timestamp())}@0x0")
        yield World(engine, sessions, url, tmp_path_factory.mktemp("campaigns"))
        clock.use_clock(clock.REAL)
        engine.dispose()


@pytest.fixture(scope="module")
def browsers(world: World) -> dict[str, FlaskClient]:
    return {name: world.program(name, demo=False) for name in ("anna", "bert", "olga", "looker")}


TYPED = {
    "release": "1",
    "label": "tree",
    "canaries": "1",
    "shares": "50, 100",
    "soak_hours": "0",
    "minimum_reached": "1",
    "hours": "",
    "kilobytes_per_s": "100",
}


def test_campaign_from_the_editor_to_the_canary_and_back(
    world: World, browsers: dict[str, FlaskClient]
) -> None:
    anna, bert, looker = browsers["anna"], browsers["bert"], browsers["looker"]
    assert "Plan a campaign" in anna.get("/fleet/campaigns").text
    assert "0.8.0 · tree-3" in anna.get("/fleet/campaigns/new").text
    preview = anna.post("/fleet/campaigns/preview", data=TYPED)
    assert preview.status_code == 200, preview.text
    assert re.findall(r"<li><b>(\d+)</b>", preview.text) == ["3", "0", "0", "0"]
    assert "Nodes in each wave: 1, 1, 1." in preview.text
    carried = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', preview.text))
    assert {name: carried.get(name) for name in TYPED} == TYPED
    made = anna.post("/fleet/campaigns", data=TYPED)
    address = made.headers["Location"]
    assert ">Hand in<" in anna.get(address).text
    anna.post(f"{address}/start")
    waiting = anna.get(address).text
    assert "Somebody else than its author has to approve it." in waiting
    assert ">Approve<" not in waiting, "the author is offered nothing that is refused"
    assert anna.post(f"{address}/approve").status_code == 403
    assert ">Approve<" in bert.get(address).text
    assert bert.post(f"{address}/approve").status_code == 303
    with world.sessions() as session:
        campaign_steps.advance_all(session, now=NOON)
        page = looker.get(address).text
        assert ">Pause<" not in page, "who looks on is offered nothing"
        (canary,) = re.findall(
            r"nodes/(n-\d+)#updates", looker.get(f"{address}?stage=offered").text
        )
        talker = Talker(session, canary)
        talker.roll_back(None, NOON)  # type: ignore[arg-type] # it only tells of it
        campaign_steps.advance_all(session, now=NOON)
    page = anna.get(address).text
    assert "1 of wave 1 rolled back" in page
    assert "the new version crashed" in page
    german = anna.get(address, headers=GERMAN).text
    assert "die neue Version stürzte ab" in german
    node = anna.get(f"/fleet/nodes/{canary}").text
    assert "It went back to the version before 0.8.0: the new version crashed." in node
    assert "aus Welle 1 zurückgekehrt: 1" in german
    assert ">Go on<" not in page, "the author alone does not decide on failures"
    assert "Whoever approves releases and is not its author lets it go on." in page
    assert anna.post(f"{address}/resume").status_code == 403
    olga = browsers["olga"]
    with world.sessions() as session:
        alerting.look(session, now=NOON, wall_now=NOON)
    assert f'href="{address}"' in olga.get("/fleet/alerts").text
    assert ">Try again<" not in anna.get(f"/fleet/nodes/{canary}").text
    offered = olga.get(f"/fleet/nodes/{canary}").text
    again = re.search(r'action="(/fleet/campaigns/\d+/nodes/[^"]+/retry)"', offered)
    assert again is not None
    assert olga.post(again[1]).status_code == 303
    assert 'id="updates"' in olga.get(f"/fleet/nodes/{canary}").text
    assert ">Go on<" in bert.get(address).text
    assert bert.post(f"{address}/retry").status_code == 303
    assert ">Abort<" in olga.get(address).text
    assert olga.post(f"{address}/pause", data={"reason": "storm"}).status_code == 303
    assert "storm" in looker.get(address).text
    assert olga.post(f"{address}/resume").status_code == 303
    assert olga.post(f"{address}/abort").status_code == 303
    assert "durch olga" in looker.get(address, headers=GERMAN).text


def test_one_node_is_brought_a_release_from_its_page_and_all_are_had_as_a_table(
    world: World, browsers: dict[str, FlaskClient]
) -> None:
    anna, looker = browsers["anna"], browsers["looker"]
    page = anna.get("/fleet/nodes/n-000002").text
    assert 'href="/fleet/campaigns/new?nodes=n-000002"' in page
    assert "/fleet/campaigns/new" not in looker.get("/fleet/nodes/n-000002").text
    assert 'value="n-000002"' in anna.get("/fleet/campaigns/new?nodes=n-000002").text
    made = anna.post("/fleet/campaigns", data={"release": "1", "nodes": "n-000002"})
    with world.sessions() as session, db.writing(session):
        session.execute(update(Node).where(Node.node_id == "n-000002").values(label="=1+1"))
    answer = looker.get(f"{made.headers['Location']}/nodes.csv")
    assert answer.mimetype == "text/csv"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["node_id"], row["stage"], row["wave"]) == ("n-000002", "planned", "1")
    assert row["label"] == "'=1+1", "a spreadsheet does not reckon what somebody called a node"
    assert row["since"] == "2026-07-01T12:00:00Z"


def test_who_plans_a_campaign_reads_that_an_image_was_not_tried_on_hardware(
    world: World, browsers: dict[str, FlaskClient]
) -> None:
    anna = browsers["anna"]
    with world.sessions() as session:
        number = add_release(session, "0.9.0", 9, image=IMAGE).id
    typed = {**TYPED, "release": str(number)}
    for language, option, warning in (
        ({}, "with MicroPython 1.30.0, not tried on hardware", r"1\.30\.0 \(1,500 kB\)\. That .* not on hardware"),
        (GERMAN, "mit MicroPython 1.30.0, nicht auf echten Knoten erprobt", r"1\.30\.0 \(1\.500 kB\)\. Dass .* nicht an echten"),
    ):  # fmt: skip
        form = anna.get("/fleet/campaigns/new", headers=language).text
        assert f"0.9.0 · tree-3 · {option}</option>" in form
        assert "0.8.0 · tree-3</option>" in form
        preview = anna.post("/fleet/campaigns/preview", data=typed, headers=language).text
        release = anna.get(f"/fleet/releases/{number}", headers=language).text
        assert re.search(warning, preview), preview
        assert re.search(warning, release), release
    made = anna.post("/fleet/campaigns", data=typed).headers["Location"]
    assert "with MicroPython 1.30.0, not tried on hardware" in anna.get(made).text
    assert "MicroPython 1.30.0" in anna.get("/fleet/releases").text


def test_campaign_is_watched_by_a_stream_that_ends_with_it(
    world: World, browsers: dict[str, FlaskClient]
) -> None:
    anna = browsers["anna"]
    address = anna.post("/fleet/campaigns", data=TYPED).headers["Location"]
    page = anna.get(address).text
    assert f'data-source="{address}/live"' in page
    assert '<noscript><meta http-equiv="refresh"' in page, "without script it is loaded again"
    stream = anna.get(f"{address}/live", buffered=False)
    assert stream.mimetype == "text/event-stream"
    first = next(iter(stream.response))  # type: ignore[call-overload] # werkzeug's
    told = first.decode() if isinstance(first, bytes) else first
    assert told.startswith("event: standing\ndata: ")
    assert "draft" in told
    stream.close()
    anna.post(f"{address}/abort")
    ended = anna.get(f"{address}/live").text
    assert ended.endswith("event: ended\ndata: \n\n")
    assert "data-source" not in anna.get(address).text


def test_so_many_who_watch_leave_threads_for_the_others(browsers: dict[str, FlaskClient]) -> None:
    anna = browsers["anna"]
    address = anna.post("/fleet/campaigns", data=TYPED).headers["Location"]
    streams = [anna.get(f"{address}/live", buffered=False) for _ in range(4)]
    assert anna.get(f"{address}/live").status_code == 503
    for one in streams:
        one.close()
    again = anna.get(f"{address}/live", buffered=False)
    assert again.status_code == 200
    again.close()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"release": ""}, "Say which release"),
        ({"shares": "5, many"}, "in percent, like 5,25,50,100"),
        ({"hours": "at night"}, "Write hours like 22:00-05:00."),
        ({"canaries": "few"}, "wants a whole number"),
        ({"label": "nobody"}, "No tree-3 node in service is meant by this."),
        ({"ends_at": "tomorrow"}, "Write the time like"),
    ],
)
def test_what_is_typed_wrongly_stays_in_the_form_with_a_sentence(
    browsers: dict[str, FlaskClient], wrong: dict[str, str], sentence: str
) -> None:
    typed = {**TYPED, "label": "<b>tree", **wrong}
    path = "/fleet/campaigns" if "label" in wrong else "/fleet/campaigns/preview"
    answer = browsers["anna"].post(path, data=typed)
    assert answer.status_code == 400
    assert sentence in answer.text
    assert "<b>tree" not in answer.text
    assert 'value="50, 100"' in answer.text or "shares" in wrong
