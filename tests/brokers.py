"""Brokers and clients for tests: certificates, a raw MQTT client that can also misbehave, both brokers behind one interface."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_server.broker import mosquitto
from fleet_server.broker.access import ListenerName
from fleet_server.broker.embedded import EmbeddedBroker, Limits
from fleet_server.broker.refusals import Tally
from fleet_server.services import authority
from fleet_server.settings import Settings, load_settings

CONNACK, PUBLISH, PUBACK, SUBACK, PINGRESP = 2, 3, 4, 9, 13
_PATIENCE_S = 10.0


def wait_until(is_so: Callable[[], object], *, patience_s: float = _PATIENCE_S) -> None:
    """Return as soon as `is_so()`; fail the test when it never is."""
    deadline = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"not so after {patience_s} s")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- certificates


@dataclass(frozen=True)
class Pair:
    """Certificate and key of one client."""

    certificate: Path
    key: Path


class Certificates:
    """A fleet's authority in a folder, and what a test needs signed by it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.initialise(folder)
        self.files = authority.AuthorityFiles(folder)
        self._made = 0

    def node(self, node_id: str) -> Pair:
        """A new key and certificate for this node."""
        self._made += 1
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(subject)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        issued = authority.sign_node_request(self.folder, request, node_id=node_id)
        nodes = self.folder / "nodes"
        nodes.mkdir(exist_ok=True)
        pair = Pair(nodes / f"{node_id}-{self._made}.crt", nodes / f"{node_id}-{self._made}.key")
        pair.certificate.write_text(issued.pem, encoding="ascii")
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair

    def service(self, name: str) -> Pair:
        return Pair(self.files.certificate(name), self.files.key(name))


# --- a client that does what it is told, also what no library would


class Gone(Exception):
    """The broker ended the connection."""


@dataclass
class RawClient:
    """An MQTT 3.1.1 client made of a TLS socket; every wait has a limit."""

    port: int
    pair: Pair | None
    trusted: Path
    host: str = "127.0.0.1"
    timeout_s: float = 5.0
    received: list[tuple[str, bytes, bool]] = field(default_factory=list)
    _packet_id: int = 0

    def __post_init__(self) -> None:
        context = ssl.create_default_context(cafile=self.trusted)
        if self.pair:
            context.load_cert_chain(self.pair.certificate, self.pair.key)
        plain = socket.create_connection((self.host, self.port), timeout=self.timeout_s)
        try:
            self.socket = context.wrap_socket(plain, server_hostname=self.host)
        except (OSError, ssl.SSLError) as problem:
            plain.close()
            raise Gone from problem

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Vanish without DISCONNECT."""
        with suppress(OSError):
            self.socket.close()

    def goodbye(self) -> None:
        with suppress(OSError, Gone):
            self.send(b"\xe0\x00")
        self.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as problem:
            raise Gone from problem

    def packet(self, *, timeout_s: float | None = None) -> tuple[int, int, bytes]:
        """The next packet: type, flags, body."""
        self.socket.settimeout(timeout_s or self.timeout_s)
        first = self._exactly(1)[0]
        length = shift = 0
        while True:
            byte = self._exactly(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        return first >> 4, first & 15, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except TimeoutError:
                raise
            except OSError as problem:
                raise Gone from problem
            if not more:
                raise Gone
            data += more
        return data

    def wait_for(self, kind: int, *, timeout_s: float | None = None) -> bytes:
        """The body of the next packet of this type; messages on the way are received and acknowledged."""
        deadline = time.monotonic() + (timeout_s or self.timeout_s)
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            got, flags, body = self.packet(timeout_s=left_s)
            if got == PUBLISH:
                self._receive(flags, body)
            if got == kind:
                return body

    def _receive(self, flags: int, body: bytes) -> None:
        end = 2 + int.from_bytes(body[:2])
        topic = body[2:end].decode()
        if flags & 6:
            self.send(b"\x40\x02" + body[end : end + 2])
            end += 2
        self.received.append((topic, body[end:], bool(flags & 1)))

    def connect(
        self,
        client_id: str,
        *,
        keep_alive_s: int = 30,
        is_clean: bool = True,
        will: tuple[str, bytes, bool] | None = None,
    ) -> int:
        """CONNECT; the return code, or 255 when the connection just ended."""
        try:
            self.send(connect_bytes(client_id, keep_alive_s, is_clean=is_clean, will=will))
            return self.wait_for(CONNACK)[1]
        except Gone:
            return 255

    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False
    ) -> int:
        """Send a PUBLISH and do not wait; its packet id."""
        self._packet_id += 1
        self.send(publish_bytes(topic, payload, self._packet_id, qos=qos, is_retained=is_retained))
        return self._packet_id

    def publish_and_wait(self, topic: str, payload: bytes, **options: bool) -> None:
        packet_id = self.publish(topic, payload, **options)
        while int.from_bytes(self.wait_for(PUBACK)) != packet_id:
            pass

    def subscribe(self, *filters: str) -> list[int]:
        """SUBSCRIBE at QoS 1; the return codes."""
        self._packet_id += 1
        body = self._packet_id.to_bytes(2) + b"".join(_text(name) + b"\x01" for name in filters)
        self.send(packet_bytes(0x82, body))
        return list(self.wait_for(SUBACK)[2:])

    def drain(self, *, quiet_s: float = 0.1) -> list[tuple[str, bytes, bool]]:
        """Everything received so far, once nothing more comes for `quiet_s` after a ping's answer."""
        with suppress(Gone):
            self.send(b"\xc0\x00")
            self.wait_for(PINGRESP)
            with suppress(TimeoutError):
                self.wait_for(255, timeout_s=quiet_s)
        return self.received

    def is_alive(self) -> bool:
        try:
            self.send(b"\xc0\x00")
            self.wait_for(PINGRESP)
        except (Gone, TimeoutError):
            return False
        return True


