"""Commands to nodes: ordered here, told with the desired state, answered by an event, carried out once at most.

A command that is not answered before it expires was not begun, or its answer is still on its way: an answer that comes later
counts. Every command is one row; nothing has to happen for it to expire.
"""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, or_, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import Command, Configuration, Node
from fleet_server.models.outbox import DESIRED
from fleet_server.services import auditing, configuring, keyset, outbox, rights
from fleet_server.wire.commands import CommandName, Result, find_fault
from fleet_server.wire.states import NodeState

DEFAULT_LIFETIME = timedelta(hours=24)
SHORTEST_LIFETIME, LONGEST_LIFETIME = timedelta(minutes=1), timedelta(days=7)
# A node remembers sixteen: what it may still be told must never be more than that.
MAX_PENDING = 4
_ID_MAX = (1 << 31) - 1
_MAX_RESULT_LENGTH = 16
_NEWEST_FIRST = keyset.Sorting(
    (Command.ordered_at, Command.id),  # type: ignore[arg-type] # columns of a class
    (datetime, int),
    is_descending=True,
)


class CommandWrong(Invalid):
    """No node would carry this out."""

    code = "command_wrong"


class CommandsWaiting(Conflict):
    """The node has as many commands as it can be told at once."""

    code = "commands_waiting"


class CommandNotPending(Conflict):
    """The command waits for its node no more."""

    code = "command_not_pending"


class CommandState(StrEnum):
    PENDING = "pending"
    ANSWERED = "answered"
    EXPIRED = "expired"
    CANCELED = "canceled"  # taken back; a node that had heard of it may have begun it


@dataclass(frozen=True)
class CommandOverview:
    id: int
    node_id: str
    name: str
    arguments: Mapping[str, Any]
    state: CommandState
    result: str | None
    details: Sequence[Sequence[float | str]]
    ordered_at: datetime
    expires_at: datetime
    answered_at: datetime | None
    batch: str | None = None


def order_command(
    session: Session,
    node_id: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    now: datetime,
    lifetime: timedelta = DEFAULT_LIFETIME,
) -> int:
    """Tell a node to do something once. Returns the command's id. Committed on return; told when the node connects next.

    A factory reset also takes back what was wanted of this node alone: else the node would be told it again at once.

    Raises:
        CommandWrong: the node would refuse it; says why.
        CommandsWaiting: too many are pending.
        Refused: the node is retired or revoked.
        NotFound: no such node.
    """
    fault = find_fault(name, arguments, node_id=node_id)
    if fault is not None:
        raise CommandWrong(fault)
    check_lifetime(lifetime)
    with db.writing(session):
        # Held until the end: two orders at once cannot both be the last that fits.
        configuration = session.get(Configuration, node_id, with_for_update=True)
        node = session.get(Node, node_id)
        if node is None or configuration is None:
            raise NotFound("There is no node %(node_id)s.", node_id=node_id)
        rights.check_node_model(session, node.model, node_id=node_id)
        if node.state in (NodeState.RETIRED, NodeState.REVOKED):
            raise Refused(
                "%(node_id)s is %(state)s; it hears no commands.",
                node_id=node_id,
                state=NodeState(node.state),
            )
        _check_pending(session, node_id, now)
        command_id = _new_id(session)
        session.add(
            Command(
                id=command_id,
                node_id=node_id,
                name=name,
                arguments=dict(arguments),
                ordered_at=now,
                expires_at=now + lifetime,
            )
        )
        if name == CommandName.FACTORY_RESET:
            configuring.reset_node(session, node, now=now)
        session.flush()
        outbox.mark_changed(session, DESIRED, [node_id], now=now)
        auditing.record(
            session,
            "command_ordered",
            subject=f"node {node_id}",
            now=now,
            command=name,
            id=command_id,
            arguments=json.dumps(arguments, sort_keys=True),
        )
    return command_id


def check_lifetime(lifetime: timedelta) -> None:
    """Raises CommandWrong."""
    if not SHORTEST_LIFETIME <= lifetime <= LONGEST_LIFETIME:
        raise CommandWrong("A command is good for a minute to seven days.")


