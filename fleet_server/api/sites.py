"""Sites."""

from __future__ import annotations

from typing import Any

from flask import current_app, url_for
from flask.views import MethodView
from marshmallow import Schema, fields, validate

from fleet_server import clock
from fleet_server.api.noun import Noun, sent_file
from fleet_server.api.schemas import BulkQuery, ListQuery
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.uploads import takes_file
from fleet_server.models import Site as SiteRow
from fleet_server.services import deploying, keyset, site_importing, site_list
from fleet_server.services import sites as planning
from fleet_server.services.file_store import FileStore, open_store
from fleet_server.services.rights import Right
from fleet_server.services.site_files import read_table
from fleet_server.services.site_importing import ImportPlan, ImportRules
from fleet_server.services.sites import SiteState
from fleet_server.services.tables import LARGEST_FILE_BYTES

sites = Noun("sites", "Places that are measured")
_KINDS = ("tree", "water")
_PAIR = "Which column a field is, like code=Baumnr."
_MOST_TOLD = 1000


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
    lowest_level_m = fields.Float(required=True, allow_none=True)
    soil_class = fields.String(required=True, allow_none=True)
    unsealed_m2 = fields.Float(required=True, allow_none=True)
    crown_m2 = fields.Float(required=True, allow_none=True)
    tree_group = fields.String(required=True, allow_none=True)
    is_group_reference = fields.Boolean(required=True)
    details = fields.Dict(keys=fields.String(), values=fields.String(), required=True)


class _KnownSchema(Schema):
    """What the office knows of a site; null: nothing."""

    species = fields.String(allow_none=True, validate=validate.Length(max=120))
    tree_number = fields.String(allow_none=True, validate=validate.Length(max=120))
    planted_year = fields.Integer(allow_none=True)
    area_m2 = fields.Float(allow_none=True)
    depth_m = fields.Float(allow_none=True)
    lowest_level_m = fields.Float(
        allow_none=True, metadata={"description": "of a water: below it there is too little of it"}
    )
    soil_class = fields.String(
        allow_none=True, metadata={"description": "of a tree's soil, by KA5: Sl4"}
    )
    unsealed_m2 = fields.Float(
        allow_none=True, metadata={"description": "ground around a tree that rain gets through"}
    )
    crown_m2 = fields.Float(
        allow_none=True, metadata={"description": "ground below a tree's crown"}
    )
    tree_group = fields.String(
        allow_none=True,
        validate=validate.Length(max=120),
        metadata={"description": "trees of one species, age, soil and sealing"},
    )
    is_group_reference = fields.Boolean(
        metadata={"description": "what is measured here stands for its group"}
    )
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


class ImportQuery(BulkQuery):
    """How the file is read. What is not said is guessed from the names of its columns."""

    crs = fields.String(
        load_default=None,
        metadata={"description": "coordinate system of the positions, like EPSG:25832"},
    )
    map = fields.List(
        fields.String(validate=validate.Regexp(r"[a-z0-9_]+=", error=_PAIR)),
        load_default=list,
        metadata={
            "description": f"{_PAIR} Repeated for several. Fields: {', '.join(site_importing.FIELDS)}"
        },
    )
    kind = fields.String(
        load_default=None,
        validate=validate.OneOf(_KINDS),
        metadata={"description": "of all rows, where no column says it"},
    )
    layer = fields.String(
        load_default=None, metadata={"description": "of a GeoPackage that holds several"}
    )
    is_public = fields.Boolean(
        load_default=False, metadata={"description": "show new ones to everybody"}
    )


class ImportCountsSchema(Schema):
    new = fields.Integer(required=True)
    changed = fields.Integer(required=True)
    same = fields.Integer(required=True)
    wrong = fields.Integer(required=True)


class ChangedSiteSchema(Schema):
    code = fields.String(required=True)
    fields_ = fields.List(fields.String(), required=True, data_key="fields", attribute="fields")


class WrongRowSchema(Schema):
    """`row`: its number as who looks into the file finds it."""

    row = fields.Integer(required=True, attribute="number")
    code = fields.String(required=True)
    sentence = fields.String(required=True)


class ImportReportSchema(Schema):
    """`counts` are of all rows; `new` (codes), `changed` and `wrong` name the first thousand of each."""

    is_dry_run = fields.Boolean(required=True)
    crs = fields.String(required=True)
    columns = fields.Dict(keys=fields.String(), values=fields.String(), required=True)
    counts = fields.Nested(ImportCountsSchema, required=True)
    new = fields.List(fields.String(), required=True)
    changed = fields.List(fields.Nested(ChangedSiteSchema), required=True)
    wrong = fields.List(fields.Nested(WrongRowSchema), required=True)


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


@sites.route("/import")
class Import(MethodView):
    @needs(Right.PLAN_SITES)
    @takes_file(LARGEST_FILE_BYTES)
    @sites.acts(None, ImportReportSchema, query=ImportQuery, takes_file=True)
    def post(self, query: dict[str, Any]) -> dict[str, Any]:
        """Make and change sites as a file (CSV, GeoJSON, GeoPackage) says; rows that are wrong are left out and told"""
        session, now, data = current_session(), clock.now(), sent_file()
        table = read_table(data, layer=query["layer"])
        rules = site_importing.make_rules(
            table,
            crs=query["crs"],
            columns=_columns(query["map"]),
            kind=query["kind"],
            is_public=query["is_public"],
        )
        if query["dry_run"]:
            plan = site_importing.plan_import(session, table, rules, now=now)
        else:
            site_importing.keep_file(data, store=_files())
            plan = site_importing.import_sites(session, table, rules, data=data, now=now)
        return _report(plan, rules, is_dry_run=query["dry_run"])


def _columns(pairs: list[str]) -> dict[str, str]:
    return {field: column for field, _, column in (pair.partition("=") for pair in pairs)}


def _report(plan: ImportPlan, rules: ImportRules, *, is_dry_run: bool) -> dict[str, Any]:
    changed = [{"code": code, "fields": list(names)} for code, names in plan.changed.items()]
    return {
        "is_dry_run": is_dry_run,
        "crs": f"EPSG:{rules.epsg}",
        "columns": dict(rules.columns),
        "counts": plan.counts,
        "new": plan.new[:_MOST_TOLD],
        "changed": changed[:_MOST_TOLD],
        "wrong": plan.wrong[:_MOST_TOLD],
    }


def _files() -> FileStore:
    return open_store(current_app.config["FLEET_SETTINGS"].files_url)


@sites.route("/<path:site_code>")
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


@sites.route("/<path:site_code>/close")
class Closing(MethodView):
    @needs(Right.PLAN_SITES)
    @sites.acts(None, None)
    def post(self, site_code: str) -> None:
        """Nothing is mounted there any more"""
        site = site_list.site_with_code(current_session(), site_code)
        planning.close_site(current_session(), site.id, now=clock.now())


@sites.route("/<path:site_code>/reopen")
class Reopening(MethodView):
    @needs(Right.PLAN_SITES)
    @sites.acts(None, None)
    def post(self, site_code: str) -> None:
        """The site is in use again"""
        site = site_list.site_with_code(current_session(), site_code)
        planning.reopen_site(current_session(), site.id, now=clock.now())
