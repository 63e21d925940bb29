"""What can go wrong for a person or a program that asks: one root, five kinds, leaves in their service's module.

`str(problem)` is one clear sentence in English; `code` is stable and what programs and translations hold on to.
"""

from __future__ import annotations


class FleetError(Exception):
    """Anything that a user or a neighbour can cause and should be told in one sentence."""

    code = "failed"

    def __init__(self, sentence: str, **fields: object) -> None:
        super().__init__(sentence)
        self.fields = fields


class NotFound(FleetError):
    """What was asked for is not there."""

    code = "not_found"


class Unauthenticated(FleetError):
    """Who asks has not shown who they are."""

    code = "unauthenticated"


class Refused(FleetError):
    """The asker may not, or a rule forbids it."""

    code = "refused"


class Invalid(FleetError):
    """What was given is wrong. A command ends with exit 2 ("used wrongly") for this kind, with 1 for all others."""

    code = "invalid"


class Conflict(FleetError):
    """The state changed under the asker, or is not the one this needs."""

    code = "conflict"


class Unavailable(FleetError):
    """Something that this rests on (database, broker, file) is not there or not fit."""

    code = "unavailable"
