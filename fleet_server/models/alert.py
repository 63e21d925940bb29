"""Calls for help: what is wrong with a node or with many, once each; who is told of it; and when nobody wants to hear."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from fleet_server.models.base import Base, Big, BigKey, Key, Moment
from fleet_server.models.user import User


class AlertKind(StrEnum):
    """What is wrong."""

    FLEET_SILENT = "fleet_silent"  # nobody is heard: the broker, or the server's own network
    PLACE_SILENT = "place_silent"  # most nodes of one place or Wi-Fi network
    OFFLINE = "offline"
    LATE = "late"
    BATTERY = "battery"
    CLOCK_DRIFT = "clock_drift"
    SPOOL_GROWING = "spool_growing"
    REBOOT_LOOP = "reboot_loop"
    CERTIFICATE = "certificate"
    SENSOR = "sensor"
    RADIO = "radio"
    JOB = "job"  # what the server should have done and did not: a job of the worker, or the backup


class Severity(StrEnum):
    """How soon somebody should look."""

    NOTICE = "notice"  # some day
    WARNING = "warning"  # this week
    URGENT = "urgent"  # today


class Channel(StrEnum):
    """How somebody is told."""

    MAIL = "mail"
    WEBHOOK = "webhook"


def _one_of(names: type[StrEnum]) -> str:
    return ", ".join(f"'{name}'" for name in names)


class Alert(Base):
    """One thing that is wrong, from when it was seen until it is over: open once per kind and subject.

    `well_since`: it is over, but not for long enough to say so. `details` are whole numbers and texts with their units in the names.
    """

    __tablename__ = "alert"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_one_of(AlertKind)})", name="kind"),
        CheckConstraint(f"severity IN ({_one_of(Severity)})", name="severity"),
        Index(
            "uq_alert_open",
            "kind",
            "subject",
            unique=True,
            sqlite_where=text("closed_at IS NULL"),
            postgresql_where=text("closed_at IS NULL"),
        ),
        Index("ix_alert_node_id", "node_id", "id"),
    )

    id: Mapped[BigKey]
    kind: Mapped[str]
    subject: Mapped[str]  # `node n-3f9a1c`, `place …`, `network …`, `fleet`
    node_id: Mapped[str | None] = mapped_column(ForeignKey("node.node_id"))
    severity: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column(JSON)
    opened_at: Mapped[Moment]
    well_since: Mapped[Moment | None]
    closed_at: Mapped[Moment | None] = mapped_column(index=True)
    acknowledged_at: Mapped[Moment | None]
    acknowledged_by: Mapped[str | None]
    note: Mapped[str | None]
    escalated_at: Mapped[Moment | None]


class AlertRule(Base):
    """A kind's rule where it is not the default: thresholds by name, times in seconds."""

    __tablename__ = "alert_rule"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_one_of(AlertKind)})", name="kind"),
        CheckConstraint(f"severity IN ({_one_of(Severity)})", name="severity"),
    )

    kind: Mapped[str] = mapped_column(primary_key=True)
    is_active: Mapped[bool]
    severity: Mapped[str]
    thresholds: Mapped[dict[str, int]] = mapped_column(JSON)
    clear_after_s: Mapped[int]
    escalate_after_s: Mapped[int | None]
    changed_at: Mapped[Moment]


class Silence(Base):
    """A maintenance window: from–to nobody is called for these nodes."""

    __tablename__ = "silence"
    __table_args__ = (
        CheckConstraint("scope IN ('all', 'node', 'site', 'group', 'model')", name="scope"),
        CheckConstraint("to_at > from_at", name="span"),
    )

    id: Mapped[Key]
    scope: Mapped[str]
    key: Mapped[str]  # node id, site code, group's name or node model; empty for all
    from_at: Mapped[Moment]
    to_at: Mapped[Moment] = mapped_column(index=True)
    reason: Mapped[str]
    made_by: Mapped[str]
    made_at: Mapped[Moment]


class AlertRecipient(Base):
    """Who is told of which alerts: an address with what it wants to hear, or an account.

    An account is told at its own mail address of what is in its scope, while it is open; `address` is empty.
    """

    __tablename__ = "alert_recipient"
    __table_args__ = (
        CheckConstraint(f"channel IN ({_one_of(Channel)})", name="channel"),
        CheckConstraint(f"min_severity IN ({_one_of(Severity)})", name="min_severity"),
        CheckConstraint("site_kind IN ('tree', 'water')", name="site_kind"),
        CheckConstraint("language IN ('de', 'en')", name="language"),
    )

    id: Mapped[Key]
    name: Mapped[str] = mapped_column(unique=True)
    channel: Mapped[str]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("user_account.id"), unique=True)
    address: Mapped[str]  # e-mail addresses, separated by commas; or the webhook's https address
    sealed_secret: Mapped[str | None]  # what a webhook is signed with
    kinds: Mapped[list[str] | None] = mapped_column(JSON)  # None: all
    min_severity: Mapped[str]
    site_kind: Mapped[str | None]  # None: both
    language: Mapped[str]
    is_active: Mapped[bool]
    made_at: Mapped[Moment]
    user: Mapped[User | None] = relationship(lazy="selectin")

    @property
    def account(self) -> str | None:
        """The account's name."""
        return None if self.user is None else self.user.name


class Delivery(Base):
    """One message to one recipient, or a link for a new password to whoever has the name in `content`: tried until it arrives or is given up (`dead_at`). Claims and due times are wall clock."""

    __tablename__ = "delivery"
    __table_args__ = (
        CheckConstraint(
            "occasion IN ('opened', 'escalated', 'closed', 'test', 'reset')", name="occasion"
        ),
        Index(
            "ix_delivery_due",
            "due_at",
            sqlite_where=text("delivered_at IS NULL AND dead_at IS NULL"),
            postgresql_where=text("delivered_at IS NULL AND dead_at IS NULL"),
        ),
    )

    id: Mapped[BigKey]
    recipient_id: Mapped[int | None] = mapped_column(ForeignKey("alert_recipient.id"))
    occasion: Mapped[str]
    content: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # the alerts as they were then
    made_at: Mapped[Moment]
    due_at: Mapped[Moment]
    attempts: Mapped[int]
    claimed_until: Mapped[Moment | None]
    delivered_at: Mapped[Moment | None]
    dead_at: Mapped[Moment | None] = mapped_column(index=True)
    last_error: Mapped[str | None]


class NodeDay(Base):
    """What a node said of itself on one day (UTC), the last word of it: what trends are made of."""

    __tablename__ = "node_day"
    __table_args__ = (Index("ix_node_day_day", "day"),)

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # since 1970-01-01
    battery_mv: Mapped[int | None]
    rssi_dbm: Mapped[int | None]
    spool_depth: Mapped[int | None]
    power_up: Mapped[Big | None]
    power_ups: Mapped[int]  # how often it was seen to have been switched on or reset, that day


class NodeTrend(Base):
    """What follows from a node's days; None = too few, or no trend. Made anew by the worker."""

    __tablename__ = "node_trend"

    node_id: Mapped[str] = mapped_column(ForeignKey("node.node_id"), primary_key=True)
    battery_days_low: Mapped[int | None]
    battery_days_high: Mapped[int | None]  # None beside a low end: it may last for ever
    rssi_before_dbm: Mapped[int | None]
    rssi_now_dbm: Mapped[int | None]
    made_at: Mapped[Moment]
