"""Releases as pages: the list, one release with its signatures and parts, and the nodes that run a part. They are made, signed and published by `provision release`;
a folder of it can be published here, too."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, current_app, flash, redirect, render_template, request, url_for
from flask_babel import gettext

from fleet_server import clock
from fleet_server.errors import FleetError, Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.http_shared.uploads import takes_files
from fleet_server.services import release_archives, release_repository, releases
from fleet_server.services.keyset import Key, Page
from fleet_server.services.release_archives import LARGEST_BYTES, MOST_FILES
from fleet_server.services.releases import FIRMWARE, ReleaseFilter
from fleet_server.services.rights import Right
from fleet_server.services.version_ranges import RangeWrong
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words
from fleet_server.web.files import open_files
from hardware import catalogue

_PAGE_SIZE = 50
_SORTING = "newest"
_BY_NODE = "node"
_LONGEST = 200


@web.get("/fleet/releases", endpoint="releases")
@needs(Right.SEE_FLEET)
def releases_page() -> str:
    """`model`, `component`, `versions` and `withdrawn=1` narrow the list."""
    return _list_of_releases()


@web.post("/fleet/releases", endpoint="publish_releases")
@needs(Right.AUTHOR_RELEASES)
@takes_files(LARGEST_BYTES, most_files=MOST_FILES)
def publish_releases() -> Response | tuple[str, int]:
    """Publish what is signed in a release folder: `archive` (ZIP), or the files of `folder`."""
    session, settings = current_session(), current_app.config["FLEET_SETTINGS"]
    try:
        outcome = release_archives.publish_folder(
            session,
            _folder(),
            store=open_files,
            keys_dir=settings.release_keys_dir,
            now=clock.now(),
        )
    except FleetError as problem:
        return _list_of_releases(upload_fault=in_words(problem)), 400
    names = ", ".join(" ".join(one) for one in outcome.releases)
    gone = ", ".join(" ".join(one) for one in outcome.withdrawn)
    if names:
        flash(gettext("Published: %(names)s.", names=names))
    if gone:
        flash(gettext("Withdrawn: %(names)s.", names=gone))
    if not names and not gone:
        is_new = bool(outcome.metadata)
        flash(
            gettext("Taken: who signs what, no release.")
            if is_new
            else gettext("All of it was here already.")
        )
    return redirect(url_for("web.releases"), code=303)  # type: ignore[return-value] # werkzeug's, which Flask takes


def _folder() -> dict[str, bytes]:
    archive = request.files.get("archive")
    if archive is not None and archive.filename:
        return release_archives.unpacked(archive.read())
    files = [one for one in request.files.getlist("folder") if one.filename]
    if not files:
        raise Invalid("Choose a ZIP archive of the release folder, or the folder itself.")
    return release_archives.chosen((one.filename or "", one.read) for one in files)


def _list_of_releases(*, upload_fault: str = "") -> str:
    given = {name: _asked(name) for name in ("model", "component", "versions", "withdrawn")}
    wanted = ReleaseFilter(
        model=given["model"] or None,
        component=given["component"] or None,
        versions=given["versions"],
        is_withdrawn=None if given["withdrawn"] else False,
    )
    session = current_session()
    fault = ""
    try:
        page = releases.release_page(session, wanted, limit=_PAGE_SIZE, after=_after(_SORTING))
    except RangeWrong as problem:
        page, fault = Page[Any]([], None), in_words(problem)
    return render_template(
        "releases.html",
        lines=page.items,
        next=_next("web.releases", page.next_key, _SORTING, given),
        given=given,
        fault=fault,
        upload_fault=upload_fault,
        models=catalogue.node_model_ids(),
        roles=release_repository.role_states(session),
        warned={row.role for row in release_repository.expiring(session, now=clock.now())},
        is_supported=lambda release: releases.is_supported(release, clock.now()),
    )


@web.get("/fleet/releases/<row_id:release_id>", endpoint="release")
@needs(Right.SEE_FLEET)
def release_page(release_id: int) -> str:
    """Who signed it, what is in it, until when it is supported, how many nodes run it."""
    session = current_session()
    whole = releases.signed_release(session, release_id)
    running = releases.nodes_with(
        session,
        ReleaseFilter(
            model=whole.release.model, component=FIRMWARE, versions=whole.release.version
        ),
        limit=_PAGE_SIZE,
    )
    return render_template(
        "release.html",
        whole_release=whole,
        release=whole.release,
        running=running.items,
        has_more=running.next_key is not None,
        is_supported=releases.is_supported(whole.release, clock.now()),
    )


@web.get("/fleet/releases/<row_id:release_id>/sbom.cdx.json")
@needs(Right.SEE_FLEET)
def release_sbom(release_id: int) -> Response:
    """The parts list as a file."""
    release = releases.find(current_session(), release_id)
    answer = Response(
        json.dumps(release.sbom, ensure_ascii=False, indent=1),
        content_type="application/vnd.cyclonedx+json",
    )
    name = f"{release.model}-{release.version}.cdx.json"
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


@web.get("/fleet/releases/nodes")
@needs(Right.SEE_FLEET)
def release_nodes() -> str:
    """Which nodes run a version with a part: `component` or `purl`, and a range of its `versions`."""
    given = {name: _asked(name) for name in ("component", "purl", "versions", "model")}
    wanted = ReleaseFilter(
        model=given["model"] or None,
        component=given["component"] or None,
        purl=given["purl"] or None,
        versions=given["versions"],
    )
    session = current_session()
    fault = ""
    try:
        page = releases.nodes_with(session, wanted, limit=_PAGE_SIZE, after=_after(_BY_NODE))
    except RangeWrong as problem:
        page, fault = Page[Any]([], None), in_words(problem)
    return render_template(
        "release_nodes.html",
        nodes=page.items,
        next=_next("web.release_nodes", page.next_key, _BY_NODE, given),
        given=given,
        fault=fault,
        names=releases.component_names(session),
        models=catalogue.node_model_ids(),
    )


def _asked(name: str) -> str:
    text = request.args.get(name, "").replace("\0", "").strip()
    if len(text) > _LONGEST:
        raise Invalid("%(name)s has more than %(longest)s characters.", name=name, longest=_LONGEST)
    return text


def _after(sorting: str) -> Key | None:
    after = request.args.get("after")
    return from_cursor(after, sorting=sorting) if after else None


def _next(endpoint: str, key: Key | None, sorting: str, given: dict[str, str]) -> str | None:
    if key is None:
        return None
    query: dict[str, Any] = {name: text for name, text in given.items() if text}
    return url_for(endpoint, **query, after=as_cursor(key, sorting=sorting))
