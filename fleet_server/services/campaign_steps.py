"""Campaigns go on by themselves: what nodes told is read, time-outs are kept, waves open, nodes are offered what they shall run.

The worker calls `advance_all` every few seconds; every step can be repeated, in any number of processes. What follows from what is in
`services.campaign_rules`; here rows are read and written, many at once.
"""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import and_, func, insert, or_, select, true, update
from sqlalchemy.orm import Session

from fleet_server import clock, db
from fleet_server.models import (
    Campaign,
    CampaignCursor,
    CampaignNode,
    CampaignState,
    CampaignWave,
    Event,
    Node,
    NodeStage,
    NodeStatus,
    Release,
)
from fleet_server.models.outbox import DESIRED
from fleet_server.services import (
    assigning,
    auditing,
    campaign_rules,
    campaign_targets,
    campaign_words,
    outbox,
)
from fleet_server.services.assigning import Moved
from fleet_server.services.bulk import update_rows
from fleet_server.services.campaign_rules import (
    CAN_BE_CALLED_BACK,
    ON_THE_WAY,
    Course,
    Gate,
    Progress,
    Report,
    Running,
    Standing,
    Stop,
    WaveCount,
)
from fleet_server.services.node_life import OUT_OF_SERVICE
from fleet_server.services.update_windows import Begin, Hours, spread
from fleet_server.wire.states import SlotState, UpdateStage

NODES_AT_ONCE = 1000
UPDATE_EVENT = "update"
GOES_ON = (CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.SOAKING)
ENDED = (CampaignState.COMPLETED, CampaignState.ABORTED, CampaignState.EXPIRED)
HELD_AT_PAUSE = (
    NodeStage.OFFERED,
    NodeStage.ACCEPTED,
    NodeStage.DOWNLOADING,
    NodeStage.UNREACHABLE,
)
"""A node that is further is installing before it hears of it."""
# Workers that store packs end in another order than they began: what was read is looked at once more.
_READ_AGAIN = 50_000
_EVENTS_AT_ONCE = 5_000
# After the end, for those who were installing then.
_HEARD_OF = timedelta(days=30)
_LOADING = tuple(stage for stage in ON_THE_WAY if stage is not NodeStage.TESTING)


def advance_all(session: Session, *, now: datetime) -> bool:
    """One step of everything. Committed on return. Returns whether there is more to do at once."""
    if not _is_any_under_way(session, now=now):
        return False
    read_progress(session, now=now)
    read_reports(session, now=now)
    follow_time(session, now=now)
    due = session.scalars(
        select(Campaign.id).where(Campaign.state.in_(GOES_ON)).order_by(Campaign.id)
    ).all()
    has_more = [advance(session, campaign_id, now=now) for campaign_id in due]
    return any(has_more)


def _is_any_under_way(session: Session, *, now: datetime) -> bool:
    """Whether nodes are told something, or may still show what became of it. Asked first: on SQLite ingest waits for whoever writes."""
    is_heard_of = or_(Campaign.finished_at.is_(None), Campaign.finished_at > now - _HEARD_OF)
    begun = Campaign.state.not_in((CampaignState.DRAFT, CampaignState.AWAITING_APPROVAL))
    return session.scalar(select(Campaign.id).where(begun, is_heard_of).limit(1)) is not None


# ------------------------------------------------------------------------------------------------------ what nodes told


def read_progress(session: Session, *, now: datetime) -> None:
    """What nodes told of their updates. Committed on return; reading it twice changes nothing."""
    with db.writing(session):
        cursor = session.get_one(CampaignCursor, 1, with_for_update=True, populate_existing=True)
        after = max(0, cursor.pack_id - _READ_AGAIN)
        while True:
            events = session.execute(
                select(Event.pack_id, Event.node_id, Event.details)
                .where(Event.name == UPDATE_EVENT, Event.pack_id > after)
                .order_by(Event.pack_id)
                .limit(_EVENTS_AT_ONCE)
            ).all()
            if events:
                _take_progress(session, events, now=now)
                after = events[-1].pack_id
            if len(events) < _EVENTS_AT_ONCE:
                break
        cursor.pack_id = max(cursor.pack_id, after)


