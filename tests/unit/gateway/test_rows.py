"""The facts that a call leaves behind (§3.1), whether it was answered, failed or was never sent on."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request

from services.budgets.requests import Usage
from services.gateway import rows
from services.gateway.admission import Caller, ModelNotAllowed
from services.gateway.calls import CallKind
from services.gateway.pricing import Cost
from services.gateway.pricing import Usage as Tokens
from services.gateway.reply import UpstreamRefused
from services.gateway.rows import Journey
from services.identity.requests import FoundUser
from services.keys.requests import FoundKey
from shared.permissions import Role
from shared.principal import Principal
from tests.support.calls import chat, deployment

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ENDED = NOON + timedelta(seconds=2)
KEY = FoundKey(
    position=1, exists=True, key_id="K", token="a-hash", key_alias="laptop", user_id="ada", tags=("of the key", "both")
)
CALLER = Caller(
    Principal("ada", Role.INTERNAL_USER, "key", key_id="K", token="a-hash"),
    "a-hash",
    KEY,
    FoundUser(position=1, exists=True, user_id="ada"),
)


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {
            "type": "http",
            "method": "POST",
            "headers": raw,
            "keystead.address": "192.0.2.1",
            "keystead.call_id": "call-1",
        }
    )


def journey(*, tag_user_agent: bool = True, **known: Any) -> Journey:
    begun = rows.journey_of(request(user_agent="curl/8.5.0 (x)"), CallKind.CHAT, NOON, tag_user_agent=tag_user_agent)
    return begun.with_(**known)


def answered(on_the_way: Journey, tokens: Tokens | None = None, cost: Cost | None = None, **reported: int) -> Usage:
    return rows.succeeded(on_the_way, tokens, cost, reported=reported, answer_id="up-1", ended=ENDED)


def test_an_answered_call_says_who_called_what_and_what_it_cost() -> None:
    call = chat(user="end user", litellm_session_id="session", metadata={"tags": ["of the call", "both"]})
    sent = journey(caller=CALLER, call=call, deployment=deployment("gpt-real"), retries=2)
    row = answered(sent, Tokens(10, 20, 4, 3), Cost(11, 22), prompt_tokens=10)
    assert row.model_dump() == {
        "call_id": "call-1",
        "request_id": "up-1",
        "call_type": "acompletion",
        "status": "success",
        "token": "a-hash",
        "key_id": "K",
        "key_alias": "laptop",
        "user_id": "ada",
        "model": "openai/gpt-real",
        "model_group": "asked",
        "model_id": "d1",
        "provider": "openai",
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cache_read_tokens": 4,
        "cache_creation_tokens": 3,
        "input_nano_usd": 11,
        "output_nano_usd": 22,
        "started_at": NOON,
        "first_token_at": ENDED,
        "ended_at": ENDED,
        "request_tags": ("of the call", "both", "of the key", "User-Agent: curl", "User-Agent: curl/8.5.0"),
        "session_id": "session",
        "end_user": "end user",
        "ip": "192.0.2.1",
        "user_agent": "curl/8.5.0 (x)",
        "attempted_retries": 2,
        "usage_object": {"prompt_tokens": 10},
        "error_code": None,
        "error_class": None,
        "error_message": None,
    }


def test_a_stream_says_when_its_first_chunk_came() -> None:
    first = NOON + timedelta(seconds=1)
    row = answered(journey(caller=CALLER, call=chat(), deployment=deployment(), first_token_at=first))
    assert (row.first_token_at, row.ended_at) == (first, ENDED)


def test_without_a_session_each_call_is_its_own() -> None:
    assert answered(journey(caller=CALLER, call=chat(), deployment=deployment())).session_id == "call-1"


def test_an_answer_without_a_believable_usage_has_no_tokens_and_no_price() -> None:
    row = answered(journey(caller=CALLER, call=chat(), deployment=deployment()))
    assert (row.prompt_tokens, row.completion_tokens, row.input_nano_usd, row.output_nano_usd) == (0, 0, 0, 0)


def test_an_answer_that_names_itself_badly_is_known_by_the_call() -> None:
    sent = journey(caller=CALLER, call=chat(), deployment=deployment())
    assert rows.succeeded(sent, None, None, reported={}, answer_id="", ended=ENDED).request_id == "call-1"


def test_the_user_agent_is_a_tag_only_where_that_is_wanted() -> None:
    row = answered(journey(tag_user_agent=False, caller=CALLER, call=chat(), deployment=deployment()))
    assert row.request_tags == ("of the key", "both")


def test_a_call_that_failed_upstream_says_how() -> None:
    refused = UpstreamRefused("The provider failed", reason="upstream_failed", costs_nothing=True)
    row = rows.failed(journey(caller=CALLER, call=chat(), deployment=deployment("gpt-real")), refused, ENDED)
    assert (row.status, row.error_code, row.error_class) == ("failure", "502", "UpstreamRefused")
    assert (row.error_message, row.model, row.ended_at) == ("The provider failed", "openai/gpt-real", ENDED)


def test_a_call_that_was_refused_here_has_the_model_that_was_asked_for() -> None:
    refused = ModelNotAllowed("no such model", param="model")
    row = rows.failed(journey(caller=CALLER, call=chat(model="none")), refused, ENDED)
    assert (row.error_code, row.error_class) == ("403", "ModelNotAllowed")
    assert (row.model, row.model_group, row.model_id, row.provider) == ("none", "none", "", "")


def test_a_call_that_could_not_be_read_is_known_by_its_caller_alone() -> None:
    refused = ModelNotAllowed("x" * 2000)
    row = rows.failed(journey(caller=CALLER), refused, ENDED)
    assert (row.token, row.key_id, row.model, row.session_id) == ("a-hash", "K", "", "call-1")
    assert row.request_tags == ("of the key", "both", "User-Agent: curl", "User-Agent: curl/8.5.0")
    assert row.error_message == "x" * rows.TEXT_LENGTH_MAX


def test_a_client_that_says_nothing_of_itself_leaves_nothing() -> None:
    begun = rows.journey_of(request(), CallKind.EMBEDDING, NOON, tag_user_agent=True)
    assert (begun.user_agent, begun.user_agent_tags, begun.kind.call_type) == (None, (), "aembedding")


def test_a_very_long_user_agent_is_cut() -> None:
    begun = rows.journey_of(request(user_agent="a" * 2000), CallKind.CHAT, NOON, tag_user_agent=True)
    assert begun.user_agent == "a" * rows.TEXT_LENGTH_MAX
    assert all(len(tag) <= rows.TEXT_LENGTH_MAX for tag in begun.user_agent_tags)
