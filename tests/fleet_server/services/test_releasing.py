"""Publishing releases: the server takes what every node would take, all of it or nothing, and says of everything else why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import SqliteDatabases
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Delegations, Metadata, TargetFile

from fleet_server import db
from fleet_server.errors import FleetError, NotFound
from fleet_server.models import Release, SignedMetadata
from fleet_server.services import (
    online_keys,
    release_repository,
    releases,
    releasing,
)
from fleet_server.services.release_repository import RootWrong
from fleet_server.services.releasing import FileMissing, Published, ReleaseRefused
from fleet_server.wire import signed_releases
from fleet_server.wire.errors import RepositoryWrong
from fleet_server.wire.manifest import Image, Manifest, decode_manifest, encode_manifest
from hardware.virtual_board.esp_image import micropython
from provisioning import release_building, release_ceremony
from provisioning.release_keys import card_from
from provisioning.sbom import make_sbom
from tests.fleet_server.services.release_city import LATER, NOW, City, city_with_a_release
from tests.releases import Desk


@pytest.fixture
def session(sqlite_databases: SqliteDatabases) -> Iterator[Session]:
    """What is refused is refused on every database; what is asked of both is in test_release_questions.py."""
    with sqlite_databases.fresh() as url:
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            yield opened
        engine.dispose()


@pytest.fixture
def city(session: Session, tmp_path: Path) -> City:
    return city_with_a_release(session, tmp_path)


def _count(session: Session) -> tuple[int, int]:
    return (
        len(session.scalars(select(Release.id)).all()),
        len(session.scalars(select(SignedMetadata.version)).all()),
    )


def test_without_a_root_that_somebody_trusts_nothing_is_taken(
    session: Session, tmp_path: Path
) -> None:
    city = City(session, tmp_path, models=("tree-3",))
    with pytest.raises(release_repository.RootUntrusted, match="fleet release trust"):
        city.publish()
    assert city.trust() == 1
    assert city.trust() == 1
    stranger = Desk(tmp_path / "stranger", now=NOW, models=("tree-3",))
    with pytest.raises(RootWrong, match="names another key for snapshot"):
        release_repository.trust_root(
            session, stranger.folder.metadata("root", 1), city.keys_dir, now=NOW
        )
    with pytest.raises(ReleaseRefused, match="Another root 1 is known here"):
        city.publish(replace(city.given(), roots=[stranger.folder.metadata("root", 1)]))
    others = Desk(tmp_path / "others", now=NOW, models=("tree-3",), online=city.cards)
    with pytest.raises(RootWrong, match="Another root is trusted already"):
        release_repository.trust_root(
            session, others.folder.metadata("root", 1), city.keys_dir, now=NOW
        )
    with pytest.raises(RootWrong, match="no TUF metadata"):
        release_repository.trust_root(session, b"{}", city.keys_dir, now=NOW)


def test_a_server_that_begins_with_a_later_root_serves_the_earlier_ones_too(
    session: Session, tmp_path: Path
) -> None:
    """For nodes that slept while the roots changed, and the server was set up anew."""
    city = City(session, tmp_path, models=("tree-3",))
    city.desk.rotate("root", "root-1", "root-3")
    folder = city.desk.folder
    release_repository.trust_root(session, folder.metadata("root", 2), city.keys_dir, now=NOW)
    stranger = Desk(tmp_path / "stranger", now=NOW, models=("tree-3",)).folder.metadata("root", 1)
    with pytest.raises(ReleaseRefused, match="root 2 has 0 of 2 signatures"):
        city.publish(replace(city.given(), roots=[stranger]))
    assert city.publish().metadata == {"root": 1, "targets": 1}
    assert release_repository.metadata_file(session, "1.root.json") == folder.metadata("root", 1)
    assert release_repository.newest_root(session) == folder.metadata("root", 2)


# ------------------------------------------------------------------------------------------------------- what is refused

Spoil = Callable[[City], Published]


def _without_file(city: City) -> Published:
    manifest = decode_manifest(city.given().documents["tree-3/0.7.0.cbor"])
    (city.store._path(release_repository.file_name(manifest.files[0].sha256.hex()))).unlink()
    return city.given()


def _without_document(path: str) -> Spoil:
    def spoil(city: City) -> Published:
        given = city.given()
        return replace(
            given, documents={name: data for name, data in given.documents.items() if name != path}
        )

    return spoil


def _other_document(path: str) -> Spoil:
    def spoil(city: City) -> Published:
        given = city.given()
        return replace(
            given, documents={**given.documents, path: given.documents[path][:-1] + b"!"}
        )

    return spoil


def _signed_by(holder: str) -> Spoil:
    """The author's role, signed by somebody else."""

    def spoil(city: City) -> Published:
        given = city.given()
        role = Metadata.from_bytes(given.roles["tree-3"])
        city.desk.card(holder)
        role.sign(city.desk.signers[holder])
        return replace(given, roles={**given.roles, "tree-3": role.to_bytes()})

    return spoil


