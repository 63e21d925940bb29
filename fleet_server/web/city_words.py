"""States of trees and waters in the reader's language: word, symbol and meaning, so that colour never has to carry them alone."""

from __future__ import annotations

from dataclasses import dataclass

from flask_babel import lazy_gettext

from fleet_server.web.blueprint import web
from fleet_server.web.words import Word

_TREES = {
    "critical": Word("✕", lazy_gettext("critical"), lazy_gettext("Water it first.")),
    "moderate": Word("▲", lazy_gettext("moderate"), lazy_gettext("It gets dry: on the next round.")),
    "unknown": Word("?", lazy_gettext("unknown"), lazy_gettext("Nobody can say: look what is wrong.")),
    "good": Word("✓", lazy_gettext("good"), lazy_gettext("It has water.")),
}  # fmt: skip
_WATERS = {
    "emergency": Word("‼", lazy_gettext("emergency"), lazy_gettext("Fish die: aerate now.")),
    "alarm": Word("✕", lazy_gettext("alarm"), lazy_gettext("Act before tonight.")),
    "warning": Word("▲", lazy_gettext("warning"), lazy_gettext("Go and look today.")),
    "watch": Word("△", lazy_gettext("watch"), lazy_gettext("Keep an eye on it.")),
    "unknown": Word("?", lazy_gettext("unknown"), lazy_gettext("Nobody can say: look what is wrong.")),
    "good": Word("✓", lazy_gettext("good"), lazy_gettext("Nothing is to be done.")),
}  # fmt: skip


@dataclass(frozen=True)
class CityPage:
    """What a page of decisions is called; `states` from the worst to the best."""

    title: object
    lead: object
    states: dict[str, Word]


PAGES = {
    "trees": CityPage(
        lazy_gettext("Trees: where water is needed"),
        lazy_gettext("What the soil says of every tree that is measured, the driest first."),
        _TREES,
    ),
    "waters": CityPage(
        lazy_gettext("Waters: where to act"),
        lazy_gettext("How every water stands that is measured, the worst first."),
        _WATERS,
    ),
}


@web.app_template_global()
def city_state(site_kind: str, state: str) -> Word:
    """A site's state, by the kind of the site."""
    return (_TREES if site_kind == "tree" else _WATERS)[state]
