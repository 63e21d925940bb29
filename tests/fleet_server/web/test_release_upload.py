"""A release folder is published from a browser, as an archive or as it is: all of it or nothing, with the checks of the API."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient
from sqlalchemy import select

from fleet_server.models import Release, Role
from fleet_server.services import accounts, release_archives
from fleet_server.services.releasing import ReleaseRefused
from tests.fleet_server import small_world
from tests.fleet_server.services.release_city import City
from tests.fleet_server.small_world import NOW
from tests.fleet_server.world_fixtures import World

ADDRESS = "/fleet/releases"
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def city(sqlite_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    """A server that trusts a root, and a desk with one release that was not sent yet."""
    with sqlite_world.sessions() as session:
        made = City(session, tmp_path_factory.mktemp("city"))
        made.trust()
        made.desk.release("0.7.0", 7, sources=made.sources)
        yield made


@pytest.fixture(scope="module")
def author(sqlite_world: World, city: City) -> FlaskClient:
    for name, role in (("rita", Role.RELEASE_AUTHOR), ("olaf", Role.OPERATOR)):
        accounts.create_user(city.session, name, small_world.PASSWORD, now=NOW, roles=[role])
    return sqlite_world.program("rita", data_dir=city.keys_dir.parent)


def folder_of(city: City) -> Files:
    path = city.desk.folder.path
    return {
        str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()
    }


def packed(files: Files, *, within: str = "releases/") -> bytes:
    packing = io.BytesIO()
    with zipfile.ZipFile(packing, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(within + name, data)
    return packing.getvalue()


def send(client: FlaskClient, archive: bytes, *, status: int = 303, language: str = "en") -> str:
    answer = client.post(
        ADDRESS,
        data={"archive": (io.BytesIO(archive), "releases.zip")},
        headers={"Accept-Language": language},
    )
    assert answer.status_code == status, answer.text
    return answer.text if status != 303 else client.get(ADDRESS).text


def released(city: City) -> list[str]:
    city.session.rollback()
    return list(city.session.scalars(select(Release.version).distinct().order_by(Release.version)))


def kept(city: City) -> int:
    return sum(one.is_file() for one in (city.keys_dir.parent / "files").rglob("*"))


def _a_file_is_another(files: Files) -> Files:
    name = next(one for one in files if one.startswith("targets/files/"))
    return files | {name: files[name] + b"!"}


def _a_file_is_missing(files: Files) -> Files:
    name = next(one for one in files if one.startswith("targets/files/"))
    return {one: data for one, data in files.items() if one != name}


def _a_role_was_changed(files: Files) -> Files:
    name = next(one for one in files if re.fullmatch(r"metadata/\d+\.tree-3\.json", one))
    changed = re.sub(rb'("counter": ?)7', rb"\g<1>9", files[name])
    assert changed != files[name]
    return files | {name: changed}


@pytest.mark.parametrize(
    ("change", "sentence", "german", "files_kept"),
    [
        (_a_role_was_changed, "has 0 of 1 signatures", "hat 0 von 1 Signaturen", False),
        (_a_file_is_missing, "was not sent", "wurde nicht gesendet", True),
        (_a_file_is_another, "not the one that its hash names", "nicht die, die", True),
    ],
)
def test_what_the_api_would_refuse_is_refused_here_and_no_release_is_there(
    city: City,
    author: FlaskClient,
    change: Callable[[Files], Files],
    sentence: str,
    german: str,
    files_kept: bool,
) -> None:
    archive = packed(change(folder_of(city)))
    assert sentence in send(author, archive, status=400)
    assert german in send(author, archive, status=400, language="de")
    assert released(city) == []
    if not files_kept:
        assert kept(city) == 0, "nothing that no signed manifest names gets into the store"


def test_an_archive_is_published_as_a_whole_and_sending_it_again_changes_nothing(
    sqlite_world: World, city: City, author: FlaskClient
) -> None:
    operator = sqlite_world.program("olaf", data_dir=city.keys_dir.parent)
    assert 'id="publish"' not in operator.get(ADDRESS).text
    send(operator, packed(folder_of(city)), status=403)
    assert 'id="publish"' in author.get(ADDRESS).text
    page = send(author, packed(folder_of(city)))
    assert "Published: pond-1 0.7.0, tree-3 0.7.0." in page
    assert released(city) == ["0.7.0"]
    assert "All of it was here already." in send(author, packed(folder_of(city), within=""))


def test_a_folder_is_published_as_a_browser_sends_it_one_file_after_the_other(
    city: City, author: FlaskClient
) -> None:
    city.desk.release("0.8.0", 8, sources=city.sources, notes="more")
    files = folder_of(city) | {f"drafts/{number}.txt": b"" for number in range(1100)}
    parts = [(io.BytesIO(data), f"releases/{name}") for name, data in files.items()]
    answer = author.post(ADDRESS, data={"folder": parts})
    assert answer.status_code == 303, answer.text
    assert "Published: pond-1 0.8.0, tree-3 0.8.0." in author.get(ADDRESS).text
    assert released(city) == ["0.7.0", "0.8.0"]


def _one(name: str, data: bytes) -> bytes:
    return packed({"metadata/1.root.json": b"{}", name: data})


def _encrypted() -> bytes:
    """As a packer with a password marks it (APPNOTE.TXT 4.4.4, bit 0), in both headers."""
    archive = bytearray(_one("targets/files/aa", b"x"))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = archive.find(mark)
        while at >= 0:
            archive[at + offset] |= 1
            at = archive.find(mark, at + 1)
    return bytes(archive)


@pytest.mark.parametrize(
    ("archive", "sentence"),
    [
        (lambda: b"", "This is no ZIP archive"),
        (lambda: b"\x1f\x8b no zip", "This is no ZIP archive"),
        (lambda: _one("targets/files/aa", b"x" * 9)[:-30], "This is no ZIP archive"),
        (_encrypted, "without a password"),
        (lambda: packed({"readme.txt": b"x"}), "There is no release folder in it"),
        (
            lambda: packed(
                {"a/metadata/1.root.json": b"", "b/metadata/1.root.json": b""}, within=""
            ),
            "or there are several",
        ),
        (lambda: _one("targets/files/aa", bytes(20_000_000)), "has more than 262144 bytes"),
        (
            lambda: packed(
                {"metadata/1.root.json": b"{}"}
                | {f"targets/files/{number}": bytes(250_000) for number in range(280)}
            ),
            "Unpacked it has more than",
        ),
        (
            lambda: packed({f"metadata/{number}.root.json": b"" for number in range(1, 5002)}),
            "There are more than 5000 files",
        ),
        (lambda: _one("metadata/2.tree-3.json", b"[" * 100_000), "tree-3 is no TUF metadata"),
    ],
    ids=range(10),
)
def test_an_archive_that_is_none_or_too_large_is_refused_in_a_sentence(
    archive: Callable[[], bytes], sentence: str
) -> None:
    with pytest.raises(ReleaseRefused, match=re.escape(sentence)):
        release_archives.published_of(release_archives.unpacked(archive()))


def test_what_is_no_archive_is_said_on_the_page(author: FlaskClient) -> None:
    assert "This is no ZIP archive" in send(author, b"no zip", status=400)


def test_nothing_chosen_is_said(author: FlaskClient) -> None:
    answer = author.post(ADDRESS, data={})
    assert answer.status_code == 400
    assert "Choose a ZIP archive" in answer.text


def test_more_than_may_be_sent_is_not_read(author: FlaskClient) -> None:
    answer = author.post(
        ADDRESS,
        data=bytes(release_archives.LARGEST_BYTES + 4_000_000),
        content_type="multipart/form-data; boundary=-",
    )
    assert answer.status_code == 413
