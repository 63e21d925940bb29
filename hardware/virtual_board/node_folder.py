"""The folder of one virtual node, and what is remembered there between runs and after a kill.

`flash.bin` and what else the board keeps is the board's own; `ledger.json` is the ledger's; `node.json` says what the
node is and where it stands in simulated time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

_STATE_FILE = "node.json"
_US_PER_S = 1_000_000
# A board that was killed while awake had its power cut then; it comes back this much later, never earlier.
_POWER_CUT_S = 60


@dataclass
class NodeState:
    """What is remembered of one node.

    `wakes_at_us` is the true simulated UTC of the next boot; `is_awake` is true in the file while a boot runs, so that
    a killed process is recognised as a power cut.
    """

    label: str
    model: str
    wakes_at_us: int
    boots: int = 0
    power_cuts: int = 0
    is_awake: bool = False
    node_id: str | None = None

    @property
    def wakes_at_s(self) -> float:
        return self.wakes_at_us / _US_PER_S


class NodeFolder:
    """The files of one node below the data folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def flash_path(self) -> Path:
        return self.path / "flash.bin"

    @property
    def ledger_path(self) -> Path:
        return self.path / "ledger.json"

    def load(self) -> NodeState | None:
        """Where the node stands; None when it was never made here. A kill during a boot counts as a power cut."""
        try:
            state = NodeState(**json.loads((self.path / _STATE_FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        if state.is_awake:
            state.is_awake = False
            state.power_cuts += 1
            state.wakes_at_us += _POWER_CUT_S * _US_PER_S
        return state

    def save(self, state: NodeState) -> None:
        """Remember, whole or not at all."""
        self.path.mkdir(parents=True, exist_ok=True)
        scratch = self.path / (_STATE_FILE + ".new")
        scratch.write_text(json.dumps(vars(state)), encoding="utf-8")
        scratch.replace(self.path / _STATE_FILE)


def node_folders(data_dir: Path) -> list[NodeFolder]:
    """Every node folder below the data folder, by name."""
    return [NodeFolder(path.parent) for path in sorted(data_dir.glob(f"*/{_STATE_FILE}"))]
