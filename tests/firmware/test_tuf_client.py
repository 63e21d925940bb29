"""The node's TUF client in the real machine: which repositories it takes, which it refuses and why, and what it then trusts.

Sections are those of the TUF specification 1.0. Repositories are python-tuf's; what python-tuf would not write is written past it.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from tuf.api.metadata import SuccinctRoles, Targets
from tuf_repository import (
    EXPIRES,
    TOP_LEVEL,
    TufNode,
    TufRepository,
    canonical_json,
    key_ids,
    other_id,
    refreshed,
    signer,
    without,
)

from fleet_server.wire.update_reasons import REASONS
from hardware.paths import firmware_dir
from provisioning.tuf_board import Outcome, Target

DAY_S = 86_400
OLD = EXPIRES - timedelta(days=60)
GOOD = Outcome(None, None, None, True)
RELEASE = "tree-3/0.1.0.cbor"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TufNode]:
    started = TufNode(tmp_path_factory.mktemp("tuf") / "node")
    yield started
    started.close()


def refused(reason: str) -> Outcome:
    assert reason in REASONS, f"{reason} is not in the table that the server has"
    return Outcome(reason, None, None, is_consistent=not reason.startswith("root"))


# --- what is good ---


def test_a_node_finds_a_signed_release_and_keeps_the_metadata_byte_for_byte(node: TufNode) -> None:
    repo = TufRepository()
    node.trust(repo.files["1.root.json"])

    found = node.work(repo, RELEASE)

    sha256 = hashlib.sha256(b"x").hexdigest()
    custom = {"counter": 2, "model": "tree-3"}
    assert found == Outcome(None, None, Target(1, sha256, custom, None), True)
    assert node.held() == {
        "root.json": repo.files["1.root.json"],
        "timestamp.json": repo.files["timestamp.json"],
        "snapshot.json": repo.files["1.snapshot.json"],
        "targets.json": repo.files["1.targets.json"],
        "tree-3.json": repo.files["1.tree-3.json"],
    }


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519", "rsa", "rsa-pkcs1"])
def test_every_kind_of_key_is_known_and_a_false_signature_of_it_is_none(
    node: TufNode, kind: str
) -> None:
    repo = TufRepository(kind)
    refreshed(node, repo)
    repo.publish("timestamp")
    flipped = json.loads(repo.files["timestamp.json"])
    signature = flipped["signatures"][0]["sig"]
    flipped["signatures"][0]["sig"] = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    repo.files["timestamp.json"] = json.dumps(flipped).encode()

    assert node.work(repo) == refused("timestamp signature")


def test_what_is_held_and_still_announced_is_not_fetched_again(node: TufNode) -> None:
    repo = TufRepository()
    refreshed(node, repo)
    node.work(repo, RELEASE)
    repo.asked.clear()

    assert node.work(repo, RELEASE).target is not None
    assert repo.asked == ["2.root.json", "timestamp.json"]


def test_names_and_fields_that_nobody_knows_are_signed_with_the_rest(node: TufNode) -> None:
    repo = TufRepository()
    repo.signed["timestamp"].unrecognized_fields["größe"] = ['"\\\n\x01', {"𝄞": [-1, None, True]}]
    repo.publish("timestamp")
    refreshed(node, repo)


def test_without_consistent_snapshots_names_have_no_versions(node: TufNode) -> None:
    repo = TufRepository()
    repo.signed["root"].consistent_snapshot = False
    repo.publish("root", "tree-3", "targets", "snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    found = node.work(repo, RELEASE)

    assert found.target is not None
    assert not found.is_consistent
    assert repo.asked[2:] == ["timestamp.json", "snapshot.json", "targets.json", "tree-3.json"]


# --- attacks: each on a node that is up to date ---

Attack = Callable[[TufRepository], None]


def wrong_key(role: str) -> Attack:
    def attack(repo: TufRepository) -> None:
        repo.signers[role] = [signer(8)]
        repo.publish(*_with_those_above(role))

    return attack


def expired(role: str) -> Attack:
    def attack(repo: TufRepository) -> None:
        repo.signed[role].expires = OLD
        repo.publish(*_with_those_above(role))

    return attack


def other_version(role: str) -> Attack:
    """What is served under a version's name says that it is another."""

    def attack(repo: TufRepository) -> None:
        repo.publish(*_with_those_above(role))
        version = repo.signed[role].version
        repo.signed[role].version = 9
        repo.files[f"{version}.{role}.json"] = repo.sign(role)

    return attack


def missing(role: str) -> Attack:
    def attack(repo: TufRepository) -> None:
        repo.publish(*_with_those_above(role))
        del repo.files["timestamp.json" if role == "timestamp" else f"2.{role}.json"]

    return attack


