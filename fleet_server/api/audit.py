"""The audit log."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields

from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import AuditEntry
from fleet_server.services import audit_list, auditing, keyset
from fleet_server.services.rights import Right

audit = Noun("audit", "Who did what, when: a chain that shows every change")


class AuditEntrySchema(Schema):
    """One entry; `sha256` covers it and the hash of the entry before."""

    seq = fields.Integer(required=True)
    at = fields.AwareDateTime(required=True)
    actor = fields.String(required=True)
    action = fields.String(required=True)
    subject = fields.String(required=True)
    details = fields.Dict(keys=fields.String(), required=True)
    previous_sha256 = fields.String(required=True)
    sha256 = fields.String(required=True)


class HeadSchema(Schema):
    """The newest entry: who notes it elsewhere sees later whether the log was cut."""

    seq = fields.Integer(required=True)
    sha256 = fields.String(required=True)


class AuditQuery(ListQuery):
    actor = fields.String(metadata={"description": "like anna, or machine"})
    action = fields.String(metadata={"description": "like node_configured"})
    subject = fields.String(metadata={"description": "like node n-3f9a1c"})
    since = fields.AwareDateTime()


@audit.route("")
class Audit(MethodView):
    @needs(Right.READ_AUDIT)
    @audit.lists(AuditEntrySchema, AuditQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[AuditEntry]:
        """Entries, newest first"""
        return audit_list.entry_page(current_session(), **query)


@audit.route("/head")
class Head(MethodView):
    @needs(Right.READ_AUDIT)
    @audit.shows(HeadSchema)
    def get(self) -> auditing.Head:
        """The newest entry's number and hash; `fleet audit verify` follows the chain up to it"""
        return auditing.log_head(current_session())
