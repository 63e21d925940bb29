"""Options and questions that the commands around releases share."""

from __future__ import annotations

import os
from pathlib import Path

import click

from provisioning.errors import UsedWrongly

PASSPHRASE_VARIABLE = "PROVISION_KEY_PASSPHRASE"  # noqa: S105 - where one is, not one

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("releases"),
    show_default=True,
    help="Folder in which the repository of releases grows.",
)
key_option = click.option(
    "--key",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Card of the key to sign with; the key lies beside it, or the card says which token has it.",
)


def ask_secret(what: str) -> str:
    """A passphrase or PIN: from the environment, else from the person at the terminal."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is not None:
        return given
    return str(click.prompt(what[:1].upper() + what[1:], hide_input=True, err=True))


def new_passphrase() -> str:
    """A passphrase for a new key, typed twice. Raises UsedWrongly: too short, or not the same twice."""
    from provisioning.release_keys import LEAST_PASSPHRASE

    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None:
        given = click.prompt("Passphrase of the new key", hide_input=True, err=True)
        if click.prompt("Once more", hide_input=True, err=True) != given:
            raise UsedWrongly("These were two different passphrases.")
    if len(given) < LEAST_PASSPHRASE:
        raise UsedWrongly(
            f"A passphrase has at least {LEAST_PASSPHRASE} characters; four random words are good."
        )
    return str(given)
