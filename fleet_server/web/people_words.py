"""Words about people: roles, scopes, and what forms about accounts say when something is wrong."""

from __future__ import annotations

from flask.blueprints import BlueprintSetupState
from flask_babel import gettext, lazy_gettext

from fleet_server.errors import FleetError
from fleet_server.models import Role, Scope
from fleet_server.services.accounts import AccountWrong
from fleet_server.services.passwords import Weakness
from fleet_server.web.blueprint import web

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
WEAKNESS_WORDS = {
    Weakness.SHORT: lazy_gettext("A password has at least 12 characters."),
    Weakness.REPEATED: lazy_gettext(
        "This password repeats itself; what comes again does not count."
    ),
    Weakness.ROW: lazy_gettext(
        "This password goes along the alphabet or the keyboard; that is tried first."
    ),
    Weakness.ONE_WORD: lazy_gettext(
        "This password is one short word with digits or signs; take several words."
    ),
    Weakness.NAME: lazy_gettext("A password must not hold the account's name."),
}
FAULT_WORDS = {
    "account_exists": lazy_gettext("There is already an account of this name."),
    "beyond_owner": lazy_gettext("A key may at most what its owner may."),
    "beyond_scope": lazy_gettext("You can give no other scope than your own."),
    "code_refused": lazy_gettext("This is not the code that the app shows now; try the next one."),
    "api_key_wrong": lazy_gettext(
        "A key wants a role, a purpose of at most 120 characters, and 1 to 366 days."
    ),
    "identity_taken": lazy_gettext("One account belongs to one login, and the other way round."),
    "only_way_in": lazy_gettext("Set a password first: without it you could not log in any more."),
    "last_administrator": lazy_gettext(
        "Nobody would be left to manage people; make somebody else an administrator first."
    ),
    "login_refused": lazy_gettext("The old password is wrong."),
    "reset_refused": lazy_gettext(
        "This code is not good any more; ask an administrator for a new one."
    ),
    "second_factor_exists": lazy_gettext("There is a second factor already."),
}


def role_word(role: str) -> str:
    return str(ROLE_WORDS[Role(role)])


def scope_word(scope: str) -> str:
    return str(SCOPE_WORDS[Scope(scope)])


def fault_words(problem: FleetError) -> str:
    """What a form says, in the reader's language where we have it."""
    if isinstance(problem, AccountWrong) and "weakness" in problem.fields:
        return str(WEAKNESS_WORDS[Weakness(str(problem.fields["weakness"]))])
    if problem.code == "login_locked":
        wait_s = problem.fields["wait_s"]
        return str(gettext("Too many wrong passwords; try again in %(wait)s s.", wait=wait_s))
    if problem.code == "account_wrong" and problem.fields.get("field") == "mail":
        return str(gettext("Give one e-mail address, like anna@example.org."))
    if problem.code == "account_wrong":
        return str(gettext("An account wants a name of 1 to 64 characters and at least one role."))
    return str(FAULT_WORDS.get(problem.code, problem))


@web.record_once
def _give_words_to_templates(state: BlueprintSetupState) -> None:
    state.app.jinja_env.globals.update(
        role_word=role_word, scope_word=scope_word, all_roles=tuple(Role), all_scopes=tuple(Scope)
    )
