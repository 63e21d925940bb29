"""A fleet's releases, the people and the worker behind a campaign, and its nodes, which wake when their time has come."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import cbor2
import nodes
import pytest
from brokers import Certificates, wait_until
from databases import Databases
from sqlalchemy import select
from sqlalchemy.orm import Session
from test_renewal_with_server import Fleet

from fleet_server import clock
from fleet_server.models import NodeStage, Release
from fleet_server.services import (
    authority,
    campaign_steps,
    campaigning,
    online_keys,
    release_repository,
    releasing,
    rights,
)
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import CampaignNodeLine, Plan, Terms
from fleet_server.services.file_store import open_store
from fleet_server.services.releasing import Published
from fleet_server.settings import load_settings
from fleet_server.wire import signed_releases
from fleet_server.wire.manifest import decode_manifest
from hardware.paths import firmware_dir
from hardware.virtual_board.board import HEAP_BYTES, Board
from hardware.virtual_board.flash import PowerCutPlan
from provisioning.release_keys import card_from
from tests.releases import Desk, small_sources

AS_IT_COMES = Terms()
ROUND = timedelta(minutes=15)
ENDED = (
    NodeStage.SUCCEEDED,
    NodeStage.ROLLED_BACK,
    NodeStage.REJECTED,
    NodeStage.FAILED,
    NodeStage.ALREADY_INSTALLED,
)
# An update takes two hours, a way back less; what has not happened by then does not happen.
_MOST_ROUNDS = 40
_AT_ONCE = 8
_SUPPLY_GONE_US = 60_000_000
SERVERS = [
    pytest.param(("embedded", "sqlite_databases"), id="embedded-sqlite"),
    pytest.param(
        ("mosquitto", "postgresql_server"),
        id="mosquitto-postgresql",
        marks=[pytest.mark.needs_mosquitto, pytest.mark.needs_postgresql],
    ),
]
"""A broker, and the fixture of its databases."""


@contextmanager
def fleet_of(broker: str, databases: Databases, folder: Path) -> Iterator[Fleet]:
    """A fleet without nodes, whose services use this broker and a new database."""
    authority.initialise(folder / "ca")
    with databases.fresh() as url:
        made = Fleet(folder, Certificates(folder / "ca"), url, broker=broker)
        yield made
        for door in (made.broker_door, made.other_door, made.listener_door):
            door.close()
        made.engine.dispose()


class FleetTime:
    """What time it is for the server; it moves only when a test moves it. The boards' own time follows their sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)
        monkeypatch.setattr(clock, "now", lambda: self.now)

    @property
    def now_us(self) -> int:
        return int(self.now.timestamp()) * 1_000_000


class Author:
    """The desk of a release author, with the keys of the server that publishes what is signed there."""

    def __init__(self, path: Path) -> None:
        self.path, self.keys_dir = path, path / "keys"
        online_keys.make_keys(self.keys_dir)
        cards = {
            role: card_from(card, what=role)
            for role, card in online_keys.cards(self.keys_dir).items()
        }
        self.desk = Desk(path / "releases", online=cards)
        self.root = self.desk.folder.metadata("root", 1)

    def release(
        self, version: str, counter: int, *, ends_with: str = "", image: bytes | None = None
    ) -> None:
        """Our firmware as this version, signed. `ends_with`: code behind its last module; `image`: the MicroPython that it brings."""
        sources = self.path / version
        shutil.copytree(firmware_dir(), sources)
        module = sources / "node" / "cycle.py"
        module.write_text(f"{module.read_text()}\n\n{ends_with}\n")
        self.desk.release(version, counter, sources=sources, image=image)

    def release_that_never_runs(self, version: str, counter: int, *, image: bytes) -> None:
        """Two modules with a MicroPython under which nothing is started."""
        sources = small_sources(self.path / version)
        self.desk.release(version, counter, sources=sources, image=image)

    def publish(self, fleet: Fleet) -> dict[str, int]:
        """All that was signed, on the fleet's server; the numbers of the releases there, by version."""
        store = open_store(load_settings({}, data_dir=fleet.folder).files_url)
        folder, now = self.desk.folder, clock.now()
        for path in (folder.path / "targets" / "files").iterdir():
            releasing.keep_file(store, path.name, path.read_bytes())
        documents = {
            path: folder.target(path, target.hashes["sha256"])
            for name, data in folder.roles().items()
            for path, target in signed_releases.read(
                data, signed_releases.Targets, what=name
            ).signed.targets.items()
        }
        given = Published(folder.roots(), folder.newest("targets"), folder.roles(), documents)
        with fleet.sessions() as session:
            release_repository.trust_root(session, self.root, self.keys_dir, now=now)
            releasing.publish(session, given, store=lambda: store, keys_dir=self.keys_dir, now=now)
            found = session.execute(select(Release.version, Release.id))
            return {row.version: row.id for row in found}


