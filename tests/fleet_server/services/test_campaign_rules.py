"""The state machine of updates: whatever order words come in, a node is a success only when it runs the release, and no wave opens early."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet_server.models import CampaignState, NodeStage
from fleet_server.services.campaign_rules import (
    ON_THE_WAY,
    TIME_OUTS_S,
    Course,
    Gate,
    Order,
    Progress,
    Report,
    Standing,
    WaveCount,
    after_progress,
    after_report,
    after_time,
    is_good,
    next_course,
    offered,
    trouble_in,
    wave_sizes,
)
from fleet_server.services.update_windows import Hours, spread
from fleet_server.wire.states import UpdateStage

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
ORDER = Order(assignment=77, counter=8, bundle_sha256="b" * 64)
OLD = (7, "a" * 64)
NEW = (8, "b" * 64)
GOOD = (NodeStage.SUCCEEDED, NodeStage.ALREADY_INSTALLED)
FOREIGN = (8, "c" * 64)  # the same counter, and other files
# A release that brings its MicroPython; what nodes say of theirs: the one before, that one, and one that only calls itself so.
IMAGE = ("1.28.0", "d" * 64)
WITH_IMAGE = replace(ORDER, micropython=IMAGE[0], image_sha256=IMAGE[1])
OTHER_IMAGES = (
    ("1.27.0", None),
    (None, None),
    ("1.28.0", None),
    ("1.28.0", "e" * 64),
    ("1.27.0", "d" * 64),
)


class OneNode(RuleBasedStateMachine):
    """A real node beside what the server makes of what reaches it: words late, twice, out of order, of any attempt."""

    order = ORDER

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.standing = Standing(NodeStage.PLANNED, 0, NOON)
        self.runs, self.is_trusted, self.brought_by = OLD, True, (None, None)
        self.image: tuple[str | None, str | None] = OTHER_IMAGES[0]
        self.sampled_at: datetime | None = None
        self.sampled_new_at: list[datetime] = []
        self.has_said = False
        self.told: list[Progress] = []

    @rule(seconds=st.sampled_from([1, 600, 86_400, 8 * 86_400]))
    def time_goes_on(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.standing.stage is NodeStage.PLANNED)
    @rule()
    def offer(self) -> None:
        self.standing = offered(self.standing, now=self.now, not_before=self.now)

    @rule(
        to=st.sampled_from([OLD, NEW, FOREIGN]), brought=st.sampled_from(["us", "before", "hand"])
    )
    def install(self, to: tuple[int, str], brought: str) -> None:
        self.runs, self.is_trusted, self.has_said = to, False, False
        attempt = self.standing.attempt - (brought == "before")
        self.brought_by = (None, None) if brought == "hand" else (ORDER.assignment, attempt)

    @property
    def runs_it(self) -> bool:
        return self.runs == NEW and (self.order.image_sha256 is None or self.image == IMAGE)

    @rule(image=st.sampled_from([IMAGE, *OTHER_IMAGES]))
    def start_another_micropython(self, image: tuple[str | None, str | None]) -> None:
        self.image, self.has_said = image, False

    @rule()
    def trust(self) -> None:
        self.is_trusted = True

    # A node says what it is at each connect, before the readings that it sampled since.
    @precondition(lambda self: self.has_said)
    @rule()
    def sample(self) -> None:
        self.now += timedelta(seconds=1)
        self.sampled_at = self.now
        if self.runs_it:
            self.sampled_new_at.append(self.now)

    @rule()
    def say(self) -> None:
        self.now += timedelta(seconds=1)
        report = Report(
            *self.brought_by,
            *self.runs,
            "confirmed" if self.is_trusted else "trial",
            self.now,
            self.sampled_at,
            *self.image,
        )
        self.has_said, before = True, self.standing
        self.standing = after_report(before, report, self.order, now=self.now)
        if self.standing.stage is before.stage:
            return
        runs_it = self.runs_it and self.is_trusted
        if self.standing.stage is NodeStage.SUCCEEDED:
            assert runs_it
            assert self.brought_by[0] == ORDER.assignment
            assert self.sampled_at in self.sampled_new_at
        if self.standing.stage is NodeStage.ALREADY_INSTALLED:
            assert runs_it

    @rule(stage=st.sampled_from(list(UpdateStage)), back=st.integers(0, 2))
    def tell(self, stage: UpdateStage, back: int) -> None:
        progress = Progress(self.standing.attempt - back, stage, "file hash")
        self.told.append(progress)
        self.hear(progress)

    @precondition(lambda self: bool(self.told))
    @rule(data=st.data())
    def tell_again(self, data: st.DataObject) -> None:
        self.hear(data.draw(st.sampled_from(self.told)))

    def hear(self, progress: Progress) -> None:
        before = self.standing
        self.standing = after_progress(before, progress, now=self.now)
        assert after_progress(self.standing, progress, now=self.now) == self.standing
        assert self.standing.stage is before.stage or self.standing.stage not in GOOD

    @rule(is_heard=st.booleans())
    def look_at_the_clock(self, is_heard: bool) -> None:
        heard_at = self.now if is_heard else None
        before = self.standing
        self.standing = after_time(before, heard_at=heard_at, now=self.now)
        assert self.standing.stage is before.stage or self.standing.stage not in GOOD

    @invariant()
    def who_waits_has_a_deadline(self) -> None:
        if self.standing.stage in ON_THE_WAY:
            assert self.standing.deadline_at is not None


class OneNodeWithImage(OneNode):
    """The same, of a release that brings its MicroPython."""

    order = WITH_IMAGE


TestOneNode = OneNode.TestCase
TestOneNodeWithImage = OneNodeWithImage.TestCase


def reported(
    runs: tuple[int, str] = NEW,
    *,
    trusted: bool = True,
    by: int | None = ORDER.assignment,
    sampled: datetime | None = None,
    at: datetime = NOON,
) -> Report:
    state = "confirmed" if trusted else "trial"
    return Report(by, 1, *runs, state, at, sampled)


def on_the_way(stage: NodeStage = NodeStage.TESTING) -> Standing:
    return replace(
        offered(Standing(NodeStage.PLANNED, 0, NOON), now=NOON, not_before=NOON), stage=stage
    )


@pytest.mark.parametrize(
    ("report", "then"),
    [
        (reported(sampled=NOON + timedelta(minutes=1)), NodeStage.SUCCEEDED),
        (reported(sampled=NOON), NodeStage.TESTING),  # sampled before it said that it runs it
        (reported(sampled=None), NodeStage.TESTING),
        (reported(trusted=False, sampled=NOON + timedelta(minutes=1)), NodeStage.TESTING),
        (reported(FOREIGN, sampled=NOON + timedelta(minutes=1)), NodeStage.TESTING),
        (reported(OLD, sampled=NOON + timedelta(minutes=1)), NodeStage.TESTING),
        (reported(by=None, sampled=NOON + timedelta(minutes=1)), NodeStage.ALREADY_INSTALLED),
    ],
    ids=[
        "all of it",
        "old reading",
        "no reading",
        "on trial",
        "other files",
        "old",
        "by hand",
    ],
)
def test_success_wants_release_trust_and_a_reading_of_the_new_version(
    report: Report, then: NodeStage
) -> None:
    assert after_report(on_the_way(), report, ORDER, now=NOON).stage is then


@pytest.mark.parametrize("image", [IMAGE, *OTHER_IMAGES])
def test_success_of_a_release_with_an_image_wants_that_micropython_too(
    image: tuple[str | None, str | None],
) -> None:
    said = reported(sampled=NOON + timedelta(minutes=1))
    said = replace(said, micropython=image[0], image_sha256=image[1])
    then = NodeStage.SUCCEEDED if image == IMAGE else NodeStage.TESTING
    assert after_report(on_the_way(), said, WITH_IMAGE, now=NOON).stage is then
    assert after_report(on_the_way(), said, ORDER, now=NOON).stage is NodeStage.SUCCEEDED


def test_reading_of_the_version_in_between_is_none_of_the_new_one() -> None:
    standing = after_report(on_the_way(), reported(trusted=False), ORDER, now=NOON)
    standing = after_report(standing, reported(OLD, at=NOON + timedelta(hours=1)), ORDER, now=NOON)
    late, between = NOON + timedelta(hours=3), NOON + timedelta(hours=2)
    standing = after_report(standing, reported(sampled=between, at=late), ORDER, now=NOON)
    assert standing.stage is NodeStage.TESTING
    again = reported(sampled=late + timedelta(minutes=15), at=late + timedelta(hours=1))
    assert after_report(standing, again, ORDER, now=NOON).stage is NodeStage.SUCCEEDED


def test_progress_goes_only_forward_and_never_ends_well() -> None:
    standing = on_the_way(NodeStage.INSTALLING)
    for stage in (UpdateStage.ACCEPTED, UpdateStage.DOWNLOADING, UpdateStage.ALREADY_INSTALLED):
        assert after_progress(standing, Progress(1, stage), now=NOON) == standing
    assert after_progress(standing, Progress(0, UpdateStage.FAILED), now=NOON) == standing
    failed = after_progress(
        standing, Progress(1, UpdateStage.FAILED, "installing: no room"), now=NOON
    )
    assert (failed.stage, failed.reason) == (NodeStage.FAILED, "installing: no room")
    for stage in UpdateStage:
        assert after_progress(failed, Progress(1, stage), now=NOON) == failed


def test_node_that_is_offline_has_not_failed_and_goes_on_when_it_is_heard() -> None:
    standing = on_the_way(NodeStage.OFFERED)
    late = NOON + timedelta(seconds=TIME_OUTS_S[NodeStage.OFFERED])
    away = after_time(standing, heard_at=NOON - timedelta(days=1), now=late)
    assert away.stage is NodeStage.UNREACHABLE
    assert (
        after_time(away, heard_at=late, now=late + timedelta(days=3)).stage is NodeStage.UNREACHABLE
    )
    back = after_time(away, heard_at=late + timedelta(days=3), now=late + timedelta(days=3))
    assert (back.stage, back.attempt) == (NodeStage.OFFERED, 1)


def test_node_that_is_heard_and_comes_no_further_times_out_with_its_stage() -> None:
    standing = on_the_way(NodeStage.DOWNLOADING)
    late = NOON + timedelta(seconds=TIME_OUTS_S[NodeStage.DOWNLOADING], days=1)
    ended = after_time(standing, heard_at=late, now=late)
    assert (ended.stage, ended.reason) == (NodeStage.TIMED_OUT, "downloading")
    # And if it got there all the same, that is the truth.
    report = reported(sampled=late + timedelta(hours=2), at=late + timedelta(hours=1))
    assert after_report(ended, report, ORDER, now=late).stage is NodeStage.SUCCEEDED


# ---------------------------------------------------------------------------------------------------------------- waves

counts = st.dictionaries(st.sampled_from(list(NodeStage)), st.integers(0, 30), max_size=6).map(
    WaveCount
)
gates = st.builds(
    Gate,
    gate_share=st.sampled_from([0.5, 0.95, 1.0]),
    minimum_reached=st.integers(0, 5),
    soak_s=st.sampled_from([0, 3600]),
    pause_share=st.sampled_from([0.0, 0.05, 0.5]),
    pauses_at_roll_back=st.booleans(),
    failures_accepted=st.integers(0, 3),
    is_waived=st.booleans(),
)


@given(
    st.lists(st.tuples(gates, counts), min_size=2, max_size=4),
    st.integers(1, 3),
    st.sampled_from([CampaignState.RUNNING, CampaignState.SOAKING]),
    st.integers(0, 7200),
)
def test_no_wave_opens_before_its_gate_and_none_is_passed_over(
    waves: list[tuple[Gate, WaveCount]], wave: int, state: CampaignState, soaked_s: int
) -> None:
    wave = min(wave, len(waves))
    given_gates, given_counts = [one for one, _ in waves], [one for _, one in waves]
    since = NOON - timedelta(seconds=soaked_s) if state is CampaignState.SOAKING else None
    course = next_course(Course(state, wave, since), given_gates, given_counts, now=NOON)
    assert course.wave in (wave, wave + 1)
    if course.wave == wave + 1:
        gate, count = waves[wave - 1]
        assert is_good(gate, count)
        assert trouble_in(given_gates[:wave], given_counts[:wave]) is None
        assert (soaked_s if since else 0) >= gate.soak_s
    if course.state is CampaignState.COMPLETED:
        assert all(one.is_over for one in given_counts)


@pytest.mark.parametrize(
    "state", [one for one in CampaignState if one not in ("scheduled", "running", "soaking")]
)
def test_campaign_that_stands_still_stays_so_whatever_its_nodes_do(state: CampaignState) -> None:
    course = Course(state, 1)
    done = WaveCount({NodeStage.SUCCEEDED: 5})
    later = NOON + timedelta(days=99)
    assert next_course(course, [Gate()], [done], now=later, ends_at=NOON) == course


def stage_counts(**stages: int) -> WaveCount:
    return WaveCount({NodeStage(name): count for name, count in stages.items()})


@pytest.mark.parametrize(
    ("count", "then"),
    [
        (stage_counts(succeeded=19, rejected=1), CampaignState.SOAKING),  # 5 % is not more than 5 %
        (stage_counts(succeeded=18, failed=2), CampaignState.PAUSED),
        (stage_counts(succeeded=18, testing=2), CampaignState.RUNNING),
        (stage_counts(succeeded=2, offered=18), CampaignState.RUNNING),  # too few to judge by
        (stage_counts(succeeded=3, offered=17), CampaignState.SOAKING),  # the others are away
        (stage_counts(succeeded=2, unreachable=18), CampaignState.PAUSED),  # nobody else will come
        (stage_counts(already_installed=20), CampaignState.SOAKING),
        (stage_counts(succeeded=30, rolled_back=1), CampaignState.PAUSED),
    ],
)
def test_gate_of_the_canaries(count: WaveCount, then: CampaignState) -> None:
    canaries = Gate(minimum_reached=3, pauses_at_roll_back=True)
    course = next_course(
        Course(CampaignState.RUNNING, 1), [canaries, Gate()], [count, WaveCount()], now=NOON
    )
    assert course.state is then


def test_campaign_begins_when_its_time_has_come_and_expires_when_it_is_over() -> None:
    course = Course(CampaignState.SCHEDULED, 0)
    at, end = NOON + timedelta(hours=1), NOON + timedelta(days=1)
    steps = [
        next_course(course, [Gate()], [WaveCount()], now=now, starts_at=at, ends_at=end)
        for now in (NOON, at, end)
    ]
    assert [(one.state, one.wave) for one in steps] == [
        (CampaignState.SCHEDULED, 0),
        (CampaignState.RUNNING, 1),
        (CampaignState.EXPIRED, 0),
    ]


@given(st.integers(0, 20_000), st.integers(0, 50))
def test_waves_hold_every_node_once(nodes: int, canaries: int) -> None:
    sizes = wave_sizes(nodes, canaries, (0.05, 0.25, 0.5, 1.0))
    assert sum(sizes) == nodes
    assert all(sizes)


# -------------------------------------------------------------------------------------------------------------- windows

NIGHT = Hours(22 * 60, 5 * 60, ZoneInfo("Europe/Berlin"))


@given(
    st.integers(0, 730 * 86_400).map(lambda seconds: NOON + timedelta(seconds=seconds)),
    st.integers(0, 1440),
    st.integers(0, 1439),
)
def test_window_is_the_one_that_we_are_in_or_the_next(now: datetime, first: int, last: int) -> None:
    if first % 1440 == last % 1440:
        return
    begin, end = Hours(first, last, ZoneInfo("Europe/Berlin")).at_or_after(now)
    assert begin < end
    assert end > now
    assert begin - now <= timedelta(days=2)


def test_nodes_begin_one_after_the_other_and_only_in_the_night() -> None:
    begins, free_at = spread([0] * 300, now=NOON, free_at=None, spacing_s=240, hours=NIGHT)
    moments = [one.not_before for one in begins]
    assert moments == sorted(moments)
    assert moments[0] == datetime(2026, 7, 1, 20, tzinfo=UTC)
    local = [one.astimezone(NIGHT.zone).hour for one in moments]
    assert all(hour >= 22 or hour < 5 for hour in local)
    assert len({one.date() for one in moments}) > 2, "300 nodes need more than one night"
    assert free_at > moments[-1]
