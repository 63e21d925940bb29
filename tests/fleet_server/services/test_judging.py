"""Tests that look at later values are filled in once those are there: the same bits as one look at all, and provable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from corrections import calibrate
from factories import NOON, POND_READINGS, SimulatedNode, deployed_node
from judged_world import SPIKE_AT, STEP_S, World
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.errors import Invalid, NotFound
from fleet_server.measurement.derived import oxygen_saturation
from fleet_server.measurement.quality import QualityTest, Result, result_of
from fleet_server.measurement.rules import DEFAULTS, Spike, to_data
from fleet_server.models import (
    Channel,
    Datastream,
    JudgedStream,
    Observation,
    ObservationHistory,
    RawReading,
    Revision,
    RuleSet,
)
from fleet_server.services import deploying, flagging, judging, quality_rules, revising
from fleet_server.services.ingest import store_batch
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night


@pytest.fixture
def world(session: Session) -> World:
    return World(session)


@pytest.mark.also_on_postgresql
def test_spike_is_flagged_once_what_comes_after_it_is_there_and_the_version_before_is_kept(
    world: World,
) -> None:
    assert {row.flag for row in world.rows()} == {1}
    before = world.rows()[SPIKE_AT - 1].known_from
    world.judge()
    flags = [row.flag for row in world.rows()]
    assert flags[SPIKE_AT - 1] == 4
    assert world.results(QualityTest.SPIKE)[SPIKE_AT - 2 : SPIKE_AT + 1] == [2, 3, 2]
    stream = world.rows()[0].datastream_id
    kept = world.session.scalars(
        select(ObservationHistory)
        .where(ObservationHistory.datastream_id == stream)
        .order_by(ObservationHistory.sampled_at)
    ).all()
    assert [row.flag for row in kept] == [1] * len(kept)
    assert NOON + timedelta(seconds=STEP_S * SPIKE_AT) in [row.sampled_at for row in kept]
    assert {row.known_from for row in kept} == {before}
    revision = world.session.scalars(select(Revision).order_by(Revision.id)).first()
    assert revision is not None
    assert (revision.kind, revision.author, revision.state) == ("quality_control", "qc", "done")
    assert verify(world.session).is_clean


def test_where_the_flag_stays_the_tests_are_filled_in_and_nothing_is_a_new_version(
    world: World,
) -> None:
    before = world.rows()
    known = [row.known_from for row in before]
    world.judge()
    after = world.rows()
    quiet = [place for place, row in enumerate(after) if row.flag == 1]
    assert [after[place].known_from for place in quiet] == [known[place] for place in quiet]
    judged = world.results(QualityTest.TIME)
    waiting = 3 * 3600 // STEP_S
    assert judged == [Result.GOOD] * (60 - waiting) + [Result.NOT_EVALUATED] * waiting


@pytest.mark.parametrize("cuts", [[60], [10, 21, 25, 60], [19, 20, 21, 60]])
def test_values_that_come_bit_by_bit_get_the_same_tests(session: Session, cuts: list[int]) -> None:
    world = World(session, cuts[0])
    start = cuts[0]
    for end in cuts[1:]:
        world.judge()
        world.send(range(start + 1, end + 1))
        start = end
    world.judge()
    found = [(row.flag, row.tests) for row in world.rows()]
    with db.writing(session):
        session.execute(update(JudgedStream).values(judged_to=None, due_at=NOON))
    world.judge()
    assert [(row.flag, row.tests) for row in world.rows()] == found
    assert found[SPIKE_AT - 1][0] == 4
    assert verify(session).is_clean


def test_value_that_came_late_is_judged_and_so_are_those_that_had_looked_at_its_neighbours(
    session: Session,
) -> None:
    deployed_node(session)
    world = World.__new__(World)
    world.session, world.node = session, SimulatedNode()
    world.send([seq for seq in range(1, 61) if seq != SPIKE_AT])
    world.judge()
    assert {row.flag for row in world.rows()} == {1}
    world.send([SPIKE_AT], now=NOON + timedelta(days=1))
    assert verify(session).is_clean  # it waits; nobody claims anything of it
    world.send(range(61, 70))
    world.judge()
    assert world.rows()[SPIKE_AT - 1].flag == 4
    assert world.results(QualityTest.SPIKE)[SPIKE_AT] == Result.SUSPECT
    assert verify(session).is_clean


def test_corrected_values_keep_their_tests_until_they_are_judged_again(world: World) -> None:
    world.judge()
    flags = [row.flag for row in world.rows()]
    calibrate(world.session, "t30", offset=-1.5, now=NOON + timedelta(days=1))
    while revising.advance(world.session, now=NOON + timedelta(days=1)):
        pass
    assert [row.flag for row in world.rows()] == flags
    assert verify(world.session).is_clean
    # With it go those beside it: a tension asks whether the soil was frozen.
    judged = world.session.scalars(select(JudgedStream.judged_to)).all()
    assert len(judged) > 3
    assert {at for at in judged if at is not None and at > NOON} == set()
    world.judge(now=NOON + timedelta(days=3))
    assert [row.flag for row in world.rows()] == flags
    assert verify(world.session).is_clean


def test_probe_that_was_swapped_in_the_past_has_its_values_judged_again(world: World) -> None:
    world.judge()
    at = NOON + timedelta(seconds=STEP_S * SPIKE_AT)
    deploying.swap_sensor(
        world.session, world.node.node_id, "d30", serial="NEW-30", at=at, now=at + timedelta(days=1)
    )
    assert verify(world.session).is_clean, "what was judged by the old mounting waits"
    while revising.advance(world.session, now=at + timedelta(days=1)):
        pass
    world.judge()
    assert world.results(QualityTest.TIME)[SPIKE_AT - 1] == Result.GOOD
    assert verify(world.session).is_clean


def test_estimated_time_of_a_reading_is_suspect(world: World) -> None:
    pack = world.rows()[4].pack_id
    with db.writing(world.session):
        world.session.execute(
            update(RawReading).where(RawReading.pack_id == pack).values(time_estimated=True)
        )
    world.judge()
    assert world.results(QualityTest.TIME)[3:6] == [Result.GOOD, Result.SUSPECT, Result.GOOD]
    assert world.rows()[4].flag == 3


def test_oxygen_that_its_own_saturation_contradicts_is_suspect_and_proved(session: Session) -> None:
    """The sixteenth test has the sign of what is stored."""
    deployed_node(session, model="pond-1")
    node = SimulatedNode(readings=POND_READINGS)
    wrong = range(12, 20)
    packs = [
        node.pack(seq, readings={**POND_READINGS, "do": 6.9} if seq in wrong else None)
        for seq in range(1, 31)
    ]
    store_batch(session, packs, now=NOON)
    for _ in range(10):
        judging.judge_due(session, now=NOON + timedelta(days=2))
    rows = session.scalars(
        select(Observation)
        .join(Channel, Channel.datastream_id == Observation.datastream_id)
        .where(Channel.key == "do")
        .order_by(Observation.sampled_at)
    ).all()
    judged = [result_of(row.tests, QualityTest.PROBE) for row in rows]
    assert judged[:18] == [1] * 11 + [2] * 7
    assert [row.tests < 0 for row in rows[:18]] == [False] * 11 + [True] * 7
    assert {row.flag for row in rows[12:18]} == {3}
    stream = session.get_one(Datastream, rows[0].datastream_id)
    (reason,) = flagging.why(session, stream, rows[14].sampled_at).reasons
    assert reason.kind == "mismatch"
    assert verify(session).is_clean


def test_film_on_an_oxygen_probe_is_found_week_by_week_as_in_one_look(session: Session) -> None:
    """Its saturation is worked out with the water's warmth of up to 92 days before."""
    deployed_node(session, model="pond-1")
    store_batch(session, [SimulatedNode(readings=POND_READINGS).pack(1)], now=NOON)
    first = {
        row.key: row
        for row in session.execute(
            select(
                Channel.key,
                Observation.datastream_id,
                Observation.pack_id,
                Observation.lineage_id,
            ).join(Observation, Observation.datastream_id == Channel.datastream_id)
        )
    }
    rows_a_day, days = 8, 30
    for week in range(0, days, 10):
        with db.writing(session):
            for row in range(week * rows_a_day, (week + 10) * rows_a_day):
                day = row / rows_a_day
                warm = 14.0 + 0.2 * day
                film = 1.0 - 0.02 * max(day - 20, 0.0)
                holds = float(oxygen_saturation(warm)) * (0.8 + 0.025 * (row % rows_a_day))
                for key, value in (("do", film * holds), ("tw", warm)):
                    session.add(
                        Observation(
                            datastream_id=first[key].datastream_id,
                            sampled_at=NOON + timedelta(hours=12, days=day),
                            value=value, u=0.1, flag=1, tests=1, known_from=NOON,
                            lineage_id=first[key].lineage_id, pack_id=first[key].pack_id,
                        )
                    )  # fmt: skip
        for _ in range(10):
            judging.judge_due(session, now=NOON + timedelta(days=40))

    def told() -> list[int]:
        session.expire_all()
        return [
            result_of(tests, QualityTest.FOULING)
            for tests in session.scalars(
                select(Observation.tests)
                .where(Observation.datastream_id == first["do"].datastream_id)
                .order_by(Observation.sampled_at)
            )
        ]

    found = told()
    assert {1, 2} < set(found)
    assert 22 * rows_a_day < found.index(2) <= 28 * rows_a_day
    with db.writing(session):
        session.execute(update(JudgedStream).values(judged_to=None, due_at=NOON))
    for _ in range(10):
        judging.judge_due(session, now=NOON + timedelta(days=41))
    assert told() == found


