"""SDI-12 at the wire: which numbers the node reads, and which reason it gives for every way in which a sensor can fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nodes
import pytest
from fake_probes import FakeSdi12, FakeStuckLine, sdi12_wire
from nodes import measure, probes_of

from hardware.virtual_board.board import Board
from hardware.virtual_board.probes.sdi12_line import Spoken
from hardware.virtual_board.probes.teros import crc_text
from hardware.virtual_board.wiring import Wiring

KEYS = ("v30", "t30", "e30")


def line(content: str) -> bytes:
    return f"{content}{crc_text(content)}\r\n".encode()


PROMISE = b"10013\r\n"
READY = [Spoken(9_000, PROMISE), Spoken(130_000, b"1\r\n")]
VALUES = line("1+2493.4+27.8+22")
WRONG_CRC = VALUES[:-3] + bytes((VALUES[-3] ^ 1,)) + b"\r\n"


def sensor(**changes: Any) -> FakeSdi12:
    answers: dict[str, Any] = {"1MC!": [READY], "1D0!": [VALUES]}
    return FakeSdi12(answers | changes.pop("answers", {}), **changes)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, (24934, 278, 22)),
        ({"1D0!": [line("1+2493.4-5.2+0")]}, (24934, -52, 0)),
        ({"1D0!": [line("1+2493.45+27.84+21.6")]}, (24935, 278, 22)),
        ({"1D0!": [line("1+2493+27+22")]}, (24930, 270, 22)),
        ({"1D0!": [line("1+2493.4+27.8")], "1D1!": [line("1+22")]}, (24934, 278, 22)),
        # It says that it is ready before it is waited for, never, or that it was at once.
        ({"1MC!": [PROMISE]}, (24934, 278, 22)),
        ({"1MC!": [b"10003\r\n"]}, (24934, 278, 22)),
        # Tried again.
        ({"1MC!": [b"", b"", READY]}, (24934, 278, 22)),
        ({"1D0!": [b"", WRONG_CRC, VALUES]}, (24934, 278, 22)),
        # Noise before an answer.
        ({"1MC!": [b"\x7f\x03" + PROMISE]}, (24934, 278, 22)),
        ({"1D0!": [b"1+\x15" + VALUES]}, (24934, 278, 22)),
        # Nobody, or too late.
        ({"1MC!": [b""]}, "absent"),
        ({"1D0!": [b""]}, "absent"),
        ({"1MC!": [[Spoken(2_000_000, PROMISE)]]}, "absent"),
        ({"1MC!": [[Spoken(80_000, PROMISE)]]}, "absent"),
        # So late that the next break cuts it off.
        ({"1MC!": [[Spoken(42_000, PROMISE)]]}, "absent"),
        # Something else than an answer.
        ({"1MC!": [PROMISE[:3]]}, "frame"),
        ({"1MC!": [b"1001x\r\n"]}, "frame"),
        ({"1MC!": [b"20013\r\n"]}, "frame"),
        ({"1D0!": [VALUES[:9]]}, "frame"),
        ({"1D0!": [b"\x55" * 120]}, "frame"),
        ({"1D0!": [line("1+24x3+27.8+22")]}, "frame"),
        ({"1D0!": [line("1+2493.4+27.8+2.2.2")]}, "frame"),
        ({"1D0!": [line("12493.4")]}, "frame"),
        ({"1D0!": [line("1++27.8+22")]}, "frame"),
        ({"1D0!": [line("1+2493.4+27.8+22+7")]}, "frame"),
        ({"1D0!": [line("1+123456789+27.8+22")]}, "frame"),
        ({"1D0!": [WRONG_CRC]}, "crc"),
        ({"1D0!": [VALUES[:-5] + b"\r\n"]}, "crc"),
        ({"1D0!": [line("2+2493.4+27.8+22")]}, "crc"),
        # It promised and has nothing, or says so itself.
        ({"1D0!": [line("1")]}, "timeout"),
        ({"1D0!": [line("1+2493.4")], "1D1!": [line("1")]}, "timeout"),
        ({"1MC!": [b"10010\r\n"]}, "error"),
        # What it cannot have measured.
        ({"1D0!": [line("1+1600.0+27.8+22")]}, ("range", 278, 22)),
        ({"1D0!": [line("1+2493.4+60.1+22")]}, (24934, "range", 22)),
        ({"1D0!": [line("1+2493.4+27.8-1")]}, (24934, 278, "range")),
        ({"1D0!": [line("1-9999-9999-9999")]}, "range"),
    ],
)
def test_sensor_gives_whole_numbers_or_the_reason(
    tmp_path: Path, answers: dict[str, Any], expected: tuple[Any, ...] | str
) -> None:
    found = measure(tmp_path, sdi12_wire(sensor(answers=answers)), probes_of("tree-2", "s30"))

    values = (expected,) * 3 if isinstance(expected, str) else expected
    assert found == dict(zip(KEYS, values, strict=True))


def _concurrent() -> list[dict[str, Any]]:
    probes = probes_of("tree-2", "s30", "s60")
    for probe in probes:
        probe["options"]["concurrent"] = True
    return probes


def test_concurrent_sensors_measure_at_the_same_time(tmp_path: Path) -> None:
    first = FakeSdi12({"1CC!": [b"100203\r\n"], "1D0!": [VALUES]})
    second = FakeSdi12({"2CC!": [b"200203\r\n"], "2D0!": [line("2+2600.0+11.0+30")]})

    found = measure(tmp_path, sdi12_wire(first, second), _concurrent())

    assert found == {
        "v30": 24934, "t30": 278, "e30": 22,
        "v60": 26000, "t60": 110, "e60": 30,
    }  # fmt: skip
    begun = [at_us for one in (first, second) for at_us, text in one.commands if "CC" in text]
    asked = [at_us for one in (first, second) for at_us, text in one.commands if text[1:] == "D0!"]
    assert min(asked) > max(begun)
    assert min(asked) - min(begun) >= 2_000_000


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"1CC!": [b"10013\r\n"]}, "frame"),
        ({"1CC!": [b"199903\r\n"]}, "timeout"),
        ({"1CC!": [b"100100\r\n"]}, "error"),
        ({"1CC!": [b"100103\r\n"], "1D0!": [line("1")]}, "timeout"),
    ],
)
def test_concurrent_sensor_that_fails_costs_only_its_own(
    tmp_path: Path, answers: dict[str, Any], expected: str
) -> None:
    well = FakeSdi12({"2CC!": [b"200103\r\n"], "2D0!": [line("2+2600.0+11.0+30")]})

    found = measure(tmp_path, sdi12_wire(FakeSdi12(answers), well), _concurrent())

    assert [found[key] for key in KEYS] == [expected] * 3
    assert found["v60"] == 26000


@pytest.mark.parametrize(
    ("wiring", "expected"),
    [
        (Wiring(), "absent"),
        (Wiring(lines={1: FakeStuckLine(0x00)}), "frame"),
        (Wiring(lines={1: FakeStuckLine(0x7F)}), "frame"),
    ],
    ids=["no cable", "stuck at spacing", "stuck in between"],
)
def test_wire_without_a_sensor_is_a_reason(tmp_path: Path, wiring: Wiring, expected: str) -> None:
    found = measure(tmp_path, wiring, probes_of("tree-2", "s30"))

    assert set(found.values()) == {expected}


def test_two_sensors_at_one_address_are_no_reading(tmp_path: Path) -> None:
    other = sensor(answers={"1D0!": [line("1+2600.0+11.0+30")]})

    found = measure(tmp_path, sdi12_wire(sensor(), other), probes_of("tree-2", "s30"))

    assert set(found.values()) <= {"crc", "frame"}


def test_every_command_follows_a_break_of_its_own(tmp_path: Path) -> None:
    well = sensor()

    measure(tmp_path, sdi12_wire(well), probes_of("tree-2", "s30"))

    assert [text for _, text in well.commands] == ["1MC!", "1D0!"]
    assert len(well.breaks) == 2


def test_sensor_that_nobody_supplies_is_asked_only_after_its_warm_up_and_switched_off_after(
    tmp_path: Path,
) -> None:
    changes: list[tuple[int, int]] = []

    class Rail:
        def power_changed(self, pin: int, level: int, now_us: int) -> None:
            if pin == 14:
                changes.append((level, now_us))

    well = sensor()
    wiring = sdi12_wire(well)
    wiring.power.append(Rail())

    measure(tmp_path, wiring, probes_of("tree-2", "s30", "s60"))

    assert [level for level, _ in changes] == [1, 0]
    assert well.commands[0][0] - changes[0][1] >= 300_000
    assert changes[1][1] > well.commands[-1][0]


# --- the bus alone ---

_QUERY = (
    "from node.bus.sdi12 import Sdi12\nfrom node.deadline import Deadline\n"
    "from node.errors import SensorError\n"
    "bus = Sdi12({'tx': 25, 'rx': 26, 'de': 27}, 1)\n"
    "try:\n    print(bus.query_address(Deadline(5000)))\n"
    "except SensorError as error:\n    print(error.code)\n"
)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(b"7\r\n", "7"), (b"q\r\n", "q"), (b"\x03Z\r\n", "Z"), (b"?\r\n", "frame"), (b"", "absent")],
)
def test_address_of_the_only_sensor_is_found(tmp_path: Path, answer: bytes, expected: str) -> None:
    board = nodes.flashed_board(tmp_path / "node", sdi12_wire(FakeSdi12({"?!": [answer]})))

    assert nodes.run_on(board, _QUERY) == [expected]


@pytest.mark.parametrize(
    ("content", "crc"),
    # SDI-12 1.4, section 4.4.12.3, examples of answers with a CRC.
    [("0+3.14", "OqZ"), ("0+3.14+2.718+1.414", "Ipz")],
)
def test_crc_is_that_of_the_specifications_examples(
    shared_board: Board, content: str, crc: str
) -> None:
    printed = nodes.run_on(
        shared_board, f"from node.bus.sdi12 import crc_text\nprint(crc_text({content!r}))"
    )

    assert printed == [crc]


@pytest.mark.parametrize(
    ("text", "decimals", "number"),
    [
        ("+23.84", 1, 238),
        ("+23.85", 1, 239),
        ("-23.85", 1, -239),
        ("+0", 3, 0),
        ("-.5", 1, -5),
        ("+7.", 2, 700),
        ("+1234567", 0, 1234567),
        ("-0.04", 1, 0),
    ],
)
def test_value_becomes_a_whole_number_without_passing_a_float(
    shared_board: Board, text: str, decimals: int, number: int
) -> None:
    printed = nodes.run_on(
        shared_board, f"from node.bus.sdi12 import scaled\nprint(scaled({text!r}, {decimals}))"
    )

    assert printed == [str(number)]
