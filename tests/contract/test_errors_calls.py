"""What refuses a model call: the model, the budget, the price, the provider (contract §1.4, §5.2, §5.3)."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.support.errors_world import CALL, World, errors_world, keyed
from tests.support.flow import CHAT
from tests.support.refusals import read_refusal
from tests.support.upstream import running_upstream

WAYS = ["reject-400", "rate-limit", "fail-401", "fail-403", "fail-404", "fail-500", "bad-json", "hang-up", "gated"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with running_upstream() as address:
        yield address


@pytest_asyncio.fixture(scope="module")
async def world(upstream: str) -> AsyncIterator[World]:
    async with errors_world(
        [*(provided(upstream, name) for name in WAYS), provided(upstream, "slow", timeout=0.2)]
    ) as made:
        yield made


def provided(upstream: str, name: str, **more: Any) -> dict[str, Any]:
    """A model of the provider that does not only answer."""
    params = {"model": f"openai/{name}", "api_base": f"{upstream}/v1", "api_key": "sk-upstream", **more}
    prices = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}
    return {"model_name": name, "litellm_params": {**params, **prices}}


async def test_a_model_that_may_not_be_called_and_an_unknown_one_get_the_same_answer(world: World) -> None:
    listed = await keyed(world, models=["mock-fast"])
    for key, kind in ((listed, "key"), (world.adas_key["key"], "user"), (await keyed(world), "key")):
        names = ["mock-priced", "nothing"] if kind == "user" or key == listed else ["nothing"]
        for name in names:
            refusal = await world.refused("POST", CALL, {**CHAT, "model": name}, key=key)
            assert (refusal.reason, refusal.param) == ("model_not_allowed", "model")
            assert refusal.type == f"{kind}_model_access_denied"
            assert name in refusal.message


async def test_a_call_over_budget_is_told_which_and_until_when(world: World) -> None:
    key = await keyed(world, max_budget=0.0001, budget_duration="1d")
    for _ in range(2):
        await world.it.ok("POST", CALL, CHAT, key=key)
    status, answer, headers = await world.it.request("POST", CALL, CHAT, key=key)
    refusal = read_refusal(CALL, status, answer, headers)
    assert (refusal.status, refusal.reason) == (429, "budget_exceeded")
    assert headers["x-should-retry"] == "false"
    assert 0 < int(headers["Retry-After"]) <= 24 * 3600
    info = await world.it.ok("GET", "/key/info", key=key)
    reset = datetime.fromisoformat(info["info"]["budget_reset_at"])
    for part in (f"key:{info['info']['key_id']}", "0.0001", f"{reset:%Y-%m-%dT%H:%M:%SZ}"):
        assert part in refusal.message, refusal


async def test_no_reset_is_promised_that_does_not_help(world: World) -> None:
    """The call alone is dearer than the budget: `Retry-After` is left out."""
    for call in (CHAT, {**CHAT, "stream": True}):
        key = await keyed(world, max_budget=0.00001, budget_duration="1d")
        status, answer, headers = await world.it.request("POST", CALL, call, key=key)
        assert read_refusal(CALL, status, answer, headers).reason == "budget_exceeded"
        assert headers["x-should-retry"] == "false" and "Retry-After" not in headers


async def test_a_budget_of_nothing_refuses_and_leaves_reading_alone(world: World) -> None:
    person = await world.it.invite(max_budget=0)
    key = (await world.it.ok("POST", "/key/generate", {"user_id": person.user_id}))["key"]
    refusal = await world.refused("POST", CALL, CHAT, key=key)
    assert refusal.reason == "budget_exceeded" and f"user:{person.user_id}" in refusal.message
    assert await world.it.ok("GET", "/v1/models", key=key)
    assert await world.it.ok("GET", "/key/info", key=key)


async def test_a_call_that_only_open_holds_stand_in_the_way_of_is_told_to_come_back(
    world: World, upstream: str
) -> None:
    key = await keyed(world, max_budget=0.0005)
    body = {**CHAT, "model": "gated", "max_tokens": 50, "stream": True}
    headers = {"Authorization": f"Bearer {key}"}
    async with world.it.http.post(world.it.url + CALL, json=body, headers=headers) as stream:
        assert stream.status == 200, await stream.text()
        await stream.content.readline()  # under way, and its hold open
        status, answer, answered = await world.it.request("POST", CALL, {**body, "stream": False}, key=key)
        refusal = read_refusal(CALL, status, answer, answered)
        async with world.it.http.post(f"{upstream}/go"):
            await stream.read()
    assert (refusal.status, refusal.reason) == (429, "budget_held"), refusal
    assert answered["Retry-After"] == "1" and "x-should-retry" not in answered


async def test_what_a_budget_can_not_bound_is_refused_under_one(world: World) -> None:
    key = await keyed(world, max_budget=1)
    refusal = await world.refused("POST", CALL, {**CHAT, "model": "unpriced"}, key=key)
    assert (refusal.status, refusal.reason, refusal.param) == (403, "price_unknown", "model")
    for name, value in (("service_tier", "priority"), ("web_search_options", {"a": 1}), ("audio", {"voice": "x"})):
        refusal = await world.refused("POST", CALL, {**CHAT, name: value}, key=key)
        assert (refusal.status, refusal.reason, refusal.param) == (400, "parameter_unpriced", name)
        assert name in refusal.message


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("model", "status", "reason"),
    [
        ("reject-400", 400, "upstream_rejected"),
        ("rate-limit", 429, "upstream_rate_limited"),
        ("fail-401", 502, "upstream_failed"),
        ("fail-403", 502, "upstream_failed"),
        ("fail-404", 502, "upstream_failed"),
        ("fail-500", 502, "upstream_failed"),
        ("bad-json", 502, "upstream_failed"),
        ("hang-up", 502, "upstream_failed"),
        ("slow", 504, "upstream_timeout"),
    ],
)
async def test_a_providers_failure_is_the_providers(
    world: World, model: str, status: int, reason: str, stream: bool
) -> None:
    """D26; and no detail of its, nor the credential it was called with."""
    key = await keyed(world, max_budget=50)
    body = {**CHAT, "model": model, "stream": stream}
    answered, answer, headers = await world.it.request("POST", CALL, body, key=key)
    refusal = read_refusal(CALL, answered, answer, headers)
    assert (refusal.status, refusal.reason) == (status, reason), refusal
    assert "sk-upstream" not in refusal.message and "internal details" not in refusal.message
    if reason == "upstream_rate_limited":
        assert headers["Retry-After"] == "7"
