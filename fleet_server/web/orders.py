"""Pages of commands: one node's form, commands to many with a rehearsal, all of them with their answers; and a node's own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.services import commanding, configuring, grouping, ordering
from fleet_server.services.commanding import CommandState
from fleet_server.services.rights import Right
from fleet_server.services.selecting import SITE_KINDS, Selection
from fleet_server.services.typed_values import pairs_of_lines, settings_of_lines
from fleet_server.web.blueprint import web
from fleet_server.web.change_words import server_settings
from fleet_server.web.faults import in_words
from fleet_server.wire.commands import CommandName
from fleet_server.wire.topics import is_node_id
from hardware import catalogue

_COMMANDS = 50
_CHOSEN_BY = ("model", "site_kind", "tag", "group")
NEEDS_YES = (CommandName.FACTORY_RESET, CommandName.REBOOT)
"""What a person confirms on the node's page."""


@dataclass(frozen=True)
class NodeGroups:
    """What the node's page shows beside its configuration."""

    groups: tuple[Any, ...]
    tags: tuple[str, ...]


@web.app_template_global()
def groups_and_tags(node_id: str) -> NodeGroups:
    """For the node's page, whose view has checked that the node is in scope."""
    session = current_session()
    return NodeGroups(
        tuple(grouping.groups_of(session, node_id)), tuple(grouping.tags_of(session, node_id))
    )


@web.app_template_global()
def command_names() -> tuple[str, ...]:
    return tuple(CommandName)


@web.post("/fleet/nodes/<node_id:node_id>/configuration")
@needs(Right.OPERATE_NODES)
def configure_node(node_id: str) -> Response:
    """Want settings of one node."""
    configuring.configure_node(
        current_session(),
        node_id,
        settings_of_lines(request.form.get("settings", "").replace("\0", "")),
        now=clock.now(),
        secret_key=server_settings().session_key,
    )
    flash(gettext("The node hears of it when it connects."))
    return redirect(url_for("web.node", node_id=node_id, _anchor="configuration"), code=303)


@web.post("/fleet/nodes/<node_id:node_id>/commands")
@needs(Right.OPERATE_NODES)
def order_command(node_id: str) -> Response:
    """Tell one node to do something once."""
    name = request.form.get("name", "")
    arguments = pairs_of_lines(request.form.get("arguments", "").replace("\0", ""))
    if name in NEEDS_YES and not request.form.get("yes"):
        raise Invalid("Confirm %(name)s: it interrupts the node.", name=name)
    if name == CommandName.FACTORY_RESET:
        arguments["confirm"] = node_id
    commanding.order_command(current_session(), node_id, name, arguments, now=clock.now())
    flash(gettext("The node hears of it when it connects."))
    return redirect(url_for("web.node", node_id=node_id, _anchor="commands"), code=303)


@web.get("/fleet/commands")
@needs(Right.SEE_FLEET)
def commands() -> str:
    """Commands to all nodes with their answers."""
    return _page()


@web.post("/fleet/commands/preview")
@needs(Right.OPERATE_NODES)
def preview_order() -> str | tuple[str, int]:
    """For how many it would be ordered; nothing is."""
    try:
        name, arguments, selection = _typed()
        report = ordering.preview_order(
            current_session(), selection, name, arguments, now=clock.now()
        )
    except FleetError as problem:
        return _page(fault=in_words(problem)), 400
    return _page(preview=report)


@web.post("/fleet/commands")
@needs(Right.OPERATE_NODES)
def order_for_many() -> Response | tuple[str, int]:
    """Order it."""
    try:
        name, arguments, selection = _typed()
        # Without the number that the preview said, nothing is told: the nodes may be others by now.
        confirmed = request.form.get("confirmed_nodes", default=-1, type=int)
        report = ordering.order_for_many(
            current_session(),
            selection,
            name,
            arguments,
            now=clock.now(),
            confirmed_nodes=confirmed,
        )
    except FleetError as problem:
        return _page(fault=in_words(problem)), 400
    told = report.counts[ordering.OrderOutcome.TOLD]
    flash(gettext("Nodes that are told: %(count)s", count=told))
    return redirect(url_for("web.commands", batch=report.batch), code=303)


@web.post("/fleet/commands/<row_id:command_id>/cancel")
@needs(Right.OPERATE_NODES)
def cancel_command(command_id: int) -> Response:
    """Take a pending command back."""
    commanding.cancel_command(current_session(), command_id, now=clock.now())
    flash(
        gettext(
            "It is told no more. A node that has heard of it may have begun it; then it answers."
        )
    )
    node_id = request.form.get("node_id", "")
    if is_node_id(node_id):
        return redirect(url_for("web.node", node_id=node_id, _anchor="commands"), code=303)
    return redirect(url_for("web.commands"), code=303)


def _typed() -> tuple[str, dict[str, Any], Selection]:
    given = {name: request.form.get(name) or None for name in _CHOSEN_BY}
    selection = Selection(**given)  # type: ignore[arg-type] # texts or nothing
    if selection.is_empty and not request.form.get("all"):
        raise Invalid("Say which nodes, or tick that you mean all.")
    arguments = pairs_of_lines(request.form.get("arguments", "").replace("\0", ""))
    return request.form.get("name", ""), arguments, selection


def _page(*, preview: ordering.OrderReport | None = None, fault: str = "") -> str:
    session, text = current_session(), request.args.get("after", "")
    names = ("state", "name", "node_id", "batch", "result")
    given = {name: request.args.get(name) or None for name in names}
    if given["state"] not in (None, *CommandState):
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="state", allowed=", ".join(CommandState)
        )
    page = ordering.command_page(
        session,
        ordering.CommandFilter(**given),
        now=clock.now(),
        limit=_COMMANDS,
        after=from_cursor(text, sorting="") if text else None,
    )
    return render_template(
        "commands.html",
        commands=page.items,
        following=None if page.next_key is None else as_cursor(page.next_key, sorting=""),
        given={name: value for name, value in given.items() if value},
        states=tuple(CommandState),
        groups=grouping.groups(session),
        models=catalogue.node_model_ids(),
        site_kinds=SITE_KINDS,
        preview=preview,
        previewed=[name for name in ("name", *_CHOSEN_BY, "all") if request.form.get(name)],
        need_confirmation=ordering.NEED_CONFIRMATION,
        typed=request.form,
        fault=fault,
    )
