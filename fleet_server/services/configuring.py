"""Desired configuration of nodes: what the server wants, and how a node stands to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound
from fleet_server.models import Configuration, Node, NodeStatus
from fleet_server.models.outbox import DESIRED
from fleet_server.services import auditing, health, outbox, rights, sealing
from fleet_server.wire.configuration import (
    PUBLISH_S,
    SAMPLE_S,
    WIFI,
    Channels,
    as_kept,
    find_fault,
    sha256_hex,
)
from fleet_server.wire.states import ConfigState
from hardware import catalogue

Values = Mapping[str, Any]
_BATTERY_DRIVER = "battery"
SecretKey = Callable[[], str]
"""Asked only where there is a password: it may be drawn when it is asked for first."""


def no_secret_key() -> str:
    """For who has no passwords to do with."""
    return ""


class ConfigurationWrong(Invalid):
    """A setting that no node takes."""

    code = "configuration_wrong"


class Standing(StrEnum):
    """How a node stands to the configuration that is wanted of it."""

    IN_FORCE = "in_force"
    TRIAL = "trial"
    WAITING = "waiting"  # it was not heard since
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"


@dataclass(frozen=True)
class ConfigurationOverview:
    """What is wanted (`version`, `settings`) and what the node said it runs; of Wi-Fi networks `settings` has the names only."""

    version: int
    settings: Values
    changed_at: datetime
    running_version: int | None
    standing: Standing
    reason: str | None


def configure_node(
    session: Session,
    node_id: str,
    settings: Values,
    *,
    now: datetime,
    secret_key: SecretKey = no_secret_key,
) -> int:
    """Want these settings of a node, others stay; None takes one back to what was provisioned. Committed on return.

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
            raise NotFound(f"There is no node {node_id}.")
        held = _opened_as_far_as_possible(configuration, secret_key)
        wanted = _joined(held, settings)
        _check(session, node_id, wanted)
        wanted = {name: as_kept(value) for name, value in wanted.items()}
        if wanted == held:
            return configuration.version
        change_settings(session, configuration, _sealed(wanted, node_id, secret_key), now=now)
        auditing.record(
            session,
            "node_configured",
            subject=f"node {node_id}",
            now=now,
            version=configuration.version,
            changed=_changed(held, wanted),
        )
        return configuration.version


def provisioned_settings(model: str) -> dict[str, Any]:
    """What every node of a model is told from its enrolment on."""
    node_model = catalogue.load_node_model(model)
    return {SAMPLE_S: node_model.sample_every_s, PUBLISH_S: node_model.publish_every_s}


def change_settings(
    session: Session, configuration: Configuration, settings: Values, *, now: datetime
) -> None:
    """Part of the caller's transaction; what must not be in clear is sealed already."""
    configuration.settings = dict(settings)
    configuration.version += 1
    configuration.changed_at = now
    session.flush()
    health.follow_configuration(session, [configuration.node_id])
    outbox.mark_changed(session, DESIRED, [configuration.node_id], now=now)


def opened_settings(node_id: str, settings: Values, *, secret_key: SecretKey) -> dict[str, Any]:
    """The settings with passwords, as the node is told them.

    Raises:
        SealBroken: they were sealed under another key.
    """
    if WIFI not in settings:
        return dict(settings)
    networks = [
        [name, sealing.unseal(sealed, owner=node_id, secret_key=secret_key()) if sealed else ""]
        for name, sealed in settings[WIFI]
    ]
    return {**settings, WIFI: networks}


def configuration_of(session: Session, node_id: str) -> ConfigurationOverview:
    """One node's configuration. Two statements.

    Raises:
        NotFound: no such node.
    """
    wanted, status = session.get(Configuration, node_id), session.get(NodeStatus, node_id)
    if wanted is None or status is None:
        raise NotFound(f"There is no node {node_id}.")
    shown = dict(wanted.settings)
    if WIFI in shown:
        shown[WIFI] = [name for name, _ in shown[WIFI]]
    standing = _standing(wanted, status)
    says_why = standing in (Standing.ROLLED_BACK, Standing.REFUSED)
    return ConfigurationOverview(
        version=wanted.version,
        settings=shown,
        changed_at=wanted.changed_at,
        running_version=status.config_version,
        standing=standing,
        reason=status.config_reason if says_why else None,
    )


def _standing(wanted: Configuration, status: NodeStatus) -> Standing:
    heard_at = status.last_state_at
    runs_it = (status.config_version, status.config_sha256) == (
        wanted.version,
        sha256_hex(wanted.version, wanted.settings),
    )
    if runs_it:
        on_trial = status.config_state == ConfigState.TRIAL
        return Standing.TRIAL if on_trial else Standing.IN_FORCE
    if heard_at is None or heard_at < wanted.changed_at:
        return Standing.WAITING
    said = {
        state.value: Standing(state.value)
        for state in (ConfigState.ROLLED_BACK, ConfigState.REFUSED)
    }
    return said.get(status.config_state or "", Standing.WAITING)


def _joined(held: Values, settings: Values) -> dict[str, Any]:
    for name in (SAMPLE_S, PUBLISH_S):
        if name in settings and settings[name] is None:
            raise ConfigurationWrong(f"{name} is always wanted; give another value.")
    joined = {**held, **settings}
    return {name: value for name, value in joined.items() if value is not None}


def _changed(held: Values, wanted: Values) -> dict[str, str | None]:
    """What each changed setting is now, as JSON; None where it was taken back. Of networks the names only."""
    shown = {**wanted, WIFI: [name for name, _ in wanted[WIFI]]} if WIFI in wanted else wanted
    return {
        name: json.dumps(shown[name], sort_keys=True) if name in shown else None
        for name in sorted({*held, *wanted})
        if held.get(name) != wanted.get(name)
    }


def _check(session: Session, node_id: str, wanted: Values) -> None:
    node, status = session.get_one(Node, node_id), session.get_one(NodeStatus, node_id)
    rights.check_node_model(session, node.model, node_id=node_id)
    model = catalogue.load_node_model(node.model)
    slots = {slot.channels[0].key: slot for slot in model.slots if not _is_battery(slot)}
    channels = Channels(keys=[channel.key for channel in model.channels], slots=list(slots))
    intervals = {key: slot.every_s for key, slot in slots.items() if slot.every_s is not None}
    fault = find_fault(
        wanted,
        channels,
        provisioned={**provisioned_settings(node.model), "every_s": intervals},
        battery_mv=status.battery_mv,
    )
    if fault is not None:
        raise ConfigurationWrong(fault.sentence)


def _is_battery(slot: catalogue.Slot) -> bool:
    """It is read at every sample."""
    return catalogue.load_sensor_type(slot.sensor_type).driver == _BATTERY_DRIVER


def _opened_as_far_as_possible(
    configuration: Configuration, secret_key: SecretKey
) -> dict[str, Any]:
    """Networks that cannot be opened any more are left out: who gives them again mends it."""
    try:
        return opened_settings(configuration.node_id, configuration.settings, secret_key=secret_key)
    except sealing.SealBroken:
        return {name: value for name, value in configuration.settings.items() if name != WIFI}


def _sealed(settings: Values, node_id: str, secret_key: SecretKey) -> dict[str, Any]:
    if WIFI not in settings:
        return dict(settings)
    networks = [
        [name, sealing.seal(password, owner=node_id, secret_key=secret_key()) if password else ""]
        for name, password in settings[WIFI]
    ]
    return {**settings, WIFI: networks}
