"""A change of a layer on its way to the nodes, wave by wave."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class ChangeState(StrEnum):
    """Where a change stands."""

    PREPARING = "preparing"  # its nodes are written down, some thousand at a time; nobody is told
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"  # the nodes of its wave are told, and heard
    SOAKING = "soaking"  # enough of them run it; it is watched for a while
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"  # who was told keeps it, nobody else is told
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"


_STATES = ", ".join(f"'{state}'" for state in ChangeState)
_UNSETTLED = text("is_unsettled")


class ConfigurationChange(Base):
    """`before` and `after` are the layer's settings; `changed` names what differs, as it may be shown.

    `is_unsettled`: for the nodes that were told, the layer is `after` although its row does not say so yet. `layer_version`: the
    layer's version that this change became, once all were told. `wave` counts from 1; 0: none was opened. `swept_to`: the last node
    that was looked at on the way back, or after all were told.
    """

    __tablename__ = "configuration_change"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index("ix_configuration_change_layer", "layer_kind", "layer_key", "id"),
        Index(
            "ix_configuration_change_unsettled",
            "id",
            sqlite_where=_UNSETTLED,
            postgresql_where=_UNSETTLED,
        ),
        Index("ix_configuration_change_state", "state", "id"),
    )

    id: Mapped[Key]
    layer_kind: Mapped[str]
    layer_key: Mapped[str]
    layer_name: Mapped[str]
    changed: Mapped[dict[str, Any]] = mapped_column(JSON)
    before: Mapped[dict[str, Any]] = mapped_column(JSON)
    after: Mapped[dict[str, Any]] = mapped_column(JSON)
    author: Mapped[str]
    created_at: Mapped[Moment]
    needs_approval: Mapped[bool]
    approved_by: Mapped[str | None]
    approved_at: Mapped[Moment | None]
    state: Mapped[str]
    reason: Mapped[str | None]  # why it is paused, aborted or rolled back
    waves: Mapped[list[int]] = mapped_column(JSON)  # nodes in each
    wave: Mapped[int]
    wave_opened_at: Mapped[Moment | None]
    soak_s: Mapped[int]
    soaks_since: Mapped[Moment | None]
    failures_accepted: Mapped[int]
    is_unsettled: Mapped[bool]
    layer_version: Mapped[int | None]
    swept_to: Mapped[str | None]
    finished_at: Mapped[Moment | None]


class ConfigurationChangeNode(Base):
    """A node that a change is for. `fault`: why it cannot be told; it is in no wave then (0)."""

    __tablename__ = "configuration_change_node"
    __table_args__ = (
        Index("ix_configuration_change_node_node_id", "node_id"),
        Index("ix_configuration_change_node_wave", "change_id", "wave"),
    )

    change_id: Mapped[int] = mapped_column(ForeignKey("configuration_change.id"), primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    wave: Mapped[int]
    told_at: Mapped[Moment | None]
    fault: Mapped[str | None]
