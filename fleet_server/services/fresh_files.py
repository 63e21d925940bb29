"""Whether files that others replace as a whole are still those that were read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

Stamp = tuple[tuple[int, int] | None, ...]


def stamp_of(*paths: Path) -> Stamp:
    """What changes when one of them is replaced; None for one that is not there. Take it before reading them."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_ino
    return None
