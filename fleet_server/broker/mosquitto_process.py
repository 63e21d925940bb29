"""A real mosquitto as our child: started, listened to, told of changed revocation lists, ended with us (0022).

What it lacks and gets here:

* A counter of what it refuses, read from its log (`mosquitto_log.py`) through a pipe: at debug level that would fill a disk.
* A revocation that takes effect by itself: it reads the lists at SIGHUP only, and leaves the sessions that live alone.
* Room for connections: it takes as many files as it may have open.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from fleet_server.broker.access import ListenerName
from fleet_server.broker.mosquitto import pid_path
from fleet_server.broker.mosquitto_log import LiveSession, MosquittoLog
from fleet_server.broker.refusals import Refusal, Tally
from fleet_server.broker.revocations import RevocationList
from fleet_server.errors import FleetError, Unavailable
from fleet_server.services import authority
from fleet_server.services.authority import AuthorityFiles
from fleet_server.services.fresh_files import Stamp, stamp_of

log = structlog.get_logger(__name__)

LOOK_EVERY_S = 0.25
START_TIMEOUT_S = 20.0
# It writes its store when it ends; with 100,000 messages that takes seconds.
STOP_TIMEOUT_S = 30.0
_START_POLL_S = 0.01
_LAST_WORDS_LINES = 5
# Who is there stands in the status file; whoever only knocks shall not fill our log.
_COMINGS_AND_GOINGS = ("New ", "Client ")
# When the services' door does not answer.
_END_AGAIN_AFTER_S = 5.0
_WHERE_DEBIAN_KEEPS_IT = ("/usr/sbin", "/usr/local/sbin")


class MosquittoProcess:
    """One mosquitto, from `start` to `stop`; `look_after` wants to be called a few times a second.

    Args:
        configuration: As `fleet broker config` writes it.
        doors: Which listener stands at which port of it.
        files: The authority's; the lists among them decide who is revoked.
        end_session: Takes a node's live session away, over MQTT.
        prefix: What stands in front of every topic.
    """

    def __init__(
        self,
        configuration: Path,
        files: AuthorityFiles,
        *,
        doors: Mapping[int, ListenerName],
        end_session: Callable[[str], None],
        tally: Tally | None = None,
        prefix: str = "",
    ) -> None:
        self._configuration = configuration.absolute()
        self._files = files
        self._end_session = end_session
        self._prefix = prefix
        self.tally = tally or Tally()
        self._doors = doors
        self._lists = {
            ListenerName.NODES: RevocationList(files.issuing.crl),
            ListenerName.SERVICES: RevocationList(files.services_authority.crl),
        }
        self._shown: Stamp = ()
        # Name → how often mosquitto had to have read the lists before a session of this name could be a good one.
        self._revoked: dict[str, int] = {}
        self._reloads_needed = 0
        self._may_end_at = 0.0
        self._lock = threading.Lock()
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def command(self) -> list[str]:
        """What is run; `-v` lets it say what it denies."""
        return [find_program(), "-c", str(self._configuration), "-v"]

    def start(self) -> None:
        """Run it; on return it listens.

        Raises:
            Unavailable: it is not installed, ended at once, or an earlier one cannot be ended.
        """
        _end_predecessor(self._configuration)
        for revocations in self._lists.values():
            revocations.load()
        self._shown = stamp_of(*self._files.read_by_broker)
        self._revoked.clear()
        self._reloads_needed = 0
        self._log = MosquittoLog(self._doors, refuse=self.tally.refuse, prefix=self._prefix)
        self._process = subprocess.Popen(  # noqa: S603 - found where Debian puts it, with a file of ours
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches us alone
        )
        self.allow_many_connections(self._process.pid)
        self.tally.facts |= {
            "pid": self._process.pid,
            "ports": {name.value: port for port, name in self._doors.items()},
        }
        self._reader = threading.Thread(target=self._read, name="mosquitto-log", daemon=True)
        self._reader.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._log.is_running:
            self._check_alive()
            if time.monotonic() > deadline:
                raise Unavailable("mosquitto does not say that it is running.")
            time.sleep(_START_POLL_S)
        self.write_status()

    def look_after(self) -> None:
        """Let it read lists and certificates that have changed, end sessions of the revoked, write the status.

        Raises:
            Unavailable: it has ended.
        """
        self._check_alive()
        self._look_at_lists()
        self._look_at_certificates()
        self._end_revoked_sessions()
        self.write_status()

    def allow_many_connections(self, pid: int) -> None:
        """As many open files as the system grants this user: of the usual 1,024, connections that say nothing leave none.

        mosquitto's own `max_connections` is no help: 2.0.11 counts a client that has gone twice, and soon stops at nothing.
        """
        with suppress(ProcessLookupError, PermissionError):
            _, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))

    def stop(self) -> None:
        """End it; what was not acknowledged is in its store. Safe to repeat."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(STOP_TIMEOUT_S)
        if process.stderr is not None:
            process.stderr.close()
        self._log.sessions.clear()
        self.write_status()

    @property
    def knows_newest_lists(self) -> bool:
        """True when it has read the revocation lists as they are now."""
        has_read = self._log.reloads >= self._reloads_needed
        return has_read and all(revocations.is_current() for revocations in self._lists.values())

    def write_status(self) -> None:
        """Bring the status file up to date."""
        self.tally.write(clients=sorted(self._sessions()))

    # --- listening

    def _read(self) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - set before the thread starts
        assert process.stderr is not None  # noqa: S101 - opened as a pipe
        for line in process.stderr:
            with self._lock:
                text = self._log.read(line)
            if text is not None:
                self._last_words.append(text)
                say = log.debug if text.startswith(_COMINGS_AND_GOINGS) else log.info
                say("mosquitto_said", words=text)

    def _sessions(self) -> Mapping[str, LiveSession]:
        with self._lock:
            return dict(self._log.sessions)

    def _check_alive(self) -> None:
        process, reader = self._process, self._reader
        if process is None or reader is None or reader.is_alive():
            return  # the log ends with the program
        process.terminate()  # should it live on without a reader, it would stand still once the pipe is full
        words = " ".join(self._last_words)
        raise Unavailable(f"mosquitto ended with exit {process.wait(STOP_TIMEOUT_S)}: {words}")

    # --- certificates

    def _look_at_certificates(self) -> None:
        stamp = stamp_of(*self._files.read_by_broker)
        if stamp == self._shown or self._log.reloads < self._reloads_needed:
            return
        self._shown = stamp  # when the rest comes, that is another one
        try:
            authority.check_pair(self._files.folder, "broker")
            authority.check_public_files(self._files.folder)
        except (FleetError, OSError) as problem:  # half of it is there; the rest comes in a moment
            log.warning("certificate_not_taken", pair="broker", reason=str(problem))
            return
        self._reloads_needed = self._log.reloads + 1
        self.hang_up()

    # --- revocation

    def _look_at_lists(self) -> None:
        if self._log.reloads < self._reloads_needed:
            return  # one change after the other, so that each reload is known for what it has read
        before = {door: revocations.serials for door, revocations in self._lists.items()}
        has_changed = [revocations.reload_when_changed() for revocations in self._lists.values()]
        if not any(has_changed):
            return
        new = {door: known.serials - before[door] for door, known in self._lists.items()}
        if new[ListenerName.SERVICES]:
            # A service's client id is its own choice, so its session cannot be taken away by name: all sessions end.
            log.warning("broker_starts_again", reason="the certificate of a service was revoked")
            self.stop()
            self.start()
            return
        self._reloads_needed = self._log.reloads + 1
        names = authority.names_of(self._files.folder, new[ListenerName.NODES])
        self._revoked |= dict.fromkeys(names, self._reloads_needed)
        self.hang_up()

    def hang_up(self) -> None:
        """SIGHUP: it reads its files again. Clients stay connected."""
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            log.info("broker_reads_lists_again")

    def _end_revoked_sessions(self) -> None:
        """Those that came in before it had read the list; whoever comes in after that has shown another certificate."""
        if time.monotonic() < self._may_end_at:
            return
        for client_id, session in self._sessions().items():
            needed = self._revoked.get(client_id, 0)
            is_node = session.client is not None and session.client.is_node
            if not is_node or not session.lists < needed <= self._log.reloads:
                continue
            try:
                self._end_session(client_id)
            except FleetError as problem:
                log.error("revoked_session_not_ended", client=client_id, reason=str(problem))
                self._may_end_at = time.monotonic() + _END_AGAIN_AFTER_S
                return
            self.tally.refuse(Refusal.CERTIFICATE_REVOKED, client=client_id)


