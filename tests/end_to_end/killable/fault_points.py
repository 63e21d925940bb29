"""Named places at which a process is killed with SIGKILL, how often, and the account of it.

What this is for and why it is not in the product: docs/decisions/0001-fault-points-live-in-the-tests.md. A launcher in
this folder wraps named functions of the real modules and then runs the real command; the child that dies is started
anew at once from a process that has everything imported, so that a hundred kills take seconds.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

PLAN_VARIABLE = "KILLABLE_PLAN"
EMBEDDED_BROKER = "embedded-broker"
_PAUSE_S, _PAUSE_AFTER_FAILURE_S = 0.02, 0.2


@dataclass(frozen=True)
class Plan:
    """How likely each fault point kills when it is passed, and after how many kills it is spent.

    `folder` holds one file of hits per point, and the process ids of servers that are killed from outside. `wrong` are
    orders that are turned round (wrong_orders.py): the check has to see it.
    """

    folder: Path
    chances: Mapping[str, float]
    goal: int
    wrong: Sequence[str] = ()

    def save(self) -> Path:
        path = self.folder / "plan.json"
        path.write_text(json.dumps({**asdict(self), "folder": str(self.folder)}), encoding="utf-8")
        return path

    def hits(self, point: str) -> int:
        return hits_in(self.folder, point)

    def account(self) -> str:
        """In words, for who has to find out why a point is not hit."""
        points = [
            f"{point}: {self.hits(point)} hits"
            + ("" if (self.folder / f"{point}.passed").exists() else ", never passed")
            for point in self.chances
        ]
        servers = [
            f"{path.stem}: process {path.read_text()} is {_state_of(path.read_text())}"
            for path in self.folder.glob("*.pid")
        ]
        return "\n".join((*points, *servers))

    def is_spent(self) -> bool:
        """Every point was hit as often as wanted."""
        return all(self.hits(point) >= self.goal for point in self.chances)


def load_plan() -> Plan:
    content = json.loads(Path(os.environ[PLAN_VARIABLE]).read_text(encoding="utf-8"))
    return Plan(Path(content["folder"]), content["chances"], content["goal"], content["wrong"])


def hits_in(folder: Path, point: str) -> int:
    try:
        return (folder / f"{point}.hits").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


class FaultPoint:
    """One place. `what` in the account says what was in flight."""

    def __init__(self, name: str, plan: Plan) -> None:
        self._name = name
        self._plan = plan
        self._chance = plan.chances.get(name, 0.0)
        # Not a seeded generator: every child would draw what the one before it drew.
        self._random = random.SystemRandom()
        self._is_passed = False

    def is_due(self) -> bool:
        """Whether to kill this time."""
        if not self._is_passed:
            self._is_passed = True
            (self._plan.folder / f"{self._name}.passed").touch()
        if self._random.random() >= self._chance:
            return False
        return self._plan.hits(self._name) < self._plan.goal

    def fraction(self) -> float:
        """A random share from 0 to 1."""
        return self._random.random()

    def kill_self(self, what: str) -> NoReturn:
        self._note(what)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    def kill(self, pids: list[int], what: str) -> None:
        """Kill another process, with all its children named; counted only when the first one was alive."""
        try:
            os.kill(pids[0], signal.SIGKILL)
        except (ProcessLookupError, IndexError):
            return
        self._note(what)
        for pid in pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _note(self, what: str) -> None:
        # One small O_APPEND write: whole or not there, also from several processes, and safe from SIGKILL afterwards.
        path = self._plan.folder / f"{self._name}.hits"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(file, f"{time.time():.3f} {what}\n".encode())
        os.close(file)


def wrap(
    owner: Any, name: str, wrapper: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Put `wrapper(original)` in the place of `owner.name`; ends the launcher when there is no such function."""
    original = owner.__dict__.get(name) if isinstance(owner, type) else getattr(owner, name, None)
    if not callable(original):
        sys.exit(
            f"fault point: {owner!r} has no function {name}; the launcher must follow its renaming"
        )
    setattr(owner, name, wrapper(original))


def end_launcher(reason: str) -> NoReturn:
    """From a child: a fault point sees nothing any more, and the launcher must not go on as if it did."""
    print(f"fault point: {reason}", file=sys.stderr, flush=True)  # noqa: T201 - a launcher's stderr is its log
    os.kill(os.getppid(), signal.SIGTERM)
    os._exit(1)


def _state_of(pid: str) -> str:
    """As the kernel calls it: R, S, D, T (stopped), Z, or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


def resume(plan: Plan, server: str) -> None:
    """Let a server go on that somebody stopped and did not live to kill."""
    pid = process_id(plan, server)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def note_process_id(plan: Plan, server: str) -> None:
    """Leave this process's id for who is to kill it from outside."""
    (plan.folder / f"{server}.pid").write_text(str(os.getpid()))


def process_id(plan: Plan, server: str) -> int | None:
    """The process id of a server that the test runs, as it stands in the plan's folder."""
    try:
        return int((plan.folder / f"{server}.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def with_children(pid: int) -> list[int]:
    """A process and its children (a PostgreSQL's postmaster and its backends)."""
    found = [pid]
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid …; the name may hold spaces and brackets.
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        if parent == pid:
            found.append(int(status.parent.name))
    return found


def run_and_restart(
    bodies: Mapping[str, Callable[[], object]], *, restarts_failed: bool = False
) -> NoReturn:
    """Run each body in a child process; one that was killed with SIGKILL begins again, any other end is the end of all.

    `restarts_failed`: one that failed begins again, too, a little later, as under a service manager (a process whose
    database is away when it starts).
    """
    running = {_start(body): name for name, body in bodies.items()}
    while True:
        pid, status = os.wait()
        name = running.pop(pid)
        was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not was_killed:
            print(f"{name} ended with status {status}", file=sys.stderr)  # noqa: T201 - a launcher's stderr is its log
        if not was_killed and not restarts_failed:
            os.killpg(0, signal.SIGTERM)
            sys.exit(1)
        time.sleep(_PAUSE_S if was_killed else _PAUSE_AFTER_FAILURE_S)
        running[_start(bodies[name])] = name


def _start(body: Callable[[], object]) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        body()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - the outermost of a child process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
