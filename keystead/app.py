"""The one place that knows all services, and puts those asked for together into one application."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, partial
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from keystead import probes
from keystead.openapi import describe
from keystead.settings import ProcessSettings
from keystead.version import version
from services.budgets.requests import AwaitBarrier, Passed
from services.budgets.service import SERVICE as BUDGETS
from services.gateway.door import PublicDoor
from services.gateway.model_list import DEFAULT_MODEL_LIST
from services.gateway.passing import PassingOn
from services.gateway.service import SERVICE as GATEWAY
from services.identity.service import SERVICE as IDENTITY
from services.invitations.service import SERVICE as INVITATIONS
from services.keys.service import SERVICE as KEYS
from services.notifications.service import SERVICE as NOTIFICATIONS
from services.portal.service import SERVICE as PORTAL
from shared.answers import JsonAnswer
from shared.body import StrictRoute
from shared.gate import Door, Gate, Served, answer_refusals
from shared.hop import InnerDoor
from shared.keyring import Keyring
from shared.permissions import Operation
from shared.principal import Principal, may
from shared.schema import migrate as migrate_schemas
from shared.schema import role_of
from shared.service import Running, Service, utc_now
from shared.settings import load

SERVICES: tuple[Service[Any], ...] = (IDENTITY, INVITATIONS, KEYS, BUDGETS, NOTIFICATIONS, GATEWAY, PORTAL)
TITLE, SUMMARY = "Keystead", "Self-serve access to an LLM gateway."
PROCESS = "process"  # the name of the settings that are no service's

# What a page of another origin may read of an answer, besides its body.
EXPOSED_HEADERS = (
    "Allow",
    "Retry-After",
    "Location",
    "Idempotent-Replayed",
    "Link",
    "x-request-id",
    "x-should-retry",
    "x-keystead-version",
    "x-keystead-receipt",
    "x-litellm-call-id",
    "x-litellm-model-id",
    "x-litellm-model-group",
    "x-litellm-response-cost",
    "x-litellm-key-spend",
    "x-litellm-key-max-budget",
)

# A barrier is waited for as long as a worker that can't be reached may go on, and a little.
BARRIER_SECONDS = 70.0


@dataclass(frozen=True)
class Connections:
    """Where the servers are: each service's own login at PostgreSQL and at NATS.

    ``namespace`` and ``relay_delay_seconds`` are for tests: installations side by side on one NATS, and a slow relay.
    """

    postgres_urls: Mapping[str, str]
    nats_urls: Mapping[str, str]
    namespace: str = ""
    relay_delay_seconds: float = 0.0


@dataclass
class Composition:
    """An application of some services, and those services while it runs.

    They run while ``started()`` is entered; whoever gives ``app`` a lifespan need not.
    """

    app: ASGIApp
    started: Callable[[], AbstractAsyncContextManager[None]]
    services: dict[str, Running[Any]] = field(default_factory=dict)


def load_settings(
    content: Mapping[str, Any], environment: Mapping[str, str], services: Sequence[Service[Any]] = SERVICES
) -> tuple[dict[str, Any], list[str]]:
    """Each service's settings and the process's, and what the start should warn of. Raises ``SettingsInvalid``."""
    content = {**content, "model_list": content.get("model_list") or list(DEFAULT_MODEL_LIST)}
    classes: dict[str, type[BaseModel]] = {service.name: service.settings for service in services}
    return load({PROCESS: ProcessSettings, **classes}, content, environment)


def passwords(keyring: Keyring, purpose: str) -> dict[str, str]:
    """Each service's own password at PostgreSQL or NATS, derived from the installation's secret key."""
    return {service.name: keyring.password(f"{purpose}:{service.name}") for service in SERVICES}


def postgres_urls(owner_url: str, keyring: Keyring) -> dict[str, str]:
    """Each service's own log-in at the server of ``owner_url``."""
    scheme, _, rest = owner_url.partition("://")
    place = rest.rpartition("@")[2]
    return {name: f"{scheme}://{role_of(name)}:{word}@{place}" for name, word in passwords(keyring, "postgres").items()}


async def migrate(owner_url: str, keyring: Keyring) -> None:
    """Make or bring up to date every service's schema and role."""
    folders = {service.name: service.migrations for service in SERVICES}
    await migrate_schemas(owner_url, folders, passwords(keyring, "postgres"))


