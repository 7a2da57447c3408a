"""What goes over the hop and what does not, as the service's end of the connection sees it."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from services.gateway.passing import PassingOn
from shared.hop import PRINCIPAL_HEADER, Hop, read_hop
from shared.permissions import Role
from shared.principal import Principal
from shared.visitor import VISITOR_HEADER, Visitor
from tests.support.installation import keyring

ADA = Principal("ada", Role.INTERNAL_USER, "session", session_id="s-1")
OWN_HEADER = "X-Our-Key"
CREDENTIALS = ("authorization", "x-api-key", "api-key", "cookie", OWN_HEADER.lower())
OF_NO_SERVICE = (
    *("connection", "keep-alive", "te", "trailer", "upgrade", "expect", "proxy-authorization", "proxy-connection"),
    *("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"),
    *(VISITOR_HEADER, PRINCIPAL_HEADER),
)
OF_THE_REQUEST = ("accept", "content-type", "idempotency-key", "origin", "sec-fetch-site", "user-agent")
FORGED = "forged"


@dataclass
class Heard:
    """What a service was sent, and what the gateway's client is."""

    requests: list[Sequence[tuple[str, str]]] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.requests[0] if each == name]


@asynccontextmanager
async def service(heard: Heard, said: bytes) -> AsyncIterator[str]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[1:-2]
        heard.requests.append([(name.lower(), value) for name, _, value in (line.partition(": ") for line in head)])
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def passed_on(
    *names: str,
    principal: Principal | None = ADA,
    exempt: bool = False,
    said: bytes = b"HTTP/1.1 204 No Content\r\n\r\n",
) -> Heard:
    """A request with these headers, all forged."""
    heard = Heard()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        heard.sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/key/list",
        "path": "/key/list",
        "query_string": b"",
        "headers": [(name.encode(), FORGED.encode()) for name in names],
        "keystead.principal": principal,
        "keystead.call_id": "call-1",
        "keystead.request_id": "request-1",
        "keystead.address": "203.0.113.7",
        "keystead.exempt": exempt,
        "keystead.open": principal is None,
    }
    async with service(heard, said) as url:
        passing = PassingOn("keys", url, keyring(), lambda: datetime.now(UTC), OWN_HEADER)
        async with passing.started():
            await passing(scope, receive, send)
    return heard


async def test_what_is_of_the_request_goes_on() -> None:
    heard = await passed_on(*OF_THE_REQUEST)
    assert {name: heard.all(name) for name in OF_THE_REQUEST} == {name: [FORGED] for name in OF_THE_REQUEST}


@pytest.mark.parametrize("principal", [ADA, None], ids=["", "open"])
async def test_what_is_of_a_connection_or_made_anew_does_not(principal: Principal | None) -> None:
    heard = await passed_on(*OF_NO_SERVICE, principal=principal)
    assert [name for name, value in heard.requests[0] if FORGED in value] == []
    assert heard.all("x-request-id") == ["request-1"]


async def test_a_credential_ends_at_the_gateway_that_found_out_whose_it_is() -> None:
    heard = await passed_on(*CREDENTIALS)
    assert [name for name, value in heard.requests[0] if FORGED in value] == []


async def test_an_open_route_looks_at_credentials_itself() -> None:
    heard = await passed_on(*CREDENTIALS, principal=None)
    assert [name for name in CREDENTIALS if heard.all(name) != [FORGED]] == []


@pytest.mark.parametrize("principal", [ADA, None], ids=["", "open"])
@pytest.mark.parametrize("exempt", [True, False])
async def test_the_service_is_told_who_asks_and_from_where(principal: Principal | None, exempt: bool) -> None:
    heard = await passed_on(principal=principal, exempt=exempt)
    (token,) = heard.all(PRINCIPAL_HEADER)
    hop = read_hop(keyring(), "keys", token, datetime.now(UTC))
    assert hop == Hop(principal, "call-1", Visitor("203.0.113.7", exempt))


async def test_an_answer_goes_back_as_it_is() -> None:
    """A redirection is the client's to follow, and what is compressed stays so."""
    body = gzip.compress(b"hello")
    head = b"HTTP/1.1 303 See Other\r\nLocation: /elsewhere\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    heard = await passed_on(said=head % len(body) + body)
    start, *parts = heard.sent
    assert (start["status"], dict(start["headers"])[b"location"], len(heard.requests)) == (303, b"/elsewhere", 1)
    assert b"".join(part["body"] for part in parts) == body
