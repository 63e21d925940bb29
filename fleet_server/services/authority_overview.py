"""What the authority has, where its keys are, and what is to be done next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from fleet_server.services import authority, key_files
from fleet_server.services.authority import LISTENERS, SERVICES, AuthorityFiles

RENEW_AUTHORITY_BEFORE = timedelta(days=3 * 365)
"""Node certificates end with what signs them, and live two years."""


class KeyPlace(StrEnum):
    """Where the private key of a certificate is."""

    CLEAR = "in the clear"
    LOCKED = "encrypted"
    AWAY = "not here"


@dataclass(frozen=True)
class Entry:
    """One certificate or revocation list; `next_step` is what somebody should do about it, None: nothing."""

    name: str
    file: Path
    key: KeyPlace | None
    ends_at: datetime
    next_step: str | None


def overview(folder: Path, *, now: datetime) -> list[Entry]:
    """Every certificate and revocation list of the authority, what ends first in its kind not first in the list.

    Raises:
        AuthorityMissing: it was never made.
        AuthorityDamaged: one of the files is; the sentence names it.
    """
    files = authority.existing_files(folder)
    return [
        *_authorities(files, now),
        *(_pair(files, name, now) for name in (*LISTENERS, *SERVICES)),
        *_lists(files, now),
    ]


def _authorities(files: AuthorityFiles, now: datetime) -> Iterator[Entry]:
    own = files.services_authority
    table = (
        ("root", files.root_certificate, files.root_key, "fleet ca root next"),
        ("next root", files.next_root_certificate, files.next_root_key, None),
        ("old root", files.old_root_certificate, files.old_root_key, None),
        ("issuing", files.issuing.certificate, files.issuing.key, "fleet ca root next"),
        ("services", own.certificate, own.key, "a new authority of the services: ask for help"),
    )
    for name, certificate, key, renewal in table:
        if not certificate.exists():
            continue
        ends_at = authority.read_certificate(certificate).not_valid_after_utc
        place = _place(key)
        step = _step_of_authority(name, place)
        if renewal is not None and ends_at - now < RENEW_AUTHORITY_BEFORE:
            step = renewal
        yield Entry(name, certificate, place, ends_at, step)


def _step_of_authority(name: str, place: KeyPlace) -> str | None:
    if name == "next root":
        return "fleet ca root switch, when the nodes know it"
    if name == "old root":
        return "fleet ca root finish, when the nodes know the new one"
    if name == "root" and place is not KeyPlace.AWAY:
        return "fleet ca root export FILE && fleet ca root remove FILE"
    if place is KeyPlace.CLEAR:
        return "fleet ca lock"
    return None


def _pair(files: AuthorityFiles, name: str, now: datetime) -> Entry:
    path = files.certificate(name)
    ends_at = authority.read_certificate(path).not_valid_after_utc
    step = f"fleet ca issue {name}" if ends_at - now < authority.PAIR_RENEW_BEFORE else None
    return Entry(name, path, _place(files.key(name)), ends_at, step)


def _lists(files: AuthorityFiles, now: datetime) -> Iterator[Entry]:
    for name, issuer in (("nodes", files.issuing), ("services", files.services_authority)):
        ends_at = authority.load_crl(issuer.crl).next_update_utc or now
        late = ends_at - now < authority.CRL_RENEW_BEFORE
        step = "fleet ca crl; then see why the worker does not do it" if late else None
        yield Entry(f"revocations of {name}", issuer.crl, None, ends_at, step)


def _place(key: Path) -> KeyPlace:
    if not key.exists():
        return KeyPlace.AWAY
    return KeyPlace.LOCKED if key_files.is_locked(key.read_bytes()) else KeyPlace.CLEAR
