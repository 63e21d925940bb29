"""Why values of a range were made anew, and how far that has come; one row per datastream that it concerns."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment

REVISION_KINDS = (
    "calibration",
    "correction",
    "rules",
    "software",
    "swap",
    "quality_control",
    "import",
    "aggregates",
)
REVISION_STATES = ("waiting", "running", "done")
_KINDS = ", ".join(f"'{kind}'" for kind in REVISION_KINDS)
_STATES = ", ".join(f"'{state}'" for state in REVISION_STATES)


class Revision(Base):
    """`from_at` ≤ sampled_at < `to_at`; None: open. `known_at`: since when all of its datastreams are switched.

    `fault` says in a sentence what holds it up, such as a backup that could not be made; it is tried again; `fault_parts` is the same as
    `errors.Said` has it, for other languages. `backup` is the folder of the
    one that was made before the first value was changed.
    """

    __tablename__ = "revision"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
        CheckConstraint(f"state IN ({_STATES})", name="state"),
        CheckConstraint("from_at IS NULL OR to_at IS NULL OR to_at > from_at", name="order"),
        Index(
            "ix_revision_open",
            "id",
            sqlite_where=text("state <> 'done'"),
            postgresql_where=text("state <> 'done'"),
        ),
    )

    id: Mapped[Key]
    kind: Mapped[str]
    reason: Mapped[str]
    author: Mapped[str]
    approver: Mapped[str | None]
    from_at: Mapped[Moment | None]
    to_at: Mapped[Moment | None]
    state: Mapped[str]
    ordered_at: Mapped[Moment]
    known_at: Mapped[Moment | None]
    backup: Mapped[str | None]
    fault: Mapped[str | None]
    fault_parts: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class RevisionStream(Base):
    """One datastream of a revision; switched in one transaction, `switched_at`. None: its values are still the old ones.

    `compared`: values that were made again; `changed`: those of them that became a new version; `removed`: those that nothing makes any
    more. `largest_change`: of a value, in the datastream's unit; None where no value differs.
    """

    __tablename__ = "revision_stream"
    __table_args__ = (
        Index(
            "ix_revision_stream_open",
            "datastream_id",
            sqlite_where=text("switched_at IS NULL"),
            postgresql_where=text("switched_at IS NULL"),
        ),
        {"sqlite_with_rowid": False},
    )

    revision_id: Mapped[int] = mapped_column(
        ForeignKey("revision.id"), primary_key=True, autoincrement=False
    )
    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    switched_at: Mapped[Moment | None]
    compared: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0)
    removed: Mapped[int] = mapped_column(default=0)
    largest_change: Mapped[float | None]


class MadeEarlier(Base):
    """Of a datastream's values that a revision is about, `changed` were made anew by another one while this one waited.

    Values are made by all that is in force, so of two revisions that wait the first does what the second was ordered for.
    """

    __tablename__ = "revision_made_earlier"
    __table_args__ = (
        ForeignKeyConstraint(
            ["revision_id", "datastream_id"],
            ["revision_stream.revision_id", "revision_stream.datastream_id"],
        ),
        CheckConstraint("changed > 0", name="changed"),
        {"sqlite_with_rowid": False},
    )

    revision_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    datastream_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    by_id: Mapped[int] = mapped_column(
        ForeignKey("revision.id"), primary_key=True, autoincrement=False
    )
    changed: Mapped[int]
