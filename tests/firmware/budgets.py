"""What docs/budgets.md says."""

from __future__ import annotations

import re
from pathlib import Path

BUDGETS = Path(__file__).parents[2] / "docs" / "budgets.md"


def budget(name: str) -> int:
    """The measured number that the table gives for `name`."""
    row = re.search(
        rf"^\| {re.escape(name)} \|[^|]*\| ([\d,]+) \|", BUDGETS.read_text(), re.MULTILINE
    )
    assert row is not None, f"docs/budgets.md has no row {name}"
    return int(row.group(1).replace(",", ""))
