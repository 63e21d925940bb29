"""METER TEROS 11 and TEROS 12 on SDI-12: counts, temperature and, the TEROS 12, the bulk electrical conductivity.

Sources: METER, TEROS 11/12 Integrator Guide 18224 (commands; order and form of the values: a+<calibratedCountsVWC>±<temperature>
+<electricalConductivity>; 50 ms of measurement); METER, TEROS 12 user manual, §3.1 (±0.03 m³/m³, ±0.3 °C, ±(5 % + 10 µS/cm))
and §4.1.1, eq. 5: θ = 3.879e-4 RAW − 0.6956, the maker's line for mineral soil. The server goes from the counts to the
permittivity (§4.1.3) and from there to the water by Topp: another way, which gives 0.02 to 0.03 m³/m³ less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Unpack

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import ActiveFault, Source, disturbed
from hardware.virtual_board.probes.powered import Fitting, PoweredProbe
from hardware.virtual_board.probes.sdi12_line import WIRE, Spoken

Model = Literal["TER11", "TER12"]

_BOOT_US = 245_000
_MEASURE_US = 50_000
_ANSWERS_US = 9_500
_NOISE = {"soil_water_content": 0.0008, "soil_temperature": 0.03, "soil_conductivity": 1.0}
_MALFUNCTION = -9999


def counts(water_content: float) -> float:
    """RAW of a TEROS in mineral soil: the maker's line the other way.

    >>> round(counts(0.2), 1)
    2308.8
    """
    return (water_content + 0.6956) / 3.879e-4


def crc_text(content: str) -> str:
    """The three characters behind a text (SDI-12 1.4, §4.4.12.1–2).

    >>> crc_text("0+3.14")
    'OqZ'
    """
    crc = 0
    for byte in content.encode("ascii"):
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return bytes((0x40 | crc >> 12, 0x40 | crc >> 6 & 0x3F, 0x40 | crc & 0x3F)).decode("ascii")


class Teros(PoweredProbe):
    """One sensor. `sources` by property: soil_water_content, soil_temperature and, for a TER12, soil_conductivity."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        address: str,
        model: Model = "TER12",
        **fitting: Unpack[Fitting],
    ) -> None:
        super().__init__(**fitting)
        self._sources = sources
        self._address = address
        self._model = model
        # Within the maker's generic ±0.03 m³/m³ (half of it here, half for the soil), ±0.3 °C and 5 %.
        self._water_offset = self.tolerance * between(-0.015, 0.015, *self.dice, "water")
        self._offset_c = self.tolerance * between(-0.25, 0.25, *self.dice, "offset")
        self._gain = 1 + self.tolerance * between(-0.045, 0.045, *self.dice, "gain")
        self._measured: str | None = None
        self._ready_us = 0
        self._has_crc = False
        self._holds_wire = False

    def switched_off(self) -> None:
        self._measured = None

    def broke(self, now_us: int) -> None:
        if self._holds_wire and now_us < self._ready_us:
            self._measured = None
        self._holds_wire = False

    def command(self, text: str, now_us: int) -> list[Spoken]:
        active = self.faults.active(now_us / 1e6)
        if self._is_silent(active, now_us) or text[0] not in (self._address, "?"):
            return []
        answer = self._answer(text[1:], now_us)
        if answer is None or (text[0] == "?" and text != "?!"):
            return []
        spoken = [self._on_the_way(f"{answer}\r\n".encode("ascii"), active, now_us)]
        if self._holds_wire:
            spoken.append(Spoken(self._ready_us - now_us, f"{self._address}\r\n".encode("ascii")))
        return spoken

    def _is_silent(self, active: dict[Fault, ActiveFault], now_us: int) -> bool:
        return (
            self.powered_at_us is None
            or now_us - self.powered_at_us < _BOOT_US
            or Fault.DISCONNECTED in active
            or any(source(now_us / 1e6) is None for source in self._sources.values())
        )

    def _answer(self, body: str, now_us: int) -> str | None:
        self._holds_wire = False
        match body:
            case "!":
                return self._address
            case "I!":
                return f"{self._address}14METER   {self._model} 107"
            case "M!" | "MC!":
                self._measure(body, now_us)
                self._holds_wire = True
                return f"{self._address}001{len(self._sources)}"
            case "C!" | "CC!":
                self._measure(body, now_us)
                return f"{self._address}001{len(self._sources):02}"
            case "D0!":
                is_ready = self._measured is not None and now_us >= self._ready_us
                content = self._address + (self._measured if is_ready and self._measured else "")
                return content + (crc_text(content) if self._has_crc else "")
        return None

    def _measure(self, body: str, now_us: int) -> None:
        self._has_crc = body.endswith("C!") and body != "C!"
        self._ready_us = now_us + _ANSWERS_US + WIRE.character_us(8) + _MEASURE_US
        now_s = now_us / 1e6
        active = self.faults.active(now_s)
        value = {name: self._element(name, active, now_s, now_us) for name in self._sources}
        raw = counts(value["soil_water_content"] + self._water_offset)
        texts = [f"{raw:+.1f}", f"{value['soil_temperature'] + self._offset_c:+.1f}"]
        if self._model == "TER12":
            texts.append(f"{max(0.0, value['soil_conductivity'] * self._gain):+.0f}")
        if Fault.MALFUNCTION in active:
            texts = [f"{_MALFUNCTION:+d}" for _ in texts]
        self._measured = "".join(texts)

    def _element(
        self, name: str, active: dict[Fault, ActiveFault], now_s: float, now_us: int
    ) -> float:
        value = disturbed(self._sources[name], active, now_s)
        assert value is not None  # noqa: S101 - a silent sensor does not measure
        noise = self.tolerance * _NOISE[name] * gaussian(*self.dice, name, now_us)
        return value + noise

    def _on_the_way(self, answer: bytes, active: dict[Fault, ActiveFault], now_us: int) -> Spoken:
        delay_us = _ANSWERS_US
        if slow := active.get(Fault.SLOW):
            delay_us += round(slow.strength * 1e6)
        if Fault.BAD_CRC in active:
            hit = int(uniform(*self.dice, "bit", now_us) * 7 * (len(answer) - 2))
            damaged = bytearray(answer)
            damaged[hit // 7] ^= 1 << hit % 7
            answer = bytes(damaged)
        if Fault.HALF_FRAME in active:
            answer = answer[: len(answer) // 2]
        if Fault.NOISE in active:
            answer = (
                bytes(int(uniform(*self.dice, "stray", now_us, n) * 128) for n in range(2)) + answer
            )
        return Spoken(delay_us, answer)
