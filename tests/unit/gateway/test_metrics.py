"""What is counted of calls, and whom it names (§1.6)."""

from services.budgets.requests import Usage
from services.gateway.metrics import Metrics
from tests.support.budgets import usage


def called(**facts: object) -> Usage:
    return usage(
        **(
            {
                "token": "a-hash",
                "model": "openai/gpt",
                "model_group": "fast",
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "user_id": "ada@example.test",
                "end_user": "bob@example.test",
            }
            | facts
        )
    )


LABELS = '{hashed_api_key="a-hash",model="openai/gpt",requested_model="fast"}'


def lines(metrics: Metrics) -> list[str]:
    return metrics.text().decode().splitlines()


def test_an_answered_call_is_counted_with_its_tokens_and_its_charge() -> None:
    metrics = Metrics(["fast"])
    metrics.note(called(), 50_000)
    metrics.note(called(), 50_000)
    assert {
        f"litellm_proxy_total_requests_metric_total{LABELS} 2.0",
        f"litellm_spend_metric_total{LABELS} 0.0001",
        f"litellm_total_tokens_metric_total{LABELS} 60.0",
        f"litellm_input_tokens_metric_total{LABELS} 20.0",
        f"litellm_output_tokens_metric_total{LABELS} 40.0",
        'litellm_llm_api_latency_metric_count{model="openai/gpt"} 2.0',
    } <= set(lines(metrics))


def test_a_call_that_failed_is_counted_as_such_with_what_it_cost_all_the_same() -> None:
    metrics = Metrics(["fast"])
    metrics.note(called(status="failure"), 7)
    counted = lines(metrics)
    assert f"litellm_proxy_failed_requests_metric_total{LABELS} 1.0" in counted
    assert f"litellm_proxy_total_requests_metric_total{LABELS} 1.0" in counted
    assert f"litellm_spend_metric_total{LABELS} 7e-09" in counted
    assert not any(line.startswith("litellm_total_tokens_metric_total") for line in counted)


def test_models_that_only_clients_have_heard_of_have_no_name() -> None:
    metrics = Metrics(["fast"])
    for number in range(3):
        metrics.note(called(model=f"no {number}", model_group=f"no {number}", status="failure"), 0)
    nameless = '{hashed_api_key="a-hash",model="",requested_model=""}'
    assert f"litellm_proxy_failed_requests_metric_total{nameless} 3.0" in lines(metrics)


def test_nobody_is_named() -> None:
    metrics = Metrics(["fast"])
    metrics.note(called(), 1)
    assert "@" not in metrics.text().decode()
    assert "ada" not in metrics.text().decode()
