"""Devices at the far end of a wire that do exactly what a test says, good or bad."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hardware.virtual_board.probes.sdi12_line import Sdi12Line, Spoken
from hardware.virtual_board.wiring import UartSettings, Wiring


def crc8(data: bytes) -> int:
    """Maxim's CRC-8 (application note 27)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


def crc16(data: bytes) -> bytes:
    """Modbus's CRC-16, low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return struct.pack("<H", crc)


def scratchpad(raw: int, *, configuration: int = 0x7F) -> bytes:
    """A DS18B20's nine bytes."""
    pad = struct.pack("<hBBBBBB", raw, 0x4B, 0x46, configuration, 0xFF, 0x0C, 0x10)
    return pad + bytes((crc8(pad),))


@dataclass
class FakeThermometer:
    """A DS18B20. `pads` are what it gives at one read after the other, the last one for ever."""

    pads: list[bytes]
    is_present: bool = True
    vanishes_after_convert: bool = False
    conversions: list[int] = field(default_factory=list)
    reads: int = 0
    commands: list[list[int]] = field(default_factory=list)
    _command: list[int] = field(default_factory=list)
    _out: bytes = b""

    def reset(self, now_us: int) -> bool:
        self._command, self._out = [], b""
        self.commands.append(self._command)
        return self.is_present and not (self.vanishes_after_convert and self.conversions)

    def write_byte(self, byte: int, now_us: int) -> None:
        self._command.append(byte)
        if self._command == [0xCC, 0x44]:
            self.conversions.append(now_us)
        if self._command == [0xCC, 0xBE]:
            self._out = self.pads[min(self.reads, len(self.pads) - 1)]
            self.reads += 1

    def read_byte(self, now_us: int) -> int:
        byte, self._out = (self._out[0], self._out[1:]) if self._out else (0xFF, b"")
        return byte


@dataclass
class FakeResistance:
    """A Watermark between pins a and b; each polarity has its own resistance. Also what a battery's divider gives."""

    a: int
    b: int
    adc: int
    first_ohm: float
    second_ohm: float
    series_ohm: float = 10_000
    supply_uv: float = 3_300_000
    pulses: list[tuple[int, int]] = field(default_factory=list)  # (µs, pin that was high)

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        level_a, level_b = levels.get(self.a), levels.get(self.b)
        if level_a is None or level_b is None:
            return 0
        self.pulses.append((now_us, self.a if level_a else self.b))
        if level_a:
            return round(self.supply_uv * self.series_ohm / (self.first_ohm + self.series_ohm))
        return round(self.supply_uv * self.second_ohm / (self.second_ohm + self.series_ohm))


@dataclass
class FakeVoltage:
    microvolt: int

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        return self.microvolt


def floats_reply(*values: float, address: int = 1, function: int = 3) -> bytes:
    """A Modbus reply with these float32 registers, high word first."""
    content = b"".join(struct.pack(">f", value) for value in values)
    head = bytes((address, function, len(content))) + content
    return head + crc16(head)


@dataclass
class FakeModbus:
    """Gives `replies` one after the other, the last one for ever; each is bytes, or a function of the request."""

    replies: list[bytes | Callable[[bytes], bytes]]
    delay_us: int = 5_000
    requests: list[tuple[int, bytes]] = field(default_factory=list)
    lines: list[UartSettings] = field(default_factory=list)
    power_changes: list[tuple[int, int, int]] = field(default_factory=list)

    def receive(self, data: bytes, now_us: int) -> list[tuple[int, bytes]]:
        reply = self.replies[min(len(self.requests), len(self.replies) - 1)]
        self.requests.append((now_us, data))
        content = reply(data) if callable(reply) else reply
        return [(self.delay_us, content)] if content else []

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        self.power_changes.append((pin, level, now_us))

    def line_set(self, settings: UartSettings) -> None:
        self.lines.append(settings)


def modbus_reply(content: bytes, *, address: int = 1, function: int = 3) -> bytes:
    """A Modbus reply with this content of registers."""
    head = bytes((address, function, len(content))) + content
    return head + crc16(head)


def by_register(answers: dict[int, bytes]) -> Callable[[bytes], bytes]:
    """The answer to a request, by the register that it names; silence for any other."""
    return lambda request: answers.get(int.from_bytes(request[2:4], "big"), b"")


