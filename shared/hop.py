"""The hop from the gateway to the service that it passes a request on to, and who is calling, in a signed token.

It is good for one service and a few seconds (design §5). Where gateway and service are one process there is no hop.
"""

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import Request

from shared.errors import Refused, Unavailable
from shared.gate import Arrival, Way
from shared.keyring import Keyring
from shared.permissions import Role
from shared.principal import Principal
from shared.session_token import read, sign
from shared.visitor import Visitor, visitor_of

log = structlog.get_logger()

PRINCIPAL_HEADER = "x-keystead-principal"
_PURPOSE, _TYPE = "principal-signing", "principal+jwt"
_LIFE_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Hop:
    """``principal`` is None for an operation that needs none. ``call_id`` names the request in all it causes."""

    principal: Principal | None
    call_id: str
    visitor: Visitor


def sign_hop(keyring: Keyring, service: str, hop: Hop, now: datetime) -> str:
    """For ``service`` alone."""
    claims: dict[str, Any] = {
        "aud": service,
        "exp": now.timestamp() + _LIFE_SECONDS,
        "jti": hop.call_id,
        "address": hop.visitor.address,
        "exempt": hop.visitor.exempt,
    }
    if hop.principal is not None:
        claims["principal"] = _claims(hop.principal)
    return sign(keyring.signing_key(_PURPOSE), _TYPE, claims)


def read_hop(keyring: Keyring, service: str, token: str, now: datetime) -> Hop | None:
    """What the gateway signed for ``service``; None for anything else. Raises ``Unavailable`` for what is too old."""
    claims = read(keyring.signing_key(_PURPOSE), _TYPE, token)
    if claims is None or claims["aud"] != service:
        return None
    late = now.timestamp() - claims["exp"]
    # From the future it is as wrong as from the past: then the clocks differ by more than a token may live.
    if not -2 * _LIFE_SECONDS <= late < 0:
        log.warning("hop.out_of_time", service=service, late_seconds=round(late, 1))
        raise Unavailable("a request came too late from the gateway, or their clocks differ")
    principal = _principal(claims["principal"]) if "principal" in claims else None
    return Hop(principal, str(claims["jti"]), Visitor(claims["address"], bool(claims["exempt"])))


def _claims(principal: Principal) -> dict[str, Any]:
    claims = asdict(principal)
    if principal.expires_at is not None:
        claims["expires_at"] = principal.expires_at.timestamp()
    return {name: value for name, value in claims.items() if value is not None}


def _principal(claims: dict[str, Any]) -> Principal:
    expires_at = claims.get("expires_at")
    facts = {
        "user_id": None,
        **claims,
        "role": Role(claims["role"]) if "role" in claims else None,
        "expires_at": datetime.fromtimestamp(expires_at, UTC) if expires_at is not None else None,
    }
    return Principal(**facts)


class InnerDoor:
    """The door of a process without gateway: only what a gateway passed on comes in, but for ``own`` routes."""

    def __init__(self, keyring: Keyring, *, own: str, clock: Callable[[], datetime]) -> None:
        self._keyring = keyring
        self._own = own
        self._clock = clock

    def greet(self, request: Request, service: str | None) -> Arrival:
        """By what the gateway says of it."""
        token = request.headers.get(PRINCIPAL_HEADER)
        hop: Hop | Unavailable | None
        try:
            hop = read_hop(self._keyring, service, token, self._clock()) if service and token else None
        except Unavailable as late:
            hop = late  # refused when it is asked who is calling
        request.scope["keystead.hop"] = hop
        if isinstance(hop, Hop):
            return Arrival(hop.call_id, hop.visitor)
        return Arrival(str(uuid.uuid4()), visitor_of(request))

    async def identify(self, request: Request, way: Way) -> Principal | None:
        """As the gateway says. Raises a ``Refused`` for what none passed on."""
        if way.service == self._own:
            return None
        hop: Hop | Unavailable | None = request.scope["keystead.hop"]
        if isinstance(hop, Unavailable):
            raise hop
        if hop is None:
            raise Refused("only what a gateway passes on is answered here", reason="credentials_missing")
        return hop.principal
