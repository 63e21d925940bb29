"""A release author's folder as a browser sends it: packed in a ZIP archive, or file by file. Nothing of it is unpacked onto disk.

What counts is what `provision release` writes: `metadata/`, `targets/`, `targets/files/`, in the archive itself or in one folder of it.
Everything else (drafts, what nobody has signed) is left where it is. It is published as the API publishes it, by `releasing.publish`.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session
from tuf.api.metadata import Targets

from fleet_server.services import releasing
from fleet_server.services.file_store import FileStore
from fleet_server.services.releasing import Outcome, Published, ReleaseRefused
from fleet_server.wire import signed_releases
from fleet_server.wire.errors import RepositoryWrong
from fleet_server.wire.signed_releases import ROOT, TARGETS, is_role_of_model

LARGEST_BYTES = 16 * 1024 * 1024
MOST_FILES = 5000
_MOST_UNPACKED_BYTES = 64 * 1024 * 1024
_LARGEST_FILE_BYTES = 256 * 1024
"""More than anything in a folder may have; what each may have is asked when it is published."""
_FIRST = re.compile(r"((?:[^/]+/)?)metadata/[1-9][0-9]*\.root\.json")
_METADATA = re.compile(r"metadata/([1-9][0-9]{0,9})\.([a-z0-9-]+)\.json")
_OURS = re.compile(r"metadata/[^/]+\.json|targets/[^/]+/[^/]+")
_FILES = "targets/files/"


def unpacked(data: bytes) -> dict[str, bytes]:
    """What of a release folder is in a ZIP archive, by path in that folder. However it is made, little memory is taken.

    Raises:
        ReleaseRefused: it is no such archive, or there is more in it than a release folder can have.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = {one.filename: one for one in archive.infolist() if not one.is_dir()}
            if len(entries) > MOST_FILES:
                raise ReleaseRefused("There are more than %(most)s files in it.", most=MOST_FILES)
            wanted = _in_folder(entries)
            if sum(entries[name].file_size for name in wanted.values()) > _MOST_UNPACKED_BYTES:
                raise ReleaseRefused(
                    "Unpacked it has more than %(most)s bytes.", most=_MOST_UNPACKED_BYTES
                )
            return {path: _read(archive, entries[name]) for path, name in wanted.items()}
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as problem:
        raise ReleaseRefused(
            "This is no ZIP archive that can be read; pack the release folder again, without a password."
        ) from problem


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    # What an archive says of its sizes is its own word: no more is unpacked than asked for.
    with archive.open(entry) as file:
        data = file.read(_LARGEST_FILE_BYTES + 1)
    if len(data) > _LARGEST_FILE_BYTES:
        raise ReleaseRefused(
            "%(file)s has more than %(most)s bytes.", file=entry.filename, most=_LARGEST_FILE_BYTES
        )
    return data


def chosen(files: Iterable[tuple[str, Callable[[], bytes]]]) -> dict[str, bytes]:
    """What of a release folder is among files that were sent one by one, by path in that folder.

    Args:
        files: each with its path as the browser names it, and what reads it.

    Raises:
        ReleaseRefused: it is no release folder.
    """
    given = dict(files)
    return {path: given[name]() for path, name in _in_folder(given).items()}


def _in_folder(names: Iterable[str]) -> dict[str, str]:
    """The names that count, by their path in the release folder."""
    all_names = list(names)
    firsts = sorted({match[1] for name in all_names if (match := _FIRST.fullmatch(name))})
    if len(firsts) != 1:
        raise ReleaseRefused(
            "There is no release folder in it, or there are several; it is the folder in which metadata/1.root.json lies."
        )
    within = {
        name.removeprefix(firsts[0]): name for name in all_names if name.startswith(firsts[0])
    }
    return {path: name for path, name in within.items() if _OURS.fullmatch(path)}


def publish_folder(
    session: Session,
    files: Mapping[str, bytes],
    *,
    store: Callable[[], FileStore],
    keys_dir: Path,
    now: datetime,
) -> Outcome:
    """Publish everything that is signed in a release folder. Committed on return; safe to repeat.

    A file comes into the store only when a signed manifest asks for it.

    Raises:
        ReleaseRefused, FileMissing, RootUntrusted, OnlineKeysMissing, KeyLocked, Unavailable: as `releasing.publish`.
    """
    bundle = {
        path.removeprefix(_FILES): data for path, data in files.items() if path.startswith(_FILES)
    }
    return releasing.publish(
        session,
        published_of(files),
        store=lambda: _Brought(store(), bundle),
        keys_dir=keys_dir,
        now=now,
    )


def published_of(files: Mapping[str, bytes]) -> Published:
    """All roots, the newest of every other role, and what these name. Raises ReleaseRefused: something is no metadata."""
    signed: dict[str, dict[int, bytes]] = {}
    for path, data in files.items():
        match = _METADATA.fullmatch(path)
        if match:
            signed.setdefault(match[2], {})[int(match[1])] = data
    newest = {name: versions[max(versions)] for name, versions in signed.items()}
    roots = signed.get(ROOT, {})
    roles = {name: data for name, data in newest.items() if is_role_of_model(name)}
    return Published(
        roots=[roots[version] for version in sorted(roots)],
        targets=newest.get(TARGETS),
        roles=roles,
        documents=_documents(files, roles),
    )


def _documents(files: Mapping[str, bytes], roles: Mapping[str, bytes]) -> dict[str, bytes]:
    found = {}
    for name, data in roles.items():
        try:
            role = signed_releases.read(data, Targets, what=name).signed
        except RepositoryWrong as problem:
            raise ReleaseRefused(releasing.said_of(problem)) from problem
        for path, target in role.targets.items():
            model, _, file = path.partition("/")
            kept = files.get(f"targets/{model}/{target.hashes.get('sha256')}.{file}")
            if kept is not None:
                found[path] = kept
    return found


class _Brought:
    """The server's store, and what was brought: a file of a bundle is kept when it is asked for, which only a signed manifest does."""

    def __init__(self, store: FileStore, bundle: Mapping[str, bytes]) -> None:
        self._store, self._bundle = store, bundle

    def put(self, name: str, data: bytes) -> None:
        self._store.put(name, data)

    def get(self, name: str) -> bytes:
        sha256 = name.rpartition("/")[2]
        data = self._bundle.get(sha256)
        if data is None:
            return self._store.get(name)
        releasing.keep_file(self._store, sha256, data)
        return data

    def touch(self, name: str) -> bool:
        return self._store.touch(name)

    def forget(self, folder: str, *, before: datetime, but: Collection[str] = ()) -> int:
        return self._store.forget(folder, before=before, but=but)
