"""At the other end of a served board's cable: the real tools as processes, and a bare client for single bytes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from hardware.virtual_board.board import Board
from hardware.virtual_board.cable.chips import ESP32, Chip
from hardware.virtual_board.cable.serving import Serving
from hardware.virtual_board.wiring import Wiring

_BIN = Path(sys.executable).parent
_TOOL_TIMEOUT_S = 60
_ANSWER_TIMEOUT_S = 15.0

Done = subprocess.CompletedProcess[str]


@contextmanager
def served(folder: Path, *, chip: Chip = ESP32, wiring: Wiring | None = None) -> Iterator[Serving]:
    """The board of that folder on a cable."""
    board = Board(folder, wiring, start_utc_us=time.time_ns() // 1000)
    with Serving(board, chip) as serving:
        yield serving


def esptool(address: str, *arguments: str | Path) -> Done:
    return _run("esptool", "--port", address, *arguments)


def mpremote(address: str, *arguments: str | Path) -> Done:
    return _run("mpremote", "connect", address, *arguments)


def printed_by(done: Done) -> str:
    """What a tool printed that ended well."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start_tool(tool: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """One that is going to be killed half-way."""
    return subprocess.Popen(
        [_BIN / tool, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _run(tool: str, *arguments: str | Path) -> Done:
    return subprocess.run(
        [_BIN / tool, *arguments],
        capture_output=True,
        text=True,
        timeout=_TOOL_TIMEOUT_S,
        env={**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"},
    )


class Cable:
    """A client that sends and hears bytes as they are."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port))
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heard = b""

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def hear(self, ending: bytes) -> bytes:
        """Everything up to and with `ending`."""
        while ending not in self._heard:
            try:
                piece = self._socket.recv(65536)
            except TimeoutError:
                piece = b""
            assert piece, f"{ending!r} never came after {self._heard[-2000:]!r}"
            self._heard += piece
        at = self._heard.index(ending) + len(ending)
        heard, self._heard = self._heard[:at], self._heard[at:]
        return heard

    def enter_raw_repl(self) -> None:
        self.send(b"\r\x03\r\x01")
        self.hear(b"raw REPL; CTRL-B to exit\r\n>")

    def exec(self, code: str) -> tuple[bytes, bytes]:
        """Run code in the raw REPL: what it printed, and its traceback."""
        self.send(code.encode() + b"\x04")
        self.hear(b"OK")
        printed, error = self.hear(b"\x04")[:-1], self.hear(b"\x04")[:-1]
        self.hear(b">")
        return printed, error

    def pull(self) -> None:
        self._socket.close()


@contextmanager
def connected(url: str) -> Iterator[Cable]:
    """A client at a door that opens again as soon as the one before has left."""
    until_s = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        try:
            cable = Cable(url)
        except ConnectionRefusedError:
            assert time.monotonic() < until_s
        else:
            break
    with cable:
        yield cable
