"""Files of JSON in which somebody typed rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleet_server.errors import Invalid

_LARGEST_FILE_BYTES = 100_000


def read_rules(file: Path, *, what: str, begin_with: str) -> dict[str, Any] | None:
    """What the file holds; None for `null`: the general ones again.

    Args:
        what: it holds, in a word of several.
        begin_with: the command that prints rules to begin with.

    Raises:
        Invalid: it holds no object.
    """
    if file.stat().st_size > _LARGEST_FILE_BYTES:
        raise Invalid(f"{file} is too large for {what}.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise Invalid(f"{file} is no JSON; begin with what `{begin_with}` prints.") from problem
    if found is not None and not isinstance(found, dict):
        raise Invalid(f"{file} holds no {what}; begin with what `{begin_with}` prints.")
    return found
