"""Why a backup could not be made, with the parts apart: a revision waits for its backup, and its page says why in the reader's language.

What goes wrong at a restore only who types `fleet db restore` sees; that stands in `backups`.
"""

from __future__ import annotations

from pathlib import Path

from fleet_server.errors import Conflict, Invalid, Unavailable


class BackupWrong(Invalid):
    """This is no backup, or not one for this database."""

    code = "backup_wrong"


class BackupRunning(Conflict):
    """Two backups at once into one folder."""

    code = "backup_running"


def within_what_is_kept(into: Path, place: Path) -> BackupWrong:
    return BackupWrong(
        "%(folder)s is part of what is backed up; name a folder outside of %(place)s.",
        folder=str(into),
        place=str(place),
    )


def there_already(folder: Path) -> Conflict:
    return Conflict("%(folder)s is there already; wait a second.", folder=str(folder))


def not_writable(into: Path, problem: OSError) -> Unavailable:
    return Unavailable(
        "The backup cannot be written to %(folder)s: %(problem)s.",
        folder=str(into),
        problem=problem.strerror or type(problem).__name__,
    )


def running(folder: Path) -> BackupRunning:
    return BackupRunning(
        "Another backup is being made in %(folder)s; wait until it is done.", folder=str(folder)
    )


def program_failed(program: str, said: str) -> Unavailable:
    return Unavailable("%(program)s did not succeed: %(said)s", program=program, said=said)


def program_missing(program: str) -> Unavailable:
    return Unavailable(
        "%(program)s is not on this machine: install PostgreSQL's client programs (Debian: postgresql-client).",
        program=program,
    )
