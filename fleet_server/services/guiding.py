"""Guided calibration: which steps a property wants, what the probe reads now, whether it stands still, and a step that is taken.

The draft is what remembers how far somebody is: a phone that loses its network goes on where it was, and a step that is taken again replaces
the one before. What the node sends meanwhile is read as everything else is (`observing`), before calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, NotFound
from fleet_server.measurement import derived, stability
from fleet_server.measurement.stability import Stability
from fleet_server.models import (
    Calibration,
    CalibrationKind,
    CalibrationStatus,
    Channel,
    Deployment,
    Node,
    Pack,
    PointStage,
    Sensor,
)
from fleet_server.services import calibrating, observing, rights
from fleet_server.services.calibrating import (
    PRESSURE,
    CalibrationRecord,
    CalibrationWrong,
    NewCalibration,
    NewPoint,
)

_NEWEST_PACKS = 80
_SHOWN = timedelta(minutes=30)
_STALE = timedelta(minutes=3)
_CONTINUED_FOR = timedelta(hours=12)
_SATURATION_U_REL = 0.01
"""Water that was shaken or bubbled for some minutes, and a barometer of ±5 hPa; ours."""
_THERMOMETERS = ("water_temperature", "soil_temperature", "air_temperature")


class NotSteady(Conflict):
    """The reading does not stand still yet, or none comes."""

    code = "not_steady"


class Worth(StrEnum):
    """Where a step's reference comes from."""

    STANDARD = "standard"  # one of the list
    FIXED = "fixed"  # made on the spot: ice water, dry air
    SATURATION = "saturation"  # by temperature and pressure
    SHOWN = "shown"  # what a gauge shows, typed in


@dataclass(frozen=True)
class Step:
    """One standard. `reference` and `u` of what is made on the spot; `nominal` is near what a standard of the list is worth."""

    id: str
    worth: Worth
    reference: float = 0.0
    u: float = 0.0
    nominal: float = 0.0


@dataclass(frozen=True)
class Procedure:
    """The steps of one property, in the order in which they are done best."""

    property: str
    kind: CalibrationKind
    steps: tuple[Step, ...]

    def step(self, step_id: str) -> Step:
        for one in self.steps:
            if one.id == step_id:
                return one
        raise NotFound(
            "There is no step %(step)s in this procedure; it has %(known)s.",
            step=step_id,
            known=", ".join(one.id for one in self.steps),
        )


_ICE = (Step("ice", Worth.FIXED, 0.0, 0.02),)
PROCEDURES: Mapping[str, Procedure] = {
    one.property: one
    for one in (
        Procedure(
            "ph",
            CalibrationKind.LINEAR,
            (
                Step("ph7", Worth.STANDARD, nominal=6.88),
                Step("ph4", Worth.STANDARD, nominal=4.0),
                Step("ph10", Worth.STANDARD, nominal=10.0),
            ),
        ),
        Procedure(
            "dissolved_oxygen",
            CalibrationKind.LINEAR,
            (Step("saturated", Worth.SATURATION), Step("zero", Worth.FIXED, 0.0, 0.03)),
        ),
        Procedure(
            "oxygen_saturation",
            CalibrationKind.LINEAR,
            (Step("saturated", Worth.SATURATION), Step("zero", Worth.FIXED, 0.0, 0.3)),
        ),
        Procedure(
            "conductivity_25",
            CalibrationKind.LINEAR,
            (
                Step("conductivity_low", Worth.STANDARD, nominal=84.0),
                Step("conductivity_high", Worth.STANDARD, nominal=1413.0),
            ),
        ),
        Procedure(
            "turbidity",
            CalibrationKind.LINEAR,
            (
                Step("turbidity_zero", Worth.FIXED, 0.0, 0.3),
                Step("turbidity_low", Worth.STANDARD, nominal=20.0),
                Step("turbidity_high", Worth.STANDARD, nominal=200.0),
            ),
        ),
        Procedure(
            "soil_moisture_index",
            CalibrationKind.LINEAR,
            (Step("dry_air", Worth.FIXED, 0.0, 0.01), Step("in_water", Worth.FIXED, 1.0, 0.01)),
        ),
        Procedure("soil_temperature", CalibrationKind.OFFSET, _ICE),
        Procedure("water_temperature", CalibrationKind.OFFSET, _ICE),
        Procedure("air_temperature", CalibrationKind.OFFSET, _ICE),
        Procedure("water_level", CalibrationKind.OFFSET, (Step("gauge", Worth.SHOWN),)),
    )
}
"""By property. What is made on the spot has an uncertainty of ours: 0.02 °C for well-stirred ice of clean water."""


@dataclass(frozen=True)
class GuidedChannel:
    """A channel of a node that can be calibrated step by step where it hangs."""

    node_id: str
    key: str
    observed_property: str
    unit: str
    depth_cm: int
    sensor: Sensor

    @property
    def procedure(self) -> Procedure:
        return PROCEDURES[self.observed_property]


