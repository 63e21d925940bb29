"""The ledger counts what lies on flash, from bytes written out by hand (no firmware involved)."""

import json
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.virtual_board.filesystem import FileSystem
from hardware.virtual_board.flash import Flash, make_empty_flash
from hardware.virtual_board.ledger import (
    SequenceSet,
    SpoolLedger,
    packs_in_segment,
    spool_on_flash,
)

# Two maps, {0: "t30", 2: 290} and {0: "bat", 2: 3912}; sequence 7, power-up 0x01020304, uptime 900,000 ms.
RECORD_HEAD = bytes.fromhex(
    "a5 02 14 00 07 00 00 00 04 03 02 01 a0 bb 0d 00 00 00 00 00".replace(" ", "")
)
RECORD_BODY = bytes.fromhex(
    "a2 00 63 74 33 30 02 19 01 22 a2 00 63 62 61 74 02 19 0f 48".replace(" ", "")
)


def record(seq: int, body: bytes = b"\xa0", power_up: int = 1, uptime_ms: int = 0) -> bytes:
    head = struct.pack("<BBHIIQ", 0xA5, 1, len(body), seq, power_up, uptime_ms)
    return head + body + struct.pack("<I", zlib.crc32(head + body))


def identity(spool: int) -> bytes:
    return b"SP1\0" + struct.pack("<I", spool)


def mark(counter: int, spool: int, seq: int) -> bytes:
    head = b"MK2\0" + struct.pack("<III", counter, spool, seq) + bytes(range(28))
    return head + struct.pack("<I", zlib.crc32(head))