def test_one_changed_bit_of_a_filled_test_is_found(world: World) -> None:
    world.judge()
    row = world.rows()[7]
    at = (row.datastream_id, row.sampled_at)
    right = {"tests": row.tests, "flag": row.flag}

    def put(columns: dict[str, int]) -> None:
        with db.writing(world.session):
            world.session.execute(
                update(Observation)
                .where(Observation.datastream_id == at[0], Observation.sampled_at == at[1])
                .values(**columns)
            )
        world.session.expire_all()

    for test in (QualityTest.SPIKE, QualityTest.RATE_OF_CHANGE, QualityTest.TIME):
        put({"tests": right["tests"] ^ 1 << (2 * test)})
        assert verify(world.session).observations_not_reproducible >= 1
    put({**right, "flag": 3})
    assert verify(world.session).observations_not_reproducible >= 1
    put(right)
    assert verify(world.session).is_clean


@pytest.mark.also_on_postgresql
def test_run_that_ended_anywhere_is_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every commit and at every write: what is there is whole, and the next run does the rest."""
    written = 0

    def dying(*arguments: object, **named: object) -> object:
        nonlocal written
        written += 1
        if written % 2:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    for name in ("_note", "write_results"):
        real = getattr(judging, name)
        monkeypatch.setattr(judging, name, dying)
        with pytest.raises(KeyboardInterrupt):
            judging.judge_due(world.session, now=NOON + timedelta(days=2))
        world.session.rollback()
        assert verify(world.session).is_clean
        monkeypatch.setattr(judging, name, real)
    world.judge()
    assert world.rows()[SPIKE_AT - 1].flag == 4
    assert verify(world.session).is_clean


@pytest.mark.also_on_postgresql
def test_value_that_is_stored_while_others_are_judged_is_judged_with_them(
    sessions: sessionmaker[Session], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed_node(session)
    world = World.__new__(World)
    world.session, world.node = session, SimulatedNode()
    world.send([seq for seq in range(1, 61) if seq != SPIKE_AT])
    late = World.__new__(World)
    late.node = world.node
    real, stored = judging.StreamJudge.pieces, []

    def meanwhile(self: judging.StreamJudge, *, after_s: int | None) -> Iterator[judging.Piece]:
        for piece in real(self, after_s=after_s):
            if not stored:
                stored.append(True)
                session.rollback()
                with sessions() as late.session:
                    late.send([SPIKE_AT], now=NOON + timedelta(days=1))
            yield piece

    monkeypatch.setattr(judging.StreamJudge, "pieces", meanwhile)
    judging.judge_due(session, now=NOON + timedelta(days=2))
    monkeypatch.undo()
    stream = session.scalar(select(JudgedStream.datastream_id).order_by(JudgedStream.datastream_id))
    row = session.get_one(Observation, (stream, NOON + timedelta(seconds=STEP_S * SPIKE_AT)))
    assert result_of(row.tests, QualityTest.TIME) == Result.GOOD
    assert verify(session).is_clean


def test_bounded_work_is_gone_on_with_by_the_next_run(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_PIECE_ROWS", 7)
    world = World(session)
    assert judging.judge_due(session, now=NOON, streams_at_once=2) == 2
    assert session.scalar(select(func.count()).select_from(JudgedStream)) == 2
    for _ in range(60):
        judging.judge_due(session, now=NOON + timedelta(days=2))
    assert world.rows()[SPIKE_AT - 1].flag == 4
    assert verify(session).is_clean


# ------------------------------------------------------------------------------------------------------------- rules


def _limits(spike: float) -> dict[str, object]:
    return to_data(replace(DEFAULTS["soil_temperature"], spike=Spike(spike, 2 * spike), rate=None))


def test_other_limits_judge_the_past_again_and_what_was_known_is_kept(world: World) -> None:
    world.judge()
    made = quality_rules.set_rules(
        world.session, "soil_temperature", _limits(20.0), reason="sunny spot", author="Ada", now=NOON
    )  # fmt: skip
    assert (made.version, made.author) == (1, "Ada")
    assert verify(world.session).is_clean
    world.judge(now=NOON + timedelta(days=3))
    assert {row.flag for row in world.rows()} == {1}
    assert verify(world.session).is_clean
    quality_rules.set_rules(
        world.session, "soil_temperature", None, reason="not so sunny", author="Ada", now=NOON
    )
    world.judge(now=NOON + timedelta(days=4))
    assert world.rows()[SPIKE_AT - 1].flag == 4
    assert world.session.scalar(select(func.count()).select_from(RuleSet)) == 2


def test_filled_tests_of_replaced_versions_are_proved_by_what_was_known_then_or_said_not_to_be(
    world: World,
) -> None:
    world.judge()
    first = verify(world.session)
    assert (first.tests_proved, first.tests_kept, first.notes) == (0, 0, []), "none was filled"
    quality_rules.set_rules(
        world.session, "soil_temperature", _limits(20.0),
        reason="sunny spot", author="Ada", now=NOON + timedelta(days=2, hours=1),
    )  # fmt: skip
    world.judge(now=NOON + timedelta(days=3))
    found = verify(world.session)
    assert (found.tests_proved, found.tests_kept) == (3, 0), "by the limits before these"
    assert found.notes == ["Filled tests of replaced versions: 3 of 3 were proved."]
    calibrate(world.session, "t30", offset=-1.5, now=NOON + timedelta(days=4))
    while revising.advance(world.session, now=NOON + timedelta(days=4)):
        pass
    world.judge(now=NOON + timedelta(days=5))
    found = verify(world.session)
    assert found.is_clean
    assert found.tests_kept == 0
    assert found.tests_proved > 45, "those that the calibration replaced, by its values before"
    with db.writing(world.session):
        world.session.execute(
            update(ObservationHistory)
            .where(ObservationHistory.known_to == NOON + timedelta(days=3))
            .values(tests=ObservationHistory.tests.op("|")(1 << (2 * QualityTest.FLAT_LINE)))
        )
    found = verify(world.session)
    assert found.tests_kept == 3
    assert "3 were not: what lay beside them" in found.notes[0]


def test_limits_of_one_datastream_go_before_those_of_its_property(world: World) -> None:
    stream_id = world.rows("t30")[0].datastream_id
    for limits, datastream_id in [(_limits(50.0), None), (_limits(1.0), stream_id)]:
        quality_rules.set_rules(
            world.session, "soil_temperature", limits,
            reason="tried", author="Ada", now=NOON, datastream_id=datastream_id,
        )  # fmt: skip
    streams = {
        key: world.session.get_one(Datastream, world.rows(key)[0].datastream_id)
        for key in ("t30", "t60")
    }
    found = {
        key: quality_rules.rules_in_force(world.session, stream) for key, stream in streams.items()
    }
    assert found["t30"].rules.spike.suspect == 1.0
    assert found["t60"].rules.spike.suspect == 50.0


@pytest.mark.parametrize(
    ("observed_property", "limits", "reason", "kind", "sentence"),
    [
        ("soil_temperature", {"gross": 1}, "why", Invalid, "rules.gross must be an object"),
        ("soil_temperature", _limits(1.0) | {"spikes": {}}, "why", Invalid, "rules has no spikes"),
        ("soil_temperature", _limits(1.0), " ", Invalid, "Say why"),
        ("wind", None, "why", NotFound, "Values of wind are not judged"),
        ("soil_temperature", to_data(DEFAULTS["ph"]), "why", Invalid, "The unit of soil_temperature is Cel"),
    ],
)  # fmt: skip
def test_limits_that_are_none_are_refused_and_nothing_changes(
    session: Session, observed_property, limits, reason, kind, sentence
) -> None:
    with pytest.raises(kind, match=sentence):
        quality_rules.set_rules(
            session, observed_property, limits, reason=reason, author="Ada", now=NOON
        )
    assert session.scalar(select(func.count()).select_from(RuleSet)) == 0


def test_what_was_known_before_it_was_judged_is_still_told(world: World) -> None:
    stream = world.rows()[0].datastream_id
    spike_at = NOON + timedelta(seconds=STEP_S * SPIKE_AT)
    world.judge(now=NOON + timedelta(days=2))
    then = world.session.scalars(
        select(ObservationHistory.flag).where(
            ObservationHistory.datastream_id == stream,
            ObservationHistory.sampled_at == spike_at,
            ObservationHistory.known_to == NOON + timedelta(days=2),
        )
    ).all()
    assert then == [1]
