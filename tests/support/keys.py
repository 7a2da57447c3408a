"""Facts about keys that tests share."""

from datetime import UTC, datetime
from typing import Any

from services.keys.domain import GenerateKey, UpdateKey
from services.keys.events import KeyDeleted, KeyGenerated, KeyTerms, KeyUpdated
from services.keys.limits import Limits

NOON = datetime(2026, 11, 24, 12, 47, 15, tzinfo=UTC)
KEY_ID, TOKEN = "k00000000001", "a" * 64
USD = 1_000_000_000


def generate(limits: Limits | None = None, **asked: Any) -> GenerateKey:
    """Ada asks for a key of these terms."""
    return GenerateKey(
        key_id=KEY_ID,
        token=TOKEN,
        key_name="sk-...4P8g",
        user_id="ada",
        key_type="default",
        asked=KeyTerms(**asked),
        blocked=False,
        limits=limits or Limits(known_models=frozenset({"fast", "priced"})),
        by="ada",
        now=NOON,
    )


def generated(**terms: Any) -> KeyGenerated:
    """That key, as it was made."""
    return KeyGenerated(
        key_id=KEY_ID,
        token=TOKEN,
        key_name="sk-...4P8g",
        user_id="ada",
        key_type="default",
        terms=KeyTerms(**terms),
        blocked=False,
        created_by="ada",
        created_at=NOON,
    )


def update(limits: Limits | None = None, *, now: datetime = NOON, **changes: Any) -> UpdateKey:
    """The admin changes it."""
    known = limits or Limits(known_models=frozenset({"fast", "priced"}))
    return UpdateKey(key_id=KEY_ID, user_id="ada", changes=changes, limits=known, by="admin", now=now)


def updated(*, at: datetime = NOON, **terms: Any) -> KeyUpdated:
    """Its terms from then on."""
    terms_then = KeyTerms(**terms)
    return KeyUpdated(key_id=KEY_ID, token=TOKEN, user_id="ada", terms=terms_then, updated_by="admin", updated_at=at)


DELETED = KeyDeleted(key_id=KEY_ID, token=TOKEN, user_id="ada", deleted_by="ada", deleted_at=NOON)
