"""What follows from what in a campaign: pure functions of where it stands, what was heard, and the time. The state machine of updates.

A node has succeeded when, and only when, its own state message says that it runs exactly this release (with the MicroPython that it brings,
where it brings one), brought by this assignment, and trusts it, and a reading that it sampled since it runs it is stored. Progress that it tells moves it along and can end it
badly, never well. Words may come twice, late, in any order, and from attempts that are over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

from fleet_server.models import CampaignState, NodeStage
from fleet_server.wire.states import SlotState, UpdateStage

_DAY_S = 86_400
ON_THE_WAY = (
    NodeStage.OFFERED,
    NodeStage.ACCEPTED,
    NodeStage.DOWNLOADING,
    NodeStage.VERIFIED,
    NodeStage.INSTALLING,
    NodeStage.REBOOTING,
    NodeStage.TESTING,
)
"""In their order."""
FAILED = (NodeStage.REJECTED, NodeStage.FAILED, NodeStage.TIMED_OUT)
LEFT = (NodeStage.CANCELED, NodeStage.SUPERSEDED, NodeStage.ALREADY_INSTALLED)
"""Ends that say nothing about the release."""
CAN_BE_CALLED_BACK = ON_THE_WAY[: ON_THE_WAY.index(NodeStage.REBOOTING)]
TIME_OUTS_S: Mapping[NodeStage, int] = MappingProxyType(
    {
        NodeStage.OFFERED: 7 * _DAY_S,
        NodeStage.ACCEPTED: 7 * _DAY_S,  # it may wait for its battery
        NodeStage.DOWNLOADING: 7 * _DAY_S,
        NodeStage.VERIFIED: _DAY_S,
        NodeStage.INSTALLING: _DAY_S,
        NodeStage.REBOOTING: _DAY_S,
        NodeStage.TESTING: 4 * _DAY_S,  # after 72 hours the node itself goes back
    }
)
"""How long a node may stay in a stage before something has to become of it."""
_TOLD: Mapping[UpdateStage, NodeStage] = MappingProxyType(
    {
        UpdateStage.ACCEPTED: NodeStage.ACCEPTED,
        UpdateStage.DOWNLOADING: NodeStage.DOWNLOADING,
        UpdateStage.VERIFIED: NodeStage.VERIFIED,
        UpdateStage.INSTALLING: NodeStage.INSTALLING,
        UpdateStage.REBOOTING: NodeStage.REBOOTING,
        UpdateStage.TESTING: NodeStage.TESTING,
        UpdateStage.REJECTED: NodeStage.REJECTED,
        UpdateStage.FAILED: NodeStage.FAILED,
        UpdateStage.ROLLED_BACK: NodeStage.ROLLED_BACK,
        # Its own state message decides whether that is so.
        UpdateStage.ALREADY_INSTALLED: NodeStage.ACCEPTED,
    }
)
"""`canceled` is not there: whoever takes an order back knows it before the node does."""
_CORRECTED = (NodeStage.TIMED_OUT, NodeStage.CANCELED)
"""Ends that the server has come to by itself: the node may show that it was otherwise."""


@dataclass(frozen=True)
class Standing:
    """Where a node stands in a campaign, since when, and by when something has to happen."""

    stage: NodeStage
    attempt: int
    since: datetime
    reason: str | None = None
    deadline_at: datetime | None = None
    running_since: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is still told, and listened to."""
        return self.stage in ON_THE_WAY or self.stage is NodeStage.UNREACHABLE


@dataclass(frozen=True)
class Progress:
    """What a node told of an attempt."""

    attempt: int
    stage: UpdateStage
    reason: str | None = None


@dataclass(frozen=True)
class Order:
    """What a node was told to run."""

    assignment: int
    counter: int
    bundle_sha256: str
    micropython: str | None = None  # with its hash: where the release brings one
    image_sha256: str | None = None

    @property
    def wanted(self) -> Running:
        return Running(self.counter, self.bundle_sha256, self.micropython, self.image_sha256)


@dataclass(frozen=True)
class Report:
    """What a node last said about itself, and when the newest stored reading of it was sampled: both by its own clock."""

    assignment: int | None
    attempt: int | None
    counter: int | None
    bundle_sha256: str | None
    slot_state: str | None
    said_at: datetime
    sampled_at: datetime | None
    micropython: str | None = None
    image_sha256: str | None = None

    @property
    def running(self) -> Running:
        return Running(self.counter, self.bundle_sha256, self.micropython, self.image_sha256)


class Running(NamedTuple):
    """What runs on a node, or shall: the release's counter and bundle, and which MicroPython with which image."""

    counter: int | None
    bundle_sha256: str | None
    micropython: str | None = None
    image_sha256: str | None = None

    def is_release(self, wanted: Running) -> bool:
        """Whether what a node says that it runs is what is wanted: the bundle, and the MicroPython where one is brought."""
        return self[:2] == wanted[:2] and (wanted.image_sha256 is None or self[2:] == wanted[2:])


