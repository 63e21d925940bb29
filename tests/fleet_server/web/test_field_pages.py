"""What somebody does before a tree with a phone: find the node, see it is heard, mount, swap, replace, note, and work through orders."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from databases import SqliteDatabases, hurried_engine
from factories import NOON, SimulatedNode, deployed_node, register_node
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock, db
from fleet_server.models import (
    Channel,
    Deployment,
    FieldNote,
    Node,
    Role,
    Scope,
    Sensor,
    WorkKind,
    WorkOrder,
)
from fleet_server.services import accounts, deploying, working
from fleet_server.services.deploying import NewSite
from fleet_server.services.ingest import store_batch
from fleet_server.services.working import WorkWanted
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.web.test_site_pages import post
from tests.fleet_server.world_fixtures import log_in, operator_at

HEARD_AT = NOON + timedelta(minutes=59, seconds=30)


@pytest.fixture(scope="module")
def sessions(sqlite_databases: SqliteDatabases) -> Iterator[sessionmaker[Session]]:
    """One database for all tests of this file; who changes a node has one of its own."""
    with sqlite_databases.fresh() as url:
        engine = hurried_engine(url)
        yield db.session_factory(engine)
        engine.dispose()


@pytest.fixture(scope="module")
def phone(
    sessions: sessionmaker[Session], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FlaskClient]:
    """n-000001 is at a site and was heard half a minute ago, n-000003 is at another; two nodes are at none. It is 13:00 UTC."""
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        deployed_node(session, "n-000001")
        deployed_node(session, "n-000003")
        register_node(session, "n-000002", label="tree-02")
        register_node(session, "n-000004", label="tree-04")
        free = NewSite("linde", "Linde am Markt", "tree", 51.48, 7.22)
        deploying.create_site(session, free, is_public=True, now=NOON)
        store_batch(session, SimulatedNode().packs([1, 2]), now=HEARD_AT)
    yield from operator_at(NOON + timedelta(hours=1), sessions, tmp_path_factory.mktemp("files"))


def test_node_is_found_by_id_probe_and_sticker_and_shown_at_once(phone: FlaskClient) -> None:
    for wanted in (
        "n-000001",
        "000001",
        " N-000001 ",
        "n-000001/w30",
        "stadtsensor:n-000001",
        "https://sensors.example.org/fleet/nodes/n-000001",
    ):
        answer = phone.get("/field/", query_string={"q": wanted})
        assert answer.headers.get("Location") == "/field/nodes/n-000001", wanted


def test_several_are_offered_and_none_is_said(phone: FlaskClient) -> None:
    assert phone.get("/field/?q=tree-02").headers["Location"] == "/field/nodes/n-000002"
    assert "No node is called like this." in phone.get("/field/?q=%25").text
    page = phone.get("/field/?q=N-0").text  # as their labels begin
    assert page.count('class="wide-link"') == 2


def test_page_tells_whether_the_node_is_heard_now_and_its_values(phone: FlaskClient) -> None:
    page = phone.get("/field/nodes/n-000001").text
    assert "Heard 30 s ago" in page
    assert "Soil water tension, 30\N{NO-BREAK SPACE}cm" in page
    assert "http-equiv" not in page
    assert '<meta http-equiv="refresh" content="10">' in phone.get("/field/nodes/n-000001?watch=1").text  # fmt: skip
    assert "Never heard" in phone.get("/field/nodes/n-000002").text


def test_node_is_mounted_with_its_probes_at_their_depths(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    path = "/field/nodes/n-000002/mount"
    assert "Linde am Markt" in phone.get(f"{path}?site=markt").text
    assert "Linde am Markt" not in phone.get(f"{path}?site=nirgends").text
    fields = {"site_code": "linde", "serial_w30": "W-7", "depth_w30": "25"}
    wrong = post(phone, path, path, **{**fields, "depth_w30": "tief"})
    assert (wrong.status_code, "wants a whole number" in wrong.text) == (400, True)
    assert 'value="W-7"' in wrong.text
    late = post(phone, path, path, **fields, at="2026-07-01T15:30")
    assert (late.status_code, "lies in the future" in late.text) == (400, True)
    # 14:30 in Bochum is 12:30 UTC.
    done = post(phone, path, path, **fields, at="2026-07-01T14:30")
    assert (done.status_code, done.headers["Location"]) == (303, "/field/nodes/n-000002")
    with sessions() as session:
        query = (
            select(Deployment.from_at, Channel.depth_cm, Sensor.serial)
            .join(Channel, Channel.deployment_id == Deployment.id)
            .join(Sensor, Sensor.id == Channel.sensor_id)
            .where(Deployment.node_id == "n-000002", Channel.key == "r30")
        )
        assert session.execute(query).one() == (NOON + timedelta(minutes=30), 25, "W-7")


def test_node_registered_for_a_site_is_offered_that_site_and_its_probes(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        register_node(session, "n-000005", label="tree-05")
        planned = NewSite("zeder", "Zeder am Ende der Liste", "tree", 51.48, 7.22)
        site = deploying.create_site(session, planned, is_public=True, now=NOON)
        with db.writing(session):
            node = session.get_one(Node, "n-000005")
            node.planned_site_id, node.planned_serials = site.id, {"w30": "W-55"}
    page = phone.get("/field/nodes/n-000005/mount").text
    assert re.search(r'value="zeder" checked>', page)
    assert 'value="W-55"' in page


def test_probe_is_swapped_and_node_replaced_and_taken_down(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    page = "/field/nodes/n-000003"
    assert "n-000003/w30" in phone.get(f"{page}/swap").text
    refused = post(phone, f"{page}/swap", f"{page}/swap", slot="w30", serial="n-000001/w60")
    assert (refused.status_code, "mounted at another node" in refused.text) == (400, True)
    swapped = post(phone, f"{page}/swap", f"{page}/swap", slot="w30", serial="W-9")
    assert swapped.status_code == 303
    assert "W-9" in phone.get(f"{page}/swap").text
    unknown = post(phone, f"{page}/replace", f"{page}/replace", by="nobody")
    assert (unknown.status_code, "Name the new node" in unknown.text) == (400, True)
    _set_clock(hours=2)
    replaced = post(phone, f"{page}/replace", f"{page}/replace", by="tree-04")
    assert replaced.headers["Location"] == "/field/nodes/n-000004"
    assert "W-9" in phone.get("/field/nodes/n-000004/swap").text
    assert "It stands nowhere." in phone.get(page).text
    _set_clock(hours=3)
    down = "/field/nodes/n-000004/take-down"
    assert post(phone, down, down).status_code == 303
    _set_clock(hours=1)
    with sessions() as session:
        ended = select(Deployment.to_at).where(Deployment.node_id == "n-000004")
        assert session.scalars(ended).one() == NOON + timedelta(hours=3)


def _set_clock(*, hours: int) -> None:
    clock.use_clock(f"{int((NOON + timedelta(hours=hours)).timestamp())}@0x0")


def test_note_with_a_photo_is_shown_to_who_is_logged_in_only(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    target = io.BytesIO()
    Image.new("RGB", (40, 30), "green").save(target, "PNG")
    page = "/field/nodes/n-000001"
    fields = {"text": "<b>Mast</b> schief", "photo": (io.BytesIO(target.getvalue()), "x.exe")}
    assert post(phone, f"{page}/note", page, **fields).status_code == 303
    with sessions() as session:
        with_photo = select(FieldNote).where(FieldNote.photo_sha256.is_not(None))
        note = session.scalars(with_photo).one()
    shown = phone.get(page).text
    assert "&lt;b&gt;Mast&lt;/b&gt; schief" in shown
    assert f'src="/fleet/photos/{note.id}"' in shown
    assert f'src="/fleet/photos/{note.id}"' in phone.get(f"/fleet/sites/{note.site_id}").text
    photo = phone.get(f"/fleet/photos/{note.id}")
    assert photo.content_type == "image/jpeg"
    assert photo.headers["X-Content-Type-Options"] == "nosniff"
    stranger = phone.application.test_client()
    assert stranger.get(f"/fleet/photos/{note.id}").status_code == 302
    wrong = post(phone, f"{page}/note", page, photo=(io.BytesIO(b"<svg/>"), "x.jpg"))
    assert (wrong.status_code, "This is no photo" in wrong.text) == (400, True)
    empty = post(phone, f"{page}/note", page)
    assert (empty.status_code, "Write something" in empty.text) == (400, True)


def test_work_is_ordered_begun_noted_and_done_on_the_phone(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    form = "/field/work/new?node=n-000001"
    wrong = post(phone, "/field/work/new", form, node="n-000001", kind="battery", due="morgen")
    assert (wrong.status_code, "Write the day" in wrong.text) == (400, True)
    fields = {"node": "n-000001", "kind": "battery", "summary": "Akku schwach"}
    ordered = post(phone, "/field/work/new", form, **fields, due="2026-06-30")
    path = ordered.headers["Location"]
    assert "overdue" in phone.get("/field/work").text
    assert "Akku schwach" in phone.get("/field/work?mine=1&kind=battery").text
    assert "Akku schwach" not in phone.get("/field/work?kind=clean").text
    assert "Swap or charge the battery" in phone.get("/field/nodes/n-000001").text
    assert "Swap or charge the battery" in phone.get("/fleet/nodes/n-000001").text
    assert post(phone, f"{path}/begin", path).status_code == 303
    assert post(phone, f"{path}/note", path, text="Neuer drin").status_code == 303
    assert "Neuer drin" in phone.get(path).text
    assert post(phone, f"{path}/finish", path).status_code == 303
    again = post(phone, f"{path}/finish", "/field/nodes/n-000001")
    assert (again.status_code, "is done; it cannot be" in again.text) == (409, True)
    assert "Akku schwach" not in phone.get("/field/work").text
    assert "Akku schwach" in phone.get("/field/work?over=1").text
    with sessions() as session:
        order = session.scalars(select(WorkOrder).where(WorkOrder.kind == "battery")).one()
    assert (order.begun_by, order.ended_by) == (USER, USER)


def test_long_list_of_work_goes_on_page_by_page(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        for number in range(60):
            want = WorkWanted(WorkKind.CLEAN, NOON + timedelta(days=number % 7), node_id="n-000002", summary=f"Nr {number}.")  # fmt: skip
            working.order_work(session, want, now=NOON)
    first = phone.get("/field/work").text
    following = re.search(r'href="([^"]+after=[^"]+)"', first)
    assert following
    second = phone.get(following[1].replace("&amp;", "&")).text
    seen = re.findall(r"Nr (\d+)\.", first + second)
    assert sorted(map(int, seen)) == list(range(60))
    for wrong in ("after=x", "kind=dance"):
        assert phone.get(f"/field/work?{wrong}").status_code == 400


def test_who_looks_after_waters_finds_no_tree_in_the_field(
    phone: FlaskClient, sessions: sessionmaker[Session]
) -> None:
    with sessions() as session:
        roles, scope = [Role.TECHNICIAN], Scope.WATERS
        accounts.create_user(session, "wanda", PASSWORD, now=NOON, roles=roles, scope=scope)
    client = phone.application.test_client()
    log_in(client, name="wanda")
    assert "No node is called like this." in client.get("/field/?q=n-000001").text
    for path in ("", "/mount", "/swap", "/replace", "/take-down"):
        assert client.get(f"/field/nodes/n-000001{path}").status_code == 404
