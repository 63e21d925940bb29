"""A release from the author's desk to nodes that run it, and one that stops at its canary: real firmware, real services, real broker."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import nodes
import pytest
from brokers import Certificates, wait_until
from databases import SqliteDatabases
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_renewal_with_server import Fleet

from fleet_server.models import CampaignState, NodeStage, Release
from fleet_server.services import (
    authority,
    campaign_steps,
    campaign_words,
    campaigning,
    online_keys,
    release_repository,
    releasing,
    rights,
)
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import CampaignNodeLine, Plan
from fleet_server.services.file_store import open_store
from fleet_server.services.releasing import Published
from fleet_server.settings import load_settings
from fleet_server.wire import signed_releases
from fleet_server.wire.manifest import decode_manifest
from hardware.paths import firmware_dir
from hardware.virtual_board.board import HEAP_BYTES
from hardware.virtual_board.esp_image import micropython
from provisioning.release_keys import card_from
from tests.releases import Desk, small_sources

PLAN = Plan(canaries=1, shares=(1.0,), soak=timedelta(hours=1), minimum_reached=1)
# An update takes six wakes, a way back some more; what has not happened by then does not happen.
MOST_WAKES = 40
NODES = 200
ROUNDS_AWAY = 200
BREAKS = "raise ValueError('broken')"


class Releases:
    """The desk of a release author beside the server that publishes what is signed there."""

    def __init__(self, fleet: Fleet, path: Path) -> None:
        self.fleet, self.path = fleet, path
        self.keys_dir = fleet.folder / "release_keys"
        self.store = open_store(load_settings({}, data_dir=fleet.folder).files_url)
        online_keys.make_keys(self.keys_dir)
        cards = {
            role: card_from(card, what=role)
            for role, card in online_keys.cards(self.keys_dir).items()
        }
        self.now = datetime.now(UTC)
        self.desk = Desk(path / "releases", now=self.now, online=cards)
        self.root = self.desk.folder.metadata("root", 1)
        with fleet.sessions() as session:
            release_repository.trust_root(session, self.root, self.keys_dir, now=self.now)

    def release(
        self,
        version: str,
        counter: int,
        *,
        breaks: bool = False,
        is_small: bool = False,
        image: bytes | None = None,
    ) -> int:
        """Our firmware as this version, published; its number. `is_small`: two modules that never get to run; `image`: the MicroPython
        that it brings.
        """
        sources = self.path / version
        if is_small:
            small_sources(sources)
        else:
            shutil.copytree(firmware_dir(), sources)
        if breaks:
            module = sources / "node" / "cycle.py"
            module.write_text(module.read_text() + f"\n\n{BREAKS}\n")
        self.desk.release(version, counter, sources=sources, image=image)
        folder = self.desk.folder
        for path in (folder.path / "targets" / "files").iterdir():
            releasing.keep_file(self.store, path.name, path.read_bytes())
        documents = {
            path: folder.target(path, target.hashes["sha256"])
            for name, data in folder.roles().items()
            for path, target in signed_releases.read(
                data, signed_releases.Targets, what=name
            ).signed.targets.items()
        }
        given = Published(folder.roots(), folder.newest("targets"), folder.roles(), documents)
        with self.fleet.sessions() as session:
            releasing.publish(
                session, given, store=lambda: self.store, keys_dir=self.keys_dir, now=self.now
            )
            found = session.scalar(select(Release.id).where(Release.version == version))
        assert found is not None
        return found

    def needed(self, version: str) -> int:
        """Bytes of metadata and manifest, and of the files that differ from our firmware, for a node that has the root."""
        with self.fleet.sessions() as session:
            newest = release_repository.newest_metadata(session)
            manifest = session.scalars(
                select(Release.manifest).where(Release.version == version)
            ).one()
        signed = sum(len(row.data) for role, row in newest.items() if role != signed_releases.ROOT)
        old = {sha256(data).digest() for data in nodes.bundle().slot_files.values()}
        files = [one for one in decode_manifest(manifest).files if one.sha256 not in old]
        return signed + len(manifest) + sum(one.size_bytes for one in files)


class Campaigns:
    """People and the worker, and nodes that wake one after the other until something has happened."""

    def __init__(self, fleet: Fleet, releases: Releases) -> None:
        self.fleet, self.releases = fleet, releases
        self.now = datetime.now(UTC).replace(microsecond=0)

    def act_as(self, session: Session, name: str) -> None:
        rights.act_as(session, rights.Actor(name, frozenset(rights.Right)))

    def begin(self, release_id: int, plan: Plan = PLAN) -> int:
        with self.fleet.sessions() as session:
            self.act_as(session, "anna")
            made = campaigning.create_campaign(
                session, release_id, Target(), now=self.now, plan=plan
            )
            campaigning.start_campaign(session, made.id, now=self.now)
            self.act_as(session, "bert")
            campaigning.approve_campaign(session, made.id, now=self.now)
        self.work()
        return made.id

    def work(self, later: timedelta = timedelta(0)) -> None:
        self.now += later
        with self.fleet.sessions() as session:
            while campaign_steps.advance_all(session, now=self.now):
                pass
        self.fleet.are_told()

    def wake_until_ended(self, campaign_id: int, wave: int) -> None:
        """Nodes of a wave wake until they are through."""
        for _ in range(MOST_WAKES):
            open_ones = [
                one.node_id for one in self.nodes(campaign_id, wave) if one.stage not in ENDED
            ]
            if not open_ones:
                return
            for node_id in open_ones:
                self.fleet.boards[node_id].run_wake()
            self.work(timedelta(seconds=1))
        pytest.fail(f"not through: {self.nodes(campaign_id, wave)}")

    def nodes(self, campaign_id: int, wave: int | None = None) -> list[CampaignNodeLine]:
        with self.fleet.sessions() as session:
            page = campaigning.node_page(session, campaign_id, wave=wave, limit=1000)
        return list(page.items)

    def state(self, campaign_id: int) -> tuple[str, str | None]:
        with self.fleet.sessions() as session:
            found = campaigning.overview(session, campaign_id).campaign
            return found.state, found.reason


ENDED = (
    NodeStage.SUCCEEDED,
    NodeStage.ROLLED_BACK,
    NodeStage.REJECTED,
    NodeStage.FAILED,
    NodeStage.ALREADY_INSTALLED,
)


@pytest.fixture
def fleet(tmp_path: Path, sqlite_databases: SqliteDatabases) -> Iterator[Fleet]:
    authority.initialise(tmp_path / "ca")
    with sqlite_databases.fresh() as url:
        made = Fleet(tmp_path, Certificates(tmp_path / "ca"), url)
        yield made
        for door in (made.broker_door, made.other_door, made.listener_door):
            door.close()
        made.engine.dispose()


def test_good_release_gets_to_every_node_and_a_broken_one_stops_at_its_canary(
    fleet: Fleet, tmp_path: Path
) -> None:
    releases = Releases(fleet, tmp_path / "desk")
    node_ids = fleet.enrol(2)
    for board in fleet.boards.values():
        board.heap_bytes = HEAP_BYTES
        board.write_file("/tuf/root.json", releases.root)
    good, broken = releases.release("1.3.0", 1), releases.release("1.4.0", 2, breaks=True)
    campaigns = Campaigns(fleet, releases)
    with fleet.serving():
        for board in fleet.boards.values():
            board.run_wake()
        wait_until(lambda: fleet.heard() == set(node_ids))

        first = campaigns.begin(good)
        campaigns.wake_until_ended(first, 1)
        needed = releases.needed("1.3.0")
        assert fleet.listener_door.passed_bytes <= 1.2 * needed
        assert [one.stage for one in campaigns.nodes(first)] == ["succeeded", "planned"]
        campaigns.work(timedelta(hours=2))
        campaigns.wake_until_ended(first, 2)
        campaigns.work()
        assert campaigns.state(first) == (CampaignState.COMPLETED, None)
        for node_id in node_ids:
            status = fleet.status(node_id)
            assert (status.version, status.counter, status.slot_state) == ("1.3.0", 1, "confirmed")

        second = campaigns.begin(broken)
        campaigns.wake_until_ended(second, 1)
        campaigns.work()
        assert campaigns.state(second) == (CampaignState.PAUSED, "1 of wave 1 rolled back")
        (canary,) = [one for one in campaigns.nodes(second) if one.wave == 1]
        assert (canary.stage, canary.reason) == ("rolled_back", "crashed")
        wait_until(lambda: fleet.status(canary.node_id).version == "1.3.0")
        with fleet.sessions() as session:
            why = campaign_words.why_not_updated(session, canary.node_id, now=campaigns.now)
        assert campaign_words.sentence(why, "en") == (
            "It went back to the version before 1.4.0: the new version crashed."
        )


def test_release_with_another_micropython_succeeds_once_both_run_and_one_that_does_not_come_up_stops(
    fleet: Fleet, tmp_path: Path
) -> None:
    """From a file at the author's desk to the boot loader of a board. Not tried on hardware."""
    releases = Releases(fleet, tmp_path / "desk")
    (node_id,) = fleet.enrol(1)
    board = fleet.boards[node_id]
    board.heap_bytes = HEAP_BYTES
    board.write_file("/tuf/root.json", releases.root)
    image = micropython("1.28.0", more=bytes(30_000))
    good = releases.release("1.3.0", 1, image=image)
    bad = releases.release("1.4.0", 2, is_small=True, image=micropython("1.29.0", comes_up=False))
    campaigns = Campaigns(fleet, releases)
    with fleet.serving():
        board.run_wake()
        wait_until(lambda: fleet.heard() == {node_id})
        assert fleet.status(node_id).micropython == "1.27.0"

        first = campaigns.begin(good)
        campaigns.wake_until_ended(first, 1)
        campaigns.work()
        assert campaigns.state(first) == (CampaignState.COMPLETED, None)
        assert [one.stage for one in campaigns.nodes(first)] == ["succeeded"]
        status = fleet.status(node_id)
        assert (status.version, status.micropython) == ("1.3.0", "1.28.0")
        assert status.image_sha256 == hashlib.sha256(image).hexdigest()

        second = campaigns.begin(bad)
        campaigns.wake_until_ended(second, 1)
        campaigns.work()
        assert campaigns.state(second) == (CampaignState.PAUSED, "1 of wave 1 rolled back")
        with fleet.sessions() as session:
            why = campaign_words.why_not_updated(session, node_id, now=campaigns.now)
        assert campaign_words.sentence(why, "en") == (
            "It went back to the version before 1.4.0: the release's MicroPython did not come up, and its boot loader"
            " took the one before."
        )
        board.run_wake()
        wait_until(lambda: fleet.status(node_id).micropython == "1.28.0")
        assert fleet.status(node_id).version == "1.3.0"


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_hundred_nodes_with_bad_links_absences_and_foreign_roots_all_end_in_the_truth(
    fleet: Fleet, tmp_path: Path
) -> None:
    """Every tenth has a link that breaks, every twentieth sleeps for days, three in a hundred trust another root."""
    releases, drawn = Releases(fleet, tmp_path / "desk"), random.Random(7)
    foreign = Desk(tmp_path / "foreign", now=releases.now).folder.metadata("root", 1)
    node_ids = fleet.enrol(NODES)
    flaky_count, absent_count, broken_count = NODES // 10, NODES // 20, max(1, NODES * 3 // 100)
    mixed = drawn.sample(node_ids, flaky_count + absent_count + broken_count)
    flaky, absent = set(mixed[:flaky_count]), set(mixed[flaky_count : flaky_count + absent_count])
    broken = set(mixed[flaky_count + absent_count :])
    for node_id, board in fleet.boards.items():
        board.heap_bytes = HEAP_BYTES
        board.write_file("/tuf/root.json", foreign if node_id in broken else releases.root)
    release = releases.release("1.3.0", 1)
    campaigns = Campaigns(fleet, releases)
    with fleet.serving():
        for board in fleet.boards.values():
            board.run_wake()
        wait_until(lambda: fleet.heard() == set(node_ids))
        campaign = campaigns.begin(release, Plan(canaries=5, soak=timedelta(hours=1)))
        for round_number in range(2 * ROUNDS_AWAY):
            is_back = round_number >= ROUNDS_AWAY
            state, _ = campaigns.state(campaign)
            if state == CampaignState.COMPLETED:
                break
            if state == CampaignState.PAUSED:  # so few in a wave that one broken node is too many
                with fleet.sessions() as session:
                    campaigns.act_as(session, "bert")
                    campaigning.resume_campaign(session, campaign, now=campaigns.now)
            for one in campaigns.nodes(campaign):
                if one.stage in (*ENDED, NodeStage.PLANNED):
                    continue
                if one.node_id in absent and not is_back:
                    continue
                board = fleet.boards[one.node_id]
                breaks = one.node_id in flaky and drawn.random() < 0.5
                board.network_policy.drop_after_sent = drawn.randrange(8000) if breaks else None
                board.run_wake()
            campaigns.work(timedelta(minutes=20))
    assert campaigns.state(campaign)[0] == CampaignState.COMPLETED
    stages = {one.node_id: one.stage for one in campaigns.nodes(campaign)}
    for node_id in node_ids:
        runs_it = fleet.status(node_id).version == "1.3.0"
        assert (stages[node_id] == NodeStage.SUCCEEDED) == runs_it, node_id
        assert runs_it == (node_id not in broken), (node_id, stages[node_id])
        if node_id in broken:
            assert stages[node_id] == NodeStage.REJECTED
