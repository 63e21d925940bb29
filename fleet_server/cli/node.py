"""`fleet node`: the nodes with their health, sites, and which node stands where from when. What a node shall be: node_twin.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from difflib import get_close_matches

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.moments import EXAMPLE_TIME, UtcTime, not_in_future
from fleet_server.cli.named_nodes import find_node, moment_text
from fleet_server.cli.node_credentials import renew, revoke
from fleet_server.cli.node_life import register, state
from fleet_server.cli.node_swap import replace, swap_sensor
from fleet_server.cli.node_twin import cancel, command, commands, configure, order, schema, show
from fleet_server.errors import NotFound
from fleet_server.models import Node, Site
from fleet_server.services import deploying, health, overviews
from fleet_server.web import words


class _Depth(click.ParamType[tuple[str, int]]):
    """`SLOT=CM`."""

    name = "SLOT=CM"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        slot, _, depth = (part.strip() for part in str(value).partition("="))
        if not (slot and depth.isascii() and depth.isdecimal() and len(depth) <= 6):
            self.fail(f"{value!r} is not SLOT=CM, like w30=25.", param, ctx)
        return slot, int(depth)


class _Serial(click.ParamType[tuple[str, str]]):
    """`SLOT=SERIAL`."""

    name = "SLOT=SERIAL"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        slot, _, serial = (part.strip() for part in str(value).partition("="))
        if not (slot and serial):
            self.fail(f"{value!r} is not SLOT=SERIAL, like w30=A1234.", param, ctx)
        return slot, serial


@click.group()
def node() -> None:
    """Nodes, sites, and which node stands where.

    Example: fleet node list
    """


for _command in (
    configure,
    command,
    order,
    commands,
    cancel,
    replace,
    swap_sensor,
    show,
    schema,
    state,
    register,
    revoke,
    renew,
):
    node.add_command(_command)


@node.command(name="list")
@data_option
@json_option
def list_nodes(*, data_dir: str | None, as_json: bool) -> None:
    """All nodes in service with their health.

    Example: fleet node list --json
    """
    with open_session(data_dir) as session:
        found = health.fleet_health(session, now=clock.now())
    rows = [
        {
            "node_id": one.node.node_id,
            "label": one.node.label,
            "model": one.node.model,
            "state": one.node.state,
            "health": overviews.health_word(one),
            "last_heard_at": moment_text(one.status.last_heard_at),
            "site": one.site.code if one.site else None,
        }
        for one in found
    ]
    answer({"nodes": rows}, _table(rows), as_json=as_json)


@node.command(name="add-site")
@click.argument("code")
@click.option("--name", required=True, help="What people call the place.")
@click.option("--kind", required=True, type=click.Choice(["tree", "water"]), help="What it is.")
@click.option("--latitude", required=True, type=float, help="WGS84 degrees, north is positive.")
@click.option("--longitude", required=True, type=float, help="WGS84 degrees, east is positive.")
@click.option("--description", default="", help="Shown with the site.")
@click.option("--public", "is_public", is_flag=True, help="Show it to everybody, without login.")
@data_option
@json_option
def add_site(
    *,
    code: str,
    name: str,
    kind: str,
    latitude: float,
    longitude: float,
    description: str,
    is_public: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make a site: a tree or a water that nodes measure. CODE is its short name in commands.

    Example: fleet node add-site stadtpark-linde --name "Stadtpark, Linde" --kind tree
    --latitude 51.4906 --longitude 7.2281 --public
    """
    new = deploying.NewSite(code, name, kind, latitude, longitude, description)
    with open_session(data_dir) as session:
        made = deploying.create_site(session, new, is_public=is_public, now=clock.now())
    fields = {"id": made.id, "code": made.code, "is_public": made.is_public}
    seen_by = "everybody sees it" if is_public else "only who is logged in sees it"
    answer(fields, f"Made site {code}; {seen_by}.", as_json=as_json)


