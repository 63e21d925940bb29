"""What the states of a campaign are called on pages."""

from __future__ import annotations

from flask_babel import lazy_gettext

from fleet_server.models import CampaignState
from fleet_server.web.words import Word

CAMPAIGN_WORDS = {
    CampaignState.DRAFT: Word(
        "○", lazy_gettext("draft"), lazy_gettext("Its author has not handed it in yet.")
    ),
    CampaignState.AWAITING_APPROVAL: Word(
        "○",
        lazy_gettext("awaits approval"),
        lazy_gettext("Somebody else than its author has to approve it."),
    ),
    CampaignState.SCHEDULED: Word(
        "○", lazy_gettext("approved"), lazy_gettext("It begins when its time comes.")
    ),
    CampaignState.RUNNING: Word(
        "▸", lazy_gettext("running"), lazy_gettext("The nodes of its open waves update.")
    ),
    CampaignState.SOAKING: Word(
        "▸",
        lazy_gettext("being watched"),
        lazy_gettext("Enough nodes run it; the next wave opens when they still do after a while."),
    ),
    CampaignState.PAUSED: Word(
        "▲", lazy_gettext("paused"), lazy_gettext("Nobody else is told until somebody decides.")
    ),
    CampaignState.COMPLETED: Word(
        "✓", lazy_gettext("completed"), lazy_gettext("Every node has come to an end.")
    ),
    CampaignState.ABORTED: Word(
        "–", lazy_gettext("aborted"), lazy_gettext("Who runs it keeps it, nobody else is told.")
    ),
    CampaignState.EXPIRED: Word(
        "–", lazy_gettext("expired"), lazy_gettext("Its time was over before all were through.")
    ),
}
