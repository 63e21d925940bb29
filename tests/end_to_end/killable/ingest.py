"""Ingest that is killed around its commit, and that kills the database under it.

    python ingest.py --json     (options of `fleet ingest`)

Fault points: `before_commit` (packs are written into a transaction that never ends; on SQLite this is the database's
death as well), `after_commit` (packs are on disk, the broker has not heard), `database` (PostgreSQL's postmaster and
all its backends, when a transaction that holds packs is about to be committed or has just begun to be). With an order
turned round (wrong_orders.py) also `after_receipt` (a receipt is out, its packs are not stored; the broker dies as well).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import wrong_orders
from fault_points import (
    EMBEDDED_BROKER,
    FaultPoint,
    end_launcher,
    load_plan,
    process_id,
    run_and_restart,
    with_children,
    wrap,
)
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import configure_mappers

from fleet_server.cli import ingest as command_module
from fleet_server.cli.main import fleet
from fleet_server.mqtt import consumer
from fleet_server.services import ingest
from fleet_server.wire.senml import EventPack, Pack

_DATABASE = "database"
# A commit on a machine that also runs everything else takes some milliseconds: the kill lands before, in or after it.
_COMMIT_TAKES_S = 0.006

_plan = load_plan()
_before_commit = FaultPoint("before_commit", _plan)
_after_commit = FaultPoint("after_commit", _plan)
_database = FaultPoint("database", _plan)
# With a receipt that comes before its packs: the broker dies, too, else it would hand them over again.
_after_receipt = FaultPoint("after_receipt", _plan)
_in_hand = threading.local()


def _store_batch(original: Callable[..., Any]) -> Callable[..., Any]:
    def store_batch(session: Any, messages: Any, **options: Any) -> Any:
        _in_hand.packs = sum(
            isinstance(getattr(one, "content", None), Pack | EventPack) for one in messages
        )
        result = original(session, messages, **options)
        packs, _in_hand.packs = _in_hand.packs, 0
        if not packs and result.packs_stored:
            end_launcher("the consumer does not hand over packs that it has read any more")
        if packs and _after_commit.is_due():
            _after_commit.kill_self(f"{packs} packs stored, not acknowledged")
        return result

    return store_batch


def _about_to_commit(_connection: Connection) -> None:
    packs = getattr(_in_hand, "packs", 0)
    if not packs:
        return
    if _before_commit.is_due():
        _before_commit.kill_self(f"{packs} packs in a transaction")
    postmaster = process_id(_plan, _DATABASE)
    if postmaster is not None and _database.is_due():
        pids = with_children(postmaster)
        delay_s = _database.fraction() * _COMMIT_TAKES_S

        def kill() -> None:
            time.sleep(delay_s)
            _database.kill(pids, f"{packs} packs in a transaction, {delay_s * 1000:.1f} ms later")

        threading.Thread(target=kill).start()
        if delay_s < _COMMIT_TAKES_S / 3:
            # A third of them before the commit has begun, for certain.
            time.sleep(delay_s * 2)


def _die_with_broker(packs: int) -> None:
    broker = process_id(_plan, EMBEDDED_BROKER)
    if broker is not None and _after_receipt.is_due():
        _after_receipt.kill([broker], f"{packs} packs receipted, not stored")
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    if wrong_orders.INGEST_ACKNOWLEDGES_FIRST in _plan.wrong:
        wrong_orders.acknowledge_first(consumer.Consumer)
    if wrong_orders.RECEIPT_COMES_FIRST in _plan.wrong:
        wrong_orders.commit_receipts_first(ingest, _die_with_broker)
    wrap(ingest, "store_batch", _store_batch)
    if consumer.ingest is not ingest:
        sys.exit("fault point: the consumer does not call services.ingest.store_batch any more")
    event.listen(Engine, "commit", _about_to_commit)
    # Done before the fork, so that a restart does not wait for it.
    assert command_module.ingest
    configure_mappers()
    command = ["ingest", *sys.argv[1:]]
    run_and_restart(
        {"ingest": lambda: fleet.main(command, prog_name="fleet", standalone_mode=False)},
        restarts_failed=True,
    )


if __name__ == "__main__":
    main()
