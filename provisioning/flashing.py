"""Putting a firmware bundle on a board's file system, and making sure that it is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from provisioning.boards import BenchBoard
from provisioning.errors import BenchError
from provisioning.firmware_bundle import FirmwareBundle
from provisioning.scripts import ask

_START_FILE = "/main.py"

# Prints path and SHA-256 of each file, or `-` for one that is not there.
_HASHES = """
import hashlib
from binascii import hexlify
def hashed(path):
    try:
        file = open(path, "rb")
    except OSError:
        return "-"
    digest, buffer = hashlib.sha256(), bytearray(512)
    while True:
        size = file.readinto(buffer)
        if not size:
            break
        digest.update(memoryview(buffer)[:size])
    file.close()
    return hexlify(digest.digest()).decode()
for path in {paths!r}:
    say(path + " " + hashed(path))
"""
_FOLDERS = """
import os
for folder in {folders!r}:
    try:
        os.mkdir(folder)
    except OSError:
        pass
"""
_FORGET = """
import os
try:
    os.remove({path!r})
except OSError:
    pass
"""


def flash_firmware(board: BenchBoard, bundle: FirmwareBundle) -> int:
    """Write the bundle into slot a and the boot files beside it, and read it back; how many files were written.

    Safe to repeat, at whatever byte it was interrupted: what is there already is not written again, identity and spool
    stay. `main.py` goes first and comes last, so that a board that lost its power half-way boots into nothing.

    Raises:
        BenchError: the board failed, or has not kept what was written.
    """
    files = bundle.files_on_board("a")
    board.exec(_FOLDERS.format(folders=_folders_of(files)))
    there = hashes_on(board, files)
    wanted = bundle.hashes_on_board("a")
    missing = sorted(path for path in files if there[path] != wanted[path])
    if missing:
        if _START_FILE not in missing:
            missing.append(_START_FILE)
        missing.sort(key=lambda path: (path == _START_FILE, path))
        board.exec(_FORGET.format(path=_START_FILE))
        board.put({path: files[path] for path in missing})
        _check_kept(hashes_on(board, files), wanted)
    return len(missing)


def _folders_of(files: Iterable[str]) -> list[str]:
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    return [*sorted(folders - {"/"}), "/b"]


def hashes_on(board: BenchBoard, paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 (hex) of files on the board by path; `-` for one that is not there."""
    lines = ask(board, _HASHES.format(paths=tuple(paths)))
    return {path: sha256 for path, _, sha256 in (line.rpartition(" ") for line in lines)}


def _check_kept(there: dict[str, str], wanted: dict[str, str]) -> None:
    for path, sha256 in wanted.items():
        if there.get(path) != sha256:
            raise BenchError(
                f"The board has not kept {path} as it was written; flash it again, and put it aside when that happens"
                " twice."
            )
