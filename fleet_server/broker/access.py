"""Who may do what on the broker: one table for the embedded broker and for mosquitto's access file."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fleet_server.wire.topics import SERVICE_CONTROL, SERVICE_INGEST, is_node_id

PUBLIC_TREE = "v1.1/#"
NODE_WRITES = "up/{}/#"
NODE_READS = "dn/{}/#"
_WILDCARDS = frozenset("+#")


class ListenerName(StrEnum):
    """The broker's doors."""

    NODES = "nodes"
    SERVICES = "services"


@dataclass(frozen=True)
class Access:
    """Topic trees that one client may read and write."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]


_NOTHING = Access(reads=(), writes=())
SERVICE_ACCESS = {
    SERVICE_INGEST: Access(reads=("up/#",), writes=()),
    # It reads dn/#, too: it must find its own retained epoch topic there.
    SERVICE_CONTROL: Access(reads=("dn/#",), writes=("dn/#", PUBLIC_TREE)),
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
    return not _WILDCARDS & set(topic) and _is_within(topic, _trees(client, prefix)[1])


def may_subscribe(client: Client, topic_filter: str, *, prefix: str = "") -> bool:
    """True when everything that `topic_filter` can match may be read by `client`."""
    return _is_within(topic_filter, _trees(client, prefix)[0])


def _trees(client: Client, prefix: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Beginnings of what `client` may read and write."""
    granted = _NOTHING
    if client.is_node:
        granted = Access(
            reads=(NODE_READS.format(client.name),), writes=(NODE_WRITES.format(client.name),)
        )
    elif client.name in SERVICE_ACCESS:
        granted = SERVICE_ACCESS[client.name]
    start = f"{prefix}/" if prefix else ""
    return (
        tuple(start + tree.removesuffix("#") for tree in granted.reads),
        tuple(start + tree.removesuffix("#") for tree in granted.writes),
    )


def _is_within(topic: str, beginnings: tuple[str, ...]) -> bool:
    return any(topic.startswith(beginning) for beginning in beginnings)
