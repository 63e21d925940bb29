"""A node model whose pins cannot work is refused before anybody solders it, with slots, pin and why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_up_probes import pond_with, use_made_up_probes

from hardware import catalogue
from hardware.boards import board_ids, load_board, parse_board
from hardware.catalogue import (
    CatalogueError,
    load_node_model,
    node_model_ids,
    parse_node_model,
)
from hardware.pins import check_pins

_FOLDER = Path(catalogue.__file__).parent
_TREE = (_FOLDER / "node_models" / "tree-3.toml").read_text(encoding="utf-8")
_POND = (_FOLDER / "node_models" / "pond-1.toml").read_text(encoding="utf-8")
_BOARD = (_FOLDER / "boards" / "esp32-devkitc.toml").read_text(encoding="utf-8")

_OUTPUTS = "take one of 4, 13, 14, 16, 17, 18, 19, 21, 22, 23, 25, 26, 27, 32, 33"
_ANALOG = "take one of 32, 33, 35, 36, 39"
_WAKING = "take one of 4, 13, 14, 25, 26, 27, 32, 33, 35, 36, 39"


def refusal(text: str, *, damage: tuple[str, str]) -> str:
    assert damage[0] in text
    with pytest.raises(CatalogueError) as refused:
        parse_node_model(text.replace(*damage, 1), name="x.toml")
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "damage", "sentence"),
    [
        (_TREE, ("adc = 35", "adc = 32"), "slot w30 (adc) and slot bat (adc) both use GPIO32."),
        (_TREE, ("data = 13", "data = 4"), "slot d30 (data) and slot d60 (data) both use GPIO4."),
        (_TREE, ("a = 25", "a = 36"), f"slot w30 (a) drives GPIO36, which can only be an input; {_OUTPUTS}."),
        (_TREE, ("data = 4", "data = 39"), f"slot d30 (data) drives GPIO39, which can only be an input; {_OUTPUTS}."),
        (_TREE, ("adc = 32", "adc = 4"), f"slot w30 (adc) reads GPIO4 on ADC2, which does not work while Wi-Fi is on; {_ANALOG}."),
        (_TREE, ("adc = 32", "adc = 19"), f"slot w30 (adc) reads GPIO19, which has no analogue input; {_ANALOG}."),
        (_TREE, ("b = 26", "b = 12"), f"slot w30 (b) uses GPIO12, which decides how the chip starts (strapping pin); {_OUTPUTS}."),
        (_TREE, ("b = 26", "b = 6"), f"slot w30 (b) uses GPIO6, which belongs to the flash chip; {_OUTPUTS}."),
        (_TREE, ("b = 26", "b = 1"), f"slot w30 (b) uses GPIO1, which is the console that the board is provisioned over; {_OUTPUTS}."),
        (_TREE, ("adc = 32", "adc = 34"), f"slot w30 (adc) uses GPIO34, which is taken by a part of the board esp32-lpkit; {_ANALOG}."),
        (_TREE, ("b = 26", "b = 24"), f"slot w30 (b) uses GPIO24, which is not on the board esp32-lpkit; {_OUTPUTS}."),
        (_TREE, ("a = 25, ", ""), "slot w30 has no pin a, which interface resistance needs."),
        (_TREE, ("a = 25", "a = 25, c = 16"), "slot w30 has a pin c, which interface resistance does not know."),
        (_TREE, ("divider_milli = 2000", "divider_milli = 3000"), "slot bat has divider_milli = 3000, but the resistors of the board esp32-lpkit make 2000."),
        (_TREE, ("led = 2", "led = 25"), "slot w30 (a) and the lamp (led) both use GPIO25."),
        (_TREE, ("button = 0", "button = 25"), "slot w30 (a) and the button (button) both use GPIO25."),
        (_POND, ("led = 2", "led = 0"), f"the lamp (led) uses GPIO0, which decides how the chip starts (strapping pin); {_OUTPUTS}."),
        (_POND, ("led = 2", "led = 36"), f"the lamp (led) drives GPIO36, which can only be an input; {_OUTPUTS}."),
        (_POND, ("led = 2", "led = 34"), f"the lamp (led) uses GPIO34, which is taken by a part of the board esp32-lpkit; {_OUTPUTS}."),
        (_POND, ("button = 0", "button = 2"), f"the button (button) uses GPIO2, which decides how the chip starts (strapping pin); {_WAKING}."),
        (_POND, ("button = 0", "button = 5"), f"the button (button) listens to GPIO5, which cannot wake the chip; {_WAKING}."),
        (_POND, ("button = 0", "button = 18"), f"the button (button) listens to GPIO18, which cannot wake the chip; {_WAKING}."),
        (_POND, (", power = 25", ""), "slot o2 has no pin power, which "),
        (_POND, ("uart = 2", "uart = 0"), "slot o2 uses UART 0; the board esp32-lpkit has 1, 2 for probes."),
    ],
)  # fmt: skip
def test_pins_that_cannot_work_are_refused_with_one_sentence(text, damage, sentence):
    said = refusal(text, damage=damage)
    assert said.startswith(f"x.toml: {sentence}")
    assert said.endswith(".")


def _second_probe(text: str, **changes: object) -> str:
    """The pond's model with its probe twice, the second one with other options and pins."""
    slot = re.search(r"\[\[slots\]\]\nid = \"o2\".*?(?=\[\[slots\]\]\nid)", text, re.DOTALL)
    assert slot is not None
    second = slot[0].replace('id = "o2"', 'id = "o3"')
    second = re.sub(r'key = "(\w+)"', r'key = "\g<1>2"', second)
    for name, value in changes.items():
        second, replaced = re.subn(rf"\b{name} = \d+", f"{name} = {value}", second)
        assert replaced, name
    return text.replace(slot[0], slot[0] + second)


