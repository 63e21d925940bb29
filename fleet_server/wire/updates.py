"""Which release a node shall run (`release` in `dn/{id}/des`). The node's side: firmware/node/update/job.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet_server.wire.senml import U32_MAX

MAX_TARGET_LENGTH = 96
MAX_REASON_LENGTH = 40


@dataclass(frozen=True)
class Assignment:
    """Run the release behind `target` (`tree-3/0.7.0.cbor`), whose counter is `counter`.

    `assignment` names the order, `attempt` counts from 1: a node that gave up tries again when it is raised. The node begins only from
    `not_before_s` to `until_s` (UTC seconds; 0: no bound).
    """

    assignment: int
    attempt: int
    target: str
    counter: int
    not_before_s: int = 0
    until_s: int = 0

    def __post_init__(self) -> None:
        numbers = (self.assignment, self.attempt, self.counter, self.not_before_s, self.until_s)
        if not all(0 <= number <= U32_MAX for number in numbers) or self.attempt < 1:
            raise ValueError("an assignment's numbers are whole and below 2³²")
        if not 0 < len(self.target) <= MAX_TARGET_LENGTH or not self.target.isascii():
            raise ValueError(f"a target has 1 to {MAX_TARGET_LENGTH} ASCII characters")

    def as_fields(self) -> dict[str, Any]:
        """The fields of `release` in a desired state."""
        return dict(vars(self))
