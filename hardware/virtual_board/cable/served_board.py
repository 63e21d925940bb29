"""A whole board on a cable, living in real time: reset, loader, MicroPython, deep sleep, and again.

It runs in one thread of its own. Whoever is at the cable (`doors.py`) reaches it only through the wire. The board's folder
is that of any virtual board: what is flashed and provisioned here can be run by others afterwards.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, NoReturn

from hardware.virtual_board.board import SOFT_RESET, Board, Halted
from hardware.virtual_board.cable.repl import Repl
from hardware.virtual_board.cable.rom_loader import RomLoader
from hardware.virtual_board.cable.terminal_run import TerminalRun
from hardware.virtual_board.cable.wire import CTRL_C, Hearing, SwitchedOff, Wire
from hardware.virtual_board.clock import WallClock
from hardware.virtual_board.esp_image import BOOT_ADDRESS, is_bootable, token_image
from hardware.virtual_board.filesystem import FileSystem
from hardware.virtual_board.flash import SECTOR_BYTES, Flash, region

if TYPE_CHECKING:
    from hardware.virtual_board.board import WakeResult
    from hardware.virtual_board.cable.chips import Chip

_MOST_BYTES_AT_ONCE = 4096
_LONGEST_NAP_S = 3600.0
_COMPLAINS_EVERY_S = 3.0
_INVALID_HEADER = b"invalid header: 0x%08x\r\n"
_CORRUPT_FILES = (
    b"The filesystem appears to be corrupted. If you had important data there, you may want to\r\n"
    b"make a flash snapshot to try to recover it. Otherwise, erase the flash and reflash.\r\n"
)
_WATCHDOG = b"task_wdt: Task watchdog got triggered.\r\n"
_PANIC = b"Guru Meditation Error: Core  0 panic'ed (%s).\r\n"
_BROWNOUT = b"Brownout detector was triggered\r\n"
_SOFT_REBOOT = b"MPY: soft reboot\r\n"

# What the ROM calls the reasons of a reset.
_POWER_ON, _SOFTWARE = "0x1 (POWERON_RESET)", "0xc (SW_CPU_RESET)"
_DEEP_SLEEP, _BROWNED_OUT = "0x5 (DEEPSLEEP_RESET)", "0xf (RTCWDT_BROWN_OUT_RESET)"
_AFTER = {
    "reset": (b"", _SOFTWARE),
    "watchdog": (_WATCHDOG, _SOFTWARE),
    "brownout": (_BROWNOUT, _BROWNED_OUT),
    "deepsleep": (b"", _DEEP_SLEEP),
}


class ServedBoard:
    """One chip, with its flash, at one wire."""

    def __init__(self, board: Board, chip: Chip, wire: Wire) -> None:
        """Opens the board's flash. Raises OSError when somebody else has it."""
        self._board = board
        self._chip = chip
        self._wire = wire
        self._flash = Flash(board.flash_path)
        # A board that was run ahead of time goes on from there.
        self._ahead_us = max(0, board.now_us - time.time_ns() // 1000)
        self._is_asleep = False
        if self._flash.read(BOOT_ADDRESS, 1) == b"\0":
            # Never erased, and so never flashed over a cable: as virtual boards were made before they had an image.
            self._flash.program(BOOT_ADDRESS, token_image())

    def run(self) -> None:
        """Until the wire is switched off. The supply is on from here to there."""
        try:
            while True:
                is_download = self._wire.next_start()
                self._is_asleep = False
                self._board.power_on(at_utc_us=self._now_us())
                with contextlib.suppress(Halted):
                    if is_download:
                        self._load()
                    self._run_micropython(_SOFTWARE if is_download else _POWER_ON)
        except SwitchedOff:
            if not self._is_asleep:
                self._board.power_on(at_utc_us=self._now_us())
        finally:
            self._flash.close()

    def _now_us(self) -> int:
        return time.time_ns() // 1000 + self._ahead_us

    def _boot_message(self, cause: str, mode: str) -> bytes:
        return f"{self._chip.boot_banner}\r\n\r\nrst:{cause},boot:{mode}\r\n".encode()

    def _load(self) -> None:
        """Until the client asks to run what is flashed, or without lines presses Ctrl-C."""
        wire = self._wire
        wire.send(self._boot_message(_POWER_ON, "0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))"))
        wire.send(b"waiting for download\r\n")
        loader = RomLoader(self._chip, self._flash, mac=self._board.unique_id, send=wire.send)
        while not loader.has_finished:
            loader.received(wire.take(_MOST_BYTES_AT_ONCE))
            rest = loader.between_packets
            if CTRL_C in rest and not wire.has_lines():
                wire.restart(keep=rest[rest.index(CTRL_C) :])

    # --- MicroPython ---

    def _run_micropython(self, cause: str) -> NoReturn:
        """From reset to reset. Raises Halted."""
        while True:
            self._boot(cause)
            result = self._run_until_reset()
            words, cause = _AFTER.get(result.reason, (_PANIC % result.error.encode(), _SOFTWARE))
            self._wire.send(words)
            if result.reason == "deepsleep":
                self._sleep(result.wake_us)

    def _boot(self, cause: str) -> None:
        """ROM and `_boot.py`: on return there are an image and a file system."""
        self._wire.hear(Hearing.STARTING)
        self._wire.send(self._boot_message(cause, "0x13 (SPI_FAST_FLASH_BOOT)"))
        header = self._flash.read(BOOT_ADDRESS, 4)
        if not (self._chip.has_board and is_bootable(header[:1])):
            self._stand_still(_INVALID_HEADER % int.from_bytes(header, "little"))
        try:
            FileSystem(self._flash)
        except OSError:
            start = self._flash.read(region("vfs").offset, SECTOR_BYTES)
            if start.strip(b"\xff") and start.strip(b"\0"):
                self._stand_still(_CORRUPT_FILES)
            self._wire.send(b"Performing initial setup\r\n")
            FileSystem(self._flash, fresh=True)

    def _run_until_reset(self) -> WakeResult:
        """Through soft resets, until the processor is reset. Raises Halted."""
        board, wire, repl = self._board, self._wire, Repl(self._wire)
        board.pass_time(until_utc_us=self._now_us())
        clock = WallClock(now_us=board.now_us, rtc_us=board.rtc_us, pause=wire.pause)
        wire.guard = clock.check_watchdog
        is_soft = False
        try:
            while True:
                result = board.boot(
                    lambda is_soft=is_soft: TerminalRun(  # type: ignore[misc]
                        board, wire=wire, repl=repl, clock=clock, flash=self._flash, is_soft=is_soft
                    )
                )
                if result.reason == "halted":
                    raise Halted
                if result.reason != "reset" or board.reset_cause != SOFT_RESET:
                    return result
                repl.done()
                wire.send(_SOFT_REBOOT)
                is_soft = True
        finally:
            wire.guard = None

    def _sleep(self, wake_us: int | None) -> None:
        """Deep sleep, until it is time (None: for ever). Raises Halted."""
        self._is_asleep = True
        self._wire.hear(Hearing.ASLEEP)
        try:
            while wake_us is None or self._now_us() < wake_us:
                left_s = _LONGEST_NAP_S if wake_us is None else (wake_us - self._now_us()) / 1e6
                self._wire.pause(min(max(left_s, 0), _LONGEST_NAP_S))
        except Halted:
            if not self._wire.is_off:
                self._board.cut_sleep_short(at_utc_us=self._now_us())
            raise
        self._is_asleep = False

    def _stand_still(self, complaint: bytes) -> NoReturn:
        """Say it again and again, until somebody stops the chip. Raises Halted."""
        self._wire.hear(Hearing.ASLEEP)
        while True:
            self._wire.send(complaint)
            self._wire.pause(_COMPLAINS_EVERY_S)
