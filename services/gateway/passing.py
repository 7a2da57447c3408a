"""Passing a request on to the service that owns its route, where that is another process: HTTP, and a signed principal.

The service decides as if it had been asked directly; what the client says of itself in Keystead's headers is dropped.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from io import BytesIO

import aiohttp
import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from yarl import URL

from shared.body import LIMIT_BYTES
from shared.errors import Unavailable
from shared.gate import refusal
from shared.hop import PRINCIPAL_HEADER, Hop, sign_hop
from shared.keyring import Keyring
from shared.visitor import VISITOR_HEADER, Visitor

log = structlog.get_logger()

Headers = list[tuple[str, str]]

CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 90.0  # longer than a barrier may take
READY_SECONDS = 0.8
KEEPALIVE_SECONDS = 15.0  # shorter than a service keeps an idle connection

# Of one connection and not of the request (RFC 9110 §7.6.1); or made anew here.
_NOT_PASSED_ON = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade"
    " expect host content-length x-request-id forwarded x-forwarded-for x-forwarded-host x-forwarded-proto".split()
) | {PRINCIPAL_HEADER, VISITOR_HEADER}
_CREDENTIALS = frozenset({"authorization", "x-api-key", "api-key", "cookie"})


class PassingOn:
    """An ASGI application that is one service, elsewhere."""

    def __init__(
        self, service: str, url: str, keyring: Keyring, clock: Callable[[], datetime], key_header: str | None
    ) -> None:
        self._service = service
        self._url = url.rstrip("/")
        self._keyring = keyring
        self._clock = clock
        # Where the gateway has found out who is calling, the service needs no credential.
        self._credentials = _CREDENTIALS | {(key_header or "authorization").lower()}
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def started(self) -> AsyncIterator[None]:
        """Requests can be passed on for the length of the block."""
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, connect=CONNECT_SECONDS)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as self._session:
            yield

    async def ready(self) -> bool:
        """Whether the service says it is."""
        try:
            async with asyncio.timeout(READY_SECONDS), self._sending.get(f"{self._url}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    @property
    def _sending(self) -> aiohttp.ClientSession:
        assert self._session is not None, "passing on has not started"
        return self._session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            body = await _read(request)
        except ClientDisconnect:
            return  # nobody is there to answer
        answering = False
        try:
            async with self._sending.request(
                request.method,
                URL(self._url + _target(scope), encoded=True),
                headers=self._headers(request),
                skip_auto_headers=("Content-Type", "User-Agent", "Accept", "Accept-Encoding"),
                data=BytesIO(body) if body else None,
                allow_redirects=False,
            ) as response:
                answering = True
                await _answer(response, send)
        except (aiohttp.ClientError, OSError, TimeoutError) as fault:
            if answering:
                raise  # a part of an answer is gone already: the connection has to end
            log.warning("passing.failed", service=self._service, fault=repr(fault))
            refused = Unavailable(f"the {self._service} service can't be reached")
            await refusal(request, refused)(scope, receive, send)

    def _headers(self, request: Request) -> Headers:
        scope = request.scope
        hop = Hop(
            scope["keystead.principal"],
            scope["keystead.call_id"],
            Visitor(scope["keystead.address"], scope["keystead.exempt"]),
        )
        left_out = _NOT_PASSED_ON if scope["keystead.open"] else _NOT_PASSED_ON | self._credentials
        kept = [(name, _same_bytes(value)) for name, value in request.headers.items() if name not in left_out]
        return [
            *kept,
            ("x-request-id", scope["keystead.request_id"]),
            (PRINCIPAL_HEADER, sign_hop(self._keyring, self._service, hop, self._clock())),
        ]


def _same_bytes(value: str) -> str:
    """What is sent as UTF-8 as it came: it was read as Latin-1, which gives every byte a character."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value  # it was no UTF-8, and goes on as if it had been meant as Latin-1


def _target(scope: Scope) -> str:
    """Path and query as the client spelled them: both ends must read the same path in them."""
    path: str = scope["raw_path"].decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


async def _read(request: Request) -> bytes:
    """The body, as far as any service would read it: one byte over the limit is enough to be refused there."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMIT_BYTES:
            break
    return bytes(body[: LIMIT_BYTES + 1])


async def _answer(response: aiohttp.ClientResponse, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in response.raw_headers]
    kept = [(name, value) for name, value in headers if name.decode("latin-1") not in _OF_THE_CONNECTION]
    await send({"type": "http.response.start", "status": response.status, "headers": kept})
    async for chunk in response.content.iter_any():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


_OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})
