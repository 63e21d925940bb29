"""Notes from the field: words and photos about a node, a site or a work order.

A photo is told by its content and drawn anew before it is kept: what a camera writes beside it (where, when, whose) is gone, and so is
anything that only looks like a picture.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from PIL import Image, ImageOps, UnidentifiedImageError
from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Invalid, NotFound
from fleet_server.models import Deployment, FieldNote, Node, WorkOrder
from fleet_server.services import auditing, rights, sites
from fleet_server.services.file_store import FileStore

LARGEST_PHOTO_BYTES = 8 * 1024 * 1024
PHOTO_TYPE = "image/jpeg"
_FORMATS = ("JPEG", "PNG", "WEBP")
_MOST_PIXELS = 50_000_000  # more than any telephone has; as raw colours 150 MB
_LONGEST_SIDE_PX = 2560
_JPEG_QUALITY = 85
_LONGEST_NOTE = 2000


class PhotoWrong(Invalid):
    """No photo that can be kept."""

    code = "photo_wrong"


class NoteWrong(Invalid):
    """Neither words nor a photo, or about nothing."""

    code = "note_wrong"


@dataclass(frozen=True)
class About:
    """What a note is about: at least one of them."""

    node_id: str | None = None
    site_id: int | None = None
    work_order_id: int | None = None


@dataclass(frozen=True)
class Drawn:
    """A photo drawn anew, as JPEG."""

    data: bytes
    width_px: int
    height_px: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def write_note(
    session: Session,
    about: About,
    *,
    text: str = "",
    photo: bytes = b"",
    store: Callable[[], FileStore] | None = None,
    now: datetime,
) -> FieldNote:
    """Keep a note. Committed on return; the photo is on disk before.

    Args:
        photo: JPEG, PNG or WebP of at most 8 MB; empty for none.
        store: opens where photos are kept; asked only when there is one.

    Raises:
        NoteWrong, PhotoWrong: it cannot be kept.
        NotFound: what it is about is not there, or not the actor's business.
        Unavailable: the photo cannot be kept.
    """
    words = text.strip().replace("\r\n", "\n").replace("\0", "")
    if len(words) > _LONGEST_NOTE:
        raise NoteWrong("A note has at most %(longest)s characters.", longest=_LONGEST_NOTE)
    if not words and not photo:
        raise NoteWrong("Write something, or take a photo.")
    place = _checked(session, about, now)
    drawn = draw_anew(photo) if photo else None
    if drawn is not None and store is not None:
        store().put(photo_name(drawn.sha256), drawn.data)
    with db.writing(session):
        note = FieldNote(
            node_id=place.node_id,
            site_id=place.site_id,
            work_order_id=place.work_order_id,
            text=words,
            photo_sha256=drawn.sha256 if drawn else None,
            photo_width_px=drawn.width_px if drawn else None,
            photo_height_px=drawn.height_px if drawn else None,
            written_at=now,
            written_by=rights.actor_of(session).name,
        )
        session.add(note)
        session.flush()
        auditing.record(
            session,
            "note_written",
            subject=_subject(place),
            now=now,
            note=note.id,
            photo_sha256=note.photo_sha256,
        )
    return note


def notes_of(
    session: Session, about: About, *, newest: int, before_id: int | None = None
) -> list[FieldNote]:
    """Notes about any of these, newest first. One statement. The caller has checked that they are the actor's business."""
    matches: list[ColumnElement[bool]] = []
    if about.node_id is not None:
        matches.append(FieldNote.node_id == about.node_id)
    if about.site_id is not None:
        matches.append(FieldNote.site_id == about.site_id)
    if about.work_order_id is not None:
        matches.append(FieldNote.work_order_id == about.work_order_id)
    query = select(FieldNote).where(or_(*matches)).order_by(FieldNote.id.desc()).limit(newest)
    if before_id is not None:
        query = query.where(FieldNote.id < before_id)
    return list(session.scalars(query))


