"""One's own account: password, sessions, keys, second factor."""

from __future__ import annotations

import io
from datetime import timedelta

import segno
from flask import Response, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_babel import gettext

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid, NotFound, Refused
from fleet_server.http_shared.access import even_without_second_factor, for_everybody_logged_in
from fleet_server.http_shared.auth import current_person
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import LOGIN_LIMIT, limiter
from fleet_server.models import Role, Scope, User
from fleet_server.services import accounts, external_logins, keys, logins, passwords, second_factor
from fleet_server.web.blueprint import web
from fleet_server.web.people_words import fault_words

_DAYS = (30, 90, 180, 366)
_QR_SCALE = 5


@web.get("/fleet/account")
@for_everybody_logged_in
def account() -> str:
    """All that one can see and change of oneself."""
    return _page()


def _page(*, fault: str = "") -> str:
    person, session = current_person(), current_session()
    user = _own_row()
    return render_template(
        "account.html",
        fault=fault,
        user=user,
        has_password=user.password_hash != passwords.NONE,
        sessions=logins.open_sessions(session, person.id, now=clock.now()),
        this_session=person.login_id,
        keys=keys.keys_of(session, person.id),
        now=clock.now(),
        days=_DAYS,
        issuers=external_logins.issuers_of(session, person.id) if _has_other_login() else [],
        codes_left=second_factor.recovery_codes_left(session, person.id),
    )


def _has_other_login() -> bool:
    return bool(current_app.config["FLEET_SETTINGS"].oidc_issuer)


def _own_row() -> User:
    return current_session().get_one(User, current_person().id)


def _refused(problem: FleetError) -> ResponseReturnValue:
    return _page(fault=fault_words(problem)), 400


def _done(sentence: str) -> ResponseReturnValue:
    flash(sentence)
    return redirect(url_for("web.account"), code=303)


@web.post("/fleet/account/password")
@for_everybody_logged_in
@limiter.limit(LOGIN_LIMIT)
def change_password() -> ResponseReturnValue:
    """A new password for who knows the old one; everybody else who was logged in with that is out."""
    person = current_person()
    new = request.form.get("new", "")
    if new != request.form.get("again", ""):
        return _page(fault=gettext("The two new passwords differ.")), 400
    try:
        accounts.change_password(
            current_session(),
            person.id,
            old=request.form.get("old", ""),
            new=new,
            login_id=person.login_id,
            now=clock.now(),
        )
    except (Refused, Invalid) as problem:
        return _refused(problem)
    return _done(gettext("The password is changed; your other sessions are ended."))


@web.post("/fleet/account/mail")
@for_everybody_logged_in
@limiter.limit(LOGIN_LIMIT)
def change_mail() -> ResponseReturnValue:
    try:
        accounts.change_own_mail(
            current_session(),
            current_person().id,
            typed_mail(),
            password=request.form.get("password", ""),
            now=clock.now(),
        )
    except (Refused, Invalid) as problem:
        return _refused(problem)
    return _done(gettext("The mail address is kept."))


@web.post("/fleet/account/sessions/<row_id:login_id>/end")
@for_everybody_logged_in
def end_session(login_id: int) -> ResponseReturnValue:
    """One of one's own sessions."""
    logins.end(current_session(), login_id, user_id=current_person().id, now=clock.now())
    return _done(gettext("The session is ended."))


@web.post("/fleet/account/sessions/end-others")
@for_everybody_logged_in
def end_other_sessions() -> ResponseReturnValue:
    person = current_person()
    logins.end_all(current_session(), _own_row(), now=clock.now(), but=person.login_id)
    return _done(gettext("All your other sessions are ended."))


@web.post("/fleet/account/keys")
@for_everybody_logged_in
def make_key() -> ResponseReturnValue:
    """Shows the key in the answer itself, once: it is in no address and nowhere else."""
    try:
        made = keys.make_key(
            current_session(),
            current_person().id,
            roles=chosen_roles(),
            scope=chosen_scope(),
            lifetime=timedelta(days=_chosen_days()),
            note=request.form.get("note", "").replace("\0", ""),
            now=clock.now(),
        )
    except (Refused, Invalid) as problem:
        return _refused(problem)
    return render_template(
        "shown_once.html",
        title=gettext("Key %(number)s", number=made.key.id),
        about=gettext("Programs send it with each request, as in the line below."),
        secrets=[made.secret],
        example=f"Authorization: Bearer {made.secret}",
        back=url_for("web.account"),
    )


