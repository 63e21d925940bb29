"""Storing what nodes publish: packs, events, states; each exactly once, and what cannot be read in quarantine.

One batch is one durable transaction: packs, raw readings, observations, gaps, receipts and the outbox move together or not at all.
Only when `store_batch` has returned may the broker be told that the messages are taken. Doing it again is harmless: a pack's
identity is (node, spool, seq).

Several workers may store at once (PostgreSQL): each holds the receipt rows of the nodes in its batch, so what a receipt
says is computed from what is committed and from nothing else. Inside this module times are integer seconds UTC.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import structlog
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Table,
    delete,
    func,
    literal,
    select,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.models import (
    Counter,
    Event,
    Gap,
    Node,
    NodeStatus,
    Pack,
    Quarantine,
    RawReading,
    Receipt,
)
from fleet_server.models.counter import PACKS_RESENT, PACKS_STORED
from fleet_server.models.gap import DECLARED_LOST, SPOOL_REPLACED
from fleet_server.models.outbox import RECEIPT
from fleet_server.models.raw_reading import DUPLICATE_INSTANT
from fleet_server.models.receipt import NO_SPOOL
from fleet_server.services import (
    bulk,
    commanding,
    health,
    observing,
    outbox,
    sequences,
    thinning,
    timing,
)
from fleet_server.services.binary_copy import Column
from fleet_server.services.timing import KnownTime
from fleet_server.wire.commands import ANSWER
from fleet_server.wire.errors import PackIdentity, WireError
from fleet_server.wire.senml import EventPack, Reading, ThinnedPack, decode_event, decode_telemetry
from fleet_server.wire.senml import Pack as WirePack
from fleet_server.wire.state_message import NodeStateMessage, decode_state
from fleet_server.wire.states import NodeState
from fleet_server.wire.topics import TopicKind

log = structlog.get_logger(__name__)

QUARANTINED_BYTES_MAX = 65_536
FUTURE_MARGIN_S = 86_400
"""A reading from more than a day ahead of us comes from a wild clock."""
SPOOL_PACKS_MAX = 65_536
"""More than any spool holds: 512 KiB of flash, and a pack takes some sixty bytes of it."""
SHORTEST_PERIOD_S = 30
"""No node keeps packs faster for long: it samples once a minute at most, and an event may come with each sample."""
FIRST_SEQ_MAX = 1 << 24
"""The highest number with which a spool can be heard for the first time: a pack a minute for thirty years."""
SEQ_JUMP = "seq_jump"
"""Why a pack is quarantined whose number no node can have reached. Nothing is concluded from that number."""

_KIND_NAMES = {
    TopicKind.TELEMETRY: "telemetry",
    TopicKind.EVENT: "event",
    TopicKind.STATE: "state",
}
_QUERY_KEYS = 400


class Message(NamedTuple):
    """One message as it came from the broker; `node_id` and `kind` are read from its topic.

    `kind` is None for a topic that nodes do not use.
    """

    kind: TopicKind | None
    node_id: str
    payload: bytes
    received_at: datetime | None = None
    """None: at the batch's `now`."""


@dataclass
class BatchResult:
    """What one batch did. All of it is committed."""

    packs_stored: int = 0
    packs_resent: int = 0
    states_stored: int = 0
    quarantined: int = 0
    observations_made: int = 0
    receipts_moved: dict[str, tuple[int, int]] = field(default_factory=dict)
    """node id → (spool, seq)"""


def store_batch(
    session: Session, messages: Sequence[Message | Arrival], *, now: datetime
) -> BatchResult:
    """Store messages in their order, in one transaction. Committed and on disk on return; safe to repeat.

    A message that the database refuses for its content does not hold up the others: the batch is then stored one by one, and
    that message goes to quarantine.

    Raises:
        sqlalchemy.exc.OperationalError: the database is not there (any more). Nothing is stored.
    """
    arrivals = [
        message if isinstance(message, Arrival) else read_message(message, now=now)
        for message in messages
    ]
    try:
        return _store(session, arrivals, now)
    except (DataError, IntegrityError) as error:
        log.warning("batch_refused_by_database", messages=len(messages), error=str(error.orig))
    result = BatchResult()
    for arrival in arrivals:
        try:
            one = _store(session, [arrival], now)
        except (DataError, IntegrityError) as error:
            log.error("message_refused_by_database", error=str(error.orig))
            fault = WireError("not_storable", "The database refused the content.", arrival.identity)
            one = _store(session, [arrival._replace(content=fault)], now)
        _add(result, one)
    return result


