"""What is drawn, bought and drilled for a node: everything its data name, nothing twice, and it fits."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from math import dist
from pathlib import Path

import pytest
from made_up_probes import pond_with, use_made_up_probes

from hardware.boards import load_board
from hardware.catalogue import NodeModel, load_node_model, node_model_ids, parse_node_model
from hardware.connections import (
    clamp_of,
    interface_circuits,
    panel_circuits,
    sensor_type_of,
    supply_circuits,
)
from hardware.data_files import ENVIRONMENT, CatalogueError
from hardware.mounting import gland_holes, load_enclosure, soil_holes
from hardware.mounting_sheet import mounting_sheet
from hardware.parts_list import parts_list
from hardware.svg import wrap
from hardware.wiring_diagram import wiring_diagram

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(params=node_model_ids())
def model(request: pytest.FixtureRequest) -> NodeModel:
    return load_node_model(request.param)


def _texts(svg: str) -> Counter[str]:
    return Counter(element.text or "" for element in ET.fromstring(svg).iter(f"{_SVG}text"))  # noqa: S314 - ours


# --- wiring diagram ---


def test_diagram_shows_every_pin_and_every_wire_with_its_colour_and_clamp(model: NodeModel) -> None:
    board = load_board(model.board)
    texts = _texts(wiring_diagram(model, board))
    pins = {gpio for slot in model.slots for gpio in slot.pins.values()}
    pins |= set(model.panel.values())
    assert {"Lamp", "Button"} <= set(texts)
    assert {board.pin_name(gpio) for gpio in pins} <= set(texts)
    wires = [(slot, wire) for slot in model.slots for wire in sensor_type_of(slot).wires]
    for wanted in (
        Counter(wire.colour for _, wire in wires),
        Counter(wire.signal for _, wire in wires),
        Counter(clamp_of(slot, wire) for slot, wire in wires),
    ):
        assert all(texts[text] >= count for text, count in wanted.items())


def test_diagram_shows_a_pin_that_is_itself_the_supply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_made_up_probes(tmp_path, monkeypatch)
    text = pond_with(("analog", "adc = 32, power = 33", ""))
    model = parse_node_model(text, name="x.toml")
    assert _texts(wiring_diagram(model, load_board(model.board)))["GPIO33"] == 1


def test_diagram_keeps_within_its_edges(model: NodeModel) -> None:
    root = ET.fromstring(wiring_diagram(model, load_board(model.board)))  # noqa: S314 - ours
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    for element in root.iter(f"{_SVG}rect"):
        x, y, w, h = (float(element.get(name, 0)) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
    bottoms = [float(element.get("y", 0)) for element in root.iter(f"{_SVG}text")]
    assert 0 < min(bottoms) <= max(bottoms) < height


def test_diagrams_words_cannot_become_markup() -> None:
    board = load_board("esp32-lpkit")
    model = load_node_model("tree-3")
    texts = _texts(wiring_diagram(replace(model, title="<b> & Söhne"), board))
    assert texts["Wiring tree-3: <b> & Söhne"] == 1


def test_text_is_broken_between_words_and_never_lost() -> None:
    words = "a probe that takes its power from the data line cannot convert"
    lines = wrap(words, 100, 10)
    assert " ".join(lines) == words
    assert len(lines) > 1
    assert max(map(len, lines)) <= 17


# --- parts list ---


def test_parts_are_those_of_board_circuits_probes_box_and_model_with_quantities_added_up() -> None:
    model = load_node_model("pond-1")
    quantities = {line.number: line.quantity for line in parts_list(model, load_board(model.board))}
    assert quantities == {
        "ESP32-LPkit PCB antenna": 1,
        "2117": 1,
        "TPS22918DBVR": 2,  # one before the converter, one before the transceiver
        "K104K15X7RF5TL2": 3,  # converter, transceiver, battery divider
        "SN65HVD72DR": 1,
        "SEN0681": 1,
        "MFR-25FBF52-1M": 2,
        "1554H2GYCL": 1,
        "53111000": 1,
        "53119000": 1,
        "INR18650-35E": 8,
        "1043P": 8,
        "0251003.MXL": 8,
        "TLHR5400": 1,  # lamp
        "MFR-25FBF52-270R": 1,
        "B3F-1000": 1,  # button
        "MFR-25FBF52-10K": 1,
    }


def test_a_model_without_lamp_and_button_buys_and_draws_neither() -> None:
    model = replace(load_node_model("pond-1"), led=None, button=None)
    board = load_board(model.board)
    numbers = {line.number for line in parts_list(model, board)}
    assert not numbers & {"TLHR5400", "MFR-25FBF52-270R", "B3F-1000", "MFR-25FBF52-10K"}
    assert not {"GPIO2", "Lamp", "GPIO0", "Button"} & set(_texts(wiring_diagram(model, board)))


def test_no_part_is_lost_between_the_data_and_the_list(model: NodeModel) -> None:
    board, enclosure = load_board(model.board), load_enclosure(model.enclosure)
    named = [
        *board.parts,
        *board.battery.parts,
        *model.parts,
        *enclosure.parts,
        *(part for one in interface_circuits(model) for part in one.interface.parts),
        *(part for one in supply_circuits(model) for part in one.supply.parts),
        *(part for one in panel_circuits(model) for part in one.interface.parts),
        *(part for slot in model.slots for part in sensor_type_of(slot).parts),
        *(part for hole in gland_holes(model) for part in hole.gland.parts),
    ]
    listed = parts_list(model, board)
    assert sum(line.quantity for line in listed) == sum(part.quantity for part in named)
    assert len({(line.manufacturer, line.number) for line in listed}) == len(listed)


def test_a_number_always_means_the_same_part(model: NodeModel) -> None:
    """Two data files that name one part must agree on what it is, or an order goes wrong."""
    board = load_board(model.board)
    parts = [
        *board.parts,
        *board.battery.parts,
        *model.parts,
        *(part for one in interface_circuits(model) for part in one.interface.parts),
        *(part for one in supply_circuits(model) for part in one.supply.parts),
        *(part for one in panel_circuits(model) for part in one.interface.parts),
    ]
    meanings = {(part.number, part.manufacturer, part.title, part.price_class) for part in parts}
    assert len(meanings) == len({number for number, *_ in meanings})


# --- holes ---


def test_a_tree_probes_middle_lies_at_its_depth_and_its_thermometer_in_the_same_hole() -> None:
    holes = soil_holes(load_node_model("tree-3"))
    # 83 mm of probe: 42 mm below its middle; 22 mm of probe and 8 mm of sleeve side by side.
    assert [(hole.depth_mm, hole.diameter_mm) for hole in holes] == [
        (342, 30),
        (642, 30),
        (942, 30),
    ]
    assert [[slot.id for slot in hole.slots] for hole in holes] == [
        ["w30", "d30"],
        ["w60", "d60"],
        ["w90", "d90"],
    ]


def test_lead_holes_lie_on_the_face_and_leave_room_for_each_other(model: NodeModel) -> None:
    enclosure, holes = load_enclosure(model.enclosure), gland_holes(model)
    leads = [slot for slot in model.slots if sensor_type_of(slot).mounting.cable_mm]
    assert [hole.slot for hole in holes] == leads
    for hole in holes:
        radius = hole.gland.hole_mm / 2
        assert enclosure.margin_mm <= hole.x_mm <= enclosure.face_width_mm - enclosure.margin_mm
        assert abs(hole.y_mm) + radius < enclosure.face_height_mm / 2
        lead_mm = sensor_type_of(hole.slot).mounting.cable_mm
        assert hole.gland.clamps_from_mm <= lead_mm <= hole.gland.clamps_to_mm
    for one, other in combinations(holes, 2):
        apart = dist((one.x_mm, one.y_mm), (other.x_mm, other.y_mm))
        assert apart >= max(one.gland.spacing_mm, other.gland.spacing_mm)


_SMALL_BOX = """
id = "small"
title = "Small box"
face_width_mm = {width}
face_height_mm = {height}
margin_mm = 10
glands = ["{gland}"]
source = "a test"
assumed = []
[[parts]]
title = "Small box"
manufacturer = "M"
number = "1"
quantity = 1
price_class = "a"
"""


def _in_small_box(folder: Path, monkeypatch: pytest.MonkeyPatch, **box: object) -> NodeModel:
    """A tree node in a box of the test's own, which lies where a city would put it."""
    (folder / "enclosures").mkdir()
    (folder / "enclosures" / "small.toml").write_text(_SMALL_BOX.format(**box), encoding="utf-8")
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    return replace(load_node_model("tree-3"), enclosure="small")


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ({"width": 60, "height": 35, "gland": "m12"}, "Node model tree-3: 6 leads do not fit the box small."),
        ({"width": 160, "height": 60, "gland": "m16"}, "Slot d30: no gland of the box small clamps a lead of 4 mm."),
    ],
)  # fmt: skip
def test_leads_that_do_not_fit_a_box_are_refused(
    box: dict[str, object], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _in_small_box(tmp_path, monkeypatch, **box)
    with pytest.raises(CatalogueError, match=re.escape(sentence)):
        gland_holes(model)


def test_leads_that_need_two_rows_are_laid_out_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _in_small_box(tmp_path, monkeypatch, width=60, height=60, gland="m12")
    holes = [(hole.x_mm, hole.y_mm) for hole in gland_holes(model)]
    assert holes == [(10, -10), (30, -10), (50, -10), (10, 10), (30, 10), (50, 10)]


# --- mounting sheet ---


class _Page(HTMLParser):
    """Every tag closed, and the words between them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "rect", "line", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_sheet_says_how_every_probe_is_put_in_and_where_every_lead_leaves(model: NodeModel) -> None:
    page = _Page()
    page.feed(mounting_sheet(model, load_board(model.board)))
    assert page.open == []
    for slot in model.slots:
        mounting = sensor_type_of(slot).mounting
        assert all(step in page.words for step in mounting.steps)
        assert not mounting.cable_mm or f": {slot.id}" in page.words
    for hole in soil_holes(model):
        assert f"{hole.depth_mm / 10:.1f} cm deep" in page.words


def test_gland_template_is_drawn_in_true_millimetres() -> None:
    """A hole of 12.3 mm has a radius of 6.15 units in a drawing whose units are millimetres."""
    sheet = mounting_sheet(load_node_model("tree-3"), load_board("esp32-lpkit"))
    template = next(
        svg for svg in re.findall(r"<svg.*?</svg>", sheet, re.DOTALL) if "Template" in svg
    )
    root = ET.fromstring(template)  # noqa: S314 - ours
    _, _, width, height = (float(part) for part in root.get("viewBox", "").split())
    assert (root.get("width"), root.get("height")) == (f"{width:g}mm", f"{height:g}mm")
    assert {circle.get("r") for circle in root.iter(f"{_SVG}circle")} == {"6.15"}
