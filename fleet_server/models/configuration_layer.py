"""What is wanted of many nodes at once, layer upon layer, and what each layer was before."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Moment


class LayerKind(StrEnum):
    """From what holds for all to what holds for one: the later has the last word."""

    FLEET = "fleet"
    MODEL = "model"
    GROUP = "group"
    NODE = "node"


_KINDS = ", ".join(f"'{kind}'" for kind in LayerKind)


class ConfigurationLayer(Base):
    """The newest settings of a layer. `key`: the model, the group's id, the node's id; empty for the fleet. Passwords are sealed."""

    __tablename__ = "configuration_layer"
    __table_args__ = (CheckConstraint(f"kind IN ({_KINDS})", name="kind"),)

    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[Moment]


class ConfigurationLayerVersion(Base):
    """Every version that a layer had."""

    __tablename__ = "configuration_layer_version"
    __table_args__ = (CheckConstraint(f"kind IN ({_KINDS})", name="kind"),)

    kind: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[Moment]
    changed_by: Mapped[str]
