"""Ultrasonic level, capacitive index and supervised contact at their wires: what is read, and the reason for each way to fail."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_probes import (
    FakeLoop,
    FakeStuckLine,
    FakeSupplied,
    FakeTalker,
    FakeThermometer,
    scratchpad,
)
from nodes import measure, probes_of

from hardware.virtual_board.probes.a02yyuw import WIRE, frame
from hardware.virtual_board.wiring import Wiring

# --- ultrasonic level ---

POWER = 25
GOOD = frame(1234)
WRONG_SUM = GOOD[:3] + bytes((GOOD[3] ^ 1,))


def level_of(folder: Path, frames: Sequence[bytes], **changes: Any) -> Any:
    talker = FakeTalker(frames, POWER, WIRE, **changes)
    wiring = Wiring(lines={2: talker}, power=[talker])
    return measure(folder, wiring, probes_of("level-1", "us"))["lvl"]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([GOOD], 1234),
        # The makers' own example: FF 07 A1 A7 is 1953 mm.
        ([bytes.fromhex("ff07a1a7")], 1953),
        ([frame(31)], 31),
        ([frame(4500)], 4500),
        # 255 mm and 511 mm have a head in their middle.
        ([frame(255)], 255),
        ([frame(511)], 511),
        # The middle one of seven: a wave, a leaf, a fish.
        ([frame(mm) for mm in (1240, 1228, 900, 1234, 1231, 1236, 1900)], 1234),
        # Frames that do not count do not spoil the others.
        ([WRONG_SUM, frame(0), *[GOOD] * 7], 1234),
        ([b"\x12\xff" + GOOD], 1234),
        ([GOOD[2:], GOOD], 1234),
        # Nearer than 3 cm, no echo, disturbed, beyond its range.
        ([frame(0)], "range"),
        ([frame(30)], "range"),
        ([frame(0xFFFD)], "range"),
        ([frame(0xFFFE)], "range"),
        ([frame(4501)], "range"),
        # Nothing, noise, halves, wrong sums.
        ([b""], "absent"),
        ([b"\x55\xaa\x00"], "frame"),
        ([GOOD[1:]], "frame"),
        ([GOOD[:2]], "crc"),
        ([WRONG_SUM], "crc"),
        # Too few of them.
        ([GOOD, GOOD, b""], "timeout"),
        # It swings: what was measured is not one surface.
        ([frame(mm) for mm in (400, 800, 1200, 1600, 2000, 2400, 2800)], "spread"),
    ],
)
def test_distance_is_the_middle_of_several_or_a_reason(
    tmp_path: Path, frames: Sequence[bytes], expected: int | str
) -> None:
    assert level_of(tmp_path, frames) == expected


def test_frames_that_come_too_slowly_are_given_up_in_time(tmp_path: Path) -> None:
    assert level_of(tmp_path, [GOOD], period_us=900_000) == "timeout"


@pytest.mark.parametrize(
    ("wiring", "expected"),
    [
        (Wiring(), "absent"),
        (Wiring(lines={2: FakeStuckLine(0x00)}), "frame"),
        (Wiring(lines={2: FakeStuckLine(0xFF)}), "crc"),
    ],
    ids=["no cable", "stuck low", "stuck at heads"],
)
def test_line_without_a_module_is_a_reason(tmp_path: Path, wiring: Wiring, expected: str) -> None:
    assert measure(tmp_path, wiring, probes_of("level-1", "us"))["lvl"] == expected


def test_module_without_its_rail_says_nothing_and_the_rail_falls_after_it_was_read(
    tmp_path: Path,
) -> None:
    talker = FakeTalker([GOOD], POWER, WIRE)

    found = measure(tmp_path, Wiring(lines={2: talker}, power=[talker]), probes_of("level-1", "us"))

    assert found == {"lvl": 1234}
    assert talker.powered_at_us is None
    assert level_of(tmp_path / "other", [GOOD]) == 1234
    never = FakeTalker([GOOD], 99, WIRE)
    wiring = Wiring(lines={2: never}, power=[never])
    assert measure(tmp_path / "never", wiring, probes_of("level-1", "us")) == {"lvl": "absent"}


# --- capacitive index ---


@pytest.mark.parametrize(
    ("microvolts", "expected"),
    [
        ([1_870_000], 1870),
        ([1_868_000, 1_872_000], 1870),
        # At the rails: no supply or signal wire, shorts to either side.
        ([0], "range"),
        ([140_000], "range"),
        ([499_000], "range"),
        ([2_960_000], "range"),
        ([3_300_000], "range"),
        # A loose contact: it swings while it is looked at.
        ([1_500_000, 1_900_000], "spread"),
        ([0, 3_300_000], "range"),
    ],
)
def test_voltage_is_the_middle_of_several_or_a_reason(
    tmp_path: Path, microvolts: Sequence[int], expected: int | str
) -> None:
    probe = FakeSupplied(microvolts, power_pin=33)

    found = measure(
        tmp_path, Wiring(analog={32: probe}, power=[probe]), probes_of("tree-2", "c10")
    )["i10"]

    assert found == (pytest.approx(expected, abs=3) if isinstance(expected, int) else expected)


def test_one_outlier_does_not_spoil_a_reading(tmp_path: Path) -> None:
    probe = FakeSupplied([1_870_000] * 15 + [2_700_000], power_pin=33)

    found = measure(tmp_path, Wiring(analog={32: probe}, power=[probe]), probes_of("tree-2", "c10"))

    assert found["i10"] == pytest.approx(1870, abs=3)


def test_probe_is_looked_at_after_its_warm_up_and_switched_off_after(tmp_path: Path) -> None:
    probe = FakeSupplied([1_870_000], power_pin=33)

    measure(tmp_path, Wiring(analog={32: probe}, power=[probe]), probes_of("tree-2", "c10"))

    assert len(probe.asked) == 16
    assert probe.asked[0] >= 1_000_000
    assert probe.powered_at_us is None


def test_probe_that_is_not_there_is_no_dry_soil(tmp_path: Path) -> None:
    assert measure(tmp_path, Wiring(), probes_of("tree-2", "c10")) == {"i10": "range"}


# --- supervised contact ---


@pytest.mark.parametrize(
    ("ohms", "expected"),
    [
        ([4_700], 1),
        ([4_700 + 120], 1),  # a contact that has aged
        ([19_700], 0),
        ([19_300], 0),
        ([0], "short"),
        ([2_000], "short"),
        ([1e9], "open"),
        ([60_000], "open"),
        ([10_000], "range"),  # water in the box beside the contact
        ([30_000], "range"),
        ([4_700, 19_700], "spread"),
        ([19_700, 19_700, 1e9], "spread"),
    ],
)
def test_contact_is_closed_open_or_a_reason(
    tmp_path: Path, ohms: Sequence[float], expected: int | str
) -> None:
    wiring = Wiring(analog={36: FakeLoop(ohms, power_pin=26)})

    assert measure(tmp_path, wiring, probes_of("level-1", "float")) == {"full": expected}


def test_contact_draws_no_current_between_two_readings(tmp_path: Path) -> None:
    changes: list[tuple[int, int]] = []

    class Pin26:
        def power_changed(self, pin: int, level: int, now_us: int) -> None:
            if pin == 26:
                changes.append((level, now_us))

    wiring = Wiring(analog={36: FakeLoop([4_700], power_pin=26)}, power=[Pin26()])
    measure(tmp_path, wiring, probes_of("level-1"))  # the others take seconds

    (up, up_us), (down, down_us) = changes
    assert (up, down) == (1, 0)
    assert down_us - up_us < 50_000


# --- together ---


def test_a_probe_that_fails_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    wiring = Wiring(
        one_wire={4: FakeThermometer([scratchpad(318)])},
        analog={36: FakeLoop([19_700], power_pin=26)},
    )

    found = measure(tmp_path, wiring, probes_of("level-1"))

    assert found == {"lvl": "absent", "ta": 318, "full": 0}