class Folder:
    """A `/spool` folder in memory that counts how often a file is read."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("_seg", ".seg"): data for name, data in files.items()}
        self.reads: list[str] = []

    def sizes(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.files.items()}

    def read(self, name: str) -> bytes:
        self.reads.append(name)
        return self.files[name]


@pytest.fixture
def ledger(tmp_path: Path) -> SpoolLedger:
    return SpoolLedger(tmp_path / "ledger.json")


def segment_name(seq: int) -> str:
    return f"{seq:08x}.seg"


def test_a_record_is_read_byte_by_byte_as_the_format_says() -> None:
    data = RECORD_HEAD + RECORD_BODY
    (pack,) = packs_in_segment(data + struct.pack("<I", zlib.crc32(data)))
    assert (pack.seq, pack.power_up_id, pack.uptime_ms, pack.n_records) == (
        7,
        0x01020304,
        900_000,
        2,
    )
    assert pack.body == RECORD_BODY


def test_a_board_without_a_spool_has_written_nothing(ledger: SpoolLedger) -> None:
    ledger.observe(Folder())
    assert (ledger.packs_written, ledger.packs_held) == (0, 0)


def test_packs_without_a_receipt_are_held(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2) + record(3)
    folder.files["mark0"] = mark(1, 9, 2)
    ledger.observe(folder)
    assert (ledger.packs_written, ledger.packs_held) == (3, 1)
    assert ledger.held() == {9: [(3, 3)]}
    assert ledger.receipt(9) == 2


def test_the_newer_of_two_marks_counts_and_a_torn_one_does_not(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9), mark0=mark(3, 9, 2), mark1=mark(4, 9, 3)[:-1] + b"\0")
    folder.files[segment_name(1)] = record(1) + record(2) + record(3)
    ledger.observe(folder)
    assert ledger.receipt(9) == 2
    folder.files["mark1"] = mark(4, 9, 3)
    ledger.observe(folder)
    assert ledger.receipt(9) == 3


def test_a_mark_of_another_spool_receipts_nothing(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9), mark0=mark(3, 8, 2))
    folder.files[segment_name(1)] = record(1) + record(2)
    ledger.observe(folder)
    assert ledger.packs_held == 2


@pytest.mark.parametrize("cut", range(1, len(record(2))))
def test_a_pack_torn_at_any_byte_is_not_counted(ledger: SpoolLedger, cut: int) -> None:
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2)[:-cut]
    ledger.observe(folder)
    assert ledger.written() == {9: [(1, 1)]}


@given(position=st.integers(0, len(record(2)) - 1), flip=st.integers(1, 255))
def test_a_damaged_pack_is_never_counted_as_another(position: int, flip: int) -> None:
    damaged = bytearray(record(2, b"\xa0\xa0"))
    damaged[position] ^= flip
    assert [pack.seq for pack in packs_in_segment(record(1) + bytes(damaged))] == [1]


def test_a_sequence_used_again_after_a_torn_write_counts_once(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2)[:-1]
    ledger.observe(folder)
    folder.files[segment_name(2)] = record(2)
    ledger.observe(folder)
    assert ledger.written() == {9: [(1, 2)]}


def test_packs_stay_counted_after_their_segment_is_gone(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2)
    ledger.observe(folder)
    folder.files = {"id": identity(9), segment_name(3): record(3)}
    ledger.observe(folder)
    assert ledger.packs_written == 3
    assert ledger.held() == {9: [(3, 3)]}


def test_a_new_spool_is_counted_beside_the_old_one(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2)
    ledger.observe(folder)
    folder.files = {"id": identity(10), segment_name(1): record(1)}
    ledger.observe(folder)
    assert ledger.written() == {9: [(1, 2)], 10: [(1, 1)]}
    assert ledger.held() == {9: [], 10: [(1, 1)]}


def test_a_reopened_ledger_knows_what_it_had_counted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = SpoolLedger(path)
    folder = Folder(id=identity(9), mark0=mark(1, 9, 1))
    folder.files[segment_name(1)] = record(1) + record(2)
    ledger.observe(folder)
    ledger.save()
    again = SpoolLedger(path)
    assert again.summary() == ledger.summary()
    assert json.loads(path.read_text())["packs_written"] == 2


@pytest.mark.parametrize("content", [b"", b"{", b'{"spools": 3}', b"\xff\xfe"])
def test_a_torn_ledger_file_is_counted_again_from_the_flash(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ledger.json"
    path.write_bytes(content)
    ledger = SpoolLedger(path)
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2)
    ledger.observe(folder)
    assert ledger.packs_written == 2


def test_only_segments_that_grew_are_read_again(ledger: SpoolLedger) -> None:
    folder = Folder(id=identity(9))
    folder.files[segment_name(1)] = record(1) + record(2)
    ledger.observe(folder)
    folder.files[segment_name(3)] = record(3)
    folder.reads.clear()
    ledger.observe(folder)
    assert folder.reads == ["id", segment_name(3)]
    assert ledger.packs_written == 3


@given(st.lists(st.integers(0, 60), max_size=40), st.integers(0, 60))
def test_a_sequence_set_is_a_set(numbers: list[int], limit: int) -> None:
    kept = SequenceSet()
    for number in numbers:
        kept.add(number)
    assert len(kept) == len(set(numbers))
    assert [n for n in range(62) if n in kept] == sorted(set(numbers))
    assert kept.above(limit) == SequenceSet((n, n) for n in set(numbers) if n > limit)
    ranges = kept.ranges()
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))


@pytest.fixture
def flash_path(tmp_path: Path) -> Path:
    path = tmp_path / "flash.bin"
    make_empty_flash(path)
    return path


def test_the_ledger_reads_the_spool_from_the_flash_itself(
    ledger: SpoolLedger, flash_path: Path
) -> None:
    flash = Flash(flash_path)
    files = FileSystem(flash, fresh=True)
    files.write_file("/spool/id", identity(9))
    files.write_file(
        f"/spool/{segment_name(1)}", b"".join(record(n, b"\xa0" * 90) for n in range(1, 65))
    )
    files.write_file(f"/spool/{segment_name(65)}", record(65) + record(66)[:-2])
    files.write_file("/spool/mark0", mark(1, 9, 60))
    with spool_on_flash(flash_path) as spool:
        ledger.observe(spool)
    assert ledger.written() == {9: [(1, 65)]}
    assert ledger.held() == {9: [(61, 65)]}
    flash.close()


def test_a_flash_without_a_file_system_holds_nothing(ledger: SpoolLedger, flash_path: Path) -> None:
    with spool_on_flash(flash_path) as spool:
        ledger.observe(spool)
    assert ledger.packs_written == 0


def test_a_file_system_without_a_spool_holds_nothing(ledger: SpoolLedger, flash_path: Path) -> None:
    flash = Flash(flash_path)
    FileSystem(flash, fresh=True)
    before = flash_path.read_bytes()
    with spool_on_flash(flash_path) as spool:
        ledger.observe(spool)
    assert ledger.packs_written == 0
    assert flash_path.read_bytes() == before
    flash.close()
