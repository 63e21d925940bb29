"""The port between chip and cable: who may disturb what, without a board on it."""

from __future__ import annotations

import pytest

from hardware.virtual_board.board import Halted
from hardware.virtual_board.cable.rom_loader import SYNC_HEAD
from hardware.virtual_board.cable.wire import Hearing, SwitchedOff, Wire
from hardware.virtual_board.wasi import Interrupted

SYNC = b"\xc0" + SYNC_HEAD + b"U" * 32 + b"\xc0"


class Client:
    def __init__(self, *, has_lines: bool) -> None:
        self.has_lines = has_lines
        self.heard = b""

    def send(self, data: bytes) -> None:
        self.heard += data


@pytest.fixture
def wire() -> Wire:
    """A chip that runs a program, with nobody at its cable."""
    wire = Wire()
    assert not wire.next_start()
    wire.hear(Hearing.PROGRAM)
    return wire


def test_ctrl_c_interrupts_a_program_once(wire: Wire) -> None:
    wire.received(b"a\x03b")

    with pytest.raises(Interrupted):
        wire.pause(0)
    wire.pause(0)
    assert wire.take(9) == b"ab"


def test_ctrl_c_that_came_too_late_does_not_meet_the_next_program(wire: Wire) -> None:
    wire.received(b"\x03")
    wire.hear(Hearing.PROMPT)
    wire.hear(Hearing.PROGRAM)

    wire.pause(0)


def test_ctrl_c_typed_ahead_of_a_program_interrupts_it(wire: Wire) -> None:
    wire.hear(Hearing.PROMPT)
    wire.received(b"run\r\x03")
    assert wire.take(9, until=b"\r") == b"run\r"
    wire.hear(Hearing.PROGRAM)

    with pytest.raises(Interrupted):
        wire.pause(0)


@pytest.mark.parametrize("piece_bytes", [1, 5, 100])
def test_without_lines_a_sync_takes_the_chip_into_its_loader(wire: Wire, piece_bytes: int) -> None:
    wire.attach(Client(has_lines=False))
    stream = b"noise" + SYNC

    for at in range(0, len(stream), piece_bytes):
        wire.received(stream[at : at + piece_bytes])

    with pytest.raises(Halted):
        wire.pause(0)
    assert wire.next_start()
    assert wire.take(100) == SYNC


def test_with_lines_a_sync_is_only_bytes(wire: Wire) -> None:
    wire.attach(Client(has_lines=True))
    wire.received(SYNC)

    wire.pause(0)
    assert wire.take(100) == SYNC


@pytest.mark.parametrize(("has_lines", "starts"), [(True, False), (False, True)])
def test_a_loader_is_left_with_its_client_only_where_lines_cannot_do_it(
    wire: Wire, has_lines: bool, starts: bool
) -> None:
    wire.attach(Client(has_lines=has_lines))
    wire.hear(Hearing.LOADER)
    wire.detach()

    if starts:
        assert not wire.next_start()
    else:
        wire.pause(0)


@pytest.mark.parametrize(("has_lines", "wakes"), [(True, False), (False, True)])
def test_a_sleeping_chip_hears_ctrl_c_only_where_lines_cannot_reset_it(
    wire: Wire, has_lines: bool, wakes: bool
) -> None:
    wire.attach(Client(has_lines=has_lines))
    wire.hear(Hearing.ASLEEP)
    wire.received(b"lost\x03kept")

    if not wakes:
        wire.pause(0)
        return
    with pytest.raises(Halted):
        wire.pause(0)
    assert not wire.next_start()
    wire.hear(Hearing.PROGRAM)
    with pytest.raises(Interrupted):
        wire.pause(0)
    assert wire.take(9) == b"kept"


def test_a_client_that_leaves_lets_go_of_the_reset_line(wire: Wire) -> None:
    wire.attach(Client(has_lines=True))
    wire.set_lines(dtr=False, rts=True)
    with pytest.raises(Halted):
        wire.pause(0)

    wire.detach()

    assert not wire.next_start()


def test_what_one_client_left_unread_is_not_the_next_ones(wire: Wire) -> None:
    wire.attach(Client(has_lines=False))
    wire.received(b"old")
    wire.detach()
    wire.attach(Client(has_lines=False))
    wire.received(b"new")

    assert wire.take(9) == b"new"


def test_more_than_anybody_reads_is_lost_and_what_came_first_is_kept(wire: Wire) -> None:
    for _ in range(100):
        wire.received(b"x" * 1000)

    kept = wire.take(1_000_000)
    assert 60_000 < len(kept) < 70_000


def test_a_chip_that_is_switched_off_is_never_started_again(wire: Wire) -> None:
    wire.switch_off()

    with pytest.raises(Halted):
        wire.take(1)
    with pytest.raises(SwitchedOff):
        wire.next_start()


def test_with_nobody_there_what_the_board_says_is_lost(wire: Wire) -> None:
    wire.send(b"lost")
    client = Client(has_lines=False)
    wire.attach(client)
    wire.send(b"heard")

    assert client.heard == b"heard"
