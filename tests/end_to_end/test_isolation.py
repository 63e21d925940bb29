"""One node cannot read, write or impersonate another: the same attacks on the embedded broker and on a real mosquitto.

On the brokers as we ship them no attack of the table (`defences.py`) succeeds, a counter that the operator sees rises, and the true
node goes on over the connection that it had. Without exactly the defences that its row names, and with all others, each succeeds;
where a row names several, any one of them is enough.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacks import ATTACKER, MARK, Cast, Scene, make_cast, scene_on
from brokers import (
    Certificates,
    Gone,
    RunningBroker,
    connect_bytes,
    node_client,
    packet_bytes,
    publish_bytes,
    running_embedded,
    service_client,
    wait_until,
)
from defences import TABLE, Defence, Impossible, Row, Stopped, running_without

from fleet_server.broker.embedded import Limits

KINDS = ("embedded", "mosquitto")
DOCUMENT = Path(__file__).parents[2] / "docs/security/what_protects_what.md"


def _on(kind: str, *values: object, name: str) -> object:
    marks = [pytest.mark.needs_mosquitto] if kind == "mosquitto" else []
    return pytest.param(kind, *values, marks=marks, id=f"{kind}-{name}")


@pytest.fixture(scope="module")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Cast:
    folder = tmp_path_factory.mktemp("authorities")
    return make_cast(Certificates(folder / "ca"), Certificates(folder / "strangers" / "ca"))


@pytest.fixture(scope="module", params=[_on(kind, name="guarded") for kind in KINDS])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, cast: Cast
) -> Iterator[Scene]:
    """One scene for all attacks on a broker as shipped: none may spoil it for the next."""
    kind = str(request.param)
    with (
        running_without(kind, (), cast, tmp_path_factory.mktemp("guarded")) as stage,
        scene_on(stage.broker, cast, public_port=stage.public_port) as scene,
    ):
        yield scene


def _kind_of(scene: Scene) -> str:
    return "embedded" if scene.public_port is None else "mosquitto"


def _succeeds(row: Row, kind: str, missing: tuple[Defence, ...], cast: Cast, folder: Path) -> bool:
    with (
        running_without(kind, missing, cast, folder) as stage,
        scene_on(stage.broker, cast, public_port=stage.public_port, changes=stage.changes) as scene,
    ):
        # Where certificates are neither asked for nor looked at, mosquitto does not know the victim either.
        is_nameless = kind == "mosquitto" and {Defence.CERTIFICATE, Defence.USER} & set(missing)
        assert is_nameless or scene.victim_works()
        return row.attack(scene)


# --- the table


@pytest.mark.parametrize(
    ("guarded", "row"),
    [
        _on(kind, row, name=row.name)
        for kind in KINDS
        for row in TABLE
        if isinstance(row.on(kind), Stopped) or row.on(kind).counted_as
    ],
    indirect=["guarded"],
)
def test_attack_has_no_effect_is_counted_and_the_node_goes_on(guarded: Scene, row: Row) -> None:
    on_this = row.on(_kind_of(guarded))
    tally = guarded.broker.tally.refused

    def counted() -> int:
        return sum(tally[reason] for reason in on_this.counted_as)

    before = counted()
    assert guarded.victim_works()
    assert not row.attack(guarded)
    assert guarded.victim_works()
    if on_this.counted_as:
        wait_until(lambda: counted() > before)


@pytest.mark.parametrize(
    ("kind", "row", "missing"),
    [
        _on(kind, row, row.on(kind).by, name=row.name)
        for kind in KINDS
        for row in TABLE
        if isinstance(row.on(kind), Stopped)
        and all(one.can_be_taken_out() for one in row.on(kind).by)
    ],
)
def test_attack_succeeds_without_exactly_the_defences_of_its_row(
    kind: str, row: Row, missing: tuple[Defence, ...], cast: Cast, tmp_path: Path
) -> None:
    assert _succeeds(row, kind, missing, cast, tmp_path)


@pytest.mark.parametrize(
    ("kind", "row", "missing"),
    [
        _on(
            kind,
            row,
            (*row.on(kind).by[:at], *row.on(kind).by[at + 1 :]),
            name=f"{row.name}-{one.name}",
        )
        for kind in KINDS
        for row in TABLE
        if isinstance(row.on(kind), Stopped) and len(row.on(kind).by) > 1
        for at, one in enumerate(row.on(kind).by)
        if all(other.can_be_taken_out() for other in row.on(kind).by if other is not one)
    ],
)
def test_each_of_several_defences_is_enough_without_the_others(
    kind: str, row: Row, missing: tuple[Defence, ...], cast: Cast, tmp_path: Path
) -> None:
    assert not _succeeds(row, kind, missing, cast, tmp_path)


def test_document_tells_what_stops_what_as_the_table_does() -> None:
    shown = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if "| `" in line]
    wanted = [_as_told(row) for row in TABLE]
    assert [line for line in wanted if line not in shown] == []


def _as_told(row: Row) -> str:
    """A row as docs/security/what_protects_what.md has it."""
    cells = [f"`{row.name}`"]
    for kind in KINDS:
        on_this = row.on(kind)
        if isinstance(on_this, Impossible):
            told = f"– {on_this.because}"
        else:
            told = "; ".join(one.says for one in on_this.by)
        counted = " or ".join(f"`{reason.value}`" for reason in on_this.counted_as)
        cells.append(f"{told} ({counted})" if counted else told)
    return "| " + " | ".join(cells) + " |"


# --- what is no attack on another, and what only time decides


def test_true_node_gets_in_after_another_was_refused_under_its_name(guarded: Scene) -> None:
    broker, node_id, cast = guarded.broker, "n-late", guarded.cast
    for pair in (cast.strangers.node(node_id), None):
        assert not guarded.gets_in(broker.node_port, pair, node_id)
    guarded.gets_in(broker.node_port, cast.attacker, node_id)
    with node_client(broker, broker.certificates.node(node_id)) as node:
        assert node.connect(node_id) == 0
        node.publish_and_wait(f"up/{node_id}/tm", b"at last")
    wait_until(lambda: guarded.ingest.has(b"at last"))
    assert guarded.victim_works()


BEFORE_CONNECT = {
    "publish": publish_bytes(f"up/{ATTACKER}/tm", MARK, 1),
    "subscribe": packet_bytes(0x82, b"\0\1\0\1#\1"),
    "reserved type": b"\x00\x00",
    "endless length": b"\x10\xff\xff\xff\xff\x7f",
    "no protocol name": packet_bytes(0x10, b""),
    "wrong protocol": packet_bytes(0x10, b"\0\4MQTX\4\2\0\x3c\0\3n-1"),
    "client id longer than the packet": packet_bytes(0x10, b"\0\4MQTT\4\2\0\x3c\xff\xff"),
    "reserved flag": packet_bytes(0x10, b"\0\4MQTT\4\3\0\x3c\0\x0an-attacker"),
    "http": b"GET / HTTP/1.1\r\n\r\n",
}
AFTER_CONNECT = {
    "second connect": connect_bytes(ATTACKER),
    "reserved type 0": b"\x00\x00",
    "reserved type 15": b"\xf0\x00",
    "connack": b"\x20\x02\0\0",
    "endless length": b"\x30\xff\xff\xff\xff\x7f",
    "QoS 3": b"\x36\x07\0\1a\0\1xx",
    "topic longer than the packet": b"\x32\x04\xff\xff\0\1",
    "topic with a wildcard": publish_bytes(f"up/{ATTACKER}/#", MARK, 1),
    "topic with a line of log in it": publish_bytes(
        f"up/{ATTACKER}/tm', ... (1 bytes))\n1: Denied PUBLISH from n-victim (d0, q0, r0, m0, 'x",
        MARK,
        1,
    ),
    "topic of no length": publish_bytes("", MARK, 1),
    "topic that is not UTF-8": packet_bytes(0x32, b"\0\2\xff\xfe\0\1attack"),
    "subscribe with wrong flags": packet_bytes(0x80, b"\0\1\0\1a\1"),
    "subscribe to nothing": packet_bytes(0x82, b"\0\1"),
    "subscribe cut short": packet_bytes(0x82, b"\0\1\0\x09a"),
    "unsubscribe cut short": packet_bytes(0xA2, b"\0\1\0\x09a"),
}


@pytest.mark.parametrize("data", BEFORE_CONNECT.values(), ids=BEFORE_CONNECT)
def test_nonsense_before_connect_ends_the_connection_only(guarded: Scene, data: bytes) -> None:
    before = guarded.broker.tally.refused.total()
    with node_client(guarded.broker, guarded.cast.attacker, timeout_s=2.0) as attacker:
        attacker.send(data)
        assert not attacker.is_alive()
    assert guarded.victim_works()
    assert not guarded.ingest.has(MARK)
    wait_until(lambda: guarded.broker.tally.refused.total() > before)


@pytest.mark.parametrize("data", AFTER_CONNECT.values(), ids=AFTER_CONNECT)
def test_nonsense_after_connect_ends_the_connection_only(guarded: Scene, data: bytes) -> None:
    before = guarded.broker.tally.refused.total()
    with guarded.attacker() as attacker:
        attacker.send(data)
        attacker.is_alive()
    assert guarded.victim_works()
    assert not guarded.ingest.has(MARK)
    wait_until(lambda: guarded.broker.tally.refused.total() > before)


# --- what only time decides: the embedded broker with short limits


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBroker]:
    certificates = Certificates(tmp_path_factory.mktemp("hasty") / "ca")
    limits = Limits(handshake_s=0.3, connect_s=0.3, packet_s=0.3, send_s=0.3, idle_s=0.8)
    with running_embedded(certificates, limits=limits) as broker:
        yield broker


def _say_nothing(broker: RunningBroker) -> socket.socket:
    return socket.create_connection(("127.0.0.1", broker.node_port), timeout=5)


def test_one_who_never_begins_the_handshake_is_cut_off(hasty: RunningBroker) -> None:
    before = hasty.tally.refused.total()
    with _say_nothing(hasty) as silent:
        assert silent.recv(1) == b""
    wait_until(lambda: hasty.tally.refused.total() > before)


@pytest.mark.parametrize("beginning", [b"", connect_bytes("n-slow")[:5]], ids=["nothing", "a part"])
def test_one_who_never_ends_the_connect_is_cut_off(hasty: RunningBroker, beginning: bytes) -> None:
    before = hasty.tally.refused.total()
    with node_client(hasty, hasty.certificates.node("n-slow")) as slow:
        slow.send(beginning)
        with pytest.raises(Gone):
            slow.packet()
    assert hasty.tally.refused.total() > before


@pytest.mark.parametrize("beginning", [b"", b"\x32\x20ab"], ids=["nothing", "a part of a packet"])
def test_one_who_falls_silent_is_cut_off(hasty: RunningBroker, beginning: bytes) -> None:
    before = hasty.tally.refused.total()
    with node_client(hasty, hasty.certificates.node("n-slow")) as slow:
        assert slow.connect("n-slow", keep_alive_s=0) == 0
        slow.send(beginning)
        with pytest.raises(Gone):
            slow.packet()
    assert hasty.tally.refused.total() > before


def test_one_who_takes_nothing_is_cut_off_and_others_are_served(hasty: RunningBroker) -> None:
    before = hasty.tally.refused.total()
    pair = hasty.certificates.node("n-stuck")
    with (
        service_client(hasty, "svc-control") as control,
        node_client(hasty, pair) as stuck,
        node_client(hasty, hasty.certificates.node("n-well")) as well,
    ):
        stuck.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert stuck.connect("n-stuck", keep_alive_s=600) == 0
        stuck.subscribe("dn/n-stuck/des")
        assert well.connect("n-well", keep_alive_s=600) == 0
        well.subscribe("dn/n-well/des")

        def is_cut_off() -> bool:
            for _ in range(20):
                control.publish_and_wait("dn/n-stuck/des", bytes(60_000))
            return hasty.tally.refused.total() > before

        wait_until(is_cut_off)
        control.publish_and_wait("dn/n-well/des", b"hello")
        assert ("dn/n-well/des", b"hello", False) in well.drain()


def test_without_the_time_limits_the_silent_stay(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path / "ca")
    endless = Limits(handshake_s=3600, connect_s=3600, packet_s=3600, send_s=3600, idle_s=3600)
    with (
        running_embedded(certificates, limits=endless) as broker,
        node_client(broker, certificates.node("n-slow")) as slow,
    ):
        slow.send(connect_bytes("n-slow")[:5])
        with pytest.raises(TimeoutError):
            slow.packet(timeout_s=1.0)


@pytest.mark.parametrize("guarded", ["embedded"], indirect=True)
def test_node_cannot_fill_the_brokers_memory_with_subscriptions(guarded: Scene) -> None:
    """On mosquitto it can (docs/security/what_protects_what.md)."""
    with guarded.attacker() as attacker:
        granted = attacker.subscribe(*(f"dn/{ATTACKER}/{number}" for number in range(100)))
    assert granted == [0x80] * 100
