#!/usr/bin/env python3
"""The one file a newcomer needs: `python3 run.py demo`, `python3 run.py test`.

Standard library only. Makes `.venv` with tox in it; tox makes the environments that the commands run in.
`fleet` and `provision` reach the two console scripts without installing anything by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
TOX = "tox==4.67.15"
USAGE = """usage: python3 run.py COMMAND [options]

  demo          the whole system on this machine, with virtual nodes that run the real firmware
  test          everything that can be tested on this machine   [tox arguments]
  fleet …       the fleet server's commands
  provision …   the technician's and release engineer's commands

Every command has --help, for example: python3 run.py demo --help"""


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):
        return fail(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if command == "demo":
        command, rest = "fleet", ["demo", *rest]
    if command not in ("test", "fleet", "provision"):
        return fail(f"There is no command {command!r}. Try: python3 run.py --help", 2)
    with only_set_up():
        ready = make_tox() and (command == "test" or make_run_environment())
    if not ready:
        return 1
    if command == "test":
        return subprocess.call([tool(ROOT / ".venv", "tox"), "run", *rest], cwd=ROOT)
    program = tool(ROOT / ".tox" / "run", command)
    if os.name == "nt":
        return subprocess.call([program, *rest])
    os.execv(program, [program, *rest])


@contextlib.contextmanager
def only_set_up() -> Iterator[None]:
    """Two of these at once would remake the same environment under each other: the second one waits."""
    if os.name == "nt":
        yield
        return
    import fcntl

    with (ROOT / ".set_up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tool(environment: Path, name: str) -> str:
    """Path of a program inside a virtual environment."""
    folder, ending = ("Scripts", ".exe") if os.name == "nt" else ("bin", "")
    return str(environment / folder / (name + ending))


def make_tox() -> bool:
    """Put tox into `.venv`, once."""
    stamp = ROOT / ".venv" / "made_for"
    want = f"{TOX} {sys.version}"
    if stamp.is_file() and stamp.read_text() == want:
        return True
    say("Making .venv (once) …")
    python = tool(ROOT / ".venv", "python")
    made = quietly([sys.executable, "-m", "venv", "--clear", str(ROOT / ".venv")]) and quietly(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOX]
    )
    if not made:
        fail(
            "Could not make .venv. On Debian and Ubuntu install python3-venv; "
            "behind a proxy set up pip first (pip config)."
        )
        return False
    stamp.write_text(want)
    return True


def make_run_environment() -> bool:
    """Install the package with its dependencies into `.tox/run`, again only when they change."""
    stamp = ROOT / ".tox" / "run" / "made_for"
    content = b"".join(
        (ROOT / name).read_bytes() for name in ("pyproject.toml", "tox.ini", "constraints.txt")
    )
    want = hashlib.sha256(content).hexdigest() + f" {sys.version} {ROOT}"
    if stamp.is_file() and stamp.read_text() == want:
        return True
    say("Installing what the system needs into .tox/run (about a minute, once) …")
    tox = tool(ROOT / ".venv", "tox")
    if not quietly([tox, "run", "-e", "run", "--notest", "-q"]):
        fail("Could not install the dependencies; what pip said is above.")
        return False
    stamp.write_text(want)
    return True


def quietly(command: list[str]) -> bool:
    """Run a set-up step with its output on stderr: stdout belongs to the command itself (--json)."""
    return subprocess.call(command, cwd=ROOT, stdout=sys.stderr) == 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str, status: int = 1) -> int:
    say(text)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
