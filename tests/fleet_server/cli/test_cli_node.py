"""`fleet node` as an operator types it, over a real database; it is noon on 1 July 2026."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, SimulatedNode, register_node
from sqlalchemy import select
from sqlalchemy.orm import Session
from typed_commands import Answering, answering

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.models import Deployment, Node, Observation, Sensor, Site
from fleet_server.services import deploying
from fleet_server.services.deploying import NewSite
from fleet_server.services.ingest import store_batch
from hardware import catalogue
from hardware.data_files import ENVIRONMENT


@pytest.fixture
def session(
    sqlite_databases: SqliteDatabases, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Session]:
    """Two sites; tree-01 and pond-01 at none; two nodes that share a label."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{NOON_S}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            for code, kind in (("stadtpark", "tree"), ("teich", "water")):
                new = NewSite(code, code.title(), kind, 51.48, 7.22)
                deploying.create_site(opened, new, is_public=False, now=NOON)
            register_node(opened, "n-000001", label="tree-01")
            register_node(opened, "n-000002", label="pond-01", model="pond-1")
            register_node(opened, "n-000003", label="twin")
            register_node(opened, "n-000004", label="twin")
            yield opened
        engine.dispose()
        clock.use_clock(clock.REAL)


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answering:
    return answering("fleet", main=main, monkeypatch=monkeypatch, capsys=capsys)


def observations(session: Session) -> int:
    session.commit()
    return len(session.scalars(select(Observation.pack_id)).all())


def test_site_is_made_and_who_sees_it_is_said(session: Session, fleet: Answering) -> None:
    place = ["--kind", "tree", "--latitude", "51.4906", "--longitude", "-7.2281"]
    made = fleet("node", "add-site", "linde", "--name", "Linde", *place, "--description", "1987")
    assert made == (0, "Made site linde; only who is logged in sees it.\n", "")
    site = session.scalars(select(Site).where(Site.code == "linde")).one()
    assert (site.name, site.kind, site.description) == ("Linde", "tree", "1987")
    assert (site.latitude, site.longitude, site.is_public) == (51.4906, -7.2281, False)
    made = fleet("node", "add-site", "eiche", "--name", "Eiche", *place, "--public", "--json")
    assert json.loads(made.out) == {"id": site.id + 1, "code": "eiche", "is_public": True}


def test_readings_from_before_the_command_become_observations_of_the_site(
    session: Session, fleet: Answering
) -> None:
    node = SimulatedNode(started_s=NOON_S - 3600)
    store_batch(session, node.packs([1, 2, 3]), now=NOON)
    assert observations(session) == 0
    since = "2026-07-01T11:30:00Z"
    done = fleet("node", "deploy", "tree-01", "--site", "stadtpark", "--from", since)
    assert done == (0, f"tree-01 (n-000001) is at stadtpark since {since}.\n", "")
    assert observations(session) == 2 * 7


def test_node_is_deployed_from_now_with_the_probes_that_are_named(
    session: Session, fleet: Answering
) -> None:
    serials = ("--serial", "w30=A1", "--serial", "w60= A2 ")
    done = fleet("node", "deploy", "n-000001", "--site", "stadtpark", *serials, "--json")
    assert json.loads(done.out) == {
        "node_id": "n-000001",
        "label": "tree-01",
        "site": "stadtpark",
        "from_at": "2026-07-01T12:00:00Z",
    }
    assert session.scalars(select(Deployment.from_at)).one() == NOON
    known = set(session.scalars(select(Sensor.serial)))
    assert {"A1", "A2", "n-000001/w90"} <= known
    assert "n-000001/w30" not in known


