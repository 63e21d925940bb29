"""A wake that failed outright: what is kept of it, the sleep after it, and the event that tells of it."""

import io
import sys

from micropython import const

_NAP_MS = const(300_000)
_MAX_TEXT = const(80)
# Together with the bookkeeping they fit into the 160 bytes of a pack.
_MAX_WHAT = const(40)
_MAX_WHERE = const(24)


def describe(error):
    """One short line for the state message."""
    return (type(error).__name__ + ": " + str(error))[:_MAX_TEXT]


def end_wake(error):
    """Keep what happened, then sleep. Does not return."""
    from node import power, rtc_memory
    from node.errors import NotProvisioned

    state = rtc_memory.load()
    if not isinstance(error, NotProvisioned):
        state.crash = [describe(error)[:_MAX_WHAT], where(error)]
    power.sleep(state, _NAP_MS)


def note_watchdog(state):
    """The last wake hung: keep the step that it hung in."""
    state.crash = ["watchdog", state.step[-_MAX_WHERE:]]


def readings(crash, boot_count):
    """The event's records."""
    what, place = crash
    return (("_event", "crash"), ("what", what), ("where", place), ("boot", boot_count))


def where(error):
    """File, line and function that raised it, as `node/plan.py:34 measure`; the end of it when that is long."""
    trace = io.StringIO()
    sys.print_exception(error, trace)
    places = [line for line in trace.getvalue().split("\n") if line.startswith("  File ")]
    if not places:
        return ""
    place = places[-1][8:].replace('", line ', ":").replace(", in ", " ")
    return place[-_MAX_WHERE:]
