"""The tree's water balance: pyfao56 1.4.3 and its 200 days of cotton, FAO-56's own numbers, and what a street does to it."""

from __future__ import annotations

import doctest
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fleet_server.city import tree_water
from fleet_server.city.tree_water import (
    Balance,
    Place,
    Plants,
    Soil,
    Stages,
    Water,
    Watering,
    Weather,
    balance,
    litres_as_mm,
    water_at,
)
from fleet_server.measurement.evapotranspiration import wind_at_2_m

_FOLDER = Path(
    os.environ.get(
        "STADTSENSOR_SERIES", Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
    )
)
needs_series = [
    pytest.mark.needs_series,
    pytest.mark.skipif(
        not (_FOLDER / "pyfao56_cotton2013.wth").is_file(),
        reason="the measured series (STADTSENSOR_SERIES, or shared/data beside the checkout) are not here",
    ),
]

COTTON = Stages(
    days=(31, 52, 50, 21),
    coefficients=(0.15, 1.2, 0.573),
    heights_m=(0.05, 1.2),
    root_depths_m=(0.6, 1.7),
)
MARICOPA = Soil(0.225, 0.1, surface_depth_m=0.1143, readily_evaporable_mm=9.0)

# Columns of the judge's table by our names.
COLUMNS = {
    "basal_coefficient": "Kcb",
    "largest_coefficient": "Kcmax",
    "ground_cover": "fc",
    "wetted_share": "fw",
    "exposed_share": "few",
    "surface_reduction": "Kr",
    "evaporation_coefficient": "Ke",
    "evaporation_mm": "E",
    "surface_percolation_mm": "DPe",
    "surface_depletion_mm": "De",
    "total_available_mm": "TAW",
    "depletion_share": "p",
    "readily_available_mm": "RAW",
    "stress": "Ks",
    "transpiration_mm": "T",
    "percolation_mm": "DP",
    "runoff_mm": "Runoff",
    "depletion_mm": "Dr",
    "stress_at_end": "Ksend",
}


@pytest.fixture(scope="module")
def read() -> dict[str, Any]:
    """The judge's own files, read by the judge."""
    from pyfao56 import Irrigation, Parameters, Weather

    files = {
        name: str(_FOLDER / f"pyfao56_{file}")
        for name, file in (
            ("par", "cotton2013.par"),
            ("wth", "cotton2013.wth"),
            ("irr", "cottondry2013.irr"),
        )
    }
    return {
        "par": Parameters(), "wth": Weather(files["wth"]), "irr": Irrigation(files["irr"]),
        "files": files,
    }  # fmt: skip


@pytest.fixture(scope="module")
def days(read: dict[str, Any]) -> tuple[Weather, Watering]:
    table = read["wth"].wdata.loc["2013-113":"2013-312"]
    given = read["irr"].idata.reindex(table.index)
    depth = given["Depth"].fillna(0.0).to_numpy()
    wetted = given["fw"].fillna(1.0).to_numpy()
    weather = Weather(
        evapotranspiration_mm=table["ETref"].to_numpy(dtype=float),
        rain_mm=table["Rain"].to_numpy(dtype=float),
        wind_m_s=wind_at_2_m(table["Wndsp"].to_numpy(dtype=float), 3.0),
        humidity_min_pct=table["RHmin"].to_numpy(dtype=float),
    )
    return weather, Watering(depth, wetted)


class TestAgainstPyfao56:
    pytestmark = needs_series

    def ours(self, days: tuple[Weather, Watering], soil: Soil) -> Balance:
        weather, watering = days
        plants = COTTON.plants(weather.days, 0.65)
        return balance(soil, plants, weather, water_at(soil, 0.1, 0.6), watering=watering)

    def theirs(self, read: dict[str, Any], *, curve_number: float | None) -> Any:
        from pyfao56 import Model

        read["par"].loadfile(read["files"]["par"])
        roff = curve_number is not None
        read["par"].CN2 = curve_number or read["par"].CN2
        model = Model("2013-113", "2013-312", read["par"], read["wth"], irr=read["irr"], roff=roff)
        model.run()
        return model.odata

    @pytest.mark.parametrize("curve_number", [None, 92.0])
    def test_two_hundred_days_are_those_of_the_judge(
        self, read: dict[str, Any], days: tuple[Weather, Watering], curve_number: float | None
    ) -> None:
        theirs = self.theirs(read, curve_number=curve_number)
        found = self.ours(days, replace(MARICOPA, curve_number=curve_number))
        assert len(theirs) == 200
        assert (theirs["Runoff"].astype(float).max() > 1) == (curve_number == 92.0)
        assert theirs["DP"].astype(float).max() > 1
        assert (theirs["Ks"].astype(float) < 1).sum() > 20
        for name, column in COLUMNS.items():
            np.testing.assert_allclose(
                getattr(found, name),
                theirs[column].to_numpy(dtype=float),
                rtol=0,
                atol=1e-9,
                err_msg=name,
            )

    def test_they_are_those_of_its_published_table_to_the_last_digit(
        self, days: tuple[Weather, Watering]
    ) -> None:
        lines = (_FOLDER / "pyfao56_cottondry2013_expected.out").read_text("utf-8").splitlines()
        head = next(number for number, line in enumerate(lines) if line.startswith("Year-DOY"))
        names = lines[head].split()
        rows = [dict(zip(names, line.split(), strict=False)) for line in lines[head + 1 :]]
        found = self.ours(days, MARICOPA)
        assert len(rows) == 200
        for name, column in COLUMNS.items():
            printed = np.array([float(row[column]) for row in rows])
            np.testing.assert_allclose(
                getattr(found, name), printed, rtol=0, atol=5.1e-4, err_msg=name
            )


