"""An installation with two gateway workers whose models are at a real provider, and what tests do and see there."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import aiohttp
import asyncpg
import nats
from nats.aio.client import Client

from keystead.app import SERVICES, compose
from services.budgets.service import SERVICE as BUDGETS
from tests.support.eventually import eventually
from tests.support.installation import (
    Installation,
    connections_to,
    database,
    installation,
    keyring,
    second_worker,
    serving,
    settings,
)
from tests.support.servers import nats_url
from tests.support.view_world import Budgets

PROVIDERS_KEY = "sk-of-the-provider"
HELLO = [{"role": "user", "content": "Say hello."}]
# A token of output costs 0.001 USD and input nothing: what a call may cost at most is its cap, and what it costs is
# told by the provider, which says twenty words unless it may say fewer.
PAID = {"input_cost_per_token": 0, "output_cost_per_token": "0.001"}
NANO = 10**9
TOKEN = NANO // 1000
WORDS = 20
PATIENCE_SECONDS = 20.0

Body = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """A key of the test's own."""

    key: str
    key_id: str
    token: str
    user_id: str

    @property
    def scope(self) -> str:
        return f"key:{self.key_id}"


@dataclass(frozen=True)
class Answer:
    """What a call was answered: ``body`` is the JSON, or the text of a stream."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def reason(self) -> str | None:
        return self.body["error"]["reason"] if self.status != 200 else None

    @property
    def told(self) -> tuple[int, str | None]:
        return self.status, self.reason


@dataclass
class World:
    """``second`` is the other worker's address, for model calls alone."""

    it: Installation
    provider: str
    second: str
    owner: "asyncpg.Connection[asyncpg.Record]"
    urls: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.urls = (self.it.url, self.second)

    # Who calls

    async def user(self, **fields: Any) -> str:
        """A new user's id."""
        body = {"user_role": "internal_user", "auto_create_key": False, **fields}
        user_id: str = (await self.it.ok("POST", "/user/new", body))["user_id"]
        return user_id

    async def key(self, **fields: Any) -> Key:
        """A new key, of a new user's unless said."""
        user_id = fields.pop("user_id", None) or await self.user()
        made = await self.it.ok("POST", "/key/generate", {"user_id": user_id, **fields})
        return Key(made["key"], made["key_id"], made["token"], user_id)

    async def update(self, key: Key, **fields: Any) -> None:
        await self.it.ok("POST", "/key/update", {"key": key.token, **fields})

    # What they call

    async def call(
        self,
        key: Key | str,
        model: str = "paid",
        *,
        url: str | None = None,
        path: str = "chat/completions",
        **body: Any,
    ) -> Answer:
        """A chat call, unless said; ``max_tokens`` and all else go into the body."""
        text = key if isinstance(key, str) else key.key
        content: Body = {"model": model, **({"messages": HELLO} if path.startswith("chat") else {}), **body}
        return Answer(*await self.it.request("POST", f"/v1/{path}", content, key=text, url=url))

    async def persist(self, key: Key | str, model: str = "paid", **options: Any) -> Answer:
        """As a client that does as it is told: asks again while only open holds stand in the way."""
        answers: list[Answer] = []

        async def is_so() -> bool:
            answers.append(await self.call(key, model, **options))
            return answers[-1].reason != "budget_held"

        await eventually(is_so, PATIENCE_SECONDS)
        return answers[-1]

    @asynccontextmanager
    async def streaming(self, key: Key, model: str = "paid", **body: Any) -> AsyncIterator["Stream"]:
        """A stream, to be read event by event; at the end of the block the client is gone."""
        content = {"model": model, "messages": HELLO, "stream": True, **body}
        headers = {"Authorization": f"Bearer {key.key}"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.it.url}/v1/chat/completions", json=content, headers=headers) as response,
        ):
            yield Stream(response)

    # The provider

    async def seen(self, of: str | None = None) -> list[Body]:
        """The bodies that the provider got since it was told to forget; of one model of its own, if said."""
        async with self.it.http.get(f"{self.provider}/seen") as response:
            requests = await response.json()
        return [request["body"] for request in requests if of in (None, request["body"]["model"])]

    async def seen_requests(self) -> list[Body]:
        async with self.it.http.get(f"{self.provider}/seen") as response:
            requests: list[Body] = await response.json()
            return requests

    async def forget(self) -> None:
        await self._tell_provider("/forget")

    async def go(self) -> None:
        """Let the calls go on that the provider holds up."""
        await self._tell_provider("/go")

    async def reached(self, count: int, of: str) -> None:
        """Back when the provider has got so many calls of a model of its own."""

        async def is_so() -> bool:
            return len(await self.seen(of)) == count

        await eventually(is_so, PATIENCE_SECONDS)

    async def _tell_provider(self, path: str) -> None:
        async with self.it.http.post(self.provider + path) as response:
            assert response.status == 204

    # What came of it

    async def rows(self, key: Key | str) -> list[Body]:
        """A key's SpendRows, newest first."""
        token = key if isinstance(key, str) else key.token
        rows: list[Body] = await self.it.ok("GET", f"/spend/logs?api_key={token}")
        return rows

    async def row(self, key: Key) -> Body:
        """The only one, as soon as it is there."""

        async def is_there() -> bool:
            return len(await self.rows(key)) == 1

        await eventually(is_there, PATIENCE_SECONDS)
        (row,) = await self.rows(key)
        return row

    async def window(self, scope: str) -> Body:
        """A scope's window; money in nano-USD."""
        (window,) = (await self.it.ok("GET", f"/keystead/v1/budgets/{scope}"))["windows"]
        money = ("limit", "spent", "presumed", "leased", "remaining", "pending_limit")
        return {name: nano(value) if name in money else value for name, value in window.items()}

    async def spent(self, scope: str) -> int:
        spent: int = (await self.window(scope))["spent"]
        return spent

    async def settled(self, scope: str) -> int:
        """What a scope has spent once nothing is held in it any more."""

        async def nothing_held() -> bool:
            return bool((await self.window(scope))["leased"] == 0)

        await eventually(nothing_held, PATIENCE_SECONDS)
        return await self.spent(scope)

    async def no_hold_stays_open(self) -> None:
        """Back as soon as no hold is open and nothing is set aside anywhere."""

        async def is_so() -> bool:
            held = "select count(*) from budgets.holds where state = 'open'"
            leased = "select coalesce(sum(leased_nano_usd), 0) from budgets.windows"
            return not await self.owner.fetchval(held) and not await self.owner.fetchval(leased)

        await eventually(is_so, PATIENCE_SECONDS)

    async def books_agree(self) -> None:
        """What scopes, windows, events and the ledger say was spent is one and the same, and each hold has one row."""
        ledger = await self.owner.fetchval("select coalesce(sum(spend_nano_usd), 0) from budgets.ledger")
        windows = await self.owner.fetchval("select spent_nano_usd from budgets.windows where scope = 'proxy'")
        scopes = await self.owner.fetchval("select total_spent_nano_usd from budgets.scopes where scope = 'proxy'")
        settled = await self.owner.fetchval(
            "select sum((data->>'total_nano_usd')::bigint) from budgets.events where type = 'UsageSettled'"
        )
        assert ledger == (windows or 0) == (scopes or 0) == (settled or 0)
        again = "select hold_id from budgets.ledger group by hold_id having count(*) > 1"
        assert await self.owner.fetch(again) == []
        charged = await self.owner.fetchval("select sum(charged_nano_usd) from budgets.holds")
        assert ledger == (charged or 0)

    async def somebody_waits_for_a_lock(self) -> None:
        """Back as soon as a service waits for what a test has locked."""

        async def is_so() -> bool:
            # Within a transaction the activity stays as it was first seen.
            await self.owner.execute("select pg_stat_clear_snapshot()")
            waiting = "select count(*) from pg_stat_activity where datname = current_database()"
            return bool(await self.owner.fetchval(f"{waiting} and wait_event_type = 'Lock'"))

        await eventually(is_so, PATIENCE_SECONDS)

    async def events(self, type_: str) -> list[Body]:
        """The data of budgets' events of a type."""
        rows = await self.owner.fetch("select data::text from budgets.events where type = $1 order by position", type_)
        return [json.loads(row["data"]) for row in rows]


