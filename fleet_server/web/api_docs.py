"""The management API for people: its OpenAPI document as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flask import render_template

from fleet_server.http_shared.access import open_to_all
from fleet_server.http_shared.openapi import Document, current_document
from fleet_server.web.blueprint import web

_METHODS = ("get", "post", "patch", "put", "delete")


@dataclass(frozen=True)
class Value:
    """A parameter, or a member of a body; `place` is where it goes."""

    name: str
    place: str
    type: str
    is_required: bool
    description: str


@dataclass(frozen=True)
class Answer:
    status: str
    description: str
    members: tuple[Value, ...]


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    summary: str
    description: str
    values: tuple[Value, ...]
    answers: tuple[Answer, ...]

    @property
    def anchor(self) -> str:
        return f"{self.method}{self.path}".replace("/", "-").replace("{", "").replace("}", "")


@web.get("/api/docs")
@open_to_all
def api_docs() -> str:
    """Every operation with what it takes and what it answers."""
    document = current_document()
    groups = [
        {
            "name": tag["name"],
            "description": tag["description"],
            "operations": list(_operations(document, tag["name"])),
        }
        for tag in document["tags"]
    ]
    return render_template("api_docs.html", groups=groups)


def _operations(document: Document, tag: str) -> Iterator[Operation]:
    for path, operations in document["paths"].items():
        for method in _METHODS:
            told = operations.get(method)
            if told is not None and tag in told["tags"]:
                parameters = [*operations.get("parameters", ()), *told.get("parameters", ())]
                yield Operation(
                    method=method,
                    path=path,
                    summary=told.get("summary", ""),
                    description=told.get("description", ""),
                    values=(
                        *(_parameter(document, one) for one in parameters),
                        *_members(document, told.get("requestBody", {}), place="body"),
                    ),
                    answers=tuple(
                        Answer(
                            status,
                            answer.get("description", ""),
                            () if status >= "400" else tuple(_members(document, answer, place="")),
                        )
                        for status, answer in sorted(told["responses"].items())
                    ),
                )


def _parameter(document: Document, told: Mapping[str, Any]) -> Value:
    return Value(
        name=told["name"],
        place=told["in"],
        type=_type_of(document, told["schema"]),
        is_required=told.get("required", False),
        description=told.get("description", ""),
    )


def _members(document: Document, told: Mapping[str, Any], *, place: str) -> Iterator[Value]:
    content: Mapping[str, Any] = next(iter(told.get("content", {}).values()), {})
    schema = _resolved(document, content.get("schema", {}))
    for name, member in schema.get("properties", {}).items():
        yield Value(
            name=name,
            place=place,
            type=_type_of(document, member),
            is_required=name in schema.get("required", ()),
            description=member.get("description", ""),
        )


def _resolved(document: Document, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return document["components"]["schemas"][name] if name else schema


def _type_of(document: Document, schema: Mapping[str, Any]) -> str:
    """In words: `string (date-time)`, `one of tree, water`, `list of Node`."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return "one of " + ", ".join(str(one) for one in schema["enum"])
    kinds = schema.get("type", "any")
    kind = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    if kind == "array":
        return f"list of {_type_of(document, schema.get('items', {}))}"
    detail = schema.get("format") or _range(schema)
    return f"{kind} ({detail})" if detail else kind


def _range(schema: Mapping[str, Any]) -> str:
    lowest, highest = schema.get("minimum"), schema.get("maximum")
    if lowest is None and highest is None:
        return ""
    return f"{'' if lowest is None else lowest}…{'' if highest is None else highest}"