# --- a tree

LOAM = Soil(0.30, 0.12)
TREE = Plants(0.6, height_m=8.0, root_depth_m=1.0, depletion_share=0.5, ground_cover=0.7)
SUMMER = Weather(np.full(40, 4.5), np.zeros(40))
FULL = Water(0.0, 0.0)


def test_examples_in_the_docstrings_hold() -> None:
    outcome = doctest.testmod(tree_water)
    assert outcome.failed == 0
    assert outcome.attempted >= 8


def test_what_goes_in_comes_out_or_stays() -> None:
    generator = np.random.default_rng(1)
    rain = np.where(generator.random((90, 50)) < 0.3, generator.gamma(1.2, 7.0, (90, 50)), 0.0)
    weather = Weather(generator.uniform(0.5, 4, (90, 50)), rain)
    soil = replace(LOAM, curve_number=85.0)
    given = np.where(generator.random((90, 50)) < 0.1, 12.0, 0.0)
    for share in (1.0, 0.4):
        found = balance(
            soil, TREE, weather, FULL, watering=Watering(given, 0.3), place=Place(share)
        )
        went_in = ((rain - found.runoff_mm) * share + given).sum(axis=0)
        came_out = (found.evaporation_mm + found.transpiration_mm + found.percolation_mm).sum(0)
        assert found.runoff_mm.max() > 5
        assert found.percolation_mm.max() > 5
        assert found.depletion_mm.max() < 180  # nowhere cut off
        np.testing.assert_allclose(went_in - came_out, -found.depletion_mm[-1], atol=1e-9)


def test_members_of_an_ensemble_are_what_each_is_alone() -> None:
    generator = np.random.default_rng(2)
    rain = generator.gamma(0.3, 8.0, (30, 4))
    start = Water(np.array([0.0, 40.0, 90.0, 150.0]), 24.0)
    together = balance(LOAM, TREE, Weather(np.full((30, 1), 4.0), rain), start)
    for member in range(4):
        alone = balance(
            LOAM, TREE, Weather(np.full(30, 4.0), rain[:, member]),
            Water(float(np.asarray(start.depletion_mm)[member]), 24.0),
        )  # fmt: skip
        np.testing.assert_array_equal(together.depletion_mm[:, member], alone.depletion_mm)


def test_sealed_root_zone_gets_less_rain_and_shaded_one_loses_less() -> None:
    wet = Weather(np.full(20, 4.0), np.full(20, 6.0))
    start = Water(80.0, 24.0)
    last = {
        name: float(balance(LOAM, TREE, wet, start, place=place).depletion_mm[-1])
        for name, place in {
            "field": Place(), "sealed": Place(unsealed_share=0.2), "shade": Place(microclimate=0.6),
        }.items()
    }  # fmt: skip
    assert last["shade"] < last["field"] < last["sealed"]


def test_tree_under_stress_takes_less_and_a_watering_of_100_litres_ends_it() -> None:
    dry = balance(LOAM, TREE, SUMMER, Water(60.0, 24.0))
    assert dry.stress[0] == 1.0
    assert dry.stress[-1] < 0.8
    assert (np.diff(dry.transpiration_mm) <= 0).all()
    given = np.zeros(40)
    given[30] = float(litres_as_mm(100.0, 2.0))
    watered = balance(LOAM, TREE, SUMMER, Water(60.0, 24.0), watering=Watering(given, 0.5))
    np.testing.assert_array_equal(watered.depletion_mm[:30], dry.depletion_mm[:30])
    assert watered.stress[31] > dry.stress[31] + 0.2


@pytest.mark.parametrize("unknown", ["evapotranspiration_mm", "rain_mm"])
def test_day_without_weather_makes_all_days_after_it_unknown(unknown: str) -> None:
    values = np.array(getattr(SUMMER, unknown))
    values[10] = np.nan
    found = balance(LOAM, TREE, replace(SUMMER, **{unknown: values}), FULL)
    assert np.isfinite(found.depletion_mm[:10]).all()
    assert np.isnan(found.depletion_mm[10:]).all()
    assert np.isnan(found.stress_at_end[10:]).all()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda: Soil(0.1, 0.3), "holds more at field capacity"),
        (lambda: Soil(0.3, 0.1, readily_evaporable_mm=60), "evaporates readily"),
        (lambda: Soil(0.3, 0.1, curve_number=0), "curve number"),
        (lambda: Place(unsealed_share=0.0), "unsealed share"),
        (lambda: Place(microclimate=3.0), "microclimate"),
        (lambda: replace(TREE, depletion_share=0.9), "without stress"),
        (lambda: balance(LOAM, TREE, Weather(np.ones(3), np.ones(4)), FULL), "3 days, and something else 4"),
    ],
)  # fmt: skip
def test_what_no_tree_has_is_refused_with_a_sentence(wrong: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        wrong()
