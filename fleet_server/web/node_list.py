"""The operator's list of nodes: filters in the address, page by page, views to keep, and the same done to many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from flask import flash, redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid, NotFound
from fleet_server.http_shared.access import has_to_do_with_all, may, needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor, with_query
from fleet_server.services import (
    changing,
    commanding,
    configuring,
    fleet_totals,
    many_at_once,
    node_list,
    saved_views,
)
from fleet_server.services.many_at_once import Outcome
from fleet_server.services.node_list import NodeFilter
from fleet_server.services.rights import Right
from fleet_server.web import words
from fleet_server.web.blueprint import web
from fleet_server.web.change_words import server_settings
from fleet_server.web.faults import in_words
from fleet_server.web.forms import CITY
from fleet_server.wire.commands import CommandName
from fleet_server.wire.configuration import PUBLISH_S, SAMPLE_S
from fleet_server.wire.states import NodeState
from fleet_server.wire.topics import is_node_id
from hardware import catalogue

PAGE_SIZE = 50
COMMANDS = (
    CommandName.IDENTIFY,
    CommandName.READ_NOW,
    CommandName.SELF_TEST,
    CommandName.REBOOT,
)
"""Those that want nothing more than their name."""
SETTINGS = (PUBLISH_S, SAMPLE_S)
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "health": fleet_totals.HEALTH_WORDS,
    "state": tuple(NodeState),
    "sort": tuple(node_list.SORTINGS),
}
_TEXTS = ("model", "site", "group", "tag", "label", "firmware_version")
_NUMBERS = ("battery_below_mv",)
_MOMENTS = ("heard_before",)
_FILTERS = (*_TEXTS, *_NUMBERS, *_MOMENTS, "health", "state")
_MOST_DIGITS = 6
_SHOWN_OF_STRANGE = 20


@web.get("/fleet/")
@needs(Right.SEE_FLEET)
def nodes() -> str:
    """Nodes that the address's filters let through, and how many there are of each health."""
    session, now = current_session(), clock.now()
    given = _given(request.args)
    sort = given.get("sort", "label")
    after = request.args.get("after")
    page = node_list.node_page(
        session,
        _filter(given),
        now=now,
        sort=sort,
        limit=PAGE_SIZE,
        after=None if after is None else from_cursor(after, sorting=sort),
    )
    counts, sees_all = fleet_totals.health_counts(session, now=now), has_to_do_with_all()
    return render_template(
        "nodes.html",
        nodes=page.items,
        following=None if page.next_key is None else as_cursor(page.next_key, sorting=sort),
        is_first=after is None,
        given=given,
        heard_before=_as_field(given.get("heard_before")),
        filters={name: value for name, value in given.items() if name != "sort"},
        counts=counts,
        all_nodes=sum(counts.values()),
        # Of the whole fleet; who has to do with trees or waters alone would take them for theirs.
        quarantined=fleet_totals.quarantine_size(session) if sees_all else None,
        packs=fleet_totals.pack_totals(session) if sees_all else None,
        views=saved_views.views(session),
        models=catalogue.node_model_ids(),
        choices=_CHOICES,
        may_operate=may(Right.OPERATE_NODES),
        commands=COMMANDS,
        settings=SETTINGS,
        most_at_once=many_at_once.MOST_AT_ONCE,
    )


@web.post("/fleet/views")
@needs(Right.SEE_FLEET)
def save_view() -> Response:
    """Keep the filters that are on."""
    given = _given(dict(parse_qsl(request.form.get("query", ""))))
    _filter(given)  # what the list would refuse is not kept
    view = saved_views.save_view(
        current_session(),
        request.form.get("name", ""),
        given,
        is_shared="is_shared" in request.form,
        now=clock.now(),
    )
    flash(gettext("The view %(name)s is kept.", name=view.name))
    return redirect(with_query(url_for("web.nodes"), given), code=303)


@web.post("/fleet/views/<row_id:view_id>/forget")
@needs(Right.SEE_FLEET)
def forget_view(view_id: int) -> Response:
    """Take a view away."""
    saved_views.forget_view(current_session(), view_id, now=clock.now())
    return redirect(url_for("web.nodes"), code=303)


@web.post("/fleet/many")
@needs(Right.OPERATE_NODES)
def many_nodes() -> str | Response:
    """The same to many nodes: a rehearsal says what would become of each; confirmed, exactly that is done, or nothing."""
    form = request.form
    node_ids = _chosen(form.getlist("node_id"), form.get("query", ""), form.get("which", ""))
    action, value = form.get("action", ""), form.get("value", "")
    wanted = _Wanted(
        action, value, node_ids, _deed(action, value), _why_not_alone(action, node_ids)
    )
    if wanted.why_not or form.get("confirmed") != "yes":
        return _rehearse(wanted)
    try:
        results = many_at_once.do_to_each(
            current_session(),
            node_ids,
            wanted.deed,
            is_rehearsal=False,
            wish=[action, value],
            rehearsed=[form.get("rehearsed", "")],
        )
    except many_at_once.RehearsalOutdated:
        return _rehearse(wanted, is_outdated=True)
    done = _tally(results)[Outcome.DONE]
    flash(gettext("%(what)s: done to %(count)s nodes.", what=action, count=words.whole(done)))
    return redirect(url_for("web.nodes"), code=303)  # a page that is loaded again does nothing


