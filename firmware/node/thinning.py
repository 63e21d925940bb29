"""Thinning: a segment's packs without a receipt become one pack that keeps each channel's lowest and highest value.

The new pack has a sequence of its own and the same bookkeeping as any other, `_up` and `_ms` of the first pack that it stands
for. Then `_from` and `_to` (the sequences that it stands for), `_packs` (how many of them could be read), `_up_to` and `_ms_to`
(of the last of them), and for every channel `{key}.min` and `{key}.max`: raw values as the driver gave them, or in both
the last reason when no pack had a value. Channels beyond what a pack can hold go without. Events and earlier thinned packs in the segment are copied to new sequences.

What is new is on flash before anything old is given up, the thinned pack last. A loss of power in between leaves both, and the
next search finishes it.
"""

import struct

from micropython import const

from node import cbor, senml
from node.spool import MAX_BODY

_NAME = const(0)
_VALUE = const(2)
_STRING_VALUE = const(3)
_BOOKKEEPING = const(4)  # records
_OWN = const(5)  # records between the bookkeeping and the channels
# Two records each, and the wire's 64 with the envelope and the 9 before them.
_MAX_CHANNELS = const(27)
# By so many bytes a copy may be longer: its sequence is higher.
_COPY_BYTES = const(4)
# Copies on copies would fill a spool that nobody hears for years. With so many of each segment thirty days stay whole; what is
# older than a quarter of a year is lost.
_MAX_COPIES = const(2)


def thin(spool, last):
    """Thin everything up to `last`, where a segment ends, and give it up."""
    first = max(spool.receipt + 1, spool.oldest)
    day, copies = _read(spool, first, last)
    for pack in copies:
        _copy(spool, pack)
    if day.packs:
        _append(spool, day, first, last)
    if spool.oldest > last:
        # The file system was full: what is new was kept in the place of what it stands for.
        spool.recount(day.packs, len(copies))
    spool.give_up(last, day.packs, len(copies))


def finish(spool):
    """After a search that found a thinned pack at the end: give up what it stands for, if the power went before that."""
    for _, _, _, n_records, body in spool.packs(spool.newest, spool.newest):
        try:
            last = _records(n_records, body)[_BOOKKEEPING + 1][_VALUE]
        except cbor.Malformed:
            return
        if last >= spool.oldest:
            day, copies = _read(spool, max(spool.receipt + 1, spool.oldest), last)
            spool.give_up(last, day.packs, len(copies))


def _read(spool, first, last):
    """The day put together, and what has to move along."""
    day, copies = _Day(), []  # type: _Day, list[tuple[int, int, int, int, bytes]]
    for pack in spool.packs(first, last):
        if senml.is_thinned(pack[4]) or senml.kind(pack[4]) == "ev":
            copies = copies[1 - _MAX_COPIES :] + [pack]
        else:
            day.add(pack)
    return day, copies


def _copy(spool, pack):
    seq, power_up, uptime_ms, n_records, body = pack
    content = body[len(senml.bookkeeping(spool.id, seq, power_up, uptime_ms)) :]
    head = senml.bookkeeping(spool.id, spool.next_seq, power_up, uptime_ms)
    spool.append(power_up, uptime_ms, n_records, head + content)


def _append(spool, day, first, last):
    (power_up, uptime_ms), (end_power_up, end_uptime_ms) = day.begin, day.end
    readings = [
        ("_from", first),
        ("_to", last),
        ("_packs", day.packs),
        ("_up_to", end_power_up),
        ("_ms_to", end_uptime_ms),
    ] + day.extremes()
    n_records, body = senml.body(spool.id, spool.next_seq, power_up, uptime_ms, readings)
    while len(body) > MAX_BODY - _COPY_BYTES:
        del readings[-2:]
        n_records, body = senml.body(spool.id, spool.next_seq, power_up, uptime_ms, readings)
    spool.append(power_up, uptime_ms, n_records, body)


def _records(n_records, body):
    return cbor.decode(cbor.array_head(n_records) + body)


class _Day:
    """The packs of one segment, put together."""

    def __init__(self):
        self.packs = 0
        self.begin = self.end = None  # (power-up, uptime ms) of the first and the last pack
        self._keys = []  # in the order of the packs: a dict keeps none
        self._channels = {}  # key: [lowest, highest, last reason]

    def add(self, pack):
        _, power_up, uptime_ms, n_records, body = pack
        try:
            records = _records(n_records, body)[_BOOKKEEPING:]
        except cbor.Malformed:
            return
        self.packs += 1
        self.end = (power_up, uptime_ms)
        self.begin = self.begin or self.end
        for record in records:
            self._add_reading(record[_NAME], record)

    def _add_reading(self, key, record):
        channel = self._channels.get(key)
        if channel is None:
            if len(self._keys) >= _MAX_CHANNELS:
                return
            channel = self._channels[key] = [None, None, None]
            self._keys.append(key)
        value = record.get(_VALUE)
        if value is None:
            channel[2] = record.get(_STRING_VALUE)
            return
        if channel[0] is None or value < channel[0]:
            channel[0] = value
        if channel[1] is None or value > channel[1]:
            channel[1] = value

    def extremes(self):
        """(key, value) of the channels' records."""
        found = []
        for key in self._keys:
            lowest, highest, reason = self._channels[key]
            found.append((key + ".min", reason if lowest is None else _raw(lowest)))
            found.append((key + ".max", reason if highest is None else _raw(highest)))
        return found


def _raw(value):
    """A value as `senml.body` takes it; single precision there and back changes nothing."""
    return value if isinstance(value, int) else struct.pack(">f", value)
