"""What nodes fetch of the repository in one packed answer: everything that is newer than what a node holds, and files of a bundle.

It only spares bytes and requests: a node judges each part as if it had come alone, and asks alone for what is not in it. Packed is
DEFLATE as such (RFC 1951) with a window of 1 KiB, which a node has room for (firmware/node/update/packed.py).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import Release, SignedMetadata
from fleet_server.services import release_repository
from fleet_server.services.file_store import FileStore
from fleet_server.wire import signed_releases
from fleet_server.wire.manifest import TARGET_SUFFIX, is_version
from fleet_server.wire.signed_releases import ROOT, SNAPSHOT, TARGETS, TIMESTAMP

MOST_NEWS_BYTES = 32_768
"""Before it is packed: a node takes no more (firmware/node/update/news.py)."""
_MOST_ROOTS = 8
"""In one answer: a node takes sixteen files."""
_WINDOW_BITS = 10
_HELD = re.compile(
    r"(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})\.(0|[1-9][0-9]{0,9})\.([0-9a-f]{8}|-)"
)
_WANTED = re.compile(r"((?:[0-9a-f]{2}){1,15})\.([0-9]{1,8})")


@dataclass(frozen=True)
class Held:
    """Versions that a node has verified, 0 where it has none, and the begin of its manifest's SHA-256."""

    root: int
    snapshot: int
    targets: int
    role: int
    manifest: str

    @classmethod
    def read(cls, text: str) -> Held:
        """`1.29734400.2.0.-`. Raises NotFound where it is none."""
        match = _HELD.fullmatch(text)
        if match is None:
            raise _no_file()
        root, snapshot, targets, role = map(int, match.groups()[:4])
        return cls(root, snapshot, targets, role, match[5])


def news(session: Session, held: str, model: str, file: str) -> bytes:
    """What a node needs to verify the release `<model>/<file>` and has not got; packed.

    Raises:
        NotFound: it is no such target, or there are no releases.
    """
    has = Held.read(held)
    version = file.removesuffix(TARGET_SUFFIX)
    if not (signed_releases.is_role_of_model(model) and is_version(version)):
        raise _no_file()
    packed, left = b"", MOST_NEWS_BYTES
    for name, data in _newer(session, has, model, version):
        part = f"{name} {len(data)}\n".encode() + data
        if len(part) > left:
            # A node asks for what is missing, in the order of roots: behind a gap it would find no root that it can verify.
            if name.endswith(f".{ROOT}.json"):
                break
            continue
        packed, left = packed + part, left - len(part)
    return deflated(packed)


def bundle_files(
    session: Session, store: Callable[[], FileStore], sha256: str, wanted: str
) -> bytes:
    """Files of a bundle, one behind the other; packed. `wanted`: `e000….120`, a bit for each file in the manifest's order, in hex, and how
    many bytes of the first of them the node has.

    Raises:
        NotFound: there is no such bundle, or it has no such files.
        Unavailable: its files cannot be read.
    """
    match = _WANTED.fullmatch(wanted)
    if match is None:
        raise _no_file()
    marks, have = bytes.fromhex(match[1]), int(match[2])
    data, at, found = release_repository.bundle(session, store, sha256), 0, b""
    for number, file in enumerate(release_repository.bundle_manifest(session, sha256).files):
        if number // 8 < len(marks) and marks[number // 8] & 0x80 >> number % 8:
            found += data[at : at + file.size_bytes]
        at += file.size_bytes
    return deflated(found[have:])


@lru_cache(maxsize=32)
def deflated(data: bytes) -> bytes:
    """As nodes unpack it; kept, as a campaign's nodes ask for the same."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -_WINDOW_BITS, 9)
    return packer.compress(data) + packer.flush()


def _newer(session: Session, has: Held, model: str, version: str) -> Iterator[tuple[str, bytes]]:
    """(name, content) in the order in which a node asks for them; what is empty is not there."""
    roots = session.execute(
        select(SignedMetadata.version, SignedMetadata.data)
        .where(SignedMetadata.role == ROOT, SignedMetadata.version > has.root)
        .order_by(SignedMetadata.version)
        .limit(_MOST_ROOTS)
    ).all()
    newest = release_repository.newest_metadata(session)
    if TIMESTAMP not in newest:
        raise _no_file()
    for number, data in roots:
        yield f"{number}.{ROOT}.json", data
    last_root = roots[-1].version if roots else has.root
    if last_root < newest[ROOT].version:
        return  # nobody can judge the rest before the roots between
    yield f"{last_root + 1}.{ROOT}.json", b""
    yield f"{TIMESTAMP}.json", newest[TIMESTAMP].data
    for role, held in ((SNAPSHOT, has.snapshot), (TARGETS, has.targets), (model, has.role)):
        if role in newest and newest[role].version != held:
            yield f"{newest[role].version}.{role}.json", newest[role].data
    release = session.scalar(
        select(Release).where(
            Release.model == model, Release.version == version, Release.withdrawn_at.is_(None)
        )
    )
    if release is not None and not release.manifest_sha256.startswith(has.manifest):
        yield f"{model}/{release.manifest_sha256}.{version}{TARGET_SUFFIX}", release.manifest


def _no_file() -> NotFound:
    return NotFound("There is no such file.")