def exchanged(role: str, change: Callable[[bytes], bytes]) -> Attack:
    """Hashes and lengths are announced, and something else is served (signed or not)."""

    def attack(repo: TufRepository) -> None:
        repo.has_hashes = True
        repo.publish(*_with_those_above(role))
        repo.files[f"2.{role}.json"] = change(repo.files[f"2.{role}.json"])

    return attack


def announced(by: str, file: str, **told: Any) -> Attack:
    """A snapshot or timestamp that says this of a file."""

    def attack(repo: TufRepository) -> None:
        repo.publish("targets", "snapshot", "timestamp")
        repo.signed[by].version += 1

        def change(signed: dict[str, Any]) -> None:
            signed["meta"][file].update(told)

        repo.serve(by, repo.tampered(by, change))
        if by == "snapshot":
            repo.publish("timestamp")

    return attack


def _with_those_above(role: str) -> list[str]:
    order = ["tree-3", "targets", "snapshot", "timestamp"]
    return ["root"] if role == "root" else order[order.index(role) :]


def root_without_the_old_keys(repo: TufRepository) -> None:
    repo.replace_keys("root")
    repo.publish("root")


def root_without_its_own_keys(repo: TufRepository) -> None:
    old = repo.signers["root"]
    repo.replace_keys("root")
    repo.signers["root"] = old
    repo.publish("root")


def older_timestamp(repo: TufRepository) -> None:
    repo.files["timestamp.json"] = repo.tampered(
        "timestamp", lambda signed: signed.update(version=1)
    )


def older_snapshot(repo: TufRepository) -> None:
    repo.publish("timestamp")
    repo.signed["timestamp"].snapshot_meta.version = 1
    repo.publish("timestamp")


def older_targets(repo: TufRepository) -> None:
    repo.signed["snapshot"].meta["targets.json"].version = 1
    repo.publish("snapshot", "timestamp")


def role_left_out(repo: TufRepository) -> None:
    del repo.signed["snapshot"].meta["tree-3.json"]
    repo.publish("snapshot", "timestamp")


def old_snapshot_in_new_clothes(repo: TufRepository) -> None:
    """Mix and match: a timestamp of today with the snapshot of another day under its name."""
    before = repo.files["2.snapshot.json"]
    repo.publish("tree-3", "targets", "snapshot", "timestamp")
    repo.files["3.snapshot.json"] = before


def endless(repo: TufRepository) -> None:
    repo.files["timestamp.json"] += b" " * 40_000


def longer_than_announced(repo: TufRepository) -> None:
    repo.has_hashes = True
    repo.publish("targets", "snapshot", "timestamp")
    repo.files["3.targets.json"] += b" "


def snapshot_as_timestamp(repo: TufRepository) -> None:
    repo.signers["snapshot"] = repo.signers["timestamp"]
    repo.publish("snapshot")
    repo.files["timestamp.json"] = repo.files["3.snapshot.json"]


