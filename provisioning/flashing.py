"""Putting a firmware bundle on a board's file system."""

from __future__ import annotations

from pathlib import PurePosixPath

from provisioning.boards import BenchBoard
from provisioning.firmware_bundle import FirmwareBundle

_SLOTS = ("/a", "/b")


def flash_firmware(board: BenchBoard, bundle: FirmwareBundle) -> None:
    """Write the bundle into slot a and the boot files beside it. Safe to repeat; identity and spool stay.

    `main.py` goes last: a board that lost power half-way boots into nothing and is flashed again.
    """
    files = bundle.files_on_board("a")
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} | set(
        _SLOTS
    )
    for folder in sorted(folders - {"/"}):
        board.mkdir(folder)
    for path in sorted(files, key=lambda path: (path == "/main.py", path)):
        board.put(path, files[path])
