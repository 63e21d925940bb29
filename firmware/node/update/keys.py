"""Keys and signatures as The Update Framework writes them: which scheme, whether an id is a key's own, whether a signature holds.

The curves are loaded only when a key asks for them.
"""

import binascii
import hashlib
import struct

from micropython import const

TEMPLATE = {"keytype": True, "scheme": True, "keyval": {"public": True}}
"""What of a key's metadata is wanted."""

_BEGIN = "-----BEGIN PUBLIC KEY-----\n"
_END = "\n-----END PUBLIC KEY-----"
# SubjectPublicKeyInfo of a key on P-256 (RFC 5480): all but the point.
_P256 = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
_P256_BYTES = const(91)
# That of an RSA key (RFC 3279 §2.3.1, RFC 8017 §A.1.1), of which the lengths are left out here. All have the exponent 65537.
_RSA = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82"
_RSA_END = b"\x02\x03\x01\x00\x01"
_RSA_BYTES = const(38)  # all but the modulus
_LEAST_MODULUS = const(256)
_MOST_MODULUS = const(512)


def load(key_id, key):
    """(scheme, what makes the key this one and no other). None when it cannot be used, or its id is not its own.

    An id is the SHA-256 of the key's canonical form (TUF 1.0 §4.2), in which only type, scheme and value count.
    """
    try:
        kind, scheme, public = key["keytype"], key["scheme"], key["keyval"]["public"]
        canonical = '{"keytype":"%s","keyval":{"public":"%s"},"scheme":"%s"}'
        if key_id != sha256_of((canonical % (kind, public, scheme)).encode()):
            return None
        if kind == scheme == "ed25519":
            return (scheme, binascii.unhexlify(public)) if len(public) == 64 else None
        body = public.strip()
        if body.startswith(_BEGIN) and body.endswith(_END):
            der = binascii.a2b_base64(body[len(_BEGIN) : -len(_END)])
            if kind == "rsa" and scheme in ("rsassa-pss-sha256", "rsa-pkcs1v15-sha256"):
                return scheme, _modulus(der)
            if kind in ("ecdsa", scheme) and scheme == "ecdsa-sha2-nistp256":
                return (scheme, der[27:]) if der[:27] == _P256 and len(der) == 91 else None
    except (LookupError, ValueError, TypeError, AttributeError):
        pass
    return None


def is_signed(key, signature, digest, feed):
    """Whether `signature` (hex) holds. `digest`: the SHA-256 of what is signed; `feed(update)` gives `update` all of it, in pieces."""
    scheme, public = key
    try:
        signature = binascii.unhexlify(signature)
        if scheme == "ed25519":
            from node.update import ed25519

            return ed25519.is_signed(public, signature, feed)
        if scheme == "ecdsa-sha2-nistp256":
            from node.update import p256

            return p256.is_signed(public, signature, digest)
        from node.update import rsa

        return rsa.is_signed(public, signature, digest, scheme == "rsassa-pss-sha256")
    except (ValueError, LookupError, TypeError):
        return False


def sha256_of(data):
    """In hex."""
    return hexlify(hashlib.sha256(data).digest())


def hexlify(data):
    return str(binascii.hexlify(data), "ascii")


def _modulus(der):
    size = len(der) - _RSA_BYTES
    modulus = der[33 : 33 + size]
    head = struct.pack(
        ">2sH17sH3sH2sHB",
        b"\x30\x82",
        size + 34,
        _RSA,
        size + 15,
        b"\x00\x30\x82",
        size + 10,
        b"\x02\x82",
        size + 1,
        0,
    )
    is_known = _LEAST_MODULUS <= size <= _MOST_MODULUS and modulus[0] >= 0x80 and modulus[-1] & 1
    if not is_known or der != head + modulus + _RSA_END:
        raise ValueError
    return modulus
