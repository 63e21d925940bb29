"""Every figure of a data file is covered by its source or named in `assumed`, and whoever builds a node is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hardware import catalogue
from hardware.assumptions import assumptions, in_words
from hardware.boards import load_board
from hardware.catalogue import CatalogueError, load_node_model, parse_sensor_type
from hardware.mounting_sheet import mounting_sheet
from hardware.wiring_diagram import wiring_diagram

_FOLDER = Path(catalogue.__file__).parent
_FILES = sorted(path for path in _FOLDER.glob("*/*.toml") if path.parent.name != "scenes")
_TEROS = (_FOLDER / "sensors" / "teros_12.toml").read_text(encoding="utf-8")
_ADMITS = re.compile(r"\bours?\b|\bassumed\b|\busual\b|\bcommonly\b|as sold by", re.IGNORECASE)


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_source_that_admits_an_estimate_has_it_named_as_assumed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    source = re.search(r'^source = "(.+)"$', text, re.MULTILINE)
    assumed = re.search(r"^assumed = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    assert source is not None
    assert assumed is not None
    assert not _ADMITS.search(source[1]) or assumed[1].strip()


@pytest.mark.parametrize("path", ["current.measure_ma", "wires.colour", "wires[data].colour", "quantities[soil_temperature].accuracy", "mounting", "parts[TEROS 12]", "sdi12.is_concurrent"])  # fmt: skip
def test_a_path_that_is_in_the_file_may_be_assumed(path: str) -> None:
    sensor_type = parse_sensor_type(_assuming(f'"{path}"'), name="x.toml")
    assert sensor_type.assumed == (path,)


@pytest.mark.parametrize("path", ["current.sleeping_ua", "wires.color", "wires[dta].colour", "wires[data].", "mounting[soil]", "", "mounting..cable_mm", "mounting/cable_mm"])  # fmt: skip
def test_a_path_that_leads_nowhere_is_refused_with_one_sentence(path: str) -> None:
    sentence = f"x.toml: assumed names {path}, which is not in the file."
    with pytest.raises(CatalogueError, match=f"^{re.escape(sentence)}$"):
        parse_sensor_type(_assuming(f'"{path}"'), name="x.toml")


def test_a_file_that_does_not_say_what_it_assumes_is_refused() -> None:
    with pytest.raises(CatalogueError, match=r"^x\.toml: the key assumed is missing\.$"):
        parse_sensor_type(re.sub(r"^assumed = \[.*?\]\n", "", _TEROS, flags=re.M | re.S), name="x.toml")  # fmt: skip
    with pytest.raises(CatalogueError, match="assumed must be a list of texts"):
        parse_sensor_type(_assuming("1"), name="x.toml")


def test_what_is_assumed_is_told_where_it_matters() -> None:
    model, board = load_node_model("pond-2"), load_board("esp32-lpkit")
    assert assumptions(model, board, "wiring")["sensors/y504"] == ("wires.colour",)
    assert "current.measure_ma" in assumptions(model, board, "energy")["sensors/y511"]
    assert assumptions(model, board, "parts")["sensors/level_4_20ma"] == ("parts.number",)
    assert assumptions(model, board, "mounting")["enclosures/hammond-1554h"] == ("margin_mm",)
    assert "the wire colours of o2, tu, lvl" in wiring_diagram(model, board)
    assert "m12: diameter of the hole, distance between two holes" in mounting_sheet(model, board)


def test_nothing_assumed_is_nothing_said() -> None:
    model, board = load_node_model("pond-1"), load_board("esp32-lpkit")
    assert "sensors/do_modbus" not in assumptions(model, board, "wiring")
    assert "Assumed" not in wiring_diagram(model, board)
    assert in_words({}) == ""


def _assuming(paths: str) -> str:
    text, replaced = re.subn(
        r"^assumed = \[.*?\]\n", f"assumed = [{paths}]\n", _TEROS, flags=re.M | re.S
    )
    assert replaced == 1
    return text