def _role_changed(change: Callable[[signed_releases.Targets], None]) -> Spoil:
    """The author signs something that nodes would not take."""

    def spoil(city: City) -> Published:
        given = city.given()
        role = signed_releases.read(given.roles["tree-3"], signed_releases.Targets, what="")
        change(role.signed)
        role.sign(city.desk.signers["author"])
        return replace(given, roles={**given.roles, "tree-3": role.to_bytes()})

    return spoil


def _without_sbom(role: signed_releases.Targets) -> None:
    del role.targets["tree-3/0.7.0.cdx.json"]


def _expired(role: signed_releases.Targets) -> None:
    role.expires = LATER - timedelta(seconds=1)


def _of_ponds(role: signed_releases.Targets) -> None:
    role.targets["pond-1/0.7.0.cbor"] = role.targets["tree-3/0.7.0.cbor"]


def _delegating(role: signed_releases.Targets) -> None:
    role.delegations = Delegations(keys={}, roles={})


def _with_twin(role: signed_releases.Targets) -> None:
    role.targets["tree-3/0.7.1.cbor"] = role.targets["tree-3/0.7.0.cbor"]


def _counted(counter: int) -> Callable[[signed_releases.Targets], None]:
    def change(role: signed_releases.Targets) -> None:
        role.targets["tree-3/0.7.0.cbor"].unrecognized_fields["custom"]["counter"] = counter

    return change


def _root_without_old_keys(city: City) -> Published:
    """Whoever stole one root key makes a root of their own."""
    given = city.given()
    root = signed_releases.read(given.roots[0], signed_releases.Root, what="")
    root.signed.version = 2
    root.signed.revoke_key(city.desk.card("root-2").keyid, "root")
    root.signed.add_key(city.desk.card("thief").key, "root")
    for holder in ("root-1", "thief"):
        root.sign(city.desk.signers[holder], append=holder == "thief")
    return replace(given, roots=[*given.roots, root.to_bytes()])


_REFUSALS: list[tuple[Spoil, type[FleetError], str]] = [
    (_without_file, FileMissing, "node/bus/adc.mpy of .* was not sent"),
    (_without_document("tree-3/0.7.0.cbor"), FileMissing, "tree-3/0.7.0.cbor was not sent"),
    (_without_document("pond-1/0.7.0.cdx.json"), FileMissing, "was not sent"),
    (_other_document("tree-3/0.7.0.cbor"), ReleaseRefused, "length or hash differs"),
    (_other_document("tree-3/0.7.0.cdx.json"), ReleaseRefused, "length or hash differs"),
    (_signed_by("stranger"), ReleaseRefused, "tree-3 1 has 0 of 1 signatures"),
    (_signed_by("targets"), ReleaseRefused, "tree-3 1 has 0 of 1 signatures"),
    (_role_changed(_without_sbom), ReleaseRefused, "has no parts list"),
    (_role_changed(_expired), ReleaseRefused, "tree-3 1 expired"),
    (_role_changed(_delegating), ReleaseRefused, "tree-3 1 delegates further"),
    (_role_changed(_with_twin), ReleaseRefused, "two releases of one counter"),
    (_role_changed(_of_ponds), ReleaseRefused, "names pond-1/0.7.0.cbor, which is not its own"),
    (_role_changed(_counted(8)), ReleaseRefused, "another version, counter or model"),
    (_root_without_old_keys, ReleaseRefused, "root 2 has 1 of 2 signatures"),
    (lambda city: replace(city.given(), targets=None), ReleaseRefused, "send targets, too"),
    (lambda city: replace(city.given(), roles={"tree-3": b"{}"}), ReleaseRefused, "no TUF metadata"),
]  # fmt: skip


