"""Serial ports as people know them: which are plugged in, which may be a board's, and what is wrong with one in words.

A port is anything that pyserial opens: a name of this computer (`COM5`, `/dev/ttyUSB0`, `/dev/cu.usbserial-0001`) or a
URL (`rfc2217://HOST:PORT`, `socket://HOST:PORT`), so that the board may be plugged into another computer.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass

import serial
from serial.tools import list_ports

from provisioning.errors import BenchError, UsedWrongly

ADDRESS_FORMS = "an address looks like COM5, /dev/ttyUSB0, rfc2217://HOST:PORT, socket://HOST:PORT or virtual:FOLDER"
_PORT_NAME = re.compile(r"/dev/.+|COM\d+|(rfc2217|socket|hwgrep|alt|spy)://.+", re.IGNORECASE)
# USB vendors of what DevKits carry between USB and the chip: Silicon Labs, WCH, FTDI; Espressif's own USB.
_BOARD_VENDORS = (0x10C4, 0x1A86, 0x0403, 0x303A)


@dataclass(frozen=True)
class Port:
    """A port with a plug in it; `title` is what the operating system calls what is plugged in."""

    address: str
    title: str

    def __str__(self) -> str:
        return f"{self.address} ({self.title})"


def is_port(address: str) -> bool:
    """Whether the address has the form of a serial port's."""
    return _PORT_NAME.fullmatch(address) is not None


def has_reset_lines(address: str) -> bool:
    """Whether DTR and RTS can reach the board: bare TCP has no lines, nor has a pseudo-terminal."""
    return not address.lower().startswith(("socket://", "/dev/pts/"))


def plugged_in() -> list[Port]:
    """What is plugged in by USB and may be a board, by the vendor of its USB chip."""
    everything = list_ports.comports()  # type: ignore[attr-defined, no-untyped-call] # pyserial has no types
    found = [one for one in everything if one.vid in _BOARD_VENDORS]
    return [Port(one.device, one.description or "USB") for one in found]


def the_one_port(ports: Sequence[Port]) -> str:
    """The address of the only board that is plugged in.

    Raises:
        BenchError: there is none, or there are several to choose from.
    """
    if not ports:
        raise BenchError(
            f"No board is plugged in; plug one in, or name it with --board: {ADDRESS_FORMS}."
        )
    if len(ports) > 1:
        raise BenchError(
            f"Several boards are plugged in; name one with --board: {', '.join(map(str, ports))}."
        )
    return ports[0].address


def trouble_with(address: str) -> BenchError:
    """Why the port cannot be opened, found by opening it once more."""
    try:
        serial.serial_for_url(address, exclusive=True).close()  # type: ignore[no-untyped-call] # pyserial has no types
    except ValueError:
        return UsedWrongly(f"{address} is no address of a port; {ADDRESS_FORMS}.")
    except OSError as error:
        return in_words(address, error)
    return BenchError(f"The port {address} was busy for a moment; repeat the command.")


def in_words(address: str, error: OSError) -> BenchError:
    """One sentence for an error of opening a port. What a system calls it differs; pyserial keeps number or text."""
    text, number = str(error), error.errno
    # On Windows a port that another program has is "access denied"; there is no other right to a port.
    if "PermissionError" in text or "xclusively lock" in text or number in _BUSY:
        return BenchError(
            f"{address} is in use by another program; end it (a terminal, an editor, another provision)"
            " and repeat the command."
        )
    if number in (errno.EACCES, errno.EPERM):
        return BenchError(
            f"You may not use {address}; have yourself added to its group (on Debian: sudo usermod -aG dialout"
            " $USER), log in again and repeat the command."
        )
    if "://" in address:
        return BenchError(
            f"No board answers at {address}; see that it is served there and that no other program uses it,"
            " then repeat the command."
        )
    if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV) or "FileNotFoundError" in text:
        return BenchError(f"There is no port {address}; {_plugged_in_words()}.")
    return BenchError(f"{address} is no port of a board; {_plugged_in_words()}.")


_BUSY = (errno.EBUSY, errno.EAGAIN)


def _plugged_in_words() -> str:
    ports = plugged_in()
    if not ports:
        return "no board is plugged in: try another cable (some only charge) and another socket"
    return f"plugged in: {', '.join(map(str, ports))}"
