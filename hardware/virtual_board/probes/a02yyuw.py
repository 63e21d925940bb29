"""DFRobot A02YYUW (SEN0311), an ultrasonic distance module that sends frames by itself as long as it is supplied.

Source: DFRobot wiki SEN0311 (UART 9600 8N1; frame FF, high, low, sum; 3 to 450 cm, ±1 cm; a new value every 100 to 300 ms).
What it measures is an echo's time; it tells the distance that a fixed speed makes of it: 340 m/s, or the 348 m/s of the
maker's own formula for the kind with pulse output (57.5 µs for each cm), or something between. The real speed: Cramer 1993 (J. Acoust. Soc. Am. 93:2510, eq. 15, the terms in temperature and water vapour), vapour by Magnus (Sonntag 1990). The server
corrects by the ideal gas, for dry air.
"""

from __future__ import annotations

from math import exp
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import ActiveFault, Source, disturbed
from hardware.virtual_board.probes.powered import Fitting, PoweredProbe
from hardware.virtual_board.wiring import UartSettings

WIRE = UartSettings(9600, 8, None, 1)

_BOOT_US = 280_000
_PERIOD_US = 150_000
_NEAREST_MM = 30
_FARTHEST_MM = 4500
_NO_ECHO = 0xFFFD
_ASSUMED_M_S = 344.0
_HUMIDITY = 0.75  # of the air over water
_NOISE_MM = 1.5


def frame(distance_mm: int) -> bytes:
    """The four bytes of one distance.

    >>> frame(1953).hex(" ")
    'ff 07 a1 a7'
    """
    body = bytes([0xFF]) + distance_mm.to_bytes(2, "big")
    return body + bytes([sum(body) & 0xFF])


def sound_m_s(temperature_c: float, humidity: float = _HUMIDITY) -> float:
    """Speed of sound in air at 1013 hPa.

    >>> round(sound_m_s(20.0, 0.0), 2)
    343.35
    """
    t = temperature_c
    vapour = humidity * 6.112 * exp(17.62 * t / (243.12 + t)) / 1013.25
    dry = 331.5024 + 0.603055 * t - 0.000528 * t**2
    return dry + (51.471935 + 0.1495874 * t - 0.000782 * t**2) * vapour


class A02yyuw(PoweredProbe):
    """One module. `level_m` is the water above the module's face, so below zero."""

    def __init__(self, level_m: Source, air_c: Source, **fitting: Unpack[Fitting]) -> None:
        super().__init__(**fitting)
        self._level_m = level_m
        self._air_c = air_c
        # Within the maker's ±1 cm, with room for the noise.
        self._assumed_m_s = _ASSUMED_M_S + self.tolerance * between(-4.0, 4.0, *self.dice, "speed")
        self._offset_mm = self.tolerance * between(-6.0, 6.0, *self.dice, "offset")
        self._noise_mm = self.tolerance * _NOISE_MM

    def sent(self, data: bytes, settings: UartSettings, start_us: int) -> None:
        """Its RX only chooses between steady and raw values."""

    def heard(
        self, settings: UartSettings, since_us: int, until_us: int
    ) -> list[tuple[int, bytes]]:
        if self.powered_at_us is None:
            return []
        first_us = self.powered_at_us + _BOOT_US
        step_us = WIRE.character_us()
        found = []
        # A frame that began before `since_us` may still be on its way.
        number = max(0, (since_us - first_us) // _PERIOD_US)
        while (start_us := first_us + number * _PERIOD_US) <= until_us:
            for index, byte in enumerate(self._frame(start_us)):
                end_us = start_us + (index + 1) * step_us
                if since_us < end_us <= until_us:
                    is_clear = settings == WIRE
                    found.append((end_us, bytes([byte if is_clear else byte ^ 0x55])))
            number += 1
        return found

    def _frame(self, now_us: int) -> bytes:
        now_s = now_us / 1e6
        active = self.faults.active(now_s)
        level_m, air_c = disturbed(self._level_m, active, now_s), self._air_c(now_s)
        if Fault.DISCONNECTED in active or level_m is None or air_c is None:
            return b""
        return self._on_the_way(
            frame(self._distance_mm(level_m, air_c, active, now_us)), active, now_us
        )

    def _distance_mm(
        self, level_m: float, air_c: float, active: dict[Fault, ActiveFault], now_us: int
    ) -> int:
        if Fault.NO_ECHO in active:
            return _NO_ECHO
        shown_mm = -level_m * 1000 * self._assumed_m_s / sound_m_s(air_c) + self._offset_mm
        shown_mm += self._noise_mm * gaussian(*self.dice, "noise", now_us)
        return 0 if shown_mm <= _NEAREST_MM else min(round(shown_mm), _FARTHEST_MM)

    def _on_the_way(self, answer: bytes, active: dict[Fault, ActiveFault], now_us: int) -> bytes:
        if Fault.BAD_CRC in active:
            # The sum of three bytes does not see a flip in its own head: the head would not be found either.
            hit = 8 + int(uniform(*self.dice, "bit", now_us) * 24)
            damaged = bytearray(answer)
            damaged[hit // 8] ^= 1 << hit % 8
            answer = bytes(damaged)
        if Fault.HALF_FRAME in active:
            answer = answer[:2]
        if Fault.NOISE in active:
            answer = bytes([int(uniform(*self.dice, "stray", now_us) * 255)]) + answer
        return answer
