"""The demo's own releases: keys and a repository below its folder, made by `provision release root trial`, and published.

All keys lie in one place, which is for a demo only. Everything is kept between runs.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlalchemy.orm import Session, sessionmaker

from fleet_server.cli.processes import Child, own_program
from fleet_server.services import online_keys, release_repository, releasing
from fleet_server.services.file_store import open_store
from fleet_server.services.releasing import Published
from fleet_server.settings import Settings
from fleet_server.wire.signed_releases import MOST_METADATA_BYTES

_FOLDER, _KEYS, _ONLINE, _PASSPHRASE = "releases", "trial_keys", "online.json", "passphrase"
_LIFETIME_DAYS = 3650
_PATIENCE_S = 60.0


class StartChild(Protocol):
    """Starts one of the demo's programs."""

    def __call__(
        self, name: str, command: list[str], *, environment: Mapping[str, str] | None = None
    ) -> Child: ...


class DemoReleases:
    """`begin` starts the work beside the demo's other parts, `finish` waits for it."""

    def __init__(self, settings: Settings, sessions: sessionmaker[Session]) -> None:
        self._settings, self._sessions = settings, sessions
        self._keys = settings.data_dir / _KEYS
        self._folder = settings.data_dir / _FOLDER
        self._child: Child | None = None

    def begin(self, start: StartChild, *, now: datetime) -> None:
        """Make the server's keys, and have the repository made."""
        folder = self._settings.release_keys_dir
        online_keys.make_keys(folder)
        self._keys.mkdir(mode=0o700, exist_ok=True)
        online = self._keys / _ONLINE
        online.write_text(json.dumps(online_keys.cards(folder)), encoding="utf-8")
        command = [
            own_program("provision"), "release", "root", "trial", "--json", "--with-release",
            "--folder", str(self._folder),
            "--keys", str(self._keys),
            "--online", str(online),
            "--days", str(_LIFETIME_DAYS),
            "--now", str(int(now.timestamp())),
        ]  # fmt: skip
        environment = {"PROVISION_KEY_PASSPHRASE": self._passphrase()}
        self._child = start("releases", command, environment=environment)

    def finish(self, told_to_end: threading.Event, *, now: Callable[[], datetime]) -> None:
        """Wait for it, trust its root and publish it; from then on nodes that are enrolled get the root."""
        if self._child is None:
            return
        self._child.wait_for("status", timeout_s=_PATIENCE_S, told_to_end=told_to_end)
        roots = self._metadata("root")
        store = open_store(self._settings.files_url)
        for path in sorted((self._folder / "targets" / "files").iterdir()):
            releasing.keep_file(store, path.name, path.read_bytes())
        keys_dir = self._settings.release_keys_dir
        with self._sessions() as session:
            release_repository.trust_root(session, roots[0], keys_dir, now=now())
            releasing.publish(
                session,
                Published(roots, self._metadata("targets")[-1], self._roles(), self._documents()),
                store=lambda: store,
                keys_dir=keys_dir,
                now=now(),
            )

    def _passphrase(self) -> str:
        """The same one in every run of a folder."""
        path = self._keys / _PASSPHRASE
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(16), encoding="ascii")
        return path.read_text(encoding="ascii")

    def _metadata(self, role: str) -> list[bytes]:
        """All versions, oldest first."""
        paths = (self._folder / "metadata").glob(f"*.{role}.json")
        return [path.read_bytes() for path in sorted(paths, key=_version_of)]

    def _roles(self) -> dict[str, bytes]:
        names = {path.name.split(".")[1] for path in (self._folder / "metadata").iterdir()}
        return {name: self._metadata(name)[-1] for name in names - {"root", "targets"}}

    def _documents(self) -> dict[str, bytes]:
        """Manifests and parts lists by target path: what lies under its own hash."""
        found = {}
        for path in (self._folder / "targets").glob("*/*.*"):
            sha256, _, name = path.name.partition(".")
            data = path.read_bytes()
            if len(data) <= MOST_METADATA_BYTES and hashlib.sha256(data).hexdigest() == sha256:
                found[f"{path.parent.name}/{name}"] = data
        return found


def _version_of(path: Path) -> int:
    return int(path.name.partition(".")[0])
