"""From the sources to a signed release: build for each node model, sign into its role, check the whole.

The same sources, version, counter and date give the same bytes on every machine, so that a second person can build what a first one
signed and compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, TargetFile, Targets

from fleet_server.wire import app_image, signed_releases
from fleet_server.wire.errors import RepositoryWrong, WireError
from fleet_server.wire.manifest import (
    TARGET_SUFFIX,
    Image,
    Manifest,
    decode_manifest,
    encode_manifest,
    is_version,
    target_path,
)
from fleet_server.wire.signed_releases import SBOM_SUFFIX, TARGETS, delegated
from hardware.boards import load_board
from hardware.catalogue import load_node_model
from provisioning.errors import BenchError, UsedWrongly
from provisioning.firmware_bundle import build_bundle
from provisioning.release_ceremony import LIFETIME, Waiting, finish_if_complete
from provisioning.release_folder import ReleaseFolder
from provisioning.release_keys import KeyCard, add_signature
from provisioning.sbom import make_sbom

MICROPYTHON = (1, 27, 0)
"""What the firmware is tried with."""


@dataclass(frozen=True)
class Build:
    """What is wanted of a release. `image`: the app image of a MicroPython that it brings."""

    version: str
    counter: int
    built_utc_s: int
    support_until: date
    notes: str = ""
    allow_downgrade: bool = False
    micropython: tuple[int, int, int] = MICROPYTHON
    image: bytes | None = None


def build_release(
    folder: ReleaseFolder, wanted: Build, models: Sequence[str], *, sources: Path | None = None
) -> dict[str, Manifest]:
    """Compile the firmware and lay a manifest and a parts list for each model into the folder; nothing is signed.

    Raises:
        UsedWrongly: no release can be called or counted so, one of this name is signed already, or no node of a model could start the image.
        BenchError: a file does not compile.
        CatalogueError: a model is not known.
    """
    if not is_version(wanted.version):
        raise UsedWrongly(f"{wanted.version!r} cannot name a release; it looks like 0.7.0.")
    for model in models:
        load_node_model(model)
        _check_new(folder, model, wanted)
    image = _image_for(wanted.image, models)
    bundle = build_bundle(
        built_at_utc_s=wanted.built_utc_s,
        sources=sources,
        version=wanted.version,
        counter=wanted.counter,
    )
    manifests = {
        model: Manifest(
            version=wanted.version,
            counter=wanted.counter,
            models=(model,),
            micropython=wanted.micropython,
            built_utc_s=wanted.built_utc_s,
            files=bundle.files,
            notes=wanted.notes,
            allow_downgrade=wanted.allow_downgrade,
            image=image,
        )
        for model in models
    }
    try:
        encoded = {model: encode_manifest(manifest) for model, manifest in manifests.items()}
    except WireError as problem:
        raise UsedWrongly(problem.sentence) from problem
    for data in bundle.slot_files.values():
        folder.keep_file(data)
    if wanted.image is not None:
        folder.keep_file(wanted.image)
    for model, manifest in manifests.items():
        sbom = make_sbom(manifest, support_until=wanted.support_until)
        names = {TARGET_SUFFIX: encoded[model], SBOM_SUFFIX: sbom}
        folder.write_built(
            model, {f"{wanted.version}{suffix}": data for suffix, data in names.items()}
        )
    return manifests


def _image_for(data: bytes | None, models: Sequence[str]) -> Image | None:
    if data is None:
        return None
    try:
        read = [
            app_image.check_image(data, chip=chip) for chip in sorted(set(map(chip_of, models)))
        ]
    except WireError as problem:
        raise UsedWrongly(problem.sentence) from problem
    return Image(len(data), hashlib.sha256(data).digest(), read[0].micropython)


def chip_of(model: str) -> str:
    """The chip of a node model, as its board file names it."""
    return load_board(load_node_model(model).board).chip


def _check_new(folder: ReleaseFolder, model: str, wanted: Build) -> None:
    newest = folder.newest(model)
    if newest is None:
        return
    signed = signed_releases.releases_of(
        model, signed_releases.read(newest, Targets, what=model).signed
    )
    if wanted.version in signed:
        raise UsedWrongly(
            f"{model} {wanted.version} is signed already; a release never changes: give it another version."
        )
    highest = max((release.counter for release in signed.values()), default=0)
    if wanted.counter <= highest:
        raise UsedWrongly(f"The counter of {model} stands at {highest}; give a higher one.")


# ------------------------------------------------------------------------------------------------------------- signing


def sign_release(
    folder: ReleaseFolder,
    version: str,
    card: KeyCard,
    signer: Callable[[], Signer],
    *,
    models: Sequence[str] = (),
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> list[Waiting]:
    """Add a built release to the roles of its models, or one more signature where it waits for it.

    Args:
        models: only these; else all for which it was built.

    Raises:
        UsedWrongly: it was not built, or another draft of a role waits.
        BenchError: the key signs for none of the models.
    """
    targets = _targets(folder)
    wanted = list(models) or folder.built_models(f"{version}{TARGET_SUFFIX}")
    if not wanted:
        raise UsedWrongly(
            f"No release {version} was built in {folder.path}; run provision release build first."
        )
    roles = {
        model: _with_release(folder, targets, model, version, now + lifetime) for model in wanted
    }
    made = None
    for model, role in roles.items():
        _check_may_sign(targets, model, card)
        if card.keyid not in role.signatures:
            made = made or signer()
            add_signature(role, made)
        folder.write_draft(model, role.to_bytes())
    return [finish_if_complete(folder, model) for model in wanted]


def withdraw_release(
    folder: ReleaseFolder,
    model: str,
    version: str,
    *,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> None:
    """Draft the model's role without a release: nodes are not told to run it any more. Sign it as any draft.

    Raises:
        UsedWrongly: it is not signed, or another draft waits.
    """
    newest = folder.newest(model)
    role = signed_releases.read(newest, Targets, what=model) if newest else None
    if role is None or version not in signed_releases.releases_of(model, role.signed):
        raise UsedWrongly(f"There is no signed release {version} for {model} in {folder.path}.")
    if folder.draft(model) is not None:
        raise _draft_waits(model)
    for suffix in (TARGET_SUFFIX, SBOM_SUFFIX):
        role.signed.targets.pop(f"{model}/{version}{suffix}", None)
    role.signed.version += 1
    role.signed.expires = (now + lifetime).replace(microsecond=0)
    role.signatures.clear()
    folder.write_draft(model, role.to_bytes())


def _targets(folder: ReleaseFolder) -> Targets:
    folder.check_begun()
    data = folder.newest(TARGETS)
    if data is None:
        raise UsedWrongly(
            "Who may sign releases is not signed yet; see provision release root status."
        )
    return signed_releases.read(data, Targets, what="targets").signed


def _check_may_sign(targets: Targets, model: str, card: KeyCard) -> None:
    role = delegated(targets).get(model)
    if role is None:
        raise UsedWrongly(
            f"Nobody signs for {model} yet; provision release root add {model} KEY names its first key."
        )
    if card.keyid not in role.keyids:
        known = signed_releases.holders(targets)
        who = ", ".join(known.get(keyid, keyid[:12]) for keyid in role.keyids)
        raise BenchError(f"The key of {card.holder} does not sign for {model}; who does is {who}.")


def _with_release(
    folder: ReleaseFolder, targets: Targets, model: str, version: str, expires: datetime
) -> Metadata[Targets]:
    """The draft of the model's role with this release in it; a new one, or the one that waits."""
    manifest = folder.built(model, f"{version}{TARGET_SUFFIX}")
    sbom = folder.built(model, f"{version}{SBOM_SUFFIX}")
    if manifest is None or sbom is None:
        raise UsedWrongly(f"No release {version} was built for {model} in {folder.path}.")
    added = _target_files(folder, model, version, manifest, sbom)
    waiting = folder.draft(model)
    if waiting is not None:
        role = signed_releases.read(waiting, Targets, what=f"The draft of {model}")
        if any(role.signed.targets.get(path) != target for path, target in added.items()):
            raise _draft_waits(model)
        return role
    newest = folder.newest(model)
    if newest is None:
        role = Metadata(Targets(version=1))
    else:
        role = signed_releases.read(newest, Targets, what=model)
        role.signed.version += 1
        role.signatures.clear()
        if version in signed_releases.releases_of(model, role.signed):
            raise UsedWrongly(f"{model} {version} is signed by as many as have to already.")
    role.signed.expires = expires.replace(microsecond=0)
    role.signed.targets |= added
    return role


