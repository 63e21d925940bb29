"""Attacks on updates (docs/security/attacks.md): each ends in a refusal that the server is told of, and the node measures on; each succeeds
on a node that lacks the one defence against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import nodes
import pytest
from authority import TestAuthority
from scripted_listener import Mirror, packed
from securesystemslib.signer import CryptoSigner
from signed_releases import MODEL, SignedReleases
from test_update import NOW, Place, another, compiled, place_of

from hardware.virtual_board.board import Board

EVIL = "6.6.6"
DAY_S = 86_400

Patch = tuple[str, str, str]
"""A module of the firmware, what stands in it, and what stands there on a node without the defence."""

NO_SIGNATURES: Patch = (
    "node/update/tuf.py",
    "        if len(counted) < threshold:\n            raise",
    "        if False:\n            raise",
)
NO_THRESHOLD: Patch = (
    "node/update/tuf.py",
    "        if len(counted) < threshold:\n            raise",
    "        if len(counted) < 1:\n            raise",
)
OLDER_TIMESTAMP: Patch = (
    "node/update/tuf.py",
    'if self.signed["version"] < held.signed["version"]:',
    "if False:",
)
OLDER_CONTENT: Patch = (
    "node/update/tuf.py",
    'if self.signed["meta"].get(name, 0) < version:',
    "if False:",
)
ANY_VERSION: Patch = (
    "node/update/tuf.py",
    'if version not in (None, self.signed["version"]):',
    "if False:",
)


@dataclass(frozen=True)
class Attack:
    """`begin` does what an attacker can; `told` is the node's answer; `defence` is what has to be gone for it to succeed."""

    name: str
    begin: Callable[[Place], None]
    told: str
    defence: tuple[Patch, ...]


def _assign_evil(place: Place, counter: int = 9) -> None:
    place.assign(f"{MODEL}/{EVIL}.cbor", counter)


def _serve(place: Place) -> None:
    place.listener.files = dict(place.releases.files)


def _an_arbitrary_file(place: Place) -> None:
    """The mirror adds a target to the role's metadata, which it cannot sign."""
    place.releases.publish()
    signed = SignedReleases(NOW)
    signed.add(another(EVIL), 9)
    role = json.loads(place.releases.files["metadata/1.tree-3.json"])
    evil = json.loads(signed.role.to_bytes())
    role["signed"]["targets"] = evil["signed"]["targets"]
    _serve(place)
    place.listener.files |= {
        path: data for path, data in signed.files.items() if path.startswith("targets/")
    }
    place.listener.files["metadata/1.tree-3.json"] = json.dumps(role).encode()
    _assign_evil(place)


def _an_older_release(place: Place) -> None:
    """An honest release from before a hole was closed, which the node is told to run again."""
    version = {
        "version": "7.0.0",
        "counter": 10,
        "built_utc_s": nodes.BUILT_AT_UTC_S,
        "sha256": "0" * 64,
    }
    place.board.write_file("/a/VERSION", json.dumps(version).encode())
    place.release(another(EVIL), 9)
    _assign_evil(place)


def _withdrawn(place: Place) -> dict[str, bytes]:
    """A release that was withdrawn, and a node that knows of it; the files from before."""
    place.release(another(EVIL), 9)
    before = dict(place.releases.files)
    place.releases.next()
    place.releases.role.signed.targets.clear()
    place.releases.publish()
    _serve(place)
    place.assign(f"{MODEL}/no.cbor", 9)
    place.wakes_until_told("rejected: not signed")
    place.assign(f"{MODEL}/{EVIL}.cbor", 9, assignment=2)
    return before


def _older_metadata(place: Place) -> None:
    place.listener.files["metadata/timestamp.json"] = _withdrawn(place)["metadata/timestamp.json"]


def _an_older_snapshot(place: Place) -> None:
    """The attacker has the timestamp key, and names the snapshot from before."""
    before = _withdrawn(place)
    for path in before:
        if path.startswith("metadata/"):
            place.listener.files[path] = before[path]
    stamped = place.releases.timestamp
    stamped.signed.version += 1
    stamped.signed.snapshot_meta.version = 1
    stamped.sign(place.releases.signers["timestamp"])
    place.listener.files["metadata/timestamp.json"] = stamped.to_bytes()


