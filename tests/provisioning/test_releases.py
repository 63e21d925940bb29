"""Releases at the author's desk: built alike everywhere, signed by as many as have to, and taken by python-tuf's own client."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from tuf.ngclient import Updater

from fleet_server.wire import signed_releases
from fleet_server.wire.errors import RepositoryWrong
from fleet_server.wire.manifest import decode_manifest
from provisioning import release_ceremony
from provisioning.errors import BenchError, UsedWrongly
from provisioning.release_building import check_folder, sign_release, withdraw_release
from tests.releases import Desk, shelf_of, small_sources

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return small_sources(tmp_path / "sources")


@pytest.fixture
def desk(tmp_path: Path, sources: Path) -> Desk:
    made = Desk(tmp_path / "releases", now=NOW, models=("tree-3", "pond-1"))
    made.release("0.7.0", 7, sources=sources)
    return made


def _client(tmp_path: Path, desk: Desk, **more: object) -> Updater:
    (tmp_path / "client").mkdir(exist_ok=True)
    (tmp_path / "downloads").mkdir(exist_ok=True)
    return Updater(
        str(tmp_path / "client"),
        "https://fleet/metadata/",
        str(tmp_path / "downloads"),
        "https://fleet/targets/",
        fetcher=shelf_of(desk, **more),
        bootstrap=desk.folder.metadata("root", 1),
    )


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_reference_client_takes_what_was_signed(
    tmp_path: Path, sources: Path, kind: str
) -> None:
    desk = Desk(tmp_path / "releases", now=NOW, kinds={"author": kind})
    desk.release("0.7.0", 7, sources=sources)
    client = _client(tmp_path, desk)
    client.refresh()
    target = client.get_targetinfo("tree-3/0.7.0.cbor")
    assert target is not None
    assert target.custom == {"counter": 7, "model": "tree-3"}
    manifest = decode_manifest(Path(client.download_target(target)).read_bytes())
    assert [file.path for file in manifest.files] == ["node/bus/adc.mpy", "node/cycle.mpy"]
    assert client.get_targetinfo("tree-3/0.8.0.cbor") is None


def test_the_reference_client_follows_a_rotation_of_every_key(
    tmp_path: Path, desk: Desk, sources: Path
) -> None:
    _client(tmp_path, desk).refresh()
    desk.rotate("root", "root-1", "root-3")
    desk.rotate("targets", "targets", "targets-2")
    release_ceremony.renew(desk.folder, "targets", now=NOW)
    desk.sign_all("targets-2")
    desk.rotate("tree-3", "author", "author-2")
    desk.authors = ("author-2",)
    desk.release("0.8.0", 8, sources=sources, models=("tree-3",))
    check_folder(desk.folder, now=NOW)
    client = _client(tmp_path, desk, online_version=2)
    client.refresh()
    assert client.get_targetinfo("tree-3/0.8.0.cbor") is not None
    assert (
        signed_releases.read(desk.folder.roots()[-1], signed_releases.Root, what="").signed.version
        == 3
    )


def test_the_same_sources_give_the_same_release(tmp_path: Path, sources: Path, desk: Desk) -> None:
    elsewhere = Desk(tmp_path / "other", now=NOW)
    elsewhere.build("0.7.0", 7, sources=sources)
    for name in ("0.7.0.cbor", "0.7.0.cdx.json"):
        assert elsewhere.folder.built("tree-3", name) == desk.folder.built("tree-3", name)


def test_the_parts_list_names_firmware_micropython_and_every_module(desk: Desk) -> None:
    data = desk.folder.built("tree-3", "0.7.0.cdx.json")
    manifest = desk.folder.built("tree-3", "0.7.0.cbor")
    assert data is not None
    assert manifest is not None
    sbom = json.loads(data)
    about = sbom["metadata"]["component"]
    assert (about["type"], about["version"]) == ("firmware", "0.7.0")
    assert {"name": "stadtsensor:support_until", "value": "2031-12-31"} in about["properties"]
    assert {
        "name": "stadtsensor:bundle_sha256",
        "value": decode_manifest(manifest).bundle_sha256,
    } in about["properties"]
    named = {one["name"]: one for one in sbom["components"]}
    assert set(named) == {"micropython", "node/bus/adc.mpy", "node/cycle.mpy"}
    assert named["micropython"]["cpe"].startswith("cpe:2.3:a:micropython:micropython:1.27.0:")
    files = {file.path: file.sha256.hex() for file in decode_manifest(manifest).files}
    assert named["node/cycle.mpy"]["hashes"] == [
        {"alg": "SHA-256", "content": files["node/cycle.mpy"]}
    ]


def test_the_parts_list_is_what_the_schema_of_cyclonedx_asks_for(desk: Desk) -> None:
    """Strictly: also no field that the standard does not know, and formats of times and addresses."""
    schema = JsonStrictValidator(SchemaVersion.V1_6)
    data = desk.folder.built("tree-3", "0.7.0.cdx.json")
    assert data is not None
    assert schema.validate_str(data.decode()) is None
    for wrong in (
        (b'"type": "firmware"', b'"type": "software"'),
        (b'"serialNumber": "urn:uuid:', b'"serialNumber": "'),
        (b'"timestamp": "', b'"timestamp": "on '),
        (b'"version": 1,', b'"version": 1, "revision": 2,'),
    ):
        assert wrong[0] in data
        assert schema.validate_str(data.replace(*wrong).decode()) is not None, wrong


def test_a_release_takes_effect_when_as_many_have_signed_as_have_to(
    tmp_path: Path, sources: Path
) -> None:
    desk = Desk(tmp_path / "releases", now=NOW, authors=("anna", "bert"))
    desk.build("0.7.0", 7, sources=sources)

    def sign(holder: str) -> int:
        return sign_release(
            desk.folder, "0.7.0", desk.card(holder), lambda: desk.signers[holder], now=NOW
        )[0].missing

    assert sign("anna") == 1
    assert desk.folder.newest("tree-3") is None
    assert sign("anna") == 1, "one person counts once"
    assert sign("bert") == 0
    assert desk.folder.newest("tree-3") is not None
    assert [one.counter for one in check_folder(desk.folder, now=NOW).manifests.values()] == [7]


def test_a_key_that_does_not_count_signs_nothing(desk: Desk, sources: Path) -> None:
    desk.build("0.8.0", 8, sources=sources)
    with pytest.raises(
        BenchError, match=r"The key of stranger does not sign for .*; who does is author\."
    ):
        sign_release(
            desk.folder, "0.8.0", desk.card("stranger"), lambda: desk.signers["stranger"], now=NOW
        )
    with pytest.raises(BenchError, match="signs nothing here"):
        release_ceremony.sign_drafts(
            desk.folder, desk.card("author"), lambda: desk.signers["author"]
        )


def test_a_released_version_never_changes_and_counters_grow(desk: Desk, sources: Path) -> None:
    with pytest.raises(UsedWrongly, match="signed already"):
        desk.build("0.7.0", 8, sources=sources)
    with pytest.raises(UsedWrongly, match="counter of tree-3 stands at 7"):
        desk.build("0.7.1", 7, sources=sources)
    with pytest.raises(UsedWrongly, match="cannot name a release"):
        desk.build("../0.7.1", 8, sources=sources)


def test_another_release_waits_until_the_draft_is_signed_or_dropped(
    tmp_path: Path, sources: Path
) -> None:
    desk = Desk(tmp_path / "releases", now=NOW, authors=("anna", "bert"))
    for version, counter in (("0.7.0", 7), ("0.8.0", 8)):
        desk.build(version, counter, sources=sources)
    anna = desk.card("anna")
    sign_release(desk.folder, "0.7.0", anna, lambda: desk.signers["anna"], now=NOW)
    with pytest.raises(UsedWrongly, match="Another draft of tree-3 waits"):
        sign_release(desk.folder, "0.8.0", anna, lambda: desk.signers["anna"], now=NOW)
    release_ceremony.discard(desk.folder, "tree-3")
    sign_release(desk.folder, "0.8.0", anna, lambda: desk.signers["anna"], now=NOW)


def test_a_withdrawn_release_is_no_target_any_more(desk: Desk, tmp_path: Path) -> None:
    withdraw_release(desk.folder, "tree-3", "0.7.0", now=NOW)
    desk.sign_all("author")
    client = _client(tmp_path, desk)
    client.refresh()
    assert client.get_targetinfo("tree-3/0.7.0.cbor") is None
    assert client.get_targetinfo("pond-1/0.7.0.cbor") is not None


def test_a_change_of_the_root_wants_old_and_new_keys(desk: Desk) -> None:
    release_ceremony.replace_key(desk.folder, "root", "root-1", desk.card("root-3"), now=NOW)
    desk.sign_all("root-3", "root-2")
    waiting = release_ceremony.waiting(desk.folder)
    assert [(one.name, one.version, one.missing) for one in waiting] == [("root", 2, 1)]
    assert waiting[0].unsigned[0].startswith("root-1 ")
    desk.sign_all("root-1")
    assert desk.folder.versions("root") == [1, 2]


def test_a_lost_key_is_replaced_without_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "releases", now=NOW)
    release_ceremony.add_key(desk.folder, "root", desk.card("root-3"), now=NOW)
    desk.sign_all("root-1", "root-2")
    release_ceremony.remove_key(desk.folder, "root", "root-1", now=NOW)
    desk.sign_all("root-2", "root-3")
    assert desk.folder.versions("root") == [1, 2, 3]
    check_folder(desk.folder, now=NOW)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda desk: release_ceremony.set_threshold(desk.folder, "root", 1, now=NOW), "2 at least are asked"),
        (lambda desk: release_ceremony.set_threshold(desk.folder, "root", 3, now=NOW), "3 signatures are wanted of 2 keys"),
        (lambda desk: release_ceremony.remove_key(desk.folder, "tree-3", "author", now=NOW), "1 signatures are wanted of 0 keys"),
        (lambda desk: release_ceremony.remove_key(desk.folder, "root", "nobody", now=NOW), "names no key of root; there are root-1"),
        (lambda desk: release_ceremony.add_key(desk.folder, "root", desk.card("root-1"), now=NOW), "signs for root already"),
        (lambda desk: release_ceremony.add_key(desk.folder, "Tree 3", desk.card("x"), now=NOW), "neither a role nor a node model"),
        (lambda desk: release_ceremony.renew(desk.folder, "timestamp", now=NOW), "by the server"),
        (lambda desk: release_ceremony.discard(desk.folder, "root"), "No draft of root waits"),
    ],
)  # fmt: skip
def test_a_change_that_cannot_be_is_refused_and_leaves_no_draft(
    desk: Desk, change: object, said: str
) -> None:
    with pytest.raises(UsedWrongly, match=said):
        change(desk)  # type: ignore[operator]
    assert desk.folder.drafts() == {}


# -------------------------------------------------------------------------------------------------- what verify refuses


def test_whoever_changes_a_byte_of_what_is_signed_is_found(desk: Desk) -> None:
    """Of every file that is signed or named by what is signed."""
    paths = [
        path for path in desk.folder.path.rglob("*") if path.is_file() and "built" not in path.parts
    ]
    assert len(paths) > 8
    for path in paths:
        data = path.read_bytes()
        for place in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
            with pytest.raises((RepositoryWrong, BenchError)):
                check_folder(desk.folder, now=NOW)
        path.write_bytes(data[:-1])
        with pytest.raises((RepositoryWrong, BenchError)):
            check_folder(desk.folder, now=NOW)
        path.write_bytes(data)
    check_folder(desk.folder, now=NOW)


def test_what_has_expired_is_named(desk: Desk) -> None:
    with pytest.raises(RepositoryWrong, match="root 1 expired"):
        check_folder(desk.folder, now=NOW + timedelta(days=366))


def test_a_missing_file_is_named(desk: Desk) -> None:
    manifest = decode_manifest(desk.folder.built("tree-3", "0.7.0.cbor") or b"")
    (desk.folder.path / "targets" / "files" / manifest.files[0].sha256.hex()).unlink()
    with pytest.raises(BenchError, match="is missing"):
        check_folder(desk.folder, now=NOW)


def test_a_role_signed_by_the_key_of_another_role_is_refused(desk: Desk) -> None:
    """The release author's key says who signs for ponds: no."""
    targets = signed_releases.read(
        desk.folder.newest("targets") or b"", signed_releases.Targets, what=""
    )
    targets.signed.version = 2
    targets.sign(desk.signers["author"])
    with pytest.raises(RepositoryWrong, match="targets 2 has 0 of 1 signatures"):
        signed_releases.verify_repository(
            desk.folder.roots(), targets.to_bytes(), desk.folder.roles(), now=NOW
        )


