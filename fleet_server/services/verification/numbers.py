"""Sequence numbers: what came, what is in quarantine, what was declared lost, and whether receipts and outbox say so.

A number that a receipt covers and that is nowhere is reported as the gap that it is; the receipt is then judged as if it had
been there. What a node has let go of is known from the packs' own `_oldest`, so a gap row that is gone is missed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.models import Counter, Gap, Node, NodeStatus, Outbox, Quarantine, Receipt
from fleet_server.models.counter import PACKS_STORED
from fleet_server.models.gap import DECLARED_LOST
from fleet_server.models.outbox import DESIRED, RECEIPT
from fleet_server.models.receipt import NO_SPOOL
from fleet_server.services import sequences
from fleet_server.services.ingest import QUARANTINED_BYTES_MAX
from fleet_server.services.publishing import LEASE_S
from fleet_server.services.sequences import Range
from fleet_server.services.verification.packs import (
    SERVER_CLOCK_STEP_S,
    StoredPack,
    read_identity,
)
from fleet_server.services.verification.report import Report
from fleet_server.wire.errors import PackIdentity

_QUARANTINED_AT_ONCE = 100  # of up to 64 KiB each

SpoolOf = tuple[str, int]
"""node id, spool"""


@dataclass
class Arrived:
    """Numbers that came, by node and spool, and what their nodes held."""

    stored: dict[SpoolOf, list[Range]] = field(default_factory=lambda: defaultdict(list))
    quarantined: dict[SpoolOf, set[int]] = field(default_factory=lambda: defaultdict(set))
    oldest: dict[SpoolOf, int] = field(default_factory=lambda: defaultdict(int))
    twice: dict[SpoolOf, int] = field(default_factory=lambda: defaultdict(int))
    packs_of: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, packs: Sequence[StoredPack]) -> None:
        """Note packs that are stored."""
        fresh: dict[SpoolOf, list[int]] = defaultdict(list)
        for pack in packs:
            spool_of = (pack.identity.node_id, pack.identity.spool)
            self.packs_of[pack.identity.node_id] += 1
            fresh[spool_of].append(pack.identity.seq)
            self.oldest[spool_of] = max(self.oldest[spool_of], pack.oldest)
        for spool_of, numbers in fresh.items():
            before = self.stored[spool_of]
            self.stored[spool_of] = sequences.merged([*before, *sequences.runs(numbers)])
            grown = sequences.count(self.stored[spool_of]) - sequences.count(before)
            self.twice[spool_of] += len(numbers) - grown

    def add_quarantined(self, identity: PackIdentity) -> None:
        """Note a message in quarantine whose number was readable."""
        self.quarantined[identity.node_id, identity.spool].add(identity.seq)


def check_quarantine(session: Session, arrived: Arrived, report: Report) -> None:
    """Quarantined messages against their bytes."""
    for row in _quarantine_rows(session):
        said = None
        if row.spool is not None and row.seq is not None:
            said = PackIdentity(row.node_id, row.spool, row.seq)
        # Of a message that is longer than what is kept, the hash is of the part that nobody has any more.
        is_whole = len(row.payload) < QUARANTINED_BYTES_MAX
        if is_whole and hashlib.sha256(row.payload).digest() != row.payload_sha256:
            report.find("packs_damaged", f"Entry {row.id} of the quarantine is not as received.")
        else:
            read = read_identity(row.kind, row.payload)
            is_own = row.kind in _KINDS and read is not None and read.node_id == row.node_id
            if said != (read if is_own else None):
                report.find(
                    "packs_damaged",
                    f"Entry {row.id} of the quarantine has another number than its bytes.",
                )
                said = read
        if said is not None:
            arrived.add_quarantined(said)


def check_numbers(
    session: Session, arrived: Arrived, report: Report, *, wall_now: datetime
) -> None:
    """Every node's spools, its receipt, and the rows that carry what it is to hear."""
    gaps: dict[SpoolOf, list[Gap]] = defaultdict(list)
    for gap in session.scalars(select(Gap).order_by(Gap.from_seq)):
        gaps[gap.node_id, gap.spool].append(gap)
    receipts = {receipt.node_id: receipt for receipt in session.scalars(select(Receipt))}
    denied = _let_go_by_status(session)
    spools: dict[str, set[int]] = defaultdict(set)
    for node_id, spool in (*arrived.stored, *gaps):
        spools[node_id].add(spool)
    counters = _packs_counted(session)
    for node_id in session.scalars(select(Node.node_id).order_by(Node.node_id)):
        found_before = _found(report)
        receipt = receipts.get(node_id)
        current = NO_SPOOL if receipt is None else receipt.spool
        for spool in sorted(spools[node_id] | {current}):
            spool_of = (node_id, spool)
            check = _SpoolCheck(
                spool_of,
                arrived,
                gaps[spool_of],
                receipt if spool == current else None,
                denied.get(spool_of, 0),
                report,
            )
            check.run(is_current=spool == current, has_others=len(spools[node_id]) > 0)
        # A pack that is gone, or there twice, is reported as that.
        if _found(report) == found_before:
            _check_count(node_id, counters.get(node_id, 0), arrived, report)
    _check_outbox(session, report, wall_now)


