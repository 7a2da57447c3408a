"""Keys and sessions have the shapes of §6 and §1.2, and nothing that shows them holds them."""

import hashlib
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.secret import (
    draw_key,
    draw_key_id,
    draw_session,
    is_session,
    key_name_of,
    looks_like_ours,
    parse_key,
    token_of,
)

KEY = re.compile(r"^sk-ks1_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}$")
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Made by hand from all zero bytes: the checksum is that of "sk-ks1_000000000000_" and 32 zeros.
ZERO_KEY = "sk-ks1_000000000000_" + "0" * 32


def zeros(count: int) -> bytes:
    return bytes(count)


def number_of(text: str) -> int:
    number = 0
    for digit in text:
        number = number * 62 + DIGITS.index(digit)
    return number


def test_a_key_has_the_contracts_shape() -> None:
    new = draw_key()
    assert KEY.match(new.key)
    assert new.key.split("_")[1] == new.key_id
    assert new.token == hashlib.sha256(new.key.encode()).hexdigest() == token_of(new.key)
    assert new.key_name == f"sk-...{new.key[-4:]}" == key_name_of(new.last_four)


def test_the_checksum_is_the_crc_of_all_before_it_in_six_digits() -> None:
    key = draw_key(zeros).key
    assert key[:-6] == ZERO_KEY
    assert number_of(key[-6:]) == zlib.crc32(ZERO_KEY.encode())


@given(st.binary(min_size=80, max_size=80))
def test_every_keys_checksum_is_written_most_significant_digit_first(randomness: bytes) -> None:
    key = draw_key(lambda count: randomness[:count]).key
    assert number_of(key[-6:]) == zlib.crc32(key[:-6].encode())


def test_a_key_is_parsed_to_its_key_id() -> None:
    new = draw_key()
    assert parse_key(new.key) == new.key_id
    assert looks_like_ours(new.key)


def test_a_rotated_key_keeps_its_key_id() -> None:
    old = draw_key()
    new = draw_key(key_id=old.key_id)
    assert new.key_id == old.key_id == parse_key(new.key)
    assert new.key != old.key
    assert new.token != old.token


@given(st.binary(min_size=80, max_size=80), st.integers(0, 57), st.sampled_from(DIGITS))
def test_a_key_with_one_other_character_is_none(randomness: bytes, place: int, character: str) -> None:
    key = draw_key(lambda count: randomness[:count]).key
    other = key[:place] + character + key[place + 1 :]
    assert (parse_key(other) is not None) is (other == key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-ks1_",
        "sk-1234",
        "sk-" + "a" * 40,
        ZERO_KEY,
        ZERO_KEY + "000000",
        "sk-kss1_" + "a" * 43,
        "\ud800",
        "٣" * 58,
    ],
)
def test_other_text_is_no_key_of_ours(text: str) -> None:
    assert parse_key(text) is None


def test_a_key_has_nothing_around_it() -> None:
    key = draw_key().key
    for text in (f"{key}\n", f" {key}", f"{key} ", key.upper(), key + key):
        assert parse_key(text) is None


@pytest.mark.parametrize(
    ("text", "ours"),
    [("sk-ks1_", True), ("sk-ks1_short", True), ("sk-1234567890abcdefg", False), ("sk-kss1_abc", False), ("", False)],
)
def test_a_text_that_begins_like_a_key_of_ours_claims_to_be_one(text: str, ours: bool) -> None:
    assert looks_like_ours(text) is ours


@given(st.text())
def test_no_text_breaks_the_look_at_it(text: str) -> None:
    assert parse_key(text) is None
    assert len(token_of(text)) == 64
    assert is_session(text) is False


def test_a_session_has_its_own_shape() -> None:
    session = draw_session()
    assert re.fullmatch(r"sk-kss1_[0-9A-Za-z]{43}", session)
    assert is_session(session)
    assert not looks_like_ours(session)
    assert not is_session(session + "\n")
    assert not is_session(draw_key().key)


@given(st.binary(min_size=32, max_size=32))
def test_a_session_holds_256_random_bits(randomness: bytes) -> None:
    session = draw_session(lambda count: randomness[:count])
    assert number_of(session.removeprefix("sk-kss1_")) == int.from_bytes(randomness, "big")


def test_more_than_190_bits_are_drawn_for_a_key() -> None:
    drawn: list[int] = []

    def counted(count: int) -> bytes:
        drawn.append(count)
        return bytes(count)

    draw_key(counted)
    assert [count * 8 > bits for count, bits in zip(drawn, (71 + 64, 190 + 64), strict=True)] == [True, True]


def test_every_digit_of_a_key_is_drawn() -> None:
    keys = [draw_key().key for _ in range(2_000)]
    for place in [*range(7, 19), *range(20, 52)]:
        assert {key[place] for key in keys} == set(DIGITS)


def test_no_two_draws_are_the_same() -> None:
    assert len({draw_key_id() for _ in range(1_000)}) == 1_000
    assert len({draw_session() for _ in range(1_000)}) == 1_000


def test_a_new_keys_repr_does_not_show_the_key() -> None:
    new = draw_key()
    assert new.key not in repr(new)
    assert new.key_id in repr(new)
