"""Time: uptime of this power-up, which runs through deep sleep, and UTC, when a time server's word was believed.

Both in whole milliseconds. UTC is uptime plus `state.offset_ms`, less what uptime has run fast since that was learned: asleep the node
counts with an RC oscillator, whose error is measured between the words of time servers. What the RTC itself shows means nothing here: it is
set only because mbedTLS judges certificates by it, and `state.base_ms` moves along, so that uptime does not jump.
"""

import time

import machine
from micropython import const

from node import rtc_memory

_UNIX_TO_RTC_S = const(946_684_800)  # the RTC counts from 2000-01-01
_CEILING_S = const(4_102_444_800)  # 2100-01-01
_JUMP_MS = const(3_600_000)
_AGREE_MS = const(60_000)
_RTC_ERROR_MS = const(60_000)
# A time server's word is right to some ten milliseconds: over half an hour some ten ppm.
_LEAST_SPAN_MS = const(1_800_000)
# More is no oscillator's error, but a server's.
_MOST_PPM = const(20_000)
_MILLION = const(1_000_000)


class Clock:
    """Both clocks of one power-up."""

    def __init__(self, state):
        self._state = state

    def uptime_ms(self):
        """Since this power-up."""
        return rtc_memory.rtc_ms() - self._state.base_ms

    def utc_ms(self, uptime_ms):
        """UTC of a moment of this power-up; None while the time is unknown."""
        state = self._state
        if state.offset_ms is None:
            return None
        fast_ms = (uptime_ms - state.learned_ms) * (state.drift_ppm or 0) // _MILLION
        return uptime_ms + state.offset_ms - fast_ms

    def utc_s(self, uptime_ms):
        """The same in whole seconds."""
        utc_ms = self.utc_ms(uptime_ms)
        return None if utc_ms is None else utc_ms // 1000

    def schedule_ms(self, uptime_ms):
        """What the schedule is aligned to: UTC, or uptime while that is unknown."""
        utc_ms = self.utc_ms(uptime_ms)
        return uptime_ms if utc_ms is None else utc_ms

    def asleep_ms(self, duration_ms):
        """What to ask of a sleep so that it takes that long."""
        return duration_ms + duration_ms * (self._state.drift_ppm or 0) // _MILLION

    def learn(self, utc_ms, uptime_ms, floor_utc_s):
        """Take a time server's word; False when it is not believed: below the floor, when the bundle was built.

        A word more than an hour away from what the clock says is believed when a second one agrees with it.
        """
        state = self._state
        if not floor_utc_s * 1000 <= utc_ms < _CEILING_S * 1000:
            return False
        offset_ms = utc_ms - uptime_ms
        known_ms = self.utc_ms(uptime_ms)
        if known_ms is not None and abs(utc_ms - known_ms) > _JUMP_MS:
            if state.doubt_ms is None or abs(offset_ms - state.doubt_ms) > _AGREE_MS:
                state.doubt_ms = offset_ms
                return False
        state.offset_ms = offset_ms
        state.learned_ms = uptime_ms
        state.doubt_ms = None
        self._measure_drift(uptime_ms, offset_ms)
        return True

    def _measure_drift(self, uptime_ms, offset_ms):
        """Each measurement counts a quarter: the oscillator walks with the temperature, and a server may be wrong once."""
        state = self._state
        if state.drift_from is not None:
            from_ms, from_offset_ms = state.drift_from
            span_ms = uptime_ms - from_ms
            if span_ms < _LEAST_SPAN_MS:
                return
            ppm = (from_offset_ms - offset_ms) * _MILLION // span_ms
            if abs(ppm) <= _MOST_PPM:
                before = state.drift_ppm
                state.drift_ppm = ppm if before is None else (3 * before + ppm) // 4
        state.drift_from = [uptime_ms, offset_ms]

    def show_to_tls(self, floor_utc_s):
        """Let the RTC show UTC, or the floor while that is unknown, for mbedTLS; uptime goes on as before."""
        uptime_ms = self.uptime_ms()
        wanted_ms = self.utc_ms(uptime_ms)
        if wanted_ms is None:
            wanted_ms = floor_utc_s * 1000
        before_ms = rtc_memory.rtc_ms()
        wanted_ms -= _UNIX_TO_RTC_S * 1000
        if abs(wanted_ms - before_ms) <= _RTC_ERROR_MS:
            return
        year, month, day, hour, minute, second, weekday, _ = time.gmtime(wanted_ms // 1000)
        machine.RTC().datetime(
            (year, month, day, weekday, hour, minute, second, wanted_ms % 1000 * 1000)
        )
        # Uptime stands still for the moment that this took, but never runs backwards.
        self._state.base_ms += wanted_ms - before_ms
        rtc_memory.store(self._state)
