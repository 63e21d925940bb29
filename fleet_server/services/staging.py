"""How a change of a layer goes on by itself: tell a wave, watch it, open the next, pause when nodes fail, take back what is rolled back.

One step (`advance`) is one transaction of at most `layering.NODES_AT_ONCE` nodes, decided by what the nodes reported; it can be
repeated, and be left off at any point. A wave opens when of the nodes of the one before that were reached, and enough of them, 95 % run
the configuration, and stayed so for the soak time. A change pauses by itself when a canary failed, or more than 5 % of the reached.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import (
    ChangeState,
    Configuration,
    ConfigurationChange,
    ConfigurationChangeNode,
    LayerKind,
    Node,
    NodeStatus,
)
from fleet_server.services import auditing, layering, rights
from fleet_server.services.configuring import Standing, standing_of
from fleet_server.services.layering import Layer

OPEN = (
    ChangeState.PREPARING,
    ChangeState.AWAITING_APPROVAL,
    ChangeState.RUNNING,
    ChangeState.SOAKING,
    ChangeState.PAUSED,
    ChangeState.ROLLING_BACK,
)
"""States of a change that is under way."""
_GOES_ON = (ChangeState.RUNNING, ChangeState.SOAKING, ChangeState.ROLLING_BACK)
IN_FORCE_SHARE = 0.95
FAILED_SHARE = 0.05
# Of a wave, half must have been reached before it says anything, and fifty say enough of any wave.
REACHED_SHARE, REACHED_ENOUGH = 0.5, 50
# Writing down a hundred thousand nodes takes half a minute on a busy machine.
_PREPARED_WITHIN = timedelta(hours=1)
# Other changes have their turn too.
_STEPS_AT_ONCE = 20


@dataclass(frozen=True)
class WaveProgress:
    """How the nodes of a wave stand. Reached: heard since they were told."""

    change_id: int
    wave: int
    nodes: int
    told: int
    reached: int
    in_force: int
    failed: int
    cannot: int


def advance_all(session: Session, *, now: datetime) -> bool:
    """Go on with every change under way, `_STEPS_AT_ONCE` steps of each at most. Committed step by step. Returns whether there is more
    to do at once.
    """
    _give_up_cut_short(session, now=now)
    has_more = False
    for change_id in due_changes(session):
        steps = 0
        while steps < _STEPS_AT_ONCE and advance(session, change_id, now=now):
            steps += 1
        has_more = has_more or steps == _STEPS_AT_ONCE
    return has_more


def due_changes(session: Session) -> list[int]:
    """Changes that may have something to go on with, oldest first. One statement."""
    return list(
        session.scalars(
            select(ConfigurationChange.id)
            .where(ConfigurationChange.state.in_(_GOES_ON))
            .order_by(ConfigurationChange.id)
        )
    )


def advance(session: Session, change_id: int, *, now: datetime) -> bool:
    """One step. Committed on return. Returns whether there is more to do at once."""
    with db.writing(session):
        change = session.scalar(
            select(ConfigurationChange)
            .where(ConfigurationChange.id == change_id)
            .with_for_update(skip_locked=True)
            .execution_options(populate_existing=True)
        )
        if change is None or change.state not in _GOES_ON:
            return False
        if change.state == ChangeState.ROLLING_BACK:
            return _sweep(session, change, now=now)
        if _tell_some(session, change, now=now):
            return True
        if change.wave >= len(change.waves) and change.layer_version is None:
            _settle(session, change, now=now)
            return True
        if change.swept_to is not None:
            return _sweep(session, change, now=now)
        return _judge(session, change, now=now)


def open_wave(session: Session, change: ConfigurationChange, *, now: datetime) -> None:
    """The next wave, and as many of its nodes told as fit into one step. Part of the caller's transaction."""
    change.wave += 1
    change.wave_opened_at, change.soaks_since = now, None
    change.state = ChangeState.RUNNING
    change.is_unsettled = change.is_unsettled or change.layer_version is None
    if change.wave > 1:
        _record(session, "wave_opened", change, now=now, wave=change.wave)
    session.flush()
    _tell_some(session, change, now=now)
    if change.wave >= len(change.waves) and not _untold(session, change):
        _settle(session, change, now=now)


def progress_of(session: Session, change_id: int) -> list[WaveProgress]:
    """One change's waves. One statement."""
    return [wave for wave in progress(session, [change_id]) if wave.wave]


