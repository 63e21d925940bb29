"""A batch costs a fixed number of statements, not one per pack or reading."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import Engine, event, func, select
from sqlalchemy.orm import Session

from fleet_server.models import Observation
from fleet_server.services.ingest import store_batch


@contextmanager
def counted_statements(engine: Engine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(*given: object) -> None:
        statements.append(str(given[2]))

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def test_batch_of_many_nodes_takes_as_many_statements_as_one_of_one(
    engine: Engine, session: Session
) -> None:
    nodes = [SimulatedNode(node_id=f"n-{number:06x}") for number in range(1, 9)]
    for node in nodes:
        deployed_node(session, node.node_id)
    # The first packs teach the worker channels and lineages.
    store_batch(session, [node.pack(1) for node in nodes], now=NOON)
    counts = []
    for seqs, senders in ((range(2, 17), nodes[:1]), (range(2, 5), nodes[1:])):
        messages = [
            message
            for node in senders
            for message in (node.state(at_s=NOON_S + 60), *node.packs(seqs))
        ]
        with counted_statements(engine) as statements:
            result = store_batch(session, messages, now=NOON)
        assert result.packs_stored == len(seqs) * len(senders)
        counts.append(len(statements))
    assert counts[0] == counts[1]
    assert counts[0] <= 25
    assert session.scalar(select(func.count()).select_from(Observation)) == (8 + 15 + 21) * 7


def test_backlog_of_one_node_takes_no_statement_per_pack(engine: Engine, session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1)], now=NOON)
    # As a node does it: the newest first, then from the oldest on.
    with counted_statements(engine) as statements:
        store_batch(session, node.packs([60, *range(2, 50)]), now=NOON)
    assert len(statements) <= 25
    with counted_statements(engine) as statements:
        result = store_batch(session, node.packs(range(50, 60)), now=NOON)
    assert len(statements) <= 25
    assert result.receipts_moved == {"n-000001": (node.spool, 60)}
