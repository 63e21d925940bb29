"""What a node fetches in one answer: exactly what it lacks, and never more than it takes."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.services import release_packs, release_repository
from fleet_server.wire.manifest import decode_manifest
from tests.fleet_server.services.release_city import City, city_with_a_release

TARGET = "0.7.0.cbor"


@pytest.fixture
def city(session: Session, tmp_path: Path) -> City:
    made = city_with_a_release(session, tmp_path)
    made.publish()
    return made


def unpacked(data: bytes) -> bytes:
    """By a window of a kibibyte, as a node has it."""
    return zlib.decompress(data, -10)


def news(city: City, held: str, model: str = "tree-3", file: str = TARGET) -> dict[str, bytes]:
    rest = unpacked(release_packs.news(city.session, held, model, file))
    parts = {}
    while rest:
        head, _, rest = rest.partition(b"\n")
        name, length = head.decode().split()
        parts[name], rest = rest[: int(length)], rest[int(length) :]
    return parts


def versions(city: City) -> dict[str, int]:
    newest = release_repository.newest_metadata(city.session)
    return {role: row.version for role, row in newest.items()}


def held(city: City, **changes: object) -> str:
    """All that there is, but for the changes."""
    has = versions(city)
    (manifest,) = [
        data
        for name, data in city.desk.targets().items()
        if name.startswith("tree-3") and name.endswith(".cbor")
    ]
    parts: dict[str, object] = {name: has[name] for name in ("root", "snapshot", "targets")}
    parts |= {"role": has["tree-3"], "manifest": hashlib.sha256(manifest).hexdigest()[:8]}
    return ".".join(str(part) for part in (parts | changes).values())


def test_a_new_node_is_given_everything_in_the_order_in_which_it_asks(city: City) -> None:
    has = versions(city)

    parts = news(city, "1.0.0.0.-")

    *metadata, manifest = parts
    assert metadata == [
        "2.root.json",
        "timestamp.json",
        f"{has['snapshot']}.snapshot.json",
        f"{has['targets']}.targets.json",
        f"{has['tree-3']}.tree-3.json",
    ]
    assert parts["2.root.json"] == b"", "there is none"
    for name in metadata[1:]:
        assert parts[name] == release_repository.metadata_file(city.session, name)
    sha256 = hashlib.sha256(parts[manifest]).hexdigest()
    assert manifest == f"tree-3/{sha256}.0.7.0.cbor"
    assert decode_manifest(parts[manifest]).version == "0.7.0"


def test_what_a_node_has_is_not_sent_again(city: City) -> None:
    table: list[tuple[dict[str, object], list[str]]] = [
        ({}, []),
        ({"snapshot": 0}, ["snapshot.json"]),
        ({"targets": 7}, ["targets.json"]),
        ({"role": 0}, ["tree-3.json"]),
        ({"manifest": "-"}, [".cbor"]),
        ({"manifest": "00000000"}, [".cbor"]),
        ({"root": 0}, ["1.root.json"]),
    ]
    for changes, lacks in table:
        parts = [name for name, data in news(city, held(city, **changes)).items() if data]
        others = [name for name in parts if name != "timestamp.json"]
        assert len(others) == len(lacks), changes
        assert all(name.endswith(end) for name, end in zip(others, lacks, strict=True))


def test_a_release_that_is_not_there_has_no_manifest(city: City) -> None:
    assert not [name for name in news(city, "1.0.0.0.-", file="9.9.9.cbor") if ".cbor" in name]


def test_what_is_too_much_for_a_node_is_left_out(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = news(city, "1.0.0.0.-")
    size = sum(len(f"{name} {len(data)}\n") + len(data) for name, data in whole.items())
    monkeypatch.setattr(release_packs, "MOST_NEWS_BYTES", size - 1)

    assert list(news(city, "1.0.0.0.-")) == list(whole)[:-1]


def test_who_asks_in_other_words_gets_nothing(city: City) -> None:
    for asked in (
        ("1.0.0.0", "tree-3", TARGET),
        ("01.0.0.0.-", "tree-3", TARGET),
        ("1.0.0.0.xyz", "tree-3", TARGET),
        ("1.-1.0.0.-", "tree-3", TARGET),
        ("1.0.0.0.-", "../keys", TARGET),
        ("1.0.0.0.-", "root", TARGET),
        ("1.0.0.0.-", "tree-3", "..cbor"),
        ("1.0.0.0.-", "tree-3", ""),
    ):
        with pytest.raises(NotFound):
            release_packs.news(city.session, *asked)


def test_files_of_a_bundle_come_one_behind_the_other_from_where_the_node_is(city: City) -> None:
    (name,) = [
        name for name in city.desk.targets() if name.startswith("tree-3") and name.endswith(".cbor")
    ]
    manifest = decode_manifest(city.desk.targets()[name])
    files = [
        (city.store.get(release_repository.file_name(one.sha256.hex()))) for one in manifest.files
    ]
    assert len(files) == 2

    def fetch(wanted: str) -> bytes:
        return unpacked(
            release_packs.bundle_files(
                city.session, lambda: city.store, manifest.bundle_sha256, wanted
            )
        )

    assert fetch("c0.0") == files[0] + files[1]
    assert fetch("40.0") == files[1]
    assert fetch("80" + "00" * 14 + ".3") == files[0][3:]
    assert fetch("c0.1") == (files[0] + files[1])[1:]
    assert fetch("3f.0") == b"", "bits of no file"
    for wrong in ("c0", "c.0", "C0.0", "c0.-1", "00" * 16 + ".0", ".0", "c0.999999999"):
        with pytest.raises(NotFound):
            fetch(wrong)