def test_one_key_under_two_ids_does_not_reach_a_threshold_of_two(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "releases", now=NOW)
    root = signed_releases.read(desk.folder.metadata("root", 1), signed_releases.Root, what="")
    twin = desk.card("root-1").key.to_dict()
    other = type(desk.card("root-1").key).from_dict("ab" * 32, twin)
    root.signed.revoke_key(desk.card("root-2").keyid, "root")
    root.signed.add_key(other, "root")
    root.signatures.clear()
    signature = desk.signers["root-1"].sign(root.signed_bytes)
    root.signatures[signature.keyid] = signature
    root.signatures[other.keyid] = type(signature)(other.keyid, signature.signature)
    with pytest.raises(RepositoryWrong, match="under an id that is not its own"):
        signed_releases.verify_roots([root.to_bytes()])


def test_roots_that_do_not_follow_one_another_are_refused(desk: Desk) -> None:
    desk.rotate("root", "root-1", "root-3")
    desk.rotate("root", "root-3", "root-4")
    roots = desk.folder.roots()
    assert len(signed_releases.verify_roots(roots)) == 3
    for some in ([roots[0], roots[2]], roots[::-1], [roots[0], roots[0]]):
        with pytest.raises(RepositoryWrong, match=r"does not follow|signatures"):
            signed_releases.verify_roots(some)


