"""Each probe's driver at its wire: what it reads, and which reason it gives for every way in which the wire can lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import nodes
import pytest
from fake_probes import (
    FakeI2c,
    FakeModbus,
    FakeResistance,
    FakeThermometer,
    FakeVoltage,
    by_register,
    crc16,
    floats_reply,
    modbus_reply,
    scratchpad,
)
from nodes import measure

from hardware.catalogue import load_node_model, node_model_ids
from hardware.virtual_board.wiring import UartSettings, Wiring
from provisioning.node_configuration import encode_map, node_map


def probe_of(model: str, slot: str) -> dict[str, Any]:
    """What a node of this model knows of the probe in one slot."""
    (probe,) = nodes.probes_of(model, slot)
    return probe


PROBE = {
    "ds18b20": {
        "driver": "ds18b20",
        "keys": ["t30"],
        "pins": {"data": 4},
        "options": {"convert_ms": 750},
    },
    "watermark": {
        "driver": "watermark",
        "keys": ["r30"],
        "pins": {"a": 25, "b": 26, "adc": 32},
        "options": {"series_ohm": 10000, "supply_uv": 3300000, "pulse_us": 150, "pause_ms": 100},
    },
    "modbus": nodes.pond_1()["probes"][0],
}


@pytest.mark.parametrize("model", node_model_ids())
def test_every_models_configuration_can_be_read_by_its_node(tmp_path: Path, model: str) -> None:
    content = node_map(load_node_model(model))
    board = nodes.flashed_board(tmp_path / "node", Wiring())

    printed = nodes.run_on(
        board, f"from node import cbor\nprint(repr(cbor.decode({encode_map(content)!r})))"
    )

    assert eval(printed[0]) == content  # noqa: S307 - a literal printed by our own node


# --- DS18B20 ---

GOOD = scratchpad(318)
DAMAGED = GOOD[:8] + bytes((GOOD[8] ^ 1,))
POWER_ON = scratchpad(1360)
NINE_BITS = scratchpad(316, configuration=0x1F)


@pytest.mark.parametrize(
    ("pads", "expected"),
    [
        ([GOOD], 318),
        ([scratchpad(-7)], -7),
        ([scratchpad(0)], 0),
        ([scratchpad(-880)], -880),
        ([scratchpad(2000)], 2000),
        ([DAMAGED, DAMAGED, GOOD], 318),
        ([DAMAGED], "crc"),
        ([bytes(9)], "short"),
        ([b"\xff" * 9], "absent"),
        ([POWER_ON, GOOD], 318),
        ([POWER_ON], "por"),
        ([scratchpad(0x07FF)], "range"),
        ([NINE_BITS, GOOD], 318),
        ([NINE_BITS], "frame"),
        ([POWER_ON, NINE_BITS], "frame"),
        ([scratchpad(2001)], "range"),
        ([scratchpad(-881)], "range"),
        ([GOOD[:4]], "crc"),
    ],
)
def test_thermometer_gives_sixteenths_or_the_reason(
    tmp_path: Path, pads: list[bytes], expected: int | str
) -> None:
    wiring = Wiring(one_wire={4: FakeThermometer(pads)})

    assert measure(tmp_path, wiring, [PROBE["ds18b20"]]) == {"t30": expected}


@pytest.mark.parametrize(
    "thermometer",
    [
        FakeThermometer([GOOD], is_present=False),
        FakeThermometer([GOOD], vanishes_after_convert=True),
    ],
    ids=["never there", "gone after the conversion"],
)
def test_thermometer_that_does_not_answer_is_absent(
    tmp_path: Path, thermometer: FakeThermometer
) -> None:
    wiring = Wiring(one_wire={4: thermometer})

    assert measure(tmp_path, wiring, [PROBE["ds18b20"]]) == {"t30": "absent"}


def test_thermometer_after_power_on_converts_exactly_once_more(tmp_path: Path) -> None:
    thermometer = FakeThermometer([POWER_ON])

    measure(tmp_path, Wiring(one_wire={4: thermometer}), [PROBE["ds18b20"]])

    assert len(thermometer.conversions) == 2
    assert thermometer.conversions[1] - thermometer.conversions[0] >= 750_000


def test_thermometer_with_fewer_bits_is_set_to_twelve_and_converts_again(tmp_path: Path) -> None:
    thermometer = FakeThermometer([NINE_BITS, GOOD])

    measure(tmp_path, Wiring(one_wire={4: thermometer}), [PROBE["ds18b20"]])

    assert [0xCC, 0x4E, 0x4B, 0x46, 0x7F] in thermometer.commands
    assert thermometer.conversions[1] - thermometer.conversions[0] >= 750_000


# --- Watermark ---


@pytest.mark.parametrize(
    ("first_ohm", "second_ohm", "expected"),
    [
        (550, 550, 550),
        (1_000, 1_000, 1_000),
        (8_000, 8_000, 8_000),
        (27_000, 27_000, 27_000),
        (34_000, 34_000, 34_000),
        (5_000, 5_400, 5_200),
        (100, 100, "short"),
        (0, 0, "short"),
        (299, 299, "short"),
        (35_500, 35_500, "open"),
        (1e9, 1e9, "open"),
        (5_000, 9_000, "spread"),
        (20_000, 12_000, "spread"),
        (1e9, 5_000, "spread"),
        (5_000, 0, "spread"),
    ],
)
def test_watermark_gives_ohms_or_the_reason(
    tmp_path: Path, first_ohm: float, second_ohm: float, expected: int | str
) -> None:
    probe = FakeResistance(25, 26, 32, first_ohm, second_ohm)

    found = measure(tmp_path, Wiring(analog={32: probe}), [PROBE["watermark"]])["r30"]

    if isinstance(expected, int):
        assert found == pytest.approx(expected, rel=0.01)
    else:
        assert found == expected


def test_watermark_without_supply_on_its_circuit_is_no_reading(tmp_path: Path) -> None:
    assert measure(tmp_path, Wiring(), [PROBE["watermark"]]) == {"r30": "spread"}


def test_watermark_pulses_once_each_way_a_pause_apart_and_then_floats(tmp_path: Path) -> None:
    probe = FakeResistance(25, 26, 32, 5_000, 5_000)

    measure(tmp_path, Wiring(analog={32: probe}), [PROBE["watermark"]])

    (first_us, first_high), (second_us, second_high) = probe.pulses
    assert (first_high, second_high) == (25, 26)
    assert 100_000 <= second_us - first_us < 110_000


# --- oxygen probe ---

GOOD_REPLY = floats_reply(92.5, 8.41, 17.25)
WRONG_CRC = GOOD_REPLY[:-1] + bytes((GOOD_REPLY[-1] ^ 1,))
VALUES = tuple(struct.pack(">f", value) for value in (92.5, 8.41, 17.25))
BUSY = bytes((1, 0x83, 6)) + crc16(bytes((1, 0x83, 6)))
NAN = floats_reply(float("nan"), float("inf"), 17.25)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([GOOD_REPLY], VALUES),
        ([b"\x00\xff\x01" + GOOD_REPLY], VALUES),
        ([lambda request: request + GOOD_REPLY], VALUES),
        ([GOOD_REPLY + b"\x00\x00"], VALUES),
        ([b"", b"", GOOD_REPLY], VALUES),
        ([WRONG_CRC, GOOD_REPLY], VALUES),
        ([BUSY, GOOD_REPLY], VALUES),
        ([b""], "timeout"),
        ([WRONG_CRC], "crc"),
        ([GOOD_REPLY[:-3]], "frame"),
        ([BUSY], "frame"),
        ([floats_reply(92.5, 8.41, 17.25, address=2)], "frame"),
        ([floats_reply(92.5, 8.41, 17.25, function=4)], "frame"),
        ([floats_reply(92.5, 8.41)], "frame"),
        ([b"\xff" * 200], "frame"),
        ([NAN], ("range", "range", VALUES[2])),
        ([floats_reply(201, 8.41, 17.25)], ("range", VALUES[1], VALUES[2])),
        ([floats_reply(92.5, 20.5, 17.25)], (VALUES[0], "range", VALUES[2])),
        ([floats_reply(92.5, -1, -40)], (VALUES[0], "range", "range")),
    ],
)
def test_oxygen_probe_gives_its_own_bytes_or_the_reason(
    tmp_path: Path, replies: list[Any], expected: tuple[Any, ...] | str
) -> None:
    probe = FakeModbus(replies)

    found = measure(tmp_path, Wiring(uart={2: probe}), [PROBE["modbus"]])

    values = (expected,) * 3 if isinstance(expected, str) else expected
    assert found == dict(zip(("sat", "do", "tw"), values, strict=True))


def test_oxygen_probe_is_asked_when_it_has_settled_and_switched_off_after(tmp_path: Path) -> None:
    probe = FakeModbus([GOOD_REPLY])

    measure(tmp_path, Wiring(uart={2: probe}, power=[probe]), [PROBE["modbus"]])

    (pin, level, on_us), *_ = [change for change in probe.power_changes if change[0] == 25]
    off_us = next(us for pin, level, us in probe.power_changes if (pin, level) == (25, 0))
    asked_us, request = probe.requests[0]
    assert (pin, level) == (25, 1)
    assert asked_us - on_us >= (375 + 8000 + 1700) * 1000
    assert off_us >= asked_us
    assert request == b"\x01\x03\x00\x00\x00\x06\xc5\xc8"


def test_oxygen_probe_that_dribbles_is_given_up_in_time(tmp_path: Path) -> None:
    probe = FakeModbus([b"\x01"], delay_us=250_000)

    assert set(measure(tmp_path, Wiring(uart={2: probe}), [PROBE["modbus"]]).values()) == {"frame"}


# --- any Modbus probe: SMT100 ---


def _u16(*numbers: int) -> bytes:
    return modbus_reply(struct.pack(f">{len(numbers)}H", *numbers))


# 27.97 °C, 34.4 % and 15.2 as slowtec's driver has them from Truebner; its keys are water, permittivity, temperature.
SOIL = _u16(0x31FD, 0x0D70, 0x05F0)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([SOIL], (3440, 1520, 12797)),
        ([b"\x00\xff\x01" + SOIL], (3440, 1520, 12797)),
        ([lambda request: request + SOIL], (3440, 1520, 12797)),
        ([b"", SOIL], (3440, 1520, 12797)),
        ([SOIL[:-1] + b"\0", SOIL], (3440, 1520, 12797)),
        ([_u16(6000, 0, 100)], (0, 100, 6000)),
        ([_u16(18000, 10000, 10000)], (10000, 10000, 18000)),
        ([b""], ("timeout",) * 3),
        ([SOIL[:-1] + b"\0"], ("crc",) * 3),
        ([SOIL[:5]], ("frame",) * 3),
        ([b"\0" * 200], ("frame",) * 3),
        ([b"\xff" * 200], ("frame",) * 3),
        ([_u16(0x31FD, 0x0D70)], ("frame",) * 3),
        ([BUSY], ("frame",) * 3),
        ([_u16(0xFFFF, 0xFFFF, 0xFFFF)], ("range",) * 3),
        ([_u16(0x31FD, 0xFFFF, 0x05F0)], ("range", 1520, 12797)),
        ([_u16(0x31FD, 0x0D70, 0xFFFF)], ("range", "range", 12797)),
        ([_u16(0xFFFF, 0x0D70, 0x05F0)], (3440, 1520, "range")),
        ([_u16(0x31FD, 10001, 0x05F0)], ("range", 1520, 12797)),
        ([_u16(0x31FD, 0, 99)], ("range", "range", 12797)),
        ([_u16(0x31FD, 0, 0)], ("range", "range", 12797)),
        ([_u16(5999, 0x0D70, 0x05F0)], (3440, 1520, "range")),
        ([_u16(18001, 0x0D70, 0x05F0)], (3440, 1520, "range")),
    ],
)
def test_soil_moisture_probe_gives_its_registers_or_the_reason(
    tmp_path: Path, replies: list[Any], expected: tuple[int | str, ...]
) -> None:
    probe = FakeModbus(replies)

    found = measure(tmp_path, Wiring(uart={2: probe}), [probe_of("soil-1", "s30")])

    assert found == dict(zip(("v30", "e30", "t30"), expected, strict=True))


def test_soil_moisture_probe_is_asked_for_what_it_has_at_its_own_parity(tmp_path: Path) -> None:
    probe = FakeModbus([SOIL])

    measure(tmp_path, Wiring(uart={2: probe}), [probe_of("soil-1", "s30")])

    assert [request for _, request in probe.requests] == [bytes.fromhex("0103 0000 0003 05cb")]
    assert probe.lines == [UartSettings(9600, 8, 0)]


# --- any Modbus probe: what registers may hold ---


def _register_probe(
    *registers: list[Any], reads: list[list[int]], guards: list[Any] | None = None
) -> dict[str, Any]:
    probe = probe_of("soil-1", "s30")
    probe["keys"] = [f"k{index}" for index in range(len(registers))]
    probe["options"] |= {"registers": list(registers), "guards": guards or []}
    probe["options"]["reads"] = reads
    return probe


@pytest.mark.parametrize(
    ("kind", "order", "content", "expected"),
    [
        ("u8", "", "ff01", 255),
        ("u16", "", "fffe", 65534),
        ("s16", "", "fffe", -2),
        ("u32", "abcd", "00010002", 65538),
        ("u32", "cdab", "00020001", 65538),
        ("u32", "badc", "01000200", 65538),
        ("s32", "dcba", "feffffff", -2),
        ("f32", "abcd", "41900000", bytes.fromhex("41900000")),  # 18.0
        ("f32", "cdab", "00004190", bytes.fromhex("41900000")),
        ("f32", "badc", "90410000", bytes.fromhex("41900000")),
        ("f32", "dcba", "00009041", bytes.fromhex("41900000")),
        ("f32", "abcd", "7fc00000", "range"),
        ("f32", "abcd", "ff800000", "range"),
    ],
)
def test_every_kind_and_order_of_register_is_read(
    tmp_path: Path, kind: str, order: str, content: str, expected: int | bytes | str
) -> None:
    probe = _register_probe([7, kind, order, -100_000, 100_000], reads=[[7, len(content) // 4]])
    wiring = Wiring(uart={2: FakeModbus([modbus_reply(bytes.fromhex(content))])})

    assert measure(tmp_path, wiring, [probe]) == {"k0": expected}


@pytest.mark.parametrize(
    ("raw", "expected"), [(0xFFFF, "open"), (0xFFFE, "short"), (0xFFFD, 0xFFFD)]
)
def test_a_sign_of_a_fault_has_its_own_reason_although_it_is_within_the_range(
    tmp_path: Path, raw: int, expected: int | str
) -> None:
    probe = _register_probe(
        [7, "u16", "", 0, 0xFFFF, 0xFFFF, "open", 0xFFFE, "short"], reads=[[7, 1]]
    )

    assert measure(tmp_path, Wiring(uart={2: FakeModbus([_u16(raw)])}), [probe]) == {"k0": expected}


def test_several_reads_make_one_reading(tmp_path: Path) -> None:
    answers = {
        4: modbus_reply(struct.pack(">HHH", 40, 41, 42)),
        100: modbus_reply(struct.pack(">H", 43)),
    }
    fake = FakeModbus([by_register(answers)])
    probe = _register_probe(
        [100, "u16", "", 0, 99],
        [5, "u32", "abcd", 0, 1 << 30],
        [4, "u16", "", 0, 99],
        reads=[[4, 3], [100, 1]],
    )

    found = measure(tmp_path, Wiring(uart={2: fake}), [probe])

    assert found == {"k0": 43, "k1": 41 << 16 | 42, "k2": 40}
    assert len(fake.requests) == 2


@pytest.mark.parametrize(("code", "expected"), [(0, (5, 6)), (3, ("error", 6))])
def test_a_guard_speaks_for_the_keys_it_names(
    tmp_path: Path, code: int, expected: tuple[int | str, ...]
) -> None:
    fake = FakeModbus([_u16(5, 6, code)])
    probe = _register_probe(
        [0, "u16", "", 0, 99],
        [1, "u16", "", 0, 99],
        reads=[[0, 3]],
        guards=[[2, "u16", "", 0, 0, "error", 0]],
    )

    found = measure(tmp_path, Wiring(uart={2: fake}), [probe])

    assert tuple(found.values()) == expected


# --- any Modbus probe: those that have to be told to measure ---

STARTED = modbus_reply(b"")
OXYGEN = modbus_reply(struct.pack("<ff", 17.625, 0.925))
RATIO = struct.pack(">f", 0.925)
WATER = struct.pack(">f", 17.625)


def _ratio(ratio: float, temperature_c: float = 17.625) -> bytes:
    return modbus_reply(struct.pack("<ff", temperature_c, ratio))


@pytest.mark.parametrize(
    ("started", "values", "expected"),
    [
        (STARTED, OXYGEN, (RATIO, RATIO, WATER)),
        (b"\x33" + STARTED, OXYGEN, (RATIO, RATIO, WATER)),
        (b"", OXYGEN, ("timeout",) * 3),
        (STARTED[:-1] + b"\0", OXYGEN, ("crc",) * 3),
        (BUSY, OXYGEN, ("frame",) * 3),
        (STARTED, b"", ("timeout",) * 3),
        (STARTED, OXYGEN[:-4], ("frame",) * 3),
        (STARTED, _ratio(float("nan")), ("range", "range", WATER)),
        (STARTED, _ratio(2.01), ("range", "range", WATER)),
        (STARTED, _ratio(-0.01), ("range", "range", WATER)),
        (STARTED, _ratio(0.925, -3), (RATIO, RATIO, "range")),
    ],
)
def test_optical_probe_is_set_going_and_gives_ratio_and_temperature_or_the_reason(
    tmp_path: Path, started: bytes, values: bytes, expected: tuple[bytes | str, ...]
) -> None:
    fake = FakeModbus([by_register({0x2500: started, 0x2600: values})])

    found = measure(tmp_path, Wiring(uart={2: fake}), [probe_of("pond-2", "o2")])

    assert found == dict(zip(("sat", "do", "tw"), expected, strict=True))


def test_optical_probe_measures_for_its_full_time_after_it_was_set_going(tmp_path: Path) -> None:
    fake = FakeModbus([by_register({0x2500: STARTED, 0x2600: OXYGEN})])

    measure(tmp_path, Wiring(uart={2: fake}, power=[fake]), [probe_of("pond-2", "o2")])

    (_, _, on_us), *_ = fake.power_changes
    (start_us, start), (read_us, read) = fake.requests
    assert start == bytes.fromhex("0103 2500 0000 4ec6")
    assert read == bytes.fromhex("0103 2600 0004 4f41")  # figure 26 of the maker's instructions
    assert start_us - on_us >= 375_000
    assert read_us - start_us >= (8000 + 1700) * 1000
    assert fake.power_changes[-1][:2] == (25, 0)


WIPED = bytes.fromhex("0a10 3100 0000") + crc16(bytes.fromhex("0a10 3100 0000"))


def _turbidity(fnu: float, code: int = 0) -> bytes:
    return modbus_reply(struct.pack("<ffBB", 17.625, fnu, code, 0), address=10)


@pytest.mark.parametrize(
    ("wiped", "values", "expected"),
    [
        (WIPED, _turbidity(12.5), (struct.pack(">f", 12.5), 44)),
        (b"", _turbidity(12.5), (struct.pack(">f", 12.5), "timeout")),
        (WIPED[:-1] + b"\0", _turbidity(12.5), (struct.pack(">f", 12.5), "crc")),
        (WIPED, _turbidity(12.5, 1), ("error", 44)),
        (WIPED, _turbidity(1000.5), ("range", 44)),
        (WIPED, b"", ("timeout", "timeout")),
    ],
)
def test_turbidity_probe_wipes_first_and_says_how_long_ago(
    tmp_path: Path, wiped: bytes, values: bytes, expected: tuple[bytes | str, int | str]
) -> None:
    started = modbus_reply(b"", address=10)
    fake = FakeModbus([by_register({0x2500: started, 0x3100: wiped, 0x2600: values})])

    found = measure(tmp_path, Wiring(uart={1: fake}), [probe_of("pond-2", "tu")], limit_ms=75_000)

    assert tuple(found.values()) == expected


def test_wiper_turns_when_it_is_due_and_its_age_is_kept_through_sleep(tmp_path: Path) -> None:
    started = modbus_reply(b"", address=10)
    answers = {0x2500: started, 0x3100: WIPED, 0x2600: _turbidity(12.5)}
    fake = FakeModbus([by_register(answers)])
    node = nodes.tree_3() | {"probes": [probe_of("pond-2", "tu")]}
    node["probes"][0]["options"]["wipe"][1] = 1800
    board = nodes.make_board(tmp_path / "node", Wiring(uart={1: fake}), node=node)

    for _ in range(4):
        board.run_wake()

    # Measured at 0 s, at 100 s (on the grid from then on), 1000 s and 1900 s; on the grid some seconds later by the node's id, up to 60.
    wipes = [us for us, request in fake.requests if request[1] == 16]
    assert [(us - wipes[0]) / 1e6 for us in wipes] == pytest.approx([0, 1930], abs=35)


# --- EZO circuits ---

DONE = b"\x01\x00"


def _said(text: str) -> bytes:
    return b"\x01" + text.encode() + b"\0"


@pytest.mark.parametrize(
    ("slot", "answers", "expected"),
    [
        ("ph", [_said("9.560")], 9560),  # the example of the data sheet
        ("ph", [_said("0.001")], 1),
        ("ph", [_said("14.000")], 14000),
        ("ph", [_said("7")], 7000),
        ("ph", [b"\xfe", b"\xfe", _said("7.01")], 7010),
        ("do", [_said("8.24")], 824),
        ("do", [_said("8.24,95.3")], 824),
        ("ec", [_said("1413")], 141_300),
        ("ec", [_said("0.07")], 7),
        ("ec", [_said("500000")], 50_000_000),
        ("ph", [b"\xfe"], "timeout"),
        ("ph", [b"\xff"], "frame"),
        ("ph", [b"\x02"], "frame"),
        ("ph", [b"\x00"], "frame"),
        ("ph", [b"\x01"], "frame"),
        ("ph", [DONE], "frame"),
        ("ph", [b"\x029.560\x00"], "frame"),
        ("ph", [b"\x019.560" + b"," * 40], "frame"),
        ("ph", [b"\x019.5"], "frame"),
        ("ph", [b"\x019.\xb560\x00"], "frame"),
        ("ph", [b"\x019.\x0560\x00"], "frame"),
        ("ph", [_said("nan")], "frame"),
        ("ph", [_said("7.0e1")], "frame"),
        ("ph", [_said("7..1")], "frame"),
        ("ph", [_said("-")], "frame"),
        ("ph", [_said("7.0123")], "frame"),
        ("ph", [_said("12345678")], "frame"),
        ("ph", [_said("0.000")], "range"),
        ("ph", [_said("14.001")], "range"),
        ("ph", [_said("-1.5")], "range"),
        ("do", [_said("0.00")], "range"),
        ("do", [_said("100.01")], "range"),
        ("ec", [_said("0.00")], "range"),
    ],
)
def test_ezo_circuit_gives_its_last_digit_or_the_reason(
    tmp_path: Path, slot: str, answers: list[bytes], expected: int | str
) -> None:
    probe = probe_of("pond-3", slot)
    wiring = Wiring(i2c={(0, probe["options"]["address"]): FakeI2c([DONE, *answers])})

    assert measure(tmp_path, wiring, [probe]) == {slot: expected}


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        (FakeI2c([DONE], is_there=False), "absent"),
        (FakeI2c([DONE], is_held=True), "timeout"),
        (FakeI2c([b"\x02"]), "frame"),
        (FakeI2c([_said("25.0"), _said("7.00")]), "frame"),
    ],
    ids=["nobody there", "bus held", "does not take the temperature", "answers something else"],
)
def test_ezo_circuit_that_cannot_be_spoken_to_gives_the_reason(
    tmp_path: Path, device: FakeI2c, expected: str
) -> None:
    wiring = Wiring(i2c={(0, 99): device})

    assert measure(tmp_path, wiring, [probe_of("pond-3", "ph")]) == {"ph": expected}


@pytest.mark.parametrize(
    ("slot", "sixteenths", "told"),
    [
        ("ph", 318, b"T,19.88"),
        ("ph", -7, b"T,-0.44"),
        ("do", 0, b"T,0.00"),
        ("ph", None, b"T,25.00"),
        ("do", None, b"T,20.00"),
        ("ec", 318, b"T,25.00"),
    ],
)
def test_ezo_circuit_is_told_the_temperature_measured_in_the_same_wake_or_its_default(
    tmp_path: Path, slot: str, sixteenths: int | None, told: bytes
) -> None:
    circuit = FakeI2c([DONE, _said("7.00")])
    probe = probe_of("pond-3", slot)
    probe["options"]["warm_up_ms"] = 10  # ready long before the thermometer
    wiring = Wiring(i2c={(0, probe["options"]["address"]): circuit})
    if sixteenths is not None:
        wiring.one_wire[13] = FakeThermometer([scratchpad(sixteenths)])

    found = measure(tmp_path, wiring, [probe, probe_of("pond-3", "t")])

    assert [data for _, data in circuit.written] == [told, b"R"]
    assert found["tw"] == ("absent" if sixteenths is None else sixteenths)


def test_circuit_and_converter_that_are_never_ready_are_given_up_soon(tmp_path: Path) -> None:
    circuit, converter = FakeI2c([DONE, b"\xfe"]), FakeI2c([CONVERTING])
    wiring = Wiring(i2c={(0, 99): circuit, (0, 72): converter})

    measure(tmp_path, wiring, [probe_of("pond-3", "ph"), probe_of("pond-2", "lvl")])

    assert circuit.reads < 25
    assert converter.reads < 5


def test_ezo_circuit_has_its_times(tmp_path: Path) -> None:
    circuit = FakeI2c([DONE, _said("7.00")])
    rail = FakeModbus([])

    measure(
        tmp_path,
        Wiring(i2c={(0, 99): circuit}, power=[rail]),
        [probe_of("pond-3", "ph")],
    )

    (_, _, on_us), *_ = rail.power_changes
    (told_us, _), (asked_us, _) = circuit.written
    assert told_us - on_us >= 850_000
    assert asked_us - told_us >= 300_000
    assert rail.power_changes[-1][2] - asked_us >= 900_000


# --- 4–20 mA ---

CONVERTED, CONVERTING = b"\xc3\x23", b"\x43\x23"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (3200, 4_000),
        (9600, 12_000),
        (16000, 20_000),
        (3201, 4_001),
        (2880, 3_600),
        (16800, 21_000),
        (2879, "range"),
        (16801, "range"),
        (800, "range"),
        (799, "open"),
        (0, "open"),
        (-1, "open"),
        (24_001, "short"),
        (0x7FFF, "short"),
    ],
)
def test_current_loop_gives_microamperes_or_what_namur_calls_a_fault(
    tmp_path: Path, steps: int, expected: int | str
) -> None:
    adc = FakeI2c([CONVERTED, struct.pack(">h", steps)])

    found = measure(tmp_path, Wiring(i2c={(0, 72): adc}), [probe_of("pond-2", "lvl")])

    assert found == {"lvl": expected}


@pytest.mark.parametrize(
    ("adc", "expected"),
    [
        (FakeI2c([CONVERTING, CONVERTED, struct.pack(">h", 9600)]), 12_000),
        (FakeI2c([CONVERTING]), "timeout"),
        (FakeI2c([b"\x85\x83"]), "frame"),
        (FakeI2c([b"\xc3\x63"]), "frame"),
        (FakeI2c([b""]), "frame"),
        (FakeI2c([b""], is_there=False), "absent"),
        (FakeI2c([b""], is_held=True), "timeout"),
    ],
    ids=["slow", "never done", "reset meanwhile", "one bit over", "open line", "absent", "held"],
)
def test_current_loop_with_an_ill_converter_gives_the_reason(
    tmp_path: Path, adc: FakeI2c, expected: int | str
) -> None:
    found = measure(tmp_path, Wiring(i2c={(0, 72): adc}), [probe_of("pond-2", "lvl")])

    assert found == {"lvl": expected}


def test_converter_at_its_end_is_no_current_however_large_the_shunt(tmp_path: Path) -> None:
    probe = probe_of("pond-2", "lvl")
    probe["options"]["shunt_milliohm"] = 250_000  # at which the end would be 16.4 mA
    adc = FakeI2c([CONVERTED, struct.pack(">h", 0x7FFF)])

    assert measure(tmp_path, Wiring(i2c={(0, 72): adc}), [probe]) == {"lvl": "short"}


def test_converter_is_set_to_one_shot_of_the_slots_input(tmp_path: Path) -> None:
    adc = FakeI2c([CONVERTED, struct.pack(">h", 9600)])
    rail = FakeModbus([])

    measure(
        tmp_path,
        Wiring(i2c={(0, 72): adc}, power=[rail]),
        [probe_of("pond-2", "lvl")],
    )

    # Single shot of AIN0 against ground, ±4.096 V, 16 per second (SBAS444, table 8).
    assert adc.written[0][1] == b"\x01\xc3\x23"
    assert [(pin, level) for pin, level, _ in rail.power_changes] == [(26, 1), (26, 0)]
    assert adc.written[0][0] - rail.power_changes[0][2] >= 2_000_000


# --- together ---


def test_a_shared_rail_stays_up_until_the_last_of_its_probes_is_done(tmp_path: Path) -> None:
    started = {1: STARTED, 10: modbus_reply(b"", address=10)}
    values = {1: OXYGEN, 10: _turbidity(12.5)}

    def answer(request: bytes) -> bytes:
        return {0x2500: started[request[0]], 0x2600: values[request[0]]}.get(
            int.from_bytes(request[2:4], "big"), b""
        )

    bus = FakeModbus([answer])
    probes = [probe_of("pond-2", "o2"), probe_of("pond-2", "tu")]
    probes[1]["pins"] = probes[0]["pins"]
    probes[1]["options"]["uart"] = probes[0]["options"]["uart"]

    found = measure(tmp_path, Wiring(uart={2: bus}, power=[bus]), probes, limit_ms=75_000)

    assert found["sat"] == RATIO
    assert found["tu"] == struct.pack(">f", 12.5)
    (up, _), (down, off_us) = [(level, us) for pin, level, us in bus.power_changes if pin == 25]
    assert (up, down) == (1, 0)
    assert off_us >= bus.requests[-1][0]


def test_probes_that_wait_for_each_other_are_read_nevertheless(tmp_path: Path) -> None:
    first, second = probe_of("pond-3", "ph"), probe_of("pond-3", "do")
    first["needs"], second["needs"] = {"key": "do", "parts": 16}, {"key": "ph", "parts": 16}
    wiring = Wiring(
        i2c={(0, 99): FakeI2c([DONE, _said("7.00")]), (0, 97): FakeI2c([DONE, _said("8.00")])}
    )

    assert measure(tmp_path, wiring, [first, second]) == {"ph": 7000, "do": 800}


def _full_tree() -> Wiring:
    node = nodes.tree_3()
    wiring = Wiring(analog={35: FakeVoltage(1_937_000)})
    for probe in node["probes"]:
        pins = probe["pins"]
        if probe["driver"] == "ds18b20":
            wiring.one_wire[pins["data"]] = FakeThermometer([GOOD])
        else:
            wiring.analog[pins["adc"]] = FakeResistance(
                pins["a"], pins["b"], pins["adc"], 4_000, 4_000
            )
    return wiring


def test_a_node_reads_a_bus_a_voltage_and_a_wire_in_one_wake(tmp_path: Path) -> None:
    node = nodes.bank_1()
    wiring = nodes.soil(node)
    wiring.uart[2] = FakeModbus([GOOD_REPLY])

    found = measure(tmp_path, wiring, node["probes"])

    assert {key: found[key] for key in ("sat", "do", "tw", "t30", "t60")} == {
        **dict(zip(("sat", "do", "tw"), VALUES, strict=True)),
        "t30": 318,
        "t60": 318,
    }
    assert all(3_900 <= found[key] <= 4_100 for key in ("r30", "r60"))


def test_warm_ups_overlap(tmp_path: Path) -> None:
    wiring = _full_tree()

    measure(tmp_path, wiring, nodes.tree_3()["probes"])

    starts = [wiring.one_wire[pin].conversions[0] for pin in (4, 13, 18)]  # type: ignore[attr-defined]
    assert max(starts) - min(starts) < 100_000


def test_a_probe_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    wiring = _full_tree()
    wiring.one_wire[13] = FakeThermometer([], is_present=False)
    probes = nodes.tree_3()["probes"]
    del probes[1]["options"]["series_ohm"]  # a driver that meets what nobody foresaw
    probes[0]["driver"] = "no_such_driver"

    found = measure(tmp_path, wiring, probes)

    assert found["r30"] == "error"
    assert found["r60"] == "error"
    assert found["t60"] == "absent"
    assert found["t30"] == found["t90"] == 318
    assert found["r90"] == pytest.approx(4_000, rel=0.01)


def test_no_probe_holds_a_wake_longer_than_its_limit(tmp_path: Path) -> None:
    found = measure(tmp_path, Wiring(uart={2: FakeModbus([GOOD_REPLY])}), [PROBE["modbus"]], 5_000)

    assert set(found.values()) == {"timeout"}


@pytest.mark.parametrize(
    ("microvolt", "expected"), [(1_937_000, 3874), (50_000, "range"), (0, "range")]
)
def test_battery_is_read_through_its_divider(
    tmp_path: Path, microvolt: int, expected: int | str
) -> None:
    board = nodes.flashed_board(tmp_path / "node", Wiring(analog={35: FakeVoltage(microvolt)}))

    printed = nodes.run_on(
        board,
        "from node import battery\nprint(repr(battery.read({'pin': 35, 'divider_milli': 2000})))",
    )

    found = eval(printed[0])  # noqa: S307
    assert found == (pytest.approx(expected, abs=3) if isinstance(expected, int) else expected)
