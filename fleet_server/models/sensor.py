"""One physical probe. Its calibrations belong to it and travel with it."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class Sensor(Base):
    """A probe with its serial number; `sensor_type` is one of hardware.catalogue."""

    __tablename__ = "sensor"

    id: Mapped[Key]
    serial: Mapped[str] = mapped_column(unique=True)
    sensor_type: Mapped[str]
    created_at: Mapped[Moment]
