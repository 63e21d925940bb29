"""The virtual board's pins and buses: what a probe model sees and what the node gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hardware.virtual_board.board import Board, ScriptFailed
from hardware.virtual_board.wiring import UartSettings, Wiring

START_US = 1_780_000_000_000_000


@dataclass
class Divider:
    """A resistor from one GPIO to the ADC pin, another to the second GPIO."""

    seen: list[dict[int, int | None]] = field(default_factory=list)

    def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
        self.seen.append(levels)
        if levels.get(25) is None or levels.get(26) is None:
            return 0
        return 3_300_000 * 1 // 3 if levels[25] else 3_300_000 * 2 // 3


@dataclass
class Rail:
    changes: list[tuple[int, int, int]] = field(default_factory=list)

    def power_changed(self, pin: int, level: int, now_us: int) -> None:
        self.changes.append((pin, level, now_us - START_US))


@dataclass
class Probe:
    """A 1-Wire device that answers with what it was sent, once reset."""

    sent: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)

    def reset(self, now_us: int) -> bool:
        self.times.append(now_us)
        return True

    def write_byte(self, byte: int, now_us: int) -> None:
        self.times.append(now_us)
        self.sent.append(byte)

    def read_byte(self, now_us: int) -> int:
        self.times.append(now_us)
        return self.sent.pop(0) if self.sent else 0xFF


@dataclass
class Modbus:
    received: list[tuple[bytes, int]] = field(default_factory=list)

    def receive(self, data: bytes, now_us: int) -> list[tuple[int, bytes]]:
        self.received.append((data, now_us - START_US))
        return [(50_000, b"reply:" + data)]


def _exec(folder: Path, wiring: Wiring, code: str) -> str:
    return Board(folder, wiring, start_utc_us=START_US).exec(code)


def test_the_adc_sees_driven_pins_and_reads_calibrated_microvolts(tmp_path: Path) -> None:
    divider = Divider()
    printed = _exec(
        tmp_path,
        Wiring(analog={34: divider}),
        "from machine import ADC, Pin\na = ADC(Pin(34), atten=ADC.ATTN_11DB)\n"
        "p, q = Pin(25, Pin.OUT, value=1), Pin(26, Pin.OUT, value=0)\nprint(a.read_uv())\n"
        "p.off(); q.on()\nprint(a.read_uv())\np.init(Pin.IN); q.init(Pin.IN)\nprint(a.read_uv())",
    )

    first, second, floating = map(int, printed.split())
    assert first == pytest.approx(1_100_000, abs=1000)
    assert second == pytest.approx(2_200_000, abs=1000)
    assert floating == 0
    assert [(s.get(25), s.get(26)) for s in divider.seen] == [(1, 0), (0, 1), (None, None)]


@pytest.mark.parametrize(
    ("attenuation", "true_uv", "read_uv"),
    [("0DB", 1_500_000, 950_000), ("11DB", 3_300_000, 3_100_000), ("11DB", 90_000, 0)],
)
def test_the_adc_saturates_above_and_reads_zero_below_its_range(
    tmp_path: Path, attenuation: str, true_uv: int, read_uv: int
) -> None:
    class Fixed:
        def microvolts(self, adc_pin: int, levels: dict[int, int | None], now_us: int) -> int:
            return true_uv

    printed = _exec(
        tmp_path,
        Wiring(analog={35: Fixed()}),
        f"from machine import ADC\nprint(ADC(35, atten=ADC.ATTN_{attenuation}).read_uv())",
    )

    assert int(printed) == read_uv


def test_a_rail_is_told_when_it_rises_and_falls_and_at_the_end_of_the_wake(tmp_path: Path) -> None:
    rail = Rail()
    board = Board(tmp_path, Wiring(power=[rail]), start_utc_us=START_US)
    board.write_file(
        "/main.py",
        b"import machine, time\np = machine.Pin(13, machine.Pin.OUT, value=0)\np.on()\n"
        b"time.sleep_ms(50)\np.off()\np.value(1)\np(1)\nmachine.deepsleep(1000)",
    )

    board.run_wake()

    assert [(pin, level) for pin, level, _ in rail.changes] == [(13, 1), (13, 0), (13, 1), (13, 0)]
    assert rail.changes[1][2] - rail.changes[0][2] == 50_000


def test_one_wire_carries_bytes_in_bus_time(tmp_path: Path) -> None:
    probe = Probe()
    printed = _exec(
        tmp_path,
        Wiring(one_wire={4: probe}),
        "from machine import Pin\nfrom onewire import OneWire, OneWireError\n"
        "w = OneWire(Pin(4))\nprint(w.reset())\nw.writebyte(0x44)\nw.write(b'\\xbe\\x01')\n"
        "b = bytearray(4)\nw.readinto(b)\nprint(b, w.readbyte())\n"
        "print(w.crc8(bytes.fromhex('021cb801000000')))\n"
        "try:\n    OneWire(Pin(5)).reset(True)\nexcept OneWireError:\n    print('absent')",
    )

    lines = printed.splitlines()
    assert lines[0] == "True"
    assert lines[1] == "bytearray(b'D\\xbe\\x01\\xff') 255"
    assert lines[2] == str(0xA2)  # the example of Maxim's application note 27
    assert lines[3] == "absent"
    assert probe.times[-1] - probe.times[0] == 8 * 560


def test_a_uart_answer_arrives_after_its_delay_byte_by_byte(tmp_path: Path) -> None:
    device = Modbus()
    printed = _exec(
        tmp_path,
        Wiring(uart={2: device}),
        "from machine import UART\nimport time\nu = UART(2, baudrate=9600, tx=17, rx=16, timeout=0)\n"
        "t = time.ticks_us()\nprint(u.write(b'12345678'))\nu.flush()\n"
        "print(time.ticks_diff(time.ticks_us(), t) // 100)\nprint(u.read(4), u.any())\n"
        "time.sleep_ms(56)\nprint(u.any() in (4, 5, 6))\nu.init(9600, timeout=200, timeout_char=5)\n"
        "print(u.read(14))\nprint(u.read(1))\n"
        "v = UART(1, 9600)\nv.write(b'x')\nprint(v.read(), v.any())",
    )

    lines = printed.splitlines()
    assert lines[0] == "8"
    assert 83 <= int(lines[1]) <= 84  # 8 bytes of 10 bits at 9600 baud: 8.33 ms
    assert lines[2:] == ["None 0", "True", "b'reply:12345678'", "None", "None 0"]
    assert device.received[0][0] == b"12345678"


@dataclass
class Memory:
    """An I²C device with a register pointer; holds the line when told to."""

    content: bytes = bytes(range(16))
    is_held: bool = False
    times: list[int] = field(default_factory=list)
    pointer: int = 0

    def write(self, data: bytes, now_us: int) -> bool:
        self.times.append(now_us - START_US)
        self.pointer = data[0] if data else 0
        return len(data) < 4

    def read(self, count: int, now_us: int) -> bytes | None:
        self.times.append(now_us - START_US)
        return (self.content[self.pointer :] + b"\xff" * count)[:count]

    def holds_line(self, now_us: int) -> bool:
        return self.is_held


def test_i2c_carries_bytes_in_bus_time_and_tells_a_missing_device_from_a_held_bus(
    tmp_path: Path,
) -> None:
    memory = Memory()
    code = (
        "from machine import I2C, Pin\nimport time\n"
        "b = I2C(0, scl=Pin(22), sda=Pin(21), freq=100000, timeout=50000)\n"
        "print(b.scan())\nprint(b.writeto(0x48, b'\\x02'))\nprint(b.readfrom(0x48, 3))\n"
        "print(b.readfrom_mem(0x48, 14, 4))\nbuf = bytearray(2)\nb.readfrom_into(0x48, buf)\nprint(buf)\n"
        "b.writeto_mem(0x48, 1, b'\\x07')\nprint(b.readfrom(0x48, 1))\n"
        "for do in (lambda: b.writeto(0x49, b'x'), lambda: b.readfrom(0x49, 1), lambda: b.writeto(0x48, b'long')):\n"
        "    try:\n        do()\n    except OSError as e:\n        print(e.errno)\n"
    )

    printed = _exec(tmp_path, Wiring(i2c={(0, 0x48): memory}), code).splitlines()

    assert printed == [
        "[72]", "1", "b'\\x02\\x03\\x04'", "b'\\x0e\\x0f\\xff\\xff'",
        "bytearray(b'\\x0e\\x0f')", "b'\\x01'", "19", "19", "19",
    ]  # fmt: skip
    written, read = memory.times[1:3]
    assert read - written == 4 * 9 * 10  # address and three bytes of nine clocks at 100 kHz

    held = "from machine import I2C\nimport time\nb = I2C(0, freq=100000)\nt = time.ticks_ms()\n"
    held += "try:\n    b.readfrom(0x48, 1)\nexcept OSError as e:\n    print(e.errno, time.ticks_ms() - t)"
    memory.is_held = True
    assert _exec(tmp_path, Wiring(i2c={(0, 0x48): memory}), held).split() == ["116", "50"]


def test_a_device_hears_at_which_speed_and_parity_it_is_spoken_to(tmp_path: Path) -> None:
    @dataclass
    class Listener(Modbus):
        lines: list[UartSettings] = field(default_factory=list)

        def line_set(self, settings: UartSettings) -> None:
            self.lines.append(settings)

    device = Listener()

    _exec(
        tmp_path,
        Wiring(uart={2: device}),
        "from machine import UART\nu = UART(2, 9600)\nu.init(19200, parity=0)\nu.init(4800, parity=1)",
    )

    assert device.lines == [
        UartSettings(9600), UartSettings(19_200, 8, 0), UartSettings(4800, 8, 1),
    ]  # fmt: skip


@dataclass
class Talker:
    """Says 'a', 'b', 'c' … every 10 ms, and remembers what it was sent and how."""

    sent_to_it: list[tuple[bytes, UartSettings, int]] = field(default_factory=list)

    def sent(self, data: bytes, settings: UartSettings, start_us: int) -> None:
        self.sent_to_it.append((data, settings, start_us - START_US))

    def heard(
        self, settings: UartSettings, since_us: int, until_us: int
    ) -> list[tuple[int, bytes]]:
        first, last = ((us - START_US) // 10_000 for us in (since_us, until_us))
        return [(START_US + n * 10_000, bytes([96 + n % 26])) for n in range(first + 1, last + 1)]


def test_a_line_that_speaks_unasked_is_heard_from_the_moment_that_the_uart_is_open(
    tmp_path: Path,
) -> None:
    printed = _exec(
        tmp_path,
        Wiring(lines={1: Talker()}),
        "from machine import UART\nimport time\ntime.sleep_ms(100)\nu = UART(1, 9600)\n"
        "time.sleep_ms(35)\nprint(len(u.read()))\n"
        "u.init(9600, timeout=500, timeout_char=1)\n"
        "a = u.read(3)\nb = u.read(2)\nprint(len(a), len(b), a + b)\nu.deinit()\n"
        "time.sleep_ms(50)\nprint(UART(1, 9600).any())",
    )

    lines = printed.splitlines()
    assert lines[0] in ("3", "4")
    assert lines[1].startswith("1 1 ")  # nothing more within a millisecond of the first
    assert lines[2] == "0"


def test_a_line_sees_how_the_uart_is_set_up_and_when_each_write_begins(tmp_path: Path) -> None:
    talker = Talker()
    printed = _exec(
        tmp_path,
        Wiring(lines={1: talker}),
        "from machine import UART\nimport time\n"
        "u = UART(1, 600, bits=7, parity=0, stop=1, invert=UART.INV_TX | UART.INV_RX)\n"
        "u.write(b'\\x00')\nprint(u.txdone())\nt = time.ticks_us()\n"
        "u.init(1200, bits=7, parity=0, stop=1, invert=UART.INV_TX | UART.INV_RX)\n"
        "print(time.ticks_diff(time.ticks_us(), t) > 16000, u.txdone())\nu.write(b'0!')\n"
        "while not u.txdone():\n    pass\nprint(time.ticks_diff(time.ticks_us(), t) > 33000)\n"
        "u.init(9600)\nu.write(b'x')",
    )

    assert printed.split() == ["False", "True", "True", "True"]
    (brk, slow, at_us), (command, wire, then_us), (_, plain, _) = talker.sent_to_it
    assert (brk, command) == (b"\x00", b"0!")
    assert slow == UartSettings(600, 7, 0, 1, is_tx_inverted=True, is_rx_inverted=True)
    assert wire == UartSettings(1200, 7, 0, 1, is_tx_inverted=True, is_rx_inverted=True)
    assert plain == UartSettings(9600)
    assert then_us - at_us >= slow.character_us() == 16_666


def test_a_board_keeps_its_unique_id(tmp_path: Path) -> None:
    code = "import machine, network\nprint(machine.unique_id().hex(), network.WLAN().config('mac').hex())"

    first = _exec(tmp_path / "tree-01", Wiring(), code)

    assert first == _exec(tmp_path / "tree-01", Wiring(), code)
    assert first != _exec(tmp_path / "tree-02", Wiring(), code)
    assert first.split()[0] == first.split()[1]
    assert len(first.split()[0]) == 12


@pytest.mark.parametrize(
    "code",
    [
        "import machine\nmachine.UART(2, baudrate=0)",
        "import machine\nmachine.UART(7)",
        "import machine\nmachine.I2C(2, freq=100000)",
        "import machine\nmachine.I2C(0, freq=0)",
        "import machine\nmachine.ADC(34, atten=9).read_uv()",
        "import machine\nmachine.RTC().datetime((2026, 13, 1, 0, 0, 0, 0, 0))",
        "import machine\nmachine.RTC().memory(bytes(2049))",
        "import esp32\nesp32.NVS('a name of more than fifteen').set_i32('x', 1)",
        "import esp32\nesp32.NVS('a').get_blob('none', bytearray(4))",
    ],
)
def test_what_the_hardware_refuses_is_an_exception_of_the_node(tmp_path: Path, code: str) -> None:
    with pytest.raises(ScriptFailed, match=r"ValueError|OSError"):
        _exec(tmp_path, Wiring(), code)
