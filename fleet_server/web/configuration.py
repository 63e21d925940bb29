"""Pages of what is wanted of many nodes: layers, a preview, changes and their waves, nodes that drift."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid, NotFound
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.models import LayerKind
from fleet_server.services import changing, drifting, grouping, keyset, layering, previewing
from fleet_server.services.changing import AT_ONCE, Plan
from fleet_server.services.layering import Layer
from fleet_server.services.previewing import Outcome
from fleet_server.services.rights import Right
from fleet_server.services.selecting import SITE_KINDS, Selection
from fleet_server.services.typed_values import settings_of_lines
from fleet_server.web.blueprint import web
from fleet_server.web.change_words import server_settings
from fleet_server.web.faults import in_words
from fleet_server.wire import configuration as table
from hardware import catalogue

_CHANGES, _NODES = 20, 50
_MOST_CANARIES, _LONGEST_SOAK_H = 10_000, 720
_DEEDS = {
    "approve": changing.approve_change,
    "pause": changing.pause_change,
    "resume": changing.resume_change,
    "abort": changing.abort_change,
    "roll_back": changing.roll_back_change,
}


@web.get("/fleet/configuration")
@needs(Right.SEE_FLEET)
def configuration() -> str:
    """What each layer wants, the form for a change, and the changes."""
    return _page()


@web.post("/fleet/configuration/preview")
@needs(Right.OPERATE_NODES)
def preview_change() -> str | tuple[str, int]:
    """What the change would do; nothing changes."""
    session, typed = current_session(), request.form.get("settings", "")
    try:
        found = previewing.preview(
            session, _layer(), settings_of_lines(typed), secret_key=server_settings().session_key
        )
    except FleetError as problem:
        return _page(fault=in_words(problem)), 400
    above = server_settings().approval_wanted_above
    changing_nodes = found.counts.get(Outcome.CHANGES, 0)
    return render_template(
        "change_preview.html",
        found=found,
        counts=previewing.summary(found.counts),
        layer=request.form.get("layer", ""),
        typed=typed,
        waves=Plan().waves(changing_nodes),
        needs_approval=above is not None and changing_nodes > above,
    )


@web.post("/fleet/configuration/changes")
@needs(Right.OPERATE_NODES)
def propose_change() -> Response | tuple[str, int]:
    """Want it."""
    session, settings = current_session(), server_settings()
    try:
        made = changing.propose_change(
            session,
            _layer(),
            settings_of_lines(request.form.get("settings", "")),
            now=clock.now(),
            secret_key=settings.session_key,
            plan=_plan(),
            approval_above=settings.approval_wanted_above,
        )
    except FleetError as problem:
        return _page(fault=in_words(problem)), 400
    if made is None:
        flash(gettext("Exactly this is wanted already."))
        return redirect(url_for("web.configuration"), code=303)
    return redirect(url_for("web.change", change_id=made.id), code=303)


@web.get("/fleet/configuration/changes/<row_id:change_id>")
@needs(Right.SEE_FLEET)
def change(change_id: int) -> str:
    """One change: its waves, and its nodes."""
    session = current_session()
    page = changing.change_node_page(session, change_id, limit=_NODES, after=_after())
    return render_template(
        "change.html",
        found=changing.change_overview(session, change_id),
        nodes=page.items,
        following=_following(page),
    )


@web.post("/fleet/configuration/changes/<row_id:change_id>/<deed>")
@needs(Right.OPERATE_NODES)
def do_to_change(change_id: int, deed: str) -> Response:
    """Approve, pause, go on, abort, take back."""
    if deed not in _DEEDS:
        raise NotFound("There is nothing at this address.")
    _DEEDS[deed](current_session(), change_id, now=clock.now())
    return redirect(url_for("web.change", change_id=change_id), code=303)


@web.get("/fleet/drift")
@needs(Right.SEE_FLEET)
def drift() -> str:
    """Nodes that do not run what is wanted of them."""
    session, reason = current_session(), request.args.get("reason") or None
    if reason is not None and reason not in drifting.REASONS:
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="reason", allowed=", ".join(drifting.REASONS)
        )
    given = {
        name: request.args.get(name) or None for name in ("model", "site_kind", "tag", "group")
    }
    selection = Selection(**given)  # type: ignore[arg-type] # texts or nothing
    page = drifting.drift_page(session, selection, reason=reason, limit=_NODES, after=_after())
    return render_template(
        "drift.html",
        nodes=page.items,
        counts=drifting.drift_counts(session, selection),
        following=_following(page),
        reason=reason,
        given={name: value for name, value in given.items() if value},
        models=catalogue.node_model_ids(),
        site_kinds=SITE_KINDS,
        groups=grouping.groups(session),
    )


def _page(*, fault: str = "") -> str:
    session = current_session()
    before = request.args.get("before", type=int)
    found = changing.changes(session, before_id=before, limit=_CHANGES + 1)
    return render_template(
        "configuration.html",
        layers=layering.layers(session),
        changes=found[:_CHANGES],
        before=found[_CHANGES - 1].change.id if len(found) > _CHANGES else None,
        groups=grouping.groups(session),
        models=catalogue.node_model_ids(),
        names=table.NAMES,
        drifting=sum(drifting.drift_counts(session).values()),
        fault=fault,
        chosen=request.values.get("layer", ""),
        typed=request.form.get("settings", ""),
    )


def _layer() -> Layer:
    """`fleet`, `model tree-3` or `group 7`."""
    kind, _, key = request.form.get("layer", "").partition(" ")
    if kind not in (LayerKind.FLEET, LayerKind.MODEL, LayerKind.GROUP):
        raise Invalid("Say whose settings: the fleet's, a node model's or a group's.")
    return layering.find_layer(current_session(), kind, key)


def _plan() -> Plan:
    if request.form.get("at_once"):
        return AT_ONCE
    canaries = _whole("canaries", 3, _MOST_CANARIES)
    hours = _whole("soak_hours", 1, _LONGEST_SOAK_H)
    return Plan(canaries=canaries, soak=timedelta(hours=hours))


def _whole(name: str, otherwise: int, highest: int) -> int:
    text = request.form.get(name, "") or str(otherwise)
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and int(text) <= highest):
        raise Invalid(
            "%(name)s wants a whole number up to %(highest)s.", name=name, highest=highest
        )
    return int(text)


def _after() -> keyset.Key | None:
    text = request.args.get("after", "")
    return from_cursor(text, sorting="") if text else None


def _following(page: keyset.Page[Any]) -> str | None:
    return None if page.next_key is None else as_cursor(page.next_key, sorting="")
