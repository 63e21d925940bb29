"""A release on its way to the nodes: what people decide, what nodes are told, what they tell, and when it stops by itself."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from factories import NOON
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.models import (
    Alert,
    AuditEntry,
    Campaign,
    CampaignNode,
    CampaignState,
    Node,
    NodeStage,
    Outbox,
    Release,
)
from fleet_server.services import alerting, campaign_steps, campaigning, publishing, rights
from fleet_server.services.campaign_targets import Prospect, Target
from fleet_server.services.campaigning import (
    CampaignElsewhere,
    CampaignWrong,
    FourEyes,
    Plan,
    Terms,
)
from fleet_server.services.rights import NotAllowed, Right
from fleet_server.wire.states import NodeState
from tests.fleet_server.services.campaign_fleet import (
    IMAGE,
    RUNS_IMAGE,
    SIZE_BYTES,
    Talker,
    act_as,
    add_release,
)
from tests.fleet_server.services.fleet_of_nodes import register, register_many, statements

pytestmark = pytest.mark.postgresql_at_night

SOAK = timedelta(hours=1)
PLAN = Plan(canaries=1, shares=(0.5, 1.0), soak=SOAK, minimum_reached=1)
ALL_AT_ONCE = Plan(canaries=0, shares=(1.0,), soak=timedelta(0))
EVERYBODY = Target()
HOUR = timedelta(hours=1)


class City:
    """A few nodes, a release, and the worker."""

    def __init__(self, session: Session, nodes: int = 4) -> None:
        self.session, self.now = session, NOON
        self.release = add_release(session)
        self.talkers = {one: Talker(session, one) for one in register(session, nodes)}
        for talker in self.talkers.values():
            talker.say(NOON)

    def begin(self, plan: Plan = PLAN, target: Target = EVERYBODY, **terms: Any) -> int:
        act_as(self.session, "anna")
        made = campaigning.create_campaign(
            self.session, self.release.id, target, now=self.now, plan=plan, terms=Terms(**terms)
        )
        campaigning.start_campaign(self.session, made.id, now=self.now)
        act_as(self.session, "bert")
        campaigning.approve_campaign(self.session, made.id, now=self.now)
        self.work()
        return made.id

    def work(self, later: timedelta = timedelta(0)) -> None:
        self.now += later
        while campaign_steps.advance_all(self.session, now=self.now):
            pass

    def told(self) -> list[Talker]:
        """Who is told a release."""
        return [one for one in self.talkers.values() if one.release is not None]

    def update(self, *talkers: Talker) -> None:
        for talker in talkers:
            talker.update(self.release, self.now)
        self.work(timedelta(minutes=30))

    def state(self, campaign_id: int) -> tuple[str, int]:
        found = campaigning.overview(self.session, campaign_id).campaign
        return found.state, found.wave

    def stages(self, campaign_id: int) -> list[str]:
        page = campaigning.node_page(self.session, campaign_id, limit=100)
        return sorted(one.stage for one in page.items)

    def reason(self, campaign_id: int) -> str | None:
        return campaigning.overview(self.session, campaign_id).campaign.reason


@pytest.fixture
def city(session: Session) -> City:
    return City(session)


@pytest.mark.also_on_postgresql
def test_good_release_goes_wave_by_wave_and_completes(city: City, session: Session) -> None:
    campaign = city.begin()
    sizes = []
    while city.state(campaign)[0] != CampaignState.COMPLETED:
        told = city.told()
        sizes.append(len(told))
        city.update(*told)
        if city.state(campaign)[0] == CampaignState.SOAKING:
            city.work(SOAK - timedelta(minutes=1))
            assert city.told() == [], "the next wave waits until it has soaked"
            city.work(timedelta(minutes=1))
        assert len(sizes) < 9
    assert sizes == [1, 1, 2]
    assert city.stages(campaign) == ["succeeded"] * 4
    assert city.told() == []
    actions = list(session.scalars(select(AuditEntry.action).order_by(AuditEntry.seq)))
    assert actions == [
        "campaign_created",
        "campaign_handed_in",
        "campaign_approved",
        *["campaign_wave_opened"] * 3,
        "campaign_completed",
    ]


def test_node_is_told_exactly_what_was_signed_and_only_in_its_wave(city: City) -> None:
    campaign = city.begin()
    (canary,) = city.told()
    told = canary.release
    assert told is not None
    row = city.session.scalar(
        select(CampaignNode).where(CampaignNode.node_id == canary.node.node_id)
    )
    assert row is not None
    assert told == {
        "assignment": row.assignment,
        "attempt": 1,
        "target": "tree-3/0.8.0.cbor",
        "counter": 8,
        "not_before_s": 0,
        "until_s": 0,
    }
    due = city.session.scalars(
        select(Outbox.key).where(Outbox.kind == "desired", Outbox.version > 1)
    ).all()
    assert canary.node.node_id in due
    assert city.stages(campaign) == ["offered", "planned", "planned", "planned"]


def test_success_waits_for_a_reading_of_the_new_version(city: City) -> None:
    campaign = city.begin(ALL_AT_ONCE, Target(node_ids=("n-000001",)))
    talker = city.talkers["n-000001"]
    talker.sample(city.now)
    talker.install(city.release)
    talker.slot_state = "confirmed"
    for _ in range(3):
        city.now += timedelta(minutes=10)
        talker.say(city.now)
        city.work()
    assert city.stages(campaign) == ["testing"]
    talker.sample(city.now + timedelta(minutes=1))
    city.work(HOUR)
    assert city.stages(campaign) == ["succeeded"]
    assert city.state(campaign)[0] == CampaignState.COMPLETED


def test_bad_release_stops_itself_at_the_canaries_and_calls_for_help_once(
    city: City, session: Session
) -> None:
    campaign = city.begin()
    (canary,) = city.told()
    canary.roll_back(city.release, city.now)
    city.work(HOUR)
    assert city.state(campaign) == (CampaignState.PAUSED, 1)
    assert city.reason(campaign) == "1 of wave 1 rolled back"
    assert city.told() == []
    for _ in range(2):
        alerting.look(session, now=city.now, wall_now=city.now)
    alerts = session.scalars(select(Alert).where(Alert.kind == "campaign")).all()
    assert [(one.subject, one.details["reason"]) for one in alerts] == [
        (f"campaign {campaign}", "1 of wave 1 rolled back")
    ]
    act_as(session, "bert")
    campaigning.resume_campaign(session, campaign, now=city.now, tries_again=True)
    city.work()
    assert (city.state(campaign), [one.release["attempt"] for one in city.told()]) == (  # type: ignore[index]
        (CampaignState.RUNNING, 1),
        [3],
    )
    alerting.look(session, now=city.now, wall_now=city.now)
    assert session.scalars(select(Alert.well_since).where(Alert.kind == "campaign")).one()


def test_what_an_old_attempt_tells_does_not_end_the_new_one(city: City) -> None:
    campaign = city.begin()
    (canary,) = city.told()
    first = dict(canary.release or {})
    canary.roll_back(city.release, city.now)
    city.work(HOUR)
    campaigning.resume_campaign(city.session, campaign, now=city.now, tries_again=True)
    city.work()
    canary.tell("rolled_back", now=city.now, reason="crashed", attempt=first["attempt"])
    canary.tell("rejected", now=city.now, assignment=first["assignment"] ^ 1)
    city.work(HOUR)
    assert "offered" in city.stages(campaign)
    city.update(canary)
    assert "succeeded" in city.stages(campaign)


def test_word_of_another_node_about_this_ones_assignment_counts_for_nothing(city: City) -> None:
    campaign = city.begin()
    (canary,) = city.told()
    other = next(one for one in city.talkers.values() if one is not canary)
    other.tell("rolled_back", now=city.now, assignment=(canary.release or {})["assignment"])
    city.work(HOUR)
    assert city.state(campaign)[0] == CampaignState.RUNNING
    assert "rolled_back" not in city.stages(campaign)


def test_refusal_is_kept_with_its_reason(city: City) -> None:
    campaign = city.begin()
    (canary,) = city.told()
    canary.tell("accepted", now=city.now)
    canary.tell("rejected", now=city.now, reason="timestamp expired")
    city.work(HOUR)
    (line,) = campaigning.node_page(city.session, campaign, stage="rejected", limit=9).items
    assert line.reason == "timestamp expired"
    assert city.reason(campaign) == "1 of 1 reached nodes of wave 1 failed or rolled back"


def test_author_does_not_approve_not_even_with_a_key(city: City) -> None:
    act_as(city.session, "anna")
    made = campaigning.create_campaign(city.session, city.release.id, Target(), now=NOON)
    with pytest.raises(CampaignElsewhere):
        campaigning.approve_campaign(city.session, made.id, now=NOON)
    campaigning.start_campaign(city.session, made.id, now=NOON)
    city.work()
    assert city.told() == []
    for name in ("anna", "key 7 of anna"):
        act_as(city.session, name)
        with pytest.raises(FourEyes):
            campaigning.approve_campaign(city.session, made.id, now=NOON)
    city.work()
    assert city.told() == []


def test_paused_campaign_calls_back_who_has_not_begun_and_goes_on_when_it_may(city: City) -> None:
    campaign = city.begin(ALL_AT_ONCE)
    first, second, *_ = city.told()
    first.tell("downloading", now=city.now)
    second.tell("rebooting", now=city.now)
    city.work()
    campaigning.pause_campaign(city.session, campaign, now=city.now, reason="heat wave")
    city.work(HOUR)
    assert city.told() == [second]
    assert city.stages(campaign) == ["planned", "planned", "planned", "rebooting"]
    campaigning.resume_campaign(city.session, campaign, now=city.now)
    city.work()
    assert [one.release["attempt"] for one in city.told()] == [2, 1, 2, 2]  # type: ignore[index]


STOPS = frozenset({Right.SEE_FLEET, Right.OPERATE_NODES, Right.STOP_UPDATES})


def _as(city: City, name: str, rights_of_theirs: frozenset[Right] = frozenset(Right)) -> None:
    rights.act_as(city.session, rights.Actor(name, rights_of_theirs))


def test_one_stops_a_campaign_and_may_take_that_back_and_no_failure_is_accepted_by_it(
    city: City,
) -> None:
    campaign = city.begin()
    (canary,) = city.told()
    told = canary.release or {}
    heard = {name: told[name] for name in ("assignment", "attempt")}
    _as(city, "olga", STOPS)
    campaigning.pause_campaign(city.session, campaign, now=city.now)
    canary.tell("rolled_back", now=city.now, reason="crashed", **heard)
    city.work(HOUR)
    with pytest.raises(NotAllowed):
        campaigning.resume_campaign(city.session, campaign, now=city.now, tries_again=True)
    campaigning.resume_campaign(city.session, campaign, now=city.now)
    city.work()
    assert city.state(campaign)[0] == CampaignState.PAUSED
    assert city.reason(campaign) == "1 of wave 1 rolled back", "what has failed pauses it by itself"
    with pytest.raises(NotAllowed):
        campaigning.resume_campaign(city.session, campaign, now=city.now)
    campaigning.abort_campaign(city.session, campaign, now=city.now)
    assert city.state(campaign)[0] == CampaignState.ABORTED


def test_its_author_alone_lets_no_campaign_go_on_that_others_or_failures_stopped(
    city: City,
) -> None:
    campaign = city.begin()
    _as(city, "olga", STOPS)
    campaigning.pause_campaign(city.session, campaign, now=city.now)
    for name in ("anna", "key 7 of anna"):
        _as(city, name)
        for tries_again in (False, True):
            with pytest.raises(FourEyes, match="is decided by somebody else"):
                campaigning.resume_campaign(
                    city.session, campaign, now=city.now, tries_again=tries_again
                )
    act_as(city.session, "bert")
    campaigning.resume_campaign(city.session, campaign, now=city.now)
    act_as(city.session, "anna")
    campaigning.pause_campaign(city.session, campaign, now=city.now)
    campaigning.resume_campaign(city.session, campaign, now=city.now)
    assert city.state(campaign)[0] == CampaignState.RUNNING


def test_a_node_tries_again_when_somebody_else_than_the_author_says_so(city: City) -> None:
    campaign = city.begin(ALL_AT_ONCE)
    first, second, *_ = city.told()
    for one in (first, second):
        one.tell("rejected", now=city.now, reason="battery low")
    city.work()
    assert city.state(campaign)[0] == CampaignState.PAUSED
    act_as(city.session, "bert")
    campaigning.resume_campaign(city.session, campaign, now=city.now)
    act_as(city.session, "anna")
    with pytest.raises(FourEyes):
        campaigning.retry_node(city.session, campaign, first.node.node_id, now=city.now)
    _as(city, "olga", STOPS)
    campaigning.retry_node(city.session, campaign, first.node.node_id, now=city.now)
    city.work()
    assert city.state(campaign)[0] == CampaignState.RUNNING, "the other's failure was accepted"
    assert first in city.told()
    first.tell("rejected", now=city.now, reason="battery low")
    city.work()
    assert city.state(campaign)[0] == CampaignState.PAUSED, "its next failure was not"
    third = next(one for one in city.talkers.values() if one not in (first, second))
    with pytest.raises(CampaignElsewhere, match="has not failed"):
        campaigning.retry_node(city.session, campaign, third.node.node_id, now=city.now)
    with pytest.raises(NotFound, match="is not of campaign"):
        campaigning.retry_node(city.session, campaign, "n-00beef", now=city.now)


def test_aborted_campaign_follows_to_the_end_whom_it_cannot_call_back(city: City) -> None:
    campaign = city.begin(ALL_AT_ONCE)
    first, *_ = city.told()
    first.tell("rebooting", now=city.now)
    city.work()
    campaigning.abort_campaign(city.session, campaign, now=city.now)
    assert city.stages(campaign) == ["canceled", "canceled", "canceled", "rebooting"]
    first.update(city.release, city.now)
    city.work(HOUR)
    assert city.stages(campaign) == ["canceled", "canceled", "canceled", "succeeded"]
    with pytest.raises(CampaignElsewhere, match="is aborted"):
        campaigning.resume_campaign(city.session, campaign, now=city.now)


def test_node_that_is_away_for_weeks_is_unreachable_and_updates_when_it_is_back(city: City) -> None:
    campaign = city.begin(Plan(canaries=0, shares=(0.75, 1.0), soak=SOAK, minimum_reached=2))
    away, *others = city.told()
    city.update(*others)
    city.work(timedelta(days=8))
    assert "unreachable" in city.stages(campaign)
    assert away.release is not None, "it is still told"
    city.now += timedelta(days=1)
    away.say(city.now)
    city.work()
    assert "unreachable" not in city.stages(campaign)
    city.update(away)
    assert city.stages(campaign).count("succeeded") == 3


def test_node_that_is_heard_and_stays_where_it_is_times_out(city: City) -> None:
    campaign = city.begin(time_outs_s={NodeStage.DOWNLOADING: 3600})
    (canary,) = city.told()
    canary.tell("downloading", now=city.now)
    city.work()
    canary.say(city.now + timedelta(minutes=50))
    city.work(timedelta(minutes=61))
    (line,) = campaigning.node_page(city.session, campaign, stage="timed_out", limit=9).items
    assert line.reason == "downloading"
    assert canary.release is None


def test_later_campaign_has_the_last_word(city: City, session: Session) -> None:
    first = city.begin(ALL_AT_ONCE)
    city.release = add_release(session, "0.9.0", 9)
    second = city.begin(ALL_AT_ONCE, Target(node_ids=("n-000001", "n-000002")))
    assert city.stages(first) == ["offered", "offered", "superseded", "superseded"]
    assert [one.release["counter"] for one in city.talkers.values()] == [9, 9, 8, 8]  # type: ignore[index]
    assert city.stages(second) == ["offered", "offered"]


def test_who_has_it_or_runs_a_newer_one_is_left_alone(city: City) -> None:
    has_it, newer = city.talkers["n-000001"], city.talkers["n-000002"]
    has_it.runs = {
        "version": "0.8.0",
        "counter": 8,
        "bundle_sha256": city.release.bundle_sha256,
    }
    newer.runs |= {"counter": 9}
    has_it.say(NOON)
    newer.say(NOON)
    found = campaigning.preview(city.session, city.release.id, Target(), now=NOON, plan=PLAN)
    assert found.counts == {Prospect.UPDATES: 2, Prospect.HAS_IT: 1, Prospect.NEWER: 1}
    assert found.waves == [1, 1]
    campaign = city.begin()
    assert city.stages(campaign) == ["already_installed", "canceled", "offered", "planned"]


def test_joiners_go_last_where_the_target_is_a_question(city: City, session: Session) -> None:
    dynamic = city.begin(is_dynamic=True)
    register(session, 1, first=9)
    city.work()
    lines = campaigning.node_page(session, dynamic, limit=9).items
    assert [one.wave for one in lines if one.node_id == "n-000009"] == [3]
    assert len(lines) == 5


def test_node_that_is_taken_out_of_service_is_not_told(city: City, session: Session) -> None:
    act_as(session, "anna")
    made = campaigning.create_campaign(
        session, city.release.id, Target(), now=NOON, plan=ALL_AT_ONCE
    )
    with db.writing(session):
        session.execute(
            update(Node).where(Node.node_id == "n-000001").values(state=NodeState.RETIRED)
        )
    campaigning.start_campaign(session, made.id, now=NOON)
    act_as(session, "bert")
    campaigning.approve_campaign(session, made.id, now=NOON)
    city.work()
    assert city.talkers["n-000001"].release is None
    assert city.stages(made.id) == ["canceled", "offered", "offered", "offered"]


def test_nodes_begin_in_their_hours_and_those_of_the_next_day_when_they_did_not(city: City) -> None:
    campaign = city.begin(ALL_AT_ONCE, hours=(120, 300))  # 02:00 to 05:00 in the city
    (told,) = {
        (one.release["not_before_s"], one.release["until_s"])  # type: ignore[index]
        for one in city.told()
    }
    night = datetime(2026, NOON.month, NOON.day, tzinfo=NOON.tzinfo)
    begin = told[0]
    assert told[1] - begin == 3 * 3600
    assert begin > int(night.timestamp())
    city.work(timedelta(days=1))
    assert {one.release["not_before_s"] for one in city.told()} == {begin + 86_400}  # type: ignore[index]
    assert city.state(campaign)[0] == CampaignState.RUNNING


def test_network_is_given_no_more_than_it_may_take(city: City) -> None:
    city.begin(ALL_AT_ONCE, bytes_per_s=1000)
    begins = sorted(one.release["not_before_s"] for one in city.told())  # type: ignore[index]
    assert [late - early for early, late in pairwise(begins)] == [120] * 3


def test_release_with_an_image_takes_its_bytes_and_succeeds_where_both_run(
    city: City, session: Session
) -> None:
    city.release = add_release(session, "0.9.0", 9, image=IMAGE)
    has_it, has_files = city.talkers["n-000001"], city.talkers["n-000002"]
    for talker in (has_it, has_files):
        talker.runs = {
            "version": "0.9.0",
            "counter": 9,
            "bundle_sha256": city.release.bundle_sha256,
        }
    has_it.runs |= RUNS_IMAGE
    for talker in (has_it, has_files):
        talker.say(NOON)
    found = campaigning.preview(session, city.release.id, Target(), now=NOON, plan=PLAN)
    assert found.counts == {Prospect.UPDATES: 3, Prospect.HAS_IT: 1, Prospect.NEWER: 0}
    assert found.bytes_in_all == 3 * (SIZE_BYTES + IMAGE.size_bytes)
    campaign = city.begin(ALL_AT_ONCE, bytes_per_s=1000)
    begins = sorted(one.release["not_before_s"] for one in city.told())  # type: ignore[index]
    assert [late - early for early, late in pairwise(begins)] == [1620] * 2

    without = city.talkers["n-000003"]
    city.update(without, has_files)
    assert city.stages(campaign) == ["already_installed", "offered", "testing", "testing"]
    for talker in (without, has_files):
        talker.runs |= RUNS_IMAGE
        talker.say(city.now)
        talker.sample(city.now + timedelta(seconds=30))
    city.work(timedelta(minutes=1))
    assert city.stages(campaign) == ["already_installed", "offered", "succeeded", "succeeded"]


@pytest.mark.also_on_postgresql
def test_no_more_nodes_are_at_it_at_once_than_may_be(city: City) -> None:
    campaign = city.begin(ALL_AT_ONCE, at_once=2)
    seen = 0
    while city.told():
        assert len(city.told()) <= 2
        seen += len(city.told())
        city.update(*city.told())
    assert seen == 4
    assert city.state(campaign)[0] == CampaignState.COMPLETED


def test_withdrawn_release_is_offered_to_nobody_else(city: City, session: Session) -> None:
    campaign = city.begin()
    with db.writing(session):
        session.execute(update(Release).values(withdrawn_at=NOON))
    city.work(HOUR)
    assert (city.state(campaign)[0], city.reason(campaign)) == (
        CampaignState.PAUSED,
        "the release was withdrawn",
    )
    assert city.told() == []
    session.expire_all()
    with pytest.raises(CampaignWrong, match="was withdrawn"):
        campaigning.preview(session, city.release.id, Target(), now=NOON)


def test_campaign_ends_when_its_time_is_over(city: City) -> None:
    campaign = city.begin(ends_at=NOON + timedelta(days=2))
    city.work(timedelta(days=2))
    assert city.state(campaign)[0] == CampaignState.EXPIRED
    assert city.stages(campaign) == ["canceled"] * 4


@pytest.mark.parametrize(
    ("plan", "terms", "sentence"),
    [
        (Plan(shares=(0.5,)), Terms(), "end with all nodes"),
        (Plan(soak=timedelta(days=31)), Terms(), "thirty days"),
        (Plan(gate_share=0), Terms(), "A gate wants"),
        (Plan(), Terms(hours=(60, 60)), "two different times"),
        (Plan(), Terms(bytes_per_s=0), "at least 1 byte"),
        (Plan(), Terms(at_once=0), "At once"),
        (Plan(), Terms(ends_at=NOON), "not in the past"),
        (Plan(), Terms(time_outs_s={NodeStage.PLANNED: 60}), "does not wait"),
    ],
)
def test_campaign_that_cannot_be_is_refused_in_a_sentence(
    city: City, plan: Plan, terms: Terms, sentence: str
) -> None:
    for do in (campaigning.preview, campaigning.create_campaign):
        with pytest.raises(CampaignWrong, match=sentence):
            do(city.session, city.release.id, Target(), now=NOON, plan=plan, terms=terms)
    assert city.session.scalars(select(Campaign)).all() == []


@pytest.mark.also_on_postgresql
def test_wave_of_thousands_is_told_in_few_statements(session: Session) -> None:
    counts: list[int] = []
    for nodes in (20, 800):
        register_many(session, nodes, first=nodes)
        city = City.__new__(City)
        city.session, city.now, city.talkers = session, NOON, {}
        city.release = add_release(session, f"0.{nodes}.0", nodes)
        with statements(session) as seen:
            city.begin(ALL_AT_ONCE)
        counts.append(len(seen))
    assert counts[1] - counts[0] <= 60, counts


def test_worker_writes_nothing_while_there_is_no_campaign(city: City, session: Session) -> None:
    act_as(session, "anna")
    campaigning.create_campaign(session, city.release.id, Target(), now=NOON)
    with statements(session) as seen:
        assert not campaign_steps.advance_all(session, now=NOON)
    assert {one.split()[0] for one in seen} <= {"SELECT", "BEGIN"}
    assert not any("IMMEDIATE" in one for one in seen)


def test_desired_state_without_campaign_names_no_release(session: Session) -> None:
    register(session, 1)
    states = publishing.desired_states(session, ["n-000001"], now=NOON, secret_key=_no_key)
    assert states["n-000001"].release is None


def _no_key() -> str:
    return "k" * 32


@pytest.mark.parametrize("nodes", [12, pytest.param(400, marks=pytest.mark.nightly)])
def test_fleet_with_flaky_absent_and_broken_nodes_ends_in_the_truth(
    session: Session, nodes: int
) -> None:
    """A tenth tells twice and in any order, a twentieth is away for days, some go back: gates hold, and each stage is what is so."""
    city, drawn = City(session, nodes), random.Random(nodes)
    ids = sorted(city.talkers)
    flaky = set(drawn.sample(ids, max(1, nodes // 10)))
    absent = set(drawn.sample(sorted(set(ids) - flaky), max(1, nodes // 20)))
    broken = set(drawn.sample(sorted(set(ids) - flaky - absent), max(1, nodes * 3 // 100)))
    campaign = city.begin(Plan(canaries=3, soak=SOAK, minimum_reached=1))
    pauses, done, days = 0, set(), 0
    while city.state(campaign)[0] != CampaignState.COMPLETED:
        days += 1
        assert days < 60
        if city.state(campaign)[0] == CampaignState.PAUSED:
            pauses += 1
            campaigning.resume_campaign(session, campaign, now=city.now)
            city.work()
        before = campaigning.overview(session, campaign)
        for node_id, talker in city.talkers.items():
            if talker.release is None or (node_id in absent and days < 12):
                continue
            if node_id in broken:
                talker.roll_back(city.release, city.now)
            elif node_id in flaky and node_id not in done:
                talker.tell("rebooting", "accepted", "canceled", now=city.now)
                talker.tell("accepted", now=city.now, attempt=9)
                done.add(node_id)
            else:
                talker.update(city.release, city.now)
        city.work(timedelta(days=1))
        after = campaigning.overview(session, campaign)
        if after.campaign.wave > before.campaign.wave:
            left = after.waves[before.campaign.wave - 1].count
            assert left.succeeded >= 0.95 * (left.reached - left.failed)
    stages = {
        one.node_id: one.stage for one in campaigning.node_page(session, campaign, limit=999).items
    }
    assert {node_id for node_id in ids if stages[node_id] == "rolled_back"} == broken
    for node_id, talker in city.talkers.items():
        runs_it = talker.runs["counter"] == city.release.counter
        assert (stages[node_id] == "succeeded") == runs_it, (node_id, stages[node_id])
    assert pauses >= 1, "a node that goes back is more than 5 % of a small wave"
