"""The SDI-12 wire and the TEROS on it, held to the specification's figures and the maker's guide."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from hardware.scenes.faults import Fault
from hardware.virtual_board.probes.sdi12_line import WIRE, Sdi12Line, Spoken
from hardware.virtual_board.probes.teros import Teros, counts, crc_text
from hardware.virtual_board.wiring import UartSettings

_NOW = 1_750_000_000_000_000
_MS = 1000
_DE = 27
_BREAK = replace(WIRE, baudrate=600)


@dataclass
class Listener:
    """A sensor that answers everything, and remembers."""

    answer: bytes = b"0\r\n"
    breaks: list[int] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def broke(self, now_us: int) -> None:
        self.breaks.append(now_us)

    def command(self, text: str, now_us: int) -> list[Spoken]:
        self.commands.append(text)
        return [Spoken(9_000, self.answer)]


def _line(*sensors: Listener | Teros) -> Sdi12Line:
    line = Sdi12Line(enable_pin=_DE)
    line.sensors += sensors
    return line


def _talk(
    line: Sdi12Line,
    command: bytes = b"0!",
    *,
    start_us: int = _NOW,
    brk: UartSettings = _BREAK,
    mark_us: int = 9_000,
    settings: UartSettings = WIRE,
    released_after_us: int = 1_000,
) -> bytes:
    """What comes back on the wire after a break, a mark and a command, the echo left out."""
    line.power_changed(_DE, 1, start_us - 100)
    line.sent(b"\x00", brk, start_us)
    begin_us = start_us + brk.character_us() + mark_us
    line.sent(command, settings, begin_us)
    end_us = begin_us + settings.character_us(len(command))
    line.power_changed(_DE, 0, end_us + released_after_us)
    heard = line.heard(WIRE, start_us, end_us + 2_000 * _MS)
    return b"".join(data for at_us, data in heard if at_us > end_us)


# --- the wire ---


def test_command_after_a_break_and_a_mark_is_answered():
    sensor = Listener()
    assert _talk(_line(sensor)) == b"0\r\n"
    assert sensor.commands == ["0!"]
    assert sensor.breaks == [_NOW]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"brk": replace(WIRE, baudrate=750)}, "a break of 12 ms: 9 bits at 750 Bd"),
        ({"brk": replace(WIRE, baudrate=752)}, "just too short a break"),
        ({"brk": WIRE}, "an ordinary zero, 7.5 ms"),
        ({"mark_us": 6_000}, "too short a mark"),
        ({"mark_us": 120_000}, "everybody fell asleep again"),
        ({"settings": replace(WIRE, parity=1)}, "odd parity"),
        ({"settings": replace(WIRE, bits=8, parity=None)}, "eight bits"),
        ({"settings": replace(WIRE, baudrate=2400)}, "twice the speed"),
        ({"settings": replace(WIRE, is_tx_inverted=False)}, "upside down"),
    ],
)
def test_only_a_break_of_12_ms_a_mark_of_8_33_ms_and_the_right_frame_reach_a_sensor(wrong, why):
    _talk(_line(sensor := Listener()), **wrong)
    assert ("0!" in sensor.commands) == why.startswith("a break of 12 ms")


def test_what_the_buffer_does_not_drive_reaches_nobody():
    line = _line(sensor := Listener())
    line.sent(b"\x00", _BREAK, _NOW)
    line.sent(b"0!", WIRE, _NOW + 26_000)
    assert line.heard(WIRE, _NOW, _NOW + 1_000 * _MS) == []
    assert sensor.commands == []


def test_buffer_that_is_left_on_spoils_the_answer():
    assert _talk(_line(Listener()), released_after_us=7_500) == b"0\r\n"
    assert _talk(_line(Listener()), released_after_us=12_000) == b"\x00\r\n"


def test_buffer_that_is_switched_off_too_early_cuts_the_command():
    assert _talk(_line(sensor := Listener()), released_after_us=-2_000) == b""
    assert sensor.commands == []


def test_pause_within_a_command_ends_it():
    line = _line(sensor := Listener())
    line.power_changed(_DE, 1, _NOW - 1)
    line.sent(b"\x00", _BREAK, _NOW)
    line.sent(b"0", WIRE, _NOW + 26_000)
    line.sent(b"!", WIRE, _NOW + 26_000 + 8_333 + 2_000)
    line.heard(WIRE, _NOW, _NOW + 1_000 * _MS)
    assert sensor.commands == []


def test_node_hears_its_own_echo_and_each_character_when_its_last_bit_has_come():
    line = _line(Listener())
    line.power_changed(_DE, 1, _NOW - 1)
    line.sent(b"\x00", _BREAK, _NOW)
    line.sent(b"0!", WIRE, _NOW + 30_000)
    line.power_changed(_DE, 0, _NOW + 47_000)
    found = line.heard(WIRE, _NOW, _NOW + 60_000)
    assert [data for _, data in found] == [b"\x00", b"0", b"!"]
    assert [at_us - _NOW for at_us, _ in found] == [16_666, 38_333, 46_666]


def test_two_sensors_at_once_are_understood_as_neither():
    both = _talk(_line(Listener(b"0+7\r\n"), Listener(b"0+9\r\n")))
    assert both == bytes(a & b for a, b in zip(b"0+7\r\n", b"0+9\r\n", strict=True))


def test_receiver_at_another_speed_gets_rubbish():
    line = _line(Listener())
    _talk(line)
    line.power_changed(_DE, 1, _NOW + 3_000 * _MS)
    line.sent(b"\x00", _BREAK, _NOW + 3_001 * _MS)
    line.sent(b"0!", WIRE, _NOW + 3_030 * _MS)
    line.power_changed(_DE, 0, _NOW + 3_050 * _MS)
    heard = line.heard(replace(WIRE, baudrate=9600), _NOW + 3_050 * _MS, _NOW + 4_000 * _MS)
    assert {data for _, data in heard} == {b"\x00"}


# --- TEROS ---


_TRUTH = {"soil_water_content": 0.2, "soil_temperature": 27.8, "soil_conductivity": 22.0}


def _teros(model="TER12", tolerance=0.0, address="0", serial="test", power_pin=None, **values):
    truth = _TRUTH | values
    if model == "TER11":
        del truth["soil_conductivity"]
    sources = {name: (lambda _, value=value: value) for name, value in truth.items()}
    return Teros(
        sources,
        address=address,
        serial=serial,
        model=model,
        tolerance=tolerance,
        power_pin=power_pin,
    )


def _data(teros: Teros, kind: bytes = b"M", now_us: int = _NOW) -> bytes:
    """The answer to D0 a second after a measurement was begun."""
    line = _line(teros)
    _talk(line, b"0" + kind + b"!", start_us=now_us)
    return _talk(line, b"0D0!", start_us=now_us + 5_000 * _MS)


@pytest.mark.parametrize(
    ("content", "crc"),
    [("0+3.14", "OqZ"), ("0+3.14+2.718+1.414", "Ipz")],
)
def test_crc_of_the_specifications_examples(content, crc):
    # SDI-12 1.4, section 4.4.12.3.
    assert crc_text(content) == crc


@pytest.mark.parametrize(
    ("water_content", "raw"), [(0.0, 1793.2), (0.2, 2308.8), (0.4, 2824.4), (0.6, 3340.0)]
)
def test_counts_follow_the_makers_line_for_mineral_soil(water_content, raw):
    assert counts(water_content) == pytest.approx(raw, abs=0.05)
    assert 3.879e-4 * counts(water_content) - 0.6956 == pytest.approx(water_content)


def test_values_stand_in_the_order_and_form_of_the_makers_guide():
    assert _data(_teros()) == b"0+2308.8+27.8+22\r\n"
    assert _data(_teros(soil_temperature=-3.25)) == b"0+2308.8-3.2+22\r\n"
    assert _data(_teros(model="TER11")) == b"0+2308.8+27.8\r\n"


@pytest.mark.parametrize("kind", [b"MC", b"CC"])
def test_values_carry_a_crc_where_it_was_asked_for(kind):
    content = "0+2308.8+27.8+22"
    assert _data(_teros(), kind) == (content + crc_text(content)).encode() + b"\r\n"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"0!", b"0\r\n"),
        (b"?!", b"0\r\n"),
        (b"0I!", b"014METER   TER12 107\r\n"),
        (b"0M!", b"00013\r\n0\r\n"),  # and the service request
        (b"0MC!", b"00013\r\n0\r\n"),
        (b"0C!", b"000103\r\n"),
        (b"0CC!", b"000103\r\n"),
        (b"0D0!", b"0\r\n"),  # nothing was measured
        (b"0X!", b""),
        (b"1!", b""),
        (b"?M!", b""),
    ],
)
def test_each_command_has_its_answer(command, answer):
    assert _talk(_line(_teros()), command) == answer


def test_break_ends_a_measurement_that_holds_the_wire_and_no_concurrent_one():
    for kind, answer in ((b"MC", b"0" + crc_text("0").encode()), (b"CC", b"0+2308.8+27.8+22")):
        line = _line(_teros())
        line.power_changed(_DE, 1, _NOW - 1)
        line.sent(b"\x00", _BREAK, _NOW)
        line.sent(b"0" + kind + b"!", WIRE, _NOW + 26_000)
        line.power_changed(_DE, 0, _NOW + 61_000)
        line.heard(WIRE, _NOW, _NOW + 80_000)
        _talk(line, b"1!", start_us=_NOW + 140_000)
        assert _talk(line, b"0D0!", start_us=_NOW + 5_000 * _MS).startswith(answer)


def test_sensor_answers_only_after_its_supply_has_started_it():
    teros = _teros(power_pin=14)
    assert _talk(_line(teros)) == b""
    teros.power_changed(14, 1, _NOW + 3_000 * _MS)
    assert _talk(_line(teros), start_us=_NOW + 3_100 * _MS) == b""
    assert _talk(_line(teros), start_us=_NOW + 3_250 * _MS) == b"0\r\n"
    teros.power_changed(14, 0, _NOW + 9_000 * _MS)
    assert _talk(_line(teros), start_us=_NOW + 9_001 * _MS) == b""


def test_sensors_as_built_keep_the_makers_limits():
    for number in range(200):
        raw, temperature_c, conductivity = map(
            float, _data(_teros(serial=str(number), tolerance=1.0))[2:-2].split(b"+")
        )
        assert 3.879e-4 * raw - 0.6956 == pytest.approx(0.2, abs=0.03)
        assert temperature_c == pytest.approx(27.8, abs=0.45)
        assert conductivity == pytest.approx(22.0, abs=0.05 * 22 + 10)


@pytest.mark.parametrize(
    ("fault", "answer"),
    [
        (Fault.DISCONNECTED, b""),
        (Fault.MALFUNCTION, b"0-9999-9999-9999\r\n"),
        (Fault.HALF_FRAME, b"0+2308.8+"),
    ],
)
def test_faults_show_on_the_wire(fault, answer):
    teros = _teros()
    teros.faults.put(fault)
    assert _data(teros) == answer


def test_bad_crc_is_one_flipped_bit_before_the_end_of_the_line():
    clean = _data(_teros(), b"MC")
    teros = _teros()
    teros.faults.put(Fault.BAD_CRC)
    damaged = _data(teros, b"MC")
    assert damaged[-2:] == b"\r\n"
    assert sum((a ^ b).bit_count() for a, b in zip(clean, damaged, strict=True)) == 1


def test_where_the_scene_has_no_value_nobody_answers():
    assert _talk(_line(_teros(soil_temperature=None))) == b""
