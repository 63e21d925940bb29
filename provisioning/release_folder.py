"""The folder in which a repository of releases grows at the release author's desk; may live in version control or on a stick.

    metadata/3.root.json 5.targets.json 9.tree-3.json     signed by as many as have to
    drafts/root.json targets.json tree-3.json             the next version, waiting for signatures
    built/tree-3/0.7.0.cbor 0.7.0.cdx.json                a release that nobody has signed yet
    targets/tree-3/<sha256>.0.7.0.cbor                    what is signed, under the names of consistent snapshots
    targets/files/<sha256>                                the files of all bundles

No secret is in it. A file appears whole; what is in `metadata/` never changes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from fleet_server.wire.signed_releases import ROOT, TARGETS, is_role_of_model
from provisioning.errors import BenchError, UsedWrongly
from provisioning.files import write_whole

_METADATA = re.compile(r"([1-9][0-9]{0,9})\.([a-z0-9-]+)\.json")


class ReleaseFolder:
    """Paths and bytes; what they mean is judged elsewhere."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check_begun(self) -> None:
        """Raises UsedWrongly: no repository was begun here."""
        if not self.versions(ROOT) and self.draft(ROOT) is None:
            raise UsedWrongly(
                f"There is no repository in {self.path}; begin one with provision release root init."
            )

    # signed metadata

    def versions(self, name: str) -> list[int]:
        """Versions of a role that are signed, oldest first."""
        return sorted(version for version, role in self._signed() if role == name)

    def metadata(self, name: str, version: int) -> bytes:
        return self._read(self.path / "metadata" / f"{version}.{name}.json")

    def newest(self, name: str) -> bytes | None:
        """The newest version that is signed by as many as have to; None before there is one."""
        versions = self.versions(name)
        return self.metadata(name, versions[-1]) if versions else None

    def roots(self) -> list[bytes]:
        """All roots, oldest first."""
        return [self.metadata(ROOT, version) for version in self.versions(ROOT)]

    def roles(self) -> dict[str, bytes]:
        """The newest metadata of each node model's role that is signed."""
        names = {role for _, role in self._signed() if is_role_of_model(role)}
        return {name: self.metadata(name, self.versions(name)[-1]) for name in sorted(names)}

    def _signed(self) -> list[tuple[int, str]]:
        folder = self.path / "metadata"
        if not folder.is_dir():
            return []
        found = (_METADATA.fullmatch(path.name) for path in folder.iterdir())
        return [(int(match[1]), match[2]) for match in found if match]

    # drafts

    def draft(self, name: str) -> bytes | None:
        path = self._draft(name)
        return self._read(path) if path.exists() else None

    def drafts(self) -> dict[str, bytes]:
        """What waits for signatures, by role: root first, then targets, then the models' roles."""
        folder = self.path / "drafts"
        names = {path.stem for path in folder.glob("*.json")} if folder.is_dir() else set()
        rank = {ROOT: 0, TARGETS: 1}
        return {
            name: self._read(self._draft(name))
            for name in sorted(names, key=lambda name: (rank.get(name, 2), name))
        }

    def write_draft(self, name: str, data: bytes) -> None:
        write_whole(self._draft(name), data)

    def drop_draft(self, name: str) -> None:
        self._draft(name).unlink(missing_ok=True)

    def finish_draft(self, name: str, version: int, data: bytes) -> None:
        """The draft is signed by as many as have to: it becomes this version. Safe to repeat after a crash."""
        path = self.path / "metadata" / f"{version}.{name}.json"
        if path.exists() and self._read(path) != data:
            raise BenchError(
                f"{path} is there already and is another; two desks went different ways."
            )
        write_whole(path, data)
        self.drop_draft(name)

    def _draft(self, name: str) -> Path:
        return self.path / "drafts" / f"{name}.json"

    # releases

    def write_built(self, model: str, files: Mapping[str, bytes]) -> None:
        """What a build gave, by file name (`0.7.0.cbor`, …)."""
        for name, data in files.items():
            write_whole(self.path / "built" / model / name, data)

    def built(self, model: str, name: str) -> bytes | None:
        path = self.path / "built" / model / name
        return self._read(path) if path.exists() else None

    def built_models(self, name: str) -> list[str]:
        """Models for which there is a built file of this name."""
        return sorted(path.parent.name for path in (self.path / "built").glob(f"*/{name}"))

    def keep_target(self, path: str, data: bytes) -> None:
        """A target under the name that consistent snapshots give it."""
        write_whole(self._target(path, hashlib.sha256(data).hexdigest()), data)

    def target(self, path: str, sha256: str) -> bytes:
        """Raises BenchError: it is not there."""
        return self._read(self._target(path, sha256))

    def _target(self, path: str, sha256: str) -> Path:
        folder, _, name = path.rpartition("/")
        return self.path / "targets" / folder / f"{sha256}.{name}"

    def keep_file(self, data: bytes) -> None:
        """A file of a bundle, by its content."""
        path = self._file(hashlib.sha256(data).hexdigest())
        if not path.exists():
            write_whole(path, data)

    def file(self, sha256: str) -> bytes:
        """Raises BenchError: it is not there."""
        return self._read(self._file(sha256))

    def _file(self, sha256: str) -> Path:
        return self.path / "targets" / "files" / sha256

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise BenchError(
                f"{path} is missing; build the release again, or take the folder from who has it whole."
            ) from error
