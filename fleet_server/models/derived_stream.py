"""Datastreams whose values follow by a formula from those of others."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base


class DerivedStream(Base):
    """A datastream of level `derived`. `inputs`: datastreams by the formula's arguments; the first of them is its `source_id`, too.

    `stated`: what a person states of the place, by argument, as [value, standard uncertainty]. None: it is stated no more, and nothing
    follows.
    """

    __tablename__ = "derived_stream"

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    formula: Mapped[str]
    inputs: Mapped[dict[str, int]] = mapped_column(JSON)
    stated: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
