"""`provision virtual run` as a person starts it: real processes, real firmware, real TLS to a real broker."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hardware.virtual_board.ledger import packs_in_segment, spool_on_flash
from tests.provisioning.conftest import GOOD_TOKEN, Command, SmallFleet
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


@contextmanager
def running(
    fleet: SmallFleet, data_dir: Path, *, hours: float, nodes: int, more: list[str]
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(fleet, data_dir, hours=hours, nodes=nodes, more=more),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def wait_for(process: subprocess.Popen[str], **least: int) -> dict[str, Any]:
    """The first progress event with at least these numbers."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["event"] != "enrolled" and all(event[name] >= n for name, n in least.items()):
            return event
    pytest.fail(f"ended without {least}")


def ledgers(data_dir: Path) -> dict[tuple[str, int, int], bool]:
    """{(node id, spool, sequence): is held} of every pack that the boards' ledgers know."""
    found = {}
    for path in data_dir.glob("*/ledger.json"):
        node_id = json.loads((path.parent / "node.json").read_text())["node_id"]
        for spool, book in json.loads(path.read_text())["spools"].items():
            held = {seq for first, last in book["held"] for seq in range(first, last + 1)}
            for first, last in book["written"]:
                for seq in range(first, last + 1):
                    found[node_id, int(spool), seq] = seq in held
    return found


def on_flash(folder: Path) -> list[tuple[int, int, int, bytes]]:
    """(sequence, power-up, uptime in ms, body) of every pack on a board's flash, in order."""
    with spool_on_flash(folder / "flash.bin") as spool:
        segments = sorted(name for name in spool.sizes() if name.endswith(".seg"))
        packs = [pack for name in segments for pack in packs_in_segment(spool.read(name))]
    return [(pack.seq, pack.power_up_id, pack.uptime_ms, pack.body) for pack in packs]


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
        "r30", "t30", "r60", "t60", "r90", "t90", "ref", "bat",
    }  # fmt: skip
    assert all(value is not None for pack in tree for _, value, _ in pack.readings)
    assert ingest.states >= 10
    # The ledger's reading of the flash and the server's reading of the wire: two decoders, the same bytes.
    assert on_flash(tmp_path / "nodes" / "tree-01") == [
        (pack.seq, pack.power_up, pack.uptime_ms, pack.body) for pack in tree
    ]


