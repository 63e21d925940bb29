"""Schemas that several nouns share."""

from __future__ import annotations

from typing import Any

from marshmallow import Schema, fields, validate

MOST_PER_PAGE = 200
_USUAL_PER_PAGE = 50
PROBLEM = "Problem"
"""Name of ProblemSchema in the OpenAPI document, where it is the API's ERROR_SCHEMA."""


class ProblemSchema(Schema):
    """An RFC 9457 problem document; `code` is what programs compare, `detail` is one sentence for people."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    code = fields.String()


class ListQuery(Schema):
    """What every list takes; a list with filters or sortings of its own adds them."""

    limit = fields.Integer(
        load_default=_USUAL_PER_PAGE,
        validate=validate.Range(1, MOST_PER_PAGE),
        metadata={"description": "how many at most"},
    )
    after = fields.String(
        load_default=None,
        metadata={"description": "what the page before gave as `next`: this one begins after it"},
    )


class BulkQuery(Schema):
    dry_run = fields.Boolean(
        load_default=False,
        metadata={"description": "do all of it, say what became of each, and take it back"},
    )


class ResultSchema(Schema):
    """What became of one of many."""

    subject = fields.String(required=True)
    outcome = fields.String(
        required=True, validate=validate.OneOf(["done", "unchanged", "refused"])
    )
    code = fields.String(required=True, allow_none=True)
    sentence = fields.String(required=True, allow_none=True)


class BulkSchema(Schema):
    """Of a dry run `is_dry_run` is true: nothing was kept. `tag` is of what became of whom: as If-Match, only exactly this is done."""

    is_dry_run = fields.Boolean(required=True)
    tag = fields.String(required=True)
    results = fields.List(fields.Nested(ResultSchema), required=True)


def sort_field(*names: str) -> fields.String:
    """The query parameter `sort`: the first of `names` is the usual order; `-name` is the other way round."""
    return fields.String(
        load_default=names[0],
        validate=validate.OneOf(names),
        metadata={"description": "order of the list"},
    )


def reported(kind: type[fields.Field[Any]], **arguments: Any) -> Any:
    """A field that machines write: it changes without anybody's doing, so the entity's tag leaves it out."""
    return kind(required=True, metadata={"x-reported": True}, **arguments)
