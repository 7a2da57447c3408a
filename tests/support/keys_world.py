"""Keys as a service at work, and beside it as much of identity and budgets as it hears of: logs that tests write."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient

from services.budgets.events import CATALOG as BUDGETS
from services.budgets.events import ScopeTotal, SpendTotalsPublished
from services.identity.events import CATALOG as IDENTITY
from services.identity.events import FirstKey, UserCreated, UserDeleted, UserLimits, UserUpdated
from services.keys.service import SERVICE
from services.keys.settings import KeysSettings
from shared.event_store import Transaction, read_log
from shared.events import Event
from shared.gate import Gate, answer_refusals
from shared.permissions import Role
from shared.principal import Principal
from shared.service import Running, Service
from shared.settings import Settings
from tests.support.doors import gated
from tests.support.installation import connections_to, database, keyring
from tests.support.keys import NOON

MODELS = [{"model_name": "fast"}, {"model_name": "priced"}]


@dataclass
class Clock:
    """The instant that everything goes by, until a test sets it."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Caller:
    """Who asks; what the gateway would have found out from a credential."""

    user_id: str
    role: str = "internal_user"
    key_id: str | None = None
    key_type: str = "default"


@dataclass
class World:
    """The services, what happens around keys, and the positions that barriers waited for."""

    identity: Running[Settings]
    budgets: Running[Settings]
    keys: Running[KeysSettings]
    client: AsyncClient
    clock: Clock
    barriers: list[int] = field(default_factory=list)

    async def call(self, who: Caller, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        content = None if body is None else json.dumps(body)
        headers = {"Authorization": json.dumps(asdict(who)), "Content-Type": "application/json"}
        answer = await self.client.request(method, path, content=content, headers=headers)
        return answer.status_code, answer.json()

    async def ok(self, who: Caller, method: str, path: str, body: Any = None) -> Any:
        """The answer of a request that must succeed."""
        status, answer = await self.call(who, method, path, body)
        assert status == 200, (status, answer)
        return answer

    async def refused(self, who: Caller, method: str, path: str, body: Any = None) -> tuple[int, str, str | None]:
        """Status, reason and param of one that must not."""
        status, answer = await self.call(who, method, path, body)
        assert status >= 400, (status, answer)
        return status, answer["error"]["reason"], answer["error"]["param"]

    async def new_user(self, user_id: str = "", *, first_key: FirstKey | None = None, **limits: Any) -> Caller:
        """A user of the test's own."""
        user_id = user_id or f"ada {uuid.uuid4()}"
        created = UserCreated(
            user_id=user_id,
            sealed_email=None,
            sealed_alias=None,
            role="internal_user",
            limits=UserLimits(**limits),
            metadata={},
            first_key=first_key,
            created_at=self.clock.now,
        )
        await self.happened(self.identity, f"user-{user_id}", created)
        return Caller(user_id)

    async def update_user(self, who: Caller, **limits: Any) -> None:
        updated = UserUpdated(
            user_id=who.user_id,
            sealed_email=None,
            sealed_alias=None,
            limits=UserLimits(**limits),
            metadata={},
            updated_at=self.clock.now,
        )
        await self.happened(self.identity, f"user-{who.user_id}", updated)

    async def delete_user(self, who: Caller) -> None:
        deleted = UserDeleted(user_id=who.user_id, deleted_at=self.clock.now)
        await self.happened(self.identity, f"user-{who.user_id}", deleted)

    async def spent(self, key_id: str, *, window_end: datetime | None, window: int, total: int) -> None:
        """Budgets says what a key spent."""
        scope_total = ScopeTotal(
            scope=f"key:{key_id}",
            window_start=None,
            window_end=window_end,
            window_spent_nano_usd=window,
            total_spent_nano_usd=total,
            last_used_at=self.clock.now,
        )
        event = SpendTotalsPublished(totals=(scope_total,), published_at=self.clock.now)
        await self.happened(self.budgets, "totals", event)

    async def happened(self, running: Running[Any], stream: str, event: Event) -> None:
        async def record(tx: Transaction) -> None:
            await tx.record(stream, event)

        await running.run(record)

    async def heard(self) -> None:
        """Back when keys has applied all that happened around it."""
        await self.keys.fence({"identity", "budgets"})

    async def log_of(self, key_id: str) -> list[str]:
        """The types of a key's events."""

        async def read(tx: Transaction) -> list[str]:
            events, _ = await read_log(tx.connection, tx.catalog, 0, 100_000)
            return [event["type"] for event in events if event["subject"] == f"key-{key_id}"]

        return await self.keys.run(read)


ADMIN = Caller("default_user_id", "proxy_admin")
VIEWER = Caller("a viewer", "proxy_admin_viewer")


@asynccontextmanager
async def keys_world(**upper_bounds: Any) -> AsyncIterator[World]:
    """Keys on a database of its own."""
    clock, barriers = Clock(), list[int]()
    namespace = f"t{uuid.uuid4().hex}."

    async def no_workers(_: Running[Any], positions: Mapping[str, int]) -> None:
        barriers.append(positions["keys"])

    content = {"model_list": MODELS, "litellm_settings": {"upperbound_key_generate_params": upper_bounds}}
    settings = KeysSettings.model_validate({**content, "KEYSTEAD_SECRET_KEY": keyring()})
    neighbours = [Service(catalog.service, Settings, catalog, routes=[]) for catalog in (IDENTITY, BUDGETS)]
    async with database() as owner_url:
        connections = connections_to(owner_url, namespace)

        def running(service: Service[Any], settings: Any) -> Running[Any]:
            return Running(
                service,
                settings,
                dsn=connections.postgres_urls[service.name],
                nats_url=connections.nats_urls[service.name],
                barrier=no_workers,
                namespace=namespace,
                clock=clock,
            )

        async with (
            running(neighbours[0], Settings()).started() as identity,
            running(neighbours[1], Settings()).started() as budgets,
            running(SERVICE, settings).started() as keys,
            AsyncClient(transport=ASGITransport(app=_app(keys)), base_url="http://keystead.test") as client,
        ):
            yield World(identity, budgets, keys, client, clock, barriers)
            for each in (identity, budgets, keys):
                await each.wire.jetstream.delete_stream(each.wire.stream_of(each.service.name))


def _app(keys: Running[Any]) -> Gate:
    app = FastAPI(openapi_url=None)
    app.state.services = {"keys": keys}
    answer_refusals(app)
    for router in SERVICE.routes:
        app.include_router(router)
    routes = [route for router in SERVICE.routes for route in router.routes]
    return gated(app, routes, _identify)


async def _identify(request: Request) -> Principal:
    who = Caller(**json.loads(request.headers["Authorization"]))
    credential = "key" if who.key_id else "session"
    return Principal(who.user_id, Role(who.role), credential, key_id=who.key_id, key_type=who.key_type)  # type: ignore[arg-type]
