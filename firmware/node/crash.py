"""A wake that failed outright: what is kept of it, the sleep after it, and the event that tells of it."""

import gc
import io
import json
import sys

from micropython import const

import slots

_NAP_MS = const(300_000)
_MAX_TEXT = const(80)
# Together with the bookkeeping they fit into the 320 bytes of an event (tests/golden/events.json).
_MAX_WHAT = const(40)
_MAX_WHERE = const(24)
_MAX_TRACE = const(60)
_MAX_CALLERS = const(3)
_MAX_VERSION = const(20)


def describe(error):
    """One short line for the state message."""
    return (type(error).__name__ + ": " + str(error))[:_MAX_TEXT]


def end_wake(error):
    """Keep what happened, then sleep. Does not return."""
    free = gc.mem_free()
    from node import power, rtc_memory
    from node.errors import NotProvisioned

    state = rtc_memory.load()
    if not isinstance(error, NotProvisioned):
        places = _places(error)
        trace = " < ".join(places[:-1][-_MAX_CALLERS:])[-_MAX_TRACE:]
        what = describe(error)[:_MAX_WHAT]
        state.crash = [what, _end_of(places), "exception", trace, free]
    power.sleep(state, _NAP_MS)


def note_watchdog(state):
    """The last wake hung: keep the step that it hung in, unless something before it is still to be told."""
    state.crash = state.crash or ["watchdog", state.step[-_MAX_WHERE:], "watchdog", "", None]


def note_brown_out(state):
    """The supply ended the last wake: keep the step that was too much for it, as above."""
    state.crash = state.crash or ["brown-out", state.step[-_MAX_WHERE:], "brown_out", "", None]


def readings(crash, boot_count):
    """The event's records, with the slot and its version; whatever is not known is left out."""
    what, place, cause, trace, free = crash
    slot = slots.select().slot
    records = (
        ("_event", "crash"),
        ("what", what),
        ("where", place),
        ("cause", cause),
        ("boot", boot_count),
        ("slot", slot),
        ("version", _version(slot)),
        ("heap", free),
        ("trace", trace),
    )
    return [record for record in records if record[1] is not None and record[1] != ""]


def where(error):
    """File, line and function that raised it, as `node/plan.py:34 measure`; the end of it when that is long."""
    return _end_of(_places(error))


def _places(error):
    """Every place that the error went through, the one that raised it last."""
    trace = io.StringIO()
    sys.print_exception(error, trace)
    lines = [line for line in trace.getvalue().split("\n") if line.startswith("  File ")]
    return [line[8:].replace('", line ', ":").replace(", in ", " ") for line in lines]


def _end_of(places):
    return places[-1][-_MAX_WHERE:] if places else ""


def _version(slot):
    try:
        with open("/" + slot + "/VERSION") as file:
            return json.load(file)["version"][:_MAX_VERSION]
    except (OSError, ValueError, KeyError, TypeError):
        return None
