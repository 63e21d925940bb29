"""Releases as pages: the list, one release with its signatures and parts, and the nodes that run a part. They are published by `provision release`."""

from __future__ import annotations

import json
from typing import Any

from flask import Response, render_template, request, url_for

from fleet_server import clock
from fleet_server.errors import Invalid
from fleet_server.http_shared.access import needs
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor
from fleet_server.services import release_repository, releases
from fleet_server.services.keyset import Key, Page
from fleet_server.services.releases import FIRMWARE, ReleaseFilter
from fleet_server.services.rights import Right
from fleet_server.services.version_ranges import RangeWrong
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words
from hardware import catalogue

_PAGE_SIZE = 50
_SORTING = "newest"
_BY_NODE = "node"
_LONGEST = 200


@web.get("/fleet/releases", endpoint="releases")
@needs(Right.SEE_FLEET)
def releases_page() -> str:
    """`model`, `component`, `versions` and `withdrawn=1` narrow the list."""
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
