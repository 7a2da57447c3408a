"""What a call may say, what of it goes upstream, and what it may cost at most."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.calls import (
    CHAT_FRAMING_TOKENS,
    TOOL_FRAMING_TOKENS,
    Call,
    CallKind,
    HoldTerms,
    hold_terms,
    input_token_bound,
    is_priced,
    mock_prompt_tokens,
    parse_call,
    unpriced_parameters,
    user_agent_tags,
    with_defaults,
)
from services.gateway.parameters import OVERRIDES
from services.gateway.pricing import Prices, Tier
from shared.answers import json_bytes
from shared.errors import REASONS, Refused
from tests.support.calls import HELLO, chat, completion, deployment, embedding, flat, mock_deployment, rates

OUTPUT_MAX = 16_384
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def refused(ask: Callable[[], Call]) -> tuple[str, str | None]:
    """The reason and the parameter."""
    with pytest.raises(Refused) as caught:
        ask()
    return caught.value.code, caught.value.param


def test_the_kinds_of_calls_have_the_ledgers_names() -> None:
    assert [kind.call_type for kind in CallKind] == ["acompletion", "atext_completion", "aembedding"]


def test_an_ordinary_call_goes_upstream_as_it_came() -> None:
    body: dict[str, Any] = {
        "temperature": Decimal("0.1"),
        "seed": 10**30,
        "never_heard_of": {"a": [1, None]},
        "metadata": {"a": "b"},
    }
    call = chat(**body)
    assert call.body == {"model": "asked", "messages": HELLO} | body
    assert (call.model, call.stream, call.include_usage, call.choices) == ("asked", False, False, 1)
    assert (call.output_cap, call.end_user, call.tags, call.session_id) == (None, None, (), None)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (CallKind.CHAT, {}, ("field_missing", "model")),
        (CallKind.CHAT, {"model": ""}, ("field_missing", "model")),
        (CallKind.CHAT, {"model": 5}, ("wrong_type", "model")),
        (CallKind.CHAT, {"model": "m"}, ("field_missing", "messages")),
        (CallKind.CHAT, {"model": "m", "messages": None}, ("field_missing", "messages")),
        (CallKind.CHAT, {"model": "m", "messages": "hi"}, ("wrong_type", "messages")),
        (CallKind.CHAT, {"model": "m", "messages": []}, ("out_of_range", "messages")),
        (CallKind.CHAT, {"model": "m", "messages": ["hi"]}, ("wrong_type", "messages.0")),
        (CallKind.CHAT, {"model": "m", "messages": [*HELLO, {"content": "x"}]}, ("field_missing", "messages.1.role")),
        (CallKind.CHAT, {"model": "m", "messages": [{"role": 5}]}, ("wrong_type", "messages.0.role")),
        (
            CallKind.CHAT,
            {"model": "m", "messages": [{"role": "u", "content": 5}]},
            ("wrong_type", "messages.0.content"),
        ),
        (
            CallKind.CHAT,
            {"model": "m", "messages": [{"role": "u", "content": [5]}]},
            ("wrong_type", "messages.0.content"),
        ),
        (CallKind.COMPLETION, {"model": "m"}, ("field_missing", "prompt")),
        (CallKind.COMPLETION, {"model": "m", "prompt": 5}, ("wrong_type", "prompt")),
        (CallKind.COMPLETION, {"model": "m", "prompt": []}, ("out_of_range", "prompt")),
        (CallKind.COMPLETION, {"model": "m", "prompt": ["a", 5]}, ("wrong_type", "prompt")),
        (CallKind.COMPLETION, {"model": "m", "prompt": [True]}, ("wrong_type", "prompt")),
        (CallKind.COMPLETION, {"model": "m", "prompt": [{"text": "a"}]}, ("wrong_type", "prompt")),
        (CallKind.COMPLETION, {"model": "m", "prompt": [[]]}, ("wrong_type", "prompt")),
        (CallKind.EMBEDDING, {"model": "m"}, ("field_missing", "input")),
        (CallKind.EMBEDDING, {"model": "m", "input": {"a": 1}}, ("wrong_type", "input")),
        (CallKind.EMBEDDING, {"model": "m", "input": []}, ("out_of_range", "input")),
    ],
)
def test_a_call_without_its_subject_is_refused(kind: CallKind, body: dict[str, Any], expected: tuple[str, str]) -> None:
    assert refused(lambda: parse_call(kind, body, {})) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"n": 0}, ("out_of_range", "n")),
        ({"n": 129}, ("out_of_range", "n")),
        ({"n": "2"}, ("wrong_type", "n")),
        ({"n": True}, ("wrong_type", "n")),
        ({"n": Decimal("1.5")}, ("wrong_type", "n")),
        ({"n": [1]}, ("wrong_type", "n")),
        ({"best_of": 200}, ("out_of_range", "best_of")),
        ({"max_tokens": 0}, ("out_of_range", "max_tokens")),
        ({"max_tokens": -5}, ("out_of_range", "max_tokens")),
        ({"max_tokens": 2**53}, ("out_of_range", "max_tokens")),
        ({"max_completion_tokens": "many"}, ("wrong_type", "max_completion_tokens")),
        ({"max_output_tokens": {}}, ("wrong_type", "max_output_tokens")),
        ({"stream": "yes"}, ("wrong_type", "stream")),
        ({"stream": 1}, ("wrong_type", "stream")),
        ({"stream_options": []}, ("wrong_type", "stream_options")),
        ({"stream_options": {"include_usage": "yes"}}, ("wrong_type", "stream_options.include_usage")),
        ({"user": 5}, ("wrong_type", "user")),
        ({"user": "x" * 256}, ("out_of_range", "user")),
        ({"user": "a\x00b"}, ("out_of_range", "user")),
        ({"metadata": {"tags": "a"}}, ("wrong_type", "metadata.tags")),
        ({"metadata": {"tags": ["a", 5]}}, ("wrong_type", "metadata.tags.1")),
        ({"metadata": {"tags": ["a\n"]}}, ("out_of_range", "metadata.tags.0")),
        ({"metadata": {"tags": [str(number) for number in range(501)]}}, ("out_of_range", "metadata.tags")),
        ({"litellm_session_id": ["s"]}, ("wrong_type", "litellm_session_id")),
    ],
)
def test_a_parameter_that_can_not_be_meant_is_refused(body: dict[str, Any], expected: tuple[str, str]) -> None:
    assert refused(lambda: chat(**body)) == expected


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize("value", ["x", None, []])
def test_a_client_can_not_choose_where_its_call_goes(name: str, value: object) -> None:
    body: dict[str, Any] = {name: value}
    assert refused(lambda: chat(**body)) == ("override_not_allowed", name)


def test_an_override_is_refused_before_anything_else_is_looked_at() -> None:
    assert refused(lambda: parse_call(CallKind.CHAT, {"api_key": "x"}, {})) == ("override_not_allowed", "api_key")


@pytest.mark.parametrize(
    ("body", "cap"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": Decimal("5.0")}, 5),
        ({"max_output_tokens": 7, "max_tokens": None}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 4}, 4),
    ],
)
def test_the_output_cap_is_the_lowest_that_the_caller_sent(body: dict[str, Any], cap: int) -> None:
    assert chat(**body).output_cap == cap


def test_a_stream_asks_for_its_usage_or_does_not() -> None:
    call = chat(stream=True, stream_options={"include_usage": True})
    assert (call.stream, call.include_usage) == (True, True)
    assert chat(stream=True).include_usage is False
    assert chat(stream=None).stream is False
    assert embedding(stream=True).stream is False


def test_tags_are_taken_from_body_and_header_and_do_not_go_upstream() -> None:
    call = chat({"x-litellm-tags": "b, c,,"}, metadata={"tags": ["a", "b"], "k": "v"})
    assert call.tags == ("a", "b", "c")
    assert call.body["metadata"] == {"k": "v"}
    assert "metadata" not in chat(metadata={"tags": ["a"]}).body
    assert chat(metadata={}).body["metadata"] == {}
    assert chat(metadata="odd").body["metadata"] == "odd"


def test_a_session_is_taken_from_body_or_header_and_does_not_go_upstream() -> None:
    call = chat({"x-litellm-session-id": "h"}, litellm_session_id="s")
    assert call.session_id == "s"
    assert "litellm_session_id" not in call.body
    assert chat({"x-litellm-session-id": "h"}).session_id == "h"
    assert refused(lambda: chat({"x-litellm-session-id": "h" * 256})) == ("out_of_range", "x-litellm-session-id")


def test_the_end_user_is_kept_and_passed_on() -> None:
    call = chat(user="u-1")
    assert (call.end_user, call.body["user"]) == ("u-1", "u-1")
    assert chat(user="").end_user is None


def test_a_client_program_is_a_tag_with_and_without_its_version() -> None:
    assert user_agent_tags("curl/7.88.1") == ("User-Agent: curl", "User-Agent: curl/7.88.1")
    assert user_agent_tags("OpenAI/Python 3.57.0") == ("User-Agent: OpenAI", "User-Agent: OpenAI/Python")
    assert user_agent_tags("curl") == ("User-Agent: curl",)
    assert user_agent_tags(None) == user_agent_tags("") == user_agent_tags("a\x85b") == ()


ORDINARY: list[dict[str, Any]] = [
    {},
    {"tools": [TOOL, {"type": "custom", "custom": {"name": "c"}}]},
    {"service_tier": "default"},
    {"service_tier": "auto"},
    {"modalities": ["text"]},
    {"web_search_options": None, "audio": None, "plugins": [], "enable_search": False},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]}
        ]
    },
    {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
    {"reasoning_effort": "high", "never_heard_of": 1},
]


@pytest.mark.parametrize("body", ORDINARY)
def test_a_call_that_costs_its_tokens_is_bounded(body: dict[str, Any]) -> None:
    assert unpriced_parameters(chat(**body)) is None


def part(given: object) -> dict[str, Any]:
    return {"messages": [*HELLO, {"role": "user", "content": [{"type": "text", "text": "hi"}, given]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"service_tier": "priority"}, "service_tier"),
        ({"service_tier": ["default"]}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {"user_location": None}}, "web_search_options"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"models": ["dearer"]}, "models"),
        ({"n_predict": -1}, "n_predict"),
        ({"tools": [TOOL, {"type": "web_search"}]}, "tools.1"),
        ({"tools": ["web_search"]}, "tools.0"),
        ({"tools": [{**TOOL, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}, "tools.0.cache_control"),
        (part({"type": "image_url", "image_url": {"url": "https://x/y.png"}}), "messages.1.content.1"),
        (part({"type": "input_audio", "input_audio": {"data": ""}}), "messages.1.content.1"),
        (part({"type": "file", "file": {"file_id": "f"}}), "messages.1.content.1"),
        (part({"text": "what am I"}), "messages.1.content.1"),
        (part({"type": ["text"]}), "messages.1.content.1"),
        (part({"type": "text", "cache_control": {"ttl": "1h"}}), "messages.1.content.1.cache_control"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages.0.audio"),
        ({"messages": [{"role": "user", "content": "x", "images": ["…"]}]}, "messages.0.images"),
    ],
)
def test_what_costs_more_than_its_tokens_is_named(body: dict[str, Any], param: str) -> None:
    assert unpriced_parameters(chat(**body)) == param


def test_an_embedding_of_anything_but_text_is_not_bounded() -> None:
    assert unpriced_parameters(embedding(input=["a", {"image": "…"}])) == "input.1"
    assert unpriced_parameters(embedding(input=["a", "b"])) is None


def test_the_input_is_bounded_by_the_bytes_of_all_that_a_model_can_read() -> None:
    call = chat(tools=[TOOL], never_heard_of="ä" * 100, temperature=1, user="u" * 200, logit_bias={"50256": -100})
    bound = input_token_bound(call, deployment())
    read = json_bytes({"messages": HELLO, "tools": [TOOL], "never_heard_of": "ä" * 100})
    assert bound >= len(read) + CHAT_FRAMING_TOKENS + TOOL_FRAMING_TOKENS
    assert bound < len(read) + CHAT_FRAMING_TOKENS + TOOL_FRAMING_TOKENS + 100


@settings(deadline=None)  # a busy machine is no fault
@given(st.text(max_size=200))
def test_no_text_has_more_tokens_than_the_bound(text: str) -> None:
    """A token of a byte-level tokenizer is at least a byte."""
    call = chat(messages=[{"role": "user", "content": text}])
    assert input_token_bound(call, deployment()) >= len(text.encode()) + CHAT_FRAMING_TOKENS


def test_the_input_is_bounded_by_the_models_context_for_each_prompt() -> None:
    long = "x" * 1_000
    small = deployment(max_input_tokens=100)
    assert input_token_bound(chat(messages=[{"role": "user", "content": long}]), small) == 100
    assert input_token_bound(embedding(input=[long, long, "a"]), small) == 300
    assert input_token_bound(completion(prompt="a"), small) < 100


def test_prompts_of_tokens_are_bounded_by_their_number() -> None:
    assert input_token_bound(embedding(input=[1] * 50), deployment()) >= 50
    assert input_token_bound(completion(prompt=[[1] * 50, [2] * 50]), deployment()) >= 100


@pytest.mark.parametrize(
    ("call", "tokens"),
    [
        (chat(), 10),
        (chat(messages=[*HELLO, *HELLO]), 17),
        (chat(messages=[{"role": "user", "content": "ä"}]), 8),
        (chat(messages=[{"role": "user", "content": ""}, {"role": "user"}]), 11),
        (chat(messages=[{"role": "u", "content": [{"type": "text", "text": "Say "}, {"text": "hello."}]}]), 10),
        (chat(messages=[{"role": "u", "content": [{"type": "image_url"}, {"type": "text", "text": 5}]}]), 7),
        (completion(), 10),
        (completion(prompt=["Say hello.", "a"]), 15),
        (completion(prompt=[1, 2, 3]), 10),
        (embedding(), 10),
        (embedding(input=[[1, 2], [3]]), 14),
    ],
)
def test_a_mocks_prompt_is_counted_exactly(call: Call, tokens: int) -> None:
    assert mock_prompt_tokens(call) == tokens
    assert input_token_bound(call, mock_deployment()) == tokens


def terms(call: Call, **settings: Any) -> HoldTerms:
    return hold_terms(call, deployment(**settings), OUTPUT_MAX)


def test_the_worst_case_is_the_bound_of_the_input_and_the_cap_for_each_choice() -> None:
    call = chat(n=3, max_tokens=50)
    bound = input_token_bound(call, deployment())
    assert terms(call) == HoldTerms(bound * 1_000, Decimal(6_000), 50, OUTPUT_MAX)


def test_answers_that_are_made_and_not_shown_are_held_for() -> None:
    assert terms(completion(n=1, best_of=5)).output_nano_usd_per_token == 10_000
    assert terms(completion(prompt=["a", "b", "c"], n=2)).output_nano_usd_per_token == 12_000


def test_a_call_without_a_cap_leaves_it_to_the_models_maximum() -> None:
    assert (terms(chat()).output_cap, terms(chat()).output_max) == (None, OUTPUT_MAX)
    assert terms(chat(), max_output_tokens=500).output_max == 500


def test_a_cap_above_a_known_maximum_is_the_maximum() -> None:
    assert terms(chat(max_tokens=1_000), max_output_tokens=500).output_cap == 500
    assert terms(chat(max_tokens=100_000)).output_cap == 100_000


def test_an_embedding_has_no_output_to_hold_for() -> None:
    call = embedding()
    held = terms(call, prices=flat("0.000001", None))
    assert held == HoldTerms(input_token_bound(call, deployment()) * 1_000, Decimal(0), 0, 0)


def test_a_mock_is_held_for_exactly_what_it_costs() -> None:
    held = hold_terms(chat(max_tokens=1_000), mock_deployment(), OUTPUT_MAX)
    assert held == HoldTerms(10_000, Decimal(2_000), 20, 20)
    assert hold_terms(chat(), mock_deployment(), OUTPUT_MAX).output_cap is None
    assert hold_terms(chat(), mock_deployment(max_output_tokens=5), OUTPUT_MAX).output_max == 5


def test_the_highest_rates_within_reach_are_held() -> None:
    prices = Prices(
        (Tier(-1, rates("0.000001", "0.000001")), Tier(500, rates("0.000002", "0.000009"))), "litellm_params"
    )
    short, long = chat(), chat(messages=[{"role": "user", "content": "x" * 600}])
    assert terms(short, prices=prices).output_nano_usd_per_token == 1_000
    assert terms(long, prices=prices).output_nano_usd_per_token == 9_000
    assert terms(long, prices=prices).input_nano_usd == input_token_bound(long, deployment()) * 2_000
    written = terms(short, prices=flat("0.000001", "0", cache_creation="0.000003"))
    assert written.input_nano_usd == input_token_bound(short, deployment()) * 3_000


def test_an_unpriced_or_free_model_is_held_for_nothing() -> None:
    for prices in (None, flat("0", "0")):
        held = terms(chat(), prices=prices)
        assert (held.input_nano_usd, held.output_nano_usd_per_token) == (0, Decimal(0))


def test_fractions_of_a_nano_dollar_are_kept_until_they_are_summed() -> None:
    assert terms(chat(), prices=flat("0", "0.0000000000001")).output_nano_usd_per_token == Decimal("0.0001")


def test_an_input_rate_alone_is_a_price_for_embeddings_only() -> None:
    half = deployment(prices=flat("0.000001", None))
    assert is_priced(embedding(), half)
    assert not is_priced(chat(), half)
    assert not is_priced(chat(), deployment(prices=None))
    assert is_priced(completion(), deployment())


def test_the_files_parameters_fill_in_what_the_caller_left_out() -> None:
    given = deployment(defaults={"temperature": 0.5, "n": 2, "max_tokens": 7, "tools": [TOOL], "dimensions": 8})
    call = with_defaults(chat(temperature=1), given)
    assert call.body == {**chat(temperature=1).body} | {"n": 2, "max_tokens": 7, "tools": [TOOL]}
    assert (call.choices, call.output_cap) == (2, 7)
    assert call.prompt_bytes > chat().prompt_bytes + len(json_bytes([TOOL]))


def test_the_files_cap_gives_way_to_the_callers_under_any_name() -> None:
    call = with_defaults(chat(max_completion_tokens=9), deployment(defaults={"max_tokens": 7}))
    assert (call.output_cap, "max_tokens" in call.body) == (9, False)


def test_the_files_parameters_are_for_the_calls_that_have_them() -> None:
    given = deployment(defaults={"temperature": 0.5, "dimensions": 8})
    assert with_defaults(embedding(), given).body == {"model": "asked", "input": "Say hello.", "dimensions": 8}
    assert with_defaults(chat(temperature=1), given) is not None
    untouched = chat(temperature=1)
    assert with_defaults(untouched, deployment()) is untouched


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["model", "messages", "prompt", "input", "n", "best_of", "max_tokens", "stream", "stream_options", "user", "tools"]
)


@settings(deadline=None)  # a busy machine is no fault
@given(st.sampled_from(CallKind), st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=6))
def test_every_object_is_a_call_or_refused(kind: CallKind, body: Mapping[str, Any]) -> None:
    subject = {"model": "m", "messages": HELLO, "prompt": "x", "input": "x"}
    for given_body in (body, subject | dict(body)):
        try:
            call = with_defaults(parse_call(kind, given_body, {}), deployment(defaults={"n": 1}))
        except Refused as refusal:
            assert REASONS[refusal.code].status == 400
            continue
        unpriced_parameters(call)
        for one in (deployment(), mock_deployment()):
            assert hold_terms(call, one, OUTPUT_MAX).input_nano_usd > 0
