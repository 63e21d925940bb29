"""The blueprint that all page modules hang their views on, and the words their templates use."""

from __future__ import annotations

from flask import Blueprint, request
from flask.blueprints import BlueprintSetupState
from markupsafe import Markup

from fleet_server.http_shared.access import may
from fleet_server.web import credential_words, faults, node_states, site_words, words

web = Blueprint("web", __name__, template_folder="templates")

_WORDS = (
    "as_typed",
    "battery_words",
    "channel_title",
    "command_word",
    "decimal",
    "detail",
    "event_details",
    "event_words",
    "flag_words",
    "health_words",
    "kind_word",
    "day",
    "local_day",
    "local_time",
    "as_utc",
    "order_word",
    "place",
    "quantity",
    "refusal_words",
    "standing_words",
    "uncertainty",
    "unit_symbol",
    "volts",
    "whole",
)

_SITE_WORDS = (
    "role_word",
    "site_field_word",
    "site_health_word",
    "site_state_word",
    "work_kind_word",
    "work_state_word",
)
_CREDENTIAL_WORDS = (
    "authority_word",
    "certificate_word",
    "credential_words",
    "key_place_word",
    "token_word",
)

_NODE_STATES = ("state_meaning", "state_word")


@web.record_once
def _give_words_to_templates(state: BlueprintSetupState) -> None:
    """As globals, because macros see no context."""
    given = {name: getattr(words, name) for name in _WORDS}
    given |= {name: getattr(site_words, name) for name in _SITE_WORDS}
    given |= {name: getattr(credential_words, name) for name in _CREDENTIAL_WORDS}
    given |= {name: getattr(node_states, name) for name in _NODE_STATES}
    state.app.jinja_env.globals.update(given, in_words=faults.in_words, here=_here, may=may)


def _here(*endpoints: str) -> Markup:
    return words.current_page(*endpoints, endpoint=request.endpoint)
