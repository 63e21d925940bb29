"""`fleet demo`: the whole system in one process tree, with virtual nodes that run the real firmware.

Everything it needs is kept in one folder, so that a later run (or a run after a kill) goes on where this one ended. The
parts are the same commands that a city runs; the demo only starts them, makes the sites of its scene, and counts.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import random
import secrets
import socket
import ssl
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import tomli_w
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

import hardware.scenes
from fleet_server import clock, db
from fleet_server.cli.answers import FiniteRange
from fleet_server.cli.demo_releases import DemoReleases
from fleet_server.cli.demo_table import DemoTable
from fleet_server.cli.processes import Child, own_program
from fleet_server.cli.stopping import told_to_end
from fleet_server.errors import Invalid, NotFound, Unavailable
from fleet_server.models import Role
from fleet_server.mqtt.connection import service_address
from fleet_server.services import accounting, accounts, authority, deploying, enrolment
from fleet_server.settings import CONFIG_VARIABLE, EMBEDDED, Settings, load_settings
from fleet_server.wire.topics import SERVICE_INGEST

_DAY_S = 86_400
_READY_TIMEOUT_S = 60.0
# The first start makes the chart library ready, which may take a slow registry a while.
_PAGES_TIMEOUT_S = 120.0
# Certificates are dated back beyond the days that the nodes live through.
_CERTIFICATE_MARGIN_DAYS = 30
_USER = "demo"
_TICK_S = 0.2
_GREETING_TIMEOUT_S = 5.0
# Below the range from which systems take ports for outgoing connections: a port kept for the next run stays free.
_KEPT_PORTS = range(20_000, 30_000)


@dataclass(frozen=True)
class _Plan:
    """What the command line asked for."""

    data_dir: Path
    scene: hardware.scenes.Scene
    scene_name: str
    series_dir: Path | None
    nodes: int | None
    days: int
    speed: float
    seed: int
    until_caught_up: bool
    as_json: bool


@click.command()
@click.option(
    "--data",
    "data_dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Everything is kept here between runs.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 = any."
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 2000),
    help="How many virtual nodes. [default: 12, or the series' own]",
)
@click.option(
    "--days",
    type=click.IntRange(1, 365),
    default=2,
    show_default=True,
    help="Past days that the nodes live through first.",
)
@click.option(
    "--speed",
    type=FiniteRange(0.1, 3600),
    default=60.0,
    show_default=True,
    help="After that; 1 = real time.",
)
@click.option(
    "--series",
    "series_dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of measured series that the nodes shall measure again.",
)
@click.option(
    "--scene",
    "scene_name",
    default="bochum_summer",
    show_default=True,
    help="Name of a scene, or a TOML file.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="Of everything random in the scene."
)
@click.option(
    "--until-caught-up",
    is_flag=True,
    help="End when the past is lived through and every pack has its receipt.",
)
@click.option("--database-url", help="A real PostgreSQL instead of SQLite in the folder.")
@click.option(
    "--broker-url",
    help="A real mosquitto instead of the embedded broker (see `fleet broker config`).",
)
@click.option("--json", "as_json", is_flag=True, help="Two JSON lines on stdout: ready and done.")
def demo(
    *,
    data_dir: Path,
    port: int,
    nodes: int | None,
    days: int,
    speed: float,
    series_dir: Path | None,
    scene_name: str,
    seed: int,
    until_caught_up: bool,
    database_url: str | None,
    broker_url: str | None,
    as_json: bool,
) -> None:
    """The whole system on this machine, with virtual nodes that run the real firmware. Ctrl-C ends it cleanly.

    Example: fleet demo --nodes 6 --days 1 --until-caught-up
    """
    data_dir = data_dir.absolute()
    if nodes is None and series_dir is None and scene_name == "bochum_summer":
        nodes = 12
    try:
        scene = hardware.scenes.load_scene(
            scene_name, nodes=nodes, series_dir=series_dir, seed=seed
        )
    except hardware.scenes.SceneError as problem:
        raise Invalid(str(problem)) from problem
    # Before anything is made: what cannot be used is told, and leaves nothing behind.
    given = {
        "data_dir": data_dir,
        "database_url": database_url,
        "broker_url": EMBEDDED if broker_url is None else broker_url,
        "demo": True,
    }
    load_settings({}, **given)
    plan = _Plan(
        data_dir=data_dir,
        scene=scene,
        scene_name=scene_name,
        series_dir=series_dir,
        nodes=nodes,
        days=days,
        speed=1.0 if until_caught_up else speed,
        seed=seed,
        until_caught_up=until_caught_up,
        as_json=as_json,
    )
    with _only_demo_in(data_dir), told_to_end() as told, ExitStack() as stack:
        port = _port(port)
        settings = load_settings({}, **given, port=port, public_url=f"http://127.0.0.1:{port}")
        engine = db.make_engine(settings.database_url)
        stack.callback(engine.dispose)
        _Demo(plan, settings, engine, told, stack).run()


class _Demo:
    """One run: its children, and the account at the end."""

    def __init__(
        self,
        plan: _Plan,
        settings: Settings,
        engine: Engine,
        told_to_end: threading.Event,
        stack: ExitStack,
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._sessions: sessionmaker[Session] = db.session_factory(engine)
        self._engine = engine
        self._told_to_end = told_to_end
        self._stack = stack
        self._started = time.monotonic()
        self._children: list[Child] = []
        self._configuration = plan.data_dir / "fleet.toml"
        self._releases = DemoReleases(settings, self._sessions)

    def run(self) -> None:
        self._prepare()
        self._releases.begin(self._helper, now=clock.now())
        login = self._login()
        url = self._start_servers()
        self._releases.finish(self._told_to_end, now=clock.now)
        self._announce(url, login)
        boards = self._start_boards()
        progress = self._watch(boards)
        # The boards stop first, so that what they sent last is stored by servers that still run.
        boards.stop(patience_s=60.0)
        self._finish(url, progress)

    def _prepare(self) -> None:
        authority.initialise(
            self._settings.ca_dir,
            valid_from=datetime.now(UTC)
            - timedelta(days=self._plan.days + _CERTIFICATE_MARGIN_DAYS),
        )
        authority.check_public_files(self._settings.ca_dir)
        for name in (*authority.LISTENERS, *authority.SERVICES):
            authority.check_pair(self._settings.ca_dir, name)
        db.upgrade(self._engine)
        now = self._last_known_moment()
        self._now_s = int(now.timestamp())
        self._write_configuration(clock=f"{self._now_s}@{time.time():.3f}x{self._plan.speed:g}")
        clock.use_clock(load_settings({CONFIG_VARIABLE: str(self._configuration)}).clock)
        with self._sessions() as session:
            for site in self._plan.scene.sites:
                if deploying.find_site(session, site.id) is None:
                    about = ", ".join(f"{name}: {text}" for name, text in site.details.items())
                    new = deploying.NewSite(
                        code=site.id,
                        name=site.name,
                        kind=site.kind,
                        latitude=site.latitude,
                        longitude=site.longitude,
                        description=about,
                    )
                    deploying.create_site(session, new, is_public=True, now=clock.now())
        self._deploy_what_a_killed_run_left()

    def _deploy_what_a_killed_run_left(self) -> None:
        labels = {node.label for node in self._plan.scene.nodes}
        with self._sessions() as session:
            left = deploying.nodes_without_site(session)
        for node in left:
            if node.label in labels:
                self._deploy(node.label, node.node_id)

    def _last_known_moment(self) -> datetime:
        """Now, or the last moment that an earlier, faster run in this folder has seen: time never goes back."""
        with self._sessions() as session:
            seen = accounting.last_received_at(session)
        wall = datetime.fromtimestamp(int(time.time()), UTC)
        return max(wall, seen + timedelta(seconds=1)) if seen else wall

    def _login(self) -> dict[str, str]:
        """The demo's account; the same one in every run of a folder."""
        path = self._plan.data_dir / "login.json"
        if path.exists():
            login = _read_login(path)
        else:
            login = {"user": _USER, "password": secrets.token_urlsafe(12)}
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a descriptor
                json.dump(login, file)
        with self._sessions() as session:
            try:
                accounts.set_password(session, login["user"], login["password"], now=clock.now())
            except NotFound:
                accounts.create_user(
                    session,
                    login["user"],
                    login["password"],
                    now=clock.now(),
                    roles=[Role.ADMINISTRATOR],
                )
        return login

    def _start_servers(self) -> str:
        if self._settings.broker_is_embedded:
            broker = self._child(
                "broker",
                [own_program("fleet"), "broker", "embedded", "--json", *self._kept_ports()],
            )
            ready = broker.wait_for(
                "ready", timeout_s=_READY_TIMEOUT_S, told_to_end=self._told_to_end
            )
            self._write_configuration(
                broker_url=f"mqtts://127.0.0.1:{ready['node_port']}?service_port={ready['service_port']}"
            )
        else:
            _greet_broker(self._settings)
        ingest = self._child("ingest", [own_program("fleet"), "ingest", "--json"])
        worker = self._child("worker", [own_program("fleet"), "worker", "--json"])
        pages = self._child("serve", [own_program("fleet"), "serve", "--json"])
        for child in (ingest, worker):
            child.wait_for("ready", timeout_s=_READY_TIMEOUT_S, told_to_end=self._told_to_end)
        ready = pages.wait_for("ready", timeout_s=_PAGES_TIMEOUT_S, told_to_end=self._told_to_end)
        self._node_url: str = ready["node_url"]
        return str(ready["url"])

    def _kept_ports(self) -> list[str]:
        """Ports of the embedded broker: those that the nodes of this folder were told at their enrolment."""
        path = self._plan.data_dir / "broker_ports.json"
        if path.exists():
            ports = _read_ports(path)
            for port in ports:
                if not _is_free(port):
                    raise Unavailable(
                        f"Port {port}, where this demo's nodes look for their broker, is taken by another "
                        f"program. End that one, or start a new demo with --data another-folder."
                    )
        else:
            drawn = (random.choice(_KEPT_PORTS) for _ in range(1000))  # noqa: S311 - not a secret
            first = next(port for port in drawn if _is_free(port) and _is_free(port + 1))
            ports = [first, first + 1]
            path.write_text(json.dumps(ports), encoding="utf-8")
        return ["--node-port", str(ports[0]), "--service-port", str(ports[1])]

    def _start_boards(self) -> Child:
        with self._sessions() as session:
            token = enrolment.create_token(
                session, uses=len(self._plan.scene.nodes), note="demo", now=clock.now()
            )
        command = [
            own_program("provision"), "virtual", "run", "--json",
            "--data", str(self._plan.data_dir / "nodes"),
            "--scene", self._plan.scene_name,
            "--start", str(self._now_s - self._plan.days * _DAY_S),
            "--now", str(int(clock.now().timestamp())),
            "--speed", f"{self._plan.speed:g}",
            "--seed", str(self._plan.seed),
            "--server", self._node_url,
            "--server-ca", str(authority.AuthorityFiles(self._settings.ca_dir).root_certificate),
        ]  # fmt: skip
        if self._plan.nodes is not None:
            command += ["--nodes", str(self._plan.nodes)]
        if self._plan.series_dir is not None:
            command += ["--series", str(self._plan.series_dir)]
        if self._plan.until_caught_up:
            command += ["--until-caught-up"]
        # By environment: a command line is readable by every user of the machine.
        return self._child("boards", command, environment={"PROVISION_TOKEN": token})

    def _watch(self, boards: Child) -> dict[str, Any]:
        """Follow the boards until they have caught up, or until a person ends the demo."""
        progress: dict[str, Any] = {}
        with DemoTable(self._sessions, enabled=sys.stderr.isatty()) as table:
            while not self._told_to_end.is_set():
                event = self._next_event(boards)
                if event is None:
                    continue
                if event["event"] == "enrolled":
                    self._deploy(event["label"], event["node_id"])
                if event["event"] in ("progress", "done"):
                    progress = event
                    table.show(progress)
                if event["event"] == "done":
                    break
        return progress

    def _next_event(self, boards: Child) -> dict[str, Any] | None:
        try:
            return boards.events.get(timeout=_TICK_S)
        except queue.Empty:
            for child in self._children:
                if not child.is_alive():
                    raise Unavailable(child.obituary()) from None
            return None

    def _deploy(self, label: str, node_id: str) -> None:
        site = self._plan.scene.site_of(label)
        with self._sessions() as session:
            deploying.deploy_node(
                session,
                node_id,
                site_code=site.id,
                from_at=datetime.fromtimestamp(self._now_s - (self._plan.days + 1) * _DAY_S, UTC),
                now=clock.now(),
            )

    def _announce(self, url: str, login: Mapping[str, str]) -> None:
        if self._plan.as_json:
            click.echo(json.dumps({"event": "ready", "url": url, **login}))
            return
        click.echo(
            f"\nPages:         {url}/\nOperator:      {url}/fleet/   user {login['user']}, "
            f"password {login['password']}\nSensorThings:  {url}/v1.1\nCtrl-C ends it.\n",
            err=True,
        )

    def _finish(self, url: str, progress: Mapping[str, Any]) -> None:
        with self._sessions() as session:
            books = accounting.balance(
                session, accounting.read_ledgers(self._plan.data_dir / "nodes")
            )
            versions = accounting.firmware_versions(session)
        done = {
            "event": "done",
            "nodes": len(self._plan.scene.nodes),
            "boots": progress.get("boots", 0),
            **books,
            "seconds": round(time.monotonic() - self._started, 1),
            "url": url,
            "firmware_version": ", ".join(versions),
            "vm": progress.get("vm", ""),
        }
        if self._plan.as_json:
            click.echo(json.dumps(done))
        else:
            click.echo(
                f"{done['packs_stored']} packs of {done['packs_written']} written are stored, "
                f"{done['packs_missing']} are missing, {done['packs_duplicate']} stored twice, "
                f"{done['packs_resent']} came again; {done['observations']} observations.",
                err=True,
            )
        if self._plan.until_caught_up and (done["packs_missing"] or done["packs_duplicate"]):
            sys.exit(1)

    def _child(
        self, name: str, command: list[str], *, environment: Mapping[str, str] | None = None
    ) -> Child:
        """A part that the demo does not go on without."""
        child = self._helper(name, command, environment=environment)
        self._children.append(child)
        return child

    def _helper(
        self, name: str, command: list[str], *, environment: Mapping[str, str] | None = None
    ) -> Child:
        """A program that may end by itself."""
        logs = self._plan.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        child = Child(
            name,
            command,
            log_folder=logs,
            environment={CONFIG_VARIABLE: str(self._configuration), **(environment or {})},
        )
        self._stack.callback(child.stop)
        return child

    def _write_configuration(self, **changes: str) -> None:
        """The settings of all parts, as the TOML file that each of them reads."""
        path = self._configuration
        known = {
            "data_dir": str(self._plan.data_dir),
            "database_url": self._settings.database_url,
            "broker_url": self._settings.broker_url,
            "port": self._settings.port,
            "node_port": 0,
            "public_url": self._settings.public_url,
            "demo": True,
        }
        if path.exists() and "clock" not in changes:
            known |= _read_toml(path)
        scratch = path.with_suffix(".new")
        scratch.write_text(tomli_w.dumps(known | changes), encoding="utf-8")
        scratch.chmod(0o600)
        scratch.replace(path)


