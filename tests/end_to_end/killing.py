"""Killing at named points while packs are in flight, and the account of what became of every pack afterwards.

`packs_written` is counted by the boards at their flash (hardware/virtual_board/ledger.py). After the kills everything is
started anew without faults, the nodes catch up, and flash, ledger, database and `fleet verify` must agree.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from killable.fault_points import Plan, resume
from sqlalchemy import select
from system import READY_S, System, is_clean

from fleet_server.models import Pack, Quarantine
from fleet_server.services import accounting
from hardware.virtual_board.ledger import packs_in_segment, spool_id, spool_on_flash

PATIENCE_S = 60.0

Identity = tuple[str, int, int]
"""node id, spool, sequence"""


@dataclass(frozen=True)
class Account:
    """What became of the packs. `faults` is empty when each was stored once, as it was written."""

    hits: Mapping[str, int]
    books: Mapping[str, int]
    report: Mapping[str, Any]
    quarantined: list[str]
    lost: list[Identity]
    """Written, and not stored."""
    made_up: list[Identity]
    """Stored, and never written."""
    changed: list[Identity]
    """Stored with another body than the flash holds."""

    def faults(self) -> set[str]:
        """Names of what is wrong."""
        found = {
            "packs missing": self.books["packs_missing"] > 0,
            "packs doubled": self.books["packs_duplicate"] > 0,
            "packs lost": bool(self.lost),
            "packs made up": bool(self.made_up),
            "packs changed": bool(self.changed),
            "packs quarantined": bool(self.quarantined),
            "packs declared lost": self.report["declared_lost"] > 0,
            "verify not clean": not is_clean(self.report),
        }
        return {name for name, is_so in found.items() if is_so}


def kill_and_account(system: System, plan: Plan) -> Account:
    """Let all boards run until every fault point was hit as often as wanted; then start anew, catch up, and count.

    The system's servers run, ingest and the broker as the plan's launchers.
    """
    _run_until_spent(system, plan)
    for name in ("ingest", "broker"):
        system.stop(name)
    system.wait_for_database()
    if system.broker_url is None:
        system.start_broker().wait_for("ready", timeout_s=READY_S)
    system.start_ingest()
    system.catch_up()
    account = _account(system, plan)
    print(account)  # noqa: T201 - what happened is worth reading in the test's output
    return account


def _run_until_spent(system: System, plan: Plan) -> None:
    boards = system.start_killable_boards()
    reached_s = system.start_s
    hits, hit_at = 0, time.monotonic()
    try:
        while not plan.is_spent():
            system.raise_when_ended()
            so_far = sum(map(plan.hits, plan.chances))
            if so_far > hits:
                hits, hit_at = so_far, time.monotonic()
            # Not how long all of it takes: on a busy machine a database alone needs ten seconds to recover.
            assert time.monotonic() < hit_at + PATIENCE_S, (
                f"nothing was killed for {PATIENCE_S:.0f} s\n{plan.account()}\n{system.last_words()}"
            )
            while not boards.events.empty():
                status = boards.events.get()["status"]
                reached_s = max(reached_s, int(status["sim_utc_s_max"]))
            time.sleep(0.1)
    finally:
        system.stop("killable-boards")
        resume(plan, "broker")
    # As far as the fastest one has come, and the hours in which each of them will have published.
    system.now_s = min(system.now_s, reached_s + 2 * 3600)


def _account(system: System, plan: Plan) -> Account:
    written = {
        (ledger.node_id, spool, seq)
        for ledger in accounting.read_ledgers(system.boards_folder)
        for spool, numbers in ledger.written.items()
        for seq in numbers
    }
    with system.session() as session:
        stored = {
            (pack.node_id, pack.spool, pack.seq): pack.payload
            for pack in session.scalars(select(Pack))
        }
        quarantined = sorted(session.scalars(select(Quarantine.reason)))
    return Account(
        hits={point: plan.hits(point) for point in plan.chances},
        books=system.books(),
        report=system.verify(),
        quarantined=quarantined,
        lost=sorted(written - stored.keys()),
        made_up=sorted(stored.keys() - written),
        changed=sorted(
            identity
            for identity, body in _on_flash(system.boards_folder)
            if identity in stored and not stored[identity].endswith(body)
        ),
    )


def _on_flash(boards: Path) -> Iterator[tuple[Identity, bytes]]:
    """What lies on the boards' flashes now, by identity."""
    for ledger, path in zip(
        accounting.read_ledgers(boards), sorted(boards.glob("*/ledger.json")), strict=True
    ):
        with spool_on_flash(path.parent / "flash.bin") as spool:
            names = spool.sizes()
            current = spool_id(spool.read("id")) if "id" in names else None
            for name in names:
                if current is None or not name.endswith(".seg"):
                    continue
                for pack in packs_in_segment(spool.read(name)):
                    yield (ledger.node_id, current, pack.seq), pack.body
