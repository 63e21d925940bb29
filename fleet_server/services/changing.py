"""Changes of a layer: proposed, approved by somebody else where many nodes are concerned, told in waves, watched, taken back.

What people do is here; how a change goes on by itself is in `services.staging`. A layer has one change under way at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import (
    ChangeState,
    ConfigurationChange,
    ConfigurationChangeNode,
    ConfigurationLayer,
    LayerKind,
)
from fleet_server.services import auditing, bulk, keyset, layering, previewing, rights, staging
from fleet_server.services.layering import Layer
from fleet_server.services.node_settings import SecretKey, Values, no_secret_key
from fleet_server.services.previewing import NodeOutcome, Outcome
from fleet_server.services.staging import OPEN, WaveProgress

_LONGEST_SOAK = timedelta(days=30)
WRITTEN_AT_ONCE = 2 * layering.NODES_AT_ONCE
"""Nodes that one transaction writes down."""
_NEVER = datetime.fromtimestamp(0, UTC)


class PlanWrong(Invalid):
    """The waves cannot be like this."""

    code = "plan_wrong"


class ChangeUnderWay(Conflict):
    """Another change of the layer has to end first."""

    code = "change_under_way"


class LayerChanged(Conflict):
    """The layer is another than the one that was judged."""

    code = "layer_changed"


class ChangeElsewhere(Conflict):
    """The change is not in a state in which this can be done."""

    code = "change_elsewhere"


class FourEyes(Refused):
    """A change is approved by somebody else than its author."""

    code = "four_eyes"


class ApprovalWanted(Refused):
    """So many nodes are changed by a change that somebody else approves; `fields["nodes"]` says how many."""

    code = "approval_wanted"


@dataclass(frozen=True)
class Plan:
    """How many nodes are told when: first `canaries`, then up to each share of all (0–1), each wave watched for `soak`."""

    canaries: int = 3
    shares: tuple[float, ...] = (0.05, 0.25, 1.0)
    soak: timedelta = timedelta(hours=1)

    def check(self) -> None:
        """Raises PlanWrong, with one sentence."""
        if self.canaries < 0:
            raise PlanWrong("There cannot be fewer than no canaries.")
        rising = all(low < high for low, high in zip(self.shares, self.shares[1:], strict=False))
        if not self.shares or self.shares[-1] != 1 or self.shares[0] <= 0 or not rising:
            raise PlanWrong("Shares of the waves rise and end with all nodes, like 5, 25, 100 %.")
        if not timedelta(0) <= self.soak <= _LONGEST_SOAK:
            raise PlanWrong("A wave is watched for up to thirty days.")

    def waves(self, nodes: int) -> list[int]:
        """How many nodes are in each wave; none is empty.

        >>> Plan(canaries=3).waves(1000), Plan(canaries=3).waves(2)
        ([3, 47, 200, 750], [2])
        """
        sizes, told = [], 0
        for upto in (self.canaries, *(round(nodes * share) for share in self.shares)):
            size = min(upto, nodes) - told
            if size > 0:
                sizes.append(size)
                told += size
        return sizes


AT_ONCE = Plan(canaries=0, shares=(1.0,), soak=timedelta(0))


def check_without_approval(nodes: int, *, approval_above: int | None) -> None:
    """Raises ApprovalWanted when that many nodes may not be configured one by one."""
    if approval_above is not None and nodes > approval_above:
        raise ApprovalWanted(
            "%(nodes)s nodes are more than %(approval_above)s: put them into a group and change its "
            "settings, which somebody else approves.",
            approval_above=approval_above,
            nodes=nodes,
        )


def propose_change(
    session: Session,
    layer: Layer,
    settings: Values,
    *,
    now: datetime,
    secret_key: SecretKey = no_secret_key,
    plan: Plan = Plan(),
    approval_above: int | None = None,
) -> ConfigurationChange | None:
    """Want these settings of a layer; None takes one back. Its first wave is told, unless somebody has to approve it first.

    Returns the change; None when the layer wants exactly this already. Committed on return, some thousand nodes at a time: what is
    cut short is `preparing`, has told nobody, and is given up by the worker.

    Args:
        approval_above: A change of more nodes than this needs another person's approval; None: no change does.

    Raises:
        ConfigurationWrong: no node would take it; says why.
        ChangeUnderWay: another change of this layer has to end first.
        LayerChanged: somebody else changed the layer while its nodes were judged.
        ChangeElsewhere: somebody aborted it while it was prepared.
        PlanWrong: the waves cannot be like this.
        NotAllowed: the layer has nodes that the actor has nothing to do with.
    """
    plan.check()
    wish = previewing.make_wish(session, layer, settings, secret_key=secret_key)
    if not wish.changed:
        return None
    changing, cannot = _judged(session, wish)
    with db.writing(session):
        if layering.hold_layer(session, layer) != wish.before:
            raise LayerChanged(
                "%(layer)s was changed just now; look again.", layer=layer.name.capitalize()
            )
        _end_others(session, layer, now=now)
        change = _written_down(session, wish, plan, changing=len(changing), now=now)
        if len(changing) + len(cannot) <= WRITTEN_AT_ONCE:
            _add_nodes(session, _rows(change, changing, cannot))
            _begin(session, change, wish, cannot=len(cannot), above=approval_above, now=now)
            return change
    # Readings are stored in between; what nodes could take is asked again when they are told.
    rows = _rows(change, changing, cannot)
    for start in range(0, len(rows), WRITTEN_AT_ONCE):
        with db.writing(session):
            _held(session, change.id, ChangeState.PREPARING)
            _add_nodes(session, rows[start : start + WRITTEN_AT_ONCE])
    with db.writing(session):
        change = _held(session, change.id, ChangeState.PREPARING)
        _begin(session, change, wish, cannot=len(cannot), above=approval_above, now=now)
    return change


def approve_change(session: Session, change_id: int, *, now: datetime) -> ConfigurationChange:
    """Let a change begin that waits for approval. Committed on return.

    Raises:
        FourEyes: the actor is its author.
        ChangeElsewhere: it does not wait for approval.
        NotFound: there is no such change.
    """
    with db.writing(session):
        change = _held(session, change_id, ChangeState.AWAITING_APPROVAL)
        actor = rights.actor_of(session).name
        if _person(actor) == _person(change.author):
            raise FourEyes(
                "Change %(change_id)s is of %(author)s; somebody else has to approve it.",
                change_id=change.id,
                author=change.author,
            )
        change.state, change.approved_by, change.approved_at = ChangeState.RUNNING, actor, now
        _record(session, "change_approved", change, now=now)
        staging.open_wave(session, change, now=now)
    return change


def pause_change(
    session: Session, change_id: int, *, now: datetime, reason: str = ""
) -> ConfigurationChange:
    """Open no further wave until `resume_change`. Committed on return. Raises ChangeElsewhere, NotFound."""
    with db.writing(session):
        change = _held(session, change_id, ChangeState.RUNNING, ChangeState.SOAKING)
        change.state = ChangeState.PAUSED
        change.reason = reason or f"by {rights.actor_of(session).name}"
        _record(session, "change_paused", change, now=now, reason=change.reason)
    return change


def resume_change(session: Session, change_id: int, *, now: datetime) -> ConfigurationChange:
    """Go on; nodes that failed until now do not pause it again. Committed on return. Raises ChangeElsewhere, NotFound."""
    with db.writing(session):
        change = _held(session, change_id, ChangeState.PAUSED)
        change.failures_accepted = sum(
            wave.failed for wave in staging.progress_of(session, change.id)
        )
        change.state, change.reason, change.soaks_since = ChangeState.RUNNING, None, None
        _record(session, "change_resumed", change, now=now, failures=change.failures_accepted)
    return change


def abort_change(
    session: Session, change_id: int, *, now: datetime, reason: str = ""
) -> ConfigurationChange:
    """Tell nobody else; who was told keeps it, until it is rolled back or a later change of the layer is through. Committed on return.

    Raises:
        ChangeElsewhere: it has ended, or all nodes have been told.
        NotFound: there is no such change.
    """
    with db.writing(session):
        change = _held(
            session,
            change_id,
            ChangeState.PREPARING,
            ChangeState.AWAITING_APPROVAL,
            ChangeState.RUNNING,
            ChangeState.SOAKING,
            ChangeState.PAUSED,
        )
        if change.layer_version is not None:
            raise ChangeElsewhere(
                "All nodes have been told change %(change_id)s; roll it back to undo it.",
                change_id=change.id,
            )
        change.state, change.finished_at = ChangeState.ABORTED, now
        change.reason = reason or f"by {rights.actor_of(session).name}"
        _record(session, "change_aborted", change, now=now, reason=change.reason)
    return change


def roll_back_change(
    session: Session, change_id: int, *, now: datetime, reason: str = ""
) -> ConfigurationChange:
    """Want of the layer again what it was before, of every node at once. Committed on return; the worker tells them.

    Raises:
        ChangeElsewhere: nobody was told it, or the layer was changed after it.
        NotFound: there is no such change.
    """
    with db.writing(session):
        change = _held(
            session,
            change_id,
            ChangeState.RUNNING,
            ChangeState.SOAKING,
            ChangeState.PAUSED,
            ChangeState.ABORTED,
            ChangeState.COMPLETED,
        )
        layer = layer_of(change)
        layering.hold_layer(session, layer)
        later = session.scalar(
            select(ConfigurationChange.id)
            .where(
                ConfigurationChange.layer_kind == change.layer_kind,
                ConfigurationChange.layer_key == change.layer_key,
                ConfigurationChange.id > change.id,
                ConfigurationChange.state.in_(OPEN)
                | ConfigurationChange.is_unsettled
                | ConfigurationChange.layer_version.is_not(None),
                ConfigurationChange.state != ChangeState.ROLLED_BACK,
            )
            .order_by(ConfigurationChange.id.desc())
            .limit(1)
        )
        if later is not None:
            raise ChangeElsewhere(
                "%(layer)s was changed again by change %(later)s; roll that back first.",
                layer=change.layer_name.capitalize(),
                later=later,
            )
        if change.layer_version is not None:
            row = session.get_one(ConfigurationLayer, layer.at)
            if row.version != change.layer_version:
                raise ChangeElsewhere(
                    "%(layer)s was changed since.", layer=change.layer_name.capitalize()
                )
            by = rights.actor_of(session).name
            layering.set_layer(session, layer, change.before, now=now, by=by)
        elif not change.is_unsettled:
            raise ChangeElsewhere(
                "Nobody was told change %(change_id)s; there is nothing to undo.",
                change_id=change.id,
            )
        change.state, change.swept_to, change.finished_at = ChangeState.ROLLING_BACK, "", None
        change.is_unsettled = False
        change.reason = reason or f"by {rights.actor_of(session).name}"
        _record(session, "change_rolled_back", change, now=now, reason=change.reason)
    return change


# ---------------------------------------------------------------------------------------------------------------- looking


@dataclass(frozen=True)
class ChangeOverview:
    """A change with its waves. `told`, `reached`, `in_force`, `failed` are of all waves; `cannot`: nodes that could not take it."""

    change: ConfigurationChange
    waves: Sequence[WaveProgress]
    cannot: int

    @property
    def nodes(self) -> int:
        return sum(self.change.waves)

    @property
    def told(self) -> int:
        return sum(wave.told for wave in self.waves)

    @property
    def reached(self) -> int:
        return sum(wave.reached for wave in self.waves)

    @property
    def in_force(self) -> int:
        return sum(wave.in_force for wave in self.waves)

    @property
    def failed(self) -> int:
        return sum(wave.failed for wave in self.waves)


def changes(
    session: Session, *, before_id: int | None = None, limit: int = 20, layer: Layer | None = None
) -> list[ChangeOverview]:
    """Changes that the actor has to do with, newest first. Two statements."""
    query = select(ConfigurationChange).order_by(ConfigurationChange.id.desc()).limit(limit)
    models = rights.node_models(session)
    if models is not None:
        query = query.where(
            (ConfigurationChange.layer_kind != LayerKind.MODEL)
            | ConfigurationChange.layer_key.in_(models)
        )
    if before_id is not None:
        query = query.where(ConfigurationChange.id < before_id)
    if layer is not None:
        query = query.where(
            ConfigurationChange.layer_kind == layer.kind,
            ConfigurationChange.layer_key == layer.key,
        )
    found = session.scalars(query.execution_options(populate_existing=True)).all()
    return _overviews(session, found)


def change_overview(session: Session, change_id: int) -> ChangeOverview:
    """One change. Raises NotFound."""
    change = session.get(ConfigurationChange, change_id, populate_existing=True)
    if change is None:
        raise NotFound("There is no change %(change_id)s.", change_id=change_id)
    if change.layer_kind == LayerKind.MODEL:
        layering.find_layer(session, LayerKind.MODEL, change.layer_key)
    return _overviews(session, [change])[0]


@dataclass(frozen=True)
class ChangeNode:
    """A node of a change; `wave` 0: it cannot take it, and `fault` says why. `standing` of who was told."""

    node_id: str
    label: str
    wave: int
    told_at: datetime | None
    fault: str | None
    standing: str


def nodes_of(
    session: Session, change_id: int, *, after: tuple[int, str] = (-1, ""), limit: int = 100
) -> list[ChangeNode]:
    """Nodes of a change that the actor has to do with, by wave and id. One statement."""
    query = staging.nodes_query(session, change_id, after, limit)
    return [ChangeNode(*row) for row in session.execute(query)]


def change_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[ChangeOverview]:
    """Changes that the actor has to do with, newest first. Two statements."""
    if after is not None and [type(part) for part in after] != [int]:
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    found = changes(session, before_id=None if after is None else int(after[0]), limit=limit + 1)
    shown = found[:limit]
    return keyset.Page(shown, (shown[-1].change.id,) if len(found) > limit else None)


def change_node_page(
    session: Session, change_id: int, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[ChangeNode]:
    """As `nodes_of`. Raises NotFound when there is no such change."""
    change_overview(session, change_id)
    if after is not None and [type(part) for part in after] != [int, str]:
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    begin = (-1, "") if after is None else (int(after[0]), str(after[1]))
    found = nodes_of(session, change_id, after=begin, limit=limit + 1)
    shown = found[:limit]
    return keyset.Page(shown, (shown[-1].wave, shown[-1].node_id) if len(found) > limit else None)


def layer_of(change: ConfigurationChange) -> Layer:
    return Layer(LayerKind(change.layer_kind), change.layer_key, change.layer_name)


# ---------------------------------------------------------------------------------------------------------------- private


def _overviews(session: Session, found: Sequence[ConfigurationChange]) -> list[ChangeOverview]:
    waves = staging.progress(session, [change.id for change in found])
    by_change: dict[int, list[WaveProgress]] = defaultdict(list)
    for one in waves:
        by_change[one.change_id].append(one)
    return [
        ChangeOverview(
            change,
            [wave for wave in by_change[change.id] if wave.wave],
            sum(wave.nodes for wave in by_change[change.id] if not wave.wave),
        )
        for change in found
    ]


def _judged(session: Session, wish: previewing.Wish) -> tuple[list[NodeOutcome], list[NodeOutcome]]:
    """Nodes that change, and those that cannot."""
    changing, cannot, reasons = [], [], Counter[str]()
    counts: Counter[Outcome] = Counter()
    for one in previewing.outcomes(session, wish):
        counts[one.outcome] += 1
        if one.outcome is Outcome.CHANGES:
            changing.append(one)
        elif one.outcome is Outcome.CANNOT:
            cannot.append(one)
            reasons[one.why or ""] += 1
    previewing.refuse_impossible(counts, reasons)
    return changing, cannot


def _written_down(
    session: Session, wish: previewing.Wish, plan: Plan, *, changing: int, now: datetime
) -> ConfigurationChange:
    change = ConfigurationChange(
        layer_kind=wish.layer.kind,
        layer_key=wish.layer.key,
        layer_name=wish.layer.name,
        changed=dict(wish.changed),
        before=dict(wish.before),
        after=dict(wish.after),
        author=rights.actor_of(session).name,
        created_at=now,
        needs_approval=False,
        state=ChangeState.PREPARING,
        waves=plan.waves(changing),
        wave=0,
        soak_s=int(plan.soak.total_seconds()),
        failures_accepted=0,
        is_unsettled=False,
    )
    session.add(change)
    session.flush()
    return change


def _begin(
    session: Session,
    change: ConfigurationChange,
    wish: previewing.Wish,
    *,
    cannot: int,
    above: int | None,
    now: datetime,
) -> None:
    """All its nodes are written down: it waits for approval, or its first wave is told."""
    nodes = sum(change.waves)
    change.needs_approval = above is not None and nodes > above
    change.state = ChangeState.AWAITING_APPROVAL
    auditing.record(
        session,
        "change_proposed",
        subject=f"change {change.id}",
        now=now,
        layer=change.layer_name,
        changed=dict(wish.changed),
        nodes=nodes,
        cannot=cannot,
        waves=change.waves,
    )
    if not change.needs_approval:
        staging.open_wave(session, change, now=now)


def _rows(
    change: ConfigurationChange, changing: Sequence[NodeOutcome], cannot: Sequence[NodeOutcome]
) -> list[Mapping[str, object]]:
    order = _in_order(changing, change.id, canaries=change.waves[0] if change.waves else 0)
    waves = (number for number, size in enumerate(change.waves, start=1) for _ in range(size))
    rows: list[Mapping[str, object]] = [
        {"change_id": change.id, "node_id": node_id, "wave": wave, "fault": None}
        for node_id, wave in zip(order, waves, strict=True)
    ]
    rows += [
        {"change_id": change.id, "node_id": one.node_id, "wave": 0, "fault": one.why}
        for one in cannot
    ]
    return rows


def _add_nodes(session: Session, rows: Sequence[Mapping[str, object]]) -> None:
    for some in bulk.chunks(rows, layering.NODES_AT_ONCE):
        session.execute(insert(ConfigurationChangeNode), some)


def _in_order(nodes: Sequence[NodeOutcome], change_id: int, *, canaries: int) -> list[str]:
    """First nodes that answer soon, one of each model in turn; then the rest, mixed so that no wave is one street."""
    by_model: dict[str, list[NodeOutcome]] = defaultdict(list)
    for one in sorted(nodes, key=lambda one: one.last_heard_at or _NEVER, reverse=True):
        by_model[one.model].append(one)
    in_turn = zip_longest(*(by_model[model] for model in sorted(by_model)))
    first = [one.node_id for turn in in_turn for one in turn if one is not None][:canaries]
    chosen = set(first)
    rest = [one.node_id for one in nodes if one.node_id not in chosen]
    rest.sort(key=lambda node_id: hashlib.sha256(f"{change_id} {node_id}".encode()).digest())
    return first + rest


def _end_others(session: Session, layer: Layer, *, now: datetime) -> None:
    """Raises ChangeUnderWay when a change of this layer is on its way. One that all nodes were told is ended by the next."""
    for other in session.scalars(
        select(ConfigurationChange).where(
            ConfigurationChange.layer_kind == layer.kind,
            ConfigurationChange.layer_key == layer.key,
            ConfigurationChange.state.in_(OPEN),
        )
    ).all():
        is_told = other.layer_version is not None and other.swept_to is None
        if not is_told or other.state == ChangeState.ROLLING_BACK:
            raise ChangeUnderWay(
                "Change %(change_id)s of %(layer)s is under way; wait until it is through, abort it or roll it back.",
                change_id=other.id,
                layer=layer.name,
            )
        other.state, other.finished_at = ChangeState.COMPLETED, now
        other.reason = "the next change followed"


def _held(session: Session, change_id: int, *states: ChangeState) -> ConfigurationChange:
    change = session.get(
        ConfigurationChange, change_id, with_for_update=True, populate_existing=True
    )
    if change is None:
        raise NotFound("There is no change %(change_id)s.", change_id=change_id)
    previewing.check_scope(session, layer_of(change))
    if change.state not in states:
        wanted = ", ".join(state.replace("_", " ") for state in states)
        raise ChangeElsewhere(
            "Change %(change_id)s is %(state)s; this can be done while it is %(wanted)s.",
            change_id=change_id,
            state=change.state.replace("_", " "),
            wanted=wanted,
        )
    return change


def _record(
    session: Session, action: str, change: ConfigurationChange, *, now: datetime, **details: object
) -> None:
    auditing.record(
        session,
        action,
        subject=f"change {change.id}",
        now=now,
        layer=change.layer_name,
        wave=change.wave,
        **details,  # type: ignore[arg-type] # texts and numbers
    )


def _person(actor: str) -> str:
    """`key 7 of anna` is anna."""
    return actor.rpartition(" of ")[2] if actor.startswith("key ") else actor
