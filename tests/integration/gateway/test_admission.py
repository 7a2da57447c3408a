"""Budgets hold: whatever comes at once through two workers, nothing is overspent, and nothing refused that fits."""

import asyncio
import io
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.gateway_world import NANO, TOKEN, Answer, Key, World, at_once, gateway_world, model

AT_ONCE = 50
MIB = 1024 * 1024
REFUSALS_A_SECOND = 10


def models(provider: str) -> list[dict[str, Any]]:
    return [
        model("paid", provider),
        model("held", provider),
        model("free", provider, output_cost_per_token=0),
        model(
            "unpriced", provider, model="hosted_vllm/unpriced", input_cost_per_token=None, output_cost_per_token=None
        ),
    ]


@pytest_asyncio.fixture(scope="module")
async def world(provider: str) -> AsyncIterator[World]:
    async with gateway_world(provider, models(provider)) as made:
        yield made


@pytest.fixture(autouse=True)
async def books(world: World) -> AsyncIterator[None]:
    """After each test nothing is held, and all books say the same."""
    await world.forget()
    yield
    await world.no_hold_stays_open()
    await world.books_agree()


@asynccontextmanager
async def watched(world: World, *scopes: str) -> AsyncIterator[None]:
    """Looks at these windows without pause; at no look was more spent and set aside than the limit."""
    over: list[Any] = []
    looks = itertools.count()
    query = """
        select scope, limit_nano_usd, spent_nano_usd, leased_nano_usd from budgets.windows
         where scope = any($1) and spent_nano_usd + leased_nano_usd > limit_nano_usd
    """
    connection = await asyncpg.connect(world.it.owner_url)

    async def look() -> None:
        while True:
            over.extend(await connection.fetch(query, list(scopes)))
            next(looks)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await connection.close()
    assert over == []
    assert next(looks) > 10


def through_both(world: World, keys: Sequence[Key], **body: Any) -> Callable[[int], Awaitable[Answer]]:
    """The calls of clients that ask again while they are told to, each other one through the second worker."""
    turns = itertools.count()

    async def call(number: int) -> Answer:
        url = world.urls[next(turns) % 2]
        return await world.persist(keys[number % len(keys)], url=url, **body)

    return call


# At once


async def test_of_fifty_calls_at_once_exactly_those_go_through_that_the_budget_pays_for(world: World) -> None:
    key = await world.key(max_budget=0.25)
    async with watched(world, key.scope):
        answers = await at_once(AT_ONCE, through_both(world, [key], max_tokens=10))
    assert Counter(answer.told for answer in answers) == {(200, None): 25, (429, "budget_exceeded"): 25}
    assert await world.settled(key.scope) == NANO // 4


async def test_what_costs_less_than_it_might_leaves_room_until_no_worst_case_fits(world: World) -> None:
    key = await world.key(max_budget=0.3)
    async with watched(world, key.scope):
        answers = await at_once(AT_ONCE, through_both(world, [key], max_tokens=40))
    went_through = [answer.told for answer in answers].count((200, None))
    assert {answer.told for answer in answers} == {(200, None), (429, "budget_exceeded")}
    assert await world.settled(key.scope) == went_through * 20 * TOKEN
    # 0.3 - 14 x 0.02 = 0.02: a call that may cost 0.04 fits no more, and did as long as 0.04 were left.
    assert went_through == 14


async def test_a_users_budget_holds_over_all_their_keys(world: World) -> None:
    user_id = await world.user(max_budget=0.25)
    keys = [await world.key(user_id=user_id) for _ in range(2)]
    async with watched(world, f"user:{user_id}"):
        answers = await at_once(AT_ONCE, through_both(world, keys, max_tokens=10))
    assert [answer.status for answer in answers].count(200) == 25
    assert await world.settled(f"user:{user_id}") == NANO // 4
    spent = [await world.spent(key.scope) for key in keys]
    assert sum(spent) == NANO // 4
    rows = [row for key in keys for row in await world.rows(key) if row["status"] == "success"]
    assert len(rows) == 25


async def test_streams_hold_as_well(world: World) -> None:
    key = await world.key(max_budget=0.1)
    async with watched(world, key.scope):
        answers = await at_once(20, through_both(world, [key], max_tokens=10, stream=True))
    assert [answer.status for answer in answers].count(200) == 10
    assert await world.settled(key.scope) == NANO // 10


async def test_a_call_that_only_open_holds_are_in_the_way_of_is_told_to_come_back(world: World) -> None:
    key = await world.key(max_budget=0.02)
    holding = asyncio.create_task(world.call(key, "held", max_tokens=20))
    await world.reached(1, "held")
    refused = await world.call(key, max_tokens=1, url=world.second)
    assert refused.told == (429, "budget_held")
    assert refused.headers["Retry-After"] == "1" and "x-should-retry" not in refused.headers
    window = await world.window(key.scope)
    assert (window["spent"], window["leased"], window["remaining"]) == (0, 20 * TOKEN, 0)
    await world.go()
    assert (await holding).status == 200
    assert (await world.call(key, max_tokens=1)).told == (429, "budget_exceeded")


