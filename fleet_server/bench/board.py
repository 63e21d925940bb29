"""Boots and memory of virtual nodes. The board is not the server's to import: its own program measures it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet_server.errors import Unavailable


def measure(*, seconds: float = 20.0, nodes: int = 200) -> dict[str, Any]:
    """Boots per second of a whole node, against bare starts of the same virtual machine; memory of idle nodes.

    Raises:
        Unavailable: `provision` is not installed here, or it failed.
    """
    program = Path(sys.executable).parent / "provision"
    if not program.exists():
        raise Unavailable(f"provision is not installed beside {sys.executable}.")
    command = [
        str(program),
        "virtual",
        "bench",
        "--json",
        "--seconds",
        str(seconds),
        "--nodes",
        str(nodes),
    ]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own program
    if result.returncode != 0:
        raise Unavailable("provision virtual bench failed; what it said is above.")
    got = json.loads(result.stdout)
    figure, limit = got["boots_per_second"], got["limit_boots_per_second"]
    return {
        "figure": round(figure, 1),
        "unit": "boots/s",
        "limit": round(limit, 1),
        "ratio": round(figure / limit, 3) if limit else 0.0,
        **{name: value for name, value in got.items() if "boots_per_second" not in name},
    }
