"""`fleet config`: what is wanted of the fleet, a node model or a group; changes on their way; nodes that drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from fleet_server import clock
from fleet_server.cli.answers import FiniteRange, answer, data_option, json_option
from fleet_server.cli.chosen_nodes import layer_of, layer_options, nodes_options, selection_of
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import moment_text
from fleet_server.cli.node_twin import value_text
from fleet_server.cli.pairs import Pair, settings_given, wifi_option
from fleet_server.models import ConfigurationChange
from fleet_server.services import changing, drifting, layering, previewing
from fleet_server.services.changing import AT_ONCE, ChangeOverview, Plan
from fleet_server.services.drifting import Drift
from fleet_server.services.previewing import Outcome, Preview

_EVERYTHING = 1_000_000


class _Shares(click.ParamType[tuple[float, ...]]):
    """`5,25,100` in percent."""

    name = "PERCENT,…"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        try:
            return tuple(float(part) / 100 for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of percent, like 5,25,100.", param, ctx)


@click.group()
def config() -> None:
    """What is wanted of many nodes at once: of the fleet, a node model, a group.

    Example: fleet config show
    """


@config.command()
@data_option
@json_option
def show(*, data_dir: str | None, as_json: bool) -> None:
    """What each layer wants; the later one has the last word. One node's: `fleet node show`.

    Example: fleet config show
    """
    with open_session(data_dir) as session:
        found = layering.layers(session)
    rows = [
        {
            "layer": one.layer.name,
            "version": one.version,
            "settings": dict(one.settings),
            "changed_at": moment_text(one.changed_at),
        }
        for one in found
    ]
    lines = [
        f"{one.layer.name}: "
        + ", ".join(f"{name}={value_text(value)}" for name, value in sorted(one.settings.items()))
        for one in found
    ]
    nothing = "Nothing is wanted of many nodes; each is as its model provisions it, or as `fleet node configure` said."
    answer({"layers": rows}, "\n".join(lines) or nothing, as_json=as_json)


@config.command(name="set")
@click.argument("settings", nargs=-1, type=Pair(), metavar="[NAME=VALUE]...")
@layer_options
@wifi_option
@click.option("--canaries", type=click.IntRange(0), default=3, show_default=True)
@click.option(
    "--waves",
    type=_Shares(),
    default="5,25,100",
    show_default=True,
    help="Up to how many percent of the nodes are told in each wave after the canaries.",
)
@click.option(
    "--soak-hours",
    type=FiniteRange(0, 720),
    default=1.0,
    show_default=True,
    help="How long a wave is watched before the next opens.",
)
@click.option("--at-once", is_flag=True, help="Tell all nodes at once.")
@click.option("--dry-run", is_flag=True, help="Say what it would do, and change nothing.")
@data_option
@json_option
def set_settings(
    *,
    settings: tuple[tuple[str, Any], ...],
    wifi_file: Path | None,
    canaries: int,
    waves: tuple[float, ...],
    soak_hours: float,
    at_once: bool,
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
    **whose: Any,
) -> None:
    """Want these settings of many nodes; NAME= takes one back. The nodes are told in waves, by `fleet worker`.

    Example: fleet config set --group Innenstadt sample_s=300 --dry-run
    """
    wanted = settings_given(settings, wifi_file)
    given = settings_of(data_dir)
    plan = AT_ONCE if at_once else Plan(canaries, waves, timedelta(hours=soak_hours))
    plan.check()
    with open_session(data_dir) as session:
        layer = layer_of(session, **whose)
        if dry_run:
            found = previewing.preview(
                session, layer, wanted, secret_key=given.session_key, shown=_EVERYTHING
            )
            _answer_preview(found, plan, as_json=as_json)
            return
        change = changing.propose_change(
            session,
            layer,
            wanted,
            now=clock.now(),
            secret_key=given.session_key,
            plan=plan,
            approval_above=given.approval_wanted_above,
        )
        overview = None if change is None else changing.change_overview(session, change.id)
    if overview is None:
        answer({"change": None}, f"The {layer.name} wants exactly this already.", as_json=as_json)
        return
    answer({"change": _fields(overview)}, _sentence(overview), as_json=as_json)


@config.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@data_option
@json_option
def changes(*, limit: int, data_dir: str | None, as_json: bool) -> None:
    """Changes, newest first, and how far each is.

    Example: fleet config changes
    """
    with open_session(data_dir) as session:
        found = changing.changes(session, limit=limit)
    lines = [_sentence(one) for one in found]
    fields = {"changes": [_fields(one) for one in found]}
    answer(fields, "\n".join(lines) or "There was no change yet.", as_json=as_json)


@config.command()
@click.argument("change_id", type=click.IntRange(1, (1 << 31) - 1))
@data_option
@json_option
def change(*, change_id: int, data_dir: str | None, as_json: bool) -> None:
    """One change with its waves, and the nodes that failed or cannot take it.

    Example: fleet config change 7
    """
    with open_session(data_dir) as session:
        found = changing.change_overview(session, change_id)
        nodes = changing.nodes_of(session, change_id, limit=_EVERYTHING)
    lines = [_sentence(found)]
    lines += [
        f"  wave {wave.wave}: {wave.nodes} nodes, {wave.told} told, {wave.reached} reached, {wave.in_force} in force, {wave.failed} failed"
        for wave in found.waves
    ]
    lines += [f"  {one.node_id} ({one.label}): {one.fault}" for one in nodes if one.fault]
    rows = [
        {
            "node_id": one.node_id,
            "label": one.label,
            "wave": one.wave,
            "told_at": moment_text(one.told_at),
            "standing": one.standing if one.told_at else None,
            "fault": one.fault,
        }
        for one in nodes
    ]
    answer({**_fields(found), "nodes": rows}, "\n".join(lines), as_json=as_json)


def _deed(
    name: str, help_text: str, do: Callable[..., ConfigurationChange], *, takes_reason: bool
) -> None:
    """A command that does one thing to one change."""

    def run(*, change_id: int, data_dir: str | None, as_json: bool, **reason: str) -> None:
        with open_session(data_dir) as session:
            do(session, change_id, now=clock.now(), **reason)
            found = changing.change_overview(session, change_id)
        answer({"change": _fields(found)}, _sentence(found), as_json=as_json)

    run.__doc__ = f"{help_text}\n\n    Example: fleet config {name} 7\n    "
    command: Any = data_option(json_option(run))
    if takes_reason:
        command = click.option("--reason", default="", help="Stands with the change.")(command)
    command = click.argument("change_id", type=click.IntRange(1, (1 << 31) - 1))(command)
    config.command(name=name)(command)


_deed(
    "approve",
    "Let a change begin that waits for somebody else's approval.",
    changing.approve_change,
    takes_reason=False,
)
_deed("pause", "Open no further wave.", changing.pause_change, takes_reason=True)
_deed(
    "resume",
    "Go on with a paused change; nodes that have failed do not pause it again.",
    changing.resume_change,
    takes_reason=False,
)
_deed(
    "abort",
    "Tell nobody else; who was told keeps it.",
    changing.abort_change,
    takes_reason=True,
)
_deed(
    "roll-back",
    "Want again what was wanted before, of every node at once.",
    changing.roll_back_change,
    takes_reason=True,
)


@config.command()
@click.option(
    "--reason", type=click.Choice(drifting.REASONS), help="Only those that drift for this."
)
@nodes_options
@click.option("--limit", type=click.IntRange(1, 100_000), default=200, show_default=True)
@data_option
@json_option
def drift(
    *, reason: str | None, limit: int, data_dir: str | None, as_json: bool, **chosen: Any
) -> None:
    """Nodes that do not run what is wanted of them, since when, and why.

    Example: fleet config drift --group Innenstadt --reason rolled_back
    """
    with open_session(data_dir) as session:
        selection = selection_of(session, **chosen)
        page = drifting.drift_page(session, selection, reason=reason, limit=limit)
        counts = drifting.drift_counts(session, selection)
    lines = [
        f"{one.node_id}  {one.label} ({one.model}): {one.reason.replace('_', ' ')} since {moment_text(one.since)}"
        f"{f', {one.why}' if one.why else ''}"
        for one in page.items
    ]
    fields = {
        "counts": dict(counts),
        "nodes": [_drift_fields(one) for one in page.items],
        "has_more": page.next_key is not None,
    }
    answer(fields, "\n".join(lines) or "Every node runs what is wanted of it.", as_json=as_json)


# ---------------------------------------------------------------------------------------------------------------- private


def _answer_preview(found: Preview, plan: Plan, *, as_json: bool) -> None:
    changing_nodes = found.counts.get(Outcome.CHANGES, 0)
    fields = {
        "layer": found.wish.layer.name,
        "changed": dict(found.wish.changed),
        "counts": previewing.summary(found.counts),
        "waves": plan.waves(changing_nodes),
        "nodes": [
            {"node_id": one.node_id, "label": one.label, "outcome": one.outcome, "why": one.why}
            for one in found.nodes
        ],
    }
    counts = previewing.summary(found.counts)
    sentence = (
        f"{counts['changes']} nodes change, {counts['has_it']} already have it, {counts['overridden']} are told"
        f" something else by a later layer, {counts['cannot']} cannot."
    )
    waves = ", ".join(map(str, fields["waves"])) if changing_nodes else "none"
    lines = [sentence, f"Nodes in each wave: {waves}. Nothing was changed."]
    lines += _node_lines(found)
    answer(fields, "\n".join(lines), as_json=as_json)


def _node_lines(found: Preview) -> Sequence[str]:
    return [
        f"  {one.node_id}  {one.label} ({one.model}): {one.why or one.outcome.value.replace('_', ' ')}"
        for one in found.nodes
    ]


def _sentence(one: ChangeOverview) -> str:
    found = one.change
    wish = ", ".join(
        f"{name} taken back" if value is None else f"{name}={value}"
        for name, value in sorted(found.changed.items())
    )
    state = found.state.replace("_", " ")
    why = f" ({found.reason})" if found.reason else ""
    wave = f", wave {found.wave} of {len(found.waves)}" if found.waves else ""
    return (
        f"Change {found.id} of {found.layer_name}: {wish}. It is {state}{why}{wave}: {one.nodes} nodes, {one.told} told,"
        f" {one.reached} reached, {one.in_force} in force, {one.failed} failed; {one.cannot} cannot."
    )


def _fields(one: ChangeOverview) -> dict[str, Any]:
    found = one.change
    return {
        "id": found.id,
        "layer": found.layer_name,
        "changed": dict(found.changed),
        "state": found.state,
        "reason": found.reason,
        "author": found.author,
        "created_at": moment_text(found.created_at),
        "needs_approval": found.needs_approval,
        "approved_by": found.approved_by,
        "wave": found.wave,
        "waves": list(found.waves),
        "nodes": one.nodes,
        "told": one.told,
        "reached": one.reached,
        "in_force": one.in_force,
        "failed": one.failed,
        "cannot": one.cannot,
    }


def _drift_fields(one: Drift) -> dict[str, Any]:
    return {
        "node_id": one.node_id,
        "label": one.label,
        "model": one.model,
        "reason": one.reason,
        "why": one.why,
        "since": moment_text(one.since),
        "version": one.version,
        "running_version": one.running_version,
        "last_heard_at": moment_text(one.last_heard_at),
    }
