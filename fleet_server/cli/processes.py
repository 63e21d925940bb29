"""Child processes of the demo: started, listened to by their JSON lines, ended by their id."""

from __future__ import annotations

import ctypes
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from fleet_server.errors import Unavailable
from fleet_server.settings import ENVIRONMENT_PREFIX

_LAST_WORDS_LINES = 12
_FULL_DISK_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def _end_with_parent() -> None:
    """In the child: a SIGTERM when whoever started it dies, even by SIGKILL (Linux; elsewhere it lives on)."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One program that prints JSON events on stdout; its stderr goes to a log file.

    Of settings it sees those in `environment` alone: what stands in the caller's is not for a demo.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._log_path = log_folder / f"{name}.log"
        self._log = self._log_path.open("ab")
        # A session of its own: Ctrl-C at the terminal reaches the demo alone, which then ends its children in order.
        self.process = subprocess.Popen(  # noqa: S603 - our own console scripts
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**_without_settings(os.environ), **(environment or {})},
            start_new_session=True,
            # Only where the function was found when this module was loaded: nothing else may happen after a fork.
            preexec_fn=_end_with_parent if _prctl is not None else None,
        )
        self._reader = threading.Thread(target=self._read, name=f"{name}-events", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 - opened as a pipe above
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                self._log.write(line)
                continue
            if isinstance(event, dict):
                self.events.put(event)

    def wait_for(
        self, event: str, *, timeout_s: float, told_to_end: threading.Event | None = None
    ) -> dict[str, Any]:
        """The next event of this name.

        Raises:
            KeyboardInterrupt: a person has ended the waiting (`told_to_end` is set).
            Unavailable: the program ended first, or said nothing in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                got = self.events.get(timeout=0.1)
            except queue.Empty:
                if told_to_end is not None and told_to_end.is_set():
                    raise KeyboardInterrupt from None
                if not self.is_alive():
                    raise Unavailable(self.obituary()) from None
                continue
            if got.get("event") == event:
                return got
        raise Unavailable(
            f"{self.name} did not say {event!r} within {timeout_s:.0f} s; see {self._log_path}."
        )

    def is_alive(self) -> bool:
        return self.process.poll() is None or not self.events.empty()

    def obituary(self) -> str:
        """How it ended, with its last words, in one message for a person."""
        self._log.flush()
        with self._log_path.open("rb") as log:
            words = deque(log, maxlen=_LAST_WORDS_LINES)
        text = b"".join(words).decode("utf-8", "replace").strip()
        status = self.process.returncode
        if shutil.disk_usage(self._log_path).free < _FULL_DISK_BYTES:
            # It could not even say so in its log.
            text = (
                f"{text}\nThe disk of {self._log_path.parent} is full: make room, then start again."
            )
        return f"{self.name} ended with exit {status}. Its last words ({self._log_path}):\n{text.strip()}"

    def stop(self, *, patience_s: float = 10.0) -> None:
        """SIGTERM, and SIGKILL when it does not end in time. Safe to repeat."""
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
                self.process.wait()
        # What it started and left behind holds the pipe, too.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join(2.0)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def _signal(self, number: signal.Signals) -> None:
        """Signal the whole session that it leads (its workers too)."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            self.process.send_signal(number)


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(ENVIRONMENT_PREFIX)
    }


def own_program(name: str) -> str:
    """Path of one of our console scripts, beside the Python that runs now.

    Raises:
        Unavailable: the package is not installed in this environment.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise Unavailable(
            f"{name} is not installed beside {sys.executable}; run `pip install .` there, "
            f"or use `python3 run.py`."
        )
    return str(path)
