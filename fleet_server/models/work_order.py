"""What somebody shall do at a node or a site, until when."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class WorkKind(StrEnum):
    """What is to be done."""

    MOUNT = "mount"
    CALIBRATE = "calibrate"
    BATTERY = "battery"
    CLEAN = "clean"
    LOOK = "look"
    RETRIEVE = "retrieve"
    OTHER = "other"


class WorkState(StrEnum):
    """How far it is."""

    OPEN = "open"
    BEGUN = "begun"
    DONE = "done"
    CANCELLED = "cancelled"


_KINDS = ", ".join(f"'{kind}'" for kind in WorkKind)
_STATES = ", ".join(f"'{state}'" for state in WorkState)
_UNFINISHED = text("state IN ('open', 'begun')")


class WorkOrder(Base):
    """`cause` is the stable name of what wanted it, where that is no person: of one cause there is one unfinished order.

    `ordered_by`, `begun_by` and `ended_by` are names as the audit log has them.
    """

    __tablename__ = "work_order"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("node_id IS NOT NULL OR site_id IS NOT NULL", name="place"),
        CheckConstraint("(state IN ('done', 'cancelled')) = (ended_at IS NOT NULL)", name="ended"),
        Index(
            "uq_work_order_cause",
            "cause",
            unique=True,
            sqlite_where=_UNFINISHED,
            postgresql_where=_UNFINISHED,
        ),
        Index("ix_work_order_state_due_at", "state", "due_at", "id"),
        Index("ix_work_order_node_id", "node_id"),
        Index("ix_work_order_site_id", "site_id"),
    )

    id: Mapped[Key]
    kind: Mapped[str]
    state: Mapped[str] = mapped_column(default=WorkState.OPEN)
    summary: Mapped[str]
    node_id: Mapped[str | None] = mapped_column(ForeignKey("node.node_id"))
    site_id: Mapped[int | None] = mapped_column(ForeignKey("site.id"))
    due_at: Mapped[Moment]
    assigned_to: Mapped[int | None] = mapped_column(ForeignKey("user_account.id"))
    assigned_role: Mapped[str | None]
    cause: Mapped[str | None]
    ordered_at: Mapped[Moment]
    ordered_by: Mapped[str]
    begun_at: Mapped[Moment | None]
    begun_by: Mapped[str | None]
    ended_at: Mapped[Moment | None]
    ended_by: Mapped[str | None]