class Campaigns:
    """People, the worker, and nodes: of those a test lets wake, each wakes whenever its own sleep is over.

    `releases`: their numbers by version. `befalls`: what is done to a node's board before each of its wakes. Of each node `operations`:
    programs and erases of its flash in each wake; `cuts`: how far its update was whenever its power went.
    """

    def __init__(self, fleet: Fleet, author: Author, time: FleetTime) -> None:
        self.fleet, self.author, self.time = fleet, author, time
        self.releases = author.publish(fleet)
        self.befalls: dict[str, Callable[[Board], None]] = {}
        self.operations: dict[str, list[int]] = defaultdict(list)
        self.cuts: dict[str, list[str]] = defaultdict(list)
        for board in fleet.boards.values():
            board.heap_bytes = HEAP_BYTES
            board.write_file("/tuf/root.json", author.root)

    def act_as(self, session: Session, name: str) -> None:
        rights.act_as(session, rights.Actor(name, frozenset(rights.Right)))

    def introduce(self) -> None:
        """Every node says once what it is."""
        self.pass_time(self.fleet.boards)
        wait_until(lambda: self.fleet.heard() == set(self.fleet.boards))

    def begin(self, version: str, plan: Plan, terms: Terms = AS_IT_COMES) -> int:
        """Planned by one, approved by another, and begun."""
        now = self.time.now
        with self.fleet.sessions() as session:
            self.act_as(session, "anna")
            made = campaigning.create_campaign(
                session, self.releases[version], Target(), now=now, plan=plan, terms=terms
            )
            campaigning.start_campaign(session, made.id, now=now)
            self.act_as(session, "bert")
            campaigning.approve_campaign(session, made.id, now=now)
        self.work()
        return made.id

    def resume(self, campaign_id: int) -> None:
        with self.fleet.sessions() as session:
            self.act_as(session, "anna")
            campaigning.resume_campaign(session, campaign_id, now=self.time.now)
        self.work()

    def work(self, later: timedelta = timedelta(0)) -> None:
        """What the worker does, all of it."""
        self.time.now += later
        with self.fleet.sessions() as session:
            release_repository.keep_fresh(session, self.author.keys_dir, now=self.time.now)
            while campaign_steps.advance_all(session, now=self.time.now):
                pass
        self.fleet.are_told()

    def pass_time(self, node_ids: Collection[str], duration: timedelta = ROUND) -> None:
        """So much time goes by, in which these nodes live and the others sleep; then the worker looks."""
        self.time.now += duration
        begins_us = self.time.now_us - int(duration.total_seconds()) * 1_000_000
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(partial(self._live, begins_us, self.time.now_us), node_ids))
        self.work()

    def _live(self, begins_us: int, until_us: int, node_id: str) -> None:
        board = self.fleet.boards[node_id]
        board.pass_time(until_utc_us=begins_us)
        while board.now_us < until_us:
            if node_id in self.befalls:
                self.befalls[node_id](board)
            result = board.run_wake()
            self.operations[node_id].append(result.flash.programs + result.flash.erases)
            if result.reason == "power_cut":
                self.cuts[node_id].append(stage_on_flash(board))
                board.power_on(at_utc_us=board.now_us + _SUPPLY_GONE_US)
                continue
            is_alive = result.reason in ("deepsleep", "reset")
            assert is_alive, f"{node_id}: {result.error}\n{result.stdout}"

    def pass_time_until_ended(self, campaign_id: int, wave: int) -> None:
        """Nodes of a wave live until they are through."""
        for _ in range(_MOST_ROUNDS):
            open_ones = [
                one.node_id for one in self.nodes(campaign_id, wave) if one.stage not in ENDED
            ]
            if not open_ones:
                return
            self.pass_time(open_ones)
        pytest.fail(f"not through: {self.nodes(campaign_id, wave)}")

    def nodes(self, campaign_id: int, wave: int | None = None) -> list[CampaignNodeLine]:
        with self.fleet.sessions() as session:
            page = campaigning.node_page(session, campaign_id, wave=wave, limit=1000)
        return list(page.items)

    def needed_bytes(self, version: str) -> int:
        """Of metadata and manifest, and of the files that differ from our firmware, for a node that has the root."""
        with self.fleet.sessions() as session:
            newest = release_repository.newest_metadata(session)
            manifest = session.scalars(
                select(Release.manifest).where(Release.version == version)
            ).one()
        signed = sum(len(row.data) for role, row in newest.items() if role != signed_releases.ROOT)
        old = {hashlib.sha256(data).digest() for data in nodes.bundle().slot_files.values()}
        files = [one for one in decode_manifest(manifest).files if one.sha256 not in old]
        return signed + len(manifest) + sum(one.size_bytes for one in files)

    def state(self, campaign_id: int) -> tuple[str, str | None]:
        with self.fleet.sessions() as session:
            found = campaigning.overview(session, campaign_id).campaign
            return found.state, found.reason

    def opened_wave(self, campaign_id: int) -> int:
        with self.fleet.sessions() as session:
            return campaigning.overview(session, campaign_id).campaign.wave


