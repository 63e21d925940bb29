"""The fleet's own certificate authority: a root, one issuing authority below it, and what they sign.

The services (ingest, control) have an authority of their own that no node's certificate leads to: at the broker's door for
services a node does not get through the handshake, whatever broker stands behind it.

Everything lives as files in one folder (`<data>/ca`). Invariants: a private key never leaves the folder and is
readable by its owner only; a file appears whole or not at all; nothing that exists is overwritten, except a
service's pair by `issue_pair` and the revocation list by `revoke` and `write_crl`.

Certificates are judged by TLS libraries with the machine's own clock, so times here are real UTC, never the
demo's simulated time.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleet_server.errors import Conflict, FleetError, Invalid, NotFound, Refused, Unavailable
from fleet_server.services import key_files
from fleet_server.wire.topics import SERVICE_CONTROL, SERVICE_INGEST, SERVICE_PUBLIC, is_node_id

ROOT_LIFETIME = timedelta(days=20 * 365)
ISSUING_LIFETIME = timedelta(days=10 * 365)
LEAF_LIFETIME = timedelta(days=2 * 365)
CRL_LIFETIME = timedelta(days=30)
CRL_RENEW_BEFORE = timedelta(days=10)
"""An expired list locks every node out, so it is renewed long before."""
PAIR_RENEW_BEFORE = timedelta(days=60)
"""Where a pair was copied to another machine, somebody has to copy it again: people are on holiday for weeks."""
LISTED_BEYOND_ITS_END = CRL_LIFETIME
"""A revoked certificate that has run out is taken off the list after it stood on one beyond its end (RFC 5280 §3.3)."""
CLOCK_MARGIN = timedelta(hours=1)
"""A new certificate is valid a little earlier, for peers whose clock is behind."""

SERVICES = (SERVICE_INGEST, SERVICE_CONTROL, SERVICE_PUBLIC)
LISTENERS = ("broker", "node-listener")
DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")

T = TypeVar("T")

# What the parsers say to a file that is none of theirs, or wants a password.
_DAMAGED = (ValueError, TypeError, UnsupportedAlgorithm)
_ORGANISATION = "Stadtsensor fleet"
_KEY_MODE = 0o600
_PUBLIC_MODE = 0o644
_FOLDER_MODE = (
    0o711  # a broker under another user reaches the public files by name but lists nothing
)


class AuthorityMissing(NotFound):
    """The folder holds no authority."""

    code = "authority_missing"


class AuthorityKeyMissing(Refused):
    """The key that would have to sign is kept elsewhere."""

    code = "authority_key_missing"


class AuthorityDamaged(Conflict):
    """A file of the authority is not what it was written as."""

    code = "authority_damaged"


class PairUnusable(Unavailable):
    """Key or certificate of a service or listener is not here, or not fit."""

    code = "pair_unusable"


class RequestWrong(Invalid):
    """A certificate request that this authority does not sign."""

    code = "certificate_request_wrong"


class RevocationListUnreadable(Unavailable):
    """Nobody can be let in, and nobody revoked, without knowing who is revoked."""

    code = "revocation_list_unreadable"


class CertificateUnknown(NotFound):
    """No certificate of this name or serial was issued here."""

    code = "certificate_unknown"


class RollOverUnderWay(Conflict):
    """One root at a time takes another's place."""

    code = "roll_over_under_way"


class RollOverMissing(Conflict):
    """No root was made that could take the current one's place."""

    code = "roll_over_missing"


@dataclass(frozen=True)
class Issuer:
    """Who signs: certificate, key and revocation list."""

    certificate: Path
    key: Path
    crl: Path


