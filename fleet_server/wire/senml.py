"""Packs: SenML in CBOR (RFC 8428), read strictly and written as the node writes it.

A pack is an array. Its first record, the envelope, is composed when sending; the records after it, the body, are frozen in
the node's spool. The body's bytes are therefore kept exactly as received: same identity, same body.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from fleet_server.wire import cbor
from fleet_server.wire.errors import PackIdentity, WireError
from fleet_server.wire.topics import is_node_id

# RFC 8428 §6, table 4.
_BASE_TIME = -3
_BASE_NAME = -2
_NAME = 0
_VALUE = 2
_STRING_VALUE = 3

MAX_BODY_BYTES = 160
"""A node's longest body, but for an event and a thinned pack. A longer one is read, but never written by a node."""

MAX_EVENT_BODY_BYTES = 320
"""A node's longest event: a crash with its trace."""

MAX_RECORDS = 64
TIME_FROM_UTC_S = 1_577_836_800  # 2020-01-01: before there was a node
TIME_BEFORE_UTC_S = 4_102_444_800  # 2100-01-01: beyond any node's life, and what a wild clock shows
U32_MAX = (1 << 32) - 1
UPTIME_MAX_MS = (1 << 53) - 1
_EXACT_INTEGER_MAX = (1 << 53) - 1  # larger integers would change on their way into a float column

_OLDEST = "_oldest"
_BOOKKEEPING = (("_spool", U32_MAX), ("_seq", U32_MAX), ("_up", U32_MAX), ("_ms", UPTIME_MAX_MS))
_EVENT = "_event"
# After the bookkeeping of a thinned pack; its channels are `{key}.min` and `{key}.max`, which no channel's key can be.
_THINNED = (
    ("_from", U32_MAX),
    ("_to", U32_MAX),
    ("_packs", U32_MAX),
    ("_up_to", U32_MAX),
    ("_ms_to", UPTIME_MAX_MS),
)
_LOWEST, _HIGHEST = ".min", ".max"
_MAX_DETAIL_LENGTH = 1024
_CHANNEL_KEY = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MAX_KEY_LENGTH = 32
# Names that this server does not know yet are kept: a newer node's reason must not cost the readings beside it.
_REASON = re.compile(r"[a-z][a-z_]{0,15}")

Reading = tuple[str, float | None, str | None]
"""Channel key; value exactly as sent (an integer stays an integer), or None; reason where there is no value, or None."""


class Pack(NamedTuple):
    """What one node sent for one sampling instant.

    Times are integer seconds UTC, `uptime_ms` counts from the power-on that `power_up` names. `time_utc_s` is None when
    the node did not know the time. `body` holds the exact bytes of the records after the envelope.
    """

    node_id: str
    time_utc_s: int | None
    oldest: int
    spool: int
    seq: int
    power_up: int
    uptime_ms: int
    readings: tuple[Reading, ...]
    body: bytes
    body_sha256: str

    @property
    def identity(self) -> PackIdentity:
        return PackIdentity(self.node_id, self.spool, self.seq)


class EventPack(NamedTuple):
    """What one node reports about itself: the event's name and its details, in the order sent."""

    node_id: str
    time_utc_s: int | None
    oldest: int
    spool: int
    seq: int
    power_up: int
    uptime_ms: int
    event: str
    details: tuple[tuple[str, float | str], ...]
    body: bytes
    body_sha256: str

    @property
    def identity(self) -> PackIdentity:
        return PackIdentity(self.node_id, self.spool, self.seq)


class Extreme(NamedTuple):
    """The lowest and the highest raw value of a channel, or the last reason when there was no value at all."""

    key: str
    lowest: float | None
    highest: float | None
    reason: str | None


