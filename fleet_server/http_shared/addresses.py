"""Parts of addresses: what cannot be an id never reaches the database, so that it is simply not found."""

from __future__ import annotations

from flask import Flask
from werkzeug.routing import BaseConverter, ValidationError

from fleet_server.wire.topics import is_node_id

_HIGHEST_ROW_ID = 2**31 - 1
HIGHEST_OBSERVATION_ID = 2**53 - 1


class NodeIdConverter(BaseConverter):
    """`<node_id:…>`: a name that a node may have."""

    def to_python(self, value: str) -> str:
        if not is_node_id(value):
            raise ValidationError
        return value


class RowIdConverter(BaseConverter):
    """`<row_id:…>`: the number of a row, as far as both databases can count."""

    regex = "[0-9]{1,10}"

    def to_python(self, value: str) -> int:
        if int(value) > _HIGHEST_ROW_ID:
            raise ValidationError
        return int(value)


class ObservationIdConverter(BaseConverter):
    """`<observation_id:…>`: the public id of an observation, as far as every program can count."""

    regex = "[0-9]{1,16}"

    def to_python(self, value: str) -> int:
        if int(value) > HIGHEST_OBSERVATION_ID:
            raise ValidationError
        return int(value)


def register_addresses(app: Flask) -> None:
    app.url_map.converters["node_id"] = NodeIdConverter
    app.url_map.converters["row_id"] = RowIdConverter
    app.url_map.converters["observation_id"] = ObservationIdConverter
