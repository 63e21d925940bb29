"""What esptool does for us: tell the chip, write MicroPython's image, erase a chip. It is started, never imported (0034)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from provisioning import ports
from provisioning.errors import BenchError
from provisioning.micropython_image import IMAGE_ADDRESS

# Over RFC 2217 every step takes esptool tens of seconds.
_TIMEOUT_S = 600
_CHIP = "esp32"
# Four times the ROM's own speed: an image of 1.7 MB takes half a minute instead of two. What a port of another computer can
# do is not known, and a change of speed takes long there.
_FAST_BAUD = ("--baud", "460800")
_CHIP_TYPE = re.compile(r"^Chip type:\s+(.+?)\s*$", re.MULTILINE)
_MAC = re.compile(r"^MAC:\s+([0-9a-f:]{17})", re.MULTILINE)
_OTHER_CHIP = re.compile(r"This chip is (\S+), not")
_FATAL = re.compile(r"error occurred: (.+)")
_CANNOT_OPEN = ("Could not open", "could not open port", "port is busy")
_SILENT = ("Failed to connect", "No serial data received", "Failed to start stub")
_LOST = ("serial exception", "stopped responding", "disconnected", "Broken pipe", "Input/output")


@dataclass(frozen=True)
class Chip:
    """A chip as it says itself: "ESP32-D0WD-V3 (revision v3.1)", and its MAC address, which no other has."""

    title: str
    mac: str


def identify_chip(address: str) -> Chip:
    """Which chip is at the port.

    Raises:
        BenchError: none answers, or it is another than the firmware is for.
    """
    return _chip_in(_run(address, "chip-id"))


def write_image(address: str, image: Path) -> Chip:
    """Write MicroPython's image, unless it is there, and read it back. Safe to repeat.

    Raises:
        BenchError: no chip answers, it is another than the firmware is for, or it has not kept what was written.
    """
    said = _run(address, "write-flash", "--skip-flashed", hex(IMAGE_ADDRESS), str(image))
    return _chip_in(said)


def erase_chip(address: str) -> Chip:
    """Erase all of the chip's flash.

    Raises:
        BenchError: no chip answers, or it is another than the firmware is for.
    """
    return _chip_in(_run(address, "erase-flash"))


def _run(address: str, *arguments: str) -> str:
    """What esptool printed. It has found the chip to be an ESP32."""
    lines = (
        () if ports.has_reset_lines(address) else ("--before", "no-reset", "--after", "no-reset")
    )
    speed = () if "://" in address else _FAST_BAUD
    options = ("--port", address, "--chip", _CHIP, *speed, *lines)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "esptool", *options, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1", "COLUMNS": "250"},
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(
            f"The board at {address} did not come to an end in {_TIMEOUT_S // 60} minutes; see to its cable and repeat"
            " the command."
        ) from error
    if done.returncode != 0:
        raise _trouble(address, done.stdout + done.stderr)
    return done.stdout


def _chip_in(said: str) -> Chip:
    chip, mac = _CHIP_TYPE.search(said), _MAC.search(said)
    if chip is None or mac is None:
        raise BenchError(
            "esptool did not say which chip it found; is another version of it installed?"
        )
    return Chip(chip[1], mac[1])


def _trouble(address: str, said: str) -> BenchError:
    other = _OTHER_CHIP.search(said)
    if other is not None:
        return BenchError(
            f"The chip at {address} is an {other[1]}; the firmware is for the ESP32, take a board with that."
        )
    if any(words in said for words in _CANNOT_OPEN):
        return ports.trouble_with(address)
    if any(words in said for words in _SILENT):
        return BenchError(
            f"No chip answers at {address}; hold the board's BOOT button while you repeat the command, and try another"
            " cable (some only charge)."
        )
    if any(words in said for words in _LOST):
        return BenchError(
            f"The board at {address} was lost in the middle of it; see to cable and plug and repeat the same command."
        )
    fatal = _FATAL.findall(said)
    reason = fatal[-1] if fatal else said.strip().splitlines()[-1:] or ["no reason given"]
    words = reason if isinstance(reason, str) else reason[0]
    return BenchError(f"esptool could not do it: {words.strip().rstrip('.')}.")
