"""What the city decides by, version by version, and what it decided of every site."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, BigKey, Key, Moment

TREE_STATES = ("good", "moderate", "critical", "unknown")
WATER_STATES = ("good", "watch", "warning", "alarm", "emergency", "unknown")
_STATES = ", ".join(f"'{state}'" for state in dict.fromkeys((*TREE_STATES, *WATER_STATES)))


class CityRuleSet(Base):
    """Rules of a kind (`trees`, `waters`): for all sites, for a group of trees, or for one site. Never changed: the newest version holds.

    `body` is what `city.rules.to_data` writes; None: from here on the more general ones hold again.
    """

    __tablename__ = "city_rule_set"
    __table_args__ = (
        UniqueConstraint("kind", "site_id", "tree_group", "version"),
        CheckConstraint("version > 0", name="version"),
        CheckConstraint("site_id IS NULL OR tree_group IS NULL", name="one_scope"),
    )

    id: Mapped[Key]
    kind: Mapped[str]
    site_id: Mapped[int | None] = mapped_column(ForeignKey("site.id"))
    tree_group: Mapped[str | None]
    version: Mapped[int]
    body: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    reason: Mapped[str]
    author: Mapped[str]
    created_at: Mapped[Moment]


class CityState(Base):
    """A site's state from when it was found until it became another one; open once per site.

    While it is open, `reasons` (`city.evidence`), `at_worst` and `memory` (`city.water_status`) are those of `evaluated_at`; a state that
    is over is never changed again. A new row begins when the state becomes another one, or what it rests on; not with every number.
    `rule_set_id` None: the defaults.
    """

    __tablename__ = "city_state"
    __table_args__ = (
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("to_at IS NULL OR to_at >= from_at", name="order"),
        Index(
            "uq_city_state_open",
            "site_id",
            unique=True,
            sqlite_where=text("to_at IS NULL"),
            postgresql_where=text("to_at IS NULL"),
        ),
        Index("ix_city_state_site_id", "site_id", "from_at"),
    )

    id: Mapped[BigKey]
    site_id: Mapped[int] = mapped_column(ForeignKey("site.id"))
    from_at: Mapped[Moment]
    to_at: Mapped[Moment | None]
    state: Mapped[str]
    at_worst: Mapped[str]
    is_inferred: Mapped[bool] = mapped_column(default=False)
    reasons: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    memory: Mapped[dict[str, Any]] = mapped_column(JSON)
    rule_set_id: Mapped[int | None] = mapped_column(ForeignKey("city_rule_set.id"))
    evaluated_at: Mapped[Moment]
