"""Calls sent to a provider over HTTP, and everything that can become of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from services.gateway import reply as replies
from services.gateway import upstream as sending
from services.gateway.calls import Call
from services.gateway.models import Deployment
from services.gateway.pricing import Usage
from services.gateway.reply import Outcome, Reply, StreamedReply, UpstreamRefused
from services.gateway.upstream import Upstream, address
from tests.support.calls import chat, completion, deployment, embedding, mock_deployment
from tests.support.upstream import WORDS, running_upstream

KEY = "sk-upstream-secret"


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with running_upstream() as url:
        yield url


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    client = Upstream()
    await client.start()
    yield client
    await client.stop(drain_seconds=0)


def at(url: str, model: str = "gpt", **settings: Any) -> Deployment:
    return deployment(model, **({"api_base": f"{url}/v1", "api_key": KEY, "timeout_seconds": 20.0} | settings))


async def tell(provider: str, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(provider + path) as response:
        assert response.status == 204


async def seen(provider: str) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{provider}/seen") as response:
        requests: list[dict[str, Any]] = await response.json()
        return requests


async def refused(upstream: Upstream, given: Deployment, call: Call | None = None) -> UpstreamRefused:
    with pytest.raises(UpstreamRefused) as caught:
        await (upstream.stream if call is not None and call.stream else upstream.send)(given, call or chat(), 5)
    return caught.value


def told(refusal: UpstreamRefused) -> tuple[int, str, bool, bool]:
    return refusal.status, refusal.code, refusal.costs_nothing, refusal.retryable


async def echoed(upstream: Upstream, given: Deployment, call: Call, cap: int | None) -> dict[str, Any]:
    """What the provider was sent: path, headers, body."""
    reply = await upstream.send(given, call, cap)
    choice = reply.body["choices"][0]
    request: dict[str, Any] = json.loads(choice["text"] if "text" in choice else choice["message"]["content"])
    return request


async def events(reply: StreamedReply) -> list[str]:
    """The data of all events."""
    taken = [event.decode() async for event in reply]
    assert all(event.startswith("data: ") and event.endswith("\n\n") for event in taken)
    return [event.removeprefix("data: ").removesuffix("\n\n") for event in taken]


def chunks(data: list[str]) -> list[dict[str, Any]]:
    return [json.loads(text, parse_float=Decimal) for text in data if text != "[DONE]"]


def text_of(data: list[str]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks(data) for choice in chunk["choices"])


# Plain answers


async def test_an_answer_has_the_name_that_was_asked_for_and_its_usage(upstream: Upstream, provider: str) -> None:
    reply = await upstream.send(at(provider), chat(), 5)
    assert isinstance(reply, Reply)
    assert reply.body["model"] == "asked"
    assert reply.body["choices"][0]["message"]["content"] == "".join(WORDS[:5])
    assert (reply.status, reply.usage, reply.answer_id) == (200, Usage(10, 5), "up-1")
    assert reply.usage_reported == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


async def test_completions_and_embeddings_have_paths_of_their_own(upstream: Upstream, provider: str) -> None:
    await tell(provider, "/forget")
    completed = await upstream.send(at(provider), completion(), 5)
    embedded = await upstream.send(at(provider), embedding(input=["a", "b"]), 0)
    assert completed.body["choices"][0]["text"] == "".join(WORDS[:5])
    assert [len(row["embedding"]) for row in embedded.body["data"]] == [2, 2]
    assert (embedded.body["model"], embedded.usage) == ("asked", Usage(13, 0))
    first, second = await seen(provider)
    assert (first["path"], second["path"]) == ("/v1/completions", "/v1/embeddings")
    assert second["body"] == {"model": "gpt", "input": ["a", "b"]}


async def test_a_body_goes_upstream_exactly_but_for_what_is_ours(upstream: Upstream, provider: str) -> None:
    call = chat(temperature=Decimal("0.1"), seed=10**30, metadata={"tags": ["t"]}, litellm_session_id="s", user="u")
    request = await echoed(upstream, at(provider, "echo"), call, 5)
    assert request["body"] == {
        "model": "echo",
        "messages": [{"role": "user", "content": "Say hello."}],
        "temperature": 0.1,
        "seed": 10**30,
        "user": "u",
        "max_completion_tokens": 5,
    }


@pytest.mark.parametrize(
    ("provider_name", "name"),
    [("openai", "max_completion_tokens"), ("mistral", "max_tokens"), ("ollama", "max_tokens")],
)
async def test_the_cap_goes_under_the_one_name_that_the_provider_takes(
    upstream: Upstream, provider: str, provider_name: str, name: str
) -> None:
    call = chat(max_tokens=50, max_completion_tokens=40, max_output_tokens=30)
    request = await echoed(upstream, at(provider, "echo", provider=provider_name), call, 25)
    assert {key: value for key, value in request["body"].items() if key.startswith("max_")} == {name: 25}


async def test_the_cap_of_a_completion_has_its_old_name_everywhere(upstream: Upstream, provider: str) -> None:
    request = await echoed(upstream, at(provider, "echo"), completion(), 25)
    assert request["body"]["max_tokens"] == 25


async def test_a_call_that_nothing_bounds_has_no_cap(upstream: Upstream, provider: str) -> None:
    request = await echoed(upstream, at(provider, "echo"), chat(), None)
    assert [key for key in request["body"] if key.startswith("max_")] == []


async def test_the_provider_gets_its_credential_and_nothing_of_the_clients(upstream: Upstream, provider: str) -> None:
    request = await echoed(upstream, at(provider, "echo", organization="org-1"), chat({"cookie": "token=x"}), 5)
    assert request["headers"]["authorization"] == f"Bearer {KEY}"
    assert request["headers"]["openai-organization"] == "org-1"
    assert request["headers"]["user-agent"] == "keystead"
    assert "cookie" not in request["headers"]
    bare = await echoed(upstream, at(provider, "echo", api_key=None), chat(), 5)
    assert "authorization" not in bare["headers"]


async def test_azure_has_a_header_and_paths_of_its_own(upstream: Upstream, provider: str) -> None:
    given = at(provider, "echo", provider="azure", api_base=provider, api_version="2025-01-01")
    request = await echoed(upstream, given, chat(), 5)
    assert request["path"] == "/openai/deployments/echo/chat/completions?api-version=2025-01-01"
    assert request["headers"]["api-key"] == KEY
    assert "authorization" not in request["headers"]
    undated = await echoed(upstream, at(provider, "echo", provider="azure", api_base=provider), chat(), 5)
    assert undated["path"] == "/openai/v1/chat/completions"
    assert address(deployment("a/b", provider="azure", api_version="v&1"), chat().kind).endswith(
        "/openai/deployments/a%2Fb/chat/completions?api-version=v%261"
    )


@pytest.mark.parametrize("model", ["no-usage", "strange-usage"])
async def test_an_answer_whose_usage_can_not_be_read_has_none(upstream: Upstream, provider: str, model: str) -> None:
    reply = await upstream.send(at(provider, model), chat(), 5)
    assert reply.usage is None


async def test_of_a_reported_usage_only_numbers_are_kept(upstream: Upstream, provider: str) -> None:
    reply = await upstream.send(at(provider, "cached"), chat(), 5)
    assert reply.usage == Usage(100, 5, cache_read_tokens=60)
    assert reply.usage_reported == {
        "prompt_tokens": 100,
        "completion_tokens": 5,
        "total_tokens": 105,
        "prompt_tokens_details": {"cached_tokens": 60},
    }


async def test_a_provider_that_bills_too_much_is_believed_here(upstream: Upstream, provider: str) -> None:
    reply = await upstream.send(at(provider, "overbill"), chat(), 5)
    assert reply.usage == Usage(1_000_000, 1_000_000)


# Refusals


async def test_a_malformed_call_is_the_clients_fault_in_the_providers_words(upstream: Upstream, provider: str) -> None:
    refusal = await refused(upstream, at(provider, "reject-400"))
    assert told(refusal) == (400, "upstream_rejected", True, False)
    assert refusal.message == "The provider refused the call: Bad temperature. You sent Bearer (hidden)"
    assert refusal.param == "temperature"


async def test_a_providers_rate_limit_is_passed_on_with_its_wait(upstream: Upstream, provider: str) -> None:
    refusal = await refused(upstream, at(provider, "rate-limit"))
    assert told(refusal) == (429, "upstream_rate_limited", True, True)
    assert refusal.headers == {"Retry-After": "7"}


@pytest.mark.parametrize(("status", "retryable"), [(401, False), (403, False), (404, False), (500, True), (503, True)])
async def test_a_providers_own_trouble_is_a_bad_gateway(
    upstream: Upstream, provider: str, status: int, retryable: bool
) -> None:
    refusal = await refused(upstream, at(provider, f"fail-{status}"))
    assert told(refusal) == (502, "upstream_failed", True, retryable)
    assert "internal" not in refusal.message


async def test_redirects_are_not_followed(upstream: Upstream, provider: str) -> None:
    await tell(provider, "/forget")
    refusal = await refused(upstream, at(provider, "redirect"))
    assert told(refusal) == (502, "upstream_failed", True, False)
    assert len(await seen(provider)) == 1


async def test_an_error_in_a_200_is_an_error(upstream: Upstream, provider: str) -> None:
    refusal = await refused(upstream, at(provider, "error-in-200"))
    assert told(refusal) == (502, "upstream_failed", True, True)


@pytest.mark.parametrize("model", ["bad-json", "no-object", "cut", "hang-up"])
async def test_after_a_broken_answer_nobody_knows_the_cost(upstream: Upstream, provider: str, model: str) -> None:
    refusal = await refused(upstream, at(provider, model))
    assert told(refusal) == (502, "upstream_failed", False, False)


async def test_after_a_time_out_nobody_knows_the_cost(upstream: Upstream, provider: str) -> None:
    refusal = await refused(upstream, at(provider, "slow", timeout_seconds=0.5))
    assert told(refusal) == (504, "upstream_timeout", False, False)


async def test_a_provider_that_can_not_be_reached_costs_nothing(upstream: Upstream, unused_tcp_port: int) -> None:
    refusal = await refused(upstream, deployment(api_base=f"http://127.0.0.1:{unused_tcp_port}/v1"))
    assert told(refusal) == (502, "upstream_failed", True, True)
    assert str(unused_tcp_port) not in refusal.message


async def test_an_answer_without_end_is_cut(upstream: Upstream, provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "ANSWER_BYTES_MAX", 3_000_000)
    for call in (chat(), chat(stream=True)):
        refusal = await refused(upstream, at(provider, "huge"), call)
        assert told(refusal) == (502, "upstream_failed", False, False)


# Streams


async def streamed(upstream: Upstream, given: Deployment, **body: Any) -> tuple[list[str], Outcome]:
    reply = await upstream.stream(given, chat(stream=True, **body), 5)
    data = await events(reply)
    return data, await reply.finished


async def test_a_stream_comes_in_the_providers_chunks_under_the_name_asked_for(
    upstream: Upstream, provider: str
) -> None:
    data, outcome = await streamed(upstream, at(provider))
    assert data[-1] == "[DONE]"
    assert text_of(data) == "".join(WORDS[:5])
    assert {chunk["model"] for chunk in chunks(data)} == {"asked"}
    assert chunks(data)[-1]["choices"][0]["finish_reason"] == "length"
    assert outcome == Outcome(
        usage=Usage(10, 5),
        usage_reported={"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        answer_id="up-1",
    )


async def test_the_usage_is_always_asked_for_and_told_only_if_the_client_asked(
    upstream: Upstream, provider: str
) -> None:
    await tell(provider, "/forget")
    unasked, _ = await streamed(upstream, at(provider), stream_options={"include_obfuscation": False})
    asked, _ = await streamed(upstream, at(provider), stream_options={"include_usage": True})
    assert [request["body"]["stream_options"]["include_usage"] for request in await seen(provider)] == [True, True]
    assert not any("usage" in chunk for chunk in chunks(unasked))
    assert len(asked) == len(unasked) + 1
    assert chunks(asked)[-1]["choices"] == []
    assert chunks(asked)[-1]["usage"]["total_tokens"] == 15
    assert chunks(asked)[-1]["usage"]["cost"] == Decimal("0.00002")
    assert '"cost":0.00002}' in asked[-2]


async def test_a_provider_that_refuses_stream_options_gets_none(upstream: Upstream, provider: str) -> None:
    await tell(provider, "/forget")
    data, outcome = await streamed(upstream, at(provider, "usage-in-last", provider="mistral"))
    assert "stream_options" not in (await seen(provider))[0]["body"]
    assert text_of(data) == "Hi"
    assert "usage" not in data[1]
    assert outcome.usage == Usage(10, 20)


async def test_a_completion_streams_too(upstream: Upstream, provider: str) -> None:
    reply = await upstream.stream(at(provider), completion(stream=True), 5)
    data = await events(reply)
    assert "".join(choice["text"] for chunk in chunks(data) for choice in chunk["choices"]) == "".join(WORDS[:5])
    assert (await reply.finished).usage == Usage(10, 5)


async def test_a_stream_without_usage_is_complete_and_of_unknown_cost(upstream: Upstream, provider: str) -> None:
    data, outcome = await streamed(upstream, at(provider, "no-usage"))
    assert (data[-1], outcome.usage, outcome.failure) == ("[DONE]", None, None)


async def test_a_stream_that_said_all_needs_no_done(upstream: Upstream, provider: str) -> None:
    data, outcome = await streamed(upstream, at(provider, "no-done"))
    assert (data[-1], outcome.usage, outcome.failure) == ("[DONE]", Usage(10, 20), None)


@pytest.mark.parametrize("model", ["cut-stream", "unfinished-stream"])
async def test_a_stream_that_is_cut_ends_in_an_error_and_costs_the_whole_hold(
    upstream: Upstream, provider: str, model: str
) -> None:
    data, outcome = await streamed(upstream, at(provider, model))
    assert text_of(data[:-1]) == "Hel"
    assert chunks(data)[-1]["error"] == {
        "message": "The provider's answer was cut off",
        "type": "upstream_error",
        "param": None,
        "code": "502",
        "reason": "upstream_failed",
    }
    assert outcome.usage is None
    assert outcome.failure is not None
    assert not outcome.failure.costs_nothing


async def test_an_error_before_the_first_chunk_is_a_refusal(upstream: Upstream, provider: str) -> None:
    call = chat(stream=True)
    assert told(await refused(upstream, at(provider, "error-first"), call)) == (
        429,
        "upstream_rate_limited",
        True,
        True,
    )
    assert told(await refused(upstream, at(provider, "fail-500"), call)) == (502, "upstream_failed", True, True)
    assert told(await refused(upstream, at(provider, "no-stream"), call)) == (502, "upstream_failed", False, False)
    slow = await refused(upstream, at(provider, "slow", timeout_seconds=0.5), call)
    assert told(slow) == (504, "upstream_timeout", False, False)


async def test_an_error_among_the_chunks_ends_the_stream(upstream: Upstream, provider: str) -> None:
    data, outcome = await streamed(upstream, at(provider, "error-late"))
    assert (text_of(data[:-1]), chunks(data)[-1]["error"]["reason"]) == ("Hel", "upstream_failed")
    assert outcome.failure is not None
    assert not outcome.failure.costs_nothing


async def test_a_stream_that_takes_too_long_ends_in_an_error(upstream: Upstream, provider: str) -> None:
    data, outcome = await streamed(upstream, at(provider, "gated", timeout_seconds=1.0))
    assert chunks(data)[-1]["error"]["code"] == "504"
    assert (outcome.usage, outcome.failure is not None) == (None, True)


# Clients that go away


async def test_a_call_is_metered_to_its_end_when_the_client_is_gone(upstream: Upstream, provider: str) -> None:
    reply = await upstream.stream(at(provider, "gated"), chat(stream=True), 5)
    assert b"word0" in await anext(reply)
    reply.abandon()
    await tell(provider, "/go")
    assert (await reply.finished).usage == Usage(10, 20)
    assert [event async for event in reply] == []


async def test_a_client_that_is_cut_off_while_it_waits_is_gone(upstream: Upstream, provider: str) -> None:
    reply = await upstream.stream(at(provider, "gated"), chat(stream=True), 5)
    await anext(reply)
    waiting = asyncio.create_task(events(reply))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await tell(provider, "/go")
    assert (await reply.finished).usage == Usage(10, 20)
    assert [event async for event in reply] == []


async def test_a_client_that_does_not_read_holds_up_nothing_for_long(
    upstream: Upstream, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "CLIENT_STALL_SECONDS", 0.1)
    reply = await upstream.stream(at(provider, "endless"), chat(stream=True), 5)
    assert (await reply.finished).usage == Usage(10, 300)
    assert [event async for event in reply] == []


async def test_a_slow_client_gets_everything(upstream: Upstream, provider: str) -> None:
    reply = await upstream.stream(at(provider, "endless"), chat(stream=True), 5)
    assert len(await events(reply)) == 302


async def test_a_stream_is_settled_before_its_end_is_told(upstream: Upstream, provider: str) -> None:
    settled: list[Outcome] = []
    seen_at_end: list[int] = []

    async def settle(outcome: Outcome) -> None:
        await asyncio.sleep(0)
        settled.append(outcome)

    reply = await upstream.stream(at(provider), chat(stream=True), 5, settle)
    async for event in reply:
        if event == replies.DONE:
            seen_at_end.append(len(settled))
    assert seen_at_end == [1]
    assert settled[0].usage == Usage(10, 5)


async def test_a_stream_is_settled_when_the_client_is_gone_and_the_gateway_stops(provider: str) -> None:
    settled: list[Outcome] = []

    async def settle(outcome: Outcome) -> None:
        settled.append(outcome)

    upstream = Upstream()
    await upstream.start()
    reply = await upstream.stream(at(provider, "gated"), chat(stream=True), 5, settle)
    reply.abandon()
    await upstream.stop(drain_seconds=0)
    assert [(outcome.usage, outcome.failure is not None) for outcome in settled] == [(None, True)]


async def test_stopping_waits_for_streams_that_end(provider: str) -> None:
    upstream = Upstream()
    await upstream.start()
    reply = await upstream.stream(at(provider), chat(stream=True), 5)
    await upstream.stop()
    assert reply.finished.result().usage == Usage(10, 5)
    assert text_of(await events(reply)) == "".join(WORDS[:5])


# Mocks, by the same way


async def test_a_mock_is_answered_without_a_provider(upstream: Upstream) -> None:
    reply = await upstream.send(mock_deployment("Hi there."), chat(), 20)
    assert (reply.body["choices"][0]["message"]["content"], reply.usage) == ("Hi there.", Usage(10, 20))


async def test_a_mock_streams_like_a_provider(upstream: Upstream) -> None:
    call = chat(stream=True, stream_options={"include_usage": True})
    reply = await upstream.stream(mock_deployment("Hi there."), call, 20)
    data = await events(reply)
    assert (data[-1], text_of(data)) == ("[DONE]", "Hi there.")
    assert chunks(data)[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "total_tokens": 30,
        "cost": Decimal("0.00005"),
    }
    assert (await reply.finished).usage == Usage(10, 20)


async def test_many_calls_at_once_get_each_their_own_answer(upstream: Upstream, provider: str) -> None:
    calls = [chat(messages=[{"role": "user", "content": str(number)}]) for number in range(50)]
    requests = await asyncio.gather(*(echoed(upstream, at(provider, "echo"), call, 5) for call in calls))
    assert [request["body"]["messages"][0]["content"] for request in requests] == [str(n) for n in range(50)]