TimeOuts = Mapping[NodeStage, int]


def offered(
    standing: Standing, *, now: datetime, not_before: datetime, time_outs_s: TimeOuts = TIME_OUTS_S
) -> Standing:
    """Told, for another time."""
    begins = max(now, not_before)
    return Standing(
        NodeStage.OFFERED,
        standing.attempt + 1,
        now,
        deadline_at=begins + timedelta(seconds=time_outs_s[NodeStage.OFFERED]),
    )


def after_progress(
    standing: Standing,
    progress: Progress,
    *,
    now: datetime,
    time_outs_s: TimeOuts = TIME_OUTS_S,
) -> Standing:
    """What becomes of a node that told this. Of another attempt, after the end, and what it was beyond already: nothing."""
    is_called_back = standing.stage is NodeStage.PLANNED
    if not (standing.is_open or is_called_back) or progress.attempt != standing.attempt:
        return standing
    stage = _TOLD.get(progress.stage)
    if stage is None:
        return standing
    if stage not in ON_THE_WAY:
        return _ended(standing, stage, now, progress.reason)
    if is_called_back:
        return standing
    if _rank(stage) < _rank(standing.stage):
        return standing
    if stage is standing.stage:
        return replace(standing, reason=progress.reason)  # it waits for something else
    return _moved(standing, stage, now, time_outs_s, progress.reason)


def after_report(
    standing: Standing,
    report: Report,
    order: Order,
    *,
    now: datetime,
    time_outs_s: TimeOuts = TIME_OUTS_S,
) -> Standing:
    """What becomes of a node that says this about itself."""
    if not (standing.is_open or standing.stage in (NodeStage.PLANNED, *_CORRECTED)):
        return standing
    if not report.running.is_release(order.wanted):
        # What it samples from now on is no reading of the new version.
        return replace(standing, running_since=None)
    # Whichever attempt brought it: one that was called back too late has brought it all the same.
    is_ours = report.assignment == order.assignment
    is_trusted = report.slot_state == SlotState.CONFIRMED
    if not is_ours:
        if not is_trusted or standing.stage in _CORRECTED:
            return standing
        return _ended(standing, NodeStage.ALREADY_INSTALLED, now, None)
    began = standing.running_since or report.said_at
    if is_trusted and report.sampled_at is not None and report.sampled_at > began:
        return replace(_ended(standing, NodeStage.SUCCEEDED, now, None), running_since=began)
    if standing.stage in (NodeStage.PLANNED, NodeStage.TESTING, *_CORRECTED):
        return replace(standing, running_since=began)  # all that is waited for is the reading
    return replace(_moved(standing, NodeStage.TESTING, now, time_outs_s, None), running_since=began)


def after_time(
    standing: Standing,
    *,
    heard_at: datetime | None,
    now: datetime,
    time_outs_s: TimeOuts = TIME_OUTS_S,
) -> Standing:
    """What becomes of a node because time went on. Who was not heard has not failed; once heard, it goes on where it was offered."""
    was_heard = heard_at is not None and heard_at > standing.since
    if standing.stage is NodeStage.UNREACHABLE:
        return (
            _moved(standing, NodeStage.OFFERED, now, time_outs_s, None) if was_heard else standing
        )
    if standing.deadline_at is None or now < standing.deadline_at:
        return standing
    if was_heard:
        return _ended(standing, NodeStage.TIMED_OUT, now, standing.stage.value)
    return replace(standing, stage=NodeStage.UNREACHABLE, since=now, deadline_at=None, reason=None)


def _rank(stage: NodeStage) -> int:
    return ON_THE_WAY.index(stage) if stage in ON_THE_WAY else 0


def _moved(
    standing: Standing,
    stage: NodeStage,
    now: datetime,
    time_outs_s: TimeOuts,
    reason: str | None,
) -> Standing:
    deadline = now + timedelta(seconds=time_outs_s[stage])
    return replace(standing, stage=stage, since=now, deadline_at=deadline, reason=reason)


def _ended(standing: Standing, stage: NodeStage, now: datetime, reason: str | None) -> Standing:
    return replace(standing, stage=stage, since=now, deadline_at=None, reason=reason)


# ---------------------------------------------------------------------------------------------------------------- waves


@dataclass(frozen=True)
class Gate:
    """When the wave after this one opens, and when the campaign pauses (`models.campaign.CampaignWave`)."""

    gate_share: float = 0.95
    minimum_reached: int = 1
    soak_s: int = 3600
    pause_share: float = 0.05
    pauses_at_roll_back: bool = False
    failures_accepted: int = 0
    is_waived: bool = False


