"""Layers of desired settings: fleet, node model, groups by priority, node. What they come to is a node's configuration.

A setting is wanted by the last layer that names it; where none does, it is as the node's model provisions it. A node's row in
`configuration` is what its layers come to, and is written here only: its version rises when that changes, and not otherwise.
While a change of a layer is on its way (`services.changing`), the layer is already the new one for the nodes that were told.

Everything works on many nodes at once, with a fixed number of statements for up to `NODES_AT_ONCE` of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, and_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound, Said
from fleet_server.models import (
    Configuration,
    ConfigurationChange,
    ConfigurationChangeNode,
    ConfigurationLayer,
    ConfigurationLayerVersion,
    LayerKind,
    Node,
    NodeGroup,
    NodeGroupMember,
    NodeStatus,
)
from fleet_server.models.outbox import DESIRED
from fleet_server.services import health, keyset, node_settings, outbox, rights
from fleet_server.services.node_life import OUT_OF_SERVICE
from fleet_server.services.node_settings import Values
from fleet_server.wire.configuration import battery_fault, sha256_hex
from hardware import catalogue

NODES_AT_ONCE = 1000
PROVISIONED = "provisioned"


@dataclass(frozen=True)
class Layer:
    """Whose settings: `name` is what people call it (`group Innenstadt`)."""

    kind: LayerKind
    key: str
    name: str

    @property
    def at(self) -> tuple[str, str]:
        return self.kind, self.key

    @property
    def owner(self) -> str:
        """For whom its passwords are sealed."""
        if self.kind is LayerKind.NODE:
            return self.key
        return node_settings.layer_owner(self.kind, self.key)


FLEET = Layer(LayerKind.FLEET, "", "fleet")


def model_layer(model: str) -> Layer:
    return Layer(LayerKind.MODEL, model, f"model {model}")


def group_layer(group: NodeGroup) -> Layer:
    return Layer(LayerKind.GROUP, str(group.id), f"group {group.name}")


def node_layer(node_id: str) -> Layer:
    return Layer(LayerKind.NODE, node_id, f"node {node_id}")


def find_layer(session: Session, kind: str, key: str = "") -> Layer:
    """The layer that people mean; a group is named by its name or its id.

    Raises:
        NotFound: no such model, group or node, or none that the actor has to do with.
    """
    match kind:
        case LayerKind.FLEET:
            return FLEET
        case LayerKind.MODEL if key in catalogue.node_model_ids():
            site_kind = catalogue.load_node_model(key).site_kind
            rights.check_site_kind(session, site_kind, what=Said("node model %(model)s", model=key))
            return model_layer(key)
        case LayerKind.MODEL:
            known = ", ".join(catalogue.node_model_ids())
            raise NotFound(
                "There is no node model %(model)s; there are %(known)s.", model=key, known=known
            )
        case LayerKind.GROUP:
            return group_layer(find_group(session, key))
        case LayerKind.NODE:
            node = session.get(Node, key)
            if node is None:
                raise NotFound("There is no node %(node_id)s.", node_id=key)
            rights.check_node_model(session, node.model, node_id=key)
            return node_layer(key)
    raise NotFound(
        "There is no layer %(kind)s; there are %(kinds)s.", kind=kind, kinds=", ".join(LayerKind)
    )


def find_group(session: Session, name_or_id: str) -> NodeGroup:
    """Raises NotFound when there is no such group."""
    group = session.scalar(select(NodeGroup).where(NodeGroup.name == name_or_id))
    if group is None and name_or_id.isascii() and name_or_id.isdecimal() and len(name_or_id) < 10:
        group = session.get(NodeGroup, int(name_or_id))
    if group is None:
        raise NotFound("There is no group %(name)s.", name=name_or_id)
    return group


@dataclass(frozen=True)
class Effective:
    """What holds for one setting, and the name of the layer that wants it."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Resolved:
    """What a node's layers come to, beside what it is told now.

    `fault`: why it could not take it.
    """

    node_id: str
    label: str
    model: str
    last_heard_at: datetime | None
    settings: Values
    told: Values
    held_back: str | None
    fault: str | None

    @property
    def changes(self) -> bool:
        return self.settings != self.told


