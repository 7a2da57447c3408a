"""Budgets as a service at work, and beside it as much of identity and keys as it hears of: logs that tests write.

Their relays are as good as stopped, so that budgets knows of them what it asks for, and nothing by luck. Jobs run when
a test runs them.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import asyncpg
from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient

from keystead.app import Connections
from services.budgets import scopes
from services.budgets.domain.window import Window
from services.budgets.requests import (
    JoinWorker,
    Passed,
    PlacedHold,
    PlaceHold,
    RecordRefusal,
    SettledHold,
    SettleHold,
    Usage,
)
from services.budgets.requests import Recorded as RefusalRecorded
from services.budgets.service import SERVICE
from services.budgets.settings import BudgetsSettings
from services.identity.events import CATALOG as IDENTITY
from services.identity.events import UserCreated, UserDeleted, UserLimits, UserUpdated
from services.identity.requests import OpenedEmails, OpenEmails
from services.keys.events import CATALOG as KEYS
from services.keys.events import KeyDeleted, KeyGenerated, KeyTerms, KeyUpdated
from shared.event_store import Transaction, read_log
from shared.events import Event, Recorded, from_cloudevent
from shared.gate import Gate, answer_refusals
from shared.permissions import Role
from shared.principal import Principal
from shared.secret import token_of
from shared.service import Running, Service
from shared.settings import Settings
from tests.support.budgets import NOON, usage
from tests.support.doors import gated
from tests.support.installation import connections_to, database

STOPPED_SECONDS = 3600.0


@dataclass
class Clock:
    """The instant that everything goes by, until a test sets it; and the seconds by which workers are given up."""

    now: datetime = NOON
    seconds: float = 1000.0

    def __call__(self) -> datetime:
        return self.now


@dataclass(frozen=True)
class Caller:
    """Who asks; what the gateway would have found out from a credential."""

    user_id: str
    role: str = "internal_user"


ADMIN = Caller("default_user_id", "proxy_admin")
VIEWER = Caller("a viewer", "proxy_admin_viewer")


@dataclass(frozen=True)
class Key:
    """A key of the test's own, and the scopes of its calls."""

    key_id: str
    key: str
    user_id: str | None

    @property
    def token(self) -> str:
        return token_of(self.key)

    @property
    def scope(self) -> str:
        return f"key:{self.key_id}"

    @property
    def scopes(self) -> tuple[str, ...]:
        return (self.scope, *([f"user:{self.user_id}"] if self.user_id else []), "proxy")


