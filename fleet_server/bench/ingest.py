"""How many packs per second `fleet ingest` stores, against a consumer that does nothing but acknowledge by hand.

Both read packs of the same kind from the same broker with the same load beside them, in turns: bare drain, real `fleet ingest`,
bare drain, … The round with the median ratio is shown, with the lowest and the highest ratio beside it. A rate is packs divided by
the time from the first publish to the last pack acknowledged (bare) or committed.
The load runs beside both and takes its share of the processors from both. Where other programs do so too, the processor time
of the consumer's process for a pack (without broker, load and PostgreSQL's own processes) says more than the rates.
"""

from __future__ import annotations

import shutil
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
from fleet_server.bench.programs import Programs, cpu_s, end, line, own
from fleet_server.errors import Conflict, Unavailable
from fleet_server.models import Pack, Receipt
from fleet_server.services import authority, deploying, enrolment

_LOAD_MODULE, _DRAIN_MODULE = "fleet_server.bench.load", "fleet_server.bench.drain"
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
        self._programs = Programs(folder, self._database_url, stack)
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

    def start_broker(self, kind: str) -> Mapping[str, int]:
        return self._programs.start_broker(kind)

    def run_bare(self, packs: int, ports: Mapping[str, int], *, spool: int) -> _Run:
        """A consumer that stores nothing, until its last acknowledgement."""
        command = [sys.executable, "-m", _DRAIN_MODULE, str(self._folder)]
        drain = self._programs.start(
            "drain", [*command, str(ports["service"]), str(packs)], listen=True
        )
        line(drain)  # it says that its subscription stands
        load, started_s = self._publish(packs, ports, spool=spool)
        finished = line(drain)
        drain.wait(_STOP_S)
        load.wait(_STALLED_S)
        return _Run(finished["finished_s"] - started_s, finished["cpu_s"])

    def run_ingest(self, packs: int, ports: Mapping[str, int], *, spool: int) -> _Run:
        """`fleet ingest`, until the last pack is committed."""
        ingest = self._programs.start("ingest", [own("fleet"), "ingest", "--json"], listen=True)
        line(ingest)
        cpu_before_s = cpu_s(ingest.pid)
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
        run = _Run(time.time() - started_s, cpu_s(ingest.pid) - cpu_before_s)
        load.wait(_STALLED_S)
        end(ingest)
        return run

    def _publish(
        self, packs: int, ports: Mapping[str, int], *, spool: int
    ) -> tuple[subprocess.Popen[str], float]:
        """Start the load; its process, and the wall time of its first publish."""
        load = self._programs.start(
            f"load-{spool}",
            [
                sys.executable, "-m", _LOAD_MODULE, str(self._folder), str(ports["node"]),
                str(packs), str(spool), *self._node_ids,
            ],
            listen=True,
        )  # fmt: skip
        return load, float(line(load)["started_s"])

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
