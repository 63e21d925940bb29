"""What the broker refuses, by name, counted, and written where operators, pages and tests can read it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

# Whoever is refused shall not fill the disk with our own log: of each reason so many lines a minute, all of them counted.
LINES_PER_MINUTE = 60
_MINUTE_S = 60.0
# A topic may have 65,535 bytes.
_LONGEST_FIELD = 200


class Refusal(StrEnum):
    """Why something was not done. Those without a remark are known to both brokers."""

    HANDSHAKE_FAILED = "handshake_failed"
    HANDSHAKE_TIMED_OUT = "handshake_timed_out"
    """Embedded only; on mosquitto it is `connect_timed_out`."""
    CONNECT_TIMED_OUT = "connect_timed_out"
    CONNECT_MALFORMED = "connect_malformed"
    PROTOCOL_UNSUPPORTED = "protocol_unsupported"
    """Embedded only; mosquitto speaks MQTT 5, too, and what is no MQTT is `connect_malformed` there."""
    CONNECTIONS_EXCEEDED = "connections_exceeded"
    """mosquitto only."""
    WRONG_LISTENER = "wrong_listener"
    CLIENT_ID_NOT_OWN = "client_id_not_own"
    """Embedded only; mosquitto gives the connection its own client id without a word."""
    CERTIFICATE_REVOKED = "certificate_revoked"
    WILL_DENIED = "will_denied"
    PUBLISH_DENIED = "publish_denied"
    RETAIN_DENIED = "retain_denied"
    """Embedded only."""
    SUBSCRIBE_DENIED = "subscribe_denied"
    PACKET_TOO_LARGE = "packet_too_large"
    PACKET_MALFORMED = "packet_malformed"
    PACKET_TIMED_OUT = "packet_timed_out"
    SEND_TIMED_OUT = "send_timed_out"
    """Embedded only."""


@dataclass
class Tally:
    """Counters since the start, on request kept in a small JSON file."""

    status_path: Path | None = None
    facts: dict[str, object] = field(default_factory=dict)
    refused: Counter[Refusal] = field(default_factory=Counter)
    monotonic: Callable[[], float] = time.monotonic
    _written: str = ""
    _lines: Counter[Refusal] = field(default_factory=Counter)
    _minute_ends_at: float = 0.0

    def refuse(self, refusal: Refusal, **who: object) -> None:
        """Count one, and say so in the log unless it has said so too often in this minute."""
        self.refused[refusal] += 1
        if self._may_speak_of(refusal):
            fields = {name: str(value)[:_LONGEST_FIELD] for name, value in who.items()}
            log.warning(
                "broker_refused", reason=refusal.value, count=self.refused[refusal], **fields
            )

    def _may_speak_of(self, refusal: Refusal) -> bool:
        now = self.monotonic()
        if now >= self._minute_ends_at:
            self._lines.clear()
            self._minute_ends_at = now + _MINUTE_S
        self._lines[refusal] += 1
        return self._lines[refusal] <= LINES_PER_MINUTE

    def write(self, **now: object) -> None:
        """Bring the status file up to date; cheap when nothing changed. A full disk stops no broker."""
        if self.status_path is None:
            return
        refused = {name.value: self.refused[name] for name in Refusal}
        text = json.dumps({**self.facts, **now, "refused": refused})
        if text == self._written:
            return
        try:
            self.status_path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.status_path.with_suffix(".new")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(self.status_path)
        except OSError as problem:
            log.warning("status_not_written", reason=problem.strerror)
            return
        self._written = text