@dataclass
class World:
    """The services, and what happens around budgets."""

    identity: Running[Settings]
    keys: Running[Settings]
    budgets: Running[BudgetsSettings]
    owner: "asyncpg.Connection[asyncpg.Record]"
    client: AsyncClient
    clock: Clock
    stack: AsyncExitStack
    connections: Connections
    worker_id: str = "w1"
    emails: dict[str, str] = field(default_factory=dict)

    # What happens elsewhere

    async def new_user(self, limit: int | None = None, duration: str | None = None) -> str:
        user_id = f"ada {uuid.uuid4()}"
        created = UserCreated(
            user_id=user_id,
            sealed_email=None,
            sealed_alias=None,
            role="internal_user",
            limits=_user_limits(limit, duration, self.clock.now),
            metadata={},
            first_key=None,
            created_at=self.clock.now,
        )
        await self.happened(self.identity, f"user-{user_id}", created)
        return user_id

    async def update_user(self, user_id: str, limit: int | None, duration: str | None = None) -> None:
        updated = UserUpdated(
            user_id=user_id,
            sealed_email=None,
            sealed_alias=None,
            limits=_user_limits(limit, duration, self.clock.now),
            metadata={},
            updated_at=self.clock.now,
        )
        await self.happened(self.identity, f"user-{user_id}", updated)

    async def delete_user(self, user_id: str) -> None:
        await self.happened(self.identity, f"user-{user_id}", UserDeleted(user_id=user_id, deleted_at=self.clock.now))

    async def new_key(self, limit: int | None = None, duration: str | None = None, user_id: str | None = None) -> Key:
        key = Key(uuid.uuid4().hex[:12], f"sk-{uuid.uuid4()}", user_id)
        generated = KeyGenerated(
            key_id=key.key_id,
            token=key.token,
            key_name="sk-...abcd",
            user_id=user_id,
            key_type="default",
            terms=_terms(limit, duration, self.clock.now),
            blocked=False,
            created_by="admin",
            created_at=self.clock.now,
        )
        await self.happened(self.keys, f"key-{key.key_id}", generated)
        return key

    async def update_key(self, key: Key, limit: int | None, duration: str | None = None) -> None:
        updated = KeyUpdated(
            key_id=key.key_id,
            token=key.token,
            user_id=key.user_id,
            terms=_terms(limit, duration, self.clock.now),
            updated_by="admin",
            updated_at=self.clock.now,
        )
        await self.happened(self.keys, f"key-{key.key_id}", updated)

    async def delete_key(self, key: Key) -> None:
        deleted = KeyDeleted(
            key_id=key.key_id, token=key.token, user_id=key.user_id, deleted_by="admin", deleted_at=self.clock.now
        )
        await self.happened(self.keys, f"key-{key.key_id}", deleted)

    async def happened(self, running: Running[Any], stream: str, event: Event) -> None:
        async def record(tx: Transaction) -> None:
            await tx.record(stream, event)

        await running.run(record)

    async def heard(self) -> None:
        """Back when budgets has applied all that happened around it."""
        await self.budgets.fence({"identity", "keys"})

    # What a gateway worker asks

    async def join(self, worker_id: str) -> None:
        await self.keys.wire.ask("budgets", JoinWorker(worker_id=worker_id), Passed)

    async def positions(self) -> dict[str, int]:
        """How far a worker that has seen everything has applied the owners' logs."""
        return {running.service.name: await running.run(_last_position) for running in (self.identity, self.keys)}

    async def place(self, key: Key, worst: int, *, hold_id: str | None = None, **more: Any) -> PlacedHold:
        """A hold of ``worst`` for a call with that key."""
        asked: dict[str, Any] = {
            "hold_id": hold_id or str(uuid.uuid4()),
            "worker_id": self.worker_id,
            "scopes": key.scopes,
            "positions": await self.positions(),
            "input_nano_usd": worst,
            "output_nano_usd_per_token": Decimal(0),
            "output_cap": 0,
            "output_max": 0,
        }
        question = PlaceHold(**asked | more)
        return await self.keys.wire.ask("budgets", question, PlacedHold)

    async def hold(self, key: Key, worst: int, **more: Any) -> str:
        """The id of a hold that was placed."""
        hold_id = str(uuid.uuid4())
        await self.place(key, worst, hold_id=hold_id, **more)
        return hold_id

    async def settle(self, hold_id: str, billed: int | None, key: Key | None = None, **more: Any) -> SettledHold:
        """Settle it, as a call of that key."""
        question = SettleHold(hold_id=hold_id, billed_nano_usd=billed, usage=self.usage(key, **more))
        return await self.keys.wire.ask("budgets", question, SettledHold)

    async def refuse(self, key: Key, **more: Any) -> None:
        question = RecordRefusal(usage=self.usage(key, status="failure", **more))
        await self.keys.wire.ask("budgets", question, RefusalRecorded)

    def usage(self, key: Key | None = None, **more: Any) -> Usage:
        facts: dict[str, Any] = {
            "call_id": str(uuid.uuid4()),
            "started_at": self.clock.now,
            "first_token_at": self.clock.now,
            "ended_at": self.clock.now,
        }
        whose = {"key_id": key.key_id, "token": key.token, "user_id": key.user_id} if key else {}
        return usage(**(facts | whose | more))

    async def spend(self, key: Key, amount: int, **more: Any) -> None:
        """A call of that key that cost ``amount``."""
        await self.settle(await self.hold(key, amount), amount, key, **more)

    # What came of it

    async def window(self, scope: str) -> Window:
        """The scope's window now."""
        _, window = await self.budgets.run(scopes.find_window, scope)
        return window

    async def events(self, kind: type[Event], running: Running[Any] | None = None) -> list[Recorded]:
        """All events of a kind, in order."""

        async def read(tx: Transaction) -> list[Recorded]:
            envelopes, _ = await read_log(tx.connection, tx.catalog, 0, 100_000, [kind.type_name()])
            return [from_cloudevent(json.dumps(envelope).encode(), tx.catalog) for envelope in envelopes]

        return await (running or self.budgets).run(read)

    async def rows(self, sql: str, *parameters: object) -> list[dict[str, Any]]:
        """What is in the tables, as the database's owner sees it."""
        return [dict(row) for row in await self.owner.fetch(sql, *parameters)]

    async def call(self, who: Caller, path: str, **query: Any) -> tuple[int, Any, Mapping[str, str]]:
        """Status, JSON and headers of an answer."""
        headers = {"Authorization": json.dumps(asdict(who))}
        answer = await self.client.get(path, params=query, headers=headers)
        return answer.status_code, json.loads(answer.text, parse_float=Decimal), answer.headers

    async def ok(self, who: Caller, path: str, **query: Any) -> Any:
        status, answer, _ = await self.call(who, path, **query)
        assert status == 200, (status, answer)
        return answer

    async def replica(self) -> Running[BudgetsSettings]:
        """Another process of budgets, as far as two in one process can be two."""
        again = _running(self.budgets.service, self.budgets.settings, self.connections, self.clock)
        return await self.stack.enter_async_context(_started(again, self.clock))


