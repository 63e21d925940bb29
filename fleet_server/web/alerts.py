"""The inbox of alerts, and the alerts on a node's page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.languages import language
from fleet_server.http_shared.paging import cut_page
from fleet_server.models import AlertKind, Severity, Silence
from fleet_server.services import alert_words, alert_work, alerting, scheduling, silencing
from fleet_server.services.alerting import AlertOverview, Wanted
from fleet_server.services.rights import Right
from fleet_server.web.accounts import safe_target
from fleet_server.web.blueprint import web

_PAGE_SIZE = 50
_ON_A_NODES_PAGE = 10
_SHOWN: Mapping[str, bool | None] = {"open": True, "over": False, "all": None}
_SYMBOLS = {Severity.NOTICE: "○", Severity.WARNING: "▲", Severity.URGENT: "✕"}
_MAX_ID_DIGITS = 15
# Ten looks: a worker that starts anew, or a database that is away for a moment, is nothing.
_NOBODY_LOOKS = timedelta(minutes=10)


@web.get("/fleet/alerts")
@needs(Right.SEE_FLEET)
def alerts() -> str:
    """What calls for help, newest first; filters in the URL, `?before=<id>` goes on to older ones."""
    session, now = current_session(), clock.now()
    shown = _one_of("show", tuple(_SHOWN)) or "open"
    kind, severity = _one_of("kind", tuple(AlertKind)), _one_of("severity", tuple(Severity))
    wanted = Wanted(
        is_open=_SHOWN[shown],
        kinds=[AlertKind(kind)] if kind else [],
        severities=[Severity(severity)] if severity else [],
    )
    found = alerting.alerts(session, wanted, limit=_PAGE_SIZE + 1, before_id=_before())
    page = cut_page(found, size=_PAGE_SIZE)
    counts = alerting.open_counts(session)
    return render_template(
        "alerts.html",
        alerts=page.items,
        before=page.items[-1].id if page.has_more else None,
        filters={"show": shown, "kind": kind, "severity": severity},
        shown=tuple(_SHOWN),
        kinds=tuple(AlertKind),
        severities=tuple(Severity),
        open_of={one: sum(n for (_, of), n in counts.items() if of is one) for one in Severity},
        silences=silencing.silences(session, now=now),
        not_looked_since=_not_looked_since(),
    )


@web.post("/fleet/alerts/<row_id:alert_id>/acknowledge")
@needs(Right.OPERATE_NODES)
def acknowledge_alert(alert_id: int) -> Response:
    """Somebody looks after it; back to where they were."""
    note = request.form.get("note", "").replace("\0", "")
    alerting.acknowledge(current_session(), alert_id, note=note, now=clock.now())
    flash(gettext("You look after this alert now."))
    target = request.form.get("next", "")
    return redirect(safe_target(target) if target else url_for("web.alerts"), code=303)


@web.post("/fleet/alerts/<row_id:alert_id>/work")
@needs(Right.PLAN_SITES)
def order_work_for_alert(alert_id: int) -> Response:
    """The order there is of it, or a new one; from there it is given to somebody."""
    order = alert_work.order_for_alert(
        current_session(), alert_id, now=clock.now(), language=language()
    )
    flash(gettext("The work is ordered."))
    return redirect(url_for("web.work_order", order_id=order.id), code=303)


@web.app_template_global()
def silence_subject(silence: Silence) -> str:
    """What a maintenance window is for, as a sentence names it."""
    words: dict[str, str] = {
        "node": gettext("node %(name)s", name=silence.key),
        "site": gettext("site %(name)s", name=silence.key),
        "group": gettext("group %(name)s", name=silence.key),
        "model": gettext("node model %(name)s", name=silence.key),
        "all": gettext("all nodes"),
    }
    return words[silence.scope]


@web.app_template_global()
def calls_for_work(kind: AlertKind) -> bool:
    return kind in alert_work.KINDS


@web.app_template_global()
def alerts_of(node_id: str) -> list[AlertOverview]:
    """For the node's page, whose view has checked that the node is in scope: the newest, open or over."""
    wanted = Wanted(is_open=None, node_id=node_id)
    return alerting.alerts(current_session(), wanted, limit=_ON_A_NODES_PAGE)


@web.app_template_global()
def alert_word(kind: AlertKind) -> str:
    return alert_words.kind_word(kind, language())


@web.app_template_global()
def severity_word(severity: Severity) -> str:
    return alert_words.severity_word(Severity(severity), language())


@web.app_template_global()
def severity_symbol(severity: Severity) -> str:
    return _SYMBOLS[Severity(severity)]


@web.app_template_global()
def alert_sentence(kind: AlertKind, details: Mapping[str, Any]) -> str:
    return alert_words.sentence(kind, details, language())


@web.app_template_global()
def alert_subject(alert: AlertOverview) -> str:
    return alert_words.subject_word(alert.subject, alert.label, language())


@web.app_template_global()
def alert_address(alert: AlertOverview) -> str | None:
    """The page of what it is about; None where there is none."""
    page = alert_words.page_of(alert.subject)
    return None if page is None else f"{request.script_root}{page}"


def _not_looked_since() -> str | None:
    """Since when no worker has looked; None while one does, or there never was one. Wall clock, as jobs are."""
    looked_at = scheduling.looked_at(current_session())
    if looked_at is None or datetime.now(UTC) - looked_at < _NOBODY_LOOKS:
        return None
    return f"{looked_at:%Y-%m-%d %H:%M} UTC"


def _one_of(name: str, allowed: tuple[str, ...]) -> str:
    given = request.args.get(name, "")
    if given and given not in allowed:
        raise Invalid("%(name)s wants one of %(allowed)s.", name=name, allowed=", ".join(allowed))
    return given


def _before() -> int | None:
    given = request.args.get("before", "")
    if not given:
        return None
    if not (given.isdecimal() and given.isascii() and len(given) <= _MAX_ID_DIGITS):
        raise Invalid("before wants the number of an alert.")
    return int(given)
