"""Numbers that no node can have reached stop nobody; what a node lost for good is declared lost, however much it is."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from fleet_server.models import Gap, Pack, Quarantine, Receipt
from fleet_server.services.accounting import Ledger, balance
from fleet_server.services.ingest import FIRST_SEQ_MAX, SPOOL_PACKS_MAX, Message, store_batch
from fleet_server.services.verifying import verify

U32_MAX = 2**32 - 1
NODE_ID = "n-000001"


def receipt_of(session: Session) -> tuple[int, int, int]:
    session.expire_all()
    receipt = session.get_one(Receipt, NODE_ID)
    return receipt.spool, receipt.seq, receipt.highest_seq


def gaps_of(session: Session) -> list[tuple[int, int, int, str]]:
    session.expire_all()
    rows = session.execute(select(Gap.spool, Gap.from_seq, Gap.to_seq, Gap.reason))
    return sorted(tuple(row) for row in rows)


def far(node: SimulatedNode, seq: int, *, oldest: int) -> Message:
    """A pack with this number, sampled at noon."""
    return node.pack(seq, oldest=oldest, at_s=NOON_S)


ABSURD = {
    "the highest there is": (U32_MAX, 1),
    "the highest there is, all before it let go": (U32_MAX, U32_MAX),
    "more than a spool holds": (SPOOL_PACKS_MAX + 1, 1),
    "a bit that fell over in the node's memory": (2**20 + 11, 11),
    "just beyond reach": (10 + SPOOL_PACKS_MAX + 1, SPOOL_PACKS_MAX),
}


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in a batch of its own"])
@pytest.mark.parametrize("case", ABSURD)
def test_pack_whose_number_no_node_can_have_reached_is_quarantined_and_the_node_goes_on(
    session: Session, case: str, *, together: bool
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs(range(1, 11)), now=NOON)
    seq, oldest = ABSURD[case]
    absurd = far(node, seq, oldest=oldest)
    batches = [[absurd, node.pack(11)]] if together else [[absurd], [node.pack(11)]]
    for batch in (*batches, [node.pack(12)]):
        store_batch(session, batch, now=NOON)
    kept = session.scalars(select(Quarantine)).one()
    assert (kept.reason, kept.spool, kept.seq) == ("seq_jump", node.spool, seq)
    assert receipt_of(session) == (node.spool, 12, 12)
    assert gaps_of(session) == []
    report = verify(session)
    assert report.is_clean
    assert report.packs == 12
    assert report.declared_lost == 0


def test_absurd_pack_of_a_board_is_accounted_for(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1), far(node, U32_MAX, oldest=1)], now=NOON)
    written = {node.spool: frozenset((1, U32_MAX))}
    books = balance(session, [Ledger(NODE_ID, written, held={})])
    assert (books["packs_stored"], books["packs_missing"]) == (1, 0)


def test_unreadable_pack_with_an_absurd_number_moves_nothing(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    wild = node.pack(U32_MAX, at_s=NOON_S + 10 * 86_400)
    store_batch(session, [node.pack(1), wild], now=NOON)
    assert session.scalars(select(Quarantine.reason)).one() == "time_in_future"
    assert receipt_of(session) == (node.spool, 1, 1)


def test_absurd_first_pack_of_a_spool_does_not_make_it_the_nodes_spool(session: Session) -> None:
    deployed_node(session)
    node, forged = SimulatedNode(), SimulatedNode(spool=0xF0)
    store_batch(session, [node.pack(1)], now=NOON)
    store_batch(
        session, [far(forged, FIRST_SEQ_MAX + 1, oldest=FIRST_SEQ_MAX), node.pack(2)], now=NOON
    )
    assert receipt_of(session) == (node.spool, 2, 2)


def test_absurd_numbers_cost_no_more_than_others(engine: Engine, session: Session) -> None:
    """Nothing is written out or asked for number by number."""
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [node.pack(1)], now=NOON)
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    batch = [far(node, U32_MAX - offset, oldest=U32_MAX - offset) for offset in range(100)]
    store_batch(session, [*batch, node.pack(2)], now=NOON)
    assert len(statements) <= 25
    assert len(session.scalars(select(Quarantine.id)).all()) == 100


# --- numbers that look absurd and are not


def test_node_that_thinned_three_years_away_is_taken_up_where_its_spool_begins(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs(range(1, 11)), now=NOON)
    back = NOON + timedelta(days=3 * 365)
    newest = 10 + 3 * 365 * 96
    at_s = int(back.timestamp())
    store_batch(session, [node.pack(newest, oldest=newest - 2, at_s=at_s)], now=back)
    assert gaps_of(session) == [(node.spool, 11, newest - 3, "below_oldest")]
    rest = [node.pack(newest - 2 + of, oldest=newest - 2, at_s=at_s - 1800) for of in range(2)]
    store_batch(session, rest, now=back)
    assert receipt_of(session) == (node.spool, newest, newest)
    report = verify(session)
    assert report.is_clean
    assert report.declared_lost == newest - 3 - 10


def test_node_that_lost_part_of_its_flash_says_so_and_goes_on(session: Session) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, node.packs(range(1, 11)), now=NOON)
    last = 10 + SPOOL_PACKS_MAX
    store_batch(session, [far(node, last, oldest=last)], now=NOON)
    assert gaps_of(session) == [(node.spool, 11, last - 1, "below_oldest")]
    assert receipt_of(session) == (node.spool, last, last)
    assert verify(session).is_clean


def test_node_that_this_server_hears_for_the_first_time_may_have_lived_for_years(
    session: Session,
) -> None:
    deployed_node(session)
    node = SimulatedNode()
    store_batch(session, [far(node, 1_000_000, oldest=999_990)], now=NOON)
    assert session.scalars(select(Pack.seq)).all() == [1_000_000]
    store_batch(
        session, [far(node, seq, oldest=999_990) for seq in range(999_990, 1_000_000)], now=NOON
    )
    assert receipt_of(session) == (node.spool, 1_000_000, 1_000_000)
    assert verify(session).declared_lost == 999_989


# --- spools that are no more


def test_what_a_replaced_spool_still_held_is_declared_lost(session: Session) -> None:
    """The newest goes first: power and flash went in the middle of the backlog."""
    deployed_node(session)
    old, new = SimulatedNode(spool=0xAAAA), SimulatedNode(spool=0xBBBB, started_s=NOON_S + 450)
    store_batch(session, old.packs([1, 2, 9]), now=NOON)
    assert verify(session).gaps == 6
    store_batch(session, [*old.packs([3]), *new.packs([1])], now=NOON)
    assert gaps_of(session) == [(0xAAAA, 4, 8, "spool_replaced")]
    assert receipt_of(session) == (0xBBBB, 1, 1)
    report = verify(session)
    assert report.is_clean
    assert report.declared_lost == 5


def test_late_packs_of_a_replaced_spool_are_lost_no_more(session: Session) -> None:
    deployed_node(session)
    old, new = SimulatedNode(spool=0xAAAA), SimulatedNode(spool=0xBBBB, started_s=NOON_S + 450)
    store_batch(session, old.packs([1, 2, 9]), now=NOON)
    store_batch(session, new.packs([1]), now=NOON)
    store_batch(session, old.packs([5, 12]), now=NOON)
    assert gaps_of(session) == [
        (0xAAAA, 3, 4, "spool_replaced"),
        (0xAAAA, 6, 8, "spool_replaced"),
        (0xAAAA, 10, 11, "spool_replaced"),
    ]
    assert verify(session).is_clean


def test_spool_that_was_not_replaced_after_all_gets_no_receipt_for_what_was_declared_lost(
    session: Session,
) -> None:
    """A pack of another spool, which its node denies in its next state."""
    deployed_node(session)
    true, forged = SimulatedNode(spool=0xAAAA), SimulatedNode(spool=0xF0, started_s=NOON_S + 450)
    store_batch(session, true.packs([1, 2, 9]), now=NOON)
    store_batch(session, forged.packs([1]), now=NOON)
    assert gaps_of(session) == [(0xAAAA, 3, 8, "spool_replaced")]
    store_batch(session, [true.state(spool=0xAAAA, oldest=1, newest=9)], now=NOON)
    assert gaps_of(session) == []
    assert receipt_of(session) == (0xAAAA, 2, 9)
    store_batch(session, true.packs(range(3, 9)), now=NOON)
    assert receipt_of(session) == (0xAAAA, 9, 9)
    assert verify(session).is_clean