def test_two_probes_share_a_bus_and_its_supply_when_their_addresses_differ():
    first, second = parse_node_model(_second_probe(_POND, address=2), name="x.toml").slots[:2]
    assert first.pins == second.pins


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "slot o2 (tx) and slot o3 (tx) are on one bus at GPIO17 and have the same address 1."),
        ({"address": 2, "power": 17}, "slot o2 (tx) and slot o3 (power) both use GPIO17."),
        ({"address": 2, "power": 26}, "slot o2 and slot o3 are both on UART 2, but have power on GPIO25 and on GPIO26."),
        ({"address": 2, "tx": 18, "rx": 19, "de": 21}, "slot o2 and slot o3 are both on UART 2, but have tx on GPIO17 and on GPIO18."),
        ({"address": 2, "uart": 1}, "slot o2 (tx) and slot o3 (tx) are on one bus at GPIO17, but on UART 2 and on UART 1."),
        ({"uart": 1, "tx": 18, "rx": 19, "de": 18}, "slot o3 (tx) and slot o3 (de) both use GPIO18."),
    ],
)  # fmt: skip
def test_two_probes_that_cannot_be_on_one_bus_are_refused(changes, sentence):
    said = refusal(_second_probe(_POND, **changes), damage=("", ""))
    assert said == f"x.toml: {sentence}"


def test_two_buses_may_have_their_probes_supply_in_common():
    own = {"uart": 1, "tx": 18, "rx": 19, "de": 21}
    first, second = parse_node_model(_second_probe(_POND, **own), name="x.toml").slots[:2]
    assert first.pins["power"] == second.pins["power"]


@pytest.fixture
def _made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_made_up_probes(tmp_path, monkeypatch)


_EZO = ("ezo", "sda = 21, scl = 22, power = 26", "i2c = 0, address = 99")


@pytest.mark.usefixtures("_made_up")
def test_every_interface_fits_on_one_board_at_once():
    model = parse_node_model(
        pond_with(
            _EZO,
            ("loop", "sda = 21, scl = 22, power = 27", "i2c = 0, address = 72"),
            ("wire", "tx = 18, rx = 19, de = 23, power = 25", 'uart = 1, address = "0"'),
            ("analog", "adc = 32, power = 33", ""),
            ("switch", "adc = 36, power = 13", ""),
        ),
        name="x.toml",
    )
    gates = {slot.id: slot.pins["power"] for slot in model.slots if "power" in slot.pins}
    assert gates["o2"] == gates["s2"], "one 12 V rail for both"
    assert len(model.slots) == 7


