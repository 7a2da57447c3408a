"""Revocation: once a change has returned, no worker admits anything that begins by the old state (design §5)."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import nats.js.errors
import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.gateway_world import HELLO, Key, World, gateway_world, model, world_apart
from tests.support.installation import second_worker
from tests.support.worker_process import worker_process

BOUND_SECONDS = 2.0
SLACK_SECONDS = 4.0  # for a machine that has other things to do
ROUNDS = 100
SOME_ROUNDS = 5

Told = tuple[int, str | None]
Call = Callable[[str], Awaitable[Told]]
Change = Callable[[], Awaitable[Any]]

MOCK = {
    "model_name": "mock",
    "litellm_params": {
        "model": "openai/mock",
        "mock_response": "Hello",
        "input_cost_per_token": "0.000001",
        "output_cost_per_token": "0.000001",
    },
}
CONTENT = {"keystead_settings": {"revocation_bound": "2s"}}


def models(provider: str) -> list[dict[str, Any]]:
    return [MOCK, model("paid", provider), model("held", provider)]


@pytest_asyncio.fixture(scope="module")
async def world(provider: str) -> AsyncIterator[World]:
    async with gateway_world(provider, models(provider), CONTENT) as made:
        yield made
        await made.no_hold_stays_open()
        await made.books_agree()


def chat(world: World, key: Key) -> Call:
    async def call(url: str) -> Told:
        return (await world.call(key, "mock", url=url)).told

    return call


def reading(world: World, credential: str, path: str) -> Call:
    async def call(url: str) -> Told:
        status, answer = await world.it.call("GET", path, key=credential, url=url)
        return status, answer["error"]["reason"] if status != 200 else None

    return call


async def changed_while_calling(world: World, call: Call, change: Change, *, afterwards: Told) -> None:
    """Calls without pause on both workers; what begins once the change has returned is answered ``afterwards``."""
    calls: dict[str, list[tuple[float, Told]]] = {url: [] for url in world.urls}
    changed_at = float("inf")

    async def keep_calling(url: str) -> None:
        while sum(began > changed_at for began, _ in calls[url]) < 1:
            began = time.monotonic()
            calls[url].append((began, await call(url)))

    async def admitted_on_both() -> bool:
        return all(any(told == (200, None) for _, told in made) for made in calls.values())

    calling = [asyncio.create_task(keep_calling(url)) for url in world.urls]
    await eventually(admitted_on_both)
    await change()
    changed_at = time.monotonic()
    await asyncio.gather(*calling)
    late = [told for made in calls.values() for began, told in made if began > changed_at]
    assert {*late} == {afterwards}
    assert {told for made in calls.values() for _, told in made} == {(200, None), afterwards}


# Changes


async def test_a_block_and_an_unblock_are_in_force_when_they_have_returned_a_hundred_times(world: World) -> None:
    key = await world.key()
    for _ in range(ROUNDS):
        await changed_while_calling(
            world,
            chat(world, key),
            lambda: world.it.ok("POST", "/key/block", {"key": key.token}),
            afterwards=(401, "key_blocked"),
        )
        await world.it.ok("POST", "/key/unblock", {"key": key.token})


async def test_a_deleted_key_is_unknown(world: World) -> None:
    for _ in range(SOME_ROUNDS):
        key = await world.key()
        await changed_while_calling(
            world,
            chat(world, key),
            lambda key=key: world.it.ok("POST", "/key/delete", {"keys": [key.token]}),  # type: ignore[misc]
            afterwards=(401, "key_unknown"),
        )


async def test_a_narrowed_list_of_models_narrows(world: World) -> None:
    key = await world.key()
    for _ in range(SOME_ROUNDS):
        await changed_while_calling(
            world,
            chat(world, key),
            lambda: world.update(key, models=["paid"]),
            afterwards=(403, "model_not_allowed"),
        )
        await world.update(key, models=["paid", "mock"])


async def test_a_users_narrowed_list_of_models_narrows(world: World) -> None:
    key = await world.key()
    for _ in range(SOME_ROUNDS):
        await changed_while_calling(
            world,
            chat(world, key),
            lambda: world.it.ok("POST", "/user/update", {"user_id": key.user_id, "models": ["paid"]}),
            afterwards=(403, "model_not_allowed"),
        )
        await world.it.ok("POST", "/user/update", {"user_id": key.user_id, "models": []})


@pytest.mark.parametrize("before", [1, None])
async def test_a_lowered_budget_stops_admission(world: World, before: float | None) -> None:
    key = await world.key(max_budget=before)
    for _ in range(SOME_ROUNDS):
        await changed_while_calling(
            world, chat(world, key), lambda: world.update(key, max_budget=0), afterwards=(429, "budget_exceeded")
        )
        await world.update(key, max_budget=before)


async def test_a_users_lowered_budget_stops_admission(world: World) -> None:
    key = await world.key(user_id=await world.user(max_budget=1))
    for _ in range(SOME_ROUNDS):
        await changed_while_calling(
            world,
            chat(world, key),
            lambda: world.it.ok("POST", "/user/update", {"user_id": key.user_id, "max_budget": 0}),
            afterwards=(429, "budget_exceeded"),
        )
        await world.it.ok("POST", "/user/update", {"user_id": key.user_id, "max_budget": 1})


async def test_the_keys_of_a_deleted_user_are_unknown(world: World) -> None:
    for _ in range(SOME_ROUNDS):
        key = await world.key()
        await changed_while_calling(
            world,
            chat(world, key),
            lambda key=key: world.it.ok("POST", "/user/delete", {"user_ids": [key.user_id]}),  # type: ignore[misc]
            afterwards=(401, "key_unknown"),
        )


async def test_a_role_that_was_taken_away_allows_nothing(world: World) -> None:
    key = await world.key(user_id=await world.user(user_role="proxy_admin"))
    for _ in range(SOME_ROUNDS):
        await changed_while_calling(
            world,
            reading(world, key.key, "/health"),
            lambda: world.it.ok("POST", "/user/update", {"user_id": key.user_id, "user_role": "internal_user"}),
            afterwards=(403, "role_not_allowed"),
        )
        await world.it.ok("POST", "/user/update", {"user_id": key.user_id, "user_role": "proxy_admin"})


async def test_a_session_that_was_logged_out_is_unknown(world: World) -> None:
    for _ in range(3):
        person = await world.it.invite()
        await changed_while_calling(
            world,
            reading(world, person.session, "/v1/models"),
            lambda person=person: world.it.ok("POST", "/session/logout", {}, key=person.session),  # type: ignore[misc]
            afterwards=(401, "key_unknown"),
        )


async def test_calls_that_are_being_admitted_while_the_key_goes_are_not_admitted_on_the_old_state(world: World) -> None:
    """Look-ups and holds under way: many clients at once, so that some are at every step as the key is deleted."""
    for _ in range(5):
        key = await world.key(max_budget=1)
        deleted_at = float("inf")
        calls: list[tuple[float, Told]] = []

        async def once(number: int, key: Key = key, calls: list[tuple[float, Told]] = calls) -> None:
            for _ in range(6):
                began = time.monotonic()
                calls.append((began, (await world.call(key, "mock", url=world.urls[number % 2])).told))

        calling = [asyncio.create_task(once(number)) for number in range(10)]
        await world.it.ok("POST", "/key/delete", {"keys": [key.token]})
        deleted_at = time.monotonic()
        await asyncio.gather(*calling)
        assert {told for began, told in calls if began > deleted_at} <= {(401, "key_unknown")}
        assert {told for _, told in calls} <= {(401, "key_unknown"), (200, None)}
        assert (await world.call(key, "mock")).told == (401, "key_unknown")


# Workers that can't be reached


async def test_a_frozen_worker_holds_a_change_up_for_the_bound_at_most_and_wakes_without_its_old_state(
    world: World,
) -> None:
    key, other = await world.key(), await world.key()
    content = {"model_list": models(world.provider), **CONTENT}
    async with worker_process(world.it, content) as worker:
        for each in (key, other):
            assert (await world.call(each, "mock", url=worker.url)).status == 200
        worker.freeze()
        late = asyncio.create_task(world.call(key, "mock", url=worker.url))
        began = time.monotonic()
        await world.it.ok("POST", "/key/block", {"key": key.token})
        assert time.monotonic() - began < BOUND_SECONDS + SLACK_SECONDS
        worker.wake()
        assert (await late).told in {(401, "key_blocked"), (503, "unavailable")}

        async def joined_again() -> bool:
            return (await world.call(other, "mock", url=worker.url)).status == 200

        await eventually(joined_again, 10)
        assert (await world.call(key, "mock", url=worker.url)).told == (401, "key_blocked")


async def test_a_change_waits_for_a_worker_that_only_hesitates(world: World) -> None:
    key = await world.key()
    async with worker_process(world.it, {"model_list": models(world.provider), **CONTENT}) as worker:
        for _ in range(3):
            assert (await world.call(key, "mock", url=worker.url)).status == 200
            worker.freeze()
            blocking = asyncio.create_task(world.it.ok("POST", "/key/block", {"key": key.token}))

            async def blocked() -> bool:
                return (await world.call(key, "mock")).told == (401, "key_blocked")

            await eventually(blocked)
            assert not blocking.done()
            worker.wake()
            await blocking
            assert (await world.call(key, "mock", url=worker.url)).told == (401, "key_blocked")
            await world.it.ok("POST", "/key/unblock", {"key": key.token})


async def test_a_killed_worker_holds_a_change_up_for_the_bound_at_most(world: World) -> None:
    key = await world.key()
    async with worker_process(world.it, {"model_list": models(world.provider), **CONTENT}) as worker:
        assert (await world.call(key, "mock", url=worker.url)).status == 200
        worker.kill()
        began = time.monotonic()
        await world.it.ok("POST", "/key/block", {"key": key.token})
        assert time.monotonic() - began < BOUND_SECONDS + SLACK_SECONDS


async def test_a_worker_that_ends_in_order_holds_no_change_up(world: World) -> None:
    key = await world.key()
    async with second_worker(world.it) as url:
        assert (await world.call(key, "mock", url=url)).status == 200
    began = time.monotonic()
    await world.it.ok("POST", "/key/block", {"key": key.token})
    assert time.monotonic() - began < BOUND_SECONDS


async def test_a_worker_that_ends_waits_for_the_calls_under_way_and_settles_them(world: World) -> None:
    key = await world.key(max_budget=1)
    await world.forget()
    async with second_worker(world.it) as url:
        body = {"model": "held", "messages": HELLO, "max_tokens": 30}
        calling = asyncio.create_task(world.it.request("POST", "/v1/chat/completions", body, key=key.key, url=url))
        await world.reached(1, "held")
        ending = asyncio.create_task(world.go())
    await ending
    assert (await calling)[0] == 200
    assert await world.spent(key.scope) == 20_000_000


# Budgets away


@pytest_asyncio.fixture
async def apart(provider: str) -> AsyncIterator[Any]:
    async with world_apart(provider, models(provider), CONTENT) as made:
        yield made


async def test_without_budgets_nothing_is_admitted_and_managing_goes_on(apart: Any) -> None:
    world, budgets = apart
    key, other = await world.key(), await world.key()
    assert (await world.call(key, "mock")).status == 200
    await budgets.go()
    assert (await world.call(key, "mock")).told == (503, "budgets_unavailable")

    async def run_out() -> bool:
        return bool((await world.call(key, "mock")).told == (503, "unavailable"))

    await eventually(run_out, BOUND_SECONDS + SLACK_SECONDS)
    assert (await world.call(key, "mock")).headers["Retry-After"] == "1"
    assert (await world.it.ok("GET", "/key/info", key=key.key))["key"] == key.token
    assert (await world.it.ok("GET", "/v1/models", key=key.key))["data"]
    assert (await world.key()).key.startswith("sk-")
    # A change that workers go by can't be waited for; it stands, and this worker asks its owner anew.
    status, answer = await world.it.call("POST", "/key/block", {"key": other.token})
    assert (status, answer["error"]["reason"]) == (503, "unavailable")
    assert (await world.call(other, "mock")).told == (401, "key_blocked")
    await budgets.come_back()

    async def back() -> bool:
        return bool((await world.call(key, "mock")).status == 200)

    await eventually(back, 15)
    await world.it.ok("POST", "/key/block", {"key": other.token})
    assert (await world.call(other, "mock")).told == (401, "key_blocked")


async def test_a_call_under_way_while_budgets_is_away_is_answered_and_settled_later(apart: Any) -> None:
    world, budgets = apart
    key = await world.key(max_budget=1)
    for stream in (False, True):
        await world.forget()
        calling = asyncio.create_task(world.call(key, "held", max_tokens=30, stream=stream))
        await world.reached(1, "held")
        await budgets.go()
        await world.go()
        answer = await calling
        assert answer.status == 200
        assert "x-litellm-response-cost" not in answer.headers
        await budgets.come_back()
        await world.no_hold_stays_open()
    await world.books_agree()
    spends = await world.owner.fetch("select spend_nano_usd, status from budgets.ledger where token = $1", key.token)
    assert {tuple(row) for row in spends} == {(20_000_000, "success")} and len(spends) == 2


async def test_a_hold_that_is_placed_after_the_worker_gave_up_waiting_is_given_back(world: World) -> None:
    key = await world.key(max_budget=1)
    assert (await world.call(key, "mock")).status == 200
    async with world.owner.transaction():
        await world.owner.execute("select from budgets.scopes where scope = $1 for update", key.scope)
        assert (await world.call(key, "mock")).told == (503, "budgets_unavailable")
    await world.no_hold_stays_open()
    assert (await world.call(key, "mock")).status == 200


async def test_a_settlement_that_is_asked_for_again_is_made_once(world: World) -> None:
    key = await world.key(max_budget=1)
    async with world.owner.transaction():
        await world.owner.execute("lock table budgets.ledger in share mode")
        answer = await world.call(key, "mock")  # answered once the gateway has waited long enough for the settlement
        assert answer.status == 200
        assert "x-litellm-response-cost" not in answer.headers
    await world.no_hold_stays_open()
    await world.books_agree()
    assert len(await world.rows(key)) == 1


async def test_what_nats_lost_is_made_up_for(world: World) -> None:
    key = await world.key()
    for running in world.it.composition.services.values():
        await running.wire.jetstream.delete_stream(running.wire.stream_of(running.service.name))
    await changed_while_calling(
        world,
        chat(world, key),
        lambda: world.it.ok("POST", "/key/block", {"key": key.token}),
        afterwards=(401, "key_blocked"),
    )
    await world.it.ok("POST", "/key/unblock", {"key": key.token})
    for url in world.urls:
        assert (await world.call(key, "mock", url=url)).status == 200
    await eventually(lambda: _all_streams_are_there(world), 10)


async def _all_streams_are_there(world: World) -> bool:
    try:
        for running in world.it.composition.services.values():
            await running.wire.jetstream.stream_info(running.wire.stream_of(running.service.name))
    except nats.js.errors.NotFoundError:
        return False
    return True
