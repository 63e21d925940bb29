"""How long the node's TUF client takes for one signature on the virtual board, by kind of key.

Processor time of this computer, of many signatures less an empty run. An ESP32 takes some thirty to forty times as long, which nobody has measured.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from hardware.virtual_board.board import Board
from provisioning.tuf_board import make_board

_MESSAGE = b"signed" * 340  # as long as metadata of a few roles are
_SHA256 = hashes.SHA256()


@dataclass(frozen=True)
class _Signed:
    scheme: str
    public: bytes
    signature: bytes


def measure_signatures(*, rounds: int = 20) -> dict[str, float]:
    """Milliseconds for a signature over 2 KB, by scheme."""
    with tempfile.TemporaryDirectory(prefix="stadtsensor-bench-") as scratch:
        board = make_board(Path(scratch) / "board", {}, now_s=int(time.time()))
        return {
            name: round(_measure(board, signed, rounds), 1)
            for name, signed in (
                ("rsa_3072_ms_per_signature", _rsa()),
                ("p256_ms_per_signature", _p256()),
                ("ed25519_ms_per_signature", _ed25519()),
            )
        }


def _measure(board: Board, signed: _Signed, rounds: int) -> float:
    bare_s, whole_s = (_run_s(board, signed, count) for count in (0, rounds))
    return max(0.0, 1000 * (whole_s - bare_s) / rounds)


def _run_s(board: Board, signed: _Signed, rounds: int) -> float:
    began_s = time.process_time()
    board.exec(
        "import sys\nsys.path.insert(0, '/a')\nfrom node.update import keys\n"
        f"message, key = {_MESSAGE!r}, ({signed.scheme!r}, {signed.public!r})\n"
        f"signature, digest = {signed.signature.hex()!r}, {hashlib.sha256(_MESSAGE).digest()!r}\n"
        f"for _ in range({rounds}):\n"
        "    if not keys.is_signed(key, signature, digest, lambda update: update(message)):\n"
        "        raise ValueError('a good signature was refused')\n"
    )
    return time.process_time() - began_s


def _rsa() -> _Signed:
    key = rsa.generate_private_key(65537, 3072)
    scheme = padding.PSS(padding.MGF1(_SHA256), padding.PSS.DIGEST_LENGTH)
    modulus = key.public_key().public_numbers().n.to_bytes(384, "big")
    return _Signed("rsassa-pss-sha256", modulus, key.sign(_MESSAGE, scheme, _SHA256))


def _p256() -> _Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    point = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    return _Signed("ecdsa-sha2-nistp256", point, key.sign(_MESSAGE, ec.ECDSA(_SHA256)))


def _ed25519() -> _Signed:
    key = ed25519.Ed25519PrivateKey.generate()
    return _Signed("ed25519", key.public_key().public_bytes_raw(), key.sign(_MESSAGE))