def test_what_a_node_would_refuse_is_refused_as_a_whole(city: City) -> None:
    before = _count(city.session)
    for spoil, error, said in _REFUSALS:
        given = spoil(city)
        with pytest.raises(error, match=said):
            city.publish(given)
        assert _count(city.session) == before, said
        city.send_files()
    with pytest.raises(NotFound):
        release_repository.metadata_file(city.session, "timestamp.json")
    city.publish()


def test_nothing_goes_back_and_nothing_changes_under_its_name(city: City) -> None:
    first = city.given()
    city.publish()
    city.desk.release("0.8.0", 8, sources=city.sources)
    city.publish()
    with pytest.raises(ReleaseRefused, match=r"1 is older: known here is (tree-3|pond-1) 2"):
        city.publish(first)
    role = signed_releases.read(
        city.desk.folder.newest("tree-3") or b"", signed_releases.Targets, what=""
    )
    role.signed.expires += timedelta(days=1)
    role.sign(city.desk.signers["author"])
    with pytest.raises(ReleaseRefused, match="Another tree-3 2 is known here"):
        city.publish(replace(city.given(), roles={"tree-3": role.to_bytes()}))
    role.signed.version = 3
    role.signed.targets["tree-3/0.8.0.cbor"].length += 1
    role.sign(city.desk.signers["author"])
    with pytest.raises(ReleaseRefused, match=r"tree-3 0\.8\.0 is another than was released"):
        city.publish(replace(city.given(), roles={"tree-3": role.to_bytes()}))


def test_counters_grow_even_over_a_withdrawn_release(city: City) -> None:
    city.publish()
    from provisioning.release_building import withdraw_release

    withdraw_release(city.desk.folder, "tree-3", "0.7.0", now=NOW)
    city.desk.sign_all("author")
    assert city.publish().withdrawn == [("tree-3", "0.7.0")]
    assert releases.releases_of(city.session, "tree-3") == []
    assert releases.release_of(city.session, "tree-3", "0.7.0").withdrawn_at is not None
    with pytest.raises(NotFound):
        release_repository.target_file(
            city.session, lambda: city.store, "tree-3",
            f"{releases.release_of(city.session, 'tree-3', '0.7.0').manifest_sha256}.0.7.0.cbor",
        )  # fmt: skip
    city.desk.release("0.6.0", 6, sources=city.sources, models=("tree-3",))
    with pytest.raises(ReleaseRefused, match="counter 6, but 7 is known"):
        city.publish()


def test_a_rotated_root_and_new_keys_of_a_model_are_followed(city: City) -> None:
    city.publish()
    desk = city.desk
    desk.rotate("root", "root-1", "root-3")
    desk.rotate("tree-3", "author", "author-2")
    with pytest.raises(ReleaseRefused, match="tree-3 1 has 0 of 1 signatures"):
        city.publish(replace(city.given(), roles={}, documents={}))
    desk.authors = ("author-2",)
    desk.release("0.8.0", 8, sources=city.sources, models=("tree-3",))
    outcome = city.publish()
    assert dict(outcome.metadata) == {"root": 2, "targets": 2, "tree-3": 2}
    states = {state.role: state for state in release_repository.role_states(city.session)}
    assert [one.holder for one in states["tree-3"].signatures if one.has_signed] == ["author-2"]
    assert [one.holder for one in states["root"].signatures] == ["root-2", "root-3"]


