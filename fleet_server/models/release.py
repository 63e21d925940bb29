"""Signed releases of the firmware: what the keys of release authors vouch for, and the metadata in which they do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet_server.models.base import Base, Big, Key, Moment


class Release(Base):
    """One release for one node model. It never changes; `withdrawn_at` is set while its role does not sign it any more.

    `bundle_sha256` with `version` is what a node says that it runs it. The three of `image` are of the MicroPython that it brings; None
    where it brings none.
    """

    __tablename__ = "release"
    __table_args__ = (
        UniqueConstraint("model", "version"),
        UniqueConstraint("model", "counter"),
        Index("ix_release_bundle_sha256", "bundle_sha256"),
    )

    id: Mapped[Key]
    model: Mapped[str]
    version: Mapped[str]
    counter: Mapped[Big]
    target_path: Mapped[str]
    manifest: Mapped[bytes] = mapped_column(LargeBinary)
    manifest_sha256: Mapped[str]
    bundle_sha256: Mapped[str]
    size_bytes: Mapped[int]
    image_sha256: Mapped[str | None]
    image_bytes: Mapped[int | None]
    image_micropython: Mapped[str | None]
    notes: Mapped[str]
    sbom: Mapped[dict[str, Any]] = mapped_column(JSON)
    sbom_sha256: Mapped[str]  # of the bytes that were signed; they are in the file store
    support_until: Mapped[Moment]
    uploaded_at: Mapped[Moment]
    uploaded_by: Mapped[str]
    withdrawn_at: Mapped[Moment | None]

    @property
    def transfer_bytes(self) -> int:
        """What a node fetches at most: it has some of the files, and it may have the image."""
        return self.size_bytes + (self.image_bytes or 0)


class ReleaseComponent(Base):
    """One part of a release, as its parts list names it."""

    __tablename__ = "release_component"
    __table_args__ = (
        Index("ix_release_component_name", "name", "version"),
        Index("ix_release_component_purl", "purl"),
    )

    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # in the list
    name: Mapped[str]
    version: Mapped[str]
    purl: Mapped[str]


class SignedMetadata(Base):
    """One version of one role's metadata, byte for byte as signed. `snapshot` and `timestamp` are signed here, the others offline."""

    __tablename__ = "signed_metadata"
    __table_args__ = (Index("ix_signed_metadata_expires_at", "expires_at"),)

    role: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    data: Mapped[bytes] = mapped_column(LargeBinary)
    expires_at: Mapped[Moment]
    stored_at: Mapped[Moment]
