"""Groups of nodes, and tags. Who joins or leaves a group gets the configuration that follows from it at once.

That is no way around waves and approval (`services.changing`): what people do here may change the configuration of a few nodes only;
for more, the group's settings are changed when its members are right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, Invalid, NotFound, Refused
from fleet_server.models import (
    ChangeState,
    ConfigurationChange,
    LayerKind,
    Node,
    NodeGroup,
    NodeGroupMember,
    NodeTag,
    Silence,
)
from fleet_server.services import auditing, keyset, layering, rights, selecting
from fleet_server.services.rights import Right
from fleet_server.services.selecting import Selection

DEFAULT_AT_ONCE = 50
"""As many nodes as may get another configuration by an edit here."""
_NAME_MAX_LENGTH, _DESCRIPTION_MAX_LENGTH = 64, 500
_TAG = re.compile(r"[\w.:-]{1,32}")
_PRIORITY_MAX = 1000
_FINISHED = (ChangeState.COMPLETED, ChangeState.ABORTED, ChangeState.ROLLED_BACK)


class GroupWrong(Invalid):
    """A group or a tag cannot be like this."""

    code = "group_wrong"


class GroupExists(Conflict):
    """The group's name is taken."""

    code = "group_exists"


class GroupInUse(Conflict):
    """The group still wants something of its nodes."""

    code = "group_in_use"


class TooManyAtOnce(Refused):
    """More nodes would be told something else than an edit of a group may do; `fields["nodes"]` says how many."""

    code = "too_many_at_once"


@dataclass(frozen=True)
class GroupOverview:
    """A group as lists show it; `members` counts those that the actor has to do with."""

    id: int
    name: str
    description: str
    priority: int
    rule: Selection | None
    members: int


@dataclass(frozen=True)
class Member:
    node_id: str
    label: str
    model: str
    by_hand: bool
    by_rule: bool


def create_group(
    session: Session,
    name: str,
    *,
    now: datetime,
    description: str = "",
    priority: int = 0,
    rule: Selection | None = None,
) -> NodeGroup:
    """A new group with the members that its rule finds. Committed on return.

    Raises:
        GroupWrong, SelectionWrong: it cannot be like this.
        GroupExists: the name is taken.
    """
    _check(name, description, priority)
    kept = None if rule is None or rule.is_empty else selecting.as_rule(rule)
    with db.writing(session):
        _check_free(session, name)
        group = NodeGroup(
            name=name, description=description, priority=priority, rule=kept, created_at=now
        )
        session.add(group)
        session.flush()
        _follow_rule(session, group)
        auditing.record(
            session,
            "group_made",
            subject=f"group {name}",
            now=now,
            priority=priority,
            rule=_told(kept),
        )
    return group


def change_group(
    session: Session,
    group_id: int,
    *,
    now: datetime,
    name: str | None = None,
    description: str | None = None,
    priority: int | None = None,
    rule: Selection | None = None,
    at_once: int | None = DEFAULT_AT_ONCE,
) -> NodeGroup:
    """Change what is given; an empty rule takes the rule away. Committed on return; nodes are told what follows from it.

    Args:
        at_once: How many nodes may get another configuration by it; None: any number.

    Raises:
        GroupWrong, SelectionWrong, GroupExists: it cannot be like this.
        TooManyAtOnce: too many would.
        NotFound: there is no such group.
    """
    with db.writing(session):
        group = layering.find_group(session, str(group_id))
        _check(
            name or group.name, description or "", group.priority if priority is None else priority
        )
        check_group_whole(session, group)
        if name is not None and name != group.name:
            _check_free(session, name)
            _rename_silences(session, group.name, name)
            group.name = name
        if description is not None:
            group.description = description
        touched: set[str] = set()
        if priority is not None and priority != group.priority:
            group.priority = priority
            touched |= set(_members(session, group))
        if rule is not None:
            group.rule = None if rule.is_empty else selecting.as_rule(rule)
            session.flush()
            touched |= set(_follow_rule(session, group))
            check_group_whole(session, group)
        session.flush()
        _tell(session, touched, now=now, at_once=at_once)
        auditing.record(
            session,
            "group_changed",
            subject=f"group {group.name}",
            now=now,
            priority=group.priority,
            rule=_told(group.rule),
        )
    return group