@node.command()
@click.argument("node_id_or_label")
@click.option("--site", "site_code", required=True, help="The site's code.")
@click.option(
    "--from",
    "from_at",
    type=UtcTime(),
    help=f"Since when it stands there, for example {EXAMPLE_TIME}. [default: now]",
)
@click.option(
    "--serial",
    "serials",
    type=_Serial(),
    multiple=True,
    help="Serial number of the probe in a slot; repeat for several. A known probe keeps its calibrations.",
)
@click.option(
    "--depth",
    "depths",
    type=_Depth(),
    multiple=True,
    help="Where a probe is at another depth than the model says, like w30=25; repeat for several.",
)
@data_option
@json_option
def deploy(
    *,
    node_id_or_label: str,
    site_code: str,
    from_at: datetime | None,
    serials: tuple[tuple[str, str], ...],
    depths: tuple[tuple[str, int], ...],
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Put a node at a site. What it has sampled there since --from becomes observations.

    Example: fleet node deploy tree-01 --site stadtpark-linde --from 2026-07-01T12:00:00Z --serial w30=A1234
    """
    by_slot = _by_slot(serials)
    with open_session(data_dir) as session:
        now = clock.now()
        found = find_node(session, node_id_or_label)
        _check_site(session, site_code)
        deployment = deploying.deploy_node(
            session,
            found.node_id,
            site_code=site_code,
            from_at=not_in_future(from_at or now, now=now, option="--from"),
            now=now,
            serials=by_slot,
            depths_cm=dict(depths),
        )
    since = moment_text(deployment.from_at)
    fields = {"node_id": found.node_id, "label": found.label, "site": site_code, "from_at": since}
    answer(
        fields, f"{found.label} ({found.node_id}) is at {site_code} since {since}.", as_json=as_json
    )


@node.command(name="end-deployment")
@click.argument("node_id_or_label")
@click.option(
    "--to",
    "to_at",
    type=UtcTime(),
    help=f"When it left, for example {EXAMPLE_TIME}. [default: now]",
)
@data_option
@json_option
def end_deployment(
    *, node_id_or_label: str, to_at: datetime | None, data_dir: str | None, as_json: bool
) -> None:
    """Take a node from its site; its probes are free. Safe to repeat.

    Example: fleet node end-deployment tree-01
    """
    with open_session(data_dir) as session:
        now = clock.now()
        found = find_node(session, node_id_or_label)
        ended_at = not_in_future(to_at or now, now=now, option="--to")
        site = _site_of(session, found, now=now)
        deploying.end_deployment(session, found.node_id, to_at=ended_at, now=clock.now())
    name = f"{found.label} ({found.node_id})"
    until = moment_text(ended_at) if site else None
    sentence = (
        f"{name} was at {site} until {until}."
        if site
        else f"{name} is at no site; nothing was changed."
    )
    fields = {"node_id": found.node_id, "label": found.label, "site": site, "to_at": until}
    answer(fields, sentence, as_json=as_json)


def _check_site(session: Session, code: str) -> None:
    if deploying.find_site(session, code) is not None:
        return
    near = get_close_matches(code, session.scalars(select(Site.code)).all(), n=1)
    step = f"did you mean {near[0]}?" if near else f"make it with `fleet node add-site {code}`."
    raise NotFound(f"There is no site {code}; {step}")


def _site_of(session: Session, found: Node, *, now: datetime) -> str | None:
    (one,) = health.fleet_health(session, now=now, node_id=found.node_id)
    return one.site.code if one.site else None


def _by_slot(serials: Sequence[tuple[str, str]]) -> dict[str, str]:
    by_slot: dict[str, str] = {}
    for slot, serial in serials:
        if slot in by_slot:
            raise click.UsageError(f"Slot {slot} is given twice; it holds one probe.")
        if serial in by_slot.values():
            raise click.UsageError(
                f"Serial number {serial} is given twice; a probe is in one slot."
            )
        by_slot[slot] = serial
    return by_slot


def _table(rows: Sequence[dict[str, str | None]]) -> str:
    if not rows:
        return "There is no node in service yet; `fleet token create` lets the bench enrol one."
    lines = [("NODE", "LABEL", "MODEL", "STATE", "HEALTH", "LAST HEARD", "SITE")]
    for row in rows:
        word = str(words.health_words(row["health"] or "").word)
        heard = row["last_heard_at"] or "never"
        lines.append(
            (
                row["node_id"] or "",
                row["label"] or "",
                row["model"] or "",
                row["state"] or "",
                word,
                heard,
                row["site"] or "-",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
