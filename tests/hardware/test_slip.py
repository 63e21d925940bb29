"""Frames of RFC 1055: every packet comes through, whatever the pieces and whatever noise came before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.virtual_board.cable.slip import SlipDecoder, encode

PACKETS = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@given(packets=PACKETS, piece_bytes=st.integers(1, 7), noise=st.binary(max_size=9))
def test_packets_come_through_in_any_pieces_after_any_noise(
    packets: list[bytes], piece_bytes: int, noise: bytes
) -> None:
    stream = noise + b"".join(map(encode, packets))
    decoder = SlipDecoder()

    decoded = []
    for at in range(0, len(stream), piece_bytes):
        decoded += decoder.feed(stream[at : at + piece_bytes])

    # The noise itself may look like packets.
    assert decoded[len(decoded) - len(packets) :] == packets


@pytest.mark.parametrize(
    ("packet", "frame"),
    [
        (b"\xc0", "c0 db dc c0"),
        (b"\xdb", "c0 db dd c0"),
        (b"\xdb\xdc", "c0 db dd dc c0"),
        (b"ab", "c0 61 62 c0"),
    ],
)
def test_special_bytes_are_escaped_as_the_standard_says(packet: bytes, frame: str) -> None:
    assert encode(packet) == bytes.fromhex(frame)


@pytest.mark.parametrize("broken", ["db", "db 41", "41 db c0 db"])
def test_a_frame_with_a_broken_escape_is_dropped_and_the_next_one_is_not(broken: str) -> None:
    frames = b"\xc0" + bytes.fromhex(broken) + b"\xc0" + encode(b"next")

    assert SlipDecoder().feed(frames)[-1] == b"next"
