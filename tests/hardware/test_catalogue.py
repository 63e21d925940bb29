"""Node models and sensor types as data: what the files hold, and that a wrong file is refused with one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hardware import catalogue, data_files
from hardware.boards import board_ids, load_board
from hardware.catalogue import (
    MAX_CHANNELS,
    MAX_THINNED_BYTES,
    CatalogueError,
    load_node_model,
    load_sensor_type,
    node_model_ids,
    parse_node_model,
    parse_sensor_type,
    sensor_type_ids,
)
from hardware.circuits import interface_ids, load_interface, load_supply
from hardware.mounting import load_enclosure, load_gland
from hardware.paths import firmware_dir

_FOLDER = Path(catalogue.__file__).parent
_POND = (_FOLDER / "node_models" / "pond-1.toml").read_text(encoding="utf-8")
_ERRORS = (firmware_dir() / "node" / "errors.py").read_text(encoding="utf-8")
_REASONS = dict(re.findall(r'^([A-Z_]+) = const\("(\w+)"\)', _ERRORS, re.MULTILINE))
_BUS = (_FOLDER / "node_models" / "pond-2.toml").read_text(encoding="utf-8")
# The same with oxygen and turbidity on one bus and one supply.
_ONE_BUS = _BUS.replace("tx = 18, rx = 19, de = 23, power = 27", "tx = 17, rx = 16, de = 4, power = 25").replace("uart = 1", "uart = 2")  # fmt: skip
_CIRCUITS = (_FOLDER / "node_models" / "pond-3.toml").read_text(encoding="utf-8")
_SDI12_TREE = (_FOLDER / "node_models" / "tree-2.toml").read_text(encoding="utf-8")
_TEROS = (_FOLDER / "sensors" / "teros_12.toml").read_text(encoding="utf-8")
_THERMOMETER = (_FOLDER / "sensors" / "ds18b20.toml").read_text(encoding="utf-8")
_BATTERY = (_FOLDER / "sensors" / "battery_divider.toml").read_text(encoding="utf-8")
_TURBIDITY = (_FOLDER / "sensors" / "y511.toml").read_text(encoding="utf-8")
_ACIDITY = (_FOLDER / "sensors" / "ezo_ph.toml").read_text(encoding="utf-8")


def _pond_with(keys):
    """A pond's node whose probe has these channels too."""
    begin, rest = _POND.split('[[slots.channels]]\nkey = "do"')
    row, rest = rest.split("[[slots.channels]]", 1)
    rows = "".join(f'[[slots.channels]]\nkey = "{key}"{row}' for key in ("do", *keys))
    return f"{begin}{rows}[[slots.channels]]{rest}"


def test_every_file_in_the_catalogue_loads_under_its_own_name():
    assert {"tree-3", "pond-1"} <= set(node_model_ids())
    for ids, load in (
        (node_model_ids(), load_node_model),
        (sensor_type_ids(), load_sensor_type),
        (board_ids(), load_board),
        (interface_ids(), load_interface),
        (data_files.ids("supplies"), load_supply),
        (data_files.ids("enclosures"), load_enclosure),
        (data_files.ids("glands"), load_gland),
    ):
        assert [load(name).id for name in ids] == list(ids)


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


@pytest.mark.parametrize("name", sensor_type_ids())
def test_every_sensor_type_names_its_source_and_an_uncertainty(name):
    sensor_type = load_sensor_type(name)
    assert len(sensor_type.source) > 20
    for quantity in sensor_type.quantities:
        assert quantity.accuracy.standard_uncertainty(quantity.minimum) > 0
        assert quantity.drift_per_year.standard_uncertainty(quantity.maximum) > 0


def _reasons_in(source: Path) -> set[str]:
    """The reasons that a firmware file names, as they stand on the wire; those of the buses that it imports too."""
    text = source.read_text(encoding="utf-8")
    names = {name for name in re.findall(r"errors\.([A-Z_]+)", text) if name in _REASONS}
    found = {_REASONS[name] for name in names}
    for bus in re.findall(r"from node\.bus\.(\w+) import|from node\.bus import (\w+)", text):
        found |= _reasons_in(firmware_dir() / "node" / "bus" / f"{''.join(bus)}.py")
    return found


