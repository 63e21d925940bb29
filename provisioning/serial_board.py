"""A board with MicroPython at a serial port, worked on through mpremote's transport.

Whatever state it is found in (prompt, running firmware, deep sleep, a session that somebody left), it is brought to its
raw prompt: first by Ctrl-C alone, then by a reset with the lines of the port, where it has them. The firmware's watchdog
goes on at the prompt, so it is given long patience; at the end the board is reset and goes its own way.
"""

from __future__ import annotations

import contextlib
import errno
import io
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from mpremote.transport import TransportError, TransportExecError
from mpremote.transport_serial import SerialTransport

from provisioning import ports
from provisioning.errors import BenchError
from provisioning.scripts import base64_literal

# A port that another program has just left, or a board whose USB has just come back, is open within this time.
_OPEN_PATIENCE_S = 0.5
_LOOK_EVERY_S = 0.1
# No single answer of the transport's own dialogue takes longer; what runs on the board is waited for by `exec`.
_BYTE_TIMEOUT_S = 10.0
# Whether to reset before each try to reach the prompt. After a reset MicroPython needs up to a second to hear Ctrl-C.
_TRIES_WITH_LINES = (False, True, False, False, True, False, False)
_TRIES_WITHOUT = (False, False, False)
_TRY_S = 2.0
_HELD_IN_RESET_S = 0.3
_WATCHDOG_MS = 600_000
_SCRIPT_BYTES = 1500
_PIECE_BYTES = 768
_NAP_S = 0.01
_INTERRUPT, _RAW_MODE, _RAW_PROMPT = b"\r\x03", b"\r\x01", b"raw REPL; CTRL-B to exit\r\n"
_RESET = "import machine\nmachine.reset()"
_NO_IMAGE, _BROKEN_FILES = "invalid header", "filesystem appears to be corrupted"
_HOPELESS = (_NO_IMAGE, _BROKEN_FILES)

_WRITER = """
import os
from binascii import a2b_base64
def _w(path, mode, data):
    with open(path + '.new', mode) as file:
        file.write(data)
def _d(path):
    os.rename(path + '.new', path)
"""


class NoMicroPython(BenchError):
    """The board answers with no prompt."""


class _Transport(SerialTransport):
    """mpremote's, in which a board that resets and babbles for ever is not listened to for ever."""

    def read_until(
        self,
        min_num_bytes: int,
        ending: bytes,
        timeout: float = _BYTE_TIMEOUT_S,
        data_consumer: Any = None,
        timeout_overall: float | None = None,
    ) -> Any:
        return super().read_until(  # type: ignore[no-untyped-call] # mpremote has no types
            min_num_bytes,
            ending,
            timeout=timeout,
            data_consumer=data_consumer,
            timeout_overall=timeout if timeout_overall is None else timeout_overall,
        )