class ThinnedPack(NamedTuple):
    """What a node with a full spool kept of the packs that it gave up: it stands for `from_seq` to `to_seq`.

    `time_utc_s`, `power_up` and `uptime_ms` are of the first of them, `until_power_up` and `until_uptime_ms` of the last.
    `packs` of them could be read; the others are lost without a trace, or were copied to sequences of their own.
    """

    node_id: str
    time_utc_s: int | None
    oldest: int
    spool: int
    seq: int
    power_up: int
    uptime_ms: int
    from_seq: int
    to_seq: int
    packs: int
    until_power_up: int
    until_uptime_ms: int
    extremes: tuple[Extreme, ...]
    body: bytes
    body_sha256: str

    @property
    def identity(self) -> PackIdentity:
        return PackIdentity(self.node_id, self.spool, self.seq)


def decode_telemetry(payload: bytes) -> Pack | ThinnedPack:
    """Read what a node publishes on `tm`: a pack, or a thinned one. Same promises as `decode_pack`.

    Raises:
        WireError: the payload is neither.
    """
    frame = _open(payload)
    return _thinned_pack(frame) if _is_thinned(frame) else _pack(frame)


def decode_pack(payload: bytes) -> Pack:
    """Read a telemetry pack.

    Safe for any bytes: time and memory are bounded by the payload's size, and nothing but `WireError` is raised.

    Raises:
        WireError: the payload is not a pack; with the pack's identity as far as it could be read.
    """
    return _pack(_open(payload))


def decode_event(payload: bytes) -> EventPack:
    """Read an event pack. Same promises as `decode_pack`.

    Raises:
        WireError: the payload is not an event pack.
    """
    frame = _open(payload)
    try:
        event, details = _event_details(frame.records[len(_BOOKKEEPING) :])
        header = _header(frame)
    except WireError as error:
        raise WireError(error.code, error.sentence, frame.identity) from error
    return EventPack(
        *header,
        event=event,
        details=details,
        body=frame.body,
        body_sha256=_sha256_hex(frame.body),
    )


def encode_body(
    *, spool: int, seq: int, power_up: int, uptime_ms: int, readings: Iterable[Reading]
) -> tuple[bytes, int]:
    """Write a body as the node's spool holds it; return its bytes and its number of records.

    Integers take their shortest form, floats single precision.

    Raises:
        ValueError: a reading has neither or both of value and reason, or a number does not fit.
    """
    numbers = zip(_BOOKKEEPING, (spool, seq, power_up, uptime_ms), strict=True)
    records = [_number_record(name, number) for (name, _), number in numbers]
    records += [_reading_record(*reading) for reading in readings]
    return b"".join(records), len(records)


def encode_thinned_body(
    *,
    spool: int,
    seq: int,
    power_up: int,
    uptime_ms: int,
    from_seq: int,
    to_seq: int,
    packs: int,
    until_power_up: int,
    until_uptime_ms: int,
    extremes: Iterable[Extreme],
) -> tuple[bytes, int]:
    """Write a thinned pack's body as the node's spool holds it; return its bytes and its number of records.

    Raises:
        ValueError: as in `encode_body`.
    """
    body, count = encode_body(
        spool=spool, seq=seq, power_up=power_up, uptime_ms=uptime_ms, readings=()
    )
    numbers = (from_seq, to_seq, packs, until_power_up, until_uptime_ms)
    records = [
        _number_record(name, number) for (name, _), number in zip(_THINNED, numbers, strict=True)
    ]
    for key, lowest, highest, reason in extremes:
        records.append(_reading_record(key + _LOWEST, lowest, reason))
        records.append(_reading_record(key + _HIGHEST, highest, reason))
    return body + b"".join(records), count + len(records)


def encode_envelope(*, node_id: str, time_utc_s: int | None, oldest: int) -> bytes:
    """Write the record that stands in front of the body."""
    pairs = [cbor.encode_integer(_BASE_NAME) + cbor.encode_text(f"{node_id}:")]
    if time_utc_s is not None:
        pairs.append(cbor.encode_integer(_BASE_TIME) + cbor.encode_integer(time_utc_s))
    pairs.append(cbor.encode_integer(_NAME) + cbor.encode_text(_OLDEST))
    pairs.append(cbor.encode_integer(_VALUE) + cbor.encode_integer(oldest))
    return cbor.map_head(len(pairs)) + b"".join(pairs)