@asynccontextmanager
async def budgets_world(**settings: Any) -> AsyncIterator[World]:
    """Budgets on a database of its own, with one worker."""
    clock = Clock()
    emails: dict[str, str] = {}

    async def open_emails(_: Running[Any], question: OpenEmails) -> OpenedEmails:
        return OpenedEmails(emails={u: emails[u] for u in question.user_ids if u in emails})

    neighbours = (
        Service("identity", Settings, IDENTITY, routes=[], answers={OpenEmails: open_emails}),
        Service("keys", Settings, KEYS, routes=[]),
    )
    async with database() as owner_url, AsyncExitStack() as stack:
        connections = connections_to(owner_url, f"t{uuid.uuid4().hex[:10]}.")
        identity, keys = [
            await stack.enter_async_context(
                _running(neighbour, Settings(), connections, clock, relay_delay_seconds=STOPPED_SECONDS).started()
            )
            for neighbour in neighbours
        ]
        quiet = replace(SERVICE, jobs=())
        budgets = _running(quiet, BudgetsSettings.model_validate(settings), connections, clock)
        await stack.enter_async_context(_started(budgets, clock))
        owner = await asyncpg.connect(owner_url, server_settings={"search_path": "budgets"})
        stack.push_async_callback(owner.close)
        transport = ASGITransport(app=_app(budgets))
        client = await stack.enter_async_context(AsyncClient(transport=transport, base_url="http://keystead.test"))
        world = World(identity, keys, budgets, owner, client, clock, stack, connections, emails=emails)
        await world.join(world.worker_id)
        try:
            yield world
        finally:
            for running in (identity, keys, budgets):
                await running.wire.jetstream.delete_stream(running.wire.stream_of(running.service.name))


@asynccontextmanager
async def _started(running: Running[BudgetsSettings], clock: Clock) -> AsyncIterator[Running[BudgetsSettings]]:
    async with running.started():
        running.own.boot_seconds = lambda: clock.seconds
        yield running


def _running(
    service: Service[Any], settings: Any, connections: Connections, clock: Clock, **more: float
) -> Running[Any]:
    return Running(
        service,
        settings,
        dsn=connections.postgres_urls[service.name],
        nats_url=connections.nats_urls[service.name],
        barrier=_no_barrier,
        namespace=connections.namespace,
        clock=clock,
        **more,
    )


async def _no_barrier(_: Running[Any], __: Mapping[str, int]) -> None:
    return


async def _last_position(tx: Transaction) -> int:
    return await tx.last_position()


def _user_limits(limit: int | None, duration: str | None, at: datetime) -> UserLimits:
    return UserLimits(max_budget_nano_usd=limit, budget_duration=duration, budget_set_at=at)


def _terms(limit: int | None, duration: str | None, at: datetime) -> KeyTerms:
    return KeyTerms(max_budget_nano_usd=limit, budget_duration=duration, budget_set_at=at)


def _app(budgets: Running[Any]) -> Gate:
    app = FastAPI(openapi_url=None)
    app.state.services = {"budgets": budgets}
    answer_refusals(app)
    for router in SERVICE.routes:
        app.include_router(router)
    routes = [route for router in SERVICE.routes for route in router.routes]
    return gated(app, routes, _identify)


async def _identify(request: Request) -> Principal:
    who = Caller(**json.loads(request.headers["Authorization"]))
    return Principal(who.user_id, Role(who.role), "session")


async def gathered(*asked: Any) -> list[Any]:
    """Everything at once; what was refused among the answers."""
    return await asyncio.gather(*asked, return_exceptions=True)
