"""Ed25519 signatures (RFC 8032 §5.1.7). Nothing here is secret, nor constant in time."""

from node.update.sha512 import Sha512


def _int(data):
    return int.from_bytes(data, "little")


def _power(x, exponent):
    return pow(x, exponent, _P)


# Shifted here: a sum of literals would be a number of 77 digits in the file.
_ONE = 1
_TOP = _ONE << 255
_P = _TOP - 19
_L = (_TOP >> 3) + _int(b"\xed\xd3\xf5\x5c\x1a\x63\x12\x58\xd6\x9c\xf7\xa2\xde\xf9\xde\x14")
_D = -121665 * _power(121666, _P - 2) % _P


def is_signed(key, signature, feed):
    """`key` 32, `signature` 64 bytes; `feed(update)` gives `update` the message in pieces. An `s` of the group's order or more is refused."""
    # First, while there is most room: what is fed comes from the depth of a scan.
    digest = Sha512()
    digest.update(signature[:32] + key)
    feed(digest.update)
    k = _int(digest.digest()) % _L
    s = _int(signature[32:])
    point, base = _point(_int(key)), _point(4 * _power(5, _P - 2) % _P)
    if not point or len(signature) != 64 or s >= _L:
        return False
    # R = s·B − k·A, compared as it is written: so an R that is written otherwise than it should be is refused, too.
    x, y, z, _ = _sum(s, base, k, (_P - point[0], point[1], 1, _P - point[3]))
    inverse = _power(z, _P - 2)
    return _int(signature[:32]) == y * inverse % _P | (x * inverse % _P & 1) * _TOP


def _point(number):
    """The point that a number says, in extended coordinates (§5.1.3); None when it is none."""
    y, sign = number & _TOP - 1, number >> 255
    u, v = y * y - 1, (_D * y * y + 1) % _P
    v3 = v * v * v % _P
    x = u * v3 * _power(u * v3 * v3 * v % _P, (_P - 5) // 8) % _P
    if (v * x * x + u) % _P == 0:
        x = x * _power(2, _P // 4) % _P
    if y >= _P or (v * x * x - u) % _P or (sign and not x):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _sum(s, p, k, q):
    """s·P + k·Q, both bit by bit together (Shamir's trick)."""
    both = _add(p, q)
    total = (0, 1, 1, 0)
    bit = _TOP >> 3
    while bit:
        total = _add(total, total)
        if s & bit:
            total = _add(total, both if k & bit else p)
        elif k & bit:
            total = _add(total, q)
        bit >>= 1
    return total


def _add(first, second):
    """Any two points, equal ones too (§5.1.4)."""
    x1, y1, z1, t1 = first
    x2, y2, z2, t2 = second
    a = (y1 - x1) * (y2 - x2) % _P
    b = (y1 + x1) * (y2 + x2) % _P
    c = 2 * t1 * t2 * _D % _P
    d = 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P
