"""Words about people: roles, scopes, and what forms about accounts say when something is wrong."""

from __future__ import annotations

from flask.blueprints import BlueprintSetupState
from flask_babel import gettext, lazy_gettext

from fleet_server.errors import FleetError
from fleet_server.models import Role, Scope
from fleet_server.services.accounts import LoginRefused
from fleet_server.web.blueprint import web
from fleet_server.web.faults import in_words

ROLE_WORDS = {
    Role.TECHNICIAN: lazy_gettext("Technician"),
    Role.OPERATOR: lazy_gettext("Operator"),
    Role.RELEASE_AUTHOR: lazy_gettext("Release author"),
    Role.RELEASE_APPROVER: lazy_gettext("Release approver"),
    Role.TREES_OFFICE: lazy_gettext("Trees office"),
    Role.WATERS_OFFICE: lazy_gettext("Waters office"),
    Role.DATA_STEWARD: lazy_gettext("Data steward"),
    Role.AUDITOR: lazy_gettext("Auditor"),
    Role.ADMINISTRATOR: lazy_gettext("Administrator"),
}
SCOPE_WORDS = {
    Scope.TREES: lazy_gettext("Trees"),
    Scope.WATERS: lazy_gettext("Waters"),
    Scope.ALL: lazy_gettext("Trees and waters"),
}


def role_word(role: str) -> str:
    return str(ROLE_WORDS[Role(role)])


def scope_word(scope: str) -> str:
    return str(SCOPE_WORDS[Scope(scope)])


def fault_words(problem: FleetError) -> str:
    """What a form says; who changes their password knows name and code."""
    if isinstance(problem, LoginRefused):
        return str(gettext("The old password is wrong."))
    return in_words(problem)


@web.record_once
def _give_words_to_templates(state: BlueprintSetupState) -> None:
    state.app.jinja_env.globals.update(
        role_word=role_word, scope_word=scope_word, all_roles=tuple(Role), all_scopes=tuple(Scope)
    )
