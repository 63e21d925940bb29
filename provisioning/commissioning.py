"""A bare board becomes an accepted node: flash, enrol, self-test, first reading at the fleet, sticker and protocol.

Every step is safe to repeat and is noted in the node's record when it is done, so that the same command goes on where it
was broken off, be it by a pulled cable, a fleet that was away, or the end of a working day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hardware.catalogue import load_node_model
from provisioning import esptool_process
from provisioning.board_reading import BoardReading, read_board
from provisioning.boards import VIRTUAL, BenchBoard, open_board
from provisioning.enrolment import FleetAddress, ask_listener, enrol_node, present_enrolment
from provisioning.errors import BenchError
from provisioning.files import write_whole
from provisioning.firmware_bundle import FirmwareBundle
from provisioning.flashing import flash_firmware
from provisioning.label import Label, label_pdf, label_svg
from provisioning.protocol import protocol_html, protocol_pdf
from provisioning.records import Record, Records, check_free
from provisioning.self_test import as_plain, run_self_test
from provisioning.serial_board import NoMicroPython

_ASK_EVERY_S = 1.0


@dataclass(frozen=True)
class Bench:
    """What is the same for all nodes of a day."""

    fleet: FleetAddress
    token: str
    wifi: Sequence[tuple[str, str]] | None
    """None: what a virtual board finds."""
    records: Records
    bundle: FirmwareBundle
    image: Path | None = None
    image_sha256: str | None = None
    wait_s: float = 180.0
    """For the first reading; 0: it is not waited for."""
    pages_url: str | None = None


def commission(
    address: str, record: Record, bench: Bench, *, tell: Callable[[str], None]
) -> Record:
    """Take the node of `record` as far as it comes; what is missing then stands in its protocol.

    Raises:
        BenchError: a step failed; those before it are done and noted.
        UsedWrongly: the board or a probe is another node's.
    """
    check_free(bench.records, record)
    _prepare(address, record, bench, tell)
    with open_board(address) as board:
        before = read_board(board)
        _check_board(record, before, bench.records)
        tell(f"{record.label}: firmware {bench.bundle.version} …")
        flash_firmware(board, bench.bundle)
        tell(f"{record.label}: identity …")
        _enrol(board, record, bench)
        _note_board(record, read_board(board))
        bench.records.save(record)
        if not record.channels or record.failed:
            tell(f"{record.label}: measuring every probe …")
            record.channels = as_plain(run_self_test(board, load_node_model(record.model)))
            record.tested_at = _now()
            bench.records.save(record)
    if record.heard_at is None and bench.wait_s:
        tell(f"{record.label}: waiting until the fleet hears it …")
        _wait_until_heard(address, record, bench)
    if record.accepted_at is None and record.heard_at is not None and not record.failed:
        record.accepted_at = _now()
    bench.records.save(record)
    write_papers(record, bench.records.folder_of(record.label), pages_url=bench.pages_url)
    return record


def write_papers(record: Record, folder: Path, *, pages_url: str | None) -> list[Path]:
    """Sticker (once the node has an id) and protocol into a folder, each as two files.

    Raises:
        BenchError: they cannot be written.
    """
    papers = {"protocol.html": protocol_html(record).encode(), "protocol.pdf": protocol_pdf(record)}
    if record.node_id is not None:
        label = Label(
            record.label,
            record.node_id,
            record.model,
            record.mac or "",
            serials=record.serials,
            pages_url=pages_url,
        )
        papers |= {"label.svg": label_svg(label).encode(), "label.pdf": label_pdf(label)}
    for name, content in papers.items():
        write_whole(folder / name, content)
    return [folder / name for name in sorted(papers)]


def _prepare(address: str, record: Record, bench: Bench, tell: Callable[[str], None]) -> None:
    """The chip known, and MicroPython on it: written once, and never over a node."""
    if address.startswith(VIRTUAL):
        return
    try:
        with open_board(address) as board:
            found: BoardReading | None = read_board(board)
            _check_board(record, found, bench.records)
            is_node = (
                present_enrolment(board, label=record.label, model_id=record.model) is not None
            )
    except NoMicroPython:
        if bench.image is None:
            raise
        found, is_node = None, False
    has_image = found is not None and record.image_sha256 == bench.image_sha256
    if bench.image is not None and not is_node and not has_image:
        tell(f"{record.label}: MicroPython …")
        record.chip = esptool_process.write_image(address, bench.image).title
        record.image_sha256 = bench.image_sha256
    elif record.chip is None:
        tell(f"{record.label}: which chip …")
        record.chip = esptool_process.identify_chip(address).title


def _check_board(record: Record, found: BoardReading | None, records: Records) -> None:
    """Is it the board that the record is of, and nobody else's? From here on it is this node's."""
    if found is None:
        return
    if record.mac is not None and record.mac != found.mac:
        raise BenchError(
            f"{record.label} is the board {record.mac} by its record, and this is {found.mac}; plug that one in, or move"
            f" {records.folder_of(record.label)} away to begin anew."
        )
    record.mac = found.mac
    check_free(records, record)
    records.save(record)


def _enrol(board: BenchBoard, record: Record, bench: Bench) -> None:
    enrolment = enrol_node(
        board,
        bench.fleet,
        label=record.label,
        model_id=record.model,
        token=bench.token,
        wifi=board.known_wifi if bench.wifi is None else bench.wifi,
    )
    if record.node_id not in (None, enrolment.node_id):
        # Wiped since, and enrolled anew: what was heard was another node.
        record.heard_at, record.accepted_at, record.readings = None, None, []
    record.node_id = enrolment.node_id


def _note_board(record: Record, found: BoardReading) -> None:
    expires_at = found.certificate_expires_at
    firmware = found.firmware or {}
    record.micropython = found.micropython
    record.firmware_version = firmware.get("version")
    record.firmware_sha256 = firmware.get("sha256")
    record.certificate_serial = found.certificate_serial
    record.certificate_expires_at = expires_at.date().isoformat() if expires_at else None
    record.broker, record.wifi = found.broker, found.wifi


def _wait_until_heard(address: str, record: Record, bench: Bench) -> None:
    """Raises BenchError: the fleet does not answer or refuses, or has heard nothing in time; it is asked at least once."""
    until_s = time.monotonic() + bench.wait_s
    while True:
        contact = ask_listener(
            bench.fleet,
            "heard",
            {"token": bench.token, "node_id": record.node_id or ""},
            what="question whether the node is heard",
        )
        if contact.get("first_stored_at"):
            record.heard_at = str(contact["first_stored_at"])
            record.readings = _readings(contact.get("readings"))
            return
        if time.monotonic() + _ASK_EVERY_S > until_s:
            what_to_do = (
                "a virtual board in a folder lives while provision virtual run runs on it: start that, then repeat the command."
                if address.startswith(VIRTUAL)
                else "see that the Wi-Fi of --wifi-file is here and lets the node reach its broker, then repeat the command."
            )
            raise BenchError(
                f"The fleet has heard nothing of {record.label} ({record.node_id}) in {bench.wait_s:g} s; {what_to_do}"
            )
        time.sleep(_ASK_EVERY_S)


def _readings(content: Any) -> list[dict[str, Any]]:
    return [one for one in content if isinstance(one, dict)] if isinstance(content, list) else []


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
