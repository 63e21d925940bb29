"""Pages of groups of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from sqlalchemy import or_, select
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid, NotFound
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.models import Node
from fleet_server.services import grouping, layering, node_settings, selecting
from fleet_server.services.rights import Right
from fleet_server.services.selecting import EVERYBODY, SITE_KINDS, Selection
from fleet_server.web.blueprint import web
from fleet_server.web.change_words import server_settings
from fleet_server.web.faults import in_words
from hardware import catalogue

_MEMBERS = 50


@web.get("/fleet/groups")
@needs(Right.SEE_FLEET)
def groups() -> str:
    """All groups, and the form for a new one."""
    return _page()


@web.post("/fleet/groups")
@needs(Right.OPERATE_NODES)
def add_group() -> Response | tuple[str, int]:
    """A new group."""
    try:
        made = grouping.create_group(
            current_session(), _text("name"), rule=_rule(), now=clock.now(), **_about()
        )
    except FleetError as problem:
        return _page(fault=in_words(problem)), 400
    return redirect(url_for("web.group", group_id=made.id), code=303)


@web.get("/fleet/groups/<row_id:group_id>")
@needs(Right.SEE_FLEET)
def group(group_id: int) -> str:
    """One group: its nodes, its rule, what it wants."""
    session, text = current_session(), request.args.get("after", "")
    after = from_cursor(text, sorting="") if text else None
    page = grouping.member_page(session, group_id, limit=_MEMBERS, after=after)
    layer = layering.find_layer(session, "group", str(group_id))
    return render_template(
        "group.html",
        group=grouping.group_overview(session, group_id),
        members=page.items,
        following=None if page.next_key is None else as_cursor(page.next_key, sorting=""),
        settings=node_settings.shown(layering.layer_settings(session, layer)),
        models=catalogue.node_model_ids(),
        site_kinds=SITE_KINDS,
    )


@web.post("/fleet/groups/<row_id:group_id>")
@needs(Right.OPERATE_NODES)
def change_group(group_id: int) -> Response:
    """Another name, description, priority or rule."""
    at_once = server_settings().approval_wanted_above
    grouping.change_group(
        current_session(),
        group_id,
        name=_text("name"),
        rule=_rule(),
        now=clock.now(),
        at_once=at_once,
        **_about(),
    )
    flash(gettext("The group was changed."))
    return redirect(url_for("web.group", group_id=group_id), code=303)


@web.post("/fleet/groups/<row_id:group_id>/delete")
@needs(Right.OPERATE_NODES)
def delete_group(group_id: int) -> Response:
    """Forget it."""
    grouping.delete_group(current_session(), group_id, now=clock.now())
    flash(gettext("The group is forgotten."))
    return redirect(url_for("web.groups"), code=303)


@web.post("/fleet/groups/<row_id:group_id>/join")
@needs(Right.OPERATE_NODES)
def join_group(group_id: int) -> Response:
    """Nodes by hand, by their names."""
    return _by_hand(grouping.add_members, group_id)


@web.post("/fleet/groups/<row_id:group_id>/leave")
@needs(Right.OPERATE_NODES)
def leave_group(group_id: int) -> Response:
    """Nodes that were put there by hand."""
    return _by_hand(grouping.remove_members, group_id)


@web.post("/fleet/nodes/<node_id:node_id>/tags")
@needs(Right.OPERATE_NODES)
def tag_node(node_id: str) -> Response:
    """Put a word on a node, or take it off."""
    do = grouping.untag_nodes if request.form.get("remove") else grouping.tag_nodes
    at_once = server_settings().approval_wanted_above
    meant = Selection(node_ids=(node_id,))
    do(current_session(), meant, _text("tag"), now=clock.now(), at_once=at_once)
    return redirect(url_for("web.node", node_id=node_id, _anchor="configuration"), code=303)


def _by_hand(do: Callable[..., int], group_id: int) -> Response:
    count = do(
        current_session(),
        group_id,
        Selection(node_ids=_named_nodes()),
        now=clock.now(),
        at_once=server_settings().approval_wanted_above,
    )
    flash(gettext("Nodes that joined or left: %(count)s", count=count))
    return redirect(url_for("web.group", group_id=group_id), code=303)


def _named_nodes() -> tuple[str, ...]:
    """Ids or labels, with commas or lines between them."""
    names = [name.strip() for name in _text("nodes").replace("\n", ",").split(",")]
    names = [name for name in names if name]
    if not names:
        raise Invalid("Name a node by its id or label.")
    rows = current_session().execute(
        select(Node.node_id, Node.label).where(or_(Node.node_id.in_(names), Node.label.in_(names)))
    )
    found = {key: row.node_id for row in rows for key in (row.label, row.node_id)}
    for name in names:
        if name not in found:
            raise NotFound("There is no node %(node_id)s.", node_id=name)
    return tuple(found[name] for name in names)


def _page(*, fault: str = "") -> str:
    return render_template(
        "groups.html",
        groups=grouping.groups(current_session()),
        models=catalogue.node_model_ids(),
        site_kinds=SITE_KINDS,
        fault=fault,
        given=request.form,
    )


def _rule() -> Selection:
    near = _text("near").strip()
    rule = Selection(
        model=_text("model") or None,
        site_kind=_text("site_kind") or None,
        tag=_text("tag").strip() or None,
        near=selecting.near_of(near) if near else None,
    )
    return EVERYBODY if rule.is_empty else rule


def _about() -> dict[str, Any]:
    priority = _text("priority").strip() or "0"
    if not (priority.lstrip("-").isdecimal() and priority.isascii() and len(priority) < 6):
        raise grouping.GroupWrong("A group's priority is a whole number.")
    return {"description": _text("description"), "priority": int(priority)}


def _text(name: str) -> str:
    return request.form.get(name, "").replace("\0", "")