def run(process: MosquittoProcess, stop: threading.Event, *, on_ready: Callable[[], None]) -> None:
    """Run mosquitto until `stop`.

    Raises:
        Unavailable: it did not start, or ended by itself.
    """
    try:
        process.start()
        on_ready()
        while not stop.wait(LOOK_EVERY_S):
            process.look_after()
    finally:
        process.stop()


def find_program() -> str:
    """Path of mosquitto, which Debian does not put into everybody's path.

    Raises:
        Unavailable: it is not installed.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), *_WHERE_DEBIAN_KEEPS_IT))
    program = shutil.which("mosquitto", path=path)
    if program is None:
        raise Unavailable("mosquitto is not installed; on Debian: apt-get install mosquitto.")
    return program


def _end_predecessor(configuration: Path) -> None:
    """End the mosquitto of the same configuration that a `kill -9` of its parent has left behind.

    Raises:
        Unavailable: it is looked after, or belongs to another user.
    """
    pid = _pid_of(configuration)
    if pid is None:
        return
    if b"broker" in _command_of(_parent_of(pid)):
        raise Unavailable(f"`fleet broker mosquitto` runs already: process {_parent_of(pid)}.")
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError as problem:
        raise Unavailable(
            f"A mosquitto with this configuration runs already: process {pid}; end it first."
        ) from problem
    log.warning("predecessor_ended", pid=pid)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _command_of(pid) and time.monotonic() < deadline:
        time.sleep(_START_POLL_S)


def _pid_of(configuration: Path) -> int | None:
    """The process that runs with this configuration; a number in its file may be somebody else's by now."""
    try:
        pid = int(pid_path(configuration).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return pid if os.fsencode(configuration) in _command_of(pid) else None


def _command_of(pid: int) -> list[bytes]:
    """A process's program and arguments; empty when it has ended."""
    try:
        return [word for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") if word]
    except OSError:
        return []


def _parent_of(pid: int) -> int:
    """proc(5): the second field after the program's name, which stands in brackets and may hold anything."""
    try:
        return int(
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        )
    except (OSError, ValueError, IndexError):
        return 1
