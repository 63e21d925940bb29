"""The measured waters and soils of the shared data folder, through `real.toml`. Skipped by name where the folder is missing."""

from __future__ import annotations

import csv
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from perfect_driver import read_board

from hardware.catalogue import load_node_model, load_sensor_type
from hardware.scenes import load_scene
from hardware.scenes.series import read_series
from hardware.virtual_board.scene_truth import Truth
from hardware.virtual_board.scene_wiring import wire_board

_FOLDER = Path(
    os.environ.get(
        "STADTSENSOR_SERIES", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
    )
)
_GRAND_BAY = _FOLDER / "nerrs_grand_bay_2021_07.csv"
_FRENCH_CREEK = _FOLDER / "streammetabolizer_french_do_5min.csv"
_OLYMPIC_PARK = _FOLDER / "simpact_sopa_vwc_hourly.csv"
_NOW = 1_780_000_123

pytestmark = [
    pytest.mark.needs_series,
    pytest.mark.skipif(
        not all(file.is_file() for file in (_GRAND_BAY, _FRENCH_CREEK, _OLYMPIC_PARK)),
        reason="the measured series (STADTSENSOR_SERIES, or shared/data beside the checkout) are not here",
    ),
]


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth(load_scene(series_dir=_FOLDER), now_utc_s=_NOW)


def _grand_bay_rows() -> list[dict[str, str]]:
    with _GRAND_BAY.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_good_row_of_grand_bay_is_the_truth_at_its_shifted_time(truth):
    rows = _grand_bay_rows()
    last_s = _NOW // 900 * 900
    compared = 0
    for back, row in enumerate(reversed(rows)):
        moment = last_s - back * 900
        values = [truth.value("pond-01", key, 0, moment) for key in ("sat", "do", "tw")]
        if row["F_DO_mgl"].startswith("<-"):
            assert values[1] is None
            continue
        assert values == [float(row["DO_Pct"]), float(row["DO_mgl"]), float(row["Temp"])]
        compared += 1
    assert compared == 2879


def test_missing_row_of_grand_bay_is_a_silent_probe(truth):
    rows = _grand_bay_rows()
    missing = next(n for n, row in enumerate(rows) if row["F_Temp"].startswith("<-2>"))
    moment = _NOW // 900 * 900 - (len(rows) - 1 - missing) * 900
    assert truth.is_disturbed("pond-01", "do", 0, moment)
    wiring = wire_board(truth, "pond-01")
    assert "do" not in read_board(wiring, load_node_model("pond-1"), moment)
    assert "do" in read_board(wiring, load_node_model("pond-1"), moment + 1800)


def test_oxygen_and_saturation_of_grand_bay_were_measured_not_computed(truth):
    sources = truth.scene.node("pond-01").sources
    assert sources["sat"].column.column == "DO_Pct"


def _french_utc(month: int, day: int, hour: int, minute: int = 0) -> int:
    return int(datetime(2012, month, day, hour + 7, minute, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    "moment",
    [
        (8, 27, 12), # a gap between two sondes
        (9, 5, 12),  # NA
    ],
)  # fmt: skip
def test_gaps_of_french_creek_stay_gaps(truth, moment):
    series = read_series(truth.scene.node("pond-02").sources["do"].column)
    assert series.at(_french_utc(*moment)) is None


def test_zero_and_water_below_freezing_are_not_believed_but_a_spike_is_left_to_quality_control(
    truth,
):
    sources = truth.scene.node("pond-02").sources
    oxygen = [v for v in read_series(sources["do"].column).values if v is not None]
    temperature_c = [v for v in read_series(sources["tw"].column).values if v is not None]
    assert min(oxygen) == 0.21
    assert min(temperature_c) > 3
    assert read_series(sources["do"].column).at(_french_utc(9, 9, 6, 5)) is None


def test_straight_line_that_was_filled_in_is_rejected(truth):
    series = read_series(truth.scene.node("pond-02").sources["tw"].column)
    assert series.at(_french_utc(9, 5, 13, 0)) is None
    assert all(
        series.at(int(datetime(2012, 9, 6, 5, m, tzinfo=UTC).timestamp())) is None
        for m in range(0, 60, 5)
    )


def test_saturation_of_french_creek_is_that_of_a_mountain_stream(truth):
    values = [truth.value("pond-02", "sat", 0, _NOW - hours * 3600) for hours in range(24 * 20)]
    present = [value for value in values if value is not None]
    assert len(present) > 400
    assert all(70 < value < 125 for value in present)


def test_every_hour_of_the_park_is_the_truth_at_its_shifted_time_as_a_volume_fraction(truth):
    with _OLYMPIC_PARK.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    last_s = _NOW // 3600 * 3600
    for column, label in (("SENS0012", "soil-12"), ("SENS0030", "soil-30")):
        for back, row in enumerate(reversed(rows)):
            found = truth.value(label, "v30", 30, last_s - back * 3600)
            assert found == pytest.approx(float(row[column]) / 100, rel=1e-12)
    assert len(rows) == 1528


def test_permittivity_of_the_park_is_worked_out_from_its_water(truth):
    water = truth.value("soil-12", "v30", 30, _NOW - 86400)
    permittivity = truth.value("soil-12", "e30", 30, _NOW - 86400)
    assert permittivity == pytest.approx(3.03 + 9.3 * water + 146 * water**2 - 76.7 * water**3)


def test_probes_meet_the_measured_values_within_the_factory_accuracy(truth):
    within = total = 0
    for node in truth.scene.nodes:
        model = load_node_model(node.model)
        wiring = wire_board(truth, node.label)
        for moment in range(_NOW // 900 * 900 - 25 * 86400, _NOW, 9 * 900):
            values = read_board(wiring, model, moment)
            for channel in model.channels:
                if truth.is_disturbed(node.label, channel.key, 0, moment):
                    continue
                quantity = load_sensor_type(model.slot_of(channel.key).sensor_type).quantity(
                    channel.property
                )
                error = values[channel.key] - truth.value(node.label, channel.key, 0, moment)
                within += abs(error) <= 2 * quantity.accuracy.standard_uncertainty(
                    values[channel.key]
                )
                total += 1
    assert total > 1500
    assert within / total >= 0.95
