"""Files that the bench writes: whole or not at all, and with a sentence when they cannot be."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from provisioning.errors import BenchError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file with the folders above it; no reader ever sees a part of it, and a file that was there stays until then.

    Raises:
        BenchError: it cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Not tempfile: who may read its files is its own choice, here it is the technician's umask.
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}.") from error
