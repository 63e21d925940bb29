"""`provision boards|sensors|wiring|parts` as a person or a program types them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardware.boards import board_ids
from hardware.catalogue import node_model_ids, sensor_type_ids
from hardware.data_files import ENVIRONMENT
from provisioning.main import main

OWN_PROBE = Path(__file__).parents[1] / "hardware" / "own_probe"

Answer = tuple[int, str, str]


@pytest.fixture
def provision(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Answer]:
    """Runs the command in this process, as its console script does: exit code, stdout, stderr."""

    def run(*arguments: object, hardware: Path | None = None) -> Answer:
        monkeypatch.setenv(ENVIRONMENT, "" if hardware is None else str(hardware))
        monkeypatch.setattr(sys, "argv", ["provision", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def answer(provision: Callable[..., Answer]) -> Callable[..., dict[str, Any]]:
    """The one JSON object on the one line of stdout."""

    def ask(*arguments: object, hardware: Path | None = None) -> dict[str, Any]:
        status, out, err = provision(*arguments, "--json", hardware=hardware)
        assert (status, err) == (0, "")
        assert out.count("\n") == 1
        found: dict[str, Any] = json.loads(out)
        return found

    return ask


def test_boards_and_sensors_are_listed_with_everything_that_their_files_say(
    answer: Callable[..., dict[str, Any]],
) -> None:
    boards = {board["id"]: board for board in answer("boards")["boards"]}
    assert tuple(boards) == board_ids()
    assert boards["esp32-devkitc"]["pins"]["flash"] == [6, 7, 8, 9, 10, 11]
    sensors = {sensor["id"]: sensor for sensor in answer("sensors")["sensors"]}
    assert tuple(sensors) == sensor_type_ids()
    assert sensors["ds18b20"]["wires"][0] == {"colour": "red", "signal": "VDD", "to": "supply"}
    assert answer("sensors", "ds18b20") == sensors["ds18b20"]
    assert answer("boards", "esp32-lpkit") == boards["esp32-lpkit"]


def test_a_person_reads_tables_and_pages(provision: Callable[..., Answer]) -> None:
    for name in ("boards", "sensors"):
        status, out, _ = provision(name)
        assert status == 0
        assert len(out.splitlines()) > len(board_ids())
    page = provision("sensors", "watermark_200ss")[1]
    for word in ("short: Below 300 Ω", "Soak the probe", "Irrometer 200SS-15", "wire green"):
        assert word in page
    page = provision("boards", "esp32-devkitc")[1]
    assert "strapping:   0, 2, 5, 12, 15" in page
    assert "3800 µA asleep" in page


@pytest.mark.parametrize("model_id", node_model_ids())
def test_wiring_is_a_list_a_diagram_and_a_mounting_sheet(
    model_id: str,
    tmp_path: Path,
    provision: Callable[..., Answer],
    answer: Callable[..., dict[str, Any]],
) -> None:
    diagram, sheet = tmp_path / "wiring.svg", tmp_path / "mounting.html"
    content = answer("wiring", model_id, "--out", diagram, "--mounting", sheet)
    assert content["files"] == [str(diagram), str(sheet)]
    assert ET.parse(diagram).getroot().tag.endswith("svg")  # noqa: S314 - ours
    assert sheet.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    gpios = [pin["gpio"] for pin in content["pins"]]
    assert gpios
    panel = [(pin["slot"], pin["gpio"], pin["leads_to"]) for pin in content["pins"][-2:]]
    assert panel == [("lamp", 2, "series resistor"), ("button", 0, "pull-up, button")]
    listed = provision("wiring", model_id)[1]
    assert all(f"GPIO{gpio}" in listed for gpio in gpios)
    assert all(wire["clamp"] in listed for wire in content["wires"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mounting.html", "wiring.svg"]


def test_parts_for_twenty_nodes_are_twenty_times_those_for_one_also_in_a_spreadsheet(
    provision: Callable[..., Answer], answer: Callable[..., dict[str, Any]]
) -> None:
    one = {part["number"]: part["quantity"] for part in answer("parts", "tree-3")["parts"]}
    status, out, _ = provision("parts", "tree-3", "--nodes", "20", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0
    assert {row["number"]: int(row["quantity"]) for row in rows} == {
        number: 20 * quantity for number, quantity in one.items()
    }
    assert one["200SS-15"] == 3


def test_energy_stands_beside_its_goal_with_the_model_that_it_comes_from(
    provision: Callable[..., Answer], answer: Callable[..., dict[str, Any]]
) -> None:
    day = answer("parts", "tree-3", "--energy")
    assert sum(item["mah_per_day"] for item in day["items"]) == pytest.approx(
        day["mah_per_day"], abs=0.002
    )
    assert (day["goal_mah_per_day"], day["is_within_goal"]) == (6.0, True)
    assert [one["times_ms"]["boot_ms"] for one in day["wakes"]] == [640]
    page = provision("parts", "tree-3", "--energy", "--board", "esp32-devkitc")[1]
    assert "goal for a tree node: MISSED" in page
    assert "Not measured on hardware." in page
    hourly = answer("parts", "pond-1", "--energy", "--sample-every", 3600)
    assert hourly["mah_per_day"] < answer("parts", "pond-1", "--energy")["mah_per_day"] / 3


def test_energy_tells_what_a_crossed_limit_and_a_field_mode_cost_where_a_node_has_them(
    provision: Callable[..., Answer], answer: Callable[..., dict[str, Any]]
) -> None:
    pond, tree = (answer("parts", model_id, "--energy") for model_id in ("pond-2", "tree-3"))
    assert pond["urgent_day"]["every_s"] == 900
    assert pond["urgent_day"]["mah_per_day"] > 1.5 * pond["mah_per_day"]
    assert (pond["field_mode"]["wakes"], tree["field_mode"]["wakes"]) == (10, 20)
    assert 0 < tree["field_mode"]["mah"] < tree["mah_per_day"]
    assert tree["urgent_day"] is None
    page = provision("parts", "pond-2", "--energy")[1]
    assert "A day with a limit crossed (sat) takes 68.6 mAh: sampled and published every" in page
    assert "One field mode (10 minutes, 10 wakes that read every probe and publish) takes" in page


def test_a_day_that_a_node_cannot_have_is_refused(
    tmp_path: Path, provision: Callable[..., Answer]
) -> None:
    """With a probe that takes seventy seconds no node samples once a minute."""
    shutil.copytree(OWN_PROBE, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "sensors/lakewatch_o2.toml"
    slow = file.read_text(encoding="utf-8").replace("measure_ms = 300", "measure_ms = 70000")
    file.write_text(slow, encoding="utf-8")

    status, out, err = provision(
        *("parts", "lake-1", "--energy", "--sample-every", "60"), hardware=tmp_path
    )

    assert (status, out) == (2, "")
    assert "A wake of this node takes up to 76 s; it cannot sample every 60 s." in err


@pytest.mark.skipif(os.name != "posix", reason="only there files have such rights")
@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_a_written_file_is_the_technicians_choice(
    umask: int, rights: int, tmp_path: Path, provision: Callable[..., Answer]
) -> None:
    before = os.umask(umask)
    try:
        status, _, _ = provision("wiring", "tree-3", "--out", tmp_path / "tree.svg")
    finally:
        os.umask(before)
    assert status == 0
    assert (tmp_path / "tree.svg").stat().st_mode & 0o777 == rights


def test_a_citys_own_probe_is_listed_drawn_bought_and_fed_like_any_other(
    tmp_path: Path, answer: Callable[..., dict[str, Any]]
) -> None:
    diagram = tmp_path / "lake.svg"
    content = answer("wiring", "lake-1", "--out", diagram, hardware=OWN_PROBE)
    assert {"slot": "lw", "wire": "violet", "signal": "D+", "clamp": "A"} in content["wires"]
    assert "turquoise" in diagram.read_text(encoding="utf-8")
    parts = answer("parts", "lake-1", hardware=OWN_PROBE)["parts"]
    numbers = {part["number"] for part in parts}
    # Its 8.5 mm lead wants the larger gland; its 12 V wants the converter.
    assert {"LW-O2", "53111010", "2117", "SN65HVD72DR"} <= numbers
    assert answer("parts", "lake-1", "--energy", hardware=OWN_PROBE)["is_within_goal"]
    assert answer("sensors", "lakewatch_o2", hardware=OWN_PROBE)["manufacturer"] == "Lakewatch"


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (("parts", "tree-9"), 2, "'tree-9' is not one of 'bank-1', "),
        (("boards", "esp33"), 2, "'esp33' is not one of "),
        (("sensors", "nose"), 2, "'nose' is not one of "),
        (("parts", "tree-3", "--board", "esp32-c3-devkitm"), 1, "provision: tree-3: slot w30 (a) uses GPIO25, which is not on the board"),
        (("wiring", "tree-3", "--out", "x.pdf"), 2, "x.pdf must end with .svg."),
        (("wiring", "tree-3", "--mounting", "x.svg"), 2, "x.svg must end with .html."),
        (("wiring", "tree-3", "--wireviz", "x.json"), 2, "x.json must end with .yml or .yaml."),
        (("wiring", "tree-3", "--out", "gone/x.svg"), 1, "provision: The folder gone does not exist; make it first."),
        (("parts", "tree-3", "--sample-every", "60"), 2, "--sample-every and --publish-every go with --energy."),
        (("parts", "tree-3", "--energy", "--publish-every", "60"), 2, "A node cannot publish more often than it samples."),
        (("parts", "tree-3", "--energy", "--sample-every", "59"), 2, "59 is not in the range 60<=x<=86400."),
        (("parts", "tree-3", "--energy", "--nodes", "2"), 2, "--energy is of one node; leave --nodes out."),
        (("parts", "tree-3", "--nodes", "9" * 20), 2, "is not in the range 1<=x<=100000."),
        (("wiring", "tree-3", "--out", "x.svg", "--mounting", "gone/x.html"), 1, "The folder gone does not exist; make it first."),
        (("parts", "tree-3", "--csv", "--json"), 2, "--csv goes with neither --json nor --energy."),
        (("parts", "tree-3", "--nodes", "0"), 2, "is not in the range"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_one_sentence(
    arguments: tuple[str, ...],
    status: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    provision: Callable[..., Answer],
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = provision(*arguments)
    assert (found, out) == (status, "")
    assert sentence in err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_ends_with_one_sentence(
    tmp_path: Path, provision: Callable[..., Answer]
) -> None:
    status, out, err = provision("sensors", hardware=tmp_path / "gone")
    assert (status, out) == (1, "")
    assert err.startswith("provision: STADTSENSOR_HARDWARE names ")


def test_a_damaged_file_of_ones_own_ends_with_one_sentence(
    tmp_path: Path, provision: Callable[..., Answer]
) -> None:
    (tmp_path / "sensors").mkdir()
    (tmp_path / "sensors" / "mine.toml").write_bytes(b"id = \xff")
    status, out, err = provision("sensors", "mine", hardware=tmp_path)
    assert (status, out) == (1, "")
    assert "mine.toml cannot be read" in err
    (tmp_path / "sensors" / "mine.toml").write_text("id = 'mine'\n", encoding="utf-8")
    status, out, err = provision("sensors", "mine", hardware=tmp_path)
    assert (status, err) == (1, "provision: sensors/mine.toml: the key title is missing.\n")


def test_a_file_that_cannot_be_replaced_ends_with_one_sentence(
    tmp_path: Path, provision: Callable[..., Answer]
) -> None:
    (tmp_path / "x.svg").mkdir()
    status, _, err = provision("wiring", "tree-3", "--out", tmp_path / "x.svg")
    assert status == 2
    assert "is a directory" in err


@pytest.mark.parametrize("command", ["boards", "sensors", "wiring", "parts"])
def test_every_command_explains_itself_with_an_example(
    command: str, provision: Callable[..., Answer]
) -> None:
    status, out, _ = provision(command, "--help")
    assert status == 0
    assert f"Example: provision {command} " in " ".join(out.split())
