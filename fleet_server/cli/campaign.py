"""`fleet campaign`: a release on its way to many nodes, wave by wave, and why a node is not updated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import FiniteRange, answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import EXAMPLE_TIME, UtcTime
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.models import Campaign, NodeStage
from fleet_server.services import (
    campaign_rules,
    campaign_words,
    campaigning,
    fleet_totals,
    releases,
)
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import CampaignOverview, Plan, Preview, Terms
from fleet_server.wire.states import NodeState

_EVERYTHING = 100_000
_NUMBER = click.IntRange(1, (1 << 31) - 1)


@click.group()
def campaign() -> None:
    """Updates: releases on their way to many nodes. Signed releases are made with `provision release`.

    Example: fleet campaign create tree-3 0.8.0 --group Innenstadt --dry-run
    """


@campaign.command()
@click.argument("model")
@click.argument("version")
@click.option("--node", "nodes", multiple=True, help="A node's id or label; repeat for several.")
@click.option("--label", help="Nodes whose label begins so.")
@click.option("--group", help="Nodes in this group.")
@click.option("--tag", help="Nodes with this tag.")
@click.option("--site", help="Nodes at the site with this code.")
@click.option("--state", type=click.Choice([state.value for state in NodeState]))
@click.option("--health", type=click.Choice(fleet_totals.HEALTH_WORDS))
@click.option("--firmware-version", help="Nodes that run this version.")
@click.option("--battery-below-mv", type=click.IntRange(0, 100_000))
@click.option("--dynamic", is_flag=True, help="Nodes that come to fit later go last.")
@click.option("--canaries", type=click.IntRange(0, 10_000), default=5, show_default=True)
@click.option(
    "--waves",
    default="5,25,50,100",
    show_default=True,
    metavar="PERCENT,…",
    help="Up to how many percent of the nodes are in each wave after the canaries.",
)
@click.option("--soak-hours", type=FiniteRange(0, 720), default=24.0, show_default=True)
@click.option(
    "--gate",
    type=FiniteRange(0.001, 100),
    default=95.0,
    show_default=True,
    help="At so many percent succeeded the next wave opens.",
)
@click.option(
    "--pause-at",
    type=FiniteRange(0, 99.9),
    default=5.0,
    show_default=True,
    help="At more than so many percent failed it pauses.",
)
@click.option(
    "--minimum",
    type=click.IntRange(0, 10_000),
    default=3,
    show_default=True,
    help="So many nodes of a wave have to be reached at least.",
)
@click.option("--starts-at", type=UtcTime(), metavar="UTC", help=f"Like {EXAMPLE_TIME}.")
@click.option("--ends-at", type=UtcTime(), metavar="UTC", help=f"Like {EXAMPLE_TIME}.")
@click.option("--hours", default="", metavar="HH:MM-HH:MM", help="Only then, by the city's clock.")
@click.option("--bytes-per-s", type=click.IntRange(1, 1 << 30), help="All downloads together.")
@click.option("--jitter-s", type=click.IntRange(0, 86_400), default=0, show_default=True)
@click.option("--at-once", type=click.IntRange(1, 10_000), default=500, show_default=True)
@click.option(
    "--time-out",
    "time_outs",
    multiple=True,
    metavar="STAGE=HOURS",
    help="How long a node may stay in a stage; repeat for several.",
)
@click.option("--dry-run", is_flag=True, help="Say what it would do, and change nothing.")
@data_option
@json_option
def create(
    *,
    model: str,
    version: str,
    nodes: tuple[str, ...],
    dynamic: bool,
    canaries: int,
    waves: str,
    soak_hours: float,
    gate: float,
    pause_at: float,
    minimum: int,
    starts_at: datetime | None,
    ends_at: datetime | None,
    hours: str,
    bytes_per_s: int | None,
    jitter_s: int,
    at_once: int,
    time_outs: tuple[str, ...],
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Plan to bring release VERSION to nodes of MODEL; all that is given must hold of them. It is a draft until `start`.

    Example: fleet campaign create tree-3 0.8.0 --group Innenstadt --hours 22:00-05:00
    """
    plan = Plan(
        canaries=canaries,
        shares=campaigning.read_shares(waves),
        soak=timedelta(hours=soak_hours),
        gate_share=gate / 100,
        pause_share=pause_at / 100,
        minimum_reached=minimum,
    )
    terms = Terms(
        is_dynamic=dynamic,
        starts_at=starts_at,
        ends_at=ends_at,
        hours=campaigning.read_hours(hours),
        bytes_per_s=bytes_per_s,
        jitter_s=jitter_s,
        at_once=at_once,
        time_outs_s=dict(map(_time_out, time_outs)),
    )
    with open_session(data_dir) as session:
        release = releases.release_of(session, model, version)
        ids = tuple(find_node(session, name).node_id for name in nodes) or None
        target = Target(**filters, node_ids=ids)
        if dry_run:
            found = campaigning.preview(
                session,
                release.id,
                target,
                now=clock.now(),
                plan=plan,
                terms=terms,
                shown=_EVERYTHING,
            )
            _answer_preview(found, as_json=as_json)
            return
        made = campaigning.create_campaign(
            session, release.id, target, now=clock.now(), plan=plan, terms=terms
        )
        overview = campaigning.overview(session, made.id)
    answer({"campaign": _fields(overview)}, _sentence(overview), as_json=as_json)


