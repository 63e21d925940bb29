"""The restore drill with real nodes: the database is destroyed, and what the backup lacks comes back from their flash."""

from __future__ import annotations

from pathlib import Path

import pytest
from system import READY_S, System, is_clean, run_command, running

DAY_S = 86_400


@pytest.mark.parametrize(
    ("nodes", "days"),
    [(1, 0.5), pytest.param(6, 4.0, marks=[pytest.mark.nightly, pytest.mark.timeout(900)])],
    ids=["a few packs", "a thousand packs"],
)
def test_what_came_after_the_backup_is_sent_again_and_nothing_is_missing(
    tmp_path: Path, nodes: int, days: float
) -> None:
    system = System(tmp_path / "server", nodes=nodes, days=days)
    with running(system):
        _live(system, until=0.25)
        made = run_command(
            "fleet", "db", "backup", str(tmp_path / "backups"), "--data", str(system.folder)
        )
        assert made.returncode == 0, made.stderr
        (backup,) = (tmp_path / "backups").iterdir()
        _live(system, until=0.9)
        written = system.books()["packs_written"]

        for name in ("serve", "worker", "ingest", "broker"):
            system.stop(name)
        (system.folder / "fleet.sqlite3").unlink()
        (system.folder / "fleet.sqlite3-wal").unlink(missing_ok=True)
        restored = run_command("fleet", "db", "restore", str(backup), "--data", str(system.folder))
        assert restored.returncode == 0, restored.stderr
        assert 0 < system.books()["packs_stored"] < written / 2
        system.start_servers()
        _live(system, until=1.0)

        books, report = system.books(), system.verify()
    assert books["packs_missing"] == books["packs_duplicate"] == 0
    assert books["packs_stored"] == books["packs_written"] > written
    assert is_clean(report), report


def _live(system: System, *, until: float) -> None:
    """All nodes, up to a part of the past days, until every pack has its receipt."""
    lived_s = round(until * system.days * DAY_S)
    boards = system.start_boards(now_s=system.start_s + lived_s)
    try:
        boards.wait_for("done", timeout_s=4 * READY_S)
    finally:
        system.stop("boards")