def _add(total: BatchResult, one: BatchResult) -> None:
    total.packs_stored += one.packs_stored
    total.packs_resent += one.packs_resent
    total.states_stored += one.states_stored
    total.quarantined += one.quarantined
    total.observations_made += one.observations_made
    total.receipts_moved |= one.receipts_moved


# ------------------------------------------------------------------------------------------------------------- reading

_AnyPack = WirePack | ThinnedPack | EventPack
_Content = _AnyPack | NodeStateMessage | WireError


class Arrival(NamedTuple):
    """A message, read as far as it can be; its content is what it says, or why it cannot be read."""

    kind: str
    node_id: str
    payload: bytes
    received_s: int
    content: _Content

    @property
    def identity(self) -> PackIdentity | None:
        """The pack's identity, where it was readable and is the sender's own."""
        if isinstance(self.content, NodeStateMessage):
            return None
        identity = self.content.identity
        return identity if identity is not None and identity.node_id == self.node_id else None

    @property
    def reason(self) -> str | None:
        """Why it could not be read or taken; None when it could."""
        return self.content.code if isinstance(self.content, WireError) else None


def read_message(message: Message, *, now: datetime) -> Arrival:
    """Read a message without the database: `store_batch` need not do it then. Raises nothing that a sender can cause."""
    kind = "unknown" if message.kind is None else _KIND_NAMES.get(message.kind, "unknown")
    received_s = int((message.received_at or now).timestamp())
    try:
        content = _decode(kind, message, received_s)
    except WireError as fault:
        content = fault
    return Arrival(kind, message.node_id, message.payload, received_s, content)


def _decode(kind: str, message: Message, received_s: int) -> _Content:
    if kind == "state":
        return decode_state(message.payload)
    if kind == "unknown":
        raise WireError("topic_unknown", "No node publishes on this topic.")
    pack: _AnyPack = (
        decode_telemetry(message.payload) if kind == "telemetry" else decode_event(message.payload)
    )
    if pack.node_id != message.node_id:
        raise WireError("node_id_differs", "The pack names another node than its sender.")
    if pack.time_utc_s is not None and pack.time_utc_s > received_s + FUTURE_MARGIN_S:
        raise WireError("time_in_future", "The pack's time lies in the future.", pack.identity)
    if isinstance(pack, ThinnedPack) and thinning.ends_after(pack, received_s + FUTURE_MARGIN_S):
        raise WireError("time_in_future", "The thinned pack ends in the future.", pack.identity)
    return pack


# ------------------------------------------------------------------------------------------------------------- storing


@dataclass(slots=True)
class _NodeProgress:
    """A node's receipt while the batch is worked on."""

    spool: int
    seq: int
    highest_seq: int
    channels_version: int
    heard_s: int
    is_revoked: bool
    oldest: int = 0
    """Lowest sequence that the node says it still holds in this spool; 0 = it did not say."""
    arrived: set[int] = field(default_factory=set)
    """Sequences of this spool that the batch brought, stored or quarantined."""
    resent: int = 0
    before: tuple[int, int, int] = (0, 0, 0)


@dataclass(slots=True)
class _NewPack:
    """A pack that is not stored yet."""

    arrival: Arrival
    pack: _AnyPack
    pack_id: int = 0


def _store(session: Session, arrivals: Sequence[Arrival], now: datetime) -> BatchResult:
    with db.writing(session):
        batch = _Batch(session, now, _lock_nodes(session, {a.node_id for a in arrivals}))
        batch.sort(arrivals)
        batch.store_packs()
        batch.store_quarantine()
        batch.move_receipts()
        batch.store_statuses()
        batch.store_counters()
    for fault in batch.faults:
        content = fault.content
        if isinstance(content, WireError):
            log.warning(
                "message_quarantined",
                node_id=fault.node_id,
                kind=fault.kind,
                reason=content.code,
                bytes=len(fault.payload),
            )
    return batch.result


def _lock_nodes(session: Session, node_ids: set[str]) -> dict[str, _NodeProgress]:
    """Progress of the registered nodes among these. Their receipt rows are ours until the transaction ends."""
    rows = session.execute(
        select(
            Receipt.node_id,
            Receipt.spool,
            Receipt.seq,
            Receipt.highest_seq,
            Receipt.channels_version,
            NodeStatus.last_heard_at,
            Node.state,
        )
        .join(NodeStatus, NodeStatus.node_id == Receipt.node_id)
        .join(Node, Node.node_id == Receipt.node_id)
        .where(Receipt.node_id.in_(sorted(node_ids)))
        .order_by(Receipt.node_id)  # every worker locks in the same order
        .with_for_update(of=Receipt)
    )
    return {
        node_id: _NodeProgress(
            spool,
            seq,
            highest_seq,
            channels_version,
            heard_s=0 if last_heard_at is None else int(last_heard_at.timestamp()),
            is_revoked=state == NodeState.REVOKED,
            before=(spool, seq, highest_seq),
        )
        for node_id, spool, seq, highest_seq, channels_version, last_heard_at, state in rows
    }


