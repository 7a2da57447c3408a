"""JWTs that others may read: the one around a session, and what ``/keystead/v1/verify`` answers.

A session's informs: identity signs it, the edge reads it, rights come from the session inside. The other is for the
program that asked, and nothing here reads it.
"""

import hashlib
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from shared.keyring import Keyring

ALGORITHM = "EdDSA"
_PURPOSE, _TYPE = "session-signing", "session+jwt"
_VERIFIED_PURPOSE, _VERIFIED_TYPE = "verify-signing", "verify+jwt"


def sign(key: OKPKey, type_: str, claims: dict[str, Any]) -> str:
    """A JWT whose header says what it is, so that none passes for another kind."""
    return jwt.encode({"alg": ALGORITHM, "typ": type_, "kid": key.thumbprint()}, claims, key, algorithms=[ALGORITHM])


def read(key: OKPKey, type_: str, token: str) -> dict[str, Any] | None:
    """The claims of a JWT of that type that ``key`` signed; None for anything else. Times are not looked at."""
    try:
        decoded = jwt.decode(token, key, algorithms=[ALGORITHM])
    except (JoseError, ValueError, TypeError):  # the last for a header whose ``crit`` is no list of names
        return None
    return decoded.claims if decoded.header.get("typ") == type_ else None


def sign_session(keyring: Keyring, claims: dict[str, Any]) -> str:
    return sign(keyring.signing_key(_PURPOSE), _TYPE, claims)


def read_session(keyring: Keyring, token: str) -> str | None:
    """The session inside its JWT; None for text that is none of ours. Whether the session lives is not looked at."""
    claims = read(keyring.signing_key(_PURPOSE), _TYPE, token)
    key = claims.get("key") if claims else None
    return key if isinstance(key, str) else None


def sign_verified(keyring: Keyring, claims: dict[str, Any]) -> str:
    """Who a credential is, for another program: of a key pair and a type of its own, so that it is no session's."""
    return sign(keyring.signing_key(_VERIFIED_PURPOSE), _VERIFIED_TYPE, claims)


def hash_of(session: str) -> str:
    """What a session is stored and looked up by."""
    return hashlib.sha256(session.encode()).hexdigest()


def key_set(keyring: Keyring) -> dict[str, Any]:
    """The public keys of both, as a JWK set. A reader must look at ``typ`` as well: it says which of them a JWT is."""
    keys = [keyring.signing_key(purpose) for purpose in (_PURPOSE, _VERIFIED_PURPOSE)]
    return {"keys": [key.as_dict(private=False, kid=key.thumbprint(), use="sig", alg=ALGORITHM) for key in keys]}
