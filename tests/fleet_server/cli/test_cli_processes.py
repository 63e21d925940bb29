"""The demo's children: what a person is told, and how waiting for one ends."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from fleet_server.cli.processes import Child


def test_ctrl_c_ends_the_wait_for_a_child_that_never_gets_ready(tmp_path: Path) -> None:
    told_to_end = threading.Event()
    child = Child(
        "idle", [sys.executable, "-c", "import time; time.sleep(60)"], log_folder=tmp_path
    )
    try:
        told_to_end.set()
        with pytest.raises(KeyboardInterrupt):
            child.wait_for("ready", timeout_s=60.0, told_to_end=told_to_end)
    finally:
        child.stop()
    assert child.process.returncode is not None
