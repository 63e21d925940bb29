"""`provision virtual …`, where virtual boards can be had: on Linux. Everything else of the bench runs without them."""

from __future__ import annotations

import click

from provisioning.errors import BenchError

ELSEWHERE = "Virtual boards run on Linux only; a board on a cable works here."


def virtual_command() -> click.Command:
    """The group of commands, or one command that says that there are none."""
    try:
        from provisioning.tuf_client_command import tuf_client
        from provisioning.virtual_commands import virtual
        from provisioning.virtual_serve import serve
    except ModuleNotFoundError as missing:
        if not is_of_unix(missing):
            raise
        return _nothing
    virtual.add_command(serve)
    virtual.add_command(tuf_client)
    return virtual


def is_of_unix(missing: ModuleNotFoundError) -> bool:
    """Whether what is missing is a part of Python that only Unix has."""
    return missing.name in ("fcntl", "termios", "tty", "pty", "resource")


@click.command("virtual", context_settings={"ignore_unknown_options": True})
@click.argument("anything", nargs=-1)
def _nothing(anything: tuple[str, ...]) -> None:
    """Boards made of software; on this computer there are none.

    Example: provision node --help
    """
    raise BenchError(ELSEWHERE)
