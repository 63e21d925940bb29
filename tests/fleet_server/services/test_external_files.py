"""Files as laboratories and other networks have them become values, or sentences that say where and what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.errors import Invalid
from fleet_server.services.external_files import (
    MeasurementRules,
    ReadFile,
    ValueColumn,
    read_measurements,
    rules_of,
)
from fleet_server.services.tables import FileWrong

OXYGEN = ValueColumn("O2", "dissolved_oxygen", "mg/L")
WIDE = MeasurementRules((OXYGEN,), "Zeit", zone="Europe/Berlin", site_code="teich")
LONG = MeasurementRules(
    (ValueColumn("Wert", u_column="u"),),
    "Datum",
    clock_time="Uhrzeit",
    zone="Europe/Berlin",
    site="Ort",
    property="Parameter",
    unit="Einheit",
    depth="Tiefe",
    sample="Probe",
    properties={"Sauerstoff": "dissolved_oxygen", "Bodenfeuchte": "soil_water_content"},
    sites={"Teich Nord": "teich"},
    k="2",
)


def read(text: str | bytes, rules: MeasurementRules = WIDE) -> ReadFile:
    return read_measurements(text.encode() if isinstance(text, str) else text, rules)


def column(text: str, unit: str, observed_property: str = "dissolved_oxygen") -> ReadFile:
    """One cell of a property at 12:00 in UTC."""
    one = ValueColumn("x", observed_property, unit, depth_cm=20)
    rules = MeasurementRules((one,), "t", site_code="s")
    return read(f"t;x\n2026-07-01T12:00:00Z;{text}\n", rules)


def test_long_form_of_a_laboratory_is_read_with_its_own_names_units_and_uncertainties() -> None:
    found = read(
        "Probe;Ort;Datum;Uhrzeit;Parameter;Tiefe;Wert;Einheit;u\n"
        "A-1;Teich Nord;01.07.2026;14:00;Sauerstoff;;8.340,5;µg/l;200\n"
        "A-2;linde;1.7.2026;14:30;Bodenfeuchte;30;21,5;Vol.-%;\n",
        LONG,
    )
    assert found.wrong == []
    first, second = found.values
    assert (first.site_code, first.property, first.depth_cm) == ("teich", "dissolved_oxygen", 0)
    assert (first.value, first.u, first.flag) == (8.3405, 0.1, 2)
    assert (first.row, first.given, first.given_unit) == (2, "8.340,5", "µg/l")
    assert (first.sample, second.sample) == ("A-1", "A-2")
    assert datetime.fromtimestamp(first.sampled_s, UTC) == datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert (second.value, second.u, second.depth_cm) == (0.215, None, 30), "not known is not zero"


@pytest.mark.parametrize(
    ("cell", "unit", "observed_property", "value"),
    [
        ("8.34", "mg/L", "dissolved_oxygen", 8.34),
        ("8340", "µg/L", "dissolved_oxygen", 8.34),
        ("293.15", "K", "water_temperature", 20.0),
        ("68", "°F", "water_temperature", 20.0),
        ("0.45", "mS/cm", "conductivity_25", 450.0),
        ("45", "mS/m", "conductivity_25", 450.0),
        ("21.5", "%", "soil_water_content", 0.215),
        ("250", "hPa", "soil_water_tension", 25.0),
        ("25", "cbar", "soil_water_tension", 25.0),
        ("2.0", "pF", "soil_water_tension", 9.80665),
        ("142", "cm", "water_level", 1.42),
        ("7.1", "", "ph", 7.1),
        ("1e1", "FNU", "turbidity", 10.0),
    ],
)
def test_units_are_converted_exactly(
    cell: str, unit: str, observed_property: str, value: float
) -> None:
    found = column(cell, unit, observed_property)
    assert ([one.value for one in found.values], found.wrong) == ([value], [])


@pytest.mark.parametrize(
    ("cell", "unit", "observed_property", "sentence"),
    [
        ("12", "NTU", "turbidity", "NTU does not measure turbidity in FNU"),
        ("12", "Gew.-%", "soil_water_content", "does not measure soil_water_content"),
        ("12", "ppm", "dissolved_oxygen", "is not given in 'ppm', but in mg/L"),
        ("12", "mg/L", "sweetness", "'sweetness' is no property"),
    ],
)
def test_unit_or_property_that_is_another_one_is_refused(
    cell: str, unit: str, observed_property: str, sentence: str
) -> None:
    with pytest.raises(Invalid, match=sentence):
        column(cell, unit, observed_property)


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("NaN", "'NaN' is no number; leave the cell empty"),
        ("-inf", "'-inf' is no number; leave the cell empty"),
        ("1e400", "larger than any"),
        ("8.3.4", "'8.3.4' is no number"),
        ("acht", "'acht' is no number"),
        ("0x10", "'0x10' is no number"),
        ("<", "'<' is no number"),
        ("834", "834 mg/L is no possible dissolved_oxygen; is the unit right?"),
        ("9" * 300, "more than 200 characters"),
    ],
)
def test_cell_that_is_no_value_is_told_with_row_and_column(cell: str, sentence: str) -> None:
    found = column(cell, "mg/L")
    assert found.values == []
    [wrong] = found.wrong
    assert (wrong.row, wrong.column) == (2, "x")
    assert sentence in wrong.sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("25.10.2026 02:30", "is twice in this time zone"),
        ("29.03.2026 02:30", "the clocks were put forward"),
        ("31.02.2026 12:00", "no such day"),
        ("01.07.2026 25:00", "no such time"),
        ("01.07.2026", "is a day without a time"),
        ("07/01/2026 12:00", "Say dmy or mdy"),
        ("gestern", "is no time; write it like"),
        ("", "has no time"),
        ("1999-12-31T23:59:59Z", "lies before 2000"),
        ("2026-07-01T12:00:00.5Z", "not to the second"),
    ],
)
def test_time_that_is_none_or_two_is_told(text: str, sentence: str) -> None:
    found = read(f"Zeit;O2\n{text};8,1\n")
    assert [one.column for one in found.wrong] == ["Zeit"]
    assert sentence in found.wrong[0].sentence


@pytest.mark.parametrize(
    ("text", "rules", "utc"),
    [
        ("01.07.2026 14:00", WIDE, "2026-07-01T12:00:00"),
        ("2026-01-07 14:00", WIDE, "2026-01-07T13:00:00"),
        ("2026-10-25T02:30:00+01:00", WIDE, "2026-10-25T01:30:00"),
        ("2026-07-01T12:00:00.000Z", WIDE, "2026-07-01T12:00:00"),
        ("7/2/2026 0:15", replace(WIDE, zone="-05:00", date_order="mdy"), "2026-07-02T05:15:00"),
        ("26/08/2014", replace(WIDE, date_order="dmy", time_of_day="12:00"), "2014-08-26T10:00:00"),
    ],
)
def test_times_are_read_in_the_zone_that_they_or_the_rules_name(
    text: str, rules: MeasurementRules, utc: str
) -> None:
    [one] = read(f"Zeit;O2\n{text};8,1\n", rules).values
    assert f"{datetime.fromtimestamp(one.sampled_s, UTC):%Y-%m-%dT%H:%M:%S}" == utc


def test_value_below_the_limit_of_detection_is_kept_as_such_and_is_no_number() -> None:
    [one] = column("< 50", "µg/L").values
    assert (one.value, one.u, one.flag) == (None, None, 9)
    assert (one.limit_sign, one.limit_value, one.given) == ("<", 0.05, "< 50")


def test_empty_cells_and_words_for_nothing_are_counted_and_repeated_instants_are_told() -> None:
    rules = replace(WIDE, missing=("fehlt",))
    found = read(
        "Zeit;O2\n01.07.2026 14:00;8,1\n01.07.2026 13:00;\n01.07.2026 12:00;fehlt\n"
        "01.07.2026 11:00;k.A.\n01.07.2026 10:00;8,0\n01.07.2026 14:00;8,2\n",
        rules,
    )
    assert ([one.value for one in found.values], found.empty) == ([8.1, 8.0], 3)
    assert found.backwards == 1
    assert [(one.row, one.sentence) for one in found.wrong] == [
        (7, "Row 2 gives a value of the same instant already.")
    ]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("cp1252", "Windows-1252"), ("utf-16", "UTF-16")],
)
def test_encoding_is_seen_and_said(encoding: str, said: str) -> None:
    found = read(
        "Zeit;Säure\n01.07.2026 14:00;7,1\n".encode(encoding),
        replace(WIDE, values=(ValueColumn("Säure", "ph", "pH"),)),
    )
    assert ([one.value for one in found.values], found.encoding) == ([7.1], said)


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (("8,1", "1.234,5"), [8.1, 1234.5]),
        (("8.1", "1,234.5"), [8.1, 1234.5]),
        (("8.125", "7.5"), [8.125, 7.5]),
        (("8,125", "7,250"), [8.125, 7.25]),
        (("8,1", "1 234,5"), [8.1, 1234.5]),
    ],
)
def test_decimal_mark_is_seen_from_the_column(cells: tuple[str, ...], values: list[float]) -> None:
    rules = replace(WIDE, values=(ValueColumn("L", "conductivity_25", "µS/cm"),))
    rows = "".join(f"01.07.2026 {10 + n}:00;{cell}\n" for n, cell in enumerate(cells))
    assert [one.value for one in read(f"Zeit;L\n{rows}", rules).values] == values


def test_point_and_comma_in_one_column_are_not_guessed() -> None:
    found = read("Zeit;O2\n01.07.2026 14:00;8,1\n01.07.2026 15:00;8.25\n")
    assert "say which mark it is" in found.wrong[0].sentence


def test_providers_flags_become_ours_and_an_unknown_one_is_told() -> None:
    one = replace(OXYGEN, flag_column="F")
    rules = replace(WIDE, values=(one,), flags={"<0>": 1, "<1>": 3, "<-3>": 4})
    found = read(
        "Zeit;O2;F\n01.07.2026 14:00;8,1;<0> \n01.07.2026 15:00;8,2;<1> [SDO]\n"
        "01.07.2026 16:00;999,9;<-3>\n01.07.2026 17:00;8,3;\n01.07.2026 18:00;8,4;<7>\n",
        rules,
    )
    assert [(one.value, one.flag) for one in found.values] == [
        (8.1, 1),
        (8.2, 3),
        (999.9, 4),
        (8.3, 2),
    ]
    assert [one.sentence for one in found.wrong] == [
        "Nobody said what the flag '<7>' means; name it."
    ]


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        (replace(WIDE, time="Wann"), "no column 'Wann'"),
        (replace(WIDE, values=()), "Which column holds the values"),
        (replace(WIDE, site_code=None), "Where was measured"),
        (replace(WIDE, zone="Bochum"), "no time zone 'Bochum'"),
        (replace(WIDE, k="0"), "coverage factor '0'"),
        (replace(WIDE, values=(replace(OXYGEN, u="-1"),)), "no number above zero"),
        (replace(WIDE, values=(replace(OXYGEN, unit=None),)), "In which unit"),
        (replace(WIDE, values=(replace(OXYGEN, flag_column="O2"),)), "flags mean"),
    ],
)
def test_rules_that_do_not_fit_the_file_are_one_sentence(
    rules: MeasurementRules, sentence: str
) -> None:
    with pytest.raises(FileWrong, match=sentence):
        read("Zeit;O2\n01.07.2026 14:00;8,1\n", rules)


@pytest.mark.parametrize("data", [b"", b"  \n", b"PK\x03\x04abc", b"\0\1\2\0", b"Zeit;O2\n"])
def test_what_is_no_table_is_one_sentence(data: bytes) -> None:
    with pytest.raises(FileWrong):
        read(data)


def test_rules_come_back_as_they_were_kept() -> None:
    assert rules_of(LONG.stored()) == LONG


@given(st.binary(max_size=200))
def test_no_bytes_end_in_anything_but_values_and_sentences(data: bytes) -> None:
    try:
        found = read(b"Zeit;O2\n" + data)
    except FileWrong:
        return
    assert all(one.sentence for one in found.wrong)


@given(st.text(alphabet="0123456789.,<> -+eEinfNaN'", max_size=12))
def test_no_cell_ends_in_anything_but_a_value_or_a_sentence(cell: str) -> None:
    found = read(f"Zeit;O2\n2026-07-01T12:00:00Z;{cell}\n")
    assert len(found.values) + len(found.wrong) + found.empty == 1 or not cell.strip()
