"""A release from the author's desk to nodes that run it, and one that stops at its canary: real firmware, real services, real brokers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from brokers import wait_until
from campaigns import SERVERS, Author, Campaigns, FleetTime, PowerCuts, fleet_of, runs
from test_renewal_with_server import Fleet

from fleet_server.models import CampaignState
from fleet_server.services import campaign_words
from fleet_server.services.campaigning import Plan
from hardware.virtual_board.esp_image import micropython

PLAN = Plan(canaries=1, shares=(1.0,), soak=timedelta(hours=1), minimum_reached=1)
# Three wakes crash; in the one after them the node goes back and says so. The first that loses its power does not count.
BACK = {"trial": [1, None, None, None, 20]}
NODES_WITHOUT_POWER = 60
BREAKS = "raise ValueError('broken')"


@pytest.fixture(params=SERVERS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    broker, databases = request.param
    with fleet_of(broker, request.getfixturevalue(databases), tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def author(tmp_path_factory: pytest.TempPathFactory) -> Author:
    made = Author(tmp_path_factory.mktemp("author"))
    made.release("1.3.0", 1)
    made.release("1.4.0", 2, ends_with=BREAKS)
    return made


def test_good_release_gets_to_every_node_and_a_broken_one_stops_at_its_canary_though_the_power_fails(
    fleet: Fleet, author: Author, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = FleetTime(monkeypatch)
    node_ids = fleet.enrol(2)
    campaigns = Campaigns(fleet, author, time)
    with fleet.serving():
        campaigns.introduce()

        first = campaigns.begin("1.3.0", PLAN)
        campaigns.pass_time_until_ended(first, 1)
        assert [one.stage for one in campaigns.nodes(first)] == ["succeeded", "planned"]
        assert fleet.listener_door.passed_bytes <= 1.2 * campaigns.needed_bytes("1.3.0")
        campaigns.work(timedelta(hours=2))
        (pilot,), (other,) = ([one.node_id for one in campaigns.nodes(first, n)] for n in (1, 2))
        whole = max(campaigns.operations[pilot])
        campaigns.befalls[other] = PowerCuts(session=[whole - 6], trial=[20])
        campaigns.pass_time_until_ended(first, 2)
        campaigns.work()
        assert campaigns.cuts.pop(other) == ["installing", "testing"]
        assert campaigns.state(first) == (CampaignState.COMPLETED, None)
        for node_id in node_ids:
            status = fleet.status(node_id)
            assert (status.version, status.counter, status.slot_state) == ("1.3.0", 1, "confirmed")

        campaigns.befalls = {node_id: PowerCuts(session=[70], **BACK) for node_id in node_ids}
        second = campaigns.begin("1.4.0", PLAN)
        campaigns.pass_time_until_ended(second, 1)
        campaigns.work()
        assert campaigns.state(second) == (CampaignState.PAUSED, "1 of wave 1 rolled back")
        (canary,) = [one for one in campaigns.nodes(second) if one.wave == 1]
        assert campaigns.cuts == {canary.node_id: ["downloading", "rebooting", "rebooting"]}
        assert (canary.stage, canary.reason) == ("rolled_back", "crashed")
        wait_until(lambda: fleet.status(canary.node_id).version == "1.3.0")
        with fleet.sessions() as session:
            why = campaign_words.why_not_updated(session, canary.node_id, now=time.now)
        assert campaign_words.sentence(why, "en") == (
            "It went back to the version before 1.4.0: the new version crashed."
        )


@pytest.mark.parametrize("fleet", SERVERS[:1], indirect=True)
def test_release_with_another_micropython_succeeds_once_both_run_and_one_that_does_not_come_up_stops(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file at the author's desk to the boot loader of a board. Not tried on hardware."""
    image = micropython("1.28.0", more=bytes(30_000))
    author, time = Author(tmp_path / "author"), FleetTime(monkeypatch)
    author.release("1.3.0", 1, image=image)
    author.release_that_never_runs("1.4.0", 2, image=micropython("1.29.0", comes_up=False))
    (node_id,) = fleet.enrol(1)
    campaigns = Campaigns(fleet, author, time)
    with fleet.serving():
        campaigns.introduce()
        assert fleet.status(node_id).micropython == "1.27.0"

        first = campaigns.begin("1.3.0", PLAN)
        campaigns.pass_time_until_ended(first, 1)
        campaigns.work()
        assert campaigns.state(first) == (CampaignState.COMPLETED, None)
        assert [one.stage for one in campaigns.nodes(first)] == ["succeeded"]
        status = fleet.status(node_id)
        assert (status.version, status.micropython) == ("1.3.0", "1.28.0")
        assert status.image_sha256 == hashlib.sha256(image).hexdigest()

        second = campaigns.begin("1.4.0", PLAN)
        campaigns.pass_time_until_ended(second, 1)
        campaigns.work()
        assert campaigns.state(second) == (CampaignState.PAUSED, "1 of wave 1 rolled back")
        with fleet.sessions() as session:
            why = campaign_words.why_not_updated(session, node_id, now=time.now)
        assert campaign_words.sentence(why, "en") == (
            "It went back to the version before 1.4.0: the release's MicroPython did not come up, and its boot loader"
            " took the one before."
        )
        campaigns.pass_time([node_id])
        wait_until(lambda: fleet.status(node_id).micropython == "1.28.0")
        assert fleet.status(node_id).version == "1.3.0"


