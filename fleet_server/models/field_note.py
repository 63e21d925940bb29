"""What somebody noted in the field: words, a photo, or both."""

from __future__ import annotations

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class FieldNote(Base):
    """About a node, a site, a work order, or several of these; a note on a node keeps the site that it stood at.

    The photo itself lies in the file store under its SHA-256, as JPEG.
    """

    __tablename__ = "field_note"
    __table_args__ = (
        CheckConstraint("text <> '' OR photo_sha256 IS NOT NULL", name="something"),
        CheckConstraint(
            "node_id IS NOT NULL OR site_id IS NOT NULL OR work_order_id IS NOT NULL", name="place"
        ),
        Index("ix_field_note_node_id", "node_id", "id"),
        Index("ix_field_note_site_id", "site_id", "id"),
        Index("ix_field_note_work_order_id", "work_order_id", "id"),
    )

    id: Mapped[Key]
    node_id: Mapped[str | None] = mapped_column(ForeignKey("node.node_id"))
    site_id: Mapped[int | None] = mapped_column(ForeignKey("site.id"))
    work_order_id: Mapped[int | None] = mapped_column(ForeignKey("work_order.id"))
    text: Mapped[str] = mapped_column(default="")
    photo_sha256: Mapped[str | None]
    photo_width_px: Mapped[int | None]
    photo_height_px: Mapped[int | None]
    written_at: Mapped[Moment]
    written_by: Mapped[str]
