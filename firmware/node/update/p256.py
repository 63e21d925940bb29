"""ECDSA signatures on the curve P-256 (FIPS 186-5 §6.4.2; domain parameters: SP 800-186 §3.2.1.3). Nothing here is secret, nor constant in time."""


def _int(data):
    return int.from_bytes(data, "big")


_P = _int(b"\xff\xff\xff\xff\x00\x00\x00\x01" + bytes(12) + b"\xff" * 12)
_N = _int(
    b"\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
)
_B = _int(
    b"\x5a\xc6\x35\xd8\xaa\x3a\x93\xe7\xb3\xeb\xbd\x55\x76\x98\x86\xbc"
    b"\x65\x1d\x06\xb0\xcc\x53\xb0\xf6\x3b\xce\x3c\x3e\x27\xd2\x60\x4b"
)
_G = (
    _int(
        b"\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2"
        b"\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\xd8\x98\xc2\x96"
    ),
    _int(
        b"\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16"
        b"\x2b\xce\x33\x57\x6b\x31\x5e\xce\xcb\xb6\x40\x68\x37\xbf\x51\xf5"
    ),
)


def is_signed(public, signature, digest):
    """`public`: x and y, 32 bytes each; `signature`: in DER; `digest`: SHA-256. Raises ValueError or IndexError when one is none of these."""
    q = x, y = _int(public[:32]), _int(public[32:])
    # An ECDSA-Sig-Value (RFC 3279 §2.2.3), strictly in DER (X.690 §8.3, §10.1), and nothing after it.
    r, at = _number(signature, 2)
    s, at = _number(signature, at)
    if signature[0] != 0x30 or signature[1] != at - 2 or at != len(signature):
        return False
    is_on_curve = x < _P and y < _P and (y * y - (x * x - 3) * x - _B) % _P == 0
    if not is_on_curve or not 0 < r < _N or not 0 < s < _N:
        return False
    w = pow(s, _N - 2, _N)
    x, _, z = _sum(_int(digest) * w % _N, r * w % _N, q)
    # x / z² ≡ r (mod n), without dividing; an x of n or more is r + n.
    z = z * z % _P
    return z != 0 and (x == r * z % _P or (r + _N < _P and x == (r + _N) * z % _P))


def _number(der, at):
    size, first = der[at + 1], der[at + 2]
    if der[at] != 2 or not size or first > 127 or (size > 1 and not first and der[at + 3] < 128):
        raise ValueError
    at += 2
    return _int(der[at : at + size]), at + size


def _sum(u, v, q):
    """u·G + v·Q in Jacobian coordinates; both bit by bit together (Shamir's trick)."""
    x, y, z = _add((_G[0], _G[1], 1), q)
    z = pow(z, _P - 2, _P)
    # None for the point at infinity, of which z is 0.
    both = (x * z * z % _P, y * z * z * z % _P) if z else None
    total = (1, 1, 0)
    bit = 1
    bit <<= 255  # as literals it would be a number of 78 digits in the file
    while bit:
        total = _double(total)
        if u & bit:
            total = _add(total, both if v & bit else _G)
        elif v & bit:
            total = _add(total, q)
        bit >>= 1
    return total


def _double(point):
    """2·(X : Y : Z) for a = −3 (IEEE 1363-2000, §A.10.4)."""
    x, y, z = point
    square = z * z % _P
    slope = 3 * (x - square) * (x + square) % _P
    y2 = 2 * y * y % _P
    s = 2 * x * y2 % _P
    x3 = (slope * slope - 2 * s) % _P
    return x3, (slope * (s - x3) - 2 * y2 * y2) % _P, 2 * y * z % _P


def _add(point, other):
    """A point in Jacobian and one in affine coordinates, None for infinity (IEEE 1363-2000, §A.10.5, Z₁ = 1)."""
    x, y, z = point
    if not other:
        return point
    if not z:
        return other[0], other[1], 1
    square = z * z % _P
    h = (other[0] * square - x) % _P
    slope = (other[1] * square * z - y) % _P
    if not h:
        return (1, 1, 0) if slope else _double(point)
    h2 = h * h % _P
    h3 = h2 * h % _P
    v = x * h2 % _P
    x3 = (slope * slope - h3 - 2 * v) % _P
    return x3, (slope * (v - x3) - y * h3) % _P, h * z % _P
