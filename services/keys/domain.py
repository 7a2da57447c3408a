"""A key: generated once, changed within its limits, blocked, expired by the clock, deleted for good (§5.7)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from typing import Any

from services.keys.events import (
    KeyBlocked,
    KeyDeleted,
    KeyExpired,
    KeyGenerated,
    KeyTerms,
    KeyType,
    KeyUnblocked,
    KeyUpdated,
)
from services.keys.limits import BOUNDED, Limits, check, expiry_of, fill
from shared.aggregate import Aggregate
from shared.errors import Refused

KeyEvent = KeyGenerated | KeyUpdated | KeyBlocked | KeyUnblocked | KeyExpired | KeyDeleted


class Life(Enum):
    """Blocked and expired are not here: both can pass."""

    ABSENT, ALIVE, DELETED = range(3)


@dataclass(frozen=True, slots=True)
class Key:
    """As much as deciding needs to know; the read model knows the rest."""

    life: Life = Life.ABSENT
    token: str = ""
    user_id: str | None = None
    terms: KeyTerms = field(default_factory=KeyTerms)
    blocked: bool = False
    expiry_noted: bool = False


@dataclass(frozen=True, slots=True)
class GenerateKey:
    """``asked`` are the terms as they were sent; what they leave open is filled here."""

    key_id: str
    token: str
    key_name: str
    user_id: str | None
    key_type: KeyType
    asked: KeyTerms
    blocked: bool
    limits: Limits
    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class UpdateKey:
    """``changes`` are the fields of ``KeyTerms`` that were sent; a ``duration`` among them counts from ``now``.

    ``user_id`` is the owner from now on, the same or another.
    """

    key_id: str
    user_id: str | None
    changes: Mapping[str, Any]
    limits: Limits
    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class BlockKey:
    key_id: str
    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class UnblockKey:
    key_id: str
    by: str
    now: datetime


@dataclass(frozen=True, slots=True)
class ExpireKey:
    key_id: str
    now: datetime


@dataclass(frozen=True, slots=True)
class DeleteKey:
    key_id: str
    by: str
    now: datetime


KeyCommand = GenerateKey | UpdateKey | BlockKey | UnblockKey | ExpireKey | DeleteKey


class KeyTaken(Refused):
    reason = "duplicate_key"


class AliasTaken(Refused):
    reason = "duplicate_key_alias"


class KeyUnknown(Refused):
    reason = "not_found"


def decide(key: Key, command: KeyCommand) -> Sequence[KeyEvent]:  # noqa: PLR0911 - a command a return
    """The table of contents."""
    match command:
        case GenerateKey() if key.life is Life.ABSENT:
            return [_generate(command)]
        case GenerateKey(token=token) if token == key.token:
            return []  # asked twice, done once: a repeated command is no error
        case GenerateKey():
            raise KeyTaken("there is such a key already", param="key")
        case DeleteKey() | ExpireKey() if key.life is not Life.ALIVE:
            return []
        case _ if key.life is not Life.ALIVE:
            raise KeyUnknown("there is no such key", param="key")
        case UpdateKey():
            return _update(key, command)
        case BlockKey(key_id, by, now) if not key.blocked:
            return [KeyBlocked(key_id=key_id, token=key.token, updated_by=by, updated_at=now)]
        case UnblockKey(key_id, by, now) if key.blocked:
            return [KeyUnblocked(key_id=key_id, token=key.token, updated_by=by, updated_at=now)]
        case BlockKey() | UnblockKey():
            return []
        case ExpireKey():
            return _expire(key, command)
        case DeleteKey(key_id, by, now):
            return [KeyDeleted(key_id=key_id, token=key.token, user_id=key.user_id, deleted_by=by, deleted_at=now)]


def _generate(command: GenerateKey) -> KeyGenerated:
    now = command.now
    asked = command.asked.model_copy(update={"expires_at": expiry_of(command.asked.duration, now)})
    # A null limit is a missing one here, but a life of "-1" was asked for, and is the longest.
    given = [name for name, of_terms in BOUNDED.items() if getattr(asked, of_terms) is not None]
    given += ["duration"] * (asked.duration is not None) + ["models"] * bool(asked.models)
    check(asked, given, command.limits, now)
    return KeyGenerated(
        key_id=command.key_id,
        token=command.token,
        key_name=command.key_name,
        user_id=command.user_id,
        key_type=command.key_type,
        terms=_dated(fill(asked, command.limits), KeyTerms(), now),
        blocked=command.blocked,
        created_by=command.by,
        created_at=now,
    )


def _update(key: Key, command: UpdateKey) -> list[KeyEvent]:
    changes = dict(command.changes)
    if "duration" in changes:
        changes["expires_at"] = expiry_of(changes["duration"], command.now)
    terms = _dated(key.terms.model_copy(update=changes), key.terms, command.now)
    moved = command.user_id != key.user_id
    given = [name for name, of_terms in BOUNDED.items() if of_terms in changes]
    given += ["models"] * ("models" in changes or moved)
    check(terms, given, command.limits, command.now)
    if terms == key.terms and not moved:
        return []
    return [
        KeyUpdated(
            key_id=command.key_id,
            token=key.token,
            user_id=command.user_id,
            terms=terms,
            updated_by=command.by,
            updated_at=command.now,
        )
    ]


def _dated(terms: KeyTerms, before: KeyTerms, now: datetime) -> KeyTerms:
    """``terms`` with the instant that their budget's windows are counted from: a new duration begins to count now."""
    if terms.max_budget_nano_usd is None and terms.budget_duration is None:
        return terms.model_copy(update={"budget_set_at": None})
    same = before.budget_set_at is not None and terms.budget_duration == before.budget_duration
    return terms.model_copy(update={"budget_set_at": before.budget_set_at if same else now})


def _expire(key: Key, command: ExpireKey) -> list[KeyEvent]:
    expires_at = key.terms.expires_at
    if expires_at is None or expires_at > command.now or key.expiry_noted:
        return []
    return [KeyExpired(key_id=command.key_id, token=key.token, expired_at=expires_at)]


def evolve(key: Key, event: KeyEvent) -> Key:
    """What is known after one event more."""
    match event:
        case KeyGenerated():
            return Key(Life.ALIVE, event.token, event.user_id, event.terms, event.blocked)
        case KeyUpdated(terms=terms):
            noted = key.expiry_noted and terms.expires_at == key.terms.expires_at
            return replace(key, user_id=event.user_id, terms=terms, expiry_noted=noted)
        case KeyBlocked():
            return replace(key, blocked=True)
        case KeyUnblocked():
            return replace(key, blocked=False)
        case KeyExpired():
            return replace(key, expiry_noted=True)
        case KeyDeleted():
            return replace(key, life=Life.DELETED)


KEY = Aggregate(Key(), decide, evolve)


def stream_of(key_id: str) -> str:
    return f"key-{key_id}"
