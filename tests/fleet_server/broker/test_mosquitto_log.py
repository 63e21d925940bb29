"""What mosquitto's log tells, line by line; that a real one writes such lines is shown in tests/end_to_end/test_isolation.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.broker.access import Client, ListenerName
from fleet_server.broker.mosquitto_log import MosquittoLog
from fleet_server.broker.refusals import Tally

NODE_PORT, SERVICE_PORT = 8883, 8884
DOORS = {NODE_PORT: ListenerName.NODES, SERVICE_PORT: ListenerName.SERVICES}
NODE = "n-1a2b3c"


def connected(name: str, *, client_id: str | None = None, port: int = NODE_PORT) -> list[str]:
    peer = "127.0.0.1:40000"
    return [
        f"New connection from {peer} on port {port}.",
        f"New client connected from {peer} as {client_id or name} (p2, c1, k30, u'{name}').",
        "No will message specified.",
        f"Sending CONNACK to {client_id or name} (0, 0)",
    ]


def read(*lines: str, prefix: str = "") -> tuple[MosquittoLog, dict[str, int]]:
    tally = Tally()
    log = MosquittoLog(DOORS, refuse=tally.refuse, prefix=prefix)
    for line in lines:
        log.read(f"1795766254: {line}\n".encode())
    return log, {reason.value: count for reason, count in tally.refused.items()}


OPENSSL = "OpenSSL Error[0]: error:0A000086:SSL routines::certificate verify failed"
WENT_AWAY = "OpenSSL Error[0]: error:0A000126:SSL routines::unexpected eof while reading"
REFUSALS: dict[str, tuple[list[str], str | None]] = {
    "a denied message": (
        [f"Denied PUBLISH from {NODE} (d0, q1, r0, m1, 'up/n-x/tm', ... (6 bytes))"],
        "publish_denied",
    ),
    "one whose topic imitates the line's end": (
        [f"Denied PUBLISH from {NODE} (d0, q1, r0, m1, 'a', ... (6 bytes))', ... (6 bytes))"],
        "publish_denied",
    ),
    "one that is cut at 1,000 bytes": (
        [f"Denied PUBLISH from {NODE} (d0, q1, r0, m1, 'up/n-x/{'y' * 930}"],
        "publish_denied",
    ),
    "a message of its own": (
        [f"Received PUBLISH from {NODE} (d0, q1, r0, m1, 'up/{NODE}/tm', ... (6 bytes))"],
        None,
    ),
    "what it asks for and may read": ([f"{NODE} 1 dn/{NODE}/des"], None),
    "what others are told": ([f"{NODE} 1 dn/n-x/des"], "subscribe_denied"),
    "everything": ([f"{NODE} 0 #"], "subscribe_denied"),
    "a share of ingest's": ([f"{NODE} 1 $share/ingest/up/#"], "subscribe_denied"),
    "its own with a blank": ([f"{NODE} 1 dn/{NODE}/des "], "subscribe_denied"),
    "a filter like the line itself": ([f"{NODE} 1 {NODE} 1 dn/{NODE}/des"], "subscribe_denied"),
    "it unsubscribes": ([f"{NODE} dn/n-x/des"], None),
    "a will of its own": (
        ["Will message specified (6 bytes) (r0, q1).", f"\tup/{NODE}/st"],
        None,
    ),
    "a will for another": (
        ["Will message specified (6 bytes) (r1, q1).", "\tdn/n-x/des"],
        "will_denied",
    ),
    "a list of filters is no will": (
        [f"Received SUBSCRIBE from {NODE}", "\tdn/n-x/des (QoS 1)"],
        None,
    ),
    "too large": ([f"Client {NODE} disconnected due to oversize packet."], "packet_too_large"),
    "malformed": ([f"Client {NODE} disconnected due to malformed packet."], "packet_malformed"),
    "a second CONNECT": (
        [
            f"Bad client {NODE} sending multiple CONNECT messages.",
            f"Client {NODE} disconnected due to protocol error.",
        ],
        "packet_malformed",
    ),
    "a packet for clients": (
        [f"Bad socket read/write on client {NODE}: Invalid function arguments provided."],
        "packet_malformed",
    ),
    "silence": ([f"Client {NODE} has exceeded timeout, disconnecting."], "packet_timed_out"),
    "with the address that later versions add": (
        [f"Client {NODE} [127.0.0.1:40000] disconnected due to oversize packet."],
        "packet_too_large",
    ),
    "it says goodbye": ([f"Client {NODE} disconnected."], None),
    "it goes": ([WENT_AWAY, f"Client {NODE} closed its connection."], None),
    "its line breaks": ([f"Client {NODE} disconnected: Connection reset by peer."], None),
    "it comes again": ([f"Client {NODE} already connected, closing old connection."], None),
    "a bad certificate": (
        [OPENSSL, "Client <unknown> disconnected: Protocol error."],
        "handshake_failed",
    ),
    "a bad certificate, all at once": (
        [
            "Client connection from 127.0.0.1 failed: error:0A00010B:SSL routines::wrong version number."
        ],
        "handshake_failed",
    ),
    "one who only knocks": ([WENT_AWAY, "Client <unknown> disconnected: Protocol error."], None),
    "one who goes before CONNECT": (
        ["Client <unknown> disconnected: Protocol error."],
        "connect_malformed",
    ),
    "nonsense for CONNECT": (
        ["Client <unknown> disconnected due to protocol error."],
        "connect_malformed",
    ),
    "a huge CONNECT": (
        ["Client <unknown> disconnected due to oversize packet."],
        "packet_too_large",
    ),
    "no CONNECT at all": (
        ["Client <unknown> has exceeded timeout, disconnecting."],
        "connect_timed_out",
    ),
    "no name": (["Client <unknown> disconnected, not authorised."], "wrong_listener"),
    "a wildcard for a name": (
        ['ACL denying access to client with dangerous username "+"'],
        "wrong_listener",
    ),
    "no file left": (
        [
            "Unable to accept new connection, system socket count has been exceeded. "
            'Try increasing "ulimit -n" or equivalent.'
        ],
        "connections_exceeded",
    ),
    "others' troubles": (["Warning: something else."], None),
    "no mosquitto line": (["\x00\xff: :"], None),
}


@pytest.mark.parametrize(("lines", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_is_counted_once_by_its_reason(lines: list[str], reason: str | None) -> None:
    _, refused = read(*connected(NODE), *lines)
    assert refused == ({} if reason is None else {reason: 1})


@pytest.mark.parametrize(
    ("name", "topic_filter", "is_counted"),
    [
        ("svc-ingest", "up/#", False),
        ("svc-ingest", "$share/0123456789abcdef/up/#", False),
        ("svc-ingest", "$share/0123456789abcdef/dn/#", True),
        ("svc-ingest", "dn/#", True),
        ("svc-control", "dn/_fleet/epoch", False),
        ("svc-public", "v1.1/#", False),
        ("svc-public", "#", True),
    ],
)
def test_services_are_judged_by_their_certificate_whatever_they_call_themselves(
    name: str, topic_filter: str, is_counted: bool
) -> None:
    _, refused = read(
        *connected(name, client_id=f"{name}-two", port=SERVICE_PORT), f"{name}-two 1 {topic_filter}"
    )
    assert bool(refused) is is_counted


def test_topics_are_judged_with_the_deployments_prefix() -> None:
    own, others = f"{NODE} 1 bochum/dn/{NODE}/des", f"{NODE} 1 dn/{NODE}/des"
    assert read(*connected(NODE), own, prefix="bochum")[1] == {}
    assert read(*connected(NODE), others, prefix="bochum")[1] == {"subscribe_denied": 1}


def test_sessions_are_known_with_their_door_from_connect_to_end() -> None:
    log, _ = read(
        *connected(NODE),
        *connected("svc-control", client_id="n-taken", port=SERVICE_PORT),
        *connected("n-gone"),
        "Client n-gone closed its connection.",
    )
    assert {name: session.client for name, session in log.sessions.items()} == {
        NODE: Client(NODE, ListenerName.NODES),
        "n-taken": Client("svc-control", ListenerName.SERVICES),
    }


def test_session_remembers_how_often_the_lists_had_been_read_when_it_knocked() -> None:
    knocks, enters, *_ = connected("n-late")
    log, _ = read(
        *connected(NODE),
        knocks,
        "Reloading config.",
        enters,
        *connected("n-later", client_id="n-later"),
    )
    assert log.reloads == 1
    assert {name: session.lists for name, session in log.sessions.items()} == {
        NODE: 0,
        "n-late": 0,
        "n-later": 1,
    }


def test_what_people_may_want_to_read_is_handed_on_and_the_rest_is_not() -> None:
    log, _ = read(*connected(NODE))
    said = [
        log.read(f"1795766254: {line}\n".encode())
        for line in (
            "Error: Address already in use",
            f"Received PUBLISH from {NODE} (d0, q1, r0, m1, 'up/{NODE}/tm', ... (6 bytes))",
            f"Sending PUBACK to {NODE} (m1, rc0)",
            f"{NODE} 1 dn/{NODE}/des",
            f"\tdn/{NODE}/des (QoS 1)",
            OPENSSL,
        )
    ]
    assert said == ["Error: Address already in use", None, None, None, None, None]


@given(
    st.lists(
        st.binary(max_size=80)
        | st.sampled_from(
            [b"1: " + line.encode() for lines, _ in REFUSALS.values() for line in lines]
        )
    )
)
def test_no_line_whatever_stops_the_reading(lines: list[bytes]) -> None:
    log = MosquittoLog(DOORS, refuse=Tally().refuse)
    for line in lines:
        log.read(line)
