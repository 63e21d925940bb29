"""Attacks: by one node on another, by somebody at a door; each says whether it succeeded. What stops which: `defences.py`."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import paho.mqtt.client as mqtt
from brokers import (
    CONNACK,
    Certificates,
    Gone,
    Pair,
    RawClient,
    RunningBroker,
    node_client,
    packet_bytes,
    service_client,
    text_bytes,
    wait_until,
)
from paho.mqtt.enums import CallbackAPIVersion

from fleet_server.errors import Invalid
from fleet_server.services import authority

VICTIM, ATTACKER, LOST = "n-victim", "n-attacker", "n-lost"
MARK = b"attack"
SECRET = b"secret"
EVERYTHING = ("#", "+/+/+", "dn/#", "up/#", f"dn/{VICTIM}/rcpt", f"dn/{VICTIM}/#")
# More than the files that a mosquitto of these tests begins with.
FLOOD = 80
# Well beyond the second that a broker takes to look at its revocation lists, and the answer to a packet.
_REVOCATION_S, _ANSWER_S = 3.0, 1.5
_numbers = itertools.count(1)


# --- the scene: a victim at work, an attacker with a certificate of its own, and the services


@dataclass(frozen=True)
class Cast:
    """Who plays, with their certificates; made once."""

    certificates: Certificates
    strangers: Certificates
    """An authority that has nothing to do with this fleet."""
    victim: Pair
    attacker: Pair
    lost: Pair
    """Revoked before anything begins."""


def make_cast(certificates: Certificates, strangers: Certificates) -> Cast:
    victim, attacker, lost = map(certificates.node, (VICTIM, ATTACKER, LOST))
    authority.revoke(certificates.folder, LOST)
    return Cast(certificates, strangers, victim, attacker, lost)


class Ingest:
    """svc-ingest, which takes and acknowledges everything."""

    def __init__(self, broker: RunningBroker) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.kept: set[str] = set()
        """Topics that the broker had retained when it was last asked."""
        self.times_lost = 0
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="svc-ingest")
        pair = broker.certificates.service("svc-ingest")
        self.client.tls_set(
            str(broker.certificates.files.root_certificate), str(pair.certificate), str(pair.key)
        )
        self.client.on_message = self._on_message
        self.client.on_disconnect = self._on_disconnect
        self._granted = 0
        self.client.on_subscribe = self._on_subscribe
        self.client.connect("127.0.0.1", broker.service_port)
        self.client.loop_start()
        self.subscribe()

    def subscribe(self) -> None:
        """Also a second time: the broker sends all that it has retained."""
        before = self._granted
        self.client.subscribe("up/#", 1)
        wait_until(lambda: self._granted > before)

    def _on_subscribe(self, *_: object) -> None:
        self._granted += 1

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.retain:
            self.kept.add(message.topic)
        else:
            self.received.append((message.topic, message.payload))

    def _on_disconnect(self, *_: object) -> None:
        self.times_lost += 1

    def has(self, payload: bytes) -> bool:
        return any(payload in got for _, got in self.received)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Scene:
    """What an attack finds."""

    broker: RunningBroker
    cast: Cast
    ingest: Ingest
    control: RawClient
    closing: ExitStack
    """Ends what is opened on the way, after the attack."""
    public_port: int | None
    """Where anyone may read what is public; None = nowhere."""
    signs_every_name: bool
    """Whether the authority gives a node whatever name it asks for."""
    listener_pair: Pair
    """What the broker shows its clients; an attacker has copied it."""
    ingest_group: str
    """What several ingest processes call themselves."""
    _told: int = 0

    @cached_property
    def victim(self) -> RawClient:
        """The victim, connected when it is first asked for."""
        client = self.closing.enter_context(node_client(self.broker, self.cast.victim))
        assert client.connect(VICTIM, keep_alive_s=60) == 0
        client.subscribe(f"dn/{VICTIM}/rcpt", f"dn/{VICTIM}/des")
        return client

    def attacker(self) -> RawClient:
        """The attacker, connected as itself."""
        client = node_client(self.broker, self.cast.attacker)
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

    def has_come_through(self) -> bool:
        """The mark is somewhere that it should not be: at ingest, at the victim, or kept by the broker."""
        # What the victim says now comes after whatever the attack put on the way.
        self.victim_works()
        self.control.received.clear()
        self.control.subscribe("dn/#")
        kept = any(MARK in payload for _, payload, _ in self.control.drain())
        reached = any(MARK in payload for _, payload, _ in self.victim.received)
        return kept or reached or self.ingest.has(MARK)

    def kept_below(self, beginning: str) -> set[str]:
        """Topics below `up/` that the broker has retained."""
        self.ingest.kept.clear()
        self.ingest.subscribe()
        assert self.victim_works()  # comes after all that was kept
        return {topic for topic in self.ingest.kept if topic.startswith(beginning)}

    def certificate_for(self, name: str) -> Pair | None:
        """What the authority gives to a node that asks for this name; None when it refuses."""
        if self.signs_every_name:
            return self.cast.certificates.forged(name)
        with suppress(Invalid):
            return self.cast.certificates.node(name)
        return None

    def gets_in(self, port: int, pair: Pair | None, client_id: str) -> bool:
        try:
            with RawClient(port, pair, self.cast.certificates.files.root_certificate) as attacker:
                return attacker.connect(client_id) == 0
        except Gone:
            return False


@contextmanager
def scene_on(
    broker: RunningBroker,
    cast: Cast,
    *,
    public_port: int | None = None,
    changes: Mapping[str, object] | None = None,
) -> Iterator[Scene]:
    """The scene on a running broker. `changes`: fields that are otherwise, because a defence is missing."""
    usual: dict[str, Any] = {
        "signs_every_name": False,
        "listener_pair": cast.certificates.service("broker"),
        "ingest_group": authority.ingest_group(cast.certificates.folder),
    }
    with ExitStack() as stack:
        ingest = Ingest(broker)
        stack.callback(ingest.close)
        control = stack.enter_context(service_client(broker, "svc-control"))
        fields = {**usual, **(changes or {})}
        yield Scene(broker, cast, ingest, control, stack, public_port, **fields)


# --- writing where one may not


def publish_for_another(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        attacker.publish(f"up/{VICTIM}/tm", MARK)
        attacker.publish(f"up/{VICTIM}/st", MARK, qos=0)
        attacker.is_alive()
    return scene.has_come_through()


def publish_for_another_by_an_alias(scene: Scene) -> bool:
    """In MQTT 5.0 (section 3.3.2.3.4) a number can stand for a topic; here for one that was denied just before."""
    alias = b"\x03\x23\x00\x01"
    with node_client(scene.broker, scene.cast.attacker) as attacker:
        try:
            connect = text_bytes("MQTT") + b"\x05\x02\x00\x1e\x00" + text_bytes(ATTACKER)
            attacker.send(packet_bytes(0x10, connect))
            attacker.wait_for(CONNACK)
            topic = text_bytes(f"up/{VICTIM}/tm")
            attacker.send(packet_bytes(0x32, topic + b"\x00\x01" + alias + b"first"))
            attacker.send(packet_bytes(0x32, text_bytes("") + b"\x00\x02" + alias + MARK))
        except Gone:
            return False
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


def retain_over_the_services_epoch(scene: Scene) -> bool:
    """The worker would publish every state again, over and over."""
    with scene.attacker() as attacker:
        attacker.publish("dn/_fleet/epoch", MARK, is_retained=True)
        attacker.is_alive()
    scene.control.received.clear()
    scene.control.subscribe("dn/_fleet/epoch")
    return MARK in [payload for _, payload, _ in scene.control.drain()]


def fill_the_store_under_ones_own_name(scene: Scene) -> bool:
    """As many retained messages as one likes, of 64 KiB each: a node has three topics."""
    with scene.attacker() as attacker:
        for number in range(10):
            attacker.publish(f"up/{ATTACKER}/{number}", MARK, is_retained=True)
        attacker.is_alive()
    return len(scene.kept_below(f"up/{ATTACKER}/")) > 3


def leave_a_will_for_another(scene: Scene) -> bool:
    with node_client(scene.broker, scene.cast.attacker) as attacker:
        attacker.connect(ATTACKER, will=(f"dn/{VICTIM}/rcpt", MARK, True))
    # The attacker has vanished without a word; the broker notices at once.
    return scene.has_come_through()


# --- reading what one may not


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


def take_ingests_share(scene: Scene) -> bool:
    """Each member of a group gets its share of the packs; what falls to one that may not read them vanishes."""
    pair = scene.cast.certificates.service("svc-ingest")
    trusted = scene.cast.certificates.files.root_certificate
    packs = {b"pack %d" % number for number in range(6)}
    with (
        RawClient(scene.broker.service_port, pair, trusted) as one_of_several,
        scene.attacker() as attacker,
    ):
        assert one_of_several.connect("svc-ingest-one") == 0
        one_of_several.subscribe(f"$share/{scene.ingest_group}/up/#")
        attacker.subscribe("$share/ingest/up/#", "$share/svc-ingest/up/#")
        for pack in packs:
            scene.victim.publish_and_wait(f"up/{VICTIM}/tm", pack)
        return not packs <= {payload for _, payload, _ in one_of_several.drain()}


# --- being another


def take_anothers_client_id(scene: Scene) -> bool:
    """Throws the other out, and hears what it is told."""
    with node_client(scene.broker, scene.cast.attacker) as attacker:
        if attacker.connect(VICTIM) == 0:
            attacker.subscribe(f"dn/{VICTIM}/rcpt")
        return not scene.victim_works()


def resume_anothers_session(scene: Scene) -> bool:
    """Somebody has let the broker keep its session; it is away, and something comes for it."""
    node_id, topic = "n-sleeper", "dn/n-sleeper/rcpt"
    with node_client(scene.broker, scene.cast.certificates.node(node_id)) as sleeper:
        assert sleeper.connect(node_id, is_clean=False) == 0
        sleeper.subscribe(topic)
        sleeper.goodbye()
    scene.control.publish_and_wait(topic, SECRET)
    with node_client(scene.broker, scene.cast.attacker) as attacker:
        if attacker.connect(node_id, is_clean=False) != 0:
            return False
        heard = any(SECRET in payload for _, payload, _ in attacker.drain())
        attacker.subscribe(topic)
        return heard


def displace_a_node_by_the_public_door(scene: Scene) -> bool:
    """Anyone may come in there, without a certificate and under any client id."""
    assert scene.public_port is not None
    trusted = scene.cast.certificates.files.root_certificate
    with RawClient(scene.public_port, None, trusted) as anyone:
        assert anyone.connect(VICTIM) == 0
        return not scene.victim_works()


def be_a_service_by_name(scene: Scene) -> bool:
    """A node's certificate, but with the name of a service that may write to all, and whose session one would take."""
    pair = scene.certificate_for("svc-control")
    if pair is None:
        return False
    with suppress(Gone), node_client(scene.broker, pair) as attacker:
        if attacker.connect("svc-control") != 0:
            return False
        attacker.publish(f"dn/{VICTIM}/des", MARK)
        attacker.is_alive()
        reached = any(MARK in payload for _, payload, _ in scene.victim.drain())
        return reached or not scene.control.is_alive()
    return False


