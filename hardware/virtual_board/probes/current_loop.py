"""A level probe on a 4–20 mA loop, the shunt that its current passes, and TI's ADS1115 that looks at the shunt.

Sources: TI ADS1115 data sheet SBAS444 (table 7-3 codes, §7.6 registers: pointer, conversion, configuration 8583h after power-on,
data rates, single shot, OS); NAMUR NE 43 for currents that are no measurement. The loop has its own switched supply, the ADS1115
has the board's.
"""

from __future__ import annotations

import struct
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian
from hardware.virtual_board.probes.faults import Source, disturbed
from hardware.virtual_board.probes.i2c import I2cProbe
from hardware.virtual_board.probes.powered import Fitting

CONVERSION, CONFIG = 0, 1
POWER_ON_CONFIG = 0x8583

_FULL_SCALE_UV = (6_144_000, 4_096_000, 2_048_000, 1_024_000, 512_000, 256_000, 256_000, 256_000)
_RATES_HZ = (8, 16, 32, 64, 128, 250, 475, 860)
_SINGLE_ENDED = (4, 5, 6, 7)
_OS = 0x8000
_SUPPLY_UV = 3_300_000
_START_UP_S = 1.0
_FAULT_UA, _SHORTED_UA = 3_500.0, 35_000.0


class LevelLoop(I2cProbe):
    """The loop as its ADC sees it. `span_m` of water is 20 mA."""

    def __init__(
        self,
        level_m: Source,
        *,
        span_m: float,
        shunt_ohm: float,
        channel: int = 0,
        **fitting: Unpack[Fitting],
    ) -> None:
        super().__init__(**fitting)
        self._level_m = level_m
        self._span_m = span_m
        self._channel = channel
        tolerance = self.tolerance
        # Probe ±0.25 % of its span, shunt ±0.1 %, the ADC's rate ±10 %.
        self._zero = tolerance * between(-0.0025, 0.0025, *self.dice, "zero")
        self._shunt_ohm = shunt_ohm * (1 + tolerance * between(-1e-3, 1e-3, *self.dice, "shunt"))
        self._slow = 1 + tolerance * between(-0.1, 0.1, *self.dice, "rate")
        self._config = POWER_ON_CONFIG
        self._pointer = CONVERSION
        self._steps = 0
        self._done_us = 0

    def is_awake(self, now_us: int) -> bool:
        # The rail feeds the probe; the ADC is on the board.
        return True

    def write(self, data: bytes, now_us: int) -> bool:
        if data:
            self._pointer = data[0] & 3
        if len(data) == 3 and self._pointer == CONFIG:
            (self._config,) = struct.unpack(">H", data[1:])
            if self._config & _OS:
                rate_hz = _RATES_HZ[self._config >> 5 & 7]
                self._done_us = now_us + round(1_000_000 / rate_hz * self._slow)
                self._steps = self._converted(now_us)
        return True

    def read(self, count: int, now_us: int) -> bytes | None:
        if self._pointer == CONFIG:
            is_done = now_us >= self._done_us
            if Fault.BUSY in self.faults.active(now_us / 1e6):
                is_done = False
            content = struct.pack(">H", self._config & ~_OS | (_OS if is_done else 0))
        else:
            content = struct.pack(">h", self._steps)
        return (content + b"\xff" * count)[:count]

    def _converted(self, now_us: int) -> int:
        full_scale_uv = _FULL_SCALE_UV[self._config >> 9 & 7]
        is_ours = self._config >> 12 & 7 == _SINGLE_ENDED[self._channel]
        microvolts = self.current_ua(now_us) * self._shunt_ohm if is_ours else 0.0
        steps = round(min(microvolts, _SUPPLY_UV) * 32768 / full_scale_uv)
        return min(max(steps, -32768), 32767)

    def current_ua(self, now_us: int) -> float:
        """What flows in the loop."""
        now_s = now_us / 1e6
        active = self.faults.active(now_s)
        level_m = disturbed(self._level_m, active, now_s)
        if self.powered_at_us is None or Fault.DISCONNECTED in active or level_m is None:
            return 0.0
        if Fault.SHORT in active:
            return _SHORTED_UA
        if Fault.INVALID in active or (now_us - self.powered_at_us) / 1e6 < _START_UP_S:
            return _FAULT_UA
        share = level_m / self._span_m + self._zero
        noise = self.tolerance * 5e-4 * gaussian(*self.dice, "loop", now_us)
        # A working probe stays between 3.8 and 20.5 mA, whatever the water does.
        return min(max(4_000 + 16_000 * (share + noise), 3_800.0), 20_500.0)
