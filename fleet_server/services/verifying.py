"""Recomputing everything from the packs as received, through the functions that made it, and saying what does not agree.

Nothing is judged by comparing stored results with each other: a pack is decoded again, its time is looked up again, its observations are
made again by `observing.make_observations`, and what no node measured is read again from the file it came in. A fault is reported once, as the kind that it is. What is looked at is in
`verification/`, one file for each kind of promise.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet_server.models import Node, Pack
from fleet_server.services import auditing, bulk
from fleet_server.services.verification.aggregates import check_aggregates
from fleet_server.services.verification.external import check_external
from fleet_server.services.verification.numbers import Arrived, check_numbers, check_quarantine
from fleet_server.services.verification.observations import ObservationCheck
from fleet_server.services.verification.packs import PackCheck
from fleet_server.services.verification.report import Report
from fleet_server.services.verification.thinned import ThinnedCheck

_PACKS_AT_ONCE = 1000


def verify(session: Session, *, on_progress: Callable[[int, int], None] | None = None) -> Report:
    """Recompute everything as it was at one moment. Reads only; memory is bounded by one node's packs of some days.

    `on_progress` is told from time to time how many packs are done, and how many there are.
    """
    if session.in_transaction():
        session.commit()
    # Packs that arrive meanwhile must not be seen by one query and missed by the next. SQLite's reading is a snapshot anyway.
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    report, arrived = Report(), Arrived()
    damaged_ids: set[int] = set()
    observations = ObservationCheck(session, report, damaged_ids)
    thinned = ThinnedCheck(session, report, damaged_ids)
    total = session.scalar(select(func.count()).select_from(Pack)) or 0
    for node_id in session.scalars(select(Node.node_id).order_by(Node.node_id)).all():
        packs = PackCheck(session, report, damaged_ids)
        observations.begin_node(node_id)
        pack_ids = session.scalars(
            select(Pack.id).where(Pack.node_id == node_id).order_by(Pack.id)
        ).all()
        stand_for_others = []
        for some in bulk.chunks(pack_ids, _PACKS_AT_ONCE):
            checked = packs.check(some)
            stand_for_others += checked.thinned
            arrived.add(checked.packs)
            observations.check(checked)
            report.packs += len(some)
        packs.report_times()
        thinned.check(node_id, stand_for_others)
        if on_progress is not None:
            on_progress(report.packs, total)
    observations.report_rest()
    thinned.report_rest()
    check_external(session, report)
    check_aggregates(session, report)
    check_quarantine(session, arrived, report)
    check_numbers(session, arrived, report, wall_now=datetime.now(UTC))
    _check_audit(session, report)
    return report


def _check_audit(session: Session, report: Report) -> None:
    chain = auditing.verify_chain(session)
    if chain.fault is not None:
        report.audit_chain_ok = False
        report.say("audit_chain_ok", f"Audit log: {chain.fault}")
