"""Rows and messages for tests, made through the services as the product makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import cbor2
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import Deployment, Node
from fleet_server.services import deploying, enrolment
from fleet_server.services.ingest import Message
from fleet_server.wire import cbor
from fleet_server.wire.senml import (
    Extreme,
    Reading,
    encode_envelope,
    encode_pack,
    encode_thinned_body,
)
from fleet_server.wire.state_message import NodeStateMessage, encode_state
from fleet_server.wire.states import NodeState
from fleet_server.wire.topics import TopicKind
from hardware import catalogue

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
NOON_S = int(NOON.timestamp())

TREE_READINGS: Mapping[str, float] = {
    "r30": 2000,
    "r60": 5000,
    "r90": 15000,
    "t30": 318,
    "t60": 300,
    "t90": 280,
    "bat": 3900,
}
POND_READINGS: Mapping[str, float] = {"sat": 85.0, "do": 7.5, "tw": 20.5, "bat": 3900}


def register_node(
    session: Session, node_id: str, *, model: str = "tree-3", label: str = "", now: datetime = NOON
) -> str:
    """A registered node without a certificate: for everything that does not need one."""
    with db.writing(session):
        session.add(
            Node(
                node_id=node_id,
                label=label or node_id,
                model=model,
                state=NodeState.ENROLLED,
                enrolled_at=now,
                public_key_sha256=node_id,
            )
        )
        session.flush()
        enrolment.add_companion_rows(session, node_id, model, now=now)
    return node_id


def deployed_node(
    session: Session,
    node_id: str = "n-000001",
    *,
    model: str = "tree-3",
    from_at: datetime = NOON - timedelta(days=30),
) -> Deployment:
    """A registered node at a site of its own (`<node id>-site`)."""
    register_node(session, node_id, model=model)
    kind = catalogue.load_node_model(model).site_kind
    site = deploying.NewSite(f"{node_id}-site", f"Site of {node_id}", kind, 51.48, 7.22)
    deploying.create_site(session, site, is_public=True, now=NOON)
    return deploying.deploy_node(session, node_id, site_code=site.code, from_at=from_at, now=NOON)


@dataclass
class SimulatedNode:
    """What a node would publish: packs with rising sequence numbers, one per sampling instant."""

    node_id: str = "n-000001"
    spool: int = 0x51001
    power_up: int = 0x9001
    oldest: int = 1
    next_seq: int = 1
    sample_s: int = 900
    started_s: int = NOON_S
    readings: Mapping[str, float | str] = field(default_factory=lambda: dict(TREE_READINGS))

    def pack(
        self,
        seq: int | None = None,
        *,
        knows_time: bool = True,
        readings: Mapping[str, float | str] | None = None,
        oldest: int | None = None,
        at_s: int | None = None,
    ) -> Message:
        """The pack with this sequence number (by default the next one); the same arguments give the same bytes."""
        if seq is None:
            seq = self.next_seq
        self.next_seq = max(self.next_seq, seq + 1)
        sampled_s = self.started_s + seq * self.sample_s if at_s is None else at_s
        payload = encode_pack(
            node_id=self.node_id,
            time_utc_s=sampled_s if knows_time else None,
            oldest=min(self.oldest if oldest is None else oldest, seq),
            spool=self.spool,
            seq=seq,
            power_up=self.power_up,
            uptime_ms=(sampled_s - self.started_s) * 1000,
            readings=as_readings(self.readings if readings is None else readings),
        )
        return Message(TopicKind.TELEMETRY, self.node_id, payload)

    def packs(self, seqs: Iterable[int]) -> list[Message]:
        return [self.pack(seq) for seq in seqs]

    def thinned(
        self,
        from_seq: int,
        to_seq: int,
        *,
        seq: int | None = None,
        knows_time: bool = True,
        oldest: int | None = None,
        extremes: Mapping[str, tuple[float, float] | str] | None = None,
        **content: int,
    ) -> Message:
        """A thinned pack that stands for packs as `pack` makes them; by default what is below its range's end is gone."""
        if seq is None:
            seq = max(self.next_seq, to_seq + 1)
        self.next_seq = max(self.next_seq, seq + 1)
        if extremes is None:
            extremes = {
                key: value if isinstance(value, str) else (value, value)
                for key, value in self.readings.items()
            }
        begin_ms, end_ms = from_seq * self.sample_s * 1000, to_seq * self.sample_s * 1000
        fields = {
            "power_up": self.power_up,
            "uptime_ms": begin_ms,
            "from_seq": from_seq,
            "to_seq": to_seq,
            "packs": to_seq - from_seq + 1,
            "until_power_up": self.power_up,
            "until_uptime_ms": end_ms,
            **content,
        }
        body, count = encode_thinned_body(
            spool=self.spool, seq=seq, extremes=as_extremes(extremes), **fields
        )
        envelope = encode_envelope(
            node_id=self.node_id,
            time_utc_s=self.started_s + begin_ms // 1000 if knows_time else None,
            oldest=min(seq, to_seq + 1 if oldest is None else oldest),
        )
        payload = cbor.array_head(1 + count) + envelope + body
        return Message(TopicKind.TELEMETRY, self.node_id, payload)

    def event(
        self, seq: int, name: str, details: Mapping[str, float | str], *, knows_time: bool = True
    ) -> Message:
        """An event pack: the same envelope and bookkeeping, then `_event` and its details."""
        envelope, *bookkeeping = cbor2.loads(
            self.pack(seq, knows_time=knows_time, readings={}).payload
        )
        records = [{0: "_event", 3: name}]
        records += [
            {0: key, (3 if isinstance(value, str) else 2): value} for key, value in details.items()
        ]
        payload = cbor2.dumps([envelope, *bookkeeping, *records])
        return Message(TopicKind.EVENT, self.node_id, payload)

    def state(self, *, at_s: int | None = None, **fields: object) -> Message:
        """A state message; with `at_s` it is an anchor of the power-up."""
        uptime_ms = 0 if at_s is None else (at_s - self.started_s) * 1000
        content = NodeStateMessage(
            model="tree-3",
            version="0.1.0",
            power_up=self.power_up,
            uptime_ms=uptime_ms,
            utc_s=at_s,
            **fields,  # type: ignore[arg-type]
        )
        return Message(TopicKind.STATE, self.node_id, encode_state(content))


def as_readings(readings: Mapping[str, float | str]) -> list[Reading]:
    """Texts are reasons, numbers are values."""
    return [
        (key, None, value) if isinstance(value, str) else (key, value, None)
        for key, value in readings.items()
    ]


def as_extremes(extremes: Mapping[str, tuple[float, float] | str]) -> list[Extreme]:
    """Texts are reasons, pairs are the lowest and the highest value."""
    return [
        Extreme(key, None, None, value) if isinstance(value, str) else Extreme(key, *value, None)
        for key, value in extremes.items()
    ]
