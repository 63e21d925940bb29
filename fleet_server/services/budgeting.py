"""What a value's uncertainty is made of, where each part comes from, and what would make it smaller. Reads only.

The arithmetic is `measurement.budget`'s: the value is made again from its pack by the lineage that it names, and the parts add up to the u
that is stored, or nothing is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import Conflict, NotFound, Unavailable
from fleet_server.measurement import budget as arithmetic
from fleet_server.measurement.budget import OF_THE_PROBE, Budget, Remedy, Shape
from fleet_server.models import (
    Calibration,
    CalibrationKind,
    CalibrationPoint,
    Channel,
    Datastream,
    Deployment,
    Node,
    Observation,
    PointStage,
    Sensor,
    Site,
    Standard,
    observation_id,
)
from fleet_server.services import observing, rights, version_history
from fleet_server.services.recomputing import StreamRecomputer, TakenApart, Versions
from fleet_server.services.version_history import Version

_OF_A_STANDARD = ("fit", "reference")
_OF_A_SCATTER = ("fit", "probe")
_OF_AN_INPUT = {"temperature": "temperature"}
"""Parts by the conversion's input that they come from."""


class NoBudget(Conflict):
    """The value has no uncertainty that could be taken apart."""

    code = "no_budget"


class BudgetDiffers(Unavailable):
    """The parts do not add up to what is stored."""

    code = "budget_differs"


@dataclass(frozen=True)
class Part:
    """One part of u, published unit, with its share of u² in per cent.

    `calibration`: the one that it comes from, None where it is the conversion's; `standards`: what that was made against. `degrees_of_freedom`
    is infinite where the part is no scatter.
    """

    name: str
    u: float
    share_pct: float
    shape: Shape
    degrees_of_freedom: float
    calibration: Calibration | None
    standards: Sequence[Standard]


@dataclass(frozen=True)
class ValueBudget:
    """Of one version of an observation. `parts`: largest first; their shares add up to 100. `remedies`: what would make u smaller, best first."""

    datastream: Datastream
    site: Site
    sampled_at: datetime
    version: Version
    calibration: Calibration
    sensor: Sensor
    value: float
    u: float
    k: float
    degrees_of_freedom: float
    parts: Sequence[Part]
    remedies: Sequence[Remedy]

    @property
    def id(self) -> int:
        """The observation's public id."""
        return observation_id(self.datastream.id, self.sampled_at)

    @property
    def expanded_u(self) -> float:
        return self.k * self.u

    @property
    def is_site_calibrated(self) -> bool:
        """Whether somebody but the maker calibrated its probe."""
        return self.calibration.kind != CalibrationKind.FACTORY


def budget_of(session: Session, public_id: int, *, version: int | None = None) -> ValueBudget:
    """The budget of an observation by its public id; of an earlier version by its number.

    Raises:
        NotFound: there is no such observation or version, or its site is not the actor's business.
        NoBudget: it has no value, no node measured it, or other software made it.
        BudgetDiffers: the parts do not add up to the stored u.
    """
    found = version_history.history_of(session, public_id)
    chosen = found.versions[-1] if version is None else _numbered(found.versions, version)
    if chosen.value is None or chosen.u is None:
        raise NoBudget("This observation has no value, so there is no uncertainty of one.")
    calibration, sensor = chosen.made_by.calibration, chosen.made_by.sensor
    if calibration is None or sensor is None:
        raise NoBudget("No node of ours measured this value: its uncertainty came with it.")
    if chosen.pack_id is None:
        raise NoBudget("This value was made of others: look at what u of one of those is made of.")
    apart = _taken_apart(session, found.datastream.id, found.sampled_at, chosen)
    if apart is None:
        raise NoBudget(
            "This value was made by other software, or from what is not there any more; its parts cannot be told."
        )
    table = _table(apart, calibration)
    if np.float32(table.u[0]) != np.float32(chosen.u):
        raise BudgetDiffers(
            "The parts add up to %(found)s, and %(stored)s is stored: something was changed in the database. Run fleet verify.",
            found=f"{float(table.u[0]):.6g}",
            stored=f"{chosen.u:.6g}",
        )
    parts = _parts(session, table, calibration, chosen.made_by.inputs)
    return ValueBudget(
        found.datastream,
        found.site,
        found.sampled_at,
        chosen,
        calibration,
        sensor,
        float(table.value[0]),
        float(table.u[0]),
        chosen.k,
        arithmetic.effective_degrees_of_freedom(
            float(table.u[0]), [(one.u, one.degrees_of_freedom) for one in parts]
        ),
        parts,
        arithmetic.remedies(
            found.datastream.property,
            float(table.value[0]),
            {one.name: one.u for one in parts},
            is_site_calibrated=calibration.kind != CalibrationKind.FACTORY,
        ),
    )


