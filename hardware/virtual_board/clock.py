"""A board's time: true simulated UTC, and what the node's own clocks make of it.

While no socket to the real world is open, time passes only as far as the node itself lets it (sleeps, bus
transfers, a little for every look at a clock), so that a day takes seconds and a run can be repeated. While a socket is open,
node time runs at wall speed from where it stood: what the other side does takes the time it takes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Reading a clock takes time on a real board too; without it a loop that waits for ticks would never end.
_CLOCK_READ_US = 5
# A loop that does nothing but look at the clock is waiting: let it wait in bigger steps.
_PATIENT_READS = 200
_SPIN_STEP_US = 500
_NO_LIMIT_US = 1 << 62


class WatchdogBite(Exception):
    """The watchdog was not fed in time."""


class AwakeTooLong(Exception):
    """The node was awake longer than the bench allows (and no watchdog ended it)."""


class BoardClock:
    """Time of one wake. All values in µs of true simulated UTC unless said otherwise."""

    def __init__(self, *, now_us: int, rtc_us: int, awake_limit_us: int) -> None:
        """`rtc_us` is what the node's RTC shows (µs since 2000-01-01) at `now_us`, the reset."""
        self._now_us = now_us
        self._started_us = now_us
        self._rtc_offset_us = rtc_us - now_us
        self._limit_us = now_us + awake_limit_us
        self._watchdog_us: int | None = None
        self._watchdog_period_us = 0
        self._open_sockets = 0
        self._wall_anchor_us = 0
        self._reads = 0

    def now_us(self) -> int:
        """True simulated UTC."""
        if self._open_sockets:
            wall = time.monotonic_ns() // 1000
            self._now_us += wall - self._wall_anchor_us
            self._wall_anchor_us = wall
        return self._now_us

    def uptime_us(self) -> int:
        """Since this boot."""
        return self.now_us() - self._started_us

    def rtc_us(self) -> int:
        """What the RTC shows, µs since 2000-01-01."""
        return self.now_us() + self._rtc_offset_us

    def set_rtc(self, rtc_us: int) -> None:
        """Set the RTC."""
        self._rtc_offset_us = rtc_us - self.now_us()

    def advance(self, duration_us: int) -> None:
        """Let time pass; at wall speed while a socket is open.

        Raises:
            WatchdogBite, AwakeTooLong: at the moment they happen.
        """
        self._reads = 0
        duration_us = max(0, duration_us)
        if self._open_sockets:
            until = self.now_us() + duration_us
            limit = min(until, self._next_event_us())
            while (left := limit - self.now_us()) > 0:
                time.sleep(left / 1e6)
        else:
            self._now_us = min(self._now_us + duration_us, self._next_event_us())
        self.check()

    def wait_allowance_us(self) -> int:
        """How long a wait may last before the watchdog or the limit ends it."""
        return max(0, self._next_event_us() - self.now_us())

    def check(self) -> None:
        """Raise when the watchdog's or the bench's limit has been reached."""
        now = self.now_us()
        if self._watchdog_us is not None and now >= self._watchdog_us:
            raise WatchdogBite
        if now >= self._limit_us:
            raise AwakeTooLong

    def arm_watchdog(self, period_us: int) -> None:
        """Start the watchdog, or start it again with another time-out."""
        self._watchdog_period_us = period_us
        self.feed_watchdog()

    def feed_watchdog(self) -> None:
        """Begin the watchdog's period anew."""
        self._watchdog_us = self.now_us() + self._watchdog_period_us

    def run_into_watchdog(self) -> bool:
        """Let time pass to the watchdog's bite; False when it is not armed."""
        if self._watchdog_us is None:
            return False
        self._now_us = max(self._now_us, self._watchdog_us)
        return True

    def socket_opened(self) -> None:
        """A socket to the real world exists: time now runs at wall speed."""
        if not self._open_sockets:
            self._wall_anchor_us = time.monotonic_ns() // 1000
        self._open_sockets += 1

    def socket_closed(self) -> None:
        """One such socket less."""
        self.now_us()
        self._open_sockets -= 1

    def stop_wall_time(self) -> None:
        """No socket exists any more (the run has ended)."""
        self.now_us()
        self._open_sockets = 0

    # --- vm.GuestClock ---

    def realtime_ns(self) -> int:
        """The RTC, in ns since 2000-01-01 (an ESP32's epoch)."""
        self._looked()
        return self.rtc_us() * 1000

    def monotonic_ns(self) -> int:
        """Uptime in ns."""
        self._looked()
        return self.uptime_us() * 1000

    def sleep_ns(self, duration_ns: int) -> None:
        """Let node time pass."""
        self.advance(duration_ns // 1000)

    def _looked(self) -> None:
        reads = self._reads
        if self._open_sockets:
            self.check()
        else:
            self.advance(_CLOCK_READ_US if reads < _PATIENT_READS else _SPIN_STEP_US)
        self._reads = reads + 1

    def _next_event_us(self) -> int:
        return (
            self._limit_us if self._watchdog_us is None else min(self._limit_us, self._watchdog_us)
        )


class WallClock(BoardClock):
    """Time of a board that somebody works with: it runs at wall speed, and whoever waits can be disturbed.

    It goes on through soft resets, as an ESP32's does, and so does its watchdog.
    """

    def __init__(self, *, now_us: int, rtc_us: int, pause: Callable[[float], None]) -> None:
        """`pause` waits for so many seconds, which may be 0, and may raise what disturbs."""
        super().__init__(now_us=now_us, rtc_us=rtc_us, awake_limit_us=_NO_LIMIT_US)
        self._pause = pause
        self.socket_opened()  # never closed

    def advance(self, duration_us: int) -> None:
        """Wait. Raises WatchdogBite, and what `pause` raises."""
        until_us = self.now_us() + max(0, duration_us)
        while (left_us := min(until_us, self._next_event_us()) - self.now_us()) > 0:
            self._pause(left_us / 1e6)
        self.check_watchdog()

    def check(self) -> None:
        """Raise when it is time for that, or what `pause` raises."""
        self._pause(0)
        self.check_watchdog()

    def check_watchdog(self) -> None:
        """Raise WatchdogBite when it is time for that."""
        super().check()

    def run_into_watchdog(self) -> bool:
        """False: nobody waits for it, a board that failed is reset at once."""
        return False

    def stop_wall_time(self) -> None:
        """It goes on."""

    def _looked(self) -> None:
        self.check_watchdog()
