"""Benchmarks as a page for people."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_MAIN = ("figure", "unit", "limit", "ratio")


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
        more = ", ".join(f"{key} {value}" for key, value in result.items() if key not in _MAIN)
        cells = " | ".join(str(result.get(key, "")) for key in _MAIN)
        lines.append(f"| `{name}` | {cells} | {more} |")
    return "\n".join([*lines, ""])
