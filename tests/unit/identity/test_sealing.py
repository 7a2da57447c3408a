"""What identifies a person is read only with that person's own key (design §3)."""

import base64

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from services.identity import sealing
from shared.keyring import Keyring

KEYRING = Keyring(base64.b64encode(bytes(range(32))).decode())
OTHER_KEYRING = Keyring(base64.b64encode(bytes(range(1, 33))).decode())
KEY, OTHER_KEY = bytes(32), bytes([1] * 32)
ADDRESS = "ada@example.test"


def sealed(text: str, field: str = "email") -> str:
    text_sealed = sealing.seal(KEY, text, field)
    assert text_sealed is not None
    return text_sealed


@given(st.text())
def test_what_was_sealed_is_read_with_the_same_key(text: str) -> None:
    assert sealing.unseal(KEY, sealed(text), "email") == text


def test_what_is_sealed_can_not_be_read_off() -> None:
    raw = base64.b64decode(sealed(ADDRESS))
    assert ADDRESS.encode() not in raw
    assert b"ada" not in raw


def test_the_same_text_sealed_twice_is_not_seen_to_be_the_same() -> None:
    assert sealed(ADDRESS) != sealed(ADDRESS)


def test_nothing_is_sealed_as_nothing() -> None:
    assert sealing.seal(KEY, None, "email") is None
    assert sealing.unseal(KEY, None, "email") is None


def test_an_empty_text_is_not_nothing() -> None:
    assert sealing.unseal(KEY, sealed(""), "email") == ""


def test_without_its_key_what_was_sealed_is_nothing() -> None:
    """Destroying the key is how a person is erased from the log."""
    assert sealing.unseal(None, sealed(ADDRESS), "email") is None


def test_another_persons_key_opens_nothing() -> None:
    with pytest.raises(InvalidTag):
        sealing.unseal(OTHER_KEY, sealed(ADDRESS), "email")


def test_a_sealed_name_can_not_be_passed_off_as_an_address() -> None:
    with pytest.raises(InvalidTag):
        sealing.unseal(KEY, sealed(ADDRESS, "alias"), "email")


@pytest.mark.parametrize("place", [0, 12, -1])
def test_a_changed_byte_is_noticed(place: int) -> None:
    raw = bytearray(base64.b64decode(sealed(ADDRESS)))
    raw[place] ^= 1
    with pytest.raises(InvalidTag):
        sealing.unseal(KEY, base64.b64encode(raw).decode(), "email")


def test_an_address_is_claimed_by_a_name_that_tells_nothing_of_it() -> None:
    claim = sealing.email_claim(KEYRING, ADDRESS)
    assert claim.startswith("email:")
    assert "ada" not in claim and "example" not in claim


def test_the_same_address_is_claimed_by_the_same_name_and_another_by_another() -> None:
    claim = sealing.email_claim(KEYRING, ADDRESS)
    assert claim == sealing.email_claim(KEYRING, ADDRESS)
    assert claim != sealing.email_claim(KEYRING, "bob@example.test")


def test_another_installation_claims_the_same_address_by_another_name() -> None:
    """Whoever steals a table can't try addresses without the secret key."""
    assert sealing.email_claim(KEYRING, ADDRESS) != sealing.email_claim(OTHER_KEYRING, ADDRESS)
