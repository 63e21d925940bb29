"""The node's Wi-Fi, sockets and TLS, with faults on demand.

TCP goes to real sockets of the host, TLS is CPython's `ssl` on them, both non-blocking with one place that waits
(`_wait`), so that watchdog and deadlines hold. The virtual network answers SNTP itself: UDP port 123 of any name is
a time server with true simulated time. Other UDP goes nowhere.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import select
import socket
import ssl
import struct
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hardware.virtual_board import errno_esp32 as errno
from hardware.virtual_board.radio import AccessPoint, Radio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hardware.virtual_board.clock import BoardClock
    from hardware.virtual_board.vm import Vm
    from hardware.virtual_board.wiring import PowerSwitch

_POLLIN, _POLLOUT, _POLLERR, _POLLHUP = 1, 4, 8, 16
_NTP_PORT = 123
_NTP_UNIX_DELTA_S = 2_208_988_800
_NTP_ADDRESS = "192.0.2.123"  # RFC 5737: never a real host
_EPOCH_2000_UNIX_US = 946_684_800 * 1_000_000
_PORTAL_ADDRESS = "192.0.2.80"
_PORTAL_ANSWER = (
    b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.80/login\r\nContent-Length: 0\r\n\r\n"
)
_ROUND_TRIP_US = 20_000
_HANDSHAKE_STEP_US = 2_000


@dataclass
class NetworkPolicy:
    """How the network behaves; may be changed at any time, also while a node is connected.

    Attributes:
        wifi: "ok", "absent" (no access point), "wrong_password" or "no_dhcp" (associates, no address).
        access_points: those in reach; None: any that the node asks for, whatever its key, but a scan does not show it.
        wifi_connect_ms: from `connect` to being joined; with a static address that is all.
        dhcp_ms, scan_ms, wrong_key_ms: what DHCP takes after that; all channels; until a wrong key is noticed.
        address: what DHCP gives to the node; a node with another one gets no answer from anywhere.
        vanishes_after_ms: the access point is gone so long after the node has joined.
        rssi_dbm: signal strength, where `access_points` does not say.
        tcp: "ok", "refused" (reset at connect), "unreachable" (connect never ends), "half_open"
            (connected, but nothing goes out and nothing comes in) or "captive" (a portal answers whatever one connects to).
        delay_ms: added to every exchange (slow network).
        drop_after_sent: half-open after so many bytes sent on one connection.
        ntp: "true", "silent", or "wrong" (off by `ntp_error_s`).
        names: answers of the name server, name -> address; other names are resolved by the host.
        dns: False: no name is ever resolved.
    """

    wifi: Literal["ok", "absent", "wrong_password", "no_dhcp"] = "ok"
    access_points: tuple[AccessPoint, ...] | None = None
    wifi_connect_ms: int = 730
    dhcp_ms: int = 870
    scan_ms: int = 2_040
    wrong_key_ms: int = 3_000
    address: str = "10.11.12.13"
    vanishes_after_ms: int | None = None
    rssi_dbm: int = -63
    tcp: Literal["ok", "refused", "unreachable", "half_open", "captive"] = "ok"
    delay_ms: int = 0
    drop_after_sent: int | None = None
    ntp: Literal["true", "silent", "wrong"] = "true"
    ntp_error_s: int = 0
    names: dict[str, str] = field(default_factory=dict)
    dns: bool = True


class _Tcp:
    """A TCP connection, plain or TLS."""

    real = True

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls: ssl.SSLSocket | None = None
        self.handshaken = False
        self.verify_node_time = False
        self.connecting = False
        self.connected = False
        self.broken = 0  # errno of a dead connection
        self.wants_write = False
        self.sent = 0
        self.unreachable = False
        self.quiet_until_us = 0  # a slow network: nothing arrives before
        self.greeted = False
        self._portal: socket.socket | None = None

    def reach_portal(self) -> None:
        """Be connected to somebody who says only where to log in, and hangs up."""
        self.socket.close()
        self.socket, self._portal = socket.socketpair()
        self.socket.setblocking(False)
        self._portal.sendall(_PORTAL_ANSWER)
        self._portal.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        (self.tls or self.socket).close()
        if self._portal is not None:
            self._portal.close()


class _Udp:
    """A datagram socket inside the virtual network."""

    real = False

    def __init__(self) -> None:
        self.replies: list[tuple[int, bytes]] = []  # (arrival µs, datagram)
        self.peer: tuple[str, int] = (_NTP_ADDRESS, _NTP_PORT)


class Network:
    """One wake's Wi-Fi and sockets."""

    def __init__(
        self,
        *,
        clock: BoardClock,
        policy: NetworkPolicy,
        mac: bytes,
        power: Sequence[PowerSwitch],
    ) -> None:
        self.policy = policy
        self.connections = 0
        self._clock = clock
        self.radio = Radio(clock=clock, policy=lambda: self.policy, mac=mac, power=power)
        self._vm: Vm | None = None
        self._sockets: dict[int, _Tcp | _Udp] = {}
        self._next = 1

    def attach(self, vm: Vm) -> None:
        """The machine whose memory addresses in payloads belong to."""
        self._vm = vm

    def close(self) -> None:
        """Close whatever the run left open."""
        for number in list(self._sockets):
            self._close(str(number))

    def operations(self) -> dict[str, Callable[[str], str | int | None]]:
        """Host calls by name."""
        return {
            **self.radio.operations(),
            "wifi_active": self._switch_wifi,
            "wifi_disconnect": self._leave_wifi,
            "resolve": self._resolve,
            "sock_open": self._open,
            "sock_close": self._close,
            "sock_connect": self._connect,
            "sock_send": self._send,
            "sock_recv": self._recv,
            "sock_sendto": self._sendto,
            "sock_recvfrom": self._recvfrom,
            "sock_poll": self._poll,
            "tls_wrap": self._tls_wrap,
            "tls_handshake": self._tls_handshake,
            "tls_cipher": self._tls_cipher,
        }

    # --- Wi-Fi ---

    def _switch_wifi(self, payload: str) -> None:
        self.radio.switch(payload == "1")
        if payload != "1":
            self.close()

    def _leave_wifi(self, _payload: str) -> None:
        self.radio.disconnect()
        self.close()

    # --- names ---

    def _resolve(self, payload: str) -> str:
        name, port = payload.rsplit(" ", 1)
        if not self.radio.is_online():
            raise OSError(-errno.EAI_FAIL, "no network")
        with contextlib.suppress(OSError):
            socket.inet_aton(name)
            return name
        self._clock.advance(_ROUND_TRIP_US + self.policy.delay_ms * 1000)
        if not self.policy.dns or not self.radio.is_routed():
            self._clock.advance(5_000_000)
            raise OSError(-errno.EAI_FAIL, "no answer")
        if self.radio.is_captive():
            return _PORTAL_ADDRESS
        if name in self.policy.names:
            return self.policy.names[name]
        if int(port) == _NTP_PORT:
            return _NTP_ADDRESS
        try:
            return str(socket.getaddrinfo(name, None, socket.AF_INET)[0][4][0])
        except OSError:
            raise OSError(-errno.EAI_FAIL, "unknown name") from None

    # --- sockets ---

    def _memory(self, address: int, size: int) -> memoryview:
        assert self._vm is not None  # noqa: S101 - attached before the run
        return self._vm.memory(address, size)

    def _open(self, payload: str) -> int:
        if payload == "udp":
            made: _Tcp | _Udp = _Udp()
        else:
            made = _Tcp()
            self._clock.socket_opened()
        number, self._next = self._next, self._next + 1
        self._sockets[number] = made
        return number

    def _close(self, payload: str) -> None:
        found = self._sockets.pop(int(payload), None)
        if isinstance(found, _Tcp):
            found.close()
            self._clock.socket_closed()

    def _get(self, number: str) -> _Tcp | _Udp:
        found = self._sockets.get(int(number))
        if found is None:
            raise OSError(errno.EBADF, "socket is closed")
        return found

    def _tcp(self, number: str) -> _Tcp:
        found = self._get(number)
        if not isinstance(found, _Tcp):
            raise OSError(errno.EOPNOTSUPP, "not a TCP socket")
        return found

    def _connect(self, payload: str) -> None:
        """`socket address port timeout_ms`; a time-out below 0 waits for ever, 0 does not wait."""
        number, address, port, timeout_ms = payload.split()
        found = self._get(number)
        if isinstance(found, _Udp):
            found.peer = (address, int(port))
            return
        if not self.radio.is_online():
            raise OSError(errno.EHOSTUNREACH, "no network")
        self.connections += 1
        found.connecting = True
        if self.policy.tcp == "refused":
            found.broken = errno.ECONNREFUSED
            raise OSError(errno.ECONNREFUSED, "refused")
        found.unreachable = self.policy.tcp == "unreachable" or not self.radio.is_routed()
        if self.radio.is_captive():
            found.reach_portal()
        elif not found.unreachable:
            try:
                found.socket.connect((address, int(port)))
            except BlockingIOError:
                pass
            except OSError as error:
                raise OSError(_esp32(error.errno), str(error)) from None
        if int(timeout_ms) == 0:
            raise OSError(errno.EINPROGRESS, "in progress")
        if not self._wait({found: _POLLOUT}, int(timeout_ms)):
            raise OSError(errno.ETIMEDOUT, "no answer")
        self._finish_connect(found)
        self._clock.advance(self.policy.delay_ms * 1000)

    def _finish_connect(self, tcp: _Tcp) -> None:
        error = tcp.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            tcp.broken = _esp32(error)
            raise OSError(tcp.broken, "connect failed")
        tcp.connected = True

    def _send(self, payload: str) -> int:
        """`socket address size timeout_ms`: bytes taken; EAGAIN or ETIMEDOUT when none."""
        number, address, size, timeout_ms = map(int, payload.split())
        tcp = self._usable(str(number))
        data = bytes(self._memory(address, size))
        limit = self.policy.drop_after_sent
        if self._is_cut_off() or (limit is not None and tcp.sent + size > limit):
            tcp.sent += size
            return size  # into the send buffer, and no further
        self._complete_handshake(tcp, timeout_ms)
        sent = self._retry(tcp, lambda: (tcp.tls or tcp.socket).send(data), timeout_ms, _POLLOUT)
        tcp.sent += sent
        self._expect_delay(tcp)
        return sent

    def _recv(self, payload: str) -> int:
        """`socket address size timeout_ms`: bytes received; 0 at the end of the stream."""
        number, address, size, timeout_ms = map(int, payload.split())
        tcp = self._usable(str(number))

        def receive() -> int:
            try:
                data = (tcp.tls or tcp.socket).recv(size)
            except ssl.SSLEOFError:
                return 0
            self._memory(address, len(data))[:] = data
            return len(data)

        self._complete_handshake(tcp, timeout_ms)
        self._wait_through_silence(tcp, timeout_ms)
        return self._retry(tcp, receive, timeout_ms, _POLLIN)

    def _usable(self, number: str) -> _Tcp:
        tcp = self._tcp(number)
        if tcp.broken:
            raise OSError(tcp.broken, "connection is broken")
        if not tcp.connected and tcp.connecting and not tcp.unreachable:
            if not _ready(tcp.socket, select.POLLOUT):
                raise OSError(errno.EAGAIN, "still connecting")
            self._finish_connect(tcp)
        if not tcp.connected:
            raise OSError(errno.ENOTCONN, "not connected")
        return tcp

    def _deaf(self, tcp: _Tcp) -> bool:
        """Nothing arrives: for good (half-open) or not yet (slow)."""
        limit = self.policy.drop_after_sent
        half_open = self._is_cut_off() or (limit is not None and tcp.sent > limit)
        return half_open or self._clock.now_us() < tcp.quiet_until_us

    def _is_cut_off(self) -> bool:
        return self.policy.tcp == "half_open" or not self.radio.is_routed()

    def _expect_delay(self, tcp: _Tcp) -> None:
        if self.policy.delay_ms:
            tcp.quiet_until_us = self._clock.now_us() + 2 * self.policy.delay_ms * 1000

    def _wait_through_silence(self, tcp: _Tcp, timeout_ms: int) -> None:
        if self._deaf(tcp) and not self._wait({tcp: _POLLIN}, timeout_ms):
            raise OSError(errno.EAGAIN if timeout_ms == 0 else errno.ETIMEDOUT, "nothing came")

    def _retry(self, tcp: _Tcp, action: Callable[[], int], timeout_ms: int, direction: int) -> int:
        """Do `action` as soon as the socket lets it, within the time-out."""
        until_us = self._clock.now_us() + timeout_ms * 1000
        while True:
            try:
                return action()
            except (ssl.SSLWantReadError, BlockingIOError) as error:
                wanted = _POLLIN if isinstance(error, ssl.SSLWantReadError) else direction
            except ssl.SSLWantWriteError:
                wanted = _POLLOUT
            except ssl.SSLCertVerificationError as error:
                tcp.broken = errno.ECONNABORTED
                raise ValueError(error.verify_message) from None
            except ssl.SSLError as error:
                tcp.broken = errno.ECONNRESET
                raise OSError(-0x7780, f"TLS: {error.reason}") from None
            except OSError as error:
                tcp.broken = _esp32(error.errno)
                raise OSError(tcp.broken, str(error)) from None
            if timeout_ms == 0:
                raise OSError(errno.EAGAIN, "would block")
            left_ms = -1
            if timeout_ms > 0:
                left_ms = (until_us - self._clock.now_us()) // 1000
            if (timeout_ms > 0 and left_ms <= 0) or not self._wait({tcp: wanted}, left_ms):
                raise OSError(errno.ETIMEDOUT, "timed out")

    # --- waiting ---

    def _events(self, found: _Tcp | _Udp, mask: int) -> int:
        """Which of `mask` hold now, without waiting."""
        if isinstance(found, _Udp):
            now = self._clock.now_us()
            arrived = any(arrival_us <= now for arrival_us, _ in found.replies)
            return mask & (_POLLOUT | (_POLLIN if arrived else 0))
        if found.broken:
            return _POLLERR | _POLLHUP | (mask & (_POLLIN | _POLLOUT))
        if found.unreachable or not (found.connecting or found.connected):
            return 0
        if self._deaf(found):
            return mask & _POLLOUT
        if found.tls is not None and found.handshaken and found.tls.pending():
            return (mask & _POLLIN) | (self._raw_events(found, mask & _POLLOUT))
        return self._raw_events(found, mask)

    def _raw_events(self, tcp: _Tcp, mask: int) -> int:
        poll = select.poll()
        poll.register(tcp.socket if tcp.tls is None else tcp.tls, _to_host(mask))
        for _, events in poll.poll(0):
            return _from_host(events)
        return 0

    def _wait(self, wanted: dict[_Tcp | _Udp, int], timeout_ms: int) -> dict[_Tcp | _Udp, int]:
        """Wait until one of the sockets is ready: {socket: events}, empty after the time-out.

        Raises:
            WatchdogBite, AwakeTooLong: when the board's limits come first.
        """
        clock = self._clock
        until_us = None if timeout_ms < 0 else clock.now_us() + timeout_ms * 1000
        while True:
            assert self._vm is not None  # noqa: S101 - attached before the run
            self._vm.prove_alive()
            clock.check()
            ready = {s: e for s, mask in wanted.items() if (e := self._events(s, mask))}
            if ready:
                return ready
            now = clock.now_us()
            if until_us is not None and now >= until_us:
                return {}
            wait_us = clock.wait_allowance_us()
            if until_us is not None:
                wait_us = min(wait_us, until_us - now)
            arrivals = [a for s in wanted if isinstance(s, _Udp) for a, _ in s.replies if a > now]
            arrivals += [
                s.quiet_until_us for s in wanted if isinstance(s, _Tcp) and s.quiet_until_us > now
            ]
            if arrivals:
                wait_us = min(wait_us, min(arrivals) - now)
            self._let_pass(wanted, wait_us)

    def _let_pass(self, wanted: dict[_Tcp | _Udp, int], wait_us: int) -> None:
        if not any(s.real for s in self._sockets.values()):
            self._clock.advance(wait_us)
            return
        poll = select.poll()
        for found, mask in wanted.items():
            if isinstance(found, _Tcp) and not found.unreachable and not self._deaf(found):
                poll.register(found.socket if found.tls is None else found.tls, _to_host(mask))
        # In slices, so that a policy changed meanwhile is noticed and the guard sees life.
        poll.poll(max(1, min(wait_us // 1000, 200)))

    def _poll(self, payload: str) -> str:
        """`timeout_ms number:mask …` -> `number:events …`."""
        timeout, *items = payload.split()
        wanted: dict[_Tcp | _Udp, int] = {}
        numbers: dict[_Tcp | _Udp, str] = {}
        for item in items:
            number, mask = item.split(":")
            found = self._sockets.get(int(number))
            if found is not None:
                wanted[found] = int(mask)
                numbers[found] = number
        ready = self._wait(wanted, int(timeout))
        return " ".join(f"{numbers[found]}:{events}" for found, events in ready.items())

    # --- UDP: the virtual time server ---

    def _sendto(self, payload: str) -> int:
        """`socket address size ip port`."""
        number, address, size, ip, port = payload.split()
        found = self._get(number)
        if not isinstance(found, _Udp):
            raise OSError(errno.EOPNOTSUPP, "not a UDP socket")
        if not self.radio.is_online():
            raise OSError(errno.EHOSTUNREACH, "no network")
        request = bytes(self._memory(int(address), int(size)))
        if ip != "-":
            found.peer = (ip, int(port))
        is_heard = self.radio.is_routed() and not self.radio.is_captive()
        if found.peer[1] == _NTP_PORT and self.policy.ntp != "silent" and is_heard:
            found.replies.append(self._time_answer(request))
        return len(request)

    def _time_answer(self, request: bytes) -> tuple[int, bytes]:
        """An SNTP server's reply (RFC 4330 section 4) and when it arrives."""
        delay_us = _ROUND_TRIP_US + 2 * self.policy.delay_ms * 1000
        wrong_us = self.policy.ntp_error_s * 1_000_000 if self.policy.ntp == "wrong" else 0
        now = self._clock.now_us()
        served_us = now + delay_us // 2 + wrong_us
        stamp = _ntp_timestamp(served_us)
        originate = request[40:48].ljust(8, b"\0")
        head = struct.pack(">BBbbII4s", 0x24, 1, 6, -20, 0, 0, b"GPS\0")
        return now + delay_us, head + stamp + originate + stamp + stamp

    def _recvfrom(self, payload: str) -> str:
        """`socket address size timeout_ms` -> `length ip port`."""
        number, address, size, timeout_ms = map(int, payload.split())
        found = self._get(str(number))
        if not isinstance(found, _Udp):
            raise OSError(errno.EOPNOTSUPP, "not a UDP socket")
        if not self._wait({found: _POLLIN}, timeout_ms):
            raise OSError(errno.EAGAIN if timeout_ms == 0 else errno.ETIMEDOUT, "nothing came")
        _, data = found.replies.pop(0)
        data = data[:size]
        self._memory(address, len(data))[:] = data
        return f"{len(data)} {found.peer[0]} {found.peer[1]}"

    # --- TLS ---

    def _tls_wrap(self, payload: str) -> None:
        """`socket verify server_name` + three (address, size) of CA (DER, several allowed), certificate, key."""
        number, verify, name, *places = payload.split("\0")
        tcp = self._usable(number)
        spans = [int(p) for p in places]
        ca, certificate, key = (
            bytes(self._memory(spans[i], spans[i + 1])) if spans[i + 1] else b"" for i in (0, 2, 4)
        )
        try:
            context = _tls_context(ca, certificate, key, verify == "1", bool(name))
            tcp.tls = context.wrap_socket(
                tcp.socket, do_handshake_on_connect=False, server_hostname=name or None
            )
        except (ssl.SSLError, ValueError) as error:
            raise ValueError(f"invalid cert or key: {error}") from None
        tcp.verify_node_time = verify == "1"

    def _tls_handshake(self, payload: str) -> None:
        """`socket timeout_ms`."""
        number, timeout_ms = payload.split()
        tcp = self._usable(number)

        self._complete_handshake(tcp, int(timeout_ms))

    def _complete_handshake(self, tcp: _Tcp, timeout_ms: int) -> None:
        """Go on with the handshake (reads and writes do, when it was not done at connect)."""
        tls = tcp.tls
        if tls is None or tcp.handshaken:
            return

        def handshake() -> int:
            tls.do_handshake()
            return 0

        if not tcp.greeted:
            # The first step says hello; the answer to that is what may be slow.
            tcp.greeted = True
            with contextlib.suppress(BlockingIOError):
                self._retry(tcp, handshake, 0, _POLLIN)
            self._expect_delay(tcp)
        self._wait_through_silence(tcp, timeout_ms)
        try:
            self._retry(tcp, handshake, timeout_ms, _POLLIN)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                # Firmware that waits for the wrong direction would otherwise burn the host's time.
                self._let_pass({tcp: _POLLIN}, _HANDSHAKE_STEP_US)
            raise
        tcp.handshaken = True
        if tcp.verify_node_time:
            self._verify_by_node_time(tcp)

    def _verify_by_node_time(self, tcp: _Tcp) -> None:
        """mbedTLS judges a certificate's validity by the node's own clock, OpenSSL by the host's."""
        assert tcp.tls is not None  # noqa: S101
        der = tcp.tls.getpeercert(binary_form=True)
        if der is None:
            return
        peer = x509.load_der_x509_certificate(der)
        node_us = self._clock.rtc_us() + _EPOCH_2000_UNIX_US
        now = datetime.datetime.fromtimestamp(node_us / 1e6, datetime.UTC)
        if now < peer.not_valid_before_utc:
            tcp.broken = errno.ECONNABORTED
            raise ValueError("The certificate validity starts in the future")
        if now > peer.not_valid_after_utc:
            tcp.broken = errno.ECONNABORTED
            raise ValueError("The certificate validity has expired")

    def _tls_cipher(self, payload: str) -> str:
        tcp = self._tcp(payload)
        cipher = tcp.tls.cipher() if tcp.tls else None
        return f"{cipher[0]} {cipher[1]}" if cipher else ""


@functools.lru_cache(maxsize=64)
def _tls_context(
    ca: bytes, certificate: bytes, key: bytes, verify: bool, check_name: bool
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # MicroPython's mbedTLS on an ESP32 is built without TLS 1.3.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = verify and check_name
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    if ca:
        context.load_verify_locations(cadata=ca if not ca.startswith(b"-----") else ca.decode())
    if certificate:
        # CPython takes a client key only from a file; it exists for this call only.
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(_pem(certificate, "CERTIFICATE") + _key_pem(key))
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _pem(der: bytes, label: str) -> bytes:
    if der.startswith(b"-----"):
        return der
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def _key_pem(key: bytes) -> bytes:
    if key.startswith(b"-----"):
        return key
    return serialization.load_der_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _ntp_timestamp(unix_us: int) -> bytes:
    seconds, micro = divmod(unix_us, 1_000_000)
    fraction = (micro << 32) // 1_000_000
    return struct.pack(">II", (seconds + _NTP_UNIX_DELTA_S) & 0xFFFFFFFF, fraction)


def _ready(sock: socket.socket, events: int) -> bool:
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(0))


def _to_host(mask: int) -> int:
    return (select.POLLIN if mask & _POLLIN else 0) | (select.POLLOUT if mask & _POLLOUT else 0)


def _from_host(events: int) -> int:
    return (
        (_POLLIN if events & (select.POLLIN | select.POLLHUP) else 0)
        | (_POLLOUT if events & select.POLLOUT else 0)
        | (_POLLERR if events & select.POLLERR else 0)
        | (_POLLHUP if events & select.POLLHUP else 0)
    )


_HOST_TO_ESP32 = {
    "ECONNREFUSED": errno.ECONNREFUSED,
    "ECONNRESET": errno.ECONNRESET,
    "EPIPE": errno.ECONNRESET,
    "ECONNABORTED": errno.ECONNABORTED,
    "ETIMEDOUT": errno.ETIMEDOUT,
    "EHOSTUNREACH": errno.EHOSTUNREACH,
    "ENETUNREACH": errno.EHOSTUNREACH,
    "ENOTCONN": errno.ENOTCONN,
    "EISCONN": errno.EISCONN,
    "EADDRINUSE": errno.EADDRINUSE,
    "ENOBUFS": errno.ENOBUFS,
    "ENOMEM": errno.ENOMEM,
    "EBADF": errno.EBADF,
    "EINVAL": errno.EINVAL,
}


def _esp32(host_number: int | None) -> int:
    """The node's number for an error of the host's C library."""
    import errno as host_errno

    return _HOST_TO_ESP32.get(host_errno.errorcode.get(host_number or 0, ""), errno.EIO)
