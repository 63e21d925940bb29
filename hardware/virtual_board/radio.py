"""The node's Wi-Fi: access points around it, joining, addresses, and what MicroPython's `network.WLAN` makes of all that.

Statuses follow ports/esp32/network_wlan.c of MicroPython 1.27: a failure shows at once only for some reasons, the others when
`reconnects` are used up (never, by default), and the reason of an earlier network stays until a later one gives an address.

Times, unless a policy says otherwise: joining with a known address 0.73 s and DHCP 0.87 s more (design/node.md, from published
measurements); a scan 2.04 s (ESP-IDF's defaults: channels 1–11 actively 120 ms each, 12 and 13 passively 360 ms).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.virtual_board.wiring import RADIO

if TYPE_CHECKING:
    from hardware.virtual_board.clock import BoardClock
    from hardware.virtual_board.network import NetworkPolicy
    from hardware.virtual_board.wiring import PowerSwitch

# network.STAT_… of the ESP32 port, and reasons of esp_wifi_types.h.
STAT_IDLE, STAT_CONNECTING, STAT_GOT_IP = 1000, 1001, 1010
_ASSOC_LEAVE, _HANDSHAKE_TIMEOUT_4WAY, _BEACON_TIMEOUT = 8, 15, 200
_NO_AP_FOUND, _AUTH_FAIL, _CONNECTION_FAIL = 201, 202, 205
_SHOWN_AT_ONCE = {
    _NO_AP_FOUND: _NO_AP_FOUND,
    _AUTH_FAIL: _AUTH_FAIL,
    _CONNECTION_FAIL: _AUTH_FAIL,
    _ASSOC_LEAVE: STAT_IDLE,
}
_FOR_EVER = -1
# What the ESP32 port copies of a name and a key; the rest is cut off without a word.
_SSID_BYTES, _KEY_BYTES = 32, 64
_NO_ADDRESS = "0.0.0.0"  # noqa: S104 - not bound to
_STATIC_PARTS = 4


@dataclass(frozen=True)
class AccessPoint:
    """One access point in reach. `key` is empty where the network is open; names are compared as UTF-8."""

    ssid: str
    key: str = ""
    bssid: bytes = b"\x02\x00\x00\x00\x00\x01"
    channel: int = 6
    rssi_dbm: int = -63
    is_hidden: bool = False
    is_portal: bool = False  # behind it there is only a page to log in


@dataclass(frozen=True)
class _Wanted:
    ssid: bytes
    key: bytes
    bssid: bytes | None


class Radio:
    """One wake's Wi-Fi. `policy` is asked at every step: it may change meanwhile."""

    def __init__(
        self,
        *,
        clock: BoardClock,
        policy: Callable[[], NetworkPolicy],
        mac: bytes,
        power: Sequence[PowerSwitch],
    ) -> None:
        """`power`: who is told when the radio goes on and off."""
        self._clock = clock
        self._power = power
        self._policy = policy
        self._mac = mac
        self._is_active = False
        self._on_since_us = 0
        self._on_us = 0
        self._wanted: _Wanted | None = None
        self._reconnects = _FOR_EVER
        self._failures = 0
        self._reason = 0
        self._event: tuple[int, int] | None = None  # when the attempt ends, and with which reason
        self._joined: AccessPoint | None = None
        self._joined_us = 0
        self._static: tuple[str, ...] | None = None
        self._address_us: int | None = None  # when DHCP has given an address

    @property
    def on_us(self) -> int:
        """How long the radio has been on in this wake."""
        return self._on_us + (self._clock.now_us() - self._on_since_us if self._is_active else 0)

    def operations(self) -> dict[str, Callable[[str], str | int | None]]:
        """Host calls by name; Network adds what ends connections."""
        return {
            "wifi_connect": self._connect,
            "wifi_status": lambda _: self.status(),
            "wifi_info": self._info,
            "wifi_scan": lambda _: self._scan(),
            "wifi_reconnects": self._set_reconnects,
            "wifi_static": self._set_static,
            "wifi_dhcp": lambda _: self._ask_dhcp(),
        }

    def switch(self, on: bool) -> None:
        """`WLAN.active`."""
        self._on_us, self._on_since_us = self.on_us, self._clock.now_us()
        if on != self._is_active:
            for switch in self._power:
                switch.power_changed(RADIO, int(on), self._clock.now_us())
        self._is_active = on
        if not on:
            self._leave()

    def disconnect(self) -> None:
        """`WLAN.disconnect`: an attempt that was under way leaves its reason behind."""
        if self._joined is not None:
            self._reason = _ASSOC_LEAVE
        self._leave()

    def status(self) -> int:
        """`WLAN.status()`; asking takes a moment while something is going on."""
        self._live()
        if self._has_address():
            return STAT_GOT_IP
        shown = _SHOWN_AT_ONCE.get(self._reason)
        if shown is not None:
            self._clock.advance(20)
            return shown
        if self._wanted is not None and (self._event is not None or self._joined is not None):
            self._clock.advance(20)
            return STAT_CONNECTING
        return self._reason or STAT_IDLE

    def is_online(self) -> bool:
        """Whether the node has an address; whether anybody answers there is `is_routed`."""
        return self.status() == STAT_GOT_IP

    def is_routed(self) -> bool:
        """Whether packets go both ways: a remembered address may belong to another by now."""
        self._live()
        return self._has_address() and self._address() == self._policy().address

    def is_captive(self) -> bool:
        """Whether a portal answers for everybody."""
        return self._policy().tcp == "captive" or (
            self._joined is not None and self._joined.is_portal
        )

    # --- joining ---

    def _connect(self, payload: str) -> None:
        """`ssid NUL key NUL bssid in hex or nothing`."""
        if not self._is_active:
            raise OSError(0x3002, "Wifi Not Started")
        ssid, key, bssid = payload.split("\0")
        self._leave()
        self._wanted = _Wanted(
            ssid.encode()[:_SSID_BYTES],
            key.encode()[:_KEY_BYTES],
            bytes.fromhex(bssid) if bssid else None,
        )
        self._failures = 0
        self._try_from(self._clock.now_us())

    def _leave(self) -> None:
        self._wanted = self._event = self._joined = self._address_us = None

    def _try_from(self, begin_us: int) -> None:
        policy, point = self._policy(), self._point()
        if point is None:
            self._event = (begin_us + policy.scan_ms * 1000, _NO_AP_FOUND)
        elif policy.wifi == "wrong_password":
            self._event = (begin_us + policy.wifi_connect_ms * 1000, _AUTH_FAIL)
        elif not self._knows_key(point):
            end_us = begin_us + (policy.wifi_connect_ms + policy.wrong_key_ms) * 1000
            self._event = (end_us, _HANDSHAKE_TIMEOUT_4WAY)
        else:
            self._event = (begin_us + policy.wifi_connect_ms * 1000, 0)

    def _point(self) -> AccessPoint | None:
        """The access point that the driver takes: the first one by channel, not the strongest."""
        policy, wanted = self._policy(), self._wanted
        assert wanted is not None  # noqa: S101 - while joining
        if policy.wifi == "absent":
            return None
        if policy.access_points is None:
            return AccessPoint(wanted.ssid.decode(errors="replace"), rssi_dbm=policy.rssi_dbm)
        points = [
            point
            for point in policy.access_points
            if point.ssid.encode() == wanted.ssid and wanted.bssid in (None, point.bssid)
        ]
        return min(points, key=lambda point: point.channel, default=None)

    def _knows_key(self, point: AccessPoint) -> bool:
        assert self._wanted is not None  # noqa: S101 - while joining
        return self._policy().access_points is None or point.key.encode() == self._wanted.key

    def _live(self) -> None:
        """Let happen what has happened until now."""
        now_us = self._clock.now_us()
        while self._event is not None and self._event[0] <= now_us:
            at_us, reason = self._event
            self._event = None
            if reason:
                self._fail(at_us, reason)
            else:
                self._joined, self._joined_us = self._point(), at_us
                self._begin_dhcp(at_us)
        if self._joined is not None and self._has_vanished(now_us):
            self._joined = self._address_us = None
            self._fail(now_us, _BEACON_TIMEOUT)
        if self._has_address():
            self._reason = 0

    def _fail(self, at_us: int, reason: int) -> None:
        self._reason = reason
        self._failures += 1
        if self._reconnects == _FOR_EVER or self._failures <= self._reconnects:
            self._try_from(at_us)

    def _has_vanished(self, now_us: int) -> bool:
        after_ms = self._policy().vanishes_after_ms
        is_over = after_ms is not None and now_us >= self._joined_us + after_ms * 1000
        return is_over or self._point() is None

    # --- addresses ---

    def _begin_dhcp(self, at_us: int) -> None:
        policy = self._policy()
        if self._static is None and policy.wifi != "no_dhcp":
            self._address_us = at_us + policy.dhcp_ms * 1000

    def _ask_dhcp(self) -> None:
        """`WLAN.ipconfig(dhcp4=True)`: forget the static address; when joined, ask for another one."""
        self._static = None
        self._live()
        if self._joined is not None and self._address_us is None:
            self._begin_dhcp(self._clock.now_us())

    def _set_static(self, payload: str) -> None:
        """`WLAN.ifconfig((address, mask, gateway, dns))`."""
        parts = tuple(payload.split())
        if len(parts) != _STATIC_PARTS:
            raise ValueError("invalid arguments")
        self._static, self._address_us = parts, None

    def _has_address(self) -> bool:
        if self._joined is None:
            return False
        has_lease = self._address_us is not None and self._address_us <= self._clock.now_us()
        return self._static is not None or has_lease

    def _address(self) -> str:
        if not self._has_address():
            return _NO_ADDRESS
        return self._static[0] if self._static is not None else self._policy().address

    # --- questions ---

    def _set_reconnects(self, payload: str) -> None:
        self._reconnects = int(payload)

    def _scan(self) -> str:
        """One line per access point: name, bssid (both in hex), channel, dBm, security, hidden."""
        if not self._is_active:
            raise OSError(0x3002, "STA must be active")
        policy = self._policy()
        self._clock.advance(policy.scan_ms * 1000)
        points = () if policy.wifi == "absent" else policy.access_points or ()
        return "\n".join(_scanned(point) for point in points)

    def _info(self, payload: str) -> str | int:
        self._live()
        if payload == "rssi":
            if self._joined is None:
                raise OSError(0x300F, "Wifi Not Connected")
            return self._joined.rssi_dbm
        if payload == "channel":
            return self._joined.channel if self._joined is not None else 1
        if payload == "mac":
            return self._mac.hex()
        if payload == "ip":
            return self._address()
        return "" if self._wanted is None else self._wanted.ssid.decode(errors="replace")


def _scanned(point: AccessPoint) -> str:
    name = "-" if point.is_hidden else point.ssid.encode().hex()
    security = "3" if point.key else "0"
    return (
        f"{name} {point.bssid.hex()} {point.channel} {point.rssi_dbm} {security}"
        f" {int(point.is_hidden)}"
    )