def _take_progress(session: Session, events: Sequence[Any], *, now: datetime) -> None:
    told: dict[tuple[str, int], list[Progress]] = defaultdict(list)
    for event in events:
        found = _progress_of(event.details)
        if found is not None:
            assignment, progress = found
            told[event.node_id, assignment].append(progress)
    numbers = sorted({assignment for _, assignment in told})
    moved = []
    for first in range(0, len(numbers), NODES_AT_ONCE):
        rows = session.execute(
            assigning.standings_query().where(
                CampaignNode.assignment.in_(numbers[first : first + NODES_AT_ONCE]),
                CampaignNode.stage.in_((NodeStage.PLANNED, NodeStage.UNREACHABLE, *ON_THE_WAY)),
            )
        ).all()
        for row in rows:
            standing = assigning.standing_of(row)
            # By its own number only: what a node says of another's assignment is nobody's word.
            for progress in told.get((row.node_id, row.assignment), ()):
                standing = campaign_rules.after_progress(
                    standing, progress, now=now, time_outs_s=_time_outs(row.time_outs_s)
                )
            moved.append(Moved(row, standing))
    assigning.keep(session, moved, now=now)


def _progress_of(details: Sequence[Sequence[Any]]) -> tuple[int, Progress] | None:
    """The assignment, and what was told of it; None for what no node of ours says."""
    told = {str(pair[0]): pair[1] for pair in details if len(pair) == 2}
    try:
        stage = UpdateStage(str(told["stage"]))
        assignment, attempt = int(told["assignment"]), int(told["attempt"])
    except (KeyError, ValueError, OverflowError):
        return None
    reason = told.get("reason")
    return assignment, Progress(attempt, stage, None if reason is None else str(reason))


def read_reports(session: Session, *, now: datetime) -> None:
    """What nodes say that they run. Committed on return. A few statements; only of nodes for which it can change something."""
    runs_it = and_(
        NodeStatus.counter == Campaign.counter, NodeStatus.bundle_sha256 == Campaign.bundle_sha256
    )
    ours = and_(
        NodeStatus.assignment == CampaignNode.assignment,
        CampaignNode.stage.in_((NodeStage.PLANNED, NodeStage.TIMED_OUT, NodeStage.CANCELED)),
    )
    with db.writing(session):
        query = (
            assigning.standings_query()
            .add_columns(
                NodeStatus.assignment.label("said_assignment"),
                NodeStatus.attempt.label("said_attempt"),
                NodeStatus.counter.label("said_counter"),
                NodeStatus.bundle_sha256.label("said_sha256"),
                NodeStatus.micropython.label("said_micropython"),
                NodeStatus.image_sha256.label("said_image_sha256"),
                NodeStatus.slot_state,
                func.coalesce(NodeStatus.clock_at, NodeStatus.last_state_at).label("said_at"),
                NodeStatus.last_sampled_at,
            )
            .join(NodeStatus, NodeStatus.node_id == CampaignNode.node_id)
            .where(
                NodeStatus.last_state_at.is_not(None),
                or_(
                    and_(CampaignNode.is_assigned, runs_it),
                    and_(CampaignNode.is_assigned, CampaignNode.running_since.is_not(None)),
                    ours,
                ),
            )
        )
        moved = [Moved(row, _after_report(row, now)) for row in session.execute(query)]
        assigning.keep(session, moved, now=now)


def _after_report(row: Any, now: datetime) -> Standing:
    return campaign_rules.after_report(
        assigning.standing_of(row),
        Report(
            assignment=row.said_assignment,
            attempt=row.said_attempt,
            counter=row.said_counter,
            bundle_sha256=row.said_sha256,
            slot_state=row.slot_state,
            said_at=row.said_at,
            sampled_at=row.last_sampled_at,
            micropython=row.said_micropython,
            image_sha256=row.said_image_sha256,
        ),
        assigning.order_of(row),
        now=now,
        time_outs_s=_time_outs(row.time_outs_s),
    )


