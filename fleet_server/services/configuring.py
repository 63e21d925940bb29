"""Desired configuration of one node: what is wanted of it besides its layers, and how it stands to what it is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, and_, case, or_
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import Configuration, Node, NodeStatus
from fleet_server.services import auditing, layering, node_settings, rights, sealing
from fleet_server.services.layering import Effective
from fleet_server.services.node_settings import (
    ConfigurationWrong,
    SecretKey,
    Values,
    no_secret_key,
)
from fleet_server.wire.configuration import WIFI, as_kept
from fleet_server.wire.states import ConfigState

__all__ = [
    "ConfigurationOverview",
    "ConfigurationWrong",
    "SecretKey",
    "Standing",
    "configuration_of",
    "configure_node",
    "no_secret_key",
    "opened_settings",
    "reset_node",
    "standing_of",
]


class Standing(StrEnum):
    """How a node stands to the configuration that is wanted of it."""

    IN_FORCE = "in_force"
    TRIAL = "trial"
    WAITING = "waiting"  # it was not heard since
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


@dataclass(frozen=True)
class ConfigurationOverview:
    """What is wanted (`version`, `settings`) and what the node said it runs; of Wi-Fi networks `settings` has the names only.

    `origins`: which layer wants each setting. `held_back`: why the node is not told what its layers want.
    """

    version: int
    settings: Values
    changed_at: datetime
    running_version: int | None
    standing: Standing
    reason: str | None
    held_back: str | None = None
    origins: Mapping[str, Effective] = field(default_factory=dict)


def configure_node(
    session: Session,
    node_id: str,
    settings: Values,
    *,
    now: datetime,
    secret_key: SecretKey = no_secret_key,
) -> int:
    """Want these settings of one node, others stay; None leaves one to the layers below again. Committed on return.

    Returns the configuration's version; the same settings keep it.

    Args:
        secret_key: Under which passwords are sealed in the database.

    Raises:
        ConfigurationWrong: the node would refuse it; says why.
        NotFound: no such node.
    """
    with db.writing(session):
        configuration = session.get(Configuration, node_id, with_for_update=True)
        if configuration is None:
            raise NotFound("There is no node %(node_id)s.", node_id=node_id)
        layer = layering.node_layer(node_id)
        kept = layering.hold_layer(session, layer)
        held = opened_or_left_out(kept, layer, secret_key=secret_key)
        own = joined(held, settings)
        node = session.get_one(Node, node_id)
        rights.check_node_model(session, node.model, node_id=node_id)
        _check(session, node, own)
        own = {name: as_kept(value) for name, value in own.items()}
        if own == held:
            return configuration.version
        sealed = node_settings.sealed(own, owner=layer.owner, secret_key=secret_key)
        by = rights.actor_of(session).name
        layering.set_layer(session, layer, sealed, now=now, by=by)
        layering.apply(session, [node_id], now=now)
        version = session.get_one(Configuration, node_id).version
        auditing.record(
            session,
            "node_configured",
            subject=f"node {node_id}",
            now=now,
            version=version,
            changed=changed(held, own),
        )
        return version


def reset_node(session: Session, node: Node, *, now: datetime) -> None:
    """Leave a node to the layers below again, as a new version whatever it had. Part of the caller's transaction."""
    layer = layering.node_layer(node.node_id)
    if layering.layer_settings(session, layer, lock=True):
        layering.set_layer(session, layer, {}, now=now, by=rights.actor_of(session).name)
    settings = layering.first_settings(session, node.node_id, node.model)
    layering.write(session, {node.node_id: settings}, now=now)


def opened_settings(node_id: str, settings: Values, *, secret_key: SecretKey) -> dict[str, Any]:
    """The settings with passwords, as the node is told them.

    Raises:
        SealBroken: they were sealed under another key.
    """
    return node_settings.opened(settings, owner=node_id, secret_key=secret_key)


