"""The repository of releases as nodes read it: metadata in the database, files in the file store under their hash.

What is signed offline is taken by `releasing`; `snapshot` and `timestamp` are signed here whenever that changes, and by schedule: a
timestamp is good for seven days and a day old at most. All times are the fleet's, by which nodes judge.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, Root, Signed, Targets

from fleet_server import db
from fleet_server.errors import NotFound, Refused
from fleet_server.models import Release, SignedMetadata
from fleet_server.services import auditing, online_keys
from fleet_server.services.file_store import FileStore
from fleet_server.services.online_keys import ONLINE_ROLES
from fleet_server.wire import signed_releases
from fleet_server.wire.errors import RepositoryWrong
from fleet_server.wire.manifest import TARGET_SUFFIX, Manifest, decode_manifest, is_version
from fleet_server.wire.signed_releases import (
    ROOT,
    SBOM_SUFFIX,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    delegated,
    holders,
)

TIMESTAMP_LIFETIME = timedelta(days=7)
TIMESTAMP_EVERY = timedelta(days=1)
SNAPSHOT_LIFETIME = timedelta(days=30)
SNAPSHOT_RENEW_BEFORE = timedelta(days=15)
WARN_BEFORE = timedelta(days=7)
"""So long before it expires somebody is called; at half of its life where that is shorter (a timestamp that was not renewed for days)."""
_SNAPSHOTS_KEPT = 20
"""For a node that was in the middle of it."""
_LOCK = "stadtsensor releases"
FILES = "releases"
"""The folder of the file store in which everything of releases lies."""
_BUNDLES_KEPT = 8
_bundles: dict[str, bytes] = {}
"""By their hash: a campaign's nodes ask for one bundle, each for its own parts of it."""
_METADATA = re.compile(r"(?:([1-9][0-9]{0,9})\.)?([a-z0-9-]{1,32})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RootUntrusted(Refused):
    """Nobody told this server which root to trust."""

    code = "release_root_untrusted"


class RootWrong(Refused):
    """A root that this server cannot begin with."""

    code = "release_root_wrong"


@dataclass(frozen=True)
class Signature:
    """One key that counts for a role: whose it is, and whether its signature is there."""

    keyid: str
    holder: str | None
    scheme: str
    has_signed: bool


@dataclass(frozen=True)
class RoleState:
    """The newest metadata of a role, and who signed it."""

    role: str
    version: int
    expires_at: datetime
    threshold: int
    signatures: Sequence[Signature]


# -------------------------------------------------------------------------------------------------------- what nodes read


def metadata_file(session: Session, name: str) -> bytes:
    """`timestamp.json`, `3.root.json`, `4.tree-3.json`, …, byte for byte as signed.

    Raises:
        NotFound: there is no such file.
    """
    match = _METADATA.fullmatch(name)
    if match is None or (match[1] is None) != (match[2] == TIMESTAMP):
        raise _no_file()
    query = select(SignedMetadata.data).where(SignedMetadata.role == match[2])
    if match[1] is None:
        query = query.order_by(SignedMetadata.version.desc()).limit(1)
    elif int(match[1]) > 2**31 - 1:
        raise _no_file()
    else:
        query = query.where(SignedMetadata.version == int(match[1]))
    data = session.scalar(query)
    if data is None:
        raise _no_file()
    return data


def target_file(session: Session, store: Callable[[], FileStore], model: str, file: str) -> bytes:
    """A manifest or a parts list, by model and `<sha256>.<version>.cbor` or `….cdx.json`.

    Raises:
        NotFound: no release that is not withdrawn has it.
    """
    sha256, _, name = file.partition(".")
    suffix = SBOM_SUFFIX if name.endswith(SBOM_SUFFIX) else TARGET_SUFFIX
    version = name.removesuffix(suffix)
    is_possible = (
        signed_releases.is_role_of_model(model)
        and name.endswith(suffix)
        and is_version(version)
        and _SHA256.fullmatch(sha256) is not None
    )
    if not is_possible:
        raise _no_file()
    found = session.scalar(
        select(Release).where(
            Release.model == model, Release.version == version, Release.withdrawn_at.is_(None)
        )
    )
    if found and suffix == TARGET_SUFFIX and found.manifest_sha256 == sha256:
        return found.manifest
    if found and suffix == SBOM_SUFFIX and found.sbom_sha256 == sha256:
        return store().get(file_name(sha256))
    raise _no_file()


def bundle_file(store: Callable[[], FileStore], sha256: str) -> bytes:
    """A file of a bundle by its hash. Raises NotFound, Unavailable."""
    if not _SHA256.fullmatch(sha256):
        raise _no_file()
    return store().get(file_name(sha256))


def bundle(session: Session, store: Callable[[], FileStore], sha256: str) -> bytes:
    """A bundle's files one behind the other, in the manifest's order; `sha256` is what nodes say that they run.

    Raises:
        NotFound: no release that is not withdrawn consists of it.
        Unavailable: its files cannot be read.
    """
    files = bundle_manifest(session, sha256).files
    if sha256 not in _bundles:
        kept = store()
        while len(_bundles) >= _BUNDLES_KEPT:
            _bundles.pop(next(iter(_bundles)), None)
        _bundles[sha256] = b"".join(kept.get(file_name(file.sha256.hex())) for file in files)
    return _bundles[sha256]


def bundle_manifest(session: Session, sha256: str) -> Manifest:
    """What a bundle consists of. Raises NotFound: no release that is not withdrawn consists of it."""
    if not _SHA256.fullmatch(sha256):
        raise _no_file()
    manifest = session.scalar(
        select(Release.manifest)
        .where(Release.bundle_sha256 == sha256, Release.withdrawn_at.is_(None))
        .limit(1)
    )
    if manifest is None:
        raise _no_file()
    return decode_manifest(manifest)


def file_name(sha256: str) -> str:
    """Where a file lies in the file store."""
    return f"{FILES}/{sha256[:2]}/{sha256}"


def newest_root(session: Session) -> bytes | None:
    """What a bench gives a new node to trust; None where this server has no releases."""
    return _newest(session, ROOT)


def _no_file() -> NotFound:
    return NotFound("There is no such file.")


# ------------------------------------------------------------------------------------------------------------- standing


def role_states(session: Session) -> list[RoleState]:
    """Every role's newest metadata with its signatures: root, targets, the models', snapshot, timestamp."""
    newest = newest_metadata(session)
    if ROOT not in newest or TARGETS not in newest:
        return [_state(newest[ROOT], None, ROOT)] if ROOT in newest else []
    root = signed_releases.read(newest[ROOT].data, Root, what=ROOT).signed
    targets = signed_releases.read(newest[TARGETS].data, Targets, what=TARGETS).signed
    models = [name for name in newest if name in delegated(targets)]
    return [
        _state(newest[name], targets if name in models else root, name)
        for name in (ROOT, TARGETS, *sorted(models), *ONLINE_ROLES)
        if name in newest
    ]


def newest_metadata(session: Session) -> dict[str, SignedMetadata]:
    """By role. One statement."""
    newest = (
        select(SignedMetadata.role, func.max(SignedMetadata.version).label("version"))
        .group_by(SignedMetadata.role)
        .subquery()
    )
    rows = session.scalars(
        select(SignedMetadata).join(
            newest,
            (newest.c.role == SignedMetadata.role) & (newest.c.version == SignedMetadata.version),
        )
    )
    return {row.role: row for row in rows}


def expiring(session: Session, *, now: datetime) -> list[SignedMetadata]:
    """Roles whose newest metadata expire soon or have: somebody has to sign, or the schedule does not do its work."""
    found = newest_metadata(session).values()
    return sorted(
        (row for row in found if now >= warned_from(row)),
        key=lambda row: (row.expires_at, row.role),
    )


def warned_from(row: SignedMetadata) -> datetime:
    """From when on somebody is called."""
    return row.expires_at - min(WARN_BEFORE, (row.expires_at - row.stored_at) / 2)


def _state(row: SignedMetadata, delegator: Root | Targets | None, name: str) -> RoleState:
    metadata: Metadata[Any] = Metadata.from_bytes(row.data)
    above: Root | Targets = delegator if delegator is not None else metadata.signed
    known = holders(above)
    role = above.get_delegated_role(name)
    try:
        signed = signed_releases.role_signatures(above, name, metadata).signed
    except RepositoryWrong:
        signed = ()
    return RoleState(
        role=name,
        version=row.version,
        expires_at=row.expires_at,
        threshold=role.threshold,
        signatures=[
            Signature(keyid, known.get(keyid), above.get_key(keyid).scheme, keyid in signed)
            for keyid in role.keyids
        ],
    )


# -------------------------------------------------------------------------------------------------------------- signing


def trust_root(session: Session, data: bytes, keys_dir: Path, *, now: datetime) -> int:
    """Begin with this root, as whoever runs the server was given it by hand. Returns its version; committed on return.

    Safe to repeat. Later roots come with what is published, each signed by the one before.

    Raises:
        RootWrong: it is none, does not stand by itself, names other keys than this server's, or another is trusted.
    """
    try:
        root = signed_releases.verify_roots([data])[0]
        signed_releases.check_fresh(root.signed, now, what=f"root {root.signed.version}")
    except RepositoryWrong as problem:
        raise RootWrong(str(problem)) from problem
    check_online_keys(root.signed, keys_dir)
    with db.writing(session):
        alone(session)
        there = session.scalars(
            select(SignedMetadata.data).where(SignedMetadata.role == ROOT)
        ).all()
        if there and data not in there:
            raise RootWrong(
                "Another root is trusted already; a new one comes with `provision release publish`, signed by the one before."
            )
        if not there:
            session.add(as_row(ROOT, root, data, now))
            auditing.record(
                session,
                "release_root_trusted",
                subject=f"root {root.signed.version}",
                now=now,
                sha256=hashlib.sha256(data).hexdigest(),
            )
    return root.signed.version


def check_online_keys(root: Root, keys_dir: Path) -> None:
    """Raises RootWrong: the root names other keys for snapshot and timestamp than this server has."""
    for role in ONLINE_ROLES:
        keyid = online_keys.signer_of(keys_dir, role).public_key.keyid
        named = root.roles[role]
        if named.keyids != [keyid] or named.threshold != 1:
            raise RootWrong(
                "root %(version)s names another key for %(role)s than this server's: give `fleet release keys --json` to `provision release root online`.",
                version=root.version,
                role=role,
            )


def sign_online(session: Session, keys_dir: Path, *, now: datetime) -> list[str]:
    """Sign snapshot and timestamp anew where they are old, or what they name has changed; in the caller's transaction.

    Returns:
        The roles that were signed.
    """
    newest = newest_metadata(session)
    if TARGETS not in newest:
        return []
    signed = []
    named = {name: row.data for name, row in newest.items() if name not in (ROOT, *ONLINE_ROLES)}
    snapshot = newest.get(SNAPSHOT)
    if snapshot is None or not _is_fit(snapshot, named, keys_dir, now):
        version = _next_version(snapshot, now)
        made = signed_releases.snapshot_of(
            named.pop(TARGETS), named, version=version, expires=_end(now, SNAPSHOT_LIFETIME)
        )
        snapshot = _sign(session, SNAPSHOT, made, keys_dir, now)
        signed.append(SNAPSHOT)
        _forget_old_snapshots(session)
    timestamp = newest.get(TIMESTAMP)
    is_new = timestamp is not None and now - timestamp.stored_at < TIMESTAMP_EVERY
    if timestamp is None or signed or not is_new or not _is_ours(timestamp, keys_dir):
        version = _next_version(timestamp, now)
        stamped = signed_releases.timestamp_of(
            snapshot.data, version=version, expires=_end(now, TIMESTAMP_LIFETIME)
        )
        _sign(session, TIMESTAMP, stamped, keys_dir, now)
        signed.append(TIMESTAMP)
        session.execute(
            delete(SignedMetadata).where(
                SignedMetadata.role == TIMESTAMP, SignedMetadata.version < version
            )
        )
    return signed


def keep_fresh(session: Session, keys_dir: Path, *, now: datetime) -> list[str]:
    """What the schedule does: `sign_online`, committed on return. Nothing where there are no releases.

    Raises:
        OnlineKeysMissing, KeyLocked: in seven days at the latest nodes refuse updates.
    """
    with db.writing(session):
        alone(session)
        return sign_online(session, keys_dir, now=now)


def alone(session: Session) -> None:
    """Until the transaction ends nobody else signs or publishes."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer anyway
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        session.execute(lock, {"name": _LOCK})


def as_row(role: str, metadata: Metadata[Any], data: bytes, now: datetime) -> SignedMetadata:
    """Metadata as they are kept."""
    signed: Signed = metadata.signed
    return SignedMetadata(
        role=role, version=signed.version, data=data, expires_at=signed.expires, stored_at=now
    )


def _is_fit(row: SignedMetadata, named: Mapping[str, bytes], keys_dir: Path, now: datetime) -> bool:
    """Whether the snapshot names exactly these, is signed with today's key and good for long enough."""
    targets, roles = named[TARGETS], {k: v for k, v in named.items() if k != TARGETS}
    same = signed_releases.snapshot_of(
        targets, roles, version=row.version, expires=row.expires_at
    ).signed
    told = Metadata.from_bytes(row.data).signed
    return told == same and row.expires_at - now > SNAPSHOT_RENEW_BEFORE and _is_ours(row, keys_dir)


def _is_ours(row: SignedMetadata, keys_dir: Path) -> bool:
    signatures = Metadata.from_bytes(row.data).signatures
    return online_keys.signer_of(keys_dir, row.role).public_key.keyid in signatures


def _sign(
    session: Session, role: str, metadata: Metadata[Any], keys_dir: Path, now: datetime
) -> SignedMetadata:
    metadata.sign(online_keys.signer_of(keys_dir, role))
    row = as_row(role, metadata, metadata.to_bytes(), now)
    session.add(row)
    session.flush()
    return row


def _forget_old_snapshots(session: Session) -> None:
    kept = (
        select(SignedMetadata.version)
        .where(SignedMetadata.role == SNAPSHOT)
        .order_by(SignedMetadata.version.desc())
        .limit(_SNAPSHOTS_KEPT)
    )
    oldest = min(session.scalars(kept))
    session.execute(
        delete(SignedMetadata).where(
            SignedMetadata.role == SNAPSHOT, SignedMetadata.version < oldest
        )
    )


def _next_version(row: SignedMetadata | None, now: datetime) -> int:
    """Minutes since 1970, so that versions go on growing after a backup was restored: a node never takes a lower one (TUF 1.0 §5.4.3)."""
    minutes = int(now.timestamp()) // 60
    return minutes if row is None else max(row.version + 1, minutes)


def _end(now: datetime, lifetime: timedelta) -> datetime:
    return (now + lifetime).replace(microsecond=0)


def delegated_models(session: Session) -> list[str]:
    """Node models for which somebody may sign releases."""
    data = _newest(session, TARGETS)
    if data is None:
        return []
    return sorted(delegated(signed_releases.read(data, Targets, what=TARGETS).signed))


def _newest(session: Session, role: str) -> bytes | None:
    return session.scalar(
        select(SignedMetadata.data)
        .where(SignedMetadata.role == role)
        .order_by(SignedMetadata.version.desc())
        .limit(1)
    )