def test_a_model_that_was_given_up_has_no_releases_but_stays_in_the_snapshot(city: City) -> None:
    """Nodes refuse a snapshot that lacks what an earlier one named (TUF 1.0 §5.5.5)."""
    city.publish()
    targets = _targets_changed(city, lambda signed: _roles(signed).pop("pond-1"))
    given = replace(city.given(), targets=targets, roles={}, documents={})
    assert city.publish(given).withdrawn == [("pond-1", "0.7.0")]
    snapshot = Metadata.from_bytes(
        release_repository.newest_metadata(city.session)["snapshot"].data
    )
    assert set(snapshot.signed.meta) == {"targets.json", "tree-3.json", "pond-1.json"}
    assert "pond-1" not in {state.role for state in release_repository.role_states(city.session)}
    assert release_repository.delegated_models(city.session) == ["tree-3"]


def _roles(signed: signed_releases.Targets) -> dict[str, Any]:
    assert signed.delegations is not None
    assert signed.delegations.roles is not None
    return signed.delegations.roles


def _targets_changed(city: City, change: Callable[[signed_releases.Targets], object]) -> bytes:
    data = city.desk.folder.newest("targets") or b""
    targets = signed_releases.read(data, signed_releases.Targets, what="")
    targets.signed.version += 1
    change(targets.signed)
    targets.sign(city.desk.signers["targets"])
    return targets.to_bytes()


def _with_target(signed: signed_releases.Targets) -> None:
    signed.targets["tree-3/0.7.0.cbor"] = TargetFile.from_data(
        "tree-3/0.7.0.cbor", b"x", ["sha256"]
    )


def _with_wide_paths(signed: signed_releases.Targets) -> None:
    _roles(signed)["tree-3"].paths = ["*/*"]


def _not_terminating(signed: signed_releases.Targets) -> None:
    _roles(signed)["tree-3"].terminating = False


def _oddly_named(signed: signed_releases.Targets) -> None:
    role = _roles(signed).pop("tree-3")
    role.name, role.paths = "Tree 3", ["Tree 3/*"]
    _roles(signed)["Tree 3"] = role


def _with_few_keys(signed: signed_releases.Targets) -> None:
    _roles(signed)["tree-3"].threshold = 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_with_target, "names targets itself"),
        (_with_wide_paths, r"lets tree-3 sign other targets than tree-3/\*"),
        (_not_terminating, "does not end the search at tree-3"),
        (_oddly_named, "called as no node model is"),
        (_with_few_keys, "2 signatures are wanted of 1 keys"),
    ],
)
def test_what_breaks_a_convention_is_refused(
    city: City, change: Callable[[signed_releases.Targets], None], said: str
) -> None:
    targets = _targets_changed(city, change)
    with pytest.raises(ReleaseRefused, match=said):
        city.publish(replace(city.given(), targets=targets))


def test_a_file_that_is_not_what_its_hash_says_is_not_kept(city: City) -> None:
    with pytest.raises(ReleaseRefused, match="not the one that its hash names"):
        releasing.keep_file(city.store, "ab" * 32, b"x")
    with pytest.raises(ReleaseRefused, match="at most"):
        releasing.keep_file(city.store, "ab" * 32, bytes(200_000))
    there = hashlib.sha256(b"x").hexdigest()
    releasing.keep_file(city.store, there, b"x")
    assert releasing.missing_files(city.store, [there, "ab" * 32, "ab" * 32]) == ["ab" * 32]


# ------------------------------------------------------------------------------------------------------ signed by schedule


def _version(city: City, role: str) -> int:
    return release_repository.newest_metadata(city.session)[role].version


