"""One node cannot read, write or impersonate another: the same attacks on the embedded broker and on a real mosquitto.

Every attack says whether it succeeded. On the brokers as we ship them none does, a counter rises (mosquitto: its log), and the
true node goes on over the connection that it had. On the same brokers with the defences taken out, each succeeds: the attacks
are real ones.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from brokers import (
    Certificates,
    Embedded,
    Gone,
    Pair,
    RawClient,
    RunningBroker,
    connect_bytes,
    node_client,
    packet_bytes,
    publish_bytes,
    running_broker,
    running_embedded,
    service_client,
    wait_until,
)
from paho.mqtt.enums import CallbackAPIVersion

from fleet_server.broker.access import Client, ListenerName
from fleet_server.broker.embedded import EmbeddedBroker, Limits, PeerCertificate
from fleet_server.mqtt.kicking import end_session
from fleet_server.services import authority
from fleet_server.settings import load_settings

VICTIM, ATTACKER, LOST = "n-victim", "n-attacker", "n-lost"
MARK = b"attack"
SECRET = b"secret"
EVERYTHING = ("#", "+/+/+", "dn/#", "up/#", f"dn/{VICTIM}/rcpt", f"dn/{VICTIM}/#")


# --- the scene: a victim at work, an attacker with a certificate of its own, and the services


class Ingest:
    """svc-ingest, which takes and acknowledges everything."""

    def __init__(self, broker: RunningBroker) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="svc-ingest")
        pair = broker.certificates.service("svc-ingest")
        self.client.tls_set(
            str(broker.certificates.files.root_certificate), str(pair.certificate), str(pair.key)
        )
        self.client.on_message = lambda _c, _d, message: self.received.append(
            (message.topic, message.payload)
        )
        granted: list[object] = []
        self.client.on_subscribe = lambda *_: granted.append(True)
        self.client.connect("127.0.0.1", broker.service_port)
        self.client.loop_start()
        self.client.subscribe("up/#", 1)
        wait_until(lambda: granted)

    def has(self, payload: bytes) -> bool:
        return any(payload in got for _, got in self.received)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Scene:
    """What an attack finds."""

    broker: RunningBroker
    ingest: Ingest
    control: RawClient
    victim: RawClient
    victim_pair: Pair
    attacker_pair: Pair
    lost_pair: Pair
    strangers: Certificates
    _told: int = 0

    def attacker(self) -> RawClient:
        """The attacker, connected as itself."""
        client = node_client(self.broker, self.attacker_pair)
        assert client.connect(ATTACKER) == 0
        return client

    def victim_works(self) -> bool:
        """Over the connection that it had, the victim publishes and is heard, and hears what it is told."""
        self._told += 1
        word = f"word {self._told}".encode()
        try:
            self.victim.publish_and_wait(f"up/{VICTIM}/tm", word)
            self.control.publish_and_wait(f"dn/{VICTIM}/rcpt", word, is_retained=True)
            deadline = time.monotonic() + 5
            while word not in [payload for _, payload, _ in self.victim.received]:
                assert time.monotonic() < deadline
                self.victim.is_alive()
        except Gone:
            return False
        wait_until(lambda: self.ingest.has(word))
        return True

    def has_come_through(self, mark: bytes = MARK) -> bool:
        """The mark is somewhere that it should not be: at ingest, at the victim, or kept by the broker."""
        # What the victim says now comes after whatever the attack put on the way.
        self.victim_works()
        self.control.received.clear()
        self.control.subscribe("dn/#")
        kept = any(mark in payload for _, payload, _ in self.control.drain())
        reached = any(mark in payload for _, payload, _ in self.victim.received)
        return kept or reached or self.ingest.has(mark)


@contextmanager
def scene_on(broker: RunningBroker, strangers: Certificates, *, revoke: bool) -> Iterator[Scene]:
    certificates = broker.certificates
    victim_pair, lost_pair = certificates.node(VICTIM), certificates.node(LOST)
    if revoke:
        authority.revoke(certificates.folder, LOST)
        broker.revocations_changed()
    with ExitStack() as stack:
        ingest = Ingest(broker)
        stack.callback(ingest.close)
        control = stack.enter_context(service_client(broker, "svc-control"))
        victim = stack.enter_context(node_client(broker, victim_pair))
        assert victim.connect(VICTIM, keep_alive_s=60) == 0
        victim.subscribe(f"dn/{VICTIM}/rcpt", f"dn/{VICTIM}/des")
        yield Scene(
            broker,
            ingest,
            control,
            victim,
            victim_pair,
            certificates.node(ATTACKER),
            lost_pair,
            strangers,
        )


# --- attacks: each returns whether it succeeded


def publish_for_another(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        attacker.publish(f"up/{VICTIM}/tm", MARK)
        attacker.publish(f"up/{VICTIM}/st", MARK, qos=0)
        attacker.is_alive()
    return scene.has_come_through()


def publish_to_another(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        attacker.publish(f"dn/{VICTIM}/rcpt", MARK)
        attacker.is_alive()
    return scene.has_come_through()


def retain_over_anothers_topic(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        attacker.publish(f"dn/{VICTIM}/des", MARK, is_retained=True)
        attacker.is_alive()
    return scene.has_come_through()


def erase_what_is_retained_for_another(scene: Scene) -> bool:
    scene.victim_works()
    with scene.attacker() as attacker:
        attacker.publish(f"dn/{VICTIM}/rcpt", b"", is_retained=True)
        attacker.is_alive()
    scene.control.received.clear()
    scene.control.subscribe("dn/#")
    return f"dn/{VICTIM}/rcpt" not in [topic for topic, _, _ in scene.control.drain()]


def publish_over_the_services_epoch(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        attacker.publish("dn/_fleet/epoch", MARK, is_retained=True)
        attacker.is_alive()
    return scene.has_come_through()


def listen_to_everything(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        attacker.subscribe(*EVERYTHING)
        scene.victim.publish(f"up/{VICTIM}/tm", SECRET)
        scene.control.publish_and_wait(f"dn/{VICTIM}/rcpt", SECRET)
        return any(SECRET in payload for _, payload, _ in attacker.drain())


def read_what_is_retained_for_another(scene: Scene) -> bool:
    scene.control.publish_and_wait(f"dn/{VICTIM}/des", SECRET, is_retained=True)
    with scene.attacker() as attacker:
        attacker.subscribe(*EVERYTHING)
        return any(SECRET in payload for _, payload, _ in attacker.drain())


def take_anothers_client_id(scene: Scene) -> bool:
    with node_client(scene.broker, scene.attacker_pair) as attacker:
        attacker.connect(VICTIM)
        return not scene.victim_works()


def resume_anothers_session(scene: Scene) -> bool:
    with node_client(scene.broker, scene.attacker_pair) as attacker:
        attacker.connect(VICTIM, is_clean=False)
        scene.control.publish_and_wait(f"dn/{VICTIM}/rcpt", SECRET)
        heard = any(SECRET in payload for _, payload, _ in attacker.drain())
        return heard or not scene.victim_works()


def enter_by_the_services_door(scene: Scene) -> bool:
    return _gets_in(scene, scene.broker.service_port, scene.attacker_pair, ATTACKER)


def displace_ingest_by_the_services_door(scene: Scene) -> bool:
    return _gets_in(scene, scene.broker.service_port, scene.attacker_pair, "svc-ingest")


def enter_without_certificate(scene: Scene) -> bool:
    return _gets_in(scene, scene.broker.node_port, None, VICTIM)


def enter_with_a_strangers_certificate(scene: Scene) -> bool:
    return _gets_in(scene, scene.broker.node_port, scene.strangers.node(VICTIM), VICTIM)


def enter_with_a_revoked_certificate(scene: Scene) -> bool:
    return _gets_in(scene, scene.broker.node_port, scene.lost_pair, LOST)


def enter_with_the_brokers_own_certificate(scene: Scene) -> bool:
    pair = scene.broker.certificates.service("broker")
    return _gets_in(scene, scene.broker.node_port, pair, VICTIM)


def _gets_in(scene: Scene, port: int, pair: Pair | None, client_id: str) -> bool:
    trusted = scene.broker.certificates.files.root_certificate
    try:
        with RawClient(port, pair, trusted) as attacker:
            return attacker.connect(client_id) == 0
    except Gone:
        return False


def leave_a_will_for_another(scene: Scene) -> bool:
    with node_client(scene.broker, scene.attacker_pair) as attacker:
        attacker.connect(ATTACKER, will=(f"dn/{VICTIM}/rcpt", MARK, True))
    # The attacker has vanished without a word; the broker notices at once.
    return scene.has_come_through()


def publish_more_than_the_limit(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        try:
            attacker.publish_and_wait(f"up/{ATTACKER}/tm", MARK + bytes(70_000))
        except Gone:
            return False
    return scene.has_come_through()


@dataclass(frozen=True)
class Attack:
    """An attack, and whether mosquitto has a word for it in its log: what it silently makes harmless, it does not log."""

    run: Callable[[Scene], bool]
    is_logged_by_mosquitto: bool = True


ATTACKS = {
    attack.run.__name__: attack
    for attack in (
        Attack(publish_for_another),
        Attack(publish_to_another),
        Attack(retain_over_anothers_topic),
        Attack(erase_what_is_retained_for_another),
        Attack(publish_over_the_services_epoch),
        Attack(listen_to_everything, is_logged_by_mosquitto=False),
        Attack(read_what_is_retained_for_another, is_logged_by_mosquitto=False),
        Attack(take_anothers_client_id, is_logged_by_mosquitto=False),
        Attack(resume_anothers_session, is_logged_by_mosquitto=False),
        Attack(enter_by_the_services_door),
        Attack(displace_ingest_by_the_services_door),
        Attack(enter_without_certificate),
        Attack(enter_with_a_strangers_certificate),
        Attack(enter_with_a_revoked_certificate),
        Attack(enter_with_the_brokers_own_certificate),
        Attack(leave_a_will_for_another),
        Attack(publish_more_than_the_limit),
    )
}
each_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)


# --- brokers, with and without their defences


class OpenBroker(EmbeddedBroker):
    """The embedded broker with everything taken out that isolation rests on."""

    strangers: Certificates

    def make_context(self, _listener: ListenerName) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(
            self._authority.certificate("broker"), self._authority.key("broker")
        )
        return context

    def certificate_of(self, _writer: asyncio.StreamWriter) -> PeerCertificate:
        return PeerCertificate("whoever", 0)

    def identify(
        self, listener: ListenerName, _certificate: PeerCertificate, client_id: str
    ) -> Client:
        return Client(client_id, listener)

    def may_publish(self, _client: Client, _topic: str) -> bool:
        return True

    def may_subscribe(self, _client: Client, _topic_filter: str) -> bool:
        return True

    def may_retain(self, _client: Client) -> bool:
        return True


def without_defences(
    configuration: Path, certificates: Certificates, strangers: Certificates
) -> None:
    """Rewrite a mosquitto configuration of ours so that it trusts everybody."""
    folder = configuration.parent
    (folder / "everybody.pem").write_bytes(
        certificates.files.chain.read_bytes()
        + strangers.files.chain.read_bytes()
        + certificates.files.services_authority.certificate.read_bytes()
    )
    (folder / "everything").write_text("topic readwrite #\n")
    lines = []
    for line in configuration.read_text().splitlines():
        word = line.split(" ")[0]
        if word in (
            "crlfile",
            "max_packet_size",
            "use_username_as_clientid",
            "use_identity_as_username",
        ):
            continue
        lines.append(
            {
                "require_certificate": "require_certificate false",
                "allow_anonymous": "allow_anonymous true",
                "acl_file": f"acl_file {folder / 'everything'}",
                "cafile": f"cafile {folder / 'everybody.pem'}",
            }.get(word, line)
        )
    configuration.write_text("\n".join(lines) + "\n")


@contextmanager
def running_open(kind: str, folder: Path, strangers: Certificates) -> Iterator[RunningBroker]:
    certificates = Certificates(folder / "ca")
    if kind == "embedded":
        limits = Limits(packet_bytes=1_000_000)
        with running_embedded(certificates, kind=OpenBroker, limits=limits) as broker:
            yield broker
        return
    with running_broker(
        kind,
        certificates,
        folder,
        rewrite=lambda path: without_defences(path, certificates, strangers),
    ) as real:
        yield real


BROKERS = ["embedded", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that has nothing to do with this fleet."""
    return Certificates(tmp_path_factory.mktemp("strangers") / "ca")


