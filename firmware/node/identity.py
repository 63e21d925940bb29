"""Who the node is to others, and whom it trusts: as the bench wrote it, or as the fleet has renewed it since (node/renewal.py).

NVS `id`: `key`, `cert`, `ca0`, `ca1` as the bench wrote them; the node never changes those. What was renewed lies whole, as CBOR
[certificate, [authorities]], in one of the two places `new0` and `new1`; the record `held` says which holds.
"""

import binascii
import hashlib

import esp32
from micropython import const

from node import cbor, config
from node.errors import NotProvisioned

PLACES = ("new0", "new1")
_HELD = "held"
_FIELDS = const(5)
_NAME_BYTES = const(8)
_HELD_BYTES = const(64)
_MOST_BYTES = const(1_000)  # of one certificate: memory is short where this is read


class Record:
    """`place`: the one that holds, None for what the bench wrote. `failures` of its trial, None when it is confirmed. `before`: the
    place that held until then. `rolled_back`: name of what failed last, which is not tried again.
    """

    def __init__(self, provisioned):
        self._stamp = binascii.crc32(provisioned)
        self.place = self.failures = self.before = self.rolled_back = None
        try:
            fields = cbor.decode(config.blob("id", _HELD, _HELD_BYTES))
            # Who enrols a node anew must not find it with an older certificate.
            if len(fields) == _FIELDS and fields[-1] == self._stamp:
                self.place, self.failures, self.before, self.rolled_back, _ = fields
        except (NotProvisioned, ValueError, TypeError):
            pass

    def keep(self):
        """In one operation: whenever the power goes, this or the record before is there."""
        fields = (self.place, self.failures, self.before, self.rolled_back, self._stamp)
        nvs = esp32.NVS("id")
        nvs.set_blob(_HELD, cbor.encode(fields))
        nvs.commit()


def load():
    """(record, certificate, authorities) of what holds; certificates in DER."""
    certificate = config.blob("id", "cert", _MOST_BYTES)
    record = Record(certificate)
    if record.place is not None:
        try:
            certificate, authorities = cbor.decode(config.blob("id", PLACES[record.place]))
            return record, certificate, authorities
        except (NotProvisioned, ValueError, TypeError, LookupError):
            record.place = record.failures = record.before = None
    authorities = [config.blob("id", "ca0", _MOST_BYTES)]
    try:
        # The one to come, so that the broker can change over while the node sleeps.
        authorities.append(config.blob("id", "ca1", _MOST_BYTES))
    except NotProvisioned:
        pass
    return record, certificate, authorities


def name(certificate):
    """By which the server knows a certificate: the first bytes of its SHA-256, in hex."""
    return str(binascii.hexlify(hashlib.sha256(certificate).digest()[:_NAME_BYTES]), "ascii")


def told(record, certificate, authorities):
    """What the state message says of them: [name of the certificate, names of the authorities, state]."""
    state = "confirmed"
    if record.failures is not None:
        state = "trial"
    elif record.rolled_back is not None:
        state = "rolled_back"
    return [name(certificate), " ".join([name(root) for root in authorities]), state]
