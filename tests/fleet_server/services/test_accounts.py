"""Local accounts: who has the password comes in, who guesses waits."""

from __future__ import annotations

from datetime import timedelta

import pytest
from factories import NOON
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.services import accounts
from fleet_server.services.accounts import (
    FREE_FAILURES,
    AccountExists,
    AccountWrong,
    LoginLocked,
    LoginRefused,
)

RIGHT, WRONG = "correct horse battery", "incorrect horse battery"


def test_right_password_opens_the_account(session: Session) -> None:
    made = accounts.create_user(session, "anna", RIGHT, now=NOON)
    assert made.password_hash.startswith("$argon2id$")
    user = accounts.log_in(session, "anna", RIGHT, now=NOON)
    assert user.last_login_at == NOON
    assert accounts.find_account(session, user.id).name == "anna"


def test_wrong_password_and_unknown_name_get_the_same_answer(session: Session) -> None:
    accounts.create_user(session, "anna", RIGHT, now=NOON)
    sentences = set()
    for name in ("anna", "nobody"):
        with pytest.raises(LoginRefused) as caught:
            accounts.log_in(session, name, WRONG, now=NOON)
        sentences.add(str(caught.value))
    assert len(sentences) == 1


def test_guessing_locks_the_account_even_for_the_right_password_until_the_wait_is_over(
    session: Session,
) -> None:
    accounts.create_user(session, "anna", RIGHT, now=NOON)
    for _ in range(FREE_FAILURES):
        with pytest.raises(LoginRefused):
            accounts.log_in(session, "anna", WRONG, now=NOON)
    with pytest.raises(LoginLocked) as caught:
        accounts.log_in(session, "anna", RIGHT, now=NOON)
    assert caught.value.fields["wait_s"] == 30
    later = NOON + accounts.FIRST_LOCK
    with pytest.raises(LoginRefused):
        accounts.log_in(session, "anna", WRONG, now=later)
    with pytest.raises(LoginLocked):
        accounts.log_in(session, "anna", RIGHT, now=later + timedelta(seconds=59))
    accounts.log_in(session, "anna", RIGHT, now=later + timedelta(seconds=60))
    with pytest.raises(LoginRefused):  # the count began anew
        accounts.log_in(session, "anna", WRONG, now=later + timedelta(seconds=61))


def test_new_password_lifts_the_lock(session: Session) -> None:
    accounts.create_user(session, "anna", RIGHT, now=NOON)
    for _ in range(FREE_FAILURES):
        with pytest.raises(LoginRefused):
            accounts.log_in(session, "anna", WRONG, now=NOON)
    accounts.set_password(session, "anna", WRONG, now=NOON)
    accounts.log_in(session, "anna", WRONG, now=NOON)


def test_account_that_cannot_be_is_refused(session: Session) -> None:
    with pytest.raises(AccountWrong, match="12"):
        accounts.create_user(session, "anna", "short", now=NOON)
    with pytest.raises(AccountWrong):
        accounts.create_user(session, " ", RIGHT, now=NOON)
    accounts.create_user(session, "anna", RIGHT, now=NOON)
    with pytest.raises(AccountExists):
        accounts.create_user(session, "anna", RIGHT, now=NOON)
    with pytest.raises(NotFound):
        accounts.set_password(session, "berta", RIGHT, now=NOON)
