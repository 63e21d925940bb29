"""What follows from values by a formula: made where the inputs are and the place is known, in versions as its inputs, provable to the bit."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from typing import Any

import pytest
from factories import NOON, SimulatedNode, deployed_node
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.measurement.derived import ammonia_fraction, percent_saturation
from fleet_server.measurement.place import station_pressure
from fleet_server.models import (
    Channel,
    Datastream,
    DerivedStream,
    Lineage,
    Observation,
    ObservationHistory,
    Site,
    observation_id,
)
from fleet_server.services import aggregating, derivations, flagging, judging, version_history
from fleet_server.services.ingest import store_batch
from fleet_server.services.verification.aggregates import check_aggregates
from fleet_server.services.verification.report import Report
from fleet_server.services.verifying import verify

pytestmark = pytest.mark.postgresql_at_night

LATER = NOON + timedelta(days=2)
POND = {"tw": 300, "ph": 8123, "do": 912}
SOIL = {"v30": 2100}


def measured(
    session: Session, model: str, readings: dict[str, float | str], **details: str
) -> None:
    """Nine hours of quarter hours at a site of which these details are known, judged; with what follows from them."""
    deployed_node(session, model=model)
    state(session, **details)
    store_batch(
        session,
        [
            SimulatedNode().pack(seq, readings={**readings, "bat": 3900 + seq})
            for seq in range(1, 37)
        ],
        now=NOON + timedelta(hours=9),
    )
    follow(session)


def follow(session: Session, *, hours: int = 0) -> None:
    now = LATER + timedelta(hours=hours)
    for _ in range(10):
        if not judging.judge_due(session, now=now):
            break
    for _ in range(10):
        if not aggregating.aggregate_due(session, now=now):
            break


def state(session: Session, *, soil_class: str | None = None, **details: str) -> None:
    with db.writing(session):
        session.execute(update(Site).values(details=details, soil_class=soil_class))


def derived(session: Session, observed_property: str) -> list[Observation]:
    session.expire_all()
    return list(
        session.scalars(
            select(Observation)
            .join(Datastream, Datastream.id == Observation.datastream_id)
            .where(Datastream.level == "derived", Datastream.property == observed_property)
            .order_by(Observation.sampled_at)
        )
    )


def values(session: Session, key: str) -> list[Observation]:
    stream = select(Channel.datastream_id).where(Channel.key == key)
    return list(
        session.scalars(
            select(Observation)
            .where(Observation.datastream_id.in_(stream))
            .order_by(Observation.sampled_at)
        )
    )


def findings(session: Session) -> list[str]:
    session.expire_all()
    report = Report()
    check_aggregates(session, report)
    return report.findings


def test_saturation_and_ammonia_follow_where_a_pond_measures_what_they_need(
    session: Session,
) -> None:
    measured(session, "pond-3", dict(POND), altitude_m="95")
    saturation, ammonia = (
        derived(session, "oxygen_saturation"),
        derived(session, "ammonia_fraction"),
    )
    oxygen, temperature, ph = (values(session, key)[0] for key in ("do", "tw", "ph"))
    assert saturation[0].value == percent_saturation(
        oxygen.value, temperature.value, 0.0, station_pressure(95.0)
    )
    assert ammonia[0].value == ammonia_fraction(temperature.value, ph.value)
    made = len(saturation)
    assert len(ammonia) == made == 4 * 6 - 1, "as far as the means of its inputs: three hours ago"
    assert [row.sampled_at for row in saturation] == [
        row.sampled_at for row in values(session, "do")[:made]
    ]
    assert saturation[0].u is not None
    assert saturation[0].u > 0.01 * (saturation[0].value or 0.0) * 0.9, "the air's pressure alone"
    lineage = session.get_one(Lineage, saturation[0].lineage_id)
    assert lineage.conversion == "percent_saturation"
    assert lineage.inputs.startswith("pressure_hpa=1001.")
    number = observation_id(saturation[0].datastream_id, saturation[0].sampled_at)
    assert version_history.history_of(session, number).versions[-1].made_by.inputs == {}
    report = verify(session)
    assert report.is_clean, report.findings


@pytest.mark.parametrize(
    ("details", "missing"),
    [
        ({}, ["soil_class"]),
        ({"soil": "clay, rather"}, ["soil_class"]),
        ({"soil_class": "Sl4"}, []),
        ({"Field_capacity": "0,31", "available_capacity": "0.17"}, []),
        ({"field_capacity": "0.1", "available_capacity": "0.3"}, ["soil_class"]),
        ({"field_capacity": "0.3_1", "available_capacity": "0.17"}, ["soil_class"]),
    ],
)
def test_per_cent_nfk_follows_only_where_the_soil_is_stated(
    session: Session, details: dict[str, str], missing: list[str]
) -> None:
    measured(session, "soil-1", dict(SOIL), **details)
    site_id = session.scalars(select(Site.id)).one()
    (plan,) = derivations.plans_of(session, site_id)
    assert list(plan.missing) == missing
    assert bool(derived(session, "available_water")) is not bool(missing)
    assert findings(session) == []


def test_other_soil_makes_all_values_anew_and_none_takes_them_into_the_history(
    session: Session,
) -> None:
    measured(session, "soil-1", dict(SOIL), soil_class="Sl4")
    before = derived(session, "available_water")
    first, count = before[0].value, len(before)
    state(session, soil_class="Ss")
    assert findings(session) == [], "what was stated when they were made"
    deliver(session, 37)
    follow(session, hours=1)
    follow(session, hours=2)
    after = derived(session, "available_water")
    assert after[0].value != first
    assert len(after) >= count
    kept = session.scalars(
        select(ObservationHistory)
        .where(ObservationHistory.datastream_id == after[0].datastream_id)
        .order_by(ObservationHistory.sampled_at)
    ).all()
    assert (len(kept), kept[0].value) == (count, first)
    assert findings(session) == []
    state(session)
    deliver(session, 60)
    follow(session, hours=30)
    follow(session, hours=31)
    assert derived(session, "available_water") == []
    assert findings(session) == []


def deliver(session: Session, seq: int) -> None:
    """Eight hours more, so that there is something to do."""
    store_batch(
        session,
        [SimulatedNode().pack(one, readings={**SOIL, "bat": 3900}) for one in range(seq, seq + 32)],
        now=LATER,
    )


@pytest.mark.also_on_postgresql
def test_input_that_is_bad_makes_what_follows_bad_in_a_new_version(session: Session) -> None:
    measured(session, "pond-3", dict(POND))
    assert derived(session, "oxygen_saturation") == [], "nobody said how high the pond lies"
    before = derived(session, "ammonia_fraction")
    flag, known = before[4].flag, before[4].known_from
    at = before[4].sampled_at
    flagging.give_flag(
        session,
        values(session, "tw")[0].datastream_id,
        flag=4,
        from_at=at,
        to_at=at + timedelta(minutes=10),
        reason="out of the water",
        author="Ada",
        now=LATER,
    )
    follow(session, hours=1)
    after = derived(session, "ammonia_fraction")
    assert (flag, after[4].flag, after[5].flag) == (1, 4, 1)
    assert after[4].known_from > known
    assert [row.known_from for row in after[:4]] == [known] * 4
    assert findings(session) == []


def test_one_changed_bit_of_a_derived_value_is_found(session: Session) -> None:
    measured(session, "pond-3", dict(POND))
    one, other = derived(session, "ammonia_fraction")[3:5]
    is_one = (Observation.datastream_id == one.datastream_id) & (
        Observation.sampled_at == one.sampled_at
    )
    bits: dict[str, Any] = {
        "value": math.nextafter(one.value or 0.0, 1.0),
        "u": (one.u or 0.0) * 1.01,
        "flag": 3,
        "sampled_at": other.sampled_at + timedelta(seconds=5),
    }
    for name, bit in bits.items():
        with contextlib.suppress(_Undone), db.writing(session):
            session.execute(update(Observation).where(is_one).values({name: bit}))
            assert findings(session), name
            raise _Undone
    with contextlib.suppress(_Undone), db.writing(session):
        session.execute(update(DerivedStream).values(stated={"ph": [7.0, 0.1]}))
        assert findings(session)
        raise _Undone
    assert findings(session) == []


class _Undone(Exception):
    pass
