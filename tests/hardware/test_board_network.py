"""The virtual board's Wi-Fi, sockets and TLS against a real server, and the faults on demand."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hardware.virtual_board.board import Board
from hardware.virtual_board.network import NetworkPolicy

START_US = 1_780_000_000_000_000
START = datetime.datetime(2026, 5, 28, 20, 26, 40, tzinfo=datetime.UTC)


@dataclass
class Identity:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def pem(self) -> bytes:
        return self.certificate.public_bytes(form.Encoding.PEM) + self.key.private_bytes(
            form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()
        )

    def der(self) -> bytes:
        return self.certificate.public_bytes(form.Encoding.DER)

    def key_der(self, layout: form.PrivateFormat) -> bytes:
        return self.key.private_bytes(form.Encoding.DER, layout, form.NoEncryption())


def _identity(
    name: str,
    issuer: Identity | None = None,
    *,
    valid_from: datetime.datetime = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(valid_from)
        .not_valid_after(datetime.datetime(2045, 1, 1, tzinfo=datetime.UTC))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    return Identity(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


class EchoServer:
    """Echoes what it gets, over TCP or mutual TLS; knows who came."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.peers: list[str] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._echo(connection)

    def _echo(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        if self._context is not None:
            tls = self._context.wrap_socket(connection, server_side=True)
            peer = tls.getpeercert()
            assert peer is not None
            self.peers.append(peer["subject"][0][0][1])
            connection = tls
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


@pytest.fixture(scope="module")
def authority() -> Identity:
    return _identity("city")


@pytest.fixture
def plain() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.stop()


def _tls_server(tmp_path: Path, identity: Identity, authority: Identity) -> EchoServer:
    (tmp_path / "server.pem").write_bytes(identity.pem())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(
        cadata=authority.certificate.public_bytes(form.Encoding.PEM).decode()
    )
    return EchoServer(context)


@pytest.fixture
def tls(tmp_path: Path, authority: Identity) -> Iterator[EchoServer]:
    server = _tls_server(tmp_path, _identity("localhost", authority), authority)
    yield server
    server.stop()


@pytest.fixture
def board(tmp_path: Path, authority: Identity) -> Board:
    board = Board(tmp_path / "node", start_utc_us=START_US, network_policy=NetworkPolicy())
    node = _identity("n-3f9a1c", authority)
    board.write_files(
        {
            "/ca": authority.der(),
            "/cert": node.der(),
            "/key": node.key_der(form.PrivateFormat.TraditionalOpenSSL),
            "/key8": node.key_der(form.PrivateFormat.PKCS8),
        }
    )
    return board


ONLINE = """
import machine, network, select, socket, ssl, struct, time
wlan = network.WLAN(network.STA_IF)
wlan.active(True)
wlan.connect("field", "grün und ü")
for _ in range(200):
    if wlan.isconnected(): break
    time.sleep_ms(50)
"""

CLOCK = "machine.RTC().datetime((2026, 5, 28, 3, 20, 26, 41, 0))\n"

SECURE = """
def content(name):
    with open(name, "rb") as f: return f.read()
raw = socket.socket()
raw.settimeout(5)
raw.connect(socket.getaddrinfo("localhost", {port})[0][-1])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.verify_mode = ssl.CERT_REQUIRED
context.load_cert_chain(content("cert"), content("{key}"))
context.load_verify_locations(cadata=content("ca"))
tls = context.wrap_socket(raw, server_hostname="{name}")
"""


def _failing(code: str) -> str:
    body = "\n".join("    " + line for line in code.splitlines())
    return f"try:\n{body}\nexcept Exception as e:\n    print(type(e).__name__, e.args)"


@pytest.mark.parametrize("key", ["key", "key8"])
def test_mutual_tls_with_der_keys_reaches_the_server_as_the_node(
    board: Board, tls: EchoServer, key: str
) -> None:
    printed = board.exec(
        ONLINE
        + CLOCK
        + SECURE.format(port=tls.port, key=key, name="localhost")
        + "print(tls.write(b'hello'), tls.read(5), tls.cipher()[1])\ntls.close()"
    )

    assert printed == "5 b'hello' TLSv1.2\n"
    assert tls.peers == ["n-3f9a1c"]


def test_a_handshake_left_to_the_first_write_works_without_blocking(
    board: Board, tls: EchoServer
) -> None:
    code = SECURE.format(port=tls.port, key="key", name="localhost").replace(
        "server_hostname", "do_handshake_on_connect=False, server_hostname"
    )
    code = code.replace("context = ", "raw.setblocking(False)\ncontext = ")
    printed = board.exec(
        ONLINE
        + CLOCK
        + code
        + "while not tls.write(b'x' * 3000): pass\n"
        + "p = select.poll()\np.register(raw, select.POLLIN)\nn = 0\n"
        + "while n < 3000:\n    p.poll(1000)\n    n += len(tls.read(5000) or b'')\nprint(n)"
    )

    assert printed == "3000\n"


@pytest.mark.parametrize(
    ("clock", "name", "told"),
    [
        ("", "localhost", "starts in the future"),
        (CLOCK, "elsewhere", "ostname mismatch"),
    ],
)
def test_a_certificate_is_judged_by_name_and_by_the_nodes_own_clock(
    board: Board, tls: EchoServer, clock: str, name: str, told: str
) -> None:
    code = _failing(SECURE.format(port=tls.port, key="key", name=name))

    printed = board.exec(ONLINE + clock + code)

    assert printed.startswith("ValueError")
    assert told in printed


def test_a_server_of_another_authority_is_not_trusted(board: Board, tmp_path: Path) -> None:
    stranger = _identity("stranger")
    server = _tls_server(tmp_path, _identity("localhost", stranger), stranger)

    code = _failing(SECURE.format(port=server.port, key="key", name="localhost"))
    printed = board.exec(ONLINE + CLOCK + code)
    server.stop()

    assert printed.startswith("ValueError")
    assert server.peers == []


def test_plain_tcp_carries_bytes_both_ways(board: Board, plain: EchoServer) -> None:
    printed = board.exec(
        ONLINE + f"s = socket.socket()\ns.settimeout(5)\ns.connect(('127.0.0.1', {plain.port}))\n"
        "data = bytes(range(256)) * 40\ns.sendall(data)\nprint(s.read(len(data)) == data)\ns.close()"
    )

    assert printed == "True\n"


# --- time in the network ---

SNTP = """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.settimeout(2)
address = socket.getaddrinfo("pool.ntp.org", 123)[0][-1]
query = bytearray(48)
query[0] = 0x1B
u.sendto(query, address)
try:
    answer = u.recvfrom(48)[0]
    print(struct.unpack("!I", answer[40:44])[0] - 2208988800)
except OSError as e:
    print(e.errno, time.ticks_ms() > 2000)
u.close()
"""


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (NetworkPolicy(), START_US // 1_000_000),
        (NetworkPolicy(ntp="wrong", ntp_error_s=-86_400), START_US // 1_000_000 - 86_400),
    ],
)
def test_any_name_answers_sntp_with_simulated_time(
    board: Board, policy: NetworkPolicy, told: int
) -> None:
    board.network_policy = policy

    printed = board.exec(ONLINE + SNTP)

    assert int(printed) == pytest.approx(told, abs=2)


def test_a_silent_time_server_costs_node_time_but_no_real_time(board: Board) -> None:
    board.network_policy = NetworkPolicy(ntp="silent")
    began = time.monotonic()

    assert board.exec(ONLINE + SNTP) == "116 True\n"
    assert time.monotonic() - began < 10  # a busy machine's start; the node waited for two minutes


def test_time_passes_at_wall_speed_only_while_a_socket_is_open(
    board: Board, plain: EchoServer
) -> None:
    began = time.monotonic()
    printed = board.exec(
        ONLINE + f"s = socket.socket()\ns.connect(('127.0.0.1', {plain.port}))\n"
        "t = time.ticks_ms()\ntime.sleep_ms(300)\nprint(time.ticks_diff(time.ticks_ms(), t))\n"
        "s.close()\ntime.sleep(1800)\nprint(time.ticks_ms() > 1_800_000)"
    )
    took = time.monotonic() - began

    waited, jumped = printed.split()
    assert int(waited) >= 300
    assert jumped == "True"
    assert int(waited) / 1000 <= took < 30  # against half an hour


# --- faults ---

CONNECT = """
s = socket.socket()
s.settimeout(1)
s.connect(("127.0.0.1", {port}))
"""


@pytest.mark.parametrize(
    ("tcp", "told"),
    [("refused", "OSError (111,)"), ("unreachable", "OSError (116,)")],
)
def test_a_connection_that_is_refused_or_never_answered_is_an_error_of_the_node(
    board: Board, plain: EchoServer, tcp, told: str
) -> None:
    board.network_policy = NetworkPolicy(tcp=tcp)

    assert board.exec(ONLINE + _failing(CONNECT.format(port=plain.port))) == told + "\n"


def test_a_closed_port_refuses_also_without_blocking(board: Board, plain: EchoServer) -> None:
    free = socket.create_server(("127.0.0.1", 0))
    port = free.getsockname()[1]
    free.close()

    printed = board.exec(
        ONLINE + "s = socket.socket()\ns.setblocking(False)\n"
        f"try:\n    s.connect(('127.0.0.1', {port}))\nexcept OSError as e:\n    print(e.errno)\n"
        "p = select.poll()\np.register(s, select.POLLOUT)\nprint(p.poll(1000)[0][1] & 24 != 0)\n"
        + _failing("s.send(b'x')")
    )

    assert printed == "119\nTrue\nOSError (111,)\n"


@pytest.mark.parametrize("policy", [{"tcp": "half_open"}, {"drop_after_sent": 3}])
def test_a_half_open_connection_takes_bytes_and_gives_none(
    board: Board, plain: EchoServer, policy
) -> None:
    board.network_policy = NetworkPolicy(**policy)
    code = CONNECT.format(port=plain.port) + "print(s.send(b'hello'))\ns.recv(5)"

    assert board.exec(ONLINE + _failing(code)) == "5\nOSError (116,)\n"


def test_a_watchdog_bites_in_a_read_that_would_never_end(board: Board, plain: EchoServer) -> None:
    board.write_file(
        "/main.py",
        (
            ONLINE + "machine.WDT(timeout=1000)\ns = socket.socket()\n"
            f"s.connect(('127.0.0.1', {plain.port}))\ns.recv(1)"
        ).encode(),
    )

    result = board.run_wake()

    assert (result.reason, result.connections) == ("watchdog", 1)


def test_a_slow_network_delays_every_answer(board: Board, plain: EchoServer) -> None:
    board.network_policy = NetworkPolicy(delay_ms=150)
    code = CONNECT.format(port=plain.port) + (
        "t = time.ticks_ms()\ns.send(b'hello')\nprint(s.recv(5), time.ticks_diff(time.ticks_ms(), t) >= 300)"
    )

    assert board.exec(ONLINE + code) == "b'hello' True\n"


@pytest.mark.parametrize(
    ("wifi", "status"), [("absent", 201), ("wrong_password", 202), ("no_dhcp", 1001)]
)
def test_without_wifi_there_is_no_name_and_no_connection(board: Board, wifi, status: int) -> None:
    board.network_policy = NetworkPolicy(wifi=wifi)

    printed = board.exec(
        ONLINE
        + "print(wlan.status(), wlan.isconnected(), time.ticks_ms() >= 10_000)\n"
        + _failing("socket.getaddrinfo('broker', 8883)")
        + "\n"
        + _failing("socket.socket().connect(('127.0.0.1', 1))")
    )

    assert printed == f"{status} False True\nOSError (-202,)\nOSError (118,)\n"


def test_names_are_answered_by_the_policy_before_the_host(board: Board) -> None:
    board.network_policy = NetworkPolicy(names={"broker.city": "127.0.0.9"})

    printed = board.exec(ONLINE + "print(socket.getaddrinfo('broker.city', 8883)[0][-1])")

    assert printed == "('127.0.0.9', 8883)\n"