@dataclass(frozen=True)
class _Wanted:
    """`why_not`: why one person alone may not do it to so many; empty when they may."""

    action: str
    value: str
    node_ids: list[str]
    deed: Callable[[str], bool]
    why_not: str


def _rehearse(wanted: _Wanted, *, is_outdated: bool = False) -> str:
    session = current_session()
    results = many_at_once.do_to_each(session, wanted.node_ids, wanted.deed, is_rehearsal=True)
    return render_template(
        "many_nodes.html",
        wanted=wanted,
        is_outdated=is_outdated,
        results=results,
        tag=many_at_once.tag_of(results, [wanted.action, wanted.value]),
        tally=_tally(results),
        labels=node_list.labels(session, wanted.node_ids),
    )


def _tally(results: Sequence[many_at_once.Result]) -> dict[Outcome, int]:
    return {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}


def _why_not_alone(action: str, node_ids: list[str]) -> str:
    if action not in SETTINGS:
        return ""
    try:
        above = server_settings().approval_wanted_above
        changing.check_without_approval(len(node_ids), approval_above=above)
    except changing.ApprovalWanted as problem:
        return in_words(problem)
    return ""


def _chosen(ticked: list[str], query: str, which: str) -> list[str]:
    if which == "found":
        found = _filter(_given(dict(parse_qsl(query))))
        most = many_at_once.MOST_AT_ONCE
        node_ids = node_list.node_ids(current_session(), found, now=clock.now(), limit=most + 1)
        if len(node_ids) > most:
            raise Invalid(
                "The filter finds more than %(most)s nodes, and at most %(most)s are done at once; narrow "
                "it, or go by a group or model: settings under Configuration, commands under Commands.",
                most=most,
            )
    else:
        node_ids = list(dict.fromkeys(ticked))
        stranger = next((one for one in node_ids if not is_node_id(one)), None)
        if stranger is not None:
            raise NotFound("There is no node %(node_id)s.", node_id=stranger[:_SHOWN_OF_STRANGE])
    if len(node_ids) > many_at_once.MOST_AT_ONCE:
        raise Invalid("At most %(most)s nodes at once.", most=many_at_once.MOST_AT_ONCE)
    if not node_ids:
        raise Invalid("No node is chosen; tick some, or choose all that the filter finds.")
    return node_ids


def _deed(action: str, value: str) -> Callable[[str], bool]:
    """What is done to each; True when that changed something."""
    session, now = current_session(), clock.now()
    if action in COMMANDS:
        return lambda node_id: commanding.order_command(session, node_id, action, {}, now=now) > 0
    if action not in SETTINGS:
        raise Invalid(
            "%(name)s wants one of %(allowed)s.",
            name="action",
            allowed=", ".join((*COMMANDS, *SETTINGS)),
        )
    wanted = {action: _number("value", value)}

    def configure(node_id: str) -> bool:
        before = configuring.configuration_of(session, node_id).version
        return configuring.configure_node(session, node_id, wanted, now=now) != before

    return configure


def _given(arguments: Mapping[str, str]) -> dict[str, str]:
    """The filters that are on, by name."""
    known = (*_FILTERS, "sort", "after")
    for name, value in arguments.items():
        if name not in known:
            raise Invalid(
                "%(name)s is no filter of nodes; known are %(filters)s.",
                name=name,
                filters=", ".join(_FILTERS),
            )
        if value and name in _CHOICES and value not in _CHOICES[name]:
            raise Invalid(
                "%(name)s wants one of %(allowed)s.", name=name, allowed=", ".join(_CHOICES[name])
            )
        if "\0" in value:
            raise Invalid("%(name)s has a NUL.", name=name)
    return {name: value for name, value in arguments.items() if value and name != "after"}


def _filter(given: Mapping[str, str]) -> NodeFilter:
    values: dict[str, Any] = {name: given[name] for name in _FILTERS if name in given}
    found = NodeFilter(**{name: values[name] for name in values if name not in _MOMENTS + _NUMBERS})
    if "battery_below_mv" in values:
        found = replace(
            found, battery_below_mv=_number("battery_below_mv", values["battery_below_mv"])
        )
    if "heard_before" in values:
        found = replace(found, heard_before=_moment("heard_before", values["heard_before"]))
    return found


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise Invalid(
            "%(name)s wants a whole number of at most %(most)s digits.",
            name=name,
            most=_MOST_DIGITS,
        )
    return int(text)


def _moment(name: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid("%(name)s wants a time like 2026-07-14T12:00:00Z.", name=name) from error
    # As a browser's own field gives it: by the city's clock.
    return moment if moment.tzinfo else moment.replace(tzinfo=CITY)


def _as_field(text: str | None) -> str:
    """A moment as a browser's field for date and time wants it, by the city's clock."""
    if text is None:
        return ""
    return f"{_moment('heard_before', text).astimezone(CITY):%Y-%m-%dT%H:%M}"
