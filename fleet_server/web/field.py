"""Pages for one hand and a small screen: find the node one stands before, see that it is heard, say what was done to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import NotFound
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.uploads import takes_file
from fleet_server.models import Node, Site
from fleet_server.services import (
    deploying,
    finding,
    noting,
    overviews,
    site_list,
    site_view,
    working,
)
from fleet_server.services.noting import LARGEST_PHOTO_BYTES, About
from fleet_server.services.rights import Right
from fleet_server.services.sites import SiteState
from fleet_server.services.working import WorkFilter
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.work import write_note
from hardware import catalogue

_NOTES, _ORDERS, _SITES, _NODES = 10, 20, 20, 20
_LOOKS_AGAIN_S = 10
_Answer = str | Response | tuple[str, int]


@dataclass(frozen=True)
class Mounted:
    """Where a node stands, and the probe in each slot."""

    site: Site
    since: datetime
    serials: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """Where the node was registered for, and with which probe in each slot."""

    site: Site | None
    serials: Mapping[str, str]


@web.get("/field/")
@needs(Right.SEE_FLEET)
def field() -> str | Response:
    """Find a node by its label, its id, a probe's serial number or what the sticker's code says; the only one is shown at once."""
    wanted = request.args.get("q", "").strip()
    found = finding.find_nodes(current_session(), wanted)
    if len(found) == 1:
        return redirect(url_for("web.field_node", node_id=found[0].node_id))
    return render_template("field.html", wanted=wanted, found=found)


@web.get("/field/nodes/<node_id:node_id>")
@needs(Right.SEE_FLEET)
def field_node(node_id: str) -> str:
    """Is it heard now? Its values, its orders, and what one can do here. `?watch=1` looks again by itself."""
    return _node_page(node_id, "")


@web.post("/field/nodes/<node_id:node_id>/note")
@needs(Right.SEE_FLEET)
@takes_file(LARGEST_PHOTO_BYTES)
def note_on_node(node_id: str) -> _Answer:
    """Words, a photo or both."""
    note, fault = forms.tried(lambda: write_note(About(node_id=node_id)))
    if note is None:
        return _node_page(node_id, fault), 400
    return redirect(url_for("web.field_node", node_id=node_id, _anchor="notes"), code=303)


@web.route("/field/nodes/<node_id:node_id>/mount", methods=["GET", "POST"])
@needs(Right.MOUNT_NODES)
def mount(node_id: str) -> _Answer:
    """Put the node at a site: which one, since when, with which probes at which depths."""
    return _form_for(node_id, "field_mount.html", _mount, gettext("The node stands here now."))


@web.route("/field/nodes/<node_id:node_id>/take-down", methods=["GET", "POST"])
@needs(Right.MOUNT_NODES)
def take_down(node_id: str) -> _Answer:
    """The node leaves its site."""
    return _form_for(node_id, "field_take_down.html", _take_down, gettext("The node is free."))


@web.route("/field/nodes/<node_id:node_id>/swap", methods=["GET", "POST"])
@needs(Right.MOUNT_NODES)
def swap(node_id: str) -> _Answer:
    """Another probe is in a slot."""
    return _form_for(node_id, "field_swap.html", _swap, gettext("The probe is swapped."))


@web.route("/field/nodes/<node_id:node_id>/replace", methods=["GET", "POST"])
@needs(Right.MOUNT_NODES)
def replace(node_id: str) -> _Answer:
    """Another node takes this one's place."""
    return _form_for(node_id, "field_replace.html", _replace, gettext("The node is replaced."))


def _form_for(
    node_id: str, template: str, do: Callable[[Session, str], str], sentence: str
) -> _Answer:
    """Show a form, or do what it says and go to the page of the node that `do` names."""
    fault, status = "", 200
    if request.method == "POST":
        shown, fault = forms.tried(lambda: do(current_session(), node_id))
        if shown is not None:
            flash(sentence)
            return redirect(url_for("web.field_node", node_id=shown), code=303)
        status = 400
    session = current_session()
    node = overviews.node_overview(session, node_id, now=clock.now())
    model = catalogue.load_node_model(node.model)
    plan = _plan(session, node_id)
    page = render_template(
        template,
        plan=plan,
        node=node,
        model=model,
        mounted=_mounted(session, node_id),
        sites=_sites_for(session, model, plan) if template == "field_mount.html" else (),
        wanted=request.args.get("site", ""),
        values=forms.typed(),
        fault=fault,
    )
    return page, status