@dataclass(frozen=True)
class AuthorityFiles:
    """Paths of what the authority keeps; other programs read them by these names."""

    folder: Path

    @property
    def root_certificate(self) -> Path:
        return self.folder / "root.crt"

    @property
    def root_key(self) -> Path:
        return self.folder / "root.key"

    @property
    def next_root_certificate(self) -> Path:
        """Put here by the operator before a change of the root; nodes enrolled from then on pin both."""
        return self.folder / "root-next.crt"

    @property
    def next_root_key(self) -> Path:
        return self.folder / "root-next.key"

    @property
    def old_root_certificate(self) -> Path:
        """Of a root that was replaced, as long as nodes trust it."""
        return self.folder / "root-old.crt"

    @property
    def old_root_key(self) -> Path:
        return self.folder / "root-old.key"

    @property
    def old_issuing_certificate(self) -> Path:
        """The issuing authority as the old root vouches for it: same name, same key."""
        return self.folder / "issuing-old.crt"

    @property
    def roots(self) -> list[Path]:
        """Every root that somebody may have to trust now: the current one, and during a change the next or the old one."""
        paths = (self.root_certificate, self.next_root_certificate, self.old_root_certificate)
        return [path for path in paths if path.exists()]

    @property
    def issuing(self) -> Issuer:
        """Signs nodes and listeners."""
        folder = self.folder
        return Issuer(folder / "issuing.crt", folder / "issuing.key", folder / "crl.pem")

    @property
    def services_authority(self) -> Issuer:
        """Signs the services and nothing else; a root of its own."""
        folder = self._services_folder
        return Issuer(folder / "ca.crt", folder / "ca.key", folder / "crl.pem")

    @property
    def chain(self) -> Path:
        """Issuing and root certificates: what a listener needs to judge a node, which sends its leaf alone."""
        return self.folder / "chain.pem"

    @property
    def read_by_broker(self) -> tuple[Path, ...]:
        """What a broker shows and trusts, besides the revocation lists."""
        return (
            self.certificate("broker"),
            self.key("broker"),
            self.chain,
            self.services_authority.certificate,
        )

    @property
    def register(self) -> Path:
        """One JSON line for each certificate ever issued."""
        return self.folder / "issued.jsonl"

    @property
    def revoked_earlier(self) -> Path:
        """Serials that were taken off the list because their certificates have run out: revoked they stay."""
        return self.folder / "revoked-earlier.txt"

    @property
    def ingest_group(self) -> Path:
        """The name under which several ingest processes share the work; no node may know it."""
        return self._services_folder / "ingest-group"

    def certificate(self, name: str) -> Path:
        return self._pair_folder(name) / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self._pair_folder(name) / f"{name}.key"

    def issuer_of(self, name: str) -> Issuer:
        """Who signs, and revokes, certificates of this name."""
        return self.services_authority if name in SERVICES else self.issuing

    def _pair_folder(self, name: str) -> Path:
        return self._services_folder if name in SERVICES else self.folder

    @property
    def _services_folder(self) -> Path:
        return self.folder / "services"


@dataclass(frozen=True)
class IssuedCertificate:
    """One signed certificate."""

    name: str
    serial: int
    not_after: datetime
    pem: str


def initialise(
    folder: Path,
    *,
    now: datetime | None = None,
    valid_from: datetime | None = None,
    hosts: Sequence[str] = DEFAULT_HOSTS,
) -> list[str]:
    """Make what is missing: root, issuing authority, the services' and listeners' pairs, ingest's group, revocation list.

    Safe to repeat, also after a crash half-way; what exists stays as it is.

    Args:
        now: Real UTC.
        valid_from: Start of validity when it shall lie in the past (nodes that live through past days).
        hosts: Names and addresses under which nodes and services reach the listeners.

    Returns:
        File names that were made, relative to `folder`.

    Raises:
        AuthorityKeyMissing: the root's key was taken away and the issuing authority has yet to be signed.
    """
    now = now or datetime.now(UTC)
    start = min(valid_from or now, now) - CLOCK_MARGIN
    files = AuthorityFiles(folder)
    made: list[Path] = []
    with held(folder):
        if not files.root_certificate.exists():
            made += _make_root("root", files.root_certificate, files.root_key, start)
        if not files.services_authority.certificate.exists():
            own = files.services_authority
            own.key.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
            made += _make_root("services", own.certificate, own.key, start)
        if not files.issuing.certificate.exists():
            made += _make_issuing(files, start)
        if not files.chain.exists():
            _write_chain(files)
            made.append(files.chain)
        for name in (*LISTENERS, *SERVICES):
            if not files.certificate(name).exists():
                _write_pair(files, name, start=start, now=now, hosts=hosts)
                made += [files.certificate(name), files.key(name)]
        if not files.ingest_group.exists():
            _write(files.ingest_group, secrets.token_hex(16).encode(), mode=_KEY_MODE)
            made.append(files.ingest_group)
        for issuer in _issuers(files):
            if not issuer.crl.exists():
                _write_crl(issuer, {}, now=now)
                made.append(issuer.crl)
    return [str(path.relative_to(folder)) for path in made]


def existing_files(folder: Path) -> AuthorityFiles:
    """The files of an authority that has been made.

    Raises:
        AuthorityMissing: it has not.
    """
    files = AuthorityFiles(folder)
    if not files.issuing.certificate.exists():
        raise AuthorityMissing(
            "There is no authority in %(folder)s; make one with `fleet ca init`.", folder=folder
        )
    return files


