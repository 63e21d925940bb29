"""A small fleet for the bench: a real TLS listener that signs what it is sent with a CA of its own."""

from __future__ import annotations

import datetime
import http.server
import json
import shlex
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from provisioning.main import main

LINK = {
    "host": "127.0.0.1",
    "port": 18883,
    "tls": True,
    "server_name": "localhost",
    "ntp": "127.0.0.1",
    "prefix": "",
}
GOOD_TOKEN = "good-token"
_DAY = datetime.timedelta(days=1)


class Authority:
    """A CA that signs anything."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), is_authority=True)

    def certify(self, common_name: str, public_key: Any) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._sign(name, public_key, is_authority=False)

    def _sign(self, subject: x509.Name, public_key: Any, *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


@dataclass
class SmallFleet:
    """What the listener does, and what it was asked."""

    url: str
    ca_file: Path
    authority: Authority
    requests: list[dict[str, Any]] = field(default_factory=list)
    # Put an answer (status, content) here to have it sent instead of an enrolment.
    instead: tuple[int, Any] | None = None
    # Changes the answer just before it is sent.
    spoil: dict[str, Any] = field(default_factory=dict)
    link: dict[str, Any] = field(default_factory=lambda: dict(LINK))
    # What is known of a node: node id → an answer to "heard".
    heard: Callable[[str], dict[str, Any]] = lambda _node_id: {
        "first_stored_at": None,
        "readings": [],
    }
    # Another authority than the listener's: (request in PEM, node id) → (certificate, trusted authorities), all PEM.
    certify: Callable[[str, str], tuple[str, list[str]]] | None = None

    def answer(self, path: str, request: dict[str, Any]) -> tuple[int, Any]:
        if path == "/node/v1/heard":
            return 200, self.heard(request["node_id"])
        self.requests.append(request)
        if self.instead is not None:
            return self.instead
        if request["token"] != GOOD_TOKEN:
            return 403, {"title": "Refused", "detail": "The enrolment token is not valid."}
        node_id = f"n-{len(self.requests):06x}"
        certificate_pem, ca_pem = (self.certify or self._certify)(request["csr_pem"], node_id)
        return 201, {
            "node_id": node_id,
            "certificate_pem": certificate_pem,
            "ca_pem": ca_pem,
            "link": self.link,
            **self.spoil,
        }

    def _certify(self, request_pem: str, node_id: str) -> tuple[str, list[str]]:
        public_key = x509.load_pem_x509_csr(request_pem.encode()).public_key()
        certificate = self.authority.certify(node_id, public_key)
        return pem(certificate), [pem(self.authority.certificate)]


Ended = tuple[int, str, str]
"""Exit code, stdout, stderr."""
Command = Callable[[str], Ended]


@pytest.fixture
def provision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """`provision` as it is typed in an empty folder, inside this process."""
    monkeypatch.chdir(tmp_path)

    def run(typed: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["provision", *shlex.split(typed)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    return run


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority("Fleet of the tests")


@pytest.fixture
def fleet(tmp_path: Path, authority: Authority) -> Iterator[SmallFleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    (folder / "listener.crt").write_text(pem(authority.certify("localhost", key.public_key())))
    (folder / "listener.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "root.crt").write_text(pem(authority.certificate))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, content = small.answer(self.path, json.loads(body))
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "listener.crt", folder / "listener.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    small = SmallFleet(
        f"https://localhost:{server.server_address[1]}", folder / "root.crt", authority
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield small
    server.shutdown()
    thread.join()
    server.server_close()
