"""App images: what a node's boot loader would start, and which MicroPython it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.wire import app_image
from fleet_server.wire.app_image import AppImage, check_image, read_image
from fleet_server.wire.errors import WireError
from hardware.virtual_board.esp_image import micropython, token_image
from hardware.virtual_board.flash import region

IMAGE = micropython("1.28.0", more=bytes(range(251)))


def test_an_image_says_for_which_chip_it_is_and_which_micropython() -> None:
    assert read_image(IMAGE) == AppImage(0, (1, 28, 0))
    assert check_image(IMAGE, chip="esp32", micropython=(1, 28, 0)).micropython == (1, 28, 0)
    preview = micropython("1.29.0-preview.12.gabcdef012", chip_id=9)
    assert read_image(preview) == AppImage(9, (1, 29, 0))


def test_it_may_be_as_large_as_an_app_partition() -> None:
    assert region("ota_0").size == region("ota_1").size == app_image.MOST_BYTES


def _sealed(image: bytes) -> bytes:
    """With the hash that belongs to it, so that only what was changed is wrong."""
    return image[:-32] + hashlib.sha256(image[:-32]).digest()


def _with(at: int, value: int) -> Callable[[], bytes]:
    return lambda: _sealed(IMAGE[:at] + bytes([value]) + IMAGE[at + 1 :])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: b"", "does not begin"),
        (lambda: b"MicroPython v1.28.0 on 2026-01-01" * 9, "does not begin"),
        (lambda: bytes([0xE9]) * (app_image.MOST_BYTES + 1), "holds 1572864"),
        (_with(1, 0), "0 segments"),
        (_with(1, 17), "17 segments"),
        (_with(1, 16), "ends too early"),
        (_with(30, 0xFF), "ends too early"),
        (_with(40, 0), "checksum"),
        (_with(23, 0), "no hash of its own"),
        (lambda: IMAGE[:-1] + b"x", "its hash is another"),
        (lambda: IMAGE[:-1], "ends too early"),
        (lambda: IMAGE[:20], "does not begin"),
        (lambda: IMAGE + b"\xff", "without boot loader"),
        (lambda: token_image(), "is no MicroPython"),
        (lambda: micropython("1.28.0", more=b"MicroPython v1.27.0 on 2025-12-09"), "is no Micro"),
    ],
)
def test_what_no_node_could_start_is_refused_with_what_is_wrong(
    data: Callable[[], bytes], said: str
) -> None:
    with pytest.raises(WireError, match=said):
        read_image(data())


@pytest.mark.parametrize(
    ("chip", "version", "said"),
    [
        ("esp32s3", (1, 28, 0), "is for esp32; this node model has an esp32s3"),
        ("esp8266", (1, 28, 0), "is for esp32"),
        ("esp32", (1, 27, 0), "is MicroPython 1.28.0, not 1.27.0"),
    ],
)
def test_an_image_of_another_chip_or_version_is_refused(
    chip: str, version: app_image.Version, said: str
) -> None:
    with pytest.raises(WireError, match=said):
        check_image(IMAGE, chip=chip, micropython=version)


@given(at=st.integers(0, len(IMAGE) - 1), bit=st.integers(0, 7))
def test_no_bit_of_an_image_can_be_flipped_unseen(at: int, bit: int) -> None:
    flipped = bytearray(IMAGE)
    flipped[at] ^= 1 << bit
    with pytest.raises(WireError):
        read_image(bytes(flipped))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        read_image(b"\xe9" + data)
