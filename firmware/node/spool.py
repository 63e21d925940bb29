"""The spool: packs on flash until long after the server has them. A ring of segment files; the power may go at any byte.

`id`      b"SP1\\0", spool id u32
`%08x.seg` records of up to 64 packs, named by the first one's sequence; a record is
          0xA5, maps u8, body length u16, seq u32, power-up u32, uptime ms u64, body, CRC-32 of all before
`mark0/1` b"MK1\\0", counter u32, spool id u32, receipted sequence u32, CRC-32; the whole one with the higher counter holds

All numbers little-endian. A record counts once its file is closed. A torn one at the end is as if it had never been, and
its sequence is used again. After a torn one a new segment begins, so that nothing whole ever stands behind rubbish.
At a normal wake the id and one record are read (`saved` says where); everything else only after power-on.
"""

import binascii
import os
import struct

from micropython import const

_MAGIC = const(0xA5)
_HEAD = "<BBHIIQ"
_HEAD_BYTES = const(20)
_CRC_BYTES = const(4)
_MARK = "<4sIII"
_MARK_BYTES = const(16)
_ID_MAGIC = b"SP1\0"
_MARK_MAGIC = b"MK1\0"
_SEGMENT_PACKS = const(64)
_MAX_BODY = const(1024)
_MAX_BYTES = const(524_288)
_CHUNK = const(64)


class Spool:
    """`id`, `next_seq`, `oldest` (lowest sequence held; next_seq while empty), `receipt` (0 before the first).

    `saved`: what `saved()` gave at the end of the last wake, or None.
    """

    def __init__(self, folder, saved):
        self._folder = folder
        self.id = 0
        self.next_seq = 1
        self.oldest = 1
        self.receipt = 0
        self._mark_counter = 0
        self._segment = 0  # the one being written (0: none yet), with its size, its last record's offset and number of packs
        self._size = 0
        self._last_at = 0
        self._count = 0
        self._bytes = 0  # of all segments
        if not self._continue(saved):
            self._scan(saved)

    def saved(self):
        """What lets the next wake go on without a search."""
        return [
            self.id,
            self.next_seq,
            self.oldest,
            self.receipt,
            self._mark_counter,
            self._segment,
            self._size,
            self._last_at,
            self._count,
            self._bytes,
        ]

    @property
    def newest(self):
        """The highest sequence held; below `oldest` while the spool is empty."""
        return self.next_seq - 1

    @property
    def depth(self):
        """Number of packs without a receipt."""
        return max(0, self.newest - max(self.receipt, self.oldest - 1))

    def append(self, power_up, uptime_ms, n_records, body):
        """Keep a pack under `next_seq`; when this returns, no loss of power can take it. Returns its sequence."""
        seq = self.next_seq
        record = struct.pack(_HEAD, _MAGIC, n_records, len(body), seq, power_up, uptime_ms) + body
        record += struct.pack("<I", binascii.crc32(record))
        while self._bytes + len(record) > _MAX_BYTES and self._drop_oldest():
            pass
        try:
            self._write(seq, record)
        except OSError:
            # The file system is full before the spool's own limit.
            if not self._drop_oldest():
                raise
            self._write(seq, record)
        self.next_seq = seq + 1
        return seq

    def mark(self, seq):
        """Everything up to `seq` is stored at the server. Never goes back."""
        if seq <= self.receipt:
            return
        counter = self._mark_counter + 1
        content = struct.pack(_MARK, _MARK_MAGIC, counter, self.id, seq)
        content += struct.pack("<I", binascii.crc32(content))
        with open(self._path("mark%d" % (counter & 1)), "wb") as file:
            file.write(content)
        self._mark_counter = counter
        self.receipt = seq

    def packs(self, first, last):
        """(seq, power-up, uptime ms, number of maps, body) of every readable pack from `first` to `last`, in order.

        Reads segment by segment; what the flash has lost is passed over.
        """
        segments = self._segments()
        for index, segment in enumerate(segments):
            following = segments[index + 1] if index + 1 < len(segments) else self.next_seq
            if following <= first or segment > last:
                continue
            for _, _, pack in self._records(segment):
                if first <= pack[0] <= last:
                    yield pack

    def give_up_unreadable(self):
        """Let `oldest` pass packs right above the receipt that the flash has lost: nobody may wait for them."""
        for pack in self.packs(max(self.receipt + 1, self.oldest), self.newest):
            if pack[0] > self.receipt + 1:
                self.oldest = max(self.oldest, pack[0])
            return

    # --- private ---

    def _path(self, name):
        return self._folder + "/" + name

    def _segment_path(self, segment):
        return self._path("%08x.seg" % segment)

    def _continue(self, saved):
        """Go on from `saved`; False when the flash says otherwise."""
        if saved is None or not saved[8]:
            return False
        (
            self.id,
            self.next_seq,
            self.oldest,
            self.receipt,
            self._mark_counter,
            self._segment,
            self._size,
            self._last_at,
            self._count,
            self._bytes,
        ) = saved
        try:
            if os.stat(self._segment_path(self._segment))[6] != self._size:
                return False
            with open(self._segment_path(self._segment), "rb") as file:
                pack = _record_at(file, self._last_at)
        except OSError:
            return False
        return pack is not None and pack[0] == self.next_seq - 1 and self._read_id() == self.id

    def _scan(self, saved):
        """Find everything from the flash: the last segment is read, of the others only names and sizes."""
        try:
            os.mkdir(self._folder)
        except OSError:
            pass
        segments = self._segments()
        self._bytes = sum([os.stat(self._segment_path(segment))[6] for segment in segments])
        self._segment = segments[-1] if segments else 0
        self._count = self._size = self._last_at = 0
        self._mark_counter = self.receipt = 0
        end, newest, spool = 0, 0, None
        if segments:
            newest = self._segment - 1
            self._size = os.stat(self._segment_path(self._segment))[6]
            for at, end, pack in self._records(self._segment):
                self._count += 1
                self._last_at = at
                newest, spool = pack[0], _spool_in(pack[4])
            if end != self._size:
                self._count = _SEGMENT_PACKS  # torn: what comes next begins a new segment
        known = self._read_id()
        self.id = known or spool or _random_id()
        if known is None:
            self._write_id()
        self._read_marks()
        self.next_seq = max(newest, self.receipt) + 1
        if saved is not None and saved[0] == self.id:
            # The memory knows of packs whose end the flash has lost: they may have been sent.
            self.next_seq = max(self.next_seq, saved[1])
        self.oldest = segments[0] if segments else self.next_seq

    def _write(self, seq, record):
        if self._count >= _SEGMENT_PACKS or not self._segment:
            # Also takes the place of a segment of this name in which nothing is whole.
            self._bytes -= self._size if self._segment == seq else 0
            mode, segment, at = "wb", seq, 0
        else:
            mode, segment, at = "ab", self._segment, self._size
        with open(self._segment_path(segment), mode) as file:
            file.write(record)
        self._count = 1 if mode == "wb" else self._count + 1
        self._segment, self._last_at, self._size = segment, at, at + len(record)
        self._bytes += len(record)

    def _drop_oldest(self):
        """Give one segment's space back; False when only the one being written is left."""
        segments = self._segments()
        if len(segments) < 2:
            return False
        path = self._segment_path(segments[0])
        size = os.stat(path)[6]
        os.remove(path)
        self._bytes -= size
        self.oldest = segments[1]
        return True

    def _segments(self):
        return sorted(
            [int(entry[0][:8], 16) for entry in os.ilistdir(self._folder) if _is_segment(entry[0])]
        )

    def _records(self, segment):
        """(offset, end, pack) of every whole record; looks for the next one behind rubbish."""
        with open(self._segment_path(segment), "rb") as file:
            at = 0
            while at is not None:
                pack = _record_at(file, at)
                # A sequence that cannot stand in this segment is rubbish with a lucky CRC.
                if pack is None or not segment <= pack[0] < segment + _SEGMENT_PACKS:
                    at = _next_magic(file, at + 1)
                    continue
                end = at + _HEAD_BYTES + len(pack[4]) + _CRC_BYTES
                yield at, end, pack
                at = end

    def _read_id(self):
        content = _content(self._path("id"))
        if len(content) != 8 or content[:4] != _ID_MAGIC:
            return None
        return struct.unpack_from("<I", content, 4)[0]

    def _write_id(self):
        with open(self._path("id.new"), "wb") as file:
            file.write(_ID_MAGIC + struct.pack("<I", self.id))
        os.rename(self._path("id.new"), self._path("id"))

    def _read_marks(self):
        for name in ("mark0", "mark1"):
            content = _content(self._path(name))
            if len(content) != _MARK_BYTES + _CRC_BYTES or content[:4] != _MARK_MAGIC:
                continue
            _, counter, spool, seq = struct.unpack_from(_MARK, content)
            (crc,) = struct.unpack_from("<I", content, _MARK_BYTES)
            if crc == binascii.crc32(content[:_MARK_BYTES]) and counter > self._mark_counter:
                self._mark_counter = counter
                self.receipt = seq if spool == self.id else 0