class SerialBoard:
    """One board, from opening its port to `close`."""

    # Which Wi-Fi is there, only people know.
    known_wifi: Sequence[tuple[str, str]] = ()

    def __init__(self, address: str) -> None:
        """Opens the port and brings the board to its prompt.

        Raises:
            BenchError: the port cannot be used.
            NoMicroPython: nothing answers there that could run code.
        """
        self.address = address
        self._is_lost = False
        self._transport = _opened(address)
        try:
            self._reach_prompt()
            self._calm_watchdog()
        except BaseException:
            self._hang_up()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def exec(self, code: str, *, patience_s: float = 30.0) -> str:
        """As `BenchBoard.exec`; all of it may last for `patience_s`."""
        try:
            with self._lost_is_told(), _unheard():
                printed, failure = self._transport.exec_raw(code, timeout=patience_s)
        except TransportExecError as error:
            raise _could_not(error.error_output) from error
        if failure:
            raise _could_not(failure.decode(errors="replace"))
        return str(printed.decode(errors="replace"))

    def put(self, files: Mapping[str, bytes]) -> None:
        self.exec(_WRITER)
        for script in _scripts(files):
            self.exec(script)

    def close(self) -> None:
        """Reset the board, so that it does what it is for, and leave the port. Nothing when it is gone."""
        with contextlib.suppress(OSError, TransportError, struct.error), _unheard():
            if self._is_lost:
                # Whatever it is doing, and without waiting for what it says to that.
                self._transport.serial.write(_INTERRUPT + _RAW_MODE + _RESET.encode() + b"\x04")
            else:
                self._transport.exec_raw_no_follow(_RESET)
        self._hang_up()

    # --- private ---

    def _reach_prompt(self) -> None:
        tries = _TRIES_WITH_LINES if ports.has_reset_lines(self.address) else _TRIES_WITHOUT
        for wants_reset in tries:
            with self._lost_is_told():
                if wants_reset:
                    self._pulse_reset()
                heard = self._try_raw_prompt()
            if heard is None:
                return
            if _BROKEN_FILES in heard:
                raise NoMicroPython(
                    f"The file system of the board at {self.address} is damaged; erase it with"
                    " provision node wipe --everything, then flash it with --image."
                )
            if _NO_IMAGE in heard:
                break
        raise NoMicroPython(
            f"The board at {self.address} has no MicroPython that answers; flash it with"
            " provision node flash --image, and where that fails hold its BOOT button while it starts."
        )

    def _try_raw_prompt(self) -> str | None:
        """None when the raw prompt is there, else what was heard instead."""
        port, heard = self._transport.serial, b""
        port.write(_INTERRUPT)
        if port.in_waiting:
            port.read(port.in_waiting)
        port.write(_RAW_MODE)
        until_s = time.monotonic() + _TRY_S
        while time.monotonic() < until_s:
            if not port.in_waiting:
                time.sleep(_NAP_S)
                continue
            heard += port.read(1)  # one by one: the prompt's own `>` is for what runs next
            if heard.endswith(_RAW_PROMPT):
                self._transport.in_raw_repl = True
                return None
            if any(sign.encode() in heard for sign in _HOPELESS):
                break
        return heard.decode(errors="replace")

    def _pulse_reset(self) -> None:
        """EN low and high again, IO0 high all the time: the board starts what is flashed."""
        port = self._transport.serial
        try:
            port.dtr = False
            port.rts = True
            time.sleep(_HELD_IN_RESET_S)
            port.rts = False
            time.sleep(_HELD_IN_RESET_S)
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):  # no lines here
                raise

    def _calm_watchdog(self) -> None:
        self.exec(f"import machine\nmachine.WDT(timeout={_WATCHDOG_MS})")

    def _hang_up(self) -> None:
        # pyserial forgets to close a socket whose other end has gone.
        bare_socket = getattr(self._transport.serial, "_socket", None)
        with contextlib.suppress(OSError):
            self._transport.close()
        if bare_socket is not None:
            bare_socket.close()

    @contextlib.contextmanager
    def _lost_is_told(self) -> Iterator[None]:
        try:
            yield
        except TransportExecError:
            raise
        except (OSError, TransportError, struct.error) as error:
            self._is_lost = True
            raise BenchError(
                f"The board at {self.address} was lost in the middle of it; see to cable and plug and repeat the"
                " same command."
            ) from error


def _opened(address: str) -> SerialTransport:
    until_s = time.monotonic() + _OPEN_PATIENCE_S
    while True:
        try:
            return _Transport(address, timeout=_BYTE_TIMEOUT_S)  # type: ignore[no-untyped-call] # mpremote has no types
        except TransportError:
            if time.monotonic() >= until_s:
                raise ports.trouble_with(address) from None
        except ValueError:
            raise ports.trouble_with(address) from None
        time.sleep(_LOOK_EVERY_S)


def _scripts(files: Mapping[str, bytes]) -> Iterator[str]:
    """MicroPython that writes the files, each whole or not at all, in steps that fit into a board's memory."""
    lines: list[str] = []
    size = 0
    for path, data in files.items():
        for at in range(0, max(1, len(data)), _PIECE_BYTES):
            mode = "ab" if at else "wb"
            line = f"_w({path!r}, {mode!r}, {base64_literal(data[at : at + _PIECE_BYTES])})"
            if lines and size + len(line) > _SCRIPT_BYTES:
                yield "\n".join(lines)
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        lines.append(f"_d({path!r})")
    if lines:
        yield "\n".join(lines)


def _could_not(traceback: str) -> BenchError:
    last_line = (traceback.strip().splitlines() or ["no reason given"])[-1]
    return BenchError(f"The board could not do it: {last_line}.")


def _unheard() -> contextlib.redirect_stdout[io.StringIO]:
    return contextlib.redirect_stdout(io.StringIO())