def delete_group(session: Session, group_id: int, *, now: datetime) -> None:
    """Forget a group. Committed on return.

    Raises:
        GroupInUse: it still wants something of its nodes, or a change of it is on its way.
        NotFound: there is no such group.
    """
    with db.writing(session):
        group = layering.find_group(session, str(group_id))
        check_group_whole(session, group)
        layer = layering.group_layer(group)
        is_told = and_(
            ConfigurationChange.layer_version.is_not(None),
            ConfigurationChange.swept_to.is_(None),
        )
        under_way = session.scalar(
            select(func.count()).where(
                ConfigurationChange.layer_kind == LayerKind.GROUP,
                ConfigurationChange.layer_key == layer.key,
                or_(
                    and_(ConfigurationChange.state.not_in(_FINISHED), ~is_told),
                    ConfigurationChange.is_unsettled,
                ),
            )
        )
        if under_way or layering.layer_settings(session, layer):
            raise GroupInUse(
                "Group %(name)s still wants something of its nodes: take its settings back first.",
                name=group.name,
            )
        session.execute(delete(NodeGroupMember).where(NodeGroupMember.group_id == group.id))
        # A later group of the same name is another.
        session.execute(delete(Silence).where(*_is_for_group(group.name)))
        session.delete(group)
        session.flush()
        auditing.record(session, "group_deleted", subject=f"group {group.name}", now=now)


def add_members(
    session: Session,
    group_id: int,
    selection: Selection,
    *,
    now: datetime,
    at_once: int | None = DEFAULT_AT_ONCE,
) -> int:
    """Put nodes into a group by hand. Returns how many were not in it by hand before. Committed on return.

    Raises:
        SelectionWrong, NotFound, TooManyAtOnce: see `change_group`.
    """
    with db.writing(session):
        group = layering.find_group(session, str(group_id))
        ids = _meant(session, selection)
        known = dict(
            session.execute(
                select(NodeGroupMember.node_id, NodeGroupMember.by_hand).where(
                    NodeGroupMember.group_id == group.id
                )
            ).all()
        )
        joining = [node_id for node_id in ids if node_id not in known]
        for chunk in _chunks(joining):
            session.execute(
                insert(NodeGroupMember),
                [
                    {"group_id": group.id, "node_id": one, "by_hand": True, "by_rule": False}
                    for one in chunk
                ],
            )
        staying = [node_id for node_id in ids if known.get(node_id) is False]
        _set_by_hand(session, group, staying, by_hand=True)
        _tell(session, joining, now=now, at_once=at_once)
        count = len(joining) + len(staying)
        if count:
            _record_members(session, "group_joined", group, [*joining, *staying], now=now)
    return count


def remove_members(
    session: Session,
    group_id: int,
    selection: Selection,
    *,
    now: datetime,
    at_once: int | None = DEFAULT_AT_ONCE,
) -> int:
    """Take nodes out of a group; whom its rule finds stays. Returns how many were in it by hand. Committed on return.

    Raises:
        SelectionWrong, NotFound, TooManyAtOnce: see `change_group`.
    """
    with db.writing(session):
        group = layering.find_group(session, str(group_id))
        ids = set(_meant(session, selection))
        by_hand = session.execute(
            select(NodeGroupMember.node_id, NodeGroupMember.by_rule).where(
                NodeGroupMember.group_id == group.id, NodeGroupMember.by_hand
            )
        ).all()
        staying = [node_id for node_id, by_rule in by_hand if by_rule and node_id in ids]
        leaving = [node_id for node_id, by_rule in by_hand if not by_rule and node_id in ids]
        _set_by_hand(session, group, staying, by_hand=False)
        for chunk in _chunks(leaving):
            session.execute(
                delete(NodeGroupMember).where(
                    NodeGroupMember.group_id == group.id, NodeGroupMember.node_id.in_(chunk)
                )
            )
        _tell(session, leaving, now=now, at_once=at_once)
        count = len(staying) + len(leaving)
        if count:
            _record_members(session, "group_left", group, [*leaving, *staying], now=now)
    return count