def test_after_a_restore_nodes_are_not_told_of_lower_versions(city: City) -> None:
    """What the server signed since the backup is gone, and nodes have seen it."""
    city.publish()
    for days in range(1, 4):
        release_repository.keep_fresh(city.session, city.keys_dir, now=LATER + timedelta(days=days))
    seen = _version(city, "timestamp")
    with db.writing(city.session):
        for role in ("snapshot", "timestamp"):
            row = release_repository.newest_metadata(city.session)[role]
            row.version, row.stored_at = int(LATER.timestamp()) // 60, LATER
    release_repository.keep_fresh(city.session, city.keys_dir, now=LATER + timedelta(days=4))
    assert _version(city, "timestamp") > seen


def test_new_keys_of_the_server_sign_as_soon_as_the_root_names_them(
    city: City, tmp_path: Path
) -> None:
    city.publish()
    city.keys_dir = tmp_path / "new_keys"
    online_keys.make_keys(city.keys_dir, passphrase="")
    with pytest.raises(RootWrong, match="names another key"):
        city.publish()
    cards = {
        role: card_from(card, what=role) for role, card in online_keys.cards(city.keys_dir).items()
    }
    release_ceremony.set_online(city.desk.folder, cards, now=NOW)
    city.desk.sign_all("root-1", "root-2")
    before = (_version(city, "snapshot"), _version(city, "timestamp"))
    city.publish()
    assert (_version(city, "snapshot"), _version(city, "timestamp")) == tuple(
        version + 1 for version in before
    )
    root = signed_releases.read(
        city.desk.folder.newest("root") or b"", signed_releases.Root, what=""
    ).signed
    for role in ("snapshot", "timestamp"):
        data = release_repository.newest_metadata(city.session)[role].data
        assert signed_releases.role_signatures(root, role, Metadata.from_bytes(data)).signed


def test_who_has_no_keys_signs_nothing_and_says_so(city: City, tmp_path: Path) -> None:
    city.publish()
    with pytest.raises(online_keys.OnlineKeysMissing, match="fleet release keys"):
        release_repository.keep_fresh(
            city.session, tmp_path / "nowhere", now=LATER + timedelta(days=2)
        )


def test_a_release_for_a_model_that_the_server_does_not_know_is_refused(
    session: Session, tmp_path: Path
) -> None:
    city = City(session, tmp_path, models=("tree-3", "moon-1"))
    city.trust()
    city.desk.build("0.7.0", 7, sources=city.sources, models=("tree-3",))
    manifest = decode_manifest(city.desk.folder.built("tree-3", "0.7.0.cbor") or b"")
    for_the_moon = replace(manifest, models=("moon-1",))
    sbom = make_sbom(for_the_moon, support_until=date(2031, 12, 31))
    city.desk.folder.write_built(
        "moon-1", {"0.7.0.cbor": encode_manifest(for_the_moon), "0.7.0.cdx.json": sbom}
    )
    city.desk.release_built("0.7.0", models=("moon-1",))
    city.send_files()
    with pytest.raises(ReleaseRefused, match="moon-1 is no node model that this server knows"):
        city.publish()


def test_a_parts_list_about_something_else_is_refused(city: City) -> None:
    """Signed by the author, but it names other files."""
    folder = city.desk.folder
    city.desk.build("0.8.0", 8, sources=city.sources, models=("tree-3",))
    sbom = json.loads(folder.built("tree-3", "0.8.0.cdx.json") or b"")
    sbom["components"] = sbom["components"][:-1]
    folder.write_built("tree-3", {"0.8.0.cdx.json": json.dumps(sbom).encode()})
    city.desk.release_built("0.8.0", models=("tree-3",))
    with pytest.raises(ReleaseRefused, match="not about the files of this release"):
        city.publish()


# ------------------------------------------------------------------------------------------------------------------- images

IMAGE = micropython("1.28.0", more=bytes(100_000))


