"""How long it takes until all nodes are through when they all connect at once, at the real broker with real ingest and worker.

Each connects over mutual TLS, gets receipt and desired state, publishes its state and a pack, and waits for that pack's receipt. Half
of the time is the load's own: it shares the processors. The limit is what two bare processes reach that do nothing but these
handshakes, with a tenth of the nodes.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.bench.programs import Programs, cpu_s, end, line, own
from fleet_server.bench.reconnect import MODEL
from fleet_server.bench.registry import node_id_of
from fleet_server.errors import Unavailable
from fleet_server.models import Node
from fleet_server.services import authority, enrolment, publishing
from fleet_server.wire.states import NodeState

GOAL_S = 120
_MODULE, _BARE_MODULE = "fleet_server.bench.reconnect", "fleet_server.bench.handshakes"
_PUBLISHED_WITHIN_S = 120.0
_ENDS_WITHIN_S = 600.0


def measure(*, nodes: int = 5000, broker: str = "embedded") -> dict[str, Any]:
    """Let them all come.

    Args:
        broker: `embedded`, or `mosquitto` (Debian's, started here with our own configuration).

    Raises:
        Unavailable: a part could not be started, or not all of them came through.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="stadtsensor-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        url = f"sqlite:///{folder / 'bench.sqlite3'}"
        authority.initialise(folder / "ca")
        engine = db.make_engine(url)
        stack.callback(engine.dispose)
        db.upgrade(engine)
        sessions = db.session_factory(engine)
        node_ids = _enrol(sessions, folder, nodes)
        programs = Programs(folder, url, stack)
        bare = _bare(programs, node_ids[: max(1, nodes // 10)])
        ports = programs.start_broker(broker)
        for name in ("ingest", "worker"):
            line(programs.start(name, [own("fleet"), name, "--json"], listen=True))
        _wait_until_published(sessions)
        before_s = cpu_s(programs.broker_pid)
        storm = _come(programs, "storm", ports["node"], node_ids)
        broker_cpu_s = cpu_s(programs.broker_pid) - before_s
    through = storm["through_s"]
    figure = nodes / through[-1]
    return {
        "figure": round(figure, 1),
        "unit": "nodes/s",
        "limit": round(bare, 1),
        "ratio": round(figure / bare, 3),
        "settled_s": through[-1],
        "goal_s": GOAL_S,
        "half_through_s": through[len(through) // 2],
        "broker_cpu_ms_per_node": round(broker_cpu_s / nodes * 1000, 1),
        "tries_per_node": round(storm["tries"] / nodes, 2),
        "nodes": nodes,
        "broker": broker,
    }


def _enrol(sessions: sessionmaker[Session], folder: Path, nodes: int) -> list[str]:
    """Nodes with keys and certificates of their own; in one transaction, as no bench could be so fast."""
    now = datetime.now(UTC).replace(microsecond=0)
    node_ids = [node_id_of(number) for number in range(nodes)]
    with db.writing(sessions) as session:
        for node_id in node_ids:
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node_id)])
            builder = x509.CertificateSigningRequestBuilder().subject_name(name)
            csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            issued = authority.sign_node_request(folder / "ca", csr, node_id=node_id)
            (folder / f"{node_id}.crt").write_text(issued.pem, encoding="ascii")
            (folder / f"{node_id}.key").write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            session.add(
                Node(
                    node_id=node_id,
                    label=node_id,
                    model=MODEL,
                    state=NodeState.ENROLLED,
                    enrolled_at=now,
                    certificate_serial=f"{issued.serial:x}",
                )
            )
            session.flush()
            enrolment.add_companion_rows(session, node_id, MODEL, now=now)
    return node_ids


def _bare(programs: Programs, node_ids: list[str]) -> float:
    """Handshakes per second of two processes that do nothing else."""
    command = [sys.executable, "-m", _BARE_MODULE, str(programs.folder)]
    listener = programs.start("handshakes", command, listen=True)
    came = _come(programs, "bare", line(listener)["port"], node_ids)
    end(listener)
    return float(len(node_ids) / came["through_s"][-1])


def _come(programs: Programs, kind: str, port: int, node_ids: list[str]) -> dict[str, Any]:
    listed = programs.folder / f"{kind}.nodes"
    listed.write_text("\n".join(node_ids), encoding="ascii")
    command = [sys.executable, "-m", _MODULE, kind, str(programs.folder), str(port), str(listed)]
    load = programs.start(kind, command, listen=True)
    said = line(load)
    load.wait(_ENDS_WITHIN_S)
    return said


def _wait_until_published(sessions: sessionmaker[Session]) -> None:
    """The broker holds what each node gets when it comes."""
    deadline = time.monotonic() + _PUBLISHED_WITHIN_S
    while time.monotonic() < deadline:
        with sessions() as session:
            if publishing.count_due(session) == 0:
                return
        time.sleep(0.2)
    raise Unavailable(f"fleet worker did not publish within {_PUBLISHED_WITHIN_S:g} s.")
