"""The two keys with which the server itself signs for nodes: which metadata belong together (`snapshot`), and that they are the newest (`timestamp`).

Who has them can hold back an update or show an old one for some days, never make nodes run anything. They lie in one folder
(`<data>/release_keys`), locked as the authority's keys are (`key_files`) when a passphrase was known as they were made. The keys that
sign releases and roots are never here.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from securesystemslib.signer import CryptoSigner, SSlibKey

from fleet_server.errors import Conflict, NotFound, Unavailable
from fleet_server.services import key_files
from fleet_server.wire.signed_releases import SNAPSHOT, TIMESTAMP

ONLINE_ROLES = (SNAPSHOT, TIMESTAMP)
_FORMAT = 1
_KEY_MODE, _FOLDER_MODE = 0o600, 0o700


class OnlineKeysMissing(NotFound):
    """The server's keys for releases were never made, or are on another machine."""

    code = "online_keys_missing"


class OnlineKeyDamaged(Conflict):
    """A key's file is not what it was written as."""

    code = "online_key_damaged"


def make_keys(folder: Path, *, passphrase: str = "") -> list[str]:
    """Make what is missing; what is there stays. Safe to repeat, also at the same time.

    Returns:
        The roles whose key was made.
    """
    made = []
    for role in ONLINE_ROLES:
        path = _path(folder, role)
        if path.exists():
            continue
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key_files.locked_pem(key, passphrase) if passphrase else key_files.plain_pem(key)
        if _write_new(path, pem):
            made.append(role)
    return made


def cards(folder: Path) -> dict[str, dict[str, Any]]:
    """The public keys as the ceremony wants them (`provision release root init --online`), by role.

    Raises:
        OnlineKeysMissing: there are none.
        KeyLocked: they are encrypted, and the passphrase is not known.
    """
    keys = {role: signer_of(folder, role).public_key for role in ONLINE_ROLES}
    return {
        role: {
            "format": _FORMAT,
            "holder": f"server {role}",
            "keyid": key.keyid,
            "key": key.to_dict(),
        }
        for role, key in keys.items()
    }


def signer_of(folder: Path, role: str) -> CryptoSigner:
    """What signs for `role`.

    Raises:
        OnlineKeysMissing, OnlineKeyDamaged.
        KeyLocked: the key is encrypted, and the passphrase is not known.
        Unavailable: the file cannot be read.
    """
    path = _path(folder, role)
    try:
        pem = path.read_bytes()
    except FileNotFoundError as problem:
        raise OnlineKeysMissing(
            f"The server has no key for {role} in {folder}; make it with `fleet release keys`, or bring the one that the root names."
        ) from problem
    except OSError as problem:
        raise Unavailable(f"{path} cannot be read: {problem.strerror}.") from problem
    try:
        key = key_files.load_key(pem, what=str(path))
        return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))
    except (ValueError, TypeError) as problem:
        raise OnlineKeyDamaged(f"{path} is no key; bring it back from a backup.") from problem


def _path(folder: Path, role: str) -> Path:
    return folder / f"{role}.key"


def _write_new(path: Path, data: bytes) -> bool:
    """False when somebody else was quicker."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _KEY_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError as problem:
        raise Unavailable(f"{path} cannot be written: {problem.strerror}.") from problem
    finally:
        with suppress(OSError):
            aside.unlink()
    return True
