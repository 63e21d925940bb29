"""Time limits. Nothing on the node waits without one; as long as one is running, it feeds the watchdog."""

import time

import slots
from node.errors import TimedOut

_NAP_MS = 20


class Deadline:
    """A moment that nothing inside may outlast."""

    def __init__(self, timeout_ms):
        self._end = time.ticks_add(time.ticks_ms(), timeout_ms)

    def left_ms(self):
        """Milliseconds left, 0 when it passed. Feeds the watchdog while there are any."""
        left = time.ticks_diff(self._end, time.ticks_ms())
        if left <= 0:
            return 0
        slots.feed()
        return left

    def within(self, timeout_ms):
        """A deadline after `timeout_ms`, or this one's if that is earlier."""
        return Deadline(min(timeout_ms, self.left_ms()))

    def check(self, what):
        """Raise TimedOut, naming what was waited for, when it passed."""
        if not self.left_ms():
            raise TimedOut(what)

    def sleep(self, duration_ms):
        """Sleep, but not beyond the deadline."""
        end = time.ticks_add(time.ticks_ms(), min(duration_ms, self.left_ms()))
        while True:
            left = time.ticks_diff(end, time.ticks_ms())
            if left <= 0:
                return
            self.left_ms()
            time.sleep_ms(min(left, 5_000))

    def nap(self, what):
        """Sleep a moment between two looks at a condition; raise TimedOut when there is no time left."""
        self.check(what)
        time.sleep_ms(min(_NAP_MS, self.left_ms()))
