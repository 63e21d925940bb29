"""People, for who manages them: accounts, their keys, and how somebody gets in again.

Keys are made by their owners, in a browser: a key that made keys would outlive its own end.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from flask import current_app, url_for
from flask.views import MethodView
from flask_babel import get_locale
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery, reported
from fleet_server.errors import Conflict
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import ApiKey, Role, Scope, User
from fleet_server.services import (
    accounts,
    keys,
    keyset,
    logins,
    people_list,
    second_factor,
    telling,
)
from fleet_server.services.rights import Right

people = Noun("people", "Who looks after the fleet, and what each may")
_ROLES, _SCOPES = [role.value for role in Role], [scope.value for scope in Scope]


class NoMail(Conflict):
    """Nothing can be mailed to this person."""

    code = "no_mail"


class _RoleSchema(Schema):
    role = fields.String(required=True, validate=validate.OneOf(_ROLES))


def _role_names() -> fields.Pluck:
    """Rows of roles, as their names."""
    return fields.Pluck(_RoleSchema, "role", many=True, required=True)


def _mail_address(**given: Any) -> fields.String:
    about = {"description": "where a link for a new password goes"}
    return fields.String(validate=validate.Length(1, 254), metadata=about, **given)


class PersonSchema(Schema):
    """One account; a closed one (`is_active` false) lets nobody in."""

    id = fields.Integer(required=True)
    name = fields.String(required=True)
    roles = _role_names()
    scope = fields.String(required=True, validate=validate.OneOf(_SCOPES))
    is_active = fields.Boolean(required=True)
    mail = fields.String(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    last_login_at = reported(fields.AwareDateTime, allow_none=True)


class PersonQuery(ListQuery):
    role = fields.Enum(Role, by_value=True)
    is_active = fields.Boolean(metadata={"description": "only open accounts, or only closed ones"})


class NewPersonSchema(Schema):
    """Nobody knows a password of a new account: its owner sets one with the code that `reset` gives."""

    name = fields.String(required=True, validate=validate.Length(1, 64))
    roles = fields.List(
        fields.Enum(Role, by_value=True), required=True, validate=validate.Length(1, len(Role))
    )
    scope = fields.Enum(Scope, by_value=True, required=True)
    mail = _mail_address(allow_none=True)


class PersonChangeSchema(Schema):
    """What is not named stays."""

    roles = fields.List(fields.Enum(Role, by_value=True), validate=validate.Length(1, len(Role)))
    scope = fields.Enum(Scope, by_value=True)
    is_active = fields.Boolean()
    mail = _mail_address(allow_none=True)


class CodeSchema(Schema):
    """Shown this once; good for an hour, and once. In `link` it stands behind `#`, so that no server logs it."""

    code = fields.String(required=True)
    link = fields.String(required=True)


class KeySchema(Schema):
    """One API key, without its secret."""

    id = fields.Integer(required=True)
    owner = fields.String(attribute="user.name", required=True)
    note = fields.String(required=True)
    roles = _role_names()
    scope = fields.String(required=True, validate=validate.OneOf(_SCOPES))
    created_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True)
    last_used_at = reported(fields.AwareDateTime, allow_none=True)
    revoked_at = fields.AwareDateTime(required=True, allow_none=True)
    held_at = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "since a backup was restored: good again once it is confirmed"},
    )


@people.route("")
class People(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.lists(PersonSchema, PersonQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[User]:
        """People, by name"""
        return people_list.people_page(current_session(), **query)

    @needs(Right.MANAGE_PEOPLE)
    @people.creates(
        NewPersonSchema, PersonSchema, at=lambda user: url_for("people.Person", user_id=user.id)
    )
    def post(self, given: dict[str, Any]) -> User:
        """A new account, without a password"""
        return accounts.create_user(
            current_session(),
            given["name"],
            None,
            roles=given["roles"],
            scope=given["scope"],
            mail=given.get("mail"),
            now=clock.now(),
        )


@people.route("/<row_id:user_id>")
class Person(MethodView):
    def entity(self, user_id: int) -> User:
        return accounts.find_account(current_session(), user_id)

    @needs(Right.MANAGE_PEOPLE)
    @people.shows(PersonSchema)
    def get(self, user_id: int) -> User:
        """One account"""
        return self.entity(user_id)

    @needs(Right.MANAGE_PEOPLE)
    @people.changes(PersonChangeSchema, PersonSchema)
    def patch(self, given: dict[str, Any], user_id: int) -> None:
        """Other roles or another scope; close or open the account"""
        session, user, now = current_session(), self.entity(user_id), clock.now()
        if "roles" in given or "scope" in given:
            accounts.allow(
                session,
                user.name,
                roles=given.get("roles", [Role(row.role) for row in user.roles]),
                scope=given.get("scope", Scope(user.scope)),
                now=now,
            )
        if "mail" in given:
            accounts.set_mail(session, user.name, given["mail"], now=now)
        if "is_active" in given:
            accounts.set_active(session, user.name, is_active=given["is_active"], now=now)


@people.route("/<row_id:user_id>/reset")
class PersonReset(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.acts(None, CodeSchema)
    def post(self, user_id: int) -> dict[str, str]:
        """A code with which somebody sets a new password"""
        session = current_session()
        user = accounts.find_account(session, user_id)
        code = accounts.begin_reset(session, user.name, now=clock.now())
        public_url = current_app.config["FLEET_SETTINGS"].public_url
        return {"code": code, "link": f"{public_url}{url_for('web.reset')}#{code}"}


@people.route("/<row_id:user_id>/reset/mail")
class PersonResetByMail(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.acts(None, None)
    def post(self, user_id: int) -> None:
        """Mail somebody a link with which they set a new password"""
        session = current_session()
        user = accounts.find_account(session, user_id)
        if not (user.mail and user.is_active and current_app.config["FLEET_SETTINGS"].smtp_url):
            raise NoMail("That wants an open account, a mail address and a mail server (smtp_url).")
        telling.ask_for_reset(
            session,
            user.name,
            language=str(get_locale()),
            now=clock.now(),
            wall_now=datetime.now(UTC),
        )


@people.route("/<row_id:user_id>/log-out")
class PersonLogOut(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.acts(None, None)
    def post(self, user_id: int) -> None:
        """End all sessions of somebody"""
        session = current_session()
        logins.end_all(session, accounts.find_account(session, user_id), now=clock.now())


@people.route("/<row_id:user_id>/second-factor/remove")
class PersonSecondFactor(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.acts(None, None)
    def post(self, user_id: int) -> None:
        """Take off the second factor of who has lost it"""
        session = current_session()
        second_factor.remove(session, accounts.find_account(session, user_id), now=clock.now())


@people.route("/<row_id:user_id>/keys")
class PersonKeys(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.lists(KeySchema)
    def get(self, query: dict[str, Any], user_id: int) -> keyset.Page[ApiKey]:
        """Keys of somebody, newest first"""
        return people_list.key_page(current_session(), user_id, **query)


@people.route("/<row_id:user_id>/keys/<row_id:key_id>/confirm")
class PersonKeyConfirm(MethodView):
    @needs(Right.MANAGE_PEOPLE)
    @people.acts(None, None)
    def post(self, user_id: int, key_id: int) -> None:
        """Let a key be good again that waits since a backup was restored"""
        session = current_session()
        accounts.find_account(session, user_id)
        keys.confirm_key(session, key_id, owner_id=user_id, now=clock.now())


@people.route("/<row_id:user_id>/keys/<row_id:key_id>")
class PersonKey(MethodView):
    def entity(self, user_id: int, key_id: int) -> ApiKey:
        return people_list.key_of(current_session(), user_id, key_id)

    @needs(Right.MANAGE_PEOPLE)
    @people.shows(KeySchema)
    def get(self, user_id: int, key_id: int) -> ApiKey:
        """One key"""
        return self.entity(user_id, key_id)

    @needs(Right.MANAGE_PEOPLE)
    @people.deletes(KeySchema)
    def delete(self, user_id: int, key_id: int) -> None:
        """Revoke a key; it stays in the list"""
        keys.revoke_key(current_session(), key_id, owner_id=user_id, now=clock.now())
