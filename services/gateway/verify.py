"""``/keystead/v1/verify``: who a credential is, and whether it may do what is asked, told to another program's proxy.

What it answers is no credential here (§3.9): the token has a key pair and a type of its own.
"""

import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from services.gateway.gateway import Gateway
from services.gateway.settings import GatewaySettings
from shared.body import StrictRoute
from shared.permissions import NotYours, Operation, Role, RoleNotAllowed
from shared.principal import Principal, may, running
from shared.service import Running
from shared.session_token import sign_verified
from shared.values import Id, Text
from shared.values import Query as QueryModel

LIFE_SECONDS = 60
AS_IT_IS = "@:+=/"  # in a header, besides letters, digits and ``_.-~``
_METHOD_HEADERS = ("x-forwarded-method", "x-original-method")
_TARGET_HEADERS = ("x-forwarded-uri", "x-original-uri", "x-original-url")
_METHOD = re.compile(r"[A-Z]{1,32}")
_HOST = re.compile(r"[a-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9a-f:.]{2,45}\](:[0-9]{1,5})?")


class VerifyRoute(StrictRoute):
    """Takes any method, as proxies ask by the one that they were asked by, and looks at the credential first."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked_by = {"keystead.asked_by": scope["method"], "method": "GET"}
        await super().handle({**scope, **asked_by}, receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def identified(request: Request) -> Response:
            gateway: Running[GatewaySettings] = request.app.state.services["gateway"]
            # A change by cookie must come from this site itself, also where it is another program's.
            asked = Request({**request.scope, "method": asked_method(request)})
            request.scope["keystead.principal"] = await gateway.own.edge.identify(asked, gateway.clock())
            return await handle(request)

        return identified


router = APIRouter(route_class=VerifyRoute, tags=["gateway"])


class VerifyQuery(QueryModel):
    """What is asked for: to be of that role, to be in that team, to be able to call that model."""

    role: Role | None = None
    team: Id | None = None
    model: Text | None = None


@router.get(
    "/keystead/v1/verify",
    response_class=Response,
    openapi_extra={"security": [{"bearer": []}, {"x-api-key": []}, {"api-key": []}, {"cookie": []}]},
)
async def verify(
    gateway: Annotated[Running[GatewaySettings], Depends(running("gateway"))],
    principal: Annotated[Principal, may(Operation.VERIFY)],
    query: Annotated[VerifyQuery, Query()],
    request: Request,
) -> Response:
    """Forward authentication for other programs: any method, no body; 200 with who it is in the headers, 401 or 403.

    ``X-Keystead-User``, ``-Role``, ``-Teams`` (with commas between) and ``-Key-Id`` are percent-encoded UTF-8, and
    empty where there is nothing to say. ``X-Keystead-Principal`` is a JWT of at most 60 s, of type ``verify+jwt``, for
    the host that was asked for (``aud``); its key is in ``/.well-known/jwks.json``. ``X-Forwarded-Method`` (or
    ``X-Original-Method``) is looked at for cookies, which make no change from another site.
    """
    await _check(gateway.own, principal, query)
    claims = _claims(principal, _audience(request, gateway.settings.base_url), gateway.clock())
    return Response(headers=_headers(principal, sign_verified(gateway.settings.keyring, claims)))


async def _check(own: Gateway, principal: Principal, query: VerifyQuery) -> None:
    if query.role is not None and principal.role is not query.role:
        raise RoleNotAllowed(f"role: this is not a {query.role}")
    if query.team is not None:
        raise NotYours("team: there is no such team for this credential", param="team")
    if query.model is not None:
        principal.check(Operation.MODEL_CALL)
        own.admission.check_model(await own.admission.caller(principal), query.model)


def asked_method(request: Request) -> str:
    """The method of the request that is asked about, as the proxy tells it, else the one that is asked by."""
    for name in _METHOD_HEADERS:
        if _METHOD.fullmatch(method := request.headers.get(name, "")):
            return method
    asked_by: str = request.scope["keystead.asked_by"]
    return asked_by


def _audience(request: Request, base_url: str) -> str:
    """The host that was asked for, as the proxy tells it, else our own address."""
    targets = (request.headers.get(name, "") for name in _TARGET_HEADERS)
    for host in (*map(_host_of, targets), request.headers.get("x-forwarded-host", "")):
        if _HOST.fullmatch(host.lower()):
            return host.lower()
    return base_url


def _host_of(target: str) -> str:
    """Of a whole address only: what looks like a host in a path is the client's choice."""
    try:
        return urlsplit(target).netloc if target.startswith(("http://", "https://")) else ""
    except ValueError:
        return ""


def _claims(principal: Principal, audience: str, now: datetime) -> dict[str, Any]:
    """A claim that there is nothing for is left out. The token does not live longer than its credential."""
    end = now.timestamp() + LIFE_SECONDS
    if principal.expires_at is not None:
        end = min(end, principal.expires_at.timestamp())
    claims: dict[str, Any] = {
        "sub": principal.user_id,
        "role": principal.role,
        "teams": [],
        "key_id": principal.key_id,
        "key_type": principal.key_type if principal.credential == "key" else None,
        "sid": principal.session_id,
        "aud": audience,
        "exp": int(end),
    }
    return {name: claim for name, claim in claims.items() if claim is not None}


def _headers(principal: Principal, token: str) -> Mapping[str, str]:
    """All of them always: a proxy that copies only what is there would let a client's own through."""
    return {
        "X-Keystead-User": quote(principal.user_id or "", safe=AS_IT_IS),
        "X-Keystead-Role": principal.role or "",
        "X-Keystead-Teams": "",
        "X-Keystead-Key-Id": principal.key_id or "",
        "X-Keystead-Principal": token,
    }
