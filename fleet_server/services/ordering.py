"""Commands to many nodes: what would be told to whom, told at once in pieces, and the list of what became of them."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, insert, or_, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Refused
from fleet_server.models import Command, Configuration, Node
from fleet_server.models.outbox import DESIRED
from fleet_server.services import auditing, commanding, keyset, layering, outbox, rights, selecting
from fleet_server.services.commanding import (
    DEFAULT_LIFETIME,
    MAX_PENDING,
    CommandOverview,
    CommandState,
    CommandWrong,
)
from fleet_server.services.selecting import Selection
from fleet_server.wire.commands import CommandName, Result, find_fault

_BATCH_BYTES = 6
_BUSY_NAMED = 20
_LAST_SECOND = 1 << 32
NEED_CONFIRMATION = (CommandName.REBOOT,)
"""Of many nodes, these want the number of nodes as a confirmation."""


class NotConfirmed(Refused):
    """Who orders this for many says for how many; `fields["nodes"]` are meant now."""

    code = "not_confirmed"


class OrderOutcome(StrEnum):
    """What becomes of an order for one node."""

    TOLD = "told"
    BUSY = "busy"  # it has as many to answer as it can be told at once


@dataclass(frozen=True)
class OrderReport:
    """`batch` names what was ordered together; None when nothing was. `busy`: the first of the nodes that are told nothing more."""

    batch: str | None
    counts: Mapping[OrderOutcome, int]
    busy: Sequence[str]


def preview_order(
    session: Session,
    selection: Selection,
    name: str,
    arguments: Mapping[str, Any],
    *,
    now: datetime,
    lifetime: timedelta = DEFAULT_LIFETIME,
) -> OrderReport:
    """For how many nodes this would be ordered. Changes nothing. A fixed number of statements for every thousand nodes.

    Raises:
        CommandWrong: no node would carry it out; says why.
        SelectionWrong, NotFound: no nodes can be meant.
    """
    _check(name, arguments, lifetime)
    return _report(None, (one for chunk in _judged(session, selection, now=now) for one in chunk))


def order_for_many(
    session: Session,
    selection: Selection,
    name: str,
    arguments: Mapping[str, Any],
    *,
    now: datetime,
    lifetime: timedelta = DEFAULT_LIFETIME,
    confirmed_nodes: int | None = None,
) -> OrderReport:
    """Tell all these nodes to do something once. Committed a thousand nodes at a time.

    Args:
        confirmed_nodes: How many nodes whoever orders it has in mind; what cannot be undone is not ordered without.

    Raises:
        NotConfirmed: that many are not meant.
        CommandWrong, SelectionWrong, NotFound: as `preview_order`.
    """
    preview = preview_order(session, selection, name, arguments, now=now, lifetime=lifetime)
    meant = preview.counts[OrderOutcome.TOLD]
    if confirmed_nodes != meant and (confirmed_nodes is not None or name in NEED_CONFIRMATION):
        raise NotConfirmed(
            "%(name)s would be told to %(meant)s nodes; confirm that number.",
            name=name,
            meant=meant,
            nodes=meant,
        )
    batch = secrets.token_hex(_BATCH_BYTES)
    judged: list[tuple[str, OrderOutcome]] = []
    is_recorded = False
    for chunk in layering.chunks_of(session, _meant(session, selection)):
        with db.writing(session):
            _hold(session, chunk)
            found = _outcomes(session, chunk, now=now)
            told = [node_id for node_id, outcome in found if outcome is OrderOutcome.TOLD]
            if told and not is_recorded:  # with the first of them: nothing is ordered unseen
                _record(session, batch, name, arguments, nodes=meant, now=now)
                is_recorded = True
            _order(session, told, name, arguments, batch=batch, now=now, expires_at=now + lifetime)
        judged += found
    return _report(batch if is_recorded else None, judged)


def _hold(session: Session, node_ids: Sequence[str]) -> None:
    """Until the transaction ends nobody else orders anything of these nodes: two at once cannot both be the last that fits."""
    session.execute(
        select(Configuration.node_id)
        .where(Configuration.node_id.in_(node_ids))
        .order_by(Configuration.node_id)
        .with_for_update()
    )


def _record(
    session: Session,
    batch: str,
    name: str,
    arguments: Mapping[str, Any],
    *,
    nodes: int,
    now: datetime,
) -> None:
    auditing.record(
        session,
        "commands_ordered",
        subject=f"batch {batch}",
        now=now,
        command=name,
        arguments=json.dumps(arguments, sort_keys=True),
        nodes=nodes,
    )


@dataclass(frozen=True)
class CommandFilter:
    """All that is given must hold."""

    state: str | None = None
    name: str | None = None
    node_id: str | None = None
    batch: str | None = None
    result: str | None = None


def command_page(
    session: Session,
    wanted: CommandFilter,
    *,
    now: datetime,
    limit: int = 50,
    after: keyset.Key | None = None,
) -> keyset.Page[CommandOverview]:
    """Commands that the actor has to do with, newest first. One statement."""
    query = select(Command).join(Node, Node.node_id == Command.node_id)
    models = rights.node_models(session)
    if models is not None:
        query = query.where(Node.model.in_(models))
    for column, value in (
        (Command.name, wanted.name),
        (Command.node_id, wanted.node_id),
        (Command.batch, wanted.batch),
        (Command.result, wanted.result),
    ):
        if value is not None:
            query = query.where(column == value)
    if wanted.state is not None:
        query = query.where(_is_in_state(CommandState(wanted.state), now))
    if after is not None:
        query = query.where(_is_older(after))
    newest_first = query.order_by(Command.ordered_at.desc(), Command.id.desc())
    rows = session.scalars(newest_first.limit(limit + 1)).all()
    shown = rows[:limit]
    last = shown[-1] if len(rows) > limit else None
    return keyset.Page(
        items=[commanding.overview_of(command, now=now) for command in shown],
        next_key=None if last is None else (int(last.ordered_at.timestamp()), last.id),
    )


# ---------------------------------------------------------------------------------------------------------------- private


def _meant(session: Session, selection: Selection) -> Select[str]:
    return selecting.nodes(session, selection).where(layering.has_identity())


def _is_older(key: keyset.Key) -> ColumnElement[bool]:
    if [type(part) for part in key] != [int, int] or not 0 <= int(key[0]) < _LAST_SECOND:
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    ordered_at = datetime.fromtimestamp(int(key[0]), UTC)
    return or_(
        Command.ordered_at < ordered_at,
        and_(Command.ordered_at == ordered_at, Command.id < int(key[1])),
    )


def _is_in_state(state: CommandState, now: datetime) -> ColumnElement[bool]:
    expired = and_(
        Command.result.is_(None), Command.canceled_at.is_(None), Command.expires_at <= now
    )
    conditions: dict[CommandState, ColumnElement[bool]] = {
        CommandState.PENDING: and_(*commanding.is_pending(now)),
        CommandState.ANSWERED: and_(
            Command.result.is_not(None), Command.result != Result.EXPIRED.value
        ),
        CommandState.EXPIRED: or_(expired, Command.result == Result.EXPIRED.value),
        CommandState.CANCELED: and_(Command.result.is_(None), Command.canceled_at.is_not(None)),
    }
    return conditions[state]


def _check(name: str, arguments: Mapping[str, Any], lifetime: timedelta) -> None:
    if name == CommandName.FACTORY_RESET:
        raise CommandWrong("factory_reset is ordered node by node.")
    fault = find_fault(name, arguments, node_id="")
    if fault is not None:
        raise CommandWrong(fault)
    commanding.check_lifetime(lifetime)


def _judged(
    session: Session, selection: Selection, *, now: datetime
) -> Iterator[list[tuple[str, OrderOutcome]]]:
    for chunk in layering.chunks_of(session, _meant(session, selection)):
        yield _outcomes(session, chunk, now=now)


def _outcomes(
    session: Session, node_ids: Sequence[str], *, now: datetime
) -> list[tuple[str, OrderOutcome]]:
    pending = dict(
        session.execute(
            select(Command.node_id, func.count())
            .where(Command.node_id.in_(node_ids), *commanding.is_pending(now))
            .group_by(Command.node_id)
        ).all()
    )
    return [
        (one, OrderOutcome.BUSY if pending.get(one, 0) >= MAX_PENDING else OrderOutcome.TOLD)
        for one in node_ids
    ]


def _order(
    session: Session,
    node_ids: Sequence[str],
    name: str,
    arguments: Mapping[str, Any],
    *,
    batch: str,
    now: datetime,
    expires_at: datetime,
) -> None:
    if not node_ids:
        return
    rows = [
        {
            "id": command_id,
            "node_id": node_id,
            "name": name,
            "arguments": dict(arguments),
            "ordered_at": now,
            "expires_at": expires_at,
            "batch": batch,
        }
        for node_id, command_id in zip(node_ids, _new_ids(session, len(node_ids)), strict=True)
    ]
    session.execute(insert(Command), rows)
    outbox.mark_changed(session, DESIRED, node_ids, now=now)


def _new_ids(session: Session, count: int) -> list[int]:
    drawn: set[int] = set()
    while len(drawn) < count:
        drawn |= {commanding.draw_id() for _ in range(count - len(drawn))}
        drawn -= set(session.scalars(select(Command.id).where(Command.id.in_(drawn))))
    return list(drawn)


def _report(
    batch: str | None,
    judged: Iterator[tuple[str, OrderOutcome]] | Sequence[tuple[str, OrderOutcome]],
) -> OrderReport:
    counts: Counter[OrderOutcome] = Counter()
    busy: list[str] = []
    for node_id, outcome in judged:
        counts[outcome] += 1
        if outcome is OrderOutcome.BUSY and len(busy) < _BUSY_NAMED:
            busy.append(node_id)
    return OrderReport(batch, {outcome: counts[outcome] for outcome in OrderOutcome}, busy)
