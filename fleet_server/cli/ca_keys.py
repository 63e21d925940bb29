"""`fleet ca status|lock|unlock` and `fleet ca root …`: where the authority's keys are, and how one root takes another's place."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import moment_text
from fleet_server.errors import Invalid
from fleet_server.services import authority, key_files, rolling_over
from fleet_server.services.authority_overview import Entry, overview
from fleet_server.services.rolling_over import RollOver
from fleet_server.settings import load_settings


class PassphraseWrong(Invalid):
    """A passphrase that protects nothing, or none at all."""

    code = "passphrase_wrong"


force_option = click.option(
    "--force", is_flag=True, help="Although nodes have not followed; says how many are left behind."
)
passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Its first line; else it is asked for.",
)


@click.command()
@data_option
@json_option
def status(data_dir: str | None, as_json: bool) -> None:
    """Every certificate and revocation list: where its key is, when it ends, what to do next.

    Example: fleet ca status
    """
    entries = overview(settings_of(data_dir).ca_dir, now=datetime.now(UTC))
    fields = {
        "entries": [
            {
                "name": entry.name,
                "file": str(entry.file),
                "key": entry.key,
                "ends_at": moment_text(entry.ends_at),
                "next_step": entry.next_step,
            }
            for entry in entries
        ]
    }
    answer(fields, "\n".join(map(_line, entries)), as_json=as_json)


@click.command()
@data_option
@passphrase_option
@json_option
def lock(data_dir: str | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Encrypt the keys that sign. From then on serve and worker want FLEET_CA_PASSPHRASE or FLEET_CA_PASSPHRASE_FILE.

    Example: fleet ca lock
    """
    passphrase = _new_passphrase(passphrase_file)
    paths = authority.lock_keys(settings_of(data_dir).ca_dir, passphrase)
    _answer_paths("Encrypted", paths, "Every key that signs is encrypted already.", as_json)


@click.command()
@data_option
@json_option
def unlock(data_dir: str | None, as_json: bool) -> None:
    """Write the keys that sign in the clear again.

    Example: fleet ca unlock
    """
    paths = authority.unlock_keys(settings_of(data_dir).ca_dir)
    _answer_paths("In the clear:", paths, "No key is encrypted.", as_json)


@click.group()
def root() -> None:
    """The root that every node trusts: its key leaves the machine, and another root may take its place.

    Example: fleet ca root export /media/stick/root.key
    """


