"""The scheduled jobs and the thread that runs them beside the publisher.

A job is a function of (session, settings, now) that owns its transactions and is safe to run twice: a worker that dies in the middle
leaves it to another, which goes on within a minute. What it cannot do it raises; that is logged, kept beside the job, and tried again when it is due next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import clock
from fleet_server.errors import FleetError
from fleet_server.jobs import (
    aggregating,
    alerts,
    answers,
    campaigns,
    city,
    configuration_changes,
    credentials,
    deliveries,
    files,
    judging,
    life,
    releases,
    revisions,
)
from fleet_server.services import city_states, scheduling
from fleet_server.services.scheduling import Claim
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 1.0
# However fast a demo's clock runs: each run is a write that ingest waits for on SQLite.
OFTENEST_S = 5.0
# A database that is away is not asked every second.
_AFTER_TROUBLE_S = 10.0
_END_WITHIN_S = 5.0


@dataclass(frozen=True)
class Scheduled:
    """`every_s`: of the fleet's time, so that a demo that runs sixty times faster does it sixty times as often (not more often than `OFTENEST_S`)."""

    run: Callable[[Session, Settings, datetime], None]
    every_s: int


JOBS = {
    "deliver": Scheduled(deliveries.deliver, every_s=15),
    "configuration_changes": Scheduled(configuration_changes.advance_changes, every_s=5),
    "group_rules": Scheduled(configuration_changes.follow_group_rules, every_s=60),
    "first_contacts": Scheduled(life.note_first_contacts, every_s=30),
    "look_quickly": Scheduled(alerts.look_quickly, every_s=60),
    "look_closely": Scheduled(alerts.look_closely, every_s=600),
    "make_trends": Scheduled(alerts.make_trends, every_s=86_400),
    "certificates": Scheduled(credentials.keep_certificates, every_s=60),
    "forget_previews": Scheduled(files.forget_previews, every_s=3600),
    "forget_release_files": Scheduled(files.forget_release_files, every_s=86_400),
    "revocation_lists": Scheduled(credentials.keep_revocation_lists, every_s=3600),
    "forget_old_answers": Scheduled(answers.forget_old_answers, every_s=3600),
    "campaigns": Scheduled(campaigns.advance_campaigns, every_s=5),
    "judge_values": Scheduled(judging.judge_values, every_s=300),
    "make_aggregates": Scheduled(aggregating.make_aggregates, every_s=300),
    "city_states": Scheduled(city.decide_states, every_s=city_states.EVERY_S),
    "revisions": Scheduled(revisions.work_off_revisions, every_s=5),
    "release_metadata": Scheduled(releases.keep_metadata_fresh, every_s=3600),
}


SLOW = ("deliver", "revisions", "judge_values", "make_aggregates", "city_states")
"""Waits for other people's servers, works through years of values: each has a thread of its own."""


def run_due(
    sessions: sessionmaker[Session], settings: Settings, names: Sequence[str] = tuple(JOBS)
) -> str | None:
    """Run the job of these that is due longest; returns its name, or None when none is due."""
    with sessions() as session:
        claim = scheduling.claim_due_job(session, names, wall_now=datetime.now(UTC))
    if claim is None:
        return None
    name, error = claim.name, None
    with _Holding(sessions, claim) as holding:
        try:
            with sessions() as session:
                JOBS[name].run(session, settings, clock.now())
        except Exception as problem:  # a job must not take the others along
            error = str(problem).strip().splitlines()[0] if str(problem) else type(problem).__name__
            log.exception("job_failed", job=name)
    every_s = max(OFTENEST_S, JOBS[name].every_s / clock.parse_clock(settings.clock).speed)
    with sessions() as session:
        scheduling.note_run(
            session,
            name,
            every_s=every_s,
            wall_now=datetime.now(UTC),
            error=error,
            claim=holding.claim,
        )
    return name


class _Holding:
    """Says while the block runs that this worker is at its job, so that one that died is known soon; not longer than a job may take."""

    def __init__(self, sessions: sessionmaker[Session], claim: Claim) -> None:
        self.claim = claim
        self._sessions = sessions
        self._is_over = threading.Event()
        self._beats = threading.Thread(target=self._beat, name=f"hold {claim.name}", daemon=True)

    def __enter__(self) -> _Holding:
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._beats.join()

    def _beat(self) -> None:
        for _ in range(int(scheduling.LONGEST_S / scheduling.BEAT_S)):
            if self._is_over.wait(scheduling.BEAT_S):
                return
            try:
                with self._sessions() as session:
                    now = datetime.now(UTC)
                    renewed = scheduling.renew_claim(session, self.claim, wall_now=now)
            except (FleetError, OSError, DBAPIError) as problem:
                log.warning(
                    "job_not_held", job=self.claim.name, reason=str(problem).partition("\n")[0]
                )
                continue
            if renewed is None:
                log.warning("job_lost", job=self.claim.name)
                return
            self.claim = renewed
        log.error("job_stuck", job=self.claim.name, seconds=scheduling.LONGEST_S)


@contextmanager
def running_jobs(sessions: sessionmaker[Session], settings: Settings) -> Iterator[None]:
    """Run due jobs in threads of their own while the block runs; what is begun is ended first."""
    stop = threading.Event()
    quick = tuple(name for name in JOBS if name not in SLOW)
    threads = [
        threading.Thread(
            target=_run, args=(sessions, settings, names, stop), name="jobs", daemon=True
        )
        for names in (quick, *((name,) for name in SLOW))
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(_END_WITHIN_S)


def _run(
    sessions: sessionmaker[Session],
    settings: Settings,
    names: Sequence[str],
    stop: threading.Event,
) -> None:
    is_known = False
    while not stop.is_set():
        wait_s = LOOK_EVERY_S
        try:
            if not is_known:
                with sessions() as session:
                    known = (*names, scheduling.BACKUP)
                    scheduling.add_jobs(session, known, wall_now=datetime.now(UTC))
                is_known = True
            while not stop.is_set() and run_due(sessions, settings, names) is not None:
                pass
        except (FleetError, OSError, DBAPIError) as problem:
            log.warning(
                "jobs_wait", reason=str(problem).partition("\n")[0], seconds=_AFTER_TROUBLE_S
            )
            wait_s = _AFTER_TROUBLE_S
        stop.wait(wait_s)
