"""Faults on probes: put there by a scene's plan or by a test's hand, and what they do to a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import gaussian

Source = Callable[[float], float | None]
"""Truth in the published unit at a UTC second; `None`: nothing there to measure, the probe is off its cable."""

_DAY_S = 86400
# A film of algae and bacteria never takes all the oxygen that reaches the probe's cap.
_THICKEST_FILM = 0.8


@dataclass(frozen=True)
class ActiveFault:
    """A fault that is on, how strong (see `Fault`), and since when."""

    fault: Fault
    strength: float
    since_utc_s: float


class FaultSwitch:
    """The faults of one probe: those that a plan schedules and those that someone put there."""

    def __init__(self, plan: Callable[[float], Iterable[ActiveFault]] | None = None) -> None:
        self._plan = plan
        self._put: dict[Fault, ActiveFault] = {}

    def put(self, fault: Fault, *, strength: float = 1.0, since_utc_s: float = 0.0) -> None:
        """Switch a fault on until `clear`."""
        self._put[fault] = ActiveFault(fault, strength, since_utc_s)

    def clear(self) -> None:
        """Take away what `put` put there."""
        self._put.clear()

    def active(self, utc_s: float) -> dict[Fault, ActiveFault]:
        """Every fault that is on at this moment."""
        planned = self._plan(utc_s) if self._plan else ()
        return {one.fault: one for one in planned} | self._put


def disturbed(source: Source, active: dict[Fault, ActiveFault], utc_s: float) -> float | None:
    """The value that the probe's element believes in, given the faults that change a value."""
    stuck = active.get(Fault.STUCK)
    value = source(stuck.since_utc_s if stuck else utc_s)
    if value is None:
        return None
    if drift := active.get(Fault.DRIFT):
        value += drift.strength * (utc_s - drift.since_utc_s) / _DAY_S
    if noise := active.get(Fault.NOISE):
        value += noise.strength * gaussian("noise", round(utc_s * 1e3))
    return value


def fouled(value: float, active: dict[Fault, ActiveFault], utc_s: float) -> float:
    """What is left of the oxygen behind a film that has grown since the fault began."""
    fouling = active.get(Fault.FOULING)
    if fouling is None:
        return value
    film = fouling.strength * (utc_s - fouling.since_utc_s) / _DAY_S
    return value * (1 - min(_THICKEST_FILM, max(0.0, film)))