@campaign.command(name="list")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@data_option
@json_option
def list_campaigns(*, limit: int, data_dir: str | None, as_json: bool) -> None:
    """Campaigns, newest first.

    Example: fleet campaign list
    """
    with open_session(data_dir) as session:
        page = campaigning.campaign_page(session, limit=limit)
    lines = [_sentence(one) for one in page.items]
    fields = {
        "campaigns": [_fields(one) for one in page.items],
        "has_more": page.next_key is not None,
    }
    answer(fields, "\n".join(lines) or "There was no campaign yet.", as_json=as_json)


@campaign.command()
@click.argument("campaign_id", type=_NUMBER)
@click.option("--stage", type=click.Choice([stage.value for stage in NodeStage]))
@data_option
@json_option
def show(*, campaign_id: int, stage: str | None, data_dir: str | None, as_json: bool) -> None:
    """One campaign with its waves and nodes.

    Example: fleet campaign show 7 --stage rolled_back
    """
    with open_session(data_dir) as session:
        found = campaigning.overview(session, campaign_id)
        nodes = campaigning.node_page(session, campaign_id, stage=stage, limit=_EVERYTHING).items
    lines = [_sentence(found)]
    lines += [
        f"  wave {one.wave.number}: {one.count.nodes} nodes, {one.count.reached} reached,"
        f" {one.count.succeeded} succeeded, {one.count.failed} failed"
        for one in found.waves
    ]
    lines += [
        f"  {one.node_id} ({one.label}): {campaign_words.stage_word(one.stage, 'en')}"
        + (f", {campaign_words.reason_words(one.reason, 'en')}" if one.reason else "")
        for one in nodes
        if stage is not None or one.reason
    ]
    rows = [
        {
            "node_id": one.node_id,
            "label": one.label,
            "wave": one.wave,
            "stage": one.stage,
            "attempt": one.attempt,
            "reason": one.reason,
            "since": moment_text(one.since),
        }
        for one in nodes
    ]
    answer({**_fields(found), "nodes": rows}, "\n".join(lines), as_json=as_json)


def _deed(
    name: str, help_text: str, do: Callable[..., Campaign], *options: Callable[[Any], Any]
) -> None:
    """A command that does one thing to one campaign."""

    def run(*, campaign_id: int, data_dir: str | None, as_json: bool, **more: Any) -> None:
        with open_session(data_dir) as session:
            do(session, campaign_id, now=clock.now(), **more)
            found = campaigning.overview(session, campaign_id)
        answer({"campaign": _fields(found)}, _sentence(found), as_json=as_json)

    run.__doc__ = f"{help_text}\n\n    Example: fleet campaign {name} 7\n    "
    command: Any = data_option(json_option(run))
    for option in options:
        command = option(command)
    campaign.command(name=name)(click.argument("campaign_id", type=_NUMBER)(command))


_reason = click.option("--reason", default="", help="Stands with the campaign.")
_deed(
    "start",
    "Hand a draft in for approval, or let an approved campaign begin at once.",
    campaigning.start_campaign,
)
_deed(
    "approve",
    "Let a campaign of somebody else's begin when its time comes.",
    campaigning.approve_campaign,
)
_deed(
    "pause",
    "Tell nobody else, and call back who has not begun to install.",
    campaigning.pause_campaign,
    _reason,
)
_deed(
    "resume",
    "Go on with a paused campaign: whoever paused it, alone; after a pause by itself somebody else than its author.",
    campaigning.resume_campaign,
    click.option(
        "--try-again", "tries_again", is_flag=True, help="Those that failed are told once more."
    ),
)
_deed(
    "abort",
    "Tell nobody else, for good; who runs the version keeps it.",
    campaigning.abort_campaign,
    _reason,
)