def packet_bytes(first: int, body: bytes) -> bytes:
    length, encoded = len(body), b""
    while True:
        length, digit = length >> 7, length & 0x7F
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([first]) + encoded + body


def connect_bytes(
    client_id: str,
    keep_alive_s: int = 30,
    *,
    is_clean: bool = True,
    will: tuple[str, bytes, bool] | None = None,
) -> bytes:
    flags = 2 if is_clean else 0
    payload = _text(client_id)
    if will:
        topic, message, is_retained = will
        flags |= 0x04 | 0x08 | (0x20 if is_retained else 0)
        payload += _text(topic) + len(message).to_bytes(2) + message
    header = _text("MQTT") + bytes([4, flags]) + keep_alive_s.to_bytes(2)
    return packet_bytes(0x10, header + payload)


def publish_bytes(
    topic: str, payload: bytes, packet_id: int, *, qos: int = 1, is_retained: bool = False
) -> bytes:
    body = _text(topic) + (packet_id.to_bytes(2) if qos else b"") + payload
    return packet_bytes(0x30 | qos << 1 | is_retained, body)


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2) + text.encode()


# --- brokers


class RunningBroker(Protocol):
    """A broker that listens, embedded or real."""

    certificates: Certificates
    node_port: int
    service_port: int

    def refused(self) -> int:
        """How many things it refused so far."""
        ...

    def revocations_changed(self) -> None:
        """Make it look at the revocation list."""
        ...


def node_client(broker: RunningBroker, pair: Pair | None, **options: float) -> RawClient:
    return RawClient(broker.node_port, pair, broker.certificates.files.root_certificate, **options)


def service_client(broker: RunningBroker, name: str) -> RawClient:
    """A connected service."""
    client = RawClient(
        broker.service_port,
        broker.certificates.service(name),
        broker.certificates.files.root_certificate,
    )
    assert client.connect(name) == 0
    return client


@dataclass
class Embedded:
    """The embedded broker in a thread of the test's process."""

    certificates: Certificates
    broker: EmbeddedBroker
    loop: asyncio.AbstractEventLoop

    @property
    def node_port(self) -> int:
        return self.broker.ports[ListenerName.NODES]

    @property
    def service_port(self) -> int:
        return self.broker.ports[ListenerName.SERVICES]

    def refused(self) -> int:
        return self.broker.tally.refused.total()

    def revocations_changed(self) -> None:
        """It looks by itself."""


