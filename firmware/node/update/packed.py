"""Bytes that the listener sends packed (DEFLATE, RFC 1951, a window of 1 KiB): as they come, never more in memory than a piece.

The window is the node's choice and not the answer's: nobody makes it take 32 KiB. Whoever asks bounds what comes in and what comes out.
"""

import io

import deflate
from micropython import const

_WINDOW_BITS = const(10)
_PIECE_BYTES = const(512)
# A block of one byte as it is (RFC 1951 §3.2.4), which `DeflateIO` reads before the answer: it takes its memory when it is first read.
_PRIMER = b"\0\1\0\xfe\xff."


class Unpacker:
    """For one answer."""

    def __init__(self):
        self._room = memoryview(bytearray(_PIECE_BYTES))
        self._source = _Source(_PRIMER)
        self._stream = deflate.DeflateIO(self._source, deflate.RAW, _WINDOW_BITS)
        self._stream.readinto(self._room[:1])

    def unpacked(self, pieces):
        """The bytes behind those of a body, in pieces that hold until the next one. Raises ValueError when they are not packed so."""
        source = self._source
        source.pieces = pieces
        count = _PIECE_BYTES
        while count:
            try:
                count = self._stream.readinto(self._room)
            except (OSError, EOFError):
                if source.is_waiting:  # the link's fault
                    raise
                raise ValueError("not packed")
            if count:
                yield self._room[:count]
        for _ in pieces:  # what is behind the end is nobody's
            pass


class _Source(io.IOBase):
    """For `DeflateIO`, which asks for a byte at a time."""

    def __init__(self, piece):
        self.pieces = ()  # type: tuple[bytes, ...]
        self._piece = piece
        self._at = 0
        self.is_waiting = False

    def readinto(self, room):
        if self._at == len(self._piece):
            self._at = 0
            self.is_waiting = True
            self._piece = self._next()
            self.is_waiting = False
            if not self._piece:
                return 0
        room[0] = self._piece[self._at]
        self._at += 1
        return 1

    def _next(self):
        for piece in self.pieces:
            return piece
        return b""
