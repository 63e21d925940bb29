"""Why a value is flagged, in both languages."""

from __future__ import annotations

import numpy as np
import pytest
from flask import Flask
from flask_babel import force_locale

from fleet_server.http_shared.languages import register_languages
from fleet_server.measurement import reasons
from fleet_server.measurement.in_context import Context
from fleet_server.measurement.quality import QualityTest, Result
from fleet_server.measurement.rules import DEFAULTS
from fleet_server.measurement.windows import Series
from fleet_server.services import fitting, flag_reasons
from fleet_server.web.faults import in_words
from tests.fleet_server.measurement.test_measurement_in_context import KINDS


@pytest.fixture(scope="module")
def pages() -> Flask:
    app = Flask("fleet_server")
    register_languages(app)
    return app


def test_fast_rise_is_said_with_its_numbers_in_english_and_in_german(pages: Flask) -> None:
    series = Series([0, 900], [0.2, 0.51])
    (reason,) = reasons.explain(series, DEFAULTS["soil_water_content"], Context(), 1)
    said = flag_reasons.said(reason, "soil_water_content")
    assert said == "It rose 0.31 m³/m³ in 15 min; at most 0.0375 m³/m³ is believed."
    with pages.test_request_context(), force_locale("de"):
        assert in_words(said).replace("\N{NO-BREAK SPACE}", " ") == (
            "Er stieg um 0,31 m³/m³ in 15 min; geglaubt wird höchstens 0,0375 m³/m³."
        )


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_reason_has_its_sentence(pages: Flask, kind: str) -> None:
    reason = reasons.Reason(
        QualityTest.SPIKE, Result.SUSPECT, kind, dict.fromkeys(KINDS[kind], 1234.5)
    )
    said = flag_reasons.said(reason, "water_temperature")
    assert said.endswith(".")
    assert ("1234" in said) == bool(KINDS[kind])
    with pages.test_request_context(), force_locale("de"):
        assert in_words(said) not in ("", said)


def test_every_test_has_a_sentence_for_when_its_numbers_are_gone(pages: Flask) -> None:
    with pages.test_request_context(), force_locale("de"):
        said = [in_words(flag_reasons.said_without_numbers(test)) for test in QualityTest]
    assert len(set(said)) == len(QualityTest)
    assert np.all([sentence.endswith(".") for sentence in said])


def test_reason_of_a_fit_has_the_readers_comma(pages: Flask) -> None:
    said = fitting.in_words("slope", {"slope": 0.71234, "lowest": 0.9524, "highest": 1.176})
    assert "The slope is 0.7123; a sound probe has one between 0.9524 and 1.176." in said
    with pages.test_request_context(), force_locale("de"):
        assert "0,7123" in in_words(said)
