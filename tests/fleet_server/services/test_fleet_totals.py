"""The fleet in figures: kept beside the packs, and always what counting the packs would give."""

from __future__ import annotations

from datetime import timedelta

from factories import NOON, SimulatedNode, deployed_node, register_node
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import NodeStatus, Pack
from fleet_server.services import fleet_totals, node_list
from fleet_server.services.fleet_totals import HEALTH_WORDS, PackTotals
from fleet_server.services.ingest import store_batch


def test_packs_are_counted_as_they_are_stored(session: Session) -> None:
    """Out of order, again, lost, given up with a spool, and those of an old spool that come late."""
    deployed_node(session)
    first, second = SimulatedNode(), SimulatedNode(spool=0x51002)
    for node, seqs, oldest, totals in (
        (first, (1, 2, 5, 6), 1, PackTotals(stored=4, missing=2, lost=0, thinned=0)),
        (first, (2, 6, 4), 1, PackTotals(stored=5, missing=1, lost=0, thinned=0)),
        (first, (9,), 9, PackTotals(stored=6, missing=0, lost=3, thinned=0)),
        (second, (1, 3), 1, PackTotals(stored=8, missing=1, lost=3, thinned=0)),
        (first, (7,), 1, PackTotals(stored=9, missing=1, lost=2, thinned=0)),
    ):
        store_batch(session, [node.pack(seq, oldest=oldest) for seq in seqs], now=NOON)
        assert fleet_totals.pack_totals(session) == totals, seqs
        assert fleet_totals.pack_totals(session, "n-000001") == totals
        assert session.scalar(select(func.count()).select_from(Pack)) == totals.stored
    assert fleet_totals.pack_totals(session, "n-000002") == PackTotals(0, 0, 0, 0)


def test_counts_of_health_are_those_of_the_filtered_lists(session: Session) -> None:
    silent_h = {"n-000001": 0, "n-000002": 0, "n-000003": 2, "n-000004": 9, "n-000005": None}
    for node_id, hours in silent_h.items():
        register_node(session, node_id)
        with db.writing(session):
            status = session.get_one(NodeStatus, node_id)
            status.last_error = "r30: timeout" if node_id == "n-000002" else None
            if hours is not None:
                status.last_heard_at = NOON - timedelta(hours=hours)
    counts = fleet_totals.health_counts(session, now=NOON)
    listed = {
        word: [
            node.id
            for node in node_list.node_page(
                session, node_list.NodeFilter(health=word), now=NOON, limit=10
            ).items
        ]
        for word in HEALTH_WORDS
    }
    assert counts == {word: len(ids) for word, ids in listed.items()}
    assert listed == {
        "fresh": ["n-000001"],
        "troubled": ["n-000002"],
        "late": ["n-000003"],
        "offline": ["n-000004"],
        "muted": [],
        "never_seen": ["n-000005"],
    }


def test_statements_do_not_grow_with_the_fleet(session: Session) -> None:
    asked: list[str] = []
    event.listen(
        session.get_bind(), "before_cursor_execute", lambda *told: asked.append(str(told[2]))
    )
    grown = []
    for number in range(1, 12):
        register_node(session, f"n-{number:06d}")
        if number in (1, 11):
            asked.clear()
            node_list.node_page(session, node_list.NodeFilter(), now=NOON, limit=200)
            fleet_totals.health_counts(session, now=NOON)
            fleet_totals.pack_totals(session)
            grown.append(len([one for one in asked if one.startswith("SELECT")]))
    assert grown == [3, 3]
