"""DS18B20 digital thermometer on 1-Wire, spoken to byte by byte.

Source: Maxim Integrated, DS18B20 data sheet 19-7487 Rev 6 (2019): memory map (figure 9), temperature register
(figure 4, table 1), ROM and function commands (p. 10–12), conversion times (table 2), ±0.5 °C from −10 to +85 °C.
Powered on three wires; search (F0h) works on single bits and is not modelled.
"""

from __future__ import annotations

from hardware.scenes.faults import Fault
from hardware.virtual_board.dice import between, gaussian, uniform
from hardware.virtual_board.probes.faults import FaultSwitch, Source, disturbed

READ_ROM = 0x33
MATCH_ROM = 0x55
SKIP_ROM = 0xCC
CONVERT_T = 0x44
READ_SCRATCHPAD = 0xBE
WRITE_SCRATCHPAD = 0x4E
COPY_SCRATCHPAD = 0x48
RECALL_E2 = 0xB8
READ_POWER_SUPPLY = 0xB4

FAMILY_CODE = 0x28
POWER_ON_SIXTEENTHS = 0x0550  # +85 °C

# The data sheet's 750 ms at 12 bit is the longest that a part may take; this one is just ready in time.
_CONVERSION_US = 740_000
_ALARM_HIGH, _ALARM_LOW = 0x4B, 0x46
_NOISE_C = 0.02


def crc8(data: bytes) -> int:
    """Dallas CRC-8, X^8 + X^5 + X^4 + 1, bits mirrored (data sheet figure 11).

    >>> hex(crc8(bytes.fromhex("50054b467fff0c10")))
    '0x1c'
    """
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


def scratchpad(
    sixteenths: int, *, high: int = _ALARM_HIGH, low: int = _ALARM_LOW, config: int = 0x7F
) -> bytes:
    """The nine bytes of the memory map for a temperature in 1/16 °C.

    Byte 6 is reserved; parts return 10h minus the low four bits of the temperature there (0Ch after power-on).

    >>> scratchpad(0x0191).hex(" ")
    '91 01 4b 46 7f ff 0f 10 25'
    """
    reserved = 0x0C if sixteenths == POWER_ON_SIXTEENTHS else 0x10 - (sixteenths & 0x0F)
    body = (sixteenths & 0xFFFF).to_bytes(2, "little") + bytes(
        [high, low, config, 0xFF, reserved, 0x10]
    )
    return body + bytes([crc8(body)])


