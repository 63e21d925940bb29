"""What campaigns are called on pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask_babel import LazyString, get_locale, lazy_gettext

from fleet_server import clock
from fleet_server.http_shared.database import current_session
from fleet_server.models import Campaign, CampaignState, NodeStage
from fleet_server.services import campaign_words, campaigning, rights
from fleet_server.services.campaign_rules import FAILED, ON_THE_WAY
from fleet_server.services.campaign_targets import Prospect
from fleet_server.services.campaigning import NodeUpdate
from fleet_server.services.rights import Right
from fleet_server.web.blueprint import web
from fleet_server.web.campaign_states import CAMPAIGN_WORDS
from fleet_server.web.node_states import state_word
from fleet_server.web.words import Word, health_words, local_time
from fleet_server.wire.states import NodeState

PROSPECT_WORDS = {
    Prospect.UPDATES: lazy_gettext("updates"),
    Prospect.HAS_IT: lazy_gettext("has it already"),
    Prospect.NEWER: lazy_gettext("runs a newer release"),
}
_TARGET_WORDS: dict[str, LazyString] = {
    "node_ids": lazy_gettext("only"),
    "label": lazy_gettext("Label begins with"),
    "group": lazy_gettext("Group"),
    "tag": lazy_gettext("Tag"),
    "site": lazy_gettext("Code of the site"),
    "firmware_version": lazy_gettext("Firmware"),
    "battery_below_mv": lazy_gettext("Battery below (mV)"),
    "health": lazy_gettext("Health"),
    "state": lazy_gettext("State"),
    "heard_before": lazy_gettext("Not heard since"),
    "model": lazy_gettext("Node model"),
}
_SHOWN_IDS = 10
_SYMBOLS = {NodeStage.SUCCEEDED: "✓", NodeStage.ALREADY_INSTALLED: "✓", NodeStage.PLANNED: "○"}
_DEEDS: dict[CampaignState, tuple[str, ...]] = {
    CampaignState.DRAFT: ("start", "abort"),
    CampaignState.AWAITING_APPROVAL: ("approve", "abort"),
    CampaignState.SCHEDULED: ("start", "abort"),
    CampaignState.RUNNING: ("pause", "abort"),
    CampaignState.SOAKING: ("pause", "abort"),
    CampaignState.PAUSED: ("resume", "retry", "abort"),
}
REASONED = ("pause", "abort")
"""Deeds that whoever does them may give a reason for."""
_DEED_WORDS: dict[str, LazyString] = {
    "start": lazy_gettext("Hand in"),
    "approve": lazy_gettext("Approve"),
    "pause": lazy_gettext("Pause"),
    "resume": lazy_gettext("Go on"),
    "retry": lazy_gettext("Go on, and try those again that failed"),
    "abort": lazy_gettext("Abort"),
}
_MEANINGS: dict[str, LazyString] = {
    "start": lazy_gettext("Somebody else has to approve it then."),
    "approve": lazy_gettext("It begins when its time comes. Its author cannot do this."),
    "pause": lazy_gettext("Nobody else is told, and who has not begun to install is called back."),
    "resume": lazy_gettext("What failed until now does not pause it again."),
    "retry": lazy_gettext("Nodes that failed or went back are told once more."),
    "abort": lazy_gettext("Nobody else is told, for good. Who runs it keeps it."),
}


@web.app_template_global()
def campaign_state_words(state: str) -> Word:
    return CAMPAIGN_WORDS[CampaignState(state)]


@web.app_template_global()
def stage_flag_words(stage: str) -> Word:
    """A node's stage with its symbol."""
    found = NodeStage(stage)
    symbol = _SYMBOLS.get(found, "–")
    if found in ON_THE_WAY:
        symbol = "▸"
    elif found in (*FAILED, NodeStage.ROLLED_BACK):
        symbol = "✕"
    elif found is NodeStage.UNREACHABLE:
        symbol = "▲"
    return Word(symbol, campaign_words.stage_word(stage, language()), "")


@web.app_template_global()
def update_reason(reason: str | None) -> str:
    """Empty for none."""
    return campaign_words.reason_words(reason, language()) if reason else ""


@web.app_template_global()
def campaign_reason(campaign: Campaign) -> str:
    """Why it stopped, or was stopped; empty for none."""
    if not campaign.reason:
        return ""
    return campaign_words.kept_stop_words(campaign.stop, campaign.reason, language())