@dataclass(frozen=True)
class Live:
    """What the probe reads, before calibration: moments and converted readings, oldest first; None where it gave none."""

    readings: Sequence[tuple[datetime, float | None]]
    stability: Stability
    temperature_c: float | None
    is_stale: bool

    @property
    def newest(self) -> tuple[datetime, float | None] | None:
        return self.readings[-1] if self.readings else None


@dataclass(frozen=True)
class Taking:
    """How a step is taken: with which standard, at which temperature and pressure, or what a gauge shows."""

    step: str
    standard_id: int | None = None
    temperature_c: float | None = None
    pressure_hpa: float | None = None
    shown: float | None = None
    u_shown: float | None = None
    takes_unsteady: bool = False


def guided_channels(session: Session, node_id: str) -> list[GuidedChannel]:
    """Channels of a node, where it stands now, whose property has a procedure. Raises NotFound."""
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, node.model, node_id=node_id)
    query = (
        select(Channel, Sensor)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .join(Sensor, Sensor.id == Channel.sensor_id)
        .where(Deployment.node_id == node_id, Channel.to_at.is_(None))
        .where(Channel.property.in_(sorted(PROCEDURES)))
        .order_by(Channel.id)
    )
    return [_guided(node_id, channel, sensor) for channel, sensor in session.execute(query)]


def guided_channel(session: Session, record: CalibrationRecord) -> GuidedChannel:
    """Where the probe of a draft hangs now. Raises NotFound when it is mounted nowhere, or its property has no procedure."""
    row = session.execute(
        select(Deployment.node_id, Channel)
        .join(Channel, Channel.deployment_id == Deployment.id)
        .where(
            Channel.sensor_id == record.sensor.id,
            Channel.property == record.calibration.property,
            Channel.to_at.is_(None),
        )
    ).first()
    if row is None or record.calibration.property not in PROCEDURES:
        raise NotFound(
            "Sensor %(serial)s hangs at no node now; enter its points by hand.",
            serial=record.sensor.serial,
        )
    return _guided(row[0], row[1], record.sensor)


def begin_guided(session: Session, node_id: str, key: str, *, now: datetime) -> CalibrationRecord:
    """A draft for the steps of a channel; the one that the actor began there within hours is gone on with. Committed on return.

    Raises:
        NotFound: the node has no such channel now, or it has no procedure.
    """
    with db.writing(session):
        channel = _channel(session, node_id, key)
        sensor = calibrating.held_sensor(session, channel.sensor.serial)
        actor = rights.actor_of(session).name
        known = session.scalar(
            select(Calibration.id)
            .where(
                Calibration.sensor_id == sensor.id,
                Calibration.property == channel.observed_property,
                Calibration.procedure == channel.observed_property,
                Calibration.status == CalibrationStatus.DRAFT,
                Calibration.author == actor,
                Calibration.created_at > now - _CONTINUED_FOR,
            )
            .order_by(Calibration.id.desc())
            .limit(1)
        )
        if known is not None:
            return calibrating.record_of(session, known)
        return calibrating.draft_calibration(
            session,
            NewCalibration(
                serial=sensor.serial,
                property=channel.observed_property,
                kind=channel.procedure.kind,
                performed_by=rights.person(actor),
                performed_at=now,
                procedure=channel.observed_property,
            ),
            now=now,
        )


def live_readings(session: Session, channel: GuidedChannel, *, now: datetime) -> Live:
    """What the probe reads now, and whether it stands still. Reads only."""
    pack_ids = session.scalars(
        select(Pack.id)
        .where(Pack.node_id == channel.node_id)
        .order_by(Pack.id.desc())
        .limit(_NEWEST_PACKS)
    ).all()
    made = observing.converted(
        session, node_id=channel.node_id, key=channel.key, pack_ids=sorted(pack_ids)
    )
    since_s = int((now - _SHOWN).timestamp())
    rows = sorted(
        (one.sampled_s, one.value)
        for one in made
        if one.key == channel.key and one.sampled_s >= since_s
    )
    judged = stability.assess(
        [at for at, _ in rows],
        [math.nan if value is None else value for _, value in rows],
        stability.LIMITS[channel.observed_property],
    )
    newest_s = rows[-1][0] if rows else 0
    return Live(
        [(datetime.fromtimestamp(at, UTC), value) for at, value in rows],
        judged,
        _temperature(session, channel, made),
        is_stale=newest_s < (now - _STALE).timestamp(),
    )


