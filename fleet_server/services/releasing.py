"""Taking what a release author publishes: everything is checked as a node would, then all of it is there, or nothing.

Files come first, one by one and by their hash, so that a broken connection costs one file; what names them comes last, at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session, defer
from tuf.api.metadata import Metadata, Targets

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Said
from fleet_server.models import Release, ReleaseComponent, SignedMetadata
from fleet_server.services import auditing, release_repository, rights
from fleet_server.services.file_store import FileStore
from fleet_server.wire import app_image, signed_releases
from fleet_server.wire.errors import RepositoryWrong, WireError
from fleet_server.wire.manifest import (
    MOST_FILE_BYTES,
    Image,
    Manifest,
    decode_manifest,
    target_path,
)
from fleet_server.wire.signed_releases import ROOT, TARGETS, NamedTargets, Repository, delegated
from hardware import catalogue
from hardware.boards import load_board

MOST_SBOM_BYTES = 256 * 1024
FILES_KEPT = timedelta(days=30)
"""So long a file that no release names is kept: a release is signed in days, and one that was withdrawn may come back."""
_NAMED = {"The file": Said("The file"), "The root": Said("The root")}
"""What metadata are called whose role is not known yet."""
_SUPPORT_UNTIL = "stadtsensor:support_until"
_MOST_COMPONENTS = 1000
_MOST_TEXT = 500


class ReleaseRefused(Invalid):
    """What was published is not what nodes could take; the sentence says why."""

    code = "release_refused"


class FileMissing(Conflict):
    """A release names a file that was not sent."""

    code = "release_file_missing"


@dataclass(frozen=True)
class Published:
    """What somebody sends: metadata that is new (or all of it), and the new releases' manifests and parts lists by target path."""

    roots: Sequence[bytes] = ()
    targets: bytes | None = None
    roles: Mapping[str, bytes] = field(default_factory=dict)
    documents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What changed: metadata by role with their version, releases that are new, withdrawn or back."""

    metadata: Mapping[str, int]
    releases: Sequence[tuple[str, str]] = ()
    withdrawn: Sequence[tuple[str, str]] = ()


def keep_file(store: FileStore, sha256: str, data: bytes) -> None:
    """Keep a file of a bundle, or a MicroPython image; safe to repeat.

    Raises:
        ReleaseRefused: it is too large, no image that a node could start, or another than its name says.
        Unavailable: it cannot be kept.
    """
    if len(data) > MOST_FILE_BYTES:
        _check_large(data)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ReleaseRefused("The file is not the one that its hash names; send it again.")
    store.put(release_repository.file_name(sha256), data)


def _check_large(data: bytes) -> None:
    """Nothing that a bundle consists of is as large as that: it has to be an image."""
    try:
        app_image.read_image(data)
    except WireError as problem:
        raise ReleaseRefused(
            "A file of a bundle has at most %(most)s bytes, and as an image it is refused: %(why)s",
            most=MOST_FILE_BYTES,
            why=problem.sentence,
        ) from problem


def missing_files(store: FileStore, wanted: Sequence[str]) -> list[str]:
    """Which of these hashes still have to be sent; the others are kept for as long as if they had been. Raises Unavailable."""
    return [
        sha256
        for sha256 in dict.fromkeys(wanted)
        if not store.touch(release_repository.file_name(sha256))
    ]


def forget_files(session: Session, store: FileStore, *, now: datetime, wall_now: datetime) -> int:
    """Remove files that no release names any more: what was sent and never published, and what was withdrawn. Returns how many.

    A file stays for `FILES_KEPT` after it was sent last (files carry the wall's time), and for as long after its release was withdrawn.
    Nobody publishes meanwhile: whoever does names the files before, or sends them after. Parts lists stay, they are small and signed
    once. Safe to repeat.

    Raises:
        Unavailable: the store cannot be asked; nothing is lost.
    """
    with db.writing(session):
        release_repository.alone(session)
        is_needed = or_(Release.withdrawn_at.is_(None), Release.withdrawn_at > now - FILES_KEPT)
        manifests = session.scalars(select(Release.manifest).where(is_needed))
        needed = {sha256 for data in manifests for sha256 in decode_manifest(data).file_hashes}
        needed.update(session.scalars(select(Release.sbom_sha256)))
        return store.forget(
            release_repository.FILES,
            before=wall_now - FILES_KEPT,
            but=[release_repository.file_name(sha256) for sha256 in needed],
        )


def publish(
    session: Session,
    given: Published,
    *,
    store: Callable[[], FileStore],
    keys_dir: Path,
    now: datetime,
) -> Outcome:
    """Take it: verify, keep, sign snapshot and timestamp. Committed on return; safe to repeat.

    Raises:
        ReleaseRefused: a node would refuse it, it goes back to something older, or changes what was released; names it.
        FileMissing: a file was not sent.
        RootUntrusted: this server was not told which root to begin with.
        OnlineKeysMissing, KeyLocked: it cannot sign.
        Unavailable: a file cannot be kept.
    """
    with db.writing(session):
        release_repository.alone(session)
        try:
            return _publish(session, given, store=store, keys_dir=keys_dir, now=now)
        except RepositoryWrong as problem:
            raise ReleaseRefused(said_of(problem)) from problem


def said_of(problem: RepositoryWrong) -> Said:
    """What nodes would not take, with its parts apart, as pages want it."""
    parts = {name: _NAMED.get(str(part), part) for name, part in problem.parts.items()}
    return Said(problem.template, **parts)


def _publish(
    session: Session,
    given: Published,
    *,
    store: Callable[[], FileStore],
    keys_dir: Path,
    now: datetime,
) -> Outcome:
    newest = release_repository.newest_metadata(session)
    if ROOT not in newest:
        raise release_repository.RootUntrusted(
            "This server trusts no root yet: whoever runs it says `fleet release trust 1.root.json`."
        )
    earlier_roots, roots = _sort_roots(session, given.roots)
    targets = _newer(newest, TARGETS, given.targets)
    roles = {name: _newer(newest, name, data) for name, data in given.roles.items()}
    known = {name: row.data for name, row in newest.items()}
    whole_targets = targets or known.get(TARGETS)
    if whole_targets is None:
        raise ReleaseRefused("Who may sign releases is missing: send targets, too.")
    named = {name: data or known[name] for name, data in roles.items()}
    repository = _verified(known, roots, whole_targets, named, now=now)
    release_repository.check_online_keys(repository.root.signed, keys_dir)
    new = [
        (ROOT, signed_releases.kind_and_version(data)[1], data) for data in (*earlier_roots, *roots)
    ]
    new += [(TARGETS, repository.targets.signed.version, targets)] if targets else []
    new += [
        (name, repository.roles[name].signed.version, data) for name, data in roles.items() if data
    ]
    for name, _, data in new:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
        session.add(release_repository.as_row(name, metadata, data, now))
    session.flush()
    added, withdrawn = _take_releases(session, repository, given.documents, store, now)
    signed = release_repository.sign_online(session, keys_dir, now=now)
    outcome = Outcome(dict(sorted((name, version) for name, version, _ in new)), added, withdrawn)
    if new:
        auditing.record(
            session,
            "releases_published",
            subject="releases",
            now=now,
            metadata=dict(outcome.metadata),
            releases=[" ".join(one) for one in added],
            withdrawn=[" ".join(one) for one in withdrawn],
            signed_here=signed,
        )
    return outcome


# --------------------------------------------------------------------------------------------------------------- metadata


def _verified(
    known: Mapping[str, bytes],
    roots: Sequence[bytes],
    targets: bytes,
    roles: Mapping[str, bytes],
    *,
    now: datetime,
) -> Repository:
    """Everything together, as it would be served; a role that was not sent must still be signed as the delegator now says."""
    delegators = signed_releases.read(targets, Targets, what=TARGETS).signed
    kept = {
        name: data
        for name, data in known.items()
        if name not in signed_releases.TOP_LEVEL and name in delegated(delegators)
    }
    return signed_releases.verify_repository(
        roots, targets, {**kept, **roles}, now=now, trusted=known[ROOT]
    )


def _sort_roots(session: Session, roots: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Those that come before the stored ones, which nodes that slept need to follow the chain, and those that come after.

    Raises:
        ReleaseRefused: one differs from what is stored as the same version.
        RepositoryWrong: the earlier ones do not lead to the stored ones.
    """
    stored = {
        row.version: row.data
        for row in session.scalars(select(SignedMetadata).where(SignedMetadata.role == ROOT))
    }
    before: list[bytes] = []
    after: list[bytes] = []
    for data in roots:
        kind, version = signed_releases.kind_and_version(data)
        if kind != ROOT:
            raise ReleaseRefused("What was sent as a root is %(kind)s.", kind=kind)
        if version in stored and stored[version] != data:
            raise ReleaseRefused("Another root %(version)s is known here.", version=version)
        if version not in stored:
            (before if version < min(stored) else after).append(data)
    if before:
        signed_releases.verify_roots([*before, stored[min(stored)]])
    return before, after


def _newer(newest: Mapping[str, SignedMetadata], name: str, data: bytes | None) -> bytes | None:
    """The metadata when they are new; None when they are the ones that are stored.

    Raises:
        ReleaseRefused: they are older, or others of the same version.
    """
    row = newest.get(name)
    if data is None or (row is not None and row.data == data):
        return None
    version = signed_releases.kind_and_version(data)[1]
    if row is not None and version <= row.version:
        if version == row.version:
            raise ReleaseRefused(
                "Another %(name)s %(version)s is known here.", name=name, version=version
            )
        raise ReleaseRefused(
            "%(name)s %(version)s is older: known here is %(name)s %(known)s.",
            name=name,
            version=version,
            known=row.version,
        )
    return data


# --------------------------------------------------------------------------------------------------------------- releases


def _take_releases(
    session: Session,
    repository: Repository,
    documents: Mapping[str, bytes],
    store: Callable[[], FileStore],
    now: datetime,
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Releases that the roles now sign become rows, those that they sign no more are withdrawn."""
    added, withdrawn = [], []
    signed = {
        model: signed_releases.releases_of(model, role.signed)
        for model, role in repository.roles.items()
    }
    known = select(Release).options(defer(Release.sbom)).order_by(Release.id)
    for row in session.scalars(known):
        named = signed.get(row.model, {}).pop(row.version, None)
        if named is None:
            if row.withdrawn_at is None:
                row.withdrawn_at = now
                withdrawn.append((row.model, row.version))
            continue
        _check_unchanged(row, named)
        if row.withdrawn_at is not None:  # its files may be gone (`forget_files`)
            _check_files(store(), decode_manifest(row.manifest), what=row.target_path)
        row.withdrawn_at = None
    for model, new in signed.items():
        for named in sorted(new.values(), key=lambda one: one.counter):
            _add_release(session, named, documents, store, now)
            added.append((model, named.version))
    return added, withdrawn


def _check_unchanged(row: Release, named: NamedTargets) -> None:
    sbom = named.sbom.hashes["sha256"] if named.sbom else None
    try:
        signed_releases.check_manifest(named, row.manifest)
        is_same = sbom == row.sbom_sha256
    except RepositoryWrong:
        is_same = False
    if not is_same:
        raise ReleaseRefused(
            "%(model)s %(version)s is another than was released; a release never changes: give it another version.",
            model=row.model,
            version=row.version,
        )


def _add_release(
    session: Session,
    named: NamedTargets,
    documents: Mapping[str, bytes],
    store: Callable[[], FileStore],
    now: datetime,
) -> None:
    path = target_path(named.model, named.version)
    if named.model not in catalogue.node_model_ids():
        raise ReleaseRefused(
            "%(model)s is no node model that this server knows.", model=named.model
        )
    if named.sbom is None:
        raise ReleaseRefused(
            "%(what)s has no parts list; build it with provision release build.", what=path
        )
    _check_counter(session, named)
    data, sbom_data = _document(documents, path), _document(documents, named.sbom.path)
    manifest = signed_releases.check_manifest(named, data)
    signed_releases.check_target_bytes(named.sbom, sbom_data)
    sbom = _read_sbom(sbom_data, manifest, what=named.sbom.path)
    _check_files(store(), manifest, what=path)
    image = manifest.image
    if image is not None:
        _check_image(store(), image, named.model, what=path)
    sbom_sha256 = named.sbom.hashes["sha256"]
    store().put(release_repository.file_name(sbom_sha256), sbom_data)
    release = Release(
        model=named.model,
        version=named.version,
        counter=named.counter,
        target_path=path,
        manifest=data,
        manifest_sha256=named.manifest.hashes["sha256"],
        bundle_sha256=manifest.bundle_sha256,
        size_bytes=manifest.size_bytes,
        image_sha256=None if image is None else image.sha256.hex(),
        image_bytes=None if image is None else image.size_bytes,
        image_micropython=None if image is None else app_image.dotted(image.micropython),
        notes=manifest.notes,
        sbom=sbom.content,
        sbom_sha256=sbom_sha256,
        support_until=sbom.support_until,
        uploaded_at=now,
        uploaded_by=rights.actor_of(session).name,
    )
    session.add(release)
    session.flush()
    session.add_all(
        ReleaseComponent(release_id=release.id, place=place, name=name, version=version, purl=purl)
        for place, (name, version, purl) in enumerate(sbom.components)
    )


def _check_counter(session: Session, named: NamedTargets) -> None:
    highest = session.scalar(
        select(Release.counter)
        .where(Release.model == named.model)
        .order_by(Release.counter.desc())
        .limit(1)
    )
    if highest is not None and named.counter <= highest:
        raise ReleaseRefused(
            "%(model)s %(version)s has counter %(counter)s, but %(highest)s is known here; counters grow.",
            model=named.model,
            version=named.version,
            counter=named.counter,
            highest=highest,
        )


def _document(documents: Mapping[str, bytes], path: str) -> bytes:
    if path not in documents:
        raise FileMissing("%(what)s was not sent.", what=path)
    return documents[path]


def _check_files(store: FileStore, manifest: Manifest, *, what: str) -> None:
    for file in manifest.files:
        try:
            data = release_repository.bundle_file(lambda: store, file.sha256.hex())
        except NotFound as problem:
            raise FileMissing(
                "%(file)s of %(what)s was not sent.", file=file.path, what=what
            ) from problem
        if len(data) != file.size_bytes or hashlib.sha256(data).digest() != file.sha256:
            raise ReleaseRefused(
                "%(file)s of %(what)s has another size than the manifest says.",
                file=file.path,
                what=what,
            )


def _check_image(store: FileStore, image: Image, model: str, *, what: str) -> None:
    """A whole image for the model's chip, of the version that the manifest says; the boot loader looks at the chip again, and the node at the hash."""
    try:
        data = release_repository.bundle_file(lambda: store, image.sha256.hex())
    except NotFound as problem:
        raise FileMissing("The MicroPython image of %(what)s was not sent.", what=what) from problem
    if len(data) != image.size_bytes or hashlib.sha256(data).digest() != image.sha256:
        raise ReleaseRefused(
            "The MicroPython image of %(what)s is another than the manifest says.", what=what
        )
    chip = load_board(catalogue.load_node_model(model).board).chip
    try:
        app_image.check_image(data, chip=chip, micropython=image.micropython)
    except WireError as problem:
        raise ReleaseRefused("%(what)s: %(why)s", what=what, why=problem.sentence) from problem


# ------------------------------------------------------------------------------------------------------------ parts lists


@dataclass(frozen=True)
class _Sbom:
    content: dict[str, Any]
    components: Sequence[tuple[str, str, str]]
    support_until: datetime


def _read_sbom(data: bytes, manifest: Manifest, *, what: str) -> _Sbom:
    """A CycloneDX list that is about this very release.

    Raises:
        ReleaseRefused: it is none, is about another one, lacks a file, or does not say until when the release is supported.
    """
    if len(data) > MOST_SBOM_BYTES:
        raise ReleaseRefused(
            "%(what)s has more than %(most)s bytes.", what=what, most=MOST_SBOM_BYTES
        )
    try:
        content = json.loads(data)
        about = content["metadata"]["component"]
        told = {one["name"]: one["value"] for one in about["properties"]}
        parts = [about, *content["components"]]
        components = [
            (_text(one["name"]), _text(one["version"]), _text(one["purl"])) for one in parts
        ]
        files = {
            one["name"]: one["hashes"][0]["content"]
            for one in content["components"]
            if one["type"] == "file"
        }
        is_ours = content["bomFormat"] == "CycloneDX" and about["version"] == manifest.version
        until = date.fromisoformat(told[_SUPPORT_UNTIL])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as problem:
        raise ReleaseRefused(
            "%(what)s is no CycloneDX list with name, version and purl of each part and %(wanted)s.",
            what=what,
            wanted=_SUPPORT_UNTIL,
        ) from problem
    if not is_ours or files != {file.path: file.sha256.hex() for file in manifest.files}:
        raise ReleaseRefused("%(what)s is not about the files of this release.", what=what)
    if manifest.image is not None and not _names_image(content["components"], manifest.image):
        raise ReleaseRefused("%(what)s does not name the MicroPython of this release.", what=what)
    if len(components) > _MOST_COMPONENTS:
        raise ReleaseRefused(
            "%(what)s names more than %(most)s parts.", what=what, most=_MOST_COMPONENTS
        )
    return _Sbom(content, components, datetime(until.year, until.month, until.day, tzinfo=UTC))


def _names_image(components: Sequence[Mapping[str, Any]], image: Image) -> bool:
    wanted = [{"alg": "SHA-256", "content": image.sha256.hex()}]
    version = app_image.dotted(image.micropython)
    return any(
        (one["name"], one["version"], one.get("hashes")) == ("micropython", version, wanted)
        for one in components
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > _MOST_TEXT or "\0" in value:
        raise ValueError("no text")
    return value
