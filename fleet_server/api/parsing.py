"""What programs send: JSON and query parameters, held to a schema. Everything that does not fit is one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from flask import Request
from marshmallow import RAISE, Schema, ValidationError
from webargs import missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from fleet_server.http_shared.problems import NotProcessable

_HIGHEST = 2**63


class Parser(FlaskParser):
    """webargs, stricter: nothing unknown, UTF-8 only, and no value that a database cannot hold."""

    DEFAULT_UNKNOWN_BY_LOCATION = {"json": RAISE, "query": RAISE}  # noqa: RUF012 - webargs' own form
    DEFAULT_VALIDATION_STATUS = 422

    def load_json(self, req: Request, schema: Schema) -> Any:
        """The body as JSON; 400 when it is none, 415 when it says that it is something else."""
        content = req.get_data(cache=True)
        if not content:
            return missing
        if not req.is_json:
            raise UnsupportedMediaType("Send JSON, with `Content-Type: application/json`.")
        try:
            given = json.loads(content.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise BadRequest("The request's body is not JSON in UTF-8.") from error
        fault = next(_faults(given), None)
        if fault is not None:
            raise BadRequest(f"The request's body has {fault}.")
        return given

    def handle_error(
        self,
        error: ValidationError,
        req: Request,
        schema: Schema,
        *,
        error_status_code: int | None,
        error_headers: Mapping[str, str] | None,
    ) -> NoReturn:
        """One sentence on the first thing that does not fit."""
        messages: Any = error.normalized_messages()  # type: ignore[no-untyped-call] # marshmallow has no types there
        where, said = next(_leaves(messages.get("json", messages.get("query", messages))))
        if said == "Unknown field.":
            known = ", ".join(
                sorted(field.data_key or name for name, field in schema.load_fields.items())
            )
            said = f"not known here; known are {known or 'none'}."
        raise NotProcessable(f"{where or 'The request'}: {said[:1].lower()}{said[1:]}")


def _faults(value: Any) -> Iterator[str]:
    """What JSON can spell and no database holds."""
    if isinstance(value, str):
        if "\0" in value:
            yield "a NUL in a text"
        elif value.encode("utf-8", "replace").decode() != value:
            yield "half a character in a text (a lone surrogate)"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield "a number that is not finite"
    elif isinstance(value, int):
        if not -_HIGHEST <= value < _HIGHEST:
            yield "a whole number beyond 64 bits"
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _faults(key)
            yield from _faults(one)
    elif isinstance(value, list):
        for one in value:
            yield from _faults(one)


def _leaves(messages: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(messages, Mapping):
        for name, below in messages.items():
            is_schema = name == "_schema"
            place = where if is_schema else f"{where}.{name}" if where else str(name)
            yield from _leaves(below, place)
    elif isinstance(messages, list):
        for below in messages:
            yield from _leaves(below, where)
    else:
        yield where, str(messages)