def progress(session: Session, change_ids: Sequence[int]) -> list[WaveProgress]:
    """How the waves of these changes stand; wave 0 are nodes that could not take it from the start. One statement."""
    was_told = ConfigurationChangeNode.told_at.is_not(None)
    standing = standing_of()
    failed = and_(was_told, standing.in_((Standing.ROLLED_BACK.value, Standing.REFUSED.value)))
    in_force = and_(was_told, standing == Standing.IN_FORCE.value)
    heard_since = and_(was_told, NodeStatus.last_state_at > ConfigurationChangeNode.told_at)
    on_trial = and_(was_told, standing == Standing.TRIAL.value)
    rows = session.execute(
        select(
            ConfigurationChangeNode.change_id,
            ConfigurationChangeNode.wave,
            func.count(),
            _number(was_told),
            _number(or_(heard_since, failed, in_force, on_trial)),
            _number(in_force),
            _number(failed),
            _number(ConfigurationChangeNode.fault.is_not(None)),
        )
        .join(Configuration, Configuration.node_id == ConfigurationChangeNode.node_id)
        .join(NodeStatus, NodeStatus.node_id == ConfigurationChangeNode.node_id)
        .where(ConfigurationChangeNode.change_id.in_(change_ids))
        .group_by(ConfigurationChangeNode.change_id, ConfigurationChangeNode.wave)
        .order_by(ConfigurationChangeNode.change_id, ConfigurationChangeNode.wave)
    )
    return [WaveProgress(*row) for row in rows]