def follow_time(session: Session, *, now: datetime) -> None:
    """What becomes of nodes because time went on. Committed on return."""
    is_heard_again = and_(
        CampaignNode.is_assigned,
        CampaignNode.stage == NodeStage.UNREACHABLE,
        NodeStatus.last_heard_at > CampaignNode.since,
    )
    with db.writing(session):
        rows = session.execute(
            assigning.standings_query()
            .add_columns(NodeStatus.last_heard_at)
            .join(NodeStatus, NodeStatus.node_id == CampaignNode.node_id)
            .where(or_(CampaignNode.deadline_at <= now, is_heard_again))
        )
        moved = [
            Moved(
                row,
                campaign_rules.after_time(
                    assigning.standing_of(row),
                    heard_at=row.last_heard_at,
                    now=now,
                    time_outs_s=_time_outs(row.time_outs_s),
                ),
            )
            for row in rows
        ]
        assigning.keep(session, moved, now=now)


def _time_outs(given: Mapping[str, int]) -> dict[NodeStage, int]:
    return {**campaign_rules.TIME_OUTS_S, **{NodeStage(name): s for name, s in given.items()}}


# ------------------------------------------------------------------------------------------------------ one campaign


def advance(session: Session, campaign_id: int, *, now: datetime) -> bool:
    """One step of a campaign. Committed on return. Returns whether there is more to do at once."""
    with db.writing(session):
        campaign = session.scalar(
            select(Campaign)
            .where(Campaign.id == campaign_id)
            .with_for_update(skip_locked=True)
            .execution_options(populate_existing=True)
        )
        if campaign is None or campaign.state not in GOES_ON:
            return False
        if _is_withdrawn(session, campaign):
            pause(session, campaign, Stop("withdrawn"), by=None, now=now)
            return False
        if campaign.is_dynamic and campaign.state != CampaignState.SCHEDULED:
            _take_in_joiners(session, campaign, now=now)
        waves = waves_of(session, campaign.id)
        before = Course(CampaignState(campaign.state), campaign.wave, campaign.soaks_since)
        course = campaign_rules.next_course(
            before,
            [gate_of(wave) for wave in waves],
            counts_of(session, [campaign.id], len(waves))[campaign.id],
            now=now,
            starts_at=campaign.starts_at,
            ends_at=campaign.ends_at,
        )
        _follow(session, campaign, waves, course, now=now)
        if campaign.state not in GOES_ON or campaign.state == CampaignState.SCHEDULED:
            return False
        _renew_windows(session, campaign, now=now)
        offered = _offer_some(session, campaign, now=now)
        return offered > 0 or course.wave != before.wave


def _follow(
    session: Session,
    campaign: Campaign,
    waves: Sequence[CampaignWave],
    course: Course,
    *,
    now: datetime,
) -> None:
    if course.state is CampaignState.PAUSED and course.stop is not None:
        pause(session, campaign, course.stop, by=None, now=now)
        return
    is_opened = course.wave != campaign.wave
    is_over = course.state in ENDED
    campaign.state, campaign.wave = course.state, course.wave
    campaign.soaks_since = course.soaks_since
    if course.stop is not None:
        keep_stop(campaign, course.stop)
    if is_opened:
        waves[course.wave - 1].opened_at = now
        note(session, "campaign_wave_opened", campaign, now=now, wave=course.wave)
    if is_over:
        end(session, campaign, now=now)
        note(session, f"campaign_{course.state}", campaign, now=now)


def keep_stop(campaign: Campaign, why: Stop | str) -> None:
    """Why it stopped: so that every reader is told in their language, or as a person said it."""
    if isinstance(why, str):
        campaign.reason, campaign.stop = why, None
    else:
        campaign.reason = campaign_words.stop_words(why, "en")
        campaign.stop = campaign_words.kept_stop(why)


def pause(
    session: Session, campaign: Campaign, why: Stop | str, *, by: str | None, now: datetime
) -> None:
    """Hold it, and call back who has not begun to install. Part of the caller's transaction; `by` None: by itself."""
    campaign.state, campaign.paused_by = CampaignState.PAUSED, by
    campaign.soaks_since = None
    keep_stop(campaign, why)
    mine = CampaignNode.campaign_id == campaign.id
    held = CampaignNode.stage.in_(HELD_AT_PAUSE)
    assigning.let_go(
        session,
        mine,
        held,
        now=now,
        stage=NodeStage.PLANNED,
        reason=None,
        since=now,
    )
    note(session, "campaign_paused", campaign, now=now, by=by, reason=campaign.reason)