@root.command()
@click.argument("file", type=click.Path(path_type=Path))
@data_option
@passphrase_option
@json_option
def export(file: Path, data_dir: str | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Write the root's key, encrypted, to FILE: a stick that goes into a safe. Then `fleet ca root remove FILE`.

    Example: fleet ca root export /media/stick/root.key
    """
    passphrase = _new_passphrase(passphrase_file)
    authority.export_root_key(settings_of(data_dir).ca_dir, file, passphrase)
    sentence = f"{file} holds the root's key, encrypted. Take it off this machine with `fleet ca root remove {file}`."
    answer({"file": str(file)}, sentence, as_json=as_json)


@root.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_option
@passphrase_option
@json_option
def remove(file: Path, data_dir: str | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Take the root's key off this machine, after FILE was opened and is the same key.

    Nothing but `fleet ca root switch` to a root after this one needs it again, and that wants the next one's only.

    Example: fleet ca root remove /media/stick/root.key
    """
    passphrase = _passphrase(passphrase_file)
    authority.remove_root_key(settings_of(data_dir).ca_dir, file, passphrase)
    answer({"file": str(file)}, "The root's key is not on this machine any more.", as_json=as_json)


@root.command(name="next")
@data_option
@json_option
def next_root(data_dir: str | None, as_json: bool) -> None:
    """Make the next root and tell every node of it: the first of three steps. Safe to repeat.

    Example: fleet ca root next
    """
    ca_dir = load_settings(data_dir=data_dir).ca_dir
    with open_session(data_dir) as session:
        name = rolling_over.begin(session, ca_dir, now=datetime.now(UTC))
        state = rolling_over.roll_over(session)
    _answer_roll_over(state, f"Every node is told of root {name} when it connects.", as_json)


@root.command()
@force_option
@data_option
@json_option
def switch(*, force: bool, data_dir: str | None, as_json: bool) -> None:
    """Let the broker's certificate come from the next root: the second step.

    Example: fleet ca root switch
    """
    ca_dir = load_settings(data_dir=data_dir).ca_dir
    with open_session(data_dir) as session:
        name = rolling_over.switch(session, ca_dir, now=datetime.now(UTC), force=force)
        state = rolling_over.roll_over(session)
    sentence = (
        f"Root {name} is the current one; take its key away with `fleet ca root export FILE`."
    )
    _answer_roll_over(state, sentence, as_json)


@root.command()
@force_option
@data_option
@json_option
def finish(*, force: bool, data_dir: str | None, as_json: bool) -> None:
    """Let the old root go: the last step.

    Example: fleet ca root finish
    """
    ca_dir = load_settings(data_dir=data_dir).ca_dir
    with open_session(data_dir) as session:
        name = rolling_over.finish(session, ca_dir, now=datetime.now(UTC), force=force)
        state = rolling_over.roll_over(session)
    _answer_roll_over(state, f"Root {name} was let go.", as_json)


@root.command(name="status")
@data_option
@json_option
def root_status(data_dir: str | None, as_json: bool) -> None:
    """How far a change of the root is, and which nodes have not followed.

    Example: fleet ca root status
    """
    with open_session(data_dir) as session:
        state = rolling_over.roll_over(session)
    _answer_roll_over(state, "", as_json)


def ask_if_person() -> None:
    """Where a person sits at a terminal, ask for the passphrase that no setting gives."""
    given = load_settings().ca_key_passphrase()
    if not given and sys.stdin.isatty():
        key_files.unlock_with(lambda: str(click.prompt("Passphrase", hide_input=True, err=True)))
    else:
        key_files.unlock_with(lambda: given)


def _line(entry: Entry) -> str:
    key = "" if entry.key is None else f", key {entry.key}"
    step = f" → {entry.next_step}" if entry.next_step else ""
    return f"{entry.name:22} until {entry.ends_at:%Y-%m-%d}{key}{step}"


def _passphrase(file: Path | None) -> str:
    if file is not None:
        return _first_line(file)
    return str(click.prompt("Passphrase", hide_input=True, err=True))


def _new_passphrase(file: Path | None) -> str:
    if file is not None:
        given = _first_line(file)
    else:
        given = str(
            click.prompt("New passphrase", hide_input=True, confirmation_prompt=True, err=True)
        )
    if len(given) < key_files.LEAST_LENGTH:
        raise PassphraseWrong(f"A passphrase has at least {key_files.LEAST_LENGTH} characters.")
    return given


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as problem:
        raise PassphraseWrong(f"{file} is no text that can be read.") from problem


def _answer_paths(verb: str, paths: Sequence[Path], otherwise: str, as_json: bool) -> None:
    names = [str(path) for path in paths]
    answer({"keys": names}, f"{verb} {', '.join(names)}." if names else otherwise, as_json=as_json)


def _answer_roll_over(state: RollOver, sentence: str, as_json: bool) -> None:
    fields = {
        "roots": [
            {"name": one.name, "state": one.state, "ends_at": moment_text(one.expires_at)}
            for one in state.roots
        ],
        "next_step": state.step,
        "nodes": state.nodes,
        "followed": state.followed,
        "missing": [
            {
                "node_id": one.node_id,
                "label": one.label,
                "last_heard_at": moment_text(one.last_heard_at),
            }
            for one in state.stragglers
        ],
    }
    lines = [sentence] if sentence else []
    if state.step is None:
        lines.append("No change of the root is under way.")
    else:
        lines.append(f"{state.followed} of {state.nodes} nodes have followed.")
        lines += [
            f"  {one.label} ({one.node_id}), heard {moment_text(one.last_heard_at) or 'never'}"
            for one in state.stragglers
        ]
        lines.append(f"Next: fleet ca root {state.step}")
    answer(fields, "\n".join(lines), as_json=as_json)
