"""How many packs per second `fleet ingest` stores, against a consumer that does nothing but acknowledge by hand.

Both read packs of the same kind from the same broker with the same load beside them, in turns: bare drain, real `fleet ingest`,
bare drain, … The round with the median ratio is shown, with the lowest and the highest ratio beside it. A rate is packs divided by
the time from the first publish to the last pack acknowledged (bare) or committed.
The load runs beside both and takes its share of the processors from both. Where other programs do so too, the processor time
of the consumer's process for a pack (without broker, load and PostgreSQL's own processes) says more than the rates.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import func, select

from fleet_server import db
from fleet_server.bench.load import FIRST_SAMPLE_UTC_S
from fleet_server.errors import Conflict, Unavailable
from fleet_server.models import Pack, Receipt
from fleet_server.services import authority, deploying, enrolment
from fleet_server.settings import CONFIG_VARIABLE

_LOAD_MODULE, _DRAIN_MODULE = "fleet_server.bench.load", "fleet_server.bench.drain"
_READY_TIMEOUT_S = 30.0
_STALLED_S = 60.0
_STOP_S = 10.0
_MODEL = "tree-3"


def measure(
    *,
    packs: int = 10_000,
    nodes: int = 12,
    rounds: int = 3,
    broker: str = "embedded",
    database_url: str | None = None,
) -> dict[str, Any]:
    """Run the bare drain and the real ingest in turns.

    Args:
        packs: how many in each run.
        nodes: how many load nodes share them, each with a TLS connection of its own. Twelve keep enough packs on their way
            for one half to arrive while the other is stored.
        rounds: how many times both run.
        broker: `embedded`, or `mosquitto` (Debian's, started here with our own configuration).
        database_url: an empty PostgreSQL database; SQLite in a scratch folder when None.

    Raises:
        Unavailable: a part could not be started, or nothing was stored for a minute.
        Conflict: the database is not empty.
    """
    measured = []
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="stadtsensor-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        scene = _Scene(folder, nodes, database_url, stack)
        ports = scene.start_broker(broker)
        scene.configure(ports)
        for number in range(rounds):
            bare = scene.run_bare(packs, ports, spool=2 * number + 1)
            measured.append((bare, scene.run_ingest(packs, ports, spool=2 * number + 2)))
    measured.sort(key=lambda runs: runs[0].seconds / runs[1].seconds)
    bare, ingest = measured[len(measured) // 2]
    ratios = [round(bare.seconds / ingest.seconds, 3) for bare, ingest in measured]
    return {
        "figure": round(packs / ingest.seconds, 1),
        "unit": "packs/s",
        "limit": round(packs / bare.seconds, 1),
        "ratio": ratios[len(ratios) // 2],
        "lowest_ratio": ratios[0],
        "highest_ratio": ratios[-1],
        "cpu_us_per_pack": round(ingest.cpu_s / packs * 1e6),
        "limit_cpu_us_per_pack": round(bare.cpu_s / packs * 1e6),
        "packs": packs,
        "nodes": nodes,
        "rounds": rounds,
        "readings_per_pack": 7,
        "broker": broker,
        "database": "postgresql" if database_url else "sqlite",
    }


@dataclass(frozen=True)
class _Run:
    """Seconds from the first publish until the last pack was acknowledged or committed; the consumer's processor seconds."""

    seconds: float
    cpu_s: float


class _Scene:
    """A scratch fleet: authority, database with deployed nodes, and the programs under test."""

    def __init__(
        self, folder: Path, nodes: int, database_url: str | None, stack: ExitStack
    ) -> None:
        self._folder = folder
        self._stack = stack
        self._database_url = database_url or f"sqlite:///{folder / 'bench.sqlite3'}"
        authority.initialise(folder / "ca")
        self._engine = db.make_engine(self._database_url)
        stack.callback(self._engine.dispose)
        db.upgrade(self._engine)
        self._sessions = db.session_factory(self._engine)
        if self._has_packs():
            raise Conflict("The database for a benchmark must be empty.")
        self._node_ids = [self._enrol(number) for number in range(nodes)]

    def _enrol(self, number: int) -> str:
        """A node with certificate and deployment, so that its packs become observations."""
        now = datetime.now(UTC).replace(microsecond=0)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"load-{number}")])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        csr_pem = csr.public_bytes(serialization.Encoding.PEM).decode()
        with self._sessions() as session:
            token = enrolment.create_token(session, uses=1, now=now)
            node = enrolment.enrol_node(
                session,
                token=token,
                label=f"load-{number}",
                model=_MODEL,
                csr_pem=csr_pem,
                ca_dir=self._folder / "ca",
                now=now,
            )
            place = deploying.NewSite(
                code=f"bench-{node.node_id}",
                name=f"Bench tree {number}",
                kind="tree",
                latitude=51.48,
                longitude=7.22,
            )
            deploying.create_site(session, place, is_public=False, now=now)
            deploying.deploy_node(
                session,
                node.node_id,
                site_code=place.code,
                from_at=datetime.fromtimestamp(FIRST_SAMPLE_UTC_S, UTC),
                now=now,
            )
        (self._folder / f"{node.node_id}.crt").write_text(node.certificate_pem, encoding="ascii")
        (self._folder / f"{node.node_id}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return node.node_id

    def start_broker(self, kind: str) -> dict[str, int]:
        ports = {"node": _free_port(), "service": _free_port()}
        wanted = ["--node-port", str(ports["node"]), "--service-port", str(ports["service"])]
        if kind == "embedded":
            self._start("broker", [_own("fleet"), "broker", "embedded", *wanted])
        else:
            program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
            if not Path(program).exists():
                raise Unavailable("mosquitto is not installed: apt-get install mosquitto.")
            out = self._folder / "mosquitto"
            made = subprocess.run(  # noqa: S603 - our own program
                [_own("fleet"), "broker", "config", "--out", str(out), *wanted],
                env=self._environment(),
                capture_output=True,
                text=True,
            )
            if made.returncode != 0:
                raise Unavailable(f"fleet broker config failed: {made.stderr.strip()}")
            self._start("broker", [program, "-c", str(out / "mosquitto.conf")])
        for port in ports.values():
            _wait_for_port(port)
        return ports

    def configure(self, ports: Mapping[str, int]) -> None:
        self._broker_url = f"mqtts://127.0.0.1:{ports['node']}?service_port={ports['service']}"

    def run_bare(self, packs: int, ports: Mapping[str, int], *, spool: int) -> _Run:
        """A consumer that stores nothing, until its last acknowledgement."""
        command = [sys.executable, "-m", _DRAIN_MODULE, str(self._folder)]
        drain = self._start("drain", [*command, str(ports["service"]), str(packs)], listen=True)
        _line(drain)  # it says that its subscription stands
        load, started_s = self._publish(packs, ports, spool=spool)
        finished = _line(drain)
        drain.wait(_STOP_S)
        load.wait(_STALLED_S)
        return _Run(finished["finished_s"] - started_s, finished["cpu_s"])

    def run_ingest(self, packs: int, ports: Mapping[str, int], *, spool: int) -> _Run:
        """`fleet ingest`, until the last pack is committed."""
        ingest = self._start("ingest", [_own("fleet"), "ingest", "--json"], listen=True)
        _line(ingest)
        cpu_before_s = _cpu_s(ingest.pid)
        load, started_s = self._publish(packs, ports, spool=spool)
        stored, moved_at = 0, time.monotonic()
        count_stored = self._counter_of_stored(spool)
        while stored < packs:
            time.sleep(0.02)
            now_stored = count_stored()
            if now_stored > stored:
                stored, moved_at = now_stored, time.monotonic()
            if ingest.poll() is not None or time.monotonic() - moved_at > _STALLED_S:
                raise Unavailable(f"fleet ingest stored {stored} of {packs} packs and stopped.")
        run = _Run(time.time() - started_s, _cpu_s(ingest.pid) - cpu_before_s)
        load.wait(_STALLED_S)
        _end(ingest)
        return run

    def _publish(
        self, packs: int, ports: Mapping[str, int], *, spool: int
    ) -> tuple[subprocess.Popen[str], float]:
        """Start the load; its process, and the wall time of its first publish."""
        load = self._start(
            f"load-{spool}",
            [
                sys.executable, "-m", _LOAD_MODULE, str(self._folder), str(ports["node"]),
                str(packs), str(spool), *self._node_ids,
            ],
            listen=True,
        )  # fmt: skip
        return load, float(_line(load)["started_s"])

    def _has_packs(self) -> bool:
        with self._sessions() as session:
            return session.scalar(select(Pack.id).limit(1)) is not None

    def _counter_of_stored(self, spool: int) -> Callable[[], int]:
        """Counts packs by one bare statement: with a session and a transaction for each look, looking took a twentieth of the run."""
        # Sequences begin at 1, so a receipt counts its node's packs.
        query = select(func.sum(Receipt.seq)).where(Receipt.spool == spool)
        statement = str(query.compile(self._engine, compile_kwargs={"literal_binds": True}))
        connection = self._engine.raw_connection()
        self._stack.callback(connection.close)
        if self._engine.dialect.name == "postgresql":
            connection.driver_connection.autocommit = True  # type: ignore[union-attr]  # psycopg's
        cursor = connection.cursor()

        def count() -> int:
            cursor.execute(statement)
            return int(cursor.fetchone()[0] or 0)  # type: ignore[index]  # a sum is one row

        return count

    def _start(
        self, name: str, command: list[str], *, listen: bool = False
    ) -> subprocess.Popen[str]:
        log = (self._folder / f"{name}.log").open("w")
        self._stack.callback(log.close)
        process = subprocess.Popen(  # noqa: S603 - our own programs and mosquitto
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if listen else log,
            stderr=log,
            text=True,
            env=self._environment(),
        )
        self._stack.callback(_end, process)
        return process

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
        clean.pop(CONFIG_VARIABLE, None)
        clean |= {"FLEET_DATA_DIR": str(self._folder), "FLEET_DATABASE_URL": self._database_url}
        if hasattr(self, "_broker_url"):
            clean["FLEET_BROKER_URL"] = self._broker_url
        return clean


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - started with listen=True
    line = process.stdout.readline()
    if not line:
        raise Unavailable(f"{process.args!r} ended with exit {process.wait()}.")
    result: dict[str, Any] = json.loads(line)
    return result


def _cpu_s(pid: int) -> float:
    """Processor seconds that a process has used (proc(5): fields 14 and 15, after the name in brackets)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _own(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Unavailable(f"The broker did not listen on port {port}.")
