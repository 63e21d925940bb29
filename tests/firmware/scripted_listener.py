"""The fleet's listener in a few lines: files over HTTPS, with whatever a mirror or a bad link does to them.

Shares nothing with the firmware or the server. Everything that went over the wire is counted, TLS included.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import cbor2
from scripted_server import ScriptedServer
from signed_releases import bundle_sha256

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
    has_packed: bool = True  # else it only has files, as any web server
    packed_bends: dict[str, Callable[[bytes], bytes]] = field(
        default_factory=dict
    )  # of packed answers


def packed(content: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -10)
    return packer.compress(content) + packer.flush()


class ScriptedListener(ScriptedServer):
    """Serves `files`, by their path behind ROOT."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.mirror = Mirror()
        self.asked: list[str] = []  # what came in one answer is there by its parts, too
        self.answered: list[str] = []  # each request
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
        listener.answered.append(path)
        content = self._content(path)
        if mirror.status is not None or content is None:
            self._head(mirror.status or 404, 0)
            return
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

    def _content(self, path: str) -> bytes | None:
        parts = path.split("/")
        is_packed = parts[0] == "news" or (parts[:2] == ["targets", "bundles"] and len(parts) == 4)
        if not is_packed:
            return self._file(path)
        if not self._listener.mirror.has_packed:
            return None
        content = self._news(*parts[1:]) if parts[0] == "news" else self._bundle_files(*parts[2:])
        data = packed(content)
        for part, bend in self._listener.mirror.packed_bends.items():
            if part in path:
                data = bend(data)
        return data

    def _file(self, path: str) -> bytes | None:
        mirror = self._listener.mirror
        content = self._listener.files.get(path)
        if content is None or path in mirror.missing:
            return None
        for part, bend in mirror.bends.items():
            if part in path:
                content = bend(content)
        return content

    def _news(self, held: str, model: str, target: str) -> bytes:
        """Everything there is of the release but what is held, and roots only from the next one on: (name, length, content) each."""
        root, *versions, manifest = held.split(".")
        roles = dict(zip(("snapshot", "targets", model), versions, strict=True))
        roots = int(root) + 1
        while f"metadata/{roots}.root.json" in self._listener.files:
            roots += 1
        names = [f"metadata/{number}.root.json" for number in range(int(root) + 1, roots + 1)]
        names.append("metadata/timestamp.json")
        for role, version in roles.items():
            newest = [
                path
                for path in self._listener.files
                if re.fullmatch(rf"metadata/\d+\.{role}\.json", path)
            ]
            newest.sort(key=lambda path: int(path.split("/")[1].split(".")[0]))
            names += [path for path in newest[-1:] if path != f"metadata/{version}.{role}.json"]
        names += [
            path
            for path in self._listener.files
            if path.startswith(f"targets/{model}/")
            and path.endswith("." + target)
            and not path.endswith(".img")
            and (manifest == "-" or not path.startswith(f"targets/{model}/{manifest}"))
        ]
        news = b""
        for path in names:
            self._listener.asked.append(path)
            content = self._file(path) or b""
            news += f"{path.partition('/')[2]} {len(content)}\n".encode() + content
        return news

    def _bundle_files(self, bundle: str, wanted: str) -> bytes:
        """`wanted`: a bit for each file in hex, and how much of the first is there."""
        (manifest,) = [
            data
            for path, data in self._listener.files.items()
            if path.endswith(".cbor") and bundle_sha256(data) == bundle
        ]
        content = self._file(f"targets/bundles/{bundle}") or b""
        marks, _, have = wanted.partition(".")
        bits = f"{int(marks, 16):0{4 * len(marks)}b}"
        files, at = b"", 0
        for bit, (_, size, _) in zip(bits, cbor2.loads(manifest)["files"], strict=False):
            files += content[at : at + size] if bit == "1" else b""
            at += size
        return files[int(have) :]

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
