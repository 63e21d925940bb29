"""The nodes' listener to those who connect: silent ones hold up nobody, and it shows the certificate that it has now."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask, request

from fleet_server.cli.node_tls import NodeTls
from fleet_server.cli.serve import listen
from fleet_server.services import authority
from fleet_server.services.authority import AuthorityFiles

# Half of what cheroot grants one that says nothing.
PATIENCE_S = 5.0
LONG_AGO = datetime.now(UTC) - timedelta(days=3 * 365)


class Listener:
    """A listener that answers with who asks."""

    def __init__(self, folder: Path) -> None:
        self.files = AuthorityFiles(folder)
        app = Flask("listener")
        app.add_url_rule("/", view_func=lambda: request.environ.get("SSL_CLIENT_CERT", "nobody"))
        self.server = listen(app, "127.0.0.1", 0, threads=2, tls=NodeTls(self.files))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.server.bind_addr[:2], timeout=PATIENCE_S)

    def ask(self, *, root: Path | None = None, own: Path | None = None) -> tuple[str, int]:
        """What it answers, and the serial that it shows."""
        context = ssl.create_default_context(cafile=root or self.files.root_certificate)
        if own is not None:
            context.load_cert_chain(own)
        with context.wrap_socket(self.connect(), server_hostname="localhost") as connection:
            shown = connection.getpeercert(binary_form=True)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert shown is not None
        body = answer.partition(b"\r\n\r\n")[2].decode()
        return body, x509.load_der_x509_certificate(shown).serial_number


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    authority.initialise(tmp_path, valid_from=LONG_AGO)
    made = Listener(tmp_path)
    running = threading.Thread(target=made.server.serve)
    running.start()
    yield made
    made.server.stop()
    running.join()


def test_who_connects_and_says_nothing_holds_up_nobody(listener: Listener) -> None:
    silent = [listener.connect() for _ in range(4)]
    silent[1].sendall(b"\x16\x03\x01\x02\x00\x01")  # a handshake begun, and never ended
    silent[2].sendall(b"GET / HTTP/1.1\r\n\r\n")  # no TLS at all
    trusting = ssl.create_default_context(cafile=listener.files.root_certificate)
    through = trusting.wrap_socket(listener.connect(), server_hostname="localhost")

    assert listener.ask()[0] == "nobody"

    through.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert through.recv(4096).startswith(b"HTTP/1.1 200")
    for connection in (*silent, through):
        connection.close()


def test_a_node_is_known_by_its_certificate_also_when_that_has_run_out(
    listener: Listener, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    issued = authority.sign_node_request(listener.files.folder, pem, node_id="n-1", now=LONG_AGO)
    own = tmp_path / "own.pem"
    own.write_bytes(
        issued.pem.encode()
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    body, _ = listener.ask(own=own)
    assert x509.load_pem_x509_certificate(body.encode()).serial_number == issued.serial


def test_another_pair_or_root_is_shown_without_a_restart(listener: Listener) -> None:
    folder, files = listener.files.folder, listener.files
    first = listener.ask()[1]
    renewed = authority.issue_pair(folder, "node-listener").serial
    assert listener.ask()[1] == renewed != first

    whole = files.key("node-listener").read_bytes()
    files.key("node-listener").write_bytes(files.key("broker").read_bytes())
    assert listener.ask()[1] == renewed, "half a pair is not shown"
    files.key("node-listener").write_bytes(whole)

    authority.make_next_root(folder)
    following = folder / "following.crt"
    following.write_bytes(files.next_root_certificate.read_bytes())
    authority.switch_root(folder)
    with pytest.raises(ssl.SSLCertVerificationError):
        listener.ask(root=following)
    authority.drop_old_root(folder)
    assert listener.ask(root=following)[1] == renewed


def test_nobody_is_given_a_ticket_to_come_back_with(listener: Listener) -> None:
    """No node takes a session up again; a ticket would cost each of them more air than the rest of the handshake."""
    trusting = ssl.create_default_context(cafile=listener.files.root_certificate)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        trusting.minimum_version = trusting.maximum_version = version
        with trusting.wrap_socket(listener.connect(), server_hostname="localhost") as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"nobody")
            assert connection.session is not None
            assert not connection.session.has_ticket