class _Batch:
    """The steps of one transaction, in their order, and what they hand to each other."""

    def __init__(self, session: Session, now: datetime, nodes: dict[str, _NodeProgress]) -> None:
        self.session = session
        self.now = now
        self.now_s = int(now.timestamp())
        self.nodes = nodes
        self.result = BatchResult()
        self.faults: list[Arrival] = []
        self.new: list[_NewPack] = []
        self.resent: list[_AnyPack] = []
        self.anchors: set[timing.AnchorRow] = set()
        self.states: dict[str, tuple[Arrival, NodeStateMessage]] = {}
        self.heard_s: dict[str, int] = {}
        self.sampled_s: dict[str, int] = {}
        self.left_spools: set[tuple[str, int]] = set()

    # -- sort

    def sort(self, arrivals: Sequence[Arrival]) -> None:
        """Tell new packs from resent ones, states and faults."""
        stored = _stored_bodies(self.session, self._perhaps_stored(arrivals))
        for arrival in arrivals:
            node = self.nodes.get(arrival.node_id)
            if node is None or node.is_revoked:
                self._refuse(arrival, node)
                continue
            self.heard_s[arrival.node_id] = max(
                arrival.received_s, self.heard_s.get(arrival.node_id, 0)
            )
            content = arrival.content
            if isinstance(content, WireError):
                self._quarantine(arrival)
            elif isinstance(content, NodeStateMessage):
                self._take_state(arrival, content)
            else:
                self._take_pack(arrival, content, stored)
        self._choose_spools()

    def _perhaps_stored(self, arrivals: Sequence[Arrival]) -> set[PackIdentity]:
        """Packs that may have come before: all but those above everything that ever came from their node's spool."""
        perhaps = set()
        for arrival in arrivals:
            content, node = arrival.content, self.nodes.get(arrival.node_id)
            if node is None or not isinstance(content, _AnyPack):
                continue
            if content.spool != node.spool or content.seq <= node.highest_seq:
                perhaps.add(content.identity)
        return perhaps

    def _refuse(self, arrival: Arrival, node: _NodeProgress | None) -> None:
        fault = (
            WireError("node_unknown", "No such node is registered.", arrival.identity)
            if node is None
            else WireError("node_revoked", "The node's identity is revoked.", arrival.identity)
        )
        self.faults.append(arrival._replace(content=fault))

    def _quarantine(self, arrival: Arrival) -> None:
        self.faults.append(arrival)

    def _take_state(self, arrival: Arrival, state: NodeStateMessage) -> None:
        self.states[arrival.node_id] = (arrival, state)
        self.result.states_stored += 1
        if state.utc_s is not None and state.utc_s <= arrival.received_s + FUTURE_MARGIN_S:
            self.anchors.add(
                timing.AnchorRow(arrival.node_id, state.power_up, state.uptime_ms, state.utc_s)
            )

    def _take_pack(
        self, arrival: Arrival, pack: _AnyPack, stored: dict[PackIdentity, _Stored]
    ) -> None:
        identity = pack.identity
        known = stored.get(identity)
        if known is None and pack.seq >= SPOOL_PACKS_MAX and self._has_jumped(arrival):
            self._quarantine_jump(arrival, identity)
        elif known is None:
            stored[identity] = _Stored(pack.body_sha256, pack.time_utc_s is not None)
            self.new.append(_NewPack(arrival, pack))
        elif known.body_sha256 != pack.body_sha256:
            fault = WireError(
                "body_differs", "Another pack with this identity is stored already.", identity
            )
            self.faults.append(arrival._replace(content=fault))
            log.error(
                "pack_body_differs",
                node_id=identity.node_id,
                spool=identity.spool,
                seq=identity.seq,
            )
        else:
            self.resent.append(pack)
            self.nodes[identity.node_id].resent += 1
            self.result.packs_resent += 1
            if pack.time_utc_s is not None and not known.has_time:
                # The node has learnt the time since it sent the first copy.
                self.anchors.add(
                    timing.AnchorRow(
                        identity.node_id, pack.power_up, pack.uptime_ms, pack.time_utc_s
                    )
                )

    def _has_jumped(self, arrival: Arrival) -> bool:
        """Whether no node can have come as far as this message's number since it was last heard, or hold so many."""
        identity, content = arrival.identity, arrival.content
        if identity is None or identity.seq < SPOOL_PACKS_MAX:
            return False
        held = content.seq - content.oldest if isinstance(content, _AnyPack) else 0
        if held >= SPOOL_PACKS_MAX:
            return True
        node = self.nodes[identity.node_id]
        highest = node.highest_seq
        if identity.spool != node.spool:
            highest = _highest_seq(self.session, identity.node_id, identity.spool)
        if not highest:
            return identity.seq > FIRST_SEQ_MAX
        silent_s = max(0, arrival.received_s - node.heard_s)
        return identity.seq > highest + SPOOL_PACKS_MAX + silent_s // SHORTEST_PERIOD_S

    def _quarantine_jump(self, arrival: Arrival, identity: PackIdentity) -> None:
        fault = WireError(
            SEQ_JUMP, "The pack's number is beyond what its node can have reached.", identity
        )
        self.faults.append(arrival._replace(content=fault))
        log.error("pack_sequence_jumped", **identity._asdict())

    def _choose_spools(self) -> None:
        """Decide which spool each node uses now, and collect what the batch says about that spool."""
        newcomers: dict[tuple[str, int], None] = {}
        for new in self.new:
            node_id, spool = new.arrival.node_id, new.pack.spool
            if spool != self.nodes[node_id].spool:
                newcomers[node_id, spool] = None
        for node_id, spool in newcomers:
            # A spool that was heard before is an old one whose packs come late; a fresh one replaces it.
            if not _has_packs(self.session, node_id, spool):
                self._use_spool(node_id, spool)
        for node_id, (_, state) in self.states.items():
            if state.spool is not None and state.spool != self.nodes[node_id].spool:
                self._use_spool(node_id, state.spool)
        # The envelope of a copy is newer than the one that is stored: its node may have lost something since.
        for pack in (*(new.pack for new in self.new), *self.resent):
            self._note(pack.node_id, pack.spool, pack.seq, pack.oldest)
        for fault in self.faults:
            identity = fault.identity
            if identity is None or identity.node_id not in self.nodes:
                continue
            if fault.reason != SEQ_JUMP and not self._has_jumped(fault):
                self._note(identity.node_id, identity.spool, identity.seq, 0)
        for node_id, (_, state) in self.states.items():
            if state.spool == self.nodes[node_id].spool and state.oldest is not None:
                node = self.nodes[node_id]
                # A state is redelivered like anything else: what it calls the oldest cannot be above all that ever came.
                node.oldest = max(node.oldest, min(state.oldest, node.highest_seq + 1))

    def _use_spool(self, node_id: str, spool: int) -> None:
        node = self.nodes[node_id]
        if node.spool != NO_SPOOL:
            self.left_spools.add((node_id, node.spool))
        # What was lost with this spool is not lost: the node has it still.
        self.session.execute(
            delete(Gap).where(*_of_spool(node_id, spool), Gap.reason == SPOOL_REPLACED)
        )
        # Below a gap that was declared in that spool, everything is accounted for.
        node.spool, node.seq = spool, _declared_up_to(self.session, node_id, spool)
        node.highest_seq = _highest_seq(self.session, node_id, spool)
        log.info("spool_changed", node_id=node_id, spool=spool)

    def _note(self, node_id: str, spool: int, seq: int, oldest: int) -> None:
        node = self.nodes[node_id]
        if spool == node.spool:
            node.arrived.add(seq)
            node.highest_seq = max(node.highest_seq, seq)
            node.oldest = max(node.oldest, oldest)

    # -- packs

    def store_packs(self) -> None:
        """Packs, raw readings, observations and events of what is new; times that new anchors give to older packs."""
        new_anchors = timing.store_anchors(self.session, self.anchors)
        if self.new:
            ids = bulk.reserve_ids(self.session, _table(Pack), len(self.new))
            for new, pack_id in zip(self.new, ids, strict=True):
                new.pack_id = pack_id
            times = self._times()
            sampled = self._sampled(times)
            book = self._channels_of(sampled)
            with bulk.inserting(self.session, _table(Pack), self._pack_columns()):
                made = observing.make_observations(sampled, book)
            self._store_readings(times, made)
            self._store_events(times)
            thinned = [(n.pack_id, n.pack) for n in self.new if isinstance(n.pack, ThinnedPack)]
            thinning.store(self.session, thinned, now=self.now)
            self.result.packs_stored = len(self.new)
        if new_anchors:
            self._repair_times(new_anchors)

    def _pack_columns(self) -> dict[str, Column]:
        rows = map(self._pack_row, self.new)
        return dict(zip(_PACK_COLUMNS, zip(*rows, strict=True), strict=True))

    def _pack_row(self, new: _NewPack) -> tuple[Any, ...]:
        pack = new.pack
        return (
            new.pack_id,
            pack.node_id,
            pack.spool,
            pack.seq,
            new.arrival.kind,
            new.arrival.received_s,
            self.now_s,
            pack.time_utc_s,
            pack.power_up,
            pack.uptime_ms,
            bytes.fromhex(pack.body_sha256),
            hashlib.sha256(new.arrival.payload).digest(),
            new.arrival.payload,
        )

    def _times(self) -> dict[int, KnownTime]:
        """When each new pack was sampled, as far as that is known."""
        untimed = [new for new in self.new if new.pack.time_utc_s is None]
        power_ups = {(new.pack.node_id, new.pack.power_up) for new in untimed}
        anchors = timing.load_anchors(self.session, power_ups)
        times = {
            new.pack_id: KnownTime(new.pack.time_utc_s, None)
            for new in self.new
            if new.pack.time_utc_s is not None
        }
        for new in untimed:
            pack = new.pack
            known = timing.estimate(anchors.get((pack.node_id, pack.power_up), ()), pack.uptime_ms)
            if known is not None:
                times[new.pack_id] = known
        return times

    def _sampled(self, times: dict[int, KnownTime]) -> list[observing.SampledPack]:
        """The new packs of readings whose time is known."""
        return [
            observing.SampledPack(
                new.pack_id, new.pack.node_id, times[new.pack_id].utc_s, new.pack.readings
            )
            for new in self.new
            if isinstance(new.pack, WirePack) and new.pack_id in times
        ]

    def _channels_of(self, sampled: Sequence[observing.SampledPack]) -> observing.ChannelBook:
        """What the keys of these packs mean; their nodes' newest sampling is noted."""
        for pack in sampled:
            newest = self.sampled_s.get(pack.node_id, 0)
            self.sampled_s[pack.node_id] = max(newest, pack.sampled_s)
        versions = {pack.node_id: self.nodes[pack.node_id].channels_version for pack in sampled}
        return observing.remembered_channels(self.session, versions)

    def _store_readings(self, times: dict[int, KnownTime], made: observing.Observations) -> None:
        with observing.storing_observations(self.session, made, now=self.now) as doubles:
            columns = self._reading_columns(times)
        self.result.observations_made += len(made) - len(doubles)
        if doubles:
            of_readings = zip(columns["pack_id"], columns["channel"], strict=True)
            columns["status"] = [
                DUPLICATE_INSTANT if reading in doubles else reason
                for reading, reason in zip(of_readings, columns["status"], strict=True)
            ]
        bulk.insert_columns(self.session, _table(RawReading), columns)

    def _reading_columns(self, times: dict[int, KnownTime]) -> dict[str, Column]:
        packs: list[tuple[int, int, int | None, int | None]] = []
        readings: list[Reading] = []
        for new in self.new:
            if isinstance(new.pack, WirePack) and new.pack.readings:
                known = times.get(new.pack_id)
                at = (None, None) if known is None else (known.utc_s, known.interval_s)
                packs.append((new.pack_id, len(new.pack.readings), *at))
                readings += new.pack.readings
        if not packs:
            return {}
        pack_ids, counts, times_s, intervals_s = zip(*packs, strict=True)
        channels, raw_values, reasons = zip(*readings, strict=True)
        return {
            "pack_id": _repeated(pack_ids, counts),
            "channel": channels,
            "raw_value": raw_values,
            "status": reasons,
            "sampled_at": _repeated(times_s, counts),
            "time_estimated": _repeated([at is not None for at in intervals_s], counts),
            "time_interval_s": _repeated(intervals_s, counts),
        }

    def _store_events(self, times: dict[int, KnownTime]) -> None:
        for new in self.new:
            if isinstance(new.pack, EventPack):
                known = times.get(new.pack_id)
                self.session.add(
                    Event(
                        pack_id=new.pack_id,
                        node_id=new.pack.node_id,
                        name=new.pack.event,
                        details=[list(detail) for detail in new.pack.details],
                        happened_at=None if known is None else _at(known.utc_s),
                    )
                )
        self.session.flush()
        answers = [
            (new.pack.node_id, new.pack.details)
            for new in self.new
            if isinstance(new.pack, EventPack) and new.pack.event == ANSWER
        ]
        commanding.note_answers(self.session, answers, now=self.now)
        health.note_battery_events(
            self.session, [new.pack for new in self.new if isinstance(new.pack, EventPack)]
        )

    def _repair_times(self, anchors: set[timing.AnchorRow]) -> None:
        """Give packs of these power-ups that were stored without a time the one that their anchors say."""
        power_ups = {(anchor.node_id, anchor.power_up) for anchor in anchors}
        timing.repair_events(self.session, power_ups)
        thinning.repair_times(self.session, power_ups, now=self.now)
        repaired = timing.repair(self.session, power_ups)
        if repaired:
            made = observing.make_observations(repaired, self._channels_of(repaired))
            doubles = observing.store_observations(self.session, made, now=self.now)
            self.result.observations_made += len(made) - len(doubles)
            observing.mark_duplicate_instants(self.session, doubles)
            log.info("times_repaired", packs=len(repaired))

    # -- quarantine

    def store_quarantine(self) -> None:
        """What could not be stored as a pack. The same bytes again are counted, not kept twice."""
        self.result.quarantined = len(self.faults)
        rows: dict[tuple[str, bytes, str], dict[str, Any]] = {}
        for arrival in self.faults:
            row = self._quarantine_row(arrival)
            key = (row["node_id"], row["payload_sha256"], row["reason"])
            if key in rows:
                rows[key]["times_received"] += 1
            else:
                rows[key] = row
        if not rows:
            return
        statement = _insert(self.session)(Quarantine)
        statement = statement.on_conflict_do_update(
            index_elements=["node_id", "payload_sha256", "reason"],
            set_={
                "times_received": Quarantine.times_received + statement.excluded.times_received,
                "last_received_at": statement.excluded.last_received_at,
            },
        )
        self.session.execute(statement, [rows[key] for key in sorted(rows)])

    def _quarantine_row(self, arrival: Arrival) -> dict[str, Any]:
        fault = arrival.content
        assert isinstance(fault, WireError)  # noqa: S101 - only faults are kept in this list
        identity = arrival.identity
        received_at = _at(arrival.received_s)
        return {
            "node_id": arrival.node_id,
            "spool": identity.spool if identity else None,
            "seq": identity.seq if identity else None,
            "kind": arrival.kind,
            "reason": fault.code,
            "sentence": fault.sentence,
            "received_at": received_at,
            "last_received_at": received_at,
            "times_received": 1,
            "payload_sha256": hashlib.sha256(arrival.payload).digest(),
            "payload": arrival.payload[:QUARANTINED_BYTES_MAX],
        }

    # -- receipts

    def move_receipts(self) -> None:
        """Declare lost what nodes no longer hold, and move each receipt to the highest sequence with nothing missing below."""
        self.left_spools |= self._shrink_gaps()
        self._close_left_spools()
        thinning.explain_gaps(
            self.session, [new.pack for new in self.new if isinstance(new.pack, ThinnedPack)]
        )
        rows = []
        for node_id, node in sorted(self.nodes.items()):
            if node.oldest - 1 > node.seq:
                self._declare_lost(node_id, node)
            node.seq = self._contiguous(node_id, node)
            now = (node.spool, node.seq, node.highest_seq)
            if now != node.before:
                rows.append((node_id, *now, self.now_s))
            if now[:2] != node.before[:2]:
                self.result.receipts_moved[node_id] = now[:2]
        bulk.update_rows(self.session, _table(Receipt), _RECEIPT_COLUMNS, rows)
        # A node that sends again what is stored has missed its receipt; the retained one is still right.
        outbox.mark_changed(self.session, RECEIPT, self.result.receipts_moved, now=self.now)

    def _declare_lost(self, node_id: str, node: _NodeProgress) -> None:
        first, last = node.seq + 1, node.oldest - 1
        present = _present(self.session, node_id, node.spool, first, last)
        lost = holes(present, first, last)
        for from_seq, to_seq, reason in thinning.pieces(self.session, node_id, node.spool, lost):
            self._add_gap(node_id, node.spool, (from_seq, to_seq), reason=reason)
        self.session.flush()
        node.seq = last

    def _add_gap(self, node_id: str, spool: int, lost: tuple[int, int], *, reason: str) -> None:
        from_seq, to_seq = lost
        self.session.add(
            Gap(
                node_id=node_id,
                spool=spool,
                from_seq=from_seq,
                to_seq=to_seq,
                state=DECLARED_LOST,
                reason=reason,
                noticed_at=self.now,
            )
        )
        log.warning(
            "packs_declared_lost",
            node_id=node_id,
            spool=spool,
            from_seq=from_seq,
            to_seq=to_seq,
            reason=reason,
        )

    def _contiguous(self, node_id: str, node: _NodeProgress) -> int:
        seq = node.seq
        if node.before[0] == node.spool and node.before[2] <= node.before[1]:
            # Nothing was stored above the old receipt, so only this batch can carry it on.
            while seq + 1 in node.arrived:
                seq += 1
            return seq
        if node.highest_seq <= seq:
            return seq
        return _run_from(self.session, node_id, node.spool, seq)

    def _close_left_spools(self) -> None:
        """Declare lost what never came of spools that their nodes no longer use: nobody holds it any more."""
        for node_id, spool in sorted(self.left_spools):
            if spool == self.nodes[node_id].spool:
                continue
            highest = _highest_seq(self.session, node_id, spool)
            came = sequences.runs(_present(self.session, node_id, spool, 1, highest))
            gaps = self.session.scalars(select(Gap).where(*_of_spool(node_id, spool)))
            accounted = sequences.merged([*came, *((gap.from_seq, gap.to_seq) for gap in gaps)])
            for lost in sequences.holes(accounted, 1, highest):
                self._add_gap(node_id, spool, lost, reason=SPOOL_REPLACED)
        self.session.flush()

    def _shrink_gaps(self) -> set[tuple[str, int]]:
        """What was declared lost and came after all, if only into quarantine, is no gap any more.

        Returns:
            Spools of which something came late.
        """
        identities = [new.pack.identity for new in self.new]
        identities += [fault.identity for fault in self.faults if fault.identity is not None]
        late: dict[tuple[str, int], set[int]] = defaultdict(set)
        for node_id, spool, seq in identities:
            node = self.nodes.get(node_id)
            if node is not None and (spool != node.before[0] or seq <= node.before[1]):
                late[node_id, spool].add(seq)
        for spools in bulk.chunks(sorted(late), _QUERY_KEYS):
            gaps = self.session.scalars(
                select(Gap).where(tuple_(Gap.node_id, Gap.spool).in_(spools))
            ).all()
            for gap in gaps:
                came = sorted(
                    seq for seq in late[gap.node_id, gap.spool] if gap.from_seq <= seq <= gap.to_seq
                )
                if came:
                    _split(self.session, gap, came)
        return set(late)

    # -- status and counters

    def store_statuses(self) -> None:
        """When nodes were last heard, and what they said about themselves."""
        if not self.heard_s:
            return
        rows = [
            (node_id, heard_s, self.sampled_s.get(node_id))
            for node_id, heard_s in sorted(self.heard_s.items())
        ]
        columns = ("node_id", "last_heard_at", "last_sampled_at")
        bulk.move_forward(self.session, _table(NodeStatus), columns, rows)
        if self.states:
            self._store_states()

    def _store_states(self) -> None:
        rows = [
            (
                node_id,
                arrival.received_s,
                state.utc_s,
                *(getattr(state, name) for name in _STATE_COLUMNS),
            )
            for node_id, (arrival, state) in sorted(self.states.items())
        ]
        columns = ("node_id", "last_state_at", "clock_at", *_STATE_COLUMNS)
        bulk.update_rows(self.session, _table(NodeStatus), columns, rows)

    def store_counters(self) -> None:
        """Packs that were stored, and packs that came again, per node."""
        stored = Counts(new.pack.node_id for new in self.new)
        rows = [(PACKS_STORED, node_id, count) for node_id, count in stored.items()]
        rows += [
            (PACKS_RESENT, node_id, node.resent)
            for node_id, node in self.nodes.items()
            if node.resent
        ]
        rows.sort()
        bulk.add_to_counts(self.session, _table(Counter), ("name", "node_id", "count"), rows)


