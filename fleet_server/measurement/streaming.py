"""Quality tests on rows as they come, with the results that one look at the whole series would give.

Only rows whose results no later row can change are handed out; the others wait. That the rest of the context is known as far as the
series itself, and `look_ahead_s` more, is the caller's word.
"""

from __future__ import annotations

import numpy as np

from fleet_server.measurement.in_context import Context, judge, look_ahead_s, look_back_s
from fleet_server.measurement.quality import TestArray
from fleet_server.measurement.rules import Rules
from fleet_server.measurement.windows import Series, TimeArray, joined

_EMPTY = Series(np.zeros(0, dtype=np.int64), np.zeros(0))


class Stream:
    """One channel's rows on their way: pushed in rising time, handed out once each, in the same order.

    >>> from fleet_server.measurement.rules import DEFAULTS
    >>> stream = Stream(DEFAULTS["turbidity"])
    >>> times_s, _ = stream.push(Series([0, 900, 7200], [1.0, 300.0, 1.0]), Context())
    >>> times_s.tolist()
    []
    >>> times_s, tests = stream.push(Series([11700], [1.0]), Context())
    >>> times_s.tolist()
    [0, 900]
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._back_s = look_back_s(rules)
        self._ahead_s = look_ahead_s(rules)
        self._rows = _EMPTY
        self._waiting = 0
        """Place of the first row that was not handed out."""

    def push(self, series: Series, context: Context) -> tuple[TimeArray, TestArray]:
        """Take further rows; hand out those that are done: their times, and their results as `in_context.judge` has them.

        Raises:
            ValueError: a row is not after all that came before. Nothing was taken.
        """
        self._rows = joined(self._rows, series)
        if not len(self._rows):
            return self._rows.times_s, np.zeros(0, dtype=np.int32)
        done_s = self._rows.times_s[-1] - self._ahead_s
        return self._hand_out(int(np.searchsorted(self._rows.times_s, done_s, "right")), context)

    def finish(self, context: Context) -> tuple[TimeArray, TestArray]:
        """Hand out the rows that still wait, as nothing will come after them."""
        return self._hand_out(len(self._rows), context)

    def _hand_out(self, end: int, context: Context) -> tuple[TimeArray, TestArray]:
        first, end = self._waiting, max(end, self._waiting)
        times_s = self._rows.times_s[first:end]
        if not times_s.size:
            return times_s, np.zeros(0, dtype=np.int32)
        tests = judge(self._rows, self._rules, context, first=first)[: end - first]
        self._waiting = end
        self._forget()
        return times_s, tests

    def _forget(self) -> None:
        """Rows that are no company for any that still waits, nor for the next that may come."""
        times_s = self._rows.times_s
        next_s = times_s[self._waiting] if self._waiting < times_s.size else times_s[-1] + 1
        start = int(np.searchsorted(times_s[: self._waiting], next_s - self._back_s))
        if start > times_s.size // 2:  # not for every row
            self._rows, self._waiting = self._rows.slice(start), self._waiting - start
