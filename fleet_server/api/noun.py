"""One noun of the management API: a blueprint whose decorators say what an operation is, so that all of them behave alike.

    sites = Noun("sites", "Places that are measured")

    @sites.route("")
    class Sites(MethodView):
        @needs(Right.SEE_FLEET)
        @sites.lists(SiteSchema, SiteQuery)
        def get(self, query): return services.sites.page(current_session(), limit=…, after=…)

        @needs(Right.PLAN_SITES)
        @sites.creates(NewSiteSchema, SiteSchema, at=lambda site: url_for("sites.Site", code=site.code))
        def post(self, given): return services.sites.create_site(…)

    @sites.route("/<code>")
    class Site(MethodView):
        def entity(self, code): return services.sites.find(…)     # as it is now

        @needs(Right.SEE_FLEET)
        @sites.shows(SiteSchema)
        def get(self, code): return self.entity(code)

        @needs(Right.PLAN_SITES)
        @sites.changes(SiteChangeSchema, SiteSchema)
        def patch(self, given, code): services.sites.change_site(…)

What the decorators do for it: keyset pages, the entity's tag and `If-Match`, `Idempotency-Key`, 422 for what does not fit, and the
operation's place in the OpenAPI document. The docstring's first line is its summary. A view calls one service and returns what
that gave; errors are FleetErrors, which `http_shared.problems` answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any, TypeVar

from flask import Response, current_app, request
from flask_smorest import Blueprint
from marshmallow import Schema, fields
from sqlalchemy import text
from sqlalchemy.orm import Session
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from fleet_server import clock, db
from fleet_server.api.parsing import Parser
from fleet_server.api.schemas import PROBLEM, ListQuery
from fleet_server.http_shared.database import current_session
from fleet_server.http_shared.paging import as_cursor, from_cursor, with_query
from fleet_server.http_shared.problems import PROBLEM_TYPE, TagOutdated, TagWanted
from fleet_server.services import keyset, repeating
from fleet_server.settings import Settings

_View = Callable[..., Any]
_Wrapped = TypeVar("_Wrapped", bound=_View)
_Kind = type[Schema]
_Success = tuple[int, type[Schema] | None, Mapping[str, Any]]
"""Status, what is shown, and the headers beside it."""
BASE = "/api/v1"
IDEMPOTENCY_KEY = "Idempotency-Key"
_LONGEST_KEY = 200
_TAG_HEADER = {
    "ETag": {"description": "give it as If-Match to change this", "schema": {"type": "string"}}
}
_LINK_HEADER = {"Link": {"description": "the next page, rel=next", "schema": {"type": "string"}}}
_PLACE_HEADER = {"Location": {"description": "where it is", "schema": {"type": "string"}}}
_IF_MATCH = {
    "in": "header",
    "name": "If-Match",
    "required": True,
    "schema": {"type": "string"},
    "description": "the ETag of what is to be changed, or *",
}
_IF_REHEARSED = {
    **_IF_MATCH,
    "required": False,
    "description": "the `tag` of a dry run: when something else would become of any of them, the answer is 412 and nothing is done",
}
_KEY = {
    "in": "header",
    "name": IDEMPOTENCY_KEY,
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": _LONGEST_KEY, "pattern": "^[!-~]+$"},
    "description": "a word drawn at random: sent again with it, the request is done once and answered alike for 24 hours",
}
_SENTENCES = {
    400: "The request cannot be read.",
    401: "Nobody is logged in.",
    403: "The right is missing, or a rule forbids it.",
    404: "It is not there, or out of scope.",
    405: "Not with this method.",
    409: "Its state does not allow it.",
    412: "It is another by now: read it again.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    422: "What was sent does not fit.",
    428: "If-Match is missing.",
    429: "Too many requests.",
    503: "The database is away.",
}
ALWAYS = (400, 401, 403, 404, 429, 503)


class Noun(Blueprint):  # type: ignore[misc] # flask-smorest has no types
    """Below /api/v1/<name>, or `address` instead of the name."""

    ARGUMENTS_PARSER = Parser()

    def __init__(self, name: str, description: str, *, address: str | None = None) -> None:
        prefix = f"{BASE}/{name if address is None else address}".rstrip("/")
        super().__init__(name, name, url_prefix=prefix, description=description)

    def register_views_in_doc(self, api: Any, *told: Any, **more: Any) -> None:
        """When somebody asks for the document: to make it takes longer than the rest of the server's start."""
        api.tell_later(partial(super().register_views_in_doc, api, *told, **more))

    def lists(self, item: _Kind, query: type[ListQuery] = ListQuery) -> Callable[[_View], _View]:
        """The view gets the query's values (`after` as a key) and returns a `keyset.Page`."""
        schema, dumping = _page_schema(item), item(many=True)

        def decorate(view: _View) -> _View:
            @wraps(view)
            def answer(resource: Any, given: dict[str, Any], **parts: Any) -> Response:
                sorting = given.get("sort", "")
                if given["after"] is not None:
                    given["after"] = from_cursor(given["after"], sorting=sorting)
                page: keyset.Page[Any] = view(resource, given, **parts)
                following = _next_address(page, sorting)
                made = _json({"items": dumping.dump(page.items), "next": following})
                if following is not None:
                    made.headers["Link"] = f'<{following}>; rel="next"'
                return made

            return self._told(answer, (200, schema, _LINK_HEADER), query=query)

        return decorate

    def shows(self, entity: _Kind) -> Callable[[_View], _View]:
        """The view returns one entity."""

        def decorate(view: _View) -> _View:
            @wraps(view)
            def answer(*arguments: Any, **parts: Any) -> Response:
                return _entity_answer(entity(), view(*arguments, **parts))

            return self._told(answer, (200, entity, _TAG_HEADER))

        return decorate

    def creates(
        self, given: _Kind, entity: _Kind, *, at: Callable[[Any], str]
    ) -> Callable[[_View], _View]:
        """The view makes an entity and returns it; `at` is its address."""

        def decorate(view: _View) -> _View:
            def done(*arguments: Any, **parts: Any) -> Response:
                made = view(*arguments, **parts)
                answer = _entity_answer(entity(), made, status=201)
                answer.headers["Location"] = at(made)
                return answer

            headers = {**_TAG_HEADER, **_PLACE_HEADER}
            once = _once(wraps(view)(done))
            return self._told(once, (201, entity, headers), body=given, more=(409,), is_post=True)

        return decorate

    def acts(
        self,
        given: _Kind | None,
        shown: _Kind | None,
        *,
        query: _Kind | None = None,
        is_rehearsed: bool = False,
        takes_file: bool = False,
    ) -> Callable[[_View], _View]:
        """A POST that makes no entity: the view returns what `shown` shows; without it the answer is 204.

        `is_rehearsed`: the request may say by If-Match which rehearsal it goes by (`rehearsed_tags`).
        `takes_file`: the request's body is a file as it is; the view reads it with `sent_file`.
        """

        def decorate(view: _View) -> _View:
            def done(*arguments: Any, **parts: Any) -> Response:
                made = view(*arguments, **parts)
                return Response(status=204) if shown is None else _json(shown().dump(made))

            once = _once(wraps(view)(done))
            success: _Success = (204 if shown is None else 200, shown, {})
            more = (409, 412) if is_rehearsed else (409,)
            told = self._told(
                once,
                success,
                body=given,
                query=query,
                more=more,
                is_post=True,
                is_rehearsed=is_rehearsed,
            )
            return self._takes_file(told) if takes_file else told

        return decorate

    def changes(self, given: _Kind, entity: _Kind) -> Callable[[_View], _View]:
        """The view changes what its class's `entity(**parts)` gives; If-Match is judged in the same transaction."""

        def decorate(view: _View) -> _View:
            @wraps(view)
            def answer(resource: Any, given: Any, **parts: Any) -> Response:
                session = current_session()
                with db.writing(session):
                    _check_tag(session, entity(), resource.entity(**parts))
                    view(resource, given, **parts)
                return _entity_answer(entity(), resource.entity(**parts))

            success = (200, entity, _TAG_HEADER)
            return self._told(answer, success, body=given, more=(409,), is_tagged=True)

        return decorate

    def deletes(self, entity: _Kind) -> Callable[[_View], _View]:
        """The view ends what its class's `entity(**parts)` gives."""

        def decorate(view: _View) -> _View:
            @wraps(view)
            def answer(resource: Any, **parts: Any) -> Response:
                session = current_session()
                with db.writing(session):
                    _check_tag(session, entity(), resource.entity(**parts))
                    view(resource, **parts)
                return Response(status=204)

            return self._told(answer, (204, None, {}), more=(409,), is_tagged=True)

        return decorate

    def _takes_file(self, view: _View) -> _View:
        for number in (413, 415):
            view = self.alt_response(
                number,
                schema=PROBLEM,
                content_type=PROBLEM_TYPE,
                description=_SENTENCES[number] if number == 413 else "It is a form and no file.",
            )(view)
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        return self.doc(requestBody={"required": True, "content": content})(view)  # type: ignore[no-any-return] # smorest has no types

    def _told(
        self,
        view: _View,
        success: _Success,
        *,
        body: _Kind | None = None,
        query: _Kind | None = None,
        more: tuple[int, ...] = (),
        is_post: bool = False,
        is_rehearsed: bool = False,
        is_tagged: bool = False,
    ) -> _View:
        """The view with its arguments read, and its place in the document."""
        status, schema, headers = success
        statuses = {*ALWAYS, *more}
        if body is not None:
            statuses |= {413, 415, 422}
        if query is not None or is_post:
            statuses.add(422)
        if is_tagged:
            statuses |= {412, 428}
        # Every decorator copies all that was told before it: what is small comes first.
        for number in sorted(statuses):
            view = self.alt_response(
                number,
                schema=PROBLEM,
                content_type=PROBLEM_TYPE,
                description=_SENTENCES[number],
            )(view)
        if is_post:
            view = self.doc(parameters=[_KEY, _IF_REHEARSED] if is_rehearsed else [_KEY])(view)
        if is_tagged:
            view = self.doc(parameters=[_IF_MATCH])(view)
        # webargs puts what it read last in front: the body comes first, the query after it.
        if query is not None:
            view = self.arguments(query, location="query", as_kwargs=False)(view)
        if body is not None:
            view = self.arguments(body)(view)
        return self.response(status, schema, headers=dict(headers) or None)(view)  # type: ignore[no-any-return] # smorest has no types


