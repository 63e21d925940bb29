"""Campaigns as pages: the list, the editor with its preview, and one campaign watched live."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from flask import (
    Response,
    flash,
    redirect,
    render_template,
    request,
    url_for,
)
from flask_babel import gettext
from werkzeug.wrappers import Response as Redirection

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid, NotFound
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.models import Campaign, CampaignState, NodeStage
from fleet_server.services import campaigning, fleet_totals, releases
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import CampaignOverview, Plan, Preview, Terms
from fleet_server.services.keyset import Page
from fleet_server.services.releases import ReleaseFilter
from fleet_server.services.rights import Right
from fleet_server.web import forms, live
from fleet_server.web.blueprint import web
from fleet_server.web.campaign_words import REASONED, update_reason
from fleet_server.web.faults import in_words
from fleet_server.web.forms import CITY

_CAMPAIGNS, _NODES, _RELEASES = 20, 50, 100
_TEXTS = ("label", "group", "tag", "site", "firmware_version", "health")
_CSV = (
    "node_id",
    "label",
    "wave",
    "stage",
    "attempt",
    "reason",
    "since",
    "deadline_at",
    "last_heard_at",
)
_CSV_AT_ONCE = 1000
_DEEDS: dict[str, Callable[..., Campaign]] = {
    "pause": campaigning.pause_campaign,
    "resume": campaigning.resume_campaign,
    "retry": partial(campaigning.resume_campaign, tries_again=True),
    "abort": campaigning.abort_campaign,
}


@web.get("/fleet/campaigns")
@needs(Right.SEE_FLEET)
def campaigns() -> str:
    """All campaigns, newest first."""
    page = campaigning.campaign_page(current_session(), limit=_CAMPAIGNS, after=_after())
    return render_template("campaigns.html", campaigns=page.items, following=_following(page))


@web.get("/fleet/campaigns/new")
@needs(Right.AUTHOR_RELEASES)
def new_campaign() -> str:
    """The editor; `release` chooses one."""
    return _editor(request.args)


@web.post("/fleet/campaigns/preview")
@needs(Right.AUTHOR_RELEASES)
def preview_campaign() -> str | tuple[str, int]:
    """What it would be; nothing changes."""
    session = current_session()

    def look() -> Preview:
        release_id, target, plan, terms = _wish()
        return campaigning.preview(
            session, release_id, target, now=clock.now(), plan=plan, terms=terms
        )

    found, fault = forms.tried(look)
    if found is None:
        return _editor(forms.typed(), fault=fault), 400
    return render_template("campaign_preview.html", found=found, typed=_to_carry())


@web.post("/fleet/campaigns")
@needs(Right.AUTHOR_RELEASES)
def create_campaign() -> Redirection | tuple[str, int]:
    """Plan it."""
    session = current_session()
    try:
        release_id, target, plan, terms = _wish()
        made = campaigning.create_campaign(
            session, release_id, target, now=clock.now(), plan=plan, terms=terms
        )
    except FleetError as problem:
        return _editor(forms.typed(), fault=in_words(problem)), 400
    flash(gettext("It is planned. Hand it in, and somebody else can approve it."))
    return redirect(url_for("web.campaign", campaign_id=made.id), code=303)


@web.get("/fleet/campaigns/<row_id:campaign_id>")
@needs(Right.SEE_FLEET)
def campaign(campaign_id: int) -> str:
    """One campaign, its waves and its nodes; `stage` narrows these."""
    session = current_session()
    stage = request.args.get("stage") or None
    if stage is not None and stage not in tuple(NodeStage):
        raise Invalid("stage wants one of %(stages)s.", stages=", ".join(NodeStage))
    found = campaigning.overview(session, campaign_id)
    page = campaigning.node_page(session, campaign_id, stage=stage, limit=_NODES, after=_after())
    return render_template(
        "campaign.html",
        found=found,
        nodes=page.items,
        following=_following(page),
        stage=stage,
        stages=tuple(NodeStage),
        is_live=_is_live(found),
        looks_again_s=live.LOOKS_AGAIN_S,
    )


@web.get("/fleet/campaigns/<row_id:campaign_id>/nodes.csv")
@needs(Right.SEE_FLEET)
def campaign_nodes_csv(campaign_id: int) -> Response:
    """All its nodes as a table, by wave: names as in the API, times in UTC."""
    session = current_session()
    found = campaigning.overview(session, campaign_id).campaign
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow((*_CSV, "reason_text"))
    after: Any = None
    while True:
        page = campaigning.node_page(session, campaign_id, limit=_CSV_AT_ONCE, after=after)
        for one in page.items:
            row = [_cell(getattr(one, name)) for name in _CSV]
            table.writerow((*row, _cell(update_reason(one.reason))))
        after = page.next_key
        if after is None:
            break
    name = f"campaign-{found.id}-{found.model}-{found.version}.csv"
    return Response(
        text.getvalue(),
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    text = "" if value is None else str(value)
    # A spreadsheet would reckon what begins like this; labels and reasons are other people's words.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


@web.get("/fleet/campaigns/<row_id:campaign_id>/live")
@needs(Right.SEE_FLEET)
def watch_campaign(campaign_id: int) -> Response:
    """Server-sent events: how it stands as a piece of its page, whenever that has changed; then the stream ends."""
    campaigning.overview(current_session(), campaign_id)  # it is there, and the actor's to see

    def look() -> tuple[str, bool]:
        found = campaigning.overview(current_session(), campaign_id)
        return render_template("campaign_live.html", found=found), _is_live(found)

    return live.watched(look)


@web.post("/fleet/campaigns/<row_id:campaign_id>/approve")
@needs(Right.APPROVE_RELEASES)
def approve_campaign(campaign_id: int) -> Redirection:
    """Let it begin."""
    campaigning.approve_campaign(current_session(), campaign_id, now=clock.now())
    return redirect(url_for("web.campaign", campaign_id=campaign_id), code=303)


@web.post("/fleet/campaigns/<row_id:campaign_id>/start")
@needs(Right.AUTHOR_RELEASES)
def start_campaign(campaign_id: int) -> Redirection:
    """Hand in, or begin at once."""
    campaigning.start_campaign(current_session(), campaign_id, now=clock.now())
    return redirect(url_for("web.campaign", campaign_id=campaign_id), code=303)


@web.post("/fleet/campaigns/<row_id:campaign_id>/<deed>")
@needs(Right.STOP_UPDATES)
def do_to_campaign(campaign_id: int, deed: str) -> Redirection:
    """Pause, go on, try again, abort. Who may let it go on is the service's to say."""
    if deed not in _DEEDS:
        raise NotFound("There is nothing at this address.")
    reason = {"reason": forms.text("reason")} if deed in REASONED else {}
    _DEEDS[deed](current_session(), campaign_id, now=clock.now(), **reason)
    return redirect(url_for("web.campaign", campaign_id=campaign_id), code=303)


