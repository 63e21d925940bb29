"""Which probes are read at a wake, and how: all started first, then read in the order in which they become ready."""

import struct
import time

from node import errors, plan
from node.errors import SensorError


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


def _is_due(probe, state, config, clock, uptime_ms):
    key = probe["keys"][0]
    every_s = config.every_s.get(key)
    last_ms = state.read_ms.get(key)
    if every_s is None or last_ms is None:
        return True
    if [name for name in state.crossed if name.split(" ")[0] in probe["keys"]]:
        return True
    now, last = [plan.instant_ms(clock.schedule_ms(ms), config) for ms in (uptime_ms, last_ms)]
    return now // (every_s * 1000) > last // (every_s * 1000)


def _soonest(waiting, probes, results):
    """Position of the one to read next: ready first, of those whose needed results are there."""
    now_ms = time.ticks_ms()
    known = [key for key, value in _by_key(probes, results) if value is not None]

    def order(at):
        index, driver = waiting[at]
        needs = probes[index].get("needs")
        return (needs is not None and needs["key"] not in known, driver.ready_in(now_ms))

    return min(range(len(waiting)), key=order)


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
