"""What the embedded broker refuses, by name, counted, and written where people and tests can read it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import structlog

from fleet_server.settings import Settings

log = structlog.get_logger(__name__)


class Refusal(StrEnum):
    """Why something was not done."""

    HANDSHAKE_FAILED = "handshake_failed"
    HANDSHAKE_TIMED_OUT = "handshake_timed_out"
    CONNECT_TIMED_OUT = "connect_timed_out"
    CONNECT_MALFORMED = "connect_malformed"
    PROTOCOL_UNSUPPORTED = "protocol_unsupported"
    WRONG_LISTENER = "wrong_listener"
    CLIENT_ID_NOT_OWN = "client_id_not_own"
    CERTIFICATE_REVOKED = "certificate_revoked"
    WILL_DENIED = "will_denied"
    PUBLISH_DENIED = "publish_denied"
    RETAIN_DENIED = "retain_denied"
    SUBSCRIBE_DENIED = "subscribe_denied"
    PACKET_TOO_LARGE = "packet_too_large"
    PACKET_MALFORMED = "packet_malformed"
    PACKET_TIMED_OUT = "packet_timed_out"
    SEND_TIMED_OUT = "send_timed_out"


def status_path(settings: Settings) -> Path:
    """Where the embedded broker keeps its ports and counters."""
    return settings.data_dir / "broker" / "status.json"


@dataclass
class Tally:
    """Counters since the start, on request kept in a small JSON file."""

    status_path: Path | None = None
    facts: dict[str, object] = field(default_factory=dict)
    refused: Counter[Refusal] = field(default_factory=Counter)
    published: int = 0
    delivered: int = 0
    unacknowledged: int = 0
    _written: str = ""

    def refuse(self, refusal: Refusal, **who: object) -> None:
        """Count one and say so in the log."""
        self.refused[refusal] += 1
        log.warning("broker_refused", reason=refusal.value, **who)

    def write(self, **now: object) -> None:
        """Bring the status file up to date; cheap when nothing changed."""
        if self.status_path is None:
            return
        text = json.dumps(
            {
                **self.facts,
                **now,
                "published": self.published,
                "delivered": self.delivered,
                "unacknowledged": self.unacknowledged,
                "refused": {name.value: self.refused[name] for name in Refusal},
            }
        )
        if text == self._written:
            return
        self.status_path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.status_path.with_suffix(".new")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.status_path)
        self._written = text
