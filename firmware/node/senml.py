"""Packs: SenML in CBOR (RFC 8428). The body is composed once, when sampling; the envelope when sending."""

from micropython import const

from node import cbor

_BASE_NAME = const(-2)
_BASE_TIME = const(-3)
_NAME = const(0)
_VALUE = const(2)
_STRING_VALUE = const(3)
_BOOKKEEPING = const(4)  # records


def body(spool, seq, power_up, uptime_ms, readings):
    """(number of records, bytes). `readings` are pairs of key and value.

    A value is an integer, the four bytes of a big-endian float32, or a reason's name.
    """
    records = [bookkeeping(spool, seq, power_up, uptime_ms)]
    for key, value in readings:
        records.append(_record(key, value))
    return _BOOKKEEPING + len(readings), b"".join(records)


def bookkeeping(spool, seq, power_up, uptime_ms):
    """The records that every body begins with."""
    return (
        _record("_spool", spool)
        + _record("_seq", seq)
        + _record("_up", power_up)
        + _record("_ms", uptime_ms)
    )


def head(node_id, utc_s, oldest, n_records):
    """What stands before a body of `n_records` on the wire; without time when `utc_s` is None."""
    pairs = [cbor.integer(_BASE_NAME) + cbor.text(node_id + ":")]
    if utc_s is not None:
        pairs.append(cbor.integer(_BASE_TIME) + cbor.integer(utc_s))
    pairs.append(cbor.integer(_NAME) + cbor.text("_oldest"))
    pairs.append(cbor.integer(_VALUE) + cbor.integer(oldest))
    return cbor.array_head(1 + n_records) + cbor.map_head(len(pairs)) + b"".join(pairs)


def _record(key, value):
    name = b"\xa2\x00" + cbor.text(key)
    if isinstance(value, str):
        return name + cbor.integer(_STRING_VALUE) + cbor.text(value)
    if isinstance(value, int):
        return name + cbor.integer(_VALUE) + cbor.integer(value)
    return name + cbor.integer(_VALUE) + cbor.float32(value)


def kind(body):
    """The topic's last level for a body: `ev` when its first record after the bookkeeping is an event, else `tm`."""
    return "ev" if b"\xa2\x00\x66_event\x03" in body else "tm"


def is_thinned(body):
    """True for a pack that stands for others."""
    return b"\xa2\x00\x65_from\x02" in body
