"""The fleet's clock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from fleet_server import clock
from fleet_server.errors import Invalid


@pytest.fixture(autouse=True)
def _real_clock_afterwards() -> Iterator[None]:
    yield
    clock.use_clock(clock.REAL)


def test_real_clock_tells_whole_seconds_utc() -> None:
    now = clock.now()
    assert now.tzinfo is UTC
    assert now.microsecond == 0
    assert abs(now.timestamp() - time.time()) < 2


def test_simulated_clock_runs_as_fast_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_010.0)
    clock.use_clock("1700000000@1800000000x60")
    assert clock.now() == datetime.fromtimestamp(1_700_000_600, UTC)


@pytest.mark.parametrize("text", ["", "now", "1@2", "1@2x", "-1@2x3", "1@2x3x4", "1e3@2x3"])
def test_text_that_is_no_clock_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="clock must be"):
        clock.parse_clock(text)
