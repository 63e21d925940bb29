"""Groups of nodes, and tags on nodes: what a setting can be wanted for besides the fleet, a model and one node."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment


class NodeGroup(Base):
    """Of two groups that a node is in, the one with the higher `priority` has the last word (of equal ones the younger).

    `rule` says which nodes belong to it by themselves; None: only who was put there by hand.
    """

    __tablename__ = "node_group"

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(unique=True)
    description: Mapped[str]
    priority: Mapped[int]
    rule: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[Moment]


class NodeGroupMember(Base):
    """Who is in a group: kept, so that no list has to ask every rule."""

    __tablename__ = "node_group_member"
    __table_args__ = (
        CheckConstraint("by_hand OR by_rule", name="reason"),
        Index("ix_node_group_member_node_id", "node_id"),
    )

    group_id: Mapped[int] = mapped_column(ForeignKey("node_group.id"), primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    by_hand: Mapped[bool]
    by_rule: Mapped[bool]


class NodeTag(Base):
    """A word that somebody put on a node."""

    __tablename__ = "node_tag"
    __table_args__ = (Index("ix_node_tag_tag", "tag", "node_id"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)