def be_everybody_by_a_wildcard_name(scene: Scene) -> bool:
    """With `+` in the place of a name, everybody's topics would be one's own."""
    pair = scene.certificate_for("+")
    if pair is None:
        return False
    with suppress(Gone), node_client(scene.broker, pair) as attacker:
        if attacker.connect("+") != 0:
            return False
        attacker.subscribe("dn/+/rcpt")
        scene.control.publish_and_wait(f"dn/{VICTIM}/rcpt", SECRET)
        return any(SECRET in payload for _, payload, _ in attacker.drain())
    return False


# --- coming in


def enter_by_the_services_door(scene: Scene) -> bool:
    return scene.gets_in(scene.broker.service_port, scene.cast.attacker, ATTACKER)


def displace_ingest_by_the_services_door(scene: Scene) -> bool:
    before = scene.ingest.times_lost
    if not scene.gets_in(scene.broker.service_port, scene.cast.attacker, "svc-ingest"):
        return False
    wait_until(lambda: scene.ingest.times_lost > before)
    return True


def enter_the_nodes_door_as_a_service(scene: Scene) -> bool:
    """With a copied key, from where the services' door cannot be reached."""
    pair = scene.cast.certificates.service("svc-ingest")
    return scene.gets_in(scene.broker.node_port, pair, "svc-ingest")


