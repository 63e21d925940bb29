"""SHA-512 (FIPS 180-4), which an ESP32's MicroPython does not have. Slow: some 3,000 long additions for 128 bytes."""

import struct
from array import array

from micropython import const

_BLOCK_BYTES = const(128)
_MASK = 0xFFFFFFFFFFFFFFFF
_TWICE = 0x10000000000000001


def _roots(count, power):
    """First 64 bits behind the point of the roots of the first primes (FIPS 180-4 §4.2.3 and §5.3.5), by Newton's method."""
    primes = []  # type: list[int]
    roots = bytearray()
    number, root = 1, 1 << 64
    while len(primes) < count:
        number += 1
        if all([number % prime for prime in primes]):
            primes.append(number)
            root += 1 << 64
            while True:
                # From above it goes down to the root, and no further.
                better = (
                    (power - 1) * root + (number << 64 * power) // root ** (power - 1)
                ) // power
                if better >= root:
                    break
                root = better
            roots.extend((root & _MASK).to_bytes(8, "big"))
    return roots


# As bytes: numbers that stay would lie all over the heap, and leave no long piece in it.
_K = _roots(80, 3)
_H = _roots(8, 2)


class Sha512:
    """As `hashlib` would have it; nothing may be added after `digest`."""

    def __init__(self):
        self._state = _H
        self._rest = b""
        self._size = 0

    def update(self, data):
        self._size += len(data)
        data = self._rest + data
        end = len(data) - len(data) % _BLOCK_BYTES
        for at in range(0, end, _BLOCK_BYTES):
            self._compress(data[at : at + _BLOCK_BYTES])
        self._rest = data[end:]

    def digest(self):
        end = (8 * self._size).to_bytes(16, "big")
        self.update(b"\x80" + bytes((-self._size - 17) % _BLOCK_BYTES) + end)
        return self._state

    def _compress(self, block):
        w = array("Q", struct.unpack(">16Q", block))
        a, b, c, d, e, f, g, h = struct.unpack(">8Q", self._state)
        for t in range(80):
            at = t & 15
            # A word beside itself turns by being shifted; what is above 64 bits falls away with the sum's.
            if t > 15:
                x, y = w[t - 15 & 15] * _TWICE, w[t - 2 & 15] * _TWICE
                x = x >> 1 ^ x >> 8 ^ (x & _MASK) >> 7
                y = y >> 19 ^ y >> 61 ^ (y & _MASK) >> 6
                w[at] = w[at] + x + w[t - 7 & 15] + y & _MASK
            x, y = e * _TWICE, a * _TWICE
            x = (
                h
                + (x >> 14 ^ x >> 18 ^ x >> 41)
                + (g ^ e & (f ^ g))
                + struct.unpack_from(">Q", _K, 8 * t)[0]
                + w[at]
            )
            y = (y >> 28 ^ y >> 34 ^ y >> 39) + (a & b | c & (a | b))
            h, g, f, e, d, c, b, a = g, f, e, d + x & _MASK, c, b, a, x + y & _MASK
        sums = zip(struct.unpack(">8Q", self._state), (a, b, c, d, e, f, g, h))
        self._state = struct.pack(">8Q", *[old + new & _MASK for old, new in sums])