_PACK_COLUMNS = (
    "id",
    "node_id",
    "spool",
    "seq",
    "kind",
    "received_at",
    "stored_at",
    "claimed_at",
    "power_up",
    "uptime_ms",
    "body_sha256",
    "payload_sha256",
    "payload",
)
_RECEIPT_COLUMNS = ("node_id", "spool", "seq", "highest_seq", "moved_at")
_STATE_COLUMNS = (
    "model",
    "version",
    "bundle_sha256",
    "config_version",
    "config_sha256",
    "config_state",
    "config_reason",
    "certificate",
    "roots",
    "credential_state",
    "counter",
    "assignment",
    "attempt",
    "micropython",
    "image_sha256",
    "slot",
    "slot_state",
    "battery_mv",
    "rssi_dbm",
    "free_heap",
    "heap_low",
    "idf_largest",
    "spool",
    "spool_depth",
    "oldest",
    "newest",
    "thinned",
    "lost",
    "power_up",
    "uptime_ms",
    "boot_count",
    "reset_cause",
    "drift_ppm",
    "last_error",
)


class _Stored(NamedTuple):
    """What is known of a pack that is stored, or is new in this batch."""

    body_sha256: str
    has_time: bool


def _stored_bodies(session: Session, identities: set[PackIdentity]) -> dict[PackIdentity, _Stored]:
    stored = {}
    for some in bulk.chunks(sorted(identities), _QUERY_KEYS):
        rows = session.execute(
            select(Pack.node_id, Pack.spool, Pack.seq, Pack.body_sha256, Pack.claimed_at).where(
                tuple_(Pack.node_id, Pack.spool, Pack.seq).in_(some)
            )
        )
        for node_id, spool, seq, body_sha256, claimed_at in rows:
            identity = PackIdentity(node_id, spool, seq)
            stored[identity] = _Stored(body_sha256.hex(), claimed_at is not None)
    return stored


