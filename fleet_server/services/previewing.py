"""What a change of a layer would do, node by node, before anything changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy.orm import Session

from fleet_server.errors import Said
from fleet_server.models import LayerKind
from fleet_server.services import configuring, grouping, layering, node_settings, rights
from fleet_server.services.layering import Layer, Resolved
from fleet_server.services.node_settings import (
    ConfigurationWrong,
    SecretKey,
    Values,
    no_secret_key,
)
from fleet_server.wire.configuration import WIFI, as_kept, find_fault_of_values
from hardware import catalogue

NODES_SHOWN = 200


class Outcome(StrEnum):
    """What a change is for one node."""

    CHANGES = "changes"
    HAS_IT = "has_it"
    OVERRIDDEN = "overridden"  # a layer with the last word wants something else
    CANNOT = "cannot"


@dataclass(frozen=True)
class NodeOutcome:
    """`why`: one sentence for a node that cannot."""

    node_id: str
    label: str
    model: str
    last_heard_at: datetime | None
    outcome: Outcome
    why: str | None


@dataclass(frozen=True)
class Wish:
    """What a layer shall want: `changed` as it may be shown (None: taken back), `before` and `after` with passwords sealed."""

    layer: Layer
    changed: Mapping[str, str | None]
    before: Values
    after: Values


@dataclass(frozen=True)
class Preview:
    """`counts` by outcome; `reasons`: how many nodes cannot, by why; `nodes`: the first of them, those that cannot first."""

    wish: Wish
    counts: Mapping[Outcome, int]
    reasons: Mapping[str, int]
    nodes: Sequence[NodeOutcome]

    @property
    def nodes_in_all(self) -> int:
        return sum(self.counts.values())


def preview(
    session: Session,
    layer: Layer,
    settings: Values,
    *,
    secret_key: SecretKey = no_secret_key,
    shown: int = NODES_SHOWN,
) -> Preview:
    """What it would do to want these settings of a layer; None takes one back. Changes nothing.

    A fixed number of statements for every thousand nodes.

    Raises:
        ConfigurationWrong: no node would take it; says why.
        NotAllowed: the layer has nodes that the actor has nothing to do with.
    """
    wish = make_wish(session, layer, settings, secret_key=secret_key)
    counts: Counter[Outcome] = Counter()
    reasons: Counter[str] = Counter()
    first: dict[Outcome, list[NodeOutcome]] = {outcome: [] for outcome in Outcome}
    for one in outcomes(session, wish):
        counts[one.outcome] += 1
        if one.why is not None:
            reasons[one.why] += 1
        if len(first[one.outcome]) < shown:
            first[one.outcome].append(one)
    refuse_impossible(counts, reasons)
    order = (Outcome.CANNOT, Outcome.CHANGES, Outcome.OVERRIDDEN, Outcome.HAS_IT)
    nodes = [one for outcome in order for one in first[outcome]]
    return Preview(wish, counts, reasons, nodes[:shown])


def make_wish(
    session: Session,
    layer: Layer,
    settings: Values,
    *,
    secret_key: SecretKey = no_secret_key,
    lock: bool = False,
) -> Wish:
    """The layer's settings before and after, judged as far as they can be without a node. Raises as `preview`."""
    check_scope(session, layer)
    before = (
        layering.hold_layer(session, layer) if lock else layering.layer_settings(session, layer)
    )
    held = configuring.opened_or_left_out(before, layer, secret_key=secret_key)
    own = configuring.joined(held, settings)
    fault = _fault_anywhere(session, layer, own)
    if fault is not None:
        raise ConfigurationWrong(fault)
    own = {name: as_kept(value) for name, value in own.items()}
    says_owner = layer.kind is not LayerKind.NODE
    after = node_settings.sealed(
        own, owner=layer.owner, secret_key=secret_key, says_owner=says_owner
    )
    if WIFI in own and own[WIFI] == held.get(WIFI):
        after[WIFI] = before[WIFI]  # sealed anew, the same password would be another text
    return Wish(layer, configuring.changed(held, own), before, after)


def outcomes(session: Session, wish: Wish) -> Iterator[NodeOutcome]:
    """What the wish is for each node in the layer's reach, by node id. Who is only on the list comes to it when all were told."""
    supposed = {wish.layer.at: wish.after}
    reached = layering.nodes_in_reach(wish.layer).where(layering.has_identity())
    for chunk in layering.chunks_of(session, reached):
        for one in layering.resolve(session, chunk, supposed=supposed):
            outcome, why = _outcome(one, wish)
            yield NodeOutcome(one.node_id, one.label, one.model, one.last_heard_at, outcome, why)


def refuse_impossible(counts: Mapping[Outcome, int], reasons: Mapping[str, int]) -> None:
    """Raises ConfigurationWrong when there are nodes and none of them could take it."""
    if counts.get(Outcome.CANNOT) and not any(
        counts.get(outcome) for outcome in Outcome if outcome is not Outcome.CANNOT
    ):
        raise ConfigurationWrong(max(reasons, key=lambda reason: reasons[reason]))


def check_scope(session: Session, layer: Layer) -> None:
    """Raises NotFound or NotAllowed when the actor may not want anything of this layer."""
    if layer.kind is LayerKind.MODEL:
        kind = catalogue.load_node_model(layer.key).site_kind
        rights.check_site_kind(session, kind, what=Said("node model %(model)s", model=layer.key))
    elif layer.kind is LayerKind.FLEET and rights.node_models(session) is not None:
        raise rights.NotAllowed(
            "The whole fleet is for somebody with all sites in scope; name a node model or a group.",
            right=rights.Right.OPERATE_NODES,
        )
    else:
        grouping.check_whole(session, layering.nodes_in_reach(layer), layer.name.capitalize())


def _outcome(one: Resolved, wish: Wish) -> tuple[Outcome, str | None]:
    if one.fault is not None:
        return Outcome.CANNOT, one.fault
    if one.changes:
        return Outcome.CHANGES, None
    has_it = all(
        name not in wish.after or one.settings.get(name) == wish.after[name]
        for name in wish.changed
    )
    return (Outcome.HAS_IT if has_it else Outcome.OVERRIDDEN), None


def _fault_anywhere(session: Session, layer: Layer, own: Values) -> str | None:
    """Why no node model would take these values; None when there is one that would."""
    if layer.kind is LayerKind.MODEL:
        models: Sequence[str] = [layer.key]
    else:
        models = rights.node_models(session) or catalogue.node_model_ids()
    sentence = None
    for model in models:
        fault = find_fault_of_values(own, node_settings.channels_of(model))
        if fault is None:
            return None
        sentence = sentence or fault.sentence
    return sentence


def summary(counts: Mapping[Outcome, int]) -> dict[str, int]:
    """All outcomes, also those of no node, for programs."""
    return {outcome.value: counts.get(outcome, 0) for outcome in Outcome}
