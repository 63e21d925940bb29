"""What a node last said about itself, and when it was last heard. Written by machines only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Compiled, Computed, ForeignKey, Index
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.expression import ColumnElement

from fleet_server.models.base import Base, Big, Moment, UtcSeconds
from fleet_server.wire.states import BATTERY_LOW_PERIODS

_EVERY_S = (
    "(publish_s * CASE WHEN battery_level <> 'normal' AND battery_power_up = power_up"
    f" THEN {BATTERY_LOW_PERIODS} ELSE 1 END)"
)


class _Heard(ColumnElement[datetime]):
    """When a node will have been silent for so many halves of its publishing interval: text that each database can index."""

    inherit_cache = True

    def __init__(self, half_periods: int) -> None:
        self.half_periods = half_periods
        self.type = UtcSeconds()


@compiles(_Heard)
def _on_sqlite(heard: _Heard, _compiler: Compiled, **_: Any) -> str:
    return f"last_heard_at + {_EVERY_S} * {heard.half_periods} / 2"


@compiles(_Heard, "postgresql")
def _on_postgresql(heard: _Heard, _compiler: Compiled, **_: Any) -> str:
    # By way of a time without zone: only that is the same whatever the session's settings are, and may be kept.
    later = f"make_interval(secs => {_EVERY_S} * {heard.half_periods} / 2)"
    return f"(last_heard_at AT TIME ZONE 'UTC' + {later}) AT TIME ZONE 'UTC'"


class NodeStatus(Base):
    """One row per node from its registration on; None = never said.

    `due_at`, `late_at`, `offline_at` follow from when it was heard and its own schedule; the database computes them, so that
    a list can be filtered by health and nobody can forget to.
    """

    __tablename__ = "node_status"
    __table_args__ = (Index("ix_node_status_bundle", "bundle_sha256", "version", "model"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    last_heard_at: Mapped[Moment | None] = mapped_column(index=True)  # any message of it
    last_state_at: Mapped[Moment | None]  # its last `st`
    clock_at: Mapped[Moment | None]  # what its own clock said then
    last_sampled_at: Mapped[Moment | None]  # newest sampling instant that is stored
    model: Mapped[str | None]
    version: Mapped[str | None]
    bundle_sha256: Mapped[str | None]
    config_version: Mapped[int | None]
    config_sha256: Mapped[str | None]
    config_state: Mapped[str | None]
    config_reason: Mapped[str | None]
    certificate: Mapped[str | None]  # name of the one that it connected with (wire.credentials)
    roots: Mapped[str | None]  # names of the authorities that it trusts
    credential_state: Mapped[str | None]
    counter: Mapped[Big | None]  # of the running release
    assignment: Mapped[Big | None]  # with `attempt`, of the update that brought it
    attempt: Mapped[Big | None]
    micropython: Mapped[str | None]
    image_sha256: Mapped[str | None]  # of its MicroPython, where an update brought it
    slot: Mapped[str | None]
    slot_state: Mapped[str | None]
    battery_mv: Mapped[int | None]
    rssi_dbm: Mapped[int | None]
    free_heap: Mapped[int | None]
    heap_low: Mapped[int | None]
    idf_largest: Mapped[int | None]
    spool: Mapped[Big | None]
    spool_depth: Mapped[int | None]  # packs held without a receipt
    oldest: Mapped[Big | None]
    newest: Mapped[Big | None]
    thinned: Mapped[Big | None]  # packs replaced by their extremes, since the spool was made
    lost: Mapped[Big | None]  # packs given up without that
    power_up: Mapped[Big | None]
    uptime_ms: Mapped[Big | None]
    boot_count: Mapped[Big | None]
    reset_cause: Mapped[str | None]
    drift_ppm: Mapped[float | None]
    last_error: Mapped[str | None]
    # Its schedule: what its configuration says, and how its battery lets it (as of that power-up).
    publish_s: Mapped[int] = mapped_column(server_default="3600")
    network: Mapped[str | None]  # the Wi-Fi network that it is told first
    battery_level: Mapped[str] = mapped_column(server_default="normal")
    battery_power_up: Mapped[Big | None]
    due_at: Mapped[Moment | None] = mapped_column(Computed(_Heard(2)))
    late_at: Mapped[Moment | None] = mapped_column(Computed(_Heard(3)), index=True)
    offline_at: Mapped[Moment | None] = mapped_column(Computed(_Heard(6)))