@web.post("/fleet/account/keys/<row_id:key_id>/revoke")
@for_everybody_logged_in
def revoke_own_key(key_id: int) -> ResponseReturnValue:
    keys.revoke_key(current_session(), key_id, owner_id=current_person().id, now=clock.now())
    return _done(gettext("Key %(number)s is revoked.", number=key_id))


@web.post("/fleet/account/keys/<row_id:key_id>/confirm")
@for_everybody_logged_in
def confirm_own_key(key_id: int) -> ResponseReturnValue:
    """For a key that waits since a backup was restored."""
    keys.confirm_key(current_session(), key_id, owner_id=current_person().id, now=clock.now())
    return _done(gettext("Key %(number)s is good again.", number=key_id))


@web.get("/fleet/account/second-factor")
@for_everybody_logged_in
@even_without_second_factor
def second_factor_page() -> str:
    return _factor_page()


def _factor_page(*, fault: str = "") -> str:
    secret = second_factor.unconfirmed_secret(
        current_session(), _own_row(), secret_key=_secret_key()
    )
    return render_template(
        "second_factor.html", fault=fault, secret=secret, person=current_person()
    )


@web.post("/fleet/account/second-factor")
@for_everybody_logged_in
@even_without_second_factor
def begin_second_factor() -> ResponseReturnValue:
    """Draws the secret; it is good for nothing until a first code has confirmed it."""
    if current_app.config["FLEET_SETTINGS"].clock != clock.REAL:
        fault = gettext("The demo's clock is not that of your phone: its codes would not fit.")
        return _factor_page(fault=fault), 400
    try:
        second_factor.begin(
            current_session(), _own_row(), secret_key=_secret_key(), now=clock.now()
        )
    except FleetError as problem:
        return _factor_page(fault=fault_words(problem)), 400
    return redirect(url_for("web.second_factor_page"), code=303)


@web.get("/fleet/account/second-factor.svg")
@for_everybody_logged_in
@even_without_second_factor
def second_factor_qr() -> Response:
    """What the app reads with the phone's camera; only while the factor is being set up."""
    person = current_person()
    secret = second_factor.unconfirmed_secret(
        current_session(), _own_row(), secret_key=_secret_key()
    )
    if secret is None:
        raise NotFound("No second factor is being set up.")
    drawn = io.BytesIO()
    code = segno.make(second_factor.address_for_app(secret, name=person.name), micro=False)
    code.save(drawn, kind="svg", scale=_QR_SCALE, xmldecl=False)
    return Response(drawn.getvalue(), content_type="image/svg+xml")


@web.post("/fleet/account/second-factor/confirm")
@for_everybody_logged_in
@even_without_second_factor
@limiter.limit(LOGIN_LIMIT)
def confirm_second_factor() -> ResponseReturnValue:
    try:
        codes = second_factor.confirm(
            current_session(),
            _own_row(),
            request.form.get("code", ""),
            secret_key=_secret_key(),
            now=clock.now(),
        )
    except FleetError as problem:
        return _factor_page(fault=fault_words(problem)), 400
    return render_template(
        "shown_once.html",
        title=gettext("Recovery codes"),
        about=gettext(
            "The second factor is set up. Each of these codes is good once instead of the app's, for when "
            "the phone is lost."
        ),
        secrets=codes,
        example="",
        back=url_for("web.account"),
    )


@web.post("/fleet/account/second-factor/remove")
@for_everybody_logged_in
@limiter.limit(LOGIN_LIMIT)
def remove_second_factor() -> ResponseReturnValue:
    """Wants the password: who finds a browser open does not take it off."""
    person, session = current_person(), current_session()
    try:
        accounts.check_password(
            session, person.id, request.form.get("password", ""), now=clock.now()
        )
        second_factor.remove(session, _own_row(), now=clock.now())
    except FleetError as problem:
        return _refused(problem)
    return _done(gettext("The second factor is taken off."))


def typed_mail() -> str | None:
    """None for an empty field."""
    return request.form.get("mail", "").strip() or None


def chosen_roles() -> list[Role]:
    """Raises Invalid for what is no role."""
    try:
        return [Role(word) for word in request.form.getlist("role")]
    except ValueError as error:
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="role", allowed=", ".join(Role)
        ) from error


def chosen_scope() -> Scope:
    """Raises Invalid for what is no scope."""
    try:
        return Scope(request.form.get("scope", ""))
    except ValueError as error:
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="scope", allowed=", ".join(Scope)
        ) from error


def _chosen_days() -> int:
    days = request.form.get("days", "")
    if not (days.isdecimal() and days.isascii() and len(days) <= 3):
        raise Invalid("days wants a number of days.")
    return int(days)


def _secret_key() -> str:
    key: str = current_app.config["FLEET_SETTINGS"].session_key()
    return key