@web.post("/fleet/campaigns/<row_id:campaign_id>/nodes/<node_id:node_id>/retry")
@needs(Right.OPERATE_NODES)
def retry_campaign_node(campaign_id: int, node_id: str) -> Redirection:
    """A node that failed is offered it once more; back to the node."""
    campaigning.retry_node(current_session(), campaign_id, node_id, now=clock.now())
    flash(gettext("It is told once more."))
    return redirect(url_for("web.node", node_id=node_id, _anchor="updates"), code=303)


def _is_live(found: CampaignOverview) -> bool:
    ended = (CampaignState.COMPLETED, CampaignState.ABORTED, CampaignState.EXPIRED)
    return found.campaign.state not in ended or not found.total.is_over


def _editor(given: Mapping[str, str], *, fault: str = "") -> str:
    session = current_session()
    page = releases.release_page(session, ReleaseFilter(is_withdrawn=False), limit=_RELEASES)
    return render_template(
        "campaign_form.html",
        releases=[line.release for line in page.items],
        given=given,
        fault=fault,
        healths=fleet_totals.HEALTH_WORDS,
    )


def _to_carry() -> list[tuple[str, str]]:
    """The form again, for whoever confirms it."""
    return [(name, value) for name, value in forms.typed().items() if name != "csrf_token"]


def _wish() -> tuple[int, Target, Plan, Terms]:
    release_id = forms.whole("release", gettext("Release"))
    if release_id is None or release_id < 1:
        raise Invalid(gettext("Say which release the nodes shall run."))
    texts: dict[str, Any] = {name: forms.text(name)[:64] or None for name in _TEXTS}
    node_ids = tuple(filter(None, re.split(r"[\s,]+", forms.text("nodes")))) or None
    if texts["health"] not in (None, *fleet_totals.HEALTH_WORDS):
        raise Invalid("health wants one of %(words)s.", words=", ".join(fleet_totals.HEALTH_WORDS))
    target = Target(
        **texts,
        battery_below_mv=forms.whole("battery_below_mv", gettext("Battery below")),
        node_ids=node_ids,
    )
    usual = Plan()
    plan = Plan(
        canaries=_whole("canaries", usual.canaries),
        shares=campaigning.read_shares(forms.text("shares") or "5,25,50,100"),
        soak=timedelta(hours=_number("soak_hours", 24)),
        gate_share=_number("gate_pct", 95) / 100,
        pause_share=_number("pause_pct", 5) / 100,
        minimum_reached=_whole("minimum_reached", usual.minimum_reached),
    )
    kilobytes_per_s = forms.number("kilobytes_per_s", gettext("Bandwidth"))
    terms = Terms(
        is_dynamic=bool(forms.text("is_dynamic")),
        starts_at=_moment("starts_at"),
        ends_at=_moment("ends_at"),
        hours=campaigning.read_hours(forms.text("hours")),
        bytes_per_s=None if not kilobytes_per_s else int(min(kilobytes_per_s, 1e6) * 1000),
        jitter_s=60 * _whole("jitter_min", 0),
        at_once=_whole("at_once", 500),
    )
    return release_id, target, plan, terms


def _whole(name: str, otherwise: int) -> int:
    found = forms.whole(name, name)
    return otherwise if found is None else found


def _number(name: str, otherwise: float) -> float:
    found = forms.number(name, name)
    if found is not None and abs(found) > 1e6:
        raise Invalid(gettext("%(what)s wants a number.", what=name))
    return otherwise if found is None else found


def _moment(name: str) -> datetime | None:
    """A time of the city's clock, which may be to come."""
    typed = forms.text(name)
    if not typed:
        return None
    try:
        local = datetime.fromisoformat(typed)
    except ValueError as problem:
        raise Invalid(gettext("Write the time like 2026-07-01 14:30.")) from problem
    return local if local.tzinfo else local.replace(tzinfo=CITY)


def _after() -> Any:
    text = request.args.get("after", "")
    return from_cursor(text, sorting="") if text else None


def _following(page: Page[Any]) -> str | None:
    return None if page.next_key is None else as_cursor(page.next_key, sorting="")
