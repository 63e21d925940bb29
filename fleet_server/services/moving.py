"""The broker moves to another address, and the nodes follow one by one.

What a node is told is its desired configuration: it tries the new address, and goes back to the old one by itself when that leads to no
server. So the broker has to be found at both until everybody has followed: under both names, or by a relay at the old address.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet_server.errors import FleetError, Invalid
from fleet_server.models import Configuration, Node, NodeStatus
from fleet_server.services import auditing, configuring, node_life
from fleet_server.services.configuring import SecretKey, Standing, no_secret_key
from fleet_server.settings import is_host

_NODES_AT_ONCE = 500


class AddressWrong(Invalid):
    """No broker can be there."""

    code = "broker_address_wrong"


@dataclass(frozen=True)
class BrokerAddress:
    """Where nodes find the broker. `server_name`: the name in its certificate, where nodes are told an address."""

    host: str
    port: int
    server_name: str

    @classmethod
    def checked(cls, host: str, port: int, server_name: str | None = None) -> BrokerAddress:
        """Raises AddressWrong: there is no such place."""
        for name in (host, server_name or host):
            if not is_host(name):
                raise AddressWrong("%(name)r is no name or address of a machine.", name=name)
        if not 0 < port < 65536:
            raise AddressWrong("A port is a number from 1 to 65535.")
        return cls(host, port, server_name or host)

    @property
    def settings(self) -> dict[str, object]:
        """As a node's configuration spells it."""
        return {"host": self.host, "port": self.port, "server_name": self.server_name}


@dataclass(frozen=True)
class Follower:
    """How one node stands to the move; `reason` where it cannot follow or went back."""

    node_id: str
    label: str
    standing: Standing | None
    reason: str | None
    last_heard_at: datetime | None


@dataclass(frozen=True)
class Move:
    """How far a move is: how many nodes were told, how many talk at the new address, and who does not (the ones heard last first)."""

    told: int
    followed: int
    waiting: Sequence[Follower]


def move_broker(
    session: Session,
    target: BrokerAddress,
    *,
    now: datetime,
    secret_key: SecretKey = no_secret_key,
) -> Move:
    """Tell every node of the broker's new address, and say how far they are. Committed node by node; safe to repeat.

    A node whose configuration cannot hold the address is told nothing and named with the reason.
    """
    refused = {}
    changed = 0
    for node_id, settings in _nodes(session):
        if all(settings.get(name) == value for name, value in target.settings.items()):
            continue
        try:
            configuring.configure_node(
                session, node_id, target.settings, now=now, secret_key=secret_key
            )
            changed += 1
        except FleetError as problem:
            refused[node_id] = str(problem)
    if changed:
        auditing.record(
            session,
            "broker_moved",
            subject=f"broker {target.host}:{target.port}",
            now=now,
            server_name=target.server_name,
            told=changed,
            refused=len(refused),
        )
    return progress(session, target, refused=refused)


def progress(
    session: Session, target: BrokerAddress, *, refused: dict[str, str] | None = None
) -> Move:
    """How far a move to `target` is."""
    told = followed = 0
    waiting: list[Follower] = []
    for configuration, node, status, standing in _configurations(session):
        wanted = configuration.settings
        is_told = all(wanted.get(name) == value for name, value in target.settings.items())
        told += is_told
        overview = Standing(standing) if is_told else None
        if overview is Standing.IN_FORCE:
            followed += 1
            continue
        says_why = overview in (Standing.ROLLED_BACK, Standing.REFUSED)
        reason = (
            (refused or {}).get(node.node_id)
            if not is_told
            else status.config_reason
            if says_why
            else None
        )
        waiting.append(Follower(node.node_id, node.label, overview, reason, status.last_heard_at))
    waiting.sort(key=lambda one: (one.last_heard_at is None, -_seconds(one.last_heard_at)))
    return Move(told, followed, waiting)


# ---------------------------------------------------------------------------------------------------------------- private


def _nodes(session: Session) -> Iterator[tuple[str, dict[str, object]]]:
    for configuration, *_ in _configurations(session):
        yield configuration.node_id, configuration.settings


def _configurations(session: Session) -> Iterator[tuple[Configuration, Node, NodeStatus, str]]:
    """Of every node that can be told, a page at a time: who is enrolled later finds the address that holds then."""
    last = ""
    while True:
        query = (
            select(Configuration, Node, NodeStatus, configuring.standing_of())
            .join(Node, Node.node_id == Configuration.node_id)
            .join(NodeStatus, NodeStatus.node_id == Configuration.node_id)
            .where(Configuration.node_id > last, Node.state.not_in(node_life.NOT_REACHABLE))
            .order_by(Configuration.node_id)
            .limit(_NODES_AT_ONCE)
        )
        rows = session.execute(query).all()
        if not rows:
            return
        last = rows[-1][0].node_id
        for row in rows:
            yield row[0], row[1], row[2], row[3]


def _seconds(moment: datetime | None) -> float:
    return 0.0 if moment is None else moment.timestamp()