def test_a_run_killed_again_and_again_goes_on_where_every_board_was(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    data_dir = tmp_path / "nodes"
    boots = 0
    for _ in range(2):
        with running(fleet, data_dir, hours=8, nodes=2, more=["--until-caught-up"]) as process:
            boots = wait_for(process, boots=boots + 6)["boots"]
            os.killpg(process.pid, signal.SIGKILL)
    status, events, errors = run(
        fleet, data_dir, hours=8, nodes=2, more=["--until-caught-up", "--patience", "30"]
    )
    assert status == 0, errors
    assert len(fleet.requests) == 2
    books = ledgers(data_dir)
    assert set(books) == set(ingest.packs)
    assert not any(books.values())
    assert events[-1]["packs_written"] == len(books)
    # A killed board has lost its power: it says so by a new power-up, and its time went on.
    powered_up = {(pack.node_id, pack.power_up) for pack in ingest.packs.values()}
    assert len(powered_up) > 2
    for node_id in {node_id for node_id, _ in powered_up}:
        times = [pack.time_utc_s for pack in ingest.of(node_id) if pack.time_utc_s is not None]
        assert times == sorted(set(times))


def test_workers_of_a_killed_parent_end_before_the_folder_is_used_again(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    data_dir = tmp_path / "nodes"
    with running(fleet, data_dir, hours=200, nodes=1, more=["--until-caught-up"]) as process:
        boots = wait_for(process, boots=4)["boots"]
        process.kill()
    more = ["--patience", "30"]
    with running(fleet, data_dir, hours=200, nodes=1, more=more) as process:
        assert wait_for(process, boots=boots + 1)["nodes"] == 1
        process.terminate()
        assert process.wait(20) == 0
    books = ledgers(data_dir)
    assert set(ingest.packs) <= set(books)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_end_ends_with_every_board_asleep(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path, number: signal.Signals
) -> None:
    with running(fleet, tmp_path / "nodes", hours=200, nodes=2, more=[]) as process:
        wait_for(process, boots=5)
        process.send_signal(number)
        assert process.stdout is not None
        last = json.loads(process.stdout.read().splitlines()[-1])
        assert process.wait(20) == 0
    assert last["event"] == "done"
    books = ledgers(tmp_path / "nodes")
    assert last["packs_written"] == len(books)
    assert last["packs_held"] == sum(books.values())


def test_after_the_past_the_nodes_live_by_the_fleets_clock(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    # At this speed two hours take 4.8 s, however busy the machine is; unpaced they are over before the machine has warmed up.
    began = time.monotonic()
    with running(fleet, tmp_path / "nodes", hours=1, nodes=1, more=["--speed", "1500"]) as process:
        wait_for(process, sim_utc_s_min=NOW_UTC_S + 2 * 3600)
    assert time.monotonic() - began > 4.5


def test_packs_without_a_receipt_end_the_run_with_a_sentence_that_names_the_nodes(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    ingest.gives_receipts = False
    status, _, errors = run(
        fleet, tmp_path / "nodes", hours=2, nodes=1, more=["--until-caught-up", "--patience", "3"]
    )
    assert status == 1
    assert (
        errors.strip().splitlines()[-1].startswith("provision: tree-01 made no progress for 3 s: ")
    )
    assert "packs wait for a receipt" in errors
    assert "Traceback" not in errors


def test_power_cuts_at_random_flash_operations_lose_and_double_nothing(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    status, events, errors = run(
        fleet,
        tmp_path / "nodes",
        hours=5,
        nodes=2,
        more=["--until-caught-up", "--patience", "30", "--fault", "power_cut:0.5"],
    )
    assert status == 0, errors
    assert events[-1]["power_cuts"] >= 4
    assert set(ledgers(tmp_path / "nodes")) == set(ingest.packs)


@pytest.mark.parametrize(
    "kinds",
    [
        ("no_wifi", "refused", "no_time", "wrong_time"),
        # A connection that dies silently is waited for in real time, up to half a minute.
        pytest.param(("half_open", "slow"), marks=pytest.mark.nightly),
    ],
)
def test_a_bad_network_delays_packs_and_loses_none(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    more = ["--until-caught-up", "--patience", "60", *(f"--fault={kind}:0.15" for kind in kinds)]
    status, events, errors = run(fleet, tmp_path / "nodes", hours=5, nodes=2, more=more)
    assert status == 0, errors
    assert set(ledgers(tmp_path / "nodes")) == set(ingest.packs)
    assert events[-1]["packs_written"] == len(ingest.packs)


def test_a_second_run_on_a_folder_in_use_is_told_so(
    fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    data_dir = tmp_path / "nodes"
    with running(fleet, data_dir, hours=200, nodes=1, more=[]) as process:
        wait_for(process, boots=1)
        second = subprocess.run(
            command(fleet, data_dir, hours=200, nodes=1, more=[]),
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert second.returncode == 1
    assert second.stderr.strip() == f"provision: {data_dir} is in use by another run."


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--fault", "earthquake:1"], "KIND is one of power_cut"),
        (["--fault", "power_cut"], "is not KIND:RATE"),
        (["--fault", "power_cut:2"], "RATE from 0 to 1"),
        (["--nodes", "0"], "0 is not in the range"),
    ],
)
def test_wrong_use_ends_with_exit_2(
    fleet: SmallFleet, tmp_path: Path, provision: Command, more: list[str], said: str
) -> None:
    _, *words = map(str, command(fleet, tmp_path / "nodes", hours=1, nodes=1, more=more))
    status, _, errors = provision(shlex.join(words))
    assert status == 2
    assert said in errors
    assert fleet.requests == []


def test_a_wrong_token_ends_with_one_sentence(fleet: SmallFleet, tmp_path: Path) -> None:
    status, _, errors = run(fleet, tmp_path / "nodes", hours=1, nodes=1, more=["--token", "wrong"])
    assert status == 1
    assert (
        errors == "provision: The fleet refused the enrolment: The enrolment token is not valid.\n"
    )
