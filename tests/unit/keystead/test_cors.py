"""Pages of other origins: none may read an answer unless it is listed, and none with a browser's cookies (§1.5)."""

from collections.abc import AsyncIterator

import httpx2
import pytest

from keystead.app import SERVICES, Connections, compose
from tests.support.installation import keyring, settings

LISTED, OTHER = "https://app.example.test", "https://evil.example.test"
POSTGRES = {service.name: "postgresql://nobody@127.0.0.1:1/nowhere" for service in SERVICES}
NATS = {service.name: "nats://127.0.0.1:1" for service in SERVICES}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def client_of(*cors_origins: str) -> httpx2.AsyncClient:
    """A client of an application that is put together, and runs without its services."""
    app = compose(SERVICES, settings(), Connections(POSTGRES, NATS), keyring=keyring(), cors_origins=cors_origins).app
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://keystead.test")


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(LISTED) as client:
        yield client


def cors_headers(answer: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def test_without_a_list_no_answer_says_anything_of_origins() -> None:
    async with client_of() as client:
        answer = await client.get("/health/liveliness", headers={"Origin": LISTED})
        assert (answer.status_code, cors_headers(answer)) == (200, {})
        preflight = await client.options("/key/generate", headers={"Origin": LISTED, **PREFLIGHT})
        assert (preflight.status_code, cors_headers(preflight)) == (405, {})


async def test_a_page_of_a_listed_origin_may_read_answers(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/health/liveliness", headers={"Origin": LISTED})
    told = cors_headers(answer)
    assert answer.status_code == 200
    assert told.pop("access-control-allow-origin") == LISTED
    assert "x-request-id" in told.pop("access-control-expose-headers")
    assert told == {}
    assert "Origin" in answer.headers["Vary"]


async def test_it_may_read_why_it_was_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/no/such/route", headers={"Origin": LISTED}, json={})
    assert answer.status_code == 404
    assert answer.headers["Access-Control-Allow-Origin"] == LISTED


async def test_it_may_send_a_key_and_never_cookies(client: httpx2.AsyncClient) -> None:
    preflight = await client.options("/key/generate", headers={"Origin": LISTED, **PREFLIGHT})
    told = cors_headers(preflight)
    assert preflight.status_code == 200
    assert told["access-control-allow-origin"] == LISTED
    assert "authorization" in told["access-control-allow-headers"].lower()
    assert "POST" in told["access-control-allow-methods"]
    with_cookie = await client.get("/health/liveliness", headers={"Origin": LISTED, "Cookie": "token=x"})
    assert "access-control-allow-credentials" not in told | cors_headers(with_cookie)


@pytest.mark.parametrize("origin", [OTHER, "null", "https://app.example.test.evil.test", "http://app.example.test"])
async def test_a_page_of_another_origin_may_read_nothing(client: httpx2.AsyncClient, origin: str) -> None:
    answer = await client.get("/health/liveliness", headers={"Origin": origin})
    preflight = await client.options("/key/generate", headers={"Origin": origin, **PREFLIGHT})
    assert preflight.status_code == 400
    for told in (cors_headers(answer), cors_headers(preflight)):
        assert "access-control-allow-origin" not in told
