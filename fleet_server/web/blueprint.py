"""The blueprint that all page modules hang their views on, and the words their templates use."""

from __future__ import annotations

from flask import Blueprint, request
from markupsafe import Markup

from fleet_server.web import words

web = Blueprint("web", __name__, template_folder="templates")


@web.app_context_processor
def _words() -> dict[str, object]:
    def here(*endpoints: str) -> Markup:
        return words.current_page(*endpoints, endpoint=request.endpoint)

    names = (
        "channel_title decimal flag_words health_words kind_word local_time place quantity "
        "uncertainty unit_symbol volts whole"
    )
    return {"here": here} | {name: getattr(words, name) for name in names.split()}
