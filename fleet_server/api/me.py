"""Who asks, and what they may."""

from __future__ import annotations

from typing import Any

from flask.views import MethodView
from marshmallow import Schema, fields

from fleet_server.api.noun import Noun
from fleet_server.http_shared.access import current_actor, for_everybody_logged_in
from fleet_server.http_shared.auth import form_token

me = Noun("me", "Who asks, and what they may")


class MeSchema(Schema):
    """`csrf_token` goes with every change that a browser's session makes, as X-CSRFToken; null for a program with a key."""

    name = fields.String(required=True)
    rights = fields.List(fields.String(), required=True)
    scope = fields.String(required=True)
    csrf_token = fields.String(required=True, allow_none=True, metadata={"x-reported": True})


@me.route("")
class Me(MethodView):
    @for_everybody_logged_in
    @me.shows(MeSchema)
    def get(self) -> dict[str, Any]:
        """Who is asking, with which rights"""
        actor = current_actor()
        assert actor is not None  # noqa: S101 - everybody here is logged in
        return {
            "name": actor.name,
            "rights": sorted(actor.rights),
            "scope": actor.scope,
            "csrf_token": form_token(),
        }
