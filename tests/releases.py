"""A release author's desk for tests: a repository with keys in memory, and what a server would serve of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface

from fleet_server.wire import signed_releases
from provisioning import release_ceremony
from provisioning.errors import BenchError
from provisioning.release_building import Build, build_release, sign_release
from provisioning.release_ceremony import Signatories, begin, sign_drafts
from provisioning.release_folder import ReleaseFolder
from provisioning.release_keys import KeyCard

MAKERS = {
    "rsa": CryptoSigner.generate_rsa,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "ed25519": CryptoSigner.generate_ed25519,
}


def small_sources(folder: Path, *, body: str = "return 1") -> Path:
    """Firmware of two modules, which compiles in no time."""
    (folder / "node" / "bus").mkdir(parents=True, exist_ok=True)
    for name in ("boot.py", "main.py", "slots.py", "judge.py"):
        (folder / name).write_text(f"# {name}\n")
    (folder / "node" / "cycle.py").write_text(f"def run():\n    {body}\n")
    (folder / "node" / "bus" / "adc.py").write_text("PIN = 35\n")
    return folder


class Desk:
    """`root-1` and `root-2` hold the root (both have to sign), `targets` says who signs releases, `author` signs them.

    `snapshot` and `timestamp` are a server's keys. Everything is signed at once. `kinds` by holder: rsa or ed25519, else ecdsa.
    """

    def __init__(
        self,
        path: Path,
        *,
        models: Sequence[str] = ("tree-3",),
        kinds: Mapping[str, str] | None = None,
        now: datetime | None = None,
        online: dict[str, KeyCard] | None = None,
        authors: Sequence[str] = ("author",),
    ) -> None:
        self.folder = ReleaseFolder(path)
        self.models = tuple(models)
        self.kinds = kinds or {}
        self.now = now or datetime.now(UTC)
        self.signers: dict[str, CryptoSigner] = {}
        self.authors = tuple(authors)
        server = online or {name: self.card(name) for name in ("snapshot", "timestamp")}
        signatories = {name: Signatories([card], 1) for name, card in server.items()}
        signatories["root"] = Signatories([self.card("root-1"), self.card("root-2")], 2)
        signatories["targets"] = Signatories([self.card("targets")], 1)
        who = Signatories([self.card(name) for name in self.authors], len(self.authors))
        begin(self.folder, signatories, dict.fromkeys(models, who), now=self.now)
        self.sign_all("root-1", "root-2", "targets")

    def card(self, holder: str) -> KeyCard:
        """The card of a holder's key, which is drawn when it is first asked for."""
        if holder not in self.signers:
            self.signers[holder] = MAKERS[self.kinds.get(holder, "ecdsa")]()
        return KeyCard(holder, self.signers[holder].public_key, None)

    def sign_all(self, *holders: str) -> None:
        """Each signs what waits and what their key counts for."""
        for holder in holders:
            with suppress(BenchError):
                sign_drafts(self.folder, self.card(holder), lambda who=holder: self.signers[who])  # type: ignore[misc]

    def build(
        self,
        version: str,
        counter: int,
        *,
        sources: Path,
        models: Sequence[str] = (),
        **more: object,
    ) -> None:
        wanted = Build(
            version=version,
            counter=counter,
            built_utc_s=int(self.now.timestamp()) - 86_400,
            support_until=date(2031, 12, 31),
            **more,  # type: ignore[arg-type]
        )
        build_release(self.folder, wanted, models or self.models, sources=sources)

    def release(
        self,
        version: str,
        counter: int,
        *,
        sources: Path,
        models: Sequence[str] = (),
        **more: object,
    ) -> None:
        """Build a release and have all authors sign it."""
        self.build(version, counter, sources=sources, models=models, **more)
        self.release_built(version, models=models)

    def release_built(self, version: str, *, models: Sequence[str] = ()) -> None:
        """Have all authors sign what was built."""
        for author in self.authors:
            sign_release(
                self.folder,
                version,
                self.card(author),
                lambda who=author: self.signers[who],  # type: ignore[misc]
                models=models,
                now=self.now,
            )

    def rotate(self, role: str, old: str, new: str) -> None:
        """Replace a key in `root` or of a model, signed by who has to."""
        release_ceremony.replace_key(self.folder, role, old, self.card(new), now=self.now)
        self.sign_all("root-1", "root-2", "targets", *self.signers)

    def metadata(self, *, online_version: int = 1, now: datetime | None = None) -> dict[str, bytes]:
        """All metadata by file name, with snapshot and timestamp of this version."""
        now = now or self.now
        targets = self.folder.newest("targets")
        assert targets is not None
        roles = self.folder.roles()
        snapshot = signed_releases.snapshot_of(
            targets, roles, version=online_version, expires=now + timedelta(days=30)
        )
        snapshot.sign(self.signers["snapshot"])
        snapshot_bytes = snapshot.to_bytes()
        timestamp = signed_releases.timestamp_of(
            snapshot_bytes, version=online_version, expires=now + timedelta(days=7)
        )
        timestamp.sign(self.signers["timestamp"])
        found = {path.name: path.read_bytes() for path in (self.folder.path / "metadata").iterdir()}
        return {
            **found,
            f"{online_version}.snapshot.json": snapshot_bytes,
            "timestamp.json": timestamp.to_bytes(),
        }

    def targets(self) -> dict[str, bytes]:
        """All target files by the path below `tuf/targets/`."""
        folder = self.folder.path / "targets"
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }


class Shelf(FetcherInterface):
    """Serves files from memory to python-tuf's own client; what is asked for is kept in `asked`."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = urlsplit(url).path.lstrip("/")
        self.asked.append(path)
        if path not in self.files:
            raise DownloadHTTPError("not there", 404)
        yield self.files[path]


def shelf_of(desk: Desk, **more: object) -> Shelf:
    """What a server serves of a desk, under `metadata/` and `targets/`."""
    metadata = desk.metadata(**more)  # type: ignore[arg-type]
    return Shelf(
        {f"metadata/{name}": data for name, data in metadata.items()}
        | {f"targets/{name}": data for name, data in desk.targets().items()}
    )
