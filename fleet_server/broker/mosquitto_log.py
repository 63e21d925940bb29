"""What mosquitto's log says (all of it, `-v`): who is connected, and what was refused.

mosquitto has no counter for what it denies. A denied message is one line at debug level
(github.com/eclipse-mosquitto/mosquitto/issues/3020), and two things it grants in words only: it takes every subscription and every
will, and drops later what the access file does not allow. Those lines are judged here by our own table (`access.py`).
Written against the lines of mosquitto 2.0.11, with the address in brackets that later ones add.

Pure: lines in, a tally out. Topics cannot forge lines: mosquitto ends a connection that sends control characters. It cuts lines at
1,000 bytes, so the end of one that holds a topic may be missing.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fleet_server.broker import access
from fleet_server.broker.access import Client, ListenerName
from fleet_server.broker.refusals import Refusal

# What it does all day. Nearly all lines are of this kind, so they are told apart before anything else.
_CHATTER = (b"Received ", b"Sending ", b"No will ")
# Connections that have not said CONNECT; they end without their address, so the oldest are forgotten.
_MOST_PENDING = 20_000
_NOBODY = "<unknown>"
_WENT_AWAY = "unexpected eof"
_LOST = "The connection was lost."

_ID = r"(?P<id>.+?)(?: \[[^\]]*\])?"
_ACCEPTED = re.compile(r"New connection from (?P<peer>\S+) on port (?P<port>\d+)\.")
_CONNECTED = re.compile(
    r"New (?:client|bridge) connected from (?P<peer>\S+) as (?P<id>.+) \(p\d+, c\d, k\d+(?:, u'(?P<user>.*)')?\)\."
)
_ENDED = re.compile(
    rf"Client {_ID} (?:(?P<closed>closed its connection|been disconnected by administrative action)\.|"
    r"(?P<late>has exceeded timeout), disconnecting\.|disconnected(?P<how>[,:.]? ?.*))"
)
_BROKEN = re.compile(rf"Bad socket read/write on client {_ID}: (?P<how>.*)")
_DENIED = re.compile(
    rf"Denied PUBLISH from {_ID} \(d\d, q\d, r\d, m\d+, '(?P<topic>.*?)(?:', \.\.\. \(\d+ bytes\)\))?"
)
_DANGEROUS = re.compile(
    r"ACL denying access to client with dangerous (?:username|client id) \"(?P<id>.*)\""
)
_SUBSCRIBED = re.compile(r"(?P<id>\S+) [012] (?P<topic>.*)")
_WILL = re.compile(r"Will message specified .*")
_WILL_TOPIC = re.compile(r"\t(?P<topic>.*)")
_TLS = re.compile(r"OpenSSL Error\[\d+\]: (?:error:[0-9A-F]+:)?(?P<detail>.*)")
_REFUSED_AT_ONCE = re.compile(r"Client connection from (?P<peer>\S+) failed: (?P<detail>.*)\.")
_TOO_MANY = re.compile(r"Unable to accept new connection, system socket count .*")
_RELOADING = re.compile(r"Reloading config\.")
_RUNNING = re.compile(r"mosquitto version \S+ running")

_ENDED_BY = (
    ("due to oversize", Refusal.PACKET_TOO_LARGE),
    ("due to malformed", Refusal.PACKET_MALFORMED),
    ("due to protocol", Refusal.PACKET_MALFORMED),
    ("due to QoS", Refusal.PACKET_MALFORMED),
    ("not authorised", Refusal.WRONG_LISTENER),
)


@dataclass(frozen=True)
class LiveSession:
    """One client that is connected."""

    client: Client | None
    """None: somebody without a certificate, at no door of ours."""
    lists: int
    """How often mosquitto had read its files when it judged this one's certificate."""


