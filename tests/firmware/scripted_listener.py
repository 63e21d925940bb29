"""The fleet's listener in a few lines: files over HTTPS, with whatever a mirror or a bad link does to them.

Shares nothing with the firmware or the server. Everything that went over the wire is counted, TLS included.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from scripted_server import ScriptedServer

ROOT = "/node/v1/tuf/"
T = TypeVar("T")


@dataclass
class Mirror:
    """What is done to an answer. `bends` maps part of a path to what becomes of its bytes."""

    bends: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    endless: str = ""  # part of a path whose answer announces far more than it has, and never ends
    seconds_a_piece: float = 0  # slow retrieval: pieces of `piece_bytes`
    piece_bytes: int = 256
    hang_up_after: int | None = None  # bytes of bodies, over all answers
    status: int | None = None


class ScriptedListener(ScriptedServer):
    """Serves `files`, by their path behind ROOT."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.mirror = Mirror()
        self.asked: list[str] = []
        self.body_bytes = 0
        self.wire_bytes = 0
        self._context = context
        self.begin()

    def serve(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            _Session(self, accepted, self._context).run()
        with contextlib.suppress(OSError):
            accepted.close()


class _Session:
    """TLS through memory, so that every byte on the wire is seen."""

    def __init__(
        self, listener: ScriptedListener, accepted: socket.socket, context: ssl.SSLContext
    ) -> None:
        self._listener = listener
        self._socket = accepted
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._do(self._tls.do_handshake)

    def run(self) -> None:
        head = b""
        while True:
            while b"\r\n\r\n" not in head:
                piece = self._do(lambda: self._tls.read(4096))
                if not piece:
                    return
                head += piece
            request, _, head = head.partition(b"\r\n\r\n")
            self._answer(request.decode())

    def _answer(self, request: str) -> None:
        listener, mirror = self._listener, self._listener.mirror
        path = request.split(" ", 2)[1].removeprefix(ROOT)
        listener.asked.append(path)
        content = listener.files.get(path)
        if mirror.status is not None or content is None or path in mirror.missing:
            self._head(mirror.status or 404, 0)
            return
        for part, bend in mirror.bends.items():
            if part in path:
                content = bend(content)
        wanted = re.search(r"\r\nRange: bytes=(\d+)-(\d+)", request)
        if wanted:
            content = content[int(wanted[1]) : int(wanted[2]) + 1]
        status = 206 if wanted else 200
        if mirror.endless and mirror.endless in path:
            self._head(status, 1 << 30)
            while True:
                self._body(b"x" * 4096)
        self._head(status, len(content))
        self._body(content)

    def _head(self, status: int, length: int) -> None:
        self._write(f"HTTP/1.1 {status} so\r\nContent-Length: {length}\r\n\r\n".encode())

    def _body(self, content: bytes) -> None:
        listener, mirror = self._listener, self._listener.mirror
        size = mirror.piece_bytes if mirror.seconds_a_piece or mirror.hang_up_after else 16_384
        for at in range(0, len(content), size):
            piece = content[at : at + size]
            if mirror.hang_up_after is not None and listener.body_bytes >= mirror.hang_up_after:
                raise EOFError
            if mirror.seconds_a_piece:
                time.sleep(mirror.seconds_a_piece)
            self._write(piece)
            listener.body_bytes += len(piece)

    def _write(self, data: bytes) -> None:
        self._do(lambda: self._tls.write(data))

    def _do(self, operation: Callable[[], T]) -> T:
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                self._flush()
                received = self._socket.recv(65_536)
                if not received:
                    raise EOFError from None
                self._listener.wire_bytes += len(received)
                self._in.write(received)
                continue
            self._flush()
            return result

    def _flush(self) -> None:
        if self._out.pending:
            data = self._out.read()
            self._listener.wire_bytes += len(data)
            self._socket.sendall(data)