def encode_pack(
    *,
    node_id: str,
    time_utc_s: int | None,
    oldest: int,
    spool: int,
    seq: int,
    power_up: int,
    uptime_ms: int,
    readings: Iterable[Reading],
) -> bytes:
    """Write a pack byte for byte as the node does.

    Raises:
        ValueError: as in `encode_body`.
    """
    body, count = encode_body(
        spool=spool, seq=seq, power_up=power_up, uptime_ms=uptime_ms, readings=readings
    )
    envelope = encode_envelope(node_id=node_id, time_utc_s=time_utc_s, oldest=oldest)
    return cbor.array_head(1 + count) + envelope + body


# ---------------------------------------------------------------------------------------------------------------- private


def _pack(frame: _Frame) -> Pack:
    try:
        readings = _readings(frame.records[len(_BOOKKEEPING) :])
        header = _header(frame)
    except WireError as error:
        raise WireError(error.code, error.sentence, frame.identity) from error
    return Pack(*header, readings=readings, body=frame.body, body_sha256=_sha256_hex(frame.body))


def _is_thinned(frame: _Frame) -> bool:
    own = frame.records[len(_BOOKKEEPING) :]
    return bool(own) and own[0].get(_NAME) == _THINNED[0][0]


def _thinned_pack(frame: _Frame) -> ThinnedPack:
    own = frame.records[len(_BOOKKEEPING) :]
    try:
        header = _header(frame)
        numbers = _thinned_numbers(own)
        extremes = _extremes(own[len(_THINNED) :])
        _check_range(frame, header, numbers)
    except WireError as error:
        raise WireError(error.code, error.sentence, frame.identity) from error
    return ThinnedPack(
        *header, *numbers, extremes=extremes, body=frame.body, body_sha256=_sha256_hex(frame.body)
    )


def _thinned_numbers(records: Sequence[dict[object, object]]) -> tuple[int, int, int, int, int]:
    if len(records) < len(_THINNED):
        raise WireError("bookkeeping_missing", "The thinned pack does not say what it stands for.")
    pairs = zip(records, _THINNED, strict=False)
    first, last, packs, power_up, uptime_ms = (_number(record, *named) for record, named in pairs)
    return first, last, packs, power_up, uptime_ms


def _check_range(frame: _Frame, header: _Header, numbers: tuple[int, int, int, int, int]) -> None:
    from_seq, to_seq, packs, until_power_up, until_uptime_ms = numbers
    *_, power_up, uptime_ms = header
    if not 1 <= from_seq <= to_seq < frame.identity.seq:
        raise WireError("thinned_range_wrong", "The thinned pack names no range before itself.")
    if not 1 <= packs <= to_seq - from_seq + 1:
        raise WireError("thinned_packs_wrong", "The thinned pack was made of no possible number.")
    if until_power_up == power_up and until_uptime_ms < uptime_ms:
        raise WireError("thinned_time_wrong", "The thinned pack ends before it begins.")


def _extremes(records: Sequence[dict[object, object]]) -> tuple[Extreme, ...]:
    if len(records) % 2:
        raise WireError("extreme_missing", "The thinned pack lacks an extreme of a channel.")
    pairs = zip(records[::2], records[1::2], strict=True)
    extremes = tuple(_extreme(lowest, highest) for lowest, highest in pairs)
    if len({extreme.key for extreme in extremes}) != len(extremes):
        raise WireError("channel_repeated", "The pack holds a channel twice.")
    return extremes


def _extreme(lowest: dict[object, object], highest: dict[object, object]) -> Extreme:
    name = lowest.get(_NAME)
    key = name.removesuffix(_LOWEST) if isinstance(name, str) else ""
    if name != key + _LOWEST or highest.get(_NAME) != key + _HIGHEST:
        raise WireError("extreme_missing", "The thinned pack lacks an extreme of a channel.")
    _, low, reason = _reading({**lowest, _NAME: key})
    _, high, other_reason = _reading({**highest, _NAME: key})
    if reason != other_reason or (low is not None and high is not None and low > high):
        raise WireError("extremes_wrong", "A channel's two extremes contradict each other.")
    return Extreme(key, low, high, reason)