@pytest.mark.parametrize(
    ("change", "said"), [("threshold", "1 signature;"), ("snapshots", "consistent snapshots")]
)
def test_a_root_that_breaks_a_convention_is_refused(desk: Desk, change: str, said: str) -> None:
    root = signed_releases.read(desk.folder.metadata("root", 1), signed_releases.Root, what="")
    if change == "threshold":
        root.signed.roles["root"].threshold = 1
    else:
        root.signed.consistent_snapshot = False
    for holder in ("root-1", "root-2"):
        root.sign(desk.signers[holder], append=holder == "root-2")
    with pytest.raises(RepositoryWrong, match=said):
        signed_releases.verify_roots([root.to_bytes()])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counter": 0}, "counter or model"),
        ({"counter": True}, "counter or model"),
        ({"model": "pond-1"}, "counter or model"),
        ({"note": "x"}, "something else"),
        ({"allow_downgrade": 1}, "counter or model"),
        ({"counter": 9}, "says another version, counter or model"),
        ({"allow_downgrade": True}, "says another version, counter or model"),
    ],
)
def test_a_target_that_says_something_else_than_its_manifest_is_refused(
    desk: Desk, change: dict[str, object], said: str
) -> None:
    role = signed_releases.read(
        desk.folder.newest("tree-3") or b"", signed_releases.Targets, what=""
    )
    target = role.signed.targets["tree-3/0.7.0.cbor"]
    target.unrecognized_fields["custom"] = target.custom | change
    data = desk.folder.built("tree-3", "0.7.0.cbor") or b""
    with pytest.raises(RepositoryWrong, match=said):
        signed_releases.check_manifest(
            signed_releases.releases_of("tree-3", role.signed)["0.7.0"], data
        )


