"""The User object (§3.1) and how a session is handed out."""

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row

from services.identity import tokens
from services.identity.handlers import StartedSession
from services.identity.read_model import limits_of
from services.identity.settings import IdentitySettings
from shared.answers import Answer
from shared.durations import parse_duration, window_of
from shared.money import Usd

COOKIE = "token"


class User(Answer):
    """A user, as every answer shows one."""

    user_id: str
    user_email: str | None
    user_alias: str | None
    user_role: str
    teams: list[str] = []
    models: list[str]
    spend: Usd
    total_spend: Usd
    max_budget: Usd | None
    budget_duration: str | None
    budget_reset_at: datetime | None
    budget_limits: None = None
    budget_enforcement: Literal["strict"] = "strict"
    max_parallel_requests: int | None
    tpm_limit: int | None
    rpm_limit: int | None
    metadata: dict[str, Any]
    sso_user_id: str | None = None
    created_at: datetime
    updated_at: datetime
    team_id: None = None
    organization_id: None = None
    allowed_cache_controls: list[str] = []
    model_spend: dict[str, Any] = {}
    model_max_budget: dict[str, Any] = {}
    organization_memberships: list[str] = []


def user_fields(row: Row[Any], settings: IdentitySettings, now: datetime) -> dict[str, Any]:
    """A row of the read model as the fields of a ``User``."""
    limits = limits_of(row)
    in_window = row.window_end is None or row.window_end > now
    reset_at = None
    if limits.budget_duration is not None:
        set_at = limits.budget_set_at or row.created_at
        reset_at = window_of(parse_duration(limits.budget_duration), now, set_at, settings.timezone).end
    return {
        "user_id": row.user_id,
        "user_email": row.email,
        "user_alias": row.alias,
        "user_role": row.role,
        "models": list(limits.models),
        "spend": (row.window_spent_nano_usd or 0) if in_window else 0,
        "total_spend": row.total_spent_nano_usd or 0,
        "max_budget": limits.max_budget_nano_usd,
        "budget_duration": limits.budget_duration,
        "budget_reset_at": reset_at,
        "max_parallel_requests": limits.max_parallel_requests,
        "tpm_limit": limits.tpm_limit,
        "rpm_limit": limits.rpm_limit,
        "metadata": row.metadata,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }


def user_answer(row: Row[Any], settings: IdentitySettings, now: datetime) -> User:
    return User(**user_fields(row, settings, now))


def jwt_of(settings: IdentitySettings, session: StartedSession) -> str:
    return tokens.session_jwt(
        settings.keyring,
        user_id=session.user_id,
        session=session.secret,
        email=session.email,
        role=session.role,
        expires_at=session.expires_at,
    )


def cookie(settings: IdentitySettings, token: str, *, max_age_seconds: int) -> str:
    """The ``Set-Cookie`` of §1.2 (D8)."""
    secure = "; Secure" if settings.base_url.startswith("https://") else ""
    return f"{COOKIE}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={max_age_seconds}{secure}"
