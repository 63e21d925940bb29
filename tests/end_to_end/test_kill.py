"""Exactly once under SIGKILL: node, broker, ingest and database die at named points while packs are in flight.

`packs_written` is counted by the boards at their flash (hardware/virtual_board/ledger.py). After the kills everything
is started anew without faults, the nodes catch up, and ledger, database and `fleet verify` must agree: nothing missing,
nothing twice, and packs did come again (else nothing was tried).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from killable.fault_points import PLAN_VARIABLE, Plan
from servers import running_postgresql
from sqlalchemy import select
from system import READY_S, System, is_clean, kept_alive, mosquitto_of, running

from fleet_server.models import Pack
from fleet_server.services import accounting

HITS, NIGHTLY_HITS = 20, 200
PATIENCE_S_PER_HIT = 12.0
NODES, DAYS = 6, 60
# Chances are such that a node still gets through now and then: what is never delivered proves nothing.
NODE_CHANCES = {"after_publish": 0.15, "during_spool_write": 0.06}
BROKER_CHANCES = {"before_broker_ack": 0.2, "after_broker_ack": 0.2}
INGEST_CHANCES = {"before_commit": 0.3, "after_commit": 0.3}
DATABASE_CHANCE = {"database": 0.3}


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
        _run_until_spent(system, plan)
        for name in ("ingest", "broker"):
            system.stop(name)
        system.wait_for_database()
        if system.broker_url is None:
            system.start_broker().wait_for("ready", timeout_s=READY_S)
        system.start_ingest()
        system.catch_up()
        report = system.verify()
        books = system.books()
        _check_every_pack(system)
    hits = {point: plan.hits(point) for point in plan.chances}
    print(hits, books, report)  # noqa: T201 - what happened is worth reading in the test's output
    assert min(hits.values()) >= plan.goal
    assert books["packs_resent"] > 0, "nothing was sent twice, so nothing was tried"
    assert books["packs_missing"] == 0
    assert books["packs_duplicate"] == 0
    assert books["packs_stored"] == books["packs_written"]
    assert is_clean(report)
    assert report["declared_lost"] == 0
    assert report["packs"] == books["packs_written"]


def _run_until_spent(system: System, plan: Plan) -> None:
    """All boards run and die until every fault point was hit as often as wanted."""
    boards = system.start_killable_boards()
    deadline = time.monotonic() + PATIENCE_S_PER_HIT * plan.goal
    reached_s = system.start_s
    try:
        while not plan.is_spent():
            system.raise_when_ended()
            assert time.monotonic() < deadline, plan.account()
            while not boards.events.empty():
                status = boards.events.get()["status"]
                reached_s = max(reached_s, int(status["sim_utc_s_max"]))
            time.sleep(0.1)
    finally:
        system.stop("killable-boards")
    # As far as the fastest one has come, and the hours in which each of them will have published.
    system.now_s = min(system.now_s, reached_s + 2 * 3600)


def _check_every_pack(system: System) -> None:
    """One by one: what a board wrote is what is stored, no more and no less."""
    with system.session() as session:
        stored: dict[tuple[str, int], list[int]] = {}
        for node_id, spool, seq in session.execute(select(Pack.node_id, Pack.spool, Pack.seq)):
            stored.setdefault((node_id, spool), []).append(seq)
    written = {
        (ledger.node_id, spool): sorted(numbers)
        for ledger in accounting.read_ledgers(system.boards_folder)
        for spool, numbers in ledger.written.items()
    }
    assert {identity: sorted(numbers) for identity, numbers in stored.items()} == written