def compose(
    services: Sequence[Service[Any]],
    settings: Mapping[str, Any],
    connections: Connections,
    *,
    keyring: Keyring,
    elsewhere: Mapping[str, str] | None = None,
    cors_origins: Sequence[str] = (),
    clock: Callable[[], datetime] = utc_now,
) -> Composition:
    """An application of ``services``; they start and end with it.

    With a gateway among them it is open to the world, and passes the routes of the services ``elsewhere`` (a name and
    its URL) on; without, it answers only what a gateway passed on to it.
    """
    running = {
        service.name: Running(
            service,
            settings[service.name],
            dsn=connections.postgres_urls[service.name],
            nats_url=connections.nats_urls[service.name],
            barrier=await_barrier,
            namespace=connections.namespace,
            relay_delay_seconds=connections.relay_delay_seconds,
            clock=clock,
        )
        for service in services
    }
    passing = {
        name: PassingOn(name, url, keyring, clock, settings[GATEWAY.name].key_header_name)
        for name, url in (elsewhere or {}).items()
    }
    started = partial(_started, passing, running)
    app = _application(started)
    app.state.services, app.state.passing = running, passing
    answer_refusals(app)
    gateway = running.get(GATEWAY.name)
    door: Door = PublicDoor(gateway) if gateway else InnerDoor(keyring, own=PROCESS, clock=clock)
    gate = Gate(app, served=_served(app, services, passing), door=door, version=version())
    return Composition(_with_cors(gate, cors_origins), started, running)


@asynccontextmanager
async def _started(passing: Mapping[str, PassingOn], running: Mapping[str, Running[Any]]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for other in passing.values():
            await stack.enter_async_context(other.started())
        for each in running.values():
            await stack.enter_async_context(each.started())
        try:
            yield
        finally:
            for each in running.values():
                each.wire.closing = True


def _served(app: FastAPI, services: Sequence[Service[Any]], passing: Mapping[str, PassingOn]) -> list[Served]:
    """Who serves which routes; ``app`` gets all of them, to describe also those that it passes on."""
    document = cache(lambda: describe(app, routes))  # some hundredths of a second, when it is first asked for
    own = [probes.router, _documents(document)]
    known = [*services, *(each for each in SERVICES if each.name in passing)]
    for router in (*(router for service in known for router in service.routes), *own):
        app.include_router(router)
    served = [Served(each.name, passing.get(each.name, app), _routes_of(each.routes)) for each in known]
    served.append(Served(PROCESS, app, _routes_of(own)))
    routes = [route for each in served for route in each.routes]
    return served


def document() -> dict[str, Any]:
    """The description of all that an installation serves, where none runs."""
    routers = [*(router for service in SERVICES for router in service.routes), probes.router, _documents(dict)]
    app = FastAPI(title=TITLE, version=version(), summary=SUMMARY)
    for router in routers:
        app.include_router(router)
    return describe(app, _routes_of(routers))


def _routes_of(routers: Sequence[APIRouter]) -> list[APIRoute]:
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def _application(started: Callable[[], AbstractAsyncContextManager[None]]) -> FastAPI:
    return FastAPI(
        title=TITLE,
        version=version(),
        summary=SUMMARY,
        lifespan=lambda _: started(),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )


def _with_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Pages of these origins may call, with a key of their own; a browser must not lend them its cookies (§1.5)."""
    if not origins:
        return app
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")
    return CORSMiddleware(
        app, origins, methods, allow_headers="*", allow_credentials=False, expose_headers=EXPOSED_HEADERS
    )


async def await_barrier(running: Running[Any], positions: Mapping[str, int]) -> None:
    """Wait until every worker admits by ``positions``, or is gone."""
    question = AwaitBarrier(positions=dict(positions))
    await running.wire.ask(BUDGETS.name, question, Passed, timeout_seconds=BARRIER_SECONDS)


def _documents(document: Callable[[], dict[str, Any]]) -> APIRouter:
    router = APIRouter(route_class=StrictRoute, tags=["documents"])

    @router.get("/openapi.json")
    async def openapi(_: Annotated[Principal | None, may(Operation.OPENAPI)]) -> Response:
        """This description of all routes."""
        return JsonAnswer(document())

    return router
