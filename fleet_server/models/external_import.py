"""Measurements that no node made: a file or a single hand reading as it was received, and the values that were read from it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    REAL,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
)
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Key, Moment, Small


class ImportKind(StrEnum):
    """Where the values come from."""

    HAND = "hand"  # somebody read an instrument at the site
    LABORATORY = "laboratory"
    THIRD_PARTY = "third_party"  # another network's or system's


_KINDS = ", ".join(f"'{kind}'" for kind in ImportKind)


class ExternalImport(Base):
    """Insert only, but for its withdrawal. `content` are the bytes as received, `rules` says how they are read: both give the values again.

    `source`: the person, laboratory or system; `report_number`: of the laboratory's report or the instrument's certificate.
    """

    __tablename__ = "external_import"
    __table_args__ = (
        CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
        CheckConstraint("(withdrawn_at IS NULL) = (withdrawn_by IS NULL)", name="withdrawn"),
        Index("ix_external_import_content_sha256", "content_sha256"),
    )

    id: Mapped[Key]
    kind: Mapped[str]
    source: Mapped[str]
    method: Mapped[str]
    instrument: Mapped[str]
    report_number: Mapped[str]
    note: Mapped[str]
    file_name: Mapped[str]
    content: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    content_sha256: Mapped[str]
    rules: Mapped[dict[str, Any]] = mapped_column(JSON, deferred=True)
    reader_version: Mapped[str]
    values_count: Mapped[int]
    author: Mapped[str]
    imported_at: Mapped[Moment]
    withdrawn_by: Mapped[str | None]
    withdrawn_at: Mapped[Moment | None]
    withdrawn_reason: Mapped[str]


class ExternalValue(Base):
    """One value of an import, in the published unit. Of an instant the newest import that is not withdrawn makes the observation.

    `row` and `given` (with `given_unit`) are how it stands in the file. `limit_sign` `<` or `>`: it is known only to lie below or above
    `limit_value`, and `value` is null. `u` null: nobody said how sure it is.
    """

    __tablename__ = "external_value"
    __table_args__ = (
        CheckConstraint("flag IN (1, 2, 3, 4, 9)", name="flag"),
        CheckConstraint("limit_sign IN ('', '<', '>')", name="limit_sign"),
        CheckConstraint("(limit_sign = '') = (limit_value IS NULL)", name="limit_value"),
        CheckConstraint("value IS NULL OR limit_value IS NULL", name="value"),
        Index("ix_external_value_import_id", "import_id", "row"),
        {"sqlite_with_rowid": False},
    )

    datastream_id: Mapped[int] = mapped_column(
        ForeignKey("datastream.id"), primary_key=True, autoincrement=False
    )
    sampled_at: Mapped[Moment] = mapped_column(primary_key=True)
    import_id: Mapped[int] = mapped_column(
        ForeignKey("external_import.id"), primary_key=True, autoincrement=False
    )
    value: Mapped[float | None] = mapped_column(Double)
    u: Mapped[float | None] = mapped_column(REAL)
    flag: Mapped[Small]
    limit_sign: Mapped[str]
    limit_value: Mapped[float | None] = mapped_column(Double)
    row: Mapped[int]
    given: Mapped[str]
    given_unit: Mapped[str]
    sample: Mapped[str]
