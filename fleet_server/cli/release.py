"""`fleet release`: signed versions of the firmware, from the server's side. They are made with `provision release`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from fleet_server import clock
from fleet_server.cli.answers import answer, data_option, json_option
from fleet_server.cli.database import open_session, settings_of
from fleet_server.cli.named_nodes import moment_text
from fleet_server.errors import Invalid
from fleet_server.services import key_files, online_keys, release_repository, releases
from fleet_server.services.keyset import Key, Page
from fleet_server.services.release_repository import RoleState
from fleet_server.services.releases import ReleaseFilter, ReleaseLine, RunningNode

_AT_ONCE = 200
_T = TypeVar("_T")


@click.group()
def release() -> None:
    """Signed versions of the firmware: the server's keys, the root it trusts, what there is, and who runs it.

    Example: fleet release nodes --component micropython --versions "<1.27.1"
    """


@release.command()
@data_option
@json_option
def keys(data_dir: str | None, as_json: bool) -> None:
    """Make the server's own two keys where they are missing, and show their public halves for the root.

    Encrypted when FLEET_CA_PASSPHRASE is set.

    Example: fleet release keys --json > server.json
    """
    settings = settings_of(data_dir)
    key_files.unlock_with(settings.ca_key_passphrase)
    folder = settings.release_keys_dir
    online_keys.make_keys(folder, passphrase=settings.ca_key_passphrase())
    cards = online_keys.cards(folder)
    lines = [f"{role}: {card['keyid']}" for role, card in cards.items()]
    lines.append(
        "`fleet release keys --json` is what `provision release root init --online` wants."
    )
    answer(cards, "\n".join(lines), as_json=as_json)


@release.command()
@click.argument("root", type=click.Path(dir_okay=False, path_type=Path))
@data_option
@json_option
def trust(root: Path, data_dir: str | None, as_json: bool) -> None:
    """Begin with this root, which you were given by hand by those who hold its keys; later ones come signed by the one before.

    Example: fleet release trust 1.root.json
    """
    try:
        data = root.read_bytes()
    except OSError as problem:
        raise Invalid(f"{root} cannot be read: {problem.strerror}.") from problem
    settings = settings_of(data_dir)
    with open_session(data_dir) as session:
        version = release_repository.trust_root(
            session, data, settings.release_keys_dir, now=clock.now()
        )
    answer({"root": version}, f"Root {version} is trusted.", as_json=as_json)


@release.command()
@data_option
@json_option
def status(data_dir: str | None, as_json: bool) -> None:
    """Who signs what, and until when it is good.

    Example: fleet release status
    """
    with open_session(data_dir) as session:
        states = release_repository.role_states(session)
    fields = [
        {
            "role": state.role,
            "version": state.version,
            "expires_at": moment_text(state.expires_at),
            "threshold": state.threshold,
            "signed_by": [one.holder or one.keyid for one in state.signatures if one.has_signed],
        }
        for state in states
    ]
    lines = [_line_of(state) for state in states]
    nothing = "There are no releases; see docs/operator/releases.md."
    answer({"roles": fields}, "\n".join(lines) or nothing, as_json=as_json)


def _line_of(state: RoleState) -> str:
    signed = [one.holder or one.keyid[:12] for one in state.signatures if one.has_signed]
    return f"{state.role:12} {state.version:5}  until {moment_text(state.expires_at)}  signed by {', '.join(signed)}"


@release.command(name="list")
@click.option("--model", help="Only for this node model.")
@data_option
@json_option
def list_releases(model: str | None, data_dir: str | None, as_json: bool) -> None:
    """Releases, newest first.

    Example: fleet release list --model tree-3
    """
    wanted = ReleaseFilter(model=model)
    with open_session(data_dir) as session:
        found: list[ReleaseLine] = _all(
            lambda after: releases.release_page(session, wanted, limit=_AT_ONCE, after=after)
        )
        fields = [
            {
                "id": one.release.id,
                "model": one.release.model,
                "version": one.release.version,
                "counter": one.release.counter,
                "micropython": one.release.image_micropython,
                "support_until": f"{one.release.support_until:%Y-%m-%d}",
                "is_withdrawn": one.release.withdrawn_at is not None,
                "nodes": one.nodes,
            }
            for one in found
        ]
    lines = [
        f"{one['model']:12} {one['version']:12} counter {one['counter']}, support until {one['support_until']},"
        f" {one['nodes']} nodes{_brought(one['micropython'])}{', withdrawn' if one['is_withdrawn'] else ''}"
        for one in fields
    ]
    answer({"releases": fields}, "\n".join(lines) or "There is no release.", as_json=as_json)


def _brought(micropython: object) -> str:
    return (
        "" if micropython is None else f", with MicroPython {micropython} (not tried on hardware)"
    )


@release.command()
@click.option(
    "--component", help="A part, like micropython; the firmware itself when nothing is named."
)
@click.option("--purl", help="A part as a package URL, like pkg:github/micropython/micropython.")
@click.option("--versions", default="", help="A range of its versions, like <1.27.1.")
@click.option("--model", help="Only nodes of this model.")
@data_option
@json_option
def nodes(
    *,
    component: str | None,
    purl: str | None,
    versions: str,
    model: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Which nodes run a version with this part: whom a vulnerability concerns.

    Example: fleet release nodes --component micropython --versions "<1.27.1"
    """
    wanted = ReleaseFilter(model=model, component=component, purl=purl, versions=versions)
    with open_session(data_dir) as session:
        found: list[RunningNode] = _all(
            lambda after: releases.nodes_with(session, wanted, limit=_AT_ONCE, after=after)
        )
    lines = [
        f"{one.node_id:12} {one.label:20} {one.model:12} {one.version:12} {one.component} {one.component_version}"
        for one in found
    ]
    answer(
        {"nodes": [vars(one) for one in found]},
        "\n".join(lines) or "No node runs such a version.",
        as_json=as_json,
    )


def _all(page_after: Callable[[Key | None], Page[_T]]) -> list[_T]:
    found: list[_T] = []
    after = None
    while True:
        page = page_after(after)
        found += page.items
        after = page.next_key
        if after is None:
            return found
