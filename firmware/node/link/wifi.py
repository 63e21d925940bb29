"""Wi-Fi: on for one exchange, off in every other moment.

What worked last time is tried first: that access point, with that address, without a scan and without DHCP. When that fails, all
is forgotten: a scan, then the networks in the order of the configuration, of each the strongest access point first (left alone, the ESP32
takes the first that it hears), then those that no scan shows because they hide. A network that a node could join and that led
nowhere (a portal, a line that is cut) comes last the next time. Each gets the time that joining takes; when there is none left for the
others, the next search begins with them.
"""

import time

import network
from micropython import const

from node.errors import LinkError, TimedOut
from node.link.wifi_radio import Radio, attempt

_QUIET = (network.STAT_IDLE, network.STAT_CONNECTING, network.STAT_GOT_IP)
# Reasons of the ESP32's driver, by what a person can do about them.
_NOT_FOUND = (201, 210, 211, 212)
_PASSWORD = (15, 202, 204, 205)

_POINTS = const(2)  # of one network; a third one is too weak to be worth the time
# What worked last time works within this, or not at all.
_KNOWN_MS = const(4_000)
# The driver goes on telling why the network before failed until it has something new to say.
_STALE_MS = const(4_000)
# A network that is there lets a node in within this, a DHCP server that thinks first included.
_TRY_MS = const(5_000)
# Too little to join anything.
_NO_TIME_MS = const(2_000)
# Nobody tells how long an address was leased for; shorter than a day is rare, and a wrong one costs a renewal only.
_LEASE_MS = const(21_600_000)
_UNCLEAR = "reason"
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - what `ifconfig` tells while there is none


class Wifi(Radio):
    """A bearer (link/bearer.py). `networks`: pairs of name and password, best first.

    `memory`: [index of the network, bssid or None, channel, (address, mask, gateway, name server), uptime of the lease], or
    [index] of a network that led nowhere, or [index, None] of the last one for which a search had time.
    """

    def __init__(self, networks, memory, uptime_ms):
        super().__init__(network.WLAN(network.STA_IF))
        self._networks = networks
        self._uptime_ms = uptime_ms
        self._memory = memory
        self._last_resort = self._last_tried = -1
        if memory is not None and len(memory) == 2:
            self._memory, self._last_tried = None, memory[0]
        elif memory is not None and (len(memory) == 1 or not 0 <= memory[0] < len(networks)):
            self._memory, self._last_resort = None, memory[0]
        self._is_remembered = False
        self._faults = []  # type: list[str]

    def connect(self, deadline):
        """Join. Raises LinkError, which names each network by its place in the list, and what was wrong."""
        try:
            self._wlan.active(True)
            # Left alone it tries for ever, and a wrong password looks like patience.
            self._wlan.config(reconnects=0)
            if not self._rejoin(deadline) and not self._search(deadline):
                raise LinkError("wifi " + ", ".join(self._faults))
        except LinkError:
            raise
        except Exception as error:
            # Its text is the driver's, who knows the password; `errno` of anything but a number is that text.
            number = getattr(error, "errno", None)
            raise LinkError("wifi driver %d" % (number if isinstance(number, int) else 0))

    def renew(self, deadline):
        if not self._is_remembered:
            return False
        self._is_remembered = False
        try:
            self._wlan.ipconfig(dhcp4=True)
            while self._wlan.ifconfig()[0] == _NO_ADDRESS:
                deadline.nap("dhcp")
            self._memory = self._memory[:3] + self._lease()
            return True
        except Exception:
            # Nobody lends one now: the remembered one may still be good.
            attempt(self._wlan.ifconfig, tuple(self._memory[3]))
            return False

    def memory(self, is_good):
        if self._memory is None or is_good or len(self._memory) == 2:
            return self._memory
        return self._memory[:1]

    def radio(self):
        return Radio(self._wlan)

    # --- private ---

    def _rejoin(self, deadline):
        """What worked last time; False when there is nothing, or it does not."""
        if self._memory is None:
            return False
        index, bssid, channel, lease, leased_ms = self._memory
        self._memory = None
        if 0 <= self._uptime_ms - leased_ms < _LEASE_MS:
            self._wlan.ifconfig(tuple(lease))
            self._is_remembered = True
        if self._joins(index, bssid, deadline.within(_KNOWN_MS)):
            if not self._is_remembered:
                lease, leased_ms = self._lease()
            self._memory = [index, bssid, channel, lease, leased_ms]
            return True
        if self._is_remembered:
            self._is_remembered = False
            self._wlan.ipconfig(dhcp4=True)
        self._faults.clear()
        return False

    def _search(self, deadline):
        candidates = self._candidates()
        for place, (index, bssid, channel) in enumerate(candidates):
            left_ms = deadline.left_ms()
            if place and left_ms < _NO_TIME_MS:
                self._memory = [candidates[place - 1][0], None]
                return False
            share_ms = max(_TRY_MS, left_ms // (len(candidates) - place))
            if self._joins(index, bssid, deadline.within(share_ms)):
                self._memory = [index, bssid, channel] + self._lease()
                return True
        return False

    def _candidates(self):
        """(index, bssid, channel) in the order in which they are worth a try; first those for which there was no time before."""
        heard = sorted(self._wlan.scan(), key=lambda point: -point[3])
        found = []
        unseen = []
        order = list(range(len(self._networks)))
        if self._last_resort in order:
            order.remove(self._last_resort)
            order.append(self._last_resort)
        for index in order:
            name = self._networks[index][0]
            points = [point for point in heard if point[0] == name.encode()]
            if points:
                found += [(index, bytes(point[1]), point[2]) for point in points[:_POINTS]]
            else:
                unseen.append((index, None, 0))
        candidates = found + unseen
        begin = 0
        for place, candidate in enumerate(candidates):
            if candidate[0] == self._last_tried:
                begin = place + 1
        return candidates[begin:] + candidates[:begin]

    def _joins(self, index, bssid, deadline):
        """Join one network; False when it does not let us in, for a reason that is noted."""
        word = self._try(index, bssid, deadline)
        if word is not None and word.startswith(_UNCLEAR):
            # A first attempt fails now and then, for no reason that a person could mend.
            word = self._try(index, bssid, deadline)
        if word is not None:
            self._faults.append("%d %s" % (index + 1, word))
        return word is None

    def _try(self, index, bssid, deadline):
        """None when joined, else a word for what was wrong."""
        name, password = self._networks[index]
        stale = self._wlan.status()
        self._wlan.connect(name, password or None, bssid=bssid)
        begun_ms = time.ticks_ms()
        try:
            while not self._wlan.isconnected():
                status = self._wlan.status()
                is_old = time.ticks_diff(time.ticks_ms(), begun_ms) < _STALE_MS
                if status not in _QUIET and not (status == stale and is_old):
                    self._wlan.disconnect()
                    return _word(status)
                deadline.nap("wifi")
        except TimedOut:
            self._wlan.disconnect()
            return "no address"
        return None

    def _lease(self):
        return [list(self._wlan.ifconfig()), self._uptime_ms]


def _word(status):
    if status in _NOT_FOUND:
        return "not found"
    return "password" if status in _PASSWORD else _UNCLEAR + " %d" % status
