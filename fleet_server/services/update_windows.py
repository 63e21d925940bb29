"""When nodes may begin an update: within a campaign's hours, and one after the other where the network is narrow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

_DAY_MIN = 1440


@dataclass(frozen=True)
class Hours:
    """Minutes of the day in `zone` from which and until which; until before from: over midnight."""

    from_min: int
    until_min: int
    zone: ZoneInfo

    def at_or_after(self, moment: datetime) -> tuple[datetime, datetime]:
        """Begin and end (UTC) of the window that `moment` is in, or else of the next one.

        >>> night = Hours(22 * 60, 5 * 60, ZoneInfo("Europe/Berlin"))
        >>> [f"{at:%d %H:%M}" for at in night.at_or_after(datetime(2026, 7, 1, 12, tzinfo=UTC))]
        ['01 20:00', '02 03:00']
        """
        today = moment.astimezone(self.zone).date()
        for days in (-1, 0, 1, 2):
            begin, end = self._window(today + timedelta(days=days))
            if moment < end and begin < end:  # where clocks go on, an hour may not be there
                return begin, end
        return self._window(today + timedelta(days=3))

    def _window(self, day: date) -> tuple[datetime, datetime]:
        last = day if self.until_min > self.from_min else day + timedelta(days=1)
        return self._moment(day, self.from_min), self._moment(last, self.until_min)

    def _moment(self, day: date, minute: int) -> datetime:
        days, rest = divmod(minute, _DAY_MIN)
        at = time(rest // 60, rest % 60)
        local = datetime.combine(day + timedelta(days=days), at, self.zone)
        return local.astimezone(UTC)


@dataclass(frozen=True)
class Begin:
    """From when on a node may begin, and until when (None: no bound)."""

    not_before: datetime
    until: datetime | None


def spread(
    delays_s: Sequence[int],
    *,
    now: datetime,
    free_at: datetime | None,
    spacing_s: float,
    hours: Hours | None,
) -> tuple[list[Begin], datetime]:
    """When each of some nodes may begin, and from when on the network is free again.

    Args:
        delays_s: one for each node, drawn at random: so much later than its turn it begins.
        spacing_s: how long the network needs for one node; 0: as it likes.
        free_at: when it is free of those before.
    """
    begins, turn = [], max(now, free_at or now)
    for delay_s in delays_s:
        end = None
        if hours is not None:
            begin, end = hours.at_or_after(turn)
            turn = max(turn, begin)
        at = turn + timedelta(seconds=delay_s)
        if end is not None and at >= end:
            at = turn
        begins.append(Begin(at, end))
        turn += timedelta(seconds=spacing_s)
    return begins, turn
