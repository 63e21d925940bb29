"""Atlas Scientific's EZO circuits for pH, dissolved oxygen and conductivity, in I²C mode, spoken to byte by byte.

Source: Atlas Scientific, EZO pH V 5.8 (p. 44–59), EZO DO V 5.3 (p. 43–58) and EZO EC data sheets: ASCII commands; an answer is
a status byte (1 done, 2 error, 254 still processing, 255 no data to send), text and NUL; 300 ms for a setting, 600 or 900 ms for a
reading; temperature compensation at 25 °C (DO: 20 °C) until told otherwise, forgotten without supply.

How a circuit compensates: pH after Nernst; DO from the oxygen's partial pressure with Garcia and Gordon's solubility (scene
physics); conductivity not at all at 25 °C. That of the water itself follows its temperature as sea water's does (PSS-78, Lewis
1980, r_t), which is another curve than any linear compensation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import ActiveFault, Source, disturbed
from hardware.virtual_board.probes.i2c import I2cProbe
from hardware.virtual_board.probes.powered import Fitting
from hardware.virtual_board.scene_models import oxygen_at_saturation_mg_l

DONE, SYNTAX_ERROR, BUSY, NO_DATA = 1, 2, 254, 255

_SETTING_US = 300_000
_NOT_DRIVEN = 0xFF


def conductivity_ratio(temperature_c: float) -> float:
    """Conductivity of water at a temperature over that at 25 °C.

    r_t of the Practical Salinity Scale 1978 (Lewis 1980, IEEE J. Ocean. Eng. OE-5:3), which is relative to 15 °C.

    >>> round(conductivity_ratio(25.0), 6), round(conductivity_ratio(5.0), 4)
    (1.0, 0.6304)
    """
    return _rt(temperature_c) / _rt(25.0)


def _rt(t: float) -> float:
    return 0.6766097 + t * (2.00564e-2 + t * (1.104259e-4 + t * (-6.9698e-7 + t * 1.0031e-9)))


def nernst_ph(ph: float, temperature_c: float, compensated_for_c: float) -> float:
    """What a circuit shows that takes the water for another temperature: the potential stays, the slope is another.

    >>> nernst_ph(4.0, 5.0, 5.0)
    4.0
    >>> round(nernst_ph(4.0, 5.0, 25.0), 3)
    4.201
    """
    return 7 + (ph - 7) * (temperature_c + 273.15) / (compensated_for_c + 273.15)


class Ezo(I2cProbe, ABC):
    """One circuit. `source` is the truth in the published unit; `temperature` that of the water."""

    name = ""
    warm_up_us = 740_000
    default_c = 25.0
    reading_us = 600_000

    def __init__(self, source: Source, temperature: Source, **fitting: Unpack[Fitting]) -> None:
        super().__init__(**fitting)
        self._source = source
        self._temperature = temperature
        self.commands: list[str] = []
        self.switched_on(0)

    def switched_on(self, now_us: int) -> None:
        self.compensated_for_c = self.default_c
        self._answer: tuple[int, bytes] | None = None  # ready at, content

    @abstractmethod
    def shown(self, value: float, temperature_c: float) -> str:
        """What the circuit says of a true value, as text."""

    def write(self, data: bytes, now_us: int) -> bool:
        if not self._is_there(now_us):
            return False
        command = data.decode("ascii", "replace").upper()
        self.commands.append(command)
        name, _, argument = command.partition(",")
        actions: dict[str, Callable[[str, int], tuple[int, bytes]]] = {
            "R": self._read,
            "T": self._tell,
            "I": self._identify,
        }
        action = actions.get(name, self._fail)
        self._answer = action(argument, now_us)
        return True

    def read(self, count: int, now_us: int) -> bytes | None:
        if not self._is_there(now_us):
            return None
        active = self.faults.active(now_us / 1e6)
        if Fault.BUSY in active:
            content = bytes([BUSY])
        elif Fault.INVALID in active or self._answer is None:
            content = bytes([NO_DATA])
        elif now_us < self._answer[0]:
            content = bytes([BUSY])
        else:
            content, self._answer = self._answer[1], None
        if Fault.HALF_FRAME in active:
            content = content[: max(1, len(content) // 2)]
        if Fault.NOISE in active and len(content) > 1:
            hit = 1 + int(uniform(*self.dice, "hit", now_us) * (len(content) - 1))
            content = content[:hit] + bytes([content[hit] | 0x80]) + content[hit + 1 :]
        return (content + bytes([_NOT_DRIVEN]) * count)[:count]

    def _is_there(self, now_us: int) -> bool:
        now_s = now_us / 1e6
        is_off = Fault.DISCONNECTED in self.faults.active(now_s) or self._source(now_s) is None
        return self.is_awake(now_us) and not is_off

    def _read(self, argument: str, now_us: int) -> tuple[int, bytes]:
        now_s = now_us / 1e6
        value = disturbed(self._source, self._without_noise(now_s), now_s)
        temperature_c = self._temperature(now_s)
        if argument or value is None:
            return self._fail(argument, now_us)
        text = self.shown(value, self.default_c if temperature_c is None else temperature_c)
        return now_us + self.reading_us, bytes([DONE]) + text.encode() + b"\0"

    def _without_noise(self, now_s: float) -> dict[Fault, ActiveFault]:
        # Noise is on the bus here, not in the water.
        return {f: one for f, one in self.faults.active(now_s).items() if f != Fault.NOISE}

    def _tell(self, argument: str, now_us: int) -> tuple[int, bytes]:
        if argument == "?":
            text = f"?T,{self.compensated_for_c:.2f}"
            return now_us + _SETTING_US, bytes([DONE]) + text.encode() + b"\0"
        try:
            self.compensated_for_c = float(argument)
        except ValueError:
            return self._fail(argument, now_us)
        return now_us + _SETTING_US, bytes([DONE, 0])

    def _identify(self, argument: str, now_us: int) -> tuple[int, bytes]:
        return now_us + _SETTING_US, bytes([DONE]) + b"?I," + self.name.encode() + b",2.14\0"

    def _fail(self, argument: str, now_us: int) -> tuple[int, bytes]:
        return now_us + _SETTING_US, bytes([SYNTAX_ERROR])

    def noise(self, sigma: float, *what: object) -> float:
        return self.tolerance * sigma * gaussian(*self.dice, *what)

    def part(self, limit: float, *what: object) -> float:
        """This part's own deviation, anything within the limit."""
        return self.tolerance * between(-limit, limit, *self.dice, *what)


