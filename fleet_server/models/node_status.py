"""What a node last said about itself, and when it was last heard. Written by machines only."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Moment


class NodeStatus(Base):
    """One row per node from its enrolment on; None = never said."""

    __tablename__ = "node_status"

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    last_heard_at: Mapped[Moment | None] = mapped_column(index=True)  # any message of it
    last_state_at: Mapped[Moment | None]  # its last `st`
    last_sampled_at: Mapped[Moment | None]  # newest sampling instant that is stored
    model: Mapped[str | None]
    version: Mapped[str | None]
    bundle_sha256: Mapped[str | None]
    config_version: Mapped[int | None]
    config_sha256: Mapped[str | None]
    config_state: Mapped[str | None]
    config_reason: Mapped[str | None]
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
