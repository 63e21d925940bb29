"""The way back for a node that no broker lets in: it asks the fleet's own listener for a new certificate, with the key that it has.

That listener looks at the key, not at the date, and keeps the old authority's certificate longest. Loaded only when needed.
"""

from micropython import const

from node import cbor, identity
from node.errors import LinkError
from node.link import https

_ASK_MS = const(17_000)
_MOST_BYTES = const(2_048)
_OK = const(200)
# A broker that is restarted turns nodes away for a moment.
_TURNED_AWAY = const(3)


def is_due(wake):
    """After the broker turned the node away: when its certificate has run out, or that happened several times."""
    if not wake.config.link["tls"] or not wake.config.link.get("renew"):
        return False
    if wake.state.radio_failures >= _TURNED_AWAY:
        return True
    now_s = wake.clock.utc_s(wake.clock.uptime_ms())
    if now_s is None:
        return False
    from node import renewal

    return now_s >= renewal.not_after_s(identity.load()[1])


def ask(wake, deadline):
    """(certificate, authorities) that the node shall hold. Raises OSError, ValueError or LinkError."""
    deadline = deadline.within(_ASK_MS)
    connection = https.Connection(wake.config.link, wake.clock, deadline)
    try:
        status, length = connection.post("/node/v1/renew", "application/cbor", deadline)
        if status != _OK:
            raise LinkError("renew %d" % status)
        if length > _MOST_BYTES:
            raise LinkError("renew size")
        answer, have = bytearray(length), 0
        while have < length:
            piece = connection.read(length - have, deadline)
            answer[have : have + len(piece)] = piece
            have += len(piece)
    finally:
        connection.close()
    given = cbor.decode(answer)
    return given["certificate"], given["roots"]
