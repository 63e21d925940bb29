"""Wi-Fi: on for one exchange, off in every other moment."""

import network

from node.errors import LinkError, TimedOut

_NO_NETWORK = (201, 202, 203)  # no such network, wrong password, association refused


def connect(networks, first, deadline):
    """Join one of `networks` (pairs of name and password), beginning with index `first`; returns its index.

    Raises LinkError when none takes the node before the deadline.
    """
    wlan = network.WLAN(network.STA_IF)
    wlan.active(True)
    for attempt in range(len(networks)):
        index = (first + attempt) % len(networks)
        name, password = networks[index]
        share = deadline.within(deadline.left_ms() // (len(networks) - attempt))
        if _joins(wlan, name, password, share):
            return index
        wlan.disconnect()
    raise LinkError("wifi")


def signal_dbm():
    """Strength of the joined network's signal; None when the radio does not say."""
    try:
        return int(network.WLAN(network.STA_IF).status("rssi"))
    except (OSError, ValueError, TypeError):
        return None


def off():
    """Radio off. Never fails: it stands between every fault and the sleep after it."""
    try:
        wlan = network.WLAN(network.STA_IF)
        if wlan.active():
            wlan.disconnect()
        wlan.active(False)
    except OSError:
        pass


def _joins(wlan, name, password, deadline):
    wlan.connect(name, password)
    try:
        while not wlan.isconnected():
            if wlan.status() in _NO_NETWORK:
                return False
            deadline.nap("wifi")
    except TimedOut:
        return False
    return True
