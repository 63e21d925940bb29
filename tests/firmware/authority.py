"""A certificate authority for tests: what a node and its broker need to trust each other, EC P-256 in DER."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_SINCE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def key_der(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )


class TestAuthority:
    __test__ = False

    def __init__(self, name: str = "test authority") -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        key = ec.generate_private_key(ec.SECP256R1())
        self.pair = Pair(self._sign(self._name, key, key, since=_SINCE, is_authority=True), key)

    def issue(
        self,
        name: str,
        *,
        since: datetime.datetime = _SINCE,
        until: datetime.datetime = _UNTIL,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Pair:
        """A certificate for a new key, or for one that is there already."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(
            subject, key, self.pair.key, since=since, until=until, is_authority=False
        )
        return Pair(certificate, key)

    def identity(self, node_id: str) -> dict[str, bytes]:
        """What lies in a node's NVS namespace `id`, beside its id."""
        pair = self.issue(node_id)
        return {
            "key": pair.key_der,
            "cert": pair.certificate_der,
            "ca0": self.pair.certificate_der,
        }

    def server_context(self, server: Pair, scratch: Path) -> ssl.SSLContext:
        """Mutual TLS with `server` as the broker's identity."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pem = scratch / f"server-{server.certificate.serial_number}.pem"
        pem.write_bytes(
            server.certificate.public_bytes(serialization.Encoding.PEM)
            + server.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context.load_cert_chain(pem)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(
            cadata=self.pair.certificate.public_bytes(serialization.Encoding.PEM).decode()
        )
        return context

    def listener_context(self, server: Pair, scratch: Path) -> ssl.SSLContext:
        """TLS of the fleet's listener, which also lets in who shows no certificate."""
        context = self.server_context(server, scratch)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.num_tickets = 0
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signing_key: ec.EllipticCurvePrivateKey,
        *,
        since: datetime.datetime,
        until: datetime.datetime = _UNTIL,
        is_authority: bool,
    ) -> x509.Certificate:
        common_name = str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
            .sign(signing_key, hashes.SHA256())
        )