def tag_nodes(
    session: Session,
    selection: Selection,
    tag: str,
    *,
    now: datetime,
    at_once: int | None = DEFAULT_AT_ONCE,
) -> int:
    """Put a tag on nodes; groups that go by it follow. Returns how many did not have it. Committed on return.

    Raises:
        GroupWrong: it cannot be a tag.
        SelectionWrong, NotFound, TooManyAtOnce: see `change_group`.
    """
    if not _TAG.fullmatch(tag):
        raise GroupWrong("A tag has 1 to 32 letters, digits, . : - and _, without spaces.")
    with db.writing(session):
        ids = _meant(session, selection)
        tagging = (
            sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
        )
        held = set(session.scalars(select(NodeTag.node_id).where(NodeTag.tag == tag)))
        added = [node_id for node_id in ids if node_id not in held]
        for chunk in _chunks(added):
            session.execute(
                tagging(NodeTag).on_conflict_do_nothing(),
                [{"node_id": one, "tag": tag} for one in chunk],
            )
        return _after_tagging(session, "nodes_tagged", tag, added, now=now, at_once=at_once)


def untag_nodes(
    session: Session,
    selection: Selection,
    tag: str,
    *,
    now: datetime,
    at_once: int | None = DEFAULT_AT_ONCE,
) -> int:
    """Take a tag off nodes. Returns how many had it. Committed on return. Raises as `tag_nodes`."""
    with db.writing(session):
        held = set(session.scalars(select(NodeTag.node_id).where(NodeTag.tag == tag)))
        taken = [node_id for node_id in _meant(session, selection) if node_id in held]
        for chunk in _chunks(taken):
            session.execute(delete(NodeTag).where(NodeTag.tag == tag, NodeTag.node_id.in_(chunk)))
        return _after_tagging(session, "nodes_untagged", tag, taken, now=now, at_once=at_once)


def tags_of(session: Session, node_id: str) -> list[str]:
    """One statement."""
    return list(
        session.scalars(select(NodeTag.tag).where(NodeTag.node_id == node_id).order_by(NodeTag.tag))
    )


def groups_of(session: Session, node_id: str) -> list[NodeGroup]:
    """The groups that a node is in, the one with the last word last. One statement."""
    return list(
        session.scalars(
            select(NodeGroup)
            .join(NodeGroupMember, NodeGroupMember.group_id == NodeGroup.id)
            .where(NodeGroupMember.node_id == node_id)
            .order_by(NodeGroup.priority, NodeGroup.id)
        )
    )


def groups(session: Session) -> list[GroupOverview]:
    """All groups by name, with the number of members. One statement."""
    query = (
        select(NodeGroup, func.count(Node.node_id))
        .outerjoin(NodeGroupMember, NodeGroupMember.group_id == NodeGroup.id)
        .outerjoin(Node, and_(Node.node_id == NodeGroupMember.node_id, _is_in_scope(session)))
        .group_by(NodeGroup.id)
        .order_by(NodeGroup.name)
    )
    return [
        GroupOverview(
            group.id,
            group.name,
            group.description,
            group.priority,
            None if group.rule is None else selecting.of_rule(group.rule),
            members,
        )
        for group, members in session.execute(query)
    ]


def group_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[GroupOverview]:
    """As `groups`, in pages. One statement."""
    if after is not None and [type(part) for part in after] != [str]:
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    begin = "" if after is None else str(after[0])
    later = sorted((one for one in groups(session) if one.name > begin), key=lambda one: one.name)
    shown = later[:limit]
    return keyset.Page(shown, (shown[-1].name,) if len(later) > limit else None)


def group_overview(session: Session, group_id: int) -> GroupOverview:
    """One group. Raises NotFound."""
    found = next((one for one in groups(session) if one.id == group_id), None)
    if found is None:
        raise NotFound("There is no group %(group_id)s.", group_id=group_id)
    return found


