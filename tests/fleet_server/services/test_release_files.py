"""Files of the store that no release names any more are removed after a while; none that a release needs is ever."""

from __future__ import annotations

import os
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.services import release_repository, releases, releasing
from fleet_server.services.file_store import FileStore, Folder, open_store
from fleet_server.services.releasing import FILES_KEPT, FileMissing
from fleet_server.wire.manifest import decode_manifest
from provisioning.release_building import withdraw_release
from tests.fleet_server.services.release_city import LATER, NOW, City
from tests.releases import small_sources

LONG_AFTER = LATER + FILES_KEPT + timedelta(minutes=1)
STRAY = "ab" * 32


@pytest.fixture
def city(session: Session, tmp_path: Path) -> City:
    """A release is published; everything was sent long ago, and a file that nobody names, too."""
    made = City(session, tmp_path, models=("tree-3",))
    made.trust()
    made.desk.release("0.7.0", 7, sources=made.sources)
    made.send_files()
    made.publish()
    made.store.put(release_repository.file_name(STRAY), b"half of an upload")
    age(made, LATER)
    return made


def age(city: City, when: datetime) -> None:
    """As if all files had been sent then."""
    for path in (city.keys_dir.parent / "files").rglob("*"):
        os.utime(path, (when.timestamp(), when.timestamp()))


def forget(city: City, when: datetime) -> int:
    return releasing.forget_files(city.session, city.store, now=when, wall_now=when)


def other_sources(city: City) -> Path:
    """Another firmware, whose files no release has named before."""
    return small_sources(city.keys_dir.parent / "others", body="return 2")


def is_whole(city: City) -> bool:
    """Whether everything is there that a node would fetch of each release."""
    manifests = [
        decode_manifest(data)
        for path, data in city.given().documents.items()
        if path.endswith(".cbor")
    ]
    files = [file.sha256.hex() for manifest in manifests for file in manifest.files]
    return bool(files) and all(
        city.store._path(release_repository.file_name(sha256)).exists() for sha256 in files
    )


def test_what_no_release_names_goes_after_a_while_and_what_one_names_stays(city: City) -> None:
    stray = city.store._path(release_repository.file_name(STRAY))
    assert forget(city, LATER + FILES_KEPT - timedelta(minutes=1)) == 0
    assert releasing.missing_files(city.store, [STRAY, "cd" * 32]) == ["cd" * 32]
    os.utime(stray, (LATER.timestamp(), LATER.timestamp()))
    assert (forget(city, LONG_AFTER), forget(city, LONG_AFTER)) == (1, 0)
    assert not stray.exists()
    assert is_whole(city)


def test_what_somebody_has_just_asked_for_is_as_good_as_sent(city: City) -> None:
    """Else it could be removed between that answer and the release that names it."""
    assert releasing.missing_files(city.store, [STRAY]) == []
    assert (
        releasing.forget_files(city.session, city.store, now=LONG_AFTER, wall_now=LONG_AFTER) == 0
    )


def test_files_of_a_withdrawn_release_go_later_and_it_comes_back_with_them_only(
    city: City,
) -> None:
    sent = city.given()
    manifest = decode_manifest(sent.documents["tree-3/0.7.0.cbor"])
    withdraw_release(city.desk.folder, "tree-3", "0.7.0", now=NOW)
    city.desk.sign_all("author")
    assert city.publish().withdrawn == [("tree-3", "0.7.0")]
    assert forget(city, LATER + FILES_KEPT - timedelta(minutes=1)) == 0
    assert forget(city, LONG_AFTER) == len(manifest.files) + 1, (
        "the stray one; its parts list stays"
    )
    first = manifest.files[0].sha256.hex()
    assert releasing.missing_files(city.store, [first]) == [first]
    city.desk.build("0.7.0", 7, sources=city.sources)
    city.desk.release_built("0.7.0")
    with pytest.raises(FileMissing, match=r"of tree-3/0\.7\.0\.cbor was not sent"):
        city.publish()
    city.send_files()
    city.publish()
    assert releases.release_of(city.session, "tree-3", "0.7.0").withdrawn_at is None
    assert is_whole(city)


class _Interrupted(Folder):
    """A store that, at the last moment before a release is there, is cleared by the job of another process."""

    def __init__(self, store: Folder, job: threading.Thread) -> None:
        super().__init__(store._root)
        self._job = job

    def put(self, name: str, data: bytes) -> None:
        self._job.start()
        self._job.join(
            0.5
        )  # it waits for the one who publishes; without that it were through by now
        super().put(name, data)


def test_a_release_that_is_being_published_keeps_its_files_whatever_the_job_does_meanwhile(
    city: City,
) -> None:
    """They were sent long ago, and nobody had named them yet."""
    city.desk.release("0.8.0", 8, sources=other_sources(city))
    city.send_files()
    age(city, LATER)
    engine = city.session.get_bind()
    removed: list[int] = []

    def clear() -> None:
        with db.session_factory(engine)() as session:  # type: ignore[arg-type] # an engine
            removed.append(
                releasing.forget_files(session, city.store, now=LONG_AFTER, wall_now=LONG_AFTER)
            )

    job = threading.Thread(target=clear)
    store: FileStore = _Interrupted(city.store, job)
    releasing.publish(
        city.session, city.given(), store=lambda: store, keys_dir=city.keys_dir, now=LATER
    )
    job.join()
    assert removed == [1], "the stray one"
    assert is_whole(city)


def test_an_object_store_forgets_in_the_same_way(tmp_path: Path) -> None:
    store = open_store("memory://stadtsensor-release-files")
    needed, stray = (release_repository.file_name(sha256) for sha256 in ("cd" * 32, STRAY))
    for name in (needed, stray):
        store.put(name, b"x")
    assert (store.touch(needed), store.touch(release_repository.file_name("ef" * 32))) == (
        True,
        False,
    )
    after = datetime.now(NOW.tzinfo) + timedelta(minutes=1)
    assert store.forget("releases", before=after, but=[needed]) == 1
    assert store.get(needed) == b"x"


def test_what_was_removed_is_sent_again_before_it_is_published(city: City) -> None:
    city.desk.release("0.8.0", 8, sources=other_sources(city))
    with pytest.raises(FileMissing):
        city.publish()
    city.send_files()
    assert city.publish().releases == [("tree-3", "0.8.0")]