@pytest.mark.usefixtures("_made_up")
@pytest.mark.parametrize(
    ("slots", "sentence"),
    [
        ([_EZO, _EZO], "slot s0 (sda) and slot s1 (sda) are on one bus at GPIO21 and have the same address 99"),
        ([_EZO, ("loop", "sda = 21, scl = 22, power = 27", "i2c = 0, address = 99")], "slot s0 (sda) and slot s1 (sda) are on one bus at GPIO21 and have the same address 99"),
        ([_EZO, ("loop", "sda = 18, scl = 19, power = 27", "i2c = 0, address = 72")], "slot s0 and slot s1 are both on I²C 0, but have sda on GPIO21 and on GPIO18"),
        ([("serial", "tx = 18, rx = 19, power = 26", "uart = 2")], "slot o2 and slot s0 both use UART 2"),
        ([("serial", "tx = 18, rx = 19", "uart = 1")], "slot s0 has no pin power, which switches its supply switched_3v3"),
        ([("analog", "adc = 32, power = 36", "")], f"slot s0 (power) drives GPIO36, which can only be an input; {_OUTPUTS}"),
        ([("switch", "adc = 32, power = 25", "")], "slot o2 (power) and slot s0 (power) both use GPIO25"),
    ],
)  # fmt: skip
def test_probes_of_other_interfaces_that_cannot_be_on_one_board_are_refused(slots, sentence):
    assert refusal(pond_with(*slots), damage=("", "")) == f"x.toml: {sentence}."


@pytest.mark.parametrize("model_id", node_model_ids())
def test_every_model_also_fits_the_board_on_the_bench(model_id):
    check_pins(load_node_model(model_id), load_board("esp32-devkitc"), name=model_id)


@pytest.mark.parametrize("board_id", ["esp32-c3-devkitm", "esp32-s3-devkitc"])
def test_a_model_that_does_not_fit_another_board_is_refused_there(board_id):
    sentence = f"tree-3: slot w30 (a) uses GPIO25, which is not on the board {board_id}; take "
    with pytest.raises(CatalogueError, match=re.escape(sentence)):
        check_pins(load_node_model("tree-3"), load_board(board_id), name="tree-3")


# What the chips' data sheets say: ADC1 and strapping pins, which the flash takes, and which end deep sleep.
@pytest.mark.parametrize(
    ("chip", "adc1", "strapping", "flash", "wakes"),
    [
        (
            "esp32",
            range(32, 40),
            {0, 2, 5, 12, 15},
            range(6, 12),
            {0, 2, 4, *range(12, 16), *range(25, 28), *range(32, 40)},
        ),
        ("esp32s3", range(1, 11), {0, 3, 45, 46}, range(26, 38), set(range(22))),
        ("esp32c3", range(5), {2, 8, 9}, range(11, 18), set(range(6))),
    ],
)
def test_a_boards_pins_are_those_of_its_chip(chip, adc1, strapping, flash, wakes):
    boards = [board for name in board_ids() if (board := load_board(name)).chip == chip]
    assert boards
    for board in boards:
        pins = board.pins
        assert pins.adc1 <= set(adc1)
        assert pins.strapping == strapping
        assert pins.flash <= set(flash)
        assert not pins.start_high & pins.start_low
        assert pins.wakes == wakes & pins.exposed
        assert not pins.adc1 & pins.adc2
        assert set(pins.free) <= pins.exposed - pins.strapping - pins.flash - pins.console
        assert board.uarts == tuple(sorted(board.uarts))
        assert 0 not in board.uarts
        assert board.battery.pin in pins.free


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (("strapping = [0, 2, 5, 12, 15]", "strapping = [0, true]"), "pins: strapping must be a list of whole numbers."),
        (("strapping = [0, 2, 5, 12, 15]\n", ""), "pins: the key strapping is missing."),
        (("start_low = [2, 12]", "start_low = [4]"), "pins.start_high or start_low names GPIO4, which is no strapping pin."),
        (("pin = 35", "pin = 25"), "battery.pin 25 is not on ADC1."),
        (('36 = "VP"', 'VP = "36"'), "labels.VP is not the number of a GPIO."),
        (('36 = "VP"', '24 = "VP"'), "labels names GPIO24, which is not exposed."),
        (("asleep_ua = 3800", "asleep_ua = true"), "current: asleep_ua must be a number."),
        (("[[battery.parts]]", "[[battery.part]]"), "battery: the key parts is missing."),
    ],
)  # fmt: skip
def test_a_wrong_board_file_is_refused_with_one_sentence(damage, sentence):
    assert damage[0] in _BOARD
    with pytest.raises(CatalogueError, match=re.escape(f"boards/x.toml: {sentence}")):
        parse_board(_BOARD.replace(*damage), name="boards/x.toml")