def end(session: Session, campaign: Campaign, *, now: datetime) -> None:
    """Nobody else is told; who is not yet installing is called back. Part of the caller's transaction."""
    campaign.finished_at, campaign.soaks_since = now, None
    mine = CampaignNode.campaign_id == campaign.id
    left = CampaignNode.stage.in_((NodeStage.PLANNED, *CAN_BE_CALLED_BACK))
    assigning.let_go(session, mine, left, now=now, stage=NodeStage.CANCELED, reason=None, since=now)
    assigning.let_go(session, mine, CampaignNode.stage == NodeStage.UNREACHABLE, now=now)


def _is_withdrawn(session: Session, campaign: Campaign) -> bool:
    gone = select(Release.withdrawn_at).where(Release.id == campaign.release_id)
    return session.scalar(gone) is not None


# ------------------------------------------------------------------------------------------------------ offering


def _offer_some(session: Session, campaign: Campaign, *, now: datetime) -> int:
    """Tell as many of the open waves' nodes as may be at it at once. Returns of how many something became."""
    busy = session.scalar(
        select(func.count()).where(
            CampaignNode.campaign_id == campaign.id,
            CampaignNode.is_assigned,
            CampaignNode.stage.in_(_LOADING),
        )
    )
    room = min(campaign.at_once - (busy or 0), NODES_AT_ONCE)
    if room <= 0:
        return 0
    rows = session.execute(
        assigning.standings_query()
        .add_columns(
            Node.state.label("node_state"),
            NodeStatus.counter.label("said_counter"),
            NodeStatus.bundle_sha256.label("said_sha256"),
            NodeStatus.micropython.label("said_micropython"),
            NodeStatus.image_sha256.label("said_image_sha256"),
            NodeStatus.slot_state,
        )
        .join(Node, Node.node_id == CampaignNode.node_id)
        .join(NodeStatus, NodeStatus.node_id == CampaignNode.node_id)
        .where(
            CampaignNode.campaign_id == campaign.id,
            CampaignNode.stage == NodeStage.PLANNED,
            CampaignNode.wave.between(1, campaign.wave),
        )
        .order_by(CampaignNode.wave, CampaignNode.assignment)
        .limit(room)
    ).all()
    if not rows:
        return 0
    later = _told_later(session, campaign, [row.node_id for row in rows])
    moved, told = [], []
    for row in rows:
        end_stage, reason = _kept_from(row, later)
        if end_stage is None:
            told.append(row)
        else:
            standing = assigning.standing_of(row)
            moved.append(Moved(row, replace(standing, stage=end_stage, since=now, reason=reason)))
    _supersede(session, campaign, [row.node_id for row in told], now=now)
    begins = _begins(campaign, len(told), now=now)
    time_outs_s = _time_outs(campaign.time_outs_s)
    moved += [
        Moved(
            row,
            campaign_rules.offered(
                assigning.standing_of(row),
                now=now,
                not_before=begin.not_before,
                time_outs_s=time_outs_s,
            ),
        )
        for row, begin in zip(told, begins, strict=True)
    ]
    assigning.keep(session, moved, now=now)
    _keep_begins(session, campaign, told, begins)
    return len(rows)


def _kept_from(row: Any, later: set[str]) -> tuple[NodeStage | None, str | None]:
    """How a node ends without being told: None when it is told."""
    if row.node_state in OUT_OF_SERVICE:
        return NodeStage.CANCELED, "out of service"
    if row.node_id in later:
        return NodeStage.SUPERSEDED, None
    said = Running(row.said_counter, row.said_sha256, row.said_micropython, row.said_image_sha256)
    if said.is_release(assigning.order_of(row).wanted) and row.slot_state == SlotState.CONFIRMED:
        return NodeStage.ALREADY_INSTALLED, None
    return None, None


def _told_later(session: Session, campaign: Campaign, node_ids: Sequence[str]) -> set[str]:
    """Those that a later campaign tells something: it has the last word."""
    return set(
        session.scalars(
            select(CampaignNode.node_id).where(
                CampaignNode.node_id.in_(node_ids),
                CampaignNode.campaign_id > campaign.id,
                CampaignNode.is_assigned,
            )
        )
    )


