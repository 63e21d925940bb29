"""Brokers and clients for tests: certificates, a raw MQTT client that can also misbehave, both brokers behind one interface."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_server.broker import mosquitto, mosquitto_process
from fleet_server.broker.access import ListenerName
from fleet_server.broker.embedded import EmbeddedBroker, Limits
from fleet_server.broker.mosquitto import MosquittoPlan
from fleet_server.broker.mosquitto_process import MosquittoProcess, find_program
from fleet_server.broker.refusals import Tally
from fleet_server.errors import FleetError, Unavailable
from fleet_server.mqtt import kicking
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


@contextmanager
def at_work(service: Any) -> Iterator[Any]:
    """Run a consumer or publisher in a thread until the block ends; it is ready when the block begins."""
    stop, ready = threading.Event(), threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,), kwargs={"on_ready": ready.set})
    thread.start()
    try:
        wait_until(ready.is_set)
        yield service
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()


class Hurried(threading.Event):
    """Lets no time pass, and is set after some waits."""

    def __init__(self, *, after: int) -> None:
        super().__init__()
        self.waited_s: list[float | None] = []
        self._after = after

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_s.append(timeout)
        if len(self.waited_s) == self._after:
            self.set()
        return self.is_set()


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
        key = ec.generate_private_key(ec.SECP256R1())
        request = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(_common_name(node_id))
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        issued = authority.sign_node_request(self.folder, request, node_id=node_id)
        return self._kept(key, issued.pem.encode())

    def forged(self, name: str) -> Pair:
        """A certificate for any name and every use, signed with the nodes' authority's key past its own rules."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        issuer = x509.load_pem_x509_certificate(self.files.issuing.certificate.read_bytes())
        issuing_key = serialization.load_pem_private_key(self.files.issuing.key.read_bytes(), None)
        assert isinstance(issuing_key, ec.EllipticCurvePrivateKey)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_common_name(name))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(issuing_key, hashes.SHA256())
        )
        return self._kept(key, certificate.public_bytes(serialization.Encoding.PEM))

    def _kept(self, key: ec.EllipticCurvePrivateKey, certificate_pem: bytes) -> Pair:
        self._made += 1
        nodes = self.folder / "nodes"
        nodes.mkdir(exist_ok=True)
        pair = Pair(nodes / f"{self._made}.crt", nodes / f"{self._made}.key")
        pair.certificate.write_bytes(certificate_pem)
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


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


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
        # Or the second of two small packets waits 40 ms for the other side to acknowledge the first.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
        body = self._packet_id.to_bytes(2) + b"".join(
            text_bytes(name) + b"\x01" for name in filters
        )
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
    payload = text_bytes(client_id)
    if will:
        topic, message, is_retained = will
        flags |= 0x04 | 0x08 | (0x20 if is_retained else 0)
        payload += text_bytes(topic) + len(message).to_bytes(2) + message
    header = text_bytes("MQTT") + bytes([4, flags]) + keep_alive_s.to_bytes(2)
    return packet_bytes(0x10, header + payload)


def publish_bytes(
    topic: str, payload: bytes, packet_id: int, *, qos: int = 1, is_retained: bool = False
) -> bytes:
    body = text_bytes(topic) + (packet_id.to_bytes(2) if qos else b"") + payload
    return packet_bytes(0x30 | qos << 1 | is_retained, body)


def text_bytes(text: str) -> bytes:
    """A text with its length in front (MQTT 3.1.1 section 1.5.3)."""
    return len(text.encode()).to_bytes(2) + text.encode()


# --- brokers


class RunningBroker(Protocol):
    """A broker that listens, embedded or real."""

    certificates: Certificates

    @property
    def node_port(self) -> int: ...

    @property
    def service_port(self) -> int: ...

    @property
    def tally(self) -> Tally:
        """What it refused so far, by reason."""
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

    @property
    def tally(self) -> Tally:
        return self.broker.tally

    def revocations_changed(self) -> None:
        """It looks by itself, at every CONNECT."""


