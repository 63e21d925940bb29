"""SLIP (RFC 1055), the framing between esptool and the ROM loader."""

from __future__ import annotations

_END, _ESCAPE = b"\xc0", b"\xdb"
_ESCAPED = {0xDC: _END, 0xDD: _ESCAPE}
# Nothing that a loader is sent is longer than a block of the stub with its header, every byte of it escaped.
_LONGEST_FRAME = 2 * (0x4000 + 64)


def encode(packet: bytes) -> bytes:
    """One frame."""
    body = packet.replace(_ESCAPE, b"\xdb\xdd").replace(_END, b"\xdb\xdc")
    return _END + body + _END


class SlipDecoder:
    """Cuts a stream of bytes into packets. Noise costs the packet that it hits, never the ones after it.

    An END may both close a frame and open the next one, so that a stray one puts nothing out of step.
    """

    def __init__(self) -> None:
        self.unfinished = b""  # since the last END

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that `data` completes."""
        *frames, rest = (self.unfinished + data).split(_END)
        self.unfinished = rest[-_LONGEST_FRAME:]
        packets = [_unescaped(frame) for frame in frames if frame]
        return [packet for packet in packets if packet is not None]


def _unescaped(frame: bytes) -> bytes | None:
    """The packet in a frame; None when an escape is none."""
    packet, *escaped = frame.split(_ESCAPE)
    for piece in escaped:
        if not piece or piece[0] not in _ESCAPED:
            return None
        packet += _ESCAPED[piece[0]] + piece[1:]
    return packet
