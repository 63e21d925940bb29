"""A stream to the broker: TCP, then mutual TLS with EC certificates, neither of which ever blocks."""

import errno
import select
import socket

from micropython import const

from node.errors import LinkError
from node.link.wait import WRITE, Waiter

_KEY_BYTES = const(512)
_CONNECTING = (errno.EINPROGRESS, errno.EAGAIN)


def resolve(host, port):
    """Address of the broker. The one call without a limit: lwIP gives up after 14 s, the watchdog after 30 s."""
    return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0][-1]


def connect(address, deadline):
    """A non-blocking TCP socket, connected. Raises OSError, TimedOut or LinkError."""
    raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        try:
            raw.connect(address)
        except OSError as error:
            if error.errno not in _CONNECTING:
                raise
        waiter = Waiter(raw)
        while True:
            ready = waiter.wait(WRITE, deadline, "tcp")
            if ready:
                if ready[0][1] & (select.POLLERR | select.POLLHUP):
                    raise LinkError("tcp refused")
                return raw
    except Exception:
        raw.close()
        raise


def secure(raw, server_name, certificate, authorities):
    """TLS over `raw`, with the node's identity and the authorities that it trusts; without `certificate` as nobody.

    The handshake happens at the first write.
    """
    import ssl

    from node import config

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED  # type: ignore[attr-defined] # the stubs lack it
    if certificate is not None:
        context.load_cert_chain(certificate, config.blob("id", "key", _KEY_BYTES))
    for authority in authorities:
        context.load_verify_locations(authority)
    return context.wrap_socket(raw, do_handshake_on_connect=False, server_hostname=server_name)