def _mount(session: Session, node_id: str) -> str:
    site_code = forms.text("site_code")
    if not site_code:
        raise NotFound(gettext("Choose the site."))
    model = _model(session, node_id)
    serials = {slot.id: forms.text(f"serial_{slot.id}") for slot in model.slots}
    depths = {
        slot.id: forms.whole(f"depth_{slot.id}", gettext("Depth of %(slot)s", slot=slot.id))
        for slot in model.slots
    }
    now = clock.now()
    deploying.deploy_node(
        session,
        node_id,
        site_code=site_code,
        from_at=forms.moment("at", now=now),
        now=now,
        serials={slot: serial for slot, serial in serials.items() if serial},
        depths_cm={slot: depth for slot, depth in depths.items() if depth is not None},
    )
    return node_id


def _take_down(session: Session, node_id: str) -> str:
    now = clock.now()
    deploying.end_deployment(session, node_id, to_at=forms.moment("at", now=now), now=now)
    return node_id


def _swap(session: Session, node_id: str) -> str:
    now = clock.now()
    deploying.swap_sensor(
        session,
        node_id,
        forms.text("slot"),
        serial=forms.text("serial"),
        at=forms.moment("at", now=now),
        now=now,
    )
    return node_id


def _replace(session: Session, node_id: str) -> str:
    found = finding.find_nodes(session, forms.text("by"))
    if len(found) != 1:
        raise NotFound(gettext("Name the new node by its id or its whole label."))
    now = clock.now()
    deploying.replace_node(
        session,
        node_id,
        found[0].node_id,
        at=forms.moment("at", now=now),
        now=now,
        keeps_probes=not forms.text("new_probes"),
    )
    return found[0].node_id


def _model(session: Session, node_id: str) -> catalogue.NodeModel:
    node = overviews.node_overview(session, node_id, now=clock.now())
    return catalogue.load_node_model(node.model)


def _plan(session: Session, node_id: str) -> Plan:
    node = session.get_one(Node, node_id)
    site = session.get(Site, node.planned_site_id) if node.planned_site_id is not None else None
    return Plan(site, node.planned_serials or {})


def _sites_for(session: Session, model: catalogue.NodeModel, plan: Plan) -> list[Site]:
    """Open sites of the model's kind; the planned one and those without a node unless somebody looks for one."""
    text = request.args.get("site", "").replace("\0", "")
    state = SiteState.OPEN if text else SiteState.BARE
    page = site_list.site_page(session, limit=_SITES, kind=model.site_kind, text=text, state=state)
    planned = [] if text or plan.site is None else [plan.site]
    return planned + [site for site in page.items if site not in planned]


def _mounted(session: Session, node_id: str) -> Mounted | None:
    standing = site_view.standing_of(session, node_id)
    if standing is None:
        return None
    site, since, serials = standing
    return Mounted(site, since, serials)


def _node_page(node_id: str, fault: str) -> str:
    session, now = current_session(), clock.now()
    node = overviews.node_overview(session, node_id, now=now)
    mounted = _mounted(session, node_id)
    values = overviews.describe_sites(session, [mounted.site])[0] if mounted else None
    heard_s_ago = (
        max(0, int((now - node.last_heard_at).total_seconds())) if node.last_heard_at else None
    )
    return render_template(
        "field_node.html",
        node=node,
        mounted=mounted,
        readings=values.readings if values else (),
        housekeeping=overviews.HOUSEKEEPING,
        heard_s_ago=heard_s_ago,
        is_watching=bool(request.args.get("watch")),
        looks_again_s=_LOOKS_AGAIN_S,
        orders=working.work_lines(session, WorkFilter(node_id=node_id), limit=_ORDERS),
        notes=noting.notes_of(session, About(node_id=node_id), newest=_NOTES),
        now=now,
        fault=fault,
    )
