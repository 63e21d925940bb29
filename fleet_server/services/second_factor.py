"""The second factor: one-time codes by time (RFC 6238, with the defaults that every app knows), and recovery codes.

The secret is kept sealed, recovery codes as hashes. A code is taken once: its time step is remembered (RFC 6238, 5.2).
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from datetime import datetime

import pyotp
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.errors import Conflict, NotFound, Refused, Unavailable
from fleet_server.models import RecoveryCode, SecondFactor, User
from fleet_server.services import auditing, sealing

ISSUER = "Stadtsensor"
RECOVERY_CODES = 10
_RECOVERY_BYTES = 10  # 80 bits: a hash without salt and stretching is enough
_GROUP = 4
_STEPS_OFF = 1
"""A phone's clock may be half a minute wrong, and people type slowly."""
_TIMED = re.compile("[0-9]{6}")


class CodeRefused(Refused):
    """The code is wrong, too old, or was used already."""

    code = "code_refused"


class FactorExists(Conflict):
    """The account has a second factor."""

    code = "second_factor_exists"


class FactorUnreadable(Unavailable):
    """Its secret was sealed under another key."""

    code = "second_factor_unreadable"


def begin(session: Session, user: User, *, secret_key: str, now: datetime) -> None:
    """Draw a secret for an account, to be confirmed with a first code; one that was not confirmed is replaced.

    Raises:
        FactorExists: there is one that is in use.
    """
    secret = pyotp.random_base32()
    with db.writing(session):
        session.get_one(User, user.id, with_for_update=True)  # of two at once, one comes later
        factor = _factor(session, user)
        if factor is not None and factor.confirmed_at is not None:
            raise FactorExists("This account has a second factor; take it off first.")
        if factor is None:
            factor = SecondFactor(user_id=user.id)
            session.add(factor)
        factor.sealed_secret = sealing.seal(secret, owner=_owner(user), secret_key=secret_key)
        factor.begun_at, factor.last_step = now, 0


def unconfirmed_secret(session: Session, user: User, *, secret_key: str) -> str | None:
    """The secret that the person is just giving to an app; None when there is none, or it is in use."""
    factor = session.get(SecondFactor, user.id, populate_existing=True)
    if factor is None or factor.confirmed_at is not None:
        return None
    return _unsealed(factor, user, secret_key)


def address_for_app(secret: str, *, name: str) -> str:
    """What the QR code says (`otpauth://totp/…`)."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER)


def confirm(
    session: Session, user: User, code: str, *, secret_key: str, now: datetime
) -> tuple[str, ...]:
    """From now on the factor is asked for at login. Returns the recovery codes, shown this once. Committed on return.

    Raises:
        CodeRefused: this is no code of the secret that was begun.
        FactorExists: it is confirmed already.
    """
    codes = tuple(_new_recovery_code() for _ in range(RECOVERY_CODES))
    with db.writing(session):
        factor = _factor(session, user)
        if factor is not None and factor.confirmed_at is not None:
            raise FactorExists("This account has a second factor; take it off first.")
        if factor is None or not _take_timed(session, factor, user, code, secret_key, now):
            raise CodeRefused("This is not the code that the app shows now; try the next one.")
        factor.confirmed_at = now
        session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user.id))
        session.add_all(RecoveryCode(user_id=user.id, code_sha256=_sha256(one)) for one in codes)
        session.flush()
        auditing.record(session, "second_factor_set", subject=f"account {user.name}", now=now)
    return codes


def has_factor(session: Session, user_id: int) -> bool:
    """Whether the account is asked for a code at login."""
    query = select(SecondFactor.confirmed_at).where(SecondFactor.user_id == user_id)
    return session.scalar(query) is not None


def recovery_codes_left(session: Session, user_id: int) -> int:
    query = select(func.count()).select_from(RecoveryCode).where(RecoveryCode.user_id == user_id)
    return session.scalar(query) or 0


def take_code(session: Session, user: User, code: str, *, secret_key: str, now: datetime) -> bool:
    """Use a code of the app, or a recovery code, up; False when it is not good (any more).

    Part of the caller's transaction, which holds the account's row. An account without a factor wants no code: True.
    """
    with db.writing(session):
        factor = _factor(session, user)
        if factor is None or factor.confirmed_at is None:
            return True
        typed = re.sub(r"[\s-]", "", code).upper()
        if _TIMED.fullmatch(typed):
            return _take_timed(session, factor, user, typed, secret_key, now)
        used = delete(RecoveryCode).where(
            RecoveryCode.user_id == user.id, RecoveryCode.code_sha256 == _sha256(typed)
        )
        if not session.execute(used.returning(RecoveryCode.user_id)).all():
            return False
        auditing.record(
            session,
            "recovery_code_used",
            subject=f"account {user.name}",
            now=now,
            by=user.name,  # who logs in acts as nobody yet
        )
        return True


def remove(session: Session, user: User, *, now: datetime) -> None:
    """Ask for no code any more. Committed on return.

    Raises:
        NotFound: the account has no second factor.
    """
    with db.writing(session):
        factor = _factor(session, user)
        if factor is None:
            raise NotFound("The account %(name)r has no second factor.", name=user.name)
        session.delete(factor)
        session.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user.id))
        session.flush()
        auditing.record(session, "second_factor_removed", subject=f"account {user.name}", now=now)


def _factor(session: Session, user: User) -> SecondFactor | None:
    return session.get(SecondFactor, user.id, with_for_update=True, populate_existing=True)


def _take_timed(
    session: Session, factor: SecondFactor, user: User, code: str, secret_key: str, now: datetime
) -> bool:
    totp = pyotp.TOTP(_unsealed(factor, user, secret_key))
    typed = re.sub(r"\s", "", code)
    try:
        step = totp.verify_and_get_timecode(typed, for_time=now, valid_window=_STEPS_OFF)
    except pyotp.OTPVerificationError:
        return False
    taken = (
        update(SecondFactor)
        .where(SecondFactor.user_id == user.id, SecondFactor.last_step < step)
        .values(last_step=step)
        .returning(SecondFactor.user_id)
    )
    return bool(session.execute(taken).all())


def _unsealed(factor: SecondFactor, user: User, secret_key: str) -> str:
    try:
        return sealing.unseal(factor.sealed_secret, owner=_owner(user), secret_key=secret_key)
    except sealing.SealBroken as error:
        raise FactorUnreadable(
            "The second factor of %(name)r was kept under another secret_key; use that one, or take the "
            "factor off with `fleet user no-second-factor`.",
            name=user.name,
        ) from error


def _owner(user: User) -> str:
    return f"account {user.id}"


def _new_recovery_code() -> str:
    """Like `k3vq-7m2a-…`, in letters and digits that are not mistaken for one another."""
    drawn = base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
    return "-".join(drawn[at : at + _GROUP] for at in range(0, len(drawn), _GROUP))


def _sha256(code: str) -> str:
    typed = re.sub(r"[\s-]", "", code).upper()
    return hashlib.sha256(typed.encode(errors="replace")).hexdigest()