@dataclass
class Stream:
    """A stream's events as they come."""

    response: aiohttp.ClientResponse

    async def event(self) -> str:
        """The next event's data."""
        lines = []
        while (line := (await self.response.content.readline()).decode()) not in ("\n", ""):
            lines.append(line.strip())
        return "\n".join(lines).removeprefix("data: ")

    async def rest(self) -> list[str]:
        """All that still come."""
        events = []
        while event := await self.event():
            events.append(event)
        return events


def nano(usd: float | None) -> int | None:
    return None if usd is None else round(Decimal(str(usd)) * NANO)


def model(name: str, provider: str, at_the_provider: str | None = None, **params: Any) -> Body:
    """An entry of ``model_list`` for the model of that name at the provider; ``info`` is its ``model_info``."""
    info = params.pop("info", {})
    settings = {
        "model": f"openai/{at_the_provider or name}",
        "api_base": f"{provider}/v1",
        "api_key": PROVIDERS_KEY,
        **PAID,
        **params,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    return {"model_name": name, "litellm_params": settings, "model_info": info}


@asynccontextmanager
async def gateway_world(
    provider: str, models: Sequence[Body], content: Body | None = None, **options: Any
) -> AsyncIterator[World]:
    """An installation of these models, and a second worker."""
    settings = {"model_list": [*models], **(content or {})}
    async with installation(settings, **options) as it, second_worker(it) as second:
        owner = await asyncpg.connect(it.owner_url)
        try:
            yield World(it, provider, second, owner)
        finally:
            await owner.close()


@asynccontextmanager
async def world_apart(provider: str, models: Sequence[Body], content: Body) -> AsyncIterator[tuple[World, Budgets]]:
    """The same with one worker, and budgets apart, which can go away and come back."""
    async with database() as owner_url, AsyncExitStack() as stack:
        connections = connections_to(owner_url, f"t{uuid.uuid4().hex[:10]}.")
        loaded = settings({"model_list": [*models], **content})

        async def start_budgets() -> AsyncExitStack:
            inner = AsyncExitStack()
            await inner.enter_async_context(serving(compose([BUDGETS], loaded, connections, keyring=keyring()).app))
            return inner

        budgets = Budgets(start_budgets, await start_budgets())
        stack.push_async_callback(budgets.go)
        composition = compose(
            [each for each in SERVICES if each is not BUDGETS], loaded, connections, keyring=keyring()
        )
        url = await stack.enter_async_context(serving(composition.app))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        owner = await asyncpg.connect(owner_url)
        stack.push_async_callback(owner.close)
        it = Installation(url, http, owner_url, connections.namespace, composition, loaded)
        try:
            yield World(it, provider, url, owner), budgets
        finally:
            wire = it.running("gateway").wire
            for service in SERVICES:
                await wire.jetstream.delete_stream(wire.stream_of(service.name))


@dataclass
class Asked:
    """The questions of one kind that were asked while somebody listened."""

    questions: list[Body]
    _client: Client

    async def count(self) -> int:
        await self._client.flush()
        return len(self.questions)


@asynccontextmanager
async def listening(it: Installation, service: str, question: str) -> AsyncIterator[Asked]:
    """Hear the questions of that kind that anybody asks ``service``."""
    client = await nats.connect(nats_url())
    asked = Asked([], client)

    async def hear(message: Any) -> None:
        asked.questions.append(json.loads(message.data))

    await client.subscribe(f"{it.namespace}ask.{service}.{question}", cb=hear)
    await client.flush()
    try:
        yield asked
    finally:
        await client.close()


async def at_once(count: int, call: Any) -> list[Any]:
    """``call(number)`` so many times at once."""
    return await asyncio.gather(*(call(number) for number in range(count)))
