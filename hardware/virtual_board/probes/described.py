"""A Modbus probe that nobody has written a model of: it keeps its truth where its TOML file says.

It shows that node, bench and server carry a new probe without code. It cannot show that the file is right about the probe: it
was made from the same file. A probe that a fleet depends on gets a model of its own from the maker's documents.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Unpack

from hardware import spoken
from hardware.catalogue import SensorType
from hardware.virtual_board.probes.faults import Source, disturbed
from hardware.virtual_board.probes.modbus import ILLEGAL_DATA_ADDRESS, ModbusProbe, Refused
from hardware.virtual_board.probes.powered import Fitting

# (unit, raw unit) → raw units in one unit, and the raw value of 0. A raw unit that is the unit needs no row.
_RAW_OF: Mapping[tuple[str, str], tuple[float, float]] = {
    ("Cel", "Cel/10"): (10, 0),
    ("Cel", "Cel/100"): (100, 0),
    ("Cel", "(Cel+100)*100"): (100, 10_000),
    ("m3/m3", "%/100"): (10_000, 0),
    ("1", "1/100"): (100, 0),
    ("%", "1"): (0.01, 0),
    ("mg/L", "mg/L/100"): (100, 0),
    ("pH", "pH/1000"): (1000, 0),
}
_FORMATS = {"u8": ">B", "u16": ">H", "s16": ">h", "u32": ">I", "s32": ">i", "f32": ">f"}


class DescribedProbe(ModbusProbe):
    """One probe of a sensor type that has a table `[modbus]`. `sources` by property."""

    def __init__(
        self,
        sensor_type: SensorType,
        sources: Mapping[str, Source],
        *,
        address: int = 1,
        **fitting: Unpack[Fitting],
    ) -> None:
        assert sensor_type.modbus is not None  # noqa: S101 - the caller chose this model for it
        self.functions = (sensor_type.modbus.function,)
        self.warm_up_us = sensor_type.warm_up_ms * 1000
        self.baudrate = sensor_type.modbus.baud
        self.parity = {"none": None, "even": 0, "odd": 1}[sensor_type.modbus.parity]
        super().__init__(sources, address=address, **fitting)
        self._type = sensor_type
        self._talk = sensor_type.modbus

    def registers(self, start: int, count: int, now_us: int) -> bytes:
        if (start, count) == self._talk.start:
            return b"\0\0" * count
        content = self._content(now_us)
        if not 1 <= count <= 125 or any(at not in content for at in range(start, start + count)):
            raise Refused(ILLEGAL_DATA_ADDRESS)
        return b"".join(content[at] for at in range(start, start + count))

    def written(self, start: int, values: bytes, now_us: int) -> None:
        if start != self._talk.wipe or values:
            raise Refused(ILLEGAL_DATA_ADDRESS)

    def _content(self, now_us: int) -> dict[int, bytes]:
        """Two bytes for each register."""
        content: dict[int, bytes] = {}
        for guard in self._talk.guards:
            content |= _placed(guard.register, guard.minimum)
        now_s = now_us / 1e6
        for quantity in self._type.quantities:
            if not isinstance(quantity.register, spoken.Register):
                continue
            source = self.sources.get(quantity.property)
            value = disturbed(source, self.faults.active(now_s), now_s) if source else 0.0
            factor, zero = _RAW_OF.get((quantity.unit, quantity.raw_unit), (1, 0))
            content |= _placed(quantity.register, (value or 0.0) * factor + zero)
        return content


def _placed(register: spoken.Register, number: float) -> dict[int, bytes]:
    whole = number if register.kind == "f32" else round(number)
    data = struct.pack(_FORMATS[register.kind], whole).ljust(2, b"\0")
    if register.order:
        data = bytes(data["abcd".index(letter)] for letter in register.order)
    return {register.at + n: data[2 * n : 2 * n + 2] for n in range(len(data) // 2)}
