"""A model call as a client asks for it: what is checked, what is forwarded, and what it may cost at most (§3.7)."""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal
from enum import Enum
from fractions import Fraction
from typing import Any

from services.gateway import parameters
from services.gateway.models import Deployment
from services.gateway.pricing import nano_usd_ceil
from shared.answers import json_bytes
from shared.errors import Refused
from shared.money import NANO_PER_USD

TAGS_MAX = 500
TEXT_LENGTH_MAX = 255

# What a chat template adds to a prompt at most that is not in the body: a default system text, the answer's opening.
# The JSON around each message is longer than what a template puts around it.
CHAT_FRAMING_TOKENS = 128
# Providers explain tools to the model in a text of their own; Anthropic's is the longest known, of 804 tokens.
TOOL_FRAMING_TOKENS = 1_024

MOCK_COMPLETION_TOKENS = 20

_EXACT = Context(prec=100, rounding=ROUND_CEILING)


class CallKind(Enum):
    """The model routes that a body can be meant for: path upstream, SpendRow's ``call_type``, parameters."""

    CHAT = ("/chat/completions", "acompletion", parameters.CHAT)
    COMPLETION = ("/completions", "atext_completion", parameters.COMPLETION)
    EMBEDDING = ("/embeddings", "aembedding", parameters.EMBEDDING)

    def __init__(self, path: str, call_type: str, names: frozenset[str]) -> None:
        self.path = path
        self.call_type = call_type
        self.parameters = names


@dataclass(frozen=True, slots=True)
class Call:
    """``body`` goes upstream, but for model, cap and stream options. ``choices`` are those of all its prompts."""

    kind: CallKind
    model: str
    body: Mapping[str, Any]
    stream: bool
    include_usage: bool
    prompts: int
    choices: int
    output_cap: int | None
    prompt_bytes: int
    end_user: str | None
    tags: tuple[str, ...]
    session_id: str | None


@dataclass(frozen=True, slots=True)
class HoldTerms:
    """The worst case: ``input_nano_usd``, and the cap's tokens at a rate that has the number of choices in it.

    ``output_cap`` is the caller's; without one the gateway chooses up to ``output_max``. Embeddings have no output.
    """

    input_nano_usd: int
    output_nano_usd_per_token: Decimal
    output_cap: int | None
    output_max: int


def parse_call(kind: CallKind, body: Mapping[str, Any], headers: Mapping[str, str]) -> Call:
    """The call in a body. ``headers`` are found by lower-case names. Refused: see §1.4, class 400."""
    for name in parameters.OVERRIDES:
        if name in body:
            raise Refused(f"{name} can't be set by a call", reason="override_not_allowed", param=name)
    model = _required_text(body, "model")
    _check_prompt(kind, body)
    stream, include_usage = _streaming(kind, body)
    tags, session_id = _tags(body, headers), _session_id(body, headers)
    end_user = _text(body.get("user"), "user") or None
    forwarded = _without_own_fields(body)
    return Call(
        kind=kind,
        model=model,
        body=forwarded,
        stream=stream,
        include_usage=include_usage,
        prompts=_count_prompts(kind, body),
        choices=parameters.choices(body) * _count_prompts(kind, body),
        output_cap=parameters.output_cap(body),
        prompt_bytes=_prompt_bytes(forwarded),
        end_user=end_user,
        tags=tags,
        session_id=session_id,
    )


def with_defaults(call: Call, deployment: Deployment) -> Call:
    """The call as this deployment gets it: the file's parameters (§4.1) where the caller sent none."""
    missing = {name: value for name, value in deployment.defaults.items() if _applies(call, name)}
    if not missing:
        return call
    body = {**call.body, **missing}
    return replace(
        call,
        body=body,
        choices=parameters.choices(body) * call.prompts,
        output_cap=parameters.output_cap(body),
        prompt_bytes=_prompt_bytes(body),
    )


def _applies(call: Call, name: str) -> bool:
    if name in parameters.CAP_NAMES and call.output_cap is not None:
        return False
    return name in call.kind.parameters and call.body.get(name) is None


def unpriced_parameters(call: Call) -> str | None:
    """The first parameter that a strict budget refuses, because no rate bounds what it costs; None if there is none."""
    return parameters.unpriced(call.body)


def is_priced(call: Call, deployment: Deployment) -> bool:
    """Whether the deployment's rates cover a call of this kind. An input rate alone is a price for embeddings only."""
    if deployment.prices is None:
        return False
    return call.kind is CallKind.EMBEDDING or deployment.prices.rates.output_usd is not None


