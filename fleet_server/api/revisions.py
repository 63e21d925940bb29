"""Revisions, and all versions of one observation. Read-only."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields

from fleet_server.api.nodes import nodes
from fleet_server.api.noun import Noun
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import (
    budget_documents,
    budgeting,
    keyset,
    revision_list,
    version_history,
)
from fleet_server.services.revision_list import RevisionLine, RevisionStreamLine
from fleet_server.services.rights import Right
from fleet_server.services.version_history import VersionHistory

revisions = Noun("revisions", "Values made anew: why, by whom, how far, what it changed")
observations = Noun("observations", "All versions of one observation")


class MadeEarlierSchema(Schema):
    """Values that another revision made anew while this one waited: they are not among its own changes."""

    revision_id = fields.Integer(required=True)
    changed = fields.Integer(required=True)


class RevisionSchema(Schema):
    """Why values of `from_at` ≤ sampled < `to_at` (null: open) were made anew; `fault` says what holds it up. Counts: of values."""

    id = fields.Integer(required=True, attribute="revision.id")
    kind = fields.String(required=True, attribute="revision.kind")
    reason = fields.String(required=True, attribute="revision.reason")
    author = fields.String(required=True, attribute="revision.author")
    approver = fields.String(required=True, allow_none=True, attribute="revision.approver")
    from_at = fields.AwareDateTime(required=True, allow_none=True, attribute="revision.from_at")
    to_at = fields.AwareDateTime(required=True, allow_none=True, attribute="revision.to_at")
    state = fields.String(required=True, attribute="revision.state")
    ordered_at = fields.AwareDateTime(required=True, attribute="revision.ordered_at")
    known_at = fields.AwareDateTime(required=True, allow_none=True, attribute="revision.known_at")
    backup = fields.String(required=True, allow_none=True, attribute="revision.backup")
    fault = fields.String(required=True, allow_none=True, attribute="revision.fault")
    datastreams = fields.Integer(required=True, attribute="streams")
    datastreams_switched = fields.Integer(required=True, attribute="switched")
    compared = fields.Integer(required=True)
    changed = fields.Integer(required=True)
    removed = fields.Integer(required=True)
    made_earlier = fields.List(fields.Nested(MadeEarlierSchema), required=True)


class RevisionStreamSchema(Schema):
    """One datastream of a revision; `switched_at` null: its values are the old ones yet. `largest_change` in `unit`, null: no value differs."""

    datastream_id = fields.Integer(required=True, attribute="stream.datastream_id")
    site = fields.String(required=True, attribute="site.code")
    property = fields.String(required=True, attribute="datastream.property")
    depth_cm = fields.Integer(required=True, attribute="datastream.depth_cm")
    unit = fields.String(required=True, attribute="datastream.unit")
    node_id = fields.String(required=True, allow_none=True)
    switched_at = fields.AwareDateTime(
        required=True, allow_none=True, attribute="stream.switched_at"
    )
    compared = fields.Integer(required=True, attribute="stream.compared")
    changed = fields.Integer(required=True, attribute="stream.changed")
    removed = fields.Integer(required=True, attribute="stream.removed")
    made_earlier = fields.List(fields.Nested(MadeEarlierSchema), required=True)
    largest_change = fields.Float(required=True, allow_none=True, attribute="stream.largest_change")


class GivenSchema(Schema):
    """A value that no node measured: its import, the row, and what stood there. `limit_sign` `<` or `>`: known only to lie beyond `limit_value`."""

    import_id = fields.Integer(required=True, attribute="source.id")
    kind = fields.String(required=True, attribute="source.kind")
    source = fields.String(required=True, attribute="source.source")
    method = fields.String(required=True, attribute="source.method")
    instrument = fields.String(required=True, attribute="source.instrument")
    report_number = fields.String(required=True, attribute="source.report_number")
    sample = fields.String(required=True, attribute="value.sample")
    row = fields.Integer(required=True, attribute="value.row")
    given = fields.String(required=True, attribute="value.given")
    given_unit = fields.String(required=True, attribute="value.given_unit")
    limit_sign = fields.String(required=True, attribute="value.limit_sign")
    limit_value = fields.Float(required=True, allow_none=True, attribute="value.limit_value")


class MadeBySchema(Schema):
    """`inputs`: calibrations of the conversion's inputs by name, null where there was none. `given`: of a value that no node measured; then it has no sensor."""

    sensor = fields.Function(
        lambda made: made.sensor and made.sensor.serial,
        required=True,
        metadata={"type": ["string", "null"]},
    )
    calibration_id = fields.Function(
        lambda made: made.calibration and made.calibration.id,
        required=True,
        metadata={"type": ["integer", "null"]},
    )
    certificate_sha256 = fields.Function(
        lambda made: made.calibration and made.calibration.certificate_sha256,
        required=True,
        metadata={"type": ["string", "null"]},
    )
    given = fields.Nested(GivenSchema, required=True, allow_none=True)
    inputs = fields.Function(
        lambda made: {name: one and one.id for name, one in made.inputs.items()},
        required=True,
        metadata={
            "type": "object",
            "additionalProperties": {"type": ["integer", "null"]},
        },
    )
    conversion = fields.String(required=True, attribute="lineage.conversion")
    correction = fields.String(required=True, attribute="lineage.correction")
    rule_set = fields.String(required=True, attribute="lineage.rule_set")
    pipeline_version = fields.String(required=True, attribute="lineage.pipeline_version")


class ChangedBySchema(Schema):
    id = fields.Integer(required=True)
    kind = fields.String(required=True)
    reason = fields.String(required=True)
    author = fields.String(required=True)
    approver = fields.String(required=True, allow_none=True)


