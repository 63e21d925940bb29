"""What people do with campaigns: plan, preview, hand in, approve, hold, go on, abort; and how they look at them.

How a campaign goes on by itself is in `services.campaign_steps`. Whoever plans one does not approve it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, tuple_
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import (
    Campaign,
    CampaignNode,
    CampaignState,
    CampaignWave,
    Node,
    NodeStage,
    NodeStatus,
    Release,
)
from fleet_server.services import (
    campaign_rules,
    campaign_steps,
    campaign_targets,
    keyset,
    releases,
    rights,
)
from fleet_server.services.campaign_rules import Stop, WaveCount
from fleet_server.services.campaign_targets import Meant, Prospect, Target
from fleet_server.services.rights import Actor, Right

MOST_WAVES = 20
REASON_MAX_LENGTH = 500
_LONGEST_SOAK = timedelta(days=30)
_LONGEST_TIME_OUT = timedelta(days=90)
_DAY_MIN = 1440
_HOURS = re.compile(
    r"\s*([01]?\d|2[0-3]):([0-5]\d)\s*[-–]\s*([01]?\d|2[0-3]):([0-5]\d)\s*", re.ASCII
)
_MOST_AT_ONCE = 10_000
_LONGEST_JITTER_S = 86_400
_NEWEST_FIRST = keyset.Sorting((Campaign.id,), (int,), is_descending=True)  # type: ignore[arg-type] # a column of a class
_UNDER_WAY = (
    CampaignState.DRAFT,
    CampaignState.AWAITING_APPROVAL,
    CampaignState.SCHEDULED,
    CampaignState.RUNNING,
    CampaignState.SOAKING,
    CampaignState.PAUSED,
)


RETRIES_IN = (CampaignState.RUNNING, CampaignState.SOAKING, CampaignState.PAUSED)
"""States of a campaign in which one of its nodes can try again."""


class CampaignWrong(Invalid):
    """A campaign cannot be like this."""

    code = "campaign_wrong"


class CampaignElsewhere(Conflict):
    """The campaign is not in a state in which this can be done."""

    code = "campaign_elsewhere"


class FourEyes(Refused):
    """A campaign is approved, and goes on after failures, by somebody else than its author."""

    code = "four_eyes"


@dataclass(frozen=True)
class Plan:
    """How many nodes are told when: first `canaries`, then up to each share of all (0–1); and what opens the next wave or stops it."""

    canaries: int = 5
    shares: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    soak: timedelta = timedelta(hours=24)
    gate_share: float = 0.95
    pause_share: float = 0.05
    minimum_reached: int = 3

    def check(self) -> None:
        """Raises CampaignWrong, with one sentence."""
        if not 0 <= self.canaries <= _MOST_AT_ONCE:
            raise CampaignWrong("There are 0 to %(most)s canaries.", most=_MOST_AT_ONCE)
        rising = all(low < high for low, high in zip(self.shares, self.shares[1:], strict=False))
        if (
            not 0 < len(self.shares) < MOST_WAVES
            or self.shares[-1] != 1
            or self.shares[0] <= 0
            or not rising
        ):
            raise CampaignWrong(
                "Shares of the waves rise and end with all nodes, like 5, 25, 50, 100 %."
            )
        if not timedelta(0) <= self.soak <= _LONGEST_SOAK:
            raise CampaignWrong("A wave is watched for up to thirty days.")
        if not 0 < self.gate_share <= 1 or not 0 <= self.pause_share < 1:
            raise CampaignWrong(
                "A gate wants more than 0 and up to 100 %, a pause from 0 to less than 100 %."
            )
        if not 0 <= self.minimum_reached <= _MOST_AT_ONCE:
            raise CampaignWrong("The minimum sample is 0 to %(most)s nodes.", most=_MOST_AT_ONCE)


@dataclass(frozen=True)
class Terms:
    """When and how nodes may begin. `hours`: minutes of the city's day from which and until which.

    `bytes_per_s`: so much all downloads may take together; `at_once`: so many nodes are at it at a time.
    """

    is_dynamic: bool = False
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    hours: tuple[int, int] | None = None
    bytes_per_s: int | None = None
    jitter_s: int = 0
    at_once: int = 500
    time_outs_s: Mapping[NodeStage, int] = field(default_factory=dict)

    def check(self, *, now: datetime) -> None:
        """Raises CampaignWrong, with one sentence."""
        if self.ends_at is not None and self.ends_at <= max(now, self.starts_at or now):
            raise CampaignWrong("A campaign ends after it begins, and not in the past.")
        if self.hours is not None and (
            not all(0 <= minute <= _DAY_MIN for minute in self.hours)
            or self.hours[0] % _DAY_MIN == self.hours[1] % _DAY_MIN
        ):
            raise CampaignWrong("Hours are two different times of day, like 22:00-05:00.")
        if self.bytes_per_s is not None and not 1 <= self.bytes_per_s <= 1 << 30:
            raise CampaignWrong("The network is given at least 1 byte a second.")
        if not 0 <= self.jitter_s <= _LONGEST_JITTER_S:
            raise CampaignWrong("Nodes are spread over a day at most.")
        if not 1 <= self.at_once <= _MOST_AT_ONCE:
            raise CampaignWrong("At once there are 1 to %(most)s nodes.", most=_MOST_AT_ONCE)
        for stage, seconds in self.time_outs_s.items():
            if stage not in campaign_rules.TIME_OUTS_S:
                raise CampaignWrong("A node does not wait in the stage %(stage)s.", stage=stage)
            if not 60 <= seconds <= _LONGEST_TIME_OUT.total_seconds():
                raise CampaignWrong("A stage may last from a minute to ninety days.")


def read_hours(text: str) -> tuple[int, int] | None:
    """Hours as people write them; None for nothing.

    >>> read_hours("22:00-05:30")
    (1320, 330)

    Raises:
        CampaignWrong: these are none.
    """
    if not text.strip():
        return None
    found = _HOURS.fullmatch(text)
    if found is None:
        raise CampaignWrong("Write hours like 22:00-05:00.")
    from_h, from_min, until_h, until_min = map(int, found.groups())
    return from_h * 60 + from_min, until_h * 60 + until_min


def read_shares(text: str) -> tuple[float, ...]:
    """Shares of the waves in percent, as ratios.

    >>> read_shares("5, 25, 100")
    (0.05, 0.25, 1.0)

    Raises:
        CampaignWrong: these are none.
    """
    try:
        shares = tuple(float(part) / 100 for part in text.split(","))
    except ValueError as problem:
        raise CampaignWrong("Write shares of the waves in percent, like 5,25,50,100.") from problem
    if not all(0 < share <= 1 for share in shares):
        raise CampaignWrong("Write shares of the waves in percent, like 5,25,50,100.")
    return shares


@dataclass(frozen=True)
class Preview:
    """What a campaign would do. `nodes`: the first of them; `bytes_in_all`: at most, without what nodes have already."""

    release: Release
    counts: Mapping[Prospect, int]
    waves: Sequence[int]
    offline: int
    bytes_in_all: int
    loading_s: float | None
    nodes: Sequence[Meant]


def preview(
    session: Session,
    release_id: int,
    target: Target,
    *,
    now: datetime,
    plan: Plan = Plan(),
    terms: Terms = Terms(),
    shown: int = 50,
) -> Preview:
    """What such a campaign would be. Changes nothing. A fixed number of statements.

    Raises:
        CampaignWrong: it cannot be like this.
        NotFound: there is no such release.
    """
    release, found = _judged(session, release_id, target, plan, terms, now=now)
    counts = Counter(one.prospect for one in found)
    changing = [one for one in found if one.prospect is Prospect.UPDATES]
    in_all = len(changing) * release.transfer_bytes
    return Preview(
        release=release,
        counts={prospect: counts[prospect] for prospect in Prospect},
        waves=campaign_rules.wave_sizes(len(changing), plan.canaries, plan.shares),
        offline=sum(not one.is_fresh for one in changing),
        bytes_in_all=in_all,
        loading_s=in_all / terms.bytes_per_s if terms.bytes_per_s else None,
        nodes=found[:shown],
    )


def create_campaign(
    session: Session,
    release_id: int,
    target: Target,
    *,
    now: datetime,
    plan: Plan = Plan(),
    terms: Terms = Terms(),
) -> Campaign:
    """Plan a campaign with its nodes; it is a draft until its author hands it in. Committed on return.

    Raises:
        CampaignWrong: it cannot be like this, or means no node.
        NotFound: there is no such release.
    """
    with db.writing(session):
        release, found = _judged(session, release_id, target, plan, terms, now=now)
        if not found and not terms.is_dynamic:
            raise CampaignWrong(
                "No %(model)s node in service is meant by this.", model=release.model
            )
        campaign = Campaign(
            release_id=release.id,
            model=release.model,
            version=release.version,
            counter=release.counter,
            bundle_sha256=release.bundle_sha256,
            image_sha256=release.image_sha256,
            micropython=release.image_micropython,
            selection=target.as_fields(),
            author=rights.actor_of(session).name,
            created_at=now,
            bytes_per_node=release.transfer_bytes,
            state=CampaignState.DRAFT,
            wave=0,
        )
        _set_terms(campaign, terms)
        session.add(campaign)
        session.flush()
        sizes = _add_waves_and_nodes(session, campaign, found, plan, now=now)
        _note(session, "campaign_created", campaign, now=now, nodes=len(found), waves=sizes)
    return campaign


def _add_waves_and_nodes(
    session: Session, campaign: Campaign, found: Sequence[Meant], plan: Plan, *, now: datetime
) -> list[int]:
    changing = [one for one in found if one.prospect is Prospect.UPDATES]
    sizes = campaign_rules.wave_sizes(len(changing), plan.canaries, plan.shares) or [0]
    session.execute(
        insert(CampaignWave),
        [
            {
                "campaign_id": campaign.id,
                "number": number,
                "gate_share": plan.gate_share,
                "minimum_reached": plan.minimum_reached,
                "soak_s": int(plan.soak.total_seconds()),
                "pause_share": plan.pause_share,
                "pauses_at_roll_back": number == 1 and plan.canaries > 0,
                "failures_accepted": 0,
                "is_waived": False,
            }
            for number in range(1, len(sizes) + 1)
        ],
    )
    numbers = [number for number, size in enumerate(sizes, start=1) for _ in range(size)]
    first = campaign_targets.canaries_first(changing, plan.canaries)
    nodes = [(one.node_id, wave) for one, wave in zip(first, numbers, strict=True)]
    ended: dict[str, tuple[NodeStage, str | None]] = {}
    for one in found:
        if one.prospect is Prospect.HAS_IT:
            ended[one.node_id] = NodeStage.ALREADY_INSTALLED, None
        elif one.prospect is Prospect.NEWER:
            ended[one.node_id] = NodeStage.CANCELED, "newer release"
    nodes += [(node_id, len(sizes)) for node_id in ended]
    campaign_steps.add_nodes(session, campaign, nodes, now=now, ended=ended)
    return sizes


def terms_of(campaign: Campaign) -> Terms:
    """When and how its nodes may begin."""
    hours = None
    if campaign.hours_from_min is not None and campaign.hours_until_min is not None:
        hours = campaign.hours_from_min, campaign.hours_until_min
    return Terms(
        is_dynamic=campaign.is_dynamic,
        starts_at=campaign.starts_at,
        ends_at=campaign.ends_at,
        hours=hours,
        bytes_per_s=campaign.bytes_per_s,
        jitter_s=campaign.jitter_s,
        at_once=campaign.at_once,
        time_outs_s={NodeStage(name): value for name, value in campaign.time_outs_s.items()},
    )


def change_terms(session: Session, campaign_id: int, terms: Terms, *, now: datetime) -> Campaign:
    """Let nodes that are told from now on begin by other terms; which nodes, and in which waves, stays. Committed on return.

    Raises:
        CampaignWrong: it cannot be like this; which nodes are meant was approved, and cannot be changed.
        CampaignElsewhere: it has ended.
        NotFound: there is no such campaign.
    """
    with db.writing(session):
        campaign = _held(session, campaign_id, *_UNDER_WAY)
        terms.check(now=now)
        before = terms_of(campaign)
        if terms.is_dynamic != before.is_dynamic:
            raise CampaignWrong("Which nodes a campaign is for cannot be changed; plan another.")
        if terms == before:
            return campaign
        _set_terms(campaign, terms)
        changed = [name for name, value in vars(terms).items() if value != getattr(before, name)]
        _note(session, "campaign_changed", campaign, now=now, changed=changed)
    return campaign


def _set_terms(campaign: Campaign, terms: Terms) -> None:
    campaign.is_dynamic = terms.is_dynamic
    campaign.starts_at, campaign.ends_at = terms.starts_at, terms.ends_at
    campaign.hours_from_min, campaign.hours_until_min = terms.hours or (None, None)
    campaign.bytes_per_s, campaign.jitter_s = terms.bytes_per_s, terms.jitter_s
    campaign.at_once, campaign.free_at = terms.at_once, None
    campaign.time_outs_s = {stage.value: seconds for stage, seconds in terms.time_outs_s.items()}


def start_campaign(session: Session, campaign_id: int, *, now: datetime) -> Campaign:
    """Hand a draft in for approval, or let an approved one begin at once. Committed on return. Raises CampaignElsewhere, NotFound."""
    with db.writing(session):
        campaign = _held(session, campaign_id, CampaignState.DRAFT, CampaignState.SCHEDULED)
        if campaign.state == CampaignState.DRAFT:
            campaign.state = CampaignState.AWAITING_APPROVAL
            _note(session, "campaign_handed_in", campaign, now=now)
        else:
            campaign.starts_at = now
            _note(session, "campaign_started", campaign, now=now)
    return campaign


def approve_campaign(session: Session, campaign_id: int, *, now: datetime) -> Campaign:
    """Let a campaign of somebody else's begin when its time comes. Committed on return.

    Raises:
        FourEyes: the actor is its author.
        CampaignElsewhere: it does not wait for approval.
        NotFound: there is no such campaign.
    """
    with db.writing(session):
        campaign = _held(session, campaign_id, CampaignState.AWAITING_APPROVAL)
        actor = rights.actor_of(session).name
        if rights.person(actor) == rights.person(campaign.author):
            raise FourEyes(
                "Campaign %(campaign)s is of %(author)s; somebody else has to approve it.",
                campaign=campaign.id,
                author=campaign.author,
            )
        campaign.state = CampaignState.SCHEDULED
        campaign.approved_by, campaign.approved_at = actor, now
        _note(session, "campaign_approved", campaign, now=now)
    return campaign


def pause_campaign(
    session: Session, campaign_id: int, *, now: datetime, reason: str = ""
) -> Campaign:
    """Tell nobody else, and call back who has not begun to install. Committed on return. Raises CampaignElsewhere, NotFound."""
    with db.writing(session):
        campaign = _held(session, campaign_id, CampaignState.RUNNING, CampaignState.SOAKING)
        by = rights.actor_of(session).name
        why = _reason(reason) or Stop("by_person", {"by": by})
        campaign_steps.pause(session, campaign, why, by=by, now=now)
    return campaign


def resume_campaign(
    session: Session, campaign_id: int, *, now: datetime, tries_again: bool = False
) -> Campaign:
    """Go on. Committed on return.

    Whoever paused it takes that back alone, and then no failure is accepted: it goes on as two had agreed, and may pause by itself at once.
    Everything else decides on failures, which wants a second person: somebody who approves releases and is not its author. What failed
    until then does not pause it again.

    Args:
        tries_again: those that failed are offered it once more.

    Raises:
        FourEyes: the actor is its author, and it was not they who paused it.
        NotAllowed: the actor neither paused it nor approves releases.
        CampaignElsewhere: it is not paused.
        NotFound: there is no such campaign.
    """
    with db.writing(session):
        campaign = _held(session, campaign_id, CampaignState.PAUSED)
        actor = rights.actor_of(session)
        accepted, again = 0, 0
        if tries_again or not may_take_pause_back(campaign, actor):
            _require_second_person(campaign, actor)
            again = len(campaign_steps.plan_again(session, campaign, now=now)) if tries_again else 0
            accepted = campaign_steps.accept_failures(session, campaign, now=now)
        campaign.state, campaign.reason, campaign.stop = CampaignState.RUNNING, None, None
        campaign.paused_by, campaign.soaks_since = None, None
        if campaign.wave == 0:
            campaign.state = CampaignState.SCHEDULED
        _note(session, "campaign_resumed", campaign, now=now, failures=accepted, again=again)
    return campaign


def may_take_pause_back(campaign: Campaign, actor: Actor) -> bool:
    """Whether it was the actor who paused it."""
    by = campaign.paused_by
    return by is not None and rights.person(by) == rights.person(actor.name)


def is_second_person(campaign: Campaign, actor: Actor) -> bool:
    """Whether the actor may decide what its author alone may not."""
    is_author = rights.person(actor.name) == rights.person(campaign.author)
    return Right.APPROVE_RELEASES in actor.rights and not is_author


def _require_second_person(campaign: Campaign, actor: Actor) -> None:
    rights.require(actor, Right.APPROVE_RELEASES)
    if not is_second_person(campaign, actor):
        raise FourEyes(
            "Campaign %(campaign)s is of %(author)s; that it goes on is decided by somebody else who approves releases.",
            campaign=campaign.id,
            author=campaign.author,
        )


def retry_node(session: Session, campaign_id: int, node_id: str, *, now: datetime) -> Campaign:
    """Offer a node that failed or went back the release once more, when its campaign goes on. Committed on return.

    It is not the author's to take a failure from what stops the campaign: the node counts as one that is still to come.

    Raises:
        FourEyes: the actor is the campaign's author.
        CampaignElsewhere: the campaign is not under way, or the node has not failed in it.
        NotFound: there is no such campaign, or the node is not of it.
    """
    with db.writing(session):
        campaign = _held(session, campaign_id, *RETRIES_IN)
        if rights.person(rights.actor_of(session).name) == rights.person(campaign.author):
            raise FourEyes(
                "Campaign %(campaign)s is of %(author)s; somebody else lets a node try again.",
                campaign=campaign.id,
                author=campaign.author,
            )
        waves = campaign_steps.plan_again(session, campaign, now=now, node_id=node_id)
        if not waves:
            _check_is_of(session, campaign_id, node_id)
            raise CampaignElsewhere(
                "Node %(node_id)s has not failed in campaign %(campaign)s; there is nothing to try again.",
                node_id=node_id,
                campaign=campaign_id,
            )
        campaign_steps.accept_one_less(session, campaign, waves[0])
        _note(session, "campaign_node_retried", campaign, now=now, node_id=node_id)
    return campaign


def _check_is_of(session: Session, campaign_id: int, node_id: str) -> None:
    if session.get(CampaignNode, (campaign_id, node_id)) is None:
        raise NotFound(
            "Node %(node_id)s is not of campaign %(campaign)s.",
            node_id=node_id,
            campaign=campaign_id,
        )


def abort_campaign(
    session: Session, campaign_id: int, *, now: datetime, reason: str = ""
) -> Campaign:
    """Tell nobody else, for good; who is installing ends that and keeps it. Committed on return. Raises CampaignElsewhere, NotFound."""
    with db.writing(session):
        campaign = _held(session, campaign_id, *_UNDER_WAY)
        by = rights.actor_of(session).name
        campaign.state = CampaignState.ABORTED
        campaign_steps.keep_stop(campaign, _reason(reason) or Stop("by_person", {"by": by}))
        campaign_steps.end(session, campaign, now=now)
        _note(session, "campaign_aborted", campaign, now=now, reason=campaign.reason)
    return campaign


# ---------------------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True)
class WaveOverview:
    """One wave with how its nodes stand."""

    wave: CampaignWave
    count: WaveCount


@dataclass(frozen=True)
class CampaignOverview:
    """A campaign with its waves."""

    campaign: Campaign
    waves: Sequence[WaveOverview]

    @property
    def total(self) -> WaveCount:
        """All waves together."""
        stages: Counter[NodeStage] = Counter()
        for one in self.waves:
            stages.update(one.count.stages)
        return WaveCount(stages)


@dataclass(frozen=True)
class CampaignNodeLine:
    """A node of a campaign in a list."""

    node_id: str
    label: str
    wave: int
    stage: NodeStage
    attempt: int
    reason: str | None
    since: datetime
    deadline_at: datetime | None
    last_heard_at: datetime | None


@dataclass(frozen=True)
class NodeUpdate:
    """One update that a node was meant for."""

    campaign_id: int
    version: str
    campaign_state: str
    author: str
    stage: NodeStage
    reason: str | None
    attempt: int
    since: datetime


def overview(session: Session, campaign_id: int) -> CampaignOverview:
    """One campaign. Three statements. Raises NotFound."""
    return _overviews(session, [_found(session, campaign_id)])[0]


def campaign_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[CampaignOverview]:
    """Campaigns that the actor has to do with, newest first. Three statements."""
    query = select(Campaign).execution_options(populate_existing=True)
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Campaign.model.in_(models))
    page: keyset.Page[Campaign] = keyset.page_of(
        session,
        query,
        _NEWEST_FIRST,
        limit=limit,
        after=after,
        made=lambda row: row.Campaign,
    )
    return keyset.Page(_overviews(session, page.items), page.next_key)


def node_page(
    session: Session,
    campaign_id: int,
    *,
    stage: str | None = None,
    wave: int | None = None,
    limit: int,
    after: keyset.Key | None = None,
) -> keyset.Page[CampaignNodeLine]:
    """Nodes of a campaign, by wave and id. Two statements. Raises NotFound."""
    _found(session, campaign_id)
    keyset.check_key(after, (int, str))
    query = (
        select(
            Node.node_id,
            Node.label,
            CampaignNode.wave,
            CampaignNode.stage,
            CampaignNode.attempt,
            CampaignNode.reason,
            CampaignNode.since,
            CampaignNode.deadline_at,
            NodeStatus.last_heard_at,
        )
        .join(Node, Node.node_id == CampaignNode.node_id)
        .join(NodeStatus, NodeStatus.node_id == CampaignNode.node_id)
        .where(CampaignNode.campaign_id == campaign_id)
        .order_by(CampaignNode.wave, CampaignNode.node_id)
        .limit(limit + 1)
    )
    if stage is not None:
        query = query.where(CampaignNode.stage == stage)
    if wave is not None:
        query = query.where(CampaignNode.wave == wave)
    if after is not None:
        query = query.where(tuple_(CampaignNode.wave, CampaignNode.node_id) > tuple_(*after))
    rows = session.execute(query).all()
    items = [
        CampaignNodeLine(
            row.node_id,
            row.label,
            row.wave,
            NodeStage(row.stage),
            row.attempt,
            row.reason,
            row.since,
            row.deadline_at,
            row.last_heard_at,
        )
        for row in rows[:limit]
    ]
    last = items[-1] if len(rows) > limit else None
    return keyset.Page(items, None if last is None else (last.wave, last.node_id))


def updates_of(session: Session, node_id: str, *, limit: int = 20) -> list[NodeUpdate]:
    """Updates that a node was meant for, newest first. One statement."""
    rows = session.execute(
        select(
            Campaign.id,
            Campaign.version,
            Campaign.state,
            Campaign.author,
            CampaignNode.stage,
            CampaignNode.reason,
            CampaignNode.attempt,
            CampaignNode.since,
        )
        .join(Campaign, Campaign.id == CampaignNode.campaign_id)
        .where(CampaignNode.node_id == node_id, Campaign.state != CampaignState.DRAFT)
        .order_by(Campaign.id.desc())
        .limit(limit)
    )
    return [
        NodeUpdate(
            row.id,
            row.version,
            row.state,
            row.author,
            NodeStage(row.stage),
            row.reason,
            row.attempt,
            row.since,
        )
        for row in rows
    ]


# ---------------------------------------------------------------------------------------------------------------- private


def _judged(
    session: Session,
    release_id: int,
    target: Target,
    plan: Plan,
    terms: Terms,
    *,
    now: datetime,
) -> tuple[Release, list[Meant]]:
    plan.check()
    terms.check(now=now)
    release = releases.find(session, release_id)
    if release.withdrawn_at is not None:
        raise CampaignWrong(
            "Release %(version)s for %(model)s was withdrawn.",
            version=release.version,
            model=release.model,
        )
    if target.model not in (None, release.model):
        raise CampaignWrong(
            "Release %(version)s is for %(model)s nodes only.",
            version=release.version,
            model=release.model,
        )
    return release, campaign_targets.meant_nodes(session, release, target, now=now)


def _found(session: Session, campaign_id: int) -> Campaign:
    campaign = session.get(Campaign, campaign_id, populate_existing=True)
    models = rights.node_models(session)
    if campaign is None or (models is not None and campaign.model not in models):
        raise NotFound("There is no campaign %(campaign)s.", campaign=campaign_id)
    return campaign


def _held(session: Session, campaign_id: int, *states: CampaignState) -> Campaign:
    campaign = session.get(Campaign, campaign_id, with_for_update=True, populate_existing=True)
    models = rights.node_models(session)
    if campaign is None or (models is not None and campaign.model not in models):
        raise NotFound("There is no campaign %(campaign)s.", campaign=campaign_id)
    if campaign.state not in states:
        raise CampaignElsewhere(
            "Campaign %(campaign)s is %(state)s; this cannot be done now.",
            campaign=campaign.id,
            state=CampaignState(campaign.state),
        )
    return campaign


def _overviews(session: Session, campaigns: Sequence[Campaign]) -> list[CampaignOverview]:
    ids = [one.id for one in campaigns]
    waves = session.scalars(
        select(CampaignWave)
        .where(CampaignWave.campaign_id.in_(ids))
        .order_by(CampaignWave.campaign_id, CampaignWave.number)
        .execution_options(populate_existing=True)
    ).all()
    counts = campaign_steps.counts_of(session, ids, MOST_WAVES)
    return [
        CampaignOverview(
            one,
            [
                WaveOverview(wave, counts[one.id][wave.number - 1])
                for wave in waves
                if wave.campaign_id == one.id
            ],
        )
        for one in campaigns
    ]


def _reason(text: str) -> str:
    if len(text) > REASON_MAX_LENGTH:
        raise CampaignWrong("A reason has up to %(most)s letters.", most=REASON_MAX_LENGTH)
    return text.replace("\0", "").strip()


def _note(
    session: Session, action: str, campaign: Campaign, *, now: datetime, **details: Any
) -> None:
    by = rights.actor_of(session).name
    campaign_steps.note(session, action, campaign, now=now, by=by, **details)
