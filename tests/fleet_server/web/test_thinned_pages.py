"""A person sees what a node kept of days that it had to give up, and sees that these are no readings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from factories import NOON, SimulatedNode, deployed_node
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from fleet_server.models import ThinnedPack
from fleet_server.services import accounts
from fleet_server.services.ingest import store_batch
from tests.fleet_server.small_world import PASSWORD, USER
from tests.fleet_server.world_fixtures import operator_at

NOW = NOON + timedelta(days=2)


@pytest.fixture
def operator(sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[FlaskClient]:
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=NOON)
        deployed_node(session)
        deployed_node(session, "n-000002", model="soil-1")
        node, other = SimulatedNode(oldest=97), SimulatedNode("n-000002")
        messages = [
            node.thinned(1, 96, seq=98, extremes={"t30": (160, 320), "r30": "open"}),
            node.pack(97),
            node.state(at_s=int(NOW.timestamp()), thinned=96, lost=0),
            other.thinned(1, 96, seq=98, extremes={"e30": (1000, 1200)}),
            other.state(at_s=int(NOW.timestamp())),
        ]
        store_batch(session, messages, now=NOW)
    yield from operator_at(NOW, sessions, tmp_path)


def test_node_page_shows_the_days_extremes_apart_from_its_readings(operator: FlaskClient) -> None:
    page = operator.get("/fleet/nodes/n-000001?range=7d").text
    german = operator.get("/fleet/nodes/n-000001", headers={"Accept-Language": "de"}).text

    assert "10.00 ± 0.5" in page
    assert "20.00 ± 0.5" in page
    assert "These are no readings." in page
    assert "<dt>Of them kept as extremes</dt><dd>96</dd>" in page
    assert "Das sind keine Messungen." in german


def test_extremes_do_not_claim_that_each_of_the_packs_had_a_value(operator: FlaskClient) -> None:
    page = operator.get("/fleet/nodes/n-000001?range=7d").text

    assert "Packs given up</th>" in page
    assert "in how many of the packs there was one is not known" in page


def test_extremes_of_a_quantity_without_a_unit_name_none(operator: FlaskClient) -> None:
    page = operator.get("/fleet/nodes/n-000002?range=7d").text

    assert "Lowest</th>" in page
    assert "()" not in page


def test_pack_page_says_what_a_thinned_pack_stands_for(
    operator: FlaskClient, session: Session
) -> None:
    pack_id = session.scalars(
        select(ThinnedPack.pack_id).where(ThinnedPack.node_id == "n-000001")
    ).one()

    page = operator.get(f"/fleet/packs/{pack_id}").text

    assert "Stands for the packs 1 to 96, of which 96 could be read" in page
    assert ">160</td>" in page
    assert ">320</td>" in page
    assert ">open</td>" in page
    assert "Raw readings" not in page
