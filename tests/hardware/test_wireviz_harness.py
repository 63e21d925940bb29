"""What we write for WireViz is read by WireViz: the real program, started beside us, without Graphviz (which only draws)."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up_probes import pond_with, use_made_up_probes

from hardware.boards import load_board
from hardware.catalogue import NodeModel, load_node_model, node_model_ids, parse_node_model
from hardware.connections import clamp_of, sensor_type_of
from hardware.mounting import load_enclosure
from hardware.parts_list import parts_list
from hardware.wireviz_harness import wireviz_harness

_WIREVIZ = Path(sys.executable).with_name("wireviz")


def harness_of(model: NodeModel) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(wireviz_harness(model, load_board(model.board)))
    return found


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with WireViz's bill of materials and its graph, for every model; made in one go."""
    folder = tmp_path_factory.mktemp("wireviz")
    files = []
    for model_id in node_model_ids():
        model = load_node_model(model_id)
        files.append(folder / f"{model_id}.yml")
        files[-1].write_text(wireviz_harness(model, load_board(model.board)), encoding="utf-8")
    made = subprocess.run(
        [_WIREVIZ, "-f", "gt", *files], capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert "Warning" not in made.stdout
    return folder


@pytest.mark.parametrize("model_id", node_model_ids())
def test_wireviz_reads_every_model_and_counts_the_same_parts_as_we_do(
    bills: Path, model_id: str
) -> None:
    model = load_node_model(model_id)
    counted: Counter[str] = Counter()
    with (bills / f"{model_id}.bom.tsv").open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            counted[row["MPN"]] += int(row["Qty"])
    box = {part.number for part in load_enclosure(model.enclosure).parts}
    box |= {part.number for gland in load_enclosure(model.enclosure).glands for part in gland.parts}
    ours = parts_list(model, load_board(model.board))
    assert counted == {line.number: line.quantity for line in ours if line.number not in box}


@pytest.mark.parametrize("model_id", node_model_ids())
def test_every_wire_of_a_probe_ends_at_its_clamp_and_every_pin_at_its_circuit(
    model_id: str,
) -> None:
    model = load_node_model(model_id)
    board, harness = load_board(model.board), harness_of(model)
    connectors, cables = harness["connectors"], harness["cables"]
    wires: Counter[tuple[str, str, str]] = Counter()
    pins: set[str] = set()
    for ends in harness["connections"]:
        (left, ours), (cable, numbers), (right, theirs) = (
            item for end in ends for item in end.items()
        )
        for our, number, their in zip(ours, numbers, theirs, strict=True):
            start = connectors[left]["pinlabels"][our - 1]
            assert connectors[right]["pinlabels"][their - 1]
            if left == "board":
                pins.add(start)
            if right.startswith("probe-"):
                label = cables[cable]["wirelabels"][number - 1]
                wires[right.removeprefix("probe-"), label, start] += 1
    assert wires == Counter(
        (slot.id, f"{wire.colour}: {wire.signal}", clamp_of(slot, wire))
        for slot in model.slots
        for wire in sensor_type_of(slot).wires
    )
    used = {gpio for slot in model.slots for gpio in slot.pins.values()}
    assert {board.pin_name(gpio) for gpio in (*used, *model.panel.values())} <= pins


def test_a_switched_supply_runs_from_the_battery_through_its_converter_to_the_probes_clamp() -> (
    None
):
    harness = harness_of(load_node_model("pond-2"))
    runs = {tuple(next(iter(step)) for step in steps) for steps in harness["connections"]}
    for supply, circuit in ((1, 4), (2, 5), (3, 6)):  # oxygen, turbidity, level; 7 is the battery
        assert ("circuit-7", f"supply-{supply}-from-circuit-7", f"supply-{supply}") in runs
        steps = (
            f"supply-{supply}",
            f"circuit-{circuit}-from-supply-{supply}",
            f"circuit-{circuit}",
        )
        assert steps in runs


def test_a_colour_that_wireviz_has_no_letters_for_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_made_up_probes(tmp_path, monkeypatch)
    probe = tmp_path / "sensors" / "analog.toml"
    probe.write_text(probe.read_text().replace('"red"', '"salmon"'), encoding="utf-8")
    model = parse_node_model(pond_with(("analog", "adc = 32, power = 33", "")), name="x.toml")
    lead = harness_of(model)["cables"]["lead-s0"]
    assert lead["colors"] == ["", "BK"]
    assert lead["wirelabels"] == ["salmon: +", "black: -"]


def test_words_cannot_become_markup_that_wireviz_would_draw() -> None:
    model = replace(load_node_model("tree-3"), title="<b> & Söhne")
    assert harness_of(model)["metadata"]["title"] == "Wiring tree-3: &lt;b&gt; &amp; Söhne"
