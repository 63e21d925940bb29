"""Requests of ours to addresses that people typed: looked up once, refused when they lead into a private network, never redirected.

The connection goes to the very address that was looked at, so that a name server that changes its mind in between changes nothing.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fleet_server.errors import FleetError

TIMEOUT_S = 10
_PORTS = {"https": 443, "http": 80}


class NotReached(FleetError):
    """There was no answer; `is_final`: and never will be like this."""

    code = "not_reached"

    def __init__(self, sentence: str, /, *, is_final: bool = False, **fields: object) -> None:
        super().__init__(sentence, **fields)
        self.is_final = is_final


@dataclass(frozen=True)
class Allowed:
    """Hosts, addresses and networks that may be private and without TLS; `setting` names them in sentences."""

    setting: str
    listed: str

    def has(self, host: str) -> bool:
        for one in self.listed.split(","):
            allowed = one.strip()
            if not allowed:
                continue
            if host == allowed:
                return True
            try:
                if ipaddress.ip_address(host) in ipaddress.ip_network(allowed, strict=False):
                    return True
            except ValueError:
                continue  # one of the two is a name
        return False


@dataclass(frozen=True)
class Answer:
    """`body` may be cut off where more was not wanted."""

    status: int
    body: bytes


def ask(
    method: str,
    url: str,
    *,
    allowed: Allowed,
    longest_bytes: int,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request; redirects are answers like others.

    Raises:
        NotReached: there was no answer, or the address leads where nothing of ours may go.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError) as problem:
        raise NotReached("%(url)r is no address.", url=url, is_final=True) from problem
    host = parts.hostname or ""
    if parts.scheme != "https" and not allowed.has(host):
        raise NotReached("%(host)s is not spoken to without TLS.", host=host, is_final=True)
    address = look_up(host, port, allowed)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Connection(host, address, is_tls=parts.scheme == "https")
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, answer.read(longest_bytes))
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise NotReached(
            "%(host)s cannot be reached: %(problem)s", host=host, problem=problem
        ) from problem
    finally:
        connection.close()


def look_up(host: str, port: int, allowed: Allowed) -> tuple[str, int]:
    """One address of this host to connect to.

    Raises:
        NotReached: there is none, or any of them is private, loopback, link-local or otherwise not public, and not allow-listed.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise NotReached("%(host)s is not known to the name servers.", host=host) from problem
    addresses = [str(one[4][0]).partition("%")[0] for one in found]
    if not allowed.has(host):
        for address in addresses:
            if not _is_public(address) and not allowed.has(address):
                raise NotReached(
                    "%(host)s leads to %(address)s, which is no public address; %(setting)s can allow it.",
                    host=host,
                    address=address,
                    setting=allowed.setting,
                    is_final=True,
                )
    return addresses[0], port


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text)
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    if mapped is not None:
        address = mapped
    return address.is_global and not address.is_multicast


class _Connection(http.client.HTTPConnection):
    """To an address that was looked up before, under the name that it was looked up for."""

    def __init__(self, host: str, address: tuple[str, int], *, is_tls: bool) -> None:
        super().__init__(host, address[1], timeout=TIMEOUT_S)
        self._address = address
        self._is_tls = is_tls
        if is_tls:
            self.default_port = _PORTS["https"]  # what `Host` need not say

    def connect(self) -> None:
        self.sock = socket.create_connection(self._address, TIMEOUT_S)
        if self._is_tls:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
