"""How `provision` starts. One of its commands is started hundreds of times in a row by a test suite: it loads what it needs itself, and no more."""

from __future__ import annotations

import gc
import sys
from typing import NoReturn

_ALONE = ["virtual", "tuf-client"]


def main() -> NoReturn:
    """Run `provision`, or the one command alone; nobody can tell the difference but by the time."""
    if sys.argv[1:3] == _ALONE:
        _run_alone()
    # Nothing that is made while modules load becomes garbage: to search all of it again and again takes a sixth of the start.
    gc.disable()
    from provisioning.main import main as run

    gc.freeze()
    gc.enable()
    run()


def _run_alone() -> None:
    """Does not come back, unless there are no virtual boards here: that is said by the whole of `provision`."""
    try:
        from provisioning.tuf_client_command import tuf_client
    except ModuleNotFoundError:
        return
    from provisioning.ending import run_to_its_end

    run_to_its_end(tuf_client, sys.argv[3:], name="provision virtual tuf-client")
