"""What operations ask: is it alive, is it ready, how much of what."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from flask import Blueprint, Response, current_app, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import Unauthorized

from fleet_server import clock, db
from fleet_server.errors import Unavailable
from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import limiter
from fleet_server.services import alerting, fleet_totals, revision_list, scheduling, telling
from fleet_server.services.broker_status import BrokerStatus, read_status

operations = Blueprint("operations", __name__)


@operations.get("/healthz")
@open_to_all
@limiter.exempt
def healthz() -> Response:
    """This process answers."""
    return jsonify({"status": "ok"})


@operations.get("/readyz")
@open_to_all
@limiter.exempt
def readyz() -> Response:
    """The database answers too, with the tables of this version; otherwise 503 with the reason."""
    try:
        engine = current_session().get_bind()
        assert isinstance(engine, Engine)  # noqa: S101 - our sessions are bound to engines
        db.check_schema(engine)
    except SQLAlchemyError as problem:
        raise Unavailable("The database does not answer.") from problem
    return jsonify({"status": "ready"})


@operations.get("/metrics")
@open_to_all
def metrics() -> Response:
    """Figures of the whole fleet for Prometheus, read fresh from the database: the same from every replica.

    Those of the broker come from its own machine only.
    """
    settings = current_app.config["FLEET_SETTINGS"]
    token = settings.metrics_token
    borne = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if token and not hmac.compare_digest(borne.encode(), token.encode()):
        raise Unauthorized("The metrics want `Authorization: Bearer <metrics_token>`.")
    session = current_session()
    packs = fleet_totals.pack_totals(session)
    registry = CollectorRegistry()
    by_health = Gauge("fleet_nodes", "Nodes by health", ["health"], registry=registry)
    for word, count in fleet_totals.health_counts(session, now=clock.now()).items():
        by_health.labels(word).set(count)
    figures = {
        "fleet_packs_stored": ("Packs stored", packs.stored),
        "fleet_packs_missing": ("Packs that never came", packs.missing),
        "fleet_packs_declared_lost": ("Packs declared lost", packs.lost),
        "fleet_quarantine_entries": (
            "Messages in quarantine",
            fleet_totals.quarantine_size(session),
        ),
        "fleet_spool_depth_packs": (
            "Packs that nodes hold without a receipt",
            fleet_totals.spool_depth(session),
        ),
    }
    for name, (text, value) in figures.items():
        Gauge(name, text, registry=registry).set(value)
    alerts = Gauge("fleet_alerts_open", "Open alerts", ["kind", "severity"], registry=registry)
    for (kind, severity), count in alerting.open_counts(session).items():
        alerts.labels(kind, severity).set(count)
    waiting, dead = telling.count_waiting(session)
    messages = Gauge("fleet_messages", "Messages not delivered", ["state"], registry=registry)
    messages.labels("waiting").set(waiting)
    messages.labels("given_up").set(dead)
    # A dead man's switch: who watches these figures sees when nobody looks at the fleet any more.
    looked = Gauge(
        "fleet_last_look_seconds", "When a job ran last, UTC", ["job"], registry=registry
    )
    for job in scheduling.jobs(session):
        if job.ran_at is not None:
            looked.labels(job.name).set(job.ran_at.timestamp())
    waiting_revisions = revision_list.waiting(session)
    ordered_at = waiting_revisions.oldest_at
    waits_s = 0.0 if ordered_at is None else (clock.now() - ordered_at).total_seconds()
    for name, text, number in (
        ("fleet_revisions_open", "Revisions that are not done", waiting_revisions.open),
        ("fleet_revision_waits_seconds", "Since when the oldest of them is ordered", waits_s),
    ):
        Gauge(name, text, registry=registry).set(number)
    broker = read_status(settings.broker_status_path)
    if broker is not None:
        registry.register(_BrokerFigures(broker))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _BrokerFigures(Collector):
    """A broker's own counters, as it has counted them."""

    def __init__(self, status: BrokerStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        refused = CounterMetricFamily(
            "fleet_broker_refused", "What the broker refused since its start", labels=["reason"]
        )
        for reason, count in self._status.refused.items():
            refused.add_metric([reason], count)
        yield refused
        yield GaugeMetricFamily(
            "fleet_broker_clients", "Connections at the broker", value=self._status.clients
        )
