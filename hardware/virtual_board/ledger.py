"""What a board's flash holds, told by somebody other than the firmware.

Decodes the spool from the bytes on flash and counts every pack that was ever durable there. It shares no code with
`firmware/node/spool.py`: if the two disagree about a byte, a test sees it. What the fleet's books are checked against
(`packs_written`) comes from here.

A ledger file is JSON: `{"packs_written": n, "packs_held": n, "spools": {"<spool id, decimal>": {"written": [[first,
last], …], "receipt": seq, "held": [[first, last], …]}}}`. `written` are the sequence numbers ever durable, `held` those
that lie on flash above the receipt. It may be lost at any time together with the process: the next `observe` counts
again from the flash, and only packs deleted in between (a full spool) would be missed.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from littlefs import LittleFS, UserContext
from littlefs.errors import LittleFSError

from hardware.virtual_board.flash import SECTOR_BYTES, region

_ID_MAGIC = b"SP1\0"
_MARK_MAGIC = b"MK2\0"
# Magic, counter, spool, highest receipted sequence; of no interest here: highest one given up, packs thinned and lost, and
# four numbers about what is to be sent again. A CRC-32 follows.
_MARK = struct.Struct("<4sIII28x")
_RECORD_MAGIC = 0xA5
_RECORD = struct.Struct(
    "<BBHIIQ"
)  # magic, SenML maps, body length, sequence, power-up, uptime ms; body, CRC-32
_CRC = struct.Struct("<I")
_READ_BYTES = 32
_IO_ERROR = -5
_SPOOL_FOLDER = "/spool"
_SEGMENT_ENDING = ".seg"
NO_RECEIPT = -1  # below every sequence number


@dataclass(frozen=True)
class SpooledPack:
    """One pack as it lies on flash."""

    seq: int
    power_up_id: int
    uptime_ms: int
    n_records: int
    body: bytes


class SpoolFiles(Protocol):
    """The files of a board's `/spool` folder, as they are on flash now."""

    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of every file by its name; empty when the folder is not there."""

    def read(self, name: str) -> bytes:
        """The whole content of one file."""


class FlashSpool:
    """A board's `/spool` read from its flash file, past the running board and its caches."""

    def __init__(self, descriptor: int) -> None:
        """Mounts the file system, for reading only. Raises LittleFSError when there is none."""
        vfs = region("vfs")
        self._files = LittleFS(
            context=_ReadOnly(descriptor, vfs.offset),
            mount=False,
            block_size=SECTOR_BYTES,
            block_count=vfs.size // SECTOR_BYTES,
            read_size=_READ_BYTES,
            prog_size=_READ_BYTES,
            # Whole blocks: with the node's own 128 bytes looking at a folder takes 3,000 reads instead of 24.
            cache_size=SECTOR_BYTES,
        )
        self._files.mount()

    def sizes(self) -> Mapping[str, int]:
        try:
            return {entry.name: entry.size for entry in self._files.scandir(_SPOOL_FOLDER)}
        except LittleFSError as error:
            if error.code != LittleFSError.Error.LFS_ERR_NOENT:
                raise
            return {}

    def read(self, name: str) -> bytes:
        with self._files.open(f"{_SPOOL_FOLDER}/{name}", "rb") as file:
            return bytes(file.read())


class _ReadOnly(UserContext):
    """littlefs's block device: the `vfs` partition of a flash file."""

    def __init__(self, descriptor: int, offset: int) -> None:
        super().__init__(0)
        self._descriptor = descriptor
        self._offset = offset

    def read(self, _config: object, block: int, offset: int, size: int) -> bytearray:
        data = os.pread(self._descriptor, size, self._offset + block * SECTOR_BYTES + offset)
        return bytearray(data.ljust(size, b"\xff"))

    def prog(self, *_: object) -> int:
        return _IO_ERROR

    def erase(self, *_: object) -> int:
        return _IO_ERROR

    def sync(self, _config: object) -> int:
        return 0