def hold_terms(call: Call, deployment: Deployment, default_max_output_tokens: int) -> HoldTerms:
    """What the call may cost at most, at the highest rates it could be billed at. Unpriced: nothing is held."""
    cap, most = _output_bounds(call, deployment, default_max_output_tokens)
    if deployment.prices is None:
        return HoldTerms(0, Decimal(0), cap, most)
    tokens = input_token_bound(call, deployment)
    input_rate = Fraction(deployment.prices.input_rate_at_most(tokens))
    output_rate = Decimal(0) if call.kind is CallKind.EMBEDDING else deployment.prices.output_rate_at_most(tokens)
    return HoldTerms(
        input_nano_usd=nano_usd_ceil(input_rate * tokens),
        output_nano_usd_per_token=_EXACT.multiply(output_rate, Decimal(call.choices * NANO_PER_USD)),
        output_cap=cap,
        output_max=most,
    )


def _output_bounds(call: Call, deployment: Deployment, default_max_output_tokens: int) -> tuple[int | None, int]:
    """The caller's cap and the model's maximum. A cap above a known maximum buys nothing: it is the maximum."""
    if call.kind is CallKind.EMBEDDING:
        return 0, 0
    known = deployment.max_output_tokens
    if deployment.mock_response is not None:
        known = min(known or MOCK_COMPLETION_TOKENS, MOCK_COMPLETION_TOKENS)
    if call.output_cap is None or known is None:
        return call.output_cap, known or default_max_output_tokens
    return min(call.output_cap, known), known


def input_token_bound(call: Call, deployment: Deployment) -> int:
    """How many tokens the prompt can be at most (design §6). A mock's are counted, by §3.7.

    A token of a byte-level tokenizer is a byte or more, and all that reaches the model is in the body's JSON.
    """
    if deployment.mock_response is not None:
        return mock_prompt_tokens(call)
    tokens = call.prompt_bytes + (CHAT_FRAMING_TOKENS if call.kind is CallKind.CHAT else call.prompts)
    if call.body.get("tools") or call.body.get("functions"):
        tokens += TOOL_FRAMING_TOKENS
    if deployment.max_input_tokens is not None:
        tokens = min(tokens, deployment.max_input_tokens * call.prompts)
    return tokens


def mock_prompt_tokens(call: Call) -> int:
    """§3.7: 3, and for each message (prompt, input) 4 and a token for every four bytes of text begun."""
    return 3 + sum(4 + tokens for tokens in _mock_text_tokens(call))


def _mock_text_tokens(call: Call) -> Iterator[int]:
    if call.kind is CallKind.CHAT:
        for message in call.body["messages"]:
            yield _quarter(len(message_text(message).encode()))
    else:
        for prompt in prompts_of(call):
            yield _quarter(len(prompt.encode())) if isinstance(prompt, str) else len(prompt)


def _quarter(size: int) -> int:
    return -(-size // 4)


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, or its text parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content or () if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def prompts_of(call: Call) -> list[Any]:
    """The prompts of a completion, the inputs of an embedding: texts, or lists of tokens."""
    return _prompts(call.body["input" if call.kind is CallKind.EMBEDDING else "prompt"])


def user_agent_tags(user_agent: str | None) -> tuple[str, ...]:
    """§3.7: the product, and the product with its version, as request tags."""
    product = (user_agent or "").strip().split(" ", 1)[0][:TEXT_LENGTH_MAX]
    if not product or _has_control_characters(product):
        return ()
    return tuple(dict.fromkeys(f"User-Agent: {text}" for text in (product.split("/", 1)[0], product)))


def _required_text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None or value == "":
        raise Refused(f"{name} is missing", reason="field_missing", param=name)
    if not isinstance(value, str):
        raise Refused(f"{name} must be a string", reason="wrong_type", param=name)
    return value


def _check_prompt(kind: CallKind, body: Mapping[str, Any]) -> None:
    name = {CallKind.CHAT: "messages", CallKind.COMPLETION: "prompt", CallKind.EMBEDDING: "input"}[kind]
    value = body.get(name)
    if value is None:
        raise Refused(f"{name} is missing", reason="field_missing", param=name)
    if kind is CallKind.CHAT:
        _check_messages(value)
    elif not _is_prompt(value, parts_allowed=kind is CallKind.EMBEDDING):
        raise Refused(f"{name} must be a string or a list of strings or tokens", reason="wrong_type", param=name)
    elif not value and isinstance(value, list):
        raise Refused(f"{name} must have at least 1 item", reason="out_of_range", param=name)


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list):
        raise Refused("messages must be a list", reason="wrong_type", param="messages")
    if not messages:
        raise Refused("messages must have at least 1 item", reason="out_of_range", param="messages")
    for index, message in enumerate(messages):
        _check_message(message, f"messages.{index}")


