"""Passwords: which are good enough, and how they are kept (argon2id).

What everybody tries first is refused by rules, not by a list: a short thing repeated, rows of an alphabet or a keyboard, one short word
with digits around it, the account's own name.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import cache
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from fleet_server.errors import Said

HASHER = PasswordHasher()  # argon2id with the library's current parameters (RFC 9106, low-memory)
NONE = ""
"""Instead of a hash: nobody knows a password of this account yet."""
MIN_LENGTH = 12
_FEWEST_FREE = 8
"""Characters that do not go on with a row: `abcdefgh1234` has four."""
_SHORTEST_NAME = 4
"""A shorter name is in many a good password by chance."""

_ROWS = (
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "qwertzuiopü",
    "asdfghjklöä",
    "zxcvbnm",
    "yxcvbnm",
)
_ONE_SHORT_WORD = re.compile(r"[\W\d_]*[^\W\d_]{1,9}[\W\d_]*")


class Weakness(StrEnum):
    """Why a password is refused."""

    SHORT = "short"
    REPEATED = "repeated"
    ROW = "row"
    ONE_WORD = "one_word"
    NAME = "name"


SENTENCES = {
    Weakness.SHORT: Said("A password has at least %(least)s characters.", least=MIN_LENGTH),
    Weakness.REPEATED: Said("This password repeats itself; what comes again does not count."),
    Weakness.ROW: Said(
        "This password goes along the alphabet or the keyboard; that is tried first."
    ),
    Weakness.ONE_WORD: Said(
        "This password is one short word with digits or signs; take several words."
    ),
    Weakness.NAME: Said("A password must not hold the account's name."),
}


def weakness_of(password: str, *, name: str) -> Weakness | None:
    """Why this password is not good enough for the account `name`; None when it is.

    >>> weakness_of("correct horse battery", name="anna")
    >>> [weakness_of(text, name="anna").value for text in ("passwordpassword", "qwertz123456", "Sommer2026!!")]
    ['repeated', 'row', 'one_word']
    """
    plain = password.casefold()
    if len(password) < MIN_LENGTH:
        return Weakness.SHORT
    if _repeated_length(plain) < min(MIN_LENGTH, len(plain)):
        return Weakness.REPEATED
    if _free_characters(plain) < _FEWEST_FREE:
        return Weakness.ROW
    if _ONE_SHORT_WORD.fullmatch(plain):
        return Weakness.ONE_WORD
    if len(name) >= _SHORTEST_NAME and name.casefold() in plain:
        return Weakness.NAME
    return None


def make_hash(password: str) -> str:
    return HASHER.hash(password)


def is_right(password_hash: str, password: str) -> bool:
    """Takes long on purpose: no transaction should wait for it."""
    try:
        return HASHER.verify(password_hash, password)
    except (VerifyMismatchError, VerificationError, InvalidHashError):
        return False


@cache
def nobodys_hash() -> str:
    """Tried when there is no such account, so that the answer takes as long."""
    return HASHER.hash("nobody has this password")


def _repeated_length(text: str) -> int:
    """Length of what `text` repeats; its own when it does not."""
    length = len(text)
    return next(part for part in range(1, length + 1) if text[part:] == text[: length - part])


def _free_characters(text: str) -> int:
    """How many characters neither come twice in a row nor simply go on with what the two before them began."""
    free, before = 1, frozenset[int]()
    for earlier, later in pairwise(text):
        steps = _steps(earlier, later)
        free += 0 not in steps and not steps & before
        before = steps
    return free


def _steps(earlier: str, later: str) -> frozenset[int]:
    """0: the same again; 1 and -1: its neighbour in some row."""
    found = {0} if earlier == later else set()
    for row in _ROWS:
        if earlier + later in row:
            found.add(1)
        if later + earlier in row:
            found.add(-1)
    return frozenset(found)
