"""DS18B20 on the wire, held to the bytes of Maxim's data sheet 19-7487 Rev 6."""

from __future__ import annotations

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.ds18b20 import Ds18b20, crc8, scratchpad

_MS = 1000
_NOW = 1_750_000_000_000_000


def _probe(temperature_c: float = 20.0, tolerance: float = 0.0) -> Ds18b20:
    return Ds18b20(lambda _: temperature_c, serial="test", tolerance=tolerance)


def _convert(probe: Ds18b20, now_us: int = _NOW) -> None:
    assert probe.reset(now_us)
    probe.write_byte(0xCC, now_us)
    probe.write_byte(0x44, now_us)


def _scratchpad(probe: Ds18b20, now_us: int) -> bytes:
    probe.reset(now_us)
    probe.write_byte(0xCC, now_us)
    probe.write_byte(0xBE, now_us)
    return bytes(probe.read_byte(now_us) for _ in range(9))


def _measured(probe: Ds18b20, now_us: int = _NOW) -> bytes:
    _convert(probe, now_us)
    return _scratchpad(probe, now_us + 750 * _MS)


@pytest.mark.parametrize(
    ("temperature_c", "register"),
    [
        (125.0, 0x07D0),
        (85.0, 0x0550),
        (25.0625, 0x0191),
        (10.125, 0x00A2),
        (0.5, 0x0008),
        (0.0, 0x0000),
        (-0.5, 0xFFF8),
        (-10.125, 0xFF5E),
        (-25.0625, 0xFE6F),
        (-55.0, 0xFC90),
    ],
)
def test_temperature_register_holds_the_data_sheets_table_1(temperature_c, register):
    assert int.from_bytes(_measured(_probe(temperature_c))[:2], "little") == register


def test_scratchpad_after_power_on_is_the_one_that_every_part_shows():
    assert _scratchpad(_probe(), _NOW).hex(" ") == "50 05 4b 46 7f ff 0c 10 1c"


def test_scratchpad_at_25_0625_degrees_byte_for_byte():
    assert scratchpad(0x0191).hex(" ") == "91 01 4b 46 7f ff 0f 10 25"


def test_crc_of_the_data_sheets_application_note_27():
    # Maxim application note 27, "Understanding and using cyclic redundancy checks": ROM 02 1C B8 01 00 00 00 → A2.
    assert crc8(bytes.fromhex("021cb801000000")) == 0xA2


def test_rom_carries_family_28_and_its_crc():
    probe = _probe()
    probe.reset(_NOW)
    probe.write_byte(0x33, _NOW)
    rom = bytes(probe.read_byte(_NOW) for _ in range(8))
    assert rom[0] == 0x28
    assert crc8(rom) == 0


def test_two_parts_have_different_roms_and_one_part_always_the_same():
    roms = [Ds18b20(lambda _: 20.0, serial=serial).rom for serial in ("a", "b", "a")]
    assert roms[0] == roms[2] != roms[1]


def test_only_the_part_that_is_called_by_its_rom_answers():
    probe = _probe()
    for rom, first in ((probe.rom, 0x50), (bytes(8), 0xFF)):
        probe.reset(_NOW)
        for byte in (0x55, *rom, 0xBE):
            probe.write_byte(byte, _NOW)
        assert probe.read_byte(_NOW) == first


def test_reading_before_the_conversion_is_over_gives_the_value_of_before():
    probe = _probe(20.0)
    _convert(probe)
    assert _scratchpad(probe, _NOW + 700 * _MS)[:2] == b"\x50\x05"
    assert _scratchpad(probe, _NOW + 750 * _MS)[:2] == b"\x40\x01"


def test_line_stays_low_while_the_part_converts():
    probe = _probe()
    _convert(probe)
    assert probe.read_byte(_NOW + 700 * _MS) == 0x00
    assert probe.read_byte(_NOW + 750 * _MS) == 0xFF


def test_nine_bits_are_ready_after_an_eighth_of_the_time():
    probe = _probe(20.3)
    probe.reset(_NOW)
    for byte in (0xCC, 0x4E, 0x4B, 0x46, 0x1F):
        probe.write_byte(byte, _NOW)
    _convert(probe)
    pad = _scratchpad(probe, _NOW + 94 * _MS)
    assert int.from_bytes(pad[:2], "little") == 20 * 16
    assert pad[4] == 0x1F
    assert crc8(pad) == 0


def test_parts_as_built_keep_the_half_degree_of_the_data_sheet():
    errors = []
    for number in range(300):
        probe = Ds18b20(lambda _: 17.3, serial=str(number))
        pad = _measured(probe)
        errors.append(int.from_bytes(pad[:2], "little", signed=True) / 16 - 17.3)
    assert max(map(abs, errors)) <= 0.5
    assert max(errors) > 0.3 > -0.3 > min(errors)


def test_without_its_cable_nothing_is_there():
    probe = _probe()
    probe.faults.put(Fault.DISCONNECTED)
    assert not probe.reset(_NOW)
    assert probe.read_byte(_NOW) == 0xFF


def test_where_the_scene_has_no_value_nothing_is_there():
    assert not Ds18b20(lambda _: None, serial="test").reset(_NOW)


def test_shorted_line_reads_all_zeros_which_pass_the_crc():
    probe = _probe()
    probe.faults.put(Fault.SHORT)
    pad = _measured(probe)
    assert pad == bytes(9)
    assert crc8(pad) == 0


def test_bad_crc_is_one_flipped_bit():
    probe = _probe(20.0)
    clean = _measured(probe)
    probe.faults.put(Fault.BAD_CRC)
    damaged = _measured(probe)
    assert crc8(damaged) != 0
    assert sum((a ^ b).bit_count() for a, b in zip(clean, damaged, strict=True)) == 1


def test_half_a_scratchpad_is_followed_by_silence():
    probe = _probe(20.0)
    probe.faults.put(Fault.HALF_FRAME)
    assert _measured(probe)[4:] == b"\xff" * 5


def test_weak_supply_brings_back_the_power_on_value_with_a_right_crc():
    probe = _probe(20.0)
    probe.faults.put(Fault.POWER_ON)
    pad = _measured(probe)
    assert pad[:2] == b"\x50\x05"
    assert crc8(pad) == 0


def test_stuck_part_tells_for_ever_what_was_true_when_it_got_stuck():
    began_s = _NOW // 1_000_000
    probe = Ds18b20(lambda utc_s: 10.0 + (utc_s - began_s) / 100, serial="test", tolerance=0.0)
    probe.faults.put(Fault.STUCK, since_utc_s=began_s)
    assert _measured(probe, _NOW + 600_000_000)[:2] == b"\xa0\x00"


def test_drift_grows_by_its_strength_each_day():
    probe = _probe(20.0)
    probe.faults.put(Fault.DRIFT, strength=0.5, since_utc_s=_NOW / 1e6 - 4 * 86400)
    assert int.from_bytes(_measured(probe)[:2], "little") == 22 * 16


def test_cleared_fault_is_gone():
    probe = _probe(20.0)
    probe.faults.put(Fault.SHORT)
    probe.faults.clear()
    assert _measured(probe)[:2] == b"\x40\x01"
