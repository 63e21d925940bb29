"""Write the golden vectors, or check with `--check` that they are what would be written."""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet_server.wire import cbor, configuration
from fleet_server.wire.commands import CommandName, Result
from fleet_server.wire.configuration import Channels, find_fault
from fleet_server.wire.desired import DesiredState, Receipt, encode_desired, encode_receipt
from fleet_server.wire.manifest import BundleFile, Image, Manifest, encode_manifest
from fleet_server.wire.senml import (
    Extreme,
    encode_body,
    encode_envelope,
    encode_pack,
    encode_thinned_body,
)
from fleet_server.wire.state_message import STATE_FIELDS, NodeStateMessage, encode_state
from fleet_server.wire.states import Reason, SlotReason, UpdateStage
from fleet_server.wire.updates import Assignment

HERE = Path(__file__).parent

Json = dict[str, Any]

INTEGERS = (
    *(0, 1, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_295, 4_294_967_296, (1 << 53) - 1),
    *(-1, -24, -25, -256, -257, -65_536, -65_537, -32_768),
)

ENVELOPES = (
    {"node_id": "n-3f9a1c", "time_utc_s": 1_790_000_000, "oldest": 17},
    {"node_id": "n-3f9a1c", "time_utc_s": None, "oldest": 0},
    {"node_id": "abc", "time_utc_s": 1_577_836_800, "oldest": 4_294_967_295},
    {"node_id": "a" * 32, "time_utc_s": 4_102_444_799, "oldest": 65_536},
)


def integer(number: int) -> Json:
    return {"integer": number}


def float32(register_hex: str) -> Json:
    (value,) = struct.unpack(">f", bytes.fromhex(register_hex))
    return {"float32": register_hex, "value": value}


def reason(name: Reason) -> Json:
    return {"reason": name.value}


TREE = [
    *(["r30", integer(4_712)], ["t30", integer(318)], ["r60", integer(2_055)]),
    *(["t60", integer(287)], ["r90", integer(991)], ["t90", integer(261)], ["bat", integer(3_874)]),
]
POND = [
    *(["sat", float32("42c5999a")], ["do", float32("410fd70a")], ["tw", float32("41a33333")]),
    ["bat", integer(3_911)],
]
TREE_IN_TROUBLE = [
    *(["r30", reason(Reason.OPEN)], ["t30", reason(Reason.ABSENT)], ["r60", reason(Reason.SHORT)]),
    *(["t60", reason(Reason.POWER_ON_RESET)], ["r90", reason(Reason.SPREAD)]),
    *(["t90", integer(-17)], ["bat", integer(2_980)]),
]


def pack(name: str, readings: list[Any], **header: int | str | None) -> Json:
    usual: Json = {
        "node_id": "n-3f9a1c",
        "time_utc_s": 1_790_000_100,
        "oldest": 12,
        "spool": 0x3B9ACA07,
        "seq": 4_711,
        "power_up": 0xC0FFEE01,
        "uptime_ms": 86_400_123,
    }
    return {"name": name, **usual, **header, "readings": readings}


PACKS = (
    pack("tree-3, everything read", TREE),
    pack("pond-1, everything read", POND),
    pack("tree-3, probes in trouble", TREE_IN_TROUBLE),
    pack("time not known", TREE, time_utc_s=None),
    pack("first pack of a new spool", POND, oldest=0, seq=0, uptime_ms=0, power_up=0, spool=0),
    pack(
        "largest numbers",
        TREE,
        oldest=0xFFFF_FFFF,
        seq=0xFFFF_FFFF,
        spool=0xFFFF_FFFF,
        power_up=0xFFFF_FFFF,
        uptime_ms=(1 << 53) - 1,
        time_utc_s=4_102_444_799,
    ),
    pack("every reason", [[f"c{n}", reason(name)] for n, name in enumerate(Reason)]),
    pack(
        "floats at the edges",
        [
            ["a", float32("00000000")],
            ["b", float32("80000000")],
            ["c", float32("00000001")],
            ["d", float32("7f7fffff")],
            ["e", float32("c1480000")],
            ["f", float32("3dcccccd")],
        ],
    ),
    pack(
        "integers at the edges",
        [[f"i{n}", integer(number)] for n, number in enumerate((23, 24, 255, 256, -1, -24, -25))],
    ),
    pack("only the battery", [["bat", integer(0)]], oldest=4_711),
)

