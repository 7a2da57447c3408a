"""A worker's view among real services: budgets as it is, and owners whose logs and answers a test writes.

The owners' look-ups can be held up between looking and answering, as a slow network would.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import nats.js.errors

from keystead.app import Connections, await_barrier
from services.budgets.requests import AwaitBarrier, Passed
from services.budgets.service import SERVICE as BUDGETS
from services.gateway.service import SERVICE as GATEWAY
from services.gateway.view import View, boot_seconds
from services.identity.events import CATALOG as IDENTITY
from services.identity.requests import FindSession, FindUser, FoundSession, FoundUser
from services.keys.events import CATALOG as KEYS
from services.keys.events import KeyBlocked, KeyTerms, KeyUpdated
from services.keys.requests import FindKey, FoundKey
from shared.event_store import Transaction, read_log
from shared.events import Event, Recorded, from_cloudevent
from shared.requests import Found
from shared.service import Running, Service
from shared.settings import Settings
from tests.support.eventually import eventually
from tests.support.installation import connections_to, database, settings

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
BOUND_SECONDS = 2.0
STOPPED_SECONDS = 3600.0


@dataclass
class Owner:
    """Keys or identity: a real log, and answers as they are at the moment of looking."""

    running: Running[Any]
    answers: dict[str, Found] = field(default_factory=dict)
    asked: int = 0
    behind: int | None = None  # a look-up sees no more than the log up to here
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def look(self, subject: str, unknown: Found) -> Found:
        self.asked += 1
        position = await self.position() if self.behind is None else self.behind
        answer = self.answers.get(subject, unknown).model_copy(update={"position": position})
        self.looked.set()
        await self.may_answer.wait()
        return answer

    def hold_up(self) -> None:
        """From now on look-ups look, and do not answer before ``may_answer``."""
        self.looked.clear()
        self.may_answer.clear()

    async def happened(self, *events: Event) -> int:
        """Append events; the position of the last."""

        async def record(tx: Transaction) -> None:
            for event in events:
                await tx.record("stream-1", event)

        await self.running.run(record)
        return await self.position()

    async def position(self) -> int:
        async def last(tx: Transaction) -> int:
            return await tx.last_position()

        return await self.running.run(last)

    async def recorded(self, after: int) -> Sequence[Recorded]:
        """The log after a position."""
        catalog = self.running.service.catalog

        async def read(tx: Transaction) -> Sequence[Recorded]:
            envelopes, _ = await read_log(tx.connection, catalog, after, 1000, ())
            return [from_cloudevent(json.dumps(envelope).encode(), catalog) for envelope in envelopes]

        return await self.running.run(read)

    async def publish(self, position: int) -> None:
        """Send this event into the stream now."""
        (recorded, *_) = await self.recorded(after=position - 1)
        await self.running.wire.publish(recorded)


@dataclass
class ViewWorld:
    keys: Owner
    identity: Owner
    gateway: Running[Any]
    owner: "asyncpg.Connection[asyncpg.Record]"
    connections: Connections
    budgets: "Budgets"

    def view(self, clock: Callable[[], float] = boot_seconds) -> View:
        """A worker's, not living yet."""
        return View(self.gateway, BOUND_SECONDS, clock)

    @asynccontextmanager
    async def living(self, clock: Callable[[], float] = boot_seconds) -> AsyncIterator[View]:
        """One that has joined and been renewed."""
        async with self.view(clock).living() as view:
            await view.renewed.wait()
            yield view

    def has_key(self, token: str = "t", **fields: Any) -> FoundKey:
        """From now on there is such a key, or it is like this."""
        key = FoundKey.model_validate({"position": 0, "exists": True, "key_id": "K", "token": token, **fields})
        self.keys.answers[token] = key
        return key

    def has_user(self, user_id: str = "ada", **fields: Any) -> None:
        self.identity.answers[user_id] = FoundUser.model_validate(
            {"position": 0, "exists": True, "user_id": user_id, "role": "internal_user", **fields}
        )

    async def blocks(self, token: str = "t") -> int:
        """The key is blocked; the event's position."""
        self.has_key(token, blocked=True)
        return await self.keys.happened(key_blocked(token))

    async def passes_barrier(self, **positions: int) -> int:
        """Back when no live worker goes by less; how many had to be waited for."""
        question = AwaitBarrier(positions=positions)
        passed: Passed = await self.gateway.wire.ask("budgets", question, Passed, timeout_seconds=20)
        return passed.waited_for

    async def applied(self, view: View, source: str, position: int, seconds: float = 10.0) -> None:
        async def is_so() -> bool:
            return view.applied[source] >= position

        await eventually(is_so, seconds)

    async def workers(self) -> list[str]:
        """The ids of those that barriers wait for."""
        rows = await self.owner.fetch("select worker_id from budgets.workers where not gone")
        return [row["worker_id"] for row in rows]

    async def give_up(self, worker_id: str) -> None:
        """As budgets does with a worker that it has not heard of for the bound."""
        await self.owner.execute("update budgets.workers set gone = true where worker_id = $1", worker_id)


