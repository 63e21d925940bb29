"""`/node/v1/tuf/…`: what nodes fetch to be updated. Open to all who trust the listener: everything in it is signed, nothing is secret.

One range at a time, so that a node goes on where its last wake ended. What has its version or hash in its name never changes.
"""

from __future__ import annotations

import hashlib

from flask import Blueprint, Response, current_app, request

from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.limits import UPDATE_LIMIT, limiter
from fleet_server.services import release_packs, release_repository
from fleet_server.services.file_store import FileStore, open_store
from fleet_server.settings import Settings

release_files = Blueprint("release_files", __name__, url_prefix="/node/v1/tuf")

_FOR_EVER = "public, max-age=31536000, immutable"
_MOVING = ("timestamp.json",)


@release_files.get("/metadata/<file>")
@open_to_all
@limiter.limit(UPDATE_LIMIT)
def metadata(file: str) -> Response:
    """`timestamp.json`, `3.root.json`, …"""
    data = release_repository.metadata_file(current_session(), file)
    return _file(data, "application/json", is_fixed=file not in _MOVING)


@release_files.get("/targets/<model>/<file>")
@open_to_all
@limiter.limit(UPDATE_LIMIT)
def target(model: str, file: str) -> Response:
    """A manifest or a parts list; below `bundles`, all files of one in a row, below `files`, one of them, each by its hash."""
    if model == "bundles":
        data = release_repository.bundle(current_session(), _open_files, file)
        return _file(data, "application/octet-stream")
    if model == "files":
        return _file(release_repository.bundle_file(_open_files, file), "application/octet-stream")
    data = release_repository.target_file(current_session(), _open_files, model, file)
    kind = "application/json" if file.endswith(".json") else "application/cbor"
    return _file(data, kind)


@release_files.get("/news/<held>/<model>/<file>")
@open_to_all
@limiter.limit(UPDATE_LIMIT)
def news(held: str, model: str, file: str) -> Response:
    """Metadata and manifest of one release, as far as whoever holds `held` lacks them, in one packed answer."""
    return _packed(release_packs.news(current_session(), held, model, file))


@release_files.get("/targets/bundles/<sha256>/<wanted>")
@open_to_all
@limiter.limit(UPDATE_LIMIT)
def bundle_files(sha256: str, wanted: str) -> Response:
    """Those files of a bundle that a node lacks, in one packed answer."""
    return _packed(release_packs.bundle_files(current_session(), _open_files, sha256, wanted))


def _packed(data: bytes) -> Response:
    """Few words about it: every byte of them is sent to each node."""
    return Response(data, content_type="application/octet-stream")


def _file(data: bytes, kind: str, *, is_fixed: bool = True) -> Response:
    """Whole, a part (206), not anew (304), or beyond its end (416)."""
    answer = Response(data, content_type=kind)
    answer.set_etag(hashlib.sha256(data).hexdigest()[:32])
    answer.headers["Cache-Control"] = _FOR_EVER if is_fixed else "no-cache"
    asked = request.headers.get("Range", "bytes=0-")
    # Several ranges in one answer would be MIME parts, which no node reads, and other units are nobody's: they get the whole
    # (RFC 9110 §14.2 allows both).
    if asked.startswith("bytes=") and "," not in asked:
        answer.make_conditional(request, accept_ranges=True, complete_length=len(data))
    else:
        answer.make_conditional(request)
    return answer


def _open_files() -> FileStore:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return open_store(settings.files_url)