def _mixed_metadata(place: Place) -> None:
    """Today's snapshot with the role's metadata from before."""
    place.release(another(EVIL), 9)
    before = place.releases.files["metadata/1.tree-3.json"]
    place.releases.next()
    place.releases.role.signed.targets.clear()
    place.releases.publish()
    _serve(place)
    place.listener.files["metadata/2.tree-3.json"] = before
    _assign_evil(place)


def _frozen(place: Place) -> None:
    """A mirror that goes on giving what was signed long ago."""
    place.release(another(EVIL), 9)
    _assign_evil(place)
    place.wakes(1)
    place.board.power_on(at_utc_us=place.board.now_us + 8 * DAY_S * 1_000_000)


def _endless_metadata(place: Place) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(endless="timestamp", has_packed=False)
    _assign_evil(place)


def _endless_news(place: Place) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(endless="news")
    _assign_evil(place)


def _news_that_swell(place: Place) -> None:
    """A few KB, of which megabytes are made."""
    place.release(another(EVIL), 9)
    swollen = packed(b"timestamp.json 3000000\n" + b"x" * 3_000_000)
    place.listener.mirror = Mirror(packed_bends={"news": lambda data: swollen})
    _assign_evil(place)


def _wrong_model(place: Place) -> None:
    """A release for ponds, which the same people have signed."""
    place.release(another(EVIL), 9, custom={"counter": 9, "model": "pond-1"}, models=["pond-1"])
    _assign_evil(place)


def _another_bundle(place: Place) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(bends={"bundles": lambda data: b"M" * len(data)})
    _assign_evil(place)


def _flipped_bit(place: Place) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(
        bends={"bundles": lambda data: bytes(b ^ (n % 97 == 0) for n, b in enumerate(data))}
    )
    _assign_evil(place)


def _another_manifest(place: Place) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(
        bends={".cbor": lambda data: data.replace(b"\x65notes\x60", b"\x65Notes\x60")}
    )
    _assign_evil(place)


def _cut_off(place: Place) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(bends={"bundles": lambda data: data[:-1]})
    _assign_evil(place)


def _stolen_role_key(place: Place) -> None:
    """The model's key was stolen and replaced; the thief signs with it."""
    releases = place.releases
    releases.publish()
    _serve(place)
    place.assign(f"{MODEL}/no.cbor", 9)
    place.wakes_until_told("rejected: not signed")
    stolen = releases.signers[MODEL]
    releases.replace_role_key()
    releases.add(another(EVIL), 9)
    releases.next()
    releases.targets.signed.version += 1
    releases.publish()
    evil = releases.role
    evil.signatures.clear()
    evil.sign(stolen)
    _serve(place)
    place.listener.files["metadata/2.tree-3.json"] = evil.to_bytes()
    place.assign(f"{MODEL}/{EVIL}.cbor", 9, assignment=2)


def _stolen_root_key(place: Place) -> None:
    """One of the two root keys was stolen: its thief names keys of his own."""
    honest = place.releases
    honest.publish()
    evil = SignedReleases(NOW)
    evil.signers["root"] = honest.signers["root"]
    evil.root.signed.version = 2
    evil.root.signatures.clear()
    for _ in range(2):
        evil.root.signed.revoke_key(evil.root.signed.roles["root"].keyids[0], "root")
    for name in ("root", "root2"):
        evil.root.signed.add_key(evil.signers[name].public_key, "root")
    evil.sign_root()
    evil.add(another(EVIL), 9)
    evil.publish()
    place.listener.files = {**honest.files, **evil.files}
    place.listener.files["metadata/1.root.json"] = honest.first_root
    _assign_evil(place)


def _one_of_two_authors(place: Place) -> None:
    """Two have to sign for the model; one of them signs alone, and has the server's keys besides."""
    targets = place.releases.targets.signed
    targets.add_key(CryptoSigner.generate_ecdsa().public_key, MODEL)
    targets.delegations.roles[MODEL].threshold = 2
    place.releases.add(another(EVIL), 9)
    place.releases.publish()
    _serve(place)
    _assign_evil(place)


