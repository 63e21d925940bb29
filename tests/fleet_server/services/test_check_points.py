"""What others measured beside the probe's values of a real node: difference, E_n, trend, and what cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from corrections import LATER, measured, values
from external_world import act_as, imported
from factories import NOON
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import ImportKind, Scope
from fleet_server.services import check_points, correcting, revising, taking_over
from fleet_server.services.check_points import WindowWrong
from fleet_server.services.correcting import (
    CorrectionOutdated,
    CorrectionRefused,
    CorrectionWrong,
    NewCorrection,
)
from fleet_server.services.external_files import MeasurementRules, ValueColumn
from fleet_server.services.external_importing import ImportElsewhere, Origin, withdraw_import
from fleet_server.services.verifying import verify

SITE = "n-000001-site"
RULES = MeasurementRules(
    (ValueColumn("T", "soil_temperature", "°C", depth_cm=30, u_column="u"),),
    "Zeit",
    site_code=SITE,
)
HAND = Origin(ImportKind.HAND, "Ada", instrument="thermometer 7")


def given(session: Session, *rows: tuple[int, str, str]) -> None:
    """Values of another's thermometer so many seconds after noon; the probe shows 19.875 every quarter of an hour from then."""
    lines = [f"{NOON + timedelta(seconds=s):%Y-%m-%dT%H:%M:%SZ};{t};{u}\n" for s, t, u in rows]
    done = imported(session, "Zeit;T;u\n" + "".join(lines), RULES, origin=HAND)
    assert done.import_id is not None, done.plan.wrong


def test_value_of_another_lies_beside_the_probes_with_difference_and_normalized_error(
    session: Session,
) -> None:
    measured(session, 4)
    given(session, (1350, "19.775", "0.1"), (2700, "25", "0.1"), (3000, "20", ""))
    late, wrong, good = check_points.check_points(session, site_code=SITE)
    assert (good.serial, good.source, good.depth_cm) == ("n-000001/d30", "Ada", 30)
    assert good.measured is not None
    assert good.measured.is_interpolated
    assert good.difference == pytest.approx(0.1)
    assert good.difference_u == pytest.approx((good.measured.u**2 + 0.1**2) ** 0.5, rel=1e-6)
    assert good.en == pytest.approx(0.1 / (2 * (good.difference_u or 0)))
    assert (good.agrees, wrong.agrees) == (True, False)
    assert late.difference == pytest.approx(-0.125)
    assert (late.difference_u, late.en, late.agrees) == (None, None, None), "unknown is not zero"
    [trend] = check_points.trends([late, wrong, good])
    assert (trend.serial, trend.count) == ("n-000001/d30", 3)
    assert trend.trend is not None


def test_what_has_no_probe_near_or_is_no_number_is_shown_without_a_difference(
    session: Session,
) -> None:
    measured(session, 4)
    given(session, (30_000, "20", "0.1"), (900, "< 19", ""))
    far, limit = check_points.check_points(session)
    assert (far.measured, far.difference) == (None, None)
    assert (limit.limit_sign, limit.limit_value, limit.difference) == ("<", 19.0, None)
    wide = check_points.check_points(session, window=timedelta(days=1))
    assert wide[0].measured is not None
    with pytest.raises(WindowWrong):
        check_points.check_points(session, window=timedelta(days=2))


def test_check_points_of_one_probe_and_of_nobodys_business(session: Session) -> None:
    measured(session, 4)
    given(session, (900, "20", "0.1"))
    assert len(check_points.check_points(session, serial="n-000001/d30")) == 1
    assert check_points.check_points(session, serial="n-000001/w30") == []
    assert check_points.check_points(session, site_code="elsewhere") == []
    act_as(session, "wanda", Scope.WATERS)
    assert check_points.check_points(session) == []


