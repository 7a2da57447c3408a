"""The gate: every request's way in. Finds the route, the principal, and whether its role allows the operation at all.

After it a route only has to ask about the object. How a request's credential turns into a principal is the door's.
"""

import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

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
from shared.visitor import Visitor

log = structlog.get_logger()

SAFE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
OWN_PREFIX = "/keystead/"


class RouteUnknown(Refused):
    reason = "route_unknown"


class MethodNotAllowed(Refused):
    reason = "method_not_allowed"


@dataclass(frozen=True, slots=True)
class Served:
    """A service's routes, and what serves them: this process's application, or what passes requests on to another."""

    service: str
    app: ASGIApp
    routes: Sequence[APIRoute]


@dataclass(frozen=True, slots=True)
class Way:
    """A route, the operation it is, and who serves it."""

    route: APIRoute
    operation: Operation
    service: str
    app: ASGIApp

    @property
    def is_open(self) -> bool:
        """Whether no credential is needed, or one that the gate knows nothing of."""
        return PERMISSIONS[self.operation].kind is Kind.OPEN


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request at the door: by what id all it causes is known, and where it came from."""

    call_id: str
    visitor: Visitor


class Door(Protocol):
    """Where requests come in: from anywhere, or from the gateway only."""

    def greet(self, request: Request, service: str | None) -> Arrival:
        """Take it in. ``service`` is whose route it asks for; None where there is none. Refuses nothing."""

    async def identify(self, request: Request, way: Way) -> Principal | None:
        """The principal; None where the way is open. Raises a ``Refused``."""


class Gate:
    """ASGI middleware in front of routes that all name their operation; raises ``ValueError`` if one does not.

    ``app`` is told of this process's life; each service's own gets its requests.
    """

    def __init__(self, app: ASGIApp, *, served: Iterable[Served], door: Door, version: str) -> None:
        self._app = app
        self._door = door
        self._version = version
        self._ways = [Way(route, _operation(route), each.service, each.app) for each in served for route in each.routes]
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
        found = self._find(scope)
        way = found if isinstance(found, Way) else None
        arrival = self._door.greet(request, way.service if way else None)
        scope["keystead.request_id"], scope["keystead.call_id"] = _request_id(request), arrival.call_id
        scope["keystead.address"], scope["keystead.exempt"] = arrival.visitor.address, arrival.visitor.exempt
        answer = self._with_headers(send, scope["keystead.request_id"], arrival.call_id)
        with trace.tracing(trace.Trace(correlation_id=arrival.call_id)):
            try:
                way, principal = await self._admit(request, found)
            except Refused as refused:
                await refusal(request, refused)(scope, receive, answer)
                return
        actor = principal.actor if principal else "anonymous"
        scope["keystead.principal"], scope["keystead.open"] = principal, way.is_open
        with trace.tracing(trace.Trace(correlation_id=arrival.call_id, actor=actor)):
            await way.app(scope, receive, answer)

    async def _admit(self, request: Request, found: Way | Refused) -> tuple[Way, Principal | None]:
        if isinstance(found, Refused):
            raise found
        principal = await self._door.identify(request, found)
        if found.is_open:
            return found, None
        if principal is None:
            raise Refused("a credential is needed", reason="credentials_missing")
        principal.check(found.operation)
        return found, principal

    def _find(self, scope: Scope) -> Way | Refused:
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
            return MethodNotAllowed(f"this path takes {allow}", headers={"Allow": allow})
        return RouteUnknown("there is no such route")

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
