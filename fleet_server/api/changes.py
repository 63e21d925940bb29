"""What is wanted of many nodes: layers, changes in waves, drift; and what a node model takes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.api.selections import selection_of, server_settings
from fleet_server.errors import Conflict
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import ChangeState, ConfigurationChange, LayerKind
from fleet_server.services import changing, drifting, keyset, layering, node_settings, previewing
from fleet_server.services.changing import ChangeNode, ChangeOverview, Plan
from fleet_server.services.drifting import Drift
from fleet_server.services.previewing import Outcome
from fleet_server.services.rights import Right
from fleet_server.services.selecting import SITE_KINDS

layers = Noun("layers", "What is wanted of the fleet, of node models and of groups")
changes = Noun("changes", "Changes of what is wanted, on their way to the nodes")
drift = Noun("drift", "Nodes that do not run what is wanted of them")
models = Noun("models", "Node models")
_MANY_KINDS = (LayerKind.FLEET, LayerKind.MODEL, LayerKind.GROUP)
_LONGEST_SOAK_S = 30 * 86_400
_NAME = validate.Length(max=64)
_SHOWN = (
    "id",
    "changed",
    "state",
    "reason",
    "author",
    "created_at",
    "needs_approval",
    "approved_by",
    "finished_at",
    "soak_s",
    "wave",
)


class NothingToChange(Conflict):
    """The layer wants exactly this already."""

    code = "nothing_to_change"


class LayerSchema(Schema):
    """What a layer wants; of Wi-Fi networks the names only."""

    kind = fields.String(required=True, validate=validate.OneOf(_MANY_KINDS))
    key = fields.String(required=True)
    name = fields.String(required=True)
    version = fields.Integer(required=True)
    settings = fields.Dict(keys=fields.String(), required=True)
    changed_at = fields.AwareDateTime(required=True)


class WishSchema(Schema):
    """Settings that are not named stay; null takes one back. `layer_key`: the model, or the group's name or number."""

    layer_kind = fields.String(required=True, validate=validate.OneOf(_MANY_KINDS))
    layer_key = fields.String(load_default="", validate=_NAME)
    settings = fields.Dict(keys=fields.String(), required=True, validate=validate.Length(1, 50))


class NewChangeSchema(WishSchema):
    """`shares_pct`: up to how many percent of the nodes are told in each wave after the canaries."""

    canaries = fields.Integer(load_default=3, validate=validate.Range(0, 10_000))
    shares_pct = fields.List(
        fields.Float(validate=validate.Range(0.001, 100)),
        load_default=[5.0, 25.0, 100.0],
        validate=validate.Length(1, 20),
    )
    soak_s = fields.Integer(load_default=3600, validate=validate.Range(0, _LONGEST_SOAK_S))


class OutcomeSchema(Schema):
    """What a change is for one node."""

    node_id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    outcome = fields.String(required=True, validate=validate.OneOf(list(Outcome)))
    why = fields.String(required=True, allow_none=True)


class CountsSchema(Schema):
    changes = fields.Integer(required=True)
    has_it = fields.Integer(required=True)
    overridden = fields.Integer(required=True)
    cannot = fields.Integer(required=True)


class PreviewSchema(Schema):
    """Nothing was changed. `nodes`: the first of them, those that cannot first."""

    layer = fields.String(required=True)
    changed = fields.Dict(keys=fields.String(), required=True)
    counts = fields.Nested(CountsSchema, required=True)
    nodes = fields.List(fields.Nested(OutcomeSchema), required=True)


class WaveSchema(Schema):
    """How the nodes of a wave stand; reached: heard since they were told."""

    wave = fields.Integer(required=True)
    nodes = fields.Integer(required=True)
    told = fields.Integer(required=True)
    reached = fields.Integer(required=True)
    in_force = fields.Integer(required=True)
    failed = fields.Integer(required=True)


