"""The mock model: its answers, and that what it costs can be told beforehand."""

import base64
import struct
from typing import Any

import pytest

from services.gateway import mock
from services.gateway.calls import Call, hold_terms
from services.gateway.pricing import Usage, cost
from tests.support.calls import CHEAP, chat, completion, embedding, mock_deployment

TEXT = "Hello from the mock model. This is a canned answer."


def answer(call: Call, cap: int | None = None) -> dict[str, Any]:
    return mock.answer(mock_deployment(TEXT), call, cap).body


async def pieces(call: Call, cap: int | None = None) -> list[dict[str, Any]]:
    return [chunk async for chunk in mock.chunks(mock_deployment(TEXT), call, cap)]


def test_a_chat_gets_the_whole_text_and_the_recorded_usage() -> None:
    body = answer(chat())
    assert body["id"].startswith("chatcmpl-")
    assert (body["object"], body["model"]) == ("chat.completion", "asked")
    assert body["choices"] == [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def test_a_cap_below_twenty_cuts_the_text_and_says_so() -> None:
    body = answer(chat(), 5)
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (TEXT[:13], "length")
    assert body["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize("cap", [20, 21, 10_000, None])
def test_a_cap_of_twenty_or_more_cuts_nothing(cap: int | None) -> None:
    (choice,) = answer(chat(), cap)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (TEXT, "stop")


def test_a_short_or_empty_text_is_given_as_it_is() -> None:
    for text in ("", "hi", "ä€🎉"):
        body = mock.answer(mock_deployment(text), chat(), None).body
        assert body["choices"][0]["message"]["content"] == text
        assert body["usage"]["completion_tokens"] == 20


def test_a_completion_gets_the_text_for_each_prompt() -> None:
    body = answer(completion(prompt=["a", "b"], n=2))
    assert (body["object"], len(body["choices"])) == ("text_completion", 4)
    assert body["choices"][3] == {"index": 3, "text": TEXT, "logprobs": None, "finish_reason": "stop"}
    assert body["usage"]["completion_tokens"] == 80


async def test_a_stream_gives_the_same_text_in_pieces_and_the_usage_last() -> None:
    chunks = await pieces(chat(stream=True), 5)
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert text == TEXT[:13]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert chunks[-2]["choices"][0] == {"index": 0, "delta": {}, "finish_reason": "length"}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_a_completion_streams_text() -> None:
    chunks = await pieces(completion(stream=True))
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == TEXT
    assert chunks[0]["object"] == "text_completion"


def test_an_embedding_is_eight_numbers_that_the_input_decides() -> None:
    body = answer(embedding(input=["a", "b", "a"]))
    first, second, third = (row["embedding"] for row in body["data"])
    assert first == third != second
    assert len(first) == 8
    assert all(-1 <= number <= 1 for number in first)
    assert [row["index"] for row in body["data"]] == [0, 1, 2]
    assert (body["object"], body["model"]) == ("list", "asked")
    assert body["usage"] == {"prompt_tokens": 18, "total_tokens": 18}


def test_an_embedding_in_base64_has_the_same_numbers() -> None:
    plain = answer(embedding())["data"][0]["embedding"]
    packed = answer(embedding(encoding_format="base64"))["data"][0]["embedding"]
    assert list(struct.unpack("<8f", base64.b64decode(packed))) == plain


def test_inputs_of_tokens_and_of_parts_are_embedded_too() -> None:
    assert len(answer(embedding(input=[[1, 2], [3]]))["data"]) == 2
    assert len(answer(embedding(input=[1, 2, 3]))["data"]) == 1
    assert len(answer(embedding(input=[{"image": "…"}]))["data"]) == 1


@pytest.mark.parametrize(
    "call", [chat(), chat(n=3, max_tokens=4), completion(prompt=["a", "b"]), embedding(input=["a", "b"])]
)
def test_a_mock_costs_exactly_its_worst_case(call: Call) -> None:
    terms = hold_terms(call, mock_deployment(TEXT), 16_384)
    cap = terms.output_max if terms.output_cap is None else terms.output_cap
    usage = mock.answer(mock_deployment(TEXT), call, cap).usage
    assert usage is not None
    assert cost(CHEAP, usage).total_nano_usd == terms.input_nano_usd + terms.output_nano_usd_per_token * cap


def test_a_mocks_usage_is_read_like_any_other() -> None:
    assert mock.answer(mock_deployment(TEXT), chat(), None).usage == Usage(10, 20)
    assert mock.answer(mock_deployment(TEXT), embedding(), None).usage == Usage(10, 0)
