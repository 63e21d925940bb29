"""Jobs run when they are due, once, whoever of several workers gets there first; one that fails takes no other along."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import Engine, event, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.jobs import schedule
from fleet_server.jobs.schedule import Scheduled
from fleet_server.models import Job, Node, NodeDay
from fleet_server.services import scheduling
from fleet_server.services.ingest import store_batch
from fleet_server.settings import Settings, load_settings
from fleet_server.wire.states import NodeState


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, data_dir=tmp_path)


def test_every_job_runs_on_a_fleet_that_lives_and_is_due_again_later(
    sessions: sessionmaker[Session], settings: Settings
) -> None:
    with sessions() as session:
        deployed_node(session)
        now = datetime.now(UTC)
        store_batch(session, [SimulatedNode().state(battery_mv=3900)], now=now)
        with db.writing(session):
            session.execute(update(Node).values(state=NodeState.ENROLLING))
        scheduling.add_jobs(session, schedule.JOBS, wall_now=now)
        scheduling.add_jobs(session, schedule.JOBS, wall_now=now)
    ran = []
    while (name := schedule.run_due(sessions, settings)) is not None:
        ran.append(name)
    assert sorted(ran) == sorted(schedule.JOBS)
    with sessions() as session:
        for job in scheduling.jobs(session):
            assert job.error is None, (job.name, job.error)
            assert job.due_at > now
        assert session.get_one(Node, "n-000001").state == NodeState.ENROLLED
        assert session.query(NodeDay.battery_mv).scalar() == 3900


def test_job_that_fails_is_kept_with_its_reason_and_tried_again(
    sessions: sessionmaker[Session], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_session: Session, _settings: Settings, _now: datetime) -> None:
        raise ValueError("no such luck\nand more")

    monkeypatch.setattr(schedule, "JOBS", {"a": Scheduled(fail, 60)})
    with sessions() as session:
        scheduling.add_jobs(session, ["a"], wall_now=NOON)
    assert schedule.run_due(sessions, settings, ("a",)) == "a"
    assert schedule.run_due(sessions, settings, ("a",)) is None
    with sessions() as session:
        (job,) = scheduling.jobs(session)
        assert job.error == "no such luck"
        assert job.claimed_until is None


def test_of_two_workers_one_gets_the_job_and_a_dead_one_loses_it(session: Session) -> None:
    scheduling.add_jobs(session, ["a", "b"], wall_now=NOON)
    with db.writing(session):
        session.execute(update(Job).where(Job.name == "b").values(due_at=NOON + timedelta(hours=1)))
    first = scheduling.claim_due_job(session, ("a", "b"), wall_now=NOON)
    assert first is not None
    assert first.name == "a"
    assert scheduling.claim_due_job(session, ("a", "b"), wall_now=NOON) is None
    dead = NOON + timedelta(minutes=1)
    second = scheduling.claim_due_job(session, ("a", "b"), wall_now=dead)
    assert second is not None
    scheduling.note_run(session, "a", every_s=60, wall_now=dead, error=None, claim=second)
    assert scheduling.claim_due_job(session, ("a", "b"), wall_now=dead) is None
    later = dead + timedelta(seconds=60)
    assert scheduling.claim_due_job(session, ("a",), wall_now=later) is not None


def test_worker_that_says_it_is_at_its_job_keeps_it_and_one_that_was_away_leaves_it_alone(
    session: Session,
) -> None:
    scheduling.add_jobs(session, ["a"], wall_now=NOON)
    held = scheduling.claim_due_job(session, ("a",), wall_now=NOON)
    for beat in range(1, 10):
        now = NOON + timedelta(seconds=beat * scheduling.BEAT_S)
        assert held is not None
        held = scheduling.renew_claim(session, held, wall_now=now)
        assert scheduling.claim_due_job(session, ("a",), wall_now=now) is None
    assert held is not None
    other = scheduling.claim_due_job(session, ("a",), wall_now=held.until)
    assert other is not None
    assert scheduling.renew_claim(session, held, wall_now=held.until) is None
    scheduling.note_run(session, "a", every_s=5, wall_now=held.until, error="late", claim=held)
    (job,) = scheduling.jobs(session)
    assert (job.claimed_until, job.error) == (other.until, None)


def test_long_job_is_held_while_it_runs(
    sessions: sessionmaker[Session],
    settings: Settings,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, is_renewed = threading.Event(), threading.Event()

    def heard(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if begun.is_set() and statement.startswith("UPDATE job SET claimed_until"):
            is_renewed.set()

    def last_long(_session: Session, _settings: Settings, _now: datetime) -> None:
        begun.set()
        assert is_renewed.wait(20), "nobody said that the job is being done"

    monkeypatch.setattr(scheduling, "BEAT_S", 0.01)
    monkeypatch.setattr(schedule, "JOBS", {"a": Scheduled(last_long, 60)})
    with sessions() as session:
        scheduling.add_jobs(session, ["a"], wall_now=NOON)
    event.listen(engine, "after_cursor_execute", heard)
    try:
        assert schedule.run_due(sessions, settings, ("a",)) == "a"
    finally:
        event.remove(engine, "after_cursor_execute", heard)
    with sessions() as session:
        (job,) = scheduling.jobs(session)
        assert (job.error, job.claimed_until) == (None, None)