def check_pair(folder: Path, name: str) -> None:
    """See that a service or listener can show who it is, and judge who it talks to; asked before anybody is waited for.

    Raises:
        PairUnusable: its key or certificate is missing, cannot be read, is damaged, or belongs to another; it names the file.
        AuthorityDamaged: the root's certificate is damaged.
        AuthorityMissing: the authority was never made, or is not on this machine.
    """
    files = existing_files(folder)
    _load_certificate(files.root_certificate)
    certificate = _read_of_pair(files.certificate(name), name, x509.load_pem_x509_certificate)
    key = _read_of_pair(files.key(name), name, _private_key)
    if key.public_key() != certificate.public_key():
        raise _unusable(files.key(name), name, f"does not belong to {files.certificate(name)}")


def check_public_files(folder: Path) -> None:
    """See that everything which a broker reads can be read.

    Raises:
        AuthorityDamaged: one of the certificates is damaged; it names the file.
        RevocationListUnreadable: so is a revocation list, or it is not there.
        AuthorityMissing: the authority was never made, or is not on this machine.
    """
    files = existing_files(folder)
    _load_certificate(files.chain)
    for issuer in _issuers(files):
        _load_certificate(issuer.certificate)
        load_crl(issuer.crl)


def issue_pair(
    folder: Path,
    name: str,
    *,
    now: datetime | None = None,
    hosts: Sequence[str] = DEFAULT_HOSTS,
) -> IssuedCertificate:
    """Replace key and certificate of a service or listener; the old pair stays valid until revoked.

    Raises:
        Invalid: `name` is none of the services and listeners.
        AuthorityMissing: the authority was never made.
    """
    if name not in (*LISTENERS, *SERVICES):
        known = ", ".join((*LISTENERS, *SERVICES))
        raise Invalid(
            "%(name)r is no service or listener of the fleet; there are %(known)s.",
            name=name,
            known=known,
        )
    now = now or datetime.now(UTC)
    files = existing_files(folder)
    with held(folder):
        return _write_pair(files, name, start=now - CLOCK_MARGIN, now=now, hosts=hosts)


def sign_node_request(
    folder: Path, csr_pem: str | bytes, *, node_id: str, now: datetime | None = None
) -> IssuedCertificate:
    """Certificate for a node's key: CN = SAN = `node_id`, client authentication, two years.

    Only the key is taken from the request; whatever else it asks for is not granted. The certificate starts
    with the issuing authority's own validity, so that a node which lives through past days can use it.

    Raises:
        RequestWrong: not a request, not signed by its own key, or not an EC P-256 key.
        Invalid: `node_id` may not name a node.
        AuthorityMissing: the authority was never made.
    """
    if not is_node_id(node_id):
        raise Invalid("%(node_id)r cannot be a node's name.", node_id=node_id)
    return _sign_node_key(folder, _requested_key(csr_pem), node_id=node_id, now=now)


def sign_node_again(
    folder: Path, certificate_der: bytes, *, node_id: str, now: datetime | None = None
) -> IssuedCertificate:
    """Another certificate for the key of one that this authority once signed for the node; as `sign_node_request`.

    Raises:
        RequestWrong: that certificate is for another node or another kind of key.
        AuthorityMissing: the authority was never made.
    """
    known = x509.load_der_x509_certificate(certificate_der)
    names = [name.value for name in known.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if names != [node_id]:
        raise RequestWrong("The certificate is not that of node %(node_id)s.", node_id=node_id)
    return _sign_node_key(folder, _p256(known.public_key()), node_id=node_id, now=now)


def _sign_node_key(
    folder: Path, public_key: ec.EllipticCurvePublicKey, *, node_id: str, now: datetime | None
) -> IssuedCertificate:
    now = now or datetime.now(UTC)
    files = existing_files(folder)
    with held(folder):
        issuer = _load_certificate(files.issuing.certificate)
        builder = _leaf(node_id, public_key, start=issuer.not_valid_before_utc, now=now)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(node_id)]), critical=False
        )
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return _sign_leaf(files, node_id, builder)