ATTACKS: dict[str, tuple[Attack, str, dict[str, int]]] = {
    "a root that the old keys have not signed": (root_without_the_old_keys, "root signature", {}),
    "a root that its own keys have not signed": (root_without_its_own_keys, "root signature", {}),
    "a root of another version": (other_version("root"), "root version", {}),
    "an expired root": (expired("root"), "root expired", {"root": 2}),
    "a timestamp signed by somebody": (wrong_key("timestamp"), "timestamp signature", {}),
    "a snapshot signed by somebody": (
        wrong_key("snapshot"),
        "snapshot signature",
        {"timestamp": 3},
    ),
    "targets signed by somebody": (
        wrong_key("targets"),
        "targets signature",
        {"timestamp": 3, "snapshot": 3},
    ),
    "an expired timestamp": (expired("timestamp"), "timestamp expired", {}),
    "an expired snapshot": (expired("snapshot"), "snapshot expired", {"timestamp": 3}),
    "expired targets": (expired("targets"), "targets expired", {"timestamp": 3, "snapshot": 3}),
    "an older timestamp": (older_timestamp, "timestamp rolled back", {}),
    "a timestamp that names an older snapshot": (older_snapshot, "snapshot rolled back", {}),
    "a snapshot that names older targets": (older_targets, "targets rolled back", {"timestamp": 3}),
    "a snapshot that leaves a role out": (role_left_out, "targets rolled back", {"timestamp": 3}),
    "an old snapshot under a new name": (
        old_snapshot_in_new_clothes,
        "snapshot version",
        {"timestamp": 3},
    ),
    "a snapshot of another version": (
        other_version("snapshot"),
        "snapshot version",
        {"timestamp": 3},
    ),
    "targets of another version": (
        other_version("targets"),
        "targets version",
        {"timestamp": 3, "snapshot": 3},
    ),
    "no timestamp": (
        lambda repo: repo.files.pop("timestamp.json") and None,
        "timestamp missing",
        {},
    ),
    "a timestamp without end": (endless, "endless data", {}),
    "targets longer than announced": (
        longer_than_announced,
        "endless data",
        {"timestamp": 3, "snapshot": 3},
    ),
    "a snapshot in the place of a timestamp": (snapshot_as_timestamp, "timestamp malformed", {}),
    "another hash": (
        announced("snapshot", "targets.json", hashes={"sha256": "0" * 64}),
        "targets hash",
        {"timestamp": 4, "snapshot": 4},
    ),
    "another SHA-512": (
        announced("snapshot", "targets.json", hashes={"sha512": "0" * 128}),
        "targets hash",
        {"timestamp": 4, "snapshot": 4},
    ),
    "a hash of a kind that nobody knows": (
        announced("timestamp", "snapshot.json", hashes={"md5": "0" * 32}),
        "snapshot hash",
        {"timestamp": 4},
    ),
    "another length": (
        announced("timestamp", "snapshot.json", length=2_000),
        "snapshot hash",
        {"timestamp": 4},
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_its_reason_and_nothing_of_it_is_trusted(
    node: TufNode, name: str
) -> None:
    attack, reason, newer = ATTACKS[name]
    repo = TufRepository()
    repo.publish("tree-3", "targets", "snapshot", "timestamp")
    refreshed(node, repo)
    before = {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2}
    assert node.versions() == before

    attack(repo)

    assert node.work(repo) == refused(reason)
    assert node.versions() == before | newer


def test_a_frozen_repository_is_refused_when_its_time_is_up(node: TufNode) -> None:
    repo = TufRepository()
    refreshed(node, repo)

    assert node.work(repo, after_s=29 * DAY_S) == GOOD
    assert node.work(repo, after_s=30 * DAY_S) == refused("root expired")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_is_held_and_has_expired_is_held_against_older_and_replaced_by_newer(
    node: TufNode, role: str
) -> None:
    repo = TufRepository()
    repo.signed[role].expires = EXPIRES - timedelta(days=20)
    repo.publish(*_with_those_above(role))
    refreshed(node, repo)

    assert node.work(repo, after_s=15 * DAY_S) == refused(f"{role} expired")
    repo.signed[role].expires = EXPIRES
    repo.publish(*_with_those_above(role))
    assert node.work(repo, after_s=15 * DAY_S) == GOOD


def test_a_first_root_that_has_not_signed_itself_is_trusted_for_nothing(node: TufNode) -> None:
    repo = TufRepository()
    root = without(repo.files["1.root.json"], *key_ids(repo.signers["root"]))
    node.trust(root)

    assert node.work(repo) == refused("root signature")
    assert repo.asked == []


# --- roots ---


def test_keys_are_replaced_one_root_after_the_other(node: TufNode) -> None:
    repo = TufRepository()
    refreshed(node, repo)
    for _ in range(2):
        old = repo.signers["root"]
        repo.replace_keys("root")
        own, repo.signers["root"] = repo.signers["root"], [*old, *repo.signers["root"]]
        repo.publish("root")
        repo.signers["root"] = own
    repo.asked.clear()

    assert node.work(repo) == GOOD
    assert repo.asked == ["2.root.json", "3.root.json", "4.root.json", "timestamp.json"]
    assert node.versions()["root"] == 3


def test_a_threshold_is_reached_by_different_keys_only(node: TufNode) -> None:
    """The same key under two ids has signed once (§5.1)."""
    repo = TufRepository()
    refreshed(node, repo)
    key = repo.signers["snapshot"][0]
    twin = other_id(key.public_key, "0" * 64)
    root = repo.signed["root"]
    root.keys[twin.keyid] = twin
    root.roles["snapshot"].keyids.append(twin.keyid)
    root.roles["snapshot"].threshold = 2
    repo.publish("root", "snapshot", "timestamp")
    document = json.loads(repo.files["2.snapshot.json"])
    document["signatures"].append({**document["signatures"][0], "keyid": twin.keyid})
    repo.files["2.snapshot.json"] = json.dumps(document).encode()

    assert node.work(repo) == refused("snapshot signature")

    repo.add_key("root", "snapshot")
    repo.publish("root", "snapshot", "timestamp")
    assert node.work(repo) == GOOD


def test_one_key_under_two_ids_that_are_both_its_own_has_signed_once(node: TufNode) -> None:
    """An id may be that of the key as a whole or of what matters of it: two ids, one key."""
    repo = TufRepository()
    refreshed(node, repo)
    key = repo.signers["snapshot"][0].public_key
    whole = {**key.to_dict(), "x-owner": "somebody"}
    twin = hashlib.sha256(canonical_json(whole)).hexdigest()
    repo.signed["root"].version += 1

    def change(signed: dict[str, Any]) -> None:
        signed["keys"][twin] = whole
        signed["roles"]["snapshot"]["keyids"].append(twin)
        signed["roles"]["snapshot"]["threshold"] = 2

    repo.serve("root", repo.tampered("root", change))
    repo.publish("snapshot", "timestamp")
    document = json.loads(repo.files["2.snapshot.json"])
    document["signatures"].append({**document["signatures"][0], "keyid": twin})
    repo.files["2.snapshot.json"] = json.dumps(document).encode()

    assert node.work(repo) == refused("snapshot signature")


def test_a_signature_that_is_there_twice_is_refused(node: TufNode) -> None:
    repo = TufRepository()
    refreshed(node, repo)
    repo.publish("timestamp")
    document = json.loads(repo.files["timestamp.json"])
    document["signatures"] *= 2
    repo.files["timestamp.json"] = json.dumps(document).encode()

    assert node.work(repo) == refused("timestamp malformed")


def test_a_signature_that_is_none_does_no_harm_beside_enough_good_ones(node: TufNode) -> None:
    repo = TufRepository()
    repo.add_key("root", "timestamp")
    repo.publish("root", "timestamp")
    for sig in ("", "zz", "00", "3006020101020101"):
        document = json.loads(repo.files["timestamp.json"])
        document["signatures"][0]["sig"] = sig
        repo.files["timestamp.json"] = json.dumps(document).encode()
        refreshed(node, repo)


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        (lambda key: {**key, "scheme": "ecdsa-sha2-nistp384"}, False),
        (lambda key: {**key, "keytype": "rsa", "scheme": "rsassa-pss-sha256"}, False),
        (lambda key: {**key, "keyval": {"public": "no key"}}, False),
        (lambda key: {**key, "keyval": {"public": 5}}, False),
        (lambda key: {**key, "keyval": {}}, False),
        (lambda key: 5, False),
        (lambda key: key, True),
        (lambda key: {**key, "x-owner": "somebody"}, True),
    ],
    ids=[
        *("another curve", "another kind", "no PEM", "a number", "no value", "no key at all"),
        *("as it was", "a field more"),
    ],
)
def test_a_key_that_cannot_be_used_signs_nothing(
    node: TufNode, change: Callable[[Any], Any], is_taken: bool
) -> None:
    repo = TufRepository()
    refreshed(node, repo)
    (key_id,) = key_ids(repo.signers["timestamp"])
    repo.signed["root"].version += 1

    def change_key(signed: dict[str, Any]) -> None:
        key = change(signed["keys"].pop(key_id))
        own_id = hashlib.sha256(canonical_json(key)).hexdigest()
        signed["keys"][own_id] = key
        signed["roles"]["timestamp"]["keyids"] = [own_id]

    root = repo.tampered("root", change_key)
    (own_id,) = json.loads(root)["signed"]["roles"]["timestamp"]["keyids"]
    repo.serve("root", root)
    repo.publish("timestamp")
    document = json.loads(repo.files["timestamp.json"])
    document["signatures"][0]["keyid"] = own_id
    repo.files["timestamp.json"] = json.dumps(document).encode()

    assert node.work(repo) == (GOOD if is_taken else refused("timestamp signature"))


