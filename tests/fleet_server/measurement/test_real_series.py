"""docs/measurement/real_series.md says what is so: its numbers are worked out again, its pictures drawn again."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.fleet_server.measurement import real_series
from tests.fleet_server.measurement.test_measurement_fits import NEEDS_SERIES
from tests.fleet_server.measurement.test_quality_judges import needs_series

_FOLDER = Path(__file__).parents[3] / "docs" / "measurement"
_NUMBER = re.compile(r"-?\d+\.?\d*")

pytestmark = [*needs_series, *NEEDS_SERIES]


def test_numbers_and_pictures_of_the_page_are_those_of_the_series() -> None:
    text = (_FOLDER / "real_series.md").read_text(encoding="utf-8")
    written = real_series.TABLE.search(text)
    assert written is not None
    assert written.group() == real_series.table()
    for name, draw in real_series.DRAWINGS.items():
        kept = (_FOLDER / name).read_text(encoding="utf-8")
        drawn = draw()
        assert _NUMBER.sub("", kept) == _NUMBER.sub("", drawn), name
        numbers = [np.array([float(one) for one in _NUMBER.findall(svg)]) for svg in (kept, drawn)]
        # A tenth of a pixel: the last digit of a cosine may be another one elsewhere.
        np.testing.assert_allclose(numbers[0], numbers[1], rtol=0, atol=0.11, err_msg=name)
        assert f"]({name})" in text


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_correction_brings_a_fouled_record_back_within_its_own_uncertainty(power: float) -> None:
    one = real_series.fouled(power)
    before, after = (np.abs(x - one.truth) for x in (one.shown, one.corrected))
    assert after.mean() < 0.65 * before.mean()
    assert after[-1] < 1e-9
    assert (after <= 2 * one.u).mean() > 0.95
    assert (before <= 2 * 0.1).mean() < 0.5
