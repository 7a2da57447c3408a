"""A whole installation for a test: its own database, its own names at NATS, every service running, over real HTTP."""

import asyncio
import base64
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvicorn

from keystead.app import SERVICES, Composition, Connections, compose, load_settings, migrate, postgres_urls
from keystead.protocol import BoundedProtocol
from services.gateway.service import SERVICE as GATEWAY
from shared.keyring import Keyring
from shared.service import Running, Service
from tests.support.databases import copy_of
from tests.support.servers import nats_url
from tests.support.streams import forget_streams

# Roles belong to the server, and their passwords come from this: one key for all tests of a run.
SECRET_KEY = base64.b64encode(b"a key for tests, thirty-two bytes").decode()
MASTER_KEY = "sk-a-master-key-for-tests"
BASE_URL = "http://keystead.test"

# Prices that make sums easy to see: 1 and 2 USD a million tokens; one that costs 0.01 USD a token.
MODEL_LIST = [
    {
        "model_name": "mock-fast",
        "litellm_params": {
            "model": "openai/mock-fast",
            "mock_response": "Hello from the mock model. This is a canned answer.",
            "input_cost_per_token": 1e-06,
            "output_cost_per_token": 2e-06,
        },
    },
    {
        "model_name": "mock-priced",
        "litellm_params": {
            "model": "openai/mock-priced",
            "mock_response": "Hello from the priced mock model.",
            "input_cost_per_token": 0.01,
            "output_cost_per_token": 0.01,
        },
    },
]


def keyring() -> Keyring:
    return Keyring(SECRET_KEY)


def database() -> AbstractAsyncContextManager[str]:
    """The owner's URL of a migrated database of its own."""
    return copy_of("keystead_template", lambda owner_url: migrate(owner_url, keyring()))


def connections_to(owner_url: str, namespace: str, *, relay_delay_seconds: float = 0.0) -> Connections:
    nats = {service.name: nats_url() for service in SERVICES}
    return Connections(postgres_urls(owner_url, keyring()), nats, namespace, relay_delay_seconds)


def settings(content: dict[str, Any] | None = None, **environment: str) -> dict[str, Any]:
    given = {
        "KEYSTEAD_SECRET_KEY": SECRET_KEY,
        "KEYSTEAD_MASTER_KEY": MASTER_KEY,
        "PROXY_BASE_URL": BASE_URL,
        **environment,
    }
    loaded, _ = load_settings({"model_list": MODEL_LIST, **(content or {})}, given)
    return loaded


@dataclass
class Client:
    """Asks an installation over HTTP: at ``url``, or at several gateways by ``turns``."""

    url: str
    http: aiohttp.ClientSession
    turns: Iterator[str] | None = field(default=None, kw_only=True)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = MASTER_KEY,
        url: str | None = None,
        **options: Any,
    ) -> tuple[int, Any]:
        """One request; the status and the JSON answer."""
        status, answer, _ = await self.request(method, path, body, key=key, url=url, **options)
        return status, answer

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = MASTER_KEY,
        url: str | None = None,
        **options: Any,
    ) -> tuple[int, Any, Any]:
        """One request; the status, the JSON answer and the headers."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **options.pop("headers", {})}
        async with self.http.request(
            method, (url or self._turn()) + path, json=body, headers=headers, allow_redirects=False, **options
        ) as response:
            text = await response.text()
            is_json = response.content_type in ("application/json", "application/problem+json")
            return response.status, (await response.json() if is_json and text else text), response.headers

    def _turn(self) -> str:
        return next(self.turns) if self.turns else self.url

    async def ok(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The answer of a request that must succeed."""
        status, answer = await self.call(method, path, body, **options)
        assert status == 200, (method, path, status, answer)
        return answer

    async def invite(self, **user: Any) -> "Person":
        """An invited user who has claimed their invitation."""
        email = user.pop("user_email", f"{uuid.uuid4().hex[:12]}@example.test")
        body = {"user_email": email, "user_role": "internal_user", "auto_create_key": False, **user}
        made = await self.ok("POST", "/user/new", body)
        invitation = await self.ok("POST", "/invitation/new", {"user_id": made["user_id"]})
        opened = await self.ok("GET", f"/onboarding/get_token?invite_link={invitation['id']}", key=None)
        claimed = await self.ok(
            "POST",
            "/onboarding/claim_token",
            {"invitation_link": invitation["id"], "user_id": made["user_id"], "password": PASSWORD},
            key=claims_of(opened["token"])["key"],
        )
        return Person(made["user_id"], email, claims_of(claimed["token"])["key"], claimed["token"])


@dataclass
class Installation(Client):
    """One that runs in this process. ``url`` is its gateway's."""

    owner_url: str
    namespace: str
    composition: Composition
    settings: dict[str, Any]
    relay_delay_seconds: float = 0.0

    def running(self, name: str) -> Running[Any]:
        return self.composition.services[name]


PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Person:
    user_id: str
    email: str
    session: str
    jwt: str


def claims_of(token: str) -> dict[str, Any]:
    """A JWT's claims, unverified: as a client reads them."""
    import json  # noqa: PLC0415

    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


@asynccontextmanager
async def serving(app: Any, at: socket.socket | None = None) -> AsyncIterator[str]:
    """The app on a loopback port, by a real HTTP server in this process."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        host="127.0.0.1",
        port=0,
        log_level="warning",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        lifespan="on",
        timeout_keep_alive=300,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([at] if at else None))
    while not server.started:
        if task.done():
            task.result()
            raise RuntimeError("the application did not start")
        await asyncio.sleep(0.005)  # uvicorn has a flag for it, and no event
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


def loopback() -> socket.socket:
    """An address of this machine that nobody else has, for what must be told it before anything listens there."""
    at = socket.socket(proto=socket.IPPROTO_TCP)
    at.bind(("127.0.0.1", 0))
    return at


def address_of(at: socket.socket) -> str:
    host, port = at.getsockname()
    return f"http://{host}:{port}"


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Any:
        yield


@asynccontextmanager
async def installation(
    content: dict[str, Any] | None = None,
    *,
    relay_delay_seconds: float = 0.0,
    services: Sequence[Service[Any]] = SERVICES,
    clock: Any = None,
    **environment: str,
) -> AsyncIterator[Installation]:
    """Every service, on a database and under names of its own."""
    namespace = f"t{uuid.uuid4().hex[:10]}."
    async with database() as owner_url:
        at = loopback()
        loaded = settings(content, **{"KEYSTEAD_API_URL": address_of(at), **environment})
        connections = connections_to(owner_url, namespace, relay_delay_seconds=relay_delay_seconds)
        composition = compose(services, loaded, connections, keyring=keyring(), **({"clock": clock} if clock else {}))
        async with serving(composition.app, at) as url, aiohttp.ClientSession() as http:
            try:
                yield Installation(
                    url, http, owner_url, namespace, composition, loaded, relay_delay_seconds=relay_delay_seconds
                )
            finally:
                await forget_streams(nats_url(), namespace)


@asynccontextmanager
async def second_worker(first: Installation) -> AsyncIterator[str]:
    """Another gateway worker of the same installation; its URL."""
    connections = connections_to(first.owner_url, first.namespace)
    composition = compose([GATEWAY], first.settings, connections, keyring=keyring())
    async with serving(composition.app) as url:
        yield url
