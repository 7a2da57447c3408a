"""The edge: turns a request's credential into a principal (contract §1.2)."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fastapi import Request

from services.gateway.settings import GatewaySettings
from services.gateway.view import View
from services.identity.requests import FoundSession
from services.keys.requests import FoundKey
from shared.errors import Refused
from shared.permissions import Role
from shared.principal import Principal
from shared.same_origin import check_same_origin
from shared.secret import looks_like_ours, parse_key, token_of
from shared.session_token import hash_of, read_session

# The master key's user; identity sees to it that it is there.
MASTER_USER_ID = "default_user_id"
COOKIE = "token"
SESSION_PREFIX = "sk-kss1_"
CREDENTIAL_LENGTH_MAX = 4096


class CredentialsMissing(Refused):
    reason = "credentials_missing"


class KeyUnknown(Refused):
    reason = "key_unknown"

    def __init__(self) -> None:
        super().__init__("the credential is not known here", param="key")


class KeyBlocked(Refused):
    reason = "key_blocked"


class KeyExpired(Refused):
    reason = "key_expired"


class JwtInvalid(Refused):
    reason = "jwt_invalid"


@dataclass(frozen=True, slots=True)
class Credential:
    text: str
    source: Literal["header", "cookie"]


class Edge:
    """Knows the master key, and asks the view for everything else."""

    def __init__(self, settings: GatewaySettings, view: View) -> None:
        self._settings = settings
        self._view = view
        self._master_token = hashlib.sha256(settings.master_key.encode()).digest()

    async def identify(self, request: Request, now: datetime) -> Principal:
        """The principal behind a request. Raises a ``Refused`` with status 401, or 403 ``csrf``."""
        credential = find_credential(request, self._settings.key_header_name)
        if credential.source == "cookie":
            check_same_origin(request, self._settings.base_url)
        text = credential.text
        if len(text) > CREDENTIAL_LENGTH_MAX:
            raise KeyUnknown
        if hmac.compare_digest(hashlib.sha256(text.encode(errors="replace")).digest(), self._master_token):
            return Principal(MASTER_USER_ID, Role.PROXY_ADMIN, "master_key", token=self._master_token.hex())
        if text.count(".") == 2:
            session = read_session(self._settings.keyring, text)
            if session is None:
                raise JwtInvalid("the token is not one of ours, or not valid")
            return await self._by_session(session, now)
        if text.startswith(SESSION_PREFIX):
            return await self._by_session(text, now)
        return await self._by_key(text, now)

    async def _by_session(self, session: str, now: datetime) -> Principal:
        found: FoundSession = await self._view.session(hash_of(session))
        over = min((end for end in (found.expires_at, found.idle_until) if end is not None), default=now)
        if not found.exists or over <= now:
            raise KeyUnknown
        user = await self._view.user(found.user_id)
        if not user.exists or user.role is None:
            raise KeyUnknown
        return Principal(
            found.user_id, Role(user.role), "session", session_id=found.session_id, expires_at=found.expires_at
        )

    async def _by_key(self, text: str, now: datetime) -> Principal:
        # A typo is told from a key without asking anybody: ours carry a checksum.
        if not text.startswith("sk-") or (looks_like_ours(text) and parse_key(text) is None):
            raise KeyUnknown
        key = await self._view.key(token_of(text))
        check_usable(key, now)
        role: Role | None = None
        if key.user_id is not None:
            user = await self._view.user(key.user_id)
            if not user.exists or user.role is None:
                raise KeyUnknown
            role = Role(user.role)
        return Principal(
            key.user_id,
            role,
            "key",
            key_id=key.key_id,
            key_type=key.key_type,
            token=key.token,
            expires_at=key.expires_at,
        )


def check_usable(key: FoundKey, now: datetime) -> None:
    """The first two checks of §5.3."""
    if not key.exists:
        raise KeyUnknown
    if key.blocked:
        raise KeyBlocked("the key is blocked", param="key")
    if key.expires_at is not None and key.expires_at <= now:
        raise KeyExpired(f"the key expired at {key.expires_at:%Y-%m-%dT%H:%M:%SZ}", param="key")


def find_credential(request: Request, header_name: str | None) -> Credential:
    """The first credential in the contract's order; a bad one is not skipped for a later one."""
    headers = request.headers
    for name in (header_name, "authorization", "x-api-key", "api-key"):
        if name and (value := headers.get(name, "").strip()):
            return Credential(_without_scheme(value), "header")
    if cookie := request.cookies.get(COOKIE, "").strip():
        return Credential(cookie, "cookie")
    raise CredentialsMissing("a credential is needed: Authorization: Bearer <key>")


def _without_scheme(value: str) -> str:
    scheme, _, rest = value.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" and rest else value
