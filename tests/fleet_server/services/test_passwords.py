"""Which passwords are good enough: by rule, without a list."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher, profiles
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.services import passwords
from fleet_server.services.passwords import Weakness, weakness_of

REFUSED = {
    "eleven letters": ("brownfoxhat", Weakness.SHORT),
    "one sign twelve times": ("aaaaaaaaaaaa", Weakness.REPEATED),
    "a word twice": ("passwordpassword", Weakness.REPEATED),
    "a word twice, the second half cut": ("stadtgartenstadtgart", Weakness.REPEATED),
    "digits in their order": ("123456789012", Weakness.REPEATED),
    "a row of keys, then digits": ("qwertzuiop12", Weakness.ROW),
    "the alphabet backwards": ("zyxwvutsrqpo", Weakness.ROW),
    "each sign three times": ("aaabbbcccddd", Weakness.ROW),
    "a word and a year": ("Sommer2026!!", Weakness.ONE_WORD),
    "signs before a word": ("1234-Bochum!", Weakness.ONE_WORD),
    "the account's name": ("xy-ANNA-from-bochum", Weakness.NAME),
}


@pytest.mark.parametrize(("password", "weakness"), REFUSED.values(), ids=REFUSED.keys())
def test_what_everybody_tries_first_is_refused(password: str, weakness: Weakness) -> None:
    assert weakness_of(password, name="anna") is weakness
    assert passwords.SENTENCES[weakness]


def test_hashes_cost_what_the_standard_says_on_a_server_as_on_no_test(
    shipped_hasher: PasswordHasher,
) -> None:
    """RFC 9106, 4: the second recommended option."""
    wanted = profiles.RFC_9106_LOW_MEMORY
    told = (shipped_hasher.type, shipped_hasher.time_cost, shipped_hasher.memory_cost)
    assert told == (wanted.type, wanted.time_cost, wanted.memory_cost)


@pytest.mark.parametrize(
    "password", ["correct horse battery", "Linden am Ring 12", "q8Zx-71kLmPw", "Müllers Esel rät"]
)
def test_several_words_and_drawn_signs_are_good(password: str) -> None:
    assert weakness_of(password, name="anna") is None


def test_short_name_may_be_in_a_password_by_chance() -> None:
    assert weakness_of("island in the rain", name="al") is None


@given(st.text(max_size=40), st.text(max_size=10))
def test_any_text_is_judged(password: str, name: str) -> None:
    weakness = weakness_of(password, name=name)
    assert (weakness is Weakness.SHORT) is (len(password) < passwords.MIN_LENGTH)