class _Frame(NamedTuple):
    """A payload taken apart, with its identity known and everything else still to be judged."""

    envelope: dict[object, object]
    records: list[dict[object, object]]
    body: bytes
    identity: PackIdentity


_Header = tuple[str, int | None, int, int, int, int, int]


def _open(payload: bytes) -> _Frame:
    cbor.check_size(payload)
    count, head_length = _array_head(payload)
    envelope, records, end = cbor.decode_items(payload, start=head_length, count=count)
    body = payload[end:]
    if not isinstance(envelope, dict) or {*map(type, records)} != {dict}:
        raise WireError("record_not_map", "A record of the pack is not a map.")
    return _Frame(envelope, records, body, _identity(envelope, records))


def _array_head(payload: bytes) -> tuple[int, int]:
    first = payload[0]
    if 0x80 <= first < 0x98:
        count, length = first - 0x80, 1
    elif first == 0x98 and len(payload) > 1:
        count, length = payload[1], 2
    else:
        raise WireError("pack_not_array", "The payload is not an array of SenML records.")
    if count > MAX_RECORDS:
        raise WireError("records_too_many", f"A pack has at most {MAX_RECORDS} records.")
    if count <= len(_BOOKKEEPING):
        raise WireError("records_too_few", "The pack has not even its bookkeeping records.")
    return count, length


def _identity(
    envelope: dict[object, object], records: Sequence[dict[object, object]]
) -> PackIdentity:
    base_name = envelope.get(_BASE_NAME)
    if not isinstance(base_name, str) or base_name[-1:] != ":" or not is_node_id(base_name[:-1]):
        raise WireError("node_id_unreadable", "The envelope names no node.")
    (spool_name, spool_max), (seq_name, seq_max), *_ = _BOOKKEEPING
    return PackIdentity(
        base_name[:-1],
        _number(records[0], spool_name, spool_max),
        _number(records[1], seq_name, seq_max),
    )


def _header(frame: _Frame) -> _Header:
    time_utc_s = _time_utc_s(frame.envelope)
    oldest = _number(
        {key: frame.envelope[key] for key in (_NAME, _VALUE) if key in frame.envelope},
        _OLDEST,
        U32_MAX,
    )
    unexpected = frame.envelope.keys() - {_BASE_NAME, _BASE_TIME, _NAME, _VALUE}
    if unexpected:
        raise WireError("envelope_field_unknown", "The envelope has fields the wire does not know.")
    if oldest > frame.identity.seq:
        raise WireError("oldest_above_seq", "The pack says it is older than the oldest pack held.")
    (up_name, up_max), (ms_name, ms_max) = _BOOKKEEPING[2:]
    power_up = _number(frame.records[2], up_name, up_max)
    uptime_ms = _number(frame.records[3], ms_name, ms_max)
    identity = frame.identity
    return (
        identity.node_id,
        time_utc_s,
        oldest,
        identity.spool,
        identity.seq,
        power_up,
        uptime_ms,
    )


def _time_utc_s(envelope: dict[object, object]) -> int | None:
    if _BASE_TIME not in envelope:
        return None
    time_utc_s = envelope[_BASE_TIME]
    # RFC 8428 allows floats here; ours must be integers (a node's float has 24 bits), and §4.5.3's relative times are refused.
    if type(time_utc_s) is not int:
        raise WireError("time_not_integer", "The pack's time is not a whole number of seconds.")
    if not TIME_FROM_UTC_S <= time_utc_s < TIME_BEFORE_UTC_S:
        raise WireError("time_out_of_range", "The pack's time is not between 2020 and 2100.")
    return time_utc_s


