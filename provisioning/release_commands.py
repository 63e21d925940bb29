"""`provision release …`: from the sources to a signed release at the server. Who may sign is in `release_root_commands`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import click

from hardware.catalogue import node_model_ids
from provisioning.board_options import json_option
from provisioning.errors import UsedWrongly
from provisioning.progress import tell
from provisioning.release_options import ask_secret, folder_option, key_option, new_passphrase

_LAST_UTC_S = 2**32 - 1


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def release() -> None:
    """Releases of the firmware: make keys, build, sign, check and publish; and who may sign what.

    Example: provision release build --version 0.7.0 --counter 7 --support-until 2031-12-31
    """


@release.command()
@click.argument("holder")
@click.option(
    "--type",
    "kind",
    type=click.Choice(("rsa", "ecdsa", "ed25519")),
    default="ecdsa",
    show_default=True,
    help="RSA has 3072 bits and is quickest to verify; a node checks ECDSA P-256 with half the memory.",
)
@click.option(
    "--keys",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for the card and the key; this one when not given.",
)
@click.option(
    "--uri",
    help="The key is in a token or a key service: its address for securesystemslib, like hsm:2?label=YubiKey+PIV or gcpkms:….",
)
@click.option(
    "--public-key",
    "public_key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="With --uri: its public key in PEM; that of a PKCS#11 token (hsm:) is read from it.",
)
@json_option
def keygen(
    holder: str, kind: str, folder: Path, uri: str | None, public_key: Path | None, as_json: bool
) -> None:
    """Make a key that signs releases: HOLDER.pub, the card that others get, and HOLDER.key, encrypted.

    The passphrase is asked for, or taken from PROVISION_KEY_PASSPHRASE. Root keys belong on media of their own, offline.

    Example: provision release keygen anna --keys /media/anna
    """
    from provisioning.release_keys import card_in_token, card_of_token, make_key, write_card

    if uri is None and public_key is not None:
        raise UsedWrongly("--public-key goes with --uri.")
    if uri is not None and public_key is None:
        card, private_key, passphrase = card_in_token(holder, uri, ask_secret), None, ""
    elif uri is not None and public_key is not None:
        try:
            pem = public_key.read_bytes()
        except OSError as error:
            raise UsedWrongly(f"{public_key} cannot be read: {error.strerror}.") from error
        card, private_key, passphrase = card_of_token(holder, uri, pem), None, ""
    else:
        card, private_key = make_key(kind, holder)
        passphrase = new_passphrase()
    path = write_card(card, folder, private_key, passphrase)
    if as_json:
        made = {"event": "key_made", "holder": card.holder, "keyid": card.keyid, "card": str(path)}
        click.echo(json.dumps(made))
    else:
        click.echo(f"{path} is the card to give away; its key is {card.keyid[:12]}.")


@release.command()
@folder_option
@click.option("--version", "version", required=True, help="Like 0.7.0; a release never changes.")
@click.option(
    "--counter",
    type=click.IntRange(1, _LAST_UTC_S),
    required=True,
    help="Higher than that of every release before.",
)
@click.option(
    "--support-until",
    type=click.DateTime(["%Y-%m-%d"]),
    required=True,
    help="Day until which security updates are made for it.",
)
@click.option("--model", "models", multiple=True, help="Node model; all of them when not given.")
@click.option(
    "--date",
    "built_utc_s",
    type=click.IntRange(0, _LAST_UTC_S),
    metavar="UTC_S",
    help="Build date, seconds since 1970, the floor of the nodes' clocks; now when not given. The same date gives the same bytes.",
)
@click.option("--notes", default="", help="What is new, at most 500 bytes.")
@click.option(
    "--allow-downgrade", is_flag=True, help="Nodes with a higher counter may take it: a way back."
)
@click.option(
    "--image",
    "image_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A whole MicroPython that the release brings: its app image (.app-bin). Not tried on hardware.",
)
@click.option(
    "--sources",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the firmware; ours when not given.",
)
@json_option
def build(
    *,
    folder: Path,
    version: str,
    counter: int,
    support_until: datetime,
    models: tuple[str, ...],
    built_utc_s: int | None,
    notes: str,
    allow_downgrade: bool,
    image_file: Path | None,
    sources: Path | None,
    as_json: bool,
) -> None:
    """Compile a release: a manifest and a parts list (CycloneDX) for each node model, and the files. Nothing is signed.

    With --image nodes first change to that MicroPython, and take the files once they were heard under it.

    Example: provision release build --version 0.7.0 --counter 7 --support-until 2031-12-31
    """
    from fleet_server.wire.app_image import dotted
    from provisioning.release_building import Build, build_release
    from provisioning.release_folder import ReleaseFolder

    tell("Compiling the firmware …")
    wanted = Build(
        version=version,
        counter=counter,
        built_utc_s=int(time.time()) if built_utc_s is None else built_utc_s,
        support_until=date(support_until.year, support_until.month, support_until.day),
        notes=notes,
        allow_downgrade=allow_downgrade,
        image=None if image_file is None else _image(image_file),
    )
    made = build_release(ReleaseFolder(folder), wanted, models or node_model_ids(), sources=sources)
    one = next(iter(made.values()))
    if as_json:
        content = {
            "event": "built",
            "version": version,
            "counter": counter,
            "models": list(made),
            "files": len(one.files),
            "slot_bytes": one.size_bytes,
            "bundle_sha256": one.bundle_sha256,
            "image": None
            if one.image is None
            else {
                "micropython": dotted(one.image.micropython),
                "bytes": one.image.size_bytes,
                "sha256": one.image.sha256.hex(),
            },
        }
        click.echo(json.dumps(content))
    else:
        click.echo(
            f"{version} for {', '.join(made)}: {len(one.files)} files, {one.size_bytes} bytes, bundle {one.bundle_sha256[:12]}."
            " Sign it with provision release sign."
        )
        if one.image is not None:
            click.echo(
                f"It brings MicroPython {dotted(one.image.micropython)}, {one.image.size_bytes} bytes. That nodes change their MicroPython"
                " was tried on the virtual board only, not on hardware."
            )


def _image(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsedWrongly(f"The image {path} cannot be read: {error.strerror}.") from error


@release.command()
@folder_option
@click.argument("version")
@key_option
@click.option("--model", "models", multiple=True, help="Only for these node models.")
@click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="Good for so long."
)
@click.option(
    "--withdraw", is_flag=True, help="Take the release out: nodes are not told to run it any more."
)
@json_option
def sign(
    *,
    folder: Path,
    version: str,
    key: Path,
    models: tuple[str, ...],
    days: int,
    withdraw: bool,
    as_json: bool,
) -> None:
    """Sign a built release into the roles of its node models; several people one after the other where several have to.

    Example: provision release sign 0.7.0 --key /media/anna/anna.pub
    """
    from datetime import timedelta

    from provisioning.release_building import sign_release, withdraw_release
    from provisioning.release_ceremony import sign_drafts
    from provisioning.release_folder import ReleaseFolder
    from provisioning.release_keys import open_signer, read_card

    where, card = ReleaseFolder(folder), read_card(key)
    now, lifetime = datetime.now(UTC), timedelta(days=days)
    if withdraw:
        if not models:
            raise UsedWrongly("Say with --model for which node models the release is withdrawn.")
        for model in models:
            withdraw_release(where, model, version, now=now, lifetime=lifetime)
        standing = sign_drafts(where, card, lambda: open_signer(card, ask_secret), names=models)
    else:
        standing = sign_release(
            where,
            version,
            card,
            lambda: open_signer(card, ask_secret),
            models=models,
            now=now,
            lifetime=lifetime,
        )
    if as_json:
        content = {
            "event": "signed",
            "version": version,
            "missing": {one.name: one.missing for one in standing},
        }
        click.echo(json.dumps(content))
        return
    for one in standing:
        if one.missing:
            who = ", ".join(one.unsigned)
            click.echo(f"{one.name} {one.version}: {one.missing} more have to sign, of {who}.")
        else:
            click.echo(f"{one.name} {one.version} is signed.")


@release.command()
@folder_option
@click.option(
    "--manifest",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also compare with this manifest, which somebody else built.",
)
@json_option
def verify(folder: Path, manifest: Path | None, as_json: bool) -> None:
    """Check everything that a node and the server would check, and every file; says in one sentence what is wrong.

    Example: provision release verify --json
    """
    from provisioning.release_building import check_folder
    from provisioning.release_folder import ReleaseFolder

    where = ReleaseFolder(folder)
    checked = check_folder(where, now=datetime.now(UTC))
    if manifest is not None:
        _compare(manifest, checked.manifests)
    releases = [
        {
            "model": model,
            "version": version,
            "counter": one.counter,
            "bundle_sha256": one.bundle_sha256,
        }
        for (model, version), one in checked.manifests.items()
    ]
    if as_json:
        content = {
            "event": "verified",
            "root": checked.repository.root.signed.version,
            "targets": checked.repository.targets.signed.version,
            "releases": releases,
        }
        click.echo(json.dumps(content))
        return
    click.echo(
        f"Root {checked.repository.root.signed.version}, targets {checked.repository.targets.signed.version} and"
        f" {len(releases)} releases are as nodes want them."
    )


def _compare(path: Path, known: object) -> None:
    from fleet_server.wire.errors import WireError
    from fleet_server.wire.manifest import decode_manifest
    from provisioning.errors import BenchError

    try:
        told = decode_manifest(path.read_bytes())
    except OSError as error:
        raise UsedWrongly(f"{path} cannot be read: {error.strerror}.") from error
    except WireError as problem:
        raise UsedWrongly(f"{path}: {problem.sentence}") from problem
    assert isinstance(known, dict)  # noqa: S101 - ours
    if known.get((told.models[0], told.version)) != told:
        raise BenchError(
            f"{path} is not what was signed as {told.models[0]} {told.version}: other sources, date, counter or notes."
        )


@release.command()
@folder_option
@click.option("--server", required=True, help="Address of the fleet's pages: https://HOST.")
@click.option(
    "--server-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CA that its certificate comes from; the system's when not given.",
)
@click.option(
    "--api-key",
    envvar="PROVISION_API_KEY",
    required=True,
    help="An API key of a release author; better by PROVISION_API_KEY.",
)
@json_option
def publish(folder: Path, server: str, server_ca: Path | None, api_key: str, as_json: bool) -> None:
    """Send what is signed to the server, which checks all of it and takes all of it or nothing. Safe to repeat.

    Example: provision release publish --server https://fleet.example
    """
    from provisioning.publishing import Server, publish_folder
    from provisioning.release_folder import ReleaseFolder

    sent = publish_folder(
        ReleaseFolder(folder), Server(server, server_ca, api_key), now=datetime.now(UTC), say=tell
    )
    if as_json:
        click.echo(
            json.dumps(
                {"event": "published", "files": sent.files, "releases": _told(sent.releases)}
            )
        )
    elif sent.releases:
        click.echo(f"Published: {', '.join(' '.join(one) for one in sent.releases)}.")
    else:
        click.echo("The server has everything already." if not sent.metadata else "Published.")


def _told(releases: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"model": model, "version": version} for model, version in releases]
