"""What is due, and how the probes are read: all started first, then read in the order in which they become ready."""

import binascii
import struct
import sys
import time

from node import battery, errors
from node.errors import SensorError

_DAY_MS = 86_400_000
# After so many failures in a row the radio stays off for so many publishing intervals; sampling goes on.
_BACK_OFF = (0, 0, 1, 2, 4, 6)
# With a low battery the node publishes once in so many intervals.
_RARELY = 4
_DONE = ("node.thinning", "node.limits")
# Nodes spread their wakes over this part of the sampling interval: a minute of a quarter of an hour.
_SPREAD = 15


def measure(probes, deadline):
    """(key, value) of every channel, in the order of the configuration.

    A value is an integer, four bytes of a float32, or a reason. A probe that fails, however it does, costs only its own.
    A probe that has to be told another's result is read after that one.
    """
    results = [None] * len(probes)
    waiting = []
    for index, probe in enumerate(probes):
        driver, failure = _start(probe)
        if driver is None:
            results[index] = failure
        else:
            waiting.append((index, driver))
    while waiting:
        index, driver = waiting.pop(_soonest(waiting, probes, results))
        values = _read(driver, probes[index].get("needs"), _by_key(probes, results), deadline)
        if values is None:
            waiting.append((index, driver))
        else:
            results[index] = values
    return _by_key(probes, results)


def due(state, config, clock, uptime_ms):
    """The probes to read at this instant, in the order of the configuration.

    One with an interval of its own is read once in each, later when that instant was missed, and always while a limit of one of
    its channels is crossed. What a probe has to be told is read with it.
    """
    probes = config.node["probes"]
    wanted = [probe for probe in probes if _is_due(probe, state, config, clock, uptime_ms)]
    needed = [probe["needs"]["key"] for probe in wanted if probe.get("needs")]
    return [
        probe
        for probe in probes
        if probe in wanted or [key for key in probe["keys"] if key in needed]
    ]


def note_read(state, config, probes, uptime_ms):
    """Remember when a probe with an interval of its own was read."""
    for probe in probes:
        key = probe["keys"][0]
        if key in config.every_s:
            state.read_ms[key] = uptime_ms


def _is_due(probe, state, config, clock, uptime_ms):
    key = probe["keys"][0]
    every_s = config.every_s.get(key)
    last_ms = state.read_ms.get(key)
    if every_s is None or last_ms is None:
        return True
    if [name for name in state.crossed if name.split(" ")[0] in probe["keys"]]:
        return True
    now, last = [_instant_ms(clock.schedule_ms(ms), config) for ms in (uptime_ms, last_ms)]
    return now // (every_s * 1000) > last // (every_s * 1000)


def weigh(state, config):
    """(the battery's millivolts or a reason, the events of a level that is new); None for a node that cannot measure it."""
    if not config.node.get("bat"):
        return None, []
    try:
        value = battery.read(config.node["bat"])
    except Exception:
        value = errors.ERROR
    if not isinstance(value, int):
        return value, []
    before, state.level = state.level, battery.level(state.level, value, config.thresholds_mv)
    if state.level == before:
        return value, []
    details = (("level", battery.LEVELS[state.level]), ("mv", value))
    return value, [("battery", details)]


def _soonest(waiting, probes, results):
    """Position of the one to read next: ready first, of those whose needed results are there."""
    now_ms = time.ticks_ms()
    known = [key for key, value in _by_key(probes, results) if value is not None]

    def order(at):
        index, driver = waiting[at]
        needs = probes[index].get("needs")
        return (needs is not None and needs["key"] not in known, driver.ready_in(now_ms))

    return min(range(len(waiting)), key=order)


def forget_done():
    """Give back the memory of what has read and judged the probes and thinned the spool: the talk that follows needs it.

    Whoever needs it once more loads it again.
    """
    for name in list(sys.modules):
        package, _, module = name.rpartition(".")
        if package in ("node.sensors", "node.bus") or name in _DONE:
            del sys.modules[name]
            delattr(sys.modules[package], module)


def _start(probe):
    """(driver, None), or (None, reason)."""
    driver = None
    try:
        driver = _driver(probe["driver"])(probe["pins"], probe["options"])
        driver.start(time.ticks_ms())
        return driver, None
    except SensorError as error:
        reason = error.code
    except Exception:
        reason = errors.ERROR
    if driver is not None:
        _stop(driver)
    return None, reason


def _driver(name):
    module = "node.sensors." + name
    return __import__(module, None, None, ("Driver",)).Driver


def _read(driver, needs, readings, deadline):
    """The driver's values, a reason, or None when it has to be asked again later."""
    try:
        if needs is not None:
            driver.given = _hundredths(dict(readings).get(needs["key"]), needs["parts"])
        deadline.sleep(driver.ready_in(time.ticks_ms()))
        if not deadline.left_ms():
            raise SensorError(errors.TIMEOUT)
        values = driver.read(deadline)
        if values is None:
            return None
    except SensorError as error:
        values = error.code
    except Exception:
        values = errors.ERROR
    _stop(driver)
    return values


def _hundredths(value, parts):
    """A float32, or an integer in `parts` of one, as hundredths; None for a reason."""
    if isinstance(value, int):
        return (value * 100 + parts // 2) // parts
    if isinstance(value, bytes):
        return round(struct.unpack(">f", value)[0] * 100)
    return None


def _stop(driver):
    try:
        driver.stop()
    except Exception:
        # Its readings are taken; `power.sleep` switches every rail off once more.
        pass


def _by_key(probes, results):
    readings = []
    for probe, values in zip(probes, results):
        for index, key in enumerate(probe["keys"]):
            if values is None or isinstance(values, str):
                value = values
            else:
                value = values[index] if index < len(values) else errors.ERROR
            readings.append((key, value))
    return readings


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
    return bool(state.crossed) and state.level == battery.NORMAL


def day_of(utc_ms, config):
    """A number for the day that a sampling instant belongs to, None while the time is unknown.

    Shortly before midnight is midnight, as above, and so is as much later as the node's id adds.
    """
    return None if utc_ms is None else _instant_ms(utc_ms, config) // _DAY_MS


def is_publish_due(state, config, clock, uptime_ms, has_news=False):
    """True when this wake is to talk: at power-on, then once in every publishing interval, later after failures.

    Which part of the interval depends on the node's id, so that a fleet does not call all at once. While a limit is crossed, and
    when there is news of one, every wake talks; but no haste lets the radio try again sooner after failures. Below a voltage it
    talks rarely, below another not at all but for saying so once.
    """
    if state.level >= battery.MUTE and (state.published_ms is None or not has_news):
        return False
    if uptime_ms + _early_ms(config.sample_s) < state.radio_not_before_ms:
        return False
    if state.published_ms is None or state.radio_failures or has_news or is_urgent(state):
        return True
    period_ms = config.publish_s * 1000 * (_RARELY if state.level else 1)
    shift_ms = _phase_s(config) * 1000
    now, last = [
        _instant_ms(clock.schedule_ms(ms), config) + shift_ms
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


def _instant_ms(schedule_ms, config):
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
