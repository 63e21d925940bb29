"""Roles, rights and scopes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from factories import deployed_node
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import Role, Scope
from fleet_server.services import (
    accounts,
    auditing,
    commanding,
    configuring,
    deploying,
    rights,
)
from fleet_server.services.accounts import AccountWrong, LastAdministrator
from fleet_server.services.rights import Actor, NotAllowed, Right

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
PASSWORD = "correct horse battery"


def test_every_role_may_look_and_only_administrators_may_everything() -> None:
    assert set(rights.RIGHTS) == set(Role)
    assert all(Right.SEE_FLEET in rights.RIGHTS[role] for role in Role)
    everything = [role for role in Role if rights.RIGHTS[role] == frozenset(Right)]
    assert everything == [Role.ADMINISTRATOR]


def test_nobody_but_an_administrator_both_writes_and_approves_a_release() -> None:
    both = {Right.AUTHOR_RELEASES, Right.APPROVE_RELEASES}
    assert [role for role in Role if both <= rights.RIGHTS[role]] == [Role.ADMINISTRATOR]


def test_refusal_says_which_roles_would_do() -> None:
    with pytest.raises(NotAllowed, match="technician, operator, administrator"):
        rights.require(Actor("anna", frozenset()), Right.MOUNT_NODES)


def test_first_account_is_an_administrators_and_others_must_be_told_what_for(
    session: Session,
) -> None:
    first = accounts.create_user(session, "anna", PASSWORD, now=NOON)
    assert [row.role for row in first.roles] == [Role.ADMINISTRATOR]
    with pytest.raises(AccountWrong, match="technician, operator"):
        accounts.create_user(session, "berta", PASSWORD, now=NOON)
    berta = accounts.create_user(
        session,
        "berta",
        PASSWORD,
        now=NOON,
        roles=[Role.TECHNICIAN, Role.AUDITOR, Role.TECHNICIAN],
        scope=Scope.TREES,
    )
    actor = accounts.actor_of(berta)
    assert actor.rights == {
        Right.SEE_FLEET,
        Right.MOUNT_NODES,
        Right.CALIBRATE,
        Right.READ_AUDIT,
    }
    assert actor.site_kinds == ("tree",)


def test_the_last_administrator_stays(session: Session) -> None:
    accounts.create_user(session, "anna", PASSWORD, now=NOON)
    with pytest.raises(LastAdministrator):
        accounts.allow(session, "anna", roles=[Role.OPERATOR], scope=Scope.ALL, now=NOON)
    with pytest.raises(LastAdministrator):
        accounts.allow(session, "anna", roles=[Role.ADMINISTRATOR], scope=Scope.TREES, now=NOON)
    with pytest.raises(LastAdministrator):
        accounts.set_active(session, "anna", is_active=False, now=NOON)
    accounts.create_user(session, "berta", PASSWORD, now=NOON, roles=[Role.ADMINISTRATOR])
    accounts.allow(session, "anna", roles=[Role.OPERATOR], scope=Scope.ALL, now=NOON)


def test_what_is_done_to_accounts_is_in_the_log(session: Session) -> None:
    accounts.create_user(session, "anna", PASSWORD, now=NOON)
    accounts.create_user(session, "berta", PASSWORD, now=NOON, roles=[Role.TECHNICIAN])
    accounts.allow(session, "berta", roles=[Role.OPERATOR], scope=Scope.WATERS, now=NOON)
    accounts.set_password(session, "berta", "another password", now=NOON)
    accounts.set_active(session, "berta", is_active=False, now=NOON)
    accounts.log_in(session, "anna", PASSWORD, now=NOON)

    entries = auditing.newest_entries(session, limit=9)[::-1]
    assert [(entry.action, entry.subject) for entry in entries] == [
        ("account_made", "account anna"),
        ("account_made", "account berta"),
        ("account_allowed", "account berta"),
        ("password_changed", "account berta"),
        ("account_closed", "account berta"),
        ("logged_in", "account anna"),
    ]
    assert entries[2].details == {
        "roles": ["operator"],
        "scope": "waters",
        "roles_before": ["technician"],
        "scope_before": "all",
    }
    assert entries[-1].actor == "anna"
    assert not any("password" in str(entry.details) for entry in entries)


OUT_OF_SCOPE: dict[str, Callable[[Session], object]] = {
    "configure": lambda s: configuring.configure_node(s, "n-000001", {"sample_s": 600}, now=NOON),
    "command": lambda s: commanding.order_command(s, "n-000001", "reboot", {}, now=NOON),
    "take down": lambda s: deploying.end_deployment(s, "n-000001", to_at=NOON, now=NOON),
    "mount": lambda s: deploying.deploy_node(
        s, "n-000001", site_code="n-000001-site", from_at=NOON, now=NOON
    ),
    "make a site": lambda s: deploying.create_site(
        s, deploying.NewSite("oak", "Oak", "tree", 51.5, 7.2), is_public=True, now=NOON
    ),
}


def test_who_looks_after_waters_does_nothing_to_a_tree_or_its_node(session: Session) -> None:
    """Asked of the services themselves, whatever page, endpoint or command may lead to them; and nothing is in the log."""
    deployed_node(session, "n-000001")
    entries = auditing.verify_chain(session).entries
    rights.act_as(session, Actor("wanda", frozenset(Right), Scope.WATERS))

    for deed in OUT_OF_SCOPE.values():
        with pytest.raises(NotFound):
            deed(session)

    assert auditing.verify_chain(session).entries == entries
    rights.act_as(session, Actor("theo", frozenset(Right), Scope.TREES))
    OUT_OF_SCOPE["command"](session)
