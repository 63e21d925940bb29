"""What the server tells a node (`dn/{id}/des`, `dn/{id}/rcpt`). Same content, same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cbor2

from fleet_server.wire import cbor
from fleet_server.wire.errors import WireError
from fleet_server.wire.senml import U32_MAX

MAX_DESIRED_BYTES = 4096
"""A node reads it into its heap in one piece."""


@dataclass(frozen=True)
class Receipt:
    """Everything of `spool` up to and including `seq` is stored."""

    spool: int
    seq: int


@dataclass(frozen=True)
class DesiredState:
    """What a node shall be: configuration, assigned release, pending commands, and where it has others, certificate and authorities.

    `certificate` and each of `roots` (one or two) are DER; None: as the node has it.
    """

    config_version: int
    config_values: Mapping[str, Any]
    release: Mapping[str, Any] | None = None
    commands: tuple[Mapping[str, Any], ...] = field(default=())
    certificate: bytes | None = None
    roots: tuple[bytes, ...] | None = None


def encode_receipt(receipt: Receipt) -> bytes:
    """Write a receipt.

    >>> encode_receipt(Receipt(spool=1, seq=2)).hex()
    'a26573706f6f6c016373657102'
    """
    return cbor2.dumps({"spool": receipt.spool, "seq": receipt.seq})


def decode_receipt(payload: bytes) -> Receipt:
    """Read a receipt.

    Raises:
        WireError: the payload is not a receipt.
    """
    message = _fields(payload, ("spool", "seq"))
    if not all(type(number) is int and 0 <= number <= U32_MAX for number in message.values()):
        raise WireError("receipt_wrong", "The receipt holds no possible numbers.")
    return Receipt(**message)


def encode_desired(desired: DesiredState) -> bytes:
    """Write a desired state.

    Raises:
        ValueError: the node could not take so much.
    """
    payload = cbor2.dumps(
        {
            "config": {"version": desired.config_version, "values": dict(desired.config_values)},
            "release": None if desired.release is None else dict(desired.release),
            "commands": [dict(command) for command in desired.commands],
            "certificate": desired.certificate,
            "roots": None if desired.roots is None else list(desired.roots),
        }
    )
    if len(payload) > MAX_DESIRED_BYTES:
        raise ValueError(
            f"a desired state of {len(payload)} bytes is more than the {MAX_DESIRED_BYTES} a node takes"
        )
    return payload


def decode_desired(payload: bytes) -> DesiredState:
    """Read a desired state.

    Raises:
        WireError: the payload is not a desired state.
    """
    message = _fields(payload, ("config", "release", "commands", "certificate", "roots"))
    config, release, commands, certificate, roots = message.values()
    if not isinstance(config, dict) or config.keys() != {"version", "values"}:
        raise WireError("desired_wrong", "The configuration has not version and values.")
    possible = (
        type(config["version"]) is int
        and isinstance(config["values"], dict)
        and (release is None or isinstance(release, dict))
        and isinstance(commands, list)
        and all(isinstance(command, dict) for command in commands)
        and (certificate is None or isinstance(certificate, bytes))
        and (roots is None or _are_bytes(roots))
    )
    if not possible:
        raise WireError("desired_wrong", "The desired state has a field of the wrong type.")
    return DesiredState(
        config["version"],
        config["values"],
        release,
        tuple(commands),
        certificate,
        None if roots is None else tuple(roots),
    )


def _are_bytes(items: object) -> bool:
    return isinstance(items, list) and all(isinstance(item, bytes) for item in items)


def _fields(payload: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    cbor.check_size(payload)
    message = cbor.decode_only(payload)
    if not isinstance(message, dict) or message.keys() != set(names):
        raise WireError("fields_wrong", f"The message has not the fields {', '.join(names)}.")
    return {name: message[name] for name in names}
