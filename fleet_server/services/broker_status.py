"""What the broker that we run (`fleet broker embedded`, `fleet broker mosquitto`) says of itself in its status file.

Read where that file is: on the broker's own machine. Other replicas of the server show nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BrokerStatus:
    """As of the last change; counters begin with the broker's start."""

    refused: Mapping[str, int]
    """Reason → how often, also those that never happened."""
    clients: int
    """Connections at this moment, services among them."""

    @property
    def refused_in_all(self) -> int:
        return sum(self.refused.values())


def read_status(path: Path) -> BrokerStatus | None:
    """None where no broker of ours has run, or where another version's file lies."""
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        refused = {str(reason): int(count) for reason, count in status["refused"].items()}
        return BrokerStatus(refused, len(status.get("clients", ())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
