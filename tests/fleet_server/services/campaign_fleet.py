"""Releases as rows, and nodes that talk of their updates, for campaigns: what a node sends, through the real ingest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import cbor2
from factories import NOON, SimulatedNode
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.bench.registry import release_of
from fleet_server.models import Release
from fleet_server.services import publishing, rights
from fleet_server.services.configuring import no_secret_key
from fleet_server.services.ingest import store_batch
from fleet_server.wire.manifest import BundleFile, Image

SIZE_BYTES = 120_000
IMAGE = Image(1_500_000, b"i" * 32, (1, 30, 0))
RUNS_IMAGE = {"micropython": "1.30.0", "image_sha256": IMAGE.sha256.hex()}
"""What a node says that runs it."""


def add_release(
    session: Session,
    version: str = "0.8.0",
    counter: int = 8,
    *,
    model: str = "tree-3",
    allow_downgrade: bool = False,
    image: Image | None = None,
) -> Release:
    """A release as publishing one would leave it."""
    files = [
        BundleFile(f"node/{name}.mpy", SIZE_BYTES // 4, version.encode().ljust(32))
        for name in ("adc", "bus", "cycle", "spool")
    ]
    release = release_of(
        version,
        counter,
        files,
        model=model,
        now=NOON,
        allow_downgrade=allow_downgrade,
        image=image,
    )
    with db.writing(session):
        session.add(release)
    return release


def act_as(session: Session, name: str) -> None:
    rights.act_as(session, rights.Actor(name, frozenset(rights.Right)))


class Talker:
    """A node that does what it is told, as far as a test lets it."""

    def __init__(self, session: Session, node_id: str) -> None:
        self.session = session
        self.node = SimulatedNode(node_id, spool=int(node_id[2:], 16))
        self.runs: dict[str, Any] = {"version": "0.7.0", "counter": 7, "bundle_sha256": "a" * 64}
        self.brought: tuple[int | None, int | None] = (None, None)
        self.slot_state = "confirmed"

    @property
    def release(self) -> Mapping[str, Any] | None:
        """`release` of its desired state."""
        found = publishing.desired_states(
            self.session, [self.node.node_id], now=NOON, secret_key=no_secret_key
        )
        return found[self.node.node_id].release

    def say(self, now: datetime) -> None:
        assignment, attempt = self.brought
        fields = {**self.runs, "slot_state": self.slot_state}
        fields |= {"assignment": assignment, "attempt": attempt}
        version = fields.pop("version")
        self._store(self._state(now, version, fields), now=now)

    def _state(self, now: datetime, version: str, fields: Mapping[str, Any]) -> Any:
        message = self.node.state(at_s=int(now.timestamp()), **fields)
        content = cbor2.loads(message.payload) | {"version": version}
        return type(message)(message.kind, message.node_id, cbor2.dumps(content))

    def sample(self, now: datetime) -> None:
        self._store(self.node.pack(at_s=int(now.timestamp())), now=now)

    def tell(self, *stages: str, now: datetime, reason: str = "", **more: int) -> None:
        """Steps of what it was told last, or of what `more` names."""
        release = self.release or {}
        named = {
            "assignment": release.get("assignment", 0),
            "attempt": release.get("attempt", 1),
        } | more
        messages = []
        for stage in stages:
            details: dict[str, Any] = {**named, "stage": stage}
            details |= {"reason": reason} if reason else {}
            messages.append(self.node.event(self.node.next_seq, "update", details))
            self.node.next_seq += 1
        self._store(*messages, now=now)

    def install(self, release: Release) -> None:
        """It runs it, and is not sure of it yet."""
        told = self.release
        assert told is not None
        assert told["counter"] == release.counter
        self.runs = {
            "version": release.version,
            "counter": release.counter,
            "bundle_sha256": release.bundle_sha256,
        }
        self.brought = told["assignment"], told["attempt"]
        self.slot_state = "trial"

    def update(self, release: Release, now: datetime) -> datetime:
        """All of it, well; returns when it is through."""
        self.tell("accepted", "downloading", "verified", "installing", "rebooting", now=now)
        self.install(release)
        now += timedelta(minutes=5)
        self.say(now)
        self.tell("testing", now=now)
        self.slot_state = "confirmed"
        now += timedelta(minutes=20)
        self.say(now)
        now += timedelta(minutes=3)
        self.sample(now)
        return now

    def roll_back(self, release: Release, now: datetime, reason: str = "crashed") -> None:
        """It tries, and comes back."""
        self.tell("rebooting", now=now)
        self.tell("rolled_back", now=now, reason=reason)
        self.say(now)

    def _store(self, *messages: Any, now: datetime) -> None:
        store_batch(self.session, list(messages), now=now)
