"""A campaign: one release on its way to many nodes, wave by wave."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Key, Moment


class CampaignState(StrEnum):
    """Where a campaign stands."""

    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    SCHEDULED = "scheduled"  # approved; it begins by itself
    RUNNING = "running"  # the nodes of its wave are told, and heard
    SOAKING = "soaking"  # enough of them run it; they are watched for a while
    PAUSED = "paused"
    COMPLETED = "completed"
    ABORTED = "aborted"
    EXPIRED = "expired"  # its time was over before all nodes were through


class NodeStage(StrEnum):
    """Where a node stands in a campaign: on its way in this order, then how it may end."""

    PLANNED = "planned"
    OFFERED = "offered"  # it is told; nothing was heard of it since
    ACCEPTED = "accepted"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    TESTING = "testing"
    SUCCEEDED = (
        "succeeded"  # it says so of itself, trusts the version, and a reading of it is stored
    )
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    TIMED_OUT = "timed_out"  # it was heard, and came no further
    CANCELED = "canceled"
    SUPERSEDED = "superseded"  # a later campaign told it something else
    ALREADY_INSTALLED = "already_installed"
    UNREACHABLE = "unreachable"  # it was not heard; once it is, it goes on


def _one_of(names: type[StrEnum]) -> str:
    return ", ".join(f"'{name}'" for name in names)


_ASSIGNED = text("is_assigned")
_LIMITED = text("deadline_at IS NOT NULL")


class Campaign(Base):
    """`reason`: why it is paused, aborted or expired; `stop`: the same by code and parts, where it is no person's own words.
    `paused_by` None: it paused by itself.

    `hours_from_min`, `hours_until_min`: minutes of the city's day between which nodes may begin; None: always. `free_at`: when the
    network is free again for one more node (`bytes_per_s`). `time_outs_s`: by stage, where they differ from the usual ones. `image_sha256` and
    `micropython` are those that the release brings; None where it brings none.
    """

    __tablename__ = "campaign"
    __table_args__ = (
        CheckConstraint(f"state IN ({_one_of(CampaignState)})", name="state"),
        Index("ix_campaign_state", "state", "id"),
    )

    id: Mapped[Key]
    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"))
    model: Mapped[str]
    version: Mapped[str]
    counter: Mapped[Big]
    bundle_sha256: Mapped[str]
    image_sha256: Mapped[str | None]
    micropython: Mapped[str | None]
    selection: Mapped[dict[str, Any]] = mapped_column(JSON)
    is_dynamic: Mapped[bool]
    author: Mapped[str]
    created_at: Mapped[Moment]
    approved_by: Mapped[str | None]
    approved_at: Mapped[Moment | None]
    starts_at: Mapped[Moment | None]
    ends_at: Mapped[Moment | None]
    hours_from_min: Mapped[int | None]
    hours_until_min: Mapped[int | None]
    bytes_per_s: Mapped[int | None]
    bytes_per_node: Mapped[int]
    jitter_s: Mapped[int]
    at_once: Mapped[int]
    time_outs_s: Mapped[dict[str, int]] = mapped_column(JSON)
    state: Mapped[str]
    reason: Mapped[str | None]
    stop: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    paused_by: Mapped[str | None]
    wave: Mapped[int]  # the one that is open; 0: none was opened
    soaks_since: Mapped[Moment | None]
    free_at: Mapped[Moment | None]
    finished_at: Mapped[Moment | None]


class CampaignWave(Base):
    """One step. The next one opens when of the reached nodes `gate_share` (0–1) succeeded, at least `minimum_reached` were reached, and
    that stayed so for `soak_s`. More than `pause_share` failed, or where `pauses_at_roll_back` one rolled back: the campaign pauses.

    `failures_accepted`, `is_waived`: what a person let pass when they resumed it.
    """

    __tablename__ = "campaign_wave"

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1
    gate_share: Mapped[float]
    minimum_reached: Mapped[int]
    soak_s: Mapped[int]
    pause_share: Mapped[float]
    pauses_at_roll_back: Mapped[bool]
    opened_at: Mapped[Moment | None]
    failures_accepted: Mapped[int]
    is_waived: Mapped[bool]


class CampaignNode(Base):
    """A node of a campaign. `assignment` is the number that the node tells again; `attempt` rises with each try.

    `is_assigned`: its desired state names this release: of one campaign at a time. `running_since`: when it first said that it runs it.
    """

    __tablename__ = "campaign_node"
    __table_args__ = (
        CheckConstraint(f"stage IN ({_one_of(NodeStage)})", name="stage"),
        Index("ix_campaign_node_wave", "campaign_id", "wave", "stage"),
        Index("ix_campaign_node_list", "campaign_id", "wave", "node_id"),
        Index("ix_campaign_node_node_id", "node_id", "campaign_id"),
        Index(
            "uq_campaign_node_assigned",
            "node_id",
            unique=True,
            sqlite_where=_ASSIGNED,
            postgresql_where=_ASSIGNED,
        ),
        Index(
            "ix_campaign_node_deadline_at",
            "deadline_at",
            sqlite_where=_LIMITED,
            postgresql_where=_LIMITED,
        ),
    )

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), primary_key=True)
    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    wave: Mapped[int]
    assignment: Mapped[Big] = mapped_column(unique=True)
    attempt: Mapped[int]
    stage: Mapped[str]
    reason: Mapped[str | None]
    since: Mapped[Moment]
    deadline_at: Mapped[Moment | None]
    not_before_at: Mapped[Moment | None]
    until_at: Mapped[Moment | None]
    running_since: Mapped[Moment | None]
    is_assigned: Mapped[bool]


class CampaignCursor(Base):
    """Up to which pack the nodes' words on their updates were read: one row."""

    __tablename__ = "campaign_cursor"

    id: Mapped[Key]
    pack_id: Mapped[Big]
