"""Certificates and revocation lists are kept from running out."""

from __future__ import annotations

from datetime import UTC, datetime

import structlog
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError
from fleet_server.services import authority, credentials
from fleet_server.settings import Settings

log = structlog.get_logger(__name__)


def keep_revocation_lists(session: Session, settings: Settings, now: datetime) -> None:
    """Sign the revocation lists anew long before they run out."""
    del session, now
    renew_lists(settings, now=datetime.now(UTC))


def keep_certificates(session: Session, settings: Settings, now: datetime) -> None:
    """Sign, see in use and take back nodes' certificates; give listeners and services new ones in time."""
    del now
    tend_certificates(session, settings, now=datetime.now(UTC))
    renew_pairs(settings, now=datetime.now(UTC))


def renew_lists(settings: Settings, *, now: datetime) -> None:
    """At real UTC `now`, by which TLS libraries judge. Nothing where the authority lives on another machine.

    Raises:
        FleetError: they could not be signed; in ten days at the latest nobody gets in.
    """
    try:
        if authority.renew_crl_when_due(settings.ca_dir, now=now):
            log.info("revocation_list_renewed")
    except authority.AuthorityMissing:
        return
    except (FleetError, OSError) as problem:
        log.error("revocation_list_not_renewed", reason=str(problem))
        raise


def renew_pairs(settings: Settings, *, now: datetime) -> None:
    """At real UTC `now`. Nothing where the authority lives on another machine."""
    try:
        renewed = authority.renew_pairs_when_due(settings.ca_dir, now=now)
    except authority.AuthorityMissing:
        return
    if renewed:
        log.info("pairs_renewed", names=renewed)


def tend_certificates(session: Session, settings: Settings, *, now: datetime) -> None:
    """At real UTC `now`; goes on until nothing is due. Nothing where the authority lives on another machine."""
    try:
        authority.existing_files(settings.ca_dir)
    except authority.AuthorityMissing:
        return
    while done := credentials.tend(session, settings.ca_dir, now=now):
        log.info("credentials_tended", seen=done.seen, signed=done.signed, revoked=done.revoked)