TREE_WITHOUT_R30 = [["r30", reason(Reason.OPEN)], *TREE[1:]]
TREE_COLDER = [
    *(["r30", integer(4_698)], ["t30", integer(-17)], ["r60", integer(70_000)]),
    *(["t60", integer(290)], ["r90", reason(Reason.SHORT)], ["t90", integer(261)]),
    ["bat", integer(3_880)],
]
POND_LATER = [
    *(["sat", float32("42c59999")], ["do", float32("411147ae")], ["tw", float32("c1200000")]),
    ["bat", integer(3_905)],
]

# What a thinned pack is made of: (power-up, uptime ms, readings) of the packs from sequence 1 on.
THINNED: tuple[tuple[str, list[tuple[int, int, list[Any]]]], ...] = (
    ("one pack", [(0xC0FFEE01, 900_123, TREE)]),
    (
        "tree-3, a probe comes and goes",
        [
            (0xC0FFEE01, 0, TREE_IN_TROUBLE),
            (0xC0FFEE01, 900_123, TREE),
            (0xC0FFEE01, 1_800_123, TREE_COLDER),
            (0xC0FFEE01, 2_700_123, TREE_WITHOUT_R30),
        ],
    ),
    (
        "tree-3, nothing could be read",
        [(7, 5_000, TREE_IN_TROUBLE), (7, 905_000, TREE_IN_TROUBLE)],
    ),
    ("pond-1", [(9, 1 << 32, POND), (9, (1 << 32) + 900_000, POND_LATER)]),
    ("two power-ups", [(0xC0FFEE01, 86_400_123, TREE), (7, 1_200, TREE_COLDER)]),
)


def text(content: str) -> Json:
    return {"text": content}


def event(name: str, of: str, *details: list[Any], **header: int | str | None) -> Json:
    return pack(name, [["_event", text(of)], *details], **header)


EVENTS = (
    event(
        "the longest crash",
        "crash",
        ["what", text("AttributeError: object of type 'NoneType")],
        ["where", text("ors/watermark.py:66 read")],
        ["cause", text("exception")],
        ["boot", integer(0xFFFF_FFFF)],
        ["slot", text("a")],
        ["version", text("10.20.30+0123456789a")],
        ["heap", integer(102_400)],
        ["trace", text("main.py:17 wake < node/cycle.py:131 run < node/plan.py:34 me")],
        spool=0xFFFF_FFFF,
        seq=0xFFFF_FFFF,
        power_up=0xFFFF_FFFF,
        uptime_ms=(1 << 53) - 1,
    ),
    event(
        "a supply that gave way",
        "crash",
        *(["what", text("brown-out")], ["where", text("talk")], ["cause", text("brown_out")]),
        *(["boot", integer(2)], ["slot", text("a")], ["version", text("0.1.0")]),
        time_utc_s=None,
    ),
    event(
        "the longest step of an update",
        "update",
        *(["assignment", integer(0xFFFF_FFFF)], ["attempt", integer(3)]),
        *(["stage", text("already_installed")], ["reason", text("x" * 40)]),
    ),
    event("battery swapped", "battery_swap", ["mv", integer(4_100)], ["was_mv", integer(3_340)]),
    event("battery low", "battery", ["level", text("low")], ["mv", integer(3_490)]),
    event(
        "oxygen low",
        "limit_crossed",
        *(["key", text("do")], ["kind", text("below")], ["limit", integer(4)]),
        ["value", float32("40600000")],
    ),
    event(
        "a probe fell silent while its limit was crossed",
        "limit_cleared",
        *(["key", text("do")], ["kind", text("fall")], ["limit", float32("3f000000")]),
        ["value", text("timeout")],
    ),
    event("somebody stands before it", "field_mode", ["by", text("button")]),
)

