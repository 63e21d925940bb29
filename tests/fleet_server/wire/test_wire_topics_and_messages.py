"""Topics, and the messages beside packs."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.wire.desired import (
    DesiredState,
    Receipt,
    decode_desired,
    decode_receipt,
    encode_desired,
    encode_receipt,
)
from fleet_server.wire.errors import WireError
from fleet_server.wire.state_message import NodeStateMessage, decode_state, encode_state
from fleet_server.wire.topics import (
    Topic,
    TopicKind,
    is_node_id,
    parse_topic,
    topic_filter,
    topic_name,
)


@pytest.mark.parametrize("kind", TopicKind)
@pytest.mark.parametrize("prefix", ["", "bochum", "nrw/bochum"])
def test_topic_is_read_back(kind: TopicKind, prefix: str) -> None:
    name = topic_name(kind, "n-3f9a1c", prefix=prefix)
    assert parse_topic(name, prefix=prefix) == Topic(kind, "n-3f9a1c")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "up",
        "up/n-3f9a1c",
        "up/n-3f9a1c/tm/more",
        "/up/n-3f9a1c/tm",
        "up/n-3f9a1c/rcpt",
        "dn/n-3f9a1c/tm",
        "up/N-3F9A1C/tm",
        "up/+/tm",
        "up/svc-ingest/tm",
        "up//tm",
        "bochum/up/n-3f9a1c/tm",
    ],
)
def test_other_topic_is_refused(name: str) -> None:
    with pytest.raises(WireError) as refusal:
        parse_topic(name)
    assert refusal.value.code == "topic_unknown"


def test_topic_of_another_deployment_is_refused() -> None:
    with pytest.raises(WireError):
        parse_topic("herne/up/n-3f9a1c/tm", prefix="bochum")


@given(st.text(max_size=60))
def test_any_text_is_a_topic_or_refused(name: str) -> None:
    try:
        topic = parse_topic(name)
    except WireError:
        return
    assert topic_name(topic.kind, topic.node_id) == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n-3f9a1c", True),
        ("abc", True),
        ("a" * 32, True),
        ("ab", False),
        ("a" * 33, False),
        ("svc-control", False),
        ("n_1", False),
        ("n-3f9a1c\n", False),
        ("n-3f9a1ç", False),
    ],
)
def test_node_id_is_short_lower_case_and_no_service(text: str, expected: bool) -> None:
    assert is_node_id(text) is expected


def test_topic_of_an_impossible_node_is_not_written() -> None:
    with pytest.raises(ValueError, match="not a node id"):
        topic_name(TopicKind.RECEIPT, "#")
    with pytest.raises(ValueError, match="in front of a topic"):
        topic_name(TopicKind.RECEIPT, "n-3f9a1c", prefix="a/#")


def test_subscription_covers_all_nodes_and_may_be_shared() -> None:
    assert topic_filter(TopicKind.STATE) == "up/+/st"
    assert topic_filter(TopicKind.STATE, prefix="bochum", share="ingest") == (
        "$share/ingest/bochum/up/+/st"
    )


STATE = NodeStateMessage("tree-3", "0.1.0", power_up=1, uptime_ms=2)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model": None}, "state_field_missing"),
        ({"uptime_ms": None}, "state_field_missing"),
        ({"uptime_ms": -1}, "state_field_wrong"),
        ({"battery_mv": 3.7}, "state_field_wrong"),
        ({"battery_mv": True}, "state_field_wrong"),
        ({"slot": "c"}, "state_field_wrong"),
        ({"bundle_sha256": "xyz"}, "state_field_wrong"),
        ({"utc_s": 4_294_967_295}, "state_field_wrong"),
        ({"last_error": "a\0b"}, "state_field_wrong"),
        ({"last_error": "e" * 300}, "state_field_wrong"),
        ({"drift_ppm": float("nan")}, "state_field_wrong"),
        ({"drift_ppm": 10**400}, "cbor_malformed"),
    ],
)
def test_impossible_state_is_refused(change: dict[str, object], code: str) -> None:
    message = {**cbor2.loads(encode_state(STATE)), **change}
    with pytest.raises(WireError) as refusal:
        decode_state(cbor2.dumps(message))
    assert refusal.value.code == code


def test_state_with_fields_of_a_newer_node_is_read() -> None:
    message = {**cbor2.loads(encode_state(STATE)), "lunar_phase": [1, 2]}
    assert decode_state(cbor2.dumps(message)) == STATE


def test_state_without_optional_fields_is_read() -> None:
    message = {"model": "tree-3", "version": "0.1.0", "power_up": 1, "uptime_ms": 2}
    assert decode_state(cbor2.dumps(message)) == STATE


@pytest.mark.parametrize(
    "message", [{}, {"spool": 1}, {"spool": 1, "seq": -1}, {"spool": 1, "seq": 1.0}, [1, 2], None]
)
def test_impossible_receipt_is_refused(message: object) -> None:
    with pytest.raises(WireError):
        decode_receipt(cbor2.dumps(message))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_receipt_is_read_back(spool: int, seq: int) -> None:
    assert decode_receipt(encode_receipt(Receipt(spool, seq))) == Receipt(spool, seq)


def test_same_desired_state_has_the_same_bytes() -> None:
    first = DesiredState(config_version=1, config_values={"sample_s": 900, "publish_s": 3600})
    again = decode_desired(encode_desired(first))
    assert again == first
    assert encode_desired(again) == encode_desired(first)


def test_desired_state_that_no_node_could_take_is_not_written() -> None:
    with pytest.raises(ValueError, match="more than"):
        encode_desired(DesiredState(1, {"note": "x" * 5_000}))


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": {"version": 1}},
        {"config": {"version": "1", "values": {}}},
        {"release": 5},
        {"commands": {}},
        {"commands": ["reboot"]},
        {"certificate": "pem"},
        {"roots": b"der"},
        {"roots": ["pem"]},
        {"more": 1},
    ],
)
def test_impossible_desired_state_is_refused(change: dict[str, object]) -> None:
    message = {**cbor2.loads(encode_desired(DesiredState(1, {}))), **change}
    with pytest.raises(WireError):
        decode_desired(cbor2.dumps(message))
