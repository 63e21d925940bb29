"""`fleet city`: what the city decides on, and by which rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress
from sqlalchemy.orm import Session

from fleet_server import clock
from fleet_server.city.rules import KINDS, to_data
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session
from fleet_server.cli.named_nodes import moment_text
from fleet_server.cli.rule_files import read_rules
from fleet_server.errors import Invalid, NotFound
from fleet_server.models import CityState, Site
from fleet_server.services import (
    city_rehearsing,
    city_rules,
    city_states,
    city_words,
    rights,
    sites,
)
from fleet_server.services.city_rehearsing import LONGEST_DAYS, Rehearsal
from fleet_server.services.city_rules import RuleBook, RuleScope
from fleet_server.services.city_states import DecidedSite

_Command = TypeVar("_Command", bound=Callable[..., Any])
_AT_ONCE = 500
_SHOW = "fleet city rules show"
_SHOWN_CHANGED = 20


@click.group()
def city() -> None:
    """What the city decides on: states of trees and waters, and their rules.

    Example: fleet city states --site stadtpark-linde
    """


@city.command()
@click.argument("kind", type=click.Choice(list(KINDS)), required=False)
@click.option("--site", "site_code", help="Only this one, with all that its state rests on.")
@click.option(
    "--state", type=click.Choice(list(city_words.STATE_WORDS)), help="Only sites in this state."
)
@data_option
@json_option
def states(
    *,
    kind: str | None,
    site_code: str | None,
    state: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """How trees and waters stand, the worst first; unknown is a state of its own.

    Example: fleet city states waters
    """
    with open_session(data_dir) as session:
        if site_code is not None:
            found = [_one(session, site_code)]
        else:
            found = [
                one for name in ([kind] if kind else KINDS) for one in _all(session, name, state)
            ]
        rows = [_told(one) for one in found]
    lines = [line for one in found for line in _lines(one, with_reasons=site_code is not None)]
    answer({"states": rows}, "\n".join(lines) or "There is no such site.", as_json=as_json)


@city.group(name="rules")
def rules() -> None:
    """The rules that states follow from: of trees and of waters; a site's own beat its group's, these everybody's.

    Example: fleet city rules show trees
    """


def _scoped(command: _Command) -> _Command:
    """Which sites rules are for."""
    for option in (
        click.option("--group", "tree_group", help="Of this group of trees."),
        click.option("--site", "site_code", help="Of this site."),
    ):
        command = option(command)
    return click.argument("kind", type=click.Choice(list(KINDS)))(command)


_rules_file = click.argument(
    "file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)


@rules.command()
@_scoped
@data_option
@json_option
def show(
    *, kind: str, site_code: str | None, tree_group: str | None, data_dir: str | None, as_json: bool
) -> None:
    """The rules in force, as `fleet city rules set` takes them.

    Example: fleet city rules show waters --site stadtparkteich
    """
    with open_session(data_dir) as session:
        scope = _scope(session, site_code, tree_group)
        if scope.site_id is not None:
            found = city_rules.rules_in_force(session, kind, scope.site_id, at=clock.now())
        else:
            found = RuleBook(session, kind, at=clock.now()).of(None, scope.tree_group)
    body = to_data(found.rules)
    answer(
        {"kind": kind, "version": found.version, "rule_set_id": found.rule_set_id, "rules": body},
        json.dumps(body, indent=2, ensure_ascii=False),
        as_json=as_json,
    )


@rules.command(name="set")
@_scoped
@_rules_file
@click.option("--reason", required=True, help="Why; it is kept.")
@data_option
@json_option
def set_(
    *,
    kind: str,
    file: Path,
    site_code: str | None,
    tree_group: str | None,
    reason: str,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Put other rules in force, from a file of JSON; `null` in it: the more general ones again. What it leaves out is as in the defaults.

    Example: fleet city rules set trees young.json --group Ringallee --reason "planted in spring"
    """
    body = read_rules(file, what="rules", begin_with=_SHOW)
    with open_session(data_dir) as session:
        scope = _scope(session, site_code, tree_group)
        session.rollback()
        made = city_rules.set_rules(
            session,
            kind,
            body,
            scope=scope,
            reason=reason,
            author=rights.actor_of(session).name,
            now=clock.now(),
        )
        version, rule_set_id = made.version, made.id
    answer(
        {"kind": kind, "version": version, "rule_set_id": rule_set_id},
        f"Version {version} is in force; the worker decides by it within a minute or two.",
        as_json=as_json,
    )