@pytest.mark.parametrize("name", sensor_type_ids())
def test_every_reason_that_a_driver_can_send_has_a_sign_and_a_remedy(name):
    sensor_type = load_sensor_type(name)
    folder = firmware_dir() / "node"
    drivers = [folder / "sensors" / f"{sensor_type.driver}.py", folder / f"{sensor_type.driver}.py"]
    sent = _reasons_in(next(path for path in drivers if path.exists()))
    sent |= {value.reason for value in sensor_type.error_values}
    explained = {sign.reason for sign in sensor_type.error_signs}
    assert sent <= explained | {"error"}
    assert explained <= set(_REASONS.values())


@pytest.mark.parametrize("name", sensor_type_ids())
def test_every_probe_with_a_lead_has_wires_that_are_fed_clamped_and_bought(name):
    sensor_type = load_sensor_type(name)
    if sensor_type.mounting.place == "enclosure":
        return
    clamps = [wire.to for wire in sensor_type.wires]
    is_fed = load_supply(sensor_type.supply.rail).id != "pins"
    terminals = {one.id for one in load_interface(sensor_type.interface).terminals}
    assert ("supply" in clamps) == is_fed
    assert not is_fed or "ground" in clamps or "loop" in terminals
    assert terminals <= set(clamps)
    assert sensor_type.parts
    assert sensor_type.mounting.steps
    assert sensor_type.calibration.steps


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
        (_POND, ('site_kind = "water"', 'site_kind = "lake"'), "site_kind must be one of tree, water, not lake."),
        (_POND, ('key = "do"', 'key = "sat"'), "channel key sat is used twice."),
        (_POND, ("tx = 17", "tx = 16"), "x.toml: slot o2 (tx) and slot o2 (rx) both use GPIO16."),
        (_POND, ('board = "esp32-lpkit"', 'board = "esp33"'), "Board esp33 is not known; there are esp32-c3-devkitm, "),
        (_POND, ("quantity = 8", "quantity = 0"), "parts[0]: quantity must be 1 or more."),
        (_POND, ('price_class = "b"', 'price_class = "cheap"'), "price_class must be one of a, b, c, d, e, not cheap."),
        (_POND, ("voltage_v = 3.6", "voltage_v = 0"), "battery: voltage_v must be above 0."),
        (_POND, ("voltage_v = 3.6", "voltage_v = nan"), "battery: voltage_v must be a number, not nan."),
        (_POND, ("cells = 8", "cells = 0"), "battery: cells must be 1 or more."),
        (_POND, ("depth_cm = 0", "depth_cm = -1"), "slots[o2]: depth_cm must be 0 or more."),
        (_POND, ("tx = 17", 'tx = "17"'), "pins.tx must be a whole number."),
        (_SDI12_TREE, ('address = "2"', 'address = "1"'), "x.toml: slot s30 (tx) and slot s60 (tx) are on one bus at GPIO25 and have the same address 1."),
        (_SDI12_TREE, ("tx = 25, rx = 26", "tx = 26, rx = 25"), "x.toml: slot s30 (rx) and slot s60 (tx) both use GPIO25."),
        (_SDI12_TREE, ("uart = 1", "uart = 2"), "x.toml: slot s30 (tx) and slot s60 (tx) are on one bus at GPIO25, but on UART 2 and on UART 1."),
        (_SDI12_TREE, ("adc = 32, power = 33", "adc = 32, power = 27"), "x.toml: slot s30 (de) and slot c10 (power) both use GPIO27."),
        (_POND, ('unit = "mg/L"', 'unit = "%"'), "channel do is in % from mg/L, but sensor type do_modbus gives mg/L from mg/L."),
        (_POND, ('"dissolved_oxygen"', '"ph"'), "Sensor type do_modbus does not deliver ph."),
        (_POND, ('"do_modbus"', '"do_ezo"'), "Sensor type do_ezo is not known; there are a02yyuw, battery_divider, "),
        (_CIRCUITS, ('needs = { temperature = "tw" }', 'needs = { temperature = "t9" }'), "channel ph needs t9, which the node does not have."),
        (_POND, ('key = "tw"', 'key = "T W"'), "slots[o2]: channels[T W]: key must be 1 to 32 small letters, digits"),
        (_POND, ('conversion = "identity"', 'conversion = "identical"'), "conversion must be one of capacitive_index, "),
        (_POND, ('key = "tw"', 'key = "tw"\nneeds = { temperature = "do" }'), "conversion identity works with nothing else, not with temperature."),
        (_POND, ("address = 1", "address = 700"), "slot o2 speaks Modbus; its options must say the probe's address, from 1 to 247."),
        (_POND, ("address = 1", "address = 0"), "the probe's address, from 1 to 247."),
        (_POND, (", address = 1", ""), "the probe's address, from 1 to 247."),
        (_POND, ("voltage_v = 3.6", "voltage_v = 48"), "the battery has 48 V, but a node bears and reads 6 V at most."),
        (_POND, ("[[slots]]", "[[slots"), "x.toml is not valid TOML: "),
        (_POND.split("[[slots]]")[0], ("id", "id"), "the key slots is missing."),
        (_POND, ("mute_mv = 3350", "mute_mv = 3550"), "battery_limits: low_mv must be above mute_mv, and that above stop_mv."),
        (_POND, ("urgent_every_s = 900\n", ""), "urgent_every_s and limits go together."),
        (_POND, ("urgent_every_s = 900", "urgent_every_s = 1800"), "urgent_every_s must be from 60 to sample_every_s (900), not 1800."),
        (_POND, ('channel = "do"', 'channel = "o2"'), "a limit is of o2, which the node does not have."),
        (_POND, ('kind = "below"', 'kind = "under"'), "limits[0]: kind must be one of below, above, fall, not under."),
        (_POND, ("clear = 4.5", "clear = 3.5"), "the limit do below 4 must end above that, not at 3.5."),
        (_POND, ("clear = 0.5", "clear = 1"), "the limit do fall 1 must end below that, not at 1."),
        (_POND, ("[[limits]]\n", '[[limits]]\nchannel = "tw"\nkind = "above"\nvalue = 30\nclear = 29\n' * 15 + "[[limits]]\n"), "a node watches 16 limits at most."),
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
        (_THERMOMETER, ('property = "soil_temperature"', 'property = "warmth"'), "quantities[0]: property warmth is none that the server knows: air_temperature, "),
        (_THERMOMETER, ('unit = "Cel"', 'unit = "K"'), "quantities[0]: unit of soil_temperature must be Cel, not K."),
        (_THERMOMETER, ("\nmaximum = 125.0", "\nmaximum = -60.0"), "minimum of soil_temperature must be below maximum."),
        (_THERMOMETER, ("raw_maximum = 2000", "raw_maximum = -880"), "raw_minimum of soil_temperature must be below raw_maximum."),
        (_THERMOMETER, ("measure_ms = 750", "measure_ms = 99999999"), "the probe is ready after 100000001 ms, but a node waits 75000 ms for all its probes."),
        (_THERMOMETER, ('reason = "por"', 'reason = "ill"'), "error_values[ill]: reason must be one of absent, "),
        (_THERMOMETER, ('[[error_signs]]\nreason = "', '[[error_signs]]\nreason = "ill'), "reason must be one of absent, "),
        (_TURBIDITY, ("baud = 9600", "baud = 7"), "modbus: baud must be one of 1200, 2400,"),
        (_TURBIDITY, ("function = 3", "function = 5"), "modbus: function must be 3 (holding) or 4 (input registers)."),
        (_TURBIDITY, ('parity = "none"', 'parity = "mark"'), "modbus: parity must be one of none, even, odd."),
        (_TURBIDITY, ('kind = "u8"', 'kind = "u7"'), "modbus: guards[error]: register: kind must be one of u8, u16, s16, u32, s32, f32, not u7."),
        (_TURBIDITY, ('kind = "f32", order = "dcba"', 'kind = "f32"'), "quantities[0]: register: order must be one of abcd, cdab, badc, dcba for 32 bits"),
        (_TURBIDITY, ('kind = "u8"', 'kind = "u8", order = "abcd"'), "guards[error]: register: order must be one of"),
        (_TURBIDITY, ("at = 0x2602", "at = 0x12602"), "quantities[0]: register: at must be a register from 0 to 65535."),
        (_TURBIDITY, ('reason = "error"', 'reason = "ill"'), "guards[ill]: reason must be one of absent, timeout,"),
        (_TURBIDITY, ('["turbidity", ', '["algae", '), "a guard speaks for algae, which is not delivered."),
        (_TURBIDITY, ('register = "wipe_age"', 'register = "wiper"'), "quantities[2]: register must be a table or wipe_age, not wiper."),
        (_TURBIDITY, ('register = "wipe_age"\n', ""), "wiper_age has no register."),
        (_TURBIDITY, ("wipe = 0x3100\n", ""), "wiper_age is of a wiper that modbus.wipe lacks."),
        (_TURBIDITY, ("count = 5", "count = 4"), "no read covers register 9732."),
        (_TURBIDITY, ("raw_maximum = 1000\n", "raw_maximum = 999.5\n"), "raw_minimum and raw_maximum of turbidity must be whole numbers"),
        (_ACIDITY, ("digits = 3", "digits = 9"), "ezo: digits must be from 0 to 4."),
        (_THERMOMETER, ('to = "DQ"', 'to = "DX"'), "the yellow wire goes to DX, but interface one_wire has DQ, ground, supply."),
        (_THERMOMETER, ("maximum_v = 5.5", "maximum_v = 3.2"), "supply 3v3 gives 3.3 V, but the probe bears 3 to 3.2 V."),
        (_THERMOMETER, ('rail = "3v3"', 'rail = "9v"'), "sensors/x.toml: Supply 9v is not known; there are 3v3, gpio_3v3, pins, "),
        (_THERMOMETER, ('interface = "one_wire"', 'interface = "can"'), "sensors/x.toml: Interface can is not known; there are battery, "),
        (_THERMOMETER, ('place = "soil"', 'place = "sky"'), "mounting: place must be one of soil, water, above_water, enclosure, not sky."),
        (_THERMOMETER, ("measure_ma = 1.0", "measure_ma = -1.0"), "current: measure_ma must be 0 or more."),
        (_THERMOMETER, ("measure_ms = 750", "measure_ms = -750"), "measure_ms must be 0 or more."),
        (_THERMOMETER, ("every_days = 730", "every_days = 0"), "calibration: every_days must be 1 or more."),
        (_THERMOMETER, ("every_days = 730", ""), "calibration: the key every_days is missing."),
        (_THERMOMETER, ("drift_per_year", "drift"), "quantities[0]: the key drift_per_year is missing."),
        (_THERMOMETER, ("[current]", "[currents]"), "the key current is missing."),
    ],
)  # fmt: skip
def test_wrong_sensor_type_is_refused_with_one_sentence(text, damage, sentence):
    assert damage[0] in text
    with pytest.raises(CatalogueError, match=re.escape(sentence)) as refused:
        parse_sensor_type(text.replace(*damage, 1), name="sensors/x.toml")
    assert str(refused.value).startswith("sensors/x.toml: ")
    assert str(refused.value).endswith(".")


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([f"k{n}" for n in range(23)], None),
        ([f"k{n}" for n in range(24)], "the node has 28 channels, and its packs hold 27; make two nodes of it."),
        ([f"k{n:_>31}" for n in range(23)], "packs may take 2586 bytes, and it keeps 2044; shorten the channel keys."),
    ],
)  # fmt: skip
def test_a_node_of_more_channels_than_its_packs_hold_is_refused(keys, sentence):
    if sentence is None:
        assert len(parse_node_model(_pond_with(keys), name="x.toml").channels) == MAX_CHANNELS
        return
    with pytest.raises(CatalogueError, match=re.escape(sentence)):
        parse_node_model(_pond_with(keys), name="x.toml")


