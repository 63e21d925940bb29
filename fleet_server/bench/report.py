"""Benchmarks as a page for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

_MAIN = ("figure", "unit", "limit", "ratio")
_ROWS = "rows"


def as_markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """`docs/benchmarks.md` from the benchmarks' results."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `fleet bench all --markdown`. Machines differ and are noisy: the ratio, figure / limit with both measured",
        "in the same run, is what to compare.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, Python {platform.python_version()}.",
        "",
        "| benchmark | figure | unit | limit | ratio | |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in figures.items():
        beside = {key: one for key, one in result.items() if key not in (*_MAIN, _ROWS)}
        more = ", ".join(f"{key} {value}" for key, value in beside.items())
        cells = " | ".join(str(result.get(key, "")) for key in _MAIN)
        lines.append(f"| `{name}` | {cells} | {more} |")
    for name, result in figures.items():
        if _ROWS in result:
            lines += ["", f"## {name}", "", "<!-- table -->", *_table(result[_ROWS])]
            lines.append("<!-- end of table -->")
    return "\n".join([*lines, ""])


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = list(rows[0])
    return [
        f"| {' | '.join(heads)} |",
        "|" + "---|" * len(heads),
        *(f"| {' | '.join(_said(row[head]) for head in heads)} |" for row in rows),
    ]


def as_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows of a benchmark in columns, for a terminal."""
    heads = list(rows[0])
    cells = [heads, *([_said(row[head]) for head in heads] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
