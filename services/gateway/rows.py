"""What a call leaves behind: the facts of its SpendRow (§3.1), from who called what, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from fastapi import Request

from services.budgets.requests import Usage
from services.gateway.admission import Caller
from services.gateway.calls import Call, CallKind, user_agent_tags
from services.gateway.models import Deployment
from services.gateway.pricing import Cost
from services.gateway.pricing import Usage as Tokens
from services.gateway.reply import UpstreamRefused
from shared.errors import Refused

TEXT_LENGTH_MAX = 512


@dataclass(frozen=True, slots=True)
class Journey:
    """One call on its way: filled in as more becomes known."""

    call_id: str
    kind: CallKind
    started_at: datetime
    ip: str | None
    user_agent: str | None
    user_agent_tags: tuple[str, ...]
    caller: Caller | None = None
    call: Call | None = None
    deployment: Deployment | None = None
    retries: int = 0
    first_token_at: datetime | None = None

    def with_(self, **known: Any) -> "Journey":
        return replace(self, **known)


def journey_of(request: Request, kind: CallKind, now: datetime, *, tag_user_agent: bool) -> Journey:
    agent = request.headers.get("user-agent", "")[:TEXT_LENGTH_MAX] or None
    return Journey(
        call_id=request.scope["keystead.call_id"],
        kind=kind,
        started_at=now,
        ip=request.scope.get("keystead.address"),
        user_agent=agent,
        user_agent_tags=user_agent_tags(agent) if tag_user_agent else (),
    )


def succeeded(
    journey: Journey,
    tokens: Tokens | None,
    cost: Cost | None,
    *,
    reported: Mapping[str, Any],
    answer_id: str,
    ended: datetime,
) -> Usage:
    """The facts of a call that was answered. ``tokens`` is None if the provider did not say."""
    counts = tokens or Tokens(0, 0)
    return _usage(journey, ended).model_copy(
        update={
            "request_id": answer_id or journey.call_id,
            "prompt_tokens": counts.prompt_tokens,
            "completion_tokens": counts.completion_tokens,
            "cache_read_tokens": counts.cache_read_tokens,
            "cache_creation_tokens": counts.cache_creation_tokens,
            "input_nano_usd": cost.input_nano_usd if cost else 0,
            "output_nano_usd": cost.output_nano_usd if cost else 0,
            "usage_object": dict(reported),
        }
    )


def failed(journey: Journey, refused: Refused, ended: datetime) -> Usage:
    """The facts of a call that was refused, or came to nothing upstream."""
    return _usage(journey, ended).model_copy(
        update={
            "status": "failure",
            "error_code": str(refused.status),
            "error_class": "UpstreamRefused" if isinstance(refused, UpstreamRefused) else type(refused).__name__,
            "error_message": refused.message[:TEXT_LENGTH_MAX],
        }
    )


def _usage(journey: Journey, ended: datetime) -> Usage:
    call, caller, deployment = journey.call, journey.caller, journey.deployment
    key = caller.key if caller else None
    tags = (*(call.tags if call else ()), *(key.tags if key else ()), *journey.user_agent_tags)
    name = call.model if call else ""
    return Usage(
        call_id=journey.call_id,
        request_id=journey.call_id,
        call_type=journey.kind.call_type,
        status="success",
        token=caller.token if caller else "",
        key_id=key.key_id if key else None,
        key_alias=key.key_alias if key else None,
        user_id=caller.principal.user_id if caller else None,
        model=deployment.model if deployment else name,
        model_group=name,
        model_id=deployment.id if deployment else "",
        provider=deployment.provider if deployment else "",
        started_at=journey.started_at,
        first_token_at=journey.first_token_at or ended,
        ended_at=ended,
        request_tags=tuple(dict.fromkeys(tags)),
        session_id=(call.session_id if call else None) or journey.call_id,
        end_user=(call.end_user if call else None) or "",
        ip=journey.ip,
        user_agent=journey.user_agent,
        attempted_retries=journey.retries,
    )
