"""The JWTs that identity signs: a session's, which informs the client, and an onboarding's, good for one route."""

from datetime import datetime
from typing import Any

from shared import session_token
from shared.keyring import Keyring

ONBOARDING_TYPE, ONBOARDING_KEY = "onboarding+jwt", "onboarding-signing"
ONBOARDING_SECONDS = 15 * 60


def session_jwt(
    keyring: Keyring, *, user_id: str, session: str, email: str | None, role: str, expires_at: datetime
) -> str:
    """The claims of §5.6; ``session`` is the credential itself, which clients send as Bearer."""
    return session_token.sign_session(keyring, _claims(user_id, session, email, role, int(expires_at.timestamp())))


def onboarding_jwt(keyring: Keyring, *, user_id: str, email: str | None, role: str, id_hash: str, now: datetime) -> str:
    """A session's claims; their ``key`` is the credential for claiming this one invitation, 15 minutes long."""
    expires = int(now.timestamp()) + ONBOARDING_SECONDS
    claim = session_token.sign(
        keyring.signing_key(ONBOARDING_KEY),
        ONBOARDING_TYPE,
        {"sub": user_id, "invitation": id_hash, "exp": expires},
    )
    return session_token.sign_session(keyring, _claims(user_id, claim, email, role, expires))


def read_onboarding(keyring: Keyring, token: str, now: datetime) -> tuple[str, str] | None:
    """User id and the invitation's hash; None for what is not such a credential, or is one no longer."""
    claims = session_token.read(keyring.signing_key(ONBOARDING_KEY), ONBOARDING_TYPE, token)
    if claims is None or now.timestamp() >= claims["exp"]:
        return None
    return str(claims["sub"]), str(claims["invitation"])


def _claims(user_id: str, key: str, email: str | None, role: str, expires: int) -> dict[str, Any]:
    return {
        "user_id": user_id,
        "key": key,
        "user_email": email,
        "user_role": role,
        "login_method": "username_password",
        "auth_header_name": "Authorization",
        "server_root_path": "",
        "disabled_non_admin_personal_key_creation": False,
        "password_reset_required": False,
        "premium_user": False,
        "exp": expires,
    }
