"""Where the sources of the firmware lie, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def firmware_dir() -> Path:
    """The folder with `boot.py`, `main.py`, `slots.py`, `judge.py` and `node/`.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    # An installed wheel carries the sources inside this package; a checkout has them beside it.
    for folder in (_HERE / "_firmware", _HERE.parent / "firmware"):
        if (folder / "node").is_dir():
            return folder
    raise FileNotFoundError("The firmware's sources are missing beside the hardware package.")
