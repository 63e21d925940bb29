"""Enrolment without network: a packet goes from the bench to where the fleet can be reached, and comes back answered.

A packet is a small JSON file. It holds the certificate request of one board and later the fleet's answer to it; neither is a
secret. The key never leaves the board.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from provisioning.boards import BenchBoard
from provisioning.enrolment import (
    Enrolment,
    FleetAddress,
    ask_fleet,
    certificate_request,
    check_answer,
    finish_enrolment,
    identity_from,
    key_on_board,
    waiting_key,
)
from provisioning.errors import BenchError, UsedWrongly
from provisioning.files import write_whole

_FORMAT = "stadtsensor-enrolment-1"


@dataclass(frozen=True)
class Packet:
    """One board's request; `answer` is what the fleet said to it, None before that."""

    label: str
    model: str
    csr_pem: str
    answer: dict[str, Any] | None = None


def make_packet(board: BenchBoard, *, label: str, model_id: str) -> Packet:
    """Draw the board's key, unless one waits there already, and make the request for it.

    Raises:
        BenchError: the board failed.
    """
    return Packet(label, model_id, certificate_request(key_on_board(board), label))


def upload_packet(packet: Packet, fleet: FleetAddress, *, token: str) -> Packet:
    """The packet with the fleet's answer. Safe to repeat: the fleet gives the same key the same identity.

    Raises: as `enrolment.request_identity`.
    """
    answer = ask_fleet(
        fleet,
        label=packet.label,
        model_id=packet.model,
        token=token,
        csr_pem=packet.csr_pem,
    )
    check_answer(answer, _public_key(packet))
    return replace(packet, answer=answer)


def finish_with_packet(
    board: BenchBoard, packet: Packet, *, wifi: Sequence[tuple[str, str]]
) -> Enrolment:
    """Enrol the board that the packet was made of with its answer; nobody is asked.

    Raises:
        BenchError: the packet is another board's, has no answer yet, or the board failed.
    """
    key = waiting_key(board)
    if key is None or key.public_key() != _public_key(packet):
        raise BenchError(
            f"The packet of {packet.label} was made of another board, or of this one before it was wiped; take that board, or"
            " make a new packet."
        )
    if packet.answer is None:
        raise BenchError(
            f"The packet of {packet.label} has no answer yet; take it to where the fleet can be reached and run provision"
            " node upload."
        )
    identity = identity_from(packet.answer, key)
    finish_enrolment(board, identity, label=packet.label, model_id=packet.model, wifi=wifi)
    return Enrolment(identity.node_id, is_new=True)


def read_packet(path: Path) -> Packet:
    """A packet from its file.

    Raises:
        UsedWrongly: there is none.
    """
    try:
        content = json.loads(path.read_bytes())
        if content.pop("format") != _FORMAT:
            raise ValueError(path)
        packet = Packet(**content)
        is_whole = all(isinstance(one, str) for one in (packet.label, packet.model, packet.csr_pem))
        if not is_whole or not isinstance(packet.answer, dict | None):
            raise ValueError(path)
        _public_key(packet)
    except OSError as error:
        raise UsedWrongly(f"The packet {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsedWrongly(f"{path} is no enrolment packet; make one with --packet.") from error
    return packet


def write_packet(path: Path, packet: Packet) -> None:
    """Raises BenchError: the file cannot be written."""
    content = {"format": _FORMAT, **vars(packet)}
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1).encode())


def _public_key(packet: Packet) -> object:
    return x509.load_pem_x509_csr(packet.csr_pem.encode()).public_key()
