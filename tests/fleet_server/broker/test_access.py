"""Who may do what on the broker, as one table; and mosquitto's access file says the same."""

from __future__ import annotations

import pytest

from fleet_server.broker import access, mosquitto
from fleet_server.broker.access import Client, ListenerName

NODE = Client("n-1a2b3c", ListenerName.NODES)
INGEST = Client("svc-ingest", ListenerName.SERVICES)
CONTROL = Client("svc-control", ListenerName.SERVICES)
PUBLIC = Client("svc-public", ListenerName.SERVICES)


@pytest.mark.parametrize(
    ("client", "topic", "is_allowed"),
    [
        (NODE, "up/n-1a2b3c/tm", True),
        (NODE, "up/n-1a2b3c/ev", True),
        (NODE, "up/n-1a2b3c/st", True),
        (NODE, "up/n-1a2b3c/", False),
        (NODE, "up/n-1a2b3c/tm/", False),
        (NODE, "up/n-1a2b3c/tm/x", False),
        (NODE, "up/n-1a2b3c//tm", False),
        (NODE, "up//n-1a2b3c/tm", False),
        (NODE, "/up/n-1a2b3c/tm", False),
        (NODE, "up/n-1a2b3c/../n-other/tm", False),
        (NODE, "up/N-1A2B3C/tm", False),
        (NODE, "up/n-1a2b3c/tm ", False),
        (NODE, "up/n-1a2b3c/other", False),
        (NODE, "up/n-1a2b3c", False),
        (NODE, "up/n-1a2b3cd/tm", False),
        (NODE, "up/n-other/tm", False),
        (NODE, "up/n-1a2b3c/#", False),
        (NODE, "up/+/tm", False),
        (NODE, "dn/n-1a2b3c/rcpt", False),
        (NODE, "$SYS/broker", False),
        (INGEST, "up/n-1a2b3c/tm", False),
        (INGEST, "dn/n-1a2b3c/rcpt", False),
        (CONTROL, "dn/n-1a2b3c/rcpt", True),
        (CONTROL, "dn/_fleet/epoch", True),
        (CONTROL, "v1.1/Datastreams(1)/Observations", True),
        (CONTROL, "up/n-1a2b3c/tm", False),
        (CONTROL, "v1.10", False),
    ],
)
def test_publishing_is_allowed_on_ones_own_topics_only(
    client: Client, topic: str, is_allowed: bool
) -> None:
    assert access.may_publish(client, topic) is is_allowed
    assert access.may_publish(client, f"bochum/{topic}", prefix="bochum") is is_allowed
    assert not access.may_publish(client, topic, prefix="bochum")


@pytest.mark.parametrize(
    ("client", "topic_filter", "is_allowed"),
    [
        (NODE, "dn/n-1a2b3c/des", True),
        (NODE, "dn/n-1a2b3c/rcpt", True),
        (NODE, "dn/n-1a2b3c/other", False),
        (NODE, "dn/n-1a2b3c/+", False),
        (NODE, "dn/n-1a2b3c/#", False),
        (NODE, "$share/ingest/dn/n-1a2b3c/des", False),
        (NODE, "$share/ingest/up/#", False),
        (NODE, "$SYS/#", False),
        (NODE, "dn/+/des", False),
        (NODE, "dn/#", False),
        (NODE, "#", False),
        (NODE, "up/n-1a2b3c/tm", False),
        (INGEST, "up/#", True),
        (INGEST, "up/+/tm", True),
        (INGEST, "#", False),
        (INGEST, "dn/#", False),
        (CONTROL, "dn/_fleet/epoch", True),
        (CONTROL, "up/#", False),
        (PUBLIC, "v1.1/#", True),
        (PUBLIC, "dn/#", False),
    ],
)
def test_subscribing_is_allowed_to_what_one_may_read_only(
    client: Client, topic_filter: str, is_allowed: bool
) -> None:
    assert access.may_subscribe(client, topic_filter) is is_allowed


@pytest.mark.parametrize(
    ("name", "listener", "is_allowed"),
    [
        ("n-1a2b3c", ListenerName.NODES, True),
        ("n-1a2b3c", ListenerName.SERVICES, False),
        ("svc-ingest", ListenerName.SERVICES, True),
        ("svc-ingest", ListenerName.NODES, False),
        ("svc-other", ListenerName.SERVICES, False),
        ("n+1", ListenerName.NODES, False),
        ("n/1", ListenerName.NODES, False),
        ("", ListenerName.NODES, False),
    ],
)
def test_certificate_is_good_for_one_door(
    name: str, listener: ListenerName, is_allowed: bool
) -> None:
    assert access.may_enter(Client(name, listener)) is is_allowed


def test_one_whom_nobody_knows_may_nothing() -> None:
    stranger = Client("stranger", ListenerName.SERVICES)
    assert not access.may_publish(stranger, "v1.1/x")
    assert not access.may_subscribe(stranger, "up/#")


def test_mosquitto_is_told_the_same_rules() -> None:
    rules = mosquitto.access_file("bochum").splitlines()
    assert [line for line in rules if line and not line.startswith("#")] == [
        "user svc-ingest",
        "topic read bochum/up/#",
        "user svc-control",
        "topic read bochum/dn/#",
        "topic write bochum/dn/#",
        "topic write bochum/v1.1/#",
        "user svc-public",
        "topic read bochum/v1.1/#",
        "pattern write bochum/up/%u/tm",
        "pattern write bochum/up/%u/ev",
        "pattern write bochum/up/%u/st",
        "pattern read bochum/dn/%u/des",
        "pattern read bochum/dn/%u/rcpt",
    ]
