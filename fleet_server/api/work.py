"""Work orders."""

from __future__ import annotations

from typing import Any

from flask import url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun
from fleet_server.api.schemas import ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.models import Role, WorkKind, WorkState
from fleet_server.services import keyset, site_list, working
from fleet_server.services.rights import Right
from fleet_server.services.working import UNFINISHED, WorkFilter, WorkLine, WorkWanted

work_orders = Noun("work-orders", "What somebody shall do at a node or a site")


class WorkOrderSchema(Schema):
    """One order; people are named as the audit log has them."""

    id = fields.Integer(required=True, attribute="order.id")
    kind = fields.String(required=True, attribute="order.kind")
    state = fields.String(required=True, attribute="order.state")
    summary = fields.String(required=True, attribute="order.summary")
    node_id = fields.String(required=True, allow_none=True, attribute="order.node_id")
    site_code = fields.String(required=True, allow_none=True)
    due_at = fields.AwareDateTime(required=True, attribute="order.due_at")
    assigned_to = fields.String(required=True, allow_none=True, attribute="assignee")
    assigned_role = fields.String(required=True, allow_none=True, attribute="order.assigned_role")
    cause = fields.String(required=True, allow_none=True, attribute="order.cause")
    ordered_at = fields.AwareDateTime(required=True, attribute="order.ordered_at")
    ordered_by = fields.String(required=True, attribute="order.ordered_by")
    begun_at = fields.AwareDateTime(required=True, allow_none=True, attribute="order.begun_at")
    begun_by = fields.String(required=True, allow_none=True, attribute="order.begun_by")
    ended_at = fields.AwareDateTime(required=True, allow_none=True, attribute="order.ended_at")
    ended_by = fields.String(required=True, allow_none=True, attribute="order.ended_by")


class WorkQuery(ListQuery):
    kind = fields.Enum(WorkKind, by_value=True)
    state = fields.Enum(
        WorkState,
        by_value=True,
        metadata={"description": "only these; without it all that are not over"},
    )
    node_id = fields.String()
    site_code = fields.String()


class NewWorkSchema(Schema):
    """`node_id`, `site_code` or both."""

    kind = fields.Enum(WorkKind, by_value=True, required=True)
    due_at = fields.AwareDateTime(required=True)
    node_id = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 64))
    site_code = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 64))
    summary = fields.String(load_default="", validate=validate.Length(max=500))
    assigned_to = fields.String(load_default=None, allow_none=True, validate=validate.Length(1, 64))
    assigned_role = fields.Enum(Role, by_value=True, load_default=None, allow_none=True)
    cause = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, 120),
        metadata={"description": "what wants it: of one cause there is one unfinished order"},
    )


@work_orders.route("")
class WorkOrders(MethodView):
    @needs(Right.SEE_FLEET)
    @work_orders.lists(WorkOrderSchema, WorkQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[WorkLine]:
        """Orders, what is due first first"""
        state = query.get("state")
        wanted = WorkFilter(
            states=UNFINISHED if state is None else (state,),
            kind=query.get("kind"),
            node_id=query.get("node_id"),
            site_id=_site_id(query.get("site_code")),
        )
        return working.work_page(
            current_session(), wanted, limit=query["limit"], after=query["after"]
        )

    @needs(Right.PLAN_SITES)
    @work_orders.creates(
        NewWorkSchema,
        WorkOrderSchema,
        at=lambda made: url_for("work-orders.WorkOrder", order_id=made.order.id),
    )
    def post(self, given: dict[str, Any]) -> WorkLine:
        """Order work"""
        session = current_session()
        site_id = _site_id(given.pop("site_code"))
        order = working.order_work(session, WorkWanted(**given, site_id=site_id), now=clock.now())
        return working.order_of(session, order.id)


@work_orders.route("/<row_id:order_id>")
class WorkOrder(MethodView):
    def entity(self, order_id: int) -> WorkLine:
        return working.order_of(current_session(), order_id)

    @needs(Right.SEE_FLEET)
    @work_orders.shows(WorkOrderSchema)
    def get(self, order_id: int) -> WorkLine:
        """One order"""
        return self.entity(order_id)


@work_orders.route("/<row_id:order_id>/begin")
class Beginning(MethodView):
    @needs(Right.MOUNT_NODES)
    @work_orders.acts(None, WorkOrderSchema)
    def post(self, order_id: int) -> WorkLine:
        """Somebody is at it"""
        working.begin_work(current_session(), order_id, now=clock.now())
        return working.order_of(current_session(), order_id)


@work_orders.route("/<row_id:order_id>/finish")
class Finishing(MethodView):
    @needs(Right.MOUNT_NODES)
    @work_orders.acts(None, WorkOrderSchema)
    def post(self, order_id: int) -> WorkLine:
        """It is done"""
        working.finish_work(current_session(), order_id, now=clock.now())
        return working.order_of(current_session(), order_id)


@work_orders.route("/<row_id:order_id>/cancel")
class Cancelling(MethodView):
    @needs(Right.PLAN_SITES)
    @work_orders.acts(None, WorkOrderSchema)
    def post(self, order_id: int) -> WorkLine:
        """Nobody has to do it any more"""
        working.cancel_work(current_session(), order_id, now=clock.now())
        return working.order_of(current_session(), order_id)


def _site_id(code: str | None) -> int | None:
    return None if code is None else site_list.site_with_code(current_session(), code).id
