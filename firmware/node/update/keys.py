"""Keys and signatures as The Update Framework writes them: which scheme, whether an id is a key's own, whether a signature holds.

The curves are loaded only when a key asks for them.
"""

import binascii
import hashlib

from micropython import const

TEMPLATE = {"keytype": str, "scheme": str, "keyval": {"public": str}}
"""What of a key's metadata is wanted."""

_CANONICAL = '{"keytype":"%s","keyval":{"public":"%s"},"scheme":"%s"}'
# SubjectPublicKeyInfo of a key on P-256 (RFC 5480): all but the point.
_P256 = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
_P256_BYTES = const(91)
# That of an RSA key (RFC 3279 §2.3.1, RFC 8017 §A.1.1), from the fifth byte; 33 bytes and the modulus, and after it the exponent, 65537.
_RSA = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03"
_EXPONENT = b"\x02\x03\x01\x00\x01"


def load(key_id, key, digest):
    """(scheme, what makes the key this one and no other). None when it cannot be used, or its id is not its own.

    An id is the SHA-256 of the key's canonical form (TUF 1.0 §4.2), which is `digest`, or of that with only type, scheme and value in it:
    so securesystemslib makes ids, whatever fields are added to a key later. Raises ValueError or LookupError when it is no key.
    """
    kind, scheme, public = key["keytype"], key["scheme"], key["keyval"]["public"]
    plain = hashlib.sha256((_CANONICAL % (kind, public, scheme)).encode()).digest()
    if key_id not in (digest.hex(), plain.hex()):
        return None
    if kind == scheme == "ed25519":
        number = binascii.unhexlify(public)
        return (scheme, number) if len(number) == 32 else None
    der = binascii.a2b_base64(public.split("-----")[2])
    if scheme == "ecdsa-sha2-nistp256" and len(der) == _P256_BYTES and der.startswith(_P256):
        return scheme, der[len(_P256) :]
    modulus = der[33:-5]
    if (
        scheme in ("rsassa-pss-sha256", "rsa-pkcs1v15-sha256")
        and der[4:20] == _RSA
        and der.endswith(_EXPONENT)
        and 256 <= len(modulus) <= 512
        and modulus[0] > 127
    ):
        return scheme, modulus
    return None


def is_signed(key, signature, digest, feed):
    """Whether `signature` (hex) holds. `digest`: the SHA-256 of what is signed; `feed(update)` gives `update` all of it, in pieces.

    Raises ValueError or LookupError when it is no signature of that kind.
    """
    scheme, public = key
    signature = binascii.unhexlify(signature)
    if scheme == "ed25519":
        from node.update import ed25519

        return ed25519.is_signed(public, signature, feed)
    if scheme == "ecdsa-sha2-nistp256":
        from node.update import p256

        return p256.is_signed(public, signature, digest)
    from node.update import rsa

    return rsa.is_signed(public, signature, digest, scheme == "rsassa-pss-sha256")
