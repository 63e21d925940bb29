"""Work orders, on the phone as at the desk: the list, one order, what is done with it."""

from __future__ import annotations

from typing import Any

from flask import redirect, render_template, request, url_for
from flask_babel import gettext
from werkzeug.wrappers import Response

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.auth import current_person
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.http_shared.uploads import takes_file
from fleet_server.models import Role, User, WorkKind, WorkOrder, WorkState
from fleet_server.services import accounts, noting, working
from fleet_server.services import sites as planning
from fleet_server.services.noting import LARGEST_PHOTO_BYTES, About
from fleet_server.services.rights import Right
from fleet_server.services.working import UNFINISHED, WorkFilter, WorkWanted
from fleet_server.web import forms
from fleet_server.web.blueprint import web
from fleet_server.web.files import open_files

_PAGE_SIZE = 50
_NOTES = 50
_SORTING = "due"
_Answer = str | Response | tuple[str, int]


@web.get("/field/work")
@needs(Right.SEE_FLEET)
def work() -> str:
    """Orders that are not over, the overdue first; `?mine=1`, `?kind=` and `?over=1` narrow or turn the list."""
    kind = request.args.get("kind") or None
    if kind is not None and kind not in tuple(WorkKind):
        raise Invalid(
            "%(name)s wants one of %(allowed)s.", name="kind", allowed=", ".join(WorkKind)
        )
    is_mine, is_over = bool(request.args.get("mine")), bool(request.args.get("over"))
    wanted = WorkFilter(
        states=(WorkState.DONE, WorkState.CANCELLED) if is_over else UNFINISHED,
        kind=WorkKind(kind) if kind else None,
        mine=_person() if is_mine else None,
    )
    after = request.args.get("after")
    page = working.work_page(
        current_session(),
        wanted,
        limit=_PAGE_SIZE,
        after=from_cursor(after, sorting=_SORTING) if after else None,
    )
    query: dict[str, Any] = {
        "kind": kind,
        "mine": int(is_mine) or None,
        "over": int(is_over) or None,
    }
    following = as_cursor(page.next_key, sorting=_SORTING) if page.next_key else None
    return render_template(
        "work.html",
        lines=page.items,
        next=url_for("web.work", **query, after=following) if following else None,
        kinds=tuple(WorkKind),
        kind=kind,
        is_mine=is_mine,
        is_over=is_over,
        now=clock.now(),
    )


def _person() -> User:
    return accounts.find_account(current_session(), current_person().id)


@web.route("/field/work/new", methods=["GET", "POST"])
@needs(Right.PLAN_SITES)
def new_work() -> _Answer:
    """A form for an order at the node or site that the address names."""
    if request.method == "GET":
        return _form(request.args.to_dict(), "")
    order, fault = forms.tried(_order)
    if order is None:
        return _form(forms.typed(), fault), 400
    return redirect(url_for("web.work_order", order_id=order.id), code=303)


def _order() -> WorkOrder:
    kind, role = forms.text("kind"), forms.text("role")
    if kind not in tuple(WorkKind):
        raise Invalid(gettext("Choose what is to be done."))
    if role and role not in tuple(Role):
        raise Invalid("%(name)s wants one of %(allowed)s.", name="role", allowed=", ".join(Role))
    wanted = WorkWanted(
        kind=WorkKind(kind),
        due_at=forms.end_of_day("due"),
        node_id=forms.text("node") or None,
        site_id=forms.whole("site", gettext("Site")),
        summary=forms.text("summary"),
        assigned_to=forms.text("person") or None,
        assigned_role=Role(role) if role else None,
    )
    return working.order_work(current_session(), wanted, now=clock.now())


def _form(values: dict[str, str] | Any, fault: str) -> str:
    session = current_session()
    site_text = str(values.get("site", ""))
    site = None
    if site_text.isascii() and site_text.isdecimal() and len(site_text) < 10:
        site = planning.site_of(session, int(site_text))
    return render_template(
        "work_form.html",
        values=values,
        site=site,
        fault=fault,
        kinds=tuple(WorkKind),
        roles=tuple(Role),
    )


@web.get("/field/work/<row_id:order_id>")
@needs(Right.SEE_FLEET)
def work_order(order_id: int) -> str:
    """One order with its notes and photos."""
    return _order_page(order_id, "")


@web.post("/field/work/<row_id:order_id>/begin")
@needs(Right.MOUNT_NODES)
def begin_work(order_id: int) -> Response:
    """Somebody is at it."""
    working.begin_work(current_session(), order_id, now=clock.now())
    return redirect(url_for("web.work_order", order_id=order_id), code=303)


@web.post("/field/work/<row_id:order_id>/finish")
@needs(Right.MOUNT_NODES)
def finish_work(order_id: int) -> Response:
    """It is done."""
    working.finish_work(current_session(), order_id, now=clock.now())
    return redirect(url_for("web.work"), code=303)


@web.post("/field/work/<row_id:order_id>/cancel")
@needs(Right.PLAN_SITES)
def cancel_work(order_id: int) -> Response:
    """Nobody has to do it any more."""
    working.cancel_work(current_session(), order_id, now=clock.now())
    return redirect(url_for("web.work"), code=303)


@web.post("/field/work/<row_id:order_id>/note")
@needs(Right.SEE_FLEET)
@takes_file(LARGEST_PHOTO_BYTES)
def note_on_work(order_id: int) -> _Answer:
    """Words, a photo or both about an order."""
    note, fault = forms.tried(lambda: write_note(About(work_order_id=order_id)))
    if note is None:
        return _order_page(order_id, fault), 400
    return redirect(url_for("web.work_order", order_id=order_id, _anchor="notes"), code=303)


def write_note(about: About) -> object:
    """Keep what the form for notes sent."""
    return noting.write_note(
        current_session(),
        about,
        text=forms.text("text"),
        photo=forms.upload("photo", most_bytes=LARGEST_PHOTO_BYTES),
        store=open_files,
        now=clock.now(),
    )


def _order_page(order_id: int, fault: str) -> str:
    session = current_session()
    line = working.order_of(session, order_id)
    return render_template(
        "work_order.html",
        line=line,
        notes=noting.notes_of(session, About(work_order_id=order_id), newest=_NOTES),
        now=clock.now(),
        fault=fault,
    )
