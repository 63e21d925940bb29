"""What updates are called, in German and English: stages, reasons that nodes give, and in one sentence why a node is not updated.

The same words on a page and on a terminal. A reason that is not in the table (a later firmware's) stands as it came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from fleet_server.errors import NotFound
from fleet_server.models import (
    Campaign,
    CampaignNode,
    CampaignState,
    Node,
    NodeStage,
    NodeStatus,
    Release,
)
from fleet_server.services import rights
from fleet_server.services.campaign_rules import ON_THE_WAY, Stop

Words = Mapping[str, str]

STAGES: Mapping[NodeStage, Words] = {
    NodeStage.PLANNED: {"en": "waits", "de": "wartet"},
    NodeStage.OFFERED: {"en": "told", "de": "beauftragt"},
    NodeStage.ACCEPTED: {"en": "accepted", "de": "angenommen"},
    NodeStage.DOWNLOADING: {"en": "downloading", "de": "lädt herunter"},
    NodeStage.VERIFIED: {"en": "verified", "de": "geprüft"},
    NodeStage.INSTALLING: {"en": "installing", "de": "installiert"},
    NodeStage.REBOOTING: {"en": "restarting", "de": "startet neu"},
    NodeStage.TESTING: {"en": "on trial", "de": "auf Probe"},
    NodeStage.SUCCEEDED: {"en": "succeeded", "de": "gelungen"},
    NodeStage.REJECTED: {"en": "refused", "de": "abgelehnt"},
    NodeStage.FAILED: {"en": "failed", "de": "gescheitert"},
    NodeStage.ROLLED_BACK: {"en": "went back", "de": "zurückgekehrt"},
    NodeStage.TIMED_OUT: {"en": "timed out", "de": "Zeit abgelaufen"},
    NodeStage.CANCELED: {"en": "taken back", "de": "zurückgenommen"},
    NodeStage.SUPERSEDED: {"en": "superseded", "de": "überholt"},
    NodeStage.ALREADY_INSTALLED: {"en": "had it already", "de": "hatte sie schon"},
    NodeStage.UNREACHABLE: {"en": "not reached", "de": "nicht erreicht"},
}
_ROLES: Mapping[str, Words] = {
    "root": {"en": "the root's", "de": "der Wurzel"},
    "timestamp": {"en": "the timestamp's", "de": "des Zeitstempels"},
    "snapshot": {"en": "the snapshot's", "de": "der Übersicht"},
    "targets": {"en": "the releases'", "de": "der Versionen"},
}
# What a node's client of The Update Framework says of each role's metadata (firmware/node/update/tuf.py).
_METADATA: Mapping[str, Words] = {
    "signature": {
        "en": "{role} metadata lack enough valid signatures",
        "de": "den Metadaten {role} fehlen gültige Signaturen",
    },
    "expired": {
        "en": "{role} metadata have expired",
        "de": "die Metadaten {role} sind abgelaufen",
    },
    "version": {
        "en": "{role} metadata have another version than was announced",
        "de": "die Metadaten {role} haben eine andere Fassung als angekündigt",
    },
    "hash": {
        "en": "{role} metadata are not what was announced",
        "de": "die Metadaten {role} sind nicht die angekündigten",
    },
    "missing": {"en": "{role} metadata are missing", "de": "die Metadaten {role} fehlen"},
    "malformed": {
        "en": "{role} metadata cannot be read",
        "de": "die Metadaten {role} sind nicht lesbar",
    },
    "rolled back": {
        "en": "{role} metadata are older than those that it knows",
        "de": "die Metadaten {role} sind älter als die bekannten",
    },
}
REASONS: Mapping[str, Words] = {
    # What it waits for.
    "battery low": {"en": "its battery is low", "de": "seine Batterie ist schwach"},
    "time unknown": {
        "en": "it does not know the time yet",
        "de": "er kennt die Uhrzeit noch nicht",
    },
    "no update server": {
        "en": "it was never told where updates are",
        "de": "ihm wurde nie gesagt, wo Aktualisierungen liegen",
    },
    "outside its hours": {"en": "it is outside its hours", "de": "er ist außerhalb seiner Stunden"},
    # What it refuses.
    "not signed": {
        "en": "nobody has signed this release",
        "de": "niemand hat diese Version signiert",
    },
    "wrong model": {
        "en": "the release is for another node model",
        "de": "die Version ist für ein anderes Knotenmodell",
    },
    "counter differs": {
        "en": "what was signed is another release than what it was told",
        "de": "signiert ist eine andere Version als die beauftragte",
    },
    "older than installed": {
        "en": "it runs a newer release already",
        "de": "auf ihm läuft schon eine neuere Version",
    },
    "manifest missing": {"en": "the manifest is missing", "de": "das Manifest fehlt"},
    "manifest hash": {
        "en": "the manifest is not what was signed",
        "de": "das Manifest ist nicht das signierte",
    },
    "manifest too long": {"en": "the manifest is too long", "de": "das Manifest ist zu lang"},
    "manifest malformed": {
        "en": "the manifest cannot be read",
        "de": "das Manifest ist nicht lesbar",
    },
    "mpy format": {
        "en": "its MicroPython cannot run such files",
        "de": "sein MicroPython kann solche Dateien nicht ausführen",
    },
    "MicroPython too old": {
        "en": "its MicroPython is too old",
        "de": "sein MicroPython ist zu alt",
    },
    "file hash": {
        "en": "a file is not what was signed",
        "de": "eine Datei ist nicht die signierte",
    },
    "bundle length": {
        "en": "a file has another length than was signed",
        "de": "eine Datei hat eine andere Länge als signiert",
    },
    "image hash": {
        "en": "the release's MicroPython is not what was signed",
        "de": "das MicroPython der Version ist nicht das signierte",
    },
    "image too long": {
        "en": "the release's MicroPython is too long for its partition",
        "de": "das MicroPython der Version ist zu lang für seine Partition",
    },
    "image length": {
        "en": "the release's MicroPython has another length than was signed",
        "de": "das MicroPython der Version hat eine andere Länge als signiert",
    },
    "image not bootable": {
        "en": "its board cannot start the release's MicroPython",
        "de": "sein Board kann das MicroPython der Version nicht starten",
    },
    "no spare partition": {
        "en": "its flash has no partition for another MicroPython",
        "de": "sein Flash hat keine Partition für ein anderes MicroPython",
    },
    "endless data": {
        "en": "the server sent more than was announced",
        "de": "der Server schickte mehr als angekündigt",
    },
    "too many delegations": {
        "en": "the metadata lead too far",
        "de": "die Metadaten verweisen zu weit",
    },
    "no room": {
        "en": "there is no room for it on its flash",
        "de": "auf seinem Flash ist kein Platz",
    },
    "too slow": {"en": "the download never came on", "de": "das Herunterladen kam nicht voran"},
    # Why it went back.
    "crashed": {"en": "the new version crashed", "de": "die neue Version stürzte ab"},
    "hung": {"en": "the new version hung", "de": "die neue Version blieb stehen"},
    "never slept": {"en": "the new version never slept", "de": "die neue Version schlief nie"},
    "no receipt": {
        "en": "nothing that the new version sent was stored",
        "de": "nichts, was die neue Version sandte, wurde gespeichert",
    },
    "broke": {
        "en": "a step of the new version's wakes failed by itself",
        "de": "ein Schritt der neuen Version scheiterte von selbst",
    },
    "wrong clock": {
        "en": "the new version broke the clock",
        "de": "die neue Version verstellte die Uhr",
    },
    "too long": {
        "en": "the new version did not prove itself within 72 hours",
        "de": "die neue Version bewährte sich nicht in 72 Stunden",
    },
    "image not started": {
        "en": "the release's MicroPython did not come up, and its boot loader took the one before",
        "de": "das MicroPython der Version lief nicht an, und sein Bootloader nahm das vorige",
    },
    "image not heard": {
        "en": "under the release's MicroPython the server was not heard, and its boot loader took the one before",
        "de": "unter dem MicroPython der Version war der Server nicht zu hören, und sein Bootloader nahm das vorige",
    },
    # Why it was not told.
    "out of service": {"en": "it is out of service", "de": "er ist außer Betrieb"},
    "newer release": {
        "en": "it runs a newer release already",
        "de": "auf ihm läuft schon eine neuere Version",
    },
}
# Why a campaign stopped (`campaign_rules.Stop`), with its parts.
_STOPS: Mapping[str, Words] = {
    "rolled_back": {
        "en": "{count} of wave {wave} rolled back",
        "de": "aus Welle {wave} zurückgekehrt: {count}",
    },
    "failed": {
        "en": "{count} of {reached} reached nodes of wave {wave} failed or rolled back",
        "de": "gescheitert oder zurückgekehrt: {count} von {reached} erreichten Knoten der Welle {wave}",
    },
    "too_few": {
        "en": "only {count} of {wanted} nodes of wave {wave} were reached",
        "de": "nur {count} von {wanted} Knoten der Welle {wave} erreicht",
    },
    "time_over": {"en": "its time is over", "de": "ihre Zeit ist um"},
    "withdrawn": {"en": "the release was withdrawn", "de": "die Version wurde zurückgezogen"},
    "by_person": {"en": "by {by}", "de": "durch {by}"},
}
_SENTENCES: Mapping[str, Words] = {
    "nothing_newer": {
        "en": "It runs {running}; there is no newer release for {model}.",
        "de": "Auf ihm läuft {running}; für {model} gibt es keine neuere Version.",
    },
    "not_targeted": {
        "en": "No campaign is for it: it runs {running}, and release {version} is there.",
        "de": "Keine Kampagne gilt ihm: auf ihm läuft {running}, und Version {version} ist da.",
    },
    "draft": {
        "en": "Campaign {campaign} to {version} is a draft of {author}'s that was not handed in.",
        "de": "Kampagne {campaign} auf {version} ist ein Entwurf von {author} und noch nicht eingereicht.",
    },
    "awaiting_approval": {
        "en": "Campaign {campaign} to {version} waits for approval by somebody else than {author}.",
        "de": "Kampagne {campaign} auf {version} wartet darauf, dass jemand anderes als {author} sie freigibt.",
    },
    "scheduled": {
        "en": "Campaign {campaign} to {version} begins at {starts_at}.",
        "de": "Kampagne {campaign} auf {version} beginnt um {starts_at}.",
    },
    "paused": {
        "en": "Campaign {campaign} to {version} is paused: {why}.",
        "de": "Kampagne {campaign} auf {version} hält an: {why}.",
    },
    "waits_for_wave": {
        "en": "It is in wave {wave} of campaign {campaign} to {version}; wave {open_wave} is open.",
        "de": "Er ist in Welle {wave} der Kampagne {campaign} auf {version}; offen ist Welle {open_wave}.",
    },
    "waits_for_turn": {
        "en": "Its wave is open, and its turn comes: at most {at_once} nodes update at once.",
        "de": "Seine Welle ist offen, und er kommt an die Reihe: höchstens {at_once} Knoten zugleich.",
    },
    "not_before": {
        "en": "It was told {version}, and may begin from {not_before} on.",
        "de": "Er ist mit {version} beauftragt und darf ab {not_before} beginnen.",
    },
    "offline": {
        "en": "It is offline: not heard since {heard_at}; it hears of {version} when it is back.",
        "de": "Er ist nicht erreichbar: seit {heard_at} nicht gehört; von {version} erfährt er, wenn er wieder da ist.",
    },
    "offered": {
        "en": "It was told {version} at {since}, and hears of it when it connects next.",
        "de": "Er ist seit {since} mit {version} beauftragt und erfährt davon, wenn er sich das nächste Mal meldet.",
    },
    "held_up": {
        "en": "It has accepted {version}, and waits: {why}.",
        "de": "Er hat {version} angenommen und wartet: {why}.",
    },
    "on_the_way": {
        "en": "It is at it: {stage} since {since}.",
        "de": "Er ist dabei: {stage} seit {since}.",
    },
    "testing": {
        "en": "{version} is on trial on it since {since}; it counts once the node trusts it and a reading of it is stored.",
        "de": "{version} ist auf ihm seit {since} auf Probe; es zählt, sobald der Knoten ihr traut und eine Messung von ihr gespeichert ist.",
    },
    "succeeded": {
        "en": "It is updated: {version} since {since}.",
        "de": "Er ist aktualisiert: {version} seit {since}.",
    },
    "already_installed": {
        "en": "It runs {version} already.",
        "de": "Auf ihm läuft {version} schon.",
    },
    "rejected": {
        "en": "It refused {version}: {why}.",
        "de": "Er hat {version} abgelehnt: {why}.",
    },
    "failed": {
        "en": "The update to {version} failed: {why}.",
        "de": "Die Aktualisierung auf {version} ist gescheitert: {why}.",
    },
    "rolled_back": {
        "en": "It went back to the version before {version}: {why}.",
        "de": "Er kehrte zur Version vor {version} zurück: {why}.",
    },
    "timed_out": {
        "en": "It was heard, and came no further than: {why}; its time for {version} ran out at {since}.",
        "de": "Er war zu hören und kam nicht weiter als: {why}; seine Zeit für {version} lief um {since} ab.",
    },
    "canceled": {
        "en": "The update to {version} was taken back: {why}.",
        "de": "Die Aktualisierung auf {version} wurde zurückgenommen: {why}.",
    },
    "superseded": {
        "en": "A later campaign told it something else than {version}.",
        "de": "Eine spätere Kampagne hat ihn mit etwas anderem als {version} beauftragt.",
    },
}
_ENDED: Words = {"en": "its campaign has ended", "de": "ihre Kampagne ist zu Ende"}
_UNKNOWN: Words = {"en": "it gave no reason", "de": "ohne Angabe eines Grundes"}


@dataclass(frozen=True)
class Why:
    """Why a node is not updated, or that it is: `code` names the sentence."""

    code: str
    details: Mapping[str, Any] = field(default_factory=dict)


def stage_word(stage: str, language: str) -> str:
    return STAGES[NodeStage(stage)][language]


def stop_words(stop: Stop, language: str) -> str:
    """Why a campaign stopped.

    >>> stop_words(Stop("rolled_back", {"count": 2, "wave": 1}), "de")
    'aus Welle 1 zurückgekehrt: 2'
    """
    return _STOPS[stop.code][language].format_map(stop.parts)


def kept_stop_words(stop: Mapping[str, Any] | None, reason: str | None, language: str) -> str:
    """Why a campaign stopped, as it is kept: what a person gave as the reason stays as it is.

    Args:
        stop: what `kept_stop` made; None where a person said it, or an earlier version wrote it down.
        reason: the same in English, or in that person's words.
    """
    if stop is None or stop["code"] not in _STOPS:
        return reason or _UNKNOWN[language]
    return stop_words(Stop(**stop), language)


def kept_stop(stop: Stop) -> dict[str, Any]:
    """As JSON keeps it."""
    return {"code": stop.code, "parts": dict(stop.parts)}


def reason_words(reason: str | None, language: str) -> str:
    """What a node gave as its reason.

    >>> reason_words("timestamp expired", "en")
    "the timestamp's metadata have expired"
    >>> reason_words("downloading: too slow", "en")
    'downloading: the download never came on'
    """
    if not reason:
        return _UNKNOWN[language]
    if reason in REASONS:
        return REASONS[reason][language]
    if reason in tuple(NodeStage):
        return stage_word(reason, language)
    stage, colon, rest = reason.partition(": ")
    if colon and stage in tuple(NodeStage):
        return f"{stage_word(stage, language)}: {reason_words(rest, language)}"
    role, _, problem = reason.partition(" ")
    if problem in _METADATA:
        usual = {"en": f"{role}'s", "de": f"von {role}"}
        return _METADATA[problem][language].format(role=_ROLES.get(role, usual)[language])
    return reason


def sentence(why: Why, language: str) -> str:
    """One sentence."""
    told = {name: _plain(name, value, language) for name, value in why.details.items()}
    return _SENTENCES[why.code][language].format_map(told)


def _plain(name: str, value: Any, language: str) -> str:
    if name == "why":
        return value[language] if isinstance(value, Mapping) else reason_words(value, language)
    if name == "stage":
        return stage_word(value, language)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M} UTC"
    return "?" if value is None else str(value)


def why_not_updated(session: Session, node_id: str, *, now: datetime) -> Why:
    """Why this node does not run what it shall, whatever the state that it is in. Two statements at most.

    Raises:
        NotFound: there is no such node, or not for the actor.
    """
    row = session.execute(
        select(Node, NodeStatus, CampaignNode, Campaign)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .outerjoin(CampaignNode, CampaignNode.node_id == Node.node_id)
        .outerjoin(Campaign, Campaign.id == CampaignNode.campaign_id)
        .where(Node.node_id == node_id)
        .order_by(CampaignNode.is_assigned.desc(), Campaign.id.desc())
        .limit(1)
        .execution_options(populate_existing=True)
    ).first()
    if row is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    rights.check_node_model(session, row.Node.model, node_id=node_id)
    if row.Campaign is None:
        return _without_campaign(session, row.Node, row.NodeStatus)
    return _in_campaign(row.Campaign, row.CampaignNode, row.NodeStatus, now)


def _without_campaign(session: Session, node: Node, status: NodeStatus) -> Why:
    newest = session.scalar(
        select(Release)
        .where(Release.model == node.model, Release.withdrawn_at.is_(None))
        .order_by(Release.counter.desc())
        .limit(1)
        .options(defer(Release.sbom), defer(Release.manifest))
    )
    running = {"running": status.version, "model": node.model}
    if newest is None or newest.counter <= (status.counter or 0):
        return Why("nothing_newer", running)
    return Why("not_targeted", {**running, "version": newest.version})


def _in_campaign(campaign: Campaign, row: CampaignNode, status: NodeStatus, now: datetime) -> Why:
    stage = NodeStage(row.stage)
    told: dict[str, Any] = {
        "campaign": campaign.id,
        "version": campaign.version,
        "since": row.since,
    }
    if stage is NodeStage.PLANNED:
        return _planned(campaign, row, told)
    if stage is NodeStage.UNREACHABLE:
        return Why("offline", {**told, "heard_at": status.last_heard_at})
    if stage in (NodeStage.TESTING, NodeStage.SUCCEEDED):
        return Why(stage.value, {**told, "since": row.running_since or row.since})
    if stage is NodeStage.OFFERED:
        return _offered(row, status, now, told)
    if stage in ON_THE_WAY:
        if row.reason:
            return Why("held_up", {**told, "why": row.reason})
        return Why("on_the_way", {**told, "stage": stage.value})
    ended = _ENDED if stage is NodeStage.CANCELED and not row.reason else row.reason
    return Why(stage.value, {**told, "why": ended})


def _planned(campaign: Campaign, row: CampaignNode, told: dict[str, Any]) -> Why:
    if campaign.state in (CampaignState.DRAFT, CampaignState.AWAITING_APPROVAL):
        return Why(campaign.state, {**told, "author": campaign.author})
    if campaign.state == CampaignState.SCHEDULED:
        return Why("scheduled", {**told, "starts_at": campaign.starts_at or campaign.approved_at})
    if campaign.state == CampaignState.PAUSED:
        stop = {
            language: kept_stop_words(campaign.stop, campaign.reason, language)
            for language in ("en", "de")
        }
        return Why("paused", {**told, "why": stop})
    if row.wave > campaign.wave:
        return Why("waits_for_wave", {**told, "wave": row.wave, "open_wave": campaign.wave})
    return Why("waits_for_turn", {**told, "at_once": campaign.at_once})


def _offered(row: CampaignNode, status: NodeStatus, now: datetime, told: dict[str, Any]) -> Why:
    if status.late_at is None or status.late_at <= now:
        return Why("offline", {**told, "heard_at": status.last_heard_at})
    if row.not_before_at is not None and row.not_before_at > now:
        return Why("not_before", {**told, "not_before": row.not_before_at})
    return Why("offered", told)
