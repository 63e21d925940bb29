"""The board's first serial port, between the chip and whoever is at the other end of the cable.

Two threads meet here. The chip's own takes bytes, sends, and waits; everything that it waits in here ends when the chip is
stopped (`Halted`), and while a program runs when somebody presses Ctrl-C (`Interrupted`). The thread of the doors
(`doors.py`) puts in what comes.

A door without lines (TCP, pseudo-terminal) cannot pull EN and IO0. There a SYNC request to the ROM loader does what the
lines would do, and Ctrl-C is the reset button of a chip that is asleep or in its loader.
"""

from __future__ import annotations

import enum
import threading
import time
from typing import TYPE_CHECKING, Protocol

from hardware.virtual_board.board import Halted
from hardware.virtual_board.cable.reset_circuit import ResetCircuit
from hardware.virtual_board.cable.rom_loader import SYNC_HEAD
from hardware.virtual_board.wasi import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

CTRL_C = b"\x03"
_SYNC = b"\xc0" + SYNC_HEAD
# More than a client sends unasked; beyond it bytes are lost, as in any receiver that is not read.
_MOST_WAITING_BYTES = 64 * 1024
_GUARD_EVERY_S = 0.1


class Client(Protocol):
    """Who is at the other end."""

    has_lines: bool

    def send(self, data: bytes) -> None:
        """Bytes from the board; lost when the client does not take them."""


class Hearing(enum.Enum):
    """What the chip makes of the bytes that come."""

    STARTING = "kept for what starts"
    PROGRAM = "kept for the program; Ctrl-C interrupts it"
    PROMPT = "read as they are"
    LOADER = "read as packets"
    ASLEEP = "lost"


class SwitchedOff(Exception):
    """The board is not to be started any more."""


