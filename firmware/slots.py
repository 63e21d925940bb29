"""Which of the two slots runs: a record in two copies, each with a CRC, and a pure choice. Never part of a bundle.

A record is `SL1`, counter u32, slot, state, trial wakes u8, CRC-32 of all before. Copies are written in turn, so that
one of them is whole whenever the power goes; the whole one with the higher counter holds.
"""

import binascii
import struct

CONFIRMED = "confirmed"
TRIAL = "trial"

_FORMAT = "<3sIBBB"
_MAGIC = b"SL1"
_SIZE = struct.calcsize(_FORMAT) + 4
_SLOTS = "ab"
_STATES = (CONFIRMED, TRIAL)
_KEYS = ("rec0", "rec1")


class Record:
    """What is known about the slots: `slot` runs, in `state`, after `trial_wakes` wakes that counted against it."""

    def __init__(self, counter, slot, state, trial_wakes):
        self.counter = counter
        self.slot = slot
        self.state = state
        self.trial_wakes = trial_wakes


def fresh():
    """The record of a board that never was updated."""
    return Record(0, "a", CONFIRMED, 0)


def encode(record):
    head = struct.pack(
        _FORMAT,
        _MAGIC,
        record.counter,
        _SLOTS.index(record.slot),
        _STATES.index(record.state),
        record.trial_wakes,
    )
    return head + struct.pack("<I", binascii.crc32(head))


def decode(copy):
    """The record in one copy; None when it is missing or damaged."""
    if copy is None or len(copy) != _SIZE:
        return None
    magic, counter, slot, state, trial_wakes = struct.unpack_from(_FORMAT, copy)
    (crc,) = struct.unpack_from("<I", copy, _SIZE - 4)
    if magic != _MAGIC or crc != binascii.crc32(copy[: _SIZE - 4]):
        return None
    if slot >= len(_SLOTS) or state >= len(_STATES):
        return None
    return Record(counter, _SLOTS[slot], _STATES[state], trial_wakes)


def choose(copy0, copy1, reset_cause):
    """The record that holds. Pure: the same copies and cause give the same answer.

    `reset_cause` will decide whether a wake counts against a trial; a confirmed slot does not ask.
    """
    records = [record for record in (decode(copy0), decode(copy1)) if record is not None]
    if not records:
        return fresh()
    return max(records, key=lambda record: record.counter)


def select(reset_cause):
    """The record that holds on this board."""
    import esp32

    nvs = esp32.NVS("slot")
    return choose(_blob(nvs, _KEYS[0]), _blob(nvs, _KEYS[1]), reset_cause)


def _blob(nvs, key):
    buffer = bytearray(_SIZE)
    try:
        return bytes(buffer[: nvs.get_blob(key, buffer)])
    except OSError:
        return None
