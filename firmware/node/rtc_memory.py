"""What survives deep sleep: a small record in the RTC's memory, which is garbage after power-on.

Nothing in it is precious: every field can be found again, more slowly, or is missed for one wake only.
"""

import binascii
import os
import struct
import time

import machine
from micropython import const

from node import cbor

_MAGIC = b"SSR7"
_HEAD = const(10)  # magic, length u16, CRC-32
# A sleep that lasts longer than this was none: the clock was set by a stranger, or the memory is old.
ASLEEP = "asleep"
"""The step of a node that sleeps."""

_LONGEST_SLEEP_MS = const(172_800_000)

# Order on the RTC memory; a change of it needs another _MAGIC.
_FIELDS = (
    "power_up",
    "boot_count",
    "base_ms",
    "stored_ms",
    "offset_ms",
    "doubt_ms",
    "published_ms",
    "radio_failures",
    "radio_not_before_ms",
    "sent_high",
    "spool",
    "broker_address",
    "bearer",
    "last_error",
    "step",
    "crash",
    "wiped_ms",
    "read_ms",
    "crossed",
    "recent",
    "level",
    "brown_outs",
    "learned_ms",
    "drift_from",
    "drift_ppm",
    "field_until_ms",
    "field_starts",
    "update",
)

# What an update waits for (`State.update`).
UPDATE_NOTHING = const(0)
UPDATE_SESSION = const(1)  # the next wake is its own
UPDATE_UNTOLD = const(2)  # there is something to tell


class State:
    """One wake's memory of those before it.

    `power_up`: random id of this power-up. `base_ms`: the RTC at its begin. `offset_ms`: UTC − uptime, None while the
    time is unknown. `doubt_ms`: an offset once seen that did not fit. `published_ms`: uptime of the last good exchange.
    `radio_not_before_ms`: uptime before which the radio stays off after failures. `sent_high`: highest sequence that may
    have been sent. `bearer`: what its memory() gave. `spool`: what Spool.saved() gave. `step`: what the wake was doing.
    `crash`: what ended a wake and where, until it is told. `wiped_ms`: uptime at which a probe's wiper last obeyed, by the
    probe's place on its bus. `read_ms`: uptime at which a probe with an interval of its own was last read, by its first key.
    `crossed`, `recent`: the limits that are crossed, and readings to measure a fall against (node/limits.py). `level`: the battery's (node/battery.py).
    `brown_outs`: wakes in a row that the supply ended. `learned_ms`: uptime at which `offset_ms` was right. `drift_from`: uptime
    and offset that the drift is measured from. `drift_ppm`: by how much uptime runs fast, None until it was measured.
    `field_until_ms`, `field_starts`: uptime at which field mode ends (None outside of it) and at which it began lately.
    `update`: what an update waits for.
    """

    def __init__(self):
        self.power_up = int.from_bytes(os.urandom(4), "little")
        self.boot_count = 0
        self.base_ms = rtc_ms()
        self.stored_ms = self.base_ms
        self.offset_ms = None
        self.doubt_ms = None
        self.published_ms = None
        self.radio_failures = 0
        self.radio_not_before_ms = 0
        self.sent_high = None
        self.spool = None
        self.broker_address = None
        self.bearer = None
        self.last_error = None
        self.step = ""
        self.crash = None
        self.wiped_ms = {}  # type: dict[int, int]
        self.read_ms = {}  # type: dict[str, int]
        self.crossed = {}  # type: dict[str, int]
        self.recent = {}  # type: dict[str, list[list[object]]]
        self.level = 0
        self.brown_outs = 0
        self.learned_ms = 0
        self.drift_from = None  # type: list[int] | None
        self.drift_ppm = None
        self.field_until_ms = None
        self.field_starts = []  # type: list[int]
        self.update = UPDATE_NOTHING


def rtc_ms():
    """What the RTC shows, in whole milliseconds; it runs on through deep sleep."""
    return time.time_ns() // 1_000_000


_loaded = None


def load():
    """The state of this power-up, or a fresh one; within a wake always the same object."""
    global _loaded
    if _loaded is None:
        state = _decode(machine.RTC().memory())
        if state is not None and machine.reset_cause() == machine.PWRON_RESET:
            state = _after_brown_out(state)
        elif state is not None and not _is_continued(state):
            state = None
        _loaded = state or State()
    return _loaded


def _after_brown_out(before):
    """A power-on that finds the memory whole is one after a supply that only dipped: the chip says no more than power-on.

    It begins a power-up, as its clock began again. None when it was asleep: somebody was quick with the battery.
    """
    if before.step == ASLEEP:
        return None
    state = State()
    state.boot_count = before.boot_count
    state.brown_outs = before.brown_outs + 1
    state.radio_failures = before.radio_failures
    state.level = before.level
    state.step = before.step
    state.crash = before.crash
    return state


def store(state):
    state.stored_ms = rtc_ms()
    content = cbor.encode([getattr(state, name) for name in _FIELDS])
    head = _MAGIC + struct.pack("<HI", len(content), binascii.crc32(content))
    machine.RTC().memory(head + content)


def _decode(memory):
    if len(memory) < _HEAD or memory[:4] != _MAGIC:
        return None
    length, crc = struct.unpack_from("<HI", memory, 4)
    content = memory[_HEAD : _HEAD + length]
    if len(content) != length or binascii.crc32(content) != crc:
        return None
    try:
        values = cbor.decode(content)
    except cbor.Malformed:
        return None
    state = State()
    for name, value in zip(_FIELDS, values):
        setattr(state, name, value)
    return state


def _is_continued(state):
    return 0 <= rtc_ms() - state.stored_ms < _LONGEST_SLEEP_MS