@contextmanager
def running_embedded(
    certificates: Certificates,
    *,
    kind: Callable[..., EmbeddedBroker] = EmbeddedBroker,
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


@dataclass
class Mosquitto:
    """A real mosquitto under `fleet broker mosquitto`'s care, in a thread of the test's process."""

    certificates: Certificates
    process: MosquittoProcess
    node_port: int
    service_port: int

    @property
    def tally(self) -> Tally:
        return self.process.tally

    def revocations_changed(self) -> None:
        """It looks by itself; when it has read them, new connections are judged by them."""
        wait_until(lambda: self.process.knows_newest_lists)


def mosquitto_program() -> str:
    """Path of mosquitto; the test is skipped by name without it, and fails when servers are required."""
    try:
        return find_program()
    except Unavailable:
        if os.environ.get("REQUIRE_SERVERS") == "1":
            pytest.fail("mosquitto is required and not installed")
        pytest.skip("mosquitto is not installed")


@contextmanager
def running_mosquitto(
    certificates: Certificates,
    configuration: Path,
    *,
    doors: Mapping[int, ListenerName] | None = None,
    kind: Callable[..., MosquittoProcess] = MosquittoProcess,
) -> Iterator[Mosquitto]:
    """Run an unmodified mosquitto with this configuration, looked after as `fleet broker mosquitto` does.

    `kind` may be a subclass of the test's that leaves something undone.
    """
    mosquitto_program()
    stop, ready = threading.Event(), threading.Event()

    def end_session(node_id: str) -> None:
        kicking.end_session(settings_for(certificates.folder.parent, broker), node_id)

    doors = doors or mosquitto.doors_of(configuration)
    process = kind(configuration, certificates.files, doors=doors, end_session=end_session)
    ports = {name: port for port, name in doors.items()}
    broker = Mosquitto(
        certificates, process, ports[ListenerName.NODES], ports[ListenerName.SERVICES]
    )
    problems: list[FleetError] = []

    def look_after() -> None:
        try:
            mosquitto_process.run(process, stop, on_ready=ready.set)
        except FleetError as problem:
            problems.append(problem)
            ready.set()

    thread = threading.Thread(target=look_after, daemon=True)
    thread.start()
    assert ready.wait(_PATIENCE_S)
    try:
        assert not problems, problems
        yield broker
    finally:
        stop.set()
        thread.join(_PATIENCE_S)
    assert not problems, problems


@contextmanager
def running_plain_mosquitto(configuration: Path, *, port: int) -> Iterator[None]:
    """An unmodified mosquitto with this configuration, looked after by nobody, until the block ends."""
    process = subprocess.Popen(
        [mosquitto_program(), "-c", str(configuration)], stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: is_open(port))
        yield
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


def is_open(port: int) -> bool:
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
    plan = mosquitto_plan(folder, node_port=node_port, service_port=service_port)
    configuration = mosquitto.write_configuration(plan, certificates.files)
    rewrite(configuration)
    with running_mosquitto(certificates, configuration) as real:
        yield real


def mosquitto_plan(folder: Path, **chosen: int | None) -> MosquittoPlan:
    """A mosquitto on this machine; free ports unless `chosen` says otherwise."""
    ports = {"node_port": free_port(), "service_port": free_port(), "public_port": None}
    return MosquittoPlan(
        folder=folder / "mosquitto",
        host="127.0.0.1",
        service_bind=None,
        user=None,
        **{**ports, **chosen},
    )


def settings_for(folder: Path, broker: RunningBroker) -> Settings:
    """Settings of a server whose data folder this is (its authority in `ca`) and that uses this broker."""
    url = f"mqtts://127.0.0.1:{broker.node_port}?service_port={broker.service_port}"
    return load_settings({}, data_dir=folder, broker_url=url)
