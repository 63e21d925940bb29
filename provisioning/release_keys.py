"""Keys that sign releases: a card that anybody may read (`anna.pub`), and beside it the key itself, or a token that holds it.

`anna.key` is PKCS#8, encrypted under what scrypt (RFC 7914) makes of the passphrase: its salt and cost stand in the line above the PEM
block (RFC 7468 §5.2 allows it), because PKCS#8's own 2,048 rounds can be guessed at by the million. A card with a `uri` names a key that
is not a file: whatever securesystemslib can speak to (`hsm:`, `gcpkms:`, `awskms:`, `azurekms:`, …).
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import (
    SIGNER_FOR_URI_SCHEME,
    CryptoSigner,
    HSMSigner,
    Key,
    Signature,
    Signer,
    SSlibKey,
)
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata

from fleet_server.wire.errors import RepositoryWrong
from fleet_server.wire.signed_releases import check_key
from provisioning.errors import BenchError, UsedWrongly
from provisioning.files import write_whole

KINDS = ("rsa", "ecdsa", "ed25519")
LEAST_PASSPHRASE = 12
CARD_SUFFIX, KEY_SUFFIX = ".pub", ".key"
_FORMAT = 1
_HOLDER = re.compile(r"[^\W_][\w .@'-]{0,39}")
COST = 1 << 15
"""Of a guess: 32 MiB and a tenth of a second (128 · n · r bytes)."""
_R, _P = 8, 1
_MOST_BYTES = 1 << 26
_HEAD = re.compile(rb"scrypt n=(\d{1,7}) r=(\d{1,2}) p=(\d{1,2}) salt=([0-9a-f]{32})\n")
_KEY_MODE = 0o600
_KEY_OF_TOKEN = re.compile(r"\d{0,9}")
_NO_PKCS11 = "Nothing here speaks to tokens: install `stadtsensor[token]`, and let PYKCS11LIB name the token's PKCS#11 library."

Ask = Callable[[str], str]
"""Asks a person for a secret by what it is called: a passphrase, a PIN."""


@dataclass(frozen=True)
class KeyCard:
    """A public key and whose it is. `uri`: where a signer finds the private half; None for the file beside the card."""

    holder: str
    key: SSlibKey
    uri: str | None
    path: Path | None = None

    @property
    def keyid(self) -> str:
        return self.key.keyid

    def content(self) -> dict[str, Any]:
        """As it stands in the file."""
        told = {"format": _FORMAT, "holder": self.holder, "keyid": self.keyid}
        return {**told, "key": self.key.to_dict()} | ({"uri": self.uri} if self.uri else {})


def make_key(kind: str, holder: str) -> tuple[KeyCard, PrivateKeyTypes]:
    """A new key of a kind that nodes verify. Raises UsedWrongly: nobody is called so."""
    check_holder(holder)
    signer = _MAKERS[kind]()
    private_key = serialization.load_pem_private_key(signer.private_bytes, password=None)
    return KeyCard(holder, signer.public_key, None), private_key


_MAKERS: dict[str, Callable[[], CryptoSigner]] = {
    "rsa": CryptoSigner.generate_rsa,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "ed25519": CryptoSigner.generate_ed25519,
}


def card_of_token(holder: str, uri: str, public_pem: bytes) -> KeyCard:
    """The card of a key that a token or a service holds.

    Raises:
        UsedWrongly: the address is of no kind that securesystemslib knows, or the PEM is no key that nodes verify.
    """
    check_holder(holder)
    scheme = uri.partition(":")[0]
    if scheme not in SIGNER_FOR_URI_SCHEME:
        known = ", ".join(sorted(SIGNER_FOR_URI_SCHEME))
        raise UsedWrongly(f"{uri} is no signer's address; it begins with one of {known}.")
    try:
        key = SSlibKey.from_crypto(serialization.load_pem_public_key(public_pem))
        check_key(key, what="The file")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        said = (
            str(error)
            if isinstance(error, RepositoryWrong)
            else "The file is no public key in PEM."
        )
        raise UsedWrongly(said) from error
    return KeyCard(holder, key, uri)


def card_in_token(holder: str, uri: str, ask: Ask) -> KeyCard:
    """The card of a key in a PKCS#11 token (`hsm:2?label=…`), which is read from it.

    Raises:
        UsedWrongly: the address is none of a token, or the key is none that nodes verify.
        BenchError: the token cannot be read.
    """
    check_holder(holder)
    address = urlsplit(uri)
    if address.scheme != HSMSigner.SCHEME or not _KEY_OF_TOKEN.fullmatch(address.path):
        raise UsedWrongly(
            f"{uri} names no key in a token, like hsm:2?label=YubiKey+PIV; for any other give --public-key, too."
        )
    label = dict(parse_qsl(address.query)).get("label")
    try:
        found, key = HSMSigner.import_(int(address.path or HSMSigner.SCHEME_KEYID), label, ask)
    except UnsupportedLibraryError as error:
        raise BenchError(_NO_PKCS11) from error
    except Exception as error:  # tokens raise what they like
        raise BenchError(f"The token at {uri} cannot be read: {_words(error)}.") from error
    try:
        check_key(key, what="The token")
    except RepositoryWrong as error:
        raise UsedWrongly(str(error)) from error
    return KeyCard(holder, key, found)


def check_holder(holder: str) -> None:
    """Raises UsedWrongly: a name that cannot be written beside a key."""
    if not _HOLDER.fullmatch(holder):
        raise UsedWrongly(
            f"{holder!r} cannot name a key: 1 to 40 letters, digits, spaces, and . @ ' - after the first."
        )


def write_card(
    card: KeyCard, folder: Path, private_key: PrivateKeyTypes | None, passphrase: str
) -> Path:
    """Write the card, and the locked key before it; nothing that is there is overwritten. Returns the card's path.

    Raises:
        BenchError: there is a key of this name, or the folder cannot be written.
    """
    stem = card.holder.replace(" ", "-")
    card_path, key_path = folder / f"{stem}{CARD_SUFFIX}", folder / f"{stem}{KEY_SUFFIX}"
    for path in (card_path, key_path):
        if path.exists():
            raise BenchError(f"{path} is there already; give the key another name or folder.")
    if private_key is not None:
        write_whole(key_path, locked_pem(private_key, passphrase))
        key_path.chmod(_KEY_MODE)
    write_whole(card_path, (json.dumps(card.content(), indent=1, sort_keys=True) + "\n").encode())
    return card_path


def read_card(path: Path) -> KeyCard:
    """The card at `path`, or beside the key at `path`.

    Raises:
        UsedWrongly: there is none, or it is none.
    """
    card_path = path.with_suffix(CARD_SUFFIX) if path.suffix == KEY_SUFFIX else path
    try:
        content = json.loads(card_path.read_bytes())
    except FileNotFoundError as error:
        raise UsedWrongly(
            f"There is no key card {card_path}; provision release keygen makes one."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsedWrongly(f"{card_path} is no key card.") from error
    return card_from(content, what=str(card_path), path=card_path)


def card_from(content: Any, *, what: str, path: Path | None = None) -> KeyCard:
    """A card from what stands in a file. Raises UsedWrongly: it is none."""
    try:
        key = Key.from_dict(content["keyid"], dict(content["key"]))
        holder, uri = str(content["holder"]), content.get("uri")
        check_key(key, what=what)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f" {error}" if isinstance(error, RepositoryWrong) else ""
        raise UsedWrongly(f"{what} is no key card.{said}") from error
    if not isinstance(key, SSlibKey) or not (uri is None or isinstance(uri, str)):
        raise UsedWrongly(f"{what} is no key card.")
    check_holder(holder)
    return KeyCard(holder, key, uri, path)


def open_signer(card: KeyCard, ask: Ask) -> Signer:
    """What signs with the card's key.

    Raises:
        BenchError: the key's file or token cannot be used, or the passphrase is another.
    """
    if card.uri is None:
        return _file_signer(card, ask)
    try:
        signer = Signer.from_priv_key_uri(card.uri, card.key, ask)
    except UnsupportedLibraryError as error:
        raise BenchError(_NO_PKCS11 if card.uri.startswith("hsm:") else _words(error)) from error
    except Exception as error:  # tokens and key services raise what they like
        raise BenchError(
            f"The key of {card.holder} at {card.uri} cannot be used: {_words(error)}."
        ) from error
    return _Checked(signer, card)


def add_signature(metadata: Metadata[Any], signer: Signer) -> None:
    """One more signature. Raises BenchError: the token did not sign (its PIN is another, it was pulled out)."""
    try:
        metadata.sign(signer, append=True)
    except UnsignedMetadataError as error:  # around what the signer said
        raise BenchError(_words(error).removeprefix("Failed to sign: ") + ".") from error


class _Checked(Signer):
    """A token's signer whose failures are sentences."""

    def __init__(self, signer: Signer, card: KeyCard) -> None:
        self._signer, self._card = signer, card

    @property
    def public_key(self) -> Key:
        return self._card.key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: Ask | None = None
    ) -> Signer:
        return Signer.from_priv_key_uri(priv_key_uri, public_key, secrets_handler)

    def sign(self, payload: bytes) -> Signature:
        try:
            signature = self._signer.sign(payload)
            self._card.key.verify_signature(signature, payload)
        except Exception as error:
            raise BenchError(
                f"The key of {self._card.holder} did not sign: {_words(error)}."
            ) from error
        return signature