@dataclass
class Budgets:
    """Budgets, which can go away and come back."""

    start: Callable[[], Awaitable[AsyncExitStack]]
    stack: AsyncExitStack

    async def go(self) -> None:
        await self.stack.aclose()

    async def come_back(self) -> None:
        self.stack = await self.start()


def key_blocked(token: str = "t") -> KeyBlocked:
    return KeyBlocked(key_id="K", token=token, updated_by="admin", updated_at=NOON)


def key_updated(token: str = "t", **terms: Any) -> KeyUpdated:
    return KeyUpdated(
        key_id="K", token=token, user_id="ada", terms=KeyTerms(**terms), updated_by="admin", updated_at=NOON
    )


@asynccontextmanager
async def view_world(*, relays: bool = True) -> AsyncIterator[ViewWorld]:
    """The services around a worker; without ``relays`` the owners' streams carry what a test sends."""
    async with database() as owner_url, AsyncExitStack() as stack:
        connections = connections_to(owner_url, f"t{uuid.uuid4().hex[:10]}.")
        loaded = settings({"keystead_settings": {"revocation_bound": "2s"}})

        def running(service: Service[Any], its: Any, **more: Any) -> Running[Any]:
            return Running(
                service,
                its,
                dsn=connections.postgres_urls[service.name],
                nats_url=connections.nats_urls[service.name],
                barrier=await_barrier,
                namespace=connections.namespace,
                **more,
            )

        owners: dict[str, Owner] = {}

        async def find_key(_: Running[Any], question: FindKey) -> Found:
            return await owners["keys"].look(question.token, FoundKey(position=0, exists=False))

        async def find_user(_: Running[Any], question: FindUser) -> Found:
            unknown = FoundUser(position=0, exists=False, user_id=question.user_id)
            return await owners["identity"].look(question.user_id, unknown)

        async def find_session(_: Running[Any], question: FindSession) -> Found:
            return await owners["identity"].look(question.token, FoundSession(position=0, exists=False))

        by_user: dict[type[Any], Any] = {FindUser: find_user, FindSession: find_session}
        for service in (
            Service("keys", Settings, KEYS, routes=(), answers={FindKey: find_key}),
            Service("identity", Settings, IDENTITY, routes=(), answers=by_user),
        ):
            delay = 0.0 if relays else STOPPED_SECONDS
            owner_of = Owner(running(service, Settings(), relay_delay_seconds=delay))
            owner_of.may_answer.set()
            owners[service.name] = owner_of
            await stack.enter_async_context(owner_of.running.started())

        async def start_budgets() -> AsyncExitStack:
            inner = AsyncExitStack()
            await inner.enter_async_context(running(BUDGETS, loaded["budgets"]).started())
            return inner

        budgets = Budgets(start_budgets, await start_budgets())
        stack.push_async_callback(budgets.go)
        gateway = running(replace(GATEWAY, routes=(), lifespan=None), loaded["gateway"])
        await stack.enter_async_context(gateway.started())
        owner = await asyncpg.connect(owner_url)
        stack.push_async_callback(owner.close)
        try:
            yield ViewWorld(owners["keys"], owners["identity"], gateway, owner, connections, budgets)
        finally:
            for name in ("keys", "identity", "budgets", "gateway"):
                with suppress(nats.js.errors.NotFoundError):
                    await gateway.wire.jetstream.delete_stream(gateway.wire.stream_of(name))