def photo_of(session: Session, note_id: int, *, store: Callable[[], FileStore]) -> bytes:
    """The photo of a note, as JPEG.

    Raises:
        NotFound: no such note, none with a photo, or not the actor's business.
    """
    note = session.get(FieldNote, note_id)
    if note is None or note.photo_sha256 is None:
        raise NotFound("There is no photo %(photo_id)s.", photo_id=note_id)
    try:
        _check_scope(session, About(note.node_id, note.site_id, note.work_order_id))
    except NotFound as problem:
        raise NotFound("There is no photo %(photo_id)s.", photo_id=note_id) from problem
    return store().get(photo_name(note.photo_sha256))


def photo_name(sha256: str) -> str:
    """Where a photo lies in the file store."""
    return f"photos/{sha256[:2]}/{sha256}.jpg"


def draw_anew(data: bytes) -> Drawn:
    """The picture alone, upright, at most 2,560 pixels wide or high.

    Raises:
        PhotoWrong: too large, of another kind than JPEG, PNG and WebP, or damaged.
    """
    if len(data) > LARGEST_PHOTO_BYTES:
        raise PhotoWrong(
            "A photo has at most %(largest_mb)s MB.", largest_mb=LARGEST_PHOTO_BYTES // 1024**2
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels and odd tags: judged below
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    raise PhotoWrong("The photo has too many pixels; take a smaller one.")
                opened.draft("RGB", (_LONGEST_SIDE_PX, _LONGEST_SIDE_PX))
                upright = ImageOps.exif_transpose(opened)
                return _as_jpeg(upright)
    except UnidentifiedImageError as problem:
        raise PhotoWrong("This is no photo; JPEG, PNG and WebP are taken.") from problem
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as problem:
        raise PhotoWrong("The photo is damaged; take it again.") from problem


def _as_jpeg(picture: Image.Image) -> Drawn:
    small = picture.copy()
    small.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX))
    if small.mode in ("RGBA", "LA", "PA", "P"):
        over_white = Image.new("RGB", small.size, "white")
        with_alpha = small.convert("RGBA")
        over_white.paste(with_alpha, mask=with_alpha.getchannel("A"))
        small = over_white
    # A new picture has nothing but its pixels: no EXIF, no comment, no profile.
    plain = Image.new("RGB", small.size)
    plain.paste(small.convert("RGB"))
    target = io.BytesIO()
    plain.save(target, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return Drawn(target.getvalue(), plain.width, plain.height)


def _checked(session: Session, about: About, now: datetime) -> About:
    """The same, with the site that the node stands at."""
    _check_scope(session, about)
    node_id, site_id = about.node_id, about.site_id
    if about.work_order_id is not None:
        order = session.get_one(WorkOrder, about.work_order_id)
        node_id, site_id = node_id or order.node_id, site_id or order.site_id
    if node_id is not None and site_id is None:
        site_id = session.scalar(
            select(Deployment.site_id).where(
                Deployment.node_id == node_id,
                Deployment.from_at <= now,
                Deployment.to_at.is_(None),
            )
        )
    return About(node_id, site_id, about.work_order_id)


def _check_scope(session: Session, about: About) -> None:
    if about == About():
        raise NoteWrong("A note is about a node, a site or a work order.")
    if about.work_order_id is not None:
        order = session.get(WorkOrder, about.work_order_id)
        if order is None:
            raise NotFound("There is no work order %(order_id)s.", order_id=about.work_order_id)
        _check_scope(session, About(order.node_id, order.site_id))
    if about.node_id is not None:
        node = session.get(Node, about.node_id)
        if node is None:
            raise NotFound("There is no node %(node_id)s.", node_id=about.node_id)
        rights.check_node_model(session, node.model, node_id=about.node_id)
    if about.site_id is not None:
        sites.site_of(session, about.site_id)


def _subject(about: About) -> str:
    if about.work_order_id is not None:
        return f"work order {about.work_order_id}"
    return f"node {about.node_id}" if about.node_id is not None else f"site {about.site_id}"