def _supersede(
    session: Session, campaign: Campaign, node_ids: Sequence[str], *, now: datetime
) -> None:
    assigning.let_go(
        session,
        CampaignNode.node_id.in_(node_ids),
        CampaignNode.campaign_id < campaign.id,
        CampaignNode.is_assigned,
        now=now,
        stage=NodeStage.SUPERSEDED,
        reason=None,
        since=now,
    )


def _begins(campaign: Campaign, count: int, *, now: datetime) -> list[Begin]:
    spacing_s = campaign.bytes_per_node / campaign.bytes_per_s if campaign.bytes_per_s else 0.0
    delays_s = [secrets.randbelow(campaign.jitter_s + 1) for _ in range(count)]
    begins, free_at = spread(
        delays_s,
        now=now,
        free_at=campaign.free_at,
        spacing_s=spacing_s,
        hours=hours_of(campaign),
    )
    campaign.free_at = free_at
    return begins


def hours_of(campaign: Campaign) -> Hours | None:
    """The hours between which nodes may begin; None: always."""
    if campaign.hours_from_min is None or campaign.hours_until_min is None:
        return None
    return Hours(campaign.hours_from_min, campaign.hours_until_min, ZoneInfo(clock.TIME_ZONE))


def _keep_begins(
    session: Session, campaign: Campaign, rows: Sequence[Any], begins: Sequence[Begin]
) -> None:
    # Where nothing bounds it, nothing is said: a node whose clock is slow would only wait.
    is_bounded = campaign.bytes_per_s or campaign.jitter_s or hours_of(campaign)
    values = [
        (
            row.assignment,
            int(begin.not_before.timestamp()) if is_bounded else None,
            None if begin.until is None else int(begin.until.timestamp()),
        )
        for row, begin in zip(rows, begins, strict=True)
    ]
    table: Any = CampaignNode.__table__
    update_rows(session, table, ("assignment", "not_before_at", "until_at"), sorted(values))


def _renew_windows(session: Session, campaign: Campaign, *, now: datetime) -> None:
    """Who did not get through within its hours has those of the next day."""
    if hours_of(campaign) is None:
        return
    rows = session.execute(
        assigning.standings_query()
        .where(
            CampaignNode.campaign_id == campaign.id,
            CampaignNode.is_assigned,
            CampaignNode.until_at <= now,
            CampaignNode.stage.in_((NodeStage.UNREACHABLE, *CAN_BE_CALLED_BACK)),
        )
        .limit(NODES_AT_ONCE)
    ).all()
    if rows:
        _keep_begins(session, campaign, rows, _begins(campaign, len(rows), now=now))
        outbox.mark_changed(session, DESIRED, [row.node_id for row in rows], now=now)


def _take_in_joiners(session: Session, campaign: Campaign, *, now: datetime) -> None:
    """Nodes that came to be meant after it began go last."""
    target = campaign_targets.of_fields(campaign.selection)
    known = select(CampaignNode.node_id).where(CampaignNode.campaign_id == campaign.id)
    rows = session.execute(
        campaign_targets.nodes_query(session, campaign.model, target, now=now)
        .where(Node.node_id.not_in(known))
        .order_by(Node.node_id)
        .limit(NODES_AT_ONCE)
    ).all()
    if not rows:
        return
    last = session.scalar(
        select(func.max(CampaignWave.number)).where(CampaignWave.campaign_id == campaign.id)
    )
    add_nodes(session, campaign, [(row.node_id, last or 1) for row in rows], now=now)
    note(session, "campaign_nodes_joined", campaign, now=now, nodes=len(rows))


def add_nodes(
    session: Session,
    campaign: Campaign,
    nodes: Sequence[tuple[str, int]],
    *,
    now: datetime,
    ended: Mapping[str, tuple[NodeStage, str | None]] | None = None,
) -> None:
    """Nodes with their waves. Part of the caller's transaction. `ended`: those that need nothing."""
    ended = ended or {}
    usual: tuple[NodeStage, str | None] = (NodeStage.PLANNED, None)
    numbers = assigning.new_assignments(session, len(nodes))
    rows = [
        {
            "campaign_id": campaign.id,
            "node_id": node_id,
            "wave": wave,
            "assignment": number,
            "attempt": 0,
            "stage": ended.get(node_id, usual)[0],
            "reason": ended.get(node_id, usual)[1],
            "since": now,
            "is_assigned": False,
        }
        for (node_id, wave), number in zip(nodes, numbers, strict=True)
    ]
    for first in range(0, len(rows), NODES_AT_ONCE):
        session.execute(insert(CampaignNode), rows[first : first + NODES_AT_ONCE])


