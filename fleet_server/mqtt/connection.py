"""How the services reach the broker: address, certificates, one prepared paho client."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MessageType, MQTTErrorCode

from fleet_server.errors import FleetError, Unavailable
from fleet_server.services import authority
from fleet_server.settings import Settings

KEEP_ALIVE_S = 20
# Unacknowledged messages in one direction; the brokers allow as many.
MAX_IN_FLIGHT = 2000
CONNECT_TIMEOUT_S = 10.0
# Nothing that comes back by itself: a service that meets it ends, and says what a person has to do.
CERTIFICATES_UNUSABLE = (
    authority.PairUnusable,
    authority.AuthorityDamaged,
    authority.AuthorityMissing,
)
# A node waits two seconds for its receipt: a broker that was only restarted is found again before that.
FIRST_RECONNECT_S, LAST_RECONNECT_S = 0.2, 8


_PUBACK = struct.Struct("!BBH")  # MQTT 3.1.1 section 3.4: kind, remaining length, packet id
_PACKETS_AT_ONCE = 100  # before what waits to be sent has its turn
_TLS_RECORD_BYTES = 16_384  # RFC 8446 section 5.1: no record holds more


@dataclass(frozen=True)
class ServiceAddress:
    """The broker's listener for services."""

    host: str
    port: int
    is_tls: bool


def service_address(settings: Settings) -> ServiceAddress:
    """Where the services connect.

    `mqtt://` brokers have one plain listener for all, which the settings allow on this machine only.

    Raises:
        Unavailable: the broker is the embedded one and has not been started.
    """
    if settings.broker_is_embedded:
        try:
            status = json.loads(settings.broker_status_path.read_text(encoding="utf-8"))
            return ServiceAddress(status["host"], status["ports"]["services"], is_tls=True)
        except (OSError, ValueError, KeyError) as problem:
            raise Unavailable(
                f"The embedded broker has not been started for {settings.data_dir}; run `fleet broker embedded`."
            ) from problem
    parts = urlsplit(settings.broker_url)
    is_tls = parts.scheme == "mqtts"
    port = settings.service_port if is_tls or "service_port" in parts.query else parts.port or 1883
    return ServiceAddress(parts.hostname or "", port, is_tls)


def check_certificates(settings: Settings, service: str) -> None:
    """See that a service can show the broker who it is, where the broker asks.

    Raises:
        PairUnusable: its key or certificate cannot be used; it names the file.
        AuthorityMissing: there are no certificates at all.
    """
    if urlsplit(settings.broker_url).scheme != "mqtt":
        authority.check_pair(settings.ca_dir, service)


class ServiceClient(mqtt.Client):
    """paho's client for many messages: what has come is read in one go, and many messages are acknowledged by one write."""

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """Acknowledge messages of QoS 1 that came by the present connection."""
        packets = b"".join(_PUBACK.pack(MessageType.PUBACK, 2, number) for number in packet_ids)
        if packets:
            # paho's own `ack` makes a packet, a wake-up and a write of each: a tenth of what a pack costs. It never looks into a
            # packet that it sends, so several can be one to it.
            self._packet_queue(MessageType.PUBACK, packets, 0, 1)

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """Read packets until no more is there: paho asks the operating system anew after each."""
        for _ in range(_PACKETS_AT_ONCE):
            result = super().loop_read(max_packets)
            connection = self.socket()
            if result or not isinstance(connection, _BufferedSocket) or not connection.has_more():
                break
        return result


class _BufferedSocket(ssl.SSLSocket):
    """A TLS connection that hands out a record in pieces: paho takes single bytes, and each would cost a call of OpenSSL."""

    _record = b""
    _at = 0

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        if self._at == len(self._record):
            self._record, self._at = super().recv(_TLS_RECORD_BYTES, flags), 0
        taken = self._record[self._at : self._at + buflen]
        self._at += len(taken)
        return taken

    def pending(self) -> int:
        return len(self._record) - self._at + super().pending()

    def has_more(self) -> bool:
        """Whether something can be read without waiting."""
        if self._at == len(self._record):
            try:
                self._record, self._at = super().recv(_TLS_RECORD_BYTES), 0
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except OSError:
                pass  # whoever reads meets it, as the connection's end
        return True


class _FreshContext(ssl.SSLContext):
    """Certificates as they are at each connect: roots and pairs are replaced while a service runs."""

    _folder: Path
    _service: str

    def __new__(cls, folder: Path, service: str) -> _FreshContext:
        made = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        made._folder, made._service = folder, service
        return made

    def wrap_socket(self, sock: socket.socket, *args: Any, **options: Any) -> ssl.SSLSocket:
        try:
            context = _context(authority.existing_files(self._folder), self._service)
        except FleetError as problem:
            # What paho tries again after; the authority's folder may be moving just now.
            raise OSError(str(problem)) from problem
        return context.wrap_socket(sock, *args, **options)


def _context(files: authority.AuthorityFiles, service: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.root_certificate)
    for root in files.roots:  # one may be taking another's place
        context.load_verify_locations(root)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _BufferedSocket
    context.load_cert_chain(files.certificate(service), files.key(service))
    return context


def make_client(
    settings: Settings,
    address: ServiceAddress,
    service: str,
    *,
    client_id: str,
    is_clean: bool,
    reconnects: bool,
) -> ServiceClient:
    """A client with this service's certificate, not yet connected.

    Args:
        is_clean: False lets the broker keep what was not acknowledged.
        reconnects: Whether the client comes back by itself, with what it had in hand.

    Raises:
        PairUnusable: its key or certificate cannot be used.
        AuthorityMissing: there are no certificates at all.
    """
    check_certificates(settings, service)
    client = ServiceClient(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=is_clean,
        manual_ack=True,
        reconnect_on_failure=reconnects,
    )
    if address.is_tls:
        client.tls_set_context(_FreshContext(settings.ca_dir, service))
    client.connect_timeout = CONNECT_TIMEOUT_S
    client.max_inflight_messages_set(MAX_IN_FLIGHT)
    client.max_queued_messages_set(0)
    client.reconnect_delay_set(FIRST_RECONNECT_S, LAST_RECONNECT_S)  # type: ignore[arg-type]  # takes fractions, too
    return client


def service_client_id(service: str, name: str | None) -> str:
    """Client id of a service's process; `name` tells several of one service apart."""
    return service if name is None else f"{service}-{name}"
