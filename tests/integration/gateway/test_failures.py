"""What can become of a call that is sent on: it fails, goes to another deployment, breaks off, or its client goes."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.gateway_world import PROVIDERS_KEY, TOKEN, World, gateway_world, model

NOWHERE = "http://127.0.0.1:9"

# Every way a call can fail at the provider: what the client is told, and whether it costs the whole hold (§1.4, §3.7).
FREE, ALL_HELD = False, True
FAILURES = {
    "reject-400": (400, "upstream_rejected", FREE),
    "rate-limit": (429, "upstream_rate_limited", FREE),
    "fail-401": (502, "upstream_failed", FREE),
    "fail-403": (502, "upstream_failed", FREE),
    "fail-404": (502, "upstream_failed", FREE),
    "fail-500": (502, "upstream_failed", FREE),
    "fail-503": (502, "upstream_failed", FREE),
    "redirect": (502, "upstream_failed", FREE),
    "error-in-200": (502, "upstream_failed", FREE),
    "nowhere": (502, "upstream_failed", FREE),
    "cut": (502, "upstream_failed", ALL_HELD),
    "hang-up": (502, "upstream_failed", ALL_HELD),
    "bad-json": (502, "upstream_failed", ALL_HELD),
    "no-object": (502, "upstream_failed", ALL_HELD),
    "slow": (504, "upstream_timeout", ALL_HELD),
}
UNMETERED = ("no-usage", "strange-usage")
STREAMED = ("gated", "held", "cut-stream", "unfinished-stream", "error-late", "error-first", "endless")


def models(provider: str) -> list[dict[str, Any]]:
    names = [name for name in FAILURES if name not in ("slow", "nowhere")]
    first: dict[str, Any] = {"weight": 1_000_000}
    second: dict[str, Any] = {"weight": 1}
    return [
        *(model(name, provider) for name in ("overbill", *names, *UNMETERED, *STREAMED)),
        model("slow", provider, timeout=0.3),
        model("nowhere", provider, api_base=f"{NOWHERE}/v1"),
        model("second-is-well", provider, "fail-500", **first),
        model("second-is-well", provider, "paid", **second),
        model("second-is-busy", provider, "fail-503", **first),
        model("second-is-busy", provider, "rate-limit", **second),
        model("first-is-nowhere", provider, api_base=f"{NOWHERE}/v1", **first),
        model("first-is-nowhere", provider, "paid", **second),
        model("first-cuts", provider, "cut", **first),
        model("first-cuts", provider, "paid", **second),
        model("first-rejects", provider, "reject-400", **first),
        model("first-rejects", provider, "paid", **second),
        *(model("four-that-fail", provider, f"fail-{status}") for status in (500, 503)),
        *(model("four-that-fail", f"{provider}/{number}", "fail-500") for number in (1, 2)),
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


# What can go wrong at the provider


@pytest.mark.parametrize("name", FAILURES)
async def test_a_call_that_fails_says_so_and_costs_nothing_or_all_that_was_held(world: World, name: str) -> None:
    status, reason, costs_all = FAILURES[name]
    key = await world.key(max_budget=1)
    answer = await world.call(key, name, max_tokens=30)
    assert answer.told == (status, reason)
    assert PROVIDERS_KEY not in json.dumps(answer.body)
    assert (await world.settled(key.scope)) == (30 * TOKEN if costs_all else 0)
    row = await world.row(key)
    assert row["status"] == "failure" and row["spend"] == (0.03 if costs_all else 0)
    error = row["metadata"]["error_information"]
    assert (error["error_code"], error["error_class"]) == (str(status), "UpstreamRefused")


async def test_a_providers_rate_limit_says_when_to_come_back(world: World) -> None:
    assert (await world.call(await world.key(), "rate-limit")).headers["Retry-After"] == "7"


@pytest.mark.parametrize("name", UNMETERED)
async def test_an_answer_without_a_believable_usage_costs_all_that_was_held(world: World, name: str) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, name, max_tokens=30)
    assert answer.status == 200
    assert answer.headers["x-litellm-response-cost"] == "0.03"
    assert await world.spent(key.scope) == 30 * TOKEN


async def test_what_a_provider_bills_over_the_hold_is_the_houses(world: World) -> None:
    key = await world.key(max_budget=0.05)
    answer = await world.call(key, "overbill", max_tokens=30)
    assert answer.headers["x-litellm-response-cost"] == "0.03"
    assert await world.spent(key.scope) == 30 * TOKEN
    (row,) = await world.rows(key)
    assert (row["spend"], row["completion_tokens"]) == (0.03, 1_000_000)
    *_, exceeded = await world.events("HoldExceeded")
    assert exceeded["hold_id"] == row["litellm_call_id"]
    assert (exceeded["held_nano_usd"], exceeded["billed_nano_usd"]) == (30 * TOKEN, 1_000_000 * TOKEN)


# Streams that break


@pytest.mark.parametrize("name", ["cut-stream", "unfinished-stream", "error-late"])
async def test_a_stream_that_breaks_ends_with_an_error_and_costs_all_that_was_held(world: World, name: str) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, name, stream=True, max_tokens=30)
    *_, last = [event.removeprefix("data: ") for event in answer.body.split("\n\n") if event]
    assert json.loads(last)["error"]["code"] == "502"
    assert await world.spent(key.scope) == 30 * TOKEN
    (row,) = await world.rows(key)
    assert (row["status"], row["metadata"]["error_information"]["error_code"]) == ("failure", "502")


async def test_a_stream_that_never_begins_is_refused_and_costs_nothing(world: World) -> None:
    key = await world.key(max_budget=1)
    assert (await world.call(key, "error-first", stream=True, max_tokens=30)).told == (429, "upstream_rate_limited")
    assert await world.settled(key.scope) == 0
    assert (await world.row(key))["status"] == "failure"


# Another deployment


@pytest.mark.parametrize("name", ["second-is-well", "first-is-nowhere"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_fails_goes_to_another_deployment(world: World, name: str, stream: bool) -> None:
    # The budget pays for one call at a time: what the first attempt held must be back before the second holds.
    key = await world.key(max_budget=0.02)
    answer = await world.call(key, name, max_tokens=20, stream=stream)
    assert answer.status == 200
    assert answer.headers["x-litellm-attempted-retries"] == "1"
    (row,) = await world.rows(key)
    assert (row["metadata"]["attempted_retries"], row["model"], row["spend"]) == (1, "openai/paid", 0.02)
    assert row["model_id"] == answer.headers["x-litellm-model-id"]


async def test_the_last_deployments_refusal_is_the_callers_and_leaves_the_only_row(world: World) -> None:
    key = await world.key(max_budget=0.02)
    answer = await world.call(key, "second-is-busy", max_tokens=20)
    assert answer.told == (429, "upstream_rate_limited")
    row = await world.row(key)
    assert (row["metadata"]["attempted_retries"], row["model"], row["spend"]) == (1, "openai/rate-limit", 0)


async def test_no_more_than_two_other_deployments_are_tried(world: World) -> None:
    assert (await world.call(await world.key(), "four-that-fail")).told == (502, "upstream_failed")
    assert len(await world.seen()) == 3


@pytest.mark.parametrize(("name", "spent"), [("first-cuts", 20 * TOKEN), ("first-rejects", 0)])
async def test_what_may_have_been_heard_or_is_the_callers_fault_is_not_tried_again(
    world: World, name: str, spent: int
) -> None:
    key = await world.key(max_budget=1)
    assert (await world.call(key, name, max_tokens=20)).status in (400, 502)
    assert await world.settled(key.scope) == spent
    assert len(await world.seen()) == 1


# The client goes away


async def test_a_stream_whose_client_goes_away_is_metered_to_its_end(world: World) -> None:
    key = await world.key(max_budget=1)
    async with world.streaming(key, "gated", max_tokens=30) as stream:
        assert "word0" in await stream.event()
    await world.go()
    row = await world.row(key)
    assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == ("success", 10, 20)
    assert await world.settled(key.scope) == 20 * TOKEN


async def test_a_client_that_reads_nothing_and_goes_away_is_charged_what_the_provider_sent(world: World) -> None:
    key = await world.key(max_budget=1)
    async with world.streaming(key, "endless", max_tokens=400):
        pass
    assert (await world.row(key))["completion_tokens"] == 300
    assert await world.settled(key.scope) == 300 * TOKEN


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_before_the_answer_begins_is_charged_all_the_same(
    world: World, stream: bool
) -> None:
    key = await world.key(max_budget=1)
    calling = asyncio.create_task(world.call(key, "held", max_tokens=30, stream=stream))
    await world.reached(1, "held")
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    assert (await world.window(key.scope))["leased"] == 30 * TOKEN
    await world.go()
    row = await world.row(key)
    assert (row["status"], row["completion_tokens"], row["spend"]) == ("success", 20, 0.02)
    assert await world.settled(key.scope) == 20 * TOKEN
