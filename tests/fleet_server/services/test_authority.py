"""The fleet's certificate authority, judged by OpenSSL's own verification where that matters."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_server.errors import Invalid
from fleet_server.services import authority

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def request_pem(common_name: str = "whatever", key: object = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "ca"
    authority.initialise(folder, now=NOW)
    return folder


def certificate_in(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_private_keys_are_readable_by_their_owner_only(folder: Path) -> None:
    keys = list(folder.rglob("*.key"))
    assert len(keys) == 8
    secrets = [*keys, authority.AuthorityFiles(folder).ingest_group]
    assert {stat.S_IMODE(secret.stat().st_mode) for secret in secrets} == {0o600}


def test_repeated_init_changes_no_file(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert authority.initialise(folder, now=NOW + timedelta(days=1)) == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_init_that_was_cut_short_is_finished_with_the_keys_it_had(tmp_path: Path) -> None:
    authority.initialise(tmp_path, now=NOW)
    files = authority.AuthorityFiles(tmp_path)
    kept = files.issuing.key.read_bytes()
    for path in (files.issuing.certificate, files.chain, files.issuing.crl):
        path.unlink()
    assert authority.initialise(tmp_path, now=NOW) == [
        "issuing.crt",
        "issuing.key",
        "chain.pem",
        "crl.pem",
    ]
    assert files.issuing.key.read_bytes() == kept


def test_root_key_kept_elsewhere_is_not_missed_until_it_must_sign(tmp_path: Path) -> None:
    authority.initialise(tmp_path, now=NOW)
    files = authority.AuthorityFiles(tmp_path)
    files.root_key.unlink()
    authority.sign_node_request(tmp_path, request_pem(), node_id="n-1", now=NOW)
    files.issuing.certificate.unlink()
    with pytest.raises(authority.AuthorityKeyMissing):
        authority.initialise(tmp_path, now=NOW)


def test_listener_certificate_is_trusted_by_one_who_pins_the_root_alone(folder: Path) -> None:
    files = authority.AuthorityFiles(folder)
    root = certificate_in(files.root_certificate)
    leaf, issuing = x509.load_pem_x509_certificates(files.certificate("broker").read_bytes())
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([root]))
        .time(NOW)
        .build_server_verifier(x509.DNSName("localhost"))
    )
    assert verifier.verify(leaf, [issuing]) == [leaf, issuing, root]


def test_node_certificate_is_trusted_as_a_client_and_names_the_node_twice(folder: Path) -> None:
    issued = authority.sign_node_request(
        folder, request_pem("n-other"), node_id="n-3f9a1c", now=NOW
    )
    leaf = x509.load_pem_x509_certificate(issued.pem.encode())
    chain = x509.load_pem_x509_certificates(authority.AuthorityFiles(folder).chain.read_bytes())
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(chain[1:]))
        .time(NOW)
        .build_client_verifier()
    )
    verified = verifier.verify(leaf, chain[:1])
    assert verified.subjects == [x509.DNSName("n-3f9a1c")]
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [name.value for name in names] == ["n-3f9a1c"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert issued.not_after == NOW + timedelta(days=730)


def test_authority_of_a_demo_is_valid_in_the_past_days_that_nodes_live_through(
    tmp_path: Path,
) -> None:
    start = NOW - timedelta(days=400)
    authority.initialise(tmp_path, now=NOW, valid_from=start)
    issued = authority.sign_node_request(tmp_path, request_pem(), node_id="n-1", now=NOW)
    files = authority.AuthorityFiles(tmp_path)
    paths = [files.root_certificate, files.issuing.certificate, files.certificate("broker")]
    certificates = [certificate_in(path) for path in paths]
    certificates.append(x509.load_pem_x509_certificate(issued.pem.encode()))
    assert all(certificate.not_valid_before_utc <= start for certificate in certificates)


@pytest.mark.parametrize(
    "request_text",
    [
        b"",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        request_pem(key=ec.generate_private_key(ec.SECP384R1())),
        request_pem(key=rsa.generate_private_key(public_exponent=65537, key_size=2048)),
    ],
    ids=["empty", "garbage", "other curve", "rsa"],
)
def test_request_that_is_none_of_ours_is_refused(folder: Path, request_text: bytes) -> None:
    with pytest.raises(authority.RequestWrong):
        authority.sign_node_request(folder, request_text, node_id="n-1", now=NOW)


def test_request_signed_by_another_key_is_refused(folder: Path) -> None:
    good = x509.load_pem_x509_csr(request_pem())
    damaged = bytearray(good.public_bytes(serialization.Encoding.DER))
    damaged[-1] ^= 1
    pem = x509.load_der_x509_csr(bytes(damaged)).public_bytes(serialization.Encoding.PEM)
    with pytest.raises(authority.RequestWrong):
        authority.sign_node_request(folder, pem, node_id="n-1", now=NOW)


@pytest.mark.parametrize("node_id", ["svc-control", "n", "N-1", "n/1", "n+1", "x" * 33, ""])
def test_name_that_is_no_node_id_gets_no_certificate(folder: Path, node_id: str) -> None:
    with pytest.raises(Invalid):
        authority.sign_node_request(folder, request_pem(), node_id=node_id, now=NOW)


def test_revoked_node_is_on_a_newer_list_with_all_its_certificates(folder: Path) -> None:
    serials = [
        authority.sign_node_request(folder, request_pem(), node_id="n-lost", now=NOW).serial
        for _ in range(2)
    ]
    crl_path = authority.AuthorityFiles(folder).issuing.crl
    before = x509.load_pem_x509_crl(crl_path.read_bytes())
    assert authority.revoke(folder, "n-lost", now=NOW) == serials
    after = x509.load_pem_x509_crl(crl_path.read_bytes())
    number = x509.CRLNumber
    assert (
        after.extensions.get_extension_for_class(number).value.crl_number
        > before.extensions.get_extension_for_class(number).value.crl_number
    )
    assert authority.revoked_serials(folder) >= set(serials)
    issuing = certificate_in(authority.AuthorityFiles(folder).issuing.certificate)
    assert after.is_signature_valid(issuing.public_key())


def test_services_have_an_authority_that_no_node_leads_to(folder: Path) -> None:
    files = authority.AuthorityFiles(folder)
    services = certificate_in(files.services_authority.certificate)
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([services]))
        .time(NOW)
        .build_client_verifier()
    )
    verifier.verify(certificate_in(files.certificate("svc-ingest")), [])
    node = authority.sign_node_request(folder, request_pem(), node_id="n-1", now=NOW)
    above = x509.load_pem_x509_certificates(files.chain.read_bytes())
    with pytest.raises(verification.VerificationError):
        verifier.verify(x509.load_pem_x509_certificate(node.pem.encode()), above)


def test_revoked_service_is_on_the_list_of_its_own_authority(tmp_path: Path) -> None:
    authority.initialise(tmp_path, now=NOW)
    files = authority.AuthorityFiles(tmp_path)
    (serial,) = authority.revoke(tmp_path, "svc-ingest", now=NOW)
    crl = x509.load_pem_x509_crl(files.services_authority.crl.read_bytes())
    assert [entry.serial_number for entry in crl] == [serial]
    assert authority.revoked_serials(tmp_path) == {serial}


def test_revocation_date_stays_when_revoked_again(folder: Path) -> None:
    serial = authority.sign_node_request(folder, request_pem(), node_id="n-2x", now=NOW).serial
    authority.revoke(folder, f"{serial:X}", now=NOW)
    authority.revoke(folder, "n-2x", now=NOW + timedelta(days=3))
    crl = x509.load_pem_x509_crl(authority.AuthorityFiles(folder).issuing.crl.read_bytes())
    entry = crl.get_revoked_certificate_by_serial_number(serial)
    assert entry is not None
    assert entry.revocation_date_utc == NOW


def test_revoking_an_unknown_name_is_refused_with_its_name(folder: Path) -> None:
    with pytest.raises(authority.CertificateUnknown, match="n-nobody"):
        authority.revoke(folder, "n-nobody", now=NOW)


def test_revocation_list_is_renewed_ten_days_before_it_runs_out(folder: Path) -> None:
    runs_out = authority.write_crl(folder, now=NOW)
    early = runs_out - authority.CRL_RENEW_BEFORE - timedelta(days=1)
    assert not authority.renew_crl_when_due(folder, now=early)
    assert authority.renew_crl_when_due(folder, now=early + timedelta(days=2))


def test_revoked_certificate_leaves_the_list_a_lists_life_after_its_end_and_stays_revoked(
    tmp_path: Path,
) -> None:
    authority.initialise(tmp_path, now=NOW)
    issued = authority.sign_node_request(tmp_path, request_pem(), node_id="n-1", now=NOW)
    authority.revoke(tmp_path, "n-1", now=NOW)
    crl = authority.AuthorityFiles(tmp_path).issuing.crl

    def listed(now: datetime) -> bool:
        authority.write_crl(tmp_path, now=now)
        return issued.serial in {entry.serial_number for entry in authority.load_crl(crl)}

    assert listed(issued.not_after + timedelta(days=29))
    assert not listed(issued.not_after + timedelta(days=31))
    authority.write_crl(tmp_path, now=issued.not_after + timedelta(days=32))
    assert authority.revoked_serials(tmp_path) == {issued.serial}


def test_authority_continues_an_older_copy_of_itself_and_no_other(tmp_path: Path) -> None:
    ours, older, other = tmp_path / "ours", tmp_path / "older", tmp_path / "other"
    authority.initialise(ours, now=NOW)
    authority.initialise(other, now=NOW)
    shutil.copytree(ours, older)
    authority.sign_node_request(ours, request_pem(), node_id="n-1", now=NOW)

    assert authority.is_continued_by(older, ours)
    assert not authority.is_continued_by(ours, older), "it lacks what was issued since"
    assert not authority.is_continued_by(older, other)
    authority.AuthorityFiles(ours).issuing.key.unlink()
    assert not authority.is_continued_by(older, ours), "it cannot sign any more"


def test_reissued_service_pair_keeps_group_and_mode_of_its_key(folder: Path) -> None:
    key = authority.AuthorityFiles(folder).key("broker")
    key.chmod(0o640)
    before = key.read_bytes()
    authority.issue_pair(folder, "broker", now=NOW)
    assert key.read_bytes() != before
    assert stat.S_IMODE(key.stat().st_mode) == 0o640
    key.chmod(0o600)


def test_folder_without_authority_is_named(tmp_path: Path) -> None:
    with pytest.raises(authority.AuthorityMissing, match="fleet ca init"):
        authority.trust_anchors_pem(tmp_path)


def test_next_root_is_pinned_beside_the_current_one(tmp_path: Path) -> None:
    authority.initialise(tmp_path, now=NOW)
    files = authority.AuthorityFiles(tmp_path)
    assert len(authority.trust_anchors_pem(tmp_path)) == 1
    files.next_root_certificate.write_bytes(files.root_certificate.read_bytes())
    assert len(authority.trust_anchors_pem(tmp_path)) == 2


@pytest.mark.parametrize("name", ["svc-ingest", "svc-control", "broker", "node-listener"])
@pytest.mark.parametrize(
    ("file", "content", "how"),
    [
        ("key", None, "is missing"),
        ("key", b"", "is damaged"),
        ("key", b"\0garbage\xff", "is damaged"),
        ("certificate", None, "is missing"),
        ("certificate", b"\0garbage\xff", "is damaged"),
    ],
)
def test_pair_that_is_not_whole_is_named_with_what_to_do(
    tmp_path: Path, name: str, file: str, content: bytes | None, how: str
) -> None:
    authority.initialise(tmp_path)
    files = authority.AuthorityFiles(tmp_path)
    authority.check_pair(tmp_path, name)
    path = files.key(name) if file == "key" else files.certificate(name)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(authority.PairUnusable) as refused:
        authority.check_pair(tmp_path, name)
    assert str(refused.value) == (
        f"{path} {how}: put it back from your copy of the ca folder, "
        f"or make a new pair with `fleet ca issue {name}`."
    )
    authority.issue_pair(tmp_path, name)
    authority.check_pair(tmp_path, name)


def test_key_that_is_a_folder_or_of_another_certificate_is_named(tmp_path: Path) -> None:
    authority.initialise(tmp_path)
    files = authority.AuthorityFiles(tmp_path)
    files.key("svc-ingest").write_bytes(files.key("svc-control").read_bytes())
    with pytest.raises(authority.PairUnusable, match=r"svc-ingest\.key does not belong to .*\.crt"):
        authority.check_pair(tmp_path, "svc-ingest")
    files.key("broker").unlink()
    files.key("broker").mkdir()
    with pytest.raises(authority.PairUnusable, match=r"cannot be read \(Is a directory\)"):
        authority.check_pair(tmp_path, "broker")


@pytest.mark.parametrize(
    ("file", "act"),
    [
        ("issuing.key", lambda folder: authority.issue_pair(folder, "broker")),
        ("issuing.crt", lambda folder: authority.issue_pair(folder, "broker")),
        ("services/ca.key", lambda folder: authority.write_crl(folder)),
        ("issued.jsonl", lambda folder: authority.revoke(folder, "broker")),
        ("root.crt", lambda folder: authority.check_pair(folder, "broker")),
        ("chain.pem", authority.check_public_files),
        ("services/ca.crt", authority.check_public_files),
    ],
)
def test_damaged_file_of_the_authority_is_named(
    tmp_path: Path, file: str, act: Callable[[Path], object]
) -> None:
    authority.initialise(tmp_path)
    (tmp_path / file).write_bytes(b"\0garbage\n")
    with pytest.raises(authority.AuthorityDamaged) as refused:
        act(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path / file} is damaged: restore it from your copy of the ca folder."
    )