def nodes_query(
    session: Session, change_id: int, after: tuple[int, str], limit: int
) -> Select[str, str, int, datetime | None, str | None, str]:
    """The nodes of a change with their standing, by wave and id."""
    query = (
        select(
            Node.node_id,
            Node.label,
            ConfigurationChangeNode.wave,
            ConfigurationChangeNode.told_at,
            ConfigurationChangeNode.fault,
            standing_of(),
        )
        .join(Node, Node.node_id == ConfigurationChangeNode.node_id)
        .join(Configuration, Configuration.node_id == Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(
            ConfigurationChangeNode.change_id == change_id,
            tuple_(ConfigurationChangeNode.wave, ConfigurationChangeNode.node_id) > after,
        )
        .order_by(ConfigurationChangeNode.wave, ConfigurationChangeNode.node_id)
        .limit(limit)
    )
    models = rights.node_models(session)
    return query if models is None else query.where(Node.model.in_(models))


# ---------------------------------------------------------------------------------------------------------------- private


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.count().filter(condition)


def _give_up_cut_short(session: Session, *, now: datetime) -> None:
    """Changes whose proposer died while they were written down: nobody was told, and the layer is free again."""
    cut_short = select(ConfigurationChange).where(
        ConfigurationChange.state == ChangeState.PREPARING,
        ConfigurationChange.created_at <= now - _PREPARED_WITHIN,
    )
    if session.scalar(cut_short.limit(1)) is None:
        return
    with db.writing(session):
        for change in session.scalars(cut_short.with_for_update()):
            change.state, change.finished_at = ChangeState.ABORTED, now
            change.reason = "it was cut short while it was prepared; propose it again"
            _record(session, "change_aborted", change, now=now, reason=change.reason)


def _untold(session: Session, change: ConfigurationChange) -> list[str]:
    return list(
        session.scalars(
            select(ConfigurationChangeNode.node_id)
            .where(
                ConfigurationChangeNode.change_id == change.id,
                ConfigurationChangeNode.wave.between(1, change.wave),
                ConfigurationChangeNode.told_at.is_(None),
                ConfigurationChangeNode.fault.is_(None),
            )
            .order_by(ConfigurationChangeNode.wave, ConfigurationChangeNode.node_id)
            .limit(layering.NODES_AT_ONCE)
        )
    )


def _tell_some(session: Session, change: ConfigurationChange, *, now: datetime) -> bool:
    """Tell nodes of the open waves; False when all have been. What a node could take when the change was proposed is asked again."""
    node_ids = _untold(session, change)
    if not node_ids:
        return False
    _note(session, change, node_ids, told_at=now)
    found = layering.apply(session, node_ids, now=now)
    faults = {one.node_id: one.fault for one in found if one.fault is not None}
    for reason in set(faults.values()):
        ids = [node_id for node_id, fault in faults.items() if fault == reason]
        _note(session, change, ids, told_at=None, fault=reason)
    if faults:
        layering.apply(session, list(faults), now=now)  # for them, the layer is as it was
    return True


def _note(
    session: Session, change: ConfigurationChange, node_ids: Sequence[str], **values: Any
) -> None:
    session.execute(
        update(ConfigurationChangeNode)
        .where(
            ConfigurationChangeNode.change_id == change.id,
            ConfigurationChangeNode.node_id.in_(node_ids),
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _settle(session: Session, change: ConfigurationChange, *, now: datetime) -> None:
    """All have been told: from now on the layer itself says so, and who came to it meanwhile follows (`_sweep`)."""
    layer = Layer(LayerKind(change.layer_kind), change.layer_key, change.layer_name)
    change.layer_version = layering.set_layer(
        session, layer, change.after, now=now, by=change.author
    )
    session.execute(
        update(ConfigurationChange)
        .where(
            ConfigurationChange.layer_kind == change.layer_kind,
            ConfigurationChange.layer_key == change.layer_key,
            ConfigurationChange.id <= change.id,
            ConfigurationChange.is_unsettled,
        )
        .values(is_unsettled=False)
    )
    change.swept_to = ""
    session.flush()


def _sweep(session: Session, change: ConfigurationChange, *, now: datetime) -> bool:
    """The next nodes in the layer's reach: each is told what its layers come to now."""
    layer = Layer(LayerKind(change.layer_kind), change.layer_key, change.layer_name)
    query = layering.nodes_in_reach(layer).where(Node.node_id > (change.swept_to or ""))
    chunk = list(session.scalars(query.order_by(Node.node_id).limit(layering.NODES_AT_ONCE)))
    if chunk:
        layering.apply(session, chunk, now=now)
        change.swept_to = chunk[-1]
    if len(chunk) == layering.NODES_AT_ONCE:
        return True
    change.swept_to = None
    if change.state == ChangeState.ROLLING_BACK:
        change.state, change.finished_at = ChangeState.ROLLED_BACK, now
        _record(session, "change_taken_back", change, now=now)
        return False
    return True


def _judge(session: Session, change: ConfigurationChange, *, now: datetime) -> bool:
    waves = progress_of(session, change.id)
    trouble = _trouble(change, waves)
    if trouble is not None:
        change.state, change.reason = ChangeState.PAUSED, trouble
        _record(session, "change_paused", change, now=now, reason=trouble)
        return False
    current = next((wave for wave in waves if wave.wave == change.wave), None)
    if current is not None and not _is_good(current):
        change.state, change.soaks_since = ChangeState.RUNNING, None
        return False
    if change.wave >= len(change.waves):
        change.state, change.finished_at = ChangeState.COMPLETED, now
        _record(session, "change_completed", change, now=now)
        return False
    if change.soaks_since is None:
        change.state, change.soaks_since = ChangeState.SOAKING, now
    if now - change.soaks_since < timedelta(seconds=change.soak_s):
        return False
    open_wave(session, change, now=now)
    return True


def _is_good(wave: WaveProgress) -> bool:
    """Whether enough of a wave was reached, and enough of these run it. Nodes that could not be told do not count; nor do failures,
    unless a person accepted them: before that, they pause the change.
    """
    told = wave.nodes - wave.cannot
    if told == 0:
        return True
    enough = min(REACHED_ENOUGH, math.ceil(told * REACHED_SHARE))
    judged = wave.reached - wave.failed
    return wave.reached >= enough and wave.in_force >= IN_FORCE_SHARE * judged


def _trouble(change: ConfigurationChange, waves: Sequence[WaveProgress]) -> str | None:
    """Why a change has to pause, beyond what a person has accepted already."""
    failed = sum(wave.failed for wave in waves)
    reached = sum(wave.reached for wave in waves)
    if failed <= change.failures_accepted:
        return None
    if any(wave.wave == 1 and wave.failed for wave in waves) and change.failures_accepted == 0:
        return f"{failed} of the first nodes rolled back or refused"
    if failed > FAILED_SHARE * reached:
        return f"{failed} of {reached} reached nodes rolled back or refused"
    return None


def _record(
    session: Session, action: str, change: ConfigurationChange, *, now: datetime, **details: Any
) -> None:
    auditing.record(
        session,
        action,
        subject=f"change {change.id}",
        now=now,
        by="machine",
        layer=change.layer_name,
        **details,
    )
