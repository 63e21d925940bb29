"""When a virtual node may boot: as fast as possible through the past, then by the fleet's clock. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

# A node that is past "now" and still waits for a receipt asks again at most this often in real time. In between it
# samples as fast as it can: after failures the firmware talks only every few hours.
_PAUSE_AFTER_ASKING_S = 1.0
# So far ahead of the fleet it may run for that; a server quarantines what comes from more than a day ahead.
_AHEAD_S = 20 * 3600
_PAUSE_FAR_AHEAD_S = 10.0


@dataclass(frozen=True)
class FleetClock:
    """The simulated time of the fleet: `now_utc_s` when the wall clock said `wall_s`, `speed` times as fast since."""

    now_utc_s: float
    wall_s: float
    speed: float

    def utc_s(self, wall_s: float) -> float:
        """The fleet's time at a time of the wall clock."""
        return self.now_utc_s + (wall_s - self.wall_s) * self.speed


@dataclass(frozen=True)
class Standing:
    """Where one node stands.

    `wakes_at_s` is its next boot; by the wall clock it last fell asleep at `slept_in_wall_s` and last talked to its
    broker, or tried to, at `asked_in_wall_s`.
    """

    wakes_at_s: float
    packs_held: int
    publish_every_s: int
    slept_in_wall_s: float = 0.0
    asked_in_wall_s: float = 0.0


def is_caught_up(node: Standing, clock: FleetClock) -> bool:
    """The node has lived through the past days and every pack on its flash has a receipt."""
    return node.wakes_at_s > clock.now_utc_s - node.publish_every_s and node.packs_held == 0


def boots_at_wall_s(node: Standing, clock: FleetClock, *, until_caught_up: bool) -> float:
    """The wall-clock time from which the node may boot; infinity when it need not boot any more."""
    if not until_caught_up:
        return clock.wall_s + (node.wakes_at_s - clock.now_utc_s) / clock.speed
    if is_caught_up(node, clock):
        return math.inf
    if node.wakes_at_s <= clock.now_utc_s + node.publish_every_s:
        return -math.inf
    if node.wakes_at_s <= clock.now_utc_s + _AHEAD_S:
        return node.asked_in_wall_s + _PAUSE_AFTER_ASKING_S
    return node.slept_in_wall_s + _PAUSE_FAR_AHEAD_S