@dataclass
class _Known:
    """All that is needed to resolve some nodes."""

    settings: dict[tuple[str, str], Values] = field(default_factory=dict)
    groups: dict[str, list[Layer]] = field(default_factory=lambda: defaultdict(list))
    changes: dict[int, tuple[tuple[str, str], Values]] = field(default_factory=dict)
    told: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    supposed: dict[tuple[str, str], Values] = field(default_factory=dict)
    judged: dict[Any, tuple[dict[str, Effective], str | None]] = field(default_factory=dict)

    def layers_of(self, node_id: str, model: str) -> list[Layer]:
        """From the first to the one with the last word."""
        return [FLEET, model_layer(model), *self.groups.get(node_id, ()), node_layer(node_id)]

    def seen(self, layer: Layer, node_id: str) -> Values:
        """A layer's settings, as they are for this node."""
        if layer.at in self.supposed:
            return self.supposed[layer.at]
        for change_id in reversed(self.told.get(node_id, ())):
            at, after = self.changes[change_id]
            if at == layer.at:
                return after
        return self.settings.get(layer.at, {})

    def resolve(self, node_id: str, model: str) -> tuple[dict[str, Effective], str | None]:
        """The effective settings and why a node of this model would refuse them, its battery apart. Worked out once for nodes alike."""
        layers = self.layers_of(node_id, model)
        is_alone = bool(self.seen(layers[-1], node_id))
        alike = (
            model,
            tuple(layer.key for layer in self.groups.get(node_id, ())),
            tuple(self.told.get(node_id, ())),
            node_id if is_alone else None,
        )
        if alike not in self.judged:
            effective = {
                name: Effective(value, f"model {model}, {PROVISIONED}")
                for name, value in node_settings.provisioned_settings(model).items()
            }
            for layer in layers:
                for name, value in self.seen(layer, node_id).items():
                    effective[name] = Effective(value, layer.name)
            fault = node_settings.fault_of(model, node_settings.masked(_values(effective)))
            self.judged[alike] = (effective, None if fault is None else fault.sentence)
        return self.judged[alike]


def _values(effective: Mapping[str, Effective]) -> dict[str, Any]:
    return {name: one.value for name, one in effective.items()}


def in_service() -> Any:
    """The condition that a node has still something to be told."""
    return Node.state.not_in(OUT_OF_SERVICE)


def has_identity() -> Any:
    """The condition that a node can be told something: one that is only on the list cannot."""
    return Node.enrolled_at.is_not(None)


def effective_settings(session: Session, node_id: str) -> dict[str, Effective]:
    """Every setting of a node with the layer that wants it. Raises NotFound when there is no such node."""
    node = session.get(Node, node_id)
    if node is None:
        raise NotFound("There is no node %(node_id)s.", node_id=node_id)
    return _know(session, [node_id]).resolve(node_id, node.model)[0]


def first_settings(session: Session, node_id: str, model: str) -> dict[str, Any]:
    """What a node is told from its enrolment on. Where its layers want something that it cannot take, it is as provisioned."""
    effective, fault = _know(session, [node_id]).resolve(node_id, model)
    return node_settings.provisioned_settings(model) if fault else _values(effective)


def nodes_in_reach(layer: Layer) -> Select[str]:
    """Ids of the nodes in service that a layer has a word for; whoever asks orders and limits it."""
    query = select(Node.node_id).where(in_service())
    if layer.kind is LayerKind.MODEL:
        return query.where(Node.model == layer.key)
    if layer.kind is LayerKind.GROUP:
        return query.join(NodeGroupMember, NodeGroupMember.node_id == Node.node_id).where(
            NodeGroupMember.group_id == int(layer.key)
        )
    return query if layer.kind is LayerKind.FLEET else query.where(Node.node_id == layer.key)


def chunks_of(session: Session, query: Select[str], *, after: str = "") -> Iterator[list[str]]:
    """The ids that `query` finds, in order, at most `NODES_AT_ONCE` at a time: one statement each."""
    while True:
        chunk = list(
            session.scalars(
                query.where(Node.node_id > after).order_by(Node.node_id).limit(NODES_AT_ONCE)
            )
        )
        if chunk:
            yield chunk
            after = chunk[-1]
        if len(chunk) < NODES_AT_ONCE:
            return