def trust_anchors_pem(folder: Path) -> list[str]:
    """What a node pins: the current root and, during a change, the next or the old one.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    return [path.read_text(encoding="ascii") for path in existing_files(folder).roots]


def make_next_root(folder: Path, *, now: datetime | None = None) -> x509.Certificate:
    """The root that shall take the current one's place: key and certificate beside it. Nobody shows it yet.

    Safe to repeat: the one that is there is returned.

    Raises:
        RollOverUnderWay: the last one is not over.
        AuthorityMissing: the authority was never made.
    """
    now = now or datetime.now(UTC)
    files = existing_files(folder)
    with held(folder):
        if files.old_root_certificate.exists():
            raise RollOverUnderWay(
                "Nodes are still leaving the root before: end that with `fleet ca root finish` first."
            )
        if not files.next_root_certificate.exists():
            title = f"root {now:%Y-%m-%d}"
            _make_root(title, files.next_root_certificate, files.next_root_key, now - CLOCK_MARGIN)
        _write_chain(files)
        return _load_certificate(files.next_root_certificate)


def switch_root(folder: Path) -> x509.Certificate:
    """Let the next root vouch for the issuing authority, and the broker show that; the nodes' listener goes on showing the old one.

    The issuing authority keeps its key and name: every certificate of a node stays good under both. Safe to repeat after a crash
    half-way. Returns the root that is the current one now.

    Raises:
        RollOverMissing: there is no next root.
        AuthorityKeyMissing: its key was taken away before it has signed.
    """
    files = existing_files(folder)
    with held(folder):
        if not files.next_root_certificate.exists():
            raise RollOverMissing("There is no next root; make one with `fleet ca root next`.")
        following = _load_certificate(files.next_root_certificate)
        for kept, path in (
            (files.old_issuing_certificate, files.issuing.certificate),
            (files.old_root_certificate, files.root_certificate),
        ):
            if not kept.exists():
                _write(kept, path.read_bytes())
        issuing = _load_certificate(files.issuing.certificate)
        if not _is_vouched_for(issuing, following):
            key = _load_key(files.next_root_key)
            _write(files.issuing.certificate, _pem(_vouched_for(issuing, following, key)))
        _write_chain(files)
        _show(files, "broker")
        if files.next_root_key.exists():
            if files.root_key.exists():
                files.root_key.replace(files.old_root_key)
            files.next_root_key.replace(files.root_key)
        _write(files.root_certificate, files.next_root_certificate.read_bytes())
        files.next_root_certificate.unlink()
        _write_chain(files)
        return following


def drop_old_root(folder: Path) -> None:
    """Let nobody show or trust the old root any more. Safe to repeat.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    files = existing_files(folder)
    with held(folder):
        for path in (
            files.old_issuing_certificate,
            files.old_root_key,
            files.old_root_certificate,
        ):
            path.unlink(missing_ok=True)
        _show(files, "node-listener")
        _write_chain(files)


def read_certificate(path: Path) -> x509.Certificate:
    """Raises AuthorityDamaged when the file is none, FileNotFoundError when there is none."""
    return _load_certificate(path)


def lock_keys(folder: Path, passphrase: str) -> list[Path]:
    """Encrypt the keys that sign, where they lie in the clear; returns those. Listeners' and services' own keys stay as they are.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    files = existing_files(folder)
    locked = []
    with held(folder):
        for path in _signing_keys(files):
            pem = path.read_bytes()
            if not key_files.is_locked(pem):
                _write(path, key_files.locked_pem(_load_key(path), passphrase), mode=_KEY_MODE)
                locked.append(path)
    return locked


def unlock_keys(folder: Path) -> list[Path]:
    """The way back: write the keys that sign in the clear; returns those that were not.

    Raises:
        KeyLocked: the passphrase is not known, or another.
    """
    files = existing_files(folder)
    unlocked = []
    with held(folder):
        keys = {path: _load_key(path) for path in _signing_keys(files)}
        for path, key in keys.items():
            if key_files.is_locked(path.read_bytes()):
                _write(path, key_files.plain_pem(key), mode=_KEY_MODE)
                unlocked.append(path)
    return unlocked


def export_root_key(folder: Path, target: Path, passphrase: str) -> Path:
    """Write the root's key, encrypted, to where it shall be kept; what was written is read back. The root's certificate goes beside it.

    Raises:
        AuthorityKeyMissing: it is not here any more.
        Refused: there is something at `target` already.
    """
    files = existing_files(folder)
    key = _load_key(files.root_key)
    if target.exists():
        raise Refused("%(target)s is there already; name a new file.", target=target)
    _write(target, key_files.locked_pem(key, passphrase), mode=_KEY_MODE)
    _write(target.with_suffix(".crt"), files.root_certificate.read_bytes())
    _same_key(target, key, passphrase)
    return target


def remove_root_key(folder: Path, copy: Path, passphrase: str) -> None:
    """Take the root's key off this machine, after its copy was opened and found to be the same.

    Raises:
        AuthorityKeyMissing: it is not here any more, or the copy is not there.
        Refused: the copy is of another key, or does not open.
    """
    files = existing_files(folder)
    with held(folder):
        _same_key(copy, _load_key(files.root_key), passphrase)
        # Overwritten first: not every file system lets go of what was in a file.
        with files.root_key.open("r+b") as file:
            file.write(os.urandom(files.root_key.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        files.root_key.unlink()
        _sync_folder(folder)


def _same_key(copy: Path, key: ec.EllipticCurvePrivateKey, passphrase: str) -> None:
    try:
        found = key_files.load_key(copy.read_bytes(), what=str(copy), passphrase=passphrase)
    except OSError:
        raise AuthorityKeyMissing(
            "%(copy)s cannot be read; nothing was removed.", copy=copy
        ) from None
    except ValueError as problem:
        raise Refused("%(copy)s is no key.", copy=copy) from problem
    if found.public_key() != key.public_key():
        raise Refused("%(copy)s is the key of another root.", copy=copy)


def _signing_keys(files: AuthorityFiles) -> list[Path]:
    paths = (files.issuing.key, files.services_authority.key, files.root_key, files.next_root_key)
    return [path for path in paths if path.exists()]


def _is_vouched_for(issuing: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        issuing.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _vouched_for(
    issuing: x509.Certificate, root: x509.Certificate, root_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """The issuing authority's key and name under another root; what it has signed begins no earlier than it."""
    start = issuing.not_valid_before_utc
    builder = _authority(
        issuing.subject,
        root.subject,
        _p256(issuing.public_key()),
        start,
        max(datetime.now(UTC), start) + ISSUING_LIFETIME - start,
        path_length=0,
    )
    return builder.add_extension(_authority_key_identifier(root), critical=False).sign(
        root_key, hashes.SHA256()
    )


