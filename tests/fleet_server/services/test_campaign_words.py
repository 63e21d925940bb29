"""Why a node is not updated is one sentence, whatever the state, in both languages; every reason that a node can give has words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from databases import SqliteDatabases
from factories import NOON
from sqlalchemy import update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import AlertKind, Campaign, CampaignNode, CampaignState, NodeStage
from fleet_server.services import alert_words, campaign_words, campaigning
from fleet_server.services.campaign_rules import ON_THE_WAY, Gate, WaveCount, trouble_in
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaign_words import reason_words, sentence, why_not_updated
from fleet_server.wire.states import SlotReason
from hardware.paths import firmware_dir
from tests.fleet_server.services.campaign_fleet import Talker, act_as, add_release
from tests.fleet_server.services.fleet_of_nodes import register

LANGUAGES = ("en", "de")
ROLES = ("root", "timestamp", "snapshot", "targets", "tree-3")


def reasons_in_the_firmware() -> set[str]:
    """What the node's own sources refuse, fail and wait with."""
    found: set[str] = set()
    for path in (firmware_dir() / "node" / "update").glob("*.py"):
        source = path.read_text()
        found |= set(re.findall(r'Refused\(\s*"([^"]+)"\s*\)', source))
        for problem in re.findall(r'Refused\([^")]*\+ "( [^"]+)"\)', source):
            found |= {role + problem for role in ROLES}
        if path.name in ("updating.py", "manifest.py"):
            found |= set(re.findall(r'return "([^"]+)"', source))
            found |= set(re.findall(r'ValueError\("([^"]+)"\)', source))
        if path.name == "session.py":
            found |= set(re.findall(r'fault = "([^"]+)"', source))
            found |= {f"downloading: {end}" for end in re.findall(r'stage \+ ": ([^"]+)"', source)}
    return found | set(SlotReason)


def test_every_reason_that_a_node_can_give_has_words_in_both_languages() -> None:
    reasons = reasons_in_the_firmware()
    assert {"battery low", "timestamp expired", "file hash", "downloading: no room"} <= reasons
    assert len(reasons) > 40
    for reason in sorted(reasons):
        words = [reason_words(reason, language) for language in LANGUAGES]
        assert reason not in words, reason
        assert words[0] != words[1], reason
    assert reason_words("a later firmware's own", "de") == "a later firmware's own"


@pytest.mark.parametrize(
    ("gate", "stages", "german"),
    [
        (Gate(pauses_at_roll_back=True), {"rolled_back": 2}, "aus Welle 1 zurückgekehrt: 2"),
        (
            Gate(),
            {"failed": 3, "succeeded": 1},
            "gescheitert oder zurückgekehrt: 3 von 4 erreichten Knoten der Welle 1",
        ),
        (Gate(minimum_reached=3), {"unreachable": 3}, "nur 0 von 3 Knoten der Welle 1 erreicht"),
    ],
    ids=("rolled back", "failed", "too few"),
)
def test_why_a_campaign_stopped_by_itself_is_said_in_german_too(
    gate: Gate, stages: dict[str, int], german: str
) -> None:
    count = WaveCount({NodeStage(name): number for name, number in stages.items()})
    stop = trouble_in([gate], [count])
    assert stop is not None
    english = campaign_words.stop_words(stop, "en")
    details = {"version": "0.8.0", "model": "tree-3", "reason": english}
    kept = details | {"stop": json.loads(json.dumps(campaign_words.kept_stop(stop)))}
    assert german in alert_words.sentence(AlertKind.CAMPAIGN, kept, "de")
    assert english in alert_words.sentence(AlertKind.CAMPAIGN, kept, "en")
    assert english in alert_words.sentence(AlertKind.CAMPAIGN, details, "de"), "an earlier alert"


@pytest.fixture
def session(sqlite_databases: SqliteDatabases) -> Iterator[Session]:
    """Words are the same on both databases."""
    with sqlite_databases.fresh() as url:
        engine = db.make_engine(url)
        with db.session_factory(engine)() as opened:
            yield opened
        engine.dispose()


@pytest.fixture
def campaign(session: Session) -> int:
    """A draft for one node."""
    release = add_release(session)
    Talker(session, register(session, 1)[0]).say(NOON)
    act_as(session, "anna")
    return campaigning.create_campaign(session, release.id, Target(), now=NOON).id


