"""What keys publishes. These shapes are stored for ever: add a version, never change one.

A key is known by ``token``, the SHA-256 of the whole key, and by ``key_id``, which stays the same for life.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from shared.events import Catalog, Event

KeyType = Literal["default", "llm_api", "management", "read_only"]


class KeyTerms(BaseModel):
    """All that can be changed about a key. Money in nano-USD; null is no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_alias: str | None = None
    models: tuple[str, ...] = ()
    max_budget_nano_usd: int | None = None
    soft_budget_nano_usd: int | None = None
    budget_duration: str | None = None
    budget_set_at: datetime | None = None
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    max_parallel_requests: int | None = None
    metadata: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    duration: str | None = None
    expires_at: datetime | None = None


class KeyGenerated(Event):
    """A key, whom it is for, and its terms."""

    key_id: str
    token: str
    key_name: str
    user_id: str | None
    key_type: KeyType
    terms: KeyTerms
    blocked: bool
    created_by: str
    created_at: datetime


class KeyUpdated(Event):
    """The key's owner and terms as they are from now on."""

    key_id: str
    token: str
    user_id: str | None
    terms: KeyTerms
    updated_by: str
    updated_at: datetime


class KeyBlocked(Event):
    """The key opens nothing until it is unblocked."""

    key_id: str
    token: str
    updated_by: str
    updated_at: datetime


class KeyUnblocked(Event):
    """The key opens again what it opened."""

    key_id: str
    token: str
    updated_by: str
    updated_at: datetime


class KeyExpired(Event):
    """The key's time was over; new terms can give it another."""

    key_id: str
    token: str
    expired_at: datetime


class KeyDeleted(Event):
    """The key is gone for good."""

    key_id: str
    token: str
    user_id: str | None
    deleted_by: str
    deleted_at: datetime


CATALOG = Catalog("keys", KeyGenerated, KeyUpdated, KeyBlocked, KeyUnblocked, KeyExpired, KeyDeleted)
