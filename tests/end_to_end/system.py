"""The whole system from its real commands, in a folder of the test's: started, killed, started again, ended.

Servers of others (mosquitto, PostgreSQL) are real ones where a test asks for them. Everything listens on loopback at
free ports; the nodes' folder, logs and database lie below the test's folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from brokers import mosquitto_program
from servers import PostgresqlServer
from sqlalchemy import Engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import hardware.scenes
from fleet_server import clock, db
from fleet_server.cli.processes import Child, own_program
from fleet_server.models import Node
from fleet_server.services import accounting, authority, configuring, deploying, enrolment
from fleet_server.settings import CONFIG_VARIABLE
from provisioning.boards import VirtualBoard
from provisioning.firmware_bundle import build_bundle
from provisioning.flashing import flash_firmware

KILLABLE = Path(__file__).parent / "killable"
DAY_S = 86_400
SAMPLE_S = 900
READY_S = 60.0
SUMMER = ("--nodes", "4", "--days", "1")
"""Options of the demo behind `lived_summer`."""
_DEMO_S = 240.0
_STOP_S = 10.0
_PORTS = (20_000, 32_000)  # Linux gives connections those from 32,768 on
_LAST_LINES = 5
# Beyond the days that any test's nodes live through.
_CERTIFICATES_FROM_DAYS = 90


def free_port() -> int:
    """A port that nobody gets by chance while its server is dead: below those that connections are given."""
    while True:
        port = random.SystemRandom().randrange(*_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def run_command(
    *command: str, environment: Mapping[str, str] | None = None, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """One of our console scripts, to its end."""
    program, *arguments = command
    return subprocess.run(
        [own_program(program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(environment or {})},
        check=False,
    )


@dataclass
class System:
    """Processes and files of one run.

    Args:
        folder: Empty, the test's own.
        scene: Name or TOML file.
        nodes: How many; the scene's when None.
        days: Past days that the nodes can live through.
        database_url: A real PostgreSQL; SQLite in the folder when None.
        broker_url: A real broker that trusts this folder's authority; the embedded one when None.
        environment: For every process, e.g. the plan of the kills.
    """

    folder: Path
    scene: str = "bochum_summer"
    nodes: int | None = None
    days: float = 1.0
    database_url: str | None = None
    broker_url: str | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.now_s = int(time.time())
        self.start_s = self.now_s - round(self.days * DAY_S)
        self.children: dict[str, Child] = {}
        self.boards_folder = self.folder / "nodes"
        self.logs = self.folder / "logs"
        self.configuration = self.folder / "fleet.toml"
        self._content = hardware.scenes.load_scene(self.scene, nodes=self.nodes, series_dir=None)
        self._ports = [free_port(), free_port()]
        self.url = ""
        self.node_url = ""
        self.logs.mkdir(parents=True, exist_ok=True)
        _make_authority(self.folder)

    # --- once

    def prepare(self) -> None:
        """Database and sites."""
        self._configure()
        with self.engine() as engine:
            db.upgrade(engine)
            with db.session_factory(engine)() as session:
                for site in self._content.sites:
                    new = deploying.NewSite(
                        site.id, site.name, site.kind, site.latitude, site.longitude
                    )
                    deploying.create_site(session, new, is_public=True, now=clock.now())

    def _configure(self) -> None:
        port = free_port()
        broker_url = (
            self.broker_url or f"mqtts://127.0.0.1:{self._ports[0]}?service_port={self._ports[1]}"
        )
        settings = {
            "data_dir": str(self.folder),
            "database_url": self.database_url or f"sqlite:///{self.folder / 'fleet.sqlite3'}",
            "broker_url": broker_url,
            "port": port,
            "node_port": 0,
            "public_url": f"http://127.0.0.1:{port}",
            "demo": True,
        }
        self.configuration.write_text(tomli_w.dumps(settings), encoding="utf-8")
        self._database_url = str(settings["database_url"])

    def copy_to(self, folder: Path) -> System:
        """The same system as it stands, in another folder. Its nodes know the same ports: never run both at once."""
        shutil.copytree(self.folder, folder)
        twin = replace(self, folder=folder, environment=dict(self.environment))
        twin.now_s, twin.start_s, twin._ports = self.now_s, self.start_s, self._ports
        twin.node_url = self.node_url
        twin._configure()
        return twin

    def flash(self, sources: Path) -> None:
        """Give every node other firmware; identity and spool stay."""
        bundle = build_bundle(built_at_utc_s=self.start_s - DAY_S, sources=sources)
        for node in self._content.nodes:
            flash_firmware(VirtualBoard(self.boards_folder / node.label), bundle)

    def enrol(self) -> None:
        """Flash and enrol every node of the scene and put it at its site; none has booted yet."""
        boards = self.start_boards(now_s=self.start_s, name="enrolling")
        try:
            for _ in self._content.nodes:
                event = boards.wait_for("enrolled", timeout_s=READY_S)
                with self.session() as session:
                    deploying.deploy_node(
                        session,
                        event["node_id"],
                        site_code=self._content.site_of(event["label"]).id,
                        from_at=datetime.fromtimestamp(self.start_s - DAY_S, UTC),
                        now=clock.now(),
                    )
            boards.wait_for("done", timeout_s=READY_S)
        finally:
            self.stop("enrolling")

    def want_talkative_nodes(self, *, but: int = 0) -> None:
        """Want all nodes, `but` for the first few, to publish at every wake, not once in four: so much sooner something is under way."""
        with self.session() as session:
            for node_id in session.scalars(select(Node.node_id).order_by(Node.node_id).offset(but)):
                configuring.configure_node(
                    session, node_id, {"publish_s": SAMPLE_S}, now=clock.now()
                )

    # --- processes

    def start_servers(self, *, killable: bool = False) -> None:
        """Broker (when it is ours), ingest, worker, pages; all ready on return."""
        started = []
        if self.broker_url is None:
            self.start_broker(killable=killable).wait_for("ready", timeout_s=READY_S)
        started.append(self.start_ingest(killable=killable))
        started.append(self.start_worker())
        pages = self.start("serve", [own_program("fleet"), "serve", "--json"])
        for child in started:
            child.wait_for("ready", timeout_s=READY_S)
        ready = pages.wait_for("ready", timeout_s=READY_S)
        self.url, self.node_url = ready["url"], ready["node_url"]

    def start_killable_servers(self) -> None:
        """Broker (when it is ours) and ingest that die at their fault points, and the worker, if it does not run yet."""
        if self.broker_url is None:
            self.start_broker(killable=True).wait_for("ready", timeout_s=READY_S)
        self.start_ingest(killable=True)
        if "worker" not in self.children:
            self.start_worker()

    def start_worker(self) -> Child:
        return self.start("worker", [own_program("fleet"), "worker", "--json"])

    def start_broker(self, *, killable: bool = False) -> Child:
        ports = ["--node-port", str(self._ports[0]), "--service-port", str(self._ports[1])]
        command = [sys.executable, str(KILLABLE / "broker.py")]
        if not killable:
            command = [own_program("fleet"), "broker", "embedded"]
        return self.start("broker", [*command, *ports, "--json"])

    def start_ingest(self, *, killable: bool = False) -> Child:
        command = [sys.executable, str(KILLABLE / "ingest.py")]
        if not killable:
            command = [own_program("fleet"), "ingest"]
        return self.start("ingest", [*command, "--json"])

    def start_boards(self, *, now_s: int | None = None, name: str = "boards") -> Child:
        """`provision virtual run` up to a moment of the past, until all have caught up."""
        with self.session() as session:
            token = enrolment.create_token(
                session, uses=len(self._content.nodes), note="test", now=clock.now()
            )
        command = [
            own_program("provision"), "virtual", "run", "--json",
            "--data", str(self.boards_folder),
            "--scene", self.scene,
            "--start", str(self.start_s),
            "--now", str(self.now_s if now_s is None else now_s),
            "--speed", "1",
            "--until-caught-up",
            "--patience", "30",
            "--server", self.node_url,
            "--server-ca", str(authority.AuthorityFiles(self.folder / "ca").root_certificate),
        ]  # fmt: skip
        if self.nodes is not None:
            command += ["--nodes", str(self.nodes)]
        return self.start(name, command, environment={"PROVISION_TOKEN": token})

    def start_killable_boards(self) -> Child:
        """Every node in a process of its own that dies at its fault points and begins again."""
        from hardware.virtual_board.pacing import FleetClock
        from hardware.virtual_board.runner_worker import Orders

        orders = Orders(
            data_dir=str(self.boards_folder),
            scene=self.scene,
            scene_nodes=self.nodes,
            series_dir=None,
            labels=[node.label for node in self._content.nodes],
            clock=FleetClock(self.now_s, time.time(), 1.0),
            until_caught_up=True,
            awake_limit=1,
            series_end_utc_s=self.now_s,
        )
        path = self.folder / "orders.json"
        path.write_text(orders.to_line() + "\n", encoding="utf-8")
        return self.start(
            "killable-boards", [sys.executable, str(KILLABLE / "boards.py"), str(path)]
        )

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> Child:
        """Start a process that reads this system's settings; one of the same name is ended first."""
        self.stop(name)
        child = Child(
            name,
            command,
            log_folder=self.logs,
            environment={
                CONFIG_VARIABLE: str(self.configuration),
                **self.environment,
                **(environment or {}),
            },
        )
        self.children[name] = child
        return child

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        child = self.children.pop(name)
        os.killpg(child.process.pid, signal.SIGKILL)
        child.stop()

    def stop(self, name: str) -> None:
        """SIGTERM, by name; nothing when there is none."""
        child = self.children.pop(name, None)
        if child is not None:
            child.stop(patience_s=20.0)

    def stop_all(self) -> None:
        """Boards first, the broker last."""
        for name in reversed(list(self.children)):
            self.stop(name)

    def raise_when_ended(self) -> None:
        """Fail with its last words when a process ended by itself."""
        for child in self.children.values():
            assert child.process.poll() is None, child.obituary()

    def last_words(self) -> str:
        """The end of every process's log, for who has to find out why nothing moves."""
        return "\n".join(
            f"{path.name}: "
            + " | ".join(path.read_text(errors="replace").splitlines()[-_LAST_LINES:])
            for path in sorted(self.logs.glob("*.log"))
        )

    # --- what came of it

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        engine = db.make_engine(self._database_url)
        try:
            yield engine
        finally:
            engine.dispose()

    @contextmanager
    def session(self) -> Iterator[Session]:
        with self.engine() as engine, db.session_factory(engine)() as session:
            yield session

    def wait_for_database(self) -> None:
        """Until a database that was killed has recovered."""
        deadline = time.monotonic() + READY_S
        while True:
            try:
                with self.session() as session:
                    session.scalar(select(1))
                    return
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def catch_up(self, *, timeout_s: float = 120.0) -> dict[str, Any]:
        """Run all boards without faults until every pack has its receipt."""
        boards = self.start_boards()
        try:
            return boards.wait_for("done", timeout_s=timeout_s)
        finally:
            self.stop("boards")

    def books(self) -> dict[str, int]:
        """The boards' ledgers against the database."""
        with self.session() as session:
            return accounting.balance(session, accounting.read_ledgers(self.boards_folder))

    def verify(self) -> dict[str, Any]:
        """`fleet verify`; fails the test when its exit status contradicts its report."""
        done = run_command("fleet", "verify", "--data", str(self.folder), "--json")
        assert done.stdout, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (0 if is_clean(report) else 1), (report, done.stderr)
        return report