def ingest_group(folder: Path) -> str:
    """The name under which several ingest processes share the work.

    Raises:
        AuthorityMissing: it was never drawn, or was not copied to this machine.
    """
    path = AuthorityFiles(folder).ingest_group
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise AuthorityMissing(
            "%(path)s is missing; run `fleet ca init` once more where the authority lives, and copy the file here.",
            path=path,
        ) from None


def revoke(folder: Path, name_or_serial: str, *, now: datetime | None = None) -> list[int]:
    """Put all certificates of a name, or the one with this serial (hexadecimal), on the revocation list.

    Safe to repeat. The broker that we run sees the new list within a second and ends live sessions.

    Returns:
        Serials that are on the list because of this name, old ones included.

    Raises:
        CertificateUnknown: nothing was issued under this name or serial.
        AuthorityMissing: the authority was never made.
    """
    now = now or datetime.now(UTC)
    files = existing_files(folder)
    with held(folder):
        found = {
            serial: files.issuer_of(name)
            for name, serial, _ in _register(files)
            if name_or_serial == name or name_or_serial.lower() == f"{serial:x}"
        }
        if not found:
            raise CertificateUnknown(
                "No certificate was issued for %(name_or_serial)r.", name_or_serial=name_or_serial
            )
        for issuer in set(found.values()):
            revoked = _revoked(issuer)
            for serial in found:
                if found[serial] == issuer:
                    revoked.setdefault(serial, now)
            _write_crl(issuer, revoked, now=now)
    return list(found)


def revoke_node_serials(
    folder: Path, serials: Collection[int], *, now: datetime | None = None
) -> None:
    """Put these certificates of nodes on the revocation list, in one writing of it. Safe to repeat.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    now = now or datetime.now(UTC)
    issuer = existing_files(folder).issuing
    with held(folder):
        revoked = _revoked(issuer)
        for serial in serials:
            revoked.setdefault(serial, now)
        _write_crl(issuer, revoked, now=now)


def write_crl(folder: Path, *, now: datetime | None = None) -> datetime:
    """Sign the revocation lists anew, without what has long run out; returns when they run out.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    now = now or datetime.now(UTC)
    files = existing_files(folder)
    with held(folder):
        past = _long_run_out(files, now)
        listed = {issuer: _revoked(issuer) for issuer in _issuers(files)}
        # Noted first: cut short in between, a serial stands in both.
        _note_revoked_earlier(
            files, {serial for revoked in listed.values() for serial in revoked if serial in past}
        )
        return max(
            _write_crl(
                issuer,
                {serial: at for serial, at in revoked.items() if serial not in past},
                now=now,
            )
            for issuer, revoked in listed.items()
        )


