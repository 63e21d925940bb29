"""The `fleet` command: loads each sub-command only when it is asked for."""

from __future__ import annotations

import errno
import gc
import importlib
import sys
from types import ModuleType
from typing import NoReturn

import click

from fleet_server.errors import FleetError, Invalid

# name → (module:attribute, one-line help); the help stands here so that `fleet --help` imports nothing.
_COMMANDS = {
    "demo": ("fleet_server.cli.demo:demo", "The whole system on this machine, with virtual nodes."),
    "serve": ("fleet_server.cli.serve:serve", "Pages, feeds and API, and the nodes' TLS listener."),
    "ingest": ("fleet_server.cli.ingest:ingest", "Store what the nodes publish."),
    "worker": ("fleet_server.cli.worker:worker", "Send receipts and desired states to the nodes."),
    "db": ("fleet_server.cli.db:db", "Make or check the database."),
    "broker": (
        "fleet_server.cli.broker:broker",
        "Embedded broker, mosquitto's configuration, resync.",
    ),
    "ca": ("fleet_server.cli.ca:ca", "The fleet's own certificate authority."),
    "user": ("fleet_server.cli.user:user", "Local accounts, and what each may do."),
    "audit": ("fleet_server.cli.audit:audit", "Who did what, and whether the log is whole."),
    "token": ("fleet_server.cli.token:token", "Enrolment tokens."),
    "node": (
        "fleet_server.cli.node:node",
        "Nodes, sites, which node stands where, and what it shall do.",
    ),
    "alert": ("fleet_server.cli.alert:alert", "What calls for help, and who looks after it."),
    "site": ("fleet_server.cli.site:site", "Trees and waters, and files of them."),
    "group": ("fleet_server.cli.group:group", "Groups of nodes, and tags."),
    "config": (
        "fleet_server.cli.config:config",
        "What is wanted of many nodes, and changes on their way.",
    ),
    "release": (
        "fleet_server.cli.release:release",
        "Signed versions of the firmware, and who runs them.",
    ),
    "campaign": (
        "fleet_server.cli.campaign:campaign",
        "Updates on their way to the nodes, wave by wave.",
    ),
    "calibration": (
        "fleet_server.cli.calibration:calibration",
        "Calibrations of probes, and what they are against.",
    ),
    "uncertainty": (
        "fleet_server.cli.uncertainty:uncertainty",
        "What a value's uncertainty is made of.",
    ),
    "verify": (
        "fleet_server.cli.verify:verify",
        "Recompute everything from the packs as received.",
    ),
    "correction": (
        "fleet_server.cli.correction:correction",
        "What probes lost between two visits, put right.",
    ),
    "measurement": (
        "fleet_server.cli.measurement:measurement",
        "Other people's measurements: hand readings, laboratories, other networks.",
    ),
    "recompute": (
        "fleet_server.cli.recompute:recompute",
        "Make stored values anew, or prove every bit of them.",
    ),
    "flag": ("fleet_server.cli.flag:flag", "What persons say of values, and why one is flagged."),
    "rules": ("fleet_server.cli.rules:rules", "The limits that values are judged by."),
    "city": ("fleet_server.cli.city:city", "What the city decides on: states of trees and waters."),
    "convert": ("fleet_server.cli.convert:convert", "One formula at work."),
    "bench": ("fleet_server.cli.bench:bench", "Measure speed and memory against their limits."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command = getattr(_loaded(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - the table above is ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _loaded(module: str) -> ModuleType:
    """The module. Nothing that is made on the way becomes garbage: to search all of it again and again takes a sixth of the start."""
    gc.disable()
    try:
        loaded = importlib.import_module(module)
        gc.freeze()
    finally:
        gc.enable()
    return loaded


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stadtsensor", prog_name="fleet")
def fleet() -> None:
    """Stadtsensor's fleet server.

    Example: fleet demo --nodes 6 --days 1
    """


def main() -> NoReturn:
    """Run `fleet`; what a person can cause ends in one sentence and exit 1, wrong use in exit 2."""
    try:
        status = fleet.main(prog_name="fleet", standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except FleetError as problem:
        click.echo(f"fleet: {problem}", err=True)
        sys.exit(2 if isinstance(problem, Invalid) else 1)
    except UnicodeEncodeError:
        click.echo("fleet: What was typed is no text in UTF-8.", err=True)
        sys.exit(2)
    except Exception as problem:
        # Imported only now: `fleet --help` needs no database.
        from fleet_server import db
        from hardware.data_files import CatalogueError

        trouble = db.trouble_of(problem) or _trouble_with_a_file(problem)
        if isinstance(problem, CatalogueError):
            trouble = str(problem)
        if trouble is None:
            raise
        click.echo(f"fleet: {trouble}", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _trouble_with_a_file(problem: Exception) -> str | None:
    """A sentence when the machine denies a file or a folder (rights, full disk, read-only); None when it is something else."""
    if not isinstance(problem, OSError):
        return None
    if problem.filename is not None:
        return f"{problem.filename} cannot be used: {problem.strerror}."
    if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"A file cannot be written: {problem.strerror}."
    return None