def is_clean(report: Mapping[str, Any]) -> bool:
    """Whether a report of `fleet verify` names no fault (docs: the contract of `fleet verify`)."""
    return all(
        value is True if name == "audit_chain_ok" else value == 0
        for name, value in report.items()
        if name not in ("packs", "declared_lost")
    )


def run_demo(data: Path, *options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`fleet demo` that ends when its nodes have caught up; its two lines."""
    done = run_command(
        "fleet", "demo", "--json", "--until-caught-up", "--port", "0", "--data", str(data), *options,
        timeout_s=_DEMO_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == ["ready", "done"]
    return lines[0], lines[1]


def lived_folder(factory: pytest.TempPathFactory, name: str, *options: str) -> Path:
    """A folder in which a demo with these options has run, its two lines beside it in `ready.json` and `done.json`.

    Made once for all processes of a parallel test run.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"lived-{name}"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "done.json").exists():
            ready, done = run_demo(shared / "data", *options)
            (shared / "ready.json").write_text(json.dumps(ready), encoding="utf-8")
            (shared / "done.json").write_text(json.dumps(done), encoding="utf-8")
    return shared / "data"


def lived_summer(factory: pytest.TempPathFactory) -> Path:
    """The one that most tests ask: two trees and two ponds, of which one each is disturbed at times, through a day."""
    return lived_folder(factory, "summer", *SUMMER)


