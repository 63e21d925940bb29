"""An update on the real virtual machine: signed, fetched, tried, confirmed or left again, whatever happens in between."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import nodes
import pytest
from authority import TestAuthority
from scripted_broker import ScriptedBroker
from scripted_listener import ScriptedListener
from signed_releases import MODEL, SignedReleases, bundle_sha256, manifest

from fleet_server.wire.desired import DesiredState, encode_desired
from fleet_server.wire.state_message import NodeStateMessage, decode_state
from fleet_server.wire.updates import Assignment
from hardware.virtual_board.board import HEAP_BYTES, Board
from provisioning.firmware_bundle import FirmwareBundle, build_bundle

NOW = datetime.fromtimestamp(nodes.START_US // 1_000_000, UTC)


@dataclass
class Place:
    """A node in the field, its broker, the fleet's listener, and what is released."""

    board: Board
    broker: ScriptedBroker
    listener: ScriptedListener
    releases: SignedReleases

    def release(self, bundle: FirmwareBundle, counter: int, **changes: object) -> str:
        target = self.releases.add(bundle, counter, **changes)
        self.releases.publish()
        self.listener.files = self.releases.files
        return target

    def assign(self, target: str, counter: int, assignment: int = 1, attempt: int = 1) -> None:
        wanted = Assignment(assignment, attempt, target, counter)
        self.broker.behaviour.desired = encode_desired(
            DesiredState(1, {}, release=wanted.as_fields())
        )

    def wakes(self, count: int) -> None:
        for _ in range(count):
            result = self.board.run_wake()
            assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"

    def state(self) -> NodeStateMessage:
        return decode_state(self.broker.payloads("st")[-1])

    def steps(self) -> list[str]:
        """What the node told of its updates, as `stage` or `stage: reason`, in the order of their sequences."""
        told = {}
        for payload in self.broker.payloads("ev"):
            records = {record[0]: record.get(2, record.get(3)) for record in cbor2.loads(payload)}
            if records.get("_event") == "update":
                reason = records.get("reason")
                told[records["_seq"]] = records["stage"] + (f": {reason}" if reason else "")
        return [told[seq] for seq in sorted(told)]


@pytest.fixture(scope="session")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def place(tmp_path: Path, authority: TestAuthority) -> Iterator[Place]:
    context = authority.server_context(authority.issue("localhost"), tmp_path)
    broker, listener = ScriptedBroker(context), ScriptedListener(context)
    releases = SignedReleases(NOW)
    board = nodes.make_board(
        tmp_path / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        link={"tls": True, "renew": ["127.0.0.1", listener.port, "localhost"]},
        identity=authority.identity(nodes.NODE_ID),
    )
    board.write_file("/tuf/root.json", releases.first_root)
    yield Place(board, broker, listener, releases)
    broker.close()
    listener.close()


def changed(version: str, **sources: str) -> FirmwareBundle:
    """Our firmware as another version, with some of its modules replaced."""
    return replace(nodes.bundle(), version=version)


def test_a_signed_release_is_fetched_tried_and_confirmed_by_two_receipts_with_a_sleep_between(
    place: Place,
) -> None:
    bundle = changed("1.2.4")
    place.wakes(1)
    place.assign(place.release(bundle, 7), 7)

    place.wakes(8)
    print(place.state().last_error, place.listener.asked, place.state().heap_low)

    assert place.steps() == [
        "accepted",
        "downloading",
        "verified",
        "installing",
        "rebooting",
        "testing",
    ]
    said = place.state()
    assert (said.version, said.slot, said.slot_state) == ("1.2.4", "b", "confirmed")
    assert (said.counter, said.assignment, said.attempt) == (7, 1, 1)
    assert said.bundle_sha256 == bundle_sha256(manifest(bundle, 7))
