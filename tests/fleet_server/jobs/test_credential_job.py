"""What the worker does by the clock so that nothing runs out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError
from fleet_server.jobs import credentials
from fleet_server.services import authority
from fleet_server.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({}, data_dir=tmp_path)


def test_revocation_lists_are_signed_anew_before_they_run_out(settings: Settings) -> None:
    authority.initialise(settings.ca_dir)
    crl = authority.AuthorityFiles(settings.ca_dir).issuing.crl
    first = crl.read_bytes()
    now = datetime.now(UTC)

    credentials.renew_lists(settings, now=now + timedelta(days=15))
    assert crl.read_bytes() == first
    credentials.renew_lists(settings, now=now + timedelta(days=21))

    ends_at = authority.load_crl(crl).next_update_utc
    assert ends_at is not None
    assert ends_at > now + timedelta(days=45)


def test_listeners_and_services_get_new_pairs_for_the_same_names_before_theirs_end(
    settings: Settings,
) -> None:
    authority.initialise(settings.ca_dir, hosts=["broker.example.org", "10.0.0.7"])
    files = authority.AuthorityFiles(settings.ca_dir)
    now = datetime.now(UTC)
    before = {name: files.certificate(name).read_bytes() for name in ("broker", "svc-ingest")}

    credentials.renew_pairs(settings, now=now + timedelta(days=665))
    assert before["broker"] == files.certificate("broker").read_bytes()
    credentials.renew_pairs(settings, now=now + timedelta(days=675))

    for name, old in before.items():
        authority.check_pair(settings.ca_dir, name)
        loaded, earlier = map(
            x509.load_pem_x509_certificate, (files.certificate(name).read_bytes(), old)
        )
        assert loaded.not_valid_after_utc > now + timedelta(days=1400)
        assert _names(loaded) == _names(earlier)
        assert earlier.serial_number not in authority.revoked_serials(settings.ca_dir)


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def test_a_worker_on_another_machine_than_the_authority_leaves_it_alone(
    settings: Settings, session: Session
) -> None:
    now = datetime.now(UTC)
    credentials.keep_revocation_lists(session, settings, now)
    credentials.keep_certificates(session, settings, now)
    assert not settings.ca_dir.exists()


def test_a_list_that_cannot_be_signed_is_the_jobs_trouble(settings: Settings) -> None:
    authority.initialise(settings.ca_dir)
    authority.AuthorityFiles(settings.ca_dir).issuing.crl.write_bytes(b"no list")
    with pytest.raises(FleetError, match=r"crl\.pem"):
        credentials.renew_lists(settings, now=datetime.now(UTC))