class VersionSchema(Schema):
    """`known_to` null: the current one. `u` is the standard uncertainty, U = k · u. `made_in` null: made when the reading came."""

    number = fields.Integer(required=True)
    value = fields.Float(required=True, allow_none=True)
    u = fields.Float(required=True, allow_none=True)
    k = fields.Float(required=True)
    flag = fields.Integer(required=True)
    known_from = fields.AwareDateTime(required=True)
    known_to = fields.AwareDateTime(required=True, allow_none=True)
    pack_id = fields.Integer(required=True, allow_none=True)
    made_by = fields.Nested(MadeBySchema, required=True)
    made_in = fields.Nested(ChangedBySchema, required=True, allow_none=True)


class VersionHistorySchema(Schema):
    """The newest hundred versions, oldest first, and how many are older; `waits_for`: revisions that have not come to this observation yet."""

    id = fields.Integer(required=True)
    datastream_id = fields.Integer(required=True, attribute="datastream.id")
    site = fields.String(required=True, attribute="site.code")
    property = fields.String(required=True, attribute="datastream.property")
    depth_cm = fields.Integer(required=True, attribute="datastream.depth_cm")
    unit = fields.String(required=True, attribute="datastream.unit")
    sampled_at = fields.AwareDateTime(required=True)
    is_current = fields.Boolean(required=True)
    versions = fields.List(fields.Nested(VersionSchema), required=True)
    older = fields.Integer(required=True)
    waits_for = fields.List(fields.Nested(ChangedBySchema), required=True)


class BudgetStandardSchema(Schema):
    id = fields.Integer(required=True)
    name = fields.String(required=True)
    lot = fields.String(required=True)
    certificate = fields.String(required=True)


class BudgetPartSchema(Schema):
    """One part of u, in the unit of the value. `degrees_of_freedom` null: no end to them; `calibration_id` null: it is the conversion's."""

    name = fields.String(required=True)
    sentence = fields.String(required=True)
    u = fields.Float(required=True)
    share_pct = fields.Float(required=True)
    shape = fields.String(required=True)
    degrees_of_freedom = fields.Float(required=True, allow_none=True)
    source = fields.String(required=True)
    calibration_id = fields.Integer(required=True, allow_none=True)
    standards = fields.List(fields.Nested(BudgetStandardSchema), required=True)


class RemedySchema(Schema):
    """What would make the value surer, and the u that it would have."""

    code = fields.String(required=True)
    u = fields.Float(required=True)
    sentence = fields.String(required=True)


class BudgetSchema(Schema):
    """What the u of an observation is made of, largest part first: squares of the parts add up to u², their shares to 100."""

    observation = fields.Integer(required=True)
    datastream_id = fields.Integer(required=True)
    site = fields.String(required=True)
    property = fields.String(required=True)
    depth_cm = fields.Integer(required=True)
    unit = fields.String(required=True)
    sampled_at = fields.String(required=True)
    version = fields.Integer(required=True)
    value = fields.Float(required=True)
    u = fields.Float(required=True)
    k = fields.Float(required=True)
    expanded_u = fields.Float(required=True)
    degrees_of_freedom = fields.Float(required=True, allow_none=True)
    sensor = fields.String(required=True)
    calibration_id = fields.Integer(required=True)
    is_site_calibrated = fields.Boolean(required=True)
    standing = fields.String(required=True)
    parts = fields.List(fields.Nested(BudgetPartSchema), required=True)
    remedies = fields.List(fields.Nested(RemedySchema), required=True)


@revisions.route("")
class Revisions(MethodView):
    @needs(Right.SEE_FLEET)
    @revisions.lists(RevisionSchema)
    def get(self, query: dict[str, Any]) -> keyset.Page[RevisionLine]:
        """Revisions, newest first"""
        return revision_list.revision_page(current_session(), **query)


@revisions.route("/<row_id:revision_id>")
class OneRevision(MethodView):
    @needs(Right.SEE_FLEET)
    @revisions.shows(RevisionSchema)
    def get(self, revision_id: int) -> RevisionLine:
        """One revision and how far it has come"""
        return revision_list.revision_of(current_session(), revision_id)


@revisions.route("/<row_id:revision_id>/datastreams")
class RevisionStreams(MethodView):
    @needs(Right.SEE_FLEET)
    @revisions.lists(RevisionStreamSchema)
    def get(self, query: dict[str, Any], revision_id: int) -> keyset.Page[RevisionStreamLine]:
        """What a revision changed in each datastream"""
        session = current_session()
        revision_list.revision_of(session, revision_id)
        return revision_list.stream_page(session, revision_id, **query)


@observations.route("/<observation_id:observation_id>")
class OneObservation(MethodView):
    @needs(Right.SEE_FLEET)
    @observations.shows(VersionHistorySchema)
    def get(self, observation_id: int) -> VersionHistory:
        """All versions of one observation, by the feed's `@iot.id`"""
        return version_history.history_of(current_session(), observation_id)


@observations.route("/<observation_id:observation_id>/uncertainty")
class OneUncertainty(MethodView):
    @needs(Right.SEE_FLEET)
    @observations.shows(BudgetSchema)
    def get(self, observation_id: int) -> dict[str, Any]:
        """What the uncertainty of an observation, as it is known now, is made of"""
        return budget_documents.budget_document(
            budgeting.budget_of(current_session(), observation_id)
        )


@nodes.route("/<node_id:node_id>/uncertainty/<key>")
class ChannelUncertainty(MethodView):
    @needs(Right.SEE_FLEET)
    @nodes.shows(BudgetSchema)
    def get(self, node_id: str, key: str) -> dict[str, Any]:
        """What the uncertainty of the newest value of a node's channel is made of"""
        session = current_session()
        newest = budgeting.latest_of_channel(session, node_id, key)
        return budget_documents.budget_document(budgeting.budget_of(session, newest))
