"""A release that brings a whole MicroPython: into the spare app partition, judged by a boot loader as ESP-IDF describes its own, and only then
the bundle. Not tried on hardware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from authority import TestAuthority
from scripted_listener import Mirror
from test_update import (
    WHOLE_UPDATE,
    Moment,
    Place,
    another,
    compiled,
    lose_power_in_a_wake_from,
    place_of,
)

from fleet_server.wire.state_message import decode_state
from hardware.virtual_board import app_partitions
from hardware.virtual_board.app_partitions import AppPartitions
from hardware.virtual_board.board import HEAP_BYTES
from hardware.virtual_board.esp_image import micropython, token_image
from hardware.virtual_board.flash import Flash, region
from hardware.virtual_board.network import NetworkPolicy

NEW = (1, 28, 0)
IMAGE = micropython("1.28.0", more=b"another MicroPython" * 2_000)
IMAGE_STEPS = ["accepted", "downloading", "verified", "rebooting", "testing"]
BUNDLE_STEPS = WHOLE_UPDATE[1:]


@pytest.fixture
def place(tmp_path: Path, authority: TestAuthority) -> Iterator[Place]:
    yield from place_of(tmp_path, authority)


def _assign(place: Place, content: bytes = IMAGE, counter: int = 1, assignment: int = 1) -> None:
    bundle = another(f"8.{counter}.0")
    target = place.releases.add_with_image(bundle, counter, content, NEW)
    place.releases.publish()
    place.listener.files = place.releases.files
    place.assign(target, counter, assignment)


def _started(place: Place) -> str:
    """The partition that the next reset starts."""
    flash = Flash(place.board.flash_path)
    try:
        return AppPartitions(flash).boot()
    finally:
        flash.close()


def test_a_release_with_an_image_is_there_when_both_run_and_the_node_says_so(place: Place) -> None:
    place.board.heap_bytes = HEAP_BYTES
    place.wakes(1)
    before = place.state()
    _assign(place)

    lows = [place.board.run_wake().heap_low for _ in range(14)]

    assert min(low for low in lows if low is not None) >= 30_000  # docs/budgets.md
    assert place.steps() == [*IMAGE_STEPS, *BUNDLE_STEPS]
    at = region("ota_1").offset
    assert place.board.flash_path.read_bytes()[at : at + len(IMAGE)] == IMAGE
    assert [_started(place), _started(place)] == ["ota_1", "ota_1"]
    assert (before.micropython, before.image_sha256) == ("1.27.0", None)
    said = place.state()
    assert (said.micropython, said.image_sha256) == ("1.28.0", hashlib.sha256(IMAGE).hexdigest())
    assert (said.version, said.counter, said.slot_state) == ("8.1.0", 1, "confirmed")
    assert place.nothing_is_missing()


def test_an_image_that_runs_already_is_not_fetched_again(place: Place) -> None:
    _assign(place)
    place.wakes(14, any_end=True)
    fetched = place.listener.body_bytes
    place.releases.next()
    _assign(place, counter=2, assignment=2)

    place.wakes(10)

    assert place.steps()[len(IMAGE_STEPS + BUNDLE_STEPS) :] == WHOLE_UPDATE
    assert place.listener.body_bytes - fetched < len(IMAGE)
    assert place.state().version == "8.2.0"


def test_an_image_under_which_nobody_was_heard_is_left_at_the_next_reset(place: Place) -> None:
    _assign(place)
    while not place.is_session_next():
        place.wakes(1)
    place.wakes(1, any_end=True)
    place.board.network_policy = NetworkPolicy(tcp="refused")
    place.wakes(2)
    place.board.network_policy = NetworkPolicy()

    place.wakes(8)

    assert place.steps()[-1] == "rolled_back: image not heard"
    assert _started(place) == "ota_0"
    said = place.state()
    assert (said.micropython, said.image_sha256, said.slot) == ("1.27.0", None, "a")


def test_an_image_that_does_not_come_up_is_left_at_once_and_was_fetched_within_the_heap(
    place: Place,
) -> None:
    _assign(place, micropython("1.28.0", comes_up=False))
    while not place.is_session_next():
        place.wakes(1)
    place.board.heap_bytes = HEAP_BYTES - 30_000  # docs/budgets.md: so much stays free

    assert place.board.run_wake().reason == "reset"

    place.board.heap_bytes = HEAP_BYTES
    place.wakes(6, any_end=True)

    assert place.steps() == [*IMAGE_STEPS[:-1], "rolled_back: image not started"]
    assert (_started(place), place.state().micropython) == ("ota_0", "1.27.0")


def test_an_image_goes_on_where_its_download_broke_off(place: Place) -> None:
    _assign(place)
    place.listener.mirror = Mirror(hang_up_after=20_000, piece_bytes=700)
    place.wakes(4, any_end=True)
    place.listener.mirror = Mirror()
    while place.steps()[-1:] != ["testing"]:
        place.wakes(1, any_end=True)

    assert place.steps() == IMAGE_STEPS
    assert place.listener.body_bytes < len(IMAGE) + 25_000


@pytest.mark.nightly
def test_an_image_that_is_tried_again_is_not_fetched_again(place: Place) -> None:
    _assign(place, micropython("1.28.0", comes_up=False, more=bytes(20_000)))
    place.wakes(8, any_end=True)
    fetched = place.listener.body_bytes
    place.assign("tree-3/8.1.0.cbor", 1, attempt=2)

    place.wakes(8, any_end=True)

    assert place.steps()[-1] == "rolled_back: image not started"
    assert len(place.steps()) == 2 * len(IMAGE_STEPS)
    assert place.listener.body_bytes - fetched < 20_000


@pytest.mark.parametrize(
    ("content", "mirror", "told"),
    [
        (b"no image" * 100, Mirror(), "rejected: image not bootable"),
        (IMAGE, Mirror(bends={"files/": lambda data: data[:-1]}), "rejected: image length"),
    ],
)
def test_what_is_no_whole_image_is_never_started(
    place: Place, content: bytes, mirror: Mirror, told: str
) -> None:
    _assign(place, content)
    place.listener.mirror = mirror

    place.wakes_until_told(told)

    assert _started(place) == "ota_0"


def test_a_node_of_before_refuses_a_release_with_an_image(place: Place, tmp_path: Path) -> None:
    knows_one_format = ("_IMAGE_FORMAT if self.image else _FORMAT", "_FORMAT")
    module = compiled("node/update/manifest.py", [knows_one_format], tmp_path)
    place.board.write_file("/a/node/update/manifest.mpy", module)
    _assign(place)

    place.wakes_until_told("rejected: manifest malformed")


def _ends_well(place: Place) -> None:
    for _ in range(24):
        place.wakes(1, any_end=True)
        said = place.state()
        if (said.version, said.slot_state, said.micropython) == ("8.1.0", "confirmed", "1.28.0"):
            return
    raise AssertionError(f"{place.state()}: {place.steps()}")


def _a_loss_of_power_in_every_wake(place: Place, scratch: Path, wanted: int) -> None:
    """Of those of the image; test_update.py has those of the bundle."""
    _assign(place, micropython("1.28.0", more=bytes(9_000)))
    while not place.is_session_next():
        place.wakes(1)
    for number in range(3):
        moment = Moment.of(place, scratch / f"moment-{number}")
        for cut in lose_power_in_a_wake_from(moment, wanted):
            _ends_well(cut)
        moment.again()
        place.wakes(1, any_end=True)


def test_a_loss_of_power_while_an_image_is_brought_or_tried_does_not_end_it(
    place: Place, tmp_path: Path
) -> None:
    _assign(place, micropython("1.28.0", more=bytes(9_000)))
    while _started(place) != "ota_1":
        place.wakes(1, any_end=True)
    place.board.power_on(at_utc_us=place.board.now_us + 60_000_000)

    _ends_well(place)

    assert place.steps()[:4] == ["accepted", "downloading", "verified", "rebooting"]


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_loss_of_power_at_every_flash_operation_of_an_image_leaves_a_node_that_ends_it(
    place: Place, tmp_path: Path
) -> None:
    _a_loss_of_power_in_every_wake(place, tmp_path, 10_000)


@pytest.mark.nightly
def test_an_image_that_takes_the_power_away_is_left_after_some_tries(place: Place) -> None:
    _assign(place, micropython("1.28.0", comes_up=False))
    for _ in range(16):
        if place.board.run_wake().reason != "deepsleep":
            place.board.power_on(at_utc_us=place.board.now_us + 60_000_000)

    assert place.steps()[-1] == "rolled_back: image not started"
    assert place.steps().count("rebooting") == 4


# --- attacks (docs/security/attacks.md)


def _another_image(place: Place) -> None:
    """A mirror serves a whole image of its own, of the same length."""
    _assign(place)
    evil = micropython("6.6.6", more=bytes(len(IMAGE) - len(micropython("6.6.6"))))
    assert len(evil) == len(IMAGE)
    place.listener.mirror = Mirror(bends={"files/": lambda _: evil})


def _too_long(place: Place) -> None:
    """Signed by mistake: more than a partition holds."""
    _assign(place, token_image(bytes(region("ota_1").size)))
    place.listener.mirror = Mirror(hang_up_after=100_000)


def _for_another_chip(place: Place) -> None:
    """Signed by mistake: of an ESP32-S3."""
    _assign(place, micropython("1.28.0", chip_id=9))


@dataclass(frozen=True)
class Attack:
    """`begin` does what an attacker can; `told` is the node's answer; `defence`: what stands in image.py, and what stands there
    without it (None: the boot loader's own look at the chip); `succeeds` tells whether the attack had its effect.
    """

    name: str
    begin: Callable[[Place], None]
    told: str
    defence: tuple[str, str] | None
    succeeds: Callable[[Place], bool]


def _said_versions(place: Place) -> set[str | None]:
    return {decode_state(payload).micropython for payload in place.broker.payloads("st")}


ATTACKS = (
    Attack(
        "another image",
        _another_image,
        "rejected: image hash",
        ("if _hash(spare, length) != sha256:", "if False:"),
        lambda place: "6.6.6" in _said_versions(place),
    ),
    Attack(
        "an image longer than its partition",
        _too_long,
        "rejected: image too long",
        ("if length > _bytes(spare):", "if False:"),
        lambda place: place.listener.body_bytes > 90_000,
    ),
    Attack(
        "an image for another chip",
        _for_another_chip,
        "rejected: image not bootable",
        None,
        lambda place: "1.28.0" in _said_versions(place),
    ),
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_with_an_image_is_refused_told_to_the_server_and_the_node_measures_on(
    place: Place, attack: Attack
) -> None:
    attack.begin(place)

    place.wakes_until_told(attack.told)

    packs = len(place.broker.packs())
    place.wakes(2)
    assert len(place.broker.packs()) > packs
    assert not attack.succeeds(place)
    assert (_started(place), place.state().micropython) == ("ota_0", "1.27.0")


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_without_its_defence_the_attack_with_an_image_succeeds(
    place: Place, attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if attack.defence is None:
        monkeypatch.setattr(app_partitions, "is_app", lambda header: header[:1] == b"\xe9")
    else:
        module = compiled("node/update/image.py", [attack.defence], tmp_path)
        place.board.write_file("/a/node/update/image.mpy", module)
    attack.begin(place)

    for _ in range(8):
        place.wakes(1, any_end=True)
        if attack.succeeds(place):
            break

    assert attack.succeeds(place), place.steps()
