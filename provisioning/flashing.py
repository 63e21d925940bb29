"""Putting a firmware bundle on a board's file system."""

from __future__ import annotations

from pathlib import PurePosixPath

from provisioning.boards import BenchBoard
from provisioning.firmware_bundle import FirmwareBundle

_START_FILE = "/main.py"


def flash_firmware(board: BenchBoard, bundle: FirmwareBundle) -> None:
    """Write the bundle into slot a and the boot files beside it. Safe to repeat; identity and spool stay.

    `main.py` goes last: a board that lost power half-way boots into nothing and is flashed again.
    """
    files = bundle.files_on_board("a")
    folders = {str(parent) for path in files for parent in PurePosixPath(path).parents}
    for folder in [*sorted(folders - {"/"}), "/b"]:
        board.mkdir(folder)
    board.put({path: files[path] for path in sorted(files, key=lambda p: (p == _START_FILE, p))})
