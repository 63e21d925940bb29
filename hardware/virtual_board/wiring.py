"""The seam between a board's pins and what is soldered to them.

The board core owns pins, buses and time; a probe model owns what its wire would carry. Times are true simulated
UTC in integer microseconds, whatever the node's own clock believes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class OneWireDevice(Protocol):
    """A device on one 1-Wire pin, spoken to byte by byte."""

    def reset(self, now_us: int) -> bool:
        """Answer a bus reset; True when a presence pulse follows."""

    def write_byte(self, byte: int, now_us: int) -> None:
        """Take one byte from the master."""

    def read_byte(self, now_us: int) -> int:
        """Give the next byte (0xFF when silent)."""


class UartDevice(Protocol):
    """A device at the far end of a UART (RS485 half duplex included)."""

    def receive(self, data: bytes, now_us: int) -> list[tuple[int, bytes]]:
        """Take a frame; return replies as (delay in µs after the frame's end, bytes)."""


class AnalogSource(Protocol):
    """What an ADC pin sees."""

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        """Voltage at `adc_pin` in µV. `levels` maps each GPIO to 0 or 1 when driven, None when it floats."""


class PowerSwitch(Protocol):
    """Told whenever a pin that gates a supply rail changes."""

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        """React to the rail going up (1) or down (0)."""


@dataclass
class Wiring:
    """Everything attached to one board, by GPIO number or UART id."""

    one_wire: dict[int, OneWireDevice] = field(default_factory=dict)
    uart: dict[int, UartDevice] = field(default_factory=dict)
    analog: dict[int, AnalogSource] = field(default_factory=dict)
    power: list[PowerSwitch] = field(default_factory=list)


class Brownout(Exception):
    """A probe or supply model may raise this from any method: the supply collapsed, the board restarts cold."""
