"""How a renewed certificate, or other authorities, come to hold, and how those before come back. Loaded only when there are any.

They are on trial until a broker let the node in with them. After three talks that got as far as a connection and no further, those
before hold again by themselves: an outage is no failure of a certificate.
"""

import time

import esp32
from micropython import const

from node import cbor, identity, plan
from node.errors import LinkError, NotProvisioned

_WAKES = const(3)
_MOST_BYTES = const(1_900)
_MOST_ROOTS = const(2)
_STATE = const(2)  # of what the state message says (identity.told)
_UNIX_TO_RTC_S = const(946_684_800)
# SubjectPublicKeyInfo of an EC P-256 key (RFC 5480): all but the point.
_KEY_HEAD = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04"
_KEY_BYTES = const(91)
_SEQUENCE = const(0x30)
_UTC_TIME = const(0x17)
_GENERAL_TIME = const(0x18)


def take(wake, certificate, roots):
    """Try what the fleet has renewed (None: as it is) from the next talk on. Raises LinkError when it cannot be the node's."""
    try:
        record, own, pinned = identity.load()
    except NotProvisioned:
        raise LinkError("des certificate")
    _check(own, wake.config.node_id, certificate, roots)
    wanted = [certificate or own, roots or pinned]
    content = cbor.encode(wanted)
    if wanted == [own, pinned] or identity.name(content) == record.rolled_back:
        return
    if len(content) > _MOST_BYTES:
        raise LinkError("des roots")
    before = record.before if record.failures is not None else record.place
    place = 1 if before == 0 else 0
    nvs = esp32.NVS("id")
    if place == record.place:
        # Half of another certificate must not hold: what is on trial steps back first.
        record.place, record.failures = before, None
        record.keep()
    nvs.set_blob(identity.PLACES[place], content)
    nvs.commit()
    record.place, record.failures, record.before, record.rolled_back = place, 0, before, None
    record.keep()
    wake.has_new_credentials = True


def confirm(wake):
    """A broker let the node in with them."""
    record, _, _ = identity.load()
    record.failures = record.before = None
    record.keep()
    wake.credentials[_STATE] = "confirmed"


def note_failure(wake):
    """The other side answered, and would not have the node or was not to be trusted."""
    record, certificate, roots = identity.load()
    if record.failures is None:
        return
    record.failures += 1
    if record.failures >= _WAKES:
        record.rolled_back = identity.name(cbor.encode([certificate, roots]))
        record.place, record.failures, record.before = record.before, None, None
    record.keep()
    plan.talk_soon(wake.state)


def not_after_s(certificate):
    """UTC seconds at which a certificate ends."""
    data = memoryview(certificate)
    validity = _tbs(data)[2]
    _, _, end = _element(data, validity[0])
    tag, start, end = _element(data, end)
    digits = str(bytes(data[start:end]), "ascii")
    if tag == _UTC_TIME:
        digits = ("20" if digits[0] < "5" else "19") + digits
    elif tag != _GENERAL_TIME:
        raise ValueError
    parts = [int(digits[:4])] + [int(digits[at : at + 2]) for at in (4, 6, 8, 10, 12)]
    return time.mktime(tuple(parts) + (0, 0)) + _UNIX_TO_RTC_S


# --- private ---


def _check(own, node_id, certificate, roots):
    """The certificate is for the node's own key and name, and the authorities are certificates."""
    what = "des certificate"
    try:
        if certificate is not None:
            if _key_of(certificate) != _key_of(own) or not _is_for(certificate, node_id):
                raise ValueError
        if roots is not None:
            what = "des roots"
            if not 1 <= len(roots) <= _MOST_ROOTS:
                raise ValueError
            for root in roots:
                _key_of(root)
    except (ValueError, LookupError, TypeError):
        raise LinkError(what)


def _key_of(certificate):
    """The public key, from its place in the certificate: nobody else's bytes further back can stand in for it."""
    data = memoryview(certificate)
    start, end = _tbs(data)[4]
    key = bytes(data[start:end])
    if len(key) != _KEY_BYTES or key[: len(_KEY_HEAD)] != _KEY_HEAD:
        raise ValueError
    return key


def _is_for(certificate, node_id):
    """True when its subject's last name is the node's."""
    data = memoryview(certificate)
    start, end = _tbs(data)[3]
    name = node_id.encode()
    return bytes(data[start:end]).endswith(bytes((len(name),)) + name)


def _tbs(data):
    """(begin, end) of signature algorithm, issuer, validity, subject and key in a certificate (RFC 5280 §4.1).

    Of the first four it is the content, of the key the whole element.
    """
    tag, start, end = _element(data, 0)
    if tag != _SEQUENCE or end != len(data):
        raise ValueError
    _, at, _ = _element(data, start)
    for _ in range(2):  # version, serial number
        _, _, at = _element(data, at)
    parts = []
    for _ in range(5):
        begin = at
        tag, start, at = _element(data, at)
        if tag != _SEQUENCE:
            raise ValueError
        parts.append((start, at))
    parts[4] = (begin, at)
    return parts


def _element(data, at):
    """(tag, begin, end) of a DER element's content; it lies within the data."""
    tag, length, at = data[at], data[at + 1], at + 2
    if length & 128:
        count = length & 127
        if not 1 <= count <= 2:
            raise ValueError
        length = 0
        for byte in data[at : at + count]:
            length = length << 8 | byte
        at += count
    if at + length > len(data):
        raise ValueError
    return tag, at, at + length
