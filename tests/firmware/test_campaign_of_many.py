"""A campaign over two hundred nodes, of which some have bad links, some are away for days and some are broken: real firmware, services and brokers."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from campaigns import ENDED, SERVERS, Author, Campaigns, FleetTime, fleet_of, runs
from test_renewal_with_server import Fleet

from fleet_server.models import CampaignState, NodeStage
from fleet_server.services.campaigning import CampaignNodeLine, Plan, Terms
from hardware.virtual_board.board import Board
from tests.releases import Desk

NODES = 200
GONE = timedelta(hours=80)
MOST_LOOKS = 600
CALLED_BACK = {
    NodeStage.OFFERED,
    NodeStage.ACCEPTED,
    NodeStage.DOWNLOADING,
    NodeStage.UNREACHABLE,
}
ODD = "import os\nif 'odd' in os.listdir('/'):\n    raise ValueError('odd')"
"""A fault that shows on some boards only."""
NO_ROOM_BYTES = 450_000
FAILED = {NodeStage.REJECTED, NodeStage.FAILED, NodeStage.TIMED_OUT, NodeStage.ROLLED_BACK}
NOT_REACHED = {NodeStage.PLANNED, NodeStage.OFFERED, NodeStage.UNREACHABLE}
SAYS_NOTHING = {NodeStage.CANCELED, NodeStage.SUPERSEDED, NodeStage.ALREADY_INSTALLED}


@pytest.fixture(params=SERVERS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    broker, databases = request.param
    with fleet_of(broker, request.getfixturevalue(databases), tmp_path) as made:
        yield made


@dataclass(frozen=True)
class Wave:
    """How many of its nodes stand where, and how many failures people let pass. Its arithmetic is that of the specification."""

    stages: Counter[NodeStage]
    accepted: int

    def of(self, stages: Collection[NodeStage]) -> int:
        return sum(self.stages[stage] for stage in stages)

    @property
    def reached(self) -> int:
        return self.stages.total() - self.of(NOT_REACHED | SAYS_NOTHING) - self.accepted

    @property
    def failed(self) -> int:
        return self.of(FAILED) - self.accepted

    @property
    def may_open_the_next(self) -> bool:
        is_enough = self.reached + self.accepted >= min(3, self.stages.total())
        return is_enough and 100 * self.stages[NodeStage.SUCCEEDED] >= 95 * self.reached

    @property
    def is_trouble(self) -> bool:
        return self.failed > 0 and 100 * self.failed > 5 * self.reached


@dataclass(frozen=True)
class Look:
    """A campaign after a step of the worker; `waves`: those that are open."""

    at: datetime
    state: str
    reason: str | None
    waves: Sequence[Wave]

    @property
    def has_to_pause(self) -> bool:
        canaries = self.waves[0]
        is_canary_back = canaries.stages[NodeStage.ROLLED_BACK] > 0 and canaries.failed > 0
        return is_canary_back or any(wave.is_trouble for wave in self.waves)


class Watch:
    """Looks at a campaign, and resumes it when it has paused: somebody looked after those who failed."""

    def __init__(self, campaigns: Campaigns, campaign_id: int) -> None:
        self.campaigns, self.campaign_id = campaigns, campaign_id
        self.looks: list[Look] = []
        self._accepted = Counter[int]()

    @property
    def is_over(self) -> bool:
        return self.looks[-1].state == CampaignState.COMPLETED

    def opened_at(self, wave: int) -> datetime:
        return next(look.at for look in self.looks if len(look.waves) >= wave)

    def look(self) -> None:
        found = self._look()
        if found.state == CampaignState.PAUSED:
            stages = {one.stage for one in self.campaigns.nodes(self.campaign_id)}
            assert not stages & CALLED_BACK, "who has not begun to install is called back"
            for number, wave in enumerate(found.waves, start=1):
                self._accepted[number] = wave.of(FAILED)
            self.campaigns.resume(self.campaign_id)
            self._look()

    def _look(self) -> Look:
        stages: dict[int, Counter[NodeStage]] = defaultdict(Counter)
        for one in self.campaigns.nodes(self.campaign_id):
            stages[one.wave][NodeStage(one.stage)] += 1
        state, reason = self.campaigns.state(self.campaign_id)
        opened = range(1, self.campaigns.opened_wave(self.campaign_id) + 1)
        waves = [Wave(stages[number], self._accepted[number]) for number in opened]
        self.looks.append(Look(self.campaigns.time.now, state, reason, waves))
        return self.looks[-1]

    def check_gates(self) -> None:
        """It paused when it had to and never else; no wave opened before its gate and an hour of soak."""
        for look in self.looks:
            assert (look.state == CampaignState.PAUSED) == look.has_to_pause, look
        good_since: datetime | None = None
        for before, look in pairwise(self.looks):
            is_opened = len(look.waves) > len(before.waves)
            if is_opened:
                assert good_since is not None, look
                assert look.at - good_since >= timedelta(hours=1), look
            is_good = not is_opened and look.waves[-1].may_open_the_next
            is_running = look.state != CampaignState.PAUSED
            good_since = (good_since or look.at) if is_good and is_running else None

    def report(self) -> list[str]:
        """What happened, one line for each turn."""
        lines, begin = [], self.looks[0].at
        for before, look in pairwise([None, *self.looks]):
            turned = before is None or (before.state, len(before.waves)) != (
                look.state,
                len(look.waves),
            )
            if turned:
                stages = sum((wave.stages for wave in look.waves), Counter[NodeStage]())
                told = ", ".join(f"{count} {stage}" for stage, count in sorted(stages.items()))
                hours = (look.at - begin).total_seconds() / 3600
                why = f" ({look.reason})" if look.reason else ""
                lines.append(f"{hours:6.2f} h  wave {len(look.waves)} {look.state}{why}: {told}")
        return lines


def _breaking_link(drawn: random.Random, board: Board) -> None:
    breaks = drawn.random() < 0.5
    board.network_policy.drop_after_sent = drawn.randrange(3000) if breaks else None


class Away:
    """No access point is in reach until then."""

    def __init__(self, until: datetime) -> None:
        self.until = until
        self._until_us = int(until.timestamp()) * 1_000_000

    def __call__(self, board: Board) -> None:
        board.network_policy.wifi = "absent" if board.now_us < self._until_us else "ok"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_hundred_nodes_with_bad_links_absences_and_faults_all_end_in_the_truth(
    fleet: Fleet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Every tenth has a link that breaks, every twentieth is away for days, and three in a hundred are broken: they trust another root, have no
    room, or the new version crashes on them.
    """
    time, drawn = FleetTime(monkeypatch), random.Random(7)
    author = Author(tmp_path / "author")
    author.release("1.3.0", 1, ends_with=ODD)
    foreign = Desk(tmp_path / "foreign").folder.metadata("root", 1)
    node_ids = fleet.enrol(NODES)
    campaigns = Campaigns(fleet, author, time)
    mixed = drawn.sample(node_ids, NODES)
    broken, flaky = mixed[: max(3, NODES * 3 // 100)], mixed[-(NODES // 10) :]
    files = {"/tuf/root.json": foreign, "/full.bin": bytes(NO_ROOM_BYTES), "/odd": b""}
    meant = [
        (NodeStage.REJECTED, "timestamp signature"),
        (NodeStage.REJECTED, "no room"),
        (NodeStage.ROLLED_BACK, "crashed"),
    ]
    ends = dict.fromkeys(node_ids, (NodeStage.SUCCEEDED, None))
    for number, node_id in enumerate(broken):
        path = list(files)[number % 3]
        fleet.boards[node_id].write_file(path, files[path])
        ends[node_id] = meant[number % 3]
    for node_id in flaky:
        campaigns.befalls[node_id] = partial(_breaking_link, random.Random(node_id))
    with fleet.serving():
        campaigns.introduce()
        plan = Plan(canaries=5, soak=timedelta(hours=1))
        terms = Terms(time_outs_s={NodeStage.OFFERED: 2 * 86_400})
        campaign = campaigns.begin("1.3.0", plan, terms)
        watch = Watch(campaigns, campaign)
        watch.look()
        away = _send_away(campaigns, campaign, [*broken, *flaky], drawn)
        while not watch.is_over and len(watch.looks) < MOST_LOOKS:
            open_ones = [
                one.node_id
                for one in campaigns.nodes(campaign)
                if one.stage not in (*ENDED, NodeStage.PLANNED)
            ]
            campaigns.pass_time(open_ones)
            watch.look()
        # Whoever comes back when it is over is told of it no more.
        unheard = [
            one.node_id
            for one in campaigns.nodes(campaign)
            if one.node_id in away and one.last_heard_at < watch.opened_at(one.wave)
        ]
        ends |= dict.fromkeys(unheard, (NodeStage.UNREACHABLE, None))
        campaigns.pass_time(unheard, GONE)
        found = {one.node_id: one for one in campaigns.nodes(campaign)}
    report = watch.report()
    for kind, group in {"flaky": flaky, "away": away, "broken": broken, "all": node_ids}.items():
        report.append(_told_of(kind, group, campaigns, found))
    for line in report:
        record_property("measured", line)
    assert watch.is_over, report
    watch.check_gates()
    assert 2 <= len(unheard) <= 3, report
    for node_id in node_ids:
        end = found[node_id].stage, found[node_id].reason
        assert end == ends[node_id], (node_id, report)
        runs_it = runs(fleet.boards[node_id]) == ("1.3.0", "confirmed")
        assert runs_it == (end[0] == NodeStage.SUCCEEDED), (node_id, report)
        assert (fleet.status(node_id).version == "1.3.0") == runs_it, (node_id, report)


def _send_away(
    campaigns: Campaigns, campaign_id: int, spared: Collection[str], drawn: random.Random
) -> dict[str, Away]:
    """Most for a day or so, one until it may have been given up (its radio waits up to six hours more), two until all is over."""
    spare = [one for one in campaigns.nodes(campaign_id) if one.node_id not in spared]
    last = max(one.wave for one in spare)
    late = [one.node_id for one in spare if one.wave == last]
    early = [one.node_id for one in spare if one.wave == 3]
    mixed = drawn.sample(late, NODES // 20 - 1)
    absences = {early[0]: timedelta(hours=54)} | dict.fromkeys(mixed[:2], GONE * 1.1)
    absences |= {one: timedelta(minutes=drawn.randrange(720, 2160)) for one in mixed[2:]}
    away = {one: Away(campaigns.time.now + absence) for one, absence in absences.items()}
    campaigns.befalls.update(away)
    return away


def _told_of(
    kind: str,
    node_ids: Collection[str],
    campaigns: Campaigns,
    found: Mapping[str, CampaignNodeLine],
) -> str:
    wakes = sum(len(campaigns.operations[node_id]) for node_id in node_ids)
    tries = sum(found[node_id].attempt for node_id in node_ids)
    ends = Counter(str(found[node_id].stage) for node_id in node_ids)
    told = ", ".join(f"{count} {stage}" for stage, count in sorted(ends.items()))
    return f"{kind:7} {len(node_ids)} nodes, {wakes} wakes, {tries} attempts: {told}"
