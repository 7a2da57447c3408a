"""How a call is shown (§3.1): the fields that clients index into, exact money, and no prompt."""

import json
from datetime import date
from typing import Any

from services.budgets.ledger import DaySpend, UsageRow
from services.budgets.spend_row import spend_days, spend_row
from shared.answers import json_bytes
from tests.support.budgets import NOON, SECOND, usage

PRESENT = """
    request_id call_type api_key spend prompt_tokens completion_tokens total_tokens startTime endTime
    completionStartTime request_duration_ms model model_id model_group custom_llm_provider user team_id end_user
    metadata cache_hit cache_key request_tags session_id status requester_ip_address litellm_call_id api_base
    organization_id messages response
"""
METADATA = """
    usage_object cost_breakdown user_api_key user_api_key_alias user_api_key_user_id user_api_key_user_email
    user_api_key_team_id user_api_key_team_alias user_agent attempted_retries error_information
"""


def shown(**more: Any) -> dict[str, Any]:
    stored = usage().model_dump() | {
        "usage_object": '{"total_tokens":31}',
        "spend_nano_usd": 51_000,
        "input_nano_usd": 11_000,
        "output_nano_usd": 40_000,
        "request_tags": ["t1"],
    }
    row = UsageRow(stored | more, "127.0.0.1", "curl/7.88.1", "end-user-7", presumed=False)
    answer: dict[str, Any] = json.loads(json_bytes(spend_row(row, {"ada": "ada@example.test"})), parse_float=str)
    return answer


def test_a_row_has_the_contracts_fields() -> None:
    assert sorted(shown()) == sorted(PRESENT.split())
    assert sorted(shown()["metadata"]) == sorted(METADATA.split())


def test_money_is_exact() -> None:
    row = shown()
    assert row["spend"] == "0.000051"
    assert row["metadata"]["cost_breakdown"] == {
        "input_cost": "0.000011",
        "output_cost": "0.00004",
        "total_cost": "0.000051",
    }


def test_a_success_has_no_error() -> None:
    row = shown()
    assert (row["status"], row["metadata"]["error_information"]) == ("success", None)
    assert (row["total_tokens"], row["request_duration_ms"]) == (31, 1000)
    assert (row["startTime"], row["endTime"]) == ("2026-11-24T12:00:00.000000Z", "2026-11-24T12:00:01.000000Z")


def test_a_failure_says_why() -> None:
    row = shown(status="failure", error_code="429", error_class="budget_exceeded", error_message="no", spend_nano_usd=0)
    assert row["spend"] == 0
    assert row["metadata"]["error_information"] == {
        "error_code": "429",
        "error_class": "budget_exceeded",
        "error_message": "no",
    }


def test_what_is_not_there_is_null_and_an_absent_user_or_team_is_empty() -> None:
    row = shown(user_id=None, key_alias=None)
    assert (row["user"], row["team_id"]) == ("", "")
    assert row["metadata"]["user_api_key_user_id"] is None
    assert row["metadata"]["user_api_key_user_email"] is None
    assert row["metadata"]["user_api_key_alias"] is None


def test_the_users_address_is_the_one_that_was_opened() -> None:
    assert shown()["metadata"]["user_api_key_user_email"] == "ada@example.test"


def test_a_day_sums_by_user_model_and_key() -> None:
    day = date(2026, 11, 24)
    spends = [
        DaySpend(day, "a" * 64, "ada", "openai/one", 5),
        DaySpend(day, "a" * 64, "ada", "openai/two", 7),
        DaySpend(day, "b" * 64, None, "openai/two", 100_000),
        DaySpend(date(2026, 11, 25), "a" * 64, "ada", "openai/one", 1),
    ]
    assert json.loads(json_bytes(spend_days(spends)), parse_float=str) == [
        {
            "startTime": "2026-11-24",
            "spend": "0.000100012",
            "users": {"ada": "0.000000012", "": "0.0001"},
            "models": {"openai/one": "0.000000005", "openai/two": "0.000100007"},
            "a" * 64: "0.000000012",
            "b" * 64: "0.0001",
        },
        {
            "startTime": "2026-11-25",
            "spend": "0.000000001",
            "users": {"ada": "0.000000001"},
            "models": {"openai/one": "0.000000001"},
            "a" * 64: "0.000000001",
        },
    ]


def test_a_call_that_is_not_over_has_no_length_below_zero() -> None:
    assert shown(started_at=NOON, ended_at=NOON)["request_duration_ms"] == 0
    assert shown(started_at=NOON, ended_at=NOON + SECOND / 2)["request_duration_ms"] == 500
