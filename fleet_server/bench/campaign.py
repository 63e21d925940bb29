"""A campaign over very many nodes: planned, opened as a page, told to all at once, and heard of by all.

The limit is what the database needs for the campaign's rows alone, measured in the same run. Nodes are rows as ingest leaves them when
each has said what it runs: what talks to a broker is measured by `fleet bench ingest` and `storm`.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.bench import registry
from fleet_server.bench.nodes import PASSWORD, USER, Reader, p95_ms
from fleet_server.bench.programs import Programs, cpu_s, line, own
from fleet_server.errors import Conflict
from fleet_server.models import CampaignNode, Node, NodeStatus, Release
from fleet_server.services import accounts, campaign_steps, campaigning, rights
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import Plan, Terms
from fleet_server.wire.manifest import BundleFile
from fleet_server.wire.states import SlotState

CREATED_GOAL_S, PAGE_GOAL_MS = 10, 300
_MODEL, _VERSION, _COUNTER = "tree-3", "9.0.0", 9
_FILE_BYTES = 30_000


def measure(
    *, nodes: int = 10_000, rounds: int = 30, database_url: str | None = None
) -> dict[str, Any]:
    """Fill a registry, plan a campaign for all of it, and let it run.

    Args:
        nodes: how many are on the list; every fiftieth is out of service.
        rounds: how often the page is asked for.
        database_url: an empty PostgreSQL database; SQLite in a scratch folder when None.

    Raises:
        Unavailable: the server could not be started, or did not answer with a page.
        Conflict: the database is not empty.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="stadtsensor-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = database_url or f"sqlite:///{folder / 'bench.sqlite3'}"
        engine = db.make_engine(url)
        stack.callback(engine.dispose)
        sessions = db.session_factory(engine)
        now = datetime.now(UTC).replace(microsecond=0)
        db.upgrade(engine)
        release_id = _fill(sessions, nodes, now)
        campaign_id, meant, created_s = _create(sessions, release_id, now)
        bare_s = _bare_rows(sessions)
        programs = Programs(folder, url, stack)
        serve = programs.start(
            "serve", [own("fleet"), "serve", "--port", "0", "--json"], listen=True
        )
        reader = Reader(line(serve)["url"])
        stack.callback(reader.close)
        reader.log_in()
        page = f"/fleet/campaigns/{campaign_id}"
        reader.time_s(page)
        before_s = cpu_s(serve.pid)
        planned = [reader.time_s(page) for _ in range(rounds)]
        page_cpu_s = (cpu_s(serve.pid) - before_s) / rounds
        told_s = _took(lambda: _work(sessions, now))
        _all_run_it(sessions, now)
        heard_s = _took(lambda: _work(sessions, now + timedelta(hours=2)))
        reader.close()  # the server has given up on it meanwhile; it opens again by itself
        ended = [reader.time_s(page) for _ in range(rounds)]
    figure, limit = meant / created_s, meant / bare_s
    return {
        "figure": round(figure, 1),
        "unit": "nodes/s",
        "limit": round(limit, 1),
        "ratio": round(figure / limit, 3),
        "created_s": round(created_s, 2),
        "created_goal_s": CREATED_GOAL_S,
        "page_p95_ms": p95_ms([*planned, *ended]),
        "page_goal_ms": PAGE_GOAL_MS,
        "page_cpu_ms": round(page_cpu_s * 1000, 1),
        "all_told_s": round(told_s, 2),
        "all_heard_s": round(heard_s, 2),
        "nodes": meant,
        "rounds": rounds,
        "database": "postgresql" if database_url else "sqlite",
    }


def _fill(sessions: sessionmaker[Session], nodes: int, now: datetime) -> int:
    with sessions() as session:
        if session.scalar(select(Node.node_id).limit(1)) is not None:
            raise Conflict("The database for a benchmark must be empty.")
    registry.fill(sessions, nodes=nodes, full=0, now=now, models=(_MODEL,))
    files = [BundleFile("node/cycle.mpy", _FILE_BYTES, bytes(32))]
    release = registry.release_of(_VERSION, _COUNTER, files, model=_MODEL, now=now)
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=now)
        with db.writing(session):
            session.add(release)
        return release.id


def _create(
    sessions: sessionmaker[Session], release_id: int, now: datetime
) -> tuple[int, int, float]:
    """Its number, for how many nodes it is, and how long planning it took."""
    plan = Plan(canaries=0, shares=(1.0,), soak=timedelta(0))
    with sessions() as session:
        rights.act_as(session, rights.Actor("author", frozenset(rights.Right)))
        began = time.perf_counter()
        made = campaigning.create_campaign(
            session, release_id, Target(), now=now, plan=plan, terms=Terms(at_once=10_000)
        )
        created_s = time.perf_counter() - began
        campaigning.start_campaign(session, made.id, now=now)
        rights.act_as(session, rights.Actor("approver", frozenset(rights.Right)))
        campaigning.approve_campaign(session, made.id, now=now)
        meant = session.scalar(select(func.count()).select_from(CampaignNode)) or 0
    return made.id, meant, created_s


def _bare_rows(sessions: sessionmaker[Session]) -> float:
    """How long the same rows take alone, three times; they are taken back."""
    table: Table = CampaignNode.__table__  # type: ignore[assignment] # of a mapped class it is one
    times = []
    for _ in range(3):
        with sessions() as session:
            rows = [dict(row) for row in session.execute(select(table)).mappings()]
        with sessions() as session, db.writing(session):
            taken_back = session.begin_nested()
            session.execute(delete(table))
            began = time.perf_counter()
            session.execute(insert(table), rows)
            times.append(time.perf_counter() - began)
            taken_back.rollback()
    return statistics.median(times)


def _work(sessions: sessionmaker[Session], now: datetime) -> None:
    with sessions() as session:
        while campaign_steps.advance_all(session, now=now):
            pass


def _all_run_it(sessions: sessionmaker[Session], now: datetime) -> None:
    """As ingest leaves it: every node that was told has said that it runs the release, and a reading came after."""
    said = now + timedelta(minutes=30)
    mine = CampaignNode.node_id == NodeStatus.node_id
    with sessions() as session, db.writing(session):
        session.execute(
            update(NodeStatus)
            .where(NodeStatus.node_id.in_(select(CampaignNode.node_id)))
            .values(
                version=_VERSION,
                counter=_COUNTER,
                bundle_sha256=select(Release.bundle_sha256).limit(1).scalar_subquery(),
                slot_state=SlotState.CONFIRMED,
                assignment=select(CampaignNode.assignment).where(mine).scalar_subquery(),
                attempt=1,
                last_heard_at=said,
                last_state_at=said,
                clock_at=said,
                last_sampled_at=said,
            )
            .execution_options(synchronize_session=False)
        )
    _work(sessions, said)
    with sessions() as session, db.writing(session):
        session.execute(
            update(NodeStatus)
            .where(NodeStatus.last_sampled_at == said)
            .values(last_sampled_at=said + timedelta(minutes=15))
            .execution_options(synchronize_session=False)
        )


def _took(do: Callable[[], None]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
