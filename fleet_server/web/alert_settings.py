"""When alerts begin, who is told of them, when nobody is called, and what could not be delivered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import AlertKind, Severity
from fleet_server.models.alert import Channel
from fleet_server.services import alert_rules, silencing, telling
from fleet_server.services.alert_rules import Rule
from fleet_server.services.rights import Right
from fleet_server.services.telling import NewRecipient
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words

_HOURS_MAX = 90 * 24
_ACCOUNT = "account"
"""In the form: told by mail, at the account's own address."""


@web.get("/fleet/alerts/settings")
@needs(Right.OPERATE_NODES)
def alert_settings() -> str:
    return _page()


def _page(*, fault: str = "") -> str:
    session = current_session()
    return render_template(
        "alert_settings.html",
        rules=alert_rules.rules(session),
        severities=tuple(Severity),
        kinds=tuple(AlertKind),
        recipients=telling.recipients(session),
        silences=silencing.silences(session, now=clock.now()),
        scopes=silencing.SCOPES,
        dead_letters=telling.dead_letters(session),
        has_mail=bool(current_app.config["FLEET_SETTINGS"].smtp_url),
        fault=fault,
        form=request.form,
    )


@web.post("/fleet/alerts/rules/<name>")
@needs(Right.OPERATE_NODES)
def change_alert_rule(name: str) -> ResponseReturnValue:
    """Let another rule hold from the next look on."""
    if name not in tuple(AlertKind):
        raise NotFound("There is no rule %(name)s.", name=name)
    kind = AlertKind(name)
    try:
        severity = request.form.get("severity", "")
        if severity not in tuple(Severity):
            raise Invalid(
                "%(name)s wants one of %(allowed)s.", name="severity", allowed=", ".join(Severity)
            )
        escalates = request.form.get("escalate_after_s", "").strip()
        rule = Rule(
            Severity(severity),
            {one: _whole(one) for one in alert_rules.DEFAULTS[kind].thresholds},
            _whole("clear_after_s"),
            _whole("escalate_after_s") if escalates else None,
            is_active="is_active" in request.form,
        )
        alert_rules.change_rule(current_session(), kind, rule, now=clock.now())
    except (Invalid, Refused) as problem:
        return _page(fault=in_words(problem)), 400
    return _done(gettext("The rule holds from the next look on."))


@web.post("/fleet/alerts/silences")
@needs(Right.OPERATE_NODES)
def add_silence() -> ResponseReturnValue:
    """A maintenance window that begins now."""
    now = clock.now()
    try:
        hours = _whole("hours")
        if not 1 <= hours <= _HOURS_MAX:
            raise Invalid("hours wants a whole number from 1 to %(highest)s.", highest=_HOURS_MAX)
        silencing.silence(
            current_session(),
            scope=_text("scope"),
            key=_text("key"),
            from_at=now,
            to_at=now + timedelta(hours=hours),
            reason=_text("reason"),
            now=now,
        )
    except (Invalid, NotFound, Refused) as problem:
        return _page(fault=in_words(problem)), 400
    return _done(gettext("Nobody is called for that until then."))


@web.post("/fleet/alerts/silences/<row_id:silence_id>/end")
@needs(Right.OPERATE_NODES)
def end_silence(silence_id: int) -> Response:
    silencing.end_silence(current_session(), silence_id, now=clock.now())
    return _done(gettext("The maintenance window is over."))


@web.post("/fleet/alerts/recipients")
@needs(Right.OPERATE_NODES)
def add_recipient() -> ResponseReturnValue:
    """Somebody who is told from now on; a webhook's secret is shown once."""
    settings = current_app.config["FLEET_SETTINGS"]
    try:
        new = _new_recipient()
        _, secret = telling.add_recipient(
            current_session(), new, now=clock.now(), secret_key=settings.session_key
        )
    except (Invalid, Conflict, NotFound, Refused) as problem:
        return _page(fault=in_words(problem)), 400
    if secret is None:
        return _done(gettext("%(name)s is told from now on.", name=new.name))
    return render_template(
        "shown_once.html",
        title=gettext("The webhook's secret"),
        about=gettext("With it the receiver checks that a message came from here (Standard Webhooks)."),
        secrets=[secret],
        example="",
        back=url_for("web.alert_settings"),
    )  # fmt: skip


def _new_recipient() -> NewRecipient:
    channel, severity = _text("channel"), _text("min_severity")
    if channel not in (*Channel, _ACCOUNT) or severity not in tuple(Severity):
        raise Invalid("A recipient wants a channel and a severity.")
    kinds = [one for one in request.form.getlist("kind") if one in tuple(AlertKind)]
    is_account = channel == _ACCOUNT
    return NewRecipient(
        _text("name"),
        Channel.MAIL if is_account else Channel(channel),
        "" if is_account else _text("address"),
        account=_text("address") if is_account else None,
        kinds=[AlertKind(one) for one in kinds] or None,
        min_severity=Severity(severity),
        site_kind=_text("site_kind") or None,
        language=_text("language"),
    )


@web.post("/fleet/alerts/recipients/<row_id:recipient_id>/on")
@needs(Right.OPERATE_NODES)
def tell_again(recipient_id: int) -> Response:
    return _set_active(recipient_id, is_active=True)


@web.post("/fleet/alerts/recipients/<row_id:recipient_id>/off")
@needs(Right.OPERATE_NODES)
def tell_no_more(recipient_id: int) -> Response:
    return _set_active(recipient_id, is_active=False)


@web.post("/fleet/alerts/recipients/<row_id:recipient_id>/remove")
@needs(Right.OPERATE_NODES)
def remove_recipient(recipient_id: int) -> Response:
    telling.remove_recipient(current_session(), recipient_id, now=clock.now())
    return _done(gettext("This recipient is removed."))


def _set_active(recipient_id: int, *, is_active: bool) -> Response:
    telling.set_recipient_active(
        current_session(), recipient_id, is_active=is_active, now=clock.now()
    )
    return _done(gettext("This recipient was changed."))


@web.post("/fleet/alerts/recipients/<row_id:recipient_id>/test")
@needs(Right.OPERATE_NODES)
def send_test(recipient_id: int) -> Response:
    telling.enqueue_test(
        current_session(), recipient_id, now=clock.now(), wall_now=datetime.now(UTC)
    )
    return _done(gettext("A test is on its way."))


@web.post("/fleet/alerts/messages/<row_id:delivery_id>/again")
@needs(Right.OPERATE_NODES)
def send_again(delivery_id: int) -> Response:
    telling.try_again(current_session(), delivery_id, now=clock.now(), wall_now=datetime.now(UTC))
    return _done(gettext("The message is tried again."))


def _done(text: str) -> Response:
    flash(text)
    return redirect(url_for("web.alert_settings"), code=303)


def _text(name: str) -> str:
    return request.form.get(name, "").replace("\0", "").strip()


def _whole(name: str) -> int:
    text = _text(name)
    digits = text.removeprefix("-")
    if not (digits.isdecimal() and digits.isascii() and len(digits) <= 9):
        raise Invalid("%(name)s wants a whole number.", name=name)
    return int(text)
