"""What can go wrong for a person or a program that asks: one root, five kinds, leaves in their service's module.

`str(problem)` is one clear sentence in English; `code` is stable and what programs hold on to. `problem.said` is the same sentence with
its parts apart, from which a page says it in the reader's language (`http_shared/languages.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any


class Said(str):
    """A sentence, or a part of one: English as it stands, with what other languages make their own of.

    Args:
        template: written out where it is said, so that catalogues find it; `%(name)s` stands for a part. Without parts it is no template.
        parts: names, numbers, times, states, or again something said.

    >>> Said("Site %(code)s is closed.", code="A1")
    'Site A1 is closed.'
    """

    __slots__ = ("parts", "template")

    template: str
    parts: Mapping[str, object]

    def __new__(cls, template: str, /, **parts: object) -> Said:
        english = {name: _in_english(part) for name, part in parts.items()}
        made = super().__new__(cls, template % english if parts else template)
        made.template, made.parts = template, parts
        return made

    def as_json(self) -> dict[str, Any]:
        """Its template and parts, to be kept and said later; what is no number or text is kept as it is said in English."""
        parts = {
            name: part if isinstance(part, int | float) else str(_in_english(part))
            for name, part in self.parts.items()
        }
        return {"template": self.template, "parts": parts}


def _in_english(part: object) -> object:
    return f"{part:%Y-%m-%dT%H:%M:%SZ}" if isinstance(part, datetime) else part


def listed(parts: Iterable[object]) -> Said:
    """Said one after the other, separated by commas.

    >>> listed(["w30", "w60"])
    'w30, w60'
    """
    named = {f"part_{number}": part for number, part in enumerate(parts)}
    return Said(", ".join(f"%({name})s" for name in named), **named)


class FleetError(Exception):
    """Anything that a user or a neighbour can cause and should be told in one sentence.

    Args:
        sentence: as `Said` takes it; with `fields` it is a template.
        fields: the sentence's parts, and what programs want to know beside it.
    """

    code = "failed"

    def __init__(self, sentence: str, /, **fields: object) -> None:
        self.said = sentence if isinstance(sentence, Said) else Said(sentence, **fields)
        self.fields = fields
        super().__init__(str(self.said))


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