class EzoPh(Ezo):
    """pH, three digits."""

    name = "pH"
    reading_us = 900_000

    def shown(self, value: float, temperature_c: float) -> str:
        shown = nernst_ph(value, temperature_c, self.compensated_for_c) + self.part(0.07, "offset")
        return f"{min(max(shown, 0.0), 14.0):.3f}"


class EzoDo(Ezo):
    """Oxygen in mg/L, two digits."""

    name = "D.O."
    default_c = 20.0

    def shown(self, value: float, temperature_c: float) -> str:
        saturation = value / oxygen_at_saturation_mg_l(temperature_c, 0.0)
        shown = saturation * oxygen_at_saturation_mg_l(self.compensated_for_c, 0.0)
        shown = shown * (1 + self.part(0.03, "gain")) + self.part(0.05, "offset")
        return f"{min(max(shown, 0.0), 100.0):.2f}"


class EzoEc(Ezo):
    """Conductivity in µS/cm at the water's temperature, as long as it is told 25 °C. Up to four digits that count."""

    name = "EC"

    def shown(self, value: float, temperature_c: float) -> str:
        shown = (
            value * conductivity_ratio(temperature_c) / conductivity_ratio(self.compensated_for_c)
        )
        shown *= 1 + self.part(0.018, "cell")
        digits = 2 if shown < 100 else 1 if shown < 1000 else 0
        return f"{min(max(shown, 0.0), 500_000.0):.{digits}f}"
