"""The gate: every request's way in. Finds the route, the principal, and whether its role allows the operation at all.

After it a route only has to ask about the object. Who turns a request's credential into a principal is passed in.
"""

import re
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import trace
from shared.answers import error_answer
from shared.errors import Refused
from shared.permissions import PERMISSIONS, Kind, Operation
from shared.principal import Principal, operation_of

log = structlog.get_logger()

Identify = Callable[[Request], Awaitable[Principal]]

SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
OWN_PREFIX = "/keystead/"


class RouteUnknown(Refused):
    reason = "route_unknown"


class MethodNotAllowed(Refused):
    reason = "method_not_allowed"


@dataclass(frozen=True, slots=True)
class Way:
    """A route, and the operation it is."""

    route: APIRoute
    operation: Operation


class Gate:
    """ASGI middleware around an app whose routes all name their operation; raises ``ValueError`` if one does not."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[Any], identify: Identify, version: str) -> None:
        self._app = app
        self._identify = identify
        self._version = version
        self._ways = [Way(route, _operation(route)) for route in routes if isinstance(route, APIRoute)]
        self._fixed: dict[tuple[str, str], Way] = {
            (method, way.route.path): way
            for way in self._ways
            if "{" not in way.route.path
            for method in way.route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request_id, call_id = _request_id(request), str(uuid.uuid4())
        scope["keystead.request_id"], scope["keystead.call_id"] = request_id, call_id
        answer = self._with_headers(send, request_id, call_id)
        with trace.tracing(trace.Trace(correlation_id=call_id)):
            try:
                principal = await self._admit(request)
            except Refused as refused:
                await refusal(request, refused)(scope, receive, answer)
                return
        actor = principal.actor if principal else "anonymous"
        scope["keystead.principal"] = principal
        with trace.tracing(trace.Trace(correlation_id=call_id, actor=actor)):
            await self._app(scope, receive, answer)

    async def _admit(self, request: Request) -> Principal | None:
        way = self._find(request.scope)
        if PERMISSIONS[way.operation].kind is Kind.OPEN:
            return None
        principal = await self._identify(request)
        principal.check(way.operation)
        return principal

    def _find(self, scope: Scope) -> Way:
        way = self._fixed.get((scope["method"], scope["path"]))
        if way is not None:
            return way
        allowed: set[str] = set()
        for way in self._ways:
            match, _ = way.route.matches(scope)
            if match is Match.FULL:
                return way
            if match is Match.PARTIAL:
                allowed |= way.route.methods or set()
        if allowed:
            allow = ", ".join(sorted(allowed))
            raise MethodNotAllowed(f"this path takes {allow}", headers={"Allow": allow})
        raise RouteUnknown("there is no such route")

    def _with_headers(self, send: Send, request_id: str, call_id: str) -> Send:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["x-keystead-version"] = self._version
                headers["X-Content-Type-Options"] = "nosniff"
                headers.setdefault("Cache-Control", "no-store")
                if message["status"] in (403, 429):
                    headers["x-litellm-call-id"] = call_id
            await send(message)

        return answer


def refusal(request: Request, refused: Refused) -> Response:
    """What the client is answered: the contract's two shapes, by whose route it is."""
    own_route = request.url.path.startswith(OWN_PREFIX)
    return error_answer(refused, own_route=own_route, call_id=request.scope["keystead.call_id"])


def answer_refusals(app: FastAPI) -> None:
    """Routes may raise ``Refused``; what nobody expected is logged, and told to nobody."""

    async def on_refused(request: Request, refused: Exception) -> Response:
        assert isinstance(refused, Refused)
        return refusal(request, refused)

    app.add_exception_handler(Refused, on_refused)


def _operation(route: APIRoute) -> Operation:
    operation = operation_of(route.dependant.dependencies)
    if operation is None:
        raise ValueError(f"{route.path} names no operation of the permission table")
    return operation


def _request_id(request: Request) -> str:
    given = request.headers.get("x-request-id", "")
    return given if SAFE_REQUEST_ID.fullmatch(given) else str(uuid.uuid4())