def resolve(
    session: Session,
    node_ids: Sequence[str],
    *,
    supposed: Mapping[tuple[str, str], Values] | None = None,
    lock: bool = False,
) -> list[Resolved]:
    """What the layers of these nodes come to, by node id. Six statements at most.

    Args:
        supposed: Settings that a layer is supposed to have, for all of the nodes.
        lock: Whether their rows are to be written in this transaction.
    """
    known = _know(session, node_ids)
    known.supposed.update(supposed or {})
    query = (
        select(
            Node.node_id,
            Node.label,
            Node.model,
            NodeStatus.last_heard_at,
            NodeStatus.battery_mv,
            Configuration.settings,
            Configuration.held_back,
        )
        .join(Configuration, Configuration.node_id == Node.node_id)
        .join(NodeStatus, NodeStatus.node_id == Node.node_id)
        .where(Node.node_id.in_(node_ids))
        .order_by(Node.node_id)
    )
    if lock:
        query = query.with_for_update(of=Configuration)
    found = []
    for node_id, label, model, heard_at, battery_mv, told, held_back in session.execute(query):
        effective, fault = known.resolve(node_id, model)
        settings = _values(effective)
        if fault is None:
            empty = battery_fault(settings, battery_mv)
            fault = None if empty is None else empty.sentence
        found.append(Resolved(node_id, label, model, heard_at, settings, told, held_back, fault))
    return found


def apply(session: Session, node_ids: Sequence[str], *, now: datetime) -> list[Resolved]:
    """Tell these nodes what their layers come to, in the caller's transaction. Returns what was found for each.

    A node that could not take it keeps what it has, and its row says why. Safe to repeat.
    """
    found = resolve(session, node_ids, lock=True)
    taking = {one.node_id: one.settings for one in found if one.fault is None and one.changes}
    write(session, taking, now=now)
    for reason in {one.fault for one in found if one.fault != one.held_back}:
        ids = [one.node_id for one in found if one.fault == reason != one.held_back]
        _update_rows(session, ids, held_back=reason)
    return found