@contextmanager
def running_embedded(
    certificates: Certificates,
    *,
    kind: type[EmbeddedBroker] = EmbeddedBroker,
    limits: Limits | None = None,
    tally: Tally | None = None,
    node_port: int = 0,
    service_port: int = 0,
) -> Iterator[Embedded]:
    """`kind` is the broker as shipped, or a subclass of the test's with a defence taken out."""
    started: list[EmbeddedBroker] = []
    ready, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def live() -> None:
        broker = kind(
            certificates.files,
            limits=limits,
            tally=tally,
            node_port=node_port,
            service_port=service_port,
        )
        await broker.start()
        started.append(broker)
        ready.set()
        await stop.wait()
        await broker.shutdown()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    thread.start()
    assert ready.wait(_PATIENCE_S)
    try:
        yield Embedded(certificates, started[0], loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(_PATIENCE_S)
        loop.close()


_REFUSED_BY_MOSQUITTO = re.compile(
    r"Denied (PUBLISH|SUBSCRIBE)|disconnected due to|OpenSSL Error|disconnected, not authorised|"
    r"disconnected: |protocol error|exceeded timeout|Bad socket read|invalid|"
    r"Client connection from \S+ failed",  # a handshake refused at once, when all of it had arrived
    re.IGNORECASE,
)


@dataclass
class Mosquitto:
    """A real mosquitto, started from a configuration file."""

    certificates: Certificates
    node_port: int
    service_port: int
    process: subprocess.Popen[bytes]
    log_path: Path

    def refused(self) -> int:
        return len(_REFUSED_BY_MOSQUITTO.findall(self.log_path.read_text(errors="replace")))

    def revocations_changed(self) -> None:
        seen = self.log_path.read_text(errors="replace").count("Reloading config")
        self.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: self.log_path.read_text(errors="replace").count("Reloading config") > seen
        )


def mosquitto_program() -> str:
    """Path of mosquitto; the test is skipped by name without it, and fails when servers are required."""
    path = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail("mosquitto is required and not installed")
        pytest.skip("mosquitto is not installed")
    return path


@contextmanager
def running_mosquitto(
    certificates: Certificates, configuration: Path, *, node_port: int, service_port: int
) -> Iterator[Mosquitto]:
    """Run an unmodified mosquitto with this configuration; -v makes it say what it denies."""
    log_path = configuration.with_suffix(".log")
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [mosquitto_program(), "-c", str(configuration), "-v"], stdout=log, stderr=log
        )
    broker = Mosquitto(certificates, node_port, service_port, process, log_path)
    try:
        for port in (node_port, service_port):
            wait_until(lambda port=port: _is_open(port) or _ended(process, log_path))
        yield broker
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def _ended(process: subprocess.Popen[bytes], log_path: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"mosquitto ended: {log_path.read_text(errors='replace')[-2000:]}")
    return False


def _is_open(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


@contextmanager
def running_broker(
    kind: str,
    certificates: Certificates,
    folder: Path,
    *,
    node_port: int = 0,
    service_port: int = 0,
    rewrite: Callable[[Path], None] = lambda _: None,
) -> Iterator[RunningBroker]:
    """The embedded broker, or a mosquitto with the configuration that we write for it (which `rewrite` may change)."""
    node_port, service_port = node_port or free_port(), service_port or free_port()
    if kind == "embedded":
        with running_embedded(
            certificates, node_port=node_port, service_port=service_port
        ) as embedded:
            yield embedded
        return
    plan = mosquitto.MosquittoPlan(
        folder=folder / "mosquitto",
        host="127.0.0.1",
        node_port=node_port,
        service_port=service_port,
        public_port=None,
        service_bind=None,
        user=None,
    )
    configuration = mosquitto.write_configuration(plan, certificates.files)
    rewrite(configuration)
    with running_mosquitto(
        certificates, configuration, node_port=node_port, service_port=service_port
    ) as real:
        yield real


def settings_for(folder: Path, broker: RunningBroker) -> Settings:
    """Settings of a server whose data folder this is (its authority in `ca`) and that uses this broker."""
    url = f"mqtts://127.0.0.1:{broker.node_port}?service_port={broker.service_port}"
    return load_settings({}, data_dir=folder, broker_url=url)
