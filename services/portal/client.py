"""The portal as a client of the REST API: over HTTP, for a visitor, and with nothing but what anyone may ask."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import aiohttp
import structlog
from fastapi import Request
from yarl import URL

from services.portal import wording
from services.portal.trouble import SignedOut, Trouble, not_allowed, unreachable
from shared.keyring import Keyring
from shared.visitor import VISITOR_HEADER, Visitor, sign_visitor

log = structlog.get_logger()

COOKIE = "token"
TIMEOUT_SECONDS = 30.0  # longer than a deletion waits for the workers
RETRY_AFTER_SECONDS = 5
PROBLEM = "urn:keystead:problem:"
NO_API = ("route_unknown", "method_not_allowed")  # of routes that are there: so it is something else that answers

_SESSION = re.compile(r"[A-Za-z0-9._-]{1,4096}")


@dataclass(frozen=True, slots=True)
class Visit:
    """For whom the API is asked: by which session, from where, and with what."""

    session: str | None
    visitor: Visitor
    user_agent: str
    request_id: str


class Reply(NamedTuple):
    """A success: what it holds, and the cookies it sets."""

    content: Any
    cookies: Sequence[str]


class Declined(Exception):
    """The API's refusal of what was asked for: the contract's status, reason, sentence and field (§1.4)."""

    def __init__(self, status: int, reason: str, message: str, param: str | None, retry_after_seconds: int) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def as_trouble(self) -> Trouble:
        """Where the page has nothing better to say."""
        if self.status == 403:
            return not_allowed()
        if self.status == 404:
            return Trouble(404, "It is not there any more", "It was deleted, or never was.")
        return Trouble(self.status, "That did not work", wording.sentence(self.message))


def visit_of(request: Request) -> Visit:
    """The visit that a request to the portal is part of."""
    session = request.cookies.get(COOKIE, "")
    return Visit(
        session=session if _SESSION.fullmatch(session) else None,
        visitor=Visitor(request.scope.get("keystead.address"), bool(request.scope.get("keystead.exempt"))),
        user_agent=request.headers.get("user-agent", ""),
        request_id=request.scope["keystead.request_id"],
    )


class Api:
    """Asks the API. Raises ``Declined``, ``SignedOut`` for a session that is none, and ``Trouble`` if it is away."""

    def __init__(self, http: aiohttp.ClientSession, url: str, keyring: Keyring, clock: Callable[[], datetime]) -> None:
        self._http = http
        self._url = url
        self._keyring = keyring
        self._clock = clock

    async def get(self, visit: Visit, path: str, **query: Any) -> Any:
        """What a GET answers."""
        reply = await self._ask(visit, "GET", path, self._headers(visit, visit.session), query=query)
        return reply.content

    async def post(
        self, visit: Visit, path: str, body: Any, *, bearer: str | None = None, idempotency_key: str = ""
    ) -> Reply:
        """What a POST of ``body`` answers; as the visitor, unless another credential is given."""
        headers = self._headers(visit, bearer or visit.session)
        if idempotency_key:
            headers["Idempotency-Key"] = idempotency_key
        return await self._ask(visit, "POST", path, headers, body=body)

    def _headers(self, visit: Visit, bearer: str | None) -> dict[str, str]:
        """The credential, and what lets sessions and throttling see the person and not the portal."""
        headers = {
            "Accept": "application/json",
            "x-request-id": visit.request_id,
            VISITOR_HEADER: sign_visitor(self._keyring, visit.visitor, self._clock()),
        }
        if visit.user_agent:
            headers["User-Agent"] = visit.user_agent
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        return headers

    async def _ask(
        self,
        visit: Visit,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
    ) -> Reply:
        try:
            async with self._http.request(
                method,
                URL(self._url + path, encoded=True),
                json=body,
                params=query,
                headers=headers,
                skip_auto_headers=("User-Agent",),
                allow_redirects=False,
            ) as response:
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as fault:
            log.warning("api.unreachable", fault=type(fault).__name__)
            raise unreachable() from fault
        content = _read(raw)
        if response.status < 300:
            return Reply(content, response.headers.getall("Set-Cookie", []))
        raise _refusal(response, content, by_session="Authorization" in headers and visit.session is not None)


def _read(raw: bytes) -> Any:
    """Numbers with a point are money, and stay exact."""
    try:
        return json.loads(raw, parse_float=Decimal) if raw else None
    except ValueError:
        return None


def _refusal(response: aiohttp.ClientResponse, content: Any, *, by_session: bool) -> Exception:
    declined = _declined(response, content)
    if declined is None or declined.status >= 500 or declined.reason in NO_API:
        log.warning("api.failed", status=response.status)
        return unreachable()
    if declined.status == 401 and by_session and declined.reason in ("key_unknown", "jwt_invalid"):
        return SignedOut()
    return declined


def _declined(response: aiohttp.ClientResponse, content: Any) -> Declined | None:
    """None for an answer that is not the contract's: then something else stands where the API should."""
    retry_after = response.headers.get("Retry-After", "")
    seconds = int(retry_after) if retry_after.isdecimal() else RETRY_AFTER_SECONDS
    match content:
        case {"error": {"message": str(message), "reason": str(reason), "param": param}}:
            return Declined(response.status, reason, message, param, seconds)
        case {"type": str(kind), "detail": str(message)} if kind.startswith(PROBLEM):
            return Declined(response.status, kind.removeprefix(PROBLEM), message, content.get("param"), seconds)
        case _:
            return None
