"""From the wire of a probe to a verified database, over a month and more in which nobody hears the node."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nodes
import pytest
from databases import SqliteDatabases
from factories import deployed_node
from scripted_broker import ScriptedBroker
from sqlalchemy import func, select

from fleet_server import db
from fleet_server.models import Gap, Observation, ObservedRange, Receipt
from fleet_server.models.gap import THINNED
from fleet_server.services import accounting
from fleet_server.services.ingest import Message, store_batch
from fleet_server.services.verifying import verify
from fleet_server.wire.topics import TopicKind
from hardware.virtual_board.board import Board
from hardware.virtual_board.ledger import SpoolLedger, spool_on_flash
from hardware.virtual_board.network import NetworkPolicy

DAY_PACKS = 96
SILENT_DAYS = 34
KINDS = {"tm": TopicKind.TELEMETRY, "ev": TopicKind.EVENT, "st": TopicKind.STATE}


def wake(board: Board, ledger: SpoolLedger) -> None:
    result = board.run_wake()
    assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"
    with spool_on_flash(board.flash_path) as files:
        ledger.observe(files)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_after_a_silent_month_every_pack_is_stored_or_stands_in_a_range_and_the_books_are_right(
    tmp_path: Path, broker: ScriptedBroker, sqlite_databases: SqliteDatabases
) -> None:
    folder = tmp_path / "boards" / "tree"
    board = nodes.make_board(folder, nodes.soil(), node=nodes.tree_3(), port=broker.port)
    ledger = SpoolLedger(folder / "ledger.json")
    wake(board, ledger)  # it is heard once, and knows the time from then on
    board.network_policy = NetworkPolicy(wifi="absent")
    for _ in range(SILENT_DAYS * DAY_PACKS):
        wake(board, ledger)
    board.network_policy = NetworkPolicy()
    while ledger.packs_held:
        wake(board, ledger)
    ledger.save()
    (folder / "node.json").write_text(json.dumps({"node_id": nodes.NODE_ID}))

    began = datetime.fromtimestamp(nodes.START_US // 1_000_000, UTC) - timedelta(hours=1)
    now = datetime.fromtimestamp(board.now_us // 1_000_000, UTC)
    with sqlite_databases.fresh() as url, db.session_factory(db.make_engine(url))() as session:
        deployed_node(session, nodes.NODE_ID, from_at=began)
        for topic, payload in broker.published:
            message = Message(KINDS[topic[-2:]], nodes.NODE_ID, payload)
            store_batch(session, [message], now=now)

        balance = accounting.balance(session, accounting.read_ledgers(tmp_path / "boards"))
        report = verify(session)
        thinned = session.scalar(
            select(func.sum(Gap.to_seq - Gap.from_seq + 1)).where(Gap.reason == THINNED)
        )
        receipt = session.get_one(Receipt, nodes.NODE_ID)
        days = session.scalars(
            select(ObservedRange.from_at).distinct().order_by(ObservedRange.from_at)
        ).all()
        first_observed = session.scalar(
            select(func.min(Observation.sampled_at)).where(Observation.sampled_at > days[-1])
        )
        values = session.execute(select(ObservedRange.lowest, ObservedRange.highest)).all()
    assert report.findings == []
    assert (balance["packs_missing"], balance["packs_duplicate"]) == (0, 0)
    assert balance["packs_written"] == balance["packs_stored"] + thinned
    assert report.declared_lost == thinned
    assert receipt.seq == next(iter(broker.receipts.values()))
    assert 2 * DAY_PACKS <= thinned <= 5 * DAY_PACKS
    off_midnight_s = [(day.timestamp() + 43_200) % 86_400 - 43_200 for day in days[1:]]
    assert all(abs(off_s) <= 60 for off_s in off_midnight_s), "a range begins with its day"
    assert first_observed is not None
    assert now - first_observed >= timedelta(days=30)
    assert all(lowest is not None and lowest <= highest for lowest, highest in values)
