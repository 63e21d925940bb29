"""A wake that failed outright: what is kept of it, and the sleep after it."""

from micropython import const

_NAP_MS = const(300_000)
_MAX_TEXT = const(80)


def describe(error):
    """One short line for the state message."""
    return (type(error).__name__ + ": " + str(error))[:_MAX_TEXT]


def end_wake(error):
    """Keep it for the next state message, then sleep. Does not return."""
    from node import power, rtc_memory

    state = rtc_memory.load()
    state.last_error = "crash " + describe(error)
    power.sleep(state, _NAP_MS)