def _found(report: Report) -> int:
    return report.gaps + report.duplicates + report.receipts_wrong


def _packs_counted(session: Session) -> dict[str, int]:
    rows = session.execute(
        select(Counter.node_id, Counter.count).where(Counter.name == PACKS_STORED)
    )
    return {node_id: int(count) for node_id, count in rows}


def _check_count(node_id: str, counted: int, arrived: Arrived, report: Report) -> None:
    """The number of packs that pages show, which nobody counts anew."""
    stored = arrived.packs_of[node_id]
    if counted != stored:
        report.find(
            "packs_damaged", f"Node {node_id} has {stored} packs; its counter says {counted}."
        )


_KINDS = ("telemetry", "event")


class _SpoolCheck:
    """The numbers of one spool."""

    def __init__(
        self,
        spool_of: SpoolOf,
        arrived: Arrived,
        gaps: Sequence[Gap],
        receipt: Receipt | None,
        let_go_by_status: int,
        report: Report,
    ) -> None:
        self._node_id, self._spool = spool_of
        self._stored = arrived.stored.get(spool_of, [])
        self._twice = arrived.twice.get(spool_of, 0)
        quarantined = sequences.runs(arrived.quarantined.get(spool_of, ()))
        self._came = sequences.merged([*self._stored, *quarantined])
        self._let_go = arrived.oldest.get(spool_of, 0)
        self._let_go_by_status = let_go_by_status
        self._gaps = gaps
        self._receipt = receipt
        self._report = report

    def run(self, *, is_current: bool, has_others: bool) -> None:
        if self._twice:
            self._find("duplicates", f"{self._twice} packs twice", count=self._twice)
        accounted = self._check_gaps(is_current=is_current)
        accounted = self._check_holes(accounted)
        if is_current:
            self._check_receipt(accounted, has_used_spools=has_others)

    def _check_gaps(self, *, is_current: bool) -> list[Range]:
        """Gap rows hold only what did not come, each number once, and nothing that the node may still send."""
        limit = self._lost_at_most(is_current=is_current)
        accounted = self._came
        for gap in self._gaps:
            if gap.state != DECLARED_LOST:
                continue
            right = sequences.holes(accounted, max(1, gap.from_seq), min(gap.to_seq, limit))
            if right != [(gap.from_seq, gap.to_seq)]:
                self._find(
                    "gaps",
                    f"{gap.from_seq} to {gap.to_seq} cannot all have been lost",
                )
            self._report.declared_lost += sequences.count(right)
            accounted = sequences.merged([*accounted, *right])
        return accounted

    def _lost_at_most(self, *, is_current: bool) -> int:
        """The highest number that can have been declared lost."""
        if not is_current:
            return self._came[-1][1] if self._came else 0
        said = 0 if self._receipt is None else self._receipt.seq
        return max(self._let_go - 1, self._let_go_by_status - 1, said)

    def _check_holes(self, accounted: list[Range]) -> list[Range]:
        """Report what is missing; returns what is accounted for, with what the receipt is not to be blamed for."""
        highest = self._stored[-1][1] if self._stored else 0
        said = 0 if self._receipt is None else self._receipt.seq
        let_go = max(self._let_go, self._let_go_by_status)
        excused = []
        holes = sequences.holes(accounted, 1, highest)
        for first, last in holes:
            excused += sequences.common([(first, last)], 1, let_go - 1)
            if sequences.holds(accounted, said):
                excused += sequences.common([(first, last)], 1, said)
        missing = sequences.count(holes)
        if missing:
            covered = " although the receipt says so" if excused else ""
            self._find(
                "gaps",
                f"{missing} packs never came and were not declared lost{covered}, the first is {holes[0][0]}",
                count=missing,
            )
        return sequences.merged([*accounted, *excused])

    def _check_receipt(self, accounted: list[Range], *, has_used_spools: bool) -> None:
        receipt = self._receipt
        expected = sequences.contiguous(accounted)
        if receipt is None:
            self._find("receipts_wrong", "there is no receipt")
        elif self._spool == NO_SPOOL and has_used_spools:
            self._find("receipts_wrong", "the receipt names no spool, but the node has used some")
        elif receipt.seq != expected:
            self._find("receipts_wrong", f"the receipt says {receipt.seq}, right is {expected}")
        elif not self._highest_stored() <= receipt.highest_seq <= self._highest_came():
            self._find(
                "receipts_wrong",
                f"the receipt calls {receipt.highest_seq} the highest number, right is {self._highest_came()}",
            )

    def _highest_stored(self) -> int:
        return self._stored[-1][1] if self._stored else 0

    def _highest_came(self) -> int:
        return self._came[-1][1] if self._came else 0

    def _find(self, kind: str, what: str, *, count: int = 1) -> None:
        self._report.find(kind, f"Node {self._node_id}, spool {self._spool}: {what}.", count=count)