class ChangeSchema(Schema):
    """A change; `changed`: the new value of each setting as JSON, null where it was taken back."""

    id = fields.Integer(required=True)
    layer = fields.String(required=True)
    changed = fields.Dict(keys=fields.String(), required=True)
    state = fields.String(required=True, validate=validate.OneOf(list(ChangeState)))
    reason = fields.String(required=True, allow_none=True)
    author = fields.String(required=True)
    created_at = fields.AwareDateTime(required=True)
    needs_approval = fields.Boolean(required=True)
    approved_by = fields.String(required=True, allow_none=True)
    finished_at = fields.AwareDateTime(required=True, allow_none=True)
    soak_s = fields.Integer(required=True)
    wave = fields.Integer(required=True)
    waves = fields.List(fields.Nested(WaveSchema), required=True, metadata={"x-reported": True})
    cannot = fields.Integer(required=True, metadata={"x-reported": True})


class ChangeNodeSchema(Schema):
    """A node of a change; in wave 0 are those that cannot take it, and `fault` says why."""

    node_id = fields.String(required=True)
    label = fields.String(required=True)
    wave = fields.Integer(required=True)
    told_at = fields.AwareDateTime(required=True, allow_none=True)
    fault = fields.String(required=True, allow_none=True)
    standing = fields.String(required=True)


class ReasonSchema(Schema):
    reason = fields.String(load_default="", validate=validate.Length(max=500))


class DriftSchema(Schema):
    """A node that does not run what is wanted of it."""

    node_id = fields.String(required=True)
    label = fields.String(required=True)
    model = fields.String(required=True)
    reason = fields.String(required=True, validate=validate.OneOf(drifting.REASONS))
    why = fields.String(required=True, allow_none=True)
    since = fields.AwareDateTime(required=True)
    version = fields.Integer(required=True)
    running_version = fields.Integer(required=True, allow_none=True)
    last_heard_at = fields.AwareDateTime(required=True, allow_none=True)


class DriftQuery(ListQuery):
    reason = fields.String(validate=validate.OneOf(drifting.REASONS))
    model = fields.String(metadata={"description": "node model, like tree-3"})
    site_kind = fields.String(validate=validate.OneOf(SITE_KINDS))
    tag = fields.String()
    group = fields.String(metadata={"description": "a group's name or number"})


class JsonSchemaSchema(Schema):
    """A JSON Schema (draft 2020-12) of what may be wanted of a node of this model."""

    model = fields.String(required=True)
    schema = fields.Dict(keys=fields.String(), required=True)