STATES = (
    NodeStateMessage(
        model="tree-3",
        version="0.1.0",
        bundle_sha256="5f" * 32,
        config_version=1,
        config_sha256="0a" * 32,
        slot="a",
        slot_state="confirmed",
        battery_mv=3_874,
        rssi_dbm=-67,
        free_heap=61_440,
        idf_largest=47_104,
        spool_depth=3,
        spool=0x3B9ACA07,
        oldest=12,
        newest=4_714,
        thinned=2_880,
        lost=3,
        power_up=0xC0FFEE01,
        uptime_ms=86_400_123,
        utc_s=1_790_000_100,
        boot_count=96,
        reset_cause="deep_sleep",
        drift_ppm=-1_180,
        last_error=None,
        heap_low=40_960,
        config_state="confirmed",
        certificate="0123456789abcdef",
        roots="00112233445566ff fedcba9876543210",
        credential_state="trial",
        counter=7,
        assignment=4_294_967_295,
        attempt=2,
        micropython="1.28.0",
        image_sha256="c4" * 32,
    ),
    NodeStateMessage(
        model="pond-1",
        version="0.1.0",
        slot="b",
        slot_state="trial",
        power_up=0,
        uptime_ms=0,
        last_error="OSError: -202 beim Verbinden",
        config_state="rolled_back",
        config_reason="LinkError: wifi 1 not found",
    ),
)

_FILES = (
    BundleFile("node/bus/adc.mpy", 70, bytes(range(32))),
    BundleFile("node/cycle.mpy", 300, bytes(32)),
)
_PLAIN = Manifest("0.7.0", 7, ("tree-3",), (1, 24, 0), 1_790_000_000, _FILES, "Wärmere Tage.")
MANIFESTS = (
    ("a bundle", _PLAIN),
    (
        "a bundle with the MicroPython that it needs",
        replace(
            _PLAIN,
            version="0.8.0",
            counter=8,
            micropython=(1, 28, 0),
            image=Image(1_503_232, bytes(range(32, 64)), (1, 28, 0)),
        ),
    ),
)

RECEIPTS = (Receipt(0, 0), Receipt(0x3B9ACA07, 4_711), Receipt(0xFFFF_FFFF, 0xFFFF_FFFF))

DESIRED = (
    DesiredState(config_version=1, config_values={"sample_s": 900, "publish_s": 3_600}),
    DesiredState(
        config_version=2,
        config_values={"sample_s": 300, "publish_s": 900},
        commands=(
            {"id": 7, "name": "resend", "args": {"from": 10, "to": 20}, "expires": 1_790_086_400},
        ),
    ),
    DesiredState(
        config_version=3,
        config_values={"sample_s": 900, "publish_s": 3_600},
        # Any bytes: neither codec looks into a certificate.
        certificate=bytes(range(64)),
        roots=(bytes(range(48)), bytes(range(16, 64))),
    ),
    DesiredState(
        config_version=4,
        config_values={"sample_s": 900, "publish_s": 3_600},
        release=Assignment(7, 1, "tree-3/0.7.0.cbor", 12, 1_790_000_000, 1_790_086_400).as_fields(),
    ),
)

# A node's probes with their channels' keys, its battery's key and what it was provisioned with.
NODE: Json = {
    "probes": [{"keys": ["sat", "do", "tw"]}, {"keys": ["nt"]}],
    "bat": {"key": "bat"},
    "sample_s": 900,
    "publish_s": 3_600,
    "low_mv": 3_400,
}
EVERYTHING: Json = {
    "sample_s": 600,
    "publish_s": 1_800,
    "urgent_s": 300,
    "every_s": {"nt": 10_800, "sat": 600},
    "limits": [["do", "below", 4, 4.5], ["do", "fall", 1.1, 0.5], ["bat", "above", 4_300, 4_200]],
    "low_mv": 3_500,
    "mute_mv": 3_300,
    "stop_mv": 3_100,
    "wifi": [["Bürgerbüro", "Grüße 🌳"], ["frei", ""]],
    "host": "broker.example.org",
    "port": 8_883,
    "renew": ["fleet.example.org", 8443, "fleet.example.org"],
    "server_name": "broker.example.org",
}
LONG = "x" * 253
RULE = ["do", "below", 4, 4.5]

