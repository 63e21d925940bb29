"""The second factor: a code works once, near its time, for its own account."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import pyotp
import pytest
from factories import NOON
from sqlalchemy import text
from sqlalchemy.orm import Session

from fleet_server.errors import NotFound
from fleet_server.models import User
from fleet_server.services import accounts, auditing, second_factor
from fleet_server.services.accounts import LoginRefused
from fleet_server.services.second_factor import CodeRefused, FactorExists

PASSWORD = "correct horse battery"
KEY = "the server's secret key, 32 chars"
STEP = timedelta(seconds=30)


@dataclass
class Anna:
    """An account with a second factor, and the app that knows it."""

    session: Session
    user: User
    secret: str
    recovery_codes: tuple[str, ...]

    def code_at(self, moment: datetime) -> str:
        return pyotp.TOTP(self.secret).at(moment)

    def log_in(self, code: str, *, now: datetime) -> User:
        return accounts.log_in(self.session, "anna", PASSWORD, code=code, secret_key=KEY, now=now)

    def is_let_in(self, code: str, *, now: datetime) -> bool:
        try:
            self.log_in(code, now=now)
        except LoginRefused:
            return False
        return True


@pytest.fixture
def anna(session: Session) -> Anna:
    user = accounts.create_user(session, "anna", PASSWORD, now=NOON)
    second_factor.begin(session, user, secret_key=KEY, now=NOON)
    secret = second_factor.unconfirmed_secret(session, user, secret_key=KEY)
    assert secret is not None
    code = pyotp.TOTP(secret).at(NOON)
    codes = second_factor.confirm(session, user, code, secret_key=KEY, now=NOON)
    return Anna(session, user, secret, codes)


def test_codes_are_those_of_the_standard(session: Session) -> None:
    """RFC 6238, appendix B, SHA-1, the last six digits, with the secret of its reference: 12345678901234567890."""
    totp = pyotp.TOTP("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
    published = {59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"}
    assert {moment: totp.at(moment) for moment in published} == published


def test_password_alone_lets_nobody_in_and_says_no_more_than_a_wrong_one(anna: Anna) -> None:
    with pytest.raises(LoginRefused) as without:
        anna.log_in("", now=NOON + STEP)
    with pytest.raises(LoginRefused) as wrong:
        accounts.log_in(anna.session, "anna", "incorrect horse", now=NOON + STEP)
    assert str(without.value) == str(wrong.value)


def test_code_is_taken_once(anna: Anna) -> None:
    """Also the code that confirmed the factor, and one older than the newest that was taken."""
    later = NOON + 2 * STEP
    assert not anna.is_let_in(anna.code_at(NOON), now=NOON)
    assert anna.is_let_in(anna.code_at(later), now=later)
    assert not anna.is_let_in(anna.code_at(later), now=later)
    assert not anna.is_let_in(anna.code_at(later - STEP), now=later)


@pytest.mark.parametrize(("steps", "is_good"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])  # fmt: skip
def test_phone_may_be_half_a_minute_wrong_and_no_more(
    anna: Anna, steps: int, *, is_good: bool
) -> None:
    later = NOON + 10 * STEP
    assert anna.is_let_in(anna.code_at(later + steps * STEP), now=later) is is_good


def test_guessed_codes_lock_the_account_as_guessed_passwords_do(anna: Anna) -> None:
    later = NOON + STEP
    for _ in range(accounts.FREE_FAILURES):
        assert not anna.is_let_in("000000", now=later)
    with pytest.raises(accounts.LoginLocked):
        anna.log_in(anna.code_at(later), now=later)


def test_recovery_code_is_good_once_however_it_is_typed(anna: Anna) -> None:
    assert len(set(anna.recovery_codes)) == second_factor.RECOVERY_CODES
    typed = f" {anna.recovery_codes[3].replace('-', ' ').upper()} "
    assert anna.is_let_in(typed, now=NOON)
    assert not anna.is_let_in(anna.recovery_codes[3], now=NOON)
    assert second_factor.recovery_codes_left(anna.session, anna.user.id) == 9
    newest = auditing.newest_entries(anna.session, limit=2)
    assert [entry.action for entry in newest] == ["logged_in", "recovery_code_used"]


def test_secret_and_recovery_codes_stand_nowhere_in_the_database_in_clear(anna: Anna) -> None:
    rows = [
        str(anna.session.execute(text(f"SELECT * FROM {table}")).all())  # noqa: S608 - ours
        for table in ("second_factor", "recovery_code", "audit_entry")
    ]
    kept = " ".join(rows)
    assert anna.secret not in kept
    assert not any(code in kept or code.replace("-", "") in kept for code in anna.recovery_codes)


def test_factor_that_is_in_use_is_not_drawn_anew_or_shown_again(anna: Anna) -> None:
    assert second_factor.unconfirmed_secret(anna.session, anna.user, secret_key=KEY) is None
    with pytest.raises(FactorExists):
        second_factor.begin(anna.session, anna.user, secret_key=KEY, now=NOON)
    with pytest.raises(FactorExists):
        second_factor.confirm(anna.session, anna.user, anna.code_at(NOON), secret_key=KEY, now=NOON)


def test_factor_that_was_not_confirmed_is_not_asked_for(session: Session) -> None:
    user = accounts.create_user(session, "anna", PASSWORD, now=NOON)
    second_factor.begin(session, user, secret_key=KEY, now=NOON)
    with pytest.raises(CodeRefused):
        second_factor.confirm(session, user, "000000", secret_key=KEY, now=NOON)
    assert accounts.log_in(session, "anna", PASSWORD, now=NOON).id == user.id


def test_factor_under_another_secret_key_says_what_to_do(anna: Anna) -> None:
    with pytest.raises(second_factor.FactorUnreadable, match="no-second-factor"):
        accounts.log_in(
            anna.session, "anna", PASSWORD, code="123456", secret_key="other" * 8, now=NOON
        )


def test_factor_that_is_taken_off_is_asked_for_no_more(anna: Anna) -> None:
    second_factor.remove(anna.session, anna.user, now=NOON)
    assert anna.is_let_in("", now=NOON)
    with pytest.raises(NotFound):
        second_factor.remove(anna.session, anna.user, now=NOON)
