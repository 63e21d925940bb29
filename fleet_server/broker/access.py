"""Who may do what on the broker: one table for the embedded broker and for mosquitto's access file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from fleet_server.wire.topics import (
    DOWNWARD_KINDS,
    SERVICE_CONTROL,
    SERVICE_INGEST,
    SERVICE_PUBLIC,
    UPWARD_KINDS,
    is_node_id,
)

PUBLIC_TREE = "v1.1/#"
# Each topic by its name: a tree of its own would let a node keep any number of retained messages in the broker's memory.
NODE_WRITES = tuple(kind.value for kind in UPWARD_KINDS)
NODE_READS = tuple(kind.value for kind in DOWNWARD_KINDS)
_WILDCARDS = frozenset("+#")
_BELOW = "/#"


class ListenerName(StrEnum):
    """The broker's doors."""

    NODES = "nodes"
    SERVICES = "services"


@dataclass(frozen=True)
class Access:
    """Topics, and topic trees (ending in `/#`), that one client may read and write."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


_NOTHING = Access(reads=(), writes=())
SERVICE_ACCESS = {
    SERVICE_INGEST: Access(reads=("up/#",), writes=()),
    # It reads dn/#, too: it must find its own retained epoch topic there.
    SERVICE_CONTROL: Access(reads=("dn/#",), writes=("dn/#", PUBLIC_TREE)),
    # Hands on what is public to a broker of its own, where anyone may read it.
    SERVICE_PUBLIC: Access(reads=(PUBLIC_TREE,), writes=()),
}


@dataclass(frozen=True)
class Client:
    """Who a connection is, as its certificate says, and through which door it came."""

    name: str
    listener: ListenerName

    @property
    def is_node(self) -> bool:
        return self.listener is ListenerName.NODES


def may_enter(client: Client) -> bool:
    """Nodes through the nodes' door, services through theirs: a certificate is good for one door only."""
    return is_node_id(client.name) if client.is_node else client.name in SERVICE_ACCESS


def may_publish(client: Client, topic: str, *, prefix: str = "") -> bool:
    """True when `client` may publish to `topic`; never to a name with wildcards."""
    return not _WILDCARDS & set(topic) and _is_within(topic, _access(client, prefix).writes)


def may_subscribe(client: Client, topic_filter: str, *, prefix: str = "") -> bool:
    """True when everything that `topic_filter` can match may be read by `client`."""
    return _is_within(topic_filter, _access(client, prefix).reads)


@lru_cache(maxsize=10_000)
def _access(client: Client, prefix: str) -> Access:
    """What `client` may read and write, the deployment's prefix in front."""
    granted = _NOTHING
    if client.is_node:
        granted = Access(
            reads=tuple(topic.format(client.name) for topic in NODE_READS),
            writes=tuple(topic.format(client.name) for topic in NODE_WRITES),
        )
    elif client.name in SERVICE_ACCESS:
        granted = SERVICE_ACCESS[client.name]
    start = f"{prefix}/" if prefix else ""
    return Access(
        reads=tuple(start + topic for topic in granted.reads),
        writes=tuple(start + topic for topic in granted.writes),
    )


def _is_within(topic: str, granted: tuple[str, ...]) -> bool:
    return any(
        topic.startswith(name.removesuffix("#")) if name.endswith(_BELOW) else topic == name
        for name in granted
    )