def enter_without_certificate(scene: Scene) -> bool:
    return scene.gets_in(scene.broker.node_port, None, VICTIM)


def enter_with_a_strangers_certificate(scene: Scene) -> bool:
    return scene.gets_in(scene.broker.node_port, scene.cast.strangers.node(VICTIM), VICTIM)


def enter_with_the_brokers_own_certificate(scene: Scene) -> bool:
    return scene.gets_in(scene.broker.node_port, scene.listener_pair, "localhost")


def enter_with_a_revoked_certificate(scene: Scene) -> bool:
    return scene.gets_in(scene.broker.node_port, scene.cast.lost, LOST)


def come_back_after_revocation(scene: Scene) -> bool:
    """The broker has been running when the node was revoked."""
    node_id = f"n-leaving-{next(_numbers)}"
    pair = scene.cast.certificates.node(node_id)
    assert scene.gets_in(scene.broker.node_port, pair, node_id)
    authority.revoke(scene.cast.certificates.folder, node_id)
    return not _becomes(lambda: not scene.gets_in(scene.broker.node_port, pair, node_id))


def stay_after_revocation(scene: Scene) -> bool:
    """A stolen node that never hangs up."""
    node_id = f"n-staying-{next(_numbers)}"
    with node_client(scene.broker, scene.cast.certificates.node(node_id)) as node:
        assert node.connect(node_id) == 0
        authority.revoke(scene.cast.certificates.folder, node_id)
        return not _becomes(lambda: not node.is_alive())


