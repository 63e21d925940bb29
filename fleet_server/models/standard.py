"""What probes are calibrated against: a bottle of buffer, a thermometer with its certificate, air-saturated water."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import JSON, CheckConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class StandardKind(StrEnum):
    """What a standard is."""

    SOLUTION = "solution"  # a buffer, a conductivity or turbidity standard: by lot
    FIXED_POINT = "fixed_point"  # ice water, a zero solution, dry air, water: made on the spot
    AIR_SATURATION = "air_saturation"  # water in balance with the air: worth what temperature and pressure make it
    INSTRUMENT = "instrument"  # a reference probe or a gauge: what it shows is typed in


class Standard(Base):
    """Worth `points` (pairs of °C and published unit, ascending) at a temperature, with standard uncertainty `u`; its numbers never change.

    One pair is worth the same at any temperature. An air saturation and an instrument have no pairs. `expires_at` null: it does not expire.
    """

    __tablename__ = "standard"
    __table_args__ = (
        UniqueConstraint("name", "lot"),
        CheckConstraint(
            f"kind IN ({', '.join(repr(str(kind)) for kind in StandardKind)})", name="kind"
        ),
        CheckConstraint("u > 0", name="u"),
    )

    id: Mapped[Key]
    kind: Mapped[str]
    property: Mapped[str]
    name: Mapped[str]
    lot: Mapped[str]
    certificate: Mapped[str]
    points: Mapped[list[list[float]]] = mapped_column(JSON)
    u: Mapped[float]
    expires_at: Mapped[Moment | None]
    created_at: Mapped[Moment]
    created_by: Mapped[str]
    discarded_at: Mapped[Moment | None]