def member_page(
    session: Session, group_id: int, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[Member]:
    """As `members`. Raises NotFound when there is no such group."""
    layering.find_group(session, str(group_id))
    if after is not None and [type(part) for part in after] != [str]:
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    begin = "" if after is None else str(after[0])
    found = members(session, group_id, after=begin, limit=limit + 1)
    shown = found[:limit]
    return keyset.Page(shown, (shown[-1].node_id,) if len(found) > limit else None)


def members(session: Session, group_id: int, *, after: str = "", limit: int = 100) -> list[Member]:
    """Members that the actor has to do with, by node id, from the one after `after` on. One statement."""
    rows = session.execute(
        select(
            Node.node_id,
            Node.label,
            Node.model,
            NodeGroupMember.by_hand,
            NodeGroupMember.by_rule,
        )
        .join(NodeGroupMember, NodeGroupMember.node_id == Node.node_id)
        .where(NodeGroupMember.group_id == group_id, Node.node_id > after, _is_in_scope(session))
        .order_by(Node.node_id)
        .limit(limit)
    )
    return [Member(*row) for row in rows]


def follow_rules(session: Session, *, now: datetime) -> int:
    """Let every group have the members that its rule finds now: nodes were mounted, moved or enrolled. Returns how many joined or left.

    A job's; committed group by group. Each group costs a fixed number of statements while nothing has changed.
    """
    moved = 0
    ruled = session.scalars(select(NodeGroup.id).where(NodeGroup.rule.is_not(None))).all()
    for group_id in ruled:
        group = session.get(NodeGroup, group_id)
        if group is None or not _strays(session, group):
            continue
        with db.writing(session):
            group = session.get(NodeGroup, group_id, with_for_update=True)
            if group is None:
                continue
            touched = _follow_rule(session, group)
            _tell(session, touched, now=now, at_once=None)
            moved += len(touched)
    return moved


# ---------------------------------------------------------------------------------------------------------------- private


def _check(name: str, description: str, priority: int) -> None:
    if not (1 <= len(name) <= _NAME_MAX_LENGTH and name.isprintable() and name == name.strip()):
        raise GroupWrong(
            "A group's name has 1 to %(longest)s printable characters.", longest=_NAME_MAX_LENGTH
        )
    if name.isdecimal():
        raise GroupWrong("A group's name is no number: groups have numbers already.")
    if len(description) > _DESCRIPTION_MAX_LENGTH or "\0" in description:
        raise GroupWrong(
            "A group's description has up to %(longest)s characters.",
            longest=_DESCRIPTION_MAX_LENGTH,
        )
    if not -_PRIORITY_MAX <= priority <= _PRIORITY_MAX:
        raise GroupWrong(
            "A group's priority is from -%(highest)s to %(highest)s.", highest=_PRIORITY_MAX
        )


def _check_free(session: Session, name: str) -> None:
    if session.scalar(select(NodeGroup.id).where(NodeGroup.name == name)) is not None:
        raise GroupExists("There is already a group %(name)s.", name=name)


def check_whole(session: Session, query: Select[str], what: str) -> None:
    """Raises NotAllowed when `query` finds nodes that the actor has nothing to do with."""
    models = rights.node_models(session)
    if models is None:
        return
    strangers = select(func.count()).select_from(query.where(Node.model.not_in(models)).subquery())
    if session.scalar(strangers):
        raise rights.NotAllowed(
            "%(what)s has nodes that are not in your scope; somebody with all sites in scope can do this.",
            what=what,
            right=Right.OPERATE_NODES,
        )


def _is_for_group(name: str) -> tuple[ColumnElement[bool], ...]:
    return (Silence.scope == "group", Silence.key == name)


def _rename_silences(session: Session, before: str, after: str) -> None:
    session.execute(update(Silence).where(*_is_for_group(before)).values(key=after))


def check_group_whole(session: Session, group: NodeGroup) -> None:
    """Raises NotAllowed when the group has nodes that the actor has nothing to do with."""
    query = layering.nodes_in_reach(layering.group_layer(group))
    check_whole(session, query, f"Group {group.name}")


def _is_in_scope(session: Session) -> ColumnElement[bool]:
    models = rights.node_models(session)
    return true() if models is None else Node.model.in_(models)


def _meant(session: Session, selection: Selection) -> list[str]:
    if selection.is_empty:
        raise selecting.SelectionWrong("Say which nodes: by name, model, site kind, tag or place.")
    return list(session.scalars(selecting.nodes(session, selection).order_by(Node.node_id)))


def _members(session: Session, group: NodeGroup) -> list[str]:
    return list(
        session.scalars(select(NodeGroupMember.node_id).where(NodeGroupMember.group_id == group.id))
    )


def _found_by_rule(session: Session, group: NodeGroup) -> Select[str]:
    """All of them, whoever acts: a rule is the group's, not the reader's."""
    if group.rule is None:
        return select(Node.node_id).where(false())
    acting = rights.actor_of(session)
    rights.act_as(session, rights.MACHINE)
    try:
        return selecting.nodes(session, selecting.of_rule(group.rule))
    finally:
        rights.act_as(session, acting)


def _newcomers(session: Session, group: NodeGroup) -> Select[str]:
    found = _found_by_rule(session, group)
    already = exists().where(
        NodeGroupMember.group_id == group.id,
        NodeGroupMember.node_id == Node.node_id,
        NodeGroupMember.by_rule,
    )
    return found.where(~already)


def _leavers(session: Session, group: NodeGroup) -> Select[str]:
    return select(NodeGroupMember.node_id).where(
        NodeGroupMember.group_id == group.id,
        NodeGroupMember.by_rule,
        NodeGroupMember.node_id.not_in(_found_by_rule(session, group)),
    )


def _strays(session: Session, group: NodeGroup) -> bool:
    either = select(or_(_newcomers(session, group).exists(), _leavers(session, group).exists()))
    return bool(session.scalar(either))


def _follow_rule(session: Session, group: NodeGroup) -> list[str]:
    """Who is in the group by its rule, set right. Returns who joined or left it."""
    newcomers = list(session.scalars(_newcomers(session, group)))
    leavers = list(session.scalars(_leavers(session, group)))
    by_hand = set(
        session.scalars(
            select(NodeGroupMember.node_id).where(
                NodeGroupMember.group_id == group.id, NodeGroupMember.by_hand
            )
        )
    )
    for chunk in _chunks([one for one in newcomers if one not in by_hand]):
        session.execute(
            insert(NodeGroupMember),
            [
                {"group_id": group.id, "node_id": one, "by_hand": False, "by_rule": True}
                for one in chunk
            ],
        )
    for ids, by_rule in (
        ([one for one in newcomers if one in by_hand], True),
        ([one for one in leavers if one in by_hand], False),
    ):
        for chunk in _chunks(ids):
            _set(session, group, chunk, by_rule=by_rule)
    for chunk in _chunks([one for one in leavers if one not in by_hand]):
        session.execute(
            delete(NodeGroupMember).where(
                NodeGroupMember.group_id == group.id, NodeGroupMember.node_id.in_(chunk)
            )
        )
    return [one for one in (*newcomers, *leavers) if one not in by_hand]


def _set_by_hand(
    session: Session, group: NodeGroup, node_ids: Sequence[str], *, by_hand: bool
) -> None:
    for chunk in _chunks(node_ids):
        _set(session, group, chunk, by_hand=by_hand)


def _set(session: Session, group: NodeGroup, node_ids: Sequence[str], **values: bool) -> None:
    session.execute(
        update(NodeGroupMember)
        .where(NodeGroupMember.group_id == group.id, NodeGroupMember.node_id.in_(node_ids))
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _tell(session: Session, node_ids: Iterable[str], *, now: datetime, at_once: int | None) -> None:
    """What follows for these nodes; refused when that is more than `at_once` may get."""
    changed = 0
    for chunk in _chunks(sorted(set(node_ids))):
        found = layering.apply(session, chunk, now=now)
        changed += sum(one.changes and one.fault is None for one in found)
    if at_once is not None and changed > at_once:
        raise TooManyAtOnce(
            "This would give %(changed)s nodes another configuration at once, more than %(at_once)s: take "
            "the group's settings back, set its members right, and then set them again, in waves.",
            changed=changed,
            at_once=at_once,
            nodes=changed,
        )


def _after_tagging(
    session: Session,
    action: str,
    tag: str,
    node_ids: Sequence[str],
    *,
    now: datetime,
    at_once: int | None,
) -> int:
    if not node_ids:
        return 0
    touched: list[str] = []
    for group in session.scalars(select(NodeGroup).where(NodeGroup.rule.is_not(None))).all():
        if (group.rule or {}).get("tag") == tag:
            touched += _follow_rule(session, group)
    _tell(session, touched, now=now, at_once=at_once)
    auditing.record(
        session,
        action,
        subject=f"tag {tag}",
        now=now,
        nodes=len(node_ids),
        first=list(node_ids[:_NAMED]),
    )
    return len(node_ids)


_NAMED = 20
"""So many nodes are named in an audit entry; how many there were is said anyway."""


def _record_members(
    session: Session, action: str, group: NodeGroup, node_ids: Sequence[str], *, now: datetime
) -> None:
    auditing.record(
        session,
        action,
        subject=f"group {group.name}",
        now=now,
        nodes=len(node_ids),
        first=list(node_ids[:_NAMED]),
    )


def _told(rule: dict[str, Any] | None) -> str | None:
    """As text: the audit log keeps no fractions."""
    if rule is None:
        return None
    return ", ".join(f"{name}={value}" for name, value in sorted(rule.items()))


def _chunks(node_ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (
        node_ids[start : start + layering.NODES_AT_ONCE]
        for start in range(0, len(node_ids), layering.NODES_AT_ONCE)
    )
