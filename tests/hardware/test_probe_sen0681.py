"""The oxygen probe on RS485, held to the Modbus specifications and the SEN0681's register table."""

from __future__ import annotations

import struct

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.modbus import crc16, frame
from hardware.virtual_board.probes.sen0681 import Sen0681

_S = 1_000_000
_NOW = 1_750_000_000 * _S
_POWER = 25
_READ_ALL = bytes.fromhex("010300000006c5c8")
_TRUTH = {"oxygen_saturation": 92.5, "dissolved_oxygen": 8.25, "water_temperature": 21.5}


def _probe(tolerance: float = 0.0, power_pin: int | None = None, **values: float | None) -> Sen0681:
    truth = _TRUTH | values
    sources = {name: (lambda _, value=value: value) for name, value in truth.items()}
    return Sen0681(sources, serial="test", tolerance=tolerance, power_pin=power_pin)


def _ask(probe: Sen0681, request: bytes = _READ_ALL, now_us: int = _NOW) -> bytes:
    replies = probe.receive(request, now_us)
    return replies[0][1] if replies else b""


def test_crc_of_the_specifications_example():
    # Modbus over Serial Line V1.02, §6.2.2: the frame 02 07 is followed by 41 12.
    assert frame(bytes.fromhex("0207")).hex(" ") == "02 07 41 12"


def test_reading_six_registers_gives_three_floats_high_word_first():
    # 92.5 = 42 B9 00 00, 8.25 = 41 04 00 00, 21.5 = 41 AC 00 00 (IEEE 754).
    body = bytes.fromhex("01030c42b900004104000041ac0000")
    assert _ask(_probe()) == body + crc16(body).to_bytes(2, "little")


@pytest.mark.parametrize(("start", "value"), [(0, 92.5), (2, 8.25), (4, 21.5)])
def test_one_quantity_can_be_read_alone(start, value):
    reply = _ask(_probe(), frame(bytes([1, 3, 0, start, 0, 2])))
    assert struct.unpack(">f", reply[3:7])[0] == value


@pytest.mark.parametrize(
    ("request_body", "reply_body"),
    [
        ("0104 0000 0006", "8401"),  # illegal function
        ("0103 0004 0004", "8302"),  # beyond the last register
        ("0103 0100 0001", "8302"),
        ("0103 0000 0000", "8303"),  # no register at all
        ("0103 0000", "8303"),  # cut short, but with a right CRC
    ],
)
def test_what_the_probe_cannot_do_is_answered_with_the_specifications_exception(
    request_body, reply_body
):
    assert _ask(_probe(), frame(bytes.fromhex(request_body))) == frame(
        b"\x01" + bytes.fromhex(reply_body)
    )


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"\x01", _READ_ALL[:-1], _READ_ALL[:-1] + b"\x00", frame(bytes([2, 3, 0, 0, 0, 6]))],
    ids=["nothing", "one byte", "half", "wrong CRC", "other address"],
)
def test_what_is_not_for_the_probe_gets_no_answer(request_bytes):
    assert _probe().receive(request_bytes, _NOW) == []


def test_probe_answers_only_after_its_supply_has_warmed_it_up():
    probe = _probe(power_pin=_POWER)
    assert _ask(probe) == b""
    probe.power_changed(_POWER, 1, _NOW)
    assert _ask(probe, now_us=_NOW + 300_000) == b""
    assert len(_ask(probe, now_us=_NOW + 400_000)) == 17
    probe.power_changed(_POWER, 0, _NOW + 20 * _S)
    assert _ask(probe, now_us=_NOW + 20 * _S) == b""


def test_other_pins_do_not_switch_the_probe():
    probe = _probe(power_pin=_POWER)
    probe.power_changed(4, 1, _NOW)
    assert _ask(probe, now_us=_NOW + 10 * _S) == b""


def test_figures_are_zero_first_then_settle_within_the_stated_eight_seconds():
    probe = _probe(power_pin=_POWER)
    probe.power_changed(_POWER, 1, _NOW)

    def oxygen(after_s: float) -> float:
        return struct.unpack(">f", _ask(probe, now_us=_NOW + round(after_s * _S))[7:11])[0]

    assert oxygen(1.0) == 0.0
    assert oxygen(2.5) < 0.9 * 8.25
    assert oxygen(10.1) == pytest.approx(8.25, rel=1e-3)


def test_registers_change_with_each_measurement_of_1_7_seconds():
    probe = Sen0681(
        {name: (lambda utc_s: 5 + (utc_s - 1_750_000_000) / 100) for name in _TRUTH},
        serial="test", tolerance=0.0, power_pin=_POWER,
    )  # fmt: skip
    probe.power_changed(_POWER, 1, _NOW)
    figures = {_ask(probe, now_us=_NOW + 11 * _S + step * 100_000)[11:15] for step in range(34)}
    assert len(figures) in (2, 3)


def test_parts_as_built_keep_the_three_per_cent_and_half_degree_of_the_maker():
    for number in range(200):
        sources = {name: (lambda _, value=value: value) for name, value in _TRUTH.items()}
        reply = _ask(Sen0681(sources, serial=str(number)))
        saturation, oxygen, temperature_c = struct.unpack(">fff", reply[3:15])
        assert saturation == pytest.approx(92.5, rel=0.03)
        assert oxygen == pytest.approx(8.25, rel=0.03)
        assert temperature_c == pytest.approx(21.5, abs=0.5)


@pytest.mark.parametrize("fault", [Fault.DISCONNECTED, None])
def test_disconnected_or_without_a_value_the_probe_is_silent(fault):
    probe = _probe() if fault else _probe(dissolved_oxygen=None)
    if fault:
        probe.faults.put(fault)
    assert _ask(probe) == b""


def test_bad_crc_is_one_flipped_bit():
    probe = _probe()
    clean = _ask(probe)
    probe.faults.put(Fault.BAD_CRC)
    damaged = _ask(probe)
    assert frame(damaged[:-2]) != damaged
    assert sum((a ^ b).bit_count() for a, b in zip(clean, damaged, strict=True)) == 1


def test_half_frame_breaks_off_in_the_middle():
    probe = _probe()
    clean = _ask(probe)
    probe.faults.put(Fault.HALF_FRAME)
    assert _ask(probe) == clean[:8]


def test_noise_puts_stray_bytes_before_the_answer():
    probe = _probe()
    probe.faults.put(Fault.NOISE, strength=0.0)
    assert _ask(probe)[3:] == _ask(_probe())


def test_slow_answer_comes_late_by_its_strength():
    probe = _probe()
    (quick_us, _), *_ = probe.receive(_READ_ALL, _NOW)
    probe.faults.put(Fault.SLOW, strength=2.5)
    (slow_us, _), *_ = probe.receive(_READ_ALL, _NOW)
    assert slow_us - quick_us == 2_500_000


def test_fouling_takes_oxygen_but_not_temperature_and_never_all():
    probe = _probe()
    probe.faults.put(Fault.FOULING, strength=0.1, since_utc_s=_NOW / _S - 2 * 86400)
    assert struct.unpack(">fff", _ask(probe)[3:15]) == pytest.approx((74.0, 6.6, 21.5), rel=1e-4)
    probe.faults.put(Fault.FOULING, strength=1.0, since_utc_s=_NOW / _S - 9 * 86400)
    assert struct.unpack(">fff", _ask(probe)[3:15])[1] == pytest.approx(8.25 * 0.2, rel=1e-3)
