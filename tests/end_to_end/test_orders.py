"""The kill tests' account sees it when one of the orders is turned round that "exactly once" rests on.

Each order is turned round by a variant that lives in killable/wrong_orders.py, a process dies where that order matters, and the same
account as in test_kill.py must name the loss. What protects twice is taken out twice: an ingest that acknowledges too early loses
nothing as long as nodes believe nothing but receipts, so there the nodes believe the broker, too; that they alone lose nothing
(the embedded broker acknowledges what is stored) shows that it is ingest's order that is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from killable import wrong_orders
from killable.fault_points import PLAN_VARIABLE, Plan
from killing import kill_and_account
from system import System, running

from hardware.paths import firmware_dir

NODES, DAYS = 2, 30
# Not every kill catches a pack at the right moment; so many do not all miss it. Of those two of each run nearly every one does.
HITS, HITS_AT_EACH_RUN = 8, 5
NOTHING: frozenset[str] = frozenset()
MISSING = frozenset({"packs missing", "packs lost"})


@dataclass(frozen=True)
class Order:
    """Orders turned round together, where something dies, and what the account must name."""

    name: str
    wrong: tuple[str, ...]
    chances: Mapping[str, float]
    seen: frozenset[str]


ORDERS = [
    Order(
        "ingest_acknowledges_before_it_commits",
        (wrong_orders.INGEST_ACKNOWLEDGES_FIRST, wrong_orders.NODE_TRUSTS_THE_BROKER),
        {"before_commit": 0.5},
        MISSING,
    ),
    Order(
        "only_nodes_trust_the_broker",
        (wrong_orders.NODE_TRUSTS_THE_BROKER,),
        {"before_commit": 0.5},
        NOTHING,
    ),
    Order(
        "nodes_trust_a_broker_that_acknowledges_before_ingest",
        (wrong_orders.BROKER_ACKNOWLEDGES_FIRST, wrong_orders.NODE_TRUSTS_THE_BROKER),
        {"before_passing_on": 0.5},
        MISSING,
    ),
    Order(
        "receipt_is_committed_before_its_packs",
        (wrong_orders.RECEIPT_COMES_FIRST,),
        {"after_receipt": 0.5},
        MISSING,
    ),
    Order(
        "node_publishes_before_it_writes_to_its_spool",
        (wrong_orders.NODE_PUBLISHES_FIRST,),
        {"after_publish": 0.5},
        frozenset({"packs quarantined", "packs changed"}),
    ),
]


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> System:
    """Two nodes, enrolled, that have not booted yet; nothing runs."""
    system = System(tmp_path_factory.mktemp("orders") / "data", nodes=NODES, days=DAYS)
    with running(system):
        system.want_talkative_nodes()
    return system


# Those that ingest and nodes rest on most; the rest, and what shows only that something else is seen, once a night.
AT_EACH_RUN = (
    "ingest_acknowledges_before_it_commits",
    "node_publishes_before_it_writes_to_its_spool",
)


def _named(order: Order) -> object:
    marks = [] if order.name in AT_EACH_RUN else [pytest.mark.nightly]
    return pytest.param(order, id=order.name, marks=marks)


@pytest.mark.parametrize("order", [_named(order) for order in ORDERS])
def test_order_that_is_turned_round_is_seen(enrolled: System, order: Order, tmp_path: Path) -> None:
    (tmp_path / "kills").mkdir()
    hits = HITS_AT_EACH_RUN if order.name in AT_EACH_RUN else HITS
    plan = Plan(tmp_path / "kills", order.chances, hits, order.wrong)
    system = enrolled.copy_to(tmp_path / "data")
    system.environment[PLAN_VARIABLE] = str(plan.save())
    system.flash(wrong_orders.changed_firmware(firmware_dir(), tmp_path, order.wrong))
    try:
        system.start_killable_servers()
        account = kill_and_account(system, plan)
    finally:
        system.stop_all()
    assert min(account.hits.values()) >= hits
    assert account.faults() >= order.seen
    assert bool(account.faults()) == bool(order.seen)
