"""What changes, drift and orders are called on pages."""

from __future__ import annotations

from typing import Any

from flask import current_app
from flask_babel import gettext, lazy_gettext

from fleet_server.models import ChangeState, ConfigurationChange, LayerKind
from fleet_server.services.commanding import CommandState
from fleet_server.services.configuring import Standing
from fleet_server.services.drifting import HELD_BACK
from fleet_server.services.previewing import Outcome
from fleet_server.services.selecting import Selection
from fleet_server.settings import Settings
from fleet_server.web.blueprint import web
from fleet_server.web.words import COMMAND_WORDS, Word, kind_word, standing_words

CHANGE_WORDS = {
    ChangeState.PREPARING: Word(
        "○",
        lazy_gettext("being prepared"),
        lazy_gettext("Its nodes are written down; nobody is told yet."),
    ),
    ChangeState.AWAITING_APPROVAL: Word(
        "○",
        lazy_gettext("awaits approval"),
        lazy_gettext("Somebody else than its author has to approve it."),
    ),
    ChangeState.RUNNING: Word(
        "▸", lazy_gettext("running"), lazy_gettext("Nodes are told, and heard.")
    ),
    ChangeState.SOAKING: Word(
        "▸",
        lazy_gettext("being watched"),
        lazy_gettext("Enough nodes run it; the next wave opens when they still do after a while."),
    ),
    ChangeState.PAUSED: Word("▲", lazy_gettext("paused"), lazy_gettext("No further wave opens.")),
    ChangeState.COMPLETED: Word(
        "✓", lazy_gettext("completed"), lazy_gettext("All nodes were told; enough of them run it.")
    ),
    ChangeState.ABORTED: Word(
        "–", lazy_gettext("aborted"), lazy_gettext("Who was told keeps it, nobody else is told.")
    ),
    ChangeState.ROLLING_BACK: Word(
        "▸", lazy_gettext("going back"), lazy_gettext("Nodes are told what was wanted before.")
    ),
    ChangeState.ROLLED_BACK: Word(
        "–", lazy_gettext("taken back"), lazy_gettext("What was wanted before is wanted again.")
    ),
}
OUTCOME_WORDS = {
    Outcome.CHANGES: lazy_gettext("changes"),
    Outcome.HAS_IT: lazy_gettext("already has it"),
    Outcome.OVERRIDDEN: lazy_gettext("is told something else by a later layer"),
    Outcome.CANNOT: lazy_gettext("cannot"),
}
_HELD_BACK_WORD = Word(
    "▲",
    lazy_gettext("not told"),
    lazy_gettext("It could not take what its layers want, and keeps what it has."),
)
_DEEDS = {
    ChangeState.PREPARING: ("abort",),
    ChangeState.AWAITING_APPROVAL: ("approve", "abort"),
    ChangeState.RUNNING: ("pause", "abort", "roll_back"),
    ChangeState.SOAKING: ("pause", "abort", "roll_back"),
    ChangeState.PAUSED: ("resume", "abort", "roll_back"),
    ChangeState.COMPLETED: ("roll_back",),
    ChangeState.ABORTED: ("roll_back",),
}
DEED_WORDS = {
    "approve": lazy_gettext("Approve"),
    "pause": lazy_gettext("Pause"),
    "resume": lazy_gettext("Go on"),
    "abort": lazy_gettext("Abort"),
    "roll_back": lazy_gettext("Take back"),
}


@web.app_template_global()
def change_words(state: str) -> Word:
    return CHANGE_WORDS[ChangeState(state)]


@web.app_template_global()
def outcome_word(outcome: Outcome) -> str:
    return str(OUTCOME_WORDS[outcome])


@web.app_template_global()
def command_state_word(state: str) -> str:
    if state == CommandState.ANSWERED:
        return str(gettext("answered"))
    return str(COMMAND_WORDS[state])


@web.app_template_global()
def drift_words(reason: str) -> Word:
    return _HELD_BACK_WORD if reason == HELD_BACK else standing_words(Standing(reason))


@web.app_template_global()
def deeds_of(change: ConfigurationChange) -> tuple[str, ...]:
    """What can be done with a change now."""
    deeds = _DEEDS.get(ChangeState(change.state), ())
    is_told = change.layer_version is not None
    return tuple(deed for deed in deeds if deed != "abort" or not is_told)


@web.app_template_global()
def deed_word(deed: str) -> str:
    return str(DEED_WORDS[deed])


@web.app_template_global()
def layer_word(name: str) -> str:
    """`group Innenstadt` as `Group Innenstadt`, `model tree-3, provisioned` as `Model tree-3 as provisioned`."""
    kind, _, rest = name.partition(" ")
    match kind:
        case LayerKind.FLEET:
            return str(gettext("the whole fleet"))
        case LayerKind.GROUP:
            return str(gettext("group %(name)s", name=rest))
        case LayerKind.NODE:
            return str(gettext("this node"))
    model, _, provisioned = rest.partition(", ")
    if provisioned:
        return str(gettext("model %(name)s, as provisioned", name=model))
    return str(gettext("model %(name)s", name=model))


@web.app_template_global()
def rule_words(rule: Selection | None) -> str:
    """A group's rule in words; empty for none."""
    if rule is None:
        return ""
    said: list[Any] = []
    if rule.model:
        said.append(gettext("model %(name)s", name=rule.model))
    if rule.site_kind:
        said.append(kind_word(rule.site_kind))
    if rule.tag:
        said.append(gettext("tag %(name)s", name=rule.tag))
    if rule.near:
        latitude, longitude, radius_m = rule.near
        said.append(
            gettext(
                "%(metres)s m around %(place)s", metres=radius_m, place=f"{latitude}, {longitude}"
            )
        )
    return ", ".join(map(str, said))


def server_settings() -> Settings:
    settings: Settings = current_app.config["FLEET_SETTINGS"]
    return settings
