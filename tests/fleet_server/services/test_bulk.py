"""Many rows at once come back as they were given, on both databases."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from factories import NOON_S, deployed_node
from sqlalchemy import func, select
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Anchor, Counter, Pack, RawReading
from fleet_server.services import bulk

TEXTS = [
    "plain",
    "",
    "NULL",
    "two words",
    "{a,b}",
    'q"uote',
    "back\\slash",
    "'",
    "Grünfläche",
    "\n\t",
    "\r",
    "\\N",
    "\\.",
]
BYTES = [b"", b"\x00", bytes(range(256)), b'\\x"{}']
NUMBERS = [None, 0.1, -1e-300, 1.7976931348623157e308, 2000, math.pi]
PACK_COLUMNS = (
    "id", "node_id", "spool", "seq", "kind", "received_at", "stored_at", "claimed_at", "power_up",
    "uptime_ms", "body_sha256", "payload_sha256", "payload",
)  # fmt: skip


def pack_row(pack_id: int, node_id: str, payload: bytes) -> tuple[object, ...]:
    return (
        pack_id, node_id, 1, pack_id, "telemetry", NOON_S, NOON_S, None, 1, 1, b"1", b"2", payload,
    )  # fmt: skip


def counters(numbers: Iterable[int]) -> bulk.Columns:
    """Rows of `counter` as columns; those with the same number have the same key."""
    counts = list(numbers)
    return {
        "name": ["c"] * len(counts),
        "node_id": [f"n-{number}" for number in counts],
        "count": counts,
    }


def test_texts_come_back_as_they_were_given(session: Session) -> None:
    rows = [(text, "n-1", number) for number, text in enumerate(TEXTS)]
    with db.writing(session):
        bulk.insert_rows(session, Counter.__table__, ("name", "node_id", "count"), rows)
    stored = session.scalars(select(Counter.name).order_by(Counter.count)).all()
    assert stored == TEXTS


def test_bytes_and_numbers_come_back_as_they_were_given(session: Session) -> None:
    node_id = deployed_node(session).node_id
    packs = [pack_row(number, node_id, payload) for number, payload in enumerate(BYTES, 1)]
    readings = [
        (1, f"c{place}", number, None if number is not None else "crc", None, False, None)
        for place, number in enumerate(NUMBERS)
    ]
    columns = (
        "pack_id", "channel", "raw_value", "status", "sampled_at", "time_estimated", "time_interval_s",
    )  # fmt: skip
    with db.writing(session):
        bulk.insert_rows(session, Pack.__table__, PACK_COLUMNS, packs)
        bulk.insert_rows(session, RawReading.__table__, columns, readings)
    assert session.scalars(select(Pack.payload).order_by(Pack.id)).all() == BYTES
    stored = session.scalars(select(RawReading.raw_value).order_by(RawReading.channel)).all()
    assert stored == NUMBERS


def test_columns_come_back_row_by_row_whatever_is_missing_in_them(session: Session) -> None:
    """Texts of several lengths beside numbers, of which each may be missing: rows of many shapes."""
    node_id = deployed_node(session).node_id
    numbers = [None if place % 3 == 0 else place / 7 for place in range(210)]
    readings = {
        "pack_id": np.ones(210, np.int64),
        "channel": ["c" * (1 + place % 5) + str(place) for place in range(210)],
        "raw_value": np.array([math.nan if number is None else number for number in numbers]),
        "status": ["crc" if number is None else None for number in numbers],
        "sampled_at": [None if place % 2 else NOON_S + place for place in range(210)],
        "time_estimated": np.arange(210) % 4 == 0,
        "time_interval_s": [None if place % 4 else place for place in range(210)],
    }
    with db.writing(session):
        bulk.insert_rows(session, Pack.__table__, PACK_COLUMNS, [pack_row(1, node_id, b"1")])
        bulk.insert_columns(session, RawReading.__table__, readings)
    stored = {row.channel: row for row in session.scalars(select(RawReading))}
    for place, channel in enumerate(readings["channel"]):
        row = stored[channel]
        assert (row.raw_value, row.status) == (numbers[place], readings["status"][place])
        at_s = None if row.sampled_at is None else int(row.sampled_at.timestamp())
        assert at_s == readings["sampled_at"][place]
        assert (row.time_estimated, row.time_interval_s) == (
            place % 4 == 0,
            readings["time_interval_s"][place],
        )


@pytest.mark.parametrize("count", [1, 1000])
def test_number_that_postgresql_cannot_hold_is_told_as_sqlalchemy_does(
    session: Session, count: int
) -> None:
    if session.get_bind().dialect.name == "sqlite":
        return  # holds it
    columns = {**counters(range(count)), "count": [1 << 63] * count}
    with pytest.raises(DataError), db.writing(session):
        bulk.insert_columns(session, Counter.__table__, columns)


def test_rows_whose_key_is_taken_are_not_counted(session: Session) -> None:
    node_id = deployed_node(session).node_id
    columns = ("node_id", "power_up", "uptime_ms", "utc_at")
    rows = [(node_id, 1, number, NOON_S) for number in range(777)]
    with db.writing(session):
        first = bulk.insert_rows(session, Anchor.__table__, columns, rows[100:400], if_absent=True)
        rest = bulk.insert_rows(session, Anchor.__table__, columns, rows, if_absent=True)
    assert (first, rest) == (300, 477)
    assert session.scalar(select(func.count()).select_from(Anchor)) == 777


@pytest.mark.parametrize("count", [1, 1000])
def test_rows_are_there_when_the_block_that_computes_meanwhile_has_ended(
    session: Session, count: int
) -> None:
    with db.writing(session):
        with bulk.inserting(session, Counter.__table__, counters(range(count))) as insertion:
            meanwhile = sum(range(1000))
        assert session.scalar(select(func.count()).select_from(Counter)) == count
    assert (insertion.result(), meanwhile) == (count, 499_500)


@pytest.mark.parametrize("count", [1, 1000])
def test_what_the_database_refuses_is_told_when_the_block_has_ended(
    session: Session, count: int
) -> None:
    with (
        pytest.raises(IntegrityError),
        db.writing(session),
        bulk.inserting(session, Counter.__table__, counters([0, *range(count)])),
    ):
        pass
    assert session.scalar(select(func.count()).select_from(Counter)) == 0


def test_block_that_fails_hands_the_session_back_and_nothing_is_stored(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_failed = threading.Event()
    insert_columns = bulk.insert_columns

    def insert_late(*args: Any, **options: Any) -> int:
        has_failed.wait(5)
        return insert_columns(*args, **options)

    monkeypatch.setattr(bulk, "insert_columns", insert_late)
    columns = counters(range(5000))
    were_done = []

    def fail_in_the_block() -> None:
        with db.writing(session):
            try:
                with bulk.inserting(session, Counter.__table__, columns) as insertion:
                    threading.Timer(0.05, has_failed.set).start()
                    _ = 1 // 0
            finally:
                were_done.append(insertion.done())

    with pytest.raises(ZeroDivisionError):
        fail_in_the_block()
    assert were_done == [True]
    assert session.scalar(select(func.count()).select_from(Counter)) == 0


@pytest.mark.parametrize("count", [1, 1000])
def test_content_that_postgresql_cannot_hold_is_told_as_sqlalchemy_does(
    session: Session, count: int
) -> None:
    if session.get_bind().dialect.name == "sqlite":
        return  # holds it
    rows = [("c", f"n-\0{number}", number) for number in range(count)]
    with pytest.raises(DataError), db.writing(session):
        bulk.insert_rows(session, Counter.__table__, ("name", "node_id", "count"), rows)
