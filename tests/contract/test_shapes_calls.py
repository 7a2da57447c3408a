"""Answers about models, calls, spend and health, and recorded errors, field by field (contract §3.7, §3.8, §1.3)."""

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest_asyncio

from keystead.app import SERVICES
from tests.support.eventually import eventually
from tests.support.installation import MASTER_KEY
from tests.support.objects import SPEND_ROW, USER_INFO
from tests.support.shapes import HASH, TIME, UUID, Number, Shape, amount, check, exactly, maybe, money, number, read
from tests.support.shapes_world import CHAT, World, shapes_world


@pytest_asyncio.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    async with shapes_world() as made:
        yield made


# Models, calls, spend, §3.7, §3.8.


async def test_the_models(world: World) -> None:
    row = {"id": str, "object": exactly("model"), "created": exactly(1677610602), "owned_by": exactly("openai")}
    for key in (MASTER_KEY, world.key["key"]):
        models = await world.ask("GET", "/v1/models", key=key)
        check({"object": exactly("list"), "data": [row]}, models)
        assert [model["id"] for model in models["data"]] == ["mock-fast", "mock-priced"]
    check(row, await world.ask("GET", "/v1/models/mock-fast"))


async def test_the_models_prices(world: World) -> None:
    """No key, no address, no null fields."""
    info = await world.ask("GET", "/model/info")
    params = {"model": str, "input_cost_per_token": number, "output_cost_per_token": number, "mock_response": str}
    facts = {
        "id": HASH,
        "db_model": exactly(False),
        "key": str,
        "litellm_provider": exactly("openai"),
        "input_cost_per_token": number,
        "output_cost_per_token": number,
        "cache_read_input_token_cost": number,
        "cache_creation_input_token_cost": number,
        "price_source": str,
    }
    check({"data": [{"model_name": str, "litellm_params": params, "model_info": facts}]}, info)
    fast, priced = info["data"]
    assert amount(fast["model_info"]["input_cost_per_token"]) == Decimal("0.000001")
    assert amount(priced["litellm_params"]["output_cost_per_token"]) == Decimal("0.01")
    (only,) = (await world.ask("GET", f"/model/info?litellm_model_id={fast['model_info']['id']}"))["data"]
    assert only == fast


USAGE: Shape = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}


async def test_a_chat_completion(world: World) -> None:
    text, headers = await world.text("POST", "/v1/chat/completions", CHAT, key=world.key["key"])
    answer = read(text)
    message = {"content": exactly("Hello from the mock model. This is a canned answer."), "role": exactly("assistant")}
    choice = {"finish_reason": exactly("stop"), "index": exactly(0), "message": message}
    check(
        {
            "id": re.compile(r"chatcmpl-.+"),
            "created": int,
            "model": exactly("mock-fast"),
            "object": exactly("chat.completion"),
            "choices": [choice],
            "usage": USAGE,
        },
        answer,
    )
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    check(UUID, headers["x-litellm-call-id"])
    check(HASH, headers["x-litellm-model-id"])
    assert headers["x-litellm-model-group"] == "mock-fast" and headers["x-litellm-attempted-retries"] == "0"
    assert headers["x-litellm-response-cost"] == "0.00005", "no noise, no exponent (D19)"
    assert headers["x-litellm-key-max-budget"] == "1" and Decimal(headers["x-litellm-key-spend"]) > 0
    assert float(headers["x-litellm-response-duration-ms"]) > 0


async def test_a_streamed_completion(world: World) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    text, headers = await world.text("POST", "/v1/chat/completions", body, key=world.key["key"])
    assert headers["Content-Type"].startswith("text/event-stream") and "x-litellm-response-cost" not in headers
    assert text.endswith("\n\n")
    lines = [line.removeprefix("data: ") for line in text.split("\n\n")[:-1]]
    assert lines[-1] == "[DONE]"
    first, *middle, last, usage = [read(line) for line in lines[:-1]]
    chunk = {"id": str, "created": int, "model": exactly("mock-fast"), "object": exactly("chat.completion.chunk")}
    delta = {"index": exactly(0), "delta": {"content": str, "role": exactly("assistant")}}
    check({**chunk, "choices": [{**delta, "finish_reason": maybe(str)}]}, _with_reason(first))
    for each in middle:
        check(
            {**chunk, "choices": [{"index": int, "delta": {"content": str}, "finish_reason": maybe(str)}]},
            _with_reason(each),
        )
    check({**chunk, "choices": [{"index": int, "delta": exactly({}), "finish_reason": exactly("stop")}]}, last)
    check({**chunk, "choices": exactly([]), "usage": {**USAGE, "cost": money}}, usage)
    assert str(usage["usage"]["cost"]) == "0.00005"
    assert {each["id"] for each in (first, *middle, last, usage)} == {first["id"]}


