"""The server's codec against the vectors that the node's codec is held to as well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cbor2
import pytest

from fleet_server.wire import cbor
from fleet_server.wire.commands import CommandName, Result
from fleet_server.wire.configuration import Channels, find_fault, sha256_hex
from fleet_server.wire.desired import (
    DesiredState,
    Receipt,
    decode_desired,
    decode_receipt,
    encode_desired,
    encode_receipt,
)
from fleet_server.wire.errors import WireError
from fleet_server.wire.manifest import decode_manifest
from fleet_server.wire.senml import (
    MAX_EVENT_BODY_BYTES,
    Extreme,
    Pack,
    ThinnedPack,
    decode_event,
    decode_pack,
    decode_telemetry,
    encode_body,
    encode_envelope,
    encode_pack,
    encode_thinned_body,
)
from fleet_server.wire.state_message import NodeStateMessage, decode_state, encode_state
from fleet_server.wire.states import MAX_REASON_LENGTH, Reason

GOLDEN = Path(__file__).parents[2] / "golden"


def golden(name: str) -> list[Any]:
    content: list[Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return content


def readings_of(vector: dict[str, Any]) -> list[tuple[str, float | None, str | None]]:
    return [
        (key, content.get("integer", content.get("value")), content.get("reason"))
        for key, content in vector["readings"]
    ]


HEADER = ("node_id", "time_utc_s", "oldest", "spool", "seq", "power_up", "uptime_ms")


def test_files_are_what_their_script_writes() -> None:
    run = subprocess.run([sys.executable, GOLDEN / "make.py", "--check"], check=False)
    assert run.returncode == 0


def test_receipt_vector_equals_the_one_made_by_hand() -> None:
    # a2 map of 2 · 65 "spool" · 00 · 63 "seq" · 00
    assert golden("receipts")[0]["hex"] == "a2" + "65" + b"spool".hex() + "00" + "63736571" + "00"


def test_smallest_pack_equals_the_one_made_by_hand() -> None:
    envelope = "a4" + "21" + "64" + b"abc:".hex() + "22" + "1a5e0be100"
    envelope += "00" + "67" + b"_oldest".hex() + "02" + "01"
    body = "a2" + "00" + "66" + b"_spool".hex() + "02" + "07"
    body += "a2" + "00" + "64" + b"_seq".hex() + "02" + "1818"
    body += "a2" + "00" + "63" + b"_up".hex() + "02" + "190100"
    body += "a2" + "00" + "63" + b"_ms".hex() + "02" + "1b0000000100000000"
    body += "a2" + "00" + "63" + b"bat".hex() + "03" + "66" + b"absent".hex()
    payload = encode_pack(
        node_id="abc",
        time_utc_s=1_577_836_800,
        oldest=1,
        spool=7,
        seq=24,
        power_up=256,
        uptime_ms=1 << 32,
        readings=[("bat", None, "absent")],
    )
    assert payload.hex() == "86" + envelope + body
    assert decode_pack(payload).body.hex() == body


@pytest.mark.parametrize("vector", golden("integers"), ids=lambda vector: str(vector["value"]))
def test_integer_takes_its_shortest_form(vector: dict[str, Any]) -> None:
    assert cbor.encode_integer(vector["value"]).hex() == vector["hex"]
    assert cbor2.loads(bytes.fromhex(vector["hex"])) == vector["value"]


@pytest.mark.parametrize("vector", golden("envelopes"), ids=lambda vector: vector["hex"][:30])
def test_envelope_is_written_as_agreed(vector: dict[str, Any]) -> None:
    given = {key: vector[key] for key in ("node_id", "time_utc_s", "oldest")}
    assert encode_envelope(**given).hex() == vector["hex"]


@pytest.mark.parametrize("vector", golden("packs"), ids=lambda vector: vector["name"])
def test_pack_is_written_as_agreed(vector: dict[str, Any]) -> None:
    header = {key: vector[key] for key in HEADER}
    payload = encode_pack(**header, readings=readings_of(vector))
    body, records = encode_body(
        **{key: header[key] for key in HEADER[3:]}, readings=readings_of(vector)
    )
    assert payload.hex() == vector["payload_hex"]
    assert (body.hex(), records) == (vector["body_hex"], vector["body_records"])


@pytest.mark.parametrize("vector", golden("packs"), ids=lambda vector: vector["name"])
def test_pack_is_read_as_agreed(vector: dict[str, Any]) -> None:
    pack = decode_pack(bytes.fromhex(vector["payload_hex"]))
    assert {key: getattr(pack, key) for key in HEADER} == {key: vector[key] for key in HEADER}
    assert list(pack.readings) == readings_of(vector)
    assert [type(value) for _, value, _ in pack.readings] == [
        type(value) for _, value, _ in readings_of(vector)
    ]
    assert pack.body.hex() == vector["body_hex"]


@pytest.mark.parametrize("vector", golden("packs"), ids=lambda vector: vector["name"])
def test_pack_means_the_same_to_a_plain_cbor_reader(vector: dict[str, Any]) -> None:
    envelope, *records = cbor2.loads(bytes.fromhex(vector["payload_hex"]))
    assert envelope[-2] == vector["node_id"] + ":"
    assert [record[0] for record in records[:4]] == ["_spool", "_seq", "_up", "_ms"]
    assert [(record[0], record.get(2), record.get(3)) for record in records[4:]] == readings_of(
        vector
    )


@pytest.mark.parametrize("vector", golden("events"), ids=lambda vector: vector["name"])
def test_event_is_read_as_agreed(vector: dict[str, Any]) -> None:
    event = decode_event(bytes.fromhex(vector["payload_hex"]))

    assert {key: getattr(event, key) for key in HEADER} == {key: vector[key] for key in HEADER}
    (_, name), *details = vector["readings"]
    assert event.event == name["text"]
    assert list(event.details) == [
        (key, content.get("integer", content.get("value", content.get("text"))))
        for key, content in details
    ]
    assert len(event.body) <= MAX_EVENT_BODY_BYTES


IN_THINNED_BODY = (
    *("spool", "seq", "power_up", "uptime_ms", "from_seq", "to_seq", "packs"),
    *("until_power_up", "until_uptime_ms"),
)


def extremes_of(vector: dict[str, Any]) -> list[Extreme]:
    def number(content: dict[str, Any] | None) -> float | None:
        return None if content is None else content.get("integer", content.get("value"))

    return [
        Extreme(key, number(lowest), number(highest), cause and cause["reason"])
        for key, lowest, highest, cause in vector["extremes"]
    ]


@pytest.mark.parametrize("vector", golden("thinned"), ids=lambda vector: vector["name"])
def test_thinned_pack_is_written_and_read_as_agreed(vector: dict[str, Any]) -> None:
    header = {key: vector[key] for key in IN_THINNED_BODY}
    body, records = encode_thinned_body(**header, extremes=extremes_of(vector))
    pack = decode_telemetry(bytes.fromhex(vector["payload_hex"]))
    assert (body.hex(), records) == (vector["body_hex"], vector["body_records"])
    assert isinstance(pack, ThinnedPack)
    assert {key: getattr(pack, key) for key in header} == header
    assert (pack.node_id, pack.time_utc_s, pack.oldest) == (
        vector["node_id"],
        vector["time_utc_s"],
        vector["oldest"],
    )
    assert list(pack.extremes) == extremes_of(vector)
    assert pack.body.hex() == vector["body_hex"]


@pytest.mark.parametrize("vector", golden("thinned"), ids=lambda vector: vector["name"])
def test_thinned_pack_is_no_ordinary_one(vector: dict[str, Any]) -> None:
    """A reader that knows nothing of thinned packs must not take their extremes for readings."""
    with pytest.raises(WireError) as refusal:
        decode_pack(bytes.fromhex(vector["payload_hex"]))
    assert refusal.value.code == "channel_key_wrong"


@pytest.mark.parametrize("vector", golden("packs"), ids=lambda vector: vector["name"])
def test_ordinary_pack_is_no_thinned_one(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["payload_hex"])
    pack = decode_telemetry(payload)
    assert isinstance(pack, Pack)
    assert pack == decode_pack(payload)


@pytest.mark.parametrize("vector", golden("refused"), ids=lambda vector: vector["name"])
def test_payload_that_is_no_pack_is_refused_by_name(vector: dict[str, Any]) -> None:
    payload = bytes(vector["zeros"]) if "zeros" in vector else bytes.fromhex(vector["hex"])
    with pytest.raises(WireError) as refusal:
        decode_pack(payload)
    assert refusal.value.code == vector["code"]
    assert refusal.value.sentence.endswith(".")


@pytest.mark.parametrize("vector", golden("states"), ids=lambda vector: vector["fields"]["model"])
def test_state_message_is_written_and_read_as_agreed(vector: dict[str, Any]) -> None:
    state = NodeStateMessage(**vector["fields"])
    assert encode_state(state).hex() == vector["hex"]
    assert decode_state(bytes.fromhex(vector["hex"])) == state


@pytest.mark.parametrize("vector", golden("receipts"), ids=lambda vector: str(vector["seq"]))
def test_receipt_is_written_and_read_as_agreed(vector: dict[str, Any]) -> None:
    receipt = Receipt(vector["spool"], vector["seq"])
    assert encode_receipt(receipt).hex() == vector["hex"]
    assert decode_receipt(bytes.fromhex(vector["hex"])) == receipt


@pytest.mark.parametrize("vector", golden("desired"), ids=lambda v: str(v["config"]["version"]))
def test_desired_state_is_written_and_read_as_agreed(vector: dict[str, Any]) -> None:
    desired = DesiredState(
        config_version=vector["config"]["version"],
        config_values=vector["config"]["values"],
        release=vector["release"],
        commands=tuple(vector["commands"]),
        certificate=vector["certificate"] and bytes.fromhex(vector["certificate"]),
        roots=vector["roots"] and tuple(bytes.fromhex(root) for root in vector["roots"]),
    )
    assert encode_desired(desired).hex() == vector["hex"]
    assert decode_desired(bytes.fromhex(vector["hex"])) == desired


@pytest.mark.parametrize("vector", golden("configurations"), ids=lambda vector: vector["name"])
def test_configuration_is_taken_refused_and_hashed_as_agreed(vector: dict[str, Any]) -> None:
    probes, battery = vector["node"]["probes"], vector["node"]["bat"]
    keys = [key for probe in probes for key in probe["keys"]]
    channels = Channels((*keys, battery["key"]), [probe["keys"][0] for probe in probes])
    values = cbor2.loads(bytes.fromhex(vector["cbor_hex"]))
    fault = find_fault(
        values, channels, provisioned=vector["node"], battery_mv=vector["battery_mv"]
    )
    assert (fault.name if fault else None) == vector["fault"]
    assert fault is None or fault.sentence.endswith(".")
    assert cbor.encode(values).hex() == vector["cbor_hex"]
    if fault is None:
        assert sha256_hex(7, values) == vector["sha256"]


@pytest.mark.parametrize("vector", golden("manifests"), ids=lambda vector: vector["name"])
def test_manifest_is_read_as_agreed(vector: dict[str, Any]) -> None:
    manifest = decode_manifest(bytes.fromhex(vector["hex"]))
    image = manifest.image
    assert (manifest.version, manifest.counter) == (vector["version"], vector["counter"])
    assert manifest.bundle_sha256 == vector["bundle_sha256"]
    told = image and [image.size_bytes, image.sha256.hex(), list(image.micropython)]
    assert told == vector["image"]


def test_password_is_not_part_of_the_hash() -> None:
    secret = {"wifi": [["stadt", "geheimnis"]]}
    assert sha256_hex(1, secret) == sha256_hex(1, {"wifi": [["stadt", "kennwort"]]})
    assert sha256_hex(1, secret) != sha256_hex(1, {"wifi": [["land", "geheimnis"]]})


def test_commands_and_results_are_those_both_sides_share() -> None:
    assert golden("commands") == [list(CommandName), list(Result)]


def test_reasons_are_those_both_sides_share_and_fit_the_spool() -> None:
    assert golden("reasons") == [reason.value for reason in Reason]
    assert max(len(reason) for reason in Reason) <= MAX_REASON_LENGTH
