"""The people who look after the fleet, for who manages them."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import get_locale, gettext

from fleet_server import clock
from fleet_server.errors import Conflict, FleetError, Invalid, Refused
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import cut_page
from fleet_server.models import User
from fleet_server.services import accounts, keys, logins, second_factor, telling
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web
from fleet_server.web.own_account import chosen_roles, chosen_scope, typed_mail
from fleet_server.web.people_words import fault_words

_PAGE_SIZE = 50


@web.get("/fleet/people")
@needs(Right.MANAGE_PEOPLE)
def people() -> str:
    """By name; `?after=<name>` goes on."""
    return _people_page()


def _people_page(*, fault: str = "") -> str:
    after = request.args.get("after", "").replace("\0", "") or None
    found = accounts.accounts_by_name(current_session(), limit=_PAGE_SIZE + 1, after=after)
    page = cut_page(found, size=_PAGE_SIZE)
    following = page.items[-1].name if page.has_more else None
    return render_template(
        "people.html", users=page.items, after=following, fault=fault, form=request.form
    )


@web.post("/fleet/people")
@needs(Right.MANAGE_PEOPLE)
def add_person() -> ResponseReturnValue:
    """An account whose password nobody knows, and the code with which its owner sets one."""
    session, name = current_session(), request.form.get("name", "").replace("\0", "")
    try:
        accounts.create_user(
            session,
            name,
            None,
            now=clock.now(),
            roles=chosen_roles(),
            scope=chosen_scope(),
            mail=typed_mail(),
        )
    except (Conflict, Invalid, Refused) as problem:
        return _people_page(fault=fault_words(problem)), 400
    user = accounts.account_named(session, name)
    return _mail_link(user) if _sends_mail_to(user) else _code_page(name)


@web.get("/fleet/people/<row_id:user_id>")
@needs(Right.MANAGE_PEOPLE)
def person(user_id: int) -> str:
    return _person_page(user_id)


def _person_page(user_id: int, *, fault: str = "") -> str:
    session, now = current_session(), clock.now()
    user = accounts.find_account(session, user_id)
    return render_template(
        "person.html",
        user=user,
        fault=fault,
        sessions=logins.open_sessions(session, user.id, now=now),
        keys=keys.keys_of(session, user.id),
        has_second_factor=second_factor.has_factor(session, user.id),
        now=now,
        sends_mail=_sends_mail_to(user),
    )


@web.post("/fleet/people/<row_id:user_id>/allow")
@needs(Right.MANAGE_PEOPLE)
def allow_person(user_id: int) -> ResponseReturnValue:
    """Other roles, another scope."""
    session, user = current_session(), _account(user_id)
    try:
        accounts.allow(
            session, user.name, roles=chosen_roles(), scope=chosen_scope(), now=clock.now()
        )
    except (Conflict, Invalid, Refused) as problem:
        return _refused(user_id, problem)
    return _done(user_id, gettext("Changed; it holds from the next click on."))


@web.post("/fleet/people/<row_id:user_id>/close")
@needs(Right.MANAGE_PEOPLE)
def close_person(user_id: int) -> ResponseReturnValue:
    session, user = current_session(), _account(user_id)
    try:
        accounts.set_active(session, user.name, is_active=False, now=clock.now())
    except Conflict as problem:
        return _refused(user_id, problem)
    return _done(user_id, gettext("The account is closed."))


@web.post("/fleet/people/<row_id:user_id>/open")
@needs(Right.MANAGE_PEOPLE)
def open_person(user_id: int) -> ResponseReturnValue:
    user = _account(user_id)
    accounts.set_active(current_session(), user.name, is_active=True, now=clock.now())
    return _done(user_id, gettext("The account is open again."))


@web.post("/fleet/people/<row_id:user_id>/reset")
@needs(Right.MANAGE_PEOPLE)
def reset_person(user_id: int) -> ResponseReturnValue:
    """A code to hand over; the old password stays good until it is used."""
    user = _account(user_id)
    if not user.is_active:
        return _person_page(user_id, fault=gettext("The account is closed; open it first.")), 400
    return _code_page(user.name)


@web.post("/fleet/people/<row_id:user_id>/reset/mail")
@needs(Right.MANAGE_PEOPLE)
def mail_reset_to_person(user_id: int) -> ResponseReturnValue:
    """A link by mail, which nobody else sees."""
    user = _account(user_id)
    if not _sends_mail_to(user) or not user.is_active:
        fault = gettext("No link can be mailed: that wants an open account, a mail address and a mail server.")  # fmt: skip
        return _person_page(user_id, fault=fault), 400
    return _mail_link(user)


@web.post("/fleet/people/<row_id:user_id>/mail")
@needs(Right.MANAGE_PEOPLE)
def change_mail_of_person(user_id: int) -> ResponseReturnValue:
    user = _account(user_id)
    try:
        accounts.set_mail(current_session(), user.name, typed_mail(), now=clock.now())
    except Invalid as problem:
        return _refused(user_id, problem)
    return _done(user_id, gettext("The mail address is kept."))


@web.post("/fleet/people/<row_id:user_id>/sessions/end")
@needs(Right.MANAGE_PEOPLE)
def end_sessions_of_person(user_id: int) -> ResponseReturnValue:
    logins.end_all(current_session(), _account(user_id), now=clock.now())
    return _done(user_id, gettext("All sessions are ended."))


@web.post("/fleet/people/<row_id:user_id>/second-factor/remove")
@needs(Right.MANAGE_PEOPLE)
def remove_second_factor_of_person(user_id: int) -> ResponseReturnValue:
    """For who has lost both the phone and the recovery codes."""
    second_factor.remove(current_session(), _account(user_id), now=clock.now())
    return _done(user_id, gettext("The second factor is taken off."))


@web.post("/fleet/people/<row_id:user_id>/keys/<row_id:key_id>/revoke")
@needs(Right.MANAGE_PEOPLE)
def revoke_key_of_person(user_id: int, key_id: int) -> ResponseReturnValue:
    user = _account(user_id)
    keys.revoke_key(current_session(), key_id, owner_id=user.id, now=clock.now())
    return _done(user_id, gettext("Key %(number)s is revoked.", number=key_id))


@web.post("/fleet/people/<row_id:user_id>/keys/<row_id:key_id>/confirm")
@needs(Right.MANAGE_PEOPLE)
def confirm_key_of_person(user_id: int, key_id: int) -> ResponseReturnValue:
    """For a key that waits since a backup was restored."""
    user = _account(user_id)
    keys.confirm_key(current_session(), key_id, owner_id=user.id, now=clock.now())
    return _done(user_id, gettext("Key %(number)s is good again.", number=key_id))


def _account(user_id: int) -> User:
    return accounts.find_account(current_session(), user_id)


def _sends_mail_to(user: User) -> bool:
    return bool(user.mail and current_app.config["FLEET_SETTINGS"].smtp_url)


def _mail_link(user: User) -> ResponseReturnValue:
    telling.ask_for_reset(
        current_session(),
        user.name,
        language=str(get_locale()),
        now=clock.now(),
        wall_now=datetime.now(UTC),
    )
    return _done(user.id, gettext("A link goes to %(mail)s; it is good for an hour.", mail=user.mail))  # fmt: skip


def _code_page(name: str) -> str:
    """Shows the code in the answer itself, once. In the link it stands behind `#`, which no browser sends and no server logs."""
    code = accounts.begin_reset(current_session(), name, now=clock.now())
    public_url = current_app.config["FLEET_SETTINGS"].public_url
    return render_template(
        "shown_once.html",
        title=gettext("Code for %(name)s", name=name),
        about=gettext(
            "With it %(name)s sets a password, within the hour and once: with the link, or by typing it there.",
            name=name,
        ),
        secrets=[code],
        example=f"{public_url}{url_for('web.reset')}#{code}",
        back=url_for("web.people"),
    )


def _refused(user_id: int, problem: FleetError) -> ResponseReturnValue:
    return _person_page(user_id, fault=fault_words(problem)), 400


def _done(user_id: int, sentence: str) -> ResponseReturnValue:
    flash(sentence)
    return redirect(url_for("web.person", user_id=user_id), code=303)
