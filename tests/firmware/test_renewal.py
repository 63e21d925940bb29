"""A certificate and authorities that the fleet renews, on the real virtual machine: they hold whole or not at all, only for the
node's own key, and those before come back by themselves.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cbor2
import nodes
import pytest
from authority import Pair, TestAuthority
from cryptography.hazmat.primitives.asymmetric import ec
from scripted_broker import ScriptedBroker

from fleet_server.wire.credentials import name_of
from fleet_server.wire.desired import DesiredState, encode_desired
from fleet_server.wire.state_message import NodeStateMessage, decode_state
from hardware.virtual_board.board import HEAP_BYTES, Board, ScriptFailed
from hardware.virtual_board.flash import PowerCutPlan

# All of this leaves as much free as a node always has (tests/firmware/test_budgets.py).
LEAST_FREE_BYTES = 30_000


@dataclass
class Place:
    """A node in the field, its authority, and a broker that lets in whom that authority has signed."""

    board: Board
    broker: ScriptedBroker
    authority: TestAuthority
    pair: Pair
    scratch: Path

    def desire(self, certificate: bytes | None = None, *roots: bytes) -> None:
        wanted = DesiredState(1, {}, certificate=certificate, roots=roots or None)
        self.broker.behaviour.desired = encode_desired(wanted)

    def talk(self) -> NodeStateMessage:
        """Wakes until the node has said its state once more."""
        said = len(self.broker.payloads("st"))
        for _ in range(8):
            self.wake()
            if len(self.broker.payloads("st")) > said:
                return decode_state(self.broker.payloads("st")[-1])
        raise AssertionError("the node was not heard")

    def wake(self) -> None:
        result = self.board.run_wake()
        assert result.reason == "deepsleep", f"{result.error}\n{result.stdout}"

    def renewed(self, authority: TestAuthority | None = None, name: str = nodes.NODE_ID) -> bytes:
        """Another certificate for the node's own key."""
        return (authority or self.authority).issue(name, key=self.pair.key).certificate_der

    def changes_over(self, authority: TestAuthority) -> None:
        """The broker's own certificate comes from another authority now; it lets in whom the first one has signed."""
        self.broker._context = self.authority.server_context(
            authority.issue("localhost"), self.scratch
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    authority = TestAuthority()
    broker = ScriptedBroker(authority.server_context(authority.issue("localhost"), tmp_path))
    pair = authority.issue(nodes.NODE_ID)
    board = nodes.make_board(
        tmp_path / "node",
        nodes.soil(),
        node=nodes.tree_3(),
        port=broker.port,
        link={"tls": True},
        identity={
            "key": pair.key_der,
            "cert": pair.certificate_der,
            "ca0": authority.pair.certificate_der,
        },
    )
    board.heap_bytes = HEAP_BYTES - LEAST_FREE_BYTES
    yield Place(board, broker, authority, pair, tmp_path)
    broker.close()


def test_a_renewed_certificate_is_tried_in_the_next_wake_and_holds_over_a_power_cut(
    place: Place,
) -> None:
    renewed = place.renewed()
    place.desire(renewed)

    told = place.talk()
    place.wake()  # not only after the hour that lies between two talks
    tried = decode_state(place.broker.payloads("st")[-1])
    place.board.power_on()
    after = place.talk()

    assert (told.certificate, told.credential_state) == (
        name_of(place.pair.certificate_der),
        "confirmed",
    )
    assert told.roots == name_of(place.authority.pair.certificate_der)
    for said in (tried, after):
        assert (said.certificate, said.credential_state) == (name_of(renewed), "confirmed")


def test_a_certificate_that_cannot_be_the_nodes_is_refused(place: Place) -> None:
    root = place.authority.pair.certificate_der
    renewed = place.renewed()
    stranger = place.authority.issue(nodes.NODE_ID, key=ec.generate_private_key(ec.SECP256R1()))
    other_curve = place.authority.issue(nodes.NODE_ID, key=ec.generate_private_key(ec.SECP384R1()))
    for certificate, roots in (
        (stranger.certificate_der, ()),
        (other_curve.certificate_der, ()),
        (place.renewed(name="x" + nodes.NODE_ID), ()),
        (renewed[:-1], ()),
        (b"\x30\x84\xff\xff\xff\xff", ()),
        (b"no certificate", ()),
        (None, (root, root[:-1])),
        (None, (root, root, root)),
        # Whose bytes only hold the node's key somewhere else.
        (stranger.certificate_der + renewed, ()),
    ):
        place.desire(certificate, *roots)
        place.talk()
        said = place.talk()
        assert said.certificate == name_of(place.pair.certificate_der)
        assert (said.last_error or "").endswith("des roots" if roots else "des certificate")


def test_a_certificate_that_no_broker_takes_gives_way_after_three_talks_and_is_not_tried_again(
    place: Place,
) -> None:
    place.desire(place.renewed(TestAuthority("somebody else")))
    place.talk()

    before = place.broker.connections
    back = place.talk()
    again = place.talk()

    assert place.broker.connections - before == 5, "three in vain, then two with the one before"
    for said in (back, again):
        assert (said.certificate, said.credential_state) == (
            name_of(place.pair.certificate_der),
            "rolled_back",
        )
    place.desire(renewed := place.renewed())
    place.talk()
    assert place.talk().certificate == name_of(renewed)


def test_an_outage_is_not_held_against_a_renewed_certificate(place: Place) -> None:
    place.desire(renewed := place.renewed())
    place.talk()
    port, place.broker.port = place.broker.port, 1
    nodes.connect_to(place.board, 1, tls=True)
    for _ in range(5):
        place.wake()
    nodes.connect_to(place.board, port, tls=True)
    place.board.power_on()

    assert place.talk().certificate == name_of(renewed)


def test_a_node_that_was_told_the_next_root_follows_the_broker_and_lets_the_old_one_go(
    place: Place,
) -> None:
    old, following = place.authority.pair.certificate_der, TestAuthority("next root")
    new = following.pair.certificate_der
    place.desire(None, old, new)
    place.talk()
    both = place.talk()

    place.changes_over(following)
    place.desire(None, new)
    place.talk()
    one = place.talk()

    assert (both.roots, both.credential_state) == (f"{name_of(old)} {name_of(new)}", "confirmed")
    assert (one.roots, one.credential_state) == (name_of(new), "confirmed")


def test_a_root_that_the_broker_does_not_come_from_is_given_up_again(place: Place) -> None:
    place.desire(None, TestAuthority("a mistake").pair.certificate_der)
    place.talk()

    back = place.talk()

    assert back.credential_state == "rolled_back"
    assert back.roots == name_of(place.authority.pair.certificate_der)


TAKE = """
from node import identity, renewal
class Config: node_id = NODE_ID
class Wake:
    config, credentials, has_new_credentials = Config, [None] * 3, False
    class state: pass
def show():
    record, certificate, roots = identity.load()
    print(identity.name(certificate), record.failures)
show()
for certificate in CERTIFICATES:
    renewal.take(Wake, certificate, None)
    show()
    renewal.note_failure(Wake)
    show()
renewal.confirm(Wake)
show()
"""


def test_whenever_the_power_goes_one_whole_certificate_holds(place: Place, tmp_path: Path) -> None:
    """What was shown last holds, or what would have been shown next."""
    certificates = [place.renewed() for _ in range(3)]
    script = TAKE.replace("NODE_ID", repr(nodes.NODE_ID)).replace(
        "CERTIFICATES", repr(certificates)
    )
    base = shutil.copytree(place.board.folder, tmp_path / "base")
    whole = nodes.run_on(Board(shutil.copytree(base, tmp_path / "whole")), script)
    # What is on trial steps back before another is written in its place.
    possible = [line.split()[0] for line in whole]

    operations = 0
    for operation in range(1, 100):
        cut = Board(shutil.copytree(base, tmp_path / "cut", dirs_exist_ok=True))
        cut.power_cut = PowerCutPlan(at_operation=operation, torn=operation % 2 == 1)
        try:
            nodes.run_on(cut, script)
        except ScriptFailed as failed:
            shown = str(failed).splitlines()
        else:
            break
        done = sum(line == expected for line, expected in zip(shown, whole, strict=False))
        operations = operation
        (found,) = nodes.run_on(
            cut,
            "from node import identity\nr, c, _ = identity.load()\nprint(identity.name(c))",
        )
        assert found in {possible[0], *possible[done - 1 : done + 1]}
    assert [name_of(one) for one in certificates] == possible[1::2][:3]
    assert operations >= 12, "every write was interrupted"


def test_a_node_that_was_enrolled_anew_has_nothing_of_what_was_renewed_before(place: Place) -> None:
    place.desire(place.renewed())
    place.talk()
    again = place.renewed()
    place.board.exec(
        f"import esp32\nn = esp32.NVS('id')\nn.set_blob('cert', {again!r})\nn.commit()"
    )
    place.desire()

    assert place.talk().certificate == name_of(again)


def test_the_end_of_a_certificate_is_read(shared_board: Board) -> None:
    ends = [
        datetime.datetime(2028, 11, 26, 23, 59, 58, tzinfo=datetime.UTC),
        datetime.datetime(2049, 12, 31, 0, 0, 1, tzinfo=datetime.UTC),
        datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC),
    ]
    authority = TestAuthority()
    certificates = [authority.issue("n-1", until=end).certificate_der for end in ends]

    printed = nodes.run_on(
        shared_board,
        f"from node import renewal\nfor c in {certificates!r}: print(renewal.not_after_s(c))",
    )

    assert [int(line) for line in printed] == [int(end.timestamp()) for end in ends]


def test_a_desired_state_of_a_server_that_knows_no_roots_is_taken(place: Place) -> None:
    message = cbor2.loads(encode_desired(DesiredState(1, {})))
    del message["roots"]
    place.broker.behaviour.desired = cbor2.dumps(message)

    assert place.talk().last_error is None
