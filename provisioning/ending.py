"""How a command of `provision` ends: with an exit code, and with one sentence for whatever a person can cause."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from fleet_server.wire.errors import RepositoryWrong
from hardware.data_files import CatalogueError
from hardware.virtual_board.unavailable import VmUnavailable
from provisioning.errors import BenchError, UsedWrongly


def run_to_its_end(
    command: click.Command, arguments: Sequence[str] | None, *, name: str
) -> NoReturn:
    """Run a command; what a person can cause ends in one sentence and exit 1, wrong use in exit 2."""
    try:
        status = command.main(arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except (BenchError, CatalogueError, RepositoryWrong, VmUnavailable) as problem:
        click.echo(f"provision: {problem}", err=True)
        sys.exit(2 if isinstance(problem, UsedWrongly) else 1)
    except UnicodeEncodeError:
        click.echo("provision: What was typed is no text in UTF-8.", err=True)
        sys.exit(2)
    except OSError as problem:
        # Only this is the machine's: rights, a full disk, a read-only folder.
        if problem.filename is None and problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = problem.filename or "A file"
        click.echo(f"provision: {what} cannot be used: {problem.strerror}.", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