def _kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=BROKERS)
def guarded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    strangers: Certificates,
) -> Iterator[Scene]:
    """One scene for all attacks on a broker as shipped: none may spoil it for the next."""
    folder = tmp_path_factory.mktemp("guarded")
    with (
        running_broker(_kind(request), Certificates(folder / "ca"), folder) as broker,
        scene_on(broker, strangers, revoke=True) as scene,
    ):
        yield scene


@pytest.fixture(scope="module", params=BROKERS)
def open_to_all(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    strangers: Certificates,
) -> Iterator[RunningBroker]:
    folder = tmp_path_factory.mktemp("open")
    with running_open(_kind(request), folder, strangers) as broker:
        yield broker


# --- the table


@each_attack
def test_attack_has_no_effect_is_counted_and_the_node_goes_on(
    guarded: Scene, attack: Attack
) -> None:
    assert guarded.victim_works()
    before = guarded.broker.refused()
    assert not attack.run(guarded)
    assert guarded.victim_works()
    if attack.is_logged_by_mosquitto or isinstance(guarded.broker, Embedded):
        wait_until(lambda: guarded.broker.refused() > before)


@each_attack
def test_attack_succeeds_without_the_defence(
    open_to_all: RunningBroker, strangers: Certificates, attack: Attack
) -> None:
    with scene_on(open_to_all, strangers, revoke=False) as scene:
        assert scene.victim_works()
        assert attack.run(scene)


