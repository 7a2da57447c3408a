"""Model calls from end to end: sent on, metered, priced, settled once, and shown."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.eventually import eventually
from tests.support.gateway_world import NANO, PROVIDERS_KEY, TOKEN, WORDS, Key, World, gateway_world, model, nano
from tests.support.installation import MASTER_KEY
from tests.support.upstream import WORDS as TEXT

CHAT: dict[str, Any] = {"max_tokens": 5}


def models(provider: str) -> list[dict[str, Any]]:
    return [
        *(model(name, provider) for name in ("paid", "gated", "usage-in-last")),
        model("asked", provider, "paid"),
        model("twenty", provider, info={"max_output_tokens": WORDS}),
        model("per-million", provider, input_cost_per_token="0.000001", output_cost_per_token="0.000002"),
        model("cached", provider, input_cost_per_token="0.000001", cache_read_input_token_cost="0.0000001"),
        model("gpt-4o-mini", provider, input_cost_per_token=None, output_cost_per_token=None),
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


# Metered, priced, settled, shown


async def test_a_plain_call_is_answered_metered_and_settled(world: World) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, **CHAT)
    assert answer.status == 200
    assert answer.body["model"] == "paid"
    assert answer.body["choices"][0]["message"]["content"] == "".join(TEXT[:5])
    assert answer.body["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    window = await world.window(key.scope)
    assert (window["limit"], window["spent"], window["leased"]) == (NANO, 5 * TOKEN, 0)


async def test_an_answer_says_what_it_cost_and_what_is_spent_of_the_key(world: World) -> None:
    key = await world.key(max_budget=1)
    await world.call(key, **CHAT)
    headers = (await world.call(key, **CHAT)).headers
    (row, _) = await world.rows(key)
    assert headers["x-litellm-call-id"] == row["litellm_call_id"]
    assert headers["x-litellm-response-cost"] == "0.005"
    assert headers["x-litellm-key-spend"] == "0.01"
    assert headers["x-litellm-key-max-budget"] == "1"
    assert headers["x-litellm-model-group"] == "paid"
    assert headers["x-litellm-model-id"] == row["model_id"]
    assert headers["x-litellm-attempted-retries"] == "0"
    assert float(headers["x-litellm-response-duration-ms"]) > 0


async def test_the_provider_gets_its_own_name_its_own_key_and_the_cap(world: World) -> None:
    key = await world.key(max_budget=1)
    await world.call(key, "asked", max_tokens=7, user="end", metadata={"tags": ["t"]})
    *_, request = await world.seen_requests()
    assert request["body"] == {
        "model": "paid",
        "messages": [{"role": "user", "content": "Say hello."}],
        "user": "end",
        "max_completion_tokens": 7,
    }
    assert request["headers"]["authorization"] == f"Bearer {PROVIDERS_KEY}"
    assert key.key not in json.dumps(request)


async def test_a_call_is_in_the_logs_as_soon_as_it_is_answered(world: World) -> None:
    key = await world.key(max_budget=1, key_alias="in the logs", tags=["of the key"])
    answer = await world.call(
        key, **CHAT, user="end", metadata={"tags": ["of the call"]}, litellm_session_id="a session"
    )
    (row,) = await world.rows(key)
    assert row["api_key"] == key.token and row["user"] == key.user_id
    assert (row["status"], row["call_type"], row["request_id"]) == ("success", "acompletion", "up-1")
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (10, 5, 15)
    assert (row["model"], row["model_group"], row["custom_llm_provider"]) == ("openai/paid", "paid", "openai")
    assert (row["session_id"], row["end_user"], row["spend"]) == ("a session", "end", 0.005)
    assert row["request_tags"][:2] == ["of the call", "of the key"]
    assert row["metadata"]["cost_breakdown"] == {"input_cost": 0, "output_cost": 0.005, "total_cost": 0.005}
    assert row["metadata"]["usage_object"] == answer.body["usage"]
    assert row["metadata"]["user_api_key_alias"] == "in the logs"
    assert row["metadata"]["error_information"] is None
    assert row["startTime"] <= row["completionStartTime"] <= row["endTime"]


async def test_key_and_user_show_the_spend_within_five_seconds(world: World) -> None:
    key = await world.key(max_budget=1)
    await world.call(key, **CHAT)

    async def shown() -> bool:
        of_key = (await world.it.ok("GET", f"/key/info?key={key.token}"))["info"]["spend"]
        of_user = (await world.it.ok("GET", f"/user/info?user_id={key.user_id}"))["user_info"]["spend"]
        return (of_key, of_user) == (0.005, 0.005)

    await eventually(shown, 5.0)


async def test_input_and_output_are_priced_by_the_configuration(world: World) -> None:
    key = await world.key(max_budget=1)
    assert (await world.call(key, "per-million", max_tokens=20)).status == 200
    assert await world.spent(key.scope) == 10 * 1000 + 20 * 2000


async def test_cached_tokens_have_a_price_of_their_own(world: World) -> None:
    key = await world.key(max_budget=1)
    assert (await world.call(key, "cached", max_tokens=5)).status == 200
    assert await world.spent(key.scope) == 40 * 1000 + 60 * 100 + 5 * TOKEN
    (row,) = await world.rows(key)
    assert row["metadata"]["usage_object"]["prompt_tokens_details"] == {"cached_tokens": 60}


async def test_what_the_configuration_does_not_say_is_priced_by_the_table(world: World) -> None:
    key = await world.key(max_budget=1)
    (entry,) = [
        entry for entry in (await world.it.ok("GET", "/model/info"))["data"] if entry["model_name"] == "gpt-4o-mini"
    ]
    info = entry["model_info"]
    assert info["price_source"] == "genai-prices"
    input_usd, output_usd = nano(info["input_cost_per_token"]), nano(info["output_cost_per_token"])
    assert input_usd and output_usd
    assert (await world.call(key, "gpt-4o-mini", **CHAT)).status == 200
    assert await world.spent(key.scope) == 10 * input_usd + 5 * output_usd


async def test_a_completion_is_metered(world: World) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, path="completions", prompt="Say hello.", max_tokens=5)
    assert (answer.body["choices"][0]["text"], answer.body["model"]) == ("".join(TEXT[:5]), "paid")
    (row,) = await world.rows(key)
    assert (row["call_type"], row["completion_tokens"], row["spend"]) == ("atext_completion", 5, 0.005)
    assert (await world.seen())[0]["max_tokens"] == 5


async def test_an_embedding_costs_its_input_and_no_cap_is_sent(world: World) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, "per-million", path="embeddings", input=["a", "b"])
    assert [row["embedding"] for row in answer.body["data"]] == [[0.25, 0.5]] * 2
    (row,) = await world.rows(key)
    assert (row["call_type"], row["prompt_tokens"], row["completion_tokens"]) == ("aembedding", 13, 0)
    assert await world.spent(key.scope) == 13 * 1000
    assert (await world.seen())[0] == {"model": "per-million", "input": ["a", "b"]}


async def test_the_short_paths_do_the_same(world: World) -> None:
    key = await world.key()
    for path, body in (
        ("/chat/completions", {"messages": [{"role": "user", "content": "Say hello."}]}),
        ("/completions", {"prompt": "Say hello."}),
        ("/embeddings", {"input": "Say hello."}),
    ):
        assert (await world.it.call("POST", path, {"model": "paid", **body}, key=key.key))[0] == 200
    assert len(await world.rows(key)) == 3


async def test_the_master_key_calls_and_its_calls_stand_under_its_hash(world: World) -> None:
    answer = await world.call(MASTER_KEY, **CHAT)
    assert answer.status == 200
    row, *_ = await world.rows(hashlib.sha256(MASTER_KEY.encode()).hexdigest())
    assert (row["user"], row["spend"]) == ("default_user_id", 0.005)


# Streams


async def test_a_stream_comes_as_the_provider_sends_it_under_the_name_that_was_asked_for(world: World) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, "asked", stream=True, max_tokens=5)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *chunks, end = [event.removeprefix("data: ") for event in answer.body.split("\n\n") if event]
    decoded = [json.loads(chunk) for chunk in chunks]
    assert end == "[DONE]"
    assert {chunk["model"] for chunk in decoded} == {"asked"}
    assert [chunk["choices"][0]["delta"].get("content", "") for chunk in decoded] == [*TEXT[:5], ""]
    assert not any("usage" in chunk for chunk in decoded)
    assert (await world.seen("paid"))[0]["stream_options"] == {"include_usage": True}


async def test_a_stream_ends_with_its_usage_and_its_cost_where_that_is_asked_for(world: World) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, stream=True, max_tokens=5, stream_options={"include_usage": True})
    *_, last, end = [event.removeprefix("data: ") for event in answer.body.split("\n\n") if event]
    told = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.005}
    assert (json.loads(last)["choices"], json.loads(last)["usage"], end) == ([], told, "[DONE]")


async def test_a_stream_is_settled_before_its_end(world: World) -> None:
    key = await world.key(max_budget=1)
    async with world.streaming(key, max_tokens=5) as stream:
        while await stream.event() != "[DONE]":
            pass
        spent = "select spent_nano_usd, leased_nano_usd from budgets.windows where scope = $1"
        assert tuple(await world.owner.fetchrow(spent, key.scope) or ()) == (5 * TOKEN, 0)
        (row,) = await world.rows(key)
    assert (row["status"], row["completion_tokens"], row["spend"]) == ("success", 5, 0.005)


async def test_a_streams_row_says_when_it_began_to_answer(world: World) -> None:
    key = await world.key()
    async with world.streaming(key, "gated") as stream:
        await stream.event()
        await world.go()
        await stream.rest()
    (row,) = await world.rows(key)
    assert row["startTime"] < row["completionStartTime"] < row["endTime"]


async def test_a_completion_streams(world: World) -> None:
    key = await world.key(max_budget=1)
    answer = await world.call(key, path="completions", prompt="Say hello.", stream=True, max_tokens=3)
    assert answer.body.endswith("data: [DONE]\n\n")
    assert await world.spent(key.scope) == 3 * TOKEN


async def test_a_usage_that_comes_with_the_last_chunk_is_metered(world: World) -> None:
    key = await world.key(max_budget=1)
    assert (await world.call(key, "usage-in-last", stream=True, max_tokens=30)).status == 200
    assert await world.spent(key.scope) == 20 * TOKEN


# The cap


async def test_without_a_budget_only_the_callers_own_cap_is_sent(world: World) -> None:
    key = await world.key()
    await world.call(key)
    await world.call(key, max_tokens=9)
    none, own = await world.seen()
    assert "max_completion_tokens" not in none and "max_tokens" not in none
    assert own["max_completion_tokens"] == 9


async def test_while_a_budget_affords_eight_calls_the_models_maximum_is_sent(world: World) -> None:
    key = await world.key(max_budget=8 * WORDS * 0.001)
    await world.call(key, "twenty")
    assert (await world.seen())[0]["max_completion_tokens"] == WORDS


async def test_caps_shrink_with_what_is_left_down_to_one_token_and_no_cent_is_lost(world: World) -> None:
    key = await world.key(max_budget=0.1)
    while (answer := await world.call(key, "twenty")).status == 200:
        assert answer.body["choices"][0]["message"]["content"]
    assert answer.told == (429, "budget_exceeded")
    caps = [body["max_completion_tokens"] for body in await world.seen()]
    left, expected = 100, []
    while left:
        expected.append(max(1, left // 8))
        left -= expected[-1]
    assert caps == expected
    assert await world.spent(key.scope) == NANO // 10


async def test_an_explicit_cap_is_never_shortened(world: World) -> None:
    key = await world.key(max_budget=0.01)
    assert (await world.call(key, max_tokens=11)).told == (429, "budget_exceeded")
    assert (await world.call(key, max_tokens=10)).status == 200


# Refused here


async def test_a_refused_call_leaves_a_row_that_costs_nothing(world: World) -> None:
    key = await world.key(max_budget=0.001, models=["paid"])
    assert (await world.call(key, "twenty")).told == (403, "model_not_allowed")
    assert (await world.call(key, max_tokens=2)).told == (429, "budget_exceeded")
    assert (await world.call(key, api_base="http://evil.test")).told == (400, "override_not_allowed")

    async def three() -> bool:
        return len(await world.rows(key)) == 3

    await eventually(three)
    rows = {row["metadata"]["error_information"]["error_code"]: row for row in await world.rows(key)}
    assert set(rows) == {"400", "403", "429"}
    assert all(row["status"] == "failure" and row["spend"] == 0 for row in rows.values())
    assert (rows["403"]["model"], rows["429"]["model_group"]) == ("twenty", "paid")
    assert await world.spent(key.scope) == 0
    assert await world.seen() == []


async def test_a_call_by_nobody_leaves_no_row(world: World) -> None:
    before = await world.owner.fetchval("select count(*) from budgets.ledger")
    assert (await world.call("sk-nobody-has-this-key")).told == (401, "key_unknown")
    assert await world.owner.fetchval("select count(*) from budgets.ledger") == before


# Models


async def test_a_key_lists_the_models_that_it_may_call(world: World) -> None:
    user_id = await world.user(models=["paid", "twenty"])
    key = await world.key(user_id=user_id, models=["twenty"])
    listed = await world.it.ok("GET", "/v1/models", key=key.key)
    assert [row["id"] for row in listed["data"]] == ["twenty"]
    assert (await world.it.ok("GET", "/v1/models/twenty", key=key.key))["owned_by"] == "openai"
    assert (await world.it.call("GET", "/v1/models/paid", key=key.key))[0] == 404
    (info,) = (await world.it.ok("GET", "/model/info", key=key.key))["data"]
    assert info["model_info"]["max_output_tokens"] == WORDS
    assert "api_key" not in json.dumps(info) and world.provider not in json.dumps(info)


@pytest.mark.parametrize(
    ("fields", "type_"),
    [({"models": ["twenty"]}, "key_model_access_denied"), ({}, "user_model_access_denied")],
)
async def test_a_model_that_is_not_allowed_and_one_that_is_not_there_are_refused_alike(
    world: World, fields: dict[str, Any], type_: str
) -> None:
    user_id = await world.user(models=["twenty"] if not fields else [])
    key: Key = await world.key(user_id=user_id, **fields)
    for name in ("paid", "no such model"):
        answer = await world.call(key, name)
        assert answer.told == (403, "model_not_allowed")
        assert (answer.body["error"]["type"], answer.body["error"]["param"]) == (type_, "model")