def _target_files(
    folder: ReleaseFolder, model: str, version: str, manifest: bytes, sbom: bytes
) -> dict[str, TargetFile]:
    try:
        told = decode_manifest(manifest)
    except WireError as problem:
        raise BenchError(f"{model} {version}: {problem.sentence} Build it again.") from problem
    path, sbom_path = target_path(model, version), f"{model}/{version}{SBOM_SUFFIX}"
    custom: dict[str, object] = {"counter": told.counter, "model": model}
    if told.allow_downgrade:
        custom["allow_downgrade"] = True
    target = TargetFile.from_data(path, manifest, ["sha256"])
    target.unrecognized_fields["custom"] = custom
    folder.keep_target(path, manifest)
    folder.keep_target(sbom_path, sbom)
    return {path: target, sbom_path: TargetFile.from_data(sbom_path, sbom, ["sha256"])}


def _draft_waits(model: str) -> UsedWrongly:
    return UsedWrongly(
        f"Another draft of {model} waits for signatures; sign that (provision release root sign) or drop it"
        f" (provision release root discard {model}) first."
    )


# ------------------------------------------------------------------------------------------------------------ checking


@dataclass(frozen=True)
class Checked:
    """A repository that is whole: releases by model and version, newest counter first."""

    repository: signed_releases.Repository
    manifests: Mapping[tuple[str, str], Manifest]