class _NoSpool:
    """A flash without a file system."""

    def sizes(self) -> Mapping[str, int]:
        return {}

    def read(self, name: str) -> bytes:
        raise FileNotFoundError(name)


@contextmanager
def spool_on_flash(flash_path: Path) -> Iterator[SpoolFiles]:
    """The spool as it lies on this flash; an empty one while there is no file system."""
    descriptor = os.open(flash_path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield _mounted(descriptor)
    finally:
        os.close(descriptor)


def packs_in_segment(data: bytes) -> Iterator[SpooledPack]:
    """The valid packs of one segment file, in order; stops at the first torn or damaged record."""
    offset = 0
    while offset + _RECORD.size + _CRC.size <= len(data):
        magic, n_records, body_length, seq, power_up_id, uptime_ms = _RECORD.unpack_from(
            data, offset
        )
        body_at = offset + _RECORD.size
        crc_at = body_at + body_length
        if magic != _RECORD_MAGIC or crc_at + _CRC.size > len(data):
            return
        if _CRC.unpack_from(data, crc_at)[0] != zlib.crc32(data[offset:crc_at]):
            return
        yield SpooledPack(seq, power_up_id, uptime_ms, n_records, data[body_at:crc_at])
        offset = crc_at + _CRC.size


def spool_id(data: bytes) -> int | None:
    """The spool's id from its `id` file; None when it is not whole."""
    if len(data) != len(_ID_MAGIC) + 4 or not data.startswith(_ID_MAGIC):
        return None
    return int.from_bytes(data[len(_ID_MAGIC) :], "little")


def receipt_in_marks(marks: Iterable[bytes], spool: int) -> int:
    """The highest receipted sequence that the newest valid mark of this spool names; NO_RECEIPT when there is none."""
    best = (-1, NO_RECEIPT)
    for data in marks:
        if len(data) != _MARK.size + _CRC.size or not data.startswith(_MARK_MAGIC):
            continue
        if _CRC.unpack_from(data, _MARK.size)[0] != zlib.crc32(data[: _MARK.size]):
            continue
        _, counter, mark_spool, receipt_seq = _MARK.unpack_from(data)
        if mark_spool == spool:
            best = max(best, (counter, receipt_seq))
    return best[1]


def _mounted(descriptor: int) -> SpoolFiles:
    try:
        return FlashSpool(descriptor)
    except LittleFSError:
        # Never formatted, or cut while it was: nothing can be durable there.
        return _NoSpool()


class SequenceSet:
    """A set of sequence numbers kept as ranges, small however long a node lives."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        for first, last in ranges:
            self.add(first, last)

    def add(self, first: int, last: int | None = None) -> None:
        """Put in one number, or all from `first` to `last` inclusive."""
        last = first if last is None else last
        kept = []
        for low, high in self._ranges:
            if high + 1 < first or last + 1 < low:
                kept.append((low, high))
            else:
                first, last = min(first, low), max(last, high)
        self._ranges = sorted([*kept, (first, last)])

    def above(self, seq: int) -> SequenceSet:
        """Those greater than `seq`."""
        return SequenceSet((max(low, seq + 1), high) for low, high in self._ranges if high > seq)

    def __len__(self) -> int:
        return sum(high - low + 1 for low, high in self._ranges)

    def __contains__(self, seq: int) -> bool:
        return any(low <= seq <= high for low, high in self._ranges)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SequenceSet) and self._ranges == other._ranges

    def __hash__(self) -> int:
        return hash(tuple(self._ranges))

    def ranges(self) -> list[tuple[int, int]]:
        """The set as ascending, disjoint, inclusive ranges."""
        return list(self._ranges)


@dataclass
class _Segment:
    size: int
    ranges: list[tuple[int, int]]


@dataclass
class _Spool:
    written: SequenceSet = field(default_factory=SequenceSet)
    held: SequenceSet = field(default_factory=SequenceSet)
    receipt: int = NO_RECEIPT


class SpoolLedger:
    """The book of one board, kept in one file beside its flash."""

    def __init__(self, path: Path) -> None:
        """Opens the book at `path`, or an empty one when there is none or it cannot be read."""
        self._path = path
        self._spools: dict[int, _Spool] = {}
        # Segments only ever grow, so one of unchanged size need not be read again.
        self._segments: dict[str, _Segment] = {}
        self._segments_of: int | None = None
        self._saved = b""
        self._load()

    @property
    def packs_written(self) -> int:
        """Distinct (spool, sequence) that were ever durable on flash."""
        return sum(len(spool.written) for spool in self._spools.values())

    @property
    def packs_held(self) -> int:
        """Packs on flash without a receipt, as of the last `observe`."""
        return sum(len(spool.held) for spool in self._spools.values())

    def written(self) -> dict[int, list[tuple[int, int]]]:
        """Ranges of every sequence ever durable, by spool id."""
        return {spool_id: spool.written.ranges() for spool_id, spool in self._spools.items()}

    def held(self) -> dict[int, list[tuple[int, int]]]:
        """Ranges of the sequences on flash without a receipt, by spool id."""
        return {spool_id: spool.held.ranges() for spool_id, spool in self._spools.items()}

    def receipt(self, spool: int) -> int:
        """The highest receipted sequence of a spool; NO_RECEIPT when it has none."""
        return self._spools[spool].receipt if spool in self._spools else NO_RECEIPT

    def observe(self, files: SpoolFiles) -> None:
        """Count what lies on flash now. Safe to repeat; call it after every wake and, with faults, every write."""
        sizes = files.sizes()
        current = spool_id(files.read("id")) if "id" in sizes else None
        for spool in self._spools.values():
            spool.held = SequenceSet()
        if current is None:
            self._segments = {}
            return
        if current != self._segments_of:
            self._segments, self._segments_of = {}, current
        on_flash = self._read_segments(files, sizes)
        spool = self._spools.setdefault(current, _Spool())
        for first, last in on_flash.ranges():
            spool.written.add(first, last)
        marks = [files.read(name) for name in ("mark0", "mark1") if name in sizes]
        spool.receipt = receipt_in_marks(marks, current)
        spool.held = on_flash.above(spool.receipt)

    def save(self) -> None:
        """Write the book, whole or not at all."""
        data = json.dumps(self.summary(), separators=(",", ":")).encode()
        if data == self._saved:
            return
        scratch = self._path.with_suffix(".new")
        scratch.write_bytes(data)
        scratch.replace(self._path)
        self._saved = data

    def summary(self) -> dict[str, Any]:
        """The book as it stands in its file."""
        return {
            "packs_written": self.packs_written,
            "packs_held": self.packs_held,
            "spools": {
                str(number): {
                    "written": spool.written.ranges(),
                    "receipt": spool.receipt,
                    "held": spool.held.ranges(),
                }
                for number, spool in self._spools.items()
            },
        }

    def _read_segments(self, files: SpoolFiles, sizes: Mapping[str, int]) -> SequenceSet:
        names = sorted(name for name in sizes if name.endswith(_SEGMENT_ENDING))
        known = self._segments
        self._segments = {}
        on_flash = SequenceSet()
        for name in names:
            segment = known.get(name)
            if segment is None or segment.size != sizes[name]:
                found = SequenceSet()
                for pack in packs_in_segment(files.read(name)):
                    found.add(pack.seq)
                segment = _Segment(sizes[name], found.ranges())
            self._segments[name] = segment
            for first, last in segment.ranges:
                on_flash.add(first, last)
        return on_flash

    def _load(self) -> None:
        try:
            spools = json.loads(self._path.read_bytes())["spools"]
            self._spools = {
                int(number): _Spool(
                    SequenceSet((first, last) for first, last in entry["written"]),
                    SequenceSet((first, last) for first, last in entry["held"]),
                    int(entry["receipt"]),
                )
                for number, entry in spools.items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # Missing, or torn by a power loss of the host: the flash is the truth, the next observe counts it.
            self._spools = {}