def _file_signer(card: KeyCard, ask: Ask) -> Signer:
    if card.path is None:
        raise BenchError(f"The key of {card.holder} is not here.")
    path = card.path.with_suffix(KEY_SUFFIX)
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise BenchError(f"The key {path} cannot be read: {error.strerror}.") from error
    private_key = unlocked_key(pem, ask(f"passphrase of {card.holder}"), what=str(path))
    try:
        return CryptoSigner(private_key, card.key)
    except Exception as error:
        raise BenchError(f"{path} is not the key of {card.path}.") from error


def locked_pem(key: PrivateKeyTypes, passphrase: str) -> bytes:
    """The key as a file that is of no use without the passphrase. Raises UsedWrongly: the passphrase is too short."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise UsedWrongly(
            f"A passphrase has at least {LEAST_PASSPHRASE} characters; four random words are good."
        )
    salt = secrets.token_bytes(16)
    secret = _stretched(passphrase, salt, COST, _R, _P)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(secret),
    )
    return f"scrypt n={COST} r={_R} p={_P} salt={salt.hex()}\n".encode() + pem


def unlocked_key(pem: bytes, passphrase: str, *, what: str) -> PrivateKeyTypes:
    """The key in a file that `locked_pem` made. Raises BenchError: it is none, or the passphrase is another."""
    head = _HEAD.match(pem)
    if head is None:
        raise BenchError(f"{what} is no key that provision release keygen made.")
    n, r, p = (int(number) for number in head.groups()[:3])
    if not 0 < 128 * n * r <= _MOST_BYTES or p > 4:
        raise BenchError(f"{what} is no key that provision release keygen made.")
    try:
        secret = _stretched(passphrase, bytes.fromhex(head[4].decode()), n, r, p)
        return serialization.load_pem_private_key(pem, password=secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BenchError(f"{what} does not open with this passphrase.") from error


def _stretched(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    secret = hashlib.scrypt(
        passphrase.encode(), salt=salt, n=n, r=r, p=p, maxmem=2 * _MOST_BYTES, dklen=32
    )
    return secret.hex().encode()


def _words(error: Exception) -> str:
    """What it says; an error without words is said by its name (`PinIncorrect`: pin incorrect)."""
    told = str(error).strip().splitlines()
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return (told[0].rstrip(".") if told else "") or name