def both(session: Session, minutes: int = 1) -> tuple[str, str]:
    why = why_not_updated(session, "n-000001", now=NOON + timedelta(minutes=minutes))
    english, german = (sentence(why, language) for language in LANGUAGES)
    return english, german


def set_to(session: Session, campaign: int, state: str, **node: object) -> None:
    with db.writing(session):
        session.execute(
            update(Campaign)
            .where(Campaign.id == campaign)
            .values(state=state, reason="storm", starts_at=NOON, wave=1)
        )
        session.execute(update(CampaignNode).values(**node))


@pytest.mark.parametrize(
    ("state", "node", "said"),
    [
        ("draft", {"stage": "planned"}, "a draft of anna's that was not handed in"),
        ("awaiting_approval", {"stage": "planned"}, "waits for approval by somebody else"),
        ("scheduled", {"stage": "planned"}, "begins at 2026-07-01 12:00 UTC"),
        ("paused", {"stage": "planned"}, "is paused: storm"),
        ("running", {"stage": "planned", "wave": 3}, "in wave 3 of campaign 1 to 0.8.0; wave 1"),
        ("running", {"stage": "planned", "wave": 1}, "its turn comes: at most 500"),
        ("running", {"stage": "offered"}, "hears of it when it connects next"),
        (
            "running",
            {"stage": "offered", "not_before_at": NOON + timedelta(days=1)},
            "may begin from 2026-07-02 12:00 UTC on",
        ),
        ("running", {"stage": "accepted", "reason": "battery low"}, "waits: its battery is low"),
        ("running", {"stage": "accepted", "reason": "outside its hours"}, "outside its hours"),
        ("running", {"stage": "downloading"}, "at it: downloading since"),
        ("running", {"stage": "testing"}, "0.8.0 is on trial"),
        ("running", {"stage": "succeeded"}, "It is updated: 0.8.0"),
        ("running", {"stage": "unreachable"}, "offline: not heard since 2026-07-01 12:00 UTC"),
        ("running", {"stage": "rejected", "reason": "not signed"}, "nobody has signed"),
        ("running", {"stage": "failed", "reason": "installing: no room"}, "no room for it"),
        ("running", {"stage": "rolled_back", "reason": "hung"}, "the new version hung"),
        ("running", {"stage": "timed_out", "reason": "downloading"}, "no further than: downl"),
        ("aborted", {"stage": "canceled"}, "taken back: its campaign has ended"),
        ("running", {"stage": "canceled", "reason": "newer release"}, "a newer release already"),
        ("running", {"stage": "superseded"}, "A later campaign told it something else"),
        ("running", {"stage": "already_installed"}, "It runs 0.8.0 already."),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_why_a_node_is_not_updated_is_one_sentence(
    session: Session, campaign: int, state: str, node: dict[str, object], said: str
) -> None:
    set_to(session, campaign, state, **node)
    english, german = both(session)
    assert said in english
    assert english != german
    for text in (english, german):
        assert text.endswith(".")
        assert "{" not in text


def test_node_that_is_late_is_offline_whatever_it_was_told(session: Session, campaign: int) -> None:
    set_to(session, campaign, "running", stage="offered")
    assert "It is offline" in both(session, minutes=3 * 24 * 60)[0]


def test_every_stage_and_state_has_a_sentence(session: Session, campaign: int) -> None:
    for stage in NodeStage:
        states = CampaignState if stage is NodeStage.PLANNED else (CampaignState.RUNNING,)
        for state in states:
            set_to(session, campaign, state, stage=stage, reason=None)
            english, german = both(session)
            assert english.endswith(".")
            assert english != german


def test_node_without_a_campaign_is_told_what_there_is(session: Session) -> None:
    talker = Talker(session, register(session, 1)[0])
    talker.say(NOON)
    assert both(session)[0] == "It runs 0.7.0; there is no newer release for tree-3."
    add_release(session)
    assert both(session)[0] == "No campaign is for it: it runs 0.7.0, and release 0.8.0 is there."


def test_words_of_every_stage_on_the_way_are_known() -> None:
    assert set(ON_THE_WAY) <= set(campaign_words.STAGES)
    assert set(campaign_words.STAGES) == set(NodeStage)
