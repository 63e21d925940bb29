"""The way back for a node that no broker lets in: it asks the fleet's own listener for a new certificate, with the key that it has.

That listener looks at the key, not at the date, and keeps the old authority's certificate longest. Loaded only when needed.
"""

from micropython import const

from node import cbor, identity, report
from node.errors import LinkError
from node.link import tls
from node.link.wait import READ, WRITE, Waiter

_TCP_MS = const(5_000)
_ASK_MS = const(12_000)
_MOST_BYTES = const(2_560)
_MOST_HEAD = const(768)
# A broker that is restarted turns nodes away for a moment.
_TURNED_AWAY = const(3)
_REQUEST = (
    "POST /node/v1/renew HTTP/1.1\r\nHost: %s\r\nAccept: application/cbor\r\n"
    "Content-Length: 0\r\nConnection: close\r\n\r\n"
)


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
    host, port, server_name = wake.config.link["renew"]
    raw = tls.connect(tls.resolve(host, port), deadline.within(_TCP_MS))
    try:
        wake.clock.show_to_tls(report.bundle()["built_utc_s"])
        own = identity.load()
        stream = tls.secure(raw, server_name, own[1], own[2])
        del own
        answer = _talk(stream, raw, host, deadline.within(_ASK_MS))
    finally:
        raw.close()
    given = cbor.decode(_body(answer))
    return given["certificate"], given["roots"]


def _talk(stream, raw, host, deadline):
    waiter = Waiter(raw)
    request = memoryview((_REQUEST % host).encode())
    at = 0
    while at < len(request):
        # Until the first byte is out the TLS handshake is going on, which waits for the other side.
        sent = stream.write(request[at:])
        if sent:
            at += sent
        else:
            waiter.wait(WRITE if at else READ, deadline, "renew")
    answer, have = bytearray(_MOST_BYTES), 0
    while have < _MOST_BYTES:
        count = stream.readinto(memoryview(answer)[have:])
        if count is None:
            waiter.wait(READ, deadline, "renew")
        elif not count or _is_whole(answer, have + count):
            return memoryview(answer)[: have + count]
        else:
            have += count
    raise LinkError("renew size")


def _is_whole(answer, have):
    """True when all is there that the answer's head has announced (RFC 9112 §6.2)."""
    end = answer.find(b"\r\n\r\n")
    if not 0 <= end < have:
        return False
    for line in bytes(answer[:end]).split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return have >= end + 4 + int(value)
    return False


def _body(answer):
    head = bytes(answer[:_MOST_HEAD])
    if head[9:12] != b"200":
        raise LinkError("renew " + str(head[9:12], "ascii"))
    return answer[head.find(b"\r\n\r\n") + 4 :]
