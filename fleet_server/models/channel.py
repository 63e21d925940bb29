"""One quantity that a sensor delivers within a deployment: what a channel key of a node means, from–to."""

from __future__ import annotations

from sqlalchemy import JSON, CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class Channel(Base):
    """Copied from the node model when deployed, so that a later change of the model does not rewrite history.

    `conversion` names the formula raw → published; `needs` maps its further inputs to channel keys of the same node.
    A probe swap ends the row (`to_at`) and begins another one with the same datastream.
    """

    __tablename__ = "channel"
    __table_args__ = (
        UniqueConstraint("deployment_id", "key", "from_at"),
        CheckConstraint("to_at IS NULL OR to_at > from_at", name="order"),
    )

    id: Mapped[Key]
    deployment_id: Mapped[int] = mapped_column(ForeignKey("deployment.id"))
    key: Mapped[str]
    sensor_id: Mapped[int] = mapped_column(ForeignKey("sensor.id"), index=True)
    datastream_id: Mapped[int] = mapped_column(ForeignKey("datastream.id"), index=True)
    property: Mapped[str]
    unit: Mapped[str]
    raw_unit: Mapped[str]
    depth_cm: Mapped[int]
    conversion: Mapped[str]
    needs: Mapped[dict[str, str]] = mapped_column(JSON)
    from_at: Mapped[Moment]
    to_at: Mapped[Moment | None]