def check_folder(folder: ReleaseFolder, *, now: datetime) -> Checked:
    """Everything that a node and the server would check of what is signed here, and that every file is there.

    Raises:
        RepositoryWrong: something would be refused; names it.
        BenchError: a file is missing.
    """
    folder.check_begun()
    targets = folder.newest(TARGETS)
    if not folder.roots() or targets is None:
        raise BenchError("Nothing is in effect yet; see provision release root status.")
    repository = signed_releases.verify_repository(folder.roots(), targets, folder.roles(), now=now)
    manifests = {}
    for model, role in repository.roles.items():
        releases = signed_releases.releases_of(model, role.signed)
        for release in sorted(releases.values(), key=lambda one: -one.counter):
            manifests[model, release.version] = _check_release(folder, release)
    return Checked(repository, manifests)


def _check_release(folder: ReleaseFolder, release: signed_releases.NamedTargets) -> Manifest:
    path = target_path(release.model, release.version)
    manifest = signed_releases.check_manifest(
        release, folder.target(path, release.manifest.hashes["sha256"])
    )
    if release.sbom is not None:
        signed_releases.check_target_bytes(
            release.sbom, folder.target(release.sbom.path, release.sbom.hashes["sha256"])
        )
    for file in manifest.files:
        data = folder.file(file.sha256.hex())
        if (len(data), hashlib.sha256(data).digest()) != (file.size_bytes, file.sha256):
            raise RepositoryWrong(f"{file.path} of {path} is not the file that was signed.")
    if manifest.image is not None:
        _check_image(folder, manifest.image, release.model, what=path)
    return manifest


def _check_image(folder: ReleaseFolder, image: Image, model: str, *, what: str) -> None:
    data = folder.file(image.sha256.hex())
    if (len(data), hashlib.sha256(data).digest()) != (image.size_bytes, image.sha256):
        raise RepositoryWrong(f"The MicroPython image of {what} is not the file that was signed.")
    try:
        app_image.check_image(data, chip=chip_of(model), micropython=image.micropython)
    except WireError as problem:
        raise RepositoryWrong(f"{what}: {problem.sentence}") from problem