def _port(wanted: int) -> int:
    if wanted == 0:
        return _free_port()
    if not _is_free(wanted):
        raise Unavailable(f"Port {wanted} is taken. Give another one: --port 0 takes any.")
    return wanted


def _greet_broker(settings: Settings) -> None:
    """Try the services' door of somebody's broker, so that a wrong address is not waited for.

    Raises:
        Unavailable: nobody listens there, or somebody who does not share this demo's certificates.
    """
    address = service_address(settings)
    where = f"The broker {settings.broker_url} (services: port {address.port})"
    try:
        with socket.create_connection((address.host, address.port), _GREETING_TIMEOUT_S) as plain:
            if not address.is_tls:
                return
            files = authority.AuthorityFiles(settings.ca_dir)
            context = ssl.create_default_context(cafile=files.root_certificate)
            context.load_cert_chain(files.certificate(SERVICE_INGEST), files.key(SERVICE_INGEST))
            context.wrap_socket(plain, server_hostname=address.host).close()
    except ssl.SSLError as problem:
        raise Unavailable(
            f"{where} does not have this demo's certificates: run `fleet broker config --data "
            f"{settings.data_dir}` and start mosquitto with what it writes ({problem.reason})."
        ) from problem
    except OSError as problem:
        raise Unavailable(
            f"{where} cannot be reached: {problem.strerror or problem}. "
            f"`fleet broker config --data {settings.data_dir}` says how to start one."
        ) from problem


def _read_login(path: Path) -> dict[str, str]:
    try:
        login = json.loads(path.read_text(encoding="utf-8"))
        return {name: str(login[name]) for name in ("user", "password")}
    except (ValueError, TypeError, KeyError) as problem:
        raise Unavailable(f"{path} is damaged: delete it, a new one is made.") from problem


def _read_ports(path: Path) -> list[int]:
    try:
        node_port, service_port = map(int, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise Unavailable(
            f"{path} is damaged, and the nodes look for their broker at the ports that it named: write them into it again, "
            "like [20000, 20001], or start a new demo with --data another-folder."
        ) from problem
    return [node_port, service_port]


def _read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _only_demo_in(data_dir: Path) -> Iterator[None]:
    """Hold the folder; two demos in one would disagree about its ports and boards."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise Unavailable(f"Cannot use the folder {data_dir}: {problem.strerror}.") from problem
    with (data_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"Another demo runs in {data_dir}; end it, or use --data another-folder --port 0."
            ) from None
        yield