def _number(record: dict[object, object], name: str, maximum: int) -> int:
    """Value of a bookkeeping record, which holds its name and a whole number and nothing else."""
    if record.get(_NAME) != name or len(record) != 2 or _VALUE not in record:
        raise WireError("bookkeeping_missing", f"The record {name} is not where it belongs.")
    number = record[_VALUE]
    if type(number) is not int or not 0 <= number <= maximum:
        raise WireError("bookkeeping_wrong", f"The record {name} holds no possible number.")
    return number


def _readings(records: Sequence[dict[object, object]]) -> tuple[Reading, ...]:
    readings = tuple(map(_reading, records))
    if len({reading[0] for reading in readings}) != len(readings):
        raise WireError("channel_repeated", "The pack holds a channel twice.")
    return readings


def _reading(record: dict[object, object]) -> Reading:
    key = record.get(_NAME)
    if not isinstance(key, str) or not _is_channel_key(key):
        raise WireError("channel_key_wrong", "A record has no channel key.")
    if len(record) != 2:
        raise WireError("record_field_unknown", "A record has fields the wire does not know.")
    if _VALUE in record:
        return key, _value(record[_VALUE]), None
    reason = record.get(_STRING_VALUE)
    if not isinstance(reason, str) or _REASON.fullmatch(reason) is None:
        raise WireError("value_missing", "A record has neither a value nor a reason.")
    return key, None, reason


def _is_channel_key(key: str) -> bool:
    return len(key) <= _MAX_KEY_LENGTH and _matches_channel_key(key)


@lru_cache(maxsize=10_000)  # of short texts: nodes say the same few again and again
def _matches_channel_key(key: str) -> bool:
    return _CHANNEL_KEY.fullmatch(key) is not None


def _value(value: object) -> float:
    if type(value) is float:
        if not math.isfinite(value):
            raise WireError("value_not_finite", "A value is not a finite number.")
        return value
    if type(value) is not int:
        raise WireError("value_not_number", "A value is not a number.")
    if abs(value) > _EXACT_INTEGER_MAX:
        raise WireError("value_too_large", "A value is too large to be kept exactly.")
    return value


def _event_details(
    records: Sequence[dict[object, object]],
) -> tuple[str, tuple[tuple[str, float | str], ...]]:
    first = records[0] if records else {}
    event = first.get(_STRING_VALUE)
    if first.get(_NAME) != _EVENT or len(first) != 2 or not isinstance(event, str):
        raise WireError("event_missing", "The pack does not say which event it reports.")
    if _CHANNEL_KEY.fullmatch(event) is None:
        raise WireError("event_wrong", "The event's name is not a name.")
    return event, tuple(_detail(record) for record in records[1:])


def _detail(record: dict[object, object]) -> tuple[str, float | str]:
    key = record.get(_NAME)
    if not isinstance(key, str) or _CHANNEL_KEY.fullmatch(key) is None or len(record) != 2:
        raise WireError("detail_wrong", "A detail of the event has no key.")
    if _VALUE in record:
        return key, _value(record[_VALUE])
    text = record.get(_STRING_VALUE)
    if not isinstance(text, str) or len(text) > _MAX_DETAIL_LENGTH:
        raise WireError("detail_wrong", "A detail of the event has no value.")
    return key, text


def _number_record(name: str, number: int) -> bytes:
    pairs = cbor.encode_integer(_NAME) + cbor.encode_text(name)
    return cbor.map_head(2) + pairs + cbor.encode_integer(_VALUE) + cbor.encode_integer(number)


def _reading_record(key: str, value: float | None, reason: str | None) -> bytes:
    if (value is None) == (reason is None):
        raise ValueError(f"channel {key} needs either a value or a reason")
    name = cbor.map_head(2) + cbor.encode_integer(_NAME) + cbor.encode_text(key)
    if reason is not None:
        return name + cbor.encode_integer(_STRING_VALUE) + cbor.encode_text(reason)
    if isinstance(value, int):
        return name + cbor.encode_integer(_VALUE) + cbor.encode_integer(value)
    assert value is not None  # noqa: S101 - the guard above
    return name + cbor.encode_integer(_VALUE) + cbor.encode_float32(value)


def _sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
