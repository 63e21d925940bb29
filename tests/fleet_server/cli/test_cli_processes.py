"""The demo's children: what a person is told, and how waiting for one ends."""

from __future__ import annotations

import subprocess
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


_WAITS_UNTIL_TOLD = """
import signal, sys, threading
from {module} import {name} as told_to_end

def strike(frame, event, _):
    # Called with the event's own lock held.
    if event == "call" and frame.f_code is threading.Condition.wait.__code__:
        signal.raise_signal(signal.SIGTERM)

with told_to_end() as told:
    sys.setprofile(strike)
    told.wait()
"""


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("fleet_server.cli.stopping", "told_to_end"),
        ("provisioning.virtual_commands", "stopped_by_signals"),
    ],
)
def test_signal_in_the_middle_of_waiting_for_it_ends_the_command(module: str, name: str) -> None:
    program = _WAITS_UNTIL_TOLD.format(module=module, name=name)
    assert subprocess.run([sys.executable, "-c", program], timeout=20).returncode == 0
