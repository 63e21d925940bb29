"""`provision virtual run` as a person starts it: real processes, real firmware, real TLS to a real broker."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.provisioning.conftest import GOOD_TOKEN, SmallFleet
from tests.provisioning.small_ingest import SmallIngest, small_ingest

PROVISION = Path(sys.executable).parent / "provision"
NOW_UTC_S = int(time.time()) // 3600 * 3600


@pytest.fixture
def ingest(fleet: SmallFleet, tmp_path: Path) -> Iterator[SmallIngest]:
    with small_ingest(fleet, tmp_path / "fleet") as running:
        yield running


def command(
    fleet: SmallFleet, data_dir: Path, *, hours: float, nodes: int, more: list[str]
) -> list[Any]:
    return [
        PROVISION, "virtual", "run", "--json",
        "--data", data_dir, "--nodes", str(nodes),
        "--start", str(int(NOW_UTC_S - hours * 3600)), "--now", str(NOW_UTC_S),
        "--server", fleet.url, "--server-ca", fleet.ca_file, "--token", GOOD_TOKEN,
        *more,
    ]  # fmt: skip


def run(
    fleet: SmallFleet, data_dir: Path, *, hours: float, nodes: int, more: list[str]
) -> tuple[int, list[dict[str, Any]], str]:
    result = subprocess.run(
        command(fleet, data_dir, hours=hours, nodes=nodes, more=more),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return (
        result.returncode,
        [json.loads(line) for line in result.stdout.splitlines()],
        result.stderr,
    )


def test_every_pack_of_some_hours_is_received_and_has_its_receipt(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    status, events, errors = run(
        fleet, tmp_path / "nodes", hours=6, nodes=2, more=["--until-caught-up", "--patience", "30"]
    )
    assert status == 0, errors
    enrolled = [event for event in events if event["event"] == "enrolled"]
    assert [event["label"] for event in enrolled] == ["tree-01", "pond-01"]
    done = events[-1]
    assert (done["event"], done["nodes"], done["caught_up"]) == ("done", 2, 2)
    assert done["packs_held"] == 0
    assert done["packs_written"] == len(ingest.packs) >= 2 * 20
    tree = ingest.of(enrolled[0]["node_id"])
    assert [pack.seq for pack in tree] == list(range(1, len(tree) + 1))
    assert {reading[0] for reading in tree[0].readings} == {
        "r30", "t30", "r60", "t60", "r90", "t90", "bat",
    }  # fmt: skip
    assert all(value is not None for pack in tree for _, value, _ in pack.readings)
    assert ingest.states >= 10