class MosquittoLog:
    """Reads one mosquitto's log from its start on.

    Args:
        doors: Which listener stands at which port.
        refuse: Told of every refusal, as `Tally.refuse` is.
        prefix: What stands in front of every topic.
    """

    def __init__(
        self,
        doors: Mapping[int, ListenerName],
        *,
        refuse: Callable[..., None],
        prefix: str = "",
    ) -> None:
        self._doors = doors
        self._refuse = refuse
        self._prefix = prefix
        self._pending: OrderedDict[str, tuple[ListenerName | None, int]] = OrderedDict()
        self._tls_detail = ""
        self._last_connected = ""
        self._will_of: str | None = None
        self.sessions: dict[str, LiveSession] = {}
        self.is_running = False
        self.reloads = 0
        self._own_words = (
            (_DENIED, self._denied),
            (_WILL, self._will_announced),
            (_TLS, self._tls_failed),
        )
        self._peoples_words = (
            (_ACCEPTED, self._accepted),
            (_CONNECTED, self._connected),
            (_REFUSED_AT_ONCE, self._refused_at_once),
            (_TOO_MANY, self._too_many),
            (_ENDED, self._ended),
            (_BROKEN, self._broken),
            (_DANGEROUS, self._dangerous),
            (_RELOADING, self._reloading),
            (_RUNNING, self._running),
        )

    def read(self, line: bytes) -> str | None:
        """Take in one line, its time in front; returns it without that when it is for people, too."""
        words = line.partition(b": ")[2]
        if words.startswith(_CHATTER):
            return None
        text = words.decode("utf-8", "replace").rstrip("\n")
        if text.startswith("\t"):
            self._read_will_topic(text)
            return None
        self._will_of = None
        for pattern, take in self._own_words:
            if match := pattern.fullmatch(text):
                take(match)
                return None
        if text.partition(" ")[0] in self.sessions:  # else it has subscribed or unsubscribed
            if match := _SUBSCRIBED.fullmatch(text):
                self._subscribed(match)
            return None
        for pattern, take in self._peoples_words:
            if match := pattern.fullmatch(text):
                take(match)
                break
        return text

    # --- coming

    def _accepted(self, line: re.Match[str]) -> None:
        self._pending[line["peer"]] = self._doors.get(int(line["port"])), self.reloads
        if len(self._pending) > _MOST_PENDING:
            self._pending.popitem(last=False)

    def _connected(self, line: re.Match[str]) -> None:
        door, lists = self._pending.pop(line["peer"], (None, self.reloads))
        client = None if door is None or line["user"] is None else Client(line["user"], door)
        self.sessions[line["id"]] = LiveSession(client, lists)
        self._last_connected = line["id"]

    def _will_announced(self, _line: re.Match[str]) -> None:
        self._will_of = self._last_connected

    def _read_will_topic(self, text: str) -> None:
        """The line after "Will message specified"; the same indentation lists what a SUBSCRIBE asks for."""
        match, client_id, self._will_of = _WILL_TOPIC.fullmatch(text), self._will_of, None
        client = self._client(client_id or "")
        if match is None or client is None:
            return
        if not access.may_publish(client, match["topic"], prefix=self._prefix):
            self._refuse(Refusal.WILL_DENIED, client=client_id, topic=match["topic"])

    # --- being there

    def _denied(self, line: re.Match[str]) -> None:
        self._refuse(Refusal.PUBLISH_DENIED, client=line["id"], topic=line["topic"])

    def _dangerous(self, line: re.Match[str]) -> None:
        self._refuse(Refusal.WRONG_LISTENER, client=line["id"])

    def _subscribed(self, line: re.Match[str]) -> None:
        client = self._client(line["id"])
        if client is None:
            return
        topic_filter = line["topic"]
        if client.listener is ListenerName.SERVICES and topic_filter.startswith("$share/"):
            topic_filter = topic_filter.split("/", 2)[-1]
        if not access.may_subscribe(client, topic_filter, prefix=self._prefix):
            self._refuse(Refusal.SUBSCRIBE_DENIED, client=line["id"], topic=line["topic"])

    def _client(self, client_id: str) -> Client | None:
        session = self.sessions.get(client_id)
        return session.client if session else None

    # --- going

    def _ended(self, line: re.Match[str]) -> None:
        client_id, tls_detail, self._tls_detail = line["id"], self._tls_detail, ""
        self.sessions.pop(client_id, None)
        is_nobody = client_id == _NOBODY
        if line["late"]:
            late = Refusal.CONNECT_TIMED_OUT if is_nobody else Refusal.PACKET_TIMED_OUT
            self._refuse(late, client=client_id)
            return
        how = line["how"] or ""
        for words, refusal in _ENDED_BY:
            if words in how:
                is_early = is_nobody and refusal is Refusal.PACKET_MALFORMED
                self._refuse(Refusal.CONNECT_MALFORMED if is_early else refusal, client=client_id)
                return
        if is_nobody:
            self._ended_before_connect(tls_detail)

    def _tls_failed(self, line: re.Match[str]) -> None:
        """Said before the line that ends the connection."""
        self._tls_detail = line["detail"]

    def _ended_before_connect(self, tls_detail: str) -> None:
        if not tls_detail:
            self._refuse(Refusal.CONNECT_MALFORMED)
        elif _WENT_AWAY not in tls_detail:
            self._refuse(Refusal.HANDSHAKE_FAILED, detail=tls_detail)

    def _broken(self, line: re.Match[str]) -> None:
        self.sessions.pop(line["id"], None)
        self._tls_detail = ""
        if line["how"] != _LOST:
            self._refuse(Refusal.PACKET_MALFORMED, client=line["id"], detail=line["how"])

    def _refused_at_once(self, line: re.Match[str]) -> None:
        """All of the handshake's first words had arrived with the connection."""
        self._refuse(Refusal.HANDSHAKE_FAILED, peer=line["peer"], detail=line["detail"])

    def _too_many(self, _line: re.Match[str]) -> None:
        self._refuse(Refusal.CONNECTIONS_EXCEEDED)

    # --- itself

    def _reloading(self, _line: re.Match[str]) -> None:
        self.reloads += 1

    def _running(self, _line: re.Match[str]) -> None:
        self.is_running = True