# name, values beside both intervals, what is wrong with them
CONFIGURATIONS: tuple[tuple[str, Json, str | None], ...] = (
    ("as provisioned", {}, None),
    ("everything", EVERYTHING, None),
    ("the lowest", {"sample_s": 60, "publish_s": 60, "low_mv": 0, "port": 1}, None),
    ("the highest", {"sample_s": 86_400, "publish_s": 86_400, "low_mv": 20_000}, None),
    ("no rules", {"limits": [], "every_s": {}}, None),
    ("a key of 64 digits", {"wifi": [["stadt", "0123456789abcdefABCDEF" * 2 + "0" * 20]]}, None),
    ("no name of the listener", {"renew": ["fleet.example.org", 8443]}, "renew"),
    ("no port of the listener", {"renew": ["fleet.example.org", 0, "fleet"]}, "renew"),
    ("no host of the listener", {"renew": ["", 8443, "fleet"]}, "renew"),
    ("a text for the listener", {"renew": "fleet.example.org"}, "renew"),
    ("a name that no node knows", {"colour": 1}, "colour"),
    ("a minute less one", {"sample_s": 59}, "sample_s"),
    ("a day and one", {"publish_s": 86_401}, "publish_s"),
    ("a float", {"sample_s": 900.5}, "sample_s"),
    ("a text", {"sample_s": "900"}, "sample_s"),
    ("a truth", {"urgent_s": True}, "urgent_s"),
    ("nothing", {"low_mv": None}, "low_mv"),
    ("a negative voltage", {"stop_mv": -1}, "stop_mv"),
    ("the first fault by name", {"urgent_s": 1, "port": 0}, "port"),
    ("publishing more often than sampling", {"publish_s": 600}, "publish_s"),
    ("urgency that is slower", {"urgent_s": 1_800}, "urgent_s"),
    ("interval that is no multiple", {"every_s": {"nt": 1_000}}, "every_s"),
    ("interval of a channel that is not its slot's first", {"every_s": {"do": 900}}, "every_s"),
    ("intervals as a list", {"every_s": [["nt", 900]]}, "every_s"),
    ("interval of a second", {"every_s": {"nt": 1}}, "every_s"),
    ("muted above what was provisioned as low", {"mute_mv": 3_401}, "mute_mv"),
    ("stopped above muted", {"mute_mv": 3_300, "stop_mv": 3_301}, "stop_mv"),
    ("stopped above low", {"stop_mv": 3_401}, "stop_mv"),
    ("muted at once", {"low_mv": 3_950, "mute_mv": 3_900}, "battery"),
    ("stopped at once", {"low_mv": 3_950, "stop_mv": 3_900}, "battery"),
    ("rule of an unknown channel", {"limits": [["r30", "below", 4, 5]]}, "limits"),
    ("rule of an unknown kind", {"limits": [["do", "near", 4, 5]]}, "limits"),
    ("rule that ends on the wrong side", {"limits": [["do", "below", 4, 3.5]]}, "limits"),
    ("rule above that ends higher", {"limits": [["do", "above", 4, 5]]}, "limits"),
    ("a fall of nothing", {"limits": [["do", "fall", 0, 0]]}, "limits"),
    ("rule without an end", {"limits": [["do", "below", 4]]}, "limits"),
    ("rule with a truth", {"limits": [["do", "below", True, 5]]}, "limits"),
    ("rule beyond all numbers", {"limits": [["do", "above", 2e9, 1]]}, "limits"),
    ("rules as a map", {"limits": {"do": 4}}, "limits"),
    ("seventeen rules", {"limits": [RULE] * 17}, "limits"),
    ("no network", {"wifi": []}, "wifi"),
    ("nine networks", {"wifi": [["a", ""]] * 9}, "wifi"),
    ("network without a name", {"wifi": [["", "geheimnis"]]}, "wifi"),
    ("network of 33 bytes", {"wifi": [["ü" * 16 + "n", "geheimnis"]]}, "wifi"),
    ("password of seven bytes", {"wifi": [["stadt", "geheim7"]]}, "wifi"),
    ("password of 64 letters", {"wifi": [["stadt", "z" * 64]]}, "wifi"),
    ("password with a line's end", {"wifi": [["stadt", "geheimnis\n"]]}, "wifi"),
    ("password that is a number", {"wifi": [["stadt", 12_345_678]]}, "wifi"),
    ("network alone", {"wifi": ["stadt", "geheimnis"]}, "wifi"),
    ("host with a blank", {"host": "broker example"}, "host"),
    ("host of 254 characters", {"host": LONG + "x"}, "host"),
    ("host of nothing", {"host": ""}, "host"),
    ("port of nothing", {"port": 0}, "port"),
    ("more than a node keeps", {"host": LONG, "server_name": LONG, "limits": [RULE] * 16}, "size"),
)
BATTERY_MV = 3_900


