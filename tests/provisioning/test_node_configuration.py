"""The maps on the board say what the hardware data say, in the words that the firmware reads."""

from dataclasses import replace
from typing import Any

import cbor2
import pytest

from hardware.catalogue import load_node_model, node_model_ids
from hardware.spoken import Register, stretches
from provisioning.node_configuration import Link, encode_map, link_map, node_map


def _probe_of(model_id: str, slot: str) -> dict[str, Any]:
    probes = node_map(load_node_model(model_id))["probes"]
    return next(probe for probe in probes if probe["slot"] == slot)


LINK = Link("broker.example", 8883, True, "broker.example", "ntp.example", "")


@pytest.mark.parametrize("model_id", node_model_ids())
def test_every_channel_of_a_model_is_read_by_exactly_one_probe_or_the_battery(
    model_id: str,
) -> None:
    model = load_node_model(model_id)
    content = node_map(model)
    keys = [key for probe in content["probes"] for key in probe["keys"]] + [content["bat"]["key"]]
    assert sorted(keys) == sorted(channel.key for channel in model.channels)
    assert (content["sample_s"], content["publish_s"]) == (model.sample_every_s, 3600)


def test_a_tree_node_has_three_tension_and_three_temperature_probes() -> None:
    content = node_map(load_node_model("tree-3"))
    probes = {probe["slot"]: probe for probe in content["probes"]}
    assert [probes[slot]["driver"] for slot in ("w30", "d30")] == ["watermark", "ds18b20"]
    assert probes["w30"]["keys"] == ["r30"]
    assert probes["w30"]["pins"] == {"a": 25, "b": 26, "adc": 32}
    assert content["bat"] == {"key": "bat", "pin": 35, "divider_milli": 2000}


def test_a_modbus_probe_is_told_what_its_file_says_and_a_slot_may_say_otherwise() -> None:
    options = _probe_of("soil-1", "s30")["options"]
    assert (options["baud"], options["parity"], options["function"]) == (9600, "even", 3)
    assert options["address"] == 1
    assert options["reads"] == [[0, 3]]
    # Register, kind, order, limits and signs of a fault, in the order of the keys; no scale: raw units go out.
    assert options["registers"][0] == [1, "u16", "", 0, 10_000, 0xFFFF, "range"]
    # Permittivity speaks for water content and itself, which are the first two keys.
    assert options["guards"] == [[2, "u16", "", 100, 10_000, "range", 0, 1]]

    slot = next(slot for slot in load_node_model("soil-1").slots if slot.id == "s30")
    slower = replace(slot, options={**slot.options, "baud": 4800})
    model = replace(load_node_model("soil-1"), slots=(slower,))
    assert node_map(model)["probes"][0]["options"]["baud"] == 4800


def test_a_node_is_told_how_often_to_read_what_it_reads_seldom_by_the_slots_first_channel() -> None:
    assert node_map(load_node_model("pond-2"))["every_s"] == {
        "sat": 3600,
        "tu": 10_800,
        "lvl": 3600,
    }
    assert "every_s" not in node_map(load_node_model("pond-1"))


def test_registers_without_a_gap_are_read_at_once_and_others_apart() -> None:
    places = [Register(5, "u32", "abcd"), Register(4, "u16", ""), Register(100, "u8", "")]
    assert stretches(places) == ((4, 3), (100, 1))
    assert stretches([Register(2, "f32", "abcd"), Register(2, "f32", "abcd")]) == ((2, 2),)


def test_a_probe_that_answers_only_certain_requests_gets_those() -> None:
    options = _probe_of("pond-2", "tu")["options"]
    assert options["start"] == [0x2500, 0]
    assert options["reads"] == [[0x2600, 5]]
    assert options["wipe"] == [0x3100, 10_800]
    assert options["registers"][1] == ["wipe_age"]
    assert "wipe_every_s" not in options


def test_circuits_are_told_the_temperature_that_the_server_corrects_with() -> None:
    for slot, default_centi in (("ph", 2500), ("do", 2000)):
        probe = _probe_of("pond-3", slot)
        assert probe["needs"] == {"key": "tw", "parts": 16}
        assert probe["options"]["default_centi"] == default_centi
    assert "needs" not in _probe_of("pond-3", "ec")


def test_limits_stand_in_raw_units_beside_how_often_to_look_while_one_is_crossed() -> None:
    content = node_map(load_node_model("pond-1"))
    assert content["limits"] == [["do", "below", 4, 4.5], ["do", "fall", 1, 0.5]]
    assert content["urgent_s"] == 900
    tree = node_map(load_node_model("tree-3"))
    assert "limits" not in tree
    assert (tree["low_mv"], tree["mute_mv"], tree["stop_mv"]) == (3500, 3350, 3200)


@pytest.mark.parametrize("model_id", node_model_ids())
def test_a_configuration_fits_into_what_a_node_reads(model_id: str) -> None:
    assert len(encode_map(node_map(load_node_model(model_id)))) <= 1900  # firmware/node/config.py


def test_an_sdi12_sensor_is_described_to_the_node_by_its_type() -> None:
    content = node_map(load_node_model("tree-2"))
    (probe,) = [probe for probe in content["probes"] if probe["slot"] == "s60"]
    assert probe["keys"] == ["v60", "t60", "e60"]
    assert probe["options"] == {
        "uart": 1,
        "address": "2",
        "concurrent": False,
        "warm_up_ms": 300,
        "fields": [0, 1, 2],
        "decimals": [1, 1, 0],
        "lowest": [17000, -400, 0],
        "highest": [36000, 600, 20000],
    }


@pytest.mark.parametrize(
    "password", ["", " ~!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}", "Grüße aus Köln ß€"]
)
def test_every_printable_wifi_password_reaches_the_board_unchanged(password: str) -> None:
    content = cbor2.loads(encode_map(link_map(LINK, [("Büro", password)])))
    assert content["wifi"] == [["Büro", password]]


def test_the_maps_are_cbor_of_definite_length_without_floats() -> None:
    for model_id in node_model_ids():
        content = node_map(load_node_model(model_id))
        data = encode_map(content)
        assert cbor2.loads(data) == content
        assert b"\x9f" not in data[:1]
        assert b"\xfb" not in data


@pytest.mark.parametrize("missing", ["host", "port", "tls", "server_name", "ntp", "prefix"])
def test_an_answer_without_a_part_of_the_link_is_refused(missing: str) -> None:
    answer = {
        "host": "h",
        "port": 8883,
        "tls": True,
        "server_name": "h",
        "ntp": "",
        "prefix": "",
    }
    del answer[missing]
    with pytest.raises(ValueError, match=missing):
        Link.from_answer(answer)
