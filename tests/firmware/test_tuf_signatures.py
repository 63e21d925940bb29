"""Signatures as the node judges them in the real machine, against what `cryptography` (OpenSSL) says of the same bytes; edge cases made on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from hardware.virtual_board.board import Board
from provisioning.signature_bench import measure_signatures
from provisioning.tuf_board import make_board

_SHA256 = hashes.SHA256()
_PREHASHED = utils.Prehashed(_SHA256)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    return make_board(tmp_path_factory.mktemp("signatures") / "node", {}, now_s=1_790_000_000)


def node_says(board: Board, module: str, call: str, vectors: list[tuple[bytes, ...]]) -> list[bool]:
    """What the node's module says of every vector; `call` is an expression of `v`."""
    code = (
        f"import sys\nsys.path.insert(0, '/a')\nfrom node.update import {module}\n"
        "def ask(v):\n    try:\n"
        f"        return {call}\n"
        "    except (ValueError, LookupError):\n        return False\n"
        f"for v in {vectors!r}:\n    print(ask(v))"
    )
    return [line == "True" for line in board.exec(code).splitlines()]


# --- P-256 ---

P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None


def plus(one: Point, other: Point) -> Point:
    """The sum of two points by the school's formulas (SEC 1 §2.2.1); None is infinity."""
    if one is None or other is None:
        return one or other
    if one[0] == other[0] and (one[1] + other[1]) % P == 0:
        return None
    if one == other:
        slope = (3 * one[0] ** 2 - 3) * pow(2 * one[1], -1, P)
    else:
        slope = (other[1] - one[1]) * pow(other[0] - one[0], -1, P)
    x = (slope**2 - one[0] - other[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def times(factor: int, point: Point) -> Point:
    total: Point = None
    for bit in bin(factor % N)[2:]:
        total = plus(total, total)
        if bit == "1":
            total = plus(total, point)
    return total


def der(*numbers: int | bytes) -> bytes:
    """A sequence of integers; bytes go in as they are."""
    content = b""
    for number in numbers:
        if isinstance(number, int):
            number = number.to_bytes(number.bit_length() // 8 + 1, "big")
            number = bytes((2, len(number))) + number
        content += number
    return bytes((0x30, len(content))) + content


@dataclass
class Curve:
    """A key, a digest and a right (r, s)."""

    point: Point
    digest: bytes
    r: int
    s: int

    def vector(self, signature: bytes | None = None, **changes: bytes) -> tuple[bytes, ...]:
        assert self.point is not None
        public = b"".join(number.to_bytes(32, "big") for number in self.point)
        return (
            changes.get("public", public),
            der(self.r, self.s) if signature is None else signature,
            changes.get("digest", self.digest),
        )


def signed_with(d: int, k: int, digest: bytes) -> Curve:
    point = times(k, G)
    assert point is not None
    r = point[0] % N
    s = pow(k, -1, N) * (int.from_bytes(digest, "big") + r * d) % N
    return Curve(times(d, G), digest, r, s)


def with_x_above_the_order() -> Curve:
    """R has an x of n or more, so that r = x − n: found by looking for a point there, then the key that makes it right."""
    x = N
    while True:
        y = pow(x**3 - 3 * x + B, (P + 1) // 4, P)
        if (y * y - x**3 + 3 * x - B) % P == 0 and x > N:
            break
        x += 1
    u1, u2 = 5, 7
    minus = times(N - u1, G)
    point = times(pow(u2, -1, N), plus((x, y), minus))
    r = x - N
    s = r * pow(u2, -1, N) % N
    return Curve(point, (u1 * s % N).to_bytes(32, "big"), r, s)


def p256_vectors() -> list[tuple[bytes, ...]]:
    digests = [hashlib.sha256(bytes((number,))).digest() for number in range(6)]
    good = [
        signed_with(0x1234567, 0xABCDEF01, digests[0]),
        signed_with(1, 99, digests[1]),  # the key is G
        signed_with(N - 1, 99, digests[2]),  # … and −G: G + Q is infinity
        signed_with(2, 1, digests[3]),
        signed_with(77, N - 1, digests[4]),
        signed_with(N // 2, 2, bytes(32)),
        signed_with(3, 5, b"\xff" * 32),
        with_x_above_the_order(),
    ]
    vectors = [one.vector() for one in good]
    vectors += [one.vector(der(one.r, N - one.s)) for one in good[:3]]  # as good
    one = good[0]
    r, s = one.r, one.s
    short = der(5, 7)
    vectors += [
        one.vector(signature)
        for signature in (
            *(der(0, s), der(r, 0), der(N, s), der(r, N), der(r + N, s), der(r, s + N), der(s, r)),
            *(
                der(1, 1),
                der(0, 0),
                der(N - 1, N - 1),
                der(P, s),
                der(r),
                der(r, s, 1),
                b"",
                b"\x30",
            ),
            *(
                b"\x30\x00",
                b"\x30\x80",
                der(r, s) + b"\x00",
                der(r, s)[:-1],
                b"\x31" + der(r, s)[1:],
            ),
            *(b"\x30\x81" + der(r, s)[1:], der(b"\x02\x00", s), der(r, b"\x02\x00"), short),
            der(b"\x03" + der(r)[3:], s),
            der(b"\x02\x22\x00\x00" + r.to_bytes(32, "big"), s),
            der(b"\x02\x20" + (r | 1 << 255).to_bytes(32, "big"), s),  # a negative number
            der(b"\x02\x81\x20" + r.to_bytes(32, "big"), s),
        )
    ]
    for changed in range(0, 256, 37):
        flipped = bytearray(one.vector()[1])
        flipped[changed % len(flipped)] ^= 1 << changed % 8
        vectors.append(one.vector(bytes(flipped)))
    vectors.append(one.vector(digest=digests[5]))
    x, y = one.vector()[0][:32], one.vector()[0][32:]
    for public in (y + x, bytes(64), x + bytes(32), (P + 5).to_bytes(32, "big") + y, b"\xff" * 64):
        vectors.append(one.vector(public=public))
    # Off the curve, where the same formulas lead to a sum that fits: r is the x of 2·Q, and G has no part in it.
    stray = (5, 7)
    doubled = plus(stray, stray)
    assert doubled is not None
    r = doubled[0] % N
    vectors.append(Curve(stray, bytes(32), r, r * pow(2, -1, N) % N).vector())
    # The sum is infinity: u1·G = −u2·Q.
    vectors.append(Curve(G, (N - 9).to_bytes(32, "big"), 9, 9).vector())
    return vectors


def openssl_says_of_p256(public: bytes, signature: bytes, digest: bytes) -> bool:
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + public)
        key.verify(signature, digest, ec.ECDSA(_PREHASHED))
    except (InvalidSignature, ValueError):
        return False
    return True


def test_p_256_is_judged_as_openssl_judges_it(board: Board) -> None:
    vectors = p256_vectors()
    expected = [openssl_says_of_p256(*vector) for vector in vectors]
    assert expected[:11] == [True] * 11
    assert sum(expected) == 11

    assert node_says(board, "p256", "p256.is_signed(*v)", vectors) == expected


# --- Ed25519 ---

L = 2**252 + 27742317777372353535851937790883648493
P25519 = 2**255 - 19


def ed25519_vectors() -> list[tuple[bytes, ...]]:
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes_raw()
    # Where SHA-512 of R, A and the message pads into one block more, and around it.
    lengths = (0, 1, 47, 48, 63, 64, 65, 175, 176, 300)
    vectors = [(public, key.sign(b"m" * length), b"m" * length) for length in lengths]
    message, signature = b"message", key.sign(b"message")
    big_r, s = signature[:32], int.from_bytes(signature[32:], "little")
    identity, minus_one = (1).to_bytes(32, "little"), (P25519 - 1).to_bytes(32, "little")
    vectors += [
        (public, signature, b"massage"),
        (public, bytes((signature[0] ^ 1,)) + signature[1:], message),
        (public, signature[:31] + bytes((signature[31] ^ 0x80,)) + signature[32:], message),
        (public, big_r + (s ^ 2).to_bytes(32, "little"), message),
        (public, big_r + (s + L).to_bytes(32, "little"), message),  # the same s modulo the order
        (public, big_r + bytes(32), message),
        (public, bytes(64), message),
        (public, signature[:63], message),
        (public, signature + b"\0", message),
        (public, b"", message),
        (identity, identity + bytes(32), message),  # signs everything: as OpenSSL has it
        (minus_one, identity + bytes(32), message),
        (bytes((2,)) + bytes(31), signature, message),  # no point
        (public[:31] + bytes((public[31] ^ 0x80,)), signature, message),
        # An R that is right as a point, and written otherwise than it must be.
        (identity, (P25519 + 1).to_bytes(32, "little") + bytes(32), message),
    ]
    return vectors


def openssl_says_of_ed25519(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_ed25519_is_judged_as_openssl_judges_it(board: Board) -> None:
    vectors = ed25519_vectors()
    expected = [openssl_says_of_ed25519(*vector) for vector in vectors]
    assert expected[:10] == [True] * 10

    call = "ed25519.is_signed(v[0], v[1], lambda update: update(v[2]))"
    assert node_says(board, "ed25519", call, vectors) == expected


def test_a_key_on_ed25519_that_is_not_written_as_it_must_be_signs_nothing(board: Board) -> None:
    """RFC 8032 §5.1.3: a y of p or more, and the sign of an x that is 0. OpenSSL takes the first."""
    too_large = (P25519 + 1).to_bytes(32, "little")
    signed_zero = bytearray((1).to_bytes(32, "little"))
    signed_zero[31] |= 0x80
    identity = (1).to_bytes(32, "little") + bytes(32)
    vectors = [(too_large, identity, b""), (bytes(signed_zero), identity, b"")]

    call = "ed25519.is_signed(v[0], v[1], lambda update: update(v[2]))"
    assert node_says(board, "ed25519", call, vectors) == [False, False]


def test_sha_512_is_that_of_the_standard(board: Board) -> None:
    messages = [
        bytes(index & 0xFF for index in range(size)) for size in (0, 1, 111, 112, 127, 128, 400)
    ]
    code = (
        "import sys\nsys.path.insert(0, '/a')\nfrom node.update.sha512 import Sha512\n"
        f"for m in {messages!r}:\n"
        "    h = Sha512()\n    h.update(m[:50])\n    h.update(m[50:])\n    print(h.digest().hex())"
    )

    assert board.exec(code).split() == [hashlib.sha512(message).hexdigest() for message in messages]


# --- RSA ---


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def _raw(key: rsa.RSAPrivateKey, message: bytes) -> bytes:
    """What becomes this message when it is verified."""
    numbers = key.private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(message, "big"), numbers.d, n).to_bytes(key.key_size // 8, "big")


def _with_something_before_the_salt(message: bytes) -> bytes:
    """A PSS message in whose block not all is zero before the 1, masked as it must be."""
    size = len(message) - 33
    block = bytearray(size)
    mask = b"".join(
        hashlib.sha256(message[size:-1] + counter.to_bytes(4, "big")).digest()
        for counter in range(size // 32 + 1)
    )
    for at in range(size):
        block[at] = message[at] ^ mask[at]
    block[0] &= 0x7F
    assert block[:50] == bytes(50)
    masked = bytearray(message)
    masked[40] ^= 0x10
    return bytes(masked)


def _above_the_modulus(key: rsa.RSAPrivateKey, n: int, sign: Callable[[], bytes]) -> bytes:
    """A good signature, plus the modulus, in as many bytes."""
    for _ in range(2_000):
        number = int.from_bytes(sign(), "big") + n
        if number < 1 << key.key_size:
            return number.to_bytes(key.key_size // 8, "big")
    raise AssertionError("this key's modulus is too large for that")


def test_rsa_pss_is_judged_as_openssl_judges_it(board: Board, rsa_key: rsa.RSAPrivateKey) -> None:
    digest = hashlib.sha256(b"message").digest()
    n = rsa_key.public_key().public_numbers().n
    modulus, mgf = n.to_bytes(256, "big"), padding.MGF1(_SHA256)

    def signed(salt: int, hashed: bytes = digest) -> bytes:
        return rsa_key.sign(hashed, padding.PSS(mgf, salt), _PREHASHED)

    good = [signed(salt) for salt in (0, 20, 32, 222)]
    message = pow(int.from_bytes(good[2], "big"), 65537, n).to_bytes(256, "big")
    bad = [
        good[2][:-1] + bytes((good[2][-1] ^ 1,)),
        signed(32, hashlib.sha256(b"massage").digest()),
        rsa_key.sign(digest, padding.PKCS1v15(), _PREHASHED),
        good[2][1:],
        b"\0" + good[2],
        (int.from_bytes(good[2], "big") + n).to_bytes(257, "big"),
        bytes(256),
        modulus,
        _raw(rsa_key, message[:-1] + b"\xbd"),
        _raw(rsa_key, message[:100] + bytes((message[100] ^ 1,)) + message[101:]),
        _raw(rsa_key, bytes((message[0], message[1] ^ 1)) + message[2:]),
        rsa_key.sign(digest, padding.PSS(padding.MGF1(hashes.SHA512()), 32), _PREHASHED),
        _raw(rsa_key, _with_something_before_the_salt(message)),
        _above_the_modulus(rsa_key, n, lambda: signed(32)),
    ]
    vectors = [(modulus, signature, digest) for signature in good + bad]

    def openssl(signature: bytes) -> bool:
        try:
            scheme = padding.PSS(mgf, padding.PSS.AUTO)
            rsa_key.public_key().verify(signature, digest, scheme, _PREHASHED)
        except InvalidSignature:
            return False
        return True

    expected = [openssl(signature) for signature in good + bad]
    assert expected == [True] * len(good) + [False] * len(bad)
    assert node_says(board, "rsa", "rsa.is_signed(v[0], v[1], v[2], True)", vectors) == expected


def test_rsa_pkcs1_is_compared_whole(board: Board, rsa_key: rsa.RSAPrivateKey) -> None:
    """Bleichenbacher's forgeries of 2006 lived on paddings that were parsed."""
    digest = hashlib.sha256(b"message").digest()
    modulus = rsa_key.public_key().public_numbers().n.to_bytes(256, "big")
    good = rsa_key.sign(digest, padding.PKCS1v15(), _PREHASHED)
    message = pow(int.from_bytes(good, "big"), 65537, int.from_bytes(modulus, "big"))
    em = message.to_bytes(256, "big")
    info = em[-51:-32]
    without_null = b"\x30\x2f\x30\x0b" + info[4:15] + b"\x04\x20"
    bad = [
        _raw(rsa_key, b"\0\2" + em[2:]),
        _raw(rsa_key, b"\0\1" + b"\xff" * 100 + b"\0" + info + digest + bytes(102)),
        _raw(rsa_key, b"\0\1" + b"\xff" * 10 + b"\x00" + b"\xff" * 191 + b"\0" + info + digest),
        _raw(rsa_key, b"\0\1" + b"\xff" * 204 + b"\0" + without_null + digest),
        _raw(rsa_key, em[:-1] + bytes((em[-1] ^ 1,))),
        bytes(255) + b"\1",
        good[:-1],
    ]
    vectors = [(modulus, signature, digest) for signature in [good, *bad]]

    expected = [True] + [False] * len(bad)
    assert node_says(board, "rsa", "rsa.is_signed(v[0], v[1], v[2], False)", vectors) == expected


def test_the_curves_are_loaded_only_when_a_key_asks_for_them(board: Board) -> None:
    loaded = board.exec(
        "import sys\nsys.path.insert(0, '/a')\nfrom node.update import tuf\nprint(sorted(sys.modules))"
    )
    for module in ("p256", "ed25519", "sha512", "rsa"):
        assert f"node.update.{module}" not in loaded
    assert "node.update.keys" in loaded


def test_the_time_for_a_signature_is_measured_for_every_kind_of_key() -> None:
    measured = measure_signatures(rounds=1)

    assert sorted(measured) == [
        "ed25519_ms_per_signature",
        "p256_ms_per_signature",
        "rsa_3072_ms_per_signature",
    ]
    assert measured["ed25519_ms_per_signature"] > 0