class Wire:
    """The port. The chip stands still until `next_start`."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived = bytearray()
        self._last_bytes = b""  # for a SYNC that comes in pieces
        self._hearing = Hearing.ASLEEP
        self._is_ctrl_c_pressed = False
        self._is_running = False
        self._is_off = False
        self._ordered: bool | None = False  # a start without lines: into the loader?
        self._circuit = ResetCircuit()
        self._client: Client | None = None
        self.guard: Callable[[], None] | None = None
        """Looks now and then while the chip waits for bytes, and may raise: its watchdog."""

    # --- the chip's side ---

    @property
    def is_off(self) -> bool:
        return self._is_off

    def next_start(self) -> bool:
        """Wait until the chip starts; whether into its loader.

        Raises:
            SwitchedOff: it will not.
        """
        with self._changed:
            while True:
                if self._is_off:
                    raise SwitchedOff
                now_s = time.monotonic()
                if self._ordered is not None and not self._circuit.is_held:
                    is_download, self._ordered = self._ordered, None
                    break
                wait_s = self._circuit.starts_in_s(now_s)
                if wait_s == 0:
                    is_download, self._ordered = self._circuit.start(), None
                    break
                self._changed.wait(wait_s)
            self._is_running = True
            self._hearing = Hearing.LOADER if is_download else Hearing.STARTING
            return is_download

    def hear(self, hearing: Hearing) -> None:
        """From now on bytes are taken so."""
        with self._changed:
            self._hearing = hearing
            if hearing is Hearing.PROMPT:
                self._is_ctrl_c_pressed = False
            elif hearing is Hearing.PROGRAM:
                self._look_for_ctrl_c()
            elif hearing is Hearing.ASLEEP:
                self._arrived.clear()

    def take(self, size: int, *, until: bytes = b"") -> bytes:
        """Wait for bytes: at most `size`, and none behind the first that is in `until`. Raises as `pause`."""
        with self._changed:
            while not self._arrived:
                self._look()
                self._changed.wait(None if self.guard is None else _GUARD_EVERY_S)
                if self.guard is not None:
                    self.guard()
            self._look()
            ends = [at for stop in until if (at := self._arrived.find(stop, 0, size)) >= 0]
            size = min([size, *[at + 1 for at in ends]])
            taken = bytes(self._arrived[:size])
            del self._arrived[:size]
            return taken

    def pause(self, duration_s: float) -> None:
        """Wait, 0 only to look.

        Raises:
            Halted: the chip was stopped.
            Interrupted: Ctrl-C was pressed while a program runs.
        """
        until_s = time.monotonic() + duration_s
        with self._changed:
            self._look()
            while (left_s := until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
                self._look()

    def is_interrupted(self) -> bool:
        """Whether Ctrl-C was pressed while a program runs; it is taken back by asking. Raises Halted."""
        try:
            self.pause(0)
        except Interrupted:
            return True
        return False

    def has_lines(self) -> bool:
        """Whether whoever is there can pull EN and IO0."""
        client = self._client
        return client is not None and client.has_lines

    def send(self, data: bytes) -> None:
        """To whoever is there."""
        client = self._client
        if client is not None:
            client.send(data)

    def restart(self, *, keep: bytes = b"") -> None:
        """What a door without lines can do: reset the chip as by EN. `keep` is what came behind."""
        with self._changed:
            self._order_start(is_download=False, keep=keep + bytes(self._arrived))

    # --- the cable's side ---

    def attach(self, client: Client) -> None:
        """Somebody has come; there is at most one.

        What the one before sent and the chip has not read is lost: at the speed of a real line it would have been read
        before anybody could come.
        """
        with self._changed:
            self._client, self._last_bytes = client, b""
            self._arrived.clear()

    def detach(self) -> None:
        """They have left: lines fall. A loader that was entered without lines is left."""
        with self._changed:
            had_lines, self._client = self.has_lines(), None
            if had_lines:
                self._set_lines(dtr=False, rts=False)
            elif self._hearing is Hearing.LOADER:
                self._order_start(is_download=False)

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        with self._changed:
            if not self.has_lines() and self._hearing is not Hearing.LOADER:
                recent = self._last_bytes + data
                at = recent.find(_SYNC)
                if at >= 0:
                    self._order_start(is_download=True, keep=recent[at:])
                    return
                self._last_bytes = recent[-len(_SYNC) + 1 :]
            if self._hearing is Hearing.ASLEEP:
                self._wake_by_ctrl_c(data)
                return
            self._arrived += data[: _MOST_WAITING_BYTES - len(self._arrived)]
            if self._hearing in (Hearing.PROGRAM, Hearing.STARTING):
                self._look_for_ctrl_c()
            self._changed.notify_all()

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """DTR and RTS, asserted or not."""
        with self._changed:
            self._set_lines(dtr=dtr, rts=rts)

    def switch_off(self) -> None:
        """The board loses its supply, for good."""
        with self._changed:
            self._is_off, self._is_running = True, False
            self._changed.notify_all()

    # --- with the lock held ---

    def _look(self) -> None:
        if not self._is_running:
            raise Halted
        if self._is_ctrl_c_pressed and self._hearing is Hearing.PROGRAM:
            self._is_ctrl_c_pressed = False
            raise Interrupted

    def _look_for_ctrl_c(self) -> None:
        if CTRL_C in self._arrived:
            self._arrived = self._arrived.replace(CTRL_C, b"")
            self._is_ctrl_c_pressed = True

    def _wake_by_ctrl_c(self, data: bytes) -> None:
        if CTRL_C in data and not self.has_lines():
            self._order_start(is_download=False, keep=data[data.index(CTRL_C) :])

    def _order_start(self, *, is_download: bool, keep: bytes = b"") -> None:
        self._ordered, self._is_running = is_download, False
        self._hearing = Hearing.LOADER if is_download else Hearing.STARTING
        self._arrived = bytearray(keep)
        self._last_bytes, self._is_ctrl_c_pressed = b"", False
        if not is_download:
            self._look_for_ctrl_c()
        self._changed.notify_all()

    def _set_lines(self, *, dtr: bool, rts: bool) -> None:
        self._circuit.set_lines(dtr=dtr, rts=rts, now_s=time.monotonic())
        if self._circuit.is_held:
            self._is_running = False
            self._arrived.clear()
            self._is_ctrl_c_pressed = False
        self._changed.notify_all()
