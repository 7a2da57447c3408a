"""OpenAI's official SDK for Python, unchanged: only its address and its key are ours."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.support.gateway_world import PROVIDERS_KEY, World, gateway_world, model
from tests.support.upstream import WORDS

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello."}]
NOBODYS = "sk-nobody-has-ever-had-this-key"


def models(provider: str) -> list[dict[str, Any]]:
    names = ("paid", "reject-400", "rate-limit", "fail-500", "cut-stream", "gated")
    return [*(model(name, provider) for name in names), model("slow", provider, timeout=0.3)]


@pytest_asyncio.fixture(scope="module")
async def world(provider: str) -> AsyncIterator[World]:
    async with gateway_world(provider, models(provider)) as made:
        yield made


@pytest.fixture
async def forgotten(world: World) -> World:
    await world.forget()
    return world


@pytest.fixture
async def client(world: World) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{world.it.url}/v1", api_key=(await world.key(max_budget=1)).key) as made:
        yield made


@pytest.fixture
async def blocking(world: World) -> AsyncIterator[OpenAI]:
    """The synchronous client; to be used in a thread."""
    with OpenAI(base_url=f"{world.it.url}/v1", api_key=(await world.key(max_budget=1)).key) as made:
        yield made


def client_of(world: World, key: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{world.it.url}/v1", api_key=key)


# What works


async def test_a_chat_completion(client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(model="paid", messages=MESSAGES, max_tokens=5)
    assert answer.choices[0].message.content == "".join(WORDS[:5])
    assert answer.model == "paid"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert answer._request_id


async def test_a_stream(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="paid", messages=MESSAGES, max_tokens=5, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(WORDS[:5])
    assert {chunk.model for chunk in chunks} == {"paid"}
    assert all(chunk.usage is None for chunk in chunks)


async def test_a_stream_with_its_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="paid", messages=MESSAGES, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in stream]
    assert last.choices == [] and last.usage is not None
    assert (last.usage.total_tokens, last.usage.model_extra) == (15, {"cost": 0.005})


async def test_a_stream_by_its_helper(client: AsyncOpenAI) -> None:
    async with client.chat.completions.stream(model="paid", messages=MESSAGES, max_tokens=30) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "".join(WORDS)


async def test_a_stream_that_is_left_early_is_metered(forgotten: World) -> None:
    key = await forgotten.key(max_budget=1)
    async with client_of(forgotten, key.key) as client:
        stream = await client.chat.completions.create(model="gated", messages=MESSAGES, max_tokens=30, stream=True)
        await anext(aiter(stream))
        await stream.close()
    await forgotten.go()
    assert (await forgotten.row(key))["spend"] == 0.02


async def test_a_text_completion(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="paid", prompt="Say hello.", max_tokens=5)
    assert (answer.choices[0].text, answer.model) == ("".join(WORDS[:5]), "paid")


async def test_embeddings(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="paid", input=["a", "b"], encoding_format="float")
    assert [row.embedding for row in answer.data] == [[0.25, 0.5]] * 2
    assert (answer.usage.prompt_tokens, answer.model) == (13, "paid")


async def test_models(client: AsyncOpenAI) -> None:
    listed = [entry.id async for entry in client.models.list()]
    assert sorted(listed) == sorted(entry["model_name"] for entry in models(""))
    assert (await client.models.retrieve("paid")).owned_by == "openai"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("no such model")


async def test_raw_answers_show_what_a_call_cost(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="paid", messages=MESSAGES, max_tokens=5)
    assert raw.headers["x-litellm-response-cost"] == "0.005"
    assert raw.headers["x-litellm-key-spend"] == "0.005"


async def test_further_fields_go_through_as_they_are(forgotten: World, client: AsyncOpenAI) -> None:
    await client.chat.completions.create(
        model="paid", messages=MESSAGES, max_completion_tokens=5, extra_body={"top_k": 3, "metadata": {"tags": ["sdk"]}}
    )
    (sent,) = await forgotten.seen()
    assert (sent["top_k"], sent["max_completion_tokens"], "metadata" in sent) == (3, 5, False)


async def test_the_synchronous_client(blocking: OpenAI) -> None:
    def work() -> tuple[str | None, str, list[float], list[str]]:
        answer = blocking.chat.completions.create(model="paid", messages=MESSAGES, max_tokens=5)
        stream = blocking.chat.completions.create(model="paid", messages=MESSAGES, max_tokens=5, stream=True)
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        vector = blocking.embeddings.create(model="paid", input="a", encoding_format="float").data[0].embedding
        return answer.choices[0].message.content, streamed, vector, [entry.id for entry in blocking.models.list()]

    text, streamed, vector, names = await asyncio.to_thread(work)
    assert text == streamed == "".join(WORDS[:5])
    assert vector == [0.25, 0.5]
    assert "paid" in names


# What is refused


async def refused(client: AsyncOpenAI, error: type[openai.APIStatusError], **call: Any) -> openai.APIStatusError:
    with pytest.raises(error) as caught:
        await client.chat.completions.create(**{"messages": MESSAGES, "max_tokens": 5, **call})
    assert type(caught.value) is error
    return caught.value


async def test_a_key_that_nobody_has(world: World) -> None:
    async with client_of(world, NOBODYS) as client:
        error = await refused(client, openai.AuthenticationError, model="paid")
    assert (error.status_code, error.code, error.type, error.param) == (401, "401", "token_not_found_in_db", "key")
    assert NOBODYS not in str(error)


async def test_a_blocked_key(world: World) -> None:
    key = await world.key()
    await world.it.ok("POST", "/key/block", {"key": key.token})
    async with client_of(world, key.key) as client:
        error = await refused(client, openai.AuthenticationError, model="paid")
    assert isinstance(error.body, dict) and error.body["reason"] == "key_blocked"


async def test_a_model_that_is_not_allowed(client: AsyncOpenAI) -> None:
    error = await refused(client, openai.PermissionDeniedError, model="no such model")
    assert (error.param, error.type) == ("model", "key_model_access_denied")


async def test_what_is_malformed(forgotten: World, client: AsyncOpenAI) -> None:
    error = await refused(client, openai.BadRequestError, model="paid", n=0)
    assert (error.param, error.type) == ("n", "invalid_request_error")
    error = await refused(client, openai.BadRequestError, model="reject-400")
    assert error.param == "temperature" and PROVIDERS_KEY not in str(error)
    assert len(await forgotten.seen()) == 1


async def test_an_exhausted_budget_is_not_asked_again(forgotten: World) -> None:
    key = await forgotten.key(max_budget=0.004)
    async with client_of(forgotten, key.key) as client:
        error = await refused(client, openai.RateLimitError, model="paid")
        assert error.type == "budget_exceeded"
        assert error.response.headers["x-should-retry"] == "false"
        assert error.response.headers["x-litellm-call-id"]
        assert error.response.request.headers["x-stainless-retry-count"] == "0"
    assert await forgotten.seen() == []


async def test_what_only_open_holds_are_in_the_way_of_is_asked_again_until_it_goes_through(forgotten: World) -> None:
    key = await forgotten.key(max_budget=0.04)
    async with client_of(forgotten, key.key) as client:
        stream = await client.chat.completions.create(model="gated", messages=MESSAGES, max_tokens=40, stream=True)
        waiting = asyncio.ensure_future(
            client.chat.completions.with_raw_response.create(model="paid", messages=MESSAGES, max_tokens=10)
        )
        await forgotten.row(key)  # of the refusal
        await forgotten.go()
        raw = await waiting  # a second later
        assert raw.http_request.headers["x-stainless-retry-count"] == "1"
        async for _ in stream:
            pass


@pytest.mark.parametrize(
    ("name", "error", "seen"),
    [
        ("rate-limit", openai.RateLimitError, 1),
        ("fail-500", openai.InternalServerError, 1),
        ("slow", openai.InternalServerError, 1),
    ],
)
async def test_a_provider_that_fails(
    forgotten: World, name: str, error: type[openai.APIStatusError], seen: int
) -> None:
    key = await forgotten.key(max_budget=1)
    async with client_of(forgotten, key.key) as client:
        caught = await refused(client.with_options(max_retries=0), error, model=name)
    assert caught.status_code == {"rate-limit": 429, "fail-500": 502, "slow": 504}[name]
    assert len(await forgotten.seen()) == seen


async def test_a_stream_that_breaks_is_an_error(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="cut-stream", messages=MESSAGES, max_tokens=5, stream=True)
    with pytest.raises(openai.APIError) as caught:
        async for _ in stream:
            pass
    assert caught.value.type == "upstream_error"
