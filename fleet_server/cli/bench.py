"""`fleet bench`: figures beside their limits, measured in the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fleet_server.bench import board as board_bench
from fleet_server.bench import campaign as campaign_bench
from fleet_server.bench import ingest as ingest_bench
from fleet_server.bench import nodes as nodes_bench
from fleet_server.bench import recompute as recompute_bench
from fleet_server.bench import report
from fleet_server.bench import storm as storm_bench
from fleet_server.bench import uncertainty as uncertainty_bench
from fleet_server.cli.answers import FiniteRange, json_option
from fleet_server.errors import NotFound
from fleet_server.settings import check_database_url


@click.group()
def bench() -> None:
    """Measure speed and memory against their limits.

    Example: fleet bench ingest --json
    """


@bench.command()
@click.option("--packs", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True)
@click.option("--nodes", type=click.IntRange(1, 64), default=12, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 25), default=3, show_default=True)
@click.option(
    "--broker", type=click.Choice(["embedded", "mosquitto"]), default="embedded", show_default=True
)
@click.option(
    "--database-url", help="An empty PostgreSQL database; SQLite in a scratch folder otherwise."
)
@json_option
def ingest(
    *,
    packs: int,
    nodes: int,
    rounds: int,
    broker: str,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Packs stored per second, beside a bare MQTT drain that only acknowledges.

    Example: fleet bench ingest --packs 20000 --broker mosquitto --database-url postgresql+psycopg://fleet@localhost/bench
    """
    _check_database_url(database_url)
    _show(
        ingest_bench.measure(
            packs=packs, nodes=nodes, rounds=rounds, broker=broker, database_url=database_url
        ),
        as_json=as_json,
    )


@bench.command()
@click.option("--seconds", type=FiniteRange(1, 300), default=20.0, show_default=True)
@click.option("--nodes", type=click.IntRange(10, 2000), default=200, show_default=True)
@json_option
def board(*, seconds: float, nodes: int, as_json: bool) -> None:
    """Boots of a virtual node per second, beside bare starts of the virtual machine; memory per node; time per signature.

    Example: fleet bench board --json
    """
    _show(board_bench.measure(seconds=seconds, nodes=nodes), as_json=as_json)


@bench.command()
@click.option("--nodes", type=click.IntRange(100, 1_000_000), default=100_000, show_default=True)
@click.option("--rounds", type=click.IntRange(2, 100), default=10, show_default=True)
@click.option(
    "--database-url", help="An empty PostgreSQL database; SQLite in a scratch folder otherwise."
)
@json_option
def nodes(*, nodes: int, rounds: int, database_url: str | None, as_json: bool) -> None:
    """Filtered lists of very many nodes per second, beside an address that looks nothing up; a node's page.

    Example: fleet bench nodes --nodes 100000 --json
    """
    _check_database_url(database_url)
    _show(
        nodes_bench.measure(nodes=nodes, rounds=rounds, database_url=database_url), as_json=as_json
    )


@bench.command()
@click.option("--nodes", type=click.IntRange(1, 20_000), default=5000, show_default=True)
@click.option(
    "--broker", type=click.Choice(["embedded", "mosquitto"]), default="embedded", show_default=True
)
@json_option
def storm(*, nodes: int, broker: str, as_json: bool) -> None:
    """Nodes that all connect at once: how many per second are through, beside bare TLS handshakes.

    Example: fleet bench storm --nodes 5000 --broker mosquitto
    """
    _show(storm_bench.measure(nodes=nodes, broker=broker), as_json=as_json)


@bench.command()
@click.option("--nodes", type=click.IntRange(100, 100_000), default=10_000, show_default=True)
@click.option("--rounds", type=click.IntRange(2, 1000), default=30, show_default=True)
@click.option(
    "--database-url", help="An empty PostgreSQL database; SQLite in a scratch folder otherwise."
)
@json_option
def campaign(*, nodes: int, rounds: int, database_url: str | None, as_json: bool) -> None:
    """Nodes a second that a campaign is planned for, beside bare rows; its page; telling all of them and hearing of all.

    Example: fleet bench campaign --nodes 10000 --json
    """
    _check_database_url(database_url)
    _show(
        campaign_bench.measure(nodes=nodes, rounds=rounds, database_url=database_url),
        as_json=as_json,
    )


@bench.command()
@click.option("--rows", type=click.IntRange(1000, 20_000_000), default=500_000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 25), default=3, show_default=True)
@click.option(
    "--database-url", help="An empty PostgreSQL database; SQLite in a scratch folder otherwise."
)
@json_option
def recompute(*, rows: int, rounds: int, database_url: str | None, as_json: bool) -> None:
    """Values per second that a revision makes anew, beside bare reading and writing of the same rows.

    Example: fleet bench recompute --rows 10000000 --rounds 1
    """
    _check_database_url(database_url)
    _show(
        recompute_bench.measure(rows=rows, rounds=rounds, database_url=database_url),
        as_json=as_json,
    )


@bench.command()
@click.option("--runs", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@json_option
def uncertainty(*, runs: int, seed: int, as_json: bool) -> None:
    """Published quantities that are as sure as they say, beside how many there are: simulated truth, so many runs for each.

    A value holds what it says when 93.5 to 96.5 % of true values lie within the 95 % that its budget promises (`factor_95`), at least 93.5 %
    within k = 2, and u is at most 1.3 times what values scatter.

    Example: fleet bench uncertainty --runs 20000 --json
    """
    figures = uncertainty_bench.measure(runs=runs, seed=seed)
    if not as_json:
        rows = figures.pop("rows")
        click.echo("\n".join(report.as_lines(rows)) + "\n")
    _show(figures, as_json=as_json)


@bench.command(name="all")
@click.option("--markdown", "markdown", is_flag=True, help="Write docs/benchmarks.md.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs/benchmarks.md"),
    show_default=True,
)
@click.option(
    "--database-url",
    help="An empty PostgreSQL database: ingest is measured with mosquitto and it too.",
)
@json_option
def everything(*, markdown: bool, output: Path, database_url: str | None, as_json: bool) -> None:
    """Every benchmark at its default size, one after the other.

    Example: fleet bench all --markdown
    """
    _check_database_url(database_url)
    if markdown and not output.parent.is_dir():
        raise NotFound(f"There is no folder {output.parent} to write {output.name} to.")
    figures = {
        "board": board_bench.measure(),
        "campaign": campaign_bench.measure(),
        "ingest": ingest_bench.measure(),
        "nodes": nodes_bench.measure(),
        "recompute": recompute_bench.measure(),
        "storm": storm_bench.measure(),
        "uncertainty": uncertainty_bench.measure(),
    }
    if database_url is not None:
        figures["ingest, real servers"] = ingest_bench.measure(
            broker="mosquitto", database_url=database_url
        )
    if markdown:
        output.write_text(report.as_markdown(figures), encoding="utf-8")
        click.echo(f"Wrote {output}.", err=True)
    if as_json:
        click.echo(json.dumps(figures))
    elif not markdown:
        click.echo(report.as_markdown(figures))


def _check_database_url(database_url: str | None) -> None:
    """Before anything is measured for minutes."""
    if database_url is not None:
        check_database_url(database_url)


def _show(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, figure in figures.items():
        click.echo(f"{name:28} {figure}")