def renew_crl_when_due(folder: Path, *, now: datetime | None = None) -> bool:
    """Sign the revocation lists anew when one runs out within `CRL_RENEW_BEFORE`; True when it was.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    now = now or datetime.now(UTC)
    ends = [load_crl(issuer.crl).next_update_utc for issuer in _issuers(existing_files(folder))]
    if all(end is not None and end - now > CRL_RENEW_BEFORE for end in ends):
        return False
    write_crl(folder, now=now)
    return True


def renew_pairs_when_due(folder: Path, *, now: datetime | None = None) -> list[str]:
    """New pairs, under the same names, for services and listeners whose certificate ends within `PAIR_RENEW_BEFORE`; returns whose.

    The pairs before stay good until they end.

    Raises:
        AuthorityMissing: the authority was never made.
        FleetError: its keys cannot be used.
    """
    now = now or datetime.now(UTC)
    files = existing_files(folder)
    renewed = []
    for name in (*LISTENERS, *SERVICES):
        if not files.certificate(name).exists():
            continue
        known = _load_certificate(files.certificate(name))
        if known.not_valid_after_utc - now < PAIR_RENEW_BEFORE:
            issue_pair(folder, name, now=now, hosts=_hosts_of(known))
            renewed.append(name)
    return renewed


def revoked_serials(folder: Path) -> frozenset[int]:
    """Serials of all that was ever revoked, on the lists or not any more.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    files = existing_files(folder)
    listed = frozenset(serial for issuer in _issuers(files) for serial in _revoked(issuer))
    return listed | _revoked_earlier(files)


def serials_by_name(folder: Path) -> dict[str, set[int]]:
    """Serials of every certificate that was ever issued, by the name that it was issued to.

    Raises:
        AuthorityMissing: the authority was never made.
    """
    found: dict[str, set[int]] = defaultdict(set)
    for name, serial, _ in _register(existing_files(folder)):
        found[name].add(serial)
    return found


def is_continued_by(folder: Path, newer: Path) -> bool:
    """Whether `newer` is whole, and the same authority as the one in `folder` at the same time or later.

    Nothing that it has issued is unknown there, and it may know more: what was issued and revoked since.
    """
    before, after = AuthorityFiles(folder), AuthorityFiles(newer)
    try:
        check_public_files(newer)
        for mine, its in zip(_issuers(before), _issuers(after), strict=True):
            key = _load_certificate(its.certificate).public_key()
            if key != _load_certificate(mine.certificate).public_key():
                return False
            if mine.key.exists() and not its.key.exists():
                return False
        return after.register.read_bytes().startswith(before.register.read_bytes())
    except (FleetError, OSError):
        return False


def load_crl(path: Path) -> x509.CertificateRevocationList:
    """The revocation list in a file.

    Raises:
        RevocationListUnreadable: it is not there, or is no revocation list.
    """
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError) as problem:
        raise RevocationListUnreadable(
            "%(path)s is no revocation list that can be read: put your copy back, or remove it, run `fleet "
            "ca init`, and revoke again who was on it.",
            path=path,
        ) from problem


def names_of(folder: Path, serials: Collection[int]) -> frozenset[str]:
    """Names that certificates with these serials were issued to; serials of others are passed over."""
    return frozenset(
        name for name, serial, _ in _register(AuthorityFiles(folder)) if serial in serials
    )


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """One signer at a time, across processes: register and revocation list are read, changed and written."""
    folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _requested_key(csr_pem: str | bytes) -> ec.EllipticCurvePublicKey:
    data = csr_pem.encode() if isinstance(csr_pem, str) else csr_pem
    try:
        request = x509.load_pem_x509_csr(data)
        is_own_signature = request.is_signature_valid
        public_key = request.public_key()
    except (ValueError, TypeError, InvalidSignature) as problem:
        raise RequestWrong("This is not a certificate request in PEM format.") from problem
    if not is_own_signature:
        raise RequestWrong("The certificate request is not signed by its own key.")
    return _p256(public_key)


def _p256(public_key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(
        public_key.curve, ec.SECP256R1
    ):
        raise RequestWrong("The certificate request has not an EC P-256 key.")
    return public_key


def _issuers(files: AuthorityFiles) -> tuple[Issuer, ...]:
    return files.issuing, files.services_authority


def _make_root(title: str, certificate: Path, key_path: Path, start: datetime) -> list[Path]:
    """A certificate that nobody but itself vouches for."""
    key = _load_or_make_key(key_path)
    name = _subject(f"Stadtsensor {title}")
    builder = _authority(name, name, key.public_key(), start, ROOT_LIFETIME, path_length=1)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
    )
    _write(certificate, _pem(builder.sign(key, hashes.SHA256())))
    return [certificate, key_path]


