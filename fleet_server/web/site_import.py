"""A file of sites on the page: uploaded, its columns named, previewed, imported."""

from __future__ import annotations

import hashlib
import re

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.uploads import takes_file
from fleet_server.services import places, site_importing
from fleet_server.services.rights import Right
from fleet_server.services.site_files import read_table
from fleet_server.services.site_importing import FIELDS, ImportPlan, ImportRules
from fleet_server.services.tables import LARGEST_FILE_BYTES, Table
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words
from fleet_server.web.files import open_files

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_WRONG_ROWS = 100
_MOST_CODES = 30
_APPLY = "apply"
_Answer = str | Response | tuple[str, int]


@web.route("/fleet/sites/import", methods=["GET", "POST"])
@needs(Right.PLAN_SITES)
@takes_file(LARGEST_FILE_BYTES)
def import_sites() -> _Answer:
    """Upload; then the same page again with what the import would do, until it is done."""
    if request.method == "GET":
        return render_template("site_import.html", fault="", systems=places.SYSTEMS)
    try:
        data = _data()
        table = read_table(data, layer=forms.text("layer") or None)
        rules = _rules(table)
    except FleetError as problem:
        page = render_template("site_import.html", fault=in_words(problem), systems=places.SYSTEMS)
        return page, 400
    return _planned(data, table, rules)


def _planned(data: bytes, table: Table, rules: ImportRules) -> _Answer:
    session, now = current_session(), clock.now()
    plan, fault = forms.tried(lambda: site_importing.plan_import(session, table, rules, now=now))
    if plan is not None and forms.text("step") == _APPLY:
        site_importing.keep_file(data, store=open_files())
        done = site_importing.import_sites(session, table, rules, data=data, now=now)
        counts = done.counts
        flash(
            gettext(
                "Imported: %(new)s new, %(changed)s changed, %(same)s the same, %(wrong)s wrong.",
                **{name: str(count) for name, count in counts.items()},
            )
        )
        return redirect(url_for("web.sites"), code=303)
    return _preview(data, table, rules, plan, fault), 200 if plan is not None else 400


def _preview(
    data: bytes, table: Table, rules: ImportRules, plan: ImportPlan | None, fault: str
) -> str:
    return render_template(
        "site_import_preview.html",
        sha256=hashlib.sha256(data).hexdigest(),
        layer=forms.text("layer"),
        table=table,
        rules=rules,
        fields=[
            name
            for name in FIELDS
            if not (table.has_geometry and name in site_importing.POSITION_FIELDS)
        ],
        systems=places.SYSTEMS,
        plan=plan,
        fault=fault,
        most_wrong=_MOST_WRONG_ROWS,
        most_codes=_MOST_CODES,
    )


def _data() -> bytes:
    """The file that came, or the one that came before and is only named now."""
    uploaded = forms.upload("file", most_bytes=LARGEST_FILE_BYTES)
    if uploaded:
        if len(uploaded) <= LARGEST_FILE_BYTES:
            site_importing.keep_preview(uploaded, store=open_files())
        return uploaded
    digest = forms.text("sha256")
    if not _SHA256.fullmatch(digest):
        raise Invalid(gettext("Choose a file."))
    return site_importing.previewed_file(digest, store=open_files())


def _rules(table: Table) -> ImportRules:
    """As chosen on the page; guessed from the file at first."""
    kind = forms.text("kind") or None
    if kind not in (None, "tree", "water"):
        raise Invalid("kind wants tree or water.")
    wanted = forms.text("epsg")
    epsg = places.epsg_of(wanted) if wanted else site_importing.guess_epsg(table)
    columns = {
        name: forms.text(f"column_{name}") for name in FIELDS if forms.text(f"column_{name}")
    }
    is_first = not forms.text("sha256")
    return ImportRules(
        columns=site_importing.guess_columns(table) if is_first else columns,
        epsg=epsg or places.UTM_32,
        kind=kind,
        is_public=bool(forms.text("is_public")),
    )