def test_what_packs_hold_is_what_the_node_makes_of_them():
    source = "".join(
        (firmware_dir() / "node" / name).read_text(encoding="utf-8")
        for name in ("spool.py", "thinning.py")
    )
    number = {
        name: int(value) for name, value in re.findall(r"^(\w+) = const\((\d+)\)", source, re.M)
    }

    assert number["_MAX_CHANNELS"] == MAX_CHANNELS
    assert number["MAX_BODY"] - number["_COPY_BYTES"] == MAX_THINNED_BYTES


@pytest.mark.parametrize(
    ("text", "damage", "sentence"),
    [
        (_ONE_BUS, ("address = 10", "address = 1"), "slot o2 (tx) and slot tu (tx) are on one bus at GPIO17 and have the same address 1."),
        (_CIRCUITS, ("address = 97", "address = 99"), "slot ph (sda) and slot do (sda) are on one bus at GPIO21 and have the same address 99."),
        (_BUS, ("every_s = 10800", "every_s = 1000"), "slot tu: every_s must be a whole multiple of sample_every_s (900) and at most 86400, not 1000."),
        (_BUS, ("every_s = 10800", "every_s = 0"), "slot tu: every_s must be a whole multiple of sample_every_s (900) and at most 86400, not 0."),
        (_BUS, ("every_s = 10800", "every_s = 87300"), "slot tu: every_s must be a whole multiple of sample_every_s (900) and at most 86400, not 87300."),
        (_BUS, ("every_s = 10800", 'every_s = "3 h"'), "slots[tu]: every_s must be a whole number."),
        (_BUS, ('sensor_type = "battery_divider"', 'every_s = 3600\nsensor_type = "battery_divider"'), "slot bat is the battery, which is read at every sample; remove its every_s."),
        (_BUS, ("sample_every_s = 900", "sample_every_s = 0"), "sample_every_s (0) must be at least 60 and at most publish_every_s (3600), which is at most 86400."),
        (_BUS, ("publish_every_s = 3600", "publish_every_s = 600"), "sample_every_s (900) must be at least 60 and at most publish_every_s (600)"),
        (_CIRCUITS, ('sensor_type = "ds18b20_water"', 'sensor_type = "ds18b20_water"\nevery_s = 3600'), "channel ph is read every 900 s and needs tw, which is read every 3600 s only."),
        (_BUS, ("sda = 21", "sda = 17"), "slot o2 (tx) and slot lvl (sda) both use GPIO17."),
        (_BUS, ("address = 10, wipe_every_s = 10800", "address = 10"), "slot tu has a wiper; its options must say wipe_every_s."),
        (_CIRCUITS, ('conversion = "ezo_ph"\nneeds = { temperature = "tw" }', 'conversion = "identity"'), "channel ph needs a temperature, which slot ph is told."),
        (_CIRCUITS, ('needs = { temperature = "tw" }', 'needs = { temperature = "do" }'), "slot ph cannot be told do; a node reads temperatures in Cel, Cel/16."),
    ],
)  # fmt: skip
def test_slots_that_cannot_be_read_together_are_refused(text, damage, sentence):
    assert damage[0] in text
    with pytest.raises(CatalogueError, match=re.escape(sentence)):
        parse_node_model(text.replace(*damage, 1), name="node_models/x.toml")


