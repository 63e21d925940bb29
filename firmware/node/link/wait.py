"""Waiting for a socket that never blocks."""

import select

from micropython import const

READ = select.POLLIN
WRITE = select.POLLOUT

_SLICE_MS = const(1_000)


class Waiter:
    """Waits on one raw socket. A TLS stream is waited for on the raw socket below it, after reading it empty."""

    def __init__(self, raw):
        self._raw = raw
        self._poll = select.poll()
        self._poll.register(raw, READ)

    def wait(self, events, deadline, what):
        """Until the socket is ready or has failed, a slice at most; raise TimedOut when the deadline passed."""
        deadline.check(what)
        self._poll.modify(self._raw, events)
        return self._poll.poll(min(_SLICE_MS, deadline.left_ms()))
