"""Who may do what: roles and their rights, and who is acting in a session.

A page, an endpoint or a command says which right it wants; which sites and nodes somebody has to do with (the scope) is asked here.
What nobody asked for (ingest, the worker, jobs) is done by the machine itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from fleet_server.errors import NotFound, Refused, Said, listed
from fleet_server.models.user import Role, Scope
from hardware import catalogue

_ACTOR = "fleet_actor"


class Right(StrEnum):
    """Something that somebody may."""

    SEE_FLEET = "see_fleet"  # nodes, sites, packs, quarantine, alerts, work orders
    MOUNT_NODES = "mount_nodes"  # where nodes and probes are, what was done to them, work orders
    OPERATE_NODES = "operate_nodes"  # configuration, commands, groups, alerts, maintenance
    PLAN_SITES = "plan_sites"  # sites, their import, work orders for others
    ADMIT_NODES = "admit_nodes"  # enrolment tokens, credentials, revocation
    CALIBRATE = "calibrate"  # drafts of calibrations, and the standards they are against
    STEWARD_DATA = "steward_data"  # approve and withdraw calibrations and drift corrections
    AUTHOR_RELEASES = "author_releases"
    APPROVE_RELEASES = "approve_releases"
    STOP_UPDATES = "stop_updates"  # pause a campaign, take one's own pause back, abort
    MANAGE_PEOPLE = "manage_people"  # accounts, roles, other people's keys and sessions
    READ_AUDIT = "read_audit"


RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.TECHNICIAN: frozenset({Right.SEE_FLEET, Right.MOUNT_NODES, Right.CALIBRATE}),
    Role.OPERATOR: frozenset(
        {
            Right.SEE_FLEET,
            Right.MOUNT_NODES,
            Right.CALIBRATE,
            Right.OPERATE_NODES,
            Right.PLAN_SITES,
            Right.ADMIT_NODES,
            Right.STOP_UPDATES,
        }
    ),
    Role.RELEASE_AUTHOR: frozenset({Right.SEE_FLEET, Right.AUTHOR_RELEASES, Right.STOP_UPDATES}),
    Role.RELEASE_APPROVER: frozenset({Right.SEE_FLEET, Right.APPROVE_RELEASES, Right.STOP_UPDATES}),
    Role.TREES_OFFICE: frozenset({Right.SEE_FLEET, Right.PLAN_SITES}),
    Role.WATERS_OFFICE: frozenset({Right.SEE_FLEET, Right.PLAN_SITES}),
    Role.DATA_STEWARD: frozenset({Right.SEE_FLEET, Right.CALIBRATE, Right.STEWARD_DATA}),
    Role.AUDITOR: frozenset({Right.SEE_FLEET, Right.READ_AUDIT}),
    Role.ADMINISTRATOR: frozenset(Right),
}

FOR_PERSONS_ONLY = frozenset({Right.MANAGE_PEOPLE})
"""What no key may, whoever its owner is: a key asks for no second factor, and who manages people can make themselves everything."""

_SITE_KINDS = {Scope.TREES: ("tree",), Scope.WATERS: ("water",), Scope.ALL: ("tree", "water")}


class NotAllowed(Refused):
    """The account lacks the right; `fields["right"]` names it."""

    code = "not_allowed"


@dataclass(frozen=True)
class Actor:
    """Who acts: `name` is how the audit log names it (`anna`, `key 7 of anna`, `console root`, `machine`)."""

    name: str
    rights: frozenset[Right]
    scope: Scope = Scope.ALL
    is_program: bool = False

    @property
    def site_kinds(self) -> tuple[str, ...]:
        """Kinds of the sites that this actor has to do with."""
        return _SITE_KINDS[self.scope]


MACHINE = Actor("machine", frozenset(Right))
"""What a process does by itself."""


def kinds_of(scope: Scope) -> tuple[str, ...]:
    """Kinds of the sites in a scope."""
    return _SITE_KINDS[scope]


def rights_of(roles: Collection[Role]) -> frozenset[Right]:
    """All that these roles may, together.

    >>> sorted(rights_of([Role.TECHNICIAN, Role.AUDITOR]))
    [<Right.CALIBRATE: 'calibrate'>, <Right.MOUNT_NODES: 'mount_nodes'>, <Right.READ_AUDIT: 'read_audit'>, <Right.SEE_FLEET: 'see_fleet'>]
    """
    return frozenset().union(*(RIGHTS[role] for role in roles))


def act_as(session: Session, actor: Actor) -> None:
    """Everything done with this session from now on is done by `actor`."""
    session.info[_ACTOR] = actor


def actor_of(session: Session) -> Actor:
    """Who acts in this session; the machine when nobody was named."""
    actor: Actor = session.info.get(_ACTOR, MACHINE)
    return actor


def person(name: str) -> str:
    """Whose name an actor bears.

    >>> person("key 7 of anna")
    'anna'
    """
    return name.rpartition(" of ")[2] if name.startswith("key ") else name


def require(actor: Actor, right: Right) -> None:
    """Raises NotAllowed when `actor` lacks `right`; the sentence says which roles have it."""
    if actor.is_program and right in FOR_PERSONS_ONLY:
        raise NotAllowed("No key may do this; log in with a browser for it.", right=right)
    if right not in actor.rights:
        roles = listed(role for role in Role if right in RIGHTS[role])
        raise NotAllowed(
            "Your account may not do this; an administrator can give it one of the roles %(roles)s.",
            roles=roles,
            right=right,
        )


def check_site_kind(session: Session, kind: str, *, what: str) -> None:
    """Raises NotFound when the actor has nothing to do with sites of this kind: what is out of scope is not there.

    Args:
        what: what was asked for, as the sentence names it.
    """
    if kind not in actor_of(session).site_kinds:
        raise NotFound("There is no %(what)s.", what=what)


def check_node_model(session: Session, model: str, *, node_id: str) -> None:
    """Raises NotFound when the actor has nothing to do with nodes of this model."""
    kind = catalogue.load_node_model(model).site_kind
    check_site_kind(session, kind, what=Said("node %(node_id)s", node_id=node_id))


def node_models(session: Session) -> list[str] | None:
    """Node models that the actor has to do with; None when that is all."""
    kinds = actor_of(session).site_kinds
    if len(kinds) == len(_SITE_KINDS[Scope.ALL]):
        return None
    models = (catalogue.load_node_model(name) for name in catalogue.node_model_ids())
    return [model.id for model in models if model.site_kind in kinds]
