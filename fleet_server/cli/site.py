"""`fleet site`: the places that are measured; whole files of them come in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.orm import Session

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.errors import Invalid, NotFound
from fleet_server.models import Site
from fleet_server.services import places, site_importing, site_list, sites
from fleet_server.services.file_store import open_store
from fleet_server.services.site_files import read_table
from fleet_server.services.site_importing import FIELDS, ImportPlan, ImportRules
from fleet_server.services.sites import SiteState
from fleet_server.services.tables import LARGEST_FILE_BYTES

_Command = TypeVar("_Command", bound=Callable[..., Any])
_AT_ONCE = 1000


class _Mapping(click.ParamType[tuple[str, str]]):
    """`FIELD=COLUMN`."""

    name = "FIELD=COLUMN"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        field, equals, column = (part.strip() for part in str(value).partition("="))
        if not (equals and field in FIELDS):
            known = ", ".join(FIELDS)
            self.fail(f"{value!r} is not FIELD=COLUMN; a field is one of {known}.", param, ctx)
        return field, column


@click.group()
def site() -> None:
    """Places that are measured: trees and waters.

    Example: fleet site list --state bare
    """


@site.command(name="list")
@click.option("--kind", type=click.Choice(list(sites.KINDS)))
@click.option("--state", type=click.Choice([state.value for state in SiteState]))
@click.option("--find", "text", default="", help="Part of code, name, tree number or species.")
@data_option
@json_option
def list_sites(
    *, kind: str | None, state: str | None, text: str, data_dir: str | None, as_json: bool
) -> None:
    """Sites by code.

    Example: fleet site list --kind tree --find Tilia
    """
    with open_session(data_dir) as session:
        found = _all_sites(session, kind=kind, state=SiteState(state) if state else None, text=text)
    rows = [_told(one) for one in found]
    lines = [f"{one.code}  {one.kind}  {one.name}{_closed(one)}" for one in found]
    answer({"sites": rows}, "\n".join(lines) or "There is no such site.", as_json=as_json)


def _all_sites(
    session: Session, *, kind: str | None, state: SiteState | None, text: str
) -> list[Site]:
    found: list[Site] = []
    after = None
    while True:
        page = site_list.site_page(
            session, limit=_AT_ONCE, after=after, kind=kind, state=state, text=text
        )
        found += page.items
        after = page.next_key
        if after is None:
            return found


def _told(one: Site) -> dict[str, object]:
    return {
        "code": one.code,
        "name": one.name,
        "kind": one.kind,
        "latitude": one.latitude,
        "longitude": one.longitude,
        "species": one.species,
        "tree_number": one.tree_number,
        "planted_year": one.planted_year,
        "area_m2": one.area_m2,
        "depth_m": one.depth_m,
        "lowest_level_m": one.lowest_level_m,
        "soil_class": one.soil_class,
        "unsealed_m2": one.unsealed_m2,
        "crown_m2": one.crown_m2,
        "tree_group": one.tree_group,
        "is_group_reference": one.is_group_reference,
        "details": one.details,
        "is_public": one.is_public,
        "is_closed": one.closed_at is not None,
    }


def _closed(one: Site) -> str:
    return "  (closed)" if one.closed_at is not None else ""


@site.command()
@click.argument("code")
@click.option("--name")
@click.option("--description")
@click.option("--public/--not-public", "is_public", default=None, help="Who sees it.")
@click.option("--x", type=float, help="East value or longitude, in --crs.")
@click.option("--y", type=float, help="North value or latitude, in --crs.")
@click.option("--crs", default="EPSG:4326", show_default=True, help="Of --x and --y.")
@click.option("--species", help="Of a tree; empty: not known.")
@click.option("--tree-number", help="In the cadastre; empty: none.")
@click.option("--planted-year", type=int)
@click.option("--area-m2", type=float, help="Of a water.")
@click.option("--depth-m", type=float, help="Of a water.")
@click.option("--lowest-level-m", type=float, help="Of a water: below it there is too little.")
@click.option("--soil-class", help="Of a tree's soil, by KA5, like Sl4; empty: not known.")
@click.option("--unsealed-m2", type=float, help="Ground around a tree that rain gets through.")
@click.option("--crown-m2", type=float, help="Ground below a tree's crown.")
@click.option("--tree-group", help="Of trees that are alike; empty: none.")
@click.option(
    "--reference/--no-reference",
    "is_group_reference",
    default=None,
    help="It stands for its group.",
)
@data_option
@json_option
def edit(
    *, code: str, x: float | None, y: float | None, crs: str, data_dir: str | None, as_json: bool,
    **given: object,
) -> None:  # fmt: skip
    """Change what is known of a site; what is not given stays.

    Example: fleet site edit stadtpark-linde --species "Tilia cordata" --planted-year 1987
    """
    changes = {name: value for name, value in given.items() if value is not None}
    if (x is None) != (y is None):
        raise Invalid("A position has two values: give --x and --y.")
    if x is not None and y is not None:
        place = places.place_of(x, y, epsg=places.epsg_of(crs))
        changes |= {"latitude": place.latitude, "longitude": place.longitude}
    if not changes:
        raise click.UsageError("Say what is to be changed, for example --name.")
    with open_session(data_dir) as session:
        changed = sites.change_site(session, _found(session, code).id, changes, now=clock.now())
    answer(_told(changed), f"Site {code} is so now.", as_json=as_json)


@site.command()
@click.argument("code")
@data_option
@json_option
def close(*, code: str, data_dir: str | None, as_json: bool) -> None:
    """Nothing is mounted there any more; its readings stay. Safe to repeat.

    Example: fleet site close stadtpark-linde
    """
    with open_session(data_dir) as session:
        sites.close_site(session, _found(session, code).id, now=clock.now())
    answer({"code": code, "is_closed": True}, f"Site {code} is closed.", as_json=as_json)


@site.command()
@click.argument("code")
@data_option
@json_option
def reopen(*, code: str, data_dir: str | None, as_json: bool) -> None:
    """The site is in use again. Safe to repeat.

    Example: fleet site reopen stadtpark-linde
    """
    with open_session(data_dir) as session:
        sites.reopen_site(session, _found(session, code).id, now=clock.now())
    answer({"code": code, "is_closed": False}, f"Site {code} is open.", as_json=as_json)


@site.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--crs", help="Coordinate system, like EPSG:25832. [default: what the file says]")
@click.option(
    "--map",
    "mapping",
    type=_Mapping(),
    multiple=True,
    help="Which column is what, like code=Baumnr; repeat for several. [default: by their names]",
)
@click.option("--kind", type=click.Choice(list(sites.KINDS)), help="Of all rows.")
@click.option("--layer", help="Of a GeoPackage that holds several.")
@click.option("--public", "is_public", is_flag=True, help="Show new ones to everybody.")
@click.option("--dry-run", is_flag=True, help="Only say what would happen.")
@data_option
@json_option
def import_sites(
    *,
    file: Path,
    crs: str | None,
    mapping: tuple[tuple[str, str], ...],
    kind: str | None,
    layer: str | None,
    is_public: bool,
    dry_run: bool,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Make and change sites as FILE (CSV, GeoJSON, GeoPackage) says. Rows that are wrong are told and left out: exit 1.

    Example: fleet site import baeume.csv --crs EPSG:25832 --map code=Baumnr --kind tree --dry-run
    """
    if file.stat().st_size > LARGEST_FILE_BYTES:
        raise Invalid(f"{file} has more than {LARGEST_FILE_BYTES // 1024**2} MB; split it.")
    data = file.read_bytes()
    table = read_table(data, layer=layer)
    rules = site_importing.make_rules(
        table, crs=crs, columns=dict(mapping), kind=kind, is_public=is_public
    )
    with open_session(data_dir) as session:
        now = clock.now()
        if dry_run:
            plan = site_importing.plan_import(session, table, rules, now=now)
        else:
            site_importing.keep_file(data, store=open_store(settings_of(data_dir).files_url))
            plan = site_importing.import_sites(session, table, rules, data=data, now=now)
    _report(plan, rules, dry_run=dry_run, as_json=as_json)
    sys.exit(1 if plan.wrong else 0)


def _report(plan: ImportPlan, rules: ImportRules, *, dry_run: bool, as_json: bool) -> None:
    fields = {
        **plan.counts,
        "dry_run": dry_run,
        "crs": f"EPSG:{rules.epsg}",
        "columns": dict(rules.columns),
        "wrong_rows": [
            {"row": row.number, "code": row.code, "sentence": row.sentence} for row in plan.wrong
        ],
    }
    lines = list(site_importing.describe(plan))
    if dry_run:
        lines.append("Nothing was changed; without --dry-run it is.")
    answer(fields, "\n".join(lines), as_json=as_json)


def _found(session: Session, code: str) -> Site:
    found = sites.find_site(session, code)
    if found is None:
        raise NotFound(f"There is no site {code}; `fleet site list` shows them all.")
    return found