def test_node_leaves_its_site_once(session: Session, fleet: Answering) -> None:
    begin = NOON - timedelta(days=1)
    deploying.deploy_node(session, "n-000001", site_code="stadtpark", from_at=begin, now=NOON)
    left = fleet("node", "end-deployment", "tree-01", "--to", "2026-07-01T11:00+00:00")
    assert left == (0, "tree-01 (n-000001) was at stadtpark until 2026-07-01T11:00:00Z.\n", "")
    again = fleet("node", "end-deployment", "tree-01")
    assert again == (0, "tree-01 (n-000001) is at no site; nothing was changed.\n", "")
    assert json.loads(fleet("node", "end-deployment", "tree-01", "--json").out)["site"] is None
    assert fleet("node", "deploy", "tree-01", "--site", "stadtpark").status == 0


def test_list_shows_health_and_site_of_every_node(session: Session, fleet: Answering) -> None:
    begin = NOON - timedelta(days=1)
    deploying.deploy_node(session, "n-000001", site_code="stadtpark", from_at=begin, now=NOON)
    store_batch(session, [SimulatedNode().state()], now=NOON)
    assert fleet("node", "list").out.splitlines() == [
        "NODE      LABEL    MODEL   STATE     HEALTH  LAST HEARD            SITE",
        "n-000002  pond-01  pond-1  enrolled  new     never                 -",
        "n-000001  tree-01  tree-3  deployed  well    2026-07-01T12:00:00Z  stadtpark",
        "n-000003  twin     tree-3  enrolled  new     never                 -",
        "n-000004  twin     tree-3  enrolled  new     never                 -",
    ]
    pond, tree, *_ = json.loads(fleet("node", "list", "--json").out)["nodes"]
    assert tree == {
        "node_id": "n-000001",
        "label": "tree-01",
        "model": "tree-3",
        "state": "deployed",
        "health": "fresh",
        "last_heard_at": "2026-07-01T12:00:00Z",
        "site": "stadtpark",
    }
    assert (pond["health"], pond["last_heard_at"], pond["site"]) == ("never_seen", None, None)


