"""`fleet uncertainty` as it is typed, over a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from databases import SqliteDatabases
from factories import NOON, NOON_S, SimulatedNode, deployed_node
from typed_commands import Answering, answering, is_one_sentence

from fleet_server import clock, db
from fleet_server.cli.main import main
from fleet_server.services import ingest


@pytest.fixture
def fleet(
    sqlite_databases: SqliteDatabases,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Answering]:
    """A node has measured once."""
    with sqlite_databases.fresh() as url:
        monkeypatch.setenv("FLEET_DATABASE_URL", url)
        monkeypatch.setenv("FLEET_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("FLEET_DEMO", "true")
        monkeypatch.setenv("FLEET_CLOCK", f"{NOON_S + 3600}@0x0")
        engine = db.make_engine(url)
        with db.session_factory(engine)() as session:
            deployed_node(session)
            pack = SimulatedNode(started_s=NOON_S).pack(1)
            ingest.store_batch(session, [pack], now=NOON)
        yield answering("fleet", "uncertainty", main=main, monkeypatch=monkeypatch, capsys=capsys)
        engine.dispose()
        clock.use_clock(clock.REAL)


def test_parts_of_a_channels_newest_value_are_told_with_what_would_make_it_surer(
    fleet: Answering,
) -> None:
    told = fleet("n-000001", "r30").out
    assert told.startswith(
        "soil_water_tension at n-000001-site, 2026-07-01T12:15:00Z: 14.2 kPa\nu = "
    )
    assert "Nobody has calibrated this probe where it works" in told
    shares = [float(line.split()[0]) for line in told.splitlines() if " % " in line[:8]]
    assert sum(shares) == pytest.approx(100.0)
    assert "A calibration where it works would bring u from" in told
    found = json.loads(fleet("n-000001", "r30", "--json").out)
    again = json.loads(fleet("--observation", str(found["observation"]), "--json").out)
    assert again == found
    assert [part["share_pct"] for part in found["parts"]] == shares
    for typed, status, sentence in (
        (("n-000001", "x9"), 1, "it has bat, r30"),
        (("n-000009", "r30"), 1, "There is no node n-000009"),
        (("n-000001",), 2, "Name a node and its channel"),
        ((), 2, "Name a node and its channel"),
        (("n-000001", "r30", "--observation", "5"), 2, "Name a node and its channel"),
        (("--observation", "5"), 1, "There is no observation 5"),
        (("--observation", str(found["observation"]), "--version", "9"), 1, "no version 9"),
        (("--observation", "9" * 20), 2, "is not in the range"),
    ):
        wrong = fleet(*typed)
        assert (wrong.status, is_one_sentence(wrong.err, sentence)) == (status, True), wrong.err