def _has_packs(session: Session, node_id: str, spool: int) -> bool:
    found = select(Pack.id).where(Pack.node_id == node_id, Pack.spool == spool).limit(1)
    return session.scalar(found) is not None


def _declared_up_to(session: Session, node_id: str, spool: int) -> int:
    gaps = select(func.max(Gap.to_seq)).where(*_of_spool(node_id, spool))
    return session.scalar(gaps) or 0


def _of_spool(node_id: str, spool: int) -> tuple[ColumnElement[bool], ...]:
    return Gap.node_id == node_id, Gap.spool == spool


def _highest_seq(session: Session, node_id: str, spool: int) -> int:
    packs = select(func.max(Pack.seq)).where(Pack.node_id == node_id, Pack.spool == spool)
    return session.scalar(packs) or 0


def _present(session: Session, node_id: str, spool: int, first: int, last: int) -> list[int]:
    """Sequences from first to last that came, stored or quarantined, in order."""
    came = _came(node_id, spool).subquery()
    within = select(came.c.seq).where(came.c.seq.between(first, last)).order_by(came.c.seq)
    return list(session.scalars(within))


def _came(node_id: str, spool: int, *, above: int = -1) -> CompoundSelect[int]:
    packs = select(Pack.seq.label("seq")).where(
        Pack.node_id == node_id, Pack.spool == spool, Pack.seq > above
    )
    faults = select(Quarantine.seq.label("seq")).where(
        Quarantine.node_id == node_id, Quarantine.spool == spool, Quarantine.seq > above
    )
    return packs.union(faults)


