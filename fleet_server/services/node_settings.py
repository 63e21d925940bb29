"""A node's settings as the server keeps them: what its model provisions, whether it would take them, passwords sealed.

Of a Wi-Fi network `[name, sealed password]` is kept. What is wanted of one node is sealed for that node; what a layer wants is sealed for
the layer and says so (`layer group 3 …`), so that it is the same text for every node: nobody has to open it to see that nothing changed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from sqlalchemy.orm import Session

from fleet_server.errors import Invalid, NotFound, Said
from fleet_server.services import rights, sealing
from fleet_server.wire.configuration import (
    PUBLISH_S,
    SAMPLE_S,
    WIFI,
    Channels,
    Fault,
    find_fault,
)
from fleet_server.wire.configuration_schema import configuration_schema
from hardware import catalogue

Values = Mapping[str, Any]
SecretKey = Callable[[], str]
"""Asked only where there is a password: it may be drawn when it is asked for first."""

_BATTERY_DRIVER = "battery"
_OWNER_END = " "
_MASK = "0"  # 64 of them are a key in hexadecimal digits, any other number a password


def no_secret_key() -> str:
    """For who has no passwords to do with."""
    return ""


class ConfigurationWrong(Invalid):
    """A setting that no node takes."""

    code = "configuration_wrong"


def provisioned_settings(model: str) -> dict[str, Any]:
    """What every node of a model is told from its enrolment on, where nobody wants anything else."""
    node_model = catalogue.load_node_model(model)
    return {SAMPLE_S: node_model.sample_every_s, PUBLISH_S: node_model.publish_every_s}


@cache
def channels_of(model: str) -> Channels:
    """What of a node of this model its configuration can name."""
    node_model = catalogue.load_node_model(model)
    return Channels(
        keys=[channel.key for channel in node_model.channels], slots=list(_slots(node_model))
    )


def schema_of(session: Session, model: str) -> dict[str, Any]:
    """The JSON Schema of what may be wanted of a node of this model.

    Raises:
        NotFound: no such model, or none that the actor has to do with.
    """
    if model not in catalogue.node_model_ids():
        known = ", ".join(catalogue.node_model_ids())
        raise NotFound(
            "There is no node model %(model)s; there are %(known)s.", model=model, known=known
        )
    site_kind = catalogue.load_node_model(model).site_kind
    rights.check_site_kind(session, site_kind, what=Said("node model %(model)s", model=model))
    return configuration_schema(channels_of(model), title=f"Configuration of {model}")


def fault_of(model: str, settings: Values, *, battery_mv: int | None = None) -> Fault | None:
    """Why a node of this model would refuse these settings (passwords in clear or masked); None when it would take them."""
    intervals = {
        key: slot.every_s
        for key, slot in _slots(catalogue.load_node_model(model)).items()
        if slot.every_s is not None
    }
    provisioned = {**provisioned_settings(model), "every_s": intervals}
    return find_fault(settings, channels_of(model), provisioned=provisioned, battery_mv=battery_mv)


def _slots(model: catalogue.NodeModel) -> dict[str, catalogue.Slot]:
    """By their first channel. The battery is read at every sample."""
    return {
        slot.channels[0].key: slot
        for slot in model.slots
        if catalogue.load_sensor_type(slot.sensor_type).driver != _BATTERY_DRIVER
    }


def layer_owner(kind: str, key: str) -> str:
    """For whom a layer's passwords are sealed; no node is called so."""
    return f"layer {kind} {key}".rstrip()


def opened(settings: Values, *, owner: str, secret_key: SecretKey) -> dict[str, Any]:
    """The settings with passwords in clear.

    Args:
        owner: Of what does not say itself for whom it is sealed.

    Raises:
        SealBroken: they were sealed under another key.
    """
    if WIFI not in settings:
        return dict(settings)
    networks = []
    for name, kept in settings[WIFI]:
        said, _, sealed = kept.rpartition(_OWNER_END)
        password = (
            sealing.unseal(sealed, owner=said or owner, secret_key=secret_key()) if kept else ""
        )
        networks.append([name, password])
    return {**settings, WIFI: networks}


def sealed(
    settings: Values, *, owner: str, secret_key: SecretKey, says_owner: bool = False
) -> dict[str, Any]:
    """The settings with passwords sealed for `owner`."""
    if WIFI not in settings:
        return dict(settings)
    prefix = f"{owner}{_OWNER_END}" if says_owner else ""
    networks = [
        [
            name,
            prefix + sealing.seal(password, owner=owner, secret_key=secret_key())
            if password
            else "",
        ]
        for name, password in settings[WIFI]
    ]
    return {**settings, WIFI: networks}


def masked(settings: Values) -> dict[str, Any]:
    """The settings with passwords of the same length in place of sealed ones: as good for every judgement but on the password."""
    if WIFI not in settings:
        return dict(settings)
    networks = [[name, _MASK * _length_in_clear(kept)] for name, kept in settings[WIFI]]
    return {**settings, WIFI: networks}


def shown(settings: Values) -> dict[str, Any]:
    """The settings as people may see them: of Wi-Fi networks the names only."""
    if not settings.get(WIFI):
        return dict(settings)
    return {**settings, WIFI: [network[0] for network in settings[WIFI]]}


def _length_in_clear(kept: str) -> int:
    if not kept:
        return 0
    text = kept.rpartition(_OWNER_END)[2]
    return max(0, len(base64.b64decode(text)) - sealing.OVERHEAD_BYTES)