def _random_id():
    return int.from_bytes(os.urandom(4), "little") or 1


def _record_at(file, at):
    """The pack at this offset; None when there is no whole one."""
    file.seek(at)
    head = file.read(_HEAD_BYTES)
    if len(head) != _HEAD_BYTES:
        return None
    magic, n_records, length, seq, power_up, uptime_ms = struct.unpack(_HEAD, head)
    if magic != _MAGIC or length > _MAX_BODY:
        return None
    tail = file.read(length + _CRC_BYTES)
    if len(tail) != length + _CRC_BYTES:
        return None
    body = tail[:length]
    if binascii.crc32(body, binascii.crc32(head)) != struct.unpack_from("<I", tail, length)[0]:
        return None
    return seq, power_up, uptime_ms, n_records, body


def _next_magic(file, at):
    """Offset of the next byte that could begin a record; None at the end."""
    file.seek(at)
    while True:
        chunk = file.read(_CHUNK)
        if not chunk:
            return None
        found = chunk.find(b"\xa5")
        if found >= 0:
            return at + found
        at += len(chunk)


def _content(path):
    try:
        with open(path, "rb") as file:
            return file.read(_CHUNK)
    except OSError:
        return b""


def _spool_in(body):
    """The spool id that a body names (its first record), should the `id` file be lost."""
    if len(body) < 15 or body[:10] != b"\xa2\x00\x66_spool\x02":
        return None
    if body[10] < 24:
        return body[10]
    length = {24: 1, 25: 2, 26: 4}.get(body[10], 0)
    return int.from_bytes(body[11 : 11 + length], "big")


def _is_segment(name):
    return len(name) == 12 and name.endswith(".seg")