@web.app_template_global()
def prospect_word(prospect: str) -> str:
    return str(PROSPECT_WORDS[Prospect(prospect)])


@web.app_template_global()
def campaign_target_words(selection: dict[str, Any]) -> list[tuple[str, str]]:
    """Whom it is for: each filter with its value, as the editor calls them."""
    return [
        (str(word), _filter_value(name, selection[name]))
        for name, word in _TARGET_WORDS.items()
        if name in selection
    ]


def _filter_value(name: str, value: Any) -> str:
    if name == "health":
        return str(health_words(value).word)
    if name == "state":
        return state_word(NodeState(value))
    if name == "heard_before":
        return local_time(datetime.fromisoformat(value))
    if not isinstance(value, list):
        return str(value)
    more = len(value) - _SHOWN_IDS
    return ", ".join(value[:_SHOWN_IDS]) + (f" (+{more})" if more > 0 else "")


@web.app_template_global()
def campaign_deeds(campaign: Campaign) -> list[str]:
    """What who reads this can do with a campaign now: nothing is offered that would be refused."""
    deeds = _DEEDS.get(CampaignState(campaign.state), ())
    return [deed for deed in deeds if _may_do(deed, campaign)]


def _may_do(deed: str, campaign: Campaign) -> bool:
    actor = rights.actor_of(current_session())
    if deed == "start":
        return Right.AUTHOR_RELEASES in actor.rights
    if deed in ("approve", "retry"):
        return campaigning.is_second_person(campaign, actor)
    if deed == "resume":
        return campaigning.may_take_pause_back(campaign, actor) or campaigning.is_second_person(
            campaign, actor
        )
    return Right.STOP_UPDATES in actor.rights


@web.app_template_global()
def campaign_deed_word(deed: str, campaign: Campaign) -> str:
    if deed == "start" and campaign.state == CampaignState.SCHEDULED:
        return str(lazy_gettext("Begin now"))
    return str(_DEED_WORDS[deed])


@web.app_template_global()
def campaign_deed_meaning(deed: str, campaign: Campaign) -> str:
    if deed == "start" and campaign.state == CampaignState.SCHEDULED:
        return str(lazy_gettext("It begins at once, whatever was planned."))
    if deed == "resume" and campaigning.may_take_pause_back(
        campaign, rights.actor_of(current_session())
    ):
        return str(lazy_gettext("It goes on as if you had not paused it."))
    return str(_MEANINGS[deed])


@web.app_template_global()
def campaign_deed_has_reason(deed: str) -> bool:
    return deed in REASONED


@web.app_template_global()
def campaign_waits_for_second(campaign: Campaign) -> bool:
    """Whether it is paused, and who reads this could stop it but cannot let it go on."""
    actor = rights.actor_of(current_session())
    return (
        campaign.state == CampaignState.PAUSED
        and Right.STOP_UPDATES in actor.rights
        and not _may_do("resume", campaign)
    )


@web.app_template_global()
def can_retry(update: NodeUpdate) -> bool:
    """Whether who reads this can let the node try that update again."""
    actor = rights.actor_of(current_session())
    return (
        update.stage in (*FAILED, NodeStage.ROLLED_BACK)
        and update.campaign_state in campaigning.RETRIES_IN
        and Right.OPERATE_NODES in actor.rights
        and rights.person(actor.name) != rights.person(update.author)
    )


@web.app_template_global()
def hours_words(campaign: Campaign) -> str:
    """Like `22:00–05:00`; empty for always."""
    if campaign.hours_from_min is None or campaign.hours_until_min is None:
        return ""
    return "–".join(
        f"{minute // 60:02d}:{minute % 60:02d}"
        for minute in (campaign.hours_from_min, campaign.hours_until_min)
    )


@web.app_template_global()
def why_not_updated(node_id: str) -> str:
    """One sentence."""
    why = campaign_words.why_not_updated(current_session(), node_id, now=clock.now())
    return campaign_words.sentence(why, language())


@web.app_template_global()
def updates_of(node_id: str) -> list[NodeUpdate]:
    return campaigning.updates_of(current_session(), node_id)


def language() -> str:
    """`de` or `en`, as the page is in."""
    locale = get_locale()
    return "de" if locale is not None and locale.language == "de" else "en"