class PowerCuts:
    """The supply of a board goes in some of its wakes: of each kind in those whose operations are given, one after the other; None: not
    in that one. `kinds`: of its wakes so far.

    Kinds: `session` (it fetches and installs), `trial`, `back` (it tells why it went back), `usual`.
    """

    def __init__(self, **operations: Sequence[int | None]) -> None:
        self.due = {kind: list(numbers) for kind, numbers in operations.items()}
        self.kinds: list[str] = []

    def __call__(self, board: Board) -> None:
        self.kinds.append(kind_of_next_wake(board))
        due = self.due.get(self.kinds[-1])
        at = due.pop(0) if due else None
        if at is not None:
            board.power_cut = PowerCutPlan(at_operation=at, torn=at % 2 == 1)


def kind_of_next_wake(board: Board) -> str:
    """As `PowerCuts` names them."""
    code = (
        "import sys, slots\nrecord = slots.select()\nsys.path.insert(0, '/' + record.slot)\n"
        "from node import rtc_memory\nprint(record.state, record.reason, rtc_memory.load().update)"
    )
    state, reason, update = board.exec(code).split()
    if state == "trial":
        return "trial"
    if reason != "0":
        return "back"
    return "session" if update == "1" else "usual"


def stage_on_flash(board: Board) -> str:
    """How far the node's update has come, as its flash says."""
    *_, stage, _, _, _ = cbor2.loads(board.nvs_blob("upd", "job"))
    return str(stage)


def runs(board: Board) -> tuple[str, str]:
    """The version in the slot that runs, and whether it is on trial, as the flash says."""
    slot, state = board.exec(
        "import slots\nrecord = slots.select()\nprint(record.slot, record.state)"
    ).split()
    return json.loads(board.read_file(f"/{slot}/VERSION"))["version"], state
