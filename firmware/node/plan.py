"""What is due at this wake, and when the next one is."""

import binascii
import gc
import sys

from micropython import const

from node import errors

# What the battery leaves to do (node/battery.py).
NORMAL = const(0)
LOW = const(1)  # publish rarely, and in no haste
MUTE = const(2)  # no radio
STOP = const(3)  # nothing at all: a cell that is emptied further is damaged

_DAY_MS = 86_400_000
# After so many failures in a row the radio stays off for so many publishing intervals; sampling goes on.
_BACK_OFF = (0, 0, 1, 2, 4, 6)
# With a low battery the node publishes once in so many intervals.
_RARELY = 4
_PASSING_PACKAGES = ("node.sensors", "node.bus", "node.update")
_PASSING = (
    "node.link.dial",
    "node.link.wifi",
    "node.link.sntp",
    "node.link.tls",
    "node.waking",
    "node.battery",
    "node.measuring",
    "node.limits",
    "node.thinning",
    "node.field_mode",
    "node.schema",
    "node.trial",
    "node.renewal",
    "node.identity",
    "node.link.renew",
    "node.link.exchange",
    "node.report",
    "node.link.mqtt",
    "node.commands",
    "node.link.https",
    "node.telling",
)
# Nodes spread their wakes over this part of the sampling interval: a minute of a quarter of an hour.
_SPREAD = 15


def measure(probes, deadline):
    """(key, value) of every channel of these probes, in their order; a value, or a reason (node/measuring.py)."""
    from node import measuring

    return measuring.measure(probes, deadline)


def battery(config):
    """Millivolts, or a reason."""
    from node import battery as divider

    try:
        return divider.read(config)
    except Exception:
        return errors.ERROR


def forget_done():
    """Give back the memory of what has read and judged the probes, thinned the spool, led to the broker or obeyed the server.

    Whoever needs it once more loads it again.
    """
    for name in list(sys.modules):
        package, _, module = name.rpartition(".")
        if package in _PASSING_PACKAGES or name in _PASSING:
            del sys.modules[name]
            delattr(sys.modules[package], module)
    gc.collect()


def sleep_ms(schedule_ms, state, config):
    """From now to the next sampling instant: whole multiples of the interval, and as many seconds as the node's id adds.

    The timer that wakes the node errs by some per cent: shortly before an instant counts as that instant.
    """
    interval_s = config.urgent_s if is_urgent(state) else config.sample_s
    period_ms, early_ms = interval_s * 1000, _early_ms(interval_s)
    now_ms = schedule_ms - _spread_s(config) * 1000 + early_ms
    return (now_ms // period_ms + 1) * period_ms - now_ms + early_ms


def is_urgent(state):
    """True while the node samples and publishes faster than its schedule; a low battery has no haste."""
    return bool(state.crossed) and state.level == NORMAL


def day_of(utc_ms, config):
    """A number for the day that a sampling instant belongs to, None while the time is unknown.

    Shortly before midnight is midnight, as above, and so is as much later as the node's id adds.
    """
    return None if utc_ms is None else instant_ms(utc_ms, config) // _DAY_MS


def is_publish_due(state, config, clock, uptime_ms, has_news=False):
    """True when this wake is to talk: at power-on, then once in every publishing interval, later after failures.

    Which part of the interval depends on the node's id, so that a fleet does not call all at once. While a limit is crossed, and
    when there is news of one, every wake talks; but no haste lets the radio try again sooner after failures. Below a voltage it
    talks rarely, below another not at all but for saying so once.
    """
    if state.level >= MUTE and (state.published_ms is None or not has_news):
        return False
    if uptime_ms + _early_ms(config.sample_s) < state.radio_not_before_ms:
        return False
    if state.published_ms is None or state.radio_failures or has_news or is_urgent(state):
        return True
    period_ms = config.publish_s * 1000 * (_RARELY if state.level else 1)
    shift_ms = _phase_s(config) * 1000
    now, last = [
        instant_ms(clock.schedule_ms(ms), config) + shift_ms
        for ms in (uptime_ms, state.published_ms)
    ]
    return now // period_ms > last // period_ms


def note_exchange(state, config, uptime_ms, is_good):
    """Remember how the talk went, for the next one."""
    if is_good:
        state.published_ms = uptime_ms
        state.radio_failures = 0
        state.radio_not_before_ms = 0
        return
    state.radio_failures += 1
    intervals = _BACK_OFF[min(state.radio_failures, len(_BACK_OFF) - 1)]
    state.radio_not_before_ms = uptime_ms + intervals * config.publish_s * 1000


def talk_soon(state):
    """In the next wake, whatever went wrong before."""
    state.published_ms = None
    state.radio_failures = 0
    state.radio_not_before_ms = 0


def instant_ms(schedule_ms, config):
    """A moment of the schedule without what the node's id adds; from shortly before an instant on it is that instant's."""
    return schedule_ms - _spread_s(config) * 1000 + _early_ms(config.sample_s)


def _early_ms(interval_s):
    return interval_s * 50


def _spread_s(config):
    """By how much this node samples later than the instant: a fleet that wakes in one second would call in one second."""
    seconds = max(1, config.sample_s // _SPREAD)
    return (binascii.crc32(config.node_id.encode()) >> 8) % seconds


def _phase_s(config):
    """Which sampling instant of the publishing interval is the one to talk at."""
    samples = config.publish_s // config.sample_s
    return (binascii.crc32(config.node_id.encode()) & 255) % samples * config.sample_s
