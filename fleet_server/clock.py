"""The server's only source of time. Nothing else asks the operating system what time it is.

Times are aware UTC datetimes of whole seconds. The demo runs on simulated time: `<simulated s>@<wall s>x<speed>` says
that at wall time `wall s` it was `simulated s` and that simulated time has run `speed` times as fast since.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from fleet_server.errors import Invalid

REAL = "real"
TIME_ZONE = "Europe/Berlin"
"""By which people in the city read their clocks."""
_SIMULATED = re.compile(
    r"(?P<simulated>\d{1,12}(\.\d+)?)@(?P<wall>\d{1,12}(\.\d+)?)x(?P<speed>\d{1,9}(\.\d+)?)"
)


@dataclass(frozen=True)
class Clock:
    """Wall time, or time that runs `speed` times as fast since `wall_utc_s`."""

    simulated_utc_s: float = 0.0
    wall_utc_s: float = 0.0
    speed: float = 1.0

    def now(self) -> datetime:
        """This moment, to the second."""
        passed_s = time.time() - self.wall_utc_s
        return _moment(math.floor(self.simulated_utc_s + passed_s * self.speed))

    @property
    def is_real(self) -> bool:
        return self == _WALL_CLOCK


@lru_cache(maxsize=1)  # asked for with every message, thousands of times in the same second
def _moment(utc_s: int) -> datetime:
    return datetime.fromtimestamp(utc_s, UTC)


_WALL_CLOCK = Clock()
_current = _WALL_CLOCK


def parse_clock(text: str) -> Clock:
    """The clock that a setting describes.

    >>> parse_clock("real").is_real
    True
    >>> parse_clock("1700000000@1800000000x60").speed
    60.0

    Raises:
        Invalid: `text` is neither `real` nor `<simulated s>@<wall s>x<speed>`.
    """
    if text == REAL:
        return _WALL_CLOCK
    match = _SIMULATED.fullmatch(text)
    if match is None:
        raise Invalid(
            f"clock must be 'real' or '<simulated UTC s>@<wall UTC s>x<speed>', not {text!r}."
        )
    return Clock(float(match["simulated"]), float(match["wall"]), float(match["speed"]))


def use_clock(text: str) -> Clock:
    """Make this process tell the time that the setting `clock` describes; called once when it starts."""
    global _current
    _current = parse_clock(text)
    return _current


def now() -> datetime:
    """This moment on the fleet's clock, to the second."""
    return _current.now()
