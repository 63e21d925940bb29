"""Sites."""

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
from fleet_server.models import Site as SiteRow
from fleet_server.services import deploying, keyset, site_list
from fleet_server.services import sites as planning
from fleet_server.services.rights import Right
from fleet_server.services.sites import SiteState

sites = Noun("sites", "Places that are measured")
_KINDS = ("tree", "water")


class SiteSchema(Schema):
    """One site; its position is WGS84 in degrees."""

    code = fields.String(required=True)
    name = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(_KINDS))
    latitude = fields.Float(required=True)
    longitude = fields.Float(required=True)
    description = fields.String(required=True)
    is_public = fields.Boolean(required=True)
    created_at = fields.AwareDateTime(required=True)
    closed_at = fields.AwareDateTime(required=True, allow_none=True)
    species = fields.String(required=True, allow_none=True)
    tree_number = fields.String(required=True, allow_none=True)
    planted_year = fields.Integer(required=True, allow_none=True)
    area_m2 = fields.Float(required=True, allow_none=True)
    depth_m = fields.Float(required=True, allow_none=True)
    details = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class _KnownSchema(Schema):
    """What the office knows of a site; null: nothing."""

    species = fields.String(allow_none=True, validate=validate.Length(max=120))
    tree_number = fields.String(allow_none=True, validate=validate.Length(max=120))
    planted_year = fields.Integer(allow_none=True)
    area_m2 = fields.Float(allow_none=True)
    depth_m = fields.Float(allow_none=True)
    details = fields.Dict(keys=fields.String(), values=fields.String())


class SiteChangeSchema(_KnownSchema):
    """What is not named stays. Code and kind stay what they are."""

    name = fields.String(validate=validate.Length(1, 200))
    latitude = fields.Float(validate=validate.Range(-90, 90))
    longitude = fields.Float(validate=validate.Range(-180, 180))
    description = fields.String(validate=validate.Length(max=2000))
    is_public = fields.Boolean()


class NewSiteSchema(_KnownSchema):
    code = fields.String(required=True, validate=validate.Length(1, 64))
    name = fields.String(required=True, validate=validate.Length(1, 200))
    kind = fields.String(required=True, validate=validate.OneOf(_KINDS))
    latitude = fields.Float(required=True, validate=validate.Range(-90, 90))
    longitude = fields.Float(required=True, validate=validate.Range(-180, 180))
    description = fields.String(load_default="", validate=validate.Length(max=2000))
    is_public = fields.Boolean(load_default=False)


class SiteQuery(ListQuery):
    kind = fields.String(validate=validate.OneOf(_KINDS))
    name = fields.String(metadata={"description": "how the name begins"})
    text = fields.String(
        load_default="", metadata={"description": "part of code, name, tree number or species"}
    )
    state = fields.Enum(SiteState, by_value=True)


@sites.route("")
class Sites(MethodView):
    @needs(Right.SEE_FLEET)
    @sites.lists(SiteSchema, SiteQuery)
    def get(self, query: dict[str, Any]) -> keyset.Page[SiteRow]:
        """Sites, by code"""
        return site_list.site_page(current_session(), **query)

    @needs(Right.PLAN_SITES)
    @sites.creates(
        NewSiteSchema, SiteSchema, at=lambda site: url_for("sites.Site", site_code=site.code)
    )
    def post(self, given: dict[str, Any]) -> SiteRow:
        """A new site"""
        is_public = given.pop("is_public")
        site = deploying.NewSite(**given)
        return deploying.create_site(current_session(), site, is_public=is_public, now=clock.now())


@sites.route("/<site_code>")
class Site(MethodView):
    def entity(self, site_code: str) -> SiteRow:
        return site_list.site_with_code(current_session(), site_code)

    @needs(Right.SEE_FLEET)
    @sites.shows(SiteSchema)
    def get(self, site_code: str) -> SiteRow:
        """One site"""
        return self.entity(site_code)

    @needs(Right.PLAN_SITES)
    @sites.changes(SiteChangeSchema, SiteSchema)
    def patch(self, given: dict[str, Any], site_code: str) -> None:
        """Change what is known of a site"""
        site = self.entity(site_code)
        planning.change_site(current_session(), site.id, given, now=clock.now())


@sites.route("/<site_code>/close")
class Closing(MethodView):
    @needs(Right.PLAN_SITES)
    @sites.acts(None, None)
    def post(self, site_code: str) -> None:
        """Nothing is mounted there any more"""
        site = site_list.site_with_code(current_session(), site_code)
        planning.close_site(current_session(), site.id, now=clock.now())


@sites.route("/<site_code>/reopen")
class Reopening(MethodView):
    @needs(Right.PLAN_SITES)
    @sites.acts(None, None)
    def post(self, site_code: str) -> None:
        """The site is in use again"""
        site = site_list.site_with_code(current_session(), site_code)
        planning.reopen_site(current_session(), site.id, now=clock.now())
