#!/usr/bin/env python3
"""The one file a newcomer needs: `python3 run.py demo`, `python3 run.py test`.

Standard library only. Makes `.venv` with tox in it; tox makes the environments that the commands run in.
`fleet` and `provision` reach the two console scripts without installing anything by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
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
    environment = run_environment()
    with only_set_up():
        ready = make_tox() and (command == "test" or make(environment))
        if ready and command != "test":
            keep(environment)
    if not ready:
        return 1
    if command == "test":
        return subprocess.call([tool(ROOT / ".venv", "tox"), "run", *rest], cwd=ROOT)
    program = tool(environment, command)
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


def run_environment() -> Path:
    """Where the commands run: an environment for each state of the dependencies, so that none is remade under what runs in it."""
    content = b"".join(
        (ROOT / name).read_bytes() for name in ("pyproject.toml", "tox.ini", "constraints.txt")
    )
    made_for = content + f"{sys.version} {ROOT}".encode()
    return ROOT / ".tox" / f"run-{hashlib.sha256(made_for).hexdigest()[:12]}"


def make(environment: Path) -> bool:
    """Install the package with its dependencies into `environment`, once; older ones that nothing runs in go away."""
    stamp = environment / "is_whole"
    if stamp.is_file():
        return True
    say(f"Installing what the system needs into .tox/{environment.name} (about a minute, once) …")
    tox = [tool(ROOT / ".venv", "tox"), "run", "-e", "run", "--notest", "-q"]
    if not quietly([*tox, "-x", f"testenv:run.env_dir={environment}"]):
        fail("Could not install the dependencies; what pip said is above.")
        return False
    stamp.touch()
    for other in environment.parent.glob("run-*"):
        if other != environment and not is_in_use(other):
            shutil.rmtree(other, ignore_errors=True)
    return True


def keep(environment: Path) -> None:
    """Keep `environment` from being removed as long as this process lives, also when it becomes another program."""
    if os.name != "nt":
        import fcntl

        lock = os.open(environment / "in_use", os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(lock, fcntl.LOCK_SH)
        os.set_inheritable(lock, True)


def is_in_use(environment: Path) -> bool:
    """Does a command run in it? Windows would tell only while it is being removed: there, old ones stay."""
    if os.name == "nt":
        return True
    import fcntl

    with (environment / "in_use").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


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
    except OSError as problem:
        sys.exit(fail(f"{problem.filename} cannot be used: {problem.strerror}."))
