"""The contract's Key object (§3.1): a key as everyone is shown it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from services.keys.events import KeyType
from services.keys.read_model import KeyRow, Status
from shared.answers import Answer
from shared.durations import parse_duration, window_of
from shared.money import Usd

# §3.1: in the answer only where there is something to say.
Told = Field(default=None, exclude_if=lambda value: value is None)
Empty = Annotated[dict[str, Any], Field(default_factory=dict, max_length=0)]


class KeyInfo(Answer):
    """A key without its hash. What waits for later versions has the one value it can have now."""

    key_name: str
    key_alias: str | None
    key_id: str
    user_id: str | None
    team_id: None = None
    models: tuple[str, ...]
    spend: Usd
    total_spend: Usd
    max_budget: Usd | None
    soft_budget: Usd | None
    budget_duration: str | None
    budget_reset_at: datetime | None
    budget_limits: None = None
    budget_id: None = None
    litellm_budget_table: None = None
    budget_enforcement: Literal["strict"] = "strict"
    tpm_limit: int | None
    rpm_limit: int | None
    max_parallel_requests: int | None
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    expires: datetime | None
    blocked: bool
    key_type: KeyType
    status: Status
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    last_active: datetime | None
    rotation_count: int = 0
    last_rotation_at: None = None
    grace_until: None = None
    deleted_at: Annotated[datetime | None, Told]
    deleted_by: Annotated[str | None, Told]
    # Constant: LiteLLM's documented samples show these, and clients index into them (D34).
    aliases: Empty
    config: Empty
    permissions: Empty
    allowed_cache_controls: tuple[str, ...] = ()
    allowed_routes: tuple[str, ...] = ()
    model_spend: Empty
    model_max_budget: Empty
    organization_id: None = None
    soft_budget_cooldown: bool = False
    auto_rotate: bool = False
    rotation_interval: None = None


class Key(KeyInfo):
    """A key; ``token`` is its hash."""

    token: str


def key_fields(key: KeyRow, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """The fields of a ``KeyInfo`` that vary, by the clock of ``now``."""
    terms = key.terms
    return {
        "key_name": key.key_name,
        "key_alias": terms.key_alias,
        "key_id": key.key_id,
        "user_id": key.user_id,
        "models": terms.models,
        "spend": key.spent_nano_usd_at(now),
        "total_spend": key.total_spent_nano_usd,
        "max_budget": terms.max_budget_nano_usd,
        "soft_budget": terms.soft_budget_nano_usd,
        "budget_duration": terms.budget_duration,
        "budget_reset_at": _budget_reset_at(key, now, zone),
        "tpm_limit": terms.tpm_limit,
        "rpm_limit": terms.rpm_limit,
        "max_parallel_requests": terms.max_parallel_requests,
        "metadata": terms.metadata,
        "tags": terms.tags,
        "expires": terms.expires_at,
        "blocked": key.blocked,
        "key_type": key.key_type,
        "status": key.status_at(now),
        "created_at": key.created_at,
        "created_by": key.created_by,
        "updated_at": key.updated_at,
        "updated_by": key.updated_by,
        "last_active": key.last_used_at,
        "deleted_at": key.deleted_at,
        "deleted_by": key.deleted_by,
    }


def key_object(key: KeyRow, now: datetime, zone: ZoneInfo) -> Key:
    """The whole object."""
    return Key(**key_fields(key, now, zone), token=key.token)


def _budget_reset_at(key: KeyRow, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The end of the window that holds now (§4.6)."""
    terms = key.terms
    if terms.budget_duration is None:
        return None
    set_at = terms.budget_set_at or key.created_at
    return window_of(parse_duration(terms.budget_duration), now, set_at, zone).end