def test_an_id_that_is_not_the_keys_own_signs_nothing(node: TufNode) -> None:
    repo = TufRepository()
    refreshed(node, repo)
    (key_id,) = key_ids(repo.signers["timestamp"])
    false_id = "ab" * 32
    root = repo.signed["root"]
    root.keys[false_id] = other_id(root.keys.pop(key_id), false_id)
    root.roles["timestamp"].keyids = [false_id]
    repo.publish("root", "timestamp")
    document = json.loads(repo.files["timestamp.json"])
    document["signatures"][0]["keyid"] = false_id
    repo.files["timestamp.json"] = json.dumps(document).encode()

    assert node.work(repo) == refused("timestamp signature")


def test_a_field_that_a_key_was_given_later_leaves_it_its_id(node: TufNode) -> None:
    """As securesystemslib makes ids: of type, value and scheme."""
    repo = TufRepository()
    refreshed(node, repo)
    (key_id,) = key_ids(repo.signers["timestamp"])
    repo.signed["root"].keys[key_id].unrecognized_fields["x-owner"] = "somebody"
    repo.publish("root", "timestamp")

    assert node.work(repo) == GOOD


def test_a_chain_of_roots_is_followed_over_several_runs(node: TufNode) -> None:
    repo = TufRepository()
    node.trust(repo.files["1.root.json"])
    for _ in range(35):
        repo.publish("root")

    node.work(repo)
    assert node.versions()["root"] == 33
    node.work(repo)
    assert node.versions()["root"] == 36


