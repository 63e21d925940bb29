"""Means of hours and local days: made once their values are judged, made again when those change, and provable to the bit."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from corrections import calibrate
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from judged_world import SPIKE_AT, STEP_S, Thermometer
from sqlalchemy import delete, event, func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.measurement.quality import GrossRange
from fleet_server.measurement.rules import DEFAULTS, to_data
from fleet_server.models import (
    AggregateDetail,
    AggregatedStream,
    Calibration,
    Channel,
    Datastream,
    Observation,
    ObservationCount,
    ObservationHistory,
    PersonFlag,
    Revision,
    RuleSet,
)
from fleet_server.services import aggregating, flagging, known_then, quality_rules, revising
from fleet_server.services.ingest import store_batch
from fleet_server.services.verification.aggregates import check_aggregates
from fleet_server.services.verification.report import Report
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night

LATER = NOON + timedelta(days=2)
QUARTERS_A_DAY = 96


@pytest.fixture
def judged(session: Session) -> Thermometer:
    """Quarter hours of fifteen hours from noon on (UTC; it is midnight in the city ten hours later), judged."""
    world = Thermometer(session)
    world.judge()
    return world


@pytest.fixture
def world(judged: Thermometer) -> Thermometer:
    """With the means of twelve hours and of the day that ended."""
    judged.aggregate()
    return judged


def means(session: Session, level: str = "hourly", key: str = "t30") -> list[Observation]:
    session.expire_all()
    source = select(Channel.datastream_id).where(Channel.key == key)
    return list(
        session.scalars(
            select(Observation)
            .join(Datastream, Datastream.id == Observation.datastream_id)
            .where(Datastream.source_id.in_(source), Datastream.level == level)
            .order_by(Observation.sampled_at)
        )
    )


def detail_of(session: Session, mean: Observation) -> AggregateDetail:
    return session.get_one(AggregateDetail, (mean.datastream_id, mean.sampled_at, mean.known_from))


@pytest.mark.also_on_postgresql
def test_mean_of_an_hour_has_its_u_flag_extremes_count_and_completeness(world: Thermometer) -> None:
    values = world.rows()
    second = means(world.session)[1]  # 13:00: quarters 4 to 7
    went_in = [
        row for row in values if row.sampled_at.hour == 13 and row.sampled_at.date() == NOON.date()
    ]
    assert second.sampled_at == NOON + timedelta(hours=1)
    assert len(went_in) == 4
    assert second.value == pytest.approx(sum(row.value or 0.0 for row in went_in) / 4)
    assert second.u == pytest.approx(sum(row.u or 0.0 for row in went_in) / 4), "one probe's error"
    assert second.flag == 1
    detail = detail_of(world.session, second)
    assert (detail.minimum, detail.maximum) == (
        min(row.value or 0.0 for row in went_in),
        max(row.value or 0.0 for row in went_in),
    )
    assert (detail.count, detail.completeness) == (4, 1.0)
    report = verify(world.session)
    assert report.is_clean, report.findings


@pytest.mark.also_on_postgresql
def test_day_is_the_citys_and_rests_on_its_quarter_hours(session: Session) -> None:
    world = Thermometer(session, 150)
    world.judge()
    world.aggregate()
    first, second = means(world.session, "daily")
    assert [mean.sampled_at for mean in (first, second)] == [
        NOON - timedelta(hours=14),
        NOON + timedelta(hours=10),
    ]
    assert detail_of(world.session, second).count == QUARTERS_A_DAY
    assert (first.flag, second.flag) == (3, 1), "the probe came at noon: less than 75 % of that day"
    assert detail_of(world.session, first).completeness == 38 / QUARTERS_A_DAY, "one of 39 is bad"


def test_hour_is_made_once_it_is_judged_and_only_once(world: Thermometer) -> None:
    newest = world.rows()[-1].sampled_at
    assert means(world.session)[-1].sampled_at <= newest - timedelta(hours=4)
    known = [row.known_from for row in means(world.session)]
    assert aggregating.aggregate_due(world.session, now=LATER) == 0
    world.send(range(61, 70))
    world.judge()
    world.aggregate()
    assert [row.known_from for row in means(world.session)][: len(known)] == known
    assert len(means(world.session)) == len(known) + 2
    assert world.session.scalars(select(Revision).where(Revision.kind == "aggregates")).all() == []


def test_bad_value_does_not_go_in_and_lowers_completeness(world: Thermometer) -> None:
    at = NOON + timedelta(seconds=STEP_S * SPIKE_AT)
    assert world.rows()[SPIKE_AT - 1].flag == 4
    hour = next(
        row
        for row in means(world.session)
        if row.sampled_at <= at < row.sampled_at + timedelta(hours=1)
    )
    detail = detail_of(world.session, hour)
    assert (detail.count, detail.completeness, hour.flag) == (3, 0.75, 3), (
        "what is beside a spike is suspect"
    )
    assert (detail.maximum or 0.0) < 25.0


def test_late_pack_makes_its_hour_and_day_anew_and_what_was_known_stays(session: Session) -> None:
    deployed_node(session)
    world = Thermometer.__new__(Thermometer)
    world.session, world.node = session, SimulatedNode()
    late = 30
    world.send([seq for seq in range(1, 61) if seq != late])
    world.judge()
    world.aggregate()
    hour = NOON + timedelta(seconds=STEP_S * late)
    hour = hour.replace(minute=0)
    before = next(row for row in means(session) if row.sampled_at == hour)
    was = (before.value, detail_of(session, before).count, before.known_from)
    day_was = detail_of(session, means(session, "daily")[0]).count

    world.send([late], now=LATER + timedelta(hours=1))
    assert verify(session).is_clean, "it waits; nobody claims anything of it"
    world.judge(now=LATER + timedelta(hours=1))
    world.aggregate(now=LATER + timedelta(hours=2))

    after = next(row for row in means(session) if row.sampled_at == hour)
    assert (was[1], detail_of(session, after).count) == (3, 4)
    assert detail_of(session, means(session, "daily")[0]).count == day_was + 1
    (kept,) = session.scalars(
        select(ObservationHistory).where(
            ObservationHistory.datastream_id == after.datastream_id,
            ObservationHistory.sampled_at == hour,
        )
    )
    assert (kept.value, kept.known_from, kept.known_to) == (was[0], was[2], after.known_from)
    then = session.execute(
        known_then.as_of(
            select(Observation.value).where(
                Observation.datastream_id == after.datastream_id, Observation.sampled_at == hour
            ),
            LATER,
        )
    ).scalar_one()
    assert then == was[0]
    report = verify(session)
    assert report.is_clean, report.findings
    assert report.versions >= 2


def test_flag_that_a_person_gives_takes_a_value_out_of_its_means(world: Thermometer) -> None:
    begin = NOON + timedelta(hours=8)
    before = next(row for row in means(world.session) if row.sampled_at == begin).value
    flagging.give_flag(
        world.session,
        world.rows()[0].datastream_id,
        flag=4,
        from_at=begin,
        to_at=begin + timedelta(minutes=40),
        reason="roots",
        author="Ada",
        now=LATER,
    )
    world.judge()
    world.aggregate(now=LATER + timedelta(hours=1))
    after = next(row for row in means(world.session) if row.sampled_at == begin)
    assert (before, after.flag) != (after.value, 1)
    assert detail_of(world.session, after).count == 1
    report = verify(world.session)
    assert report.is_clean, report.findings


def test_mean_whose_values_get_new_versions_that_change_no_bit_of_it_stays_and_is_proved(
    world: Thermometer,
) -> None:
    """The lineage of a value names the range that it was judged by; a mean names probe and calibration."""
    before = [(row.sampled_at, row.known_from) for row in means(world.session)]
    own = replace(
        DEFAULTS["soil_temperature"],
        gross=GrossRange("Cel", fail=(-30.0, 60.0), suspect=(-30.0, 50.0)),
    )
    quality_rules.set_rules(
        world.session, "soil_temperature", to_data(own), reason="a green roof", author="Ada",
        now=LATER, datastream_id=world.rows()[0].datastream_id,
    )  # fmt: skip
    while revising.advance(world.session, now=LATER):
        pass
    world.judge(now=LATER)
    world.aggregate(now=LATER + timedelta(hours=1))
    assert min(row.known_from for row in world.rows()) >= LATER
    assert [(row.sampled_at, row.known_from) for row in means(world.session)] == before
    report = verify(world.session)
    assert report.is_clean, report.findings
    with db.writing(world.session):
        world.session.execute(
            update(ObservationHistory).values(value=ObservationHistory.value + 1.0)
        )
    report = Report()
    check_aggregates(world.session, report)
    assert report.findings, "what was known when the mean became known does not give it"


def test_nobody_flags_a_mean_or_sets_limits_of_it_and_no_page_offers_that(
    world: Thermometer,
) -> None:
    """It follows from its values: whoever doubts it says so of them."""
    mean = means(world.session)[0].datastream_id
    limits = to_data(DEFAULTS["soil_temperature"])
    with pytest.raises(NotFound, match="There are no values with the number"):
        flagging.give_flag(
            world.session, mean, flag=4, from_at=NOON, to_at=LATER, reason="roots", author="Ada",
            now=LATER,
        )  # fmt: skip
    with pytest.raises(NotFound, match="There is no datastream"):
        quality_rules.set_rules(
            world.session, "soil_temperature", limits, reason="roots", author="Ada", now=LATER,
            datastream_id=mean,
        )  # fmt: skip
    with pytest.raises(NotFound, match="There are no values with the number"):
        flagging.series_with_id(world.session, mean)
    for model in (PersonFlag, RuleSet):
        assert world.session.scalar(select(func.count()).select_from(model)) == 0


def test_one_changed_bit_of_a_mean_or_of_what_belongs_to_it_is_found(world: Thermometer) -> None:
    session = world.session
    calibrate(session, "t30", offset=-1.5, now=LATER)
    while revising.advance(session, now=LATER):
        pass
    world.judge(now=LATER + timedelta(hours=1))
    world.aggregate(now=LATER + timedelta(hours=1))
    hour, other = means(session)[8:10]
    (day,) = means(session, "daily")
    assert findings(session) == []

    def of(model: Any, mean: Observation) -> Any:
        return (model.datastream_id == mean.datastream_id) & (model.sampled_at == mean.sampled_at)

    current = of(AggregateDetail, hour) & (AggregateDetail.known_from == hour.known_from)
    replaced = of(AggregateDetail, hour) & (AggregateDetail.known_from != hour.known_from)
    one_bit = math.nextafter(hour.value or 0.0, 100.0)
    planted = {
        "value": update(Observation).where(of(Observation, hour)).values(value=one_bit),
        "u": update(Observation).where(of(Observation, day)).values(u=(day.u or 0.0) * 0.5),
        "flag": update(Observation).where(of(Observation, hour)).values(flag=3),
        "lineage": update(Observation)
        .where(of(Observation, hour))
        .values(lineage_id=day.lineage_id),
        "tests": update(Observation).where(of(Observation, hour)).values(tests=1),
        "known too early": update(Observation)
        .where(of(Observation, other))
        .values(known_from=NOON),
        "completeness": update(AggregateDetail).where(current).values(completeness=0.9),
        "minimum": update(AggregateDetail).where(current).values(minimum=one_bit - 5.0),
        "count": update(AggregateDetail).where(current).values(count=5),
        "detail gone": delete(AggregateDetail).where(current),
        "mean gone": delete(Observation).where(of(Observation, hour)),
        "replaced value": update(ObservationHistory)
        .where(of(ObservationHistory, hour))
        .values(value=one_bit),
        "replaced tests": update(ObservationHistory)
        .where(of(ObservationHistory, hour))
        .values(tests=1),
        "replaced maximum": update(AggregateDetail).where(replaced).values(maximum=one_bit),
        "replaced ends late": update(ObservationHistory)
        .where(of(ObservationHistory, hour))
        .values(known_to=LATER + timedelta(days=9)),
        "kept count": update(ObservationCount)
        .where(ObservationCount.datastream_id == hour.datastream_id)
        .values(count=ObservationCount.count + 1),
        "more is said to be made": update(AggregatedStream).values(
            made_to=hour.sampled_at + timedelta(hours=9)
        ),
    }
    for name, statement in planted.items():
        with contextlib.suppress(_Undone), db.writing(session):
            assert session.execute(statement).rowcount > 0, name
            found = findings(session)
            assert found, name
            raise _Undone
    assert findings(session) == []


class _Undone(Exception):
    pass


def findings(session: Session) -> list[str]:
    session.expire_all()
    report = Report()
    check_aggregates(session, report)
    assert report.observations_not_reproducible == len(report.findings)
    return report.findings


def test_values_that_go_take_their_means_along_into_the_history(world: Thermometer) -> None:
    session = world.session
    there = len(means(session))
    sensor = select(Channel.sensor_id).where(Channel.key == "t30").scalar_subquery()
    with db.writing(session):
        session.execute(
            update(Calibration)
            .where(Calibration.sensor_id == sensor)
            .values(valid_from=NOON + timedelta(hours=6))
            .execution_options(synchronize_session=False)
        )
        revising.order_revision(
            session,
            kind="calibration",
            reason="was withdrawn",
            author="Ada",
            sensor_id=session.scalars(select(sensor)).one(),
            observed_property="soil_temperature",
            now=LATER,
        )
    while revising.advance(session, now=LATER):
        pass
    world.judge(now=LATER)
    world.aggregate(now=LATER)
    left = means(session)
    assert left[0].sampled_at == NOON + timedelta(hours=6)
    assert len(left) == there - 6
    kept = session.scalars(
        select(func.count()).where(ObservationHistory.datastream_id == left[0].datastream_id)
    ).one()
    assert kept >= 6
    assert findings(session) == []


@pytest.mark.parametrize("statement", range(1, 9))
def test_worker_that_dies_at_any_statement_has_made_a_whole_piece_or_nothing(
    judged: Thermometer, statement: int
) -> None:
    session = judged.session
    writes = 0

    def die(*given: Any) -> None:
        nonlocal writes
        writes += not given[2].lstrip().upper().startswith(("SELECT", "BEGIN", "PRAGMA"))
        if writes == statement:
            raise _Undone

    event.listen(session.get_bind(), "before_cursor_execute", die)
    with contextlib.suppress(_Undone):
        aggregating.aggregate_due(session, now=LATER)
    event.remove(session.get_bind(), "before_cursor_execute", die)
    session.rollback()
    assert writes == statement, "it died"
    assert findings(session) == []
    judged.aggregate()
    assert len(means(session)) == 12
    assert findings(session) == []


@pytest.mark.also_on_postgresql
def test_value_that_is_stored_while_means_are_made_is_in_them(
    judged: Thermometer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_s = aggregating.StreamAggregator.values
    stored = []

    def values(self: Any, from_s: int, to_s: int, **given: Any) -> Any:
        found = first_s(self, from_s, to_s, **given)
        if not stored:
            stored.append(True)
            # Another connection: a pack of this morning arrives at this moment.
            with Session(judged.session.get_bind()) as other:
                judged.session.commit()
                store_batch(other, [judged.node.pack(999, at_s=NOON_S + 600)], now=LATER)
        return found

    monkeypatch.setattr(aggregating.StreamAggregator, "values", values)
    judged.aggregate()
    assert stored
    assert detail_of(judged.session, means(judged.session)[0]).count == 4
    assert findings(judged.session) == []


@pytest.mark.also_on_postgresql
def test_work_is_the_same_for_each_new_hour_however_long_the_past(judged: Thermometer) -> None:
    session = judged.session
    judged.aggregate()
    counts = []
    for start in (61, 101):
        judged.send(range(start, start + 40))
        judged.judge()
        with counted(session) as statements:
            assert aggregating.aggregate_due(session, now=LATER) == 1
        counts.append(len(statements))
    assert counts[0] == pytest.approx(counts[1], abs=4), "a day ended in one of them"
    assert max(counts) <= 30
    with counted(session) as statements:
        aggregating.aggregate_due(session, now=LATER)
    assert len([one for one in statements if one != "BEGIN"]) == 1


def test_ingest_asks_for_means_only_when_values_are_old(judged: Thermometer) -> None:
    session = judged.session
    judged.aggregate()
    with counted(session) as statements:
        judged.send([61])
    assert not [one for one in statements if "aggregated_stream" in one]
    with counted(session) as statements:
        judged.send(range(62, 70), now=LATER)
    assert len([one for one in statements if "aggregated_stream" in one]) == 1


@contextlib.contextmanager
def counted(session: Session) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(*given: Any) -> None:
        seen.append(given[2])

    event.listen(session.get_bind(), "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(session.get_bind(), "before_cursor_execute", note)


@pytest.mark.parametrize(
    ("midnight", "hours"),
    [
        (datetime(2026, 3, 28, 23, tzinfo=UTC), 23),
        (datetime(2026, 10, 24, 22, tzinfo=UTC), 25),
        (datetime(2026, 6, 30, 22, tzinfo=UTC), 24),
    ],
)
def test_day_in_which_clocks_change_has_its_own_length(midnight: datetime, hours: int) -> None:
    begin_s = int(midnight.timestamp())
    assert aggregating.day_begin(begin_s + 7200) == begin_s
    assert aggregating.interval_end("daily", begin_s) == begin_s + hours * 3600
    piece = aggregating.new_piece(begin_s, begin_s + hours * 3600)
    assert piece.days_s == (begin_s, begin_s + hours * 3600)
    assert len(piece.hours_s) == hours + 1


def test_pieces_make_every_hour_and_day_once_wherever_they_are_cut() -> None:
    begin = int(datetime(2026, 10, 23, 7, tzinfo=UTC).timestamp())
    end = begin + 80 * 3600
    whole = aggregating.new_piece(begin, end)
    for cut in range(begin + 3600, end, 3600):
        parts = [aggregating.new_piece(begin, cut), aggregating.new_piece(cut, end)]
        for level in aggregating.LEVELS:
            begins = [one for part in parts for one in part.edges_of(level)[:-1]]
            assert begins == [*whole.edges_of(level)[:-1]]