async def test_a_refused_call_uses_nothing_up(world: World) -> None:
    user_id = await world.user(max_budget=1)
    key = await world.key(user_id=user_id, max_budget=0.01)
    for _ in range(3):
        assert (await world.call(key, max_tokens=11)).told == (429, "budget_exceeded")
    for scope in (key.scope, f"user:{user_id}"):
        window = await world.window(scope)
        assert (window["spent"], window["leased"]) == (0, 0)
    assert (await world.call(key, max_tokens=10)).status == 200
    assert await world.seen() and len(await world.seen()) == 1


async def test_an_exhausted_budget_says_that_coming_back_does_not_help(world: World) -> None:
    key = await world.key(max_budget=0.01)
    refused = await world.call(key, max_tokens=11)
    assert refused.headers["x-should-retry"] == "false" and "Retry-After" not in refused.headers
    assert key.scope in refused.body["error"]["message"]
    assert refused.body["error"]["type"] == "budget_exceeded"
    daily = await world.key(max_budget=0.01, budget_duration="1d")
    assert (await world.call(daily, max_tokens=10)).status == 200
    refused = await world.call(daily, max_tokens=10)
    assert 0 < int(refused.headers["Retry-After"]) <= 24 * 3600
    assert refused.headers["x-should-retry"] == "false"


# Limits that change


async def test_a_budget_that_is_lowered_while_calls_run_stops_admission_at_once(world: World) -> None:
    key = await world.key(max_budget=0.1)
    running = [asyncio.create_task(world.call(key, "held", max_tokens=10)) for _ in range(5)]
    await world.reached(5, "held")
    await world.update(key, max_budget=0.03)
    window = await world.window(key.scope)
    assert (window["limit"], window["leased"]) == (30_000_000, 50 * TOKEN)
    assert window["pending_limit"] == 30_000_000
    for url in world.urls:
        assert (await world.call(key, max_tokens=10, url=url)).told == (429, "budget_held")
    await world.go()
    assert [answer.status for answer in await asyncio.gather(*running)] == [200] * 5
    assert await world.settled(key.scope) == 50 * TOKEN
    for url in world.urls:
        assert (await world.call(key, max_tokens=10, url=url)).told == (429, "budget_exceeded")
    assert (await world.window(key.scope))["pending_limit"] is None


@pytest.mark.parametrize("of", ["key", "user"])
async def test_a_raised_budget_is_in_force_when_the_call_that_raised_it_has_returned(world: World, of: str) -> None:
    user_id = await world.user(**({"max_budget": 0.01} if of == "user" else {}))
    key = await world.key(user_id=user_id, **({"max_budget": 0.01} if of == "key" else {}))
    for step in range(1, 11):
        url = world.urls[step % 2]
        assert (await world.call(key, max_tokens=10, url=url)).status == 200
        assert (await world.call(key, max_tokens=10, url=url)).told == (429, "budget_exceeded")
        limit = (step + 1) / 100
        if of == "key":
            await world.update(key, max_budget=limit)
        else:
            await world.it.ok("POST", "/user/update", {"user_id": user_id, "max_budget": limit})


async def test_a_budget_that_is_given_to_a_key_in_use_is_in_force_at_once_and_one_that_is_taken_away_is_not(
    world: World,
) -> None:
    key = await world.key()
    assert (await world.call(key, max_tokens=10)).status == 200
    await world.update(key, max_budget=0.015)
    for url in world.urls:
        assert (await world.call(key, max_tokens=10, url=url)).told == (429, "budget_exceeded")
    await world.update(key, max_budget=None)
    for url in world.urls:
        assert (await world.call(key, max_tokens=10, url=url)).status == 200


# What changes between the hold and the admission


@asynccontextmanager
async def held_up(world: World, key: Key) -> AsyncIterator["asyncio.Task[Answer]"]:
    """A call of ten tokens whose hold is being placed, and waits for the length of the block."""
    scope = "select from budgets.scopes where scope = $1 for update"

    async def known() -> bool:
        return bool(await world.owner.fetch(scope, key.scope))

    await eventually(known)
    async with world.owner.transaction():
        await world.owner.execute(scope, key.scope)
        calling = asyncio.create_task(world.call(key, max_tokens=10))
        await world.somebody_waits_for_a_lock()
        yield calling


async def test_a_call_is_admitted_by_what_its_key_is_at_that_moment(world: World) -> None:
    # What was held by the old state is back before the new one holds: the budget pays for one call.
    key = await world.key(max_budget=0.01)
    async with held_up(world, key) as calling:
        await world.update(key, tags=["new"])
    assert (await calling).status == 200
    (row,) = await world.rows(key)
    assert "new" in row["request_tags"]
    holds = "select state, charged_nano_usd from budgets.holds order by admitted_at desc limit 2"
    ended = {(state, charged) for state, charged in await world.owner.fetch(holds)}
    assert ended == {("settled", 0), ("settled", 10 * TOKEN)}


async def test_a_call_whose_key_goes_while_its_hold_is_placed_is_refused_and_holds_nothing(world: World) -> None:
    key = await world.key(max_budget=0.01)
    async with held_up(world, key) as calling:
        await world.it.ok("POST", "/key/block", {"key": key.token})
    assert (await calling).told == (401, "key_blocked")
    assert await world.settled(key.scope) == 0
    assert await world.seen() == []


