"""What came from nodes: packs, events, and what could not be stored."""

from __future__ import annotations

import base64
from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server.api.nodes import nodes
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import arrival_list, keyset, overviews
from fleet_server.services.rights import Right

packs = Noun("packs", "What nodes sent, as received")
quarantine = Noun("quarantine", "What arrived and could not be stored")
_SPOOL = validate.Range(0, 2**63 - 1)


class PackSchema(Schema):
    """One pack in a list; `claimed_at` is when it was sampled, as the node said."""

    id = fields.Integer(required=True)
    spool = fields.Integer(required=True)
    seq = fields.Integer(required=True)
    kind = fields.String(required=True)
    claimed_at = fields.AwareDateTime(required=True, allow_none=True)
    received_at = fields.AwareDateTime(required=True)
    size_bytes = fields.Integer(required=True)


class PackQuery(ListQuery):
    spool = fields.Integer(validate=_SPOOL)


class RawReadingSchema(Schema):
    """What the driver returned, in its raw unit; null with the reason in `status`."""

    channel = fields.String(required=True)
    raw_value = fields.Float(required=True, allow_none=True)
    status = fields.String(required=True, allow_none=True)


class OnePackSchema(Schema):
    """A pack as received; `payload` is base64."""

    id = fields.Integer(required=True)
    node_id = fields.String(required=True)
    label = fields.String(required=True)
    spool = fields.Integer(required=True)
    seq = fields.Integer(required=True)
    kind = fields.String(required=True)
    claimed_at = fields.AwareDateTime(required=True, allow_none=True)
    received_at = fields.AwareDateTime(required=True)
    stored_at = fields.AwareDateTime(required=True)
    payload_sha256 = fields.String(required=True)
    payload = fields.String(required=True)
    readings = fields.List(fields.Nested(RawReadingSchema), required=True)


class EventSchema(Schema):
    """What a node told about itself; `happened_at` is null while its time is not known."""

    pack_id = fields.Integer(required=True)
    name = fields.String(required=True)
    details = fields.List(
        fields.List(fields.Raw(metadata={"type": ["string", "number"]})), required=True
    )
    happened_at = fields.AwareDateTime(required=True, allow_none=True)


class EventQuery(ListQuery):
    name = fields.String(metadata={"description": "only events of this name, like command"})


class QuarantineSchema(Schema):
    """One message that could not be stored, and how often it came."""

    id = fields.Integer(required=True)
    node_id = fields.String(required=True)
    kind = fields.String(required=True)
    reason = fields.String(required=True)
    sentence = fields.String(required=True)
    received_at = fields.AwareDateTime(required=True)
    last_received_at = fields.AwareDateTime(required=True)
    times_received = fields.Integer(required=True)
    size_bytes = fields.Integer(required=True)


class QuarantineQuery(ListQuery):
    node_id = fields.String()
    reason = fields.String(metadata={"description": "only this reason, like cbor_malformed"})


@nodes.route("/<node_id:node_id>/packs")
class NodePacks(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.lists(PackSchema, PackQuery)
    def get(self, query: dict[str, Any], node_id: str) -> keyset.Page[arrival_list.PackLine]:
        """A node's packs by spool and number, highest first"""
        return arrival_list.pack_page(current_session(), node_id, **query)


@nodes.route("/<node_id:node_id>/events")
class NodeEvents(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.lists(EventSchema, EventQuery)
    def get(self, query: dict[str, Any], node_id: str) -> keyset.Page[arrival_list.EventLine]:
        """A node's events, those that came last first"""
        return arrival_list.event_page(current_session(), node_id, **query)


@packs.route("/<row_id:pack_id>")
class Pack(MethodView):
    @needs(Right.SEE_FLEET)
    @packs.shows(OnePackSchema)
    def get(self, pack_id: int) -> dict[str, Any]:
        """One pack with its bytes and what was read from them"""
        found = overviews.pack_overview(current_session(), pack_id)
        pack = found.pack
        return {
            **{name: getattr(pack, name) for name in _PACK_COLUMNS},
            "label": found.label,
            "payload_sha256": pack.payload_sha256.hex(),
            "payload": base64.b64encode(pack.payload).decode(),
            "readings": found.readings,
        }


@quarantine.route("")
class Quarantine(MethodView):
    @needs(Right.SEE_FLEET)
    @quarantine.lists(QuarantineSchema, QuarantineQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[arrival_list.QuarantineLine]:
        """What could not be stored, newest first"""
        return arrival_list.quarantine_page(current_session(), **query)


_PACK_COLUMNS = ("id", "node_id", "spool", "seq", "kind", "claimed_at", "received_at", "stored_at")
