"""Put the ESP32's MicroPython stubs into a folder of their own, once: `python tests/micropython_stubs.py FOLDER`.

Beside CPython's own modules they would hide them (`time`, `socket`, `ssl`) from mypy.
"""

import subprocess
import sys
from pathlib import Path

STUBS = ["micropython-esp32-stubs==1.29.0.post1", "micropython-stdlib-stubs==1.29.0.post2"]


def main(folder: Path) -> int:
    """Install the stubs into `folder` unless these versions are there. Returns pip's exit status."""
    stamp = folder / "made_for"
    want = " ".join(STUBS)
    if stamp.is_file() and stamp.read_text() == want:
        return 0
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade"]
    status = subprocess.call([*command, "--target", str(folder), *STUBS])
    if status == 0:
        stamp.write_text(want)
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
