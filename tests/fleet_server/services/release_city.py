"""A server that takes releases, with the desk of its release author: for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.services import online_keys, release_repository, releasing
from fleet_server.services.file_store import Folder
from fleet_server.services.releasing import Published
from fleet_server.wire import signed_releases
from provisioning.release_keys import card_from
from tests.releases import Desk, Shelf, small_sources

NOW = datetime(2026, 7, 14, 12, 0, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


class City:
    """A server with its keys and files, and the desk of its release author."""

    def __init__(
        self, session: Session, path: Path, models: tuple[str, ...] = ("tree-3", "pond-1")
    ) -> None:
        self.session = session
        self.keys_dir = path / "release_keys"
        self.store = Folder(path / "files")
        online_keys.make_keys(self.keys_dir)
        self.cards = {
            role: card_from(card, what=role)
            for role, card in online_keys.cards(self.keys_dir).items()
        }
        self.sources = small_sources(path / "sources")
        self.desk = Desk(path / "releases", now=NOW, models=models, online=self.cards)

    def trust(self) -> int:
        return release_repository.trust_root(
            self.session, self.desk.folder.metadata("root", 1), self.keys_dir, now=NOW
        )

    def given(self) -> Published:
        """Everything that is signed at the desk."""
        folder = self.desk.folder
        documents = {}
        for name, data in folder.roles().items():
            role = signed_releases.read(data, signed_releases.Targets, what=name)
            documents |= {
                path: folder.target(path, target.hashes["sha256"])
                for path, target in role.signed.targets.items()
            }
        return Published(folder.roots(), folder.newest("targets"), folder.roles(), documents)

    def send_files(self) -> None:
        for path in (self.desk.folder.path / "targets" / "files").iterdir():
            releasing.keep_file(self.store, path.name, path.read_bytes())

    def publish(
        self, given: Published | None = None, *, now: datetime = LATER
    ) -> releasing.Outcome:
        return releasing.publish(
            self.session,
            given or self.given(),
            store=lambda: self.store,
            keys_dir=self.keys_dir,
            now=now,
        )

    def shelf(self) -> Shelf:
        """What the server serves, to python-tuf's own client."""
        return _Served(self)


class _Served(Shelf):
    def __init__(self, city: City) -> None:
        super().__init__({})
        self.city = city

    def _fetch(self, url: str):  # type: ignore[no-untyped-def]
        parts = url.removeprefix("https://fleet/").split("/")
        session = self.city.session
        try:
            if parts[0] == "metadata":
                data = release_repository.metadata_file(session, parts[1])
            elif parts[1] == "files":
                data = release_repository.bundle_file(lambda: self.city.store, parts[2])
            else:
                data = release_repository.target_file(
                    session, lambda: self.city.store, parts[1], parts[2]
                )
        except NotFound:
            data = None
        self.files = {} if data is None else {"/".join(parts): data}
        return super()._fetch(url)


def city_with_a_release(session: Session, path: Path) -> City:
    """Its root is trusted and its files are there; `publish()` is what remains."""
    made = City(session, path)
    made.trust()
    made.desk.release("0.7.0", 7, sources=made.sources, notes="Wärmer")
    made.send_files()
    return made