@rules.command(name="dry-run")
@_scoped
@_rules_file
@click.option("--days", type=click.IntRange(1, LONGEST_DAYS), default=365, show_default=True)
@data_option
@json_option
def dry_run(
    *,
    kind: str,
    file: Path,
    site_code: str | None,
    tree_group: str | None,
    days: int,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """What these rules would have meant for what was measured in the last days. Nothing is changed.

    Example: fleet city rules dry-run trees stricter.json --days 365
    """
    body = read_rules(file, what="rules", begin_with=_SHOW)
    with open_session(data_dir) as session, _progress() as on_progress:
        found = city_rehearsing.rehearse(
            session,
            kind,
            body,
            scope=_scope(session, site_code, tree_group),
            days=days,
            now=clock.now(),
            on_progress=on_progress,
        )
    answer(_told_rehearsal(found), "\n".join(_rehearsal_lines(found)), as_json=as_json)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _done, _all: None
        return
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Looking back", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _scope(session: Session, site_code: str | None, tree_group: str | None) -> RuleScope:
    if site_code is not None and tree_group is not None:
        raise Invalid("Rules hold for a site or for a group: give --site or --group, not both.")
    return RuleScope(None if site_code is None else _site(session, site_code).id, tree_group)


def _site(session: Session, code: str) -> Site:
    found = sites.find_site(session, code)
    if found is None:
        raise NotFound(f"There is no site {code}; `fleet site list` shows them all.")
    return found


def _one(session: Session, code: str) -> DecidedSite:
    site = _site(session, code)
    return DecidedSite(site, city_states.state_of(session, site.id))


def _all(session: Session, kind: str, state: str | None) -> Iterator[DecidedSite]:
    after = None
    while True:
        page = city_states.states_of(session, kind, limit=_AT_ONCE, after=after, state=state)
        yield from page.items
        after = page.next_key
        if after is None:
            return


def _told(one: DecidedSite) -> dict[str, Any]:
    row: CityState | None = one.row
    return {
        "site": one.site.code,
        "kind": one.site.kind,
        "state": one.state,
        "at_worst": None if row is None else row.at_worst,
        "is_inferred": row is not None and row.is_inferred,
        "since": None if row is None else moment_text(row.from_at),
        "looked_at": None if row is None else moment_text(row.evaluated_at),
        "rule_set_id": None if row is None else row.rule_set_id,
        "reasons": [
            {
                "kind": reason.kind,
                "state": reason.state,
                "sentence": str(city_words.said(reason)),
                "numbers": dict(reason.numbers),
                "datastream_id": reason.datastream_id,
                "sampled_at": reason.sampled_at and moment_text(reason.sampled_at),
            }
            for reason in one.reasons
        ],
    }


def _lines(one: DecidedSite, *, with_reasons: bool) -> Iterator[str]:
    since = "" if one.row is None else f"  since {moment_text(one.row.from_at)}"
    yield f"{one.state:9}  {one.site.code}  {one.site.name}{since}"
    for reason in one.reasons if with_reasons else one.reasons[:1]:
        yield f"           {city_words.said(reason)}"


def _told_rehearsal(found: Rehearsal) -> dict[str, Any]:
    def told(tallies: Any) -> dict[str, Any]:
        return {
            state: {"sites": tally.sites, "days": round(tally.looks / found.looks_per_day, 2)}
            for state, tally in tallies.items()
        }

    return {
        "kind": found.kind,
        "days": found.days,
        "sites": found.sites,
        "before": told(found.before),
        "after": told(found.after),
        "changed": {
            code: round(looks / found.looks_per_day, 2) for code, looks in found.changed.items()
        },
    }


def _rehearsal_lines(found: Rehearsal) -> Iterator[str]:
    told = _told_rehearsal(found)
    yield f"The last {found.days} days at {found.sites} sites, by the rules in force and by these:"
    for state in sorted({*found.before, *found.after}, key=lambda one: -city_states.rank_of(one)):
        nothing = {"sites": 0, "days": 0}
        before, after = told["before"].get(state, nothing), told["after"].get(state, nothing)
        yield (
            f"  {state:9}  sites {before['sites']} → {after['sites']} ({after['sites'] - before['sites']:+d}), "
            f"site-days {before['days']:g} → {after['days']:g}"
        )
    if not found.changed:
        yield "No site would have been in another state."
        return
    most = sorted(told["changed"].items(), key=lambda one: -one[1])
    yield "Otherwise than now on most days: " + ", ".join(
        f"{code} ({days:g})" for code, days in most[:_SHOWN_CHANGED]
    )
