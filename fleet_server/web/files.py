"""Where this server keeps photos and imported files, and how photos are handed out."""

from __future__ import annotations

from flask import Response, current_app

from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.services import noting
from fleet_server.services.file_store import FileStore, open_store
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web


def open_files() -> FileStore:
    return open_store(current_app.config["FLEET_SETTINGS"].files_url)


@web.get("/fleet/photos/<row_id:note_id>")
@needs(Right.SEE_FLEET)
def photo(note_id: int) -> Response:
    """The photo of a note, as a picture and nothing else."""
    data = noting.photo_of(current_session(), note_id, store=open_files)
    answer = Response(data, content_type=noting.PHOTO_TYPE)
    answer.headers["Content-Disposition"] = f'inline; filename="photo-{note_id}.jpg"'
    return answer