def test_true_node_gets_in_after_another_was_refused_under_its_name(guarded: Scene) -> None:
    broker, node_id = guarded.broker, "n-late"
    for pair in (guarded.attacker_pair, guarded.strangers.node(node_id), None):
        _gets_in(guarded, broker.node_port, pair, node_id)
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
    "topic of no length": publish_bytes("", MARK, 1),
    "topic that is not UTF-8": packet_bytes(0x32, b"\0\2\xff\xfe\0\1attack"),
    "subscribe with wrong flags": packet_bytes(0x80, b"\0\1\0\1a\1"),
    "subscribe to nothing": packet_bytes(0x82, b"\0\1"),
    "subscribe cut short": packet_bytes(0x82, b"\0\1\0\x09a"),
    "unsubscribe cut short": packet_bytes(0xA2, b"\0\1\0\x09a"),
}


@pytest.mark.parametrize("data", BEFORE_CONNECT.values(), ids=BEFORE_CONNECT)
def test_nonsense_before_connect_ends_the_connection_only(guarded: Scene, data: bytes) -> None:
    before = guarded.broker.refused()
    with node_client(guarded.broker, guarded.attacker_pair, timeout_s=2.0) as attacker:
        attacker.send(data)
        assert not attacker.is_alive()
    assert guarded.victim_works()
    assert not guarded.ingest.has(MARK)
    wait_until(lambda: guarded.broker.refused() > before)


