"""The folder of one virtual node: what it is, beside what its board and its ledger keep there themselves.

`flash.bin` and `rtc.bin` are the board's, `ledger.json` is the ledger's; `node.json` is written when the node is
enrolled, last, so that a folder without it is one to begin anew.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

_NODE_FILE = "node.json"


@dataclass(frozen=True)
class EnrolledNode:
    """What the bench knows of a node."""

    label: str
    model: str
    node_id: str


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

    def node(self) -> EnrolledNode | None:
        """The node that was enrolled here; None when none was."""
        try:
            return EnrolledNode(**json.loads((self.path / _NODE_FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, node: EnrolledNode) -> None:
        """Remember the node, whole or not at all."""
        scratch = self.path / (_NODE_FILE + ".new")
        scratch.write_text(json.dumps(asdict(node)), encoding="utf-8")
        scratch.replace(self.path / _NODE_FILE)