def test_what_is_spelt_otherwise_than_the_reference_does_is_refused(desk: Desk) -> None:
    """The node's strict reader and python-tuf never read two things from the same bytes."""
    data = desk.folder.metadata("targets", 1)
    doubled = data.replace(b'"version":1,', b'"version":1,"version":1,')
    assert doubled != data
    for wrong in (doubled, data + b" ", json.dumps(json.loads(data), indent=1).encode()):
        with pytest.raises(RepositoryWrong, match="not spelt"):
            signed_releases.read(wrong, signed_releases.Targets, what="targets")
    for wrong in (b"", b"{}", b"[" * 5000, b"\xff", b'{"signed": 1}', b"x" * 300_000):
        with pytest.raises(RepositoryWrong):
            signed_releases.read(wrong, signed_releases.Targets, what="targets")


def test_a_manifest_for_another_model_is_refused(desk: Desk) -> None:
    """Signed by the right key under the right name, but for ponds."""
    role = signed_releases.read(
        desk.folder.newest("tree-3") or b"", signed_releases.Targets, what=""
    )
    named = signed_releases.releases_of("tree-3", role.signed)["0.7.0"]
    pond = desk.folder.built("pond-1", "0.7.0.cbor") or b""
    target = type(named.manifest).from_data("tree-3/0.7.0.cbor", pond, ["sha256"])
    with pytest.raises(RepositoryWrong, match="another version, counter or model"):
        signed_releases.check_manifest(replace(named, manifest=target), pond)
