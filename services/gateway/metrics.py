"""What ``/metrics`` counts, in LiteLLM's names where the meaning is the same (§1.6). Keys by hash, nobody by name."""

from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.budgets.requests import Usage
from shared.money import NANO_PER_USD

BY_CALL = ("hashed_api_key", "model", "requested_model")


class Metrics:
    """One worker's counters."""

    def __init__(self, model_names: Collection[str]) -> None:
        self._model_names = frozenset(model_names)
        self._registry = CollectorRegistry()
        self._spend = self._counter("litellm_spend_metric", "Spend of calls as charged, USD.")
        self._tokens = self._counter("litellm_total_tokens_metric", "Tokens in and out.")
        self._input_tokens = self._counter("litellm_input_tokens_metric", "Tokens of prompts.")
        self._output_tokens = self._counter("litellm_output_tokens_metric", "Tokens of answers.")
        self._requests = self._counter("litellm_proxy_total_requests_metric", "Model calls of known credentials.")
        self._failures = self._counter("litellm_proxy_failed_requests_metric", "… that were refused or failed.")
        self.in_flight = Gauge("litellm_in_flight_requests", "Model calls under way.", registry=self._registry)
        self._duration = Histogram(
            "litellm_llm_api_latency_metric",
            "Seconds from a call's start to its end.",
            ["model"],
            registry=self._registry,
        )

    def _counter(self, name: str, says: str) -> Counter:
        return Counter(name, says, BY_CALL, registry=self._registry)

    def note(self, usage: Usage, charged_nano_usd: int) -> None:
        """A call ended."""
        known = usage.model_group in self._model_names  # what else clients ask for would grow without end
        labels = (usage.token, usage.model if known else "", usage.model_group if known else "")
        self._requests.labels(*labels).inc()
        self._spend.labels(*labels).inc(charged_nano_usd / NANO_PER_USD)
        if usage.status == "failure":
            self._failures.labels(*labels).inc()
            return
        self._tokens.labels(*labels).inc(usage.prompt_tokens + usage.completion_tokens)
        self._input_tokens.labels(*labels).inc(usage.prompt_tokens)
        self._output_tokens.labels(*labels).inc(usage.completion_tokens)
        self._duration.labels(usage.model).observe((usage.ended_at - usage.started_at).total_seconds())

    def text(self) -> bytes:
        """In Prometheus's text form."""
        return generate_latest(self._registry)