def refused() -> Iterator[tuple[str, str, bytes]]:
    """Payloads that look like a pack but for one thing: name, code, bytes."""
    header = {"spool": 7, "seq": 9, "power_up": 1, "uptime_ms": 5}
    envelope = encode_envelope(node_id="n-3f9a1c", time_utc_s=1_790_000_000, oldest=3)
    body, count = encode_body(**header, readings=[("bat", 3_900, None)])
    head = cbor.array_head(1 + count)
    good = head + envelope + body

    yield "empty", "payload_empty", b""
    yield "larger than 64 KiB", "payload_too_large", bytes(65_537)
    yield "64 KiB of zeros", "pack_not_array", bytes(65_536)
    yield "text", "pack_not_array", b"soil is dry"
    yield "a map", "pack_not_array", bytes.fromhex("a26573706f6f6c016373657102")
    yield "array of unknown length", "pack_not_array", b"\x9f" + good[1:] + b"\xff"
    yield "no records", "records_too_few", b"\x80"
    yield "1,000 levels deep", "records_too_few", b"\x81" * 1_000 + b"\x00"
    yield "numbers, not records", "record_not_map", bytes.fromhex("8701020304050607")
    yield "cut in the middle", "cbor_malformed", good[:-3]
    yield "bytes after the end", "cbor_trailing_bytes", good + b"\x00"
    yield "tagged", "cbor_malformed", head + b"\xc1" + envelope + body
    yield (
        "envelope with a field twice",
        "cbor_malformed",
        good.replace(b"\xa4", b"\xa5", 1).replace(b"\x02\x03", b"\x02\x03\x02\x03", 1),
    )

    def with_envelope(**changed: Any) -> bytes:
        usual = {"node_id": "n-3f9a1c", "time_utc_s": 1_790_000_000, "oldest": 3}
        return head + encode_envelope(**{**usual, **changed}) + body

    yield "no node id", "node_id_unreadable", with_envelope(node_id="")
    yield "node id with a wildcard", "node_id_unreadable", with_envelope(node_id="n-3f9a+c")
    yield "a service's name", "node_id_unreadable", with_envelope(node_id="svc-ingest")
    yield "the year 2106", "time_out_of_range", with_envelope(time_utc_s=4_294_967_295)
    yield "the year 1970", "time_out_of_range", with_envelope(time_utc_s=0)
    yield "a relative time", "time_out_of_range", with_envelope(time_utc_s=-5)
    yield "oldest above its own number", "oldest_above_seq", with_envelope(oldest=10)
    time_hex = "1a6ab13b80"
    as_float = bytes.fromhex(good.hex().replace(time_hex, "fb41daac4ee000000000"[:18]))
    yield "time as a float", "time_not_integer", as_float

    def with_record(record_hex: str) -> bytes:
        bare, bare_count = encode_body(**header, readings=[])
        return cbor.array_head(2 + bare_count) + envelope + bare + bytes.fromhex(record_hex)

    bat = "a2" + "00" + "63626174"
    yield "value is not a number", "value_not_finite", with_record(bat + "02" + "fa7fc00000")
    yield "value is infinite", "value_not_finite", with_record(bat + "02" + "fa7f800000")
    yield "value is true", "value_not_number", with_record(bat + "02" + "f5")
    yield "value is null", "value_not_number", with_record(bat + "02" + "f6")
    yield "value is text", "value_not_number", with_record(bat + "02" + "6139")
    yield "value beyond 2^53", "value_too_large", with_record(bat + "02" + "1b0020000000000000")
    yield "reason with capitals", "value_missing", with_record(bat + "03" + "634f4646")
    yield (
        "a field too many",
        "record_field_unknown",
        with_record("a3" + bat[2:] + "0201" + "0161 56"),
    )
    yield "channel key with a space", "channel_key_wrong", with_record("a2" + "00" + "636120620201")
    yield "channel without a key", "channel_key_wrong", with_record("a10201")
    twice, twice_count = encode_body(**header, readings=[("bat", 1, None), ("bat", 2, None)])
    yield "a channel twice", "channel_repeated", cbor.array_head(1 + twice_count) + envelope + twice
    swapped = body.replace(b"_seq", b"_qes")
    yield "no sequence number", "bookkeeping_missing", head + envelope + swapped
    negative = body.replace(b"\x64_seq\x02\x09", b"\x64_seq\x02\x29")
    yield "a negative sequence number", "bookkeeping_wrong", head + envelope + negative


