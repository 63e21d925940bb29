"""Which of the two slots runs, and when a new version gives way to the one before. Never part of a bundle.

A new version is on trial until the server has heard it twice with a completed deep sleep in between. Its wake is open from the reset
until its own code says how it went (`end_wake`); a wake that is still open at the next reset crashed or hung, and counts. Also counted is
one that reached the broker and got no receipt, one that broke, and one whose clock is wrong. After three of those, or 72 hours, the
slot before comes back. What nobody can help, an outage or a supply that went, counts never. A confirmed version may crash, too: after
twelve crashed wakes in a row the other slot comes back, if it is still whole.

The record lies in NVS in two copies, each with a CRC, written in turn: one of them is whole whenever the power goes, and the whole one
with the higher counter holds. What decides is pure: (record, what happened, seconds) -> record.
"""

import binascii
import struct
import time

import machine
from micropython import const

CONFIRMED = "confirmed"
TRIAL = "trial"

# How a wake went (`end_wake`).
STORED = "stored"  # the server has what the node had to say
QUIET = "quiet"  # no talk, or nobody there
UNHEARD = "unheard"  # the broker let the node in, and no receipt came
BROKEN = "broken"  # a step of it failed by itself

# Why a slot was left.
REASONS = ("", "crashed", "hung", "never slept", "no receipt", "broke", "wrong clock", "too long")
_CRASHED = const(1)
_HUNG = const(2)
_NEVER_SLEPT = const(3)
_NO_RECEIPT = const(4)
_BROKE = const(5)
_WRONG_CLOCK = const(6)
_TOO_LONG = const(7)

_FORMAT = "<3sIBBBBBBBHIII"
_MAGIC = b"SL2"
_SIZE = const(28)  # and a CRC-32
_SLOTS = "ab"
_STATES = (CONFIRMED, TRIAL)
_KEYS = ("rec0", "rec1")

_TRIAL_WAKES = const(3)
_TRIAL_S = const(259_200)
# The clock stands still while a supply comes and goes: so many resets are too long, too.
_TRIAL_BOOTS = const(2_000)
_CRASHES = const(12)
_LONGEST_SLEEP_S = const(90_000)
# Time awake is not counted, and an RC oscillator counts the time asleep: neither an hour nor a tenth of it is a clock's fault.
_CLOCK_S = const(3_600)
# A wake takes two minutes with the slowest probe and a radio that tries all it may.
_LONGEST_WAKE_MS = const(300_000)
# Longer than the longest call that cannot be given a limit: looking up a name takes lwIP up to 14 s.
_WATCHDOG_MS = const(30_000)

# Of a trial: nothing heard, a receipt, a receipt and a sleep after it.
_UNPROVEN = const(0)
_HEARD = const(1)
_SLEPT = const(2)

_watchdog = None
_began_ms = None


class Record:
    """`slot` runs, in `state`. `counted`: wakes held against it. `stage`: how far its trial has come. `is_open`: a wake of the trial has
    begun and not ended. `is_spare_whole`: the other slot could run. `reason`: number of why the other slot was left, until it is told.
    `boots`, `elapsed_s` of the trial; `last_s`: the RTC when that was counted; `utc_s` at its begin, 0 when unknown.
    """

    def __init__(self, counter=0, slot="a", state=CONFIRMED):
        self.counter = counter
        self.slot = slot
        self.state = state
        self.counted = 0
        self.stage = _UNPROVEN
        self.is_open = False
        self.is_spare_whole = False
        self.reason = 0
        self.boots = 0
        self.elapsed_s = 0
        self.last_s = 0
        self.utc_s = 0


def spare_of(record):
    """The slot that does not run."""
    return "b" if record.slot == "a" else "a"


# --- pure: what becomes of a record ---


def after_reset(record, cause, now_s):
    """Judge the wake before by what ended it, and open the one that begins. `now_s`: the RTC's seconds."""
    if record.state != TRIAL:
        if cause == machine.WDT_RESET:
            note_crash(record, _HUNG)
        return record
    passed_s = now_s - record.last_s
    # What is longer than a sleep is no time that passed: the RTC was set, or began again.
    record.elapsed_s += passed_s if 0 <= passed_s <= _LONGEST_SLEEP_S else 0
    record.last_s = now_s
    record.boots = min(record.boots + 1, 0xFFFF)
    if record.is_open and cause != machine.PWRON_RESET:
        _count(record, _ended_by(cause))
    elif record.stage == _HEARD and cause == machine.DEEPSLEEP_RESET:
        record.stage = _SLEPT
    if record.state == TRIAL and (record.elapsed_s > _TRIAL_S or record.boots > _TRIAL_BOOTS):
        _give_way(record, _TOO_LONG)
    record.is_open = record.state == TRIAL
    return record


def after_wake(record, outcome, utc_s, now_s):
    """Judge a wake that is about to end. `utc_s`: what its clock says, None when it does not know."""
    if record.state != TRIAL:
        if outcome == STORED:
            record.counted = 0
        return record
    record.is_open = False
    # Whatever the RTC was set to in this wake is no time that passed.
    record.last_s = now_s
    if outcome == BROKEN:
        _count(record, _BROKE)
    elif outcome == UNHEARD:
        _count(record, _NO_RECEIPT)
    elif utc_s is not None and record.utc_s and not _is_clock_right(record, utc_s):
        _count(record, _WRONG_CLOCK)
    elif outcome == STORED and record.stage == _SLEPT:
        confirmed = Record(record.counter, record.slot)
        confirmed.is_spare_whole = True
        return confirmed
    elif outcome == STORED and record.stage == _UNPROVEN:
        record.stage = _HEARD
    return record