# ------------------------------------------------------------------------------------------------------ shared with people


def waves_of(session: Session, campaign_id: int) -> list[CampaignWave]:
    """Its waves, from the first."""
    return list(
        session.scalars(
            select(CampaignWave)
            .where(CampaignWave.campaign_id == campaign_id)
            .order_by(CampaignWave.number)
            .execution_options(populate_existing=True)
        )
    )


def gate_of(wave: CampaignWave) -> Gate:
    return Gate(
        wave.gate_share,
        wave.minimum_reached,
        wave.soak_s,
        wave.pause_share,
        wave.pauses_at_roll_back,
        wave.failures_accepted,
        wave.is_waived,
    )


def counts_of(
    session: Session, campaign_ids: Sequence[int], waves: int
) -> dict[int, list[WaveCount]]:
    """How the nodes of these campaigns' waves stand. One statement."""
    stages: dict[tuple[int, int], dict[NodeStage, int]] = defaultdict(dict)
    rows = session.execute(
        select(CampaignNode.campaign_id, CampaignNode.wave, CampaignNode.stage, func.count())
        .where(CampaignNode.campaign_id.in_(campaign_ids))
        .group_by(CampaignNode.campaign_id, CampaignNode.wave, CampaignNode.stage)
    )
    for campaign_id, wave, stage, count in rows:
        stages[campaign_id, wave][NodeStage(stage)] = count
    return {
        campaign_id: [WaveCount(stages[campaign_id, wave]) for wave in range(1, waves + 1)]
        for campaign_id in campaign_ids
    }


def accept_failures(session: Session, campaign: Campaign, *, now: datetime) -> int:
    """What failed until now does not pause it again, and the open wave need not be reached further. Returns how many failed."""
    waves = waves_of(session, campaign.id)
    counts = counts_of(session, [campaign.id], len(waves))[campaign.id]
    for wave, count in zip(waves[: campaign.wave], counts, strict=False):
        wave.failures_accepted = count.failed
        wave.is_waived = wave.is_waived or count.is_over
    session.flush()
    return sum(count.failed for count in counts)


def accept_one_less(session: Session, campaign: Campaign, number: int) -> None:
    """A node of this wave has failed no more: what was let pass must not hide the next one. Part of the caller's transaction."""
    wave = session.get_one(CampaignWave, (campaign.id, number), populate_existing=True)
    wave.failures_accepted = max(0, wave.failures_accepted - 1)
    session.flush()


def plan_again(
    session: Session, campaign: Campaign, *, now: datetime, node_id: str | None = None
) -> list[int]:
    """Those that failed, or that one, are offered it once more. Returns their waves. Part of the caller's transaction."""
    again = (*campaign_rules.FAILED, NodeStage.ROLLED_BACK)
    is_meant = true() if node_id is None else CampaignNode.node_id == node_id
    rows = session.execute(
        update(CampaignNode)
        .where(CampaignNode.campaign_id == campaign.id, CampaignNode.stage.in_(again), is_meant)
        # What was told of the try before must not be taken for a word on the next one.
        .values(
            stage=NodeStage.PLANNED,
            attempt=CampaignNode.attempt + 1,
            since=now,
            reason=None,
            running_since=None,
        )
        .returning(CampaignNode.wave)
        .execution_options(synchronize_session=False)
    )
    return list(rows.scalars())


def note(
    session: Session,
    action: str,
    campaign: Campaign,
    *,
    now: datetime,
    by: str | None = "machine",
    **details: Any,
) -> None:
    """A step of a campaign, in the audit log."""
    auditing.record(
        session,
        action,
        subject=f"campaign {campaign.id}",
        now=now,
        by=by or "machine",
        version=campaign.version,
        model=campaign.model,
        **details,
    )
