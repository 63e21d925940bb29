"""When a new version gives way to the one before. Never part of a bundle: what is judged has no part in it.

A new version is on trial until the server has heard it twice with a completed deep sleep in between. Its wake is open from the reset
until its own code says how it went (`end_wake`); a wake that is still open at the next reset crashed or hung, and counts. Also counted is
one that reached the broker and got no receipt, one that broke, and one whose clock is wrong. After three of those, or 72 hours, the
slot before comes back. What nobody can help, an outage or a supply that went, counts never. A confirmed version may crash, too: after
twelve crashed wakes in a row the other slot comes back, if it is still whole.

What decides is pure: (record, what happened, seconds) -> record.
"""

import binascii
import os
import struct
import time

import machine
from micropython import const

import slots
from slots import CONFIRMED, TRIAL, Record, spare_of

# How a wake went (`end_wake`).
STORED = "stored"  # the server has what the node had to say
QUIET = "quiet"  # no talk, or nobody there
UNHEARD = "unheard"  # the broker let the node in, and no receipt came
BROKEN = "broken"  # a step of it failed by itself

# Why a slot was left, and the places in it.
REASONS = ("", "crashed", "hung", "never slept", "no receipt", "broke", "wrong clock", "too long")
_CRASHED = const(1)
_HUNG = const(2)
_NEVER_SLEPT = const(3)
_NO_RECEIPT = const(4)
_BROKE = const(5)
_WRONG_CLOCK = const(6)
_TOO_LONG = const(7)

_TRIAL_WAKES = const(3)
_TRIAL_S = const(259_200)
# The clock stands still while a supply comes and goes: so many resets are too long, too.
_TRIAL_BOOTS = const(2_000)
_CRASHES = const(12)
_LONGEST_SLEEP_S = const(90_000)
# Time awake is not counted, and an RC oscillator counts the time asleep: neither an hour nor a tenth of it is a clock's fault.
_CLOCK_S = const(3_600)

# Of a trial: nothing heard, a receipt, a receipt and a sleep after it.
_UNPROVEN = const(0)
_HEARD = const(1)
_SLEPT = const(2)


def after_reset(record, cause, now_s, is_spare_whole):
    """Judge the wake before by what ended it, and open the one that begins. `now_s`: the RTC's seconds. `is_spare_whole`: the
    other slot could run.
    """
    if record.state != TRIAL:
        if cause == machine.WDT_RESET:
            note_crash(record, is_spare_whole, _HUNG)
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
        return Record(record.counter, record.slot)
    elif outcome == STORED and record.stage == _UNPROVEN:
        record.stage = _HEARD
    return record


def on_trial(record, utc_s, now_s):
    """The other slot, which is whole, shall run from the next reset on."""
    tried = Record(record.counter, spare_of(record), TRIAL)
    tried.last_s = now_s
    tried.utc_s = utc_s or 0
    return tried


def note_crash(record, is_spare_whole, reason=_CRASHED):
    """One more wake of a confirmed version that crashed or hung."""
    if record.state == CONFIRMED and is_spare_whole:
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
    record.reason = reason


# --- on the board ---


def begin_wake(cause):
    """After a reset that has to be judged: the record that holds now."""
    record = slots.select()
    before = encode(record)
    record = after_reset(record, cause, int(time.time()), _is_spare_whole(record))
    _keep(record, before)
    return record


def end_wake(outcome, utc_s):
    """Before every sleep that a wake comes to by itself: how it went."""
    record = slots.select()
    before = encode(record)
    record = after_wake(record, outcome, utc_s, int(time.time()))
    _keep(record, before)
    return record


def begin_trial(utc_s):
    """The other slot runs from the next reset on."""
    record = slots.select()
    _keep(on_trial(record, utc_s, int(time.time())), encode(record))


def note_failed_wake():
    """The wake ended in an exception that nobody caught."""
    record = slots.select()
    before = encode(record)
    _keep(note_crash(record, _is_spare_whole(record)), before)


def note_told():
    """The reason why the other slot was left is on its way to the server."""
    record = slots.select()
    before = encode(record)
    record.reason = 0
    _keep(record, before)


def _is_spare_whole(record):
    """VERSION is the last file of a slot that is written, and the first that goes."""
    try:
        os.stat("/" + spare_of(record) + "/VERSION")
    except OSError:
        return False
    return True


def encode(record):
    head = struct.pack(
        slots.FORMAT,
        slots.MAGIC,
        record.counter,
        slots.SLOTS.index(record.slot),
        slots.STATES.index(record.state),
        record.counted,
        record.stage,
        record.is_open,
        record.reason,
        record.boots,
        record.elapsed_s,
        record.last_s,
        record.utc_s,
    )
    return head + struct.pack("<I", binascii.crc32(head))


def _keep(record, before):
    """Written only when something changed: the flash wears."""
    if encode(record) == before:
        return
    import esp32

    record.counter += 1
    nvs = esp32.NVS("slot")
    nvs.set_blob(slots.KEYS[record.counter & 1], encode(record))
    nvs.commit()