@layers.route("")
class Layers(MethodView):
    @needs(Right.SEE_FLEET)
    @layers.lists(LayerSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """Layers that want something, from the one that holds for all"""
        page = layering.layer_page(current_session(), **query)
        return keyset.Page(
            [
                {
                    "kind": one.layer.kind,
                    "key": one.layer.key,
                    "name": one.layer.name,
                    "version": one.version,
                    "settings": one.settings,
                    "changed_at": one.changed_at,
                }
                for one in page.items
            ],
            page.next_key,
        )


@changes.route("")
class Changes(MethodView):
    @needs(Right.SEE_FLEET)
    @changes.lists(ChangeSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[dict[str, Any]]:
        """Changes, newest first"""
        page = changing.change_page(current_session(), **query)
        return keyset.Page([_shown(one) for one in page.items], page.next_key)

    @needs(Right.OPERATE_NODES)
    @changes.creates(
        NewChangeSchema,
        ChangeSchema,
        at=lambda made: url_for("changes.Change", change_id=made["id"]),
    )
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """Want other settings of many nodes, told in waves"""
        session, settings = current_session(), server_settings()
        plan = Plan(
            canaries=given["canaries"],
            shares=tuple(share / 100 for share in given["shares_pct"]),
            soak=timedelta(seconds=given["soak_s"]),
        )
        made = changing.propose_change(
            session,
            layering.find_layer(session, given["layer_kind"], given["layer_key"]),
            given["settings"],
            now=clock.now(),
            secret_key=settings.session_key,
            plan=plan,
            approval_above=settings.approval_wanted_above,
        )
        if made is None:
            raise NothingToChange("The layer wants exactly this already.")
        return _shown(changing.change_overview(session, made.id))


@changes.route("/preview")
class Preview(MethodView):
    @needs(Right.OPERATE_NODES)
    @changes.acts(WishSchema, PreviewSchema)
    def post(self, given: dict[str, Any]) -> dict[str, Any]:
        """What a change would do, node by node; nothing changes"""
        session = current_session()
        found = previewing.preview(
            session,
            layering.find_layer(session, given["layer_kind"], given["layer_key"]),
            given["settings"],
            secret_key=server_settings().session_key,
        )
        return {
            "layer": found.wish.layer.name,
            "changed": found.wish.changed,
            "counts": previewing.summary(found.counts),
            "nodes": found.nodes,
        }


@changes.route("/<row_id:change_id>")
class Change(MethodView):
    @needs(Right.SEE_FLEET)
    @changes.shows(ChangeSchema)
    def get(self, change_id: int) -> dict[str, Any]:
        """One change with its waves"""
        return _shown(changing.change_overview(current_session(), change_id))


@changes.route("/<row_id:change_id>/nodes")
class ChangeNodes(MethodView):
    @needs(Right.SEE_FLEET)
    @changes.lists(ChangeNodeSchema)
    def get(self, query: dict[str, Any], change_id: int) -> keyset.Page[ChangeNode]:
        """Nodes of a change, by wave"""
        return changing.change_node_page(current_session(), change_id, **query)


@changes.route("/<row_id:change_id>/approve")
class Approve(MethodView):
    @needs(Right.OPERATE_NODES)
    @changes.acts(None, ChangeSchema)
    def post(self, change_id: int) -> dict[str, Any]:
        """Let a change of somebody else's begin"""
        return _done(changing.approve_change, change_id)


@changes.route("/<row_id:change_id>/pause")
class Pause(MethodView):
    @needs(Right.OPERATE_NODES)
    @changes.acts(ReasonSchema, ChangeSchema)
    def post(self, given: dict[str, Any], change_id: int) -> dict[str, Any]:
        """Open no further wave"""
        return _done(changing.pause_change, change_id, **given)


@changes.route("/<row_id:change_id>/resume")
class Resume(MethodView):
    @needs(Right.OPERATE_NODES)
    @changes.acts(None, ChangeSchema)
    def post(self, change_id: int) -> dict[str, Any]:
        """Go on with a paused change"""
        return _done(changing.resume_change, change_id)


@changes.route("/<row_id:change_id>/abort")
class Abort(MethodView):
    @needs(Right.OPERATE_NODES)
    @changes.acts(ReasonSchema, ChangeSchema)
    def post(self, given: dict[str, Any], change_id: int) -> dict[str, Any]:
        """Tell nobody else; who was told keeps it"""
        return _done(changing.abort_change, change_id, **given)


@changes.route("/<row_id:change_id>/roll-back")
class RollBack(MethodView):
    @needs(Right.OPERATE_NODES)
    @changes.acts(ReasonSchema, ChangeSchema)
    def post(self, given: dict[str, Any], change_id: int) -> dict[str, Any]:
        """Want again what was wanted before, of every node at once"""
        return _done(changing.roll_back_change, change_id, **given)


@drift.route("")
class DriftingNodes(MethodView):
    @needs(Right.SEE_FLEET)
    @drift.lists(DriftSchema, DriftQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[Drift]:
        """Nodes that do not run what is wanted of them, by id"""
        limit, after, reason = query.pop("limit"), query.pop("after"), query.pop("reason", None)
        return drifting.drift_page(
            current_session(), selection_of(query), reason=reason, limit=limit, after=after
        )


@models.route("/<model>/configuration-schema")
class ConfigurationSchema(MethodView):
    @needs(Right.SEE_FLEET)
    @models.shows(JsonSchemaSchema)
    def get(self, model: str) -> dict[str, Any]:
        """What may be wanted of a node of this model, as JSON Schema"""
        return {"model": model, "schema": node_settings.schema_of(current_session(), model)}


def _done(do: Callable[..., ConfigurationChange], change_id: int, **details: str) -> dict[str, Any]:
    session = current_session()
    do(session, change_id, now=clock.now(), **details)
    return _shown(changing.change_overview(session, change_id))


def _shown(one: ChangeOverview) -> dict[str, Any]:
    found = one.change
    shown = {name: getattr(found, name) for name in _SHOWN}
    return {**shown, "layer": found.layer_name, "waves": one.waves, "cannot": one.cannot}
