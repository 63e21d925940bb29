"""How work, sites on the map and the columns of their files are called, in the reader's language."""

from __future__ import annotations

from flask_babel import lazy_gettext

from fleet_server.models import Role, WorkKind, WorkState
from fleet_server.services.site_map import SiteHealth
from fleet_server.services.sites import SiteState

_WORK_KINDS = {
    WorkKind.MOUNT: lazy_gettext("Mount a node"),
    WorkKind.CALIBRATE: lazy_gettext("Calibrate"),
    WorkKind.BATTERY: lazy_gettext("Swap or charge the battery"),
    WorkKind.CLEAN: lazy_gettext("Clean"),
    WorkKind.LOOK: lazy_gettext("Look what is wrong"),
    WorkKind.RETRIEVE: lazy_gettext("Bring the node back"),
    WorkKind.OTHER: lazy_gettext("Other work"),
}
_WORK_STATES = {
    WorkState.OPEN: lazy_gettext("open"),
    WorkState.BEGUN: lazy_gettext("begun"),
    WorkState.DONE: lazy_gettext("done"),
    WorkState.CANCELLED: lazy_gettext("cancelled"),
}
_ROLES = {
    Role.TECHNICIAN: lazy_gettext("technicians"),
    Role.OPERATOR: lazy_gettext("operators"),
    Role.RELEASE_AUTHOR: lazy_gettext("release authors"),
    Role.RELEASE_APPROVER: lazy_gettext("release approvers"),
    Role.TREES_OFFICE: lazy_gettext("trees office"),
    Role.WATERS_OFFICE: lazy_gettext("waters office"),
    Role.DATA_STEWARD: lazy_gettext("data stewards"),
    Role.AUDITOR: lazy_gettext("auditors"),
    Role.ADMINISTRATOR: lazy_gettext("administrators"),
}
_SITE_HEALTH = {
    SiteHealth.FRESH: lazy_gettext("well"),
    SiteHealth.LATE: lazy_gettext("late"),
    SiteHealth.OFFLINE: lazy_gettext("silent"),
    SiteHealth.NEVER_SEEN: lazy_gettext("new"),
    SiteHealth.BARE: lazy_gettext("without a node"),
    SiteHealth.CLOSED: lazy_gettext("closed"),
}
_SITE_STATES = {
    SiteState.OPEN: lazy_gettext("open"),
    SiteState.WITH_NODE: lazy_gettext("with a node"),
    SiteState.BARE: lazy_gettext("without a node"),
    SiteState.CLOSED: lazy_gettext("closed"),
}
_FIELDS = {
    "code": lazy_gettext("Code"),
    "name": lazy_gettext("Name"),
    "kind": lazy_gettext("Kind"),
    "x": lazy_gettext("Position: east value or longitude"),
    "y": lazy_gettext("Position: north value or latitude"),
    "description": lazy_gettext("Description"),
    "species": lazy_gettext("Species"),
    "tree_number": lazy_gettext("Tree number"),
    "planted_year": lazy_gettext("Planting year"),
    "area_m2": lazy_gettext("Area in m²"),
    "depth_m": lazy_gettext("Depth in m"),
    "lowest_level_m": lazy_gettext("Lowest level in m"),
    "soil_class": lazy_gettext("Soil class (KA5)"),
    "unsealed_m2": lazy_gettext("Unsealed ground in m²"),
    "crown_m2": lazy_gettext("Ground below the crown in m²"),
    "tree_group": lazy_gettext("Group of trees"),
    "is_group_reference": lazy_gettext("Stands for its group"),
}


def work_kind_word(kind: str) -> str:
    return str(_WORK_KINDS[WorkKind(kind)])


def work_state_word(state: str) -> str:
    return str(_WORK_STATES[WorkState(state)])


def role_word(role: str) -> str:
    return str(_ROLES[Role(role)])


def site_health_word(health: str) -> str:
    return str(_SITE_HEALTH[SiteHealth(health)])


def site_state_word(state: str) -> str:
    return str(_SITE_STATES[SiteState(state)])


def site_field_word(name: str) -> str:
    return str(_FIELDS[name])
