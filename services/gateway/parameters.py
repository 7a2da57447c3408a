"""The parameters of OpenAI's bodies: which there are, what they hold, and which cost what nobody can bound (§3.7)."""

from collections.abc import Mapping
from decimal import Decimal

from shared.errors import Refused

CHOICES_MAX = 128
TOKENS_MAX = 2**53 - 1

# Names of the output cap. Upstream it goes under the one name that the provider takes.
CAP_NAMES = ("max_completion_tokens", "max_tokens", "max_output_tokens")

# What would make a call that is not metered, or that goes elsewhere (D42).
OVERRIDES = (
    "api_key",
    "api_base",
    "base_url",
    "api_version",
    "custom_llm_provider",
    "mock_response",
    "fallbacks",
    "model_list",
)

_SHARED = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier"})
_SAMPLED = frozenset(
    {
        "n",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "seed",
        "stop",
        "stream_options",
        "max_tokens",
    }
)
CHAT = (
    _SHARED
    | _SAMPLED
    | frozenset(
        {
            "max_completion_tokens",
            "max_output_tokens",
            "top_logprobs",
            "response_format",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "functions",
            "function_call",
            "modalities",
            "audio",
            "prediction",
            "reasoning_effort",
            "verbosity",
            "web_search_options",
            "prompt_cache_key",
            "prompt_cache_retention",
        }
    )
)
COMPLETION = _SHARED | _SAMPLED | frozenset({"best_of", "echo", "suffix"})
EMBEDDING = frozenset({"user", "dimensions", "encoding_format"})

# Parameters that no model reads: all others count as prompt, those we have never heard of above all.
NOT_PROMPT = frozenset(
    {
        "model",
        "stream",
        "n",
        "best_of",
        "temperature",
        "top_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "seed",
        "stop",
        "stream_options",
        "user",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "dimensions",
        "encoding_format",
        *CAP_NAMES,
    }
)

# Each of these adds to the bill, picks another price, lengthens the prompt behind our back or lifts the output cap.
COSTLY = (
    "audio",
    "prediction",
    "web_search",
    "web_search_options",
    "search_options",
    "search_parameters",
    "enable_search",
    "plugins",
    "models",
    "route",
    "provider",
    "preset",
    "speed",
    "inference_geo",
    "container",
    "mcp_servers",
    "data_sources",
    "cached_content",
    "compound_custom",
    "extra_body",
    "google",
    "chat_template",
    "prompt_template",
    "deferred",
    "n_predict",
    "num_predict",
    "max_new_tokens",
    "max_gen_len",
)
ORDINARY_TIERS = ("auto", "default", "on_demand", "standard_only")
ORDINARY_TOOLS = ("function", "custom")
ORDINARY_PARTS = ("text", "refusal", "thinking")
COSTLY_IN_MESSAGES = ("audio", "images", "image_url", "files", "attachments", "video")
ORDINARY_CACHE_TTL = "5m"


def check_parameters(body: Mapping[str, object]) -> None:
    """Refuses counts and caps that are none. A file's defaults are held to the same as a call."""
    choices(body)
    output_cap(body)


def choices(body: Mapping[str, object]) -> int:
    """How many answers are made of one prompt: ``best_of`` are made and billed though only ``n`` are shown."""
    return max(_count(body, "n", CHOICES_MAX) or 1, _count(body, "best_of", CHOICES_MAX) or 1)


def output_cap(body: Mapping[str, object]) -> int | None:
    """The caller's cap on the tokens of one answer; the lowest, if several are given."""
    caps = [_count(body, name, TOKENS_MAX) for name in CAP_NAMES]
    return min((cap for cap in caps if cap is not None), default=None)


def _count(body: Mapping[str, object], name: str, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Refused(f"{name} must be an integer", reason="wrong_type", param=name)
    if not 1 <= value <= most:
        raise Refused(f"{name} must be from 1 to {most}", reason="out_of_range", param=name)
    if value != int(value):
        raise Refused(f"{name} must be an integer", reason="wrong_type", param=name)
    return int(value)


def unpriced(body: Mapping[str, object]) -> str | None:
    """The first parameter whose cost can't be bounded, dotted, or None (§1.4 ``parameter_unpriced``)."""
    tier = body.get("service_tier")
    if tier is not None and tier not in ORDINARY_TIERS:
        return "service_tier"
    if body.get("modalities") not in (None, [], ["text"]):
        return "modalities"
    costly = next((name for name in COSTLY if _asks_for_something(body.get(name))), None)
    return costly or _unpriced_tool(body.get("tools")) or _unpriced_input(body.get("input")) or _unpriced_message(body)


def _asks_for_something(value: object) -> bool:
    return value is not None and value is not False and value not in ("", [], {})


def _unpriced_tool(tools: object) -> str | None:
    """A function costs its text. Any other tool is run by the provider, at rates of its own."""
    for index, tool in enumerate(tools if isinstance(tools, list) else []):
        if not isinstance(tool, Mapping) or tool.get("type") not in ORDINARY_TOOLS:
            return f"tools.{index}"
        if _long_cached(tool):
            return f"tools.{index}.cache_control"
    return None


def _unpriced_input(embedded: object) -> str | None:
    parts = embedded if isinstance(embedded, list) else [embedded]
    return next((f"input.{index}" for index, part in enumerate(parts) if isinstance(part, Mapping)), None)


def _unpriced_message(body: Mapping[str, object]) -> str | None:
    messages = body.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        fault = _unpriced_in_message(message) if isinstance(message, Mapping) else ""
        if fault is not None:
            return f"messages.{index}.{fault}".rstrip(".")
    return None


def _unpriced_in_message(message: Mapping[str, object]) -> str | None:
    costly = next((name for name in COSTLY_IN_MESSAGES if _asks_for_something(message.get(name))), None)
    if costly is not None:
        return costly
    if _long_cached(message):
        return "cache_control"
    content = message.get("content")
    for index, part in enumerate(content if isinstance(content, list) else []):
        if not isinstance(part, Mapping) or part.get("type") not in ORDINARY_PARTS:
            return f"content.{index}"
        if _long_cached(part):
            return f"content.{index}.cache_control"
    return None


def _long_cached(part: Mapping[str, object]) -> bool:
    """Prompts that a provider keeps for longer than usual cost more than the rate we know."""
    control = part.get("cache_control")
    return isinstance(control, Mapping) and control.get("ttl") not in (None, ORDINARY_CACHE_TTL)
