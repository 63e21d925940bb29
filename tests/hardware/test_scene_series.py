"""Measured series: read with holes where nothing valid was measured, never repaired, refused when unreadable."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardware.scenes import SceneError, load_scene
from hardware.scenes.series import Column, Rejection, Series, read_series
from hardware.virtual_board.scene_truth import Truth

_HEADER = "date;time;temperature;oxygen;flag"
_ROWS = [
    "21.07.2025;00:00;20.0;6.0;ok",
    "21.07.2025;00:30;20.2;6.4;ok",
    "21.07.2025;01:00;20.4;6.8;ok",
    "21.07.2025;01:30;20.6;7.2;ok",
    "21.07.2025;02:00;20.8;7.6;ok",
]


def _utc(hour: int, minute: int = 0) -> int:
    return int(datetime(2025, 7, 21, hour, minute, tzinfo=UTC).timestamp())


@pytest.fixture
def column(tmp_path):
    def make(rows: list[str], *, header: str = _HEADER, **changes) -> Column:
        path = tmp_path / f"pond-{len(list(tmp_path.iterdir()))}.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        settings = {
            "column": "oxygen", "unit": "mg/L", "time_columns": ("date", "time"),
            "time_format": "%d.%m.%Y %H:%M", "utc_offset_h": 0.0, "step_s": 1800, "delimiter": ";",
        } | changes  # fmt: skip
        return Column(file=path, **settings)

    return make


def test_measured_value_stands_at_its_own_time(column):
    series = read_series(column(_ROWS))
    assert [series.at(_utc(0)), series.at(_utc(2))] == [6.0, 7.6]


def test_between_two_neighbours_lies_a_straight_line(column):
    assert read_series(column(_ROWS)).at(_utc(0, 15)) == pytest.approx(6.2)


def test_one_missing_row_is_bridged_two_are_not(column):
    bridged = read_series(column([_ROWS[0], *_ROWS[2:]]))
    gaping = read_series(column([_ROWS[0], *_ROWS[3:]]))
    assert bridged.at(_utc(0, 30)) == pytest.approx(6.4)
    assert gaping.at(_utc(0, 30)) is None
    assert gaping.at(_utc(1, 29)) is None
    assert gaping.at(_utc(1, 30)) == 7.2


def test_before_the_first_and_after_the_last_row_is_nothing(column):
    series = read_series(column(_ROWS))
    assert series.at(_utc(0) - 1) is None
    assert series.at(_utc(2) + 1) is None


@pytest.mark.parametrize(
    ("damage", "changes"),
    [
        ((";6.8;", ";;"), {}),
        ((";6.8;", ";NA;"), {}),
        ((";6.8;", ";nan;"), {}),
        ((";6.8;", ";inf;"), {"maximum": 20.0}),
        ((";6.8;", ";-9999;"), {"minimum": 0.0}),
        ((";6.8;", ";99;"), {"maximum": 20.0}),
        (("6.8;ok", "6.8;<-3> [GIT]"), {"flag_column": "flag", "reject_flags": ("<-",)}),
        (("6.8;ok", "6.8;ok"), {"rejections": (Rejection("21.07.2025 00:45", "21.07.2025 01:15", "why"),)}),
    ],
    ids=["empty", "NA", "NaN", "infinite", "below", "above", "flag", "rejected"],
)  # fmt: skip
def test_invalid_value_is_a_hole_that_is_not_bridged(column, damage, changes):
    rows = [row.replace(*damage) for row in _ROWS]
    series = read_series(column(rows, **changes))
    assert series.at(_utc(1)) is None
    assert series.at(_utc(0, 59)) is None
    assert series.at(_utc(1, 1)) is None
    assert series.at(_utc(0, 30)) == 6.4
    assert series.at(_utc(1, 30)) == 7.2


def test_rows_whose_clock_stands_still_or_runs_backwards_are_dropped(column):
    again = "21.07.2025;00:30;20.2;9.9;ok"
    back = "21.07.2025;00:00;-10.0;9.9;ok"
    series = read_series(column([_ROWS[0], _ROWS[1], again, back, *_ROWS[2:]]))
    assert [series.at(_utc(0)), series.at(_utc(0, 30)), series.at(_utc(1))] == [6.0, 6.4, 6.8]


def test_clock_of_the_file_is_turned_into_utc(column):
    assert read_series(column(_ROWS, utc_offset_h=2.0)).at(_utc(0) - 7200) == 6.0


@pytest.mark.parametrize(
    ("unit", "stated", "published"),
    [
        ("ug/L", "6400", 6.4), ("1", "0.85", 85.0), ("degF", "68", 20.0), ("K", "293.15", 20.0),
        ("hPa", "640", 64.0), ("cbar", "64", 64.0), ("V", "3.9", 3900.0),
    ],
)  # fmt: skip
def test_units_become_the_published_ones(column, unit, stated, published):
    rows = [row.replace(";6.4;", f";{stated};") for row in _ROWS]
    assert read_series(column(rows, unit=unit)).at(_utc(0, 30)) == pytest.approx(published)


def test_byte_order_mark_and_blanks_in_the_header_do_not_hide_a_column(column):
    series = read_series(column(_ROWS, header="\ufeff" + _HEADER.replace("oxygen", " oxygen ")))
    assert series.at(_utc(0)) == 6.0


# --- through a scene file ---

_SCENE = """
id = "mine"
title = "Mine"
seed = 1
[[site]]
id = "pond"
name = "Pond"
kind = "water"
latitude = 51.48
longitude = 7.22
[[node]]
label = "pond-01"
model = "pond-1"
site = "pond"
[node.series]
file = "pond.csv"
time_columns = ["date", "time"]
time_format = "%d.%m.%Y %H:%M"
utc_offset_h = 0
step_s = 1800
delimiter = ";"
[node.channels.do]
column = "oxygen"
unit = "mg/L"
flag_column = "flag"
[node.channels.tw]
column = "temperature"
unit = "Cel"
[node.channels.sat]
computed = "oxygen_saturation_garcia_gordon"
"""


@pytest.fixture
def folder(tmp_path):
    def write(scene: str = _SCENE, csv: str = "\n".join([_HEADER, *_ROWS]) + "\n") -> Path:
        (tmp_path / "scene.toml").write_text(scene, encoding="utf-8")
        (tmp_path / "pond.csv").write_text(csv, encoding="utf-8")
        return tmp_path

    return write


_CSV = "\n".join([_HEADER, *_ROWS]) + "\n"


@pytest.mark.parametrize(
    ("scene_damage", "csv", "sentence"),
    [
        (("", ""), "", "pond.csv is empty."),
        (("", ""), _HEADER + "\n", "pond.csv is empty."),
        (("", ""), _CSV.replace("oxygen", "o2", 1), "pond.csv: the column oxygen is missing."),
        (("", ""), _CSV.replace("date", "day", 1), "pond.csv: the column date is missing."),
        (("", ""), _CSV.replace("flag", "note", 1), "pond.csv: the column flag is missing."),
        (("", ""), _CSV.replace("01:00", "1 o'clock"), 'pond.csv: "21.07.2025 1 o\'clock" in the column date + time is not a time of the form %d.%m.%Y %H:%M.'),
        (("", ""), _CSV.replace(";6.8;", ";six;"), "pond.csv: 'six' in the column oxygen is not a number."),
        (("", ""), _CSV.replace(";6.8;ok", ""), "pond.csv: row 4 has 3 of 5 columns, oxygen is missing."),
        (("", ""), re.sub(r";[67]\.\d;", ";99;", _CSV), "pond.csv: the column oxygen holds no valid value."),
        (('unit = "mg/L"', 'unit = "ppm"'), _CSV, "pond.csv, column oxygen: the unit ppm is not known; there are mg/L,"),
        (('unit = "mg/L"', 'unit = "kPa"'), _CSV, "pond.csv, column oxygen: kPa cannot become mg/L of channel do."),
        (("pond.csv", "lake.csv"), _CSV, "The measured series lake.csv is not in"),
        (('unit = "mg/L"', 'unit = "mg/L"\ncolor = 1'), _CSV, "channels.do: the key color is not known."),
        (('unit = "mg/L"', ""), _CSV, "channels.do: the key unit is missing."),
        (("step_s = 1800", "step_s = 0"), _CSV, "step_s must be at least 1."),
        (('time_columns = ["date", "time"]', 'time_columns = "date"'), _CSV, "time_columns must be a list of texts."),
        (('model = "pond-1"', 'model = "pond-9"'), _CSV, "Node model pond-9 is not known"),
    ],
)  # fmt: skip
def test_unreadable_series_is_refused_with_one_sentence(folder, scene_damage, csv, sentence):
    with pytest.raises(SceneError, match=re.escape(sentence)) as refused:
        load_scene(series_dir=folder(_SCENE.replace(*scene_damage), csv))
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_binary_file_is_refused_as_no_csv(folder):
    where = folder()
    (where / "pond.csv").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(SceneError, match=r"pond\.csv cannot be read as CSV"):
        load_scene(series_dir=where)


def test_series_ends_at_the_last_native_step_before_now(folder):
    truth = Truth(load_scene(series_dir=folder()), now_utc_s=_utc(12, 10) + 86400 * 400)
    last_s = _utc(12) + 86400 * 400
    assert truth.value("pond-01", "do", 0, last_s) == 7.6
    assert truth.value("pond-01", "do", 0, last_s - 7200) == 6.0


def test_after_its_end_the_series_is_played_again_unless_told_not_to(folder):
    again = Truth(load_scene(series_dir=folder()), now_utc_s=_utc(12))
    assert again.value("pond-01", "do", 0, _utc(12, 30)) == 6.0
    assert again.value("pond-01", "do", 0, _utc(9, 30)) == 7.6
    once = _SCENE.replace("step_s = 1800", "step_s = 1800\nrepeat = false")
    single = Truth(load_scene(series_dir=folder(once)), now_utc_s=_utc(12))
    assert single.value("pond-01", "do", 0, _utc(12)) == 7.6
    assert single.value("pond-01", "do", 0, _utc(12, 30)) is None
    assert single.value("pond-01", "do", 0, _utc(9, 30)) is None


def test_saturation_is_computed_where_the_file_has_none(folder):
    truth = Truth(load_scene(series_dir=folder()), now_utc_s=_utc(2))
    # 20 °C at 100 m: 9.092 mg/L · 0.988 (measurement.md 1.5) = 8.98 mg/L.
    assert truth.value("pond-01", "sat", 0, _utc(0)) == pytest.approx(100 * 6.0 / 8.98, abs=0.1)


def test_hole_in_one_column_silences_the_whole_probe_and_counts_as_disturbed(folder):
    truth = Truth(
        load_scene(series_dir=folder(csv=_CSV.replace(";20.4;", ";NA;"))), now_utc_s=_utc(2)
    )
    assert truth.value("pond-01", "do", 0, _utc(1)) == 6.8
    assert truth.slot_value("pond-01", "do", _utc(1)) is None
    assert truth.is_disturbed("pond-01", "do", 0, _utc(1))
    assert not truth.is_disturbed("pond-01", "bat", 0, _utc(1))


def test_a_series_is_a_plain_value():
    series = Series(times_s=(0, 10), values=(1.0, 2.0), step_s=10)
    assert series == Series(times_s=(0, 10), values=(1.0, 2.0), step_s=10)
    assert series.span_s == 20
