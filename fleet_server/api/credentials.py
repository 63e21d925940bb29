"""Enrolment tokens, and a node's certificates: seen, signed anew, taken back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flask import current_app
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.nodes import nodes
from fleet_server.api.noun import Noun
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import CertificateState, EnrolmentToken
from fleet_server.services import credentials, enrolment, keyset, node_life
from fleet_server.services.credentials import CredentialsOfNode
from fleet_server.services.enrolment import TokenStanding
from fleet_server.services.rights import Right
from fleet_server.settings import Settings

tokens = Noun("tokens", "What allows a bench to enrol nodes")
_MOST_HOURS = 24 * 31


class TokenSchema(Schema):
    """One token; the secret itself is kept nowhere."""

    id = fields.Integer(required=True)
    standing = fields.Function(
        lambda token: enrolment.standing_of_token(token, now=clock.now()),
        metadata={"type": "string", "enum": list(TokenStanding), "x-reported": True},
    )
    uses_left = fields.Integer(required=True, metadata={"x-reported": True})
    model = fields.String(required=True, allow_none=True)
    label = fields.String(required=True, allow_none=True)
    note = fields.String(required=True)
    made_by = fields.String(required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True)


class NewTokenSchema(Schema):
    uses = fields.Integer(load_default=1, validate=validate.Range(1, enrolment.MOST_USES))
    hours = fields.Integer(load_default=24, validate=validate.Range(1, _MOST_HOURS))
    model = fields.String(load_default=None, metadata={"description": "only for this node model"})
    label = fields.String(load_default=None, metadata={"description": "only for this label"})
    note = fields.String(load_default="", validate=validate.Length(max=enrolment.NOTE_MAX_LENGTH))


class TokenMadeSchema(Schema):
    """Shown this once."""

    token = fields.String(required=True)


class CertificateSchema(Schema):
    """One certificate; all of a node's are for the same key."""

    serial = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf(list(CertificateState)))
    issued_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True)
    changed_at = fields.AwareDateTime(required=True)


class CredentialsSchema(Schema):
    """A node's certificates, newest first, and what it said of them when it connected last."""

    certificates = fields.List(fields.Nested(CertificateSchema), required=True)
    is_due = fields.Boolean(required=True, metadata={"x-reported": True})
    said_state = fields.String(required=True, allow_none=True, metadata={"x-reported": True})
    roots = fields.List(fields.String(), required=True, metadata={"x-reported": True})


class RevocationSchema(Schema):
    reason = fields.String(required=True, validate=validate.Length(1, node_life.REASON_MAX_LENGTH))


@tokens.route("")
class Tokens(MethodView):
    @needs(Right.ADMIT_NODES)
    @tokens.lists(TokenSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[EnrolmentToken]:
        """Tokens, newest first"""
        return enrolment.token_page(current_session(), **query)

    @needs(Right.ADMIT_NODES)
    @tokens.acts(NewTokenSchema, TokenMadeSchema)
    def post(self, given: dict[str, Any]) -> dict[str, str]:
        """A new token, shown this once"""
        lifetime = timedelta(hours=given.pop("hours"))
        made = enrolment.create_token(
            current_session(), lifetime=lifetime, now=clock.now(), **given
        )
        return {"token": made}


@tokens.route("/<row_id:token_id>/revoke")
class RevokedToken(MethodView):
    @needs(Right.ADMIT_NODES)
    @tokens.acts(None, None)
    def post(self, token_id: int) -> None:
        """Let nobody enrol with a token any more"""
        enrolment.revoke_token(current_session(), token_id, now=clock.now())


@nodes.route("/<node_id:node_id>/credentials")
class Credentials(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.shows(CredentialsSchema)
    def get(self, node_id: str) -> CredentialsOfNode:
        """A node's certificates"""
        return credentials.credentials_of(current_session(), node_id, now=datetime.now(UTC))


@nodes.route("/<node_id:node_id>/renew-certificate")
class RenewedCertificate(MethodView):
    @needs(Right.ADMIT_NODES)
    @nodes.acts(None, CredentialsSchema)
    def post(self, node_id: str) -> CredentialsOfNode:
        """Offer a node another certificate for its key now"""
        session, now = current_session(), datetime.now(UTC)
        credentials.renew_node(session, node_id, _ca_dir(), now=now)
        return credentials.credentials_of(session, node_id, now=now)


@nodes.route("/<node_id:node_id>/revoke")
class RevokedNode(MethodView):
    @needs(Right.ADMIT_NODES)
    @nodes.acts(RevocationSchema, CredentialsSchema)
    def post(self, given: dict[str, Any], node_id: str) -> CredentialsOfNode:
        """Take a node out for good: its certificates are revoked, its session ends"""
        session, now = current_session(), datetime.now(UTC)
        credentials.revoke_node(session, node_id, given["reason"], _ca_dir(), now=now)
        return credentials.credentials_of(session, node_id, now=now)


def _ca_dir() -> Path:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings.ca_dir