# What can't be bounded


async def test_a_model_without_a_price_is_for_those_whom_nothing_limits(world: World) -> None:
    limited, unlimited = await world.key(max_budget=1), await world.key()
    refused = await world.call(limited, "unpriced")
    assert refused.told == (403, "price_unknown")
    assert refused.body["error"]["type"] == "model_cost_map_missing"
    assert (await world.call(unlimited, "unpriced")).status == 200
    (row,) = await world.rows(unlimited)
    assert (row["spend"], row["completion_tokens"]) == (0, 20)


async def test_a_users_budget_alone_limits_as_well(world: World) -> None:
    user_id = await world.user(max_budget=1)
    assert (await world.call(await world.key(user_id=user_id), "unpriced")).told == (403, "price_unknown")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"web_search_options": {"search_context_size": "high"}}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages.0.content.0",
        ),
    ],
)
async def test_a_parameter_whose_cost_nobody_can_bound_is_for_those_whom_nothing_limits(
    world: World, body: dict[str, Any], param: str
) -> None:
    limited, unlimited = await world.key(max_budget=1), await world.key()
    refused = await world.call(limited, **body)
    assert refused.told == (400, "parameter_unpriced")
    assert refused.body["error"]["param"] == param
    assert (await world.call(unlimited, **body)).status == 200
    (sent,) = await world.seen()
    assert {name: sent[name] for name in body} == body


async def test_nothing_to_spend_is_enough_for_what_is_free(world: World) -> None:
    key = await world.key(max_budget=0)
    for url in world.urls:
        assert (await world.call(key, url=url)).told == (429, "budget_exceeded")
        assert (await world.call(key, max_tokens=1, url=url)).told == (429, "budget_exceeded")
        assert (await world.call(key, "free", url=url)).status == 200
    listed = await world.it.ok("GET", "/v1/models", key=key.key)
    assert len(listed["data"]) == 4  # reading works without a budget


# The order of the checks (§5.3)


async def test_the_first_check_that_fails_answers(world: World) -> None:
    key = await world.key(max_budget=0, models=["paid"])
    body: dict[str, Any] = {"service_tier": "priority", "n": 0}
    assert (await world.call(key, "unpriced", **body)).told == (400, "out_of_range")
    del body["n"]
    assert (await world.call(key, "unpriced", **body)).told == (403, "model_not_allowed")
    await world.update(key, models=["paid", "unpriced"])
    assert (await world.call(key, "unpriced", **body)).told == (403, "price_unknown")
    assert (await world.call(key, **body)).told == (400, "parameter_unpriced")
    assert (await world.call(key)).told == (429, "budget_exceeded")
    await world.it.ok("POST", "/key/block", {"key": key.token})
    assert (await world.call(key, "unpriced", n=0)).told == (401, "key_blocked")


async def test_a_blocked_key_is_refused_whatever_its_body(world: World) -> None:
    key = await world.key()
    await world.it.ok("POST", "/key/block", {"key": key.token})
    for data in (b"no json", b"x" * 100_000):
        headers = {"Authorization": f"Bearer {key.key}", "Content-Type": "text/plain"}
        async with world.it.http.post(f"{world.it.url}/v1/chat/completions", data=data, headers=headers) as response:
            assert (response.status, (await response.json())["error"]["reason"]) == (401, "key_blocked")


async def test_what_is_too_large_is_refused_before_it_is_read_as_a_call(provider: str) -> None:
    content = {"general_settings": {"max_request_size_mb": 1}}
    async with gateway_world(provider, models(provider), content) as small:
        key = await small.key(models=["paid"])
        assert await _send(small, key, b'"' + b"x" * MIB) == (413, "body_too_large")
        assert await _send(small, key, b'"' + b"x" * (MIB - 1)) == (400, "json_malformed")
        assert (await small.call(key, messages=[{"role": "user", "content": "x" * (MIB // 2)}])).status == 200


async def _send(world: World, key: Key, body: bytes) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key.key}", "Content-Type": "application/json"}
    url = f"{world.it.url}/v1/chat/completions"
    async with world.it.http.post(url, data=io.BytesIO(body), headers=headers) as response:
        return response.status, (await response.json())["error"]["reason"]


# Rows of refused calls


async def test_a_key_leaves_no_more_than_ten_rows_a_second_for_refused_calls(provider: str) -> None:
    noon = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    async with gateway_world(provider, models(provider), clock=lambda: noon) as frozen:
        key, other = await frozen.key(max_budget=0), await frozen.key(max_budget=0)
        for _ in range(REFUSALS_A_SECOND + 5):
            assert (await frozen.call(key)).status == 429
        assert (await frozen.call(other)).status == 429

        async def all_there() -> bool:
            return len(await frozen.rows(other)) == 1 and len(await frozen.rows(key)) >= REFUSALS_A_SECOND

        await eventually(all_there)
        assert len(await frozen.rows(key)) == REFUSALS_A_SECOND
