"""Node models and sensor types as data: what the files hold, and that a wrong file is refused with one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hardware import catalogue
from hardware.catalogue import (
    CatalogueError,
    load_node_model,
    load_sensor_type,
    node_model_ids,
    parse_node_model,
    parse_sensor_type,
    sensor_type_ids,
)

_FOLDER = Path(catalogue.__file__).parent
_POND = (_FOLDER / "node_models" / "pond-1.toml").read_text(encoding="utf-8")
_BUS = (_FOLDER / "node_models" / "pond-2.toml").read_text(encoding="utf-8")
_CIRCUITS = (_FOLDER / "node_models" / "pond-3.toml").read_text(encoding="utf-8")
_SDI12_TREE = (_FOLDER / "node_models" / "tree-2.toml").read_text(encoding="utf-8")
_TEROS = (_FOLDER / "sensors" / "teros_12.toml").read_text(encoding="utf-8")
_THERMOMETER = (_FOLDER / "sensors" / "ds18b20.toml").read_text(encoding="utf-8")
_BATTERY = (_FOLDER / "sensors" / "battery_divider.toml").read_text(encoding="utf-8")
_TURBIDITY = (_FOLDER / "sensors" / "y511.toml").read_text(encoding="utf-8")
_ACIDITY = (_FOLDER / "sensors" / "ezo_ph.toml").read_text(encoding="utf-8")


def test_every_file_in_the_catalogue_loads_under_its_own_name():
    assert {load_node_model(name).id for name in node_model_ids()} == {
        "tree-2", "tree-3", "soil-1", "pond-1", "pond-2", "pond-3", "level-1",
    }  # fmt: skip
    assert all(load_sensor_type(name).id == name for name in sensor_type_ids())


def test_tree_node_delivers_tension_and_temperature_at_three_depths_and_its_battery():
    model = load_node_model("tree-3")

    assert [channel.key for channel in model.channels] == [
        "r30", "r60", "r90", "t30", "t60", "t90", "ref", "bat",
    ]  # fmt: skip
    assert [channel.depth_cm for channel in model.channels] == [30, 60, 90, 30, 60, 90, 0, 0]
    assert model.channel("r60").needs == {"temperature": "t60", "reference": "ref"}
    assert (model.sample_every_s, model.publish_every_s) == (900, 3600)


def test_water_node_reads_three_quantities_from_one_probe():
    model = load_node_model("pond-1")

    assert [channel.key for channel in model.channels] == ["sat", "do", "tw", "bat"]
    assert {model.slot_of(key).id for key in ("sat", "do", "tw")} == {"o2"}


@pytest.mark.parametrize("name", node_model_ids())
def test_analogue_probes_hang_on_adc1_because_adc2_is_taken_while_wifi_is_on(name):
    adc1 = range(32, 40)
    assert all(
        slot.pins["adc"] in adc1 for slot in load_node_model(name).slots if "adc" in slot.pins
    )


@pytest.mark.parametrize("name", node_model_ids())
def test_no_probe_hangs_on_a_pin_that_decides_how_the_chip_starts(name):
    strapping_and_flash = {0, 2, 5, 12, 15, *range(6, 12)}
    pins = {gpio for slot in load_node_model(name).slots for gpio in slot.pins.values()}
    assert not pins & strapping_and_flash


@pytest.mark.parametrize("name", sensor_type_ids())
def test_every_sensor_type_names_its_source_and_an_uncertainty(name):
    sensor_type = load_sensor_type(name)
    assert len(sensor_type.source) > 20
    for quantity in sensor_type.quantities:
        assert quantity.accuracy.standard_uncertainty(quantity.minimum) > 0


def test_accuracy_adds_its_parts_as_independent():
    tension = load_sensor_type("watermark_200ss").quantity("soil_water_tension")
    assert tension.accuracy.standard_uncertainty(0.0) == pytest.approx(1.5)
    assert tension.accuracy.standard_uncertainty(100.0) == pytest.approx((1.5**2 + 6**2) ** 0.5)


@pytest.mark.parametrize(
    ("text", "damage", "sentence"),
    [
        (_POND, ('title = "Water', 'titel = "Water'), "node_models/x.toml: the key title is missing."),
        (_POND, ("publish_every_s = 3600", "publish_every_s = 3600\ncolour = 1"), "x.toml: the key colour is not known."),
        (_POND, ("publish_every_s = 3600", 'publish_every_s = "1 h"'), "publish_every_s must be a whole number."),
        (_POND, ("publish_every_s = 3600", "publish_every_s = true"), "publish_every_s must be a whole number."),
        (_POND, ('site_kind = "water"', 'site_kind = "lake"'), "site_kind must be tree or water, not lake."),
        (_POND, ('key = "do"', 'key = "sat"'), "channel key sat is used twice."),
        (_POND, ("tx = 17", "tx = 16"), "GPIO 16 is used twice."),
        (_POND, ("tx = 17", 'tx = "17"'), "pins.tx must be a whole number."),
        (_SDI12_TREE, ('address = "2"', 'address = "1"'), "x.toml: address 1 is used twice on one bus."),
        (_SDI12_TREE, ("tx = 25, rx = 26", "tx = 26, rx = 25"), "x.toml: GPIO 26 is used twice."),
        (_SDI12_TREE, ("uart = 1", "uart = 2"), "x.toml: GPIO 25 is used twice."),
        (_SDI12_TREE, ("adc = 32, power = 33", "adc = 32, power = 14"), "x.toml: GPIO 14 is used twice."),
        (_POND, ('unit = "mg/L"', 'unit = "%"'), "channel do is in % from mg/L, but sensor type do_modbus gives mg/L from mg/L."),
        (_POND, ('"dissolved_oxygen"', '"ph"'), "Sensor type do_modbus does not deliver ph."),
        (_POND, ('"do_modbus"', '"do_ezo"'), "Sensor type do_ezo is not known; there are a02yyuw, battery_divider, "),
        (_POND, ('key = "tw"', 'key = "tw"\nneeds = { salinity = "ec" }'), "channel tw needs ec, which the node does not have."),
        (_POND, ("[[slots]]", "[[slots"), "x.toml is not valid TOML: "),
        (_POND.split("[[slots]]")[0], ("id", "id"), "the key slots is missing."),
        (_POND, ("mute_mv = 3350", "mute_mv = 3550"), "battery_limits: low_mv must be above mute_mv, and that above stop_mv."),
        (_POND, ("urgent_every_s = 900\n", ""), "urgent_every_s and limits go together."),
        (_POND, ("urgent_every_s = 900", "urgent_every_s = 1800"), "urgent_every_s must be from 60 to sample_every_s (900), not 1800."),
        (_POND, ('channel = "do"', 'channel = "o2"'), "a limit is of o2, which the node does not have."),
        (_POND, ('kind = "below"', 'kind = "under"'), "limits[0]: kind must be one of below, above, fall, not under."),
        (_POND, ("clear = 4.5", "clear = 3.5"), "the limit do below 4 must end above that, not at 3.5."),
        (_POND, ("clear = 0.5", "clear = 1"), "the limit do fall 1 must end below that, not at 1."),
        (_POND, ("[[limits]]\n", '[[limits]]\nchannel = "tw"\nkind = "above"\nvalue = 30\nclear = 29\n' * 5 + "[[limits]]\n"), "a node watches 6 limits at most."),
    ],
)  # fmt: skip
def test_wrong_node_model_is_refused_with_one_sentence(text, damage, sentence):
    assert damage[0] in text
    with pytest.raises(CatalogueError, match=re.escape(sentence)) as refused:
        parse_node_model(text.replace(*damage, 1), name="node_models/x.toml")
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "damage", "sentence"),
    [
        (_THERMOMETER, ("relative = 0.0", 'relative = "0"'), "quantities[0]: accuracy: relative must be a number."),
        (_BATTERY, ("[[quantities]]", "[quantities]"), "quantities must be a list of tables."),
        (_THERMOMETER, ("warm_up_ms = 2", "warm_up_ms = 0.5"), "warm_up_ms must be a whole number."),
        (_THERMOMETER, ('reason = "por"', ""), "error_values[0]: the key reason is missing."),
        (_TURBIDITY, ('driver = "modbus"', 'driver = "optics"'), "the driver modbus and the table modbus go together."),
        (_BATTERY, ('driver = "battery"', 'driver = "ezo"'), "the driver ezo and the table ezo go together."),
        (_TURBIDITY, ("function = 3", "function = 5"), "modbus: function must be 3 (holding) or 4 (input registers)."),
        (_TURBIDITY, ('parity = "none"', 'parity = "mark"'), "modbus: parity must be one of none, even, odd."),
        (_TURBIDITY, ('kind = "u8"', 'kind = "u7"'), "modbus: guards[0]: register: kind must be one of u8, u16, s16, u32, s32, f32, not u7."),
        (_TURBIDITY, ('kind = "f32", order = "dcba"', 'kind = "f32"'), "quantities[0]: register: order must be one of abcd, cdab, badc, dcba for 32 bits"),
        (_TURBIDITY, ('kind = "u8"', 'kind = "u8", order = "abcd"'), "guards[0]: register: order must be one of"),
        (_TURBIDITY, ("at = 0x2602", "at = 0x12602"), "quantities[0]: register: at must be a register from 0 to 65535."),
        (_TURBIDITY, ('reason = "error"', 'reason = "ill"'), "guards[0]: reason must be one of absent, timeout,"),
        (_TURBIDITY, ('["turbidity", ', '["algae", '), "a guard speaks for algae, which is not delivered."),
        (_TURBIDITY, ('register = "wipe_age"', 'register = "wiper"'), "quantities[2]: register must be a table or wipe_age, not wiper."),
        (_TURBIDITY, ('register = "wipe_age"\n', ""), "wiper_age has no register."),
        (_TURBIDITY, ("wipe = 0x3100\n", ""), "wiper_age is of a wiper that modbus.wipe lacks."),
        (_TURBIDITY, ("count = 5", "count = 4"), "no read covers register 9732."),
        (_TURBIDITY, ("raw_maximum = 1000\n", "raw_maximum = 999.5\n"), "raw_minimum and raw_maximum of turbidity must be whole numbers"),
        (_ACIDITY, ("digits = 3", "digits = 9"), "ezo: digits must be from 0 to 4."),
    ],
)  # fmt: skip
def test_wrong_sensor_type_is_refused_with_one_sentence(text, damage, sentence):
    assert damage[0] in text
    with pytest.raises(CatalogueError, match=re.escape(sentence)) as refused:
        parse_sensor_type(text.replace(*damage, 1), name="sensors/x.toml")
    assert str(refused.value).startswith("sensors/x.toml: ")
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "damage", "sentence"),
    [
        (_BUS, ("address = 10", "address = 1"), "address 1 is used twice on one bus."),
        (_CIRCUITS, ("address = 97", "address = 99"), "address 99 is used twice on one bus."),
        (_BUS, ("sda = 21", "sda = 17"), "GPIO 17 is used twice."),
        (_BUS, ("address = 10, wipe_every_s = 10800", "address = 10"), "slot tu has a wiper; its options must say wipe_every_s."),
        (_CIRCUITS, ('conversion = "ezo_ph"\nneeds = { temperature = "tw" }', 'conversion = "identity"'), "channel ph needs a temperature, which slot ph is told."),
        (_CIRCUITS, ('needs = { temperature = "tw" }', 'needs = { temperature = "do" }'), "slot ph cannot be told do; a node reads temperatures in Cel, Cel/16."),
    ],
)  # fmt: skip
def test_probes_that_cannot_share_a_bus_are_refused(text, damage, sentence):
    assert damage[0] in text
    with pytest.raises(CatalogueError, match=re.escape(sentence)):
        parse_node_model(text.replace(*damage, 1), name="node_models/x.toml")


def test_probes_may_share_the_wires_of_a_bus_and_a_rail_under_the_same_name():
    model = load_node_model("pond-2")
    shared = [slot.pins for slot in model.slots if slot.sensor_type in ("y504", "y511")]
    assert shared[0] == shared[1]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (("sdi12 = { position = 1, decimals = 1 }", ""), "sensors/x.toml: soil_temperature needs sdi12 = { position, decimals } just when the type has [sdi12]."),
        (("sdi12 = { is_concurrent = false }", ""), "soil_water_content needs sdi12"),
        (("position = 1", "position = 12"), "quantities[1]: sdi12: position must be from 0 to 8 and decimals from 0 to 6."),
        (("is_concurrent = false", "is_concurrent = 0"), "sdi12: is_concurrent must be true or false."),
        (("decimals = 0 }", "decimals = 0, unit = 1 }"), "the key unit is not known."),
    ],
)  # fmt: skip
def test_wrong_description_of_an_sdi12_sensor_is_refused_with_one_sentence(damage, sentence):
    assert damage[0] in _TEROS
    with pytest.raises(CatalogueError, match=re.escape(sentence)) as refused:
        parse_sensor_type(_TEROS.replace(*damage, 1), name="sensors/x.toml")
    assert "\n" not in str(refused.value)


def test_sensors_on_one_sdi12_wire_share_its_pins_and_its_supply():
    first, second = (load_node_model("tree-2").slot_of(key) for key in ("v30", "v60"))

    assert first.pins == second.pins
    assert first.options["address"] != second.options["address"]


def test_unknown_node_model_is_answered_with_those_there_are():
    with pytest.raises(
        CatalogueError,
        match="Node model tree-9 is not known; there are level-1, pond-1, pond-2, pond-3, soil-1, tree-2",
    ):
        load_node_model("tree-9")


def test_a_path_is_not_a_node_model():
    with pytest.raises(CatalogueError, match="is not known"):
        load_node_model("../sensors/ds18b20")
