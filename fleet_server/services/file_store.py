"""Files that the server keeps: a folder, or an object store by its address. What is in them does not change under a name.

A file is there as a whole or not at all: it is written aside and renamed, and on disk before anybody names it in the database.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import fsspec

from fleet_server.errors import NotFound, Unavailable

_NAME = re.compile(r"[a-z0-9_]+(/[a-z0-9_.-]+)+")


class FileStore(Protocol):
    """Names are paths of small letters and digits, like `photos/ab/abcd.jpg`."""

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under `name`; safe to repeat. Raises Unavailable."""

    def get(self, name: str) -> bytes:
        """What is kept under `name`. Raises NotFound, Unavailable."""

    def touch(self, name: str) -> bool:
        """Whether it is kept, from now on as if it had just been put. Raises Unavailable."""

    def forget(self, folder: str, *, before: datetime, but: Collection[str] = ()) -> int:
        """Remove what was last put into `folder` before that time of the wall, but these names; how many.

        Safe to repeat. Raises Unavailable.
        """


def open_store(files_url: str) -> FileStore:
    """The store at `file://…` or `s3://…` (FLEET_FILES_URL).

    Raises:
        Unavailable: this installation cannot speak to that kind of store.
    """
    folder = folder_of(files_url)
    if folder is not None:
        return Folder(folder)
    try:
        system, root = fsspec.core.url_to_fs(files_url)
    except (ImportError, ValueError) as problem:
        raise Unavailable(
            "Files cannot be kept at %(scheme)s://: install what speaks to it (for s3:// the package s3fs).",
            scheme=urlsplit(files_url).scheme,
        ) from problem
    return ObjectStore(system, str(root))


def folder_of(files_url: str) -> Path | None:
    """The folder of this machine that the files are in; None where they are in an object store."""
    parts = urlsplit(files_url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> None:
        path = self._path(name)
        if path.exists():
            with suppress(OSError):  # somebody else's: then it is as old as it was
                os.utime(path)
            return
        aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
            _sync_folder(path.parent)
        except OSError as problem:
            with suppress(OSError):  # what was written of it, if anything
                aside.unlink()
            raise Unavailable(
                "The file cannot be kept: %(problem)s.", problem=problem.strerror
            ) from problem

    def get(self, name: str) -> bytes:
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError as problem:
            raise NotFound("There is no such file.") from problem
        except OSError as problem:
            raise Unavailable(
                "The file cannot be read: %(problem)s.", problem=problem.strerror
            ) from problem

    def touch(self, name: str) -> bool:
        path = self._path(name)
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        except PermissionError:  # somebody else's: then it is as old as it was
            return path.exists()
        except OSError as problem:
            raise Unavailable(
                "The file cannot be read: %(problem)s.", problem=problem.strerror
            ) from problem
        return True

    def forget(self, folder: str, *, before: datetime, but: Collection[str] = ()) -> int:
        count = 0
        kept = {self._path(name) for name in but}
        try:
            for path in sorted(self._path(f"{folder}/x").parent.rglob("*")):
                if path in kept or not path.is_file():
                    continue
                if path.stat().st_mtime < before.timestamp():
                    path.unlink(missing_ok=True)
                    count += 1
        except FileNotFoundError:  # somebody else was faster
            return count
        except OSError as problem:
            raise Unavailable(
                "The file cannot be removed: %(problem)s.", problem=problem.strerror
            ) from problem
        return count

    def _path(self, name: str) -> Path:
        _check_name(name)
        return self._root / name


class ObjectStore:
    """Whatever fsspec speaks to. It keeps an object as a whole or not at all."""

    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root.rstrip("/")

    def put(self, name: str, data: bytes) -> None:
        _check_name(name)
        try:
            self._system.pipe_file(f"{self._root}/{name}", data)
        except OSError as problem:
            raise Unavailable("The file cannot be kept: %(problem)s.", problem=problem) from problem

    def get(self, name: str) -> bytes:
        _check_name(name)
        try:
            return bytes(self._system.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError as problem:
            raise NotFound("There is no such file.") from problem
        except OSError as problem:
            raise Unavailable("The file cannot be read: %(problem)s.", problem=problem) from problem

    def touch(self, name: str) -> bool:
        try:
            self.put(name, self.get(name))
        except NotFound:
            return False
        return True

    def forget(self, folder: str, *, before: datetime, but: Collection[str] = ()) -> int:
        _check_name(f"{folder}/x")
        count = 0
        kept = {f"{self._root}/{name}".lstrip("/") for name in but}
        try:
            for path in self._system.find(f"{self._root}/{folder}"):
                if path.lstrip("/") not in kept and self._system.modified(path) < before:
                    self._system.rm_file(path)
                    count += 1
        except FileNotFoundError:  # there is none, or somebody else was faster
            return count
        except OSError as problem:
            raise Unavailable(
                "The file cannot be removed: %(problem)s.", problem=problem
            ) from problem
        return count


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or ".." in name:
        raise NotFound("There is no such file.")


def _sync_folder(folder: Path) -> None:
    """The rename is on disk, too."""
    if os.name == "nt":  # which cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
