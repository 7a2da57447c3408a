"""One secret gives every derived key, each for one purpose; what it seals opens nowhere else (§4.5)."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.keyring import Keyring, NotSealed, equal, open_sealed, seal

SECRET_BYTES = bytes(range(200, 232))
SECRET = base64.b64encode(SECRET_BYTES).decode()
KEYRING = Keyring(SECRET)
OTHER = Keyring(base64.b64encode(bytes(range(32))).decode())
KEY = bytes(range(32))


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"  {SECRET}\n",
        SECRET.rstrip("="),
        base64.urlsafe_b64encode(SECRET_BYTES).decode(),
        base64.urlsafe_b64encode(SECRET_BYTES).decode().rstrip("="),
    ],
)
def test_a_secret_is_base64_in_either_alphabet(text: str) -> None:
    assert Keyring(text).derive("a") == KEYRING.derive("a")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is too short: 0 bytes"),
        (base64.b64encode(bytes(31)).decode(), "is too short: 31 bytes, and at least 32 are needed"),
        ("c2hvcnQ=", "is too short: 5 bytes"),
        ("not base64 at all!", "is not base64"),
        ("a" * 45, "is not base64"),
        (SECRET[:20] + "=" + SECRET[20:], "is not base64"),
        (SECRET + "====", "is not base64"),
        ("é" * 44, "is not base64"),
    ],
)
def test_a_bad_secret_is_refused_without_being_shown(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as refusal:
        Keyring(text)
    assert not text.strip() or text not in str(refusal.value)


def test_the_secret_is_not_in_the_repr() -> None:
    for shown in (repr(KEYRING), str(KEYRING), f"{KEYRING!r}"):
        assert shown == "Keyring(…)"
    assert not hasattr(KEYRING, "__dict__")


def test_a_derived_key_is_the_same_for_ever() -> None:
    """Passwords in PostgreSQL and sealed data rest on it: whoever changes this makes installations unreadable."""
    assert KEYRING.derive("golden").hex() == "8375581e6778a3f0cc955009345fe28cffd800e27b5928f339a7cf814e6938f6"


def test_a_derived_key_is_of_its_purpose_secret_and_length() -> None:
    assert len(KEYRING.derive("a")) == 32
    assert len(KEYRING.derive("a", 64)) == 64
    assert KEYRING.derive("a") == Keyring(SECRET).derive("a")
    assert len({KEYRING.derive("a"), KEYRING.derive("b"), KEYRING.derive(""), OTHER.derive("a"), SECRET_BYTES}) == 5


def test_a_password_is_safe_in_a_url() -> None:
    password = KEYRING.password("postgres:keys")
    assert len(password) == 43
    assert password.replace("-", "").replace("_", "").isalnum()
    assert password != KEYRING.password("nats:keys")


def test_a_signing_key_is_the_same_ed25519_pair_each_time() -> None:
    key, again = KEYRING.signing_key("session"), Keyring(SECRET).signing_key("session")
    assert key.as_dict(private=True) == again.as_dict(private=True)
    assert key.as_dict(private=False)["crv"] == "Ed25519"
    assert key.kid == key.thumbprint()
    assert key.thumbprint() != KEYRING.signing_key("principal").thumbprint()
    assert "d" not in key.as_dict(private=False)


def test_a_signature_is_verified_with_the_public_key() -> None:
    private_key = KEYRING.signing_key("session").private_key
    assert isinstance(private_key, Ed25519PrivateKey)
    private_key.public_key().verify(private_key.sign(b"message"), b"message")


def test_an_hmac_is_of_its_purpose_and_message() -> None:
    assert KEYRING.hmac("invitation", b"ref") == Keyring(SECRET).hmac("invitation", b"ref")
    assert len(KEYRING.hmac("invitation", b"ref")) == 32
    macs = {KEYRING.hmac("invitation", b"ref"), KEYRING.hmac("email", b"ref"), KEYRING.hmac("invitation", b"rev")}
    assert len(macs | {OTHER.hmac("invitation", b"ref")}) == 4


@given(st.binary(), st.binary())
def test_what_is_sealed_opens_with_its_context(plaintext: bytes, context: bytes) -> None:
    sealed = KEYRING.seal("user-key", plaintext, context)
    assert KEYRING.open("user-key", sealed, context) == plaintext
    assert sealed.isascii()


def test_sealing_twice_gives_two_texts() -> None:
    assert len({KEYRING.seal("a", b"the same", b"") for _ in range(100)}) == 100


def test_what_is_sealed_opens_with_nothing_else() -> None:
    sealed = KEYRING.seal("a", b"plaintext", b"user-1")
    for keyring, purpose, context in [(OTHER, "a", b"user-1"), (KEYRING, "b", b"user-1"), (KEYRING, "a", b"user-2")]:
        with pytest.raises(NotSealed):
            keyring.open(purpose, sealed, context)


@given(st.integers(2, 60), st.characters(codec="ascii"))
def test_a_changed_seal_does_not_open_to_anything_else(place: int, character: str) -> None:
    sealed = seal(KEY, b"plaintext of some length", b"")
    try:
        assert open_sealed(KEY, sealed[:place] + character + sealed[place + 1 :], b"") == b"plaintext of some length"
    except NotSealed:
        return


@pytest.mark.parametrize(
    "sealed", ["", "1.", "1.AAAA", "2." + "A" * 60, "A" * 60, "1.é", "1.A", "1. ", "1." + "A" * 60, "\ud800"]
)
def test_other_text_is_not_sealed(sealed: str) -> None:
    with pytest.raises(NotSealed):
        open_sealed(KEY, sealed, b"")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "aa", False),
        (b"a", "a", True),
        ("é", "é", True),
        ("\ud800", "\ud800", True),
    ],
)
def test_secrets_are_compared_whatever_they_hold(a: str | bytes, b: str | bytes, same: bool) -> None:
    assert equal(a, b) is same
