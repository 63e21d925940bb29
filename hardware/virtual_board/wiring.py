"""The seam between a board's pins and what is soldered to them.

The board core owns pins, buses and time; a probe model owns what its wire would carry. Times are true simulated
UTC in integer microseconds, whatever the node's own clock believes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


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


@dataclass(frozen=True)
class UartSettings:
    """How a UART was set up: what its line would look like on an oscilloscope."""

    baudrate: int = 115_200
    bits: int = 8
    parity: int | None = None  # 0 even, 1 odd
    stop: int = 1
    is_tx_inverted: bool = False
    is_rx_inverted: bool = False

    @property
    def bits_per_character(self) -> int:
        return 1 + self.bits + (self.parity is not None) + self.stop

    def character_us(self, count: int = 1) -> int:
        """How long so many characters take, one after the other."""
        return self.bits_per_character * 1_000_000 * count // self.baudrate


@runtime_checkable
class HearsLine(Protocol):
    """A UART device that understands only who speaks at its own speed and parity."""

    def line_set(self, settings: UartSettings) -> None:
        """The master speaks like this from now on."""


class I2cDevice(Protocol):
    """A device on an I²C bus, under one address."""

    def write(self, data: bytes, now_us: int) -> bool:
        """Take what the master writes; False when nobody acknowledges."""

    def read(self, count: int, now_us: int) -> bytes | None:
        """Give `count` bytes; None when nobody acknowledges."""

    def holds_line(self, now_us: int) -> bool:
        """True while the device keeps the bus low, so that nobody can speak."""


class SerialLine(Protocol):
    """What hangs on a UART's wires and is more than an answer to a frame: it sees the signal, and may speak unasked."""

    def sent(self, data: bytes, settings: UartSettings, start_us: int) -> None:
        """The node's UART sends this, character after character, from `start_us` on."""

    def heard(
        self, settings: UartSettings, since_us: int, until_us: int
    ) -> list[tuple[int, bytes]]:
        """What the node's UART receives in (since, until]: (µs at which a character's last bit has come, character).

        Asked for with rising times, and never for a moment that has not come: what the node did until then is known.
        """


class AnalogSource(Protocol):
    """What an ADC pin sees."""

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        """Voltage at `adc_pin` in µV. `levels` maps each GPIO to 0 or 1 when driven, None when it floats."""


RADIO = -1
"""In place of a pin's number: the radio on the chip, which loads the supply like anything that is switched."""


class PowerSwitch(Protocol):
    """Told whenever a pin that gates a supply rail changes, and when the radio does (RADIO)."""

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        """React to the rail going up (1) or down (0)."""


@dataclass
class Wiring:
    """Everything attached to one board, by GPIO number, UART id, or I²C bus and address."""

    one_wire: dict[int, OneWireDevice] = field(default_factory=dict)
    uart: dict[int, UartDevice] = field(default_factory=dict)
    i2c: dict[tuple[int, int], I2cDevice] = field(default_factory=dict)
    lines: dict[int, SerialLine] = field(default_factory=dict)
    analog: dict[int, AnalogSource] = field(default_factory=dict)
    power: list[PowerSwitch] = field(default_factory=list)
    levels: dict[int, int] = field(default_factory=dict)
    """What holds an input high or low from outside, by GPIO; low where nothing does."""


class Brownout(Exception):
    """A probe or supply model may raise this from any method: the supply collapsed, the board restarts cold."""
