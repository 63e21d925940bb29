"""Credentials as pages: what ends when, enrolment tokens, and a node's certificate signed anew or taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from flask import (
    Response,
    current_app,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext
from werkzeug.wrappers import Response as Redirection

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import cut_page
from fleet_server.models import EnrolmentToken
from fleet_server.services import authority_overview, credentials, enrolment, rolling_over
from fleet_server.services.authority import AuthorityMissing
from fleet_server.services.authority_overview import Entry
from fleet_server.services.rights import Right
from fleet_server.settings import Settings
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words
from hardware import catalogue

_PAGE_SIZE = 50
_MOST_HOURS = 24 * 31
_MAX_ID_DIGITS = 9


@web.get("/fleet/credentials", endpoint="credentials")
@needs(Right.SEE_FLEET)
def credentials_page() -> str:
    """The authority, a change of the root, and the nodes whose certificates end first; `?after=<seconds>.<node>` goes on."""
    session = current_session()
    found = credentials.next_to_expire(session, limit=_PAGE_SIZE + 1, after=_after())
    page = cut_page(found, size=_PAGE_SIZE)
    last = page.items[-1] if page.has_more else None
    return render_template(
        "credentials.html",
        entries=_authority(),
        roll_over=rolling_over.roll_over(session),
        nodes=page.items,
        after=last and f"{int(last.expires_at.timestamp())}.{last.node_id}",
    )


@web.get("/fleet/tokens")
@needs(Right.ADMIT_NODES)
def tokens() -> str:
    """All tokens, newest first, and the form for another."""
    return _tokens_page()


@web.post("/fleet/tokens")
@needs(Right.ADMIT_NODES)
def make_token() -> Response:
    """Make one and show it, this once."""
    given = request.form
    try:
        made = enrolment.create_token(
            current_session(),
            uses=_number("uses", enrolment.MOST_USES),
            lifetime=timedelta(hours=_number("hours", _MOST_HOURS)),
            model=given.get("model") or None,
            label=given.get("label") or None,
            note=given.get("note", ""),
            now=clock.now(),
        )
    except Invalid as problem:
        return make_response(_tokens_page(fault=in_words(problem)), 400)
    answer = make_response(_tokens_page(made=made))
    answer.headers["Cache-Control"] = "no-store"
    return answer


@web.post("/fleet/tokens/<row_id:token_id>/revoke")
@needs(Right.ADMIT_NODES)
def revoke_token(token_id: int) -> Redirection:
    """Let nobody enrol with it any more."""
    enrolment.revoke_token(current_session(), token_id, now=clock.now())
    flash(gettext("Token %(number)s is revoked.", number=token_id))
    return redirect(url_for("web.tokens"), code=303)


@web.post("/fleet/nodes/<node_id:node_id>/renew-certificate")
@needs(Right.ADMIT_NODES)
def renew_certificate(node_id: str) -> Redirection:
    """Sign another certificate for the node's key."""
    credentials.renew_node(current_session(), node_id, _settings().ca_dir, now=datetime.now(UTC))
    flash(gettext("A new certificate is offered; the node takes it when it connects."))
    return redirect(url_for("web.node", node_id=node_id, _anchor="credentials"), code=303)


@web.post("/fleet/nodes/<node_id:node_id>/revoke")
@needs(Right.ADMIT_NODES)
def revoke_node(node_id: str) -> Redirection:
    """Take the node out for good, for who has typed its id once more."""
    if request.form.get("confirm", "").strip() != node_id:
        raise Invalid("To revoke it, type the node's id, %(node_id)s, once more.", node_id=node_id)
    reason = request.form.get("reason", "").replace("\0", "")
    credentials.revoke_node(
        current_session(), node_id, reason, _settings().ca_dir, now=datetime.now(UTC)
    )
    flash(gettext("The node is revoked."))
    return redirect(url_for("web.node", node_id=node_id, _anchor="credentials"), code=303)


def _tokens_page(*, made: str = "", fault: str = "") -> str:
    now = clock.now()
    found = enrolment.tokens(current_session(), limit=_PAGE_SIZE + 1, before_id=_before())
    page = cut_page(list(found), size=_PAGE_SIZE)

    def token_standing(token: EnrolmentToken) -> str:
        return enrolment.standing_of_token(token, now=now)

    return render_template(
        "tokens.html",
        tokens=page.items,
        before=page.items[-1].id if page.has_more else None,
        token_standing=token_standing,
        models=catalogue.node_model_ids(),
        most_uses=enrolment.MOST_USES,
        given=request.form if fault else {},
        made=made,
        fault=fault,
    )


def _authority() -> list[Entry] | None:
    try:
        return authority_overview.overview(_settings().ca_dir, now=datetime.now(UTC))
    except AuthorityMissing:
        return None


def _settings() -> Settings:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings


def _number(name: str, highest: int) -> int:
    text = request.form.get(name, "")
    if not (text.isdecimal() and text.isascii() and 1 <= int(text[:9]) <= highest):
        raise Invalid(
            "%(name)s wants a whole number from 1 to %(highest)s.", name=name, highest=highest
        )
    return int(text)


def _before() -> int | None:
    text = request.args.get("before", "")
    if text and not (text.isdecimal() and text.isascii() and len(text) <= _MAX_ID_DIGITS):
        raise Invalid("before wants the number of a token.")
    return int(text) if text else None


def _after() -> tuple[datetime, str] | None:
    seconds, point, node_id = request.args.get("after", "").partition(".")
    if not seconds:
        return None
    if not (point and seconds.isdecimal() and seconds.isascii() and len(seconds) <= 10):
        raise Invalid(
            "after wants a time in seconds and a node, as the link to the next page has it."
        )
    return datetime.fromtimestamp(int(seconds), UTC), node_id.replace("\0", "")