def as_argument(reading: list[Any]) -> tuple[str, float | None, str | None]:
    key, content = reading
    words = content.get("reason", content.get("text"))
    return key, content.get("integer", content.get("value")), words


def pack_vector(given: Json) -> Json:
    header = {key: value for key, value in given.items() if key not in ("name", "readings")}
    readings = [as_argument(reading) for reading in given["readings"]]
    in_body = ("spool", "seq", "power_up", "uptime_ms")
    body, records = encode_body(**{key: header[key] for key in in_body}, readings=readings)
    return {
        **given,
        "body_records": records,
        "body_hex": body.hex(),
        "payload_hex": encode_pack(**header, readings=readings).hex(),
    }


def extreme(key: str, packs: list[list[Any]]) -> list[Any]:
    """[key, lowest, highest] of a channel; with both None, the reason behind them."""
    contents = [content for readings in packs for name, content in readings if name == key]
    values = [content for content in contents if "reason" not in content]
    if not values:
        return [key, None, None, contents[-1]]
    ordered = sorted(values, key=lambda content: content.get("integer", content.get("value")))
    return [key, ordered[0], ordered[-1], None]


def as_extreme(given: list[Any]) -> Extreme:
    key, lowest, highest, cause = given
    if cause is not None:
        return Extreme(key, None, None, cause["reason"])
    numbers = [content.get("integer", content.get("value")) for content in (lowest, highest)]
    return Extreme(key, *numbers, None)


def thinned_vector(name: str, packs: list[tuple[int, int, list[Any]]]) -> Json:
    readings = [sent for _, _, sent in packs]
    keys = list(dict.fromkeys(key for sent in readings for key, _ in sent))
    (power_up, uptime_ms, _), (until_power_up, until_uptime_ms, _) = packs[0], packs[-1]
    header: Json = {"node_id": "n-3f9a1c", "time_utc_s": 1_790_000_100, "oldest": len(packs) + 1}
    content: Json = {
        "spool": 0x3B9ACA07,
        "seq": len(packs) + 1,
        "power_up": power_up,
        "uptime_ms": uptime_ms,
        "from_seq": 1,
        "to_seq": len(packs),
        "packs": len(packs),
        "until_power_up": until_power_up,
        "until_uptime_ms": until_uptime_ms,
    }
    extremes = [extreme(key, readings) for key in keys]
    body, records = encode_thinned_body(**content, extremes=map(as_extreme, extremes))
    return {
        "name": name,
        "made_of": [
            {"power_up": power_up, "uptime_ms": uptime_ms, "readings": sent}
            for power_up, uptime_ms, sent in packs
        ],
        **header,
        **content,
        "extremes": extremes,
        "body_records": records,
        "body_hex": body.hex(),
        "payload_hex": (cbor.array_head(1 + records) + encode_envelope(**header) + body).hex(),
    }