# --- the power goes, at many places of an update ---


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("is_good", [True, False], ids=["a good release", "a broken one"])
def test_whenever_the_power_goes_in_an_update_the_campaign_ends_in_what_the_node_runs(
    fleet: Fleet,
    author: Author,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
    is_good: bool,
) -> None:
    time = FleetTime(monkeypatch)
    fleet.enrol(NODES_WITHOUT_POWER)
    campaigns = Campaigns(fleet, author, time)
    released = "1.3.0" if is_good else "1.4.0"
    campaigns.befalls = {node_id: PowerCuts() for node_id in fleet.boards}
    with fleet.serving():
        campaigns.introduce()
        campaign = campaigns.begin(released, replace(PLAN, soak=timedelta(0), pause_share=0.99))
        campaigns.pass_time_until_ended(campaign, 1)
        if not is_good:
            campaigns.resume(campaign)
        campaigns.work()
        (pilot,) = [one.node_id for one in campaigns.nodes(campaign, 1)]
        places = _places(campaigns.befalls[pilot].kinds, campaigns.operations[pilot])
        others = [one.node_id for one in campaigns.nodes(campaign, 2)]
        for number, node_id in enumerate(others):
            campaigns.befalls[node_id] = places[number * len(places) // len(others)]
        campaigns.pass_time_until_ended(campaign, 2)
        ends = {one.node_id: one for one in campaigns.nodes(campaign, 2)}
    lost = {node_id: campaigns.cuts[node_id][0] for node_id in others if campaigns.cuts[node_id]}
    table = Counter((cut, ends[node_id].stage) for node_id, cut in lost.items())
    for (cut, end), count in sorted(table.items()):
        record_property("measured", f"power lost while {cut:12} {count:4} nodes {end}")
    assert len(lost) > 0.9 * len(others), (
        "its wakes took about as many operations as the first one's"
    )
    good, bad = ("succeeded", None, "1.3.0"), ("rolled_back", "crashed", "1.2.3")
    for node_id, one in ends.items():
        version, state = runs(fleet.boards[node_id])
        assert state == "confirmed"
        assert (one.stage, one.reason, version) == (good if is_good else bad)


def _places(kinds: Sequence[str], operations: Sequence[int]) -> list[PowerCuts]:
    """Losses of power in each wake of an update that went like this."""
    found, seen = [], Counter[str]()
    for kind, count in zip(kinds, operations, strict=True):
        if kind != "usual":
            before = [None] * seen[kind]
            found += [PowerCuts(**{kind: [*before, at]}) for at in _sample(count)]
            seen[kind] += 1
    return found


def _sample(operations: int) -> list[int]:
    """Some of these operations, and all of the last ones: there it is decided."""
    step = max(1, operations // 12)
    return sorted({*range(1, operations + 1, step), *range(max(1, operations - 9), operations + 1)})
