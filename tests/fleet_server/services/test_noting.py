"""Notes and photos from the field: what is kept is the picture alone, and it is seen by whom it concerns."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from factories import NOON, deployed_node
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound, Unavailable
from fleet_server.models import AuditEntry, FieldNote, Role, Scope, WorkKind
from fleet_server.services import file_store, noting, rights, site_importing, working
from fleet_server.services.file_store import Folder, open_store
from fleet_server.services.noting import About, NoteWrong, PhotoWrong, draw_anew

GPS_TAG, ORIENTATION_TAG, MAKER = 0x8825, 0x0112, "Telefon von Anna"


def picture(kind: str = "JPEG", size: tuple[int, int] = (64, 48), *, mode: str = "RGB") -> bytes:
    """As a phone writes it: with place, maker and a comment beside the pixels."""
    made = Image.new(mode, size, "red" if mode != "L" else 128)
    exif = made.getexif()
    exif[0x010F] = MAKER
    exif[ORIENTATION_TAG] = 6  # to be turned by 90°
    exif.get_ifd(GPS_TAG)[2] = (51.0, 28.0, 54.0)
    target = io.BytesIO()
    made.save(target, kind, exif=exif)
    return target.getvalue()


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGBA"), ("WEBP", "RGB")])  # fmt: skip
def test_photo_keeps_its_pixels_upright_and_nothing_else(kind: str, mode: str) -> None:
    data = picture(kind, mode=mode)
    assert MAKER.encode() in data
    drawn = draw_anew(data)
    assert MAKER.encode() not in drawn.data
    with Image.open(io.BytesIO(drawn.data)) as kept:
        assert kept.format == "JPEG"
        assert dict(kept.getexif()) == {}
        assert kept.getexif().get_ifd(GPS_TAG) == {}
        assert set(kept.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "progressive", "progression"}  # fmt: skip
        assert kept.size == (drawn.width_px, drawn.height_px) == (48, 64)


def test_large_photo_is_made_smaller() -> None:
    drawn = draw_anew(picture(size=(4000, 1000)))
    assert (drawn.width_px, drawn.height_px) == (640, 2560)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "This is no photo"),
        (b"GIF89a" + bytes(50), "This is no photo"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "no photo|damaged"),
        (picture("PNG")[:60], "no photo|damaged"),
        (picture()[:-200], "no photo|damaged"),
        (bytes(8 * 1024 * 1024 + 1), "at most 8 MB"),
    ],
)
def test_what_is_no_photo_is_refused_by_its_content(data: bytes, sentence: str) -> None:
    with pytest.raises(PhotoWrong, match=sentence):
        draw_anew(data)


def test_picture_that_would_fill_the_memory_is_refused_before_it_is_drawn() -> None:
    target = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(target, "PNG")
    assert len(target.getvalue()) < 100_000
    with pytest.raises(PhotoWrong, match="too many pixels"):
        draw_anew(target.getvalue())


def test_note_on_a_node_stays_with_the_site_where_it_stood(
    session: Session, tmp_path: Path
) -> None:
    deployment = deployed_node(session)
    rights.act_as(session, rights.Actor("anna", frozenset(rights.Right)))
    note = noting.write_note(
        session,
        About(node_id="n-000001"),
        text=" Mast schief \r\n",
        photo=picture(),
        store=lambda: Folder(tmp_path),
        now=NOON,
    )
    assert (note.text, note.written_by, note.site_id) == ("Mast schief", "anna", deployment.site_id)
    assert note.photo_sha256 is not None
    kept = tmp_path / noting.photo_name(note.photo_sha256)
    assert kept.read_bytes() == noting.photo_of(session, note.id, store=lambda: Folder(tmp_path))
    by_site = noting.notes_of(session, About(site_id=deployment.site_id), newest=9)
    assert [one.id for one in by_site] == [note.id]
    entry = session.scalars(select(AuditEntry).where(AuditEntry.action == "note_written")).one()
    assert entry.subject == "node n-000001"


def test_note_of_nothing_or_about_nothing_is_refused(session: Session) -> None:
    deployed_node(session)
    with pytest.raises(NoteWrong, match="Write something"):
        noting.write_note(session, About(node_id="n-000001"), text=" ", now=NOON)
    with pytest.raises(NoteWrong, match="about a node"):
        noting.write_note(session, About(), text="x", now=NOON)
    with pytest.raises(NotFound, match="no work order 9"):
        noting.write_note(session, About(work_order_id=9), text="x", now=NOON)


def test_photo_out_of_scope_is_not_there(session: Session, tmp_path: Path) -> None:
    deployed_node(session)
    want = working.WorkWanted(kind=WorkKind.LOOK, due_at=NOON, node_id="n-000001")
    order = working.order_work(session, want, now=NOON)
    note = noting.write_note(
        session,
        About(work_order_id=order.id),
        photo=picture(),
        store=lambda: Folder(tmp_path),
        now=NOON,
    )
    assert note.node_id == "n-000001"
    right = rights.rights_of([Role.TECHNICIAN])
    rights.act_as(session, rights.Actor("wanda", right, Scope.WATERS))
    with pytest.raises(NotFound, match=f"There is no photo {note.id}"):
        noting.photo_of(session, note.id, store=lambda: Folder(tmp_path))


def test_photo_that_cannot_be_kept_leaves_no_note(session: Session, tmp_path: Path) -> None:
    deployed_node(session)
    (tmp_path / "photos").write_text("a file where a folder should be")
    with pytest.raises(Unavailable, match="cannot be kept"):
        noting.write_note(
            session,
            About(node_id="n-000001"),
            photo=picture(),
            store=lambda: Folder(tmp_path),
            now=NOON,
        )
    assert session.scalars(select(FieldNote)).all() == []


# --- the store itself ---


def test_file_is_there_whole_and_under_no_other_name(tmp_path: Path) -> None:
    store = open_store((tmp_path / "mit Leer").as_uri())
    store.put("photos/ab/abc.jpg", b"one")
    store.put("photos/ab/abc.jpg", b"one")
    assert store.get("photos/ab/abc.jpg") == b"one"
    assert [path.name for path in (tmp_path / "mit Leer" / "photos" / "ab").iterdir()] == [
        "abc.jpg"
    ]


@pytest.mark.parametrize(
    "name", ["../secret", "photos/../../secret", "/etc/passwd", "photos", "a\0/b"]
)
def test_name_that_leads_elsewhere_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        Folder(tmp_path).get(name)


def test_object_store_keeps_the_same_bytes() -> None:
    """Memory stands for any store that fsspec speaks to."""
    store = open_store("memory://stadtsensor-test")
    assert isinstance(store, file_store.ObjectStore)
    store.put("photos/ab/abc.jpg", b"one")
    assert store.get("photos/ab/abc.jpg") == b"one"
    with pytest.raises(NotFound):
        store.get("photos/ab/none.jpg")


@pytest.mark.parametrize("where", ["file", "memory"])
def test_files_that_were_only_looked_at_are_forgotten_after_a_day(
    tmp_path: Path, where: str
) -> None:
    store = open_store(tmp_path.as_uri() if where == "file" else "memory://stadtsensor-previews")
    asked_by = site_importing.keep_preview(b"code;x;y", store=store)
    site_importing.keep_file(b"code;x;y", store=store)
    now = datetime.now(UTC)
    assert site_importing.forget_previews(store=store, wall_now=now) == 0
    assert site_importing.previewed_file(asked_by, store=store) == b"code;x;y"
    tomorrow = now + site_importing.PREVIEW_KEPT + timedelta(minutes=1)
    assert site_importing.forget_previews(store=store, wall_now=tomorrow) == 1
    assert site_importing.forget_previews(store=store, wall_now=tomorrow) == 0
    with pytest.raises(site_importing.FileForgotten, match="choose it again"):
        site_importing.previewed_file(asked_by, store=store)
    assert store.get(f"imports/{asked_by}") == b"code;x;y"


def test_file_that_is_looked_at_again_is_kept_another_day(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    asked_by = site_importing.keep_preview(b"code;x;y", store=store)
    os.utime(tmp_path / "previews" / f".{asked_by}", (0, 0))
    site_importing.keep_preview(b"code;x;y", store=store)
    assert site_importing.forget_previews(store=store, wall_now=datetime.now(UTC)) == 0


def test_store_that_nothing_here_speaks_to_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match="install what speaks to it"):
        open_store("s3://bucket")