def _make_issuing(files: AuthorityFiles, start: datetime) -> list[Path]:
    if not files.root_key.exists():
        raise AuthorityKeyMissing(
            "%(path)s is needed once more, to sign the issuing authority.", path=files.root_key
        )
    root = _load_certificate(files.root_certificate)
    root_key = _load_key(files.root_key)
    key = _load_or_make_key(files.issuing.key)
    start = max(start, root.not_valid_before_utc)
    builder = _authority(
        _subject("Stadtsensor issuing"),
        root.subject,
        key.public_key(),
        start,
        ISSUING_LIFETIME,
        path_length=0,
    )
    builder = builder.add_extension(_authority_key_identifier(root), critical=False)
    _write(files.issuing.certificate, _pem(builder.sign(root_key, hashes.SHA256())))
    return [files.issuing.certificate, files.issuing.key]


def _authority(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: datetime,
    lifetime: timedelta,
    *,
    path_length: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _write_pair(
    files: AuthorityFiles, name: str, *, start: datetime, now: datetime, hosts: Sequence[str]
) -> IssuedCertificate:
    """New key and certificate of a service or listener; a listener's file holds the issuing certificate, too."""
    is_listener = name in LISTENERS
    key = ec.generate_private_key(ec.SECP256R1())
    names = [_general_name(host) for host in hosts] if is_listener else [x509.DNSName(name)]
    usage = ExtendedKeyUsageOID.SERVER_AUTH if is_listener else ExtendedKeyUsageOID.CLIENT_AUTH
    # Peers look at the names above; this one is for people, and may have 64 characters (RFC 5280, appendix A.1).
    common_name = hosts[0] if is_listener and len(hosts[0]) <= 64 else name
    builder = (
        _leaf(common_name, key.public_key(), start=start, now=now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    issued = _sign_leaf(files, name, builder)
    above = _shown_by(files, name).read_bytes() if is_listener else b""
    _write(files.key(name), key_files.plain_pem(key), mode=_KEY_MODE)
    _write(files.certificate(name), issued.pem.encode() + above)
    return issued


def _hosts_of(certificate: x509.Certificate) -> list[str]:
    """Names and addresses, in the order in which they were given."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _shown_by(files: AuthorityFiles, listener: str) -> Path:
    """The issuing certificate that a listener shows: the nodes' own one shows the old root's as long as there is one."""
    old = files.old_issuing_certificate
    return old if listener == "node-listener" and old.exists() else files.issuing.certificate


def _write_chain(files: AuthorityFiles) -> None:
    issuing = (files.issuing.certificate, files.old_issuing_certificate)
    paths = [*(path for path in issuing if path.exists()), *files.roots]
    _write(files.chain, b"".join(path.read_bytes() for path in paths))


def _show(files: AuthorityFiles, listener: str) -> None:
    """Let a listener's certificate be followed by the issuing certificate that it shows now."""
    leaf = _pem(_load_certificate(files.certificate(listener)))
    _write(files.certificate(listener), leaf + _shown_by(files, listener).read_bytes())


def _leaf(
    common_name: str, public_key: ec.EllipticCurvePublicKey, *, start: datetime, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + LEAF_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _sign_leaf(
    files: AuthorityFiles, name: str, builder: x509.CertificateBuilder
) -> IssuedCertificate:
    """Sign with the issuer's key and enter into the register, register first: none is ever unknown to `revoke`."""
    issuer = files.issuer_of(name)
    above = _load_certificate(issuer.certificate)
    certificate = (
        builder.issuer_name(above.subject)
        .add_extension(_authority_key_identifier(above), critical=False)
        .sign(_load_key(issuer.key), hashes.SHA256())
    )
    not_after = certificate.not_valid_after_utc
    entry = {"name": name, "serial": certificate.serial_number, "not_after": not_after.isoformat()}
    with files.register.open("a", encoding="utf-8") as register:
        register.write(json.dumps(entry) + "\n")
        register.flush()
        os.fsync(register.fileno())
    return IssuedCertificate(name, certificate.serial_number, not_after, _pem(certificate).decode())


def _register(files: AuthorityFiles) -> Iterator[tuple[str, int, datetime]]:
    """Name, serial and end of every certificate issued, oldest first."""
    if not files.register.exists():
        return
    with files.register.open(encoding="utf-8") as register:
        for line in register:
            # A line that a power cut tore belongs to a certificate that was never handed out.
            if line.endswith("\n"):
                yield _entry(files.register, line)


def _entry(register: Path, line: str) -> tuple[str, int, datetime]:
    try:
        entry = json.loads(line)
        return entry["name"], entry["serial"], datetime.fromisoformat(entry["not_after"])
    except (ValueError, TypeError, KeyError) as problem:
        raise AuthorityDamaged(
            "%(register)s is damaged: restore it from your copy of the ca folder.",
            register=register,
        ) from problem


def _revoked(issuer: Issuer) -> dict[int, datetime]:
    if not issuer.crl.exists():
        return {}
    return {entry.serial_number: entry.revocation_date_utc for entry in load_crl(issuer.crl)}


def _long_run_out(files: AuthorityFiles, now: datetime) -> set[int]:
    """Serials of certificates that no TLS library takes any more, whoever holds them."""
    return {
        serial
        for _, serial, not_after in _register(files)
        if not_after + LISTED_BEYOND_ITS_END < now
    }


def _revoked_earlier(files: AuthorityFiles) -> frozenset[int]:
    try:
        lines = files.revoked_earlier.read_text(encoding="ascii").split()
        return frozenset(int(line, 16) for line in lines)
    except FileNotFoundError:
        return frozenset()
    except ValueError as problem:
        raise AuthorityDamaged(
            "%(path)s is damaged: restore it from your copy of the ca folder.",
            path=files.revoked_earlier,
        ) from problem


def _note_revoked_earlier(files: AuthorityFiles, serials: Collection[int]) -> None:
    if serials:
        known = sorted(_revoked_earlier(files).union(serials))
        _write(files.revoked_earlier, "".join(f"{serial:x}\n" for serial in known).encode())


def _write_crl(issuer: Issuer, revoked: dict[int, datetime], *, now: datetime) -> datetime:
    above = _load_certificate(issuer.certificate)
    number = _crl_number(issuer) + 1
    runs_out = now + CRL_LIFETIME
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(above.subject)
        .last_update(now - CLOCK_MARGIN)
        .next_update(runs_out)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key_identifier(above), critical=False)
    )
    for serial, revoked_at in sorted(revoked.items()):
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(revoked_at)
            .build()
        )
    crl = builder.sign(_load_key(issuer.key), hashes.SHA256())
    _write(issuer.crl, crl.public_bytes(serialization.Encoding.PEM))
    return runs_out


def _crl_number(issuer: Issuer) -> int:
    if not issuer.crl.exists():
        return 0
    return load_crl(issuer.crl).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANISATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read_of_pair(path: Path, name: str, parse: Callable[[bytes], T]) -> T:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _unusable(path, name, "is missing") from None
    except OSError as problem:
        raise _unusable(path, name, f"cannot be read ({problem.strerror})") from problem
    try:
        return parse(content)
    except _DAMAGED as problem:
        raise _unusable(path, name, "is damaged") from problem


def _unusable(path: Path, name: str, how: str) -> PairUnusable:
    return PairUnusable(
        "%(path)s %(how)s: put it back from your copy of the ca folder, or make a new pair with `fleet ca "
        "issue %(name)s`.",
        path=path,
        how=how,
        name=name,
    )


def _private_key(pem: bytes) -> PrivateKeyTypes:
    return key_files.load_key(pem, what="The key")


def _load_or_make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in this file; one left by a start that did not get further is used, not replaced."""
    if not path.exists():
        _write(path, key_files.plain_pem(ec.generate_private_key(ec.SECP256R1())), mode=_KEY_MODE)
    return _load_key(path)


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = _loaded(path, lambda pem: key_files.load_key(pem, what=str(path)))
    except FileNotFoundError:
        raise AuthorityKeyMissing(
            "The key %(path)s is not here; nothing can be signed.", path=path
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Conflict("%(path)s holds a key of another kind than this authority uses.", path=path)
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    return _loaded(path, x509.load_pem_x509_certificate)


def _loaded(path: Path, parse: Callable[[bytes], T]) -> T:
    content = path.read_bytes()
    try:
        return parse(content)
    except _DAMAGED as problem:
        raise AuthorityDamaged(
            "%(path)s is damaged: restore it from your copy of the ca folder.", path=path
        ) from problem


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, content: bytes, *, mode: int = _PUBLIC_MODE) -> None:
    """Put a file in place whole, safe against power loss; owner, group and mode of an older one are kept."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _KEY_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if path.exists():
            old = path.stat()
            mode = old.st_mode & 0o777
            if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
                os.fchown(file.fileno(), old.st_uid, old.st_gid)
        os.fchmod(file.fileno(), mode)
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
