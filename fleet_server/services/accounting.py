"""The demo's books: what the boards wrote to their flash against what the server stored.

A ledger is kept by a board, not by firmware or server (its JSON is described in docs/where_things_live.md); this module
only compares.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from fleet_server.errors import Invalid
from fleet_server.models import Counter, Gap, NodeStatus, Observation, Pack, Quarantine, RawReading
from fleet_server.models.counter import PACKS_RESENT


@dataclass(frozen=True)
class Ledger:
    """What one board says: sequence numbers ever durable on its flash, and those still held, by spool."""

    node_id: str
    written: Mapping[int, frozenset[int]]
    held: Mapping[int, frozenset[int]]


def read_ledgers(folder: Path) -> list[Ledger]:
    """The ledgers of all boards below `folder`.

    Raises:
        Invalid: a ledger is not what a board writes.
    """
    ledgers = []
    for path in sorted(folder.glob("*/ledger.json")):
        try:
            node = json.loads((path.parent / "node.json").read_bytes())
            spools = json.loads(path.read_bytes())["spools"]
            ledgers.append(
                Ledger(
                    node_id=str(node["node_id"]),
                    written={int(spool): _numbers(of["written"]) for spool, of in spools.items()},
                    held={int(spool): _numbers(of["held"]) for spool, of in spools.items()},
                )
            )
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise Invalid(f"{path} is not a board's ledger: {problem}.") from problem
    return ledgers


def balance(session: Session, ledgers: Iterable[Ledger]) -> dict[str, int]:
    """The counts of `fleet demo`'s last line.

    `packs_missing` were written, but are not stored, not held by their board, and not declared lost. A pack in
    quarantine whose identity was readable is accounted for: it is not missing, and it is not stored.
    """
    written = missing = 0
    for ledger in ledgers:
        for spool, numbers in ledger.written.items():
            written += len(numbers)
            not_held = numbers - ledger.held.get(spool, frozenset())
            missing += len(_unaccounted(session, ledger.node_id, spool, not_held))
    identities = (
        select(Pack.node_id, Pack.spool, Pack.seq)
        .group_by(Pack.node_id, Pack.spool, Pack.seq)
        .having(func.count() > 1)
        .subquery()
    )
    return {
        "packs_written": written,
        "packs_stored": _count(session, select(func.count()).select_from(Pack)),
        "packs_resent": _count(
            session, select(func.sum(Counter.count)).where(Counter.name == PACKS_RESENT)
        ),
        "packs_duplicate": _count(session, select(func.count()).select_from(identities)),
        "packs_missing": missing,
        "readings": _count(session, select(func.count()).select_from(RawReading)),
        "observations": _count(
            session, select(func.count()).where(Observation.pack_id.is_not(None))
        ),
    }


def firmware_versions(session: Session) -> list[str]:
    """Versions that the nodes say they run, sorted."""
    rows = session.scalars(
        select(NodeStatus.version).where(NodeStatus.version.is_not(None)).distinct()
    )
    return sorted(str(version) for version in rows)


def last_received_at(session: Session) -> datetime | None:
    """When the newest pack came, by the fleet's clock; None before the first."""
    return session.scalar(select(func.max(Pack.received_at)))


def _unaccounted(
    session: Session, node_id: str, spool: int, numbers: frozenset[int]
) -> frozenset[int]:
    """Those of these numbers that are neither stored nor in quarantine nor declared lost."""
    stored = select(Pack.seq).where(Pack.node_id == node_id, Pack.spool == spool)
    quarantined = select(Quarantine.seq).where(
        Quarantine.node_id == node_id, Quarantine.spool == spool, Quarantine.seq.is_not(None)
    )
    left = numbers - set(session.scalars(stored)) - set(session.scalars(quarantined))
    # A gap may be as wide as numbers go: it is never written out.
    for gap in session.scalars(select(Gap).where(Gap.node_id == node_id, Gap.spool == spool)):
        left = frozenset(seq for seq in left if not gap.from_seq <= seq <= gap.to_seq)
    return left


def _numbers(ranges: Iterable[tuple[int, int]]) -> frozenset[int]:
    return frozenset(seq for first, last in ranges for seq in range(first, last + 1))


def _count(session: Session, statement: Select[int]) -> int:
    # PostgreSQL's sum of bigint is a numeric, which JSON does not know.
    return int(session.scalar(statement) or 0)