def take_step(
    session: Session, calibration_id: int, taking: Taking, *, now: datetime
) -> CalibrationRecord:
    """The mean of the steady readings becomes the step's point. Committed on return. Safe to repeat: the last one counts.

    Raises:
        NotFound: no such draft or step.
        NotSteady: nothing comes, or it does not stand still.
        CalibrationWrong: temperature, pressure or what is shown is missing.
        StandardExpired, StandardWrong: of the standard.
    """
    with db.writing(session):
        record = calibrating.record_of(session, calibration_id)
        channel = guided_channel(session, record)
        step = channel.procedure.step(taking.step)
        live = live_readings(session, channel, now=now)
        _refuse_unsteady(live, taking)
        if taking.pressure_hpa is not None:
            environment = {**record.calibration.environment, PRESSURE: taking.pressure_hpa}
            changes = {"environment": environment}
            calibrating.change_draft(session, calibration_id, changes, now=now)
        reference, u_reference = _worth(step, channel, taking)
        point = NewPoint(
            indicated=live.stability.mean,
            u_indicated=live.stability.u_mean,
            reference=reference,
            u_reference=u_reference,
            standard_id=taking.standard_id if step.worth is Worth.STANDARD else None,
            temperature_c=taking.temperature_c,
            stage=PointStage.FIT,
            step=step.id,
            steadiness=_steadiness(live.stability),
        )
        return calibrating.put_point(session, calibration_id, point, now=now)


def _refuse_unsteady(live: Live, taking: Taking) -> None:
    if not live.stability.count:
        raise NotSteady(
            "No reading of the probe came within half an hour: switch field mode on at the node, and wait for its light."
        )
    if live.is_stale:
        raise NotSteady(
            "The last reading is older than %(minutes)s minutes: switch field mode on at the node again.",
            minutes=int(_STALE.total_seconds() // 60),
        )
    if not live.stability.is_stable and not taking.takes_unsteady:
        raise NotSteady(
            "The reading does not stand still yet: wait, or say that you take it as it is."
        )


def _worth(step: Step, channel: GuidedChannel, taking: Taking) -> tuple[float | None, float | None]:
    """What the step's standard is worth and how well; None where it follows from one of the list."""
    if step.worth is Worth.FIXED:
        return step.reference, step.u
    if step.worth is Worth.SHOWN:
        if taking.shown is None or taking.u_shown is None:
            raise CalibrationWrong("Say what the gauge shows, and how well it can be read (u).")
        return taking.shown, taking.u_shown
    if step.worth is Worth.STANDARD:
        if taking.standard_id is None:
            raise CalibrationWrong("Choose the standard that the probe is in.")
        return None, None
    return _saturated(channel, taking)


def _saturated(channel: GuidedChannel, taking: Taking) -> tuple[float, float]:
    if channel.observed_property == "oxygen_saturation":
        return 100.0, 100.0 * _SATURATION_U_REL
    if taking.temperature_c is None or taking.pressure_hpa is None:
        raise CalibrationWrong(
            "How much oxygen saturated water has depends on its temperature and the air's pressure there: give both."
        )
    if not 500.0 <= taking.pressure_hpa <= 1100.0:
        raise CalibrationWrong(
            "The air's pressure where the probe is lies between 500 and 1100 hPa, not reduced to sea level."
        )
    worth = float(derived.oxygen_saturation(taking.temperature_c, 0.0, taking.pressure_hpa))
    if not math.isfinite(worth):
        raise CalibrationWrong("Water has between 0 and 40 °C.")
    return worth, worth * _SATURATION_U_REL


def _steadiness(found: Stability) -> dict[str, float | str]:
    return {
        "count": found.count,
        "covered_s": found.covered_s,
        "slope_per_min": found.slope_per_min,
        "spread": found.spread,
        "stable_for_s": found.stable_for_s,
        "reason": found.reason,
    }


def _temperature(
    session: Session, channel: GuidedChannel, made: observing.Observations
) -> float | None:
    """The newest temperature that the node measured beside it."""
    if channel.observed_property in _THERMOMETERS:
        return None
    streams = set(
        session.scalars(
            select(Channel.datastream_id)
            .join(Deployment, Deployment.id == Channel.deployment_id)
            .where(
                Deployment.node_id == channel.node_id,
                Channel.to_at.is_(None),
                Channel.property.in_(_THERMOMETERS),
            )
        )
    )
    found = [
        (one.sampled_s, one.value)
        for one in made
        if one.datastream_id in streams and one.value is not None
    ]
    return max(found)[1] if found else None


def _channel(session: Session, node_id: str, key: str) -> GuidedChannel:
    channels = guided_channels(session, node_id)
    for one in channels:
        if one.key == key:
            return one
    raise NotFound(
        "Node %(node_id)s has no channel %(key)s now that is calibrated step by step; it has %(known)s.",
        node_id=node_id,
        key=key,
        known=", ".join(one.key for one in channels) or "–",
    )


def _guided(node_id: str, channel: Channel, sensor: Sensor) -> GuidedChannel:
    return GuidedChannel(
        node_id, channel.key, channel.property, channel.unit, channel.depth_cm, sensor
    )
