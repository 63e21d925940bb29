"""What a node says about itself at each connect (`up/{id}/st`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cbor2

from fleet_server.wire import cbor, credentials
from fleet_server.wire.errors import WireError
from fleet_server.wire.senml import TIME_BEFORE_UTC_S, TIME_FROM_UTC_S, U32_MAX, UPTIME_MAX_MS
from fleet_server.wire.states import ConfigState, Slot, SlotState

_MAX_FIELDS = 64
_MAX_TEXT_LENGTH = 256


@dataclass(frozen=True)
class NodeStateMessage:
    """One state message. None stands for "the node does not know".

    `power_up`, `uptime_ms` and `utc_s` together are an anchor: they say when, in UTC, that power-up's clock stood where.
    `oldest` and `newest` are the sequence numbers between which the spool holds packs; both None while it is empty. Since it was
    made `thinned` packs were replaced by their extremes and `lost` ones went without, none of which had a receipt.
    `certificate` is the name (`wire.credentials`) of the one that this connect was made with, `roots` those of the authorities that
    the node trusts, with a space between. `counter` is the running release's (0 for a bundle that is none); `assignment` and `attempt`
    are those of the update that brought it, None when it was flashed. `micropython` is the version that runs, `image_sha256` its image
    where an update brought it.
    """

    model: str
    version: str
    power_up: int
    uptime_ms: int
    utc_s: int | None = None
    bundle_sha256: str | None = None
    config_version: int | None = None
    config_sha256: str | None = None
    slot: str | None = None
    slot_state: str | None = None
    battery_mv: int | None = None
    rssi_dbm: int | None = None
    free_heap: int | None = None
    heap_low: int | None = None
    idf_largest: int | None = None
    spool: int | None = None
    spool_depth: int | None = None
    oldest: int | None = None
    newest: int | None = None
    thinned: int | None = None
    lost: int | None = None
    boot_count: int | None = None
    reset_cause: str | None = None
    drift_ppm: float | None = None
    last_error: str | None = None
    config_state: str | None = None
    config_reason: str | None = None
    certificate: str | None = None
    roots: str | None = None
    credential_state: str | None = None
    counter: int | None = None
    assignment: int | None = None
    attempt: int | None = None
    micropython: str | None = None
    image_sha256: str | None = None


def decode_state(payload: bytes) -> NodeStateMessage:
    """Read a state message. Fields this server does not know are passed over: a newer node may say more.

    Safe for any bytes, as `senml.decode_pack` is.

    Raises:
        WireError: the payload is not a state message.
    """
    cbor.check_size(payload)
    message = cbor.decode_only(payload)
    if not isinstance(message, dict) or len(message) > _MAX_FIELDS:
        raise WireError("state_not_map", "The state message is not a map of fields.")
    values: dict[str, Any] = {
        name: _field(name, message[name], check)
        for name, check in _CHECKS.items()
        if name in message
    }
    missing = [name for name in _REQUIRED if values.get(name) is None]
    if missing:
        raise WireError("state_field_missing", f"The state message lacks {missing[0]}.")
    return NodeStateMessage(**values)


def encode_state(state: NodeStateMessage) -> bytes:
    """Write a state message: for virtual load and golden vectors. Every field is sent, unknown ones as null."""
    return cbor2.dumps({name: getattr(state, name) for name in STATE_FIELDS})


def _field(name: str, value: object, is_possible: Callable[[object], bool]) -> object:
    if value is not None and not is_possible(value):
        raise WireError("state_field_wrong", f"The state message's {name} has no possible value.")
    return value


def _integer(minimum: int, maximum: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and minimum <= value <= maximum


def _text(value: object) -> bool:
    # NUL is refused because PostgreSQL cannot store it in a text column.
    return isinstance(value, str) and len(value) <= _MAX_TEXT_LENGTH and "\0" not in value


def _sha256_hex(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e9  # no NaN, and no infinity either


_U31 = _integer(0, (1 << 31) - 1)
_U32 = _integer(0, U32_MAX)

# In the order in which the node writes them.
_CHECKS: dict[str, Callable[[object], bool]] = {
    "model": _text,
    "version": _text,
    "bundle_sha256": _sha256_hex,
    "config_version": _U31,
    "config_sha256": _sha256_hex,
    "slot": lambda value: value in tuple(Slot),
    "slot_state": lambda value: value in tuple(SlotState),
    "battery_mv": _integer(0, 100_000),
    "rssi_dbm": _integer(-200, 100),
    "free_heap": _U31,
    "idf_largest": _U31,
    "spool_depth": _U31,
    "spool": _U32,
    "oldest": _U32,
    "newest": _U32,
    "thinned": _U32,
    "lost": _U32,
    "power_up": _U32,
    "uptime_ms": _integer(0, UPTIME_MAX_MS),
    "utc_s": _integer(TIME_FROM_UTC_S, TIME_BEFORE_UTC_S - 1),
    "boot_count": _U32,
    "reset_cause": _text,
    "drift_ppm": _finite,
    "last_error": _text,
    "heap_low": _U31,
    "config_state": lambda value: value in tuple(ConfigState),
    "config_reason": _text,
    "certificate": credentials.is_name,
    "roots": credentials.are_names,
    "credential_state": lambda value: value in tuple(ConfigState),
    "counter": _U32,
    "assignment": _U32,
    "attempt": _U32,
    "micropython": _text,
    "image_sha256": _sha256_hex,
}
STATE_FIELDS = tuple(_CHECKS)
_REQUIRED = ("model", "version", "power_up", "uptime_ms")
