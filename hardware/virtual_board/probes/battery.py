"""The battery behind two resistors, as the ADC pin between them sees it."""

from __future__ import annotations

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian
from hardware.virtual_board.probes.faults import FaultSwitch, Source, disturbed

_ADC_NOISE_UV = 1500.0


class BatteryDivider:
    """`divider_milli` is battery voltage / pin voltage in thousandths (2000: two equal resistors of 1 %)."""

    def __init__(
        self,
        battery_mv: Source,
        *,
        divider_milli: int,
        serial: str,
        seed: int = 0,
        tolerance: float = 1.0,
        faults: FaultSwitch | None = None,
    ) -> None:
        self.faults = faults or FaultSwitch()
        self._battery_mv = battery_mv
        self._dice = (seed, serial)
        self._divider = (
            divider_milli / 1000 * (1 + tolerance * between(-0.008, 0.008, *self._dice, "divider"))
        )
        self._noise_uv = tolerance * _ADC_NOISE_UV
        self._asked = 0

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        now_s = now_us / 1e6
        active = self.faults.active(now_s)
        battery_mv = disturbed(self._battery_mv, active, now_s)
        if battery_mv is None or Fault.DISCONNECTED in active:
            return 0
        self._asked += 1
        noise_uv = self._noise_uv * gaussian(*self._dice, "adc", now_us, self._asked)
        return max(round(battery_mv * 1000 / self._divider + noise_uv), 0)
