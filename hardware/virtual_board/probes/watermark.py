"""Irrometer Watermark 200SS between two GPIOs, as the ADC pin between them sees it.

    pin a ──[ probe R ]──┬──[ series resistor Rx ]── pin b
                         └── adc pin

a high, b low: V1 = Vs · Rx / (R + Rx);  a low, b high: V2 = Vs · R / (R + Rx). Else the node carries no voltage that
says anything about R.

Resistance from tension, the way *back* from the server's, by other sources: Irrometer's table of the 200SS at 24 °C
(75 °F; SMX manual, p. 7), straight lines between its points; temperature by how an electrolyte's conductivity
changes (ISO 7888, α = 1.91 %/K at 25 °C), since the probe is gypsum water in a grain skeleton. The server uses the
equations of Shock, Barnum and Seddigh (1998) and Irrometer's sketch. The two agree within 6 % from 12 to 190 kPa
between 12 and 26 °C; in wetter soil of 12 °C and more, where neither is good, within 4 kPa.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from typing import NotRequired, TypedDict, Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian
from hardware.virtual_board.probes.faults import ActiveFault, FaultSwitch, Source, disturbed

# (kPa, Ω at 24 °C)
TABLE_24_C = (
    (0.0, 550.0),
    (9.0, 1000.0),
    (10.0, 1100.0),
    (15.0, 2000.0),
    (35.0, 6000.0),
    (55.0, 9200.0),
    (75.0, 12200.0),
    (100.0, 15575.0),
    (200.0, 28075.0),
)
_ALPHA_PER_K = 0.0191
_TABLE_C = 24.0

_SHORT_OHM = 15.0
# A contact that has gone bad on one wire shows its rectifying film in one direction only.
_BAD_CONTACT = 1.5
_ADC_NOISE_UV = 1200.0


def resistance_ohm(tension_kpa: float, temperature_c: float) -> float:
    """Resistance of a 200SS in soil of this tension and temperature.

    Args:
        tension_kpa: 0 (wet) upwards; beyond 200 the table's last line goes on.
        temperature_c: of the soil, above freezing.

    >>> resistance_ohm(75.0, 24.0)
    12200.0
    """
    tensions = [tension for tension, _ in TABLE_24_C]
    right = min(max(bisect_right(tensions, tension_kpa), 1), len(TABLE_24_C) - 1)
    (low, low_ohm), (high, high_ohm) = TABLE_24_C[right - 1], TABLE_24_C[right]
    at_24 = low_ohm + (high_ohm - low_ohm) * (max(tension_kpa, 0.0) - low) / (high - low)
    return at_24 * _conductivity(_TABLE_C) / _conductivity(temperature_c)


def _conductivity(temperature_c: float) -> float:
    """Relative to 25 °C (ISO 7888, linear)."""
    return 1 + _ALPHA_PER_K * (temperature_c - 25)


class Circuit(TypedDict):
    """What stands around a resistance, for `PulsedResistor`."""

    pins: tuple[int, int]
    series_ohm: float
    supply_uv: int
    serial: str
    seed: NotRequired[int]
    tolerance: NotRequired[float]
    faults: NotRequired[FaultSwitch | None]


class PulsedResistor(ABC):
    """A resistance and its series resistor between two GPIOs, as an analogue source for the ADC pin between them.

    `tolerance` scales how far parts and readings are off: 1 as built, 0 ideal.
    """

    def __init__(
        self,
        *,
        pins: tuple[int, int],
        series_ohm: float,
        supply_uv: int,
        serial: str,
        seed: int = 0,
        tolerance: float = 1.0,
        faults: FaultSwitch | None = None,
    ) -> None:
        self.faults = faults or FaultSwitch()
        self._pin_a, self._pin_b = pins
        self._dice = (seed, serial)
        self._tolerance = tolerance
        # 1 % resistor and regulator as built; the firmware only knows the nominal figures.
        self._series_ohm = series_ohm * (
            1 + tolerance * between(-0.007, 0.007, *self._dice, "series")
        )
        self._supply_uv = supply_uv * (
            1 + tolerance * between(-0.003, 0.003, *self._dice, "supply")
        )
        self._noise_uv = tolerance * _ADC_NOISE_UV
        self._asked = 0

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        """Voltage between the two resistors for the present levels of the two pins."""
        level_a, level_b = levels.get(self._pin_a), levels.get(self._pin_b)
        if level_a is None and level_b is None:
            return 0
        if level_a is None or level_b is None or level_a == level_b:
            # One end floats or both pull the same way: no current, the node follows the driven side.
            driven = level_b if level_a is None else level_a
            return round(self._supply_uv) if driven else 0
        resistance = self._faulty_resistance(now_us / 1e6, forward=level_a == 1)
        through = self._series_ohm / (resistance + self._series_ohm)
        share = through if level_a == 1 else 1 - through
        self._asked += 1
        noise_uv = self._noise_uv * gaussian(*self._dice, "adc", now_us, self._asked)
        return min(max(round(self._supply_uv * share + noise_uv), 0), round(self._supply_uv))

    def _faulty_resistance(self, now_s: float, *, forward: bool) -> float:
        active = self.faults.active(now_s)
        if Fault.SHORT in active:
            return _SHORT_OHM
        clean = self._resistance(now_s, active, forward=forward)
        if Fault.DISCONNECTED in active or clean is None:
            return float("inf")
        return clean * (_BAD_CONTACT if forward and Fault.UNEVEN in active else 1.0)

    @abstractmethod
    def _resistance(
        self, now_s: float, active: dict[Fault, ActiveFault], *, forward: bool
    ) -> float | None:
        """Ω in this direction; None: nothing there."""


class Watermark(PulsedResistor):
    """One probe."""

    def __init__(
        self, tension_kpa: Source, temperature_c: Source, **circuit: Unpack[Circuit]
    ) -> None:
        super().__init__(**circuit)
        self._tension_kpa = tension_kpa
        self._temperature_c = temperature_c
        self._gain = 1 + self._tolerance * between(-0.05, 0.05, *self._dice, "gain")
        self._asymmetry = self._tolerance * between(-0.004, 0.004, *self._dice, "asymmetry")

    def _resistance(
        self, now_s: float, active: dict[Fault, ActiveFault], *, forward: bool
    ) -> float | None:
        tension_kpa = disturbed(self._tension_kpa, active, now_s)
        temperature_c = self._temperature_c(now_s)
        if tension_kpa is None or temperature_c is None:
            return None
        clean = resistance_ohm(tension_kpa, temperature_c) * self._gain
        return clean * (1 + (self._asymmetry if forward else -self._asymmetry))


class ReferenceResistor(PulsedResistor):
    """A resistor of 0.1 % in a probe's place: what it reads says how far the circuit can be trusted."""

    def __init__(self, ohm: Source, **circuit: Unpack[Circuit]) -> None:
        super().__init__(**circuit)
        self._ohm = ohm
        self._gain = 1 + self._tolerance * between(-0.0008, 0.0008, *self._dice, "gain")

    def _resistance(
        self, now_s: float, active: dict[Fault, ActiveFault], *, forward: bool
    ) -> float | None:
        ohm = disturbed(self._ohm, active, now_s)
        return None if ohm is None else ohm * self._gain