@contextmanager
def serving(data: Path) -> Iterator[str]:
    """`fleet serve` on a demo's folder; yields the address of its pages."""
    url = f"http://127.0.0.1:{free_port()}"
    logs = data / "logs" / url.rpartition(":")[2]
    logs.mkdir()
    pages = Child(
        "serve",
        [own_program("fleet"), "serve", "--json", "--port", url.rpartition(":")[2]],
        log_folder=logs,
        environment={CONFIG_VARIABLE: str(data / "fleet.toml"), "FLEET_PUBLIC_URL": url},
    )
    try:
        assert pages.wait_for("ready", timeout_s=READY_S)["url"] == url
        yield url
    finally:
        pages.stop()


@contextmanager
def running(system: System, *, killable: bool = False) -> Iterator[System]:
    """The system with enrolled nodes and running servers; everything is ended afterwards."""
    with ExitStack() as stack:
        stack.callback(system.stop_all)
        system.prepare()
        system.start_servers()
        system.enrol()
        if killable:
            for name in ("ingest", "broker"):
                system.stop(name)
            system.start_killable_servers()
        yield system


@contextmanager
def mosquitto_of(folder: Path, *, pid_file: Path) -> Iterator[str]:
    """A real mosquitto with the configuration that we write for it; yields its address. Killed, it is started again."""
    _make_authority(folder)
    port = free_port()
    service_port = free_port()
    done = run_command(
        "fleet", "broker", "config", "--data", str(folder), "--json",
        "--node-port", str(port), "--service-port", str(service_port),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    command = [mosquitto_program(), "-c", answer["configuration"]]

    def start() -> subprocess.Popen[bytes]:
        with (folder / "mosquitto.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    with _kept(start, pid_file):
        yield answer["broker_url"]


@contextmanager
def kept_alive(server: PostgresqlServer, pid_file: Path) -> Iterator[None]:
    """Start the server again, with the recovery that this needs, whenever it was killed."""

    def start() -> subprocess.Popen[bytes]:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                # Not while a backend of the killed one still holds its shared memory.
                server.start()
            except pytest.fail.Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            assert server.process is not None
            return server.process

    server.stop()
    with _kept(start, pid_file):
        yield


@contextmanager
def _kept(start: Callable[[], subprocess.Popen[bytes]], pid_file: Path) -> Iterator[None]:
    """A process that is begun again as soon as it has ended; its id stands in a file."""
    is_ending = threading.Event()
    has_started = threading.Event()

    def keep() -> None:
        while not is_ending.is_set():
            process = start()
            scratch = pid_file.with_suffix(".new")
            scratch.write_text(str(process.pid))
            scratch.replace(pid_file)
            has_started.set()
            while process.poll() is None and not is_ending.wait(0.01):
                pass
            pid_file.unlink(missing_ok=True)
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(_STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        assert has_started.wait(READY_S)
        yield
    finally:
        is_ending.set()
        thread.join(READY_S)


def _make_authority(folder: Path) -> None:
    valid_from = datetime.now(UTC) - timedelta(days=_CERTIFICATES_FROM_DAYS)
    authority.initialise(folder / "ca", valid_from=valid_from)
