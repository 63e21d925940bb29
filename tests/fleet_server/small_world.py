"""A small real world behind the pages: three nodes that were enrolled, deployed and heard through the services themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session, sessionmaker

from fleet_server import db
from fleet_server.models import Node
from fleet_server.services import accounts, deploying, enrolment, ingest
from fleet_server.wire.senml import Reading, encode_pack
from fleet_server.wire.state_message import NodeStateMessage, encode_state
from fleet_server.wire.states import NodeState
from fleet_server.wire.topics import TopicKind

NOW = datetime(2026, 7, 14, 12, 0, tzinfo=UTC)
USER, PASSWORD = "operator", "correct horse battery"
HOSTILE = "<script>alert(1)</script>\"'<img src=x onerror=alert(2)>{{7*191}}"
SAMPLE_S = 900


@dataclass(frozen=True)
class NodePlan:
    node_id: str
    label: str
    model: str
    site_code: str
    site_name: str


NODES = (
    NodePlan("n-000001", "tree-01", "tree-3", "kortum", "Kortumstraße, Linde 12"),
    NodePlan("n-000002", "pond-01", "pond-1", "stadtpark", "Stadtparkteich"),
    NodePlan("n-000003", HOSTILE[:60], "tree-3", "hostile", HOSTILE),
)


def build_world(sessions: sessionmaker[Session], *, packs: int = 24, now: datetime = NOW) -> None:
    """Sites, nodes, an operator, `packs` packs of each node up to `now`, a state of each, and one quarantined message."""
    with sessions() as session:
        accounts.create_user(session, USER, PASSWORD, now=now)
        for position, plan in enumerate(NODES):
            _add_node(session, plan, position, now - timedelta(seconds=SAMPLE_S * packs))
        for plan in NODES:
            send_packs(session, plan, first_seq=1, packs=packs, now=now)
        ingest.store_batch(
            session, [ingest.Message(TopicKind.TELEMETRY, "n-000001", b"\xff garbage")], now=now
        )


def _add_node(session: Session, plan: NodePlan, position: int, begin: datetime) -> None:
    site = deploying.NewSite(
        code=plan.site_code,
        name=plan.site_name,
        kind="water" if plan.model == "pond-1" else "tree",
        latitude=51.48 + position / 100,
        longitude=7.21 + position / 100,
        description=HOSTILE if plan.site_code == "hostile" else "",
    )
    deploying.create_site(session, site, is_public=plan.site_code != "stadtpark", now=begin)
    with db.writing(session):
        session.add(
            Node(
                node_id=plan.node_id,
                label=plan.label,
                model=plan.model,
                state=NodeState.ENROLLED,
                enrolled_at=begin,
                public_key_sha256=f"{position:064x}",
            )
        )
        session.flush()
        enrolment.add_companion_rows(session, plan.node_id, plan.model, now=begin)
    deploying.deploy_node(session, plan.node_id, site_code=plan.site_code, from_at=begin, now=begin)


def send_packs(
    session: Session, plan: NodePlan, *, first_seq: int, packs: int, now: datetime
) -> None:
    """Packs `first_seq` … as the node would send them, the newest sampled at `now`."""
    newest_s = int(now.timestamp())
    messages = []
    for seq in range(first_seq, first_seq + packs):
        sampled_s = newest_s - SAMPLE_S * (first_seq + packs - 1 - seq)
        payload = encode_pack(
            node_id=plan.node_id,
            time_utc_s=sampled_s,
            oldest=1,
            spool=7,
            seq=seq,
            power_up=5,
            uptime_ms=seq * SAMPLE_S * 1000,
            readings=readings(plan.model, seq),
        )
        messages.append(ingest.Message(TopicKind.TELEMETRY, plan.node_id, payload))
    state = NodeStateMessage(
        model=plan.model,
        version="1.4.0" if plan.site_code != "hostile" else HOSTILE,
        power_up=5,
        uptime_ms=(first_seq + packs) * SAMPLE_S * 1000,
        utc_s=newest_s,
        battery_mv=3912,
        spool_depth=2,
        last_error=None if plan.model == "pond-1" else HOSTILE,
    )
    messages.append(ingest.Message(TopicKind.STATE, plan.node_id, encode_state(state)))
    ingest.store_batch(session, messages, now=now)


def readings(model: str, seq: int) -> list[Reading]:
    """Plausible raw values; every seventh pack has a failed sensor."""
    swing = math.sin(seq * SAMPLE_S / 86_400 * 2 * math.pi)
    if model == "pond-1":
        has_failed = seq % 7 == 0
        oxygen: list[Reading] = [
            ("sat", None if has_failed else 82.0 + 20 * swing, "timeout" if has_failed else None),
            ("do", None if has_failed else 7.5 + 2 * swing, "timeout" if has_failed else None),
            ("tw", None if has_failed else 19.0 + swing, "timeout" if has_failed else None),
        ]
        return [*oxygen, ("bat", 3900, None)]
    tension: list[Reading] = [
        (f"r{depth}", 1500 + 20 * depth + 40 * seq, None) for depth in (30, 60, 90)
    ]
    temperature: list[Reading] = [
        ("t30", None, "crc") if seq % 7 == 0 else ("t30", round(16 * (18 + 2 * swing)), None),
        ("t60", round(16 * (16 + swing)), None),
        ("t90", 16 * 14, None),
    ]
    return [*tension, *temperature, ("ref", 10_010, None), ("bat", 3900, None)]