def _becomes(is_so: Callable[[], bool]) -> bool:
    """Whether it is so within what a broker may take to notice a revocation."""
    deadline = time.monotonic() + _REVOCATION_S
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.02)
    return False


# --- being too much


def publish_more_than_the_limit(scene: Scene) -> bool:
    with scene.attacker() as attacker:
        try:
            attacker.publish_and_wait(f"up/{ATTACKER}/tm", MARK + bytes(70_000))
        except Gone:
            return False
    return scene.has_come_through()


def announce_more_than_the_limit(scene: Scene) -> bool:
    """A CONNECT of 90,000 bytes, whose sender takes its time: the broker waits for it, or ends it at the first five."""
    with node_client(scene.broker, scene.cast.attacker) as attacker:
        attacker.send(b"\x10\x90\xbf\x05" + text_bytes("MQTT"))
        try:
            attacker.packet(timeout_s=_ANSWER_S)
        except Gone:
            return False
        except TimeoutError:
            return True
    return False


def keep_the_services_out_by_a_flood(scene: Scene) -> bool:
    """Connections that say nothing at the nodes' door, until the broker has no file left for another."""
    pair = scene.cast.certificates.service("svc-ingest")
    with ExitStack() as flood:
        for _ in range(FLOOD):
            address = ("127.0.0.1", scene.broker.node_port)
            flood.enter_context(socket.create_connection(address, timeout=5))
        return not scene.gets_in(scene.broker.service_port, pair, "svc-ingest-late")
