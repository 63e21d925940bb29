"""Time: uptime of this power-up, which runs through deep sleep, and UTC, when a time server's word was believed.

Both in whole milliseconds. UTC is uptime plus `state.offset_ms`. What the RTC itself shows means nothing here: it is
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


class Clock:
    """Both clocks of one power-up."""

    def __init__(self, state):
        self._state = state

    def uptime_ms(self):
        """Since this power-up."""
        return rtc_memory.rtc_ms() - self._state.base_ms

    def utc_ms(self, uptime_ms):
        """UTC of a moment of this power-up; None while the time is unknown."""
        if self._state.offset_ms is None:
            return None
        return uptime_ms + self._state.offset_ms

    def utc_s(self, uptime_ms):
        """The same in whole seconds."""
        utc_ms = self.utc_ms(uptime_ms)
        return None if utc_ms is None else utc_ms // 1000

    def schedule_ms(self, uptime_ms):
        """What the schedule is aligned to: UTC, or uptime while that is unknown."""
        return uptime_ms + (self._state.offset_ms or 0)

    def learn(self, utc_ms, uptime_ms, floor_utc_s):
        """Take a time server's word; False when it is not believed: below the floor, when the bundle was built.

        A word more than an hour away from what the clock says is believed when a second one agrees with it.
        """
        state = self._state
        if not floor_utc_s * 1000 <= utc_ms < _CEILING_S * 1000:
            return False
        offset_ms = utc_ms - uptime_ms
        if state.offset_ms is not None and abs(offset_ms - state.offset_ms) > _JUMP_MS:
            if state.doubt_ms is None or abs(offset_ms - state.doubt_ms) > _AGREE_MS:
                state.doubt_ms = offset_ms
                return False
        state.offset_ms = offset_ms
        state.doubt_ms = None
        return True

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
