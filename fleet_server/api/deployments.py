"""Deployments: which node stands where from when."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.errors import Conflict, Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import deploying, deployment_list, keyset
from fleet_server.services.deployment_list import DeploymentLine, OneDeployment
from fleet_server.services.rights import Right

# What has just happened may be a little ahead by the clock of who says it.
_CLOCKS_DIFFER = timedelta(minutes=1)

deployments = Noun("deployments", "Which node stands where from when")


class DeploymentSchema(Schema):
    """A node at a site; `to_at` is null as long as it stands there."""

    id = fields.Integer(required=True)
    node_id = fields.String(required=True)
    site_code = fields.String(required=True)
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True, allow_none=True)


class ChannelSchema(Schema):
    """A probe at a channel; after a swap there is another line for it."""

    key = fields.String(required=True)
    property = fields.String(required=True)
    depth_cm = fields.Integer(required=True)
    sensor_type = fields.String(required=True)
    serial = fields.String(required=True)
    from_at = fields.AwareDateTime(required=True)
    to_at = fields.AwareDateTime(required=True, allow_none=True)


class OneDeploymentSchema(DeploymentSchema):
    """… with which probe was at which channel and depth, from–to."""

    channels = fields.List(fields.Nested(ChannelSchema), required=True)


class DeploymentQuery(ListQuery):
    node_id = fields.String()
    site_code = fields.String()
    is_open = fields.Boolean(
        metadata={"description": "only those that go on, or only those that ended"}
    )


class NewDeploymentSchema(Schema):
    """`serials`: the serial number of the probe in each slot."""

    node_id = fields.String(required=True, validate=validate.Length(1, 64))
    site_code = fields.String(required=True, validate=validate.Length(1, 64))
    from_at = fields.AwareDateTime(required=True)
    serials = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=fields.String(validate=validate.Length(1, 80)),
        load_default=dict,
    )
    depths_cm = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=fields.Integer(),
        load_default=dict,
        metadata={"description": "by slot, where a probe is elsewhere than its node's model says"},
    )


class SwapSchema(Schema):
    """`serial`: of the probe that is in the slot from `at` on."""

    slot = fields.String(required=True, validate=validate.Length(1, 64))
    serial = fields.String(required=True, validate=validate.Length(1, 80))
    at = fields.AwareDateTime(required=True)


class ReplacementSchema(Schema):
    """`keeps_probes`: what is in the ground stays there and is the new node's."""

    by_node_id = fields.String(required=True, validate=validate.Length(1, 64))
    at = fields.AwareDateTime(required=True)
    keeps_probes = fields.Boolean(load_default=True)
    serials = fields.Dict(
        keys=fields.String(validate=validate.Length(1, 64)),
        values=fields.String(validate=validate.Length(1, 80)),
        load_default=dict,
        metadata={"description": "by slot, of probes at the new node that are others"},
    )


class EndSchema(Schema):
    to_at = fields.AwareDateTime(required=True)


@deployments.route("")
class Deployments(MethodView):
    @needs(Right.SEE_FLEET)
    @deployments.lists(DeploymentSchema, DeploymentQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[DeploymentLine]:
        """Deployments, the latest made first"""
        return deployment_list.deployment_page(current_session(), **query)

    @needs(Right.MOUNT_NODES)
    @deployments.creates(
        NewDeploymentSchema,
        OneDeploymentSchema,
        at=lambda made: url_for("deployments.Deployment", deployment_id=made.id),
    )
    def post(self, given: dict[str, Any]) -> OneDeployment:
        """Put a node at a site"""
        session = current_session()
        _refuse_future(given["from_at"])
        made = deploying.deploy_node(session, now=clock.now(), **given)
        return deployment_list.deployment(session, made.id)


@deployments.route("/<row_id:deployment_id>")
class Deployment(MethodView):
    def entity(self, deployment_id: int) -> OneDeployment:
        return deployment_list.deployment(current_session(), deployment_id)

    @needs(Right.SEE_FLEET)
    @deployments.shows(OneDeploymentSchema)
    def get(self, deployment_id: int) -> OneDeployment:
        """One deployment"""
        return self.entity(deployment_id)

    @needs(Right.MOUNT_NODES)
    @deployments.changes(EndSchema, OneDeploymentSchema)
    def patch(self, given: dict[str, Any], deployment_id: int) -> None:
        """The node leaves the site"""
        session = current_session()
        stands = _standing(deployment_id)
        _refuse_future(given["to_at"])
        deploying.end_deployment(session, stands.node_id, to_at=given["to_at"], now=clock.now())


@deployments.route("/<row_id:deployment_id>/swap-sensor")
class Swap(MethodView):
    @needs(Right.MOUNT_NODES)
    @deployments.acts(SwapSchema, None)
    def post(self, given: dict[str, Any], deployment_id: int) -> None:
        """Another probe is in a slot; its datastreams go on"""
        stands = _standing(deployment_id)
        _refuse_future(given["at"])
        deploying.swap_sensor(
            current_session(),
            stands.node_id,
            given["slot"],
            serial=given["serial"],
            at=given["at"],
            now=clock.now(),
        )


@deployments.route("/<row_id:deployment_id>/replace")
class Replacement(MethodView):
    @needs(Right.MOUNT_NODES)
    @deployments.acts(ReplacementSchema, OneDeploymentSchema)
    def post(self, given: dict[str, Any], deployment_id: int) -> OneDeployment:
        """Another node takes the place; its deployment is answered"""
        session = current_session()
        _refuse_future(given["at"])
        made = deploying.replace_node(
            session,
            _standing(deployment_id).node_id,
            given["by_node_id"],
            at=given["at"],
            now=clock.now(),
            keeps_probes=given["keeps_probes"],
            serials=given["serials"],
        )
        return deployment_list.deployment(session, made.id)


def _refuse_future(moment: datetime) -> None:
    if moment > clock.now() + _CLOCKS_DIFFER:
        raise Invalid("This time lies in the future.")


def _standing(deployment_id: int) -> OneDeployment:
    stands = deployment_list.deployment(current_session(), deployment_id)
    if stands.to_at is not None:
        raise Conflict(f"Deployment {deployment_id} has ended; it stays as it was.")
    return stands
