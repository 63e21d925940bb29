"""Which of the two slots runs: the record of it, and the watchdog. Never part of a bundle. What is made of a record: judge.py.

The record lies in NVS in two copies, each with a CRC, written in turn: one of them is whole whenever the power goes, and the whole one
with the higher counter holds.
"""

import binascii
import struct
import sys
import time

import machine
from micropython import const

CONFIRMED = "confirmed"
TRIAL = "trial"

FORMAT = "<3sIBBBBBBHIII"
MAGIC = b"SL2"
_SIZE = const(27)  # and a CRC-32
SLOTS = "ab"
STATES = (CONFIRMED, TRIAL)
KEYS = ("rec0", "rec1")

# A wake takes two minutes with the slowest probe and a radio that tries all it may.
_LONGEST_WAKE_MS = const(300_000)
# Longer than the longest call that cannot be given a limit: looking up a name takes lwIP up to 14 s.
_WATCHDOG_MS = const(30_000)

_watchdog = None
_began_ms = None


class Record:
    """`slot` runs, in `state`. `counted`: wakes held against it. `stage`: how far its trial has come. `is_open`: a wake of the trial has
    begun and not ended. `reason`: number of why the other slot was left, until it is told.
    `boots`, `elapsed_s` of the trial; `last_s`: the RTC when that was counted; `utc_s` at its begin, 0 when unknown.
    """

    def __init__(self, counter=0, slot="a", state=CONFIRMED):
        self.counter = counter
        self.slot = slot
        self.state = state
        self.counted = 0
        self.stage = 0
        self.is_open = False
        self.reason = 0
        self.boots = 0
        self.elapsed_s = 0
        self.last_s = 0
        self.utc_s = 0


def spare_of(record):
    """The slot that does not run."""
    return "b" if record.slot == "a" else "a"


# --- the record on flash ---


def decode(copy):
    """The record in one copy; None when it is missing or damaged."""
    if copy is None or len(copy) != _SIZE + 4 or copy[:3] != MAGIC:
        return None
    (crc,) = struct.unpack_from("<I", copy, _SIZE)
    if crc != binascii.crc32(copy[:_SIZE]):
        return None
    _, counter, slot, state, *rest = struct.unpack_from(FORMAT, copy)
    if slot >= len(SLOTS) or state >= len(STATES):
        return None
    record = Record(counter, SLOTS[slot], STATES[state])
    record.counted, record.stage, is_open, record.reason = rest[:4]
    record.is_open = bool(is_open)
    record.boots, record.elapsed_s, record.last_s, record.utc_s = rest[4:]
    return record


def choose(copy0, copy1):
    """The record that holds; that of a board that never was updated when neither copy is whole."""
    records = [record for record in (decode(copy0), decode(copy1)) if record is not None]
    if not records:
        return Record()
    return max(records, key=lambda record: record.counter)


# --- on the board ---


def select():
    """The record that holds on this board."""
    import esp32

    nvs = esp32.NVS("slot")
    return choose(_blob(nvs, KEYS[0]), _blob(nvs, KEYS[1]))


def begin_wake(cause):
    """At every reset: the record that holds now. From here on the watchdog is fed for as long as a wake may take."""
    global _began_ms
    _began_ms = time.ticks_ms()
    record = select()
    if record.state == TRIAL or cause == machine.WDT_RESET:
        import judge  # only now: to compile it takes a tenth of a second and much memory

        record = judge.begin_wake(cause)
        del sys.modules["judge"]
    return record


def feed():
    """Feed the watchdog, but no wake for ever: what never sleeps empties the battery and takes no update."""
    global _watchdog
    if _began_ms is not None and time.ticks_diff(time.ticks_ms(), _began_ms) > _LONGEST_WAKE_MS:
        return
    if _watchdog is None:
        _watchdog = machine.WDT(timeout=_WATCHDOG_MS)
    _watchdog.feed()


def _blob(nvs, key):
    buffer = bytearray(_SIZE + 4)
    try:
        return bytes(buffer[: nvs.get_blob(key, buffer)])
    except OSError:
        return None
