"""What carries the node's messages, behind one small interface, so that another kind of radio is one more file and one line here.

A bearer is a class made of its part of the `link` configuration and of what its last `memory()` gave (or None), with

    connect(deadline)   until the node has an address; raises LinkError, which names no secret
    renew(deadline)     True when the address was only remembered and another one could be had now
    signal_dbm()        strength of the signal, or None
    memory(is_good)     what makes the next connect better, whether or not this one did and the server could be reached; small, goes
                        through CBOR
    radio()             an object with `signal_dbm` and `off` only: once the broker is reached, the rest takes memory for nothing
    off()               no current any more; never fails
"""

_bearer = None


def switch_on(link, memory, uptime_ms):
    """The bearer that the configuration asks for; not connected yet."""
    from node.link.wifi import Wifi

    global _bearer
    _bearer = Wifi(link["wifi"], memory, uptime_ms)
    return _bearer


def keep_on():
    """Nothing more will be joined in this wake."""
    global _bearer
    if _bearer is not None:
        _bearer = _bearer.radio()


def signal_dbm():
    """Strength of the signal; None when there is none."""
    return None if _bearer is None else _bearer.signal_dbm()


def off():
    """Never fails: it stands between every fault and the sleep after it."""
    if _bearer is not None:
        _bearer.off()
