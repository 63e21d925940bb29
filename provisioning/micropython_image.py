"""The MicroPython image that goes onto a chip below our firmware: from a file or a URL, and only with its hash.

A downloaded image is kept in the user's cache under its hash: twenty boards in a row load it once, and a bench without
network has it.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.request
from pathlib import Path

import platformdirs

from provisioning.errors import BenchError, UsedWrongly
from provisioning.files import write_whole

IMAGE_ADDRESS = 0x1000
"""Of an ESP32's second-stage boot loader, with which MicroPython's images begin (esptool's documentation)."""

_MAGIC = 0xE9
# Image header, ESP-IDF's documentation "App Image Format": chip at 12, u16 little-endian; 0 is the ESP32.
_CHIP_AT, _ESP32 = 12, 0
_HEADER_BYTES = 24
_LONGEST_BYTES = 4 * 1024 * 1024 - IMAGE_ADDRESS
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DOWNLOAD_TIMEOUT_S = 30.0


def check_pin(source: str | None, sha256: str | None) -> str:
    """The hash in lower case; empty when no image is asked for.

    Raises:
        UsedWrongly: an image without its hash, a hash without image, or what is no hash.
    """
    if source is None and sha256 is None:
        return ""
    if source is None or sha256 is None:
        raise UsedWrongly(
            "--image and --image-sha256 go together; take the hash from where the image is published."
        )
    if not _SHA256.fullmatch(sha256.lower()):
        raise UsedWrongly("--image-sha256 is a SHA-256: 64 hexadecimal digits.")
    return sha256.lower()


def load_image(source: str, sha256: str) -> Path:
    """A file with the image at `source` (a path or a URL), checked.

    Raises:
        BenchError: it cannot be had, is another than the pinned one, or is no image for an ESP32.
    """
    is_url = source.lower().startswith(("https://", "http://"))
    if is_url:
        kept = Path(platformdirs.user_cache_dir("stadtsensor")) / "images" / f"{sha256}.bin"
        if not kept.is_file() or _sha256(kept.read_bytes()) != sha256:
            data = _downloaded(source)
            _check(data, sha256, source)
            write_whole(kept, data)
        return kept
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise BenchError(f"The image {source} cannot be read: {error.strerror}.") from error
    _check(data, sha256, source)
    return Path(source)


def _check(data: bytes, sha256: str, source: str) -> None:
    if _sha256(data) != sha256:
        raise BenchError(
            f"{source} is not the image with that SHA-256; load it again, and compare the hash with where it is"
            " published."
        )
    if len(data) < _HEADER_BYTES or data[0] != _MAGIC:
        raise BenchError(
            f"{source} is no image of an ESP32: it does not begin with E9; take the .bin file for the ESP32."
        )
    if int.from_bytes(data[_CHIP_AT : _CHIP_AT + 2], "little") != _ESP32:
        raise BenchError(f"{source} is an image for another chip; take the one for the ESP32.")
    if len(data) > _LONGEST_BYTES:
        raise BenchError(f"{source} is larger than a node's flash.")


def _downloaded(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as answer:  # noqa: S310 - http(s), see above
            return bytes(answer.read(_LONGEST_BYTES + 1))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        words = getattr(reason, "strerror", None) or str(reason)
        raise BenchError(
            f"The image cannot be loaded from {url}: {words}; check address and network, or load it elsewhere and name"
            " the file."
        ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
