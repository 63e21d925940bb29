"""A whole MicroPython into the spare app partition, judged by a boot loader as ESP-IDF describes its own. Not tried on hardware."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import TestAuthority
from scripted_listener import Mirror
from test_update import Place, place_of

from hardware.virtual_board.app_partitions import AppPartitions
from hardware.virtual_board.esp_image import token_image
from hardware.virtual_board.flash import Flash, region
from hardware.virtual_board.network import NetworkPolicy

IMAGE = token_image(b"another MicroPython" * 2_000)


@pytest.fixture
def place(tmp_path: Path, authority: TestAuthority) -> Iterator[Place]:
    yield from place_of(tmp_path, authority)


def _assign(place: Place, content: bytes = IMAGE, counter: int = 1, assignment: int = 1) -> None:
    target = place.releases.add_image(f"1.{counter}.0", counter, content)
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


def test_an_image_is_started_and_kept_once_the_server_was_heard(place: Place) -> None:
    _assign(place)

    place.wakes(6, any_end=True)

    assert place.steps() == ["accepted", "downloading", "verified", "rebooting", "testing"]
    at = region("ota_1").offset
    assert place.board.flash_path.read_bytes()[at : at + len(IMAGE)] == IMAGE
    assert [_started(place), _started(place)] == ["ota_1", "ota_1"]


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


def test_an_image_goes_on_where_its_download_broke_off(place: Place) -> None:
    _assign(place)
    place.listener.mirror = Mirror(hang_up_after=20_000, piece_bytes=700)
    place.wakes(4, any_end=True)
    place.listener.mirror = Mirror()

    place.wakes(8, any_end=True)

    assert place.steps()[-1] == "testing"
    assert place.listener.body_bytes < len(IMAGE) + 25_000


@pytest.mark.parametrize(
    ("content", "mirror", "told"),
    [
        (IMAGE, Mirror(bends={".img": lambda data: data[:-1] + b"x"}), "rejected: image hash"),
        (IMAGE, Mirror(bends={".img": lambda data: data[:-1]}), "rejected: image length"),
        (b"no image" * 100, Mirror(), "rejected: image not bootable"),
    ],
)
def test_what_is_not_the_signed_image_or_none_at_all_is_never_started(
    place: Place, content: bytes, mirror: Mirror, told: str
) -> None:
    _assign(place, content)
    place.listener.mirror = mirror

    place.wakes_until_told(told)

    assert _started(place) == "ota_0"


def test_an_older_image_is_refused(place: Place) -> None:
    _assign(place, counter=5)
    place.wakes(6, any_end=True)
    place.releases.next()
    _assign(place, counter=4, assignment=2)

    place.wakes_until_told("rejected: older than installed")
