"""The orders that "exactly once" rests on, each turned round: what the kill tests' check must see.

`plan.wrong` names those that a launcher is to take; it applies them before the real command runs, and before it wraps its
fault points. Those of the node are changes of its firmware's sources, flashed before the boards run.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

INGEST_ACKNOWLEDGES_FIRST = "ingest acknowledges before it commits"
RECEIPT_COMES_FIRST = "a receipt is committed before its packs"
BROKER_ACKNOWLEDGES_FIRST = "the broker acknowledges before ingest does"
NODE_TRUSTS_THE_BROKER = "a node takes a PUBACK for a receipt"
NODE_PUBLISHES_FIRST = "a node writes to its spool after it has published"

FIRMWARE_CHANGES = {
    NODE_TRUSTS_THE_BROKER: {
        "node/link/exchange.py": [
            (
                "        client.settle(self._deadline)\n        heap.note()\n",
                "        client.settle(self._deadline)\n        self._received = newest\n        heap.note()\n",
            ),
        ],
    },
    NODE_PUBLISHES_FIRST: {
        "node/spool.py": [
            (
                "        self.next_seq = seq + 1\n        return seq\n",
                "        self.next_seq = seq + 1\n        return seq\n\n    _late = ()\n",
            ),
            (
                "        try:\n            self._write(seq, record, day)\n        except OSError:\n            # The file system",
                "        self._late += ((seq, power_up, uptime_ms, n_records, body, record, day),)\n"
                "        self.next_seq = seq + 1\n        return seq\n"
                "        try:\n            self._write(seq, record, day)\n        except OSError:\n            # The file system",
            ),
            (
                "                if first <= pack[0] <= last:\n                    yield pack\n",
                "                if first <= pack[0] <= last:\n                    yield pack\n"
                "        for late in self._late:\n            if first <= late[0] <= last:\n                yield late[:5]\n",
            ),
            (
                "        return [\n            self.id,\n",
                "        for late in self._late:\n            self._write(late[0], late[5], late[6])\n"
                "        return [\n            self.id,\n",
            ),
        ],
    },
}

# Long enough for a node to hear that all it sent is acknowledged.
_PASSING_ON_TAKES_S = 0.2
_PUBLISHED_WITHIN_S = 5.0
# What the broker has just sent must be with the node before the broker dies.
_RECEIPT_TRAVELS_S = 0.2


def changed_firmware(firmware: Path, folder: Path, wrong: Sequence[str]) -> Path:
    """A copy of the firmware's sources with these orders turned round; fails when the sources are not what it knows."""
    sources = Path(shutil.copytree(firmware, folder / "firmware"))
    for order in wrong:
        for name, changes in FIRMWARE_CHANGES.get(order, {}).items():
            text = (sources / name).read_text(encoding="utf-8")
            for before, after in changes:
                assert text.count(before) == 1, (
                    f"{name} has changed: {order!r} must follow it\n{before}"
                )
                text = text.replace(before, after)
            (sources / name).write_text(text, encoding="utf-8")
    return sources


def acknowledge_first(consumer: Any) -> None:
    """Ingest tells the broker that it has a batch, and only then begins to store it."""
    clients: list[Any] = []

    def open_client(original: Callable[..., Any]) -> Callable[..., Any]:
        def remember(self: Any, stop: threading.Event) -> Any:
            clients[:] = [original(self, stop)]
            return clients[0]

        return remember

    def store(original: Callable[..., Any]) -> Callable[..., Any]:
        def acknowledge_and_store(self: Any, batch: Any, stop: threading.Event) -> Any:
            self._acknowledge(clients[0], batch)
            while clients[0].want_write():
                time.sleep(0.001)
            original(self, batch, stop)
            return ()

        return acknowledge_and_store

    _wrap(consumer, "_open", open_client)
    _wrap(consumer, "_store", store)


def commit_receipts_first(ingest: Any, on_published: Callable[[int], None]) -> None:
    """Ingest says that packs are stored, and only then stores them; `on_published(packs)` when the nodes could hear it."""
    from sqlalchemy import select, update

    from fleet_server import db
    from fleet_server.models import Outbox, Receipt
    from fleet_server.models.outbox import RECEIPT
    from fleet_server.services import outbox
    from fleet_server.wire.senml import Pack

    def store_batch(original: Callable[..., Any]) -> Callable[..., Any]:
        def receipt_and_store(session: Any, messages: Any, *, now: Any) -> Any:
            packs = [one.content for one in messages if isinstance(one.content, Pack)]
            receipts = {
                pack.node_id: (pack.spool, pack.seq)
                for pack in sorted(packs, key=lambda pack: pack.seq)
            }
            with db.writing(session):
                for node_id, (spool, seq) in receipts.items():
                    session.execute(
                        update(Receipt)
                        .where(Receipt.node_id == node_id, Receipt.seq < seq)
                        .values(spool=spool, seq=seq)
                    )
                outbox.mark_changed(session, RECEIPT, receipts, now=now)
            waiting = (
                select(Outbox.key)
                .where(Outbox.kind == RECEIPT, Outbox.key.in_(receipts))
                .where(Outbox.published_version < Outbox.version)
            )
            deadline = time.monotonic() + _PUBLISHED_WITHIN_S
            while session.scalars(waiting).all() and time.monotonic() < deadline:
                session.commit()
                time.sleep(0.005)
            session.commit()
            time.sleep(_RECEIPT_TRAVELS_S)
            if packs:
                on_published(len(packs))
            return original(session, messages, now=now)

        return receipt_and_store

    original = ingest.store_batch
    ingest.store_batch = store_batch(original)


def acknowledge_before_ingest(broker: Any, before_passing_on: Callable[[str], None]) -> None:
    """The embedded broker tells a node that it has a message, and only then passes it on; `before_passing_on(topic)` in between."""

    def route_up(original: Callable[..., Any]) -> Callable[..., Any]:
        passing_on = set()

        async def later(self: Any, message: Any) -> None:
            await asyncio.sleep(_PASSING_ON_TAKES_S)
            before_passing_on(message.topic)
            await original(self, message)

        async def accept(self: Any, message: Any) -> bool:
            task = asyncio.ensure_future(later(self, message))
            passing_on.add(task)
            task.add_done_callback(passing_on.discard)
            return True

        return accept

    _wrap(broker, "_route_up", route_up)


def _wrap(
    owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    setattr(owner, name, wrapper(owner.__dict__[name]))
