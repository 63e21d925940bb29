"""Packs: what is read is what was written, and nothing from outside can do more than be refused."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet_server.wire.desired import decode_desired, decode_receipt
from fleet_server.wire.errors import PackIdentity, WireError
from fleet_server.wire.senml import (
    MAX_BODY_BYTES,
    TIME_BEFORE_UTC_S,
    TIME_FROM_UTC_S,
    Extreme,
    ThinnedPack,
    decode_event,
    decode_pack,
    decode_telemetry,
    encode_envelope,
    encode_pack,
    encode_thinned_body,
)
from fleet_server.wire.state_message import NodeStateMessage, decode_state, encode_state
from fleet_server.wire.states import Reason

U32 = st.integers(0, 0xFFFF_FFFF)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
VALUES = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)
READINGS = st.lists(
    st.tuples(KEYS, VALUES, st.none())
    | st.tuples(KEYS, st.none(), st.sampled_from([reason.value for reason in Reason])),
    max_size=59,
    unique_by=lambda reading: reading[0],
)


@st.composite
def contents(draw: st.DrawFn) -> dict[str, object]:
    oldest, seq = sorted((draw(U32), draw(U32)))
    return {
        "node_id": draw(
            st.from_regex(r"[a-z0-9-]{3,32}", fullmatch=True).filter(lambda t: t[:4] != "svc-")
        ),
        "time_utc_s": draw(st.none() | st.integers(TIME_FROM_UTC_S, TIME_BEFORE_UTC_S - 1)),
        "oldest": oldest,
        "spool": draw(U32),
        "seq": seq,
        "power_up": draw(U32),
        "uptime_ms": draw(st.integers(0, 2**53 - 1)),
        "readings": tuple(draw(READINGS)),
    }


GOOD = encode_pack(
    node_id="n-3f9a1c",
    time_utc_s=1_790_000_000,
    oldest=3,
    spool=7,
    seq=9,
    power_up=1,
    uptime_ms=5,
    readings=[("r30", 4_712, None), ("sat", 76.8125, None), ("t30", None, "absent")],
)


def thinned(extremes: list[Extreme] | None = None, **changed: int) -> bytes:
    """A thinned pack; with changes one that may be none."""
    given = {"spool": 7, "seq": 99, "power_up": 1, "uptime_ms": 5, "from_seq": 3, "to_seq": 98}
    given |= {"packs": 96, "until_power_up": 1, "until_uptime_ms": 9_000, **changed}
    some = [Extreme("r30", 1, 4_712, None), Extreme("t30", None, None, "absent")]
    body, count = encode_thinned_body(**given, extremes=some if extremes is None else extremes)
    envelope = encode_envelope(node_id="n-3f9a1c", time_utc_s=1_790_000_000, oldest=99)
    return bytes((0x80 + 1 + count,)) + envelope + body


@given(contents())
def test_pack_that_was_written_is_read_unchanged(content: dict[str, object]) -> None:
    pack = decode_pack(encode_pack(**content))  # type: ignore[arg-type]
    assert {name: getattr(pack, name) for name in content} == content


@given(contents())
def test_body_is_the_exact_tail_of_the_payload(content: dict[str, object]) -> None:
    payload = encode_pack(**content)  # type: ignore[arg-type]
    pack = decode_pack(payload)
    assert payload.endswith(pack.body)
    assert pack.body_sha256 == hashlib.sha256(pack.body).hexdigest()
    resent = encode_pack(**{**content, "time_utc_s": None, "oldest": 0})  # type: ignore[arg-type]
    assert decode_pack(resent).body == pack.body


def refusal_of(decode: Callable[[bytes], object], payload: bytes) -> WireError | None:
    try:
        decode(payload)
    except WireError as refusal:
        return refusal
    return None


def only_refuses(payload: bytes) -> None:
    decoders = (decode_pack, decode_telemetry, decode_event)
    for decode in (*decoders, decode_state, decode_receipt, decode_desired):
        refusal = refusal_of(decode, payload)
        assert refusal is None or (refusal.code and refusal.sentence.count(".") == 1)


@given(st.binary(max_size=300))
@example(b"\x81" * 60_000)
@example(b"\xd8\x1c" * 30_000)
@example(b"\xc5\x82\x1a\x3b\x9a\xca\x00\x01")  # 1 · 2^1,000,000,000
@example(b"\xc4\x82\x1a\x3b\x9a\xca\x00\x01")
@example(b"\x9b" + b"\xff" * 8)
@example(b"\x7b" + b"\x7f" + b"\xff" * 7)
@example(b"\xbb" + b"\xff" * 8)
def test_random_bytes_are_refused_and_nothing_else(payload: bytes) -> None:
    only_refuses(payload)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, len(GOOD)),
    st.binary(max_size=8),
)
def test_damaged_pack_is_read_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], cut: int, inserted: bytes
) -> None:
    damaged = bytearray(GOOD)
    for position, byte in changes:
        damaged[position] = byte
    only_refuses(bytes(damaged))
    only_refuses(GOOD[:cut] + inserted + GOOD[cut:])
    only_refuses(GOOD[:cut])


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 200),
)
def test_damaged_thinned_pack_is_read_or_refused_and_nothing_else(
    changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(thinned())
    for position, byte in changes:
        damaged[position % len(damaged)] = byte
    only_refuses(bytes(damaged))
    only_refuses(thinned()[:cut])


@pytest.mark.parametrize(
    ("code", "payload"),
    [
        ("thinned_range_wrong", thinned(from_seq=0)),
        ("thinned_range_wrong", thinned(from_seq=98, to_seq=97)),
        ("thinned_range_wrong", thinned(to_seq=99)),
        ("thinned_packs_wrong", thinned(packs=0)),
        ("thinned_packs_wrong", thinned(packs=97)),
        ("thinned_time_wrong", thinned(until_uptime_ms=4)),
        ("extremes_wrong", thinned([Extreme("r30", 5, 4, None)])),
        ("channel_repeated", thinned([Extreme("r30", 4, 4, None), Extreme("r30", 4, 5, None)])),
        ("channel_key_wrong", thinned([Extreme("R30", 4, 4, None)])),
        ("extreme_missing", thinned().replace(b"r30.max", b"r30.mix")),
        ("extreme_missing", thinned().replace(b"r30.max", b"r60.max")),
        (
            "extremes_wrong",
            thinned().replace(b"t30.max\x03\x66absent", b"t30.max\x03\x66wanted"),
        ),
        ("bookkeeping_missing", thinned().replace(b"_ms_to", b"_ms_no")),
        ("bookkeeping_missing", thinned().replace(b"_packs", b"_pakcs")),
    ],
)
def test_thinned_pack_that_cannot_be_is_refused_by_name(code: str, payload: bytes) -> None:
    with pytest.raises(WireError) as refusal:
        decode_telemetry(payload)
    assert refusal.value.code == code
    assert refusal.value.identity == PackIdentity("n-3f9a1c", 7, 99)


def test_thinned_pack_may_end_earlier_by_the_clock_of_a_later_power_up() -> None:
    pack = decode_telemetry(thinned(until_power_up=2, until_uptime_ms=0))
    assert isinstance(pack, ThinnedPack)


SHAPES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.sampled_from(["_spool", "_seq", "_up", "_ms", "_oldest", "n-3f9a1c:", "bat"]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.integers(-3, 4) | st.text(max_size=4) | st.floats(), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(SHAPES)
def test_valid_cbor_of_any_shape_is_read_or_refused_and_nothing_else(shape: object) -> None:
    only_refuses(cbor2.dumps(shape))


@given(st.dictionaries(st.integers(-4, 5), SHAPES, max_size=5), SHAPES)
def test_records_of_any_shape_are_read_or_refused_and_nothing_else(
    envelope: dict[int, object], record: object
) -> None:
    records = cbor2.loads(GOOD)[1:]
    only_refuses(cbor2.dumps([envelope, *records]))
    only_refuses(cbor2.dumps([cbor2.loads(GOOD)[0], *records, record]))
    only_refuses(cbor2.dumps([cbor2.loads(GOOD)[0], record, *records[1:]]))


@given(st.sampled_from(list(NodeStateMessage.__dataclass_fields__)), SHAPES)
def test_state_field_of_any_shape_is_read_or_refused_and_nothing_else(
    name: str, shape: object
) -> None:
    state = cbor2.loads(encode_state(NodeStateMessage("tree-3", "0.1.0", 1, 2)))
    only_refuses(cbor2.dumps({**state, name: shape}))


def test_tag_that_would_take_minutes_to_build_is_refused_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(WireError):
        decode_pack(b"\x86" + b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01" * 6)
    assert time.monotonic() - begun < 10


def test_refusal_names_the_pack_when_its_identity_could_be_read() -> None:
    damaged = GOOD.replace(b"\x63sat\x02", b"\x63SAT\x02")
    with pytest.raises(WireError) as refusal:
        decode_pack(damaged)
    assert refusal.value.identity == PackIdentity("n-3f9a1c", spool=7, seq=9)


def test_refusal_names_no_pack_when_the_payload_breaks_off() -> None:
    with pytest.raises(WireError) as refusal:
        decode_pack(GOOD[:-1])
    assert refusal.value.identity is None


def test_reason_that_only_a_newer_node_knows_is_kept() -> None:
    newer = GOOD.replace(b"\x66absent", b"\x66frozen")
    assert decode_pack(newer).readings[-1] == ("t30", None, "frozen")


def test_time_stays_unknown_when_the_node_sent_none() -> None:
    payload = encode_pack(
        node_id="n-3f9a1c", time_utc_s=None, oldest=0, spool=1, seq=1, power_up=1, uptime_ms=1,
        readings=[],
    )  # fmt: skip
    assert decode_pack(payload).time_utc_s is None


@pytest.mark.parametrize(
    ("reading", "complaint"),
    [
        (("bat", None, None), "either a value or a reason"),
        (("bat", 1, "absent"), "either a value or a reason"),
        (("bat", float("nan"), None), "finite"),
        (("bat", 1e300, None), "single precision"),
    ],
)
def test_writer_refuses_what_no_node_sends(
    reading: tuple[str, float | None, str | None], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        encode_pack(
            node_id="n-3f9a1c", time_utc_s=None, oldest=0, spool=1, seq=1, power_up=1, uptime_ms=1,
            readings=[reading],
        )  # fmt: skip


def test_largest_tree_pack_fits_the_spool() -> None:
    worst = encode_pack(
        node_id="n-3f9a1c",
        time_utc_s=1_790_000_000,
        oldest=0,
        spool=0xFFFF_FFFF,
        seq=0xFFFF_FFFF,
        power_up=0xFFFF_FFFF,
        uptime_ms=2**53 - 1,
        readings=[(key, None, "timeout") for key in ("r30", "t30", "r60", "t60", "r90", "t90")]
        + [("bat", 10_000, None)],
    )
    assert len(decode_pack(worst).body) <= MAX_BODY_BYTES


def test_event_pack_is_read_with_its_details() -> None:
    bookkeeping = cbor2.loads(GOOD)[:5]
    records = [{0: "_event", 3: "crash"}, {0: "stage", 3: "sampling"}, {0: "free_heap", 2: 40_960}]
    event = decode_event(cbor2.dumps([*bookkeeping, *records]))
    assert event.event == "crash"
    assert event.details == (("stage", "sampling"), ("free_heap", 40_960))
    assert event.identity == PackIdentity("n-3f9a1c", spool=7, seq=9)


def test_telemetry_is_no_event() -> None:
    with pytest.raises(WireError, match="which event"):
        decode_event(GOOD)


@pytest.mark.nightly
def test_hundred_thousand_damaged_packs_are_read_or_refused_and_nothing_else() -> None:
    generator = random.Random(20_260_701)
    for _ in range(100_000):
        damaged = bytearray(GOOD)
        for _ in range(generator.randint(1, 12)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        only_refuses(bytes(damaged[: generator.randint(0, 2 * len(damaged))]))