def _release_with(city: City, image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed all the same: an author whose tools check nothing."""

    def unchecked(data: bytes, _models: object) -> Image:
        return Image(len(data), hashlib.sha256(data).digest(), (1, 28, 0))

    with monkeypatch.context() as careless:
        careless.setattr(release_building, "_image_for", unchecked)
        city.desk.release("0.8.0", 8, sources=city.sources, models=("tree-3",), image=image)


def test_a_release_with_an_image_is_taken_with_its_size_and_version(
    city: City, session: Session
) -> None:
    city.desk.release("0.8.0", 8, sources=city.sources, models=("tree-3",), image=IMAGE)
    city.send_files()
    city.publish()
    taken = releases.release_of(session, "tree-3", "0.8.0")
    sha256 = hashlib.sha256(IMAGE).hexdigest()
    assert (taken.image_micropython, taken.image_bytes, taken.image_sha256) == (
        "1.28.0",
        len(IMAGE),
        sha256,
    )
    assert taken.transfer_bytes == taken.size_bytes + len(IMAGE)
    assert release_repository.bundle_file(lambda: city.store, sha256) == IMAGE
    parts = {part["name"]: part for part in taken.sbom["components"]}
    assert parts["micropython"]["version"] == "1.28.0"
    assert parts["micropython"]["hashes"] == [{"alg": "SHA-256", "content": sha256}]
    before = releases.release_of(session, "tree-3", "0.7.0")
    assert (before.image_micropython, before.transfer_bytes) == (None, before.size_bytes)


WRONG_IMAGES = (
    (micropython("1.28.0", chip_id=9), "is for esp32s3; this node model has an esp32"),
    (micropython("1.27.0"), "is MicroPython 1.27.0, not 1.28.0"),
    (IMAGE[:-1], "ends too early"),
    (b"no image", "does not begin"),
)


@pytest.mark.parametrize(("image", "said"), WRONG_IMAGES)
def test_an_image_that_no_node_of_the_model_could_start_is_refused_though_it_is_signed(
    city: City, session: Session, image: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _release_with(city, image, monkeypatch)
    monkeypatch.setattr(releasing, "_check_large", lambda _: None)
    city.send_files()
    before = _count(session)
    with pytest.raises(ReleaseRefused) as refused:
        city.publish()
    assert said in str(refused.value)
    assert _count(session) == before
    with pytest.raises(RepositoryWrong, match=said):  # nor does the desk send it
        release_building.check_folder(city.desk.folder, now=NOW)


def test_without_that_check_the_server_would_take_it(
    city: City, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = WRONG_IMAGES[0]
    _release_with(city, image, monkeypatch)
    for check in ("_check_large", "_check_image"):
        monkeypatch.setattr(releasing, check, lambda *_, **__: None)
    city.send_files()
    city.publish()
    assert releases.release_of(session, "tree-3", "0.8.0").image_bytes == len(image)


def test_an_image_has_to_be_sent_whole_before_its_release(city: City) -> None:
    with pytest.raises(
        ReleaseRefused, match="as an image it is refused: The MicroPython image does not"
    ):
        releasing.keep_file(city.store, "0" * 64, bytes(70_000))
    city.send_files()
    city.desk.release("0.8.0", 8, sources=city.sources, models=("tree-3",), image=IMAGE)
    with pytest.raises(FileMissing, match=r"image of tree-3/0.8.0.cbor was not sent"):
        city.publish()
    name = release_repository.file_name(hashlib.sha256(IMAGE).hexdigest())
    city.store.put(name, IMAGE[:-1])
    with pytest.raises(ReleaseRefused, match="another than the manifest says"):
        city.publish()


def test_a_parts_list_that_passes_over_the_image_is_refused(
    city: City, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_before(manifest: Manifest, **more: Any) -> bytes:
        return make_sbom(replace(manifest, image=None), **more)

    monkeypatch.setattr(release_building, "make_sbom", of_before)
    city.desk.release("0.8.0", 8, sources=city.sources, models=("tree-3",), image=IMAGE)
    city.send_files()
    with pytest.raises(ReleaseRefused, match="does not name the MicroPython"):
        city.publish()