def _quarantine_rows(session: Session) -> Iterator[Quarantine]:
    last_id = 0
    while True:
        rows = session.scalars(
            select(Quarantine)
            .where(Quarantine.id > last_id)
            .order_by(Quarantine.id)
            .limit(_QUARANTINED_AT_ONCE)
        ).all()
        if not rows:
            return
        last_id = rows[-1].id
        for row in rows:
            yield row
            session.expunge(row)


def _let_go_by_status(session: Session) -> dict[SpoolOf, int]:
    """What nodes said last: a state is not kept, so it can excuse a gap row, and never miss one."""
    rows = session.execute(select(NodeStatus.node_id, NodeStatus.spool, NodeStatus.oldest))
    return {
        (node_id, spool): oldest
        for node_id, spool, oldest in rows
        if spool is not None and oldest is not None
    }


def _check_outbox(session: Session, report: Report, wall_now: datetime) -> None:
    """Each node has both rows, and nothing in them keeps a change from going out."""
    rows: Mapping[tuple[str, str], Outbox] = {
        (row.kind, row.key): row for row in session.scalars(select(Outbox))
    }
    latest_lease = wall_now + timedelta(seconds=LEASE_S + SERVER_CLOCK_STEP_S)
    for node_id in session.scalars(select(Node.node_id).order_by(Node.node_id)):
        for kind in (RECEIPT, DESIRED):
            row = rows.get((kind, node_id))
            if row is None:
                fault = "is missing"
            elif not 0 <= row.published_version <= row.version:
                fault = "calls more published than was changed"
            elif row.claimed_until is not None and row.claimed_until > latest_lease:
                fault = "is claimed for longer than anybody claims"
            else:
                continue
            report.find("receipts_wrong", f"The outbox row of node {node_id}'s {kind} {fault}.")