def _update_rows(session: Session, node_ids: Sequence[str], **values: Any) -> None:
    session.execute(
        update(Configuration)
        .where(Configuration.node_id.in_(node_ids))
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    _forget_rows(session, node_ids)


def write(session: Session, wanted: Mapping[str, Values], *, now: datetime) -> None:
    """New configurations by node, in the caller's transaction: each is a version of its own, and its node is told."""
    if not wanted:
        return
    versions = session.execute(
        select(Configuration.node_id, Configuration.version)
        .where(Configuration.node_id.in_(list(wanted)))
        .with_for_update()
    ).all()
    rows = [
        {
            "node_id": node_id,
            "settings": dict(wanted[node_id]),
            "version": version + 1,
            "sha256": sha256_hex(version + 1, wanted[node_id]),
            "changed_at": now,
        }
        for node_id, version in versions
    ]
    session.execute(update(Configuration), rows)
    _forget_rows(session, list(wanted))
    health.follow_configuration(session, wanted)
    outbox.mark_changed(session, DESIRED, wanted, now=now)


def _forget_rows(session: Session, node_ids: Iterable[str]) -> None:
    """What the session holds of these rows is read again."""
    for node_id in node_ids:
        held = session.identity_map.get(session.identity_key(Configuration, node_id))
        if held is not None:
            session.expire(held)


def layer_settings(session: Session, layer: Layer, *, lock: bool = False) -> dict[str, Any]:
    """What a layer wants, passwords sealed; nothing when nobody ever wanted anything of it."""
    row = session.get(
        ConfigurationLayer, layer.at, with_for_update=lock or None, populate_existing=lock
    )
    return {} if row is None else dict(row.settings)


def hold_layer(session: Session, layer: Layer) -> dict[str, Any]:
    """A layer's settings, held until the transaction ends: nobody else changes it meanwhile, also when it never was anything."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    epoch = datetime.fromtimestamp(0, UTC)
    session.execute(
        insert(ConfigurationLayer)
        .values(kind=layer.kind, key=layer.key, version=0, settings={}, changed_at=epoch)
        .on_conflict_do_nothing()
    )
    return layer_settings(session, layer, lock=True)


def set_layer(session: Session, layer: Layer, settings: Values, *, now: datetime, by: str) -> int:
    """A new version of a layer, in the caller's transaction; what it was before is kept. Returns the version. Tells nobody."""
    row = session.get(ConfigurationLayer, layer.at, with_for_update=True)
    if row is None:
        row = ConfigurationLayer(kind=layer.kind, key=layer.key, version=0)
        session.add(row)
    row.version += 1
    row.settings, row.changed_at = dict(settings), now
    session.add(
        ConfigurationLayerVersion(
            kind=layer.kind,
            key=layer.key,
            version=row.version,
            settings=dict(settings),
            changed_at=now,
            changed_by=by,
        )
    )
    session.flush()
    return row.version


@dataclass(frozen=True)
class LayerOverview:
    """A layer that wants something, as people may see it."""

    layer: Layer
    version: int
    settings: Values
    changed_at: datetime


def layers(session: Session) -> list[LayerOverview]:
    """Every layer above the nodes that wants something and that the actor has to do with. Two statements."""
    names = {str(group.id): group.name for group in session.scalars(select(NodeGroup))}
    rows = session.scalars(
        select(ConfigurationLayer)
        .where(ConfigurationLayer.kind != LayerKind.NODE)
        .order_by(ConfigurationLayer.kind, ConfigurationLayer.key)
    )
    models = rights.node_models(session)
    order = list(LayerKind)
    found = [
        LayerOverview(
            _named(row, names), row.version, node_settings.shown(row.settings), row.changed_at
        )
        for row in rows
        if row.settings
        and (row.kind != LayerKind.MODEL or models is None or row.key in models)
        and (row.kind != LayerKind.GROUP or row.key in names)
    ]
    return sorted(found, key=lambda one: (order.index(one.layer.kind), one.layer.name))


def layer_page(
    session: Session, *, limit: int, after: keyset.Key | None = None
) -> keyset.Page[LayerOverview]:
    """As `layers`, in pages. Two statements."""
    found = layers(session)
    if after is not None and [type(part) for part in after] != [int]:
        raise keyset.KeyWrong("This page follows none of this list; begin the list again.")
    begin = 0 if after is None else max(0, int(after[0]))
    end = begin + limit
    return keyset.Page(found[begin:end], (end,) if len(found) > end else None)


def _named(row: ConfigurationLayer, groups: Mapping[str, str]) -> Layer:
    match row.kind:
        case LayerKind.FLEET:
            return FLEET
        case LayerKind.MODEL:
            return model_layer(row.key)
    return Layer(LayerKind.GROUP, row.key, f"group {groups.get(row.key, row.key)}")


def versions_of(
    session: Session, layer: Layer, *, limit: int = 50
) -> list[ConfigurationLayerVersion]:
    """What a layer was, newest first. One statement."""
    return list(
        session.scalars(
            select(ConfigurationLayerVersion)
            .where(
                ConfigurationLayerVersion.kind == layer.kind,
                ConfigurationLayerVersion.key == layer.key,
            )
            .order_by(ConfigurationLayerVersion.version.desc())
            .limit(limit)
        )
    )


# ---------------------------------------------------------------------------------------------------------------- private


def _know(session: Session, node_ids: Sequence[str]) -> _Known:
    """Four statements."""
    known = _Known()
    memberships = session.execute(
        select(NodeGroupMember.node_id, NodeGroup.id, NodeGroup.name)
        .join(NodeGroup, NodeGroup.id == NodeGroupMember.group_id)
        .where(NodeGroupMember.node_id.in_(node_ids))
        .order_by(NodeGroup.priority, NodeGroup.id)
    )
    for node_id, group_id, name in memberships:
        layer = Layer(LayerKind.GROUP, str(group_id), f"group {name}")
        known.groups[node_id].append(layer)
    rows = session.execute(
        select(ConfigurationLayer.kind, ConfigurationLayer.key, ConfigurationLayer.settings).where(
            or_(
                ConfigurationLayer.kind != LayerKind.NODE,
                and_(
                    ConfigurationLayer.kind == LayerKind.NODE,
                    ConfigurationLayer.key.in_(node_ids),
                ),
            )
        )
    )
    known.settings = {(kind, key): settings for kind, key, settings in rows}
    changes = session.execute(
        select(
            ConfigurationChange.id,
            ConfigurationChange.layer_kind,
            ConfigurationChange.layer_key,
            ConfigurationChange.after,
        ).where(ConfigurationChange.is_unsettled)
    )
    known.changes = {id_: ((kind, key), after) for id_, kind, key, after in changes}
    if known.changes:
        told = session.execute(
            select(ConfigurationChangeNode.node_id, ConfigurationChangeNode.change_id)
            .where(
                ConfigurationChangeNode.node_id.in_(node_ids),
                ConfigurationChangeNode.change_id.in_(list(known.changes)),
                ConfigurationChangeNode.told_at.is_not(None),
            )
            .order_by(ConfigurationChangeNode.change_id)
        )
        for node_id, change_id in told:
            known.told[node_id].append(change_id)
    return known
