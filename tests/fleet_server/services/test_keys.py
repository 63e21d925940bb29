"""API keys: never more than their owner, never longer than they say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from factories import NOON
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import Role, Scope, User
from fleet_server.services import accounts, auditing, keys, rights
from fleet_server.services.keys import ApiKeyWrong, BeyondOwner, KeyRefused, NewKey
from fleet_server.services.rights import Right

PASSWORD = "correct horse battery"
MONTH = timedelta(days=30)


@pytest.fixture
def anna(session: Session) -> User:
    """Looks after trees and reads the audit log; somebody else is the administrator."""
    accounts.create_user(session, "berta", None, now=NOON, roles=[Role.ADMINISTRATOR])
    return accounts.create_user(
        session, "anna", None, now=NOON, roles=[Role.OPERATOR, Role.AUDITOR], scope=Scope.TREES
    )


def _key(
    session: Session,
    owner: User,
    *,
    roles: Sequence[Role] = (Role.OPERATOR,),
    scope: Scope = Scope.TREES,
    lifetime: timedelta = MONTH,
    note: str = "weekly report",
) -> NewKey:
    return keys.make_key(
        session, owner.id, roles=roles, scope=scope, lifetime=lifetime, note=note, now=NOON
    )


def test_key_acts_for_its_owner_with_what_it_was_given(session: Session, anna: User) -> None:
    made = _key(session, anna)
    actor = keys.actor_of(keys.find_key(session, made.secret, now=NOON))
    assert actor.name == f"key {made.key.id} of anna"
    assert actor.scope is Scope.TREES
    assert Right.OPERATE_NODES in actor.rights
    assert Right.READ_AUDIT not in actor.rights  # the owner's, but not given


@pytest.mark.parametrize(
    ("roles", "scope"),
    [((Role.ADMINISTRATOR,), Scope.TREES), ((Role.OPERATOR,), Scope.ALL), ((Role.OPERATOR,), Scope.WATERS)],
    ids=["a role", "all sites", "other sites"],
)  # fmt: skip
def test_key_that_may_more_than_its_owner_is_not_made(
    session: Session, anna: User, roles: tuple[Role, ...], scope: Scope
) -> None:
    with pytest.raises(BeyondOwner):
        _key(session, anna, roles=roles, scope=scope)
    assert keys.keys_of(session, anna.id) == []


@pytest.mark.once_on_postgresql
@pytest.mark.parametrize(
    "wrong",
    [{"roles": ()}, {"lifetime": timedelta()}, {"lifetime": timedelta(days=367)}, {"note": " "}, {"note": "a\nb"}, {"note": "x" * 121}],
    ids=str,
)  # fmt: skip
def test_key_without_role_end_or_purpose_is_not_made(
    session: Session, anna: User, wrong: dict[str, object]
) -> None:
    with pytest.raises(ApiKeyWrong):
        _key(session, anna, **wrong)  # type: ignore[arg-type] # a table of wrong arguments


def test_what_is_taken_from_the_owner_is_taken_from_the_key(session: Session, anna: User) -> None:
    made = _key(session, anna, roles=[Role.OPERATOR, Role.AUDITOR])
    accounts.allow(session, "anna", roles=[Role.AUDITOR], scope=Scope.TREES, now=NOON)
    actor = keys.actor_of(keys.find_key(session, made.secret, now=NOON))
    assert actor.rights == rights.rights_of([Role.AUDITOR])

    accounts.allow(session, "anna", roles=[Role.AUDITOR], scope=Scope.WATERS, now=NOON)
    with pytest.raises(KeyRefused, match="nothing to do with"):
        keys.actor_of(keys.find_key(session, made.secret, now=NOON))


def test_scope_given_to_the_owner_later_is_not_the_keys(session: Session, anna: User) -> None:
    made = _key(session, anna)
    accounts.allow(
        session, "anna", roles=[Role.OPERATOR, Role.ADMINISTRATOR], scope=Scope.ALL, now=NOON
    )
    actor = keys.actor_of(keys.find_key(session, made.secret, now=NOON))
    assert (actor.scope, Right.MANAGE_PEOPLE in actor.rights) == (Scope.TREES, False)


def test_key_is_good_to_the_second_that_it_says(session: Session, anna: User) -> None:
    made = _key(session, anna)
    end = made.key.expires_at
    assert end == NOON + MONTH
    keys.find_key(session, made.secret, now=end - timedelta(seconds=1))
    with pytest.raises(KeyRefused, match="expired on 2026-07-31"):
        keys.find_key(session, made.secret, now=end)


def test_revoked_key_and_key_of_a_closed_account_are_refused(session: Session, anna: User) -> None:
    revoked, other = _key(session, anna), _key(session, anna)
    keys.revoke_key(session, revoked.key.id, owner_id=anna.id, now=NOON)
    with pytest.raises(KeyRefused, match="was revoked"):
        keys.find_key(session, revoked.secret, now=NOON)
    accounts.set_active(session, "anna", is_active=False, now=NOON)
    with pytest.raises(KeyRefused, match="closed"):
        keys.find_key(session, other.secret, now=NOON)
    accounts.set_active(session, "anna", is_active=True, now=NOON)
    keys.find_key(session, other.secret, now=NOON)
    with pytest.raises(NotFound):
        keys.make_key(
            session, 99, roles=[Role.AUDITOR], scope=Scope.ALL, lifetime=MONTH, note="x", now=NOON
        )


def test_nobody_revokes_a_key_that_is_not_theirs(session: Session, anna: User) -> None:
    made = _key(session, anna)
    with pytest.raises(NotFound):
        keys.revoke_key(session, made.key.id, owner_id=anna.id + 1, now=NOON)
    rights.act_as(session, rights.Actor("wanda", frozenset(Right), Scope.WATERS))
    with pytest.raises(NotFound):
        keys.revoke_key(session, made.key.id, owner_id=None, now=NOON)
    rights.act_as(session, rights.Actor("berta", frozenset(Right)))
    keys.revoke_key(session, made.key.id, owner_id=None, now=NOON)
    keys.revoke_key(session, made.key.id, owner_id=None, now=NOON)
    actions = [entry.action for entry in auditing.newest_entries(session, limit=2)]
    assert actions == ["key_revoked", "key_made"]


def test_only_the_hash_of_a_key_is_kept(session: Session, anna: User) -> None:
    made = _key(session, anna)
    rows = [
        str(session.execute(text(f"SELECT * FROM {table}")).all())  # noqa: S608 - ours
        for table in ("api_key", "audit_entry")
    ]
    assert made.secret.startswith("sk_")
    assert len(made.secret) > 40
    assert made.secret.removeprefix("sk_") not in " ".join(rows)


def test_unknown_key_costs_what_a_known_one_costs_and_is_compared_with_nothing(
    session: Session, anna: User
) -> None:
    """No time tells whether a guess was near: the database sees its hash only, in the same statement."""
    made = _key(session, anna)
    asked: dict[str, list[tuple[str, str]]] = {}
    for secret in (made.secret, made.secret[:-1] + "?", "sk_", ""):
        seen = asked.setdefault(secret, [])

        def note(_c: object, _cursor: object, statement: str, given: object, *_: object) -> None:
            if statement != "BEGIN":
                seen.append((statement, str(given)))  # noqa: B023 - called within this turn

        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        try:
            keys.find_key(session, secret, now=NOON)
        except KeyRefused:
            pass
        finally:
            event.remove(engine, "before_cursor_execute", note)
    statements = {tuple(statement for statement, _ in seen) for seen in asked.values()}
    assert len(statements) == 1
    assert len(statements.pop()) == 1
    assert not any(
        secret and secret in given for secret, seen in asked.items() for _, given in seen
    )


def test_use_is_kept_to_the_hour_with_one_write_an_hour(session: Session, anna: User) -> None:
    made = _key(session, anna)
    written = []
    for minutes in (5, 6, 59, 60, 61):
        now = NOON + timedelta(minutes=minutes)
        key = keys.find_key(session, made.secret, now=now)
        before = key.last_used_at
        keys.note_use(session, key, now=now)
        key = keys.find_key(session, made.secret, now=now)
        written.append(key.last_used_at != before)
    assert key.last_used_at == NOON + timedelta(hours=1)
    assert written == [True, False, False, True, False]


def test_list_of_keys_asks_the_same_statements_for_one_as_for_many(
    session: Session, anna: User
) -> None:
    counts = []
    for _ in range(2):
        _key(session, anna)
        _key(session, anna, roles=[Role.AUDITOR, Role.OPERATOR])
        session.expunge_all()
        seen: list[str] = []

        def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
            seen.append(statement)  # noqa: B023 - called within this turn

        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", note)
        found = keys.keys_of(session, anna.id)
        assert all(one.roles and one.user.name for one in found)
        event.remove(engine, "before_cursor_execute", note)
        counts.append(len([one for one in seen if not one.startswith("BEGIN")]))
    assert counts[0] == counts[1] <= 3
