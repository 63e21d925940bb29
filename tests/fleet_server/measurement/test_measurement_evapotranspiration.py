"""Evapotranspiration against FAO-56's own examples and two judges: pyet 1.5.0 and pyfao56 1.4.3.

Where a judge has other constants, they are put into ours for the comparison: what is left is the difference of the methods, and it is none. (pyet's π has nine digits.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleet_server.measurement import evapotranspiration as ours
from fleet_server.measurement.evapotranspiration import (
    ASCE_DRAG,
    RadiationSource,
    daily_evapotranspiration,
    daylight_hours,
    hargreaves_evapotranspiration,
    hourly_evapotranspiration,
    radiation_of_sunshine,
    radiation_of_what_is_there,
    reference_evapotranspiration,
    vapour_pressure_of_humidity,
)

BRUSSELS = {"altitude_m": 100.0, "latitude_deg": 50.8}
EXAMPLE_18 = {
    "slope_kpa_k": (0.122, 5e-4),
    "psychrometric_kpa_k": (0.0666, 5e-5),
    "saturation_kpa": (1.997, 1e-3),
    "vapour_kpa": (1.409, 5e-4),
    "extraterrestrial_mj_m2": (41.09, 5e-3),
    "clear_sky_mj_m2": (30.90, 5e-3),
    "net_shortwave_mj_m2": (17.0, 0.05),
    "net_longwave_mj_m2": (3.71, 5e-3),
    "net_radiation_mj_m2": (13.28, 5e-3),
    "evapotranspiration_mm": (3.88, 5e-3),
}


def test_day_in_brussels_has_every_number_of_the_papers_example_18() -> None:
    wind = ours.wind_at_2_m(10.0 / 3.6, 10.0)
    assert float(wind) == pytest.approx(2.078, abs=5e-4)
    assert float(daylight_hours(50.8, 187)) == pytest.approx(16.1, abs=0.05)
    day = daily_evapotranspiration(
        temperature_max_c=21.5, temperature_min_c=12.3, wind_m_s=wind, day_of_year=187,
        vapour_kpa=vapour_pressure_of_humidity(21.5, 12.3, 84, 63),
        radiation_mj_m2=radiation_of_sunshine(9.25, 50.8, 187), **BRUSSELS,
    )  # fmt: skip
    for name, (expected, tolerance) in EXAMPLE_18.items():
        assert float(getattr(day, name)) == pytest.approx(expected, abs=tolerance), name


# FAO-56 Example 19: N'Diaye, Senegal, 1 October, clock of 15° W: 02:00–03:00 and 14:00–15:00. The night's Rs/Rso of 0.8 is the example's.
EXAMPLE_19 = {
    "saturation_kpa": (3.780, 6.625),
    "vapour_kpa": (3.402, 3.445),
    "slope_kpa_k": (0.220, 0.358),
    "psychrometric_kpa_k": (0.0673, 0.0673),
    "extraterrestrial_mj_m2": (0.0, 3.543),
    "clear_sky_mj_m2": (0.0, 2.658),
    "clearness": (0.8, 0.922),
    "net_longwave_mj_m2": (0.100, 0.137),
    "net_radiation_mj_m2": (-0.100, 1.749),
    "soil_heat_mj_m2": (-0.050, 0.175),
    "evapotranspiration_mm": (0.0, 0.63),
}


def test_hours_in_senegal_have_every_number_of_the_papers_example_19() -> None:
    hours = hourly_evapotranspiration(
        temperature_c=[28, 38], humidity_pct=[90, 52], wind_m_s=[1.9, 3.3],
        radiation_mj_m2=[0.0, 2.450], altitude_m=8.0, latitude_deg=16 + 13 / 60,
        longitude_deg=-16.25, day_of_year=[274, 274], middle_utc_h=[3.5, 15.5], clearness_before=0.8,
    )  # fmt: skip
    for name, expected in EXAMPLE_19.items():
        tolerance = 5.1e-3 if name == "evapotranspiration_mm" else 6e-4
        assert getattr(hours, name) == pytest.approx(expected, abs=tolerance), name


def test_day_colder_at_its_warmest_is_not_worked_out() -> None:
    swapped = reference_evapotranspiration(12.3, 21.5, 84, 63, 2.078, 22.07, 100, 50.8, 187)
    assert np.isnan(swapped)
    assert np.isnan(hargreaves_evapotranspiration(12.3, 21.5, 50.8, 187))


def test_overcast_day_does_not_warm_the_ground_from_the_sky() -> None:
    """Rs/Rso of 0.16: printed as it is, Eq. 39 would make the net radiation to the sky negative."""
    day = daily_evapotranspiration(
        temperature_max_c=9.0, temperature_min_c=7.0, vapour_kpa=1.0, wind_m_s=2.0,
        radiation_mj_m2=5.0, day_of_year=187, **BRUSSELS,
    )  # fmt: skip
    assert 0.0 < float(day.net_longwave_mj_m2) < 0.4


def test_radiation_comes_from_the_best_that_was_measured_and_says_so() -> None:
    radiation, source = radiation_of_what_is_there(
        [20.0, np.nan, np.nan, np.nan, 70.0], [9.0, 9.25, np.nan, np.nan, 9.25],
        [21.5, 21.5, 21.5, np.nan, 21.5], 12.3, latitude_deg=50.8, day_of_year=187,
    )  # fmt: skip
    assert [RadiationSource(number).name for number in source] == [
        "MEASURED", "SUNSHINE", "TEMPERATURES", "NONE", "SUNSHINE",
    ]  # fmt: skip
    assert radiation[:2] == pytest.approx([20.0, 22.07], abs=5e-3)
    assert np.isnan(radiation[3])


# --- judges

DAYS = np.arange(1, 366)


@pytest.fixture(scope="module")
def weather() -> dict[str, Any]:
    """A year of days as they might be at a town of 52° N: frost, heat, overcast and clear ones."""
    generator = np.random.default_rng(56)
    warmest = 13 - 11 * np.cos(2 * np.pi * (DAYS - 20) / 365) + generator.normal(0, 4, DAYS.size)
    sky = generator.uniform(0.08, 0.78, DAYS.size)
    return {
        "temperature_max_c": warmest,
        "temperature_min_c": warmest - generator.uniform(0.5, 15, DAYS.size),
        "humidity_max_pct": generator.uniform(70, 100, DAYS.size),
        "humidity_min_pct": generator.uniform(20, 70, DAYS.size),
        "wind_m_s": generator.uniform(0.3, 8, DAYS.size),
        "radiation_mj_m2": sky * ours.extraterrestrial_radiation(51.5, DAYS),
        "altitude_m": 101.0,
        "latitude_deg": 51.5,
        "day_of_year": DAYS,
    }


@pytest.fixture(scope="module")
def pyet_weather(weather: dict[str, Any]) -> dict[str, Any]:
    import pandas as pd

    index = pd.date_range("2026-01-01", periods=365)
    series = {
        name: pd.Series(values, index)
        for name, values in weather.items()
        if isinstance(values, np.ndarray)
    }
    return {
        "tmean": (series["temperature_max_c"] + series["temperature_min_c"]) / 2,
        "tmax": series["temperature_max_c"],
        "tmin": series["temperature_min_c"],
        "rhmax": series["humidity_max_pct"],
        "rhmin": series["humidity_min_pct"],
        "wind": series["wind_m_s"],
        "rs": series["radiation_mj_m2"],
        "elevation": 101.0,
        "lat": np.radians(51.5),
    }


def test_a_year_of_days_is_that_of_pyet(
    weather: dict[str, Any], pyet_weather: dict[str, Any]
) -> None:
    import pyet

    theirs = pyet.pm_fao56(**pyet_weather, clip_zero=False).to_numpy()
    assert np.ptp(theirs) > 5
    np.testing.assert_allclose(reference_evapotranspiration(**weather), theirs, rtol=0, atol=1e-8)


def test_a_year_of_days_is_that_of_pyfao56_with_its_constants(
    weather: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyfao56.refet import ascedaily

    w = weather
    theirs = np.array([
        ascedaily(
            rfcrp="S", z=101.0, lat=51.5, doy=int(day), israd=w["radiation_mj_m2"][row],
            tmax=w["temperature_max_c"][row], tmin=w["temperature_min_c"][row],
            rhmax=w["humidity_max_pct"][row], rhmin=w["humidity_min_pct"][row],
            wndsp=w["wind_m_s"][row], wndht=10.0,
        )
        for row, day in enumerate(DAYS)
    ])  # fmt: skip
    at_2_m = weather | {"wind_m_s": ours.wind_at_2_m(w["wind_m_s"], 10.0)}
    as_printed = reference_evapotranspiration(**at_2_m)
    assert 1e-5 < np.abs(as_printed - theirs).max() < 1e-3
    monkeypatch.setattr(ours, "_STEFAN_BOLTZMANN_DAY", 4.901e-9)
    monkeypatch.setattr(ours, "_SLOPE_FACTOR", 2503.0 / 0.6108)
    np.testing.assert_allclose(reference_evapotranspiration(**at_2_m), theirs, rtol=0, atol=1e-9)


def test_days_of_temperatures_alone_are_pyets_but_for_the_heat_of_evaporation(
    pyet_weather: dict[str, Any], weather: dict[str, Any]
) -> None:
    import pyet

    names = ("tmean", "tmax", "tmin", "lat")
    theirs = pyet.hargreaves(**{name: pyet_weather[name] for name in names}).to_numpy()
    # pyet divides by λ(T) = 2.501 − 0.002361 T, FAO-56 by 2.45 (which it prints as 0.408).
    heat = 2.501 - 0.002361 * pyet_weather["tmean"].to_numpy()
    found = hargreaves_evapotranspiration(
        weather["temperature_max_c"], weather["temperature_min_c"], 51.5, DAYS
    )
    np.testing.assert_allclose(found / 0.408, theirs * heat, rtol=0, atol=1e-8)


def test_ten_days_of_hours_are_those_of_pyfao56_with_its_constants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pyfao56.refet import ascehourly

    generator = np.random.default_rng(53)
    clock = np.arange(240)
    hour, day = clock % 24 + 0.5, 180 + clock // 24
    sun = np.clip(np.sin(np.pi * (hour - 5) / 15), 0, None)
    drawn = {
        "temperature_c": 14 + 8 * sun + generator.normal(0, 1, clock.size),
        "humidity_pct": generator.uniform(30, 100, clock.size),
        "wind_m_s": generator.uniform(0.3, 6, clock.size),
        "radiation_mj_m2": sun * generator.uniform(0.1, 3.4, clock.size),
    }
    carried, theirs = 0.46, []
    for row in range(clock.size):
        value, carried = ascehourly(
            rfcrp="S", z=101.0, lat=51.5, lon=0.0, lzn=0.0, doy=int(day[row]), sct=hour[row],
            israd=drawn["radiation_mj_m2"][row], tavg=drawn["temperature_c"][row],
            rhum=drawn["humidity_pct"][row], wndsp=drawn["wind_m_s"][row], wndht=2.0,
            csreq="S", fcdpt=carried,
        )  # fmt: skip
        theirs.append(value)
    monkeypatch.setattr(ours, "_STEFAN_BOLTZMANN_HOUR", 2.042e-10)
    monkeypatch.setattr(ours, "_SLOPE_FACTOR", 2503.0 / 0.6108)
    drawn["wind_m_s"] = ours.wind_at_2_m(drawn["wind_m_s"], 2.0)
    found = hourly_evapotranspiration(
        **drawn, altitude_m=101.0, latitude_deg=51.5, longitude_deg=0.0, day_of_year=day,
        middle_utc_h=hour, clearness_before=(0.46 + 0.35) / 1.35, drag=ASCE_DRAG,
    )  # fmt: skip
    np.testing.assert_allclose(found.evapotranspiration_mm, theirs, rtol=0, atol=1e-9)
