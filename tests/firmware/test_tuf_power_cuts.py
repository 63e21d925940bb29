"""The power goes at every flash operation of a refresh that replaces every file: what is trusted then is whole, and no older than it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tuf.api.metadata import MetaFile
from tuf_repository import NOW_S, TufRepository

from hardware.virtual_board.board import Board, ScriptFailed
from hardware.virtual_board.flash import PowerCutPlan
from provisioning.tuf_board import TRUSTED, Job, Outcome, TufRun, do_job, make_board, running

RELEASE = Job(NOW_S, "tree-3/0.1.0.cbor")
ROLES = ("root", "timestamp", "snapshot", "targets", "tree-3")


@dataclass
class Before:
    """A board that trusts the first versions of everything, and a repository with the second ones (and the first root's keys gone)."""

    folder: Path
    old: TufRepository
    new: TufRepository
    operations: int = 0

    def board(self, folder: Path) -> Board:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return Board(folder)


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    old = TufRepository()
    root = old.files["1.root.json"]
    folder = tmp_path_factory.mktemp("cuts") / "node"
    assert do_job(make_board(folder, {"root.json": root}, now_s=NOW_S), old, RELEASE).target
    new = TufRepository()
    new.__dict__.update({name: value for name, value in vars(old).items() if name != "files"})
    new.files = dict(old.files)
    new.replace_keys("timestamp")
    new.publish("root", "tree-3", "targets", "snapshot", "timestamp")
    ready = Before(folder, old, new)
    ready.operations = _count(ready.board(folder.with_name("counted")), new)
    return ready


def _count(board: Board, repository: TufRepository) -> int:
    """Flash operations of the whole refresh."""
    jobs = [RELEASE]
    with running(
        board, repository, next_job=lambda: jobs.pop() if jobs else None, done=lambda _: None
    ) as run:
        run.work()
        counters = _counters(run)
    assert _versions(board) == dict.fromkeys(ROLES, 2)
    return counters


def _counters(run: TufRun) -> int:
    counters = run._flash.counters
    return counters.programs + counters.erases


def _versions(board: Board) -> dict[str, int]:
    found = {}
    for path, _ in board.list_files(TRUSTED):
        if path.endswith(".json"):
            name = path.rpartition("/")[2].removesuffix(".json")
            found[name] = json.loads(board.read_file(path))["signed"]["version"]
    return found


def _cut(before: Before, folder: Path, operation: int, *, torn: bool) -> None:
    board = before.board(folder)
    board.power_cut = PowerCutPlan(operation, torn=torn)
    with pytest.raises(ScriptFailed, match="PowerCut"):
        do_job(board, before.new, RELEASE)
    board = Board(folder)

    # Whole, each of them, and never behind what was trusted before.
    versions = _versions(board)
    assert set(versions) == set(ROLES)
    assert set(versions.values()) <= {1, 2}
    # The next run has everything, wherever this one was cut.
    found = do_job(board, before.new, RELEASE)
    assert found == Outcome(None, None, found.target, True)
    assert found.target is not None
    assert _versions(board) == dict.fromkeys(ROLES, 2)


def test_a_refresh_that_is_cut_goes_on_at_the_next(before: Before, tmp_path: Path) -> None:
    for share in (0, 0.3, 0.55, 0.8, 0.999):
        operation = 1 + int(share * (before.operations - 1))
        _cut(before, tmp_path / "node", operation, torn=operation % 2 == 0)


@pytest.mark.nightly
@pytest.mark.parametrize("torn", [False, True], ids=["between", "within"])
def test_a_refresh_can_be_cut_at_every_operation(
    before: Before, tmp_path: Path, torn: bool
) -> None:
    assert before.operations > 20
    for operation in range(1, before.operations + 1):
        _cut(before, tmp_path / "node", operation, torn=torn)


def test_what_was_trusted_when_the_power_went_is_not_given_up_for_older(
    before: Before, tmp_path: Path
) -> None:
    """Behind the new root and timestamp, the repository of before has nothing to say any more."""
    for operation in range(before.operations, 0, -max(1, before.operations // 4)):
        board = before.board(tmp_path / "node")
        board.power_cut = PowerCutPlan(operation)
        with pytest.raises(ScriptFailed, match="PowerCut"):
            do_job(board, before.new, RELEASE)
        board = Board(tmp_path / "node")
        versions = _versions(board)
        outcome = do_job(board, before.old, RELEASE)
        if versions["root"] == 2:
            assert outcome.refused == "timestamp signature"
        after = _versions(board)
        assert all(after[role] >= versions[role] for role in ROLES)


def test_a_node_that_is_short_of_memory_takes_no_check_for_passed(tmp_path: Path) -> None:
    """A held snapshot that does not fit into the heap is not a snapshot that was not there: then a role could be left out of the next."""
    repository = TufRepository()
    meta = repository.signed["snapshot"].meta
    meta.update({f"role-{number}.json": MetaFile(1) for number in range(120)})
    repository.publish("snapshot", "timestamp")
    root = {"root.json": repository.files["1.root.json"]}
    assert do_job(make_board(tmp_path / "ready", root, now_s=NOW_S), repository, RELEASE).target
    for number in range(120):
        del meta[f"role-{number}.json"]
    repository.publish("snapshot", "timestamp")
    outcomes = set()
    for heap_bytes in range(6 * 1024, 17 * 1024, 1024):
        shutil.rmtree(tmp_path / "node", ignore_errors=True)
        shutil.copytree(tmp_path / "ready", tmp_path / "node")
        board = Board(tmp_path / "node")
        board.heap_bytes = heap_bytes
        try:
            outcome = do_job(board, repository, RELEASE)
            outcomes.add(outcome.refused or str(outcome.failed).partition("(")[0])
        except ScriptFailed:
            outcomes.add("MemoryError")
        assert _versions(board)["snapshot"] == 2

    assert outcomes == {"MemoryError", "targets rolled back"}
