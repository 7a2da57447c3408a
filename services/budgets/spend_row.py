"""How a call's row of the ledger is shown: the contract's SpendRow (§3.1), and the sums of a day (§3.8)."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.budgets.ledger import DaySpend, UsageRow
from shared.answers import Answer
from shared.money import Usd, UsdNumber

SpendDay = dict[str, Any]


class CostBreakdown(Answer):
    """What a call cost, by part."""

    input_cost: Usd
    output_cost: Usd
    total_cost: Usd


class ErrorInformation(Answer):
    """Why a call failed, as its caller was told."""

    error_code: str | None
    error_class: str | None
    error_message: str | None


class SpendMetadata(Answer):
    """Whose call it was, what the provider reported, and what went wrong."""

    usage_object: dict[str, Any]
    cost_breakdown: CostBreakdown
    user_api_key: str
    user_api_key_alias: str | None
    user_api_key_user_id: str | None
    user_api_key_user_email: str | None
    user_api_key_team_id: None = None
    user_api_key_team_alias: None = None
    user_agent: str | None
    attempted_retries: int
    error_information: ErrorInformation | None


class SpendRow(Answer):
    """One call. Neither its prompt nor its answer is stored anywhere."""

    request_id: str
    call_type: str
    api_key: str
    spend: Usd
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    startTime: datetime  # noqa: N815 - LiteLLM's name
    endTime: datetime  # noqa: N815
    completionStartTime: datetime  # noqa: N815
    request_duration_ms: int
    model: str
    model_id: str
    model_group: str
    custom_llm_provider: str
    api_base: str = ""
    user: str
    team_id: str = ""
    organization_id: str = ""
    end_user: str
    metadata: SpendMetadata
    cache_hit: str = "False"
    cache_key: str = "Cache OFF"
    request_tags: list[str]
    session_id: str
    status: str
    requester_ip_address: str | None
    litellm_call_id: str
    messages: dict[str, Any] = {}
    response: dict[str, Any] = {}


def spend_row(usage: UsageRow, emails: Mapping[str, str]) -> SpendRow:
    """``emails`` are the users', by id, as far as they have one."""
    row = usage.row
    return SpendRow(
        request_id=row["request_id"],
        call_type=row["call_type"],
        api_key=row["token"],
        spend=row["spend_nano_usd"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        total_tokens=row["prompt_tokens"] + row["completion_tokens"],
        startTime=row["started_at"],
        endTime=row["ended_at"],
        completionStartTime=row["first_token_at"],
        request_duration_ms=round((row["ended_at"] - row["started_at"]).total_seconds() * 1000),
        model=row["model"],
        model_id=row["model_id"],
        model_group=row["model_group"],
        custom_llm_provider=row["provider"],
        user=row["user_id"] or "",
        end_user=usage.end_user,
        metadata=_metadata(usage, emails),
        request_tags=row["request_tags"],
        session_id=row["session_id"],
        status=row["status"],
        requester_ip_address=usage.ip,
        litellm_call_id=row["call_id"],
    )


def _metadata(usage: UsageRow, emails: Mapping[str, str]) -> SpendMetadata:
    row = usage.row
    error = ErrorInformation(**{name: row[name] for name in ("error_code", "error_class", "error_message")})
    return SpendMetadata(
        usage_object=json.loads(row["usage_object"]),
        cost_breakdown=CostBreakdown(
            input_cost=row["input_nano_usd"], output_cost=row["output_nano_usd"], total_cost=row["spend_nano_usd"]
        ),
        user_api_key=row["token"],
        user_api_key_alias=row["key_alias"],
        user_api_key_user_id=row["user_id"],
        user_api_key_user_email=emails.get(row["user_id"] or ""),
        user_agent=usage.user_agent,
        attempted_retries=row["attempted_retries"],
        error_information=error if row["status"] == "failure" else None,
    )


def spend_days(spends: Sequence[DaySpend]) -> list[SpendDay]:
    """A row a day, the oldest first, with the day's sums by user and by model, and by each key's hash beside them."""
    days: dict[str, dict[str, Any]] = {}
    for spend in spends:
        day = days.setdefault(spend.day.isoformat(), {"spend": 0, "users": {}, "models": {}, "keys": {}})
        day["spend"] += spend.spend_nano_usd
        for kind, name in (("users", spend.user_id or ""), ("models", spend.model), ("keys", spend.token)):
            day[kind][name] = day[kind].get(name, 0) + spend.spend_nano_usd
    return [
        {
            "startTime": start,
            "spend": UsdNumber(day["spend"]),
            "users": _usd(day["users"]),
            "models": _usd(day["models"]),
            **_usd(day["keys"]),
        }
        for start, day in days.items()
    ]


def _usd(sums: Mapping[str, int]) -> dict[str, UsdNumber]:
    return {name: UsdNumber(nano_usd) for name, nano_usd in sums.items()}
