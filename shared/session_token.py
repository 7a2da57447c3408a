"""The JWT around a session: identity signs it, the edge reads it. It informs; rights come from the session."""

import hashlib
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from shared.keyring import Keyring

ALGORITHM = "EdDSA"
_PURPOSE, _TYPE = "session-signing", "session+jwt"


def sign(key: OKPKey, type_: str, claims: dict[str, Any]) -> str:
    """A JWT whose header says what it is, so that none passes for another kind."""
    return jwt.encode({"alg": ALGORITHM, "typ": type_, "kid": key.thumbprint()}, claims, key, algorithms=[ALGORITHM])


def read(key: OKPKey, type_: str, token: str) -> dict[str, Any] | None:
    """The claims of a JWT of that type that ``key`` signed; None for anything else. Times are not looked at."""
    try:
        decoded = jwt.decode(token, key, algorithms=[ALGORITHM])
    except (JoseError, ValueError):
        return None
    return decoded.claims if decoded.header.get("typ") == type_ else None


def sign_session(keyring: Keyring, claims: dict[str, Any]) -> str:
    return sign(keyring.signing_key(_PURPOSE), _TYPE, claims)


def read_session(keyring: Keyring, token: str) -> str | None:
    """The session inside its JWT; None for text that is none of ours. Whether the session lives is not looked at."""
    claims = read(keyring.signing_key(_PURPOSE), _TYPE, token)
    key = claims.get("key") if claims else None
    return key if isinstance(key, str) else None


def hash_of(session: str) -> str:
    """What a session is stored and looked up by."""
    return hashlib.sha256(session.encode()).hexdigest()


def key_set(keyring: Keyring) -> dict[str, Any]:
    """The public keys that session JWTs are verified with, as a JWK set."""
    key = keyring.signing_key(_PURPOSE)
    return {"keys": [key.as_dict(private=False, kid=key.thumbprint(), use="sig", alg=ALGORITHM)]}