class Ds18b20:
    """One thermometer. It reads 85 °C until its first conversion is over, as the real one does.

    `tolerance` scales its offset and noise: 1 as built, 0 the ideal part of the data sheet.
    """

    def __init__(
        self,
        source: Source,
        *,
        serial: str,
        seed: int = 0,
        tolerance: float = 1.0,
        faults: FaultSwitch | None = None,
    ) -> None:
        self.faults = faults or FaultSwitch()
        self._source = source
        self._dice = (seed, serial)
        # Within the data sheet's ±0.5 °C with room for noise and the sixteenths.
        self._offset_c = tolerance * between(-0.4, 0.4, *self._dice, "offset")
        self._noise_c = tolerance * _NOISE_C
        number = int(uniform(*self._dice, "rom") * 2**48)
        rom = bytes([FAMILY_CODE]) + number.to_bytes(6, "little")
        self.rom = rom + bytes([crc8(rom)])
        self.power_up()

    def power_up(self) -> None:
        """Supply came back: scratchpad from its EEPROM, temperature at its power-on value."""
        self._sixteenths = POWER_ON_SIXTEENTHS
        self._settings = bytes([_ALARM_HIGH, _ALARM_LOW, 0x7F])
        self._conversion: tuple[int, int] | None = None
        self._state = "idle"
        self._taken = b""
        self._answer = b""

    def reset(self, now_us: int) -> bool:
        """Bus reset; a presence pulse unless the cable is off. A shorted line looks like one to most masters."""
        self._state, self._taken, self._answer = "rom", b"", b""
        return not self._is_off(now_us)

    def write_byte(self, byte: int, now_us: int) -> None:
        if self._is_off(now_us) or Fault.SHORT in self._active(now_us):
            return
        if self._state == "rom":
            self._rom_command(byte)
        elif self._state == "match":
            self._match(byte)
        elif self._state == "function":
            self._function_command(byte, now_us)
        elif self._state == "settings":
            self._write_settings(byte)

    def read_byte(self, now_us: int) -> int:
        active = self._active(now_us)
        if Fault.SHORT in active:
            return 0x00
        if self._is_off(now_us):
            return 0xFF
        if self._state == "converting":
            return 0xFF if self._is_converted(now_us) else 0x00
        if not self._answer:
            return 0xFF
        byte, self._answer = self._answer[0], self._answer[1:]
        return byte

    def _active(self, now_us: int) -> dict[Fault, object]:
        return dict(self.faults.active(now_us / 1e6))

    def _is_off(self, now_us: int) -> bool:
        now_s = now_us / 1e6
        return Fault.DISCONNECTED in self.faults.active(now_s) or self._source(now_s) is None

    def _rom_command(self, byte: int) -> None:
        if byte == SKIP_ROM:
            self._state = "function"
        elif byte == MATCH_ROM:
            self._state = "match"
        elif byte == READ_ROM:
            self._state, self._answer = "answer", self.rom
        else:
            self._state = "idle"

    def _match(self, byte: int) -> None:
        self._taken += bytes([byte])
        if len(self._taken) == len(self.rom):
            self._state = "function" if self._taken == self.rom else "idle"
            self._taken = b""

    def _function_command(self, byte: int, now_us: int) -> None:
        self._state = "idle"
        if byte == CONVERT_T:
            self._state = "converting"
            self._conversion = (now_us + self._conversion_us(), self._measure(now_us))
        elif byte == READ_SCRATCHPAD:
            self._state, self._answer = "answer", self._on_the_way(self._scratchpad(now_us), now_us)
        elif byte == WRITE_SCRATCHPAD:
            self._state = "settings"
        elif byte == READ_POWER_SUPPLY:
            self._state, self._answer = "answer", b"\xff"  # external supply
        elif byte in (COPY_SCRATCHPAD, RECALL_E2):
            self._state, self._answer = "answer", b"\xff"  # done

    def _write_settings(self, byte: int) -> None:
        self._taken += bytes([byte])
        if len(self._taken) == 3:
            high, low, config = self._taken
            self._settings = bytes([high, low, config & 0x60 | 0x1F])
            self._state, self._taken = "idle", b""

    def _bits(self) -> int:
        return 9 + (self._settings[2] >> 5 & 3)

    def _conversion_us(self) -> int:
        return _CONVERSION_US >> (12 - self._bits())

    def _is_converted(self, now_us: int) -> bool:
        return self._conversion is None or now_us >= self._conversion[0]

    def _scratchpad(self, now_us: int) -> bytes:
        if self._conversion is not None and now_us >= self._conversion[0]:
            self._sixteenths = self._conversion[1]
            self._conversion = None
        high, low, config = self._settings
        return scratchpad(self._sixteenths, high=high, low=low, config=config)

    def _measure(self, now_us: int) -> int:
        now_s = now_us / 1e6
        active = self.faults.active(now_s)
        if Fault.POWER_ON in active:
            return POWER_ON_SIXTEENTHS
        true_c = disturbed(self._source, active, now_s)
        if true_c is None:
            return self._sixteenths
        noise_c = self._noise_c * gaussian(*self._dice, "noise", now_us)
        sixteenths = round((true_c + self._offset_c + noise_c) * 16)
        unused = 12 - self._bits()
        return min(max(sixteenths, -55 * 16), 125 * 16) >> unused << unused

    def _on_the_way(self, data: bytes, now_us: int) -> bytes:
        active = self._active(now_us)
        if Fault.HALF_FRAME in active:
            return data[:4]
        if Fault.BAD_CRC in active:
            hit = int(uniform(*self._dice, "bit", now_us) * 64)
            flipped = bytearray(data)
            flipped[hit // 8] ^= 1 << hit % 8
            return bytes(flipped)
        return data
