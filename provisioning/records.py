"""What the bench has done to each node, one folder each: what a node is accepted by, and where to go on after a break.

`record.json` in it is written after every step, whole or not at all. No secret is in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from provisioning.errors import BenchError, UsedWrongly
from provisioning.files import write_whole

_FILE = "record.json"
_UNSAFE = re.compile(r"[^\w-]+")


@dataclass
class Record:
    """One node at the bench; None and empty: not there yet."""

    label: str
    model: str
    mac: str | None = None
    chip: str | None = None
    serials: dict[str, str] = field(default_factory=dict)
    """Serial numbers of probes by slot."""
    tester: str = ""
    image_sha256: str | None = None
    micropython: str | None = None
    firmware_version: str | None = None
    firmware_sha256: str | None = None
    node_id: str | None = None
    certificate_serial: str | None = None
    certificate_expires_at: str | None = None
    broker: str | None = None
    wifi: list[str] = field(default_factory=list)
    tested_at: str | None = None
    channels: list[dict[str, Any]] = field(default_factory=list)
    """The last self-test: as `self_test.as_plain` gives it."""
    heard_at: str | None = None
    """When the fleet stored the node's first reading."""
    readings: list[dict[str, Any]] = field(default_factory=list)
    """That reading: channel, raw_value, status."""
    accepted_at: str | None = None

    @property
    def failed(self) -> list[dict[str, Any]]:
        """The channels that did not pass the last self-test."""
        return [channel for channel in self.channels if not channel["passed"]]


class Records:
    """All nodes of one bench, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def folder_of(self, label: str) -> Path:
        """Where a node's record and papers lie."""
        return self.folder / (_UNSAFE.sub("_", label) or "_")

    def load(self, label: str) -> Record | None:
        """The node's record; None when there is none.

        Raises:
            BenchError: the file is damaged, or of another label that is written alike.
        """
        record = read_record(self.folder_of(label) / _FILE)
        if record is not None and record.label != label:
            raise BenchError(
                f"{self.folder_of(label)} is the folder of {record.label}; take another label than {label}."
            )
        return record

    def save(self, record: Record) -> None:
        """Raises BenchError: it cannot be written."""
        write_whole(
            self.folder_of(record.label) / _FILE,
            json.dumps(asdict(record), ensure_ascii=False, indent=1).encode(),
        )

    def all(self) -> list[Record]:
        """Every node's record, by folder. Raises BenchError: one is damaged."""
        found = (read_record(path) for path in sorted(self.folder.glob(f"*/{_FILE}")))
        return [record for record in found if record is not None]


def read_record(path: Path) -> Record | None:
    """The record in a file; None when it is not there.

    Raises:
        BenchError: it is damaged, or cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
        record = Record(**content)
        if not all(isinstance(one, str) for one in (record.label, record.model)):
            raise TypeError(path)
        if not all(
            isinstance(getattr(record, name), list) for name in ("channels", "readings", "wifi")
        ):
            raise TypeError(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchError(f"The record {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        raise BenchError(
            f"{path} is no record of a node; move it away and repeat the command."
        ) from error
    return record


def check_free(records: Records, record: Record) -> None:
    """Nothing of this node is another one's already: neither its board nor one of its probes.

    Raises:
        UsedWrongly: it is.
    """
    for other in records.all():
        if other.label == record.label:
            continue
        where = records.folder_of(other.label) / _FILE
        if record.mac is not None and other.mac == record.mac:
            raise UsedWrongly(
                f"This board ({record.mac}) is {other.label} already by {where}; plug in the one for {record.label}, or, if"
                f" it was wiped to become another node, move {records.folder_of(other.label)} away."
            )
        for serial in record.serials.values():
            if serial in other.serials.values():
                raise UsedWrongly(
                    f"The probe {serial} is in {other.label} already by {where}; read its serial number again."
                )
