"""One ESP32 device: what people decide about it. What it says about itself is in `node_status`."""

from __future__ import annotations

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment
from fleet_server.wire.states import NodeState

_STATES = ", ".join(f"'{state}'" for state in NodeState)


class Node(Base):
    """Never deleted: its `node_id` is its certificate's CN and is never given out again."""

    __tablename__ = "node"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        Index("ix_node_state_label", "state", "label"),
    )

    node_id: Mapped[str] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(index=True)  # what the technician calls it, e.g. tree-01
    model: Mapped[str]  # a node model of hardware.catalogue
    state: Mapped[str]
    state_since: Mapped[Moment | None]
    state_reason: Mapped[str | None]
    # What is meant to become of it; until it is put at a site.
    planned_site_id: Mapped[int | None] = mapped_column(ForeignKey("site.id"))
    planned_serials: Mapped[dict[str, str] | None] = mapped_column(JSON)  # by slot
    # None from here on: it was never enrolled.
    enrolled_at: Mapped[Moment | None]
    enrolment_token_id: Mapped[int | None] = mapped_column(ForeignKey("enrolment_token.id"))
    public_key_sha256: Mapped[str | None] = mapped_column(unique=True)  # of the key's DER (SPKI)
    certificate_serial: Mapped[str | None] = mapped_column(unique=True)  # hexadecimal
    certificate_pem: Mapped[str | None]
    certificate_expires_at: Mapped[Moment | None]