def configuration_of(session: Session, node_id: str) -> ConfigurationOverview:
    """One node's configuration. Eight statements at most.

    Raises:
        NotFound: no such node.
    """
    wanted, status = session.get(Configuration, node_id), session.get(NodeStatus, node_id)
    if wanted is None or status is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    standing = _standing(wanted, status)
    says_why = standing in (Standing.ROLLED_BACK, Standing.REFUSED)
    return ConfigurationOverview(
        version=wanted.version,
        settings=node_settings.shown(wanted.settings),
        changed_at=wanted.changed_at,
        running_version=status.config_version,
        standing=standing,
        reason=status.config_reason if says_why else None,
        held_back=wanted.held_back,
        origins=layering.effective_settings(session, node_id),
    )


def standing_of() -> ColumnElement[str]:
    """How a node stands to its configuration, as a column: `Configuration` and `NodeStatus` are in the query."""
    said = {
        state.value: Standing(state.value).value
        for state in (ConfigState.ROLLED_BACK, ConfigState.REFUSED)
    }
    runs_it = and_(
        NodeStatus.config_version == Configuration.version,
        NodeStatus.config_sha256 == Configuration.sha256,
    )
    was_not_heard = or_(
        NodeStatus.last_state_at.is_(None), NodeStatus.last_state_at < Configuration.changed_at
    )
    return case(
        (and_(runs_it, NodeStatus.config_state == ConfigState.TRIAL), Standing.TRIAL.value),
        (runs_it, Standing.IN_FORCE.value),
        (was_not_heard, Standing.WAITING.value),
        *((NodeStatus.config_state == state, standing) for state, standing in said.items()),
        else_=Standing.WAITING.value,
    )


def opened_or_left_out(
    settings: Values, layer: layering.Layer, *, secret_key: SecretKey
) -> dict[str, Any]:
    """A layer's settings in clear, for who changes them. Networks that cannot be opened any more are left out: who gives them again
    mends it.
    """
    try:
        return node_settings.opened(settings, owner=layer.owner, secret_key=secret_key)
    except sealing.SealBroken:
        return {name: value for name, value in settings.items() if name != WIFI}


def joined(held: Values, settings: Values) -> dict[str, Any]:
    """What a layer wants when these settings of it are changed; None takes one back."""
    return {name: value for name, value in {**held, **settings}.items() if value is not None}


def changed(held: Values, wanted: Values) -> dict[str, str | None]:
    """What each changed setting is now, as JSON; None where it was taken back. Of networks the names only."""
    shown = node_settings.shown(wanted)
    return {
        name: json.dumps(shown[name], sort_keys=True) if name in shown else None
        for name in sorted({*held, *wanted})
        if held.get(name) != wanted.get(name)
    }


def _standing(wanted: Configuration, status: NodeStatus) -> Standing:
    heard_at = status.last_state_at
    if (status.config_version, status.config_sha256) == (wanted.version, wanted.sha256):
        on_trial = status.config_state == ConfigState.TRIAL
        return Standing.TRIAL if on_trial else Standing.IN_FORCE
    if heard_at is None or heard_at < wanted.changed_at:
        return Standing.WAITING
    said = {
        state.value: Standing(state.value)
        for state in (ConfigState.ROLLED_BACK, ConfigState.REFUSED)
    }
    return said.get(status.config_state or "", Standing.WAITING)


def _check(session: Session, node: Node, own: Values) -> None:
    """Judges what the node would be told: what is typed in clear, what its other layers want masked."""
    layer = layering.node_layer(node.node_id)
    (found,) = layering.resolve(session, [node.node_id], supposed={layer.at: {}})
    status = session.get_one(NodeStatus, node.node_id)
    wanted = {**node_settings.masked(found.settings), **own}
    fault = node_settings.fault_of(node.model, wanted, battery_mv=status.battery_mv)
    if fault is not None:
        raise ConfigurationWrong(fault.sentence)