@campaign.command()
@click.argument("campaign_id", type=_NUMBER)
@click.argument("node")
@data_option
@json_option
def retry(*, campaign_id: int, node: str, data_dir: str | None, as_json: bool) -> None:
    """Offer NODE (id or label), which failed in a campaign of somebody else's, the release once more.

    Example: fleet campaign retry 7 tree-01
    """
    with open_session(data_dir) as session:
        node_id = find_node(session, node).node_id
        campaigning.retry_node(session, campaign_id, node_id, now=clock.now())
        found = campaigning.overview(session, campaign_id)
    answer({"campaign": _fields(found), "node_id": node_id}, _sentence(found), as_json=as_json)


@campaign.command()
@click.argument("node")
@click.option("--language", type=click.Choice(["en", "de"]), default="en", show_default=True)
@data_option
@json_option
def why(*, node: str, language: str, data_dir: str | None, as_json: bool) -> None:
    """In one sentence, why NODE (id or label) is not updated.

    Example: fleet campaign why tree-01
    """
    with open_session(data_dir) as session:
        node_id = find_node(session, node).node_id
        found = campaign_words.why_not_updated(session, node_id, now=clock.now())
    sentence = campaign_words.sentence(found, language)
    answer(
        {"node_id": node_id, "code": found.code, "sentence": sentence}, sentence, as_json=as_json
    )


# ---------------------------------------------------------------------------------------------------------------- private


def _time_out(text: str) -> tuple[NodeStage, int]:
    stage, _, hours = text.partition("=")
    try:
        return NodeStage(stage), round(float(hours) * 3600)
    except (ValueError, OverflowError) as problem:
        stages = ", ".join(campaign_rules.TIME_OUTS_S)
        raise click.BadParameter(
            f"{text!r} is no STAGE=HOURS, like downloading=48; stages are {stages}.",
            param_hint="--time-out",
        ) from problem


def _answer_preview(found: Preview, *, as_json: bool) -> None:
    counts = {prospect.value: count for prospect, count in found.counts.items()}
    fields = {
        "model": found.release.model,
        "version": found.release.version,
        "micropython": found.release.image_micropython,
        "counts": counts,
        "waves": list(found.waves),
        "offline": found.offline,
        "bytes_in_all": found.bytes_in_all,
        "loading_s": found.loading_s,
        "nodes": [{"node_id": one.node_id, "prospect": one.prospect} for one in found.nodes],
    }
    waves = ", ".join(map(str, found.waves)) or "none"
    sentence = (
        f"{counts['updates']} nodes update to {found.release.version}, {found.offline} of them were not heard of late;"
        f" {counts['has_it']} have it, {counts['newer']} run a newer release.\n"
        f"Nodes in each wave: {waves}. At most {found.bytes_in_all} bytes over the air. Nothing was changed."
    )
    if found.release.image_micropython is not None:
        sentence += (
            f"\nIt brings MicroPython {found.release.image_micropython}, which was not tried on hardware:"
            " begin with one node within reach."
        )
    answer(fields, sentence, as_json=as_json)


def _sentence(one: CampaignOverview) -> str:
    found, total = one.campaign, one.total
    why = f" ({found.reason})" if found.reason else ""
    return (
        f"Campaign {found.id} to {found.version} ({found.model}) is {found.state.replace('_', ' ')}{why},"
        f" wave {found.wave} of {len(one.waves)}: {total.nodes} nodes, {total.reached} reached,"
        f" {total.succeeded} succeeded, {total.failed} failed."
    )


def _fields(one: CampaignOverview) -> dict[str, Any]:
    found, total = one.campaign, one.total
    return {
        "id": found.id,
        "model": found.model,
        "version": found.version,
        "state": found.state,
        "reason": found.reason,
        "author": found.author,
        "approved_by": found.approved_by,
        "created_at": moment_text(found.created_at),
        "starts_at": moment_text(found.starts_at),
        "ends_at": moment_text(found.ends_at),
        "wave": found.wave,
        "waves": [
            {
                "number": each.wave.number,
                "nodes": each.count.nodes,
                "reached": each.count.reached,
                "succeeded": each.count.succeeded,
                "failed": each.count.failed,
            }
            for each in one.waves
        ],
        "nodes_in_all": total.nodes,
        "stages": {stage.value: count for stage, count in total.stages.items()},
    }