def _run_from(session: Session, node_id: str, spool: int, base: int) -> int:
    """The highest sequence that is reached from `base` without a hole, over everything stored or quarantined."""
    came = _came(node_id, spool, above=base).subquery()
    numbered = select(
        came.c.seq, func.row_number().over(order_by=came.c.seq).label("place")
    ).subquery()
    run = select(func.max(numbered.c.seq)).where(numbered.c.seq - numbered.c.place == literal(base))
    return session.scalar(run) or base


def holes(present: Iterable[int], first: int, last: int) -> list[tuple[int, int]]:
    """Ranges from `first` to `last` that are not in `present` (ascending).

    >>> holes([3, 4, 7], 1, 8)
    [(1, 2), (5, 6), (8, 8)]
    """
    found, expected = [], first
    for seq in present:
        if seq > expected:
            found.append((expected, seq - 1))
        expected = max(expected, seq + 1)
    if expected <= last:
        found.append((expected, last))
    return found


def _split(session: Session, gap: Gap, came: Sequence[int]) -> None:
    """Take sequences (ascending) out of a gap."""
    from_seq, to_seq = gap.from_seq, gap.to_seq
    session.delete(gap)
    session.flush()
    for first, last in holes(came, from_seq, to_seq):
        session.add(
            Gap(
                node_id=gap.node_id,
                spool=gap.spool,
                from_seq=first,
                to_seq=last,
                state=gap.state,
                reason=gap.reason,
                noticed_at=gap.noticed_at,
            )
        )
    session.flush()


def _repeated(items: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """Each item as often as its count says."""
    return list(itertools.chain.from_iterable(map(itertools.repeat, items, counts)))


def _insert(session: Session) -> Any:
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _table(model: type[Any]) -> Table:
    table: Table = model.__table__
    return table
