"""Limits of the configuration. While one is crossed the node samples faster and says so at once.

A limit is [channel key, kind, value, clear], numbers in the channel's raw unit. `below` and `above` compare a reading, `fall`
by how much it fell in an hour. It is crossed beyond `value` and ends at `clear`: what lies between is noise.
"""

import struct

from micropython import const

MAX_LIMITS = const(16)  # as node/schema.py has it

_HOUR_MS = const(3_600_000)
# What a fall is measured against: readings of the last hour, a quarter of an hour apart; a little less, as sleeps err.
_WINDOW_MS = const(3_780_000)
_APART_MS = const(840_000)
_MAX_RECENT = const(5)
# Of all channels together: the RTC's memory is small. Many of them are compared with less than an hour.
_MAX_ALL = const(30)
# A probe that does not answer any more must not keep the node awake for ever.
_MAX_UNREAD = const(4)


def judge(state, config, uptime_ms, readings):
    """Compare what was read; the (event's name, details) of every limit that is crossed now or has ended."""
    events, crossed, raws = [], {}, dict(readings)
    state.recent = _recent(state.recent, config, uptime_ms)
    for limit in config.limits[:MAX_LIMITS]:
        name = _name(limit)
        before = state.crossed.get(name)
        after = before
        if limit[0] in raws:
            after = _compare(
                limit, before, raws[limit[0]], state.recent.get(limit[0], ()), uptime_ms
            )
        if after is not None:
            crossed[name] = after
        if (after is None) != (before is None):
            events.append(_event(limit, after is not None, raws[limit[0]]))
    state.crossed = crossed
    for key, points in state.recent.items():
        _remember(points, uptime_ms, raws.get(key), min(_MAX_RECENT, _MAX_ALL // len(state.recent)))
    return events


def _name(limit):
    """Its name in the memory; the channel's key comes first."""
    return "%s %s %s" % (limit[0], limit[1], limit[2])


def _compare(limit, before, raw, recent, uptime_ms):
    """None while the limit is not crossed, otherwise how many readings in a row failed since. `before`: the same until now."""
    number = _number(raw)
    if number is None:
        return None if before is None or before + 1 >= _MAX_UNREAD else before + 1
    _, kind, value, clear = limit
    end = value if before is None else clear
    if kind == "fall":
        is_crossed = _fell(recent, number, uptime_ms, end)
    elif kind == "below":
        is_crossed = number < end
    else:
        is_crossed = number > end
    return 0 if is_crossed else None


def _fell(recent, number, uptime_ms, per_hour):
    """True when it fell by more than `per_hour` within an hour, or as fast on the average since the last reading before that.

    Readings that are closer together are not scaled up to an hour: so would their noise be.
    """
    for then_ms, raw in recent:
        fallen = _number(raw) - number
        if fallen * _HOUR_MS > per_hour * max(uptime_ms - then_ms, _HOUR_MS):
            return True
    return False


def _recent(recent, config, uptime_ms):
    """What falls are measured against now, by channel key: the last hour, or the last reading before it."""
    kept = {}
    for key in {limit[0] for limit in config.limits[:MAX_LIMITS] if limit[1] == "fall"}:
        points = recent.get(key, [])
        kept[key] = [one for one in points if uptime_ms - one[0] <= _WINDOW_MS] or points[-1:]
    return kept


def _remember(points, uptime_ms, raw, most):
    is_time = not points or uptime_ms - points[-1][0] >= _APART_MS
    if is_time and _number(raw) is not None:
        points.append([uptime_ms, raw])
        del points[:-most]


def _number(raw):
    """A reading as a number; None for a reason, and for a channel that was not read."""
    if isinstance(raw, bytes):
        return struct.unpack(">f", raw)[0]
    return raw if isinstance(raw, int) else None


def _event(limit, is_crossed, raw):
    key, kind, value, _ = limit
    if not isinstance(value, int):
        value = struct.pack(">f", value)
    name = "limit_crossed" if is_crossed else "limit_cleared"
    return name, (("key", key), ("kind", kind), ("limit", value), ("value", raw))
