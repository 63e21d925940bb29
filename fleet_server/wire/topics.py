"""Names of the MQTT topics, and how to read them. The node id stands at level 2 and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from fleet_server.wire.errors import WireError

NODE_ID_PATTERN = r"[a-z0-9-]{3,32}"
_NODE_ID = re.compile(NODE_ID_PATTERN)
_MAX_NODE_ID_LENGTH = 32
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_SERVICE_PREFIX = "svc-"

SERVICE_INGEST = "svc-ingest"
SERVICE_CONTROL = "svc-control"
SERVICE_PUBLIC = "svc-public"


class TopicKind(StrEnum):
    """What a topic carries; the value is the topic's pattern with the node id left open."""

    TELEMETRY = "up/{}/tm"
    EVENT = "up/{}/ev"
    STATE = "up/{}/st"
    DESIRED = "dn/{}/des"
    RECEIPT = "dn/{}/rcpt"


UPWARD_KINDS = (TopicKind.TELEMETRY, TopicKind.EVENT, TopicKind.STATE)
DOWNWARD_KINDS = (TopicKind.DESIRED, TopicKind.RECEIPT)
_KIND_BY_ENDS = {(kind.split("/")[0], kind.split("/")[2]): kind for kind in TopicKind}


@dataclass(frozen=True)
class Topic:
    """One topic, read."""

    kind: TopicKind
    node_id: str


def is_node_id(text: str) -> bool:
    """True when `text` may name a node. Names of services are no node ids."""
    return len(text) <= _MAX_NODE_ID_LENGTH and _may_name_a_node(text)


@lru_cache(maxsize=20_000)  # of short texts: a fleet's nodes, asked about with every message
def _may_name_a_node(text: str) -> bool:
    return _NODE_ID.fullmatch(text) is not None and not text.startswith(_SERVICE_PREFIX)


def topic_name(kind: TopicKind, node_id: str, *, prefix: str = "") -> str:
    """Name of the topic of one node.

    >>> topic_name(TopicKind.RECEIPT, "n-3f9a1c")
    'dn/n-3f9a1c/rcpt'
    >>> topic_name(TopicKind.TELEMETRY, "n-3f9a1c", prefix="bochum")
    'bochum/up/n-3f9a1c/tm'

    Raises:
        ValueError: `node_id` or `prefix` could not stand in a topic.
    """
    if not is_node_id(node_id):
        raise ValueError(f"{node_id!r} is not a node id")
    return _with_prefix(kind.value.format(node_id), prefix)


def topic_filter(kind: TopicKind, *, prefix: str = "", share: str | None = None) -> str:
    """Subscription to one kind of topic of all nodes, on request as a shared subscription.

    >>> topic_filter(TopicKind.TELEMETRY, share="ingest")
    '$share/ingest/up/+/tm'
    """
    name = _with_prefix(kind.value.format("+"), prefix)
    return name if share is None else f"$share/{share}/{name}"


def parse_topic(name: str, *, prefix: str = "") -> Topic:
    """Read a topic's name.

    Raises:
        WireError: `topic_unknown`.
    """
    start = _with_prefix("", prefix)
    levels = name.removeprefix(start).split("/") if name.startswith(start) else []
    if len(levels) == 3 and is_node_id(levels[1]):
        kind = _KIND_BY_ENDS.get((levels[0], levels[2]))
        if kind is not None:
            return Topic(kind, levels[1])
    raise WireError("topic_unknown", "The topic is none of those that nodes and server use.")


def _with_prefix(name: str, prefix: str) -> str:
    if not prefix:
        return name
    if _PREFIX.fullmatch(prefix) is None:
        raise ValueError(f"{prefix!r} cannot stand in front of a topic")
    return f"{prefix}/{name}"