def on_trial(record, utc_s, now_s):
    """The other slot, which is whole, shall run from the next reset on."""
    tried = Record(record.counter, spare_of(record), TRIAL)
    tried.last_s = now_s
    tried.utc_s = utc_s or 0
    tried.is_spare_whole = True
    return tried


def note_crash(record, reason=_CRASHED):
    """One more wake of a confirmed version that crashed or hung."""
    if record.state == CONFIRMED and record.is_spare_whole:
        record.counted += 1
        if record.counted >= _CRASHES:
            _give_way(record, reason)
    return record


def _ended_by(cause):
    if cause == machine.WDT_RESET:
        return _HUNG
    return _CRASHED if cause in (machine.DEEPSLEEP_RESET, machine.SOFT_RESET) else _NEVER_SLEPT


def _is_clock_right(record, utc_s):
    due_s = record.utc_s + record.elapsed_s
    return abs(utc_s - due_s) <= _CLOCK_S + record.elapsed_s // 10


def _count(record, reason):
    record.counted += 1
    if record.counted >= _TRIAL_WAKES:
        _give_way(record, reason)


def _give_way(record, reason):
    record.slot = spare_of(record)
    record.state = CONFIRMED
    record.counted = record.stage = 0
    record.is_open = False
    # What was left has shown that it does not work.
    record.is_spare_whole = False
    record.reason = reason


# --- the record on flash ---


def encode(record):
    head = struct.pack(
        _FORMAT,
        _MAGIC,
        record.counter,
        _SLOTS.index(record.slot),
        _STATES.index(record.state),
        record.counted,
        record.stage,
        record.is_open,
        record.is_spare_whole,
        record.reason,
        record.boots,
        record.elapsed_s,
        record.last_s,
        record.utc_s,
    )
    return head + struct.pack("<I", binascii.crc32(head))


def decode(copy):
    """The record in one copy; None when it is missing or damaged."""
    if copy is None or len(copy) != _SIZE + 4 or copy[:3] != _MAGIC:
        return None
    (crc,) = struct.unpack_from("<I", copy, _SIZE)
    if crc != binascii.crc32(copy[:_SIZE]):
        return None
    _, counter, slot, state, *rest = struct.unpack_from(_FORMAT, copy)
    if slot >= len(_SLOTS) or state >= len(_STATES):
        return None
    record = Record(counter, _SLOTS[slot], _STATES[state])
    record.counted, record.stage, is_open, is_spare_whole, record.reason = rest[:5]
    record.is_open, record.is_spare_whole = bool(is_open), bool(is_spare_whole)
    record.boots, record.elapsed_s, record.last_s, record.utc_s = rest[5:]
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
    return choose(_blob(nvs, _KEYS[0]), _blob(nvs, _KEYS[1]))


def begin_wake(cause):
    """At every reset: the record that holds now."""
    global _began_ms
    _began_ms = time.ticks_ms()
    record = select()
    before = encode(record)
    record = after_reset(record, cause, int(time.time()))
    _keep(record, before)
    return record


def end_wake(outcome, utc_s):
    """Before every sleep that a wake comes to by itself: how it went."""
    record = select()
    before = encode(record)
    record = after_wake(record, outcome, utc_s, int(time.time()))
    _keep(record, before)
    return record


def begin_trial(utc_s):
    """The other slot runs from the next reset on."""
    record = select()
    _keep(on_trial(record, utc_s, int(time.time())), encode(record))


def note_failed_wake():
    """The wake ended in an exception that nobody caught."""
    record = select()
    before = encode(record)
    _keep(note_crash(record), before)


def note_told():
    """The reason why the other slot was left is on its way to the server."""
    record = select()
    before = encode(record)
    record.reason = 0
    _keep(record, before)


def note_spare(is_whole):
    """The other slot is about to be written, or to be removed."""
    record = select()
    before = encode(record)
    record.is_spare_whole = is_whole
    _keep(record, before)


def feed():
    """Feed the watchdog, but no wake for ever: what never sleeps empties the battery and takes no update."""
    global _watchdog
    if _began_ms is not None and time.ticks_diff(time.ticks_ms(), _began_ms) > _LONGEST_WAKE_MS:
        return
    if _watchdog is None:
        _watchdog = machine.WDT(timeout=_WATCHDOG_MS)
    _watchdog.feed()


def _keep(record, before):
    """Written only when something changed: the flash wears."""
    if encode(record) == before:
        return
    import esp32

    record.counter += 1
    nvs = esp32.NVS("slot")
    nvs.set_blob(_KEYS[record.counter & 1], encode(record))
    nvs.commit()


def _blob(nvs, key):
    buffer = bytearray(_SIZE + 4)
    try:
        return bytes(buffer[: nvs.get_blob(key, buffer)])
    except OSError:
        return None