@dataclass(frozen=True)
class WaveCount:
    """How many nodes of a wave stand where."""

    stages: Mapping[NodeStage, int] = field(default_factory=dict)

    def of(self, *stages: NodeStage) -> int:
        return sum(self.stages.get(stage, 0) for stage in stages)

    @property
    def nodes(self) -> int:
        return sum(self.stages.values())

    @property
    def judged(self) -> int:
        """All of which something can be learnt about the release."""
        return self.nodes - self.of(*LEFT)

    @property
    def succeeded(self) -> int:
        return self.of(NodeStage.SUCCEEDED)

    @property
    def failed(self) -> int:
        return self.of(*FAILED, NodeStage.ROLLED_BACK)

    @property
    def reached(self) -> int:
        """Those that took the order up, whatever became of them."""
        return self.of(*ON_THE_WAY[1:]) + self.succeeded + self.failed

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come, unless somebody is heard again."""
        return self.of(NodeStage.PLANNED, *ON_THE_WAY) == 0


class Stop(NamedTuple):
    """Why a campaign stopped: `code` names the sentence, which `services.campaign_words` says with its parts."""

    code: str
    parts: Mapping[str, int | str] = MappingProxyType({})


@dataclass(frozen=True)
class Course:
    """Where a campaign stands; `wave` counts from 1, 0: none was opened. Of `gates` and counts the first belongs to wave 1."""

    state: CampaignState
    wave: int
    soaks_since: datetime | None = None
    stop: Stop | None = None


def next_course(
    course: Course,
    gates: Sequence[Gate],
    counts: Sequence[WaveCount],
    *,
    now: datetime,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> Course:
    """The next step of a campaign; the same course when there is none."""
    state = course.state
    if state not in (CampaignState.SCHEDULED, CampaignState.RUNNING, CampaignState.SOAKING):
        return course
    if ends_at is not None and now >= ends_at:
        return replace(course, state=CampaignState.EXPIRED, stop=Stop("time_over"))
    if state is CampaignState.SCHEDULED:
        if starts_at is not None and now < starts_at:
            return course
        return Course(CampaignState.RUNNING, 1)
    trouble = trouble_in(gates[: course.wave], counts[: course.wave])
    if trouble is not None:
        return replace(course, state=CampaignState.PAUSED, soaks_since=None, stop=trouble)
    gate, count = gates[course.wave - 1], counts[course.wave - 1]
    if course.wave == len(gates):
        if all(one.is_over for one in counts):
            return replace(course, state=CampaignState.COMPLETED, soaks_since=None)
        return replace(course, state=CampaignState.RUNNING, soaks_since=None)
    if not is_good(gate, count):
        return replace(course, state=CampaignState.RUNNING, soaks_since=None)
    since = course.soaks_since or now
    if now - since >= timedelta(seconds=gate.soak_s):
        return Course(CampaignState.RUNNING, course.wave + 1)
    return replace(course, state=CampaignState.SOAKING, soaks_since=since)


def is_good(gate: Gate, count: WaveCount) -> bool:
    """Whether of a wave enough nodes were reached, and of these enough succeeded. What a person let pass is not held against it."""
    if count.judged == 0 or (gate.is_waived and count.is_over):
        return True
    judged = count.reached - min(gate.failures_accepted, count.failed)
    is_enough = count.reached >= min(gate.minimum_reached, count.judged)
    # In whole nodes: 0.95 · 20 is 19, whatever a float makes of it.
    return is_enough and count.succeeded >= math.ceil(gate.gate_share * judged - 1e-9)


def trouble_in(gates: Sequence[Gate], counts: Sequence[WaveCount]) -> Stop | None:
    """Why a campaign has to pause; None when it does not."""
    for number, (gate, count) in enumerate(zip(gates, counts, strict=True), start=1):
        failed = count.failed - gate.failures_accepted
        if failed <= 0:
            continue
        rolled_back = count.of(NodeStage.ROLLED_BACK)
        if gate.pauses_at_roll_back and rolled_back:
            return Stop("rolled_back", {"count": rolled_back, "wave": number})
        reached = count.reached - gate.failures_accepted
        if failed > gate.pause_share * reached + 1e-9:
            return Stop("failed", {"count": failed, "reached": reached, "wave": number})
    if not gates:
        return None
    gate, count, number = gates[-1], counts[-1], len(gates)
    wanted = min(gate.minimum_reached, count.judged)
    if count.is_over and count.reached < wanted and not gate.is_waived:
        return Stop("too_few", {"count": count.reached, "wanted": wanted, "wave": number})
    return None


def wave_sizes(nodes: int, canaries: int, shares: Sequence[float]) -> list[int]:
    """How many nodes are in each wave: first the canaries, then up to each share of all (0–1); none is empty.

    >>> wave_sizes(1000, 5, (0.05, 0.25, 0.5, 1.0)), wave_sizes(3, 1, (0.05, 0.25, 0.5, 1.0))
    ([5, 45, 200, 250, 500], [1, 1, 1])
    """
    sizes, taken = [], 0
    for upto in (canaries, *(round(nodes * share) for share in shares)):
        size = min(upto, nodes) - taken
        if size > 0:
            sizes.append(size)
            taken += size
    return sizes