def latest_of_series(session: Session, datastream_id: int) -> int:
    """Public id of the newest observation with a value. Raises NotFound."""
    sampled_at = session.scalar(
        select(Observation.sampled_at)
        .where(Observation.datastream_id == datastream_id, Observation.value.is_not(None))
        .order_by(Observation.sampled_at.desc())
        .limit(1)
    )
    if sampled_at is None:
        raise NotFound("There is no value yet whose uncertainty could be told.")
    return observation_id(datastream_id, sampled_at)


def latest_of_channel(session: Session, node_id: str, key: str) -> int:
    """The same of a node's channel, where it measures now or measured last. Raises NotFound."""
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, node.model, node_id=node_id)
    rows = session.execute(
        select(Channel.key, Channel.datastream_id)
        .join(Deployment, Deployment.id == Channel.deployment_id)
        .where(Deployment.node_id == node_id)
        .order_by(Channel.from_at, Channel.id)
    ).all()
    streams: Mapping[str, int] = {row.key: row.datastream_id for row in rows}
    if key not in streams:
        raise NotFound(
            "Node %(node_id)s has no channel %(key)s; it has %(known)s.",
            node_id=node_id,
            key=key,
            known=", ".join(sorted(streams)) or "–",
        )
    return latest_of_series(session, streams[key])


# ------------------------------------------------------------------------------------------------------------- private


def _numbered(versions: Sequence[Version], number: int) -> Version:
    for one in versions:
        if one.number == number:
            return one
    raise NotFound("There is no version %(number)s of it.", number=number)


def _taken_apart(
    session: Session, datastream_id: int, sampled_at: datetime, version: Version
) -> TakenApart | None:
    lineage = version.made_by.lineage
    stored = Versions(
        np.array([int(sampled_at.timestamp())], np.int64),
        np.array([version.pack_id], np.int64),
        np.array([version.value], np.float64),
        np.array([version.u], np.float32),
        np.array([version.flag], np.int16),
        np.array([version.tests], np.int32),
        np.array([lineage.id], np.int64),
        np.array([int(version.known_from.timestamp())], np.int64),
    )
    return StreamRecomputer(session, datastream_id).taken_apart(
        stored, {lineage.id: observing.lineage_key_of(lineage)}
    )


def _table(apart: TakenApart, calibration: Calibration) -> Budget:
    layout, row = apart.layout, apart.row
    corrections = [(layout.corrections[row], 1)]
    return arithmetic.budget(
        layout.conversions[row],
        apart.raw,
        apart.inputs,
        layout.calibrations[row],
        common=_of_standards(calibration),
        times_s=apart.times_s,
        correct=observing.put_right(corrections, apart.times_s),
    )


def _of_standards(calibration: Calibration) -> list[list[float]]:
    """What each of its standards does to the coefficients, as `fitting.references_of` kept it; nothing of one that did not keep it."""
    fit: Mapping[str, Any] = calibration.fit or {}
    return [one["moves"] for one in fit.get("references", ())]


def _parts(
    session: Session,
    table: Budget,
    own: Calibration,
    inputs: Mapping[str, Calibration | None],
) -> list[Part]:
    names = [one.name for one in table.contributions]
    shares = arithmetic.percentages([float(table.share(name)[0]) for name in names])
    standards = _standards(session, own)
    found = []
    for one, share_pct in zip(table.contributions, shares, strict=True):
        calibration = None
        if one.name in OF_THE_PROBE:
            calibration = own
        elif one.name in _OF_AN_INPUT:
            calibration = inputs.get(_OF_AN_INPUT[one.name])
        found.append(
            Part(
                one.name,
                float(one.u[0]),
                share_pct,
                one.shape,
                _freedom(one.name, own),
                calibration,
                standards if one.name in _OF_A_STANDARD else (),
            )
        )
    return sorted(found, key=lambda part: part.u, reverse=True)


def _freedom(name: str, calibration: Calibration) -> float:
    """Of what was taken from the points' scatter, which is told by the coverage factor; the others are no scatter."""
    is_scatter = name in _OF_A_SCATTER and calibration.coverage_factor != 2.0
    freedom = calibration.degrees_of_freedom if is_scatter else None
    return math.inf if not freedom else float(freedom)


def _standards(session: Session, calibration: Calibration) -> list[Standard]:
    """What its points were taken in, each once."""
    return list(
        session.scalars(
            select(Standard)
            .where(
                Standard.id.in_(
                    select(CalibrationPoint.standard_id).where(
                        CalibrationPoint.calibration_id == calibration.id,
                        CalibrationPoint.stage == PointStage.FIT,
                        CalibrationPoint.standard_id.is_not(None),
                    )
                )
            )
            .order_by(Standard.id)
        )
    )