def pending_orders(
    session: Session, node_ids: Iterable[str], *, now: datetime
) -> Mapping[str, list[dict[str, Any]]]:
    """What these nodes are still to be told, by node, oldest first, as it goes over the wire. One statement."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    commands = session.scalars(
        select(Command)
        .where(Command.node_id.in_(list(node_ids)), *is_pending(now))
        .order_by(Command.ordered_at, Command.id)
    )
    for command in commands:
        found[command.node_id].append(
            {
                "id": command.id,
                "name": command.name,
                "args": dict(command.arguments),
                "expires": int(command.expires_at.timestamp()),
            }
        )
    return found


def note_answers(
    session: Session,
    answers: Iterable[tuple[str, Sequence[tuple[str, float | str]]]],
    *,
    now: datetime,
) -> None:
    """Take (node id, details) of events that answer commands, in the caller's transaction. Safe to repeat.

    The first answer counts; only `interrupted` gives way: a node whose power went between an answer and the note of it says both.
    """
    answered: list[str] = []
    for node_id, pairs in answers:
        details = dict(pairs)
        command_id, result = details.pop("id", None), details.pop("result", None)
        details.pop("name", None)
        if type(command_id) is not int or not isinstance(result, str) or command_id > _ID_MAX:
            continue
        changed = session.execute(
            update(Command)
            .where(
                Command.id == command_id,
                Command.node_id == node_id,
                or_(Command.result.is_(None), Command.result == Result.INTERRUPTED),
            )
            .values(
                result=result[:_MAX_RESULT_LENGTH],
                details=[list(pair) for pair in details.items()],
                answered_at=now,
            )
        )
        if isinstance(changed, CursorResult) and changed.rowcount:
            answered.append(node_id)
    outbox.mark_changed(session, DESIRED, answered, now=now)


def commands_of(
    session: Session, node_id: str, *, now: datetime, limit: int = 20
) -> list[CommandOverview]:
    """The node's commands, newest first. One statement."""
    commands = session.scalars(
        select(Command)
        .where(Command.node_id == node_id)
        .order_by(Command.ordered_at.desc(), Command.id.desc())
        .limit(limit)
    )
    return [overview_of(command, now=now) for command in commands]


def command_page(
    session: Session, node_id: str, *, now: datetime, limit: int, after: keyset.Key | None = None
) -> keyset.Page[CommandOverview]:
    """The node's commands in pages, newest first. One statement."""
    return keyset.page_of(
        session,
        select(Command).where(Command.node_id == node_id),
        _NEWEST_FIRST,
        limit=limit,
        after=after,
        made=lambda row: overview_of(row[0], now=now),
    )


def command_of(
    session: Session, node_id: str, command_id: int, *, now: datetime
) -> CommandOverview:
    """Raises NotFound when this node has no such command."""
    command = session.get(Command, command_id)
    if command is None or command.node_id != node_id:
        raise NotFound(
            "%(node_id)s has no command %(command_id)s.", node_id=node_id, command_id=command_id
        )
    return overview_of(command, now=now)


def cancel_command(session: Session, command_id: int, *, now: datetime) -> None:
    """Take a pending command back: its node is not told any more. Committed on return.

    A node that has heard of it already may have begun it; then its answer still comes, and counts.

    Raises:
        CommandNotPending: it was answered, has expired or was taken back already.
        NotFound: no such command.
    """
    with db.writing(session):
        command = session.get(Command, command_id, with_for_update=True)
        if command is None:
            raise NotFound("There is no command %(command_id)s.", command_id=command_id)
        node = session.get_one(Node, command.node_id)
        rights.check_node_model(session, node.model, node_id=node.node_id)
        state = _state(command, now)
        if state is not CommandState.PENDING:
            raise CommandNotPending(
                "Command %(command_id)s is %(state)s; only a pending one can be taken back.",
                command_id=command_id,
                state=state,
            )
        command.canceled_at = now
        session.flush()
        outbox.mark_changed(session, DESIRED, [command.node_id], now=now)
        auditing.record(
            session,
            "command_canceled",
            subject=f"node {command.node_id}",
            now=now,
            command=command.name,
            id=command_id,
        )


def overview_of(command: Command, *, now: datetime) -> CommandOverview:
    """A command as people see it at `now`."""
    return CommandOverview(
        id=command.id,
        node_id=command.node_id,
        name=command.name,
        arguments=command.arguments,
        state=_state(command, now),
        result=command.result,
        details=command.details or (),
        ordered_at=command.ordered_at,
        expires_at=command.expires_at,
        answered_at=command.answered_at,
        batch=command.batch,
    )


def _state(command: Command, now: datetime) -> CommandState:
    if command.result == Result.EXPIRED:
        return CommandState.EXPIRED
    if command.result is not None:
        return CommandState.ANSWERED
    if command.canceled_at is not None:
        return CommandState.CANCELED
    return CommandState.EXPIRED if command.expires_at <= now else CommandState.PENDING


def is_pending(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """The conditions that a command still waits for its node."""
    return Command.result.is_(None), Command.canceled_at.is_(None), Command.expires_at > now


def _check_pending(session: Session, node_id: str, now: datetime) -> None:
    pending = select(func.count()).where(Command.node_id == node_id, *is_pending(now))
    if (session.scalar(pending) or 0) >= MAX_PENDING:
        raise CommandsWaiting(
            "%(node_id)s has %(most)s commands to answer already; wait until one is answered or expires.",
            node_id=node_id,
            most=MAX_PENDING,
        )


def draw_id() -> int:
    """A number that is hardly taken."""
    return 1 + secrets.randbelow(_ID_MAX)


def _new_id(session: Session) -> int:
    while True:
        drawn = draw_id()
        if session.get(Command, drawn) is None:
            return drawn