def _check_message(message: object, param: str) -> None:
    if not isinstance(message, Mapping):
        raise Refused(f"{param} must be an object", reason="wrong_type", param=param)
    if message.get("role") is None:
        raise Refused(f"{param}.role is missing", reason="field_missing", param=f"{param}.role")
    if not isinstance(message["role"], str):
        raise Refused(f"{param}.role must be a string", reason="wrong_type", param=f"{param}.role")
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list) or not all(isinstance(part, Mapping) for part in content):
        wanted = "must be a string or a list of objects"
        raise Refused(f"{param}.content {wanted}", reason="wrong_type", param=f"{param}.content")


def _is_prompt(value: object, *, parts_allowed: bool) -> bool:
    if isinstance(value, str) or not isinstance(value, list):
        return isinstance(value, str)
    return (
        all(isinstance(item, str) for item in value)
        or _are_tokens(value)
        or all(isinstance(item, list) and item and _are_tokens(item) for item in value)
        or (parts_allowed and all(isinstance(item, str | Mapping) for item in value))
    )


def _are_tokens(items: list[Any]) -> bool:
    return all(isinstance(item, int) and not isinstance(item, bool) for item in items)


def _prompts(value: Any) -> list[Any]:
    if isinstance(value, str) or (value and _are_tokens(value)):
        return [value]
    return [json.dumps(item, default=str) if isinstance(item, Mapping) else item for item in value]


def _count_prompts(kind: CallKind, body: Mapping[str, Any]) -> int:
    if kind is CallKind.CHAT:
        return 1
    return len(_prompts(body["input" if kind is CallKind.EMBEDDING else "prompt"]))


def _streaming(kind: CallKind, body: Mapping[str, Any]) -> tuple[bool, bool]:
    if kind is CallKind.EMBEDDING:
        return False, False
    options = body.get("stream_options")
    if options is not None and not isinstance(options, Mapping):
        raise Refused("stream_options must be an object", reason="wrong_type", param="stream_options")
    include_usage = _flag((options or {}).get("include_usage"), "stream_options.include_usage")
    return _flag(body.get("stream"), "stream"), include_usage


def _flag(value: object, param: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise Refused(f"{param} must be true or false", reason="wrong_type", param=param)
    return value is True


def _tags(body: Mapping[str, Any], headers: Mapping[str, str]) -> tuple[str, ...]:
    metadata = body.get("metadata")
    sent = metadata.get("tags") if isinstance(metadata, Mapping) else None
    if sent is not None and not isinstance(sent, list):
        raise Refused("metadata.tags must be a list of strings", reason="wrong_type", param="metadata.tags")
    listed = [_text(tag, f"metadata.tags.{index}") for index, tag in enumerate(sent or ())]
    named = [_text(tag.strip(), "x-litellm-tags") for tag in headers.get("x-litellm-tags", "").split(",")]
    tags = tuple(dict.fromkeys(tag for tag in [*listed, *named] if tag))
    if len(tags) > TAGS_MAX:
        raise Refused(f"more than {TAGS_MAX} tags", reason="out_of_range", param="metadata.tags")
    return tags


def _session_id(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    sent = _text(body.get("litellm_session_id"), "litellm_session_id")
    return sent or _text(headers.get("x-litellm-session-id"), "x-litellm-session-id") or None


def _text(value: object, param: str) -> str:
    """A text that is kept in the ledger: 255 characters and no control characters, which a database can't hold."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"{param} must be a string", reason="wrong_type", param=param)
    if len(value) > TEXT_LENGTH_MAX:
        raise Refused(f"{param} is longer than {TEXT_LENGTH_MAX} characters", reason="out_of_range", param=param)
    if _has_control_characters(value):
        raise Refused(f"{param} holds control characters", reason="out_of_range", param=param)
    return value


def _has_control_characters(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs") for character in text)


def _without_own_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    forwarded = {name: value for name, value in body.items() if name != "litellm_session_id"}
    metadata = body.get("metadata")
    if isinstance(metadata, Mapping) and "tags" in metadata:
        rest = {name: value for name, value in metadata.items() if name != "tags"}
        forwarded["metadata"] = rest
        if not rest:
            del forwarded["metadata"]
    return forwarded


def _prompt_bytes(body: Mapping[str, Any]) -> int:
    """The size of the body's JSON, less that of the parameters which no model reads."""
    unread = sum(len(json_bytes(body[name])) for name in parameters.NOT_PROMPT if name in body)
    return len(json_bytes(body)) - unread
