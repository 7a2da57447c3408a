"""The JWTs that identity signs: what they say, and that none passes for the other (§5.6, §3.5)."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from services.identity import tokens
from shared import session_token
from shared.keyring import Keyring

KEYRING = Keyring(base64.b64encode(bytes(range(32))).decode())
OTHER_KEYRING = Keyring(base64.b64encode(bytes(range(1, 33))).decode())
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
QUARTER_HOUR = timedelta(minutes=15)
SESSION = "sk-kss1_" + "s" * 43


def session_jwt(keyring: Keyring = KEYRING) -> str:
    return tokens.session_jwt(
        keyring, user_id="ada", session=SESSION, email="ada@example.test", role="internal_user", expires_at=NOON
    )


def onboarding_jwt(keyring: Keyring = KEYRING) -> str:
    return tokens.onboarding_jwt(
        keyring, user_id="ada", email="ada@example.test", role="internal_user", id_hash="e3b0", now=NOON
    )


def verified(token: str) -> dict[str, Any]:
    """The claims, as somebody reads them who has nothing but the public key set."""
    keys = KeySet.import_key_set(session_token.key_set(KEYRING))  # type: ignore[arg-type]
    return jwt.decode(token, keys, algorithms=["EdDSA"]).claims


def claim_key(keyring: Keyring = KEYRING) -> str:
    claims = session_token.read(keyring.signing_key("session-signing"), "session+jwt", onboarding_jwt(keyring))
    assert claims is not None
    return str(claims["key"])


def test_a_sessions_jwt_has_the_claims_of_the_contract_and_no_other() -> None:
    assert verified(session_jwt()) == {
        "user_id": "ada",
        "key": SESSION,
        "user_email": "ada@example.test",
        "user_role": "internal_user",
        "login_method": "username_password",
        "auth_header_name": "Authorization",
        "server_root_path": "",
        "disabled_non_admin_personal_key_creation": False,
        "password_reset_required": False,
        "premium_user": False,
        "exp": int(NOON.timestamp()),
    }


def test_an_onboardings_jwt_has_the_same_claims_and_lasts_a_quarter_of_an_hour() -> None:
    claims, of_session = verified(onboarding_jwt()), verified(session_jwt())
    assert claims.keys() == of_session.keys()
    assert claims["exp"] == int((NOON + QUARTER_HOUR).timestamp())


def test_the_session_is_read_out_of_its_jwt() -> None:
    assert session_token.read_session(KEYRING, session_jwt()) == SESSION


def test_the_key_of_an_onboardings_jwt_is_itself_a_jwt_and_no_session() -> None:
    assert claim_key().count(".") == 2
    assert not claim_key().startswith("sk-")


def test_the_key_of_an_onboardings_jwt_opens_one_invitation_for_one_user() -> None:
    assert tokens.read_onboarding(KEYRING, claim_key(), NOON) == ("ada", "e3b0")


def test_it_opens_it_until_the_quarter_of_an_hour_is_over_and_not_then() -> None:
    last = NOON + QUARTER_HOUR - timedelta(microseconds=1)
    assert tokens.read_onboarding(KEYRING, claim_key(), last) == ("ada", "e3b0")
    assert tokens.read_onboarding(KEYRING, claim_key(), NOON + QUARTER_HOUR) is None


@pytest.mark.parametrize(
    "token",
    ["", "x", "a.b.c", "sk-kss1_" + "s" * 43, "é.é.é", session_jwt(), onboarding_jwt(), claim_key(OTHER_KEYRING)],
    ids=["nothing", "text", "three parts", "a session", "not ASCII", "a session's", "the outer one", "another's"],
)
def test_nothing_else_claims_an_invitation(token: str) -> None:
    assert tokens.read_onboarding(KEYRING, token, NOON) is None


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_onboarding_credential_with_a_changed_character_is_none(part: int) -> None:
    parts = claim_key().split(".")
    parts[part] = ("A" if parts[part][0] != "A" else "B") + parts[part][1:]
    assert tokens.read_onboarding(KEYRING, ".".join(parts), NOON) is None


@pytest.mark.parametrize(
    "token", [claim_key(), session_jwt(OTHER_KEYRING), "a.b.c"], ids=["a claim's", "another's", "three parts"]
)
def test_nothing_but_a_sessions_jwt_of_ours_is_read_as_one(token: str) -> None:
    assert session_token.read_session(KEYRING, token) is None


def test_an_unsigned_jwt_is_read_as_nothing() -> None:
    parts = (b'{"alg":"none","typ":"session+jwt"}', b'{"key":"sk-kss1_x"}', b"")
    unsigned = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    assert session_token.read_session(KEYRING, unsigned) is None


@pytest.mark.parametrize("critical", ["5", "true", "[{}]", "[null]", '["b64", 1]'])
def test_a_jwt_with_a_header_that_makes_no_sense_is_read_as_nothing(critical: str) -> None:
    header = f'{{"alg":"EdDSA","typ":"session+jwt","crit":{critical}}}'.encode()
    parts = (header, b'{"key":"sk-kss1_x"}', bytes(64))
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
    assert session_token.read_session(KEYRING, token) is None


def test_the_key_set_holds_no_private_part() -> None:
    keys = session_token.key_set(KEYRING)["keys"]
    assert len({key["kid"] for key in keys}) == 2
    for key in keys:
        assert "d" not in key
        assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("OKP", "Ed25519", "sig", "EdDSA")