@dataclass
class FakeI2c:
    """Gives `answers` one after the other, the last one for ever, filled up with what an open line reads."""

    answers: list[bytes]
    is_there: bool = True
    is_held: bool = False
    written: list[tuple[int, bytes]] = field(default_factory=list)
    reads: int = 0

    def write(self, data: bytes, now_us: int) -> bool:
        self.written.append((now_us, data))
        return self.is_there

    def read(self, count: int, now_us: int) -> bytes | None:
        answer = self.answers[min(self.reads, len(self.answers) - 1)]
        self.reads += 1
        return (answer + b"\xff" * count)[:count] if self.is_there else None

    def holds_line(self, now_us: int) -> bool:
        return self.is_held


@dataclass
class FakeSdi12:
    """A sensor on an SDI-12 wire. `answers` by command: what it says to one after the other, the last one for ever."""

    answers: Mapping[str, Sequence[bytes | list[Spoken]]]
    delay_us: int = 9_000
    commands: list[tuple[int, str]] = field(default_factory=list)
    breaks: list[int] = field(default_factory=list)

    def broke(self, now_us: int) -> None:
        self.breaks.append(now_us)

    def command(self, text: str, now_us: int) -> list[Spoken]:
        answers = self.answers.get(text, [b""])
        said = sum(1 for _, before in self.commands if before == text)
        self.commands.append((now_us, text))
        answer = answers[min(said, len(answers) - 1)]
        return [Spoken(self.delay_us, answer)] if isinstance(answer, bytes) else list(answer)


def sdi12_wire(*sensors: FakeSdi12, uart: int = 1, enable_pin: int = 27) -> Wiring:
    """A board with these sensors on one wire."""
    line = Sdi12Line(enable_pin=enable_pin)
    line.sensors += sensors
    return Wiring(lines={uart: line}, power=[line])


@dataclass
class FakeTalker:
    """Says `frames` one after the other, the last one for ever, each `period_us` while it is supplied."""

    frames: Sequence[bytes]
    power_pin: int
    settings: UartSettings
    period_us: int = 150_000
    powered_at_us: int | None = None

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if pin == self.power_pin:
            self.powered_at_us = now_us if level else None

    def sent(self, data: bytes, settings: UartSettings, start_us: int) -> None:
        pass

    def heard(
        self, settings: UartSettings, since_us: int, until_us: int
    ) -> list[tuple[int, bytes]]:
        if self.powered_at_us is None or settings != self.settings:
            return []
        spoken = []
        for number in range((until_us - self.powered_at_us) // self.period_us):
            start_us = self.powered_at_us + (number + 1) * self.period_us
            for index, byte in enumerate(self.frames[min(number, len(self.frames) - 1)]):
                spoken.append((start_us + settings.character_us(index + 1), bytes([byte])))
        return [item for item in spoken if since_us < item[0] <= until_us]


@dataclass
class FakeStuckLine:
    """A wire that rests at one level: every character time the receiver finds a character in it that is none."""

    byte: int = 0x00

    def sent(self, data: bytes, settings: UartSettings, start_us: int) -> None:
        pass

    def heard(
        self, settings: UartSettings, since_us: int, until_us: int
    ) -> list[tuple[int, bytes]]:
        step_us = settings.character_us()
        first_us = (since_us // step_us + 1) * step_us
        return [(at_us, bytes([self.byte])) for at_us in range(first_us, until_us + 1, step_us)]


@dataclass
class FakeSupplied:
    """A voltage while it is supplied, by `power_pin`; one after the other when there are several, again and again."""

    microvolts_at: Sequence[int]
    power_pin: int
    powered_at_us: int | None = None
    asked: list[int] = field(default_factory=list)

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        if pin == self.power_pin:
            self.powered_at_us = now_us if level else None

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        if self.powered_at_us is None:
            return 0
        self.asked.append(now_us - self.powered_at_us)
        return self.microvolts_at[(len(self.asked) - 1) % len(self.microvolts_at)]


@dataclass
class FakeLoop:
    """A resistance to ground under a pull-up that `power_pin` supplies; one after the other when there are several."""

    ohms: Sequence[float]
    power_pin: int
    pull_ohm: float = 10_000
    supply_uv: float = 3_300_000
    looks: int = 0

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        if not levels.get(self.power_pin):
            return 0
        ohm = self.ohms[self.looks % len(self.ohms)]
        self.looks += 1
        return round(self.supply_uv * ohm / (ohm + self.pull_ohm))