@pytest.mark.parametrize("roles", [["timestamp"], ["timestamp", "snapshot"]])
def test_a_version_run_away_is_brought_back_by_other_keys(node: TufNode, roles: list[str]) -> None:
    """§5.3.11: who had stolen the keys had made the highest of versions."""
    repo = TufRepository()
    refreshed(node, repo)
    for role in reversed(roles):
        repo.signed[role].version = 2**31
        repo.publish(*_with_those_above(role))
    assert node.work(repo) == GOOD

    for role in roles:
        repo.replace_keys(role)
        repo.signed[role].version = 1
    repo.publish("root", "snapshot", "timestamp")

    assert node.work(repo) == GOOD
    assert node.versions()["timestamp"] == 2


# --- what metadata must look like ---


MALFORMED: dict[str, Callable[[str], str]] = {
    "nothing": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "no object": lambda text: f"[{text}]",
    "more behind it": lambda text: text + "{}",
    "a comma at the end of a list": lambda text: text.replace("}], ", "}, ], ", 1),
    "a comma at the end of an object": lambda text: text[:-1] + ", }",
    "a colon left out": lambda text: text.replace('"signed": ', '"signed" ', 1),
    "a comma left out": lambda text: text.replace('", "expires', '" "expires', 1),
    "names not sorted": lambda text: text.replace('"_type"', '"z_type"', 1),
    "a name twice": lambda text: text.replace('"_type"', '"_type": "a", "_type"', 1),
    "a name without quotes": lambda text: text.replace('"_type"', "_type", 1),
    "a zero before a number": lambda text: text.replace('"version": 1', '"version": 01', 1),
    "a minus before a zero": lambda text: text.replace('"version": 1', '"version": -0', 1),
    "a plus before a number": lambda text: text.replace('"version": 1', '"version": +1', 1),
    "a number with a fraction": lambda text: text.replace('"version": 1', '"version": 1.0', 1),
    "a number with an exponent": lambda text: text.replace('"version": 1', '"version": 1e0', 1),
    "a hexadecimal number": lambda text: text.replace('"version": 1', '"version": 0x1', 1),
    "not a number": lambda text: text.replace('"version": 1', '"version": NaN', 1),
    "True for true": lambda text: text.replace('"_type"', '"_a": True, "_type"', 1),
    "a line break in a string": lambda text: text.replace('"_type"', '"_a": "b\nc", "_type"', 1),
    "half a surrogate pair": lambda text: text.replace('"_type"', r'"_a": "\ud83d", "_type"', 1),
    "a wrong second half": lambda text: text.replace(
        '"_type"', r'"_a": "\ud83d\u0041", "_type"', 1
    ),
    "an escape of none": lambda text: text.replace('"_type"', r'"_a": "\x41", "_type"', 1),
    "an escape that ends early": lambda text: text.replace(
        '"_type"', r'"_a": "\u00 4", "_type"', 1
    ),
    "nested beyond reason": lambda text: text.replace(
        '"_type"', f'"_a": {"[" * 40}{"]" * 40}, "_type"', 1
    ),
    "single quotes": lambda text: text.replace('"', "'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_strictly_json_is_refused(node: TufNode, name: str) -> None:
    repo = TufRepository()
    node.trust(repo.files["1.root.json"])
    text = json.dumps(json.loads(repo.files["timestamp.json"]), sort_keys=True)
    changed = MALFORMED[name](text)
    assert changed != text
    repo.files["timestamp.json"] = changed.encode()

    assert node.work(repo) == refused("timestamp malformed")


def test_what_is_no_text_is_refused(node: TufNode) -> None:
    repo = TufRepository()
    node.trust(repo.files["1.root.json"])
    for content in (
        b"\xff\xfe{}",
        b"\0" * 100,
        repo.files["timestamp.json"].replace(b"time", b"t\xff"),
    ):
        repo.files["timestamp.json"] = content
        assert node.work(repo) == refused("timestamp malformed")


def field(*way: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        for name in way[:-1]:
            signed = signed[name]
        signed[way[-1]] = to

    return change


def dropped(*way: str) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        for name in way[:-1]:
            signed = signed[name]
        del signed[way[-1]]

    return change


WRONG_TYPES: dict[str, tuple[str, Callable[[dict[str, Any]], None]]] = {
    **{
        f"version {to!r}": ("timestamp", field("version", to=to)) for to in (0, -1, True, "1", None)
    },
    **{f"expires {to!r}": ("timestamp", field("expires", to=to)) for to in ("", "2030-01-01", 1)},
    "an object for a text": ("timestamp", field("expires", to={"a": 1})),
    "a list for a number": ("timestamp", field("version", to=[1])),
    "an object for a key id": ("root", field("roles", "timestamp", "keyids", to=[{}])),
    "expires with a zone": ("timestamp", field("expires", to="2030-01-01T00:00:00+01:00")),
    "expires with letters": ("timestamp", field("expires", to="20XX-01-01T00:00:00Z")),
    "another type": ("timestamp", field("_type", to="snapshot")),
    "another specification": ("timestamp", field("spec_version", to="2.0.0")),
    "no specification": ("timestamp", dropped("spec_version")),
    "no meta": ("timestamp", dropped("meta")),
    "meta of nothing": ("timestamp", dropped("meta", "snapshot.json")),
    "meta that is a list": ("timestamp", field("meta", to=[])),
    "a file without version": ("timestamp", dropped("meta", "snapshot.json", "version")),
    "a file of version true": ("timestamp", field("meta", "snapshot.json", "version", to=True)),
    "a snapshot without targets": ("snapshot", dropped("meta", "targets.json")),
    "a snapshot of version 0": ("snapshot", field("meta", "tree-3.json", "version", to=0)),
    "no targets": ("targets", dropped("targets")),
    "targets in a list": ("targets", field("targets", to=[])),
    **{
        f"threshold {to!r}": ("root", field("roles", "timestamp", "threshold", to=to))
        for to in (0, -1, True, "1")
    },
    "a role without keys": ("root", dropped("roles", "timestamp", "keyids")),
    "a role left out": ("root", dropped("roles", "snapshot")),
    "key ids that are numbers": ("root", field("roles", "timestamp", "keyids", to=[1])),
    "a key id twice": ("root", field("roles", "timestamp", "keyids", to=["a", "a"])),
    "consistent_snapshot of 1": ("root", field("consistent_snapshot", to=1)),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_what_is_signed_and_of_another_type_than_it_must_be_is_refused(
    node: TufNode, name: str
) -> None:
    role, change = WRONG_TYPES[name]
    repo = TufRepository()
    node.trust(repo.files["1.root.json"])
    if role == "root":
        repo.signed["root"].version += 1
    repo.serve(role, repo.tampered(role, change))
    if role == "targets":
        repo.publish("snapshot")
    if role in ("targets", "snapshot"):
        repo.publish("timestamp")

    outcome = node.work(repo)

    assert outcome == refused(f"{role} malformed")


# --- delegations (§4.5, §5.6.7) ---


def delegating(*edges: tuple[str, str, dict[str, Any]], kind: str = "rsa-pkcs1") -> TufRepository:
    repo = TufRepository(kind, releases=0)
    for delegator, role, options in edges:
        repo.delegate(delegator, role, **{"paths": ["*"], **options})
    repo.publish(*[role for role in repo.signed if role not in ("root", "snapshot", "timestamp")])
    repo.publish("snapshot", "timestamp")
    return repo


LAST = {"is_last": True}
ORDERS: dict[str, tuple[list[tuple[str, str, dict[str, Any]]], list[str]]] = {
    "one": ([("targets", "A", {})], ["A"]),
    "in order": ([("targets", "B", {}), ("targets", "A", {})], ["B", "A"]),
    "down before on": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", {}), ("A", "D", {})],
        ["A", "C", "D", "B"],
    ),
    "nothing after the last word": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", LAST), ("A", "D", {})],
        ["A", "C"],
    ),
    "but what the last word leads to": (
        [("targets", "A", LAST), ("targets", "B", {}), ("A", "C", {})],
        ["A", "C"],
    ),
    "a last word on other paths is none": (
        [("targets", "A", {**LAST, "paths": ["*.py"]}), ("targets", "B", {})],
        ["B"],
    ),
    "in a circle": (
        [("targets", "A", {}), ("A", "B", {}), ("B", "A", {})],
        ["A", "B"],
    ),
    "by two ways, once": (
        [("targets", "A", {}), ("targets", "B", {}), ("A", "C", {}), ("B", "C", {})],
        ["A", "C", "B"],
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_delegated_roles_are_asked_in_order(node: TufNode, name: str) -> None:
    edges, order = ORDERS[name]
    repo = delegating(*edges)
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, "nobody-names-this") == GOOD
    asked = [file.split(".")[1] for file in repo.asked]
    assert asked[4:] == order


@pytest.mark.parametrize(
    ("pattern", "path", "is_fitting"),
    [
        ("tree-3/*", "tree-3/1.cbor", True),
        ("tree-3/*", "tree-3/a/1.cbor", False),
        ("tree-3/*", "tree-3", False),
        ("*", "a/b", False),
        ("*/*", "a/b", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("*a*b*c*", "xxaxxbxxcxx", True),
        ("*a*b*c*", "xxaxxcxxbxx", False),
        ("*.cbor", ".cbor", True),
        ("**", "abc", True),
        ("", "", True),
        ("a", "A", False),
        ("*/b*", "aa/abb", False),
        ("a*/*b/c", "axx/xxb/c", True),
        ("ü*", "über", True),
        ("[ab]", "a", False),
        ("*" * 30 + "b", "a" * 200, False),
    ],
)
def test_a_path_fits_a_pattern(node: TufNode, pattern: str, path: str, is_fitting: bool) -> None:
    repo = delegating(("targets", "A", {"paths": [pattern]}))
    node.trust(repo.files["1.root.json"])

    node.work(repo, path or "x") if path else node.work(repo)
    assert ("1.A.json" in repo.asked) == (is_fitting and path != "")


def test_a_path_is_delegated_by_the_begin_of_its_hash(node: TufNode) -> None:
    digest = hashlib.sha256(b"boo").hexdigest()
    repo = TufRepository(releases=0)
    repo.delegate("targets", "other", path_hash_prefixes=[f"{int(digest[0], 16) ^ 1:x}"])
    repo.delegate("targets", "right", path_hash_prefixes=["00f", digest[:3]])
    repo.add_target("right", "boo")
    repo.publish("other", "right", "targets", "snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, "boo").target is not None
    assert "1.other.json" not in repo.asked


@pytest.mark.parametrize("bits", [1, 3, 8, 9])
def test_a_path_is_in_one_of_many_bins(node: TufNode, bits: int) -> None:
    repo = TufRepository(releases=0)
    bins = SuccinctRoles([], 1, bits, "bin")
    name = bins.get_role_for_target("boo")
    targets = repo.signed["targets"]
    targets.delegations.roles, targets.delegations.succinct_roles = None, bins
    key = repo.new_signer()
    targets.add_key(key.public_key)
    repo.signed[name], repo.signers[name] = Targets(expires=EXPIRES), [key]
    repo.add_target(name, "boo")
    repo.publish(name, "targets", "snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, "boo").target is not None
    assert repo.asked[-1] == f"1.{name}.json"


def test_a_role_is_signed_for_whoever_delegates_to_it_now(node: TufNode) -> None:
    """What A's word has made trusted is not trusted on B's word, held as it may be."""
    repo = TufRepository(releases=0)
    for delegator, paths in (("A", "a/*"), ("B", "b/*")):
        repo.delegate("targets", delegator, paths=[paths])
        repo.delegate(delegator, "C", paths=["*/*"])
    repo.signers["C"] = repo.signers["C"][:1]  # A's
    repo.add_target("C", "a/1")
    repo.add_target("C", "b/1")
    repo.publish("A", "B", "C", "targets", "snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, "a/1").target is not None
    assert node.work(repo, "b/1") == refused("targets signature")


def test_an_expired_delegated_role_names_nothing(node: TufNode) -> None:
    repo = TufRepository()
    repo.signed["tree-3"].expires = OLD
    repo.publish("tree-3", "targets", "snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, RELEASE) == refused("targets expired")
    assert "tree-3" not in node.versions()


def test_nobody_is_led_on_for_ever(node: TufNode) -> None:
    chain = ["targets", *[f"r{number}" for number in range(33)]]
    repo = delegating(*[(one, other, {}) for one, other in pairwise(chain)], kind="ecdsa")
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, "x") == refused("too many delegations")


@pytest.mark.parametrize("role", ["?", "#", "/x", "../x", "..", "ä b", "%2F", "new"])
def test_a_role_of_any_name_stays_in_the_folder(node: TufNode, role: str) -> None:
    repo = TufRepository(releases=0)
    repo.delegate("targets", role, paths=["*"])
    repo.add_target(role, "x")
    repo.publish(role, "targets", "snapshot", "timestamp")
    quoted = {"/x": "%2Fx", "../x": "..%2Fx", "ä b": "%C3%A4%20b", "%2F": "%252F"}
    quoted |= {"?": "%3F", "#": "%23"}
    name = quoted.get(role, role)
    repo.files[f"1.{name}.json"] = repo.files[f"1.{role}.json"]
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, "x").target is not None
    assert repo.asked[-1] == f"1.{name}.json"
    assert set(node.held()) == {
        *("root.json", "timestamp.json", "snapshot.json", "targets.json", f"{name}.json")
    }


def without_field(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda signed: signed["delegations"]["roles"][0].pop(name)


def with_role(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(signed: dict[str, Any]) -> None:
        signed["delegations"]["roles"][0].update(changes)

    return change


BAD_DELEGATIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "to the name of root": with_role(name="root"),
    "to the name of the snapshot": with_role(name="snapshot"),
    "by paths and by hashes": with_role(path_hash_prefixes=["0"]),
    "without a name": without_field("name"),
    "without a last word": without_field("terminating"),
    "by nothing": without_field("paths"),
    "with a last word of 1": with_role(terminating=1),
    "of threshold 0": with_role(threshold=0),
    "of threshold true": with_role(threshold=True),
    "to no list": lambda signed: signed["delegations"].update(roles={}),
    "to roles and bins": lambda signed: signed["delegations"].update(
        succinct_roles={"bit_length": 1, "keyids": [], "name_prefix": "b", "threshold": 1}
    ),
    "to bins of 33 bits": lambda signed: signed["delegations"].update(
        roles=None,
        succinct_roles={"bit_length": 33, "keyids": [], "name_prefix": "b", "threshold": 1},
    ),
}


@pytest.mark.parametrize("name", BAD_DELEGATIONS)
def test_a_delegation_that_is_none_is_refused(node: TufNode, name: str) -> None:
    repo = TufRepository()
    repo.serve("targets", repo.tampered("targets", BAD_DELEGATIONS[name]))
    repo.publish("snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    assert node.work(repo, RELEASE) == refused("targets malformed")


@pytest.mark.parametrize(
    ("hashes", "is_taken"),
    [
        ({"sha256": "a" * 64}, True),
        ({"sha512": "b" * 128}, True),
        ({"md5": "c" * 32, "sha256": "a" * 64}, True),
        ({"md5": "c" * 32}, False),
        ({}, False),
        ({"sha256": 5}, False),
        (None, False),
    ],
)
def test_a_target_has_a_hash_that_the_node_knows(
    node: TufNode, hashes: dict[str, str] | None, is_taken: bool
) -> None:
    repo = TufRepository()

    def change(signed: dict[str, Any]) -> None:
        signed["targets"][RELEASE]["hashes"] = hashes

    repo.serve("tree-3", repo.tampered("tree-3", change))
    repo.publish("snapshot", "timestamp")
    node.trust(repo.files["1.root.json"])

    outcome = node.work(repo, RELEASE)

    if not is_taken:
        assert outcome == refused("targets malformed")
        return
    assert hashes is not None
    assert outcome.target == Target(
        1, hashes.get("sha256"), {"counter": 2, "model": "tree-3"}, hashes.get("sha512")
    )


def test_metadata_with_a_right_sha_512_are_taken(node: TufNode) -> None:
    repo = TufRepository()
    sha512 = hashlib.sha512(repo.files["1.targets.json"]).hexdigest()
    repo.signed["snapshot"].meta["targets.json"].hashes = {"sha512": sha512}
    repo.publish("snapshot", "timestamp")
    refreshed(node, repo)


def test_every_reason_is_short_enough_for_an_event() -> None:
    assert all(len(reason) <= 40 for reason in REASONS)
    assert len(set(REASONS)) == len(REASONS)


def test_the_servers_table_has_the_nodes_reasons_and_no_others() -> None:
    source = (firmware_dir() / "node" / "update" / "tuf.py").read_text(encoding="utf-8")
    composed = set(re.findall(r'\+ " ([a-z ]+)"', source))
    whole = set(re.findall(r'efused\("([a-z ]+)"', source))

    faults = {reason.partition(" ")[2] for reason in REASONS if reason.split()[0] in TOP_LEVEL}
    assert composed == faults
    assert whole <= set(REASONS)


@pytest.mark.nightly
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "tree-3"])
def test_whatever_became_of_a_file_it_is_refused_and_nothing_fails(
    node: TufNode, role: str
) -> None:
    """Bytes changed, left out, doubled and put in, 400 times: the node refuses with a reason, or nothing that is signed has changed."""
    chance = random.Random(role)
    repo = TufRepository()
    repo.publish("root", "tree-3", "targets", "snapshot", "timestamp")
    name = "timestamp.json" if role == "timestamp" else f"2.{role}.json"
    whole = repo.files[name]
    meant = json.loads(whole)["signed"]
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(content))
            piece = content[at : at + chance.randrange(1, 40)]
            change = chance.randrange(4)
            content[at : at + len(piece)] = (
                bytes(chance.randrange(256) for _ in piece),
                b"",
                bytes(piece * 2),
                bytes(piece) + chance.choice((b'"', b"\\", b"{", b"]", b"0", b"\xff", b"\\ud800")),
            )[change]
        repo.files[name] = bytes(content)
        node.trust(repo.files["1.root.json"])

        outcome = node.work(repo, RELEASE)

        assert outcome.failed is None, bytes(content)
        if outcome.refused is None:
            assert json.loads(content)["signed"] == meant
        else:
            assert outcome.refused in REASONS