def rehearsed_tags() -> frozenset[str] | None:
    """Tags of the rehearsals that the request may go by; None when it does not say."""
    if not request.if_match or request.if_match.star_tag:
        return None
    return frozenset(request.if_match.as_set())


def sent_file() -> bytes:
    """The request's body as it came.

    Raises:
        UnsupportedMediaType: it is a form, of which nothing is left to read.
    """
    if request.mimetype in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise UnsupportedMediaType(
            "Send the file itself as the body, with `Content-Type: application/octet-stream`."
        )
    return request.get_data()


def tag_of(schema: Schema, entity: Mapping[str, Any]) -> str:
    """Of all that people decide about the entity (not of what machines report): what `If-Match` is compared with."""
    decided = {
        name: entity[name]
        for name, field in schema.dump_fields.items()
        if not field.metadata.get("x-reported") and name in entity
    }
    told = json.dumps(decided, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(told.encode()).hexdigest()[:20]


def _entity_answer(schema: Schema, entity: Any, *, status: int = 200) -> Response:
    shown = schema.dump(entity)
    made = _json(shown, status=status)
    made.set_etag(tag_of(schema, shown))
    return made


def _check_tag(session: Session, schema: Schema, entity: Any) -> None:
    """Raises TagWanted, or TagOutdated; until the transaction ends nobody else gets through here for this address."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer anyway
        lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:address, 0))")
        session.execute(lock, {"address": request.path})
    if not request.if_match:
        raise TagWanted("Say which version you change: send the entity's ETag as If-Match.")
    if not request.if_match.contains(tag_of(schema, schema.dump(entity))):
        raise TagOutdated(
            "This was changed since you read it; read it again and repeat your change."
        )


def _once(view: _Wrapped) -> _Wrapped:
    """With an `Idempotency-Key`: done once, and answered alike when it is sent again."""

    @wraps(view)
    def answer(*arguments: Any, **parts: Any) -> Response:
        key = request.headers.get(IDEMPOTENCY_KEY)
        if key is None:
            return view(*arguments, **parts)  # type: ignore[no-any-return] # a view's answer
        _check_key(key)
        session, settings = current_session(), _settings()
        secret_key = settings.session_key()
        told = f"{request.method} {request.full_path}\n".encode() + request.get_data()
        ticket = repeating.begin(
            session,
            key,
            request_sha256=hashlib.sha256(told).hexdigest(),
            secret_key=secret_key,
            now=clock.now(),
        )
        if ticket.answer is not None:
            return _from_text(ticket.answer)
        try:
            with db.writing(session):
                made: Response = view(*arguments, **parts)
                repeating.keep(session, ticket, _as_text(made), secret_key=secret_key)
        except BaseException:
            repeating.give_up(session, ticket)
            raise
        return made

    return answer  # type: ignore[return-value] # it answers as the view does


def _check_key(key: str) -> None:
    if not (0 < len(key) <= _LONGEST_KEY and all("!" <= letter <= "~" for letter in key)):
        raise BadRequest(f"{IDEMPOTENCY_KEY} wants 1 to {_LONGEST_KEY} letters, digits and signs.")


def _as_text(made: Response) -> str:
    headers = {name: made.headers[name] for name in ("ETag", "Location") if name in made.headers}
    return json.dumps([made.status_code, headers, made.get_data(as_text=True)])


def _from_text(kept: str) -> Response:
    status, headers, body = json.loads(kept)
    made = Response(body, status=status, mimetype="application/json" if body else None)
    made.headers.update(headers)
    return made


def _next_address(page: keyset.Page[Any], sorting: str) -> str | None:
    if page.next_key is None:
        return None
    parameters = request.args.to_dict()
    return with_query(
        request.path, {**parameters, "after": as_cursor(page.next_key, sorting=sorting)}
    )


def _json(shown: Any, *, status: int = 200) -> Response:
    return Response(current_app.json.dumps(shown), status=status, mimetype="application/json")


def _page_schema(item: _Kind) -> _Kind:
    name = item.__name__.removesuffix("Schema")
    members: dict[str, Any] = {
        "items": fields.List(fields.Nested(item), required=True),
        "next": fields.String(
            required=True,
            allow_none=True,
            metadata={"description": "address of the next page; null on the last one"},
        ),
    }
    return type(f"{name}PageSchema", (Schema,), members)


def _settings() -> Settings:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings
