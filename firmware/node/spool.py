"""The spool: packs on flash until long after the server has them. A ring of segment files; the power may go at any byte.

`id`      b"SP1\\0", spool id u32
`%08x.seg` records of about a day's packs, named by the first one's sequence; a record is
          0xA5, maps u8, body length u16, seq u32, power-up u32, uptime ms u64, body, CRC-32 of all before
`mark0/1` b"MK2\\0", counter, spool id, receipted sequence, highest sequence given up, packs thinned, packs lost, and of what is to
          be sent again: first and last sequence, the next one, passes made (all u32; 0 while there is none), CRC-32;
          the whole one with the higher counter holds

All numbers little-endian. A record counts once its file is closed. A torn one at the end is as if it had never been, and
its sequence is used again. After a torn one a new segment begins, so that nothing whole ever stands behind rubbish.
At a normal wake the id and one record are read (`saved` says where); everything else only after power-on.

A receipt only marks. Space is given back when it is needed, by whole segments, the oldest first: what has a receipt is
removed, what has none is thinned before (node/thinning.py).
"""

import binascii
import os
import struct

from micropython import const

from node import senml

_MAGIC = const(0xA5)
_HEAD = "<BBHIIQ"
_HEAD_BYTES = const(20)
_CRC_BYTES = const(4)
_MARK = "<4s10I"
_MARK_BYTES = const(44)
_ID_MAGIC = b"SP1\0"
_MARK_MAGIC = b"MK2\0"
MAX_BODY = const(2048)  # bytes
_CHUNK = const(64)

# A block of littlefs holds 4096 bytes, of which up to 12 lead to the file's other blocks.
_BLOCK_BYTES = const(4_088)
_SEGMENT_BYTES = const(16_352)
# More packs than that never stand in a segment: a higher sequence is rubbish with a lucky CRC.
_SEGMENT_PACKS = const(1_024)
# A segment ends with its day, so that a thinned one stands for a day; but not when it would be nearly empty.
_DAY_PACKS = const(24)
# Of 128 blocks (512 KiB) two are the folder's, one is in use twice while a file grows, one is for what thinning writes.
# 31 days of a tree's packs are 124 blocks; when the oldest is thinned, 30 whole days are left.
_RING_BLOCKS = const(124)
_USUAL_RECORD_BYTES = const(184)
# Blocks of the whole file system that stay free for others, a new version's download for one.
_SPARE_BLOCKS = const(8)
# After so many passes over packs that the receipt does not follow, another one would only cost battery.
_AGAIN_PASSES = const(3)


class Spool:
    """`id`, `next_seq`, `oldest` (lowest sequence held; next_seq while empty), `receipt` (0 before the first).

    `thinned` packs were replaced by their lowest and highest values, `lost` ones went without; both since the spool was made.
    `again`: [first, last, next, passes made] of what is to be sent again whatever the receipt says, or None.
    `saved`: what `saved()` gave at the end of the last wake, or None.
    """

    def __init__(self, folder, saved):
        self._folder = folder
        self.id = 0
        self.next_seq = 1
        self.oldest = 1
        self.receipt = 0
        self.again = None  # type: list[int] | None
        self.thinned = self.lost = 0
        self._given_up = 0
        self._mark_counter = 0
        # The segment being written (0: none yet), with its size, its last record's offset, its number of packs and its day.
        self._segment = 0
        self._size = self._last_at = self._count = 0
        self._day = None
        self._is_torn = False
        self._blocks = 0  # of all segments
        if not self._continue(saved):
            self._scan(saved)

    def saved(self):
        """What lets the next wake go on without a search, if nothing changes until then; None when it has to search."""
        if self._is_torn:
            return None
        return [
            self.id,
            self.next_seq,
            self.oldest,
            self.receipt,
            self._given_up,
            self.again,
            self.thinned,
            self.lost,
            self._mark_counter,
            self._segment,
            self._size,
            self._last_at,
            self._count,
            self._day,
            self._blocks,
        ]

    @property
    def newest(self):
        """The highest sequence held; below `oldest` while the spool is empty."""
        return self.next_seq - 1

    @property
    def depth(self):
        """Number of packs without a receipt."""
        return max(0, self.newest - max(self.receipt, self.oldest - 1))

    def make_room(self, day=None):
        """Give up the oldest segments while the ring is full. Before a pack is composed: thinning takes sequences too."""
        while self._blocks_with(_USUAL_RECORD_BYTES, day) > _RING_BLOCKS and self._reclaim():
            pass
        is_new_segment = self._is_segment_over(_USUAL_RECORD_BYTES, day)
        if is_new_segment and os.statvfs(self._folder)[3] < _SPARE_BLOCKS:
            # Asked once a day: it takes a walk through the whole file system.
            if not self.give_up_stored() and not _give_up_spare_slot():
                self._reclaim()

    def append(self, power_up, uptime_ms, n_records, body, day=None):
        """Keep a pack under `next_seq`; when this returns, no loss of power can take it. Returns its sequence.

        `day`: any number that stands for the day; None while it is not known. Raises ValueError when the body is above MAX_BODY: as
        a record it would be rubbish, and what is behind it too.
        """
        if len(body) > MAX_BODY:
            raise ValueError("pack too long")
        seq = self.next_seq
        record = struct.pack(_HEAD, _MAGIC, n_records, len(body), seq, power_up, uptime_ms) + body
        record += struct.pack("<I", binascii.crc32(record))
        try:
            self._write(seq, record, day)
        except OSError:
            # The file system is full before the ring is, and there is no room to thin anything.
            _give_up_spare_slot()
            segments = self._segments()
            if len(segments) < 2:
                raise
            self.give_up(segments[1] - 1)
            self._write(seq, record, day)
        self.next_seq = seq + 1
        return seq

    def mark(self, seq):
        """Everything up to `seq` is stored at the server. Never goes back."""
        if seq > self.receipt:
            self.receipt = seq
            self._write_mark()

    def give_up_stored(self):
        """Give space back that only holds what the server has; False when there is no more of it."""
        segments = self._segments()
        if len(segments) < 2 or segments[1] - 1 > self.receipt:
            return False
        self.give_up(segments[1] - 1)
        return True

    def resend(self, first, last):
        """Have the packs from `first` to `last` that are still held sent once more; survives a loss of power.

        Returns the (first, last) that will be sent, together with what an earlier call asked for; None when none is held.
        """
        first, last = max(first, self.oldest), min(last, self.newest)
        if first > last:
            return None
        if self.again:
            first, last = min(first, self.again[0]), max(last, self.again[1])
        self.again = [first, last, first, 0]
        self._write_mark()
        return first, last

    def note_resent(self, sent, receipt):
        """`again` was sent up to `sent`, and the server now says `receipt`: what that does not cover is sent in another pass."""
        if self.again is None or sent < self.again[2]:
            return
        first, last, _, passes = self.again
        if sent < last:
            self.again[2] = sent + 1
        else:
            first = max(first, receipt + 1)
            is_over = first > last or passes + 1 >= _AGAIN_PASSES
            self.again = None if is_over else [first, last, first, passes + 1]
        self._write_mark()

    def give_up(self, last, thinned=0, copied=0):
        """Let go of everything up to `last`; of its packs without a receipt so many live on in thinned ones or as copies."""
        unstored = last - max(self.receipt, self.oldest - 1)
        if unstored > 0:
            self.thinned += thinned
            self.lost += max(0, unstored - thinned - copied)
        self._given_up = max(self._given_up, last)
        self.oldest = max(self.oldest, last + 1)
        if unstored > 0:
            # Noted first: what is counted is never counted twice, and `_scan` removes what is left.
            self._write_mark()
        self._remove_given_up()

    def recount(self, thinned, copied):
        """So many of the packs that were counted as lost live on after all."""
        self.thinned += thinned
        self.lost -= thinned + copied
        self._write_mark()

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
        first = max(self.receipt + 1, self.oldest)
        for pack in self.packs(first, self.newest):
            if pack[0] > first:
                self.give_up(pack[0] - 1)
            return

    # --- private ---

    def _path(self, name):
        return self._folder + "/" + name

    def _segment_path(self, segment):
        return self._path("%08x.seg" % segment)

    def _continue(self, saved):
        """Go on from `saved`; False when the flash says otherwise."""
        if saved is None or not saved[12]:
            return False
        (
            self.id,
            self.next_seq,
            self.oldest,
            self.receipt,
            self._given_up,
            self.again,
            self.thinned,
            self.lost,
            self._mark_counter,
            self._segment,
            self._size,
            self._last_at,
            self._count,
            self._day,
            self._blocks,
        ) = saved
        try:
            if self._size_of(self._segment) != self._size:
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
        self._mark_counter = self.receipt = self._given_up = 0
        self.thinned = self.lost = self._count = self._size = self._last_at = self._blocks = 0
        self.again = self._day = None
        segments = self._segments()
        self._segment = segments[-1] if segments else 0
        end, newest, body = 0, 0, b""
        if segments:
            newest = self._segment - 1
            for at, end, pack in self._records(self._segment):
                self._count += 1
                self._last_at = at
                newest, body = pack[0], pack[4]
            self._size = self._size_of(self._segment)
            self._is_torn = end != self._size
        known = self._read_id()
        self.id = known or _spool_in(body) or _random_id()
        if known is None:
            self._write_id()
        self._read_marks()
        self.next_seq = max(newest, self.receipt, self._given_up) + 1
        if saved is not None and saved[0] == self.id:
            # The memory knows of packs whose end the flash has lost: they may have been sent.
            self.next_seq = max(self.next_seq, saved[1])
        self._blocks = sum([_blocks(self._size_of(segment)) for segment in segments])
        self._remove_given_up()
        first = segments[0] if segments else self.next_seq
        self.oldest = max(first, self._given_up + 1)
        if senml.is_thinned(body):
            from node import thinning

            thinning.finish(self)

    def _size_of(self, segment):
        return os.stat(self._segment_path(segment))[6]

    def _is_segment_over(self, record_bytes, day):
        if not self._segment or self._is_torn or self._size + record_bytes > _SEGMENT_BYTES:
            return True
        is_another_day = day is not None and self._day is not None and day != self._day
        return is_another_day and self._count >= _DAY_PACKS

    def _blocks_with(self, record_bytes, day):
        """Blocks of all segments when one more record is there."""
        if self._is_segment_over(record_bytes, day):
            return self._blocks + 1
        return self._blocks - _blocks(self._size) + _blocks(self._size + record_bytes)

    def _write(self, seq, record, day):
        if self._is_segment_over(len(record), day):
            # Also takes the place of a segment of this name in which nothing is whole.
            before = self._size if self._segment == seq else 0
            mode, segment, at = "wb", seq, 0
        else:
            before = self._size
            mode, segment, at = "ab", self._segment, self._size
        with open(self._segment_path(segment), mode) as file:
            file.write(record)
        is_new = mode == "wb"
        self._is_torn = False
        self._count = 1 if is_new else self._count + 1
        self._segment, self._last_at, self._size = segment, at, at + len(record)
        self._blocks += _blocks(self._size) - _blocks(before)
        if is_new or self._day is None:
            self._day = day

    def _reclaim(self):
        """Give the oldest segment's space back; False when only the one being written is left."""
        segments = self._segments()
        if len(segments) < 2:
            return False
        last = segments[1] - 1
        if last <= self.receipt:
            self.give_up(last)
        else:
            from node import thinning

            thinning.thin(self, last)
        return True

    def _remove_given_up(self):
        segments = self._segments()
        while len(segments) > 1 and segments[1] - 1 <= self._given_up:
            segment = segments.pop(0)
            size = self._size_of(segment)
            os.remove(self._segment_path(segment))
            self._blocks -= _blocks(size)

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

    def _write_mark(self):
        counter = self._mark_counter + 1
        numbers = [self.id, self.receipt, self._given_up, self.thinned, self.lost]
        numbers += self.again or [0] * 4
        content = struct.pack(_MARK, _MARK_MAGIC, counter, *numbers)
        content += struct.pack("<I", binascii.crc32(content))
        with open(self._path("mark%d" % (counter & 1)), "wb") as file:
            file.write(content)
        self._mark_counter = counter

    def _read_marks(self):
        for name in ("mark0", "mark1"):
            content = _content(self._path(name))
            if len(content) != _MARK_BYTES + _CRC_BYTES or content[:4] != _MARK_MAGIC:
                continue
            (crc,) = struct.unpack_from("<I", content, _MARK_BYTES)
            if crc != binascii.crc32(content[:_MARK_BYTES]):
                continue
            _, counter, spool, *numbers = struct.unpack_from(_MARK, content)
            if counter <= self._mark_counter:
                continue
            self._mark_counter = counter
            if spool != self.id:
                numbers = [0] * len(numbers)
            self.receipt, self._given_up, self.thinned, self.lost = numbers[:4]
            self.again = numbers[4:] if numbers[4] else None


def _give_up_spare_slot():
    """A version that the node could come back to is worth less than readings."""
    from node.update import spare

    return spare.give_up()


def _blocks(size):
    """Blocks that a file of this size takes, one more at most than it really does."""
    return (size + _BLOCK_BYTES - 1) // _BLOCK_BYTES


def _random_id():
    return int.from_bytes(os.urandom(4), "little") or 1


def _record_at(file, at):
    """The pack at this offset; None when there is no whole one."""
    file.seek(at)
    head = file.read(_HEAD_BYTES)
    if len(head) != _HEAD_BYTES:
        return None
    magic, n_records, length, seq, power_up, uptime_ms = struct.unpack(_HEAD, head)
    if magic != _MAGIC or length > MAX_BODY:
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
