"""The password policy, rule by rule, and the hash (§5.6)."""

import sys
import unicodedata
from collections.abc import AsyncIterator
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.credentials import (
    BYTES_MAX,
    LENGTH_MAX,
    Hashing,
    PasswordPolicy,
    check_policy,
    hashing,
    normalised,
)

EMAIL = "ada.lovelace.of.london@example.test"
GOOD = "correct horse battery staple"


def refusal(password: str, *, email: str | None = EMAIL, length_min: int = 15) -> str:
    with pytest.raises(PasswordPolicy) as caught:
        check_policy(password, email=email, length_min=length_min)
    refused = caught.value
    assert (refused.status, refused.type, refused.param) == (400, "validation_error", "password")
    return refused.message


def accepted(password: str, *, email: str | None = EMAIL, length_min: int = 15) -> None:
    check_policy(password, email=email, length_min=length_min)


def test_fifteen_characters_are_enough_and_fourteen_are_not() -> None:
    accepted("x7" * 7 + "x")
    assert "at least 15 characters" in refusal("x7" * 7)


def test_the_setting_says_how_many_characters_are_enough() -> None:
    accepted("x7" * 4, length_min=8)
    assert "at least 64 characters" in refusal("x7" * 31 + "x", length_min=64)


@pytest.mark.parametrize("password", ["a" * 15, " " * 15, "123456789012345", "ещё один пароль", "密" * 15, "\t\n" * 8])
def test_any_characters_will_do_and_no_composition_is_asked_for(password: str) -> None:
    accepted(password)


def test_1024_bytes_are_taken_and_one_more_is_not() -> None:
    accepted("x" * BYTES_MAX)
    assert "at most 1024 bytes" in refusal("x" * (BYTES_MAX + 1))


def test_what_counts_is_bytes_not_characters() -> None:
    accepted("é" * 512)
    assert "at most 1024 bytes" in refusal("é" * 513)


def test_length_is_counted_after_normalising() -> None:
    composed_of_three = unicodedata.normalize("NFD", "ǖ")
    assert len(composed_of_three) == 3
    accepted(composed_of_three * 512)
    assert "at least 15 characters" in refusal(composed_of_three * 14)


def test_no_password_of_1024_bytes_was_longer_than_is_looked_at() -> None:
    """A text has at least as many characters fully decomposed as in any other way of writing it."""
    composed = (chr(number) for number in range(0x80, sys.maxunicode + 1) if not 0xD800 <= number < 0xE000)
    assert all(
        len(unicodedata.normalize("NFD", character)) * BYTES_MAX <= len(character.encode()) * LENGTH_MAX
        for character in composed
    )


def test_a_huge_password_is_refused_without_work() -> None:
    """Putting a long row of combining marks in order takes the square of its length."""
    before = process_time()
    refusal("\u0300\u0327" * 250_000)
    assert process_time() - before < 1


FULL_WIDTH = "".join(chr(ord(character) + 0xFEE0) for character in "password")


@pytest.mark.parametrize("password", ["password", "PassWord", "qwertyuiop", FULL_WIDTH])
def test_a_common_password_is_refused_in_any_case_and_width(password: str) -> None:
    assert "most common" in refusal(password, length_min=8)


def test_a_common_password_with_something_more_is_no_common_one() -> None:
    accepted("password, and something more")


@pytest.mark.parametrize("password", [EMAIL, EMAIL.upper(), EMAIL.partition("@")[0], "Ada.Lovelace.Of.London"])
def test_the_email_and_its_first_part_are_refused_in_any_case(password: str) -> None:
    assert "e-mail" in refusal(password)


def test_an_email_with_something_more_will_do() -> None:
    accepted(EMAIL + "!")


def test_a_user_without_an_email_has_no_such_rule() -> None:
    accepted(EMAIL, email=None)


def test_no_refusal_repeats_the_password() -> None:
    for password in ("x7" * 7, "x7" * 513, EMAIL):
        assert password not in refusal(password)
    assert "qwertyuiop" not in refusal("qwertyuiop", length_min=8)


@given(st.text(min_size=15, max_size=60))
def test_normalising_twice_changes_nothing_more(password: str) -> None:
    assert normalised(normalised(password)) == normalised(password)


@pytest.fixture(scope="module")
async def argon2() -> AsyncIterator[Hashing]:
    async with hashing() as running:
        yield running


async def test_a_password_is_verified_against_its_hash(argon2: Hashing) -> None:
    password_hash = await argon2.hash(GOOD)
    assert await argon2.verify(GOOD, password_hash)
    assert not await argon2.verify(GOOD + " ", password_hash)
    assert not await argon2.verify(GOOD.upper(), password_hash)


async def test_a_hash_is_argon2id_salted_and_holds_no_password(argon2: Hashing) -> None:
    one, other = await argon2.hash(GOOD), await argon2.hash(GOOD)
    assert one != other
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert GOOD not in one


async def test_a_password_typed_on_another_keyboard_is_the_same(argon2: Hashing) -> None:
    password_hash = await argon2.hash("fünfzehn Zeichen, und mehr")
    assert await argon2.verify(unicodedata.normalize("NFD", "fünfzehn Zeichen, und mehr"), password_hash)


async def test_where_there_is_no_hash_no_password_is_right(argon2: Hashing) -> None:
    """Nor the one whose hash stands in, so that the answer takes as long."""
    assert not await argon2.verify(GOOD, None)
    assert not await argon2.verify("nobody's password", None)


@pytest.mark.parametrize("broken", ["", "no hash", "$argon2id$v=19$m=19456,t=2,p=1$AAAA"])
async def test_a_broken_hash_matches_nothing(argon2: Hashing, broken: str) -> None:
    assert not await argon2.verify(GOOD, broken)