ATTACKS = (
    Attack(
        "an arbitrary file", _an_arbitrary_file, "rejected: targets signature", (NO_SIGNATURES,)
    ),
    Attack(
        "an older release",
        _an_older_release,
        "rejected: older than installed",
        (
            (
                "node/update/bundle.py",
                "if not fault and not manifest.allows_downgrade:",
                "if False:",
            ),
        ),
    ),
    Attack(
        "older metadata",
        _older_metadata,
        "rejected: timestamp rolled back",
        (OLDER_TIMESTAMP, OLDER_CONTENT),
    ),
    Attack(
        "an older snapshot under a new timestamp",
        _an_older_snapshot,
        "rejected: snapshot rolled back",
        (OLDER_CONTENT,),
    ),
    Attack("mix and match", _mixed_metadata, "rejected: targets version", (ANY_VERSION,)),
    Attack(
        "freeze",
        _frozen,
        "rejected: timestamp expired",
        (
            (
                "node/update/tuf.py",
                '        if self.signed["expires"] <= now:\n',
                "        if False:\n",
            ),
        ),
    ),
    Attack(
        "another model's release",
        _wrong_model,
        "rejected: wrong model",
        (
            ("node/update/session.py", 'if custom.get("model") != self._model:', "if False:"),
            ("node/update/manifest.py", "if model not in self.models:", "if False:"),
        ),
    ),
    Attack(
        "a mirror's own bundle",
        _another_bundle,
        "rejected: file hash",
        (
            (
                "node/update/install.py",
                "if self._digest.digest() != bytes(self._sha256):",
                "if False:",
            ),
        ),
    ),
    Attack(
        "a flipped bit",
        _flipped_bit,
        "rejected: file hash",
        (
            (
                "node/update/install.py",
                "if self._digest.digest() != bytes(self._sha256):",
                "if False:",
            ),
        ),
    ),
    Attack(
        "a mirror's own manifest",
        _another_manifest,
        "rejected: manifest hash",
        (
            (
                "node/update/bundle.py",
                "        if not _is_manifest(length, sha256):\n            os.remove",
                "        if False:\n            os.remove",
            ),
        ),
    ),
    Attack(
        "a stolen key of a model", _stolen_role_key, "rejected: targets signature", (NO_SIGNATURES,)
    ),
    Attack(
        "one author of two", _one_of_two_authors, "rejected: targets signature", (NO_THRESHOLD,)
    ),
    Attack("one stolen root key", _stolen_root_key, "rejected: root signature", (NO_THRESHOLD,)),
)


@pytest.fixture
def place(tmp_path: Path, authority: TestAuthority) -> Iterator[Place]:
    yield from place_of(tmp_path, authority)


def _without(board: Board, patches: tuple[Patch, ...], scratch: Path) -> None:
    for path in {path for path, _, _ in patches}:
        changes = [(old, new) for name, old, new in patches if name == path]
        board.write_file("/a/" + path.replace(".py", ".mpy"), compiled(path, changes, scratch))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_is_refused_told_to_the_server_and_the_node_measures_on(
    place: Place, attack: Attack
) -> None:
    attack.begin(place)

    place.wakes_until_told(attack.told)

    packs = len(place.broker.packs())
    place.wakes(5)
    assert place.state().slot == "a"
    assert len(place.broker.packs()) > packs
    assert place.steps()[-1] == attack.told, "and it is not tried again"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_without_its_defence_the_attack_succeeds(
    place: Place, attack: Attack, tmp_path: Path
) -> None:
    _without(place.board, attack.defence, tmp_path)
    attack.begin(place)

    for _ in range(8):
        place.wakes(1, any_end=True)
        if place.is_rebooting():
            break

    assert place.is_rebooting(), place.steps()


def _most_written(place: Place, wakes: int) -> int:
    """Bytes that one wake has written to flash, at most."""
    return max(place.board.run_wake().flash.bytes_programmed for _ in range(wakes))


