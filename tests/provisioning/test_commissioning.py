"""`provision node commission` and `label`: from a bare board to papers, one node or many in a row, and on after a break."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typed_commands import is_one_sentence

from hardware.scenes import load_scene
from hardware.virtual_board.board import Board
from hardware.virtual_board.cable.chips import ESP32
from hardware.virtual_board.cable.serving import Serving
from hardware.virtual_board.esp_image import token_image
from hardware.virtual_board.scene_wiring import wire_board
from provisioning.label import Label, label_svg, qr_modules
from tests.hardware.cable import served
from tests.provisioning.conftest import GOOD_TOKEN, Command, SmallFleet
from tests.provisioning.small_ingest import SmallIngest, small_ingest
from tests.provisioning.test_bench_on_a_cable import image_options

WIFI = "[[network]]\nssid = 'Büro'\npassword = 'geheim-genug'\n"
STORED_AT = "2026-11-27T12:00:00+00:00"


def commissioning(fleet: SmallFleet, *more: str) -> str:
    Path("wifi.toml").write_text(WIFI, encoding="utf-8")
    options = f"--server {fleet.url} --server-ca {fleet.ca_file} --token {GOOD_TOKEN}"
    return f"node commission {options} --wifi-file wifi.toml {' '.join(more)}"


@pytest.fixture
def ingest(fleet: SmallFleet, tmp_path: Path) -> Iterator[SmallIngest]:
    with small_ingest(fleet, tmp_path / "fleet") as running:
        fleet.heard = lambda node_id: _heard(running, node_id)
        yield running


def _heard(ingest: SmallIngest, node_id: str) -> dict[str, Any]:
    """As the fleet would tell it."""
    packs = ingest.of(node_id)
    if not packs:
        return {"first_stored_at": None, "readings": []}
    readings = [
        {"channel": key, "raw_value": value, "status": reason}
        for key, value, reason in packs[0].readings
    ]
    return {"first_stored_at": STORED_AT, "readings": readings}


def test_a_bare_board_becomes_an_accepted_node_with_papers(
    provision: Command, fleet: SmallFleet, ingest: SmallIngest, tmp_path: Path
) -> None:
    """Real tools, the real firmware with its probes, a real broker."""
    options = ["--label tree-01 --model tree-3 --serial w30=A1234 --tester 'Özil, M.'"]
    options += [f"--pages https://fleet.example/ {image_options(tmp_path, token_image())}"]
    wiring = wire_board(load_scene(), "tree-01")
    with served(tmp_path / "board", wiring=wiring) as serving:
        options.append(f"--board {serving.doors.tcp_url}")
        status, out, err = provision(commissioning(fleet, *options, "--json"))
        assert (status, err) == (0, "")
        (node,) = json.loads(out)["nodes"]
        assert (node["label"], node["node_id"], node["accepted"]) == ("tree-01", "n-000001", True)

    record = json.loads((tmp_path / "bench/tree-01/record.json").read_text(encoding="utf-8"))
    assert record["chip"].startswith("ESP32-D0WD")
    assert record["heard_at"] == STORED_AT
    assert all(channel["passed"] for channel in record["channels"])
    heard = {one["channel"]: one["raw_value"] for one in record["readings"]}
    measured = {one["channel"]: one["value"] for one in record["channels"]}
    assert heard["t30"] == pytest.approx(
        16 * measured["t30"], abs=16
    )  # sixteenths; the soil goes on
    protocol = (tmp_path / "bench/tree-01/protocol.html").read_text(encoding="utf-8")
    for text in (
        "Accepted on",
        "A1234",
        "Özil, M.",
        "24:6f:28:",
        "n-000001",
        "Büro",
        f"{measured['t90']:g} Cel",
    ):
        assert text in protocol
    svg = (tmp_path / "bench/tree-01/label.svg").read_text(encoding="utf-8")
    assert ">tree-01</text>" in svg
    for name in ("label.pdf", "protocol.pdf"):
        assert (tmp_path / "bench/tree-01" / name).read_bytes().startswith(b"%PDF-1.")
    for path in (tmp_path / "bench").rglob("*.*"):
        assert b"geheim-genug" not in path.read_bytes()
    # Accepted is accepted: no board is asked again.
    assert json.loads(provision(commissioning(fleet, *options, "--json"))[1])["nodes"] == [node]


PLAN = """
[[node]]
label = "tree-01"
model = "tree-3"
board = "virtual:one"
serials = { w30 = "A1", d30 = "28-1" }
[[node]]
label = "tree-02"
model = "tree-3"
board = "virtual:two"
"""


def test_a_row_goes_on_behind_a_node_that_fails_and_is_resumed_where_it_was(
    provision: Command, fleet: SmallFleet, tmp_path: Path
) -> None:
    Path("plan.toml").write_text(PLAN)
    Path("two").write_text("no board at all")
    fleet.heard = lambda _: {"first_stored_at": STORED_AT, "readings": []}
    row = commissioning(fleet, "--plan plan.toml --json")
    status, out, err = provision(row)
    first, second = json.loads(out)["nodes"]
    assert status == 1
    assert (
        first["why"] == "Not accepted: 8 channels failed the self-test."
    )  # no probe is plugged in
    assert second["why"] == "two is no virtual board: File exists."
    assert err == "tree-02: two is no virtual board: File exists.\n"

    Path("two").unlink()
    (tmp_path / "bench/tree-01/record.json").write_text(
        json.dumps(
            {
                **json.loads((tmp_path / "bench/tree-01/record.json").read_text()),
                "accepted_at": STORED_AT,
            }
        )
    )
    first, second = json.loads(provision(row)[1])["nodes"]
    assert (first["accepted"], second["node_id"]) == (True, "n-000002")
    # Wiped and enrolled anew, it is another node, and has to be heard again.
    provision("node wipe --board virtual:two --node-id n-000002")
    fleet.heard = lambda _: {"first_stored_at": None, "readings": []}
    second = json.loads(provision(f"{row} --wait 0")[1])["nodes"][1]
    assert second["node_id"] == "n-000003"
    assert "the fleet has not stored a reading of it" in second["why"]


def test_one_node_that_is_never_heard_ends_with_what_to_look_at(
    provision: Command, fleet: SmallFleet
) -> None:
    one = "--label tree-01 --model tree-3 --board virtual:board --wait 1"
    status, _, err = provision(commissioning(fleet, one))
    assert status == 1
    assert is_one_sentence(
        err,
        "The fleet has heard nothing of tree-01 (n-000001) in 1 s; a virtual board in a folder lives while",
    )


def test_a_board_or_a_probe_that_is_another_nodes_is_refused(
    provision: Command, fleet: SmallFleet, tmp_path: Path
) -> None:
    one = "--model tree-3 --wait 0 --board virtual:"
    provision(commissioning(fleet, f"{one}board --label tree-01 --serial w30=A1"))
    for options, sentence in (
        (
            "board --label tree-02",
            "is tree-01 already by bench/tree-01/record.json; plug in the one for",
        ),
        (
            "two --label tree-02 --serial w60=A1",
            "The probe A1 is in tree-01 already by bench/tree-01/",
        ),
    ):
        status, _, err = provision(commissioning(fleet, f"{one}{options}"))
        assert (status, is_one_sentence(err, sentence)) == (2, True), err
    status, _, err = provision(commissioning(fleet, f"{one}two --label tree-01"))
    assert (status, is_one_sentence(err, "and this is ")) == (1, True), err
    assert not (tmp_path / "bench/tree-02").exists()
    assert len(fleet.requests) == 1


def test_a_sticker_is_printed_from_a_board_or_a_record(
    provision: Command, fleet: SmallFleet, tmp_path: Path
) -> None:
    status, _, err = provision("node label --board virtual:board --out papers")
    assert (status, is_one_sentence(err, "The board is nobody yet; enrol it first.")) == (1, True)
    label = "Büro 🌳 <b>"
    provision(
        commissioning(fleet, f"--label '{label}' --model pond-1 --wait 0 --board virtual:board")
    )
    assert provision("node label --board virtual:board --out papers")[0] == 0
    record = "bench/Büro_b_/record.json"
    status, out, _ = provision(f"node label --record {record} --out again --json")
    assert [Path(path).name for path in json.loads(out)["files"]] == [
        "label.pdf",
        "label.svg",
        "protocol.html",
        "protocol.pdf",
    ]
    assert Path("papers/label.svg").read_bytes() == Path("again/label.svg").read_bytes()
    assert Path("papers/label.pdf").read_bytes() == Path("again/label.pdf").read_bytes()
    assert "Büro 🌳 &lt;b&gt;" in Path("papers/label.svg").read_text(encoding="utf-8")


def test_a_stickers_code_leads_to_the_nodes_page_and_has_white_round_it() -> None:
    label = Label(
        "tree-01", "n-3f9a1c", "tree-3", "24:6f:28:00:00:01", pages_url="https://fleet.example/"
    )
    assert label.code == "https://fleet.example/fleet/nodes/n-3f9a1c"
    modules = qr_modules(label.code)
    svg = label_svg(label)
    assert svg.count("h1v1h-1z") == sum(map(sum, modules))
    ((margin_mm, step_mm),) = re.findall(r"translate\((\S+) \S+\) scale\((\S+)\)", svg)
    assert float(margin_mm) >= 4 * float(step_mm)
    # The three corners by which readers find the code: 7 by 7, a ring and a core.
    corner = [
        [1] * 7,
        [1, 0, 0, 0, 0, 0, 1],
        *[[1, 0, 1, 1, 1, 0, 1]] * 3,
        [1, 0, 0, 0, 0, 0, 1],
        [1] * 7,
    ]
    assert [list(row[:7]) for row in modules[:7]] == corner
    assert [list(row[-7:]) for row in modules[:7]] == corner


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("", "Give --label and --model for one node, or --plan for many."),
        ("--plan plan.toml --label a", "--plan says label, model and serials itself;"),
        ("--plan nothing", "The plan nothing cannot be read: No such file or directory."),
        ("--plan bad.toml", "The plan bad.toml is no TOML: "),
        ("--plan empty.toml", "The plan empty.toml has no [[node]] table."),
        ("--plan twice.toml", "The plan twice.toml has the serial number A1 twice."),
        ("--plan typo.toml", "node 1 has 'lable'; a node has label, model, serials and board."),
        (
            "--plan kind.toml",
            "node 1 must have label and model as texts, and serials as texts by slot.",
        ),
        ("--plan model.toml", "tree-01: 'tree-9' is not one of "),
        (
            "--label a --model tree-3 --serial w30",
            "--serial is SLOT=NUMBER, for example w30=A1234.",
        ),
        (
            "--label a --model tree-3 --serial w31=A1",
            "a: tree-3 has no slot w31; it has w30, w60, ",
        ),
        ("--label a --model tree-3 --image x", "--image and --image-sha256 go together;"),
        (
            "--label a --model tree-3 --board nonsense",
            "nonsense is not a board; an address looks like COM5, ",
        ),
    ],
)
def test_a_plan_or_order_that_cannot_be_is_one_sentence_and_touches_nothing(
    provision: Command, fleet: SmallFleet, tmp_path: Path, options: str, sentence: str
) -> None:
    files = {
        "bad": "[[node",
        "empty": "x = 1",
        "twice": PLAN + "serials = { w30 = 'A1' }",
        "typo": "[[node]]\nlable = 'a'",
        "kind": "[[node]]\nlabel = 'a'\nmodel = 'tree-3'\nserials = { w30 = 1 }",
        "model": PLAN.replace("tree-3", "tree-9"),
    }
    for name, text in files.items():
        Path(f"{name}.toml").write_text(text)
    status, _, err = provision(commissioning(fleet, options))
    assert (status, is_one_sentence(err, sentence)) == (2, True), err
    assert fleet.requests == []
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize("content", ["{", '{"label": 1, "model": "x"}', '{"label": "a"}', "[]"])
def test_a_damaged_record_is_one_sentence(provision: Command, content: str) -> None:
    Path("record.json").write_text(content)
    status, _, err = provision("node label --record record.json --out papers")
    assert (status, is_one_sentence(err, "record.json is no record of a node; move it away")) == (
        1,
        True,
    )


NODES_IN_A_ROW = 20


@pytest.mark.nightly
def test_twenty_boards_in_a_row_at_one_port_are_accepted_in_under_three_minutes_each(
    provision: Command,
    fleet: SmallFleet,
    ingest: SmallIngest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = [f"row-{number:02}" for number in range(NODES_IN_A_ROW)]
    plan = "".join(f"[[node]]\nlabel = '{label}'\nmodel = 'tree-3'\n" for label in labels)
    Path("plan.toml").write_text(plan)
    boards = iter(labels)
    plugged: list[Serving] = []

    def plug_in_next() -> str:
        while plugged:
            plugged.pop().__exit__(None, None, None)
        wiring = wire_board(load_scene(), "tree-01")
        board = Board(tmp_path / next(boards), wiring, start_utc_us=time.time_ns() // 1000)
        plugged.append(Serving(board, ESP32, tcp_port=port).__enter__())
        return "\n"

    port = 0
    plug_in_next()
    port = int(plugged[0].doors.tcp_url.rpartition(":")[2])
    monkeypatch.setattr(sys.stdin, "readline", plug_in_next)
    began = time.monotonic()
    try:
        status, out, _ = provision(
            commissioning(fleet, f"--plan plan.toml --board socket://127.0.0.1:{port} --json")
        )
    finally:
        plugged.pop().__exit__(None, None, None)
    nodes = json.loads(out)["nodes"]
    assert [node["label"] for node in nodes if node["accepted"]] == labels
    assert status == 0
    assert time.monotonic() - began < 180 * NODES_IN_A_ROW