@pytest.mark.parametrize("data", AFTER_CONNECT.values(), ids=AFTER_CONNECT)
def test_nonsense_after_connect_ends_the_connection_only(guarded: Scene, data: bytes) -> None:
    before = guarded.broker.refused()
    with guarded.attacker() as attacker:
        attacker.send(data)
        attacker.is_alive()
    assert guarded.victim_works()
    assert not guarded.ingest.has(MARK)
    wait_until(lambda: guarded.broker.refused() > before)


def test_revoked_nodes_live_session_ends(guarded: Scene, tmp_path: Path) -> None:
    """On mosquitto a new list stops new connections only, so `fleet broker kick` takes the session away."""
    broker, node_id = guarded.broker, "n-gone"
    with node_client(broker, broker.certificates.node(node_id)) as node:
        assert node.connect(node_id) == 0
        authority.revoke(broker.certificates.folder, node_id)
        broker.revocations_changed()
        if not isinstance(broker, Embedded):
            shutil.copytree(broker.certificates.folder, tmp_path / "ca")
            url = f"mqtts://127.0.0.1:{broker.node_port}?service_port={broker.service_port}"
            end_session(load_settings({}, data_dir=tmp_path, broker_url=url), node_id)
        wait_until(lambda: not node.is_alive(), patience_s=5)
    assert guarded.victim_works()


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
    before = hasty.refused()
    with _say_nothing(hasty) as silent:
        assert silent.recv(1) == b""
    wait_until(lambda: hasty.refused() > before)


@pytest.mark.parametrize("beginning", [b"", connect_bytes("n-slow")[:5]], ids=["nothing", "a part"])
def test_one_who_never_ends_the_connect_is_cut_off(hasty: RunningBroker, beginning: bytes) -> None:
    before = hasty.refused()
    with node_client(hasty, hasty.certificates.node("n-slow")) as slow:
        slow.send(beginning)
        with pytest.raises(Gone):
            slow.packet()
    assert hasty.refused() > before


@pytest.mark.parametrize("beginning", [b"", b"\x32\x20ab"], ids=["nothing", "a part of a packet"])
def test_one_who_falls_silent_is_cut_off(hasty: RunningBroker, beginning: bytes) -> None:
    before = hasty.refused()
    with node_client(hasty, hasty.certificates.node("n-slow")) as slow:
        assert slow.connect("n-slow", keep_alive_s=0) == 0
        slow.send(beginning)
        with pytest.raises(Gone):
            slow.packet()
    assert hasty.refused() > before


def test_one_who_takes_nothing_is_cut_off_and_others_are_served(hasty: RunningBroker) -> None:
    before = hasty.refused()
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
            return hasty.refused() > before

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


def test_node_cannot_fill_the_brokers_memory_with_retained_messages(
    hasty: RunningBroker,
) -> None:
    with node_client(hasty, hasty.certificates.node("n-keeper")) as keeper:
        assert keeper.connect("n-keeper", keep_alive_s=600) == 0
        before = hasty.refused()
        keeper.publish_and_wait("up/n-keeper/tm", MARK, is_retained=True)
        assert hasty.refused() > before
    with service_client(hasty, "svc-ingest") as ingest:
        ingest.subscribe("up/#")
        assert ingest.drain() == []


def test_node_cannot_fill_the_brokers_memory_with_subscriptions(hasty: RunningBroker) -> None:
    with node_client(hasty, hasty.certificates.node("n-keeper")) as keeper:
        assert keeper.connect("n-keeper", keep_alive_s=600) == 0
        granted = keeper.subscribe(*(f"dn/n-keeper/{number}" for number in range(100)))
    assert 0 < granted.count(1) < 20
