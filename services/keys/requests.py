"""What others may ask keys now."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from services.keys.events import KeyType
from shared.requests import Found, Question


class FindKey(Question):
    """Which key has this hash?"""

    token: str


class FoundKey(Found):
    """A key as the gateway needs it. ``exists`` is false for one unknown or deleted; then the rest is empty.

    ``position`` is keys' last position when it looked.
    """

    key_id: str = ""
    token: str = ""
    key_alias: str | None = None
    user_id: str | None = None
    key_type: KeyType = "default"
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    max_budget_nano_usd: int | None = None
    tpm_limit: int | None = None
    rpm_limit: int | None = None
    blocked: bool = False
    expires_at: datetime | None = None


class ListUserKeys(Question):
    """A user's keys, newest first, as the contract's Key objects (§3.1), ready to be shown."""

    user_id: str
    limit: int = 100


class ListedKeys(BaseModel):
    """``keys`` are wire objects, money in them as decimal text under ``usd:`` (see ``shared.answers``)."""

    keys: list[dict[str, Any]]
    total: int


class CountUserKeys(Question):
    """How many keys, not counting deleted ones, has each of these users?"""

    user_ids: tuple[str, ...]


class CountedKeys(BaseModel):
    counts: dict[str, int]