_SITE = "node add-site new --name New --kind tree --latitude 51 --longitude 7"
_DEPLOY = "node deploy tree-01 --site stadtpark"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (
            "node deploy tree-99 --site stadtpark",
            1,
            "There is no node tree-99; `fleet node list` shows them all.",
        ),
        (
            "node end-deployment n-ffffff",
            1,
            "There is no node n-ffffff; `fleet node list` shows them all.",
        ),
        (
            "node deploy twin --site stadtpark",
            1,
            "Several nodes are labelled twin: n-000003 (enrolled 2026-07-01), n-000004 (enrolled 2026-07-01);"
            " name one by its id.",
        ),
        (
            "node deploy tree-01 --site stadtprk",
            1,
            "There is no site stadtprk; did you mean stadtpark?",
        ),
        (
            "node deploy tree-01 --site x",
            1,
            "There is no site x; make it with `fleet node add-site x`.",
        ),
        ("node deploy tree-01 --site teich", 2, "tree-3 is made for a tree, teich is a water."),
        (
            f"{_DEPLOY} --serial o2=A1",
            1,
            "tree-3 has no slot o2; it has w30, w60, w90, d30, d60, d90, ref, bat.",
        ),
        (f"{_DEPLOY} --serial w30", 2, "'w30' is not SLOT=SERIAL, like w30=A1234."),
        (f"{_DEPLOY} --serial w30=", 2, "'w30=' is not SLOT=SERIAL, like w30=A1234."),
        (
            f"{_DEPLOY} --serial w30=A1 --serial w30=A2",
            2,
            "Slot w30 is given twice; it holds one probe.",
        ),
        (
            f"{_DEPLOY} --serial w30=A1 --serial w60=A1",
            2,
            "Serial number A1 is given twice; a probe is in one slot.",
        ),
        (
            f"{_DEPLOY} --from yesterday",
            2,
            "'yesterday' is no time; write it like 2026-07-01T12:00:00Z.",
        ),
        (
            f"{_DEPLOY} --from 2026-07-01T12:00",
            2,
            "'2026-07-01T12:00' names no time zone; write UTC, like 2026-07-01T12:00:00Z.",
        ),
        (
            f"{_DEPLOY} --from 2026-07-01T12:00+02:00",
            2,
            "'2026-07-01T12:00+02:00' is not in UTC; write it like 2026-07-01T12:00:00Z.",
        ),
        (
            f"{_DEPLOY} --from 2026-07-01T12:00:01Z",
            2,
            "--from 2026-07-01T12:00:01Z lies in the future; it is 2026-07-01T12:00:00Z now.",
        ),
        (
            "node end-deployment tree-01 --to 2027-01-01T00:00:00Z",
            2,
            "--to 2027-01-01T00:00:00Z lies in the future; it is 2026-07-01T12:00:00Z now.",
        ),
        (_SITE.replace("new", "teich"), 1, "There is already a site teich."),
        (
            _SITE.replace("51", "151"),
            2,
            "A site's position is given in WGS84 degrees: latitude from -90 to 90, longitude from -180 to 180.",
        ),
        (
            _SITE.replace("51", "nan"),
            2,
            "A site's position is given in WGS84 degrees: latitude from -90 to 90, longitude from -180 to 180.",
        ),
        (_SITE.replace("51", "51,5"), 2, "'51,5' is not a valid float."),
        (_SITE.replace("--name New", "--name="), 2, "A site has a code and a name; give both."),
    ],
)
def test_wrong_input_is_one_sentence_with_the_next_step(
    session: Session, fleet: Answering, arguments: str, status: int, sentence: str
) -> None:
    done = fleet(*arguments.split())
    assert (done.status, done.out) == (status, "")
    assert done.err.splitlines()[-1].endswith(f": {sentence}")
    assert done.err.count("\n") == 1 or status == 2
    session.commit()
    assert session.scalars(select(Deployment.id)).all() == []
    assert len(session.scalars(select(Site.id)).all()) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            "node deploy tree-01 --site stadtpark",
            "Node n-000001 is at a site since 2026-06-30T12:00:00Z; end that deployment first.",
        ),
        (
            "node end-deployment tree-01 --to 2026-06-30T12:00:00.9Z",
            "The deployment began at 2026-06-30T12:00:00Z; it must end after that.",
        ),
    ],
)
def test_node_that_is_at_a_site_is_told_when_it_came(
    session: Session, fleet: Answering, arguments: str, sentence: str
) -> None:
    begin = NOON - timedelta(days=1)
    deploying.deploy_node(session, "n-000001", site_code="stadtpark", from_at=begin, now=NOON)
    assert fleet(*arguments.split()) == (1, "", f"fleet: {sentence}\n")


def test_node_whose_model_names_a_conversion_that_nobody_knows_is_not_deployed(
    session: Session, fleet: Answering, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each of its packs would be set aside: nothing could be made of its readings."""
    (tmp_path / "node_models").mkdir()
    own = (Path(catalogue.__file__).parent / "node_models/pond-1.toml").read_text(encoding="utf-8")
    own = own.replace('id = "pond-1"', 'id = "lake-9"').replace('"identity"', '"none"', 1)
    (tmp_path / "node_models/lake-9.toml").write_text(own, encoding="utf-8")
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path))
    with db.writing(session):  # enrolled when its file was another one
        session.get_one(Node, "n-000002").model = "lake-9"

    done = fleet("node", "deploy", "pond-01", "--site", "teich")

    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(
        "fleet: node_models/lake-9.toml: slots[o2]: channels[sat]: conversion"
    )
    assert session.scalars(select(Deployment.id)).all() == []


def test_node_that_has_left_is_deployed_after_that_only(session: Session, fleet: Answering) -> None:
    begin = NOON - timedelta(days=1)
    deploying.deploy_node(session, "n-000001", site_code="stadtpark", from_at=begin, now=NOON)
    deploying.end_deployment(session, "n-000001", to_at=NOON, now=NOON)
    done = fleet(
        "node", "deploy", "tree-01", "--site", "stadtpark", "--from", "2026-07-01T11:00:00Z"
    )
    sentence = "Node n-000001 was at a site until 2026-07-01T12:00:00Z; begin then or later."
    assert done == (1, "", f"fleet: {sentence}\n")
