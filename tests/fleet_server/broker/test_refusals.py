"""What is refused is counted to the last, told a bounded number of times, and written for others to read."""

from __future__ import annotations

import json
from pathlib import Path

from structlog.testing import capture_logs

from fleet_server.broker.refusals import LINES_PER_MINUTE, Refusal, Tally


def test_every_refusal_is_counted_and_the_log_is_not_filled() -> None:
    now = [0.0]
    tally = Tally(monotonic=lambda: now[0])
    with capture_logs() as lines:
        for _ in range(10 * LINES_PER_MINUTE):
            tally.refuse(Refusal.PUBLISH_DENIED, client="n-loud", topic="x" * 65_000)
        tally.refuse(Refusal.WILL_DENIED, client="n-other")
        now[0] = 61.0
        tally.refuse(Refusal.PUBLISH_DENIED, client="n-loud")
    assert tally.refused == {
        Refusal.PUBLISH_DENIED: 10 * LINES_PER_MINUTE + 1,
        Refusal.WILL_DENIED: 1,
    }
    assert len(lines) == LINES_PER_MINUTE + 2
    assert lines[-1]["count"] == 10 * LINES_PER_MINUTE + 1
    assert max(len(str(line)) for line in lines) < 500


def test_status_names_every_reason_also_those_that_never_happened(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "broker" / "status.json", facts={"pid": 7})
    tally.refuse(Refusal.HANDSHAKE_FAILED)
    tally.write(clients=["n-1a2b3c"])
    status = json.loads((tmp_path / "broker" / "status.json").read_text())
    assert (status["pid"], status["clients"]) == (7, ["n-1a2b3c"])
    assert set(status["refused"]) == {reason.value for reason in Refusal}
    assert status["refused"]["handshake_failed"] == 1


def test_operators_document_tells_what_to_do_about_every_reason() -> None:
    told = (Path(__file__).parents[3] / "docs/operator/broker.md").read_text(encoding="utf-8")
    assert [reason for reason in Refusal if f"`{reason.value}`" not in told] == []


def test_status_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "broker").write_text("a file where the folder should be")
    tally = Tally(tmp_path / "broker" / "status.json")
    with capture_logs() as lines:
        tally.write()
    assert [line["event"] for line in lines] == ["status_not_written"]