def configuration_vector(name: str, values: Json, fault: str | None) -> Json:
    whole = {"sample_s": NODE["sample_s"], "publish_s": NODE["publish_s"], **values}
    keys = [key for probe in NODE["probes"] for key in probe["keys"]]
    channels = Channels((*keys, NODE["bat"]["key"]), [probe["keys"][0] for probe in NODE["probes"]])
    found = find_fault(whole, channels, provisioned=NODE, battery_mv=BATTERY_MV)
    if (found.name if found else None) != fault:
        raise SystemExit(f"{name}: {found}")
    return {
        "name": name,
        "node": NODE,
        "battery_mv": BATTERY_MV,
        "values": whole,
        "cbor_hex": cbor.encode(whole).hex(),
        "fault": fault,
        "sha256": configuration.sha256_hex(7, whole) if fault is None else None,
    }


def manifest_vector(name: str, manifest: Manifest) -> Json:
    image = manifest.image
    return {
        "name": name,
        "version": manifest.version,
        "counter": manifest.counter,
        "files": [[file.path, file.size_bytes, file.sha256.hex()] for file in manifest.files],
        "bundle_sha256": manifest.bundle_sha256,
        "image": image and [image.size_bytes, image.sha256.hex(), list(image.micropython)],
        "hex": encode_manifest(manifest).hex(),
    }


def vectors() -> dict[str, list[Any]]:
    """Every file's content by name."""
    return {
        "integers": [{"value": n, "hex": cbor.encode_integer(n).hex()} for n in INTEGERS],
        "envelopes": [{**given, "hex": encode_envelope(**given).hex()} for given in ENVELOPES],
        "packs": [pack_vector(given) for given in PACKS],
        "events": [pack_vector(given) for given in EVENTS],
        "thinned": [thinned_vector(*given) for given in THINNED],
        "states": [
            {
                "fields": {name: getattr(state, name) for name in STATE_FIELDS},
                "hex": encode_state(state).hex(),
            }
            for state in STATES
        ],
        "receipts": [
            {"spool": given.spool, "seq": given.seq, "hex": encode_receipt(given).hex()}
            for given in RECEIPTS
        ],
        "desired": [
            {
                "config": {"version": given.config_version, "values": given.config_values},
                "release": given.release,
                "commands": list(given.commands),
                "certificate": given.certificate and given.certificate.hex(),
                "roots": given.roots and [root.hex() for root in given.roots],
                "hex": encode_desired(given).hex(),
            }
            for given in DESIRED
        ],
        "configurations": [configuration_vector(*given) for given in CONFIGURATIONS],
        "commands": [[name.value for name in CommandName], [result.value for result in Result]],
        "reasons": [name.value for name in Reason],
        "updates": [
            [stage.value for stage in UpdateStage],
            [reason.value for reason in SlotReason],
        ],
        "manifests": [manifest_vector(*given) for given in MANIFESTS],
        # 64 KiB of zeros need not lie here as text: those vectors are named by their length.
        "refused": [
            {"name": name, "code": code, "hex": data.hex()}
            if len(data) < 2_000
            else {"name": name, "code": code, "zeros": len(data)}
            for name, code, data in refused()
        ],
    }


def as_text(content: list[Any]) -> str:
    lines = ",\n".join(json.dumps(item, ensure_ascii=False) for item in content)
    return f"[\n{lines}\n]\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    different = []
    for name, content in vectors().items():
        path = HERE / f"{name}.json"
        if not path.exists() or path.read_text() != as_text(content):
            different.append(path.name)
            if not check:
                path.write_text(as_text(content))
    for name in different:
        sys.stderr.write(f"{name} {'differs' if check else 'written'}\n")
    return 1 if check and different else 0


if __name__ == "__main__":
    sys.exit(main())