def test_check_point_becomes_a_draft_that_names_its_import_and_is_approved_as_ever(
    session: Session,
) -> None:
    measured(session, 5)
    act_as(session, "ada")
    given(session, (3600, "20.275", "0.1"))
    [point] = check_points.check_points(session)
    draft = taking_over.take_over(session, point.observation_id, from_at=NOON, now=LATER)
    assert (draft.low_standard, draft.low_reading) == (20.275, 19.875)
    assert (draft.from_import_id, draft.to_at, draft.rating) == (point.import_id, point.at, "good")
    number = draft.id
    act_as(session, "grace")
    correcting.approve_correction(session, number, now=LATER)
    while revising.advance(session, now=LATER):
        pass
    assert values(session, "t30") == pytest.approx([19.975, 20.075, 20.175, 19.875, 19.875])
    assert verify(session).is_clean
    with pytest.raises(ImportElsewhere, match=f"Drift correction {number} stands on import"):
        withdraw_import(session, point.import_id, reason="another probe", now=LATER)
    correcting.withdraw_correction(session, number, reason="another probe", now=LATER)
    assert withdraw_import(session, point.import_id, reason="another probe", now=LATER).withdrawn_at


def test_draft_whose_import_was_withdrawn_is_not_approved(session: Session) -> None:
    measured(session, 5)
    act_as(session, "ada")
    given(session, (3600, "20.275", "0.1"))
    [point] = check_points.check_points(session)
    draft = taking_over.take_over(session, point.observation_id, from_at=NOON, now=LATER)
    withdraw_import(session, point.import_id, reason="another probe", now=LATER)
    act_as(session, "grace")
    with pytest.raises(CorrectionOutdated, match="was withdrawn: withdraw the draft, too"):
        correcting.approve_correction(session, draft.id, now=LATER)


@pytest.mark.parametrize(
    ("row", "error", "sentence"),
    [
        ((30_000, "20", ""), CorrectionRefused, "nothing to compare"),
        ((1800, "< 19", ""), CorrectionRefused, "nothing to compare"),
        ((1800, "20", ""), CorrectionWrong, "The later visit comes after"),
    ],
)
def test_check_point_that_shows_no_drift_is_not_taken_over(
    session: Session, row: tuple[int, str, str], error: type[Exception], sentence: str
) -> None:
    measured(session, 4)
    given(session, row)
    [point] = check_points.check_points(session)
    with pytest.raises(error, match=sentence):
        taking_over.take_over(session, point.observation_id, from_at=LATER, now=LATER)
    with pytest.raises(NotFound):
        taking_over.take_over(session, 5, from_at=NOON, now=LATER)


def test_value_that_its_giver_calls_bad_corrects_nothing(session: Session) -> None:
    measured(session, 4)
    column = replace(RULES.values[0], u_column=None, flag_column="u")
    rules = replace(RULES, values=(column,), flags={"bubbles": 4})
    text = f"Zeit;T;u\n{NOON + timedelta(seconds=1800):%Y-%m-%dT%H:%M:%SZ};20.275;bubbles\n"
    assert imported(session, text, rules, origin=HAND).import_id is not None
    [point] = check_points.check_points(session)
    with pytest.raises(CorrectionRefused, match="calls it bad"):
        taking_over.take_over(session, point.observation_id, from_at=NOON, now=LATER)


def test_corrected_value_is_not_corrected_by_itself_again(session: Session) -> None:
    measured(session, 4)
    act_as(session, "ada")
    given(session, (1800, "20.275", "0.1"))
    [point] = check_points.check_points(session)
    at = NOON + timedelta(seconds=2700)
    new = NewCorrection("n-000001/d30", "soil_temperature", NOON, at, fouling=0.3)
    draft = correcting.draft_correction(session, new, now=LATER)
    act_as(session, "grace")
    correcting.approve_correction(session, draft.id, now=LATER)
    while revising.advance(session, now=LATER):
        pass
    with pytest.raises(CorrectionRefused, match="corrected already"):
        taking_over.take_over(session, point.observation_id, from_at=NOON, now=LATER)
