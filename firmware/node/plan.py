"""What is due, and how the probes are read: all started first, then read in the order in which they become ready."""

import binascii
import struct
import sys
import time

from node import errors
from node.errors import SensorError

_DAY_MS = 86_400_000
# After so many failures in a row the radio stays off for so many publishing intervals; sampling goes on.
_BACK_OFF = (0, 0, 1, 2, 4, 6)
_PASSING = ("node.thinning", "node.schema", "node.trial", "node.commands")


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


def battery(config):
    """Millivolts, or a reason."""
    from node import battery as divider

    try:
        return divider.read(config)
    except Exception:
        return errors.ERROR


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
    """Give back the memory of what has read the probes, thinned the spool or obeyed the server: what follows needs it.

    Whoever needs it once more loads it again.
    """
    for name in list(sys.modules):
        package, _, module = name.rpartition(".")
        if package in ("node.sensors", "node.bus") or name in _PASSING:
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


def sleep_ms(schedule_ms, sample_s):
    """From now to the next sampling instant: whole multiples of `sample_s`.

    The timer that wakes the node errs by some per cent: shortly before an instant counts as that instant.
    """
    period_ms = sample_s * 1000
    next_ms = ((schedule_ms + _early_ms(sample_s)) // period_ms + 1) * period_ms
    return next_ms - schedule_ms


def day_of(utc_ms, sample_s):
    """A number for the day that a sampling instant belongs to, None while the time is unknown.

    Shortly before midnight is midnight, as above.
    """
    return None if utc_ms is None else (utc_ms + _early_ms(sample_s)) // _DAY_MS


def is_publish_due(state, config, clock, uptime_ms):
    """True when this wake is to talk: at power-on, then once in every publishing interval, later after failures.

    Which part of the interval depends on the node's id, so that a fleet does not call all at once.
    """
    early_ms = _early_ms(config.sample_s)
    if uptime_ms + early_ms < state.radio_not_before_ms:
        return False
    if state.published_ms is None or state.radio_failures:
        return True
    period_ms = config.publish_s * 1000
    shift_ms = early_ms + _phase_s(config) * 1000
    now = (clock.schedule_ms(uptime_ms) + shift_ms) // period_ms
    return now > (clock.schedule_ms(state.published_ms) + shift_ms) // period_ms


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


def _early_ms(sample_s):
    return sample_s * 50


def _phase_s(config):
    samples = config.publish_s // config.sample_s
    return binascii.crc32(config.node_id.encode()) % samples * config.sample_s
