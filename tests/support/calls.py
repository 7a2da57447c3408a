"""Calls and deployments as tests of the gateway need them."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from services.gateway.calls import Call, CallKind, parse_call
from services.gateway.models import Deployment
from services.gateway.pricing import Prices, Rates, Tier

HELLO = [{"role": "user", "content": "Say hello."}]


def rates(
    input_usd: str, output_usd: str | None, cache_read_usd: str | None = None, cache_creation_usd: str | None = None
) -> Rates:
    """USD per token; cached tokens cost what all do, unless said."""
    return Rates(
        Decimal(input_usd),
        None if output_usd is None else Decimal(output_usd),
        Decimal(cache_read_usd or input_usd),
        Decimal(cache_creation_usd or input_usd),
    )


def flat(
    input_usd: str, output_usd: str | None, cache_read: str | None = None, cache_creation: str | None = None
) -> Prices:
    """Prices that are the same at every length."""
    return Prices((Tier(-1, rates(input_usd, output_usd, cache_read, cache_creation)),), "litellm_params")


CHEAP = flat("0.000001", "0.000002")


def deployment(upstream_model: str = "gpt", **settings: Any) -> Deployment:
    """A priced deployment of the model ``asked`` at OpenAI."""
    defaults: dict[str, Any] = {"provider": "openai", "api_base": "https://api.test/v1", "prices": CHEAP, "id": "d1"}
    return Deployment(model_name="asked", upstream_model=upstream_model, **(defaults | settings))


def mock_deployment(text: str = "Hello from the mock model. This is a canned answer.", **settings: Any) -> Deployment:
    return deployment(mock_response=text, **settings)


def chat(headers: Mapping[str, str] | None = None, **body: Any) -> Call:
    """A chat call; ``Say hello.`` to the model ``asked``, unless said."""
    return parse_call(CallKind.CHAT, {"model": "asked", "messages": HELLO} | body, headers or {})


def completion(**body: Any) -> Call:
    return parse_call(CallKind.COMPLETION, {"model": "asked", "prompt": "Say hello."} | body, {})


def embedding(**body: Any) -> Call:
    return parse_call(CallKind.EMBEDDING, {"model": "asked", "input": "Say hello."} | body, {})