LENGTH_BOUND: Patch = (
    "node/update/download.py",
    '        if length > limit:\n            raise Refused("endless data")\n        return length',
    "        return length",
)
UNPACKED_BOUND: Patch = ("node/update/news.py", "            if room < 0:", "            if False:")
ENDLESS = {
    "metadata": (_endless_metadata, (LENGTH_BOUND,)),
    # What was announced is bounded, and what comes of it.
    "news": (_endless_news, ()),
    "news that swell": (_news_that_swell, (UNPACKED_BOUND,)),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_data_without_end_are_not_even_begun(place: Place, what: str) -> None:
    begin, _ = ENDLESS[what]
    begin(place)

    assert _most_written(place, 6) < (60_000 if "swell" in what else 20_000)
    assert place.steps() == ["accepted", "rejected: endless data"]


@pytest.mark.parametrize("what", [what for what, (_, bounds) in ENDLESS.items() if bounds])
def test_without_the_bound_data_without_end_fill_the_flash(
    place: Place, tmp_path: Path, faster_waits: None, what: str
) -> None:
    begin, bounds = ENDLESS[what]
    _without(place.board, bounds, tmp_path)
    begin(place)

    assert _most_written(place, 4) > 200_000


@pytest.mark.parametrize(
    "bend", [lambda data: b"\xff" * len(data), lambda data: data[:-9]], ids=["garbage", "cut off"]
)
def test_files_that_are_not_packed_as_they_should_be_are_refused(
    place: Place, bend: Callable[[bytes], bytes]
) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(packed_bends={"bundles": bend})
    _assign_evil(place)

    place.wakes_until_told("rejected: file hash")


def test_a_download_that_only_trickles_ends_with_the_radio_time_and_after_many_tries_for_good(
    place: Place, faster_waits: None
) -> None:
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(seconds_a_piece=0.4, piece_bytes=16)
    _assign_evil(place)
    while not place.is_session_next():
        place.wakes(1)

    result = place.board.run_wake()

    assert result.radio_us <= 31_000_000
    nodes.run_on(
        place.board,
        "from node.update import job\nj = job.load()\nassert j.faults == 1\nj.faults = 23\nj.keep()",
    )
    place.wakes_until_told("failed: accepted: too slow")
    assert place.state().slot == "a"


def test_without_the_bound_a_download_that_trickles_keeps_the_radio_on(
    place: Place, tmp_path: Path, faster_waits: None
) -> None:
    radio = ("node/update/session.py", "_RADIO_MS = const(30_000)", "_RADIO_MS = const(45_000)")
    _without(place.board, (radio,), tmp_path)
    place.release(another(EVIL), 9)
    place.listener.mirror = Mirror(seconds_a_piece=0.4, piece_bytes=16)
    _assign_evil(place)
    while not place.is_session_next():
        place.wakes(1)

    assert place.board.run_wake().radio_us > 40_000_000


def _count_far_ahead_and_replace_the_key(place: Place) -> None:
    """The fast-forward attack with a stolen timestamp key, then what the fleet does about it."""
    releases = place.releases
    releases.timestamp.signed.version = 2_000_000_000
    releases.publish()
    _serve(place)
    place.assign(f"{MODEL}/no.cbor", 9)
    place.wakes_until_told("rejected: not signed")
    releases.replace_timestamp_key()
    releases.timestamp.signed.version = 1
    releases.timestamp.signed.expires = NOW + timedelta(days=7)
    releases.add(another("1.2.4"), 9)
    releases.role.signed.version = releases.snapshot.signed.version = 2
    releases.publish()
    _serve(place)
    place.assign(f"{MODEL}/1.2.4.cbor", 9, assignment=2)


def test_a_stolen_timestamp_key_that_counted_far_ahead_is_of_no_account_once_it_is_replaced(
    place: Place,
) -> None:
    _count_far_ahead_and_replace_the_key(place)

    place.wakes(6)

    assert place.state().version == "1.2.4"


def test_a_node_that_goes_on_trusting_what_a_stolen_key_signed_takes_no_update_any_more(
    place: Place, tmp_path: Path
) -> None:
    asks = ("node/update/tuf.py", "            held.check_signed(delegation)\n", "")
    _without(place.board, (asks,), tmp_path)
    _count_far_ahead_and_replace_the_key(place)

    place.wakes_until_told("rejected: timestamp rolled back")
