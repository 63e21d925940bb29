"""HTTP/1.1 over TLS (RFC 9112), as much as a node needs: one connection, one request after the other, bodies of a known length.

Nothing blocks, every call takes a deadline, and nothing that the other side sends grows in memory.
"""

from micropython import const

from node.config import running_bundle
from node.errors import LinkError
from node.link.wait import READ, WRITE, Waiter

_TCP_MS = const(5_000)
_BUFFER_BYTES = const(1_024)  # the longest head of an answer, and what is read of a body at once


class Connection:
    """To the fleet's own listener, as the node that it is, or as nobody. Raises OSError, ValueError or LinkError, like every call."""

    def __init__(self, link, clock, deadline, as_node=True):
        from node import identity
        from node.link import tls  # as long as the connection lasts neither is needed again

        self._host, port, server_name = link["renew"]
        self._raw = tls.connect(tls.resolve(self._host, port), deadline.within(_TCP_MS))
        self._waiter = Waiter(self._raw)
        self._is_open = False
        self._at = self._have = 0  # what is read and not used begins and ends here in the buffer
        self.is_reusable = True
        try:
            clock.show_to_tls(running_bundle()["built_utc_s"])
            own = identity.load()
            certificate = own[1] if as_node else None
            self._stream = tls.secure(self._raw, server_name, certificate, own[2])
            del own, certificate
            self._buffer = bytearray(_BUFFER_BYTES)
        except Exception:
            self.close()
            raise

    def close(self):
        self._raw.close()

    def post(self, path, accept, deadline):
        """(status, length of the body); the request has none."""
        head = "POST %s HTTP/1.1\r\nHost: %s\r\nAccept: %s\r\nContent-Length: 0\r\n\r\n"
        return self._ask(head % (path, self._host, accept), deadline)

    def get(self, path, first, last, deadline):
        """(status, length of the body) of the whole, or of the bytes from `first` to `last`."""
        head = "GET %s HTTP/1.1\r\nHost: %s\r\n" % (path, self._host)
        if last is not None:
            head += "Range: bytes=%d-%d\r\n" % (first, last)
        return self._ask(head + "\r\n", deadline)

    def read(self, length, deadline):
        """The next bytes of a body of which so many are left, as a view that holds until the next call."""
        if self._at == self._have:
            self._at = self._have = 0
            self._fill(deadline, min(length, _BUFFER_BYTES))
        begin, end = self._at, min(self._at + length, self._have)
        if end < self._have:
            # Answers come one at a time: what is behind a body is nobody's.
            self.is_reusable = False
        self._at = self._have = 0
        return memoryview(self._buffer)[begin:end]

    # --- private ---

    def _ask(self, head, deadline):
        self._send(head.encode(), deadline)
        self._at = self._have = 0
        end = -1
        while end < 0:
            if self._have == _BUFFER_BYTES:
                raise LinkError("http head")
            self._fill(deadline, _BUFFER_BYTES - self._have)
            end = self._buffer.find(b"\r\n\r\n", 0, self._have)
        status, length = self._understand(bytes(memoryview(self._buffer)[:end]).split(b"\r\n"))
        self._at = end + 4
        return status, length

    def _understand(self, lines):
        parts = lines[0].split(b" ", 2)
        if len(parts) < 2 or parts[0] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise LinkError("http status")
        length = None
        self.is_reusable = parts[0] == b"HTTP/1.1"
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip().lower()
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value == b"close":
                self.is_reusable = False
            elif name == b"transfer-encoding":
                raise LinkError("http transfer")
        if length is None or length < 0:
            raise LinkError("http length")
        return int(parts[1]), length

    def _send(self, request, deadline):
        view, at = memoryview(request), 0
        while at < len(request):
            # Until the first byte is out the TLS handshake is going on, which waits for the other side.
            sent = self._stream.write(view[at:])
            if sent:
                at += sent
                self._is_open = True
            else:
                self._waiter.wait(WRITE if self._is_open else READ, deadline, "https")

    def _fill(self, deadline, most):
        while True:
            room = memoryview(self._buffer)[self._have : self._have + most]
            count = self._stream.readinto(room)
            if count is None:
                self._waiter.wait(READ, deadline, "https")
            elif not count:
                raise LinkError("https closed")
            else:
                deadline.check("https")
                self._have += count
                return