def test_what_needs_another_reading_may_be_read_more_seldom_than_that():
    text = _CIRCUITS.replace('sensor_type = "ezo_ph"', 'sensor_type = "ezo_ph"\nevery_s = 3600')
    model = parse_node_model(text, name="x.toml")
    assert model.interval_s(model.slot_of("ph")) == 3600
    assert model.interval_s(model.slot_of("tw")) == 900


def test_probes_may_share_the_wires_of_a_bus_and_a_rail_under_the_same_name():
    model = parse_node_model(_ONE_BUS, name="x.toml")
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
    with pytest.raises(CatalogueError, match="Node model tree-9 is not known; there are bank-1, "):
        load_node_model("tree-9")


def test_a_file_that_is_called_otherwise_than_its_id_is_refused(tmp_path, monkeypatch):
    (tmp_path / "sensors").mkdir()
    (tmp_path / "sensors" / "warm.toml").write_text(_THERMOMETER, encoding="utf-8")
    monkeypatch.setenv(data_files.ENVIRONMENT, str(tmp_path))
    sentence = "sensors/warm.toml: id is ds18b20, but the file is called warm; make them the same."
    with pytest.raises(CatalogueError, match=f"^{re.escape(sentence)}$"):
        load_sensor_type("warm")


def test_a_path_is_not_a_node_model():
    with pytest.raises(CatalogueError, match="is not known"):
        load_node_model("../sensors/ds18b20")
