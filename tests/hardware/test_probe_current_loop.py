"""The 4–20 mA loop behind its converter, held to the ADS1115's data sheet (SBAS444) and NAMUR NE 43."""

from __future__ import annotations

import struct

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.current_loop import LevelLoop

_S = 1_000_000
_NOW = 1_750_000_000 * _S
_ONE_SHOT = b"\x01\xc3\x23"  # AIN0 against ground, ±4.096 V, 16 per second


def _loop(level_m: float | None = 1.0, tolerance: float = 0.0, **options) -> LevelLoop:
    options = {"span_m": 2.0, "shunt_ohm": 100.0, "serial": "test"} | options
    return LevelLoop(lambda _: level_m, tolerance=tolerance, **options)


def _steps(loop: LevelLoop, config: bytes = _ONE_SHOT, now_us: int = _NOW) -> int:
    loop.write(config, now_us)
    loop.write(b"\0", now_us + 100_000)
    return struct.unpack(">h", loop.read(2, now_us + 100_000))[0]


def test_registers_after_power_on_are_those_of_the_data_sheet():
    loop = _loop()
    assert loop.read(2, _NOW) == b"\0\0"
    loop.write(b"\x01", _NOW)
    assert loop.read(2, _NOW) == b"\x85\x83"


def test_conversion_is_done_after_its_time_and_says_so():
    loop = _loop()
    loop.write(_ONE_SHOT, _NOW)
    assert loop.read(2, _NOW + 62_000) == b"\x43\x23"
    assert loop.read(2, _NOW + 62_500) == b"\xc3\x23"


@pytest.mark.parametrize(
    ("level_m", "steps"),
    [
        (0.0, 3_200),  # 4 mA over 100 Ω are 0.4 V, in steps of 125 µV
        (1.0, 9_600),
        (2.0, 16_000),
        (-0.2, 3_040),  # a working probe stays at 3.8 mA
        (3.0, 16_400),  # and at 20.5 mA
    ],
)
def test_level_becomes_current_becomes_steps(level_m, steps):
    assert _steps(_loop(level_m)) == steps


@pytest.mark.parametrize(
    ("config", "steps"),
    [
        (b"\x01\xc1\x23", 6_400),  # ±6.144 V, 187.5 µV a step
        (b"\x01\xc5\x23", 19_200),  # ±2.048 V, 62.5 µV
        (b"\x01\xc7\x23", 0x7FFF),  # ±1.024 V: beyond
        (b"\x01\xd3\x23", 0),  # AIN1, where nothing hangs
    ],
)
def test_range_and_input_are_those_of_the_configuration(config, steps):
    assert _steps(_loop(1.0), config) == steps


@pytest.mark.parametrize(
    ("fault", "steps"),
    [(Fault.DISCONNECTED, 0), (Fault.INVALID, 2_800), (Fault.SHORT, 26_400)],
)
def test_faults_of_the_loop_are_currents_that_no_level_has(fault, steps):
    # The converter's inputs end at its supply, 3.3 V.
    loop = _loop()
    loop.faults.put(fault)
    assert _steps(loop) == steps


def test_probe_without_its_rail_draws_nothing_and_needs_a_second_to_start():
    loop = _loop(power_pin=26)
    assert _steps(loop) == 0
    loop.power_changed(26, 1, _NOW)
    assert _steps(loop, now_us=_NOW + 900_000) == 2_800
    assert _steps(loop, now_us=_NOW + 2 * _S) == 9_600


def test_converter_that_hangs_never_finishes():
    loop = _loop()
    loop.faults.put(Fault.BUSY)
    loop.write(_ONE_SHOT, _NOW)
    assert loop.read(2, _NOW + 60 * _S) == b"\x43\x23"


def test_parts_as_built_keep_a_quarter_per_cent_of_the_span_and_a_thousandth_of_the_shunt():
    for number in range(200):
        steps = _steps(_loop(1.0, tolerance=1.0, serial=str(number)))
        level_m = (steps * 1.25 - 4_000) / 16_000 * 2
        assert level_m == pytest.approx(1.0, abs=0.005 + 0.0015 + 0.004)