def _with_reason(chunk: dict[str, Any]) -> dict[str, Any]:
    """The recorded proxy leaves `finish_reason` out before the end, OpenAI sends null: either will do."""
    return {**chunk, "choices": [{"finish_reason": None, **choice} for choice in chunk["choices"]]}


async def test_a_text_completion_and_an_embedding(world: World) -> None:
    body = {"model": "mock-fast", "prompt": "Say hello.", "max_tokens": 20}
    answer = await world.ask("POST", "/v1/completions", body, key=world.key["key"])
    assert answer["object"] == "text_completion" and answer["model"] == "mock-fast"
    check(USAGE, answer["usage"])
    assert isinstance(answer["choices"][0]["text"], str)
    answer = await world.ask(
        "POST", "/v1/embeddings", {"model": "mock-fast", "input": ["a", "b"]}, key=world.key["key"]
    )
    row = {"object": exactly("embedding"), "index": int, "embedding": [number]}
    check([row], answer["data"])
    assert answer["object"] == "list" and [len(each["embedding"]) for each in answer["data"]] == [8, 8]


async def _rows(world: World, count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = await world.ask("GET", f"/spend/logs?user_id={world.user_id}&summarize=false")
        return len(found) >= count

    await eventually(are_there)
    return found


async def test_the_rows_of_calls(world: World) -> None:
    key = await world.ask("POST", "/key/generate", {"key_alias": "for rows", "max_budget": 1}, key=world.session)
    body = {**CHAT, "user": "end-user-7", "metadata": {"tags": ["t1"]}}
    await world.ask("POST", "/v1/chat/completions", body, key=key["key"])
    await world.ask("POST", "/v1/chat/completions", {"model": "mock-fast"}, key=key["key"])
    rows: list[dict[str, Any]] = []

    async def are_there() -> bool:
        rows[:] = await world.ask("GET", f"/spend/logs?api_key={key['token']}&summarize=false")
        return len(rows) == 2

    await eventually(are_there)
    check([SPEND_ROW], rows)
    failed, succeeded = sorted(rows, key=lambda row: str(row["status"]))
    assert (failed["status"], failed["spend"], failed["total_tokens"]) == ("failure", 0, 0)
    assert failed["metadata"]["error_information"]["error_code"] == "400"
    assert str(succeeded["spend"]) == "0.00005" and succeeded["metadata"]["error_information"] is None
    assert (succeeded["prompt_tokens"], succeeded["completion_tokens"], succeeded["total_tokens"]) == (10, 20, 30)
    costs = {name: str(cost) for name, cost in succeeded["metadata"]["cost_breakdown"].items()}
    assert costs == {"input_cost": "0.00001", "output_cost": "0.00004", "total_cost": "0.00005"}
    assert (succeeded["model"], succeeded["model_group"]) == ("openai/mock-fast", "mock-fast")
    assert succeeded["custom_llm_provider"] == "openai" and succeeded["end_user"] == "end-user-7"
    assert succeeded["request_tags"] == ["t1", "User-Agent: curl", "User-Agent: curl/7.88.1"]
    assert succeeded["cache_hit"] == "False" and succeeded["metadata"]["user_agent"] == "curl/7.88.1"
    assert succeeded["metadata"]["user_api_key_user_email"] == "ada@example.test"
    assert succeeded["metadata"]["user_api_key_alias"] == "for rows"


async def test_an_answers_call_id_is_its_rows(world: World) -> None:
    """By which a call is asked about later (§3.9), a refused one too."""
    key = await world.ask("POST", "/key/generate", {"max_budget": 0.00006}, key=world.session)
    ids = []
    for wanted in (200, 429):
        status, _, headers = await world.it.request("POST", "/v1/chat/completions", CHAT, key=key["key"])
        assert status == wanted
        ids.append(headers["x-litellm-call-id"])

    async def are_there() -> bool:
        rows = await world.ask("GET", f"/spend/logs?api_key={key['token']}")
        return sorted(row["litellm_call_id"] for row in rows) == sorted(ids)

    await eventually(are_there)


async def test_the_sums_of_days(world: World) -> None:
    row = (await _rows(world, 1))[0]
    day = row["startTime"][:10]
    sums = await world.ask("GET", f"/spend/logs?start_date={day}&end_date={day}")
    hashes = {name: money for name in sums[0] if HASH.fullmatch(name)}
    shape = {"startTime": exactly(day), "spend": money, "users": dict, "models": dict, **hashes}
    check([shape], sums)
    (only,) = sums
    assert only["users"][world.user_id] and hashes
    for amounts in (only["users"].values(), only["models"].values(), [only[name] for name in hashes]):
        assert all(money(each) for each in amounts)
        assert sum(map(amount, amounts)) == amount(only["spend"])


async def test_what_a_key_and_a_user_have_spent(world: World) -> None:
    """Exact: no float noise however many are added up (D19)."""
    key = await world.ask("POST", "/key/generate", {"max_budget": 1}, key=world.session)
    for _ in range(3):
        await world.ask("POST", "/v1/chat/completions", CHAT, key=key["key"])

    async def is_shown() -> bool:
        info = (await world.ask("GET", f"/key/info?key={key['key_id']}"))["info"]
        return (str(info["spend"]), str(info["total_spend"])) == ("0.00015", "0.00015") and info["last_active"]

    await eventually(is_shown)
    info = await world.ask("GET", "/user/info", key=world.session)
    check(USER_INFO, info)
    assert isinstance(info["user_info"]["spend"], Number)


async def test_a_budget(world: World) -> None:
    window = {
        "budget_duration": exactly("1d"),
        "window_start": TIME,
        "window_end": TIME,
        "limit": money,
        "spent": money,
        "presumed": money,
        "leased": money,
        "remaining": money,
        "pending_limit": maybe(money),
    }
    scope = f"key:{world.key['key_id']}"
    budget = await world.ask("GET", f"/keystead/v1/budgets/{scope}", key=world.session)
    check({"scope": exactly(scope), "enforcement": exactly("strict"), "windows": [window]}, budget)
    (only,) = budget["windows"]
    assert amount(only["remaining"]) == amount(only["limit"]) - amount(only["spent"]) - amount(only["leased"])


async def test_health(world: World) -> None:
    services = dict.fromkeys([service.name for service in SERVICES], exactly("healthy"))
    ready = {
        "status": exactly("healthy"),
        "db": exactly("connected"),
        "nats": exactly("connected"),
        "services": services,
    }
    for path in ("/health/readiness", "/readyz"):
        check(ready, await world.ask("GET", path, key=None))
    for path in ("/health/liveliness", "/health/liveness", "/livez"):
        text, _ = await world.text("GET", path, key=None)
        assert text == '"I\'m alive!"'
    deployment = {"model": str, "model_id": str}
    counts = {"healthy_count": int, "unhealthy_count": int}
    health = await world.ask("GET", "/health")
    check({"healthy_endpoints": [deployment], "unhealthy_endpoints": [{**deployment, "error": str}], **counts}, health)


async def test_metrics_name_no_person_and_no_key(world: World) -> None:
    text, headers = await world.text("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    for name in ("litellm_spend_metric", "litellm_total_tokens_metric", "litellm_proxy_total_requests_metric"):
        assert f"# TYPE {name}" in text
    assert "ada@example.test" not in text and world.key["key"] not in text


# Errors as they were recorded, in the one shape of §1.4.


async def test_recorded_errors(world: World) -> None:
    chat = {"model": "mock-fast"}
    for method, path, body, key, wanted in (
        ("GET", "/v1/models", None, None, ("401", "auth_error", None)),
        ("GET", "/key/info?key=sk-doesnotexist", None, "sk-doesnotexist", ("401", "token_not_found_in_db", "key")),
        ("POST", "/v1/chat/completions", chat, world.key["key"], ("400", "invalid_request_error", "messages")),
        ("GET", "/user/list", None, world.session, ("403", "auth_error", None)),
        (
            "POST",
            "/key/update",
            {"key": world.key["key"], "max_budget": 0.5},
            world.session,
            ("403", "auth_error", "max_budget"),
        ),
    ):
        error = (await world.ask(method, path, body, key=key))["error"]
        assert (error["code"], error["type"], error["param"]) == wanted, error
    weak = world.answers["weak"]["error"]
    assert (weak["code"], weak["type"], weak["param"]) == ("400", "validation_error", "password")


async def test_the_contracts_own_example_of_an_error(world: World) -> None:
    body = {"key_alias": "too-big", "max_budget": 100000}
    assert await world.ask("POST", "/key/generate", body, key=world.session) == {
        "error": {
            "message": "max_budget is over the upper bound: 100000 > 100",
            "type": "invalid_request_error",
            "param": "max_budget",
            "code": "400",
            "reason": "over_upper_bound",
        }
    }


async def test_money_is_answered_to_the_nano(world: World) -> None:
    """Rounded half-even to nine decimals, and never written as a float would be."""
    for sent, told in (
        ("0.1", "0.1"),
        ("0.00005", "0.00005"),
        ("4.9999999999999996e-05", "0.00005"),
        ("0.0000000005", "0"),
        ("0.0000000015", "0.000000002"),
        ("1e-9", "0.000000001"),
        ("99.999999999", "99.999999999"),
        ("33.0", "33"),
        ('"0.30"', "0.3"),
        ('"1e1"', "10"),
    ):
        data = f'{{"max_budget": {sent}, "auto_create_key": false}}'
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "Content-Type": "application/json"}
        async with world.it.http.post(f"{world.it.url}/user/new", data=data, headers=headers) as response:
            text = await response.text()
        assert re.search(rf'"max_budget":{re.escape(told)}[,}}]', text), (sent, text)
