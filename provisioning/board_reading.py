"""What a board says about itself: chip, firmware, identity, configuration, spool. No secret is ever read off it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import cbor2
from cryptography import x509

from provisioning.boards import BenchBoard
from provisioning.scripts import ask

_LONGEST_BLOB_BYTES = 1900

# One line each: a name, and hexadecimal bytes.
_READ = """
import machine, os, sys
from binascii import hexlify
from esp32 import NVS
def tell(name, data):
    say(name + " " + hexlify(data).decode())
def blob(namespace, name):
    buffer = bytearray({longest})
    try:
        return memoryview(buffer)[:NVS(namespace).get_blob(name, buffer)]
    except OSError:
        return b""
tell("mac", machine.unique_id())
tell("micropython", sys.version.encode())
for namespace, name in (("id", "node_id"), ("id", "label"), ("id", "cert"), ("cfg", "link"), ("cfg", "node")):
    tell(name, blob(namespace, name))
try:
    with open("/a/VERSION", "rb") as file:
        tell("version", file.read())
except OSError:
    pass
if "spool" in os.listdir("/"):
    if "/a" not in sys.path:
        sys.path.insert(1, "/a")
    try:
        from node.spool import Spool
        spool = Spool("/spool", None)
        tell("spool", ("%d %d %d %d" % (spool.id, spool.newest, spool.receipt, spool.depth)).encode())
    except Exception as error:
        tell("spool_error", repr(error).encode())
"""


@dataclass(frozen=True)
class SpoolReading:
    """The spool's id, its highest sequence number, the highest confirmed one, how many packs wait for a receipt."""

    id: int
    newest: int
    receipt: int
    waiting: int


@dataclass(frozen=True)
class BoardReading:
    """What was found; None where the board has nothing of the kind."""

    mac: str
    micropython: str
    firmware: dict[str, Any] | None
    node_id: str | None
    label: str | None
    model: str | None
    certificate_serial: str | None
    certificate_expires_at: datetime | None
    broker: str | None
    wifi: list[str] = field(default_factory=list)
    """Names of the networks; their passwords stay on the board."""
    spool: SpoolReading | None = None
    node_map: dict[str, Any] | None = None


def read_board(board: BenchBoard) -> BoardReading:
    """Ask the board; nothing on it is changed.

    Raises:
        BenchError: the board failed.
    """
    lines = ask(board, _READ.format(longest=_LONGEST_BLOB_BYTES))
    parts = {name: bytes.fromhex(data) for name, _, data in (line.partition(" ") for line in lines)}
    link, node = _map(parts.get("link")), _map(parts.get("node"))
    certificate = _certificate(parts.get("cert"))
    networks = link.get("wifi") or []
    return BoardReading(
        mac=":".join(f"{byte:02x}" for byte in parts["mac"]),
        micropython=parts["micropython"].decode("utf-8", "replace").rpartition("; ")[2],
        firmware=_json(parts.get("version")),
        node_id=_text(parts.get("node_id")),
        label=_text(parts.get("label")),
        model=node.get("model"),
        certificate_serial=f"{certificate.serial_number:x}" if certificate else None,
        certificate_expires_at=certificate.not_valid_after_utc.astimezone(UTC)
        if certificate
        else None,
        broker=f"{link['host']}:{link['port']}" if {"host", "port"} <= link.keys() else None,
        wifi=[str(network[0]) for network in networks],
        spool=_spool(parts.get("spool")),
        node_map=node or None,
    )


def _text(data: bytes | None) -> str | None:
    return data.decode("utf-8", "replace") if data else None


def _map(data: bytes | None) -> dict[str, Any]:
    """A configuration map; empty when it is missing or damaged."""
    try:
        content = cbor2.loads(data) if data else {}
    except (cbor2.CBORDecodeError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _json(data: bytes | None) -> dict[str, Any] | None:
    try:
        content = json.loads(data) if data else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _certificate(data: bytes | None) -> x509.Certificate | None:
    try:
        return x509.load_der_x509_certificate(data) if data else None
    except ValueError:
        return None


def _spool(data: bytes | None) -> SpoolReading | None:
    return SpoolReading(*map(int, data.split())) if data else None
