"""Each probe's driver at its wire: what it reads, and which reason it gives for every way in which the wire can lie."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import nodes
import pytest
from fake_probes import (
    FakeModbus,
    FakeResistance,
    FakeThermometer,
    FakeVoltage,
    crc16,
    floats_reply,
    scratchpad,
)
from nodes import measure

from hardware.virtual_board.wiring import Wiring

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
    "do_modbus": nodes.pond_1()["probes"][0],
}


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

    found = measure(tmp_path, Wiring(uart={2: probe}), [PROBE["do_modbus"]])

    values = (expected,) * 3 if isinstance(expected, str) else expected
    assert found == dict(zip(("sat", "do", "tw"), values, strict=True))


def test_oxygen_probe_is_asked_when_it_has_settled_and_switched_off_after(tmp_path: Path) -> None:
    probe = FakeModbus([GOOD_REPLY])

    measure(tmp_path, Wiring(uart={2: probe}, power=[probe]), [PROBE["do_modbus"]])

    (pin, level, on_us), *_ = [change for change in probe.power_changes if change[0] == 25]
    off_us = next(us for pin, level, us in probe.power_changes if (pin, level) == (25, 0))
    asked_us, request = probe.requests[0]
    assert (pin, level) == (25, 1)
    assert asked_us - on_us >= (375 + 8000 + 1700) * 1000
    assert off_us >= asked_us
    assert request == b"\x01\x03\x00\x00\x00\x06\xc5\xc8"


def test_oxygen_probe_that_dribbles_is_given_up_in_time(tmp_path: Path) -> None:
    probe = FakeModbus([b"\x01"], delay_us=250_000)

    assert set(measure(tmp_path, Wiring(uart={2: probe}), [PROBE["do_modbus"]]).values()) == {
        "frame"
    }


# --- together ---


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
    found = measure(
        tmp_path, Wiring(uart={2: FakeModbus([GOOD_REPLY])}), [PROBE["do_modbus"]], 5_000
    )

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
        "from node import plan\nprint(repr(plan.battery({'pin': 35, 'divider_milli': 2000})))",
    )

    found = eval(printed[0])  # noqa: S307
    assert found == (pytest.approx(expected, abs=3) if isinstance(expected, int) else expected)
