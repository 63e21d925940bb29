"""`provision release root …`: who may sign releases. A ceremony: each change is a draft until as many have signed as have to."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hardware.catalogue import node_model_ids
from provisioning.board_options import json_option
from provisioning.errors import UsedWrongly
from provisioning.release_options import ask_secret, folder_option, key_option, new_passphrase

if TYPE_CHECKING:
    from provisioning.release_folder import ReleaseFolder
    from provisioning.release_keys import KeyCard

_CARD = click.Path(dir_okay=False, path_type=Path)
days_option = click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Good for so long."
)
online_option = click.option(
    "--online",
    required=True,
    type=_CARD,
    help="The server's own keys, as `fleet release keys --json` prints them.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """Who may sign: the root's keys, those of each node model, and the server's.

    A change is a draft in the folder. Each key holder takes the folder, looks (status), signs (sign) and hands it on; when as many
    have signed as have to, the draft takes effect. ROLE is root, targets, snapshot, timestamp or a node model.

    Example: provision release root status
    """


@root.command()
@folder_option
@click.option(
    "--root-key",
    "root_keys",
    multiple=True,
    required=True,
    type=_CARD,
    help="Card of a key holder; several.",
)
@click.option(
    "--root-threshold",
    type=click.IntRange(2, 20),
    default=2,
    show_default=True,
    help="So many of them have to sign.",
)
@click.option(
    "--targets-key",
    "targets_keys",
    multiple=True,
    required=True,
    type=_CARD,
    help="Card of who says who signs for which node model.",
)
@click.option("--targets-threshold", type=click.IntRange(1, 20), default=1, show_default=True)
@click.option(
    "--release-key",
    "release_keys",
    multiple=True,
    required=True,
    type=_CARD,
    help="Card of a release author.",
)
@click.option("--release-threshold", type=click.IntRange(1, 20), default=1, show_default=True)
@click.option(
    "--model", "models", multiple=True, help="Node model that gets a role; all when not given."
)
@online_option
@days_option
@json_option
def init(
    *,
    folder: Path,
    root_keys: tuple[Path, ...],
    root_threshold: int,
    targets_keys: tuple[Path, ...],
    targets_threshold: int,
    release_keys: tuple[Path, ...],
    release_threshold: int,
    models: tuple[str, ...],
    online: Path,
    days: int,
    as_json: bool,
) -> None:
    """Begin a repository: draft the first root and the first targets.

    Example: provision release root init --root-key anna.pub --root-key bert.pub --targets-key cora.pub --release-key cora.pub
    --online server.json
    """
    from provisioning.release_ceremony import Signatories, begin
    from provisioning.release_folder import ReleaseFolder
    from provisioning.release_keys import read_card

    where = ReleaseFolder(folder)
    signatories = {
        "root": Signatories([read_card(path) for path in root_keys], root_threshold),
        "targets": Signatories([read_card(path) for path in targets_keys], targets_threshold),
    }
    signatories |= {name: Signatories([card], 1) for name, card in _online(online).items()}
    authors = Signatories([read_card(path) for path in release_keys], release_threshold)
    begin(
        where,
        signatories,
        dict.fromkeys(models or node_model_ids(), authors),
        now=datetime.now(UTC),
        lifetime=timedelta(days=days),
    )
    _show(where, as_json=as_json)


@root.command()
@folder_option
@click.option(
    "--keys",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for all keys.",
)
@online_option
@click.option(
    "--type",
    "kind",
    type=click.Choice(("rsa", "ecdsa", "ed25519")),
    default="ecdsa",
    show_default=True,
)
@days_option
@click.option(
    "--now",
    "now_utc_s",
    type=click.IntRange(0, 2**32 - 1),
    metavar="UTC_S",
    help="Time of day of a demo whose clock is another.",
)
@click.option(
    "--with-release", is_flag=True, help="Also build and sign the firmware that is here, once."
)
@json_option
def trial(
    *,
    folder: Path,
    keys: Path,
    online: Path,
    kind: str,
    days: int,
    now_utc_s: int | None,
    with_release: bool,
    as_json: bool,
) -> None:
    """A whole repository at once, for a trial and never for a city: all keys in one folder, under one passphrase. Safe to repeat.

    Example: provision release root trial --keys trial-keys --online server.json
    """
    from provisioning.release_folder import ReleaseFolder
    from provisioning.release_trial import Trial

    where = ReleaseFolder(folder)
    made = Trial(
        where,
        keys,
        passphrase=new_passphrase(),
        kind=kind,
        now=datetime.now(UTC) if now_utc_s is None else datetime.fromtimestamp(now_utc_s, UTC),
        lifetime=timedelta(days=days),
    )
    made.begin(_online(online))
    if with_release:
        made.release_once()
    _show(where, as_json=as_json)


@root.command()
@folder_option
@key_option
@click.option("--yes", is_flag=True, help="Do not ask whether that is what you want to sign.")
@json_option
def sign(folder: Path, key: Path, yes: bool, as_json: bool) -> None:
    """Sign every draft that this key counts for, after showing what each would change.

    Example: provision release root sign --key /media/anna/anna.pub
    """
    from provisioning.release_ceremony import describe, sign_drafts
    from provisioning.release_folder import ReleaseFolder
    from provisioning.release_keys import open_signer, read_card

    where, card = ReleaseFolder(folder), read_card(key)
    where.check_begun()
    for name in where.drafts():
        for line in describe(where, name):
            click.echo(line, err=True)
    if not yes and not as_json:
        click.confirm("Is that what you want to sign?", abort=True, err=True)
    sign_drafts(where, card, lambda: open_signer(card, ask_secret))
    _show(where, as_json=as_json)


@root.command()
@folder_option
@json_option
def status(folder: Path, as_json: bool) -> None:
    """What is in effect and until when, what waits, and whose signatures are missing.

    Example: provision release root status
    """
    from provisioning.release_folder import ReleaseFolder

    where = ReleaseFolder(folder)
    where.check_begun()
    _show(where, as_json=as_json)


@root.command()
@folder_option
@click.argument("role")
@click.argument("card", type=_CARD)
@json_option
def add(folder: Path, role: str, card: Path, as_json: bool) -> None:
    """One more key may sign for ROLE.

    Example: provision release root add root dora.pub
    """
    from provisioning.release_ceremony import add_key
    from provisioning.release_keys import read_card

    new = read_card(card)
    _change(folder, lambda where, now: add_key(where, role, new, now=now), as_json=as_json)


@root.command()
@folder_option
@click.argument("role")
@click.argument("key_id", metavar="KEY")
@json_option
def remove(folder: Path, role: str, key_id: str, as_json: bool) -> None:
    """A key, named by its holder or the beginning of its id, signs for ROLE no more.

    Example: provision release root remove tree-3 bert
    """
    from provisioning.release_ceremony import remove_key

    _change(folder, lambda where, now: remove_key(where, role, key_id, now=now), as_json=as_json)


@root.command()
@folder_option
@click.argument("role")
@click.argument("key_id", metavar="KEY")
@click.argument("card", type=_CARD)
@json_option
def replace(folder: Path, role: str, key_id: str, card: Path, as_json: bool) -> None:
    """Another key signs for ROLE in the place of one: lost, stolen, or its holder has left.

    Example: provision release root replace root bert dora.pub
    """
    from provisioning.release_ceremony import replace_key
    from provisioning.release_keys import read_card

    new = read_card(card)
    _change(
        folder, lambda where, now: replace_key(where, role, key_id, new, now=now), as_json=as_json
    )


@root.command()
@folder_option
@click.argument("role")
@click.argument("number", type=click.IntRange(1, 20))
@json_option
def threshold(folder: Path, role: str, number: int, as_json: bool) -> None:
    """So many have to sign for ROLE from now on.

    Example: provision release root threshold tree-3 2
    """
    from provisioning.release_ceremony import set_threshold

    _change(folder, lambda where, now: set_threshold(where, role, number, now=now), as_json=as_json)


@root.command()
@folder_option
@click.argument("keys", type=_CARD)
@json_option
def online(folder: Path, keys: Path, as_json: bool) -> None:
    """The server has other keys for snapshot and timestamp, as `fleet release keys --json` prints them.

    Example: provision release root online server.json
    """
    from provisioning.release_ceremony import set_online

    cards = _online(keys)
    _change(folder, lambda where, now: set_online(where, cards, now=now), as_json=as_json)


@root.command()
@folder_option
@click.argument("role")
@days_option
@json_option
def renew(folder: Path, role: str, days: int, as_json: bool) -> None:
    """A new version of ROLE, good until later, with nothing else changed.

    Example: provision release root renew targets
    """
    from provisioning import release_ceremony

    lifetime = timedelta(days=days)
    _change(
        folder,
        lambda where, now: release_ceremony.renew(where, role, now=now, lifetime=lifetime),
        as_json=as_json,
    )


@root.command()
@folder_option
@click.argument("role")
@json_option
def discard(folder: Path, role: str, as_json: bool) -> None:
    """Drop the draft of ROLE with its signatures.

    Example: provision release root discard targets
    """
    from provisioning import release_ceremony

    _change(folder, lambda where, _now: release_ceremony.discard(where, role), as_json=as_json)


def _change(
    folder: Path, change: Callable[[ReleaseFolder, datetime], None], *, as_json: bool
) -> None:
    from provisioning.release_folder import ReleaseFolder

    where = ReleaseFolder(folder)
    change(where, datetime.now(UTC))
    _show(where, as_json=as_json)


def _online(path: Path) -> dict[str, KeyCard]:
    """The server's cards by role. Raises UsedWrongly: the file holds something else."""
    from provisioning.release_keys import card_from

    try:
        content: Any = json.loads(path.read_bytes())
        return {
            name: card_from(content[name], what=f"{path}, {name}")
            for name in ("snapshot", "timestamp")
        }
    except OSError as error:
        raise UsedWrongly(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsedWrongly(
            f"{path} does not hold the server's keys; `fleet release keys --json` prints them."
        ) from error


def _show(folder: ReleaseFolder, *, as_json: bool) -> None:
    """Everything that stands and waits."""
    from provisioning.release_ceremony import describe, standing, waiting

    waits = waiting(folder)
    now = datetime.now(UTC)
    if as_json:
        content = {
            "event": "status",
            "signed": {name: folder.versions(name)[-1:] for name in ("root", "targets")},
            "drafts": [
                {
                    "role": one.name,
                    "version": one.version,
                    "missing": one.missing,
                    "signed": list(one.signed),
                    "unsigned": list(one.unsigned),
                }
                for one in waits
            ],
        }
        click.echo(json.dumps(content))
        return
    for line in standing(folder, now=now):
        click.echo(line)
    for one in waits:
        for line in describe(folder, one.name):
            click.echo(line)
        said = f"  signed by {', '.join(one.signed)}" if one.signed else "  signed by nobody yet"
        missing = (
            f"{one.missing} more of {', '.join(one.unsigned)}"
            if one.missing
            else "nothing missing; it waits for what stands above it"
        )
        click.echo(f"{said}; {missing}.")
