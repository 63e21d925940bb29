"""Exactly once under SIGKILL: node, broker, ingest and database die at named points while packs are in flight.

What is counted, and against what, is in killing.py. That its account sees what it must see is tried in test_orders.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from killable.fault_points import PLAN_VARIABLE, Plan
from killing import kill_and_account
from servers import running_postgresql
from system import System, kept_alive, mosquitto_of, running

HITS, NIGHTLY_HITS = 20, 200
NODES, DAYS = 6, 60
HOURLY_NODES = 2
"""They send several packs at once, as nodes usually do; the others publish at every wake."""
# Chances are such that a node still gets through now and then: what is never delivered proves nothing.
NODE_CHANCES = {"after_publish": 0.15, "during_spool_write": 0.04}
BROKER_CHANCES = {"before_broker_ack": 0.5, "after_broker_ack": 0.7}
INGEST_CHANCES = {"before_commit": 0.4, "after_commit": 0.4}
DATABASE_CHANCE = {"database": 0.4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kills").mkdir()
    return tmp_path


@pytest.mark.timeout(600)
def test_killed_anywhere_on_embedded_parts_every_pack_is_stored_once(folder: Path) -> None:
    """SQLite dies with the ingest that writes to it: `before_commit` is its death in the middle of a transaction."""
    _kill_embedded(folder, hits=HITS)


@pytest.mark.timeout(600)
@pytest.mark.needs_mosquitto
@pytest.mark.needs_postgresql
def test_killed_anywhere_on_real_servers_every_pack_is_stored_once(folder: Path) -> None:
    _kill_real_servers(folder, hits=HITS)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_killed_often_on_embedded_parts_every_pack_is_stored_once(folder: Path) -> None:
    _kill_embedded(folder, hits=NIGHTLY_HITS)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.needs_mosquitto
@pytest.mark.needs_postgresql
def test_killed_often_on_real_servers_every_pack_is_stored_once(folder: Path) -> None:
    _kill_real_servers(folder, hits=NIGHTLY_HITS)


def _kill_embedded(folder: Path, *, hits: int) -> None:
    chances = {**NODE_CHANCES, **BROKER_CHANCES, **INGEST_CHANCES}
    plan = Plan(folder / "kills", chances, hits)
    _kill_and_check(System(folder / "data", nodes=NODES, days=DAYS), plan)


def _kill_real_servers(folder: Path, *, hits: int) -> None:
    chances = {**NODE_CHANCES, **BROKER_CHANCES, **INGEST_CHANCES, **DATABASE_CHANCE}
    plan = Plan(folder / "kills", chances, hits)
    with (
        running_postgresql() as postgresql,
        kept_alive(postgresql, plan.folder / "database.pid"),
        mosquitto_of(folder / "data", pid_file=plan.folder / "broker.pid") as broker_url,
    ):
        system = System(
            folder / "data",
            nodes=NODES,
            days=DAYS,
            database_url=postgresql.url(postgresql.create_database()),
            broker_url=broker_url,
        )
        _kill_and_check(system, plan)


def _kill_and_check(system: System, plan: Plan) -> None:
    system.environment[PLAN_VARIABLE] = str(plan.save())
    with running(system, killable=True):
        system.want_talkative_nodes(but=HOURLY_NODES)
        account = kill_and_account(system, plan)
    assert min(account.hits.values()) >= plan.goal
    assert account.books["packs_resent"] > 0, "nothing was sent twice, so nothing was tried"
    assert account.faults() == set()
    # One by one in `lost` and `made_up`; once more by the counts of others.
    assert account.books["packs_stored"] == account.books["packs_written"]
    assert account.report["packs"] == account.books["packs_written"]
