"""What keys reads: each key as it stands, what its owner may do, and what it spent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Index,
    MetaData,
    Row,
    Select,
    Table,
    Text,
    and_,
    case,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB

from services.budgets.events import SpendTotalsPublished
from services.identity.events import UserCreated, UserDeleted, UserUpdated
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
from shared.event_store import Transaction
from shared.events import Event
from shared.projections import Projection, upsert

METADATA = MetaData()

Status = Literal["active", "expired", "revoked", "deleted"]

keys = Table(
    "keys_1",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("token", Text, nullable=False, index=True),  # unique by its claim, which is taken after this is written
    Column("key_name", Text, nullable=False),
    Column("user_id", Text, index=True),
    Column("key_type", Text, nullable=False),
    Column("blocked", Boolean, nullable=False),
    Column("expiry_noted", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("created_by", Text, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("updated_by", Text, nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
    Column("deleted_by", Text),
    # KeyTerms, a column a field.
    Column("key_alias", Text, index=True),
    Column("models", JSONB, nullable=False),
    Column("max_budget_nano_usd", BigInteger),
    Column("soft_budget_nano_usd", BigInteger),
    Column("budget_duration", Text),
    Column("budget_set_at", DateTime(timezone=True)),
    Column("tpm_limit", BigInteger),
    Column("rpm_limit", BigInteger),
    Column("max_parallel_requests", BigInteger),
    Column("metadata", JSONB, nullable=False),
    Column("tags", JSONB, nullable=False),
    Column("duration", Text),
    Column("expires_at", DateTime(timezone=True)),
)
_is_due = and_(keys.c.deleted_at.is_(None), ~keys.c.expiry_noted)
Index("keys_1_by_age", keys.c.created_at, keys.c.key_id)
Index("keys_1_due", keys.c.expires_at, postgresql_where=_is_due)

owners = Table(
    "owners_1",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("models", JSONB, nullable=False),
    Column("max_budget_nano_usd", BigInteger),
    Column("deleted", Boolean, nullable=False),
)

spend = Table(
    "spend_1",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("window_end", DateTime(timezone=True)),
    Column("window_spent_nano_usd", BigInteger, nullable=False),
    Column("total_spent_nano_usd", BigInteger, nullable=False),
    Column("last_used_at", DateTime(timezone=True)),
)


async def project_key(tx: Transaction, event: Event) -> None:
    """Only rows of the event's own stream change."""
    match event:
        case KeyGenerated(key_id=key_id, created_at=at, created_by=by):
            made = event.model_dump(include={"token", "key_name", "user_id", "key_type", "blocked"})
            made |= event.terms.model_dump() | {"expiry_noted": False, "created_at": at, "created_by": by}
            await tx.connection.execute(upsert(keys, {"key_id": key_id}, made | _updated(at, by)))
        case KeyUpdated(key_id=key_id, updated_at=at, updated_by=by):
            same_life = keys.c.expires_at.is_not_distinct_from(event.terms.expires_at)
            changed = event.terms.model_dump() | {"user_id": event.user_id} | _updated(at, by)
            await _change(tx, key_id, changed | {"expiry_noted": and_(keys.c.expiry_noted, same_life)})
        case KeyBlocked(key_id=key_id, updated_at=at, updated_by=by):
            await _change(tx, key_id, {"blocked": True} | _updated(at, by))
        case KeyUnblocked(key_id=key_id, updated_at=at, updated_by=by):
            await _change(tx, key_id, {"blocked": False} | _updated(at, by))
        case KeyExpired(key_id=key_id):
            # By the clock it was so before: whoever reads the key sees no change.
            await _change(tx, key_id, {"expiry_noted": True})
        case KeyDeleted(key_id=key_id, deleted_at=at, deleted_by=by):
            await _change(tx, key_id, {"deleted_at": at, "deleted_by": by})
        case _:
            pass


def _updated(at: datetime, by: str) -> dict[str, Any]:
    return {"updated_at": at, "updated_by": by}


async def _change(tx: Transaction, key_id: str, values: dict[str, Any]) -> None:
    await tx.connection.execute(keys.update().where(keys.c.key_id == key_id).values(values))


async def project_owner(tx: Transaction, event: Event) -> None:
    """A deleted user's row stays: it is what commands lock, and tells a deleted user from one that never was."""
    match event:
        case UserCreated(user_id=user_id, limits=limits) | UserUpdated(user_id=user_id, limits=limits):
            values: dict[str, object] = {"models": limits.models, "max_budget_nano_usd": limits.max_budget_nano_usd}
            await tx.connection.execute(upsert(owners, {"user_id": user_id}, values | {"deleted": False}))
        case UserDeleted(user_id=user_id):
            await tx.connection.execute(owners.update().where(owners.c.user_id == user_id).values(deleted=True))
        case _:
            pass


async def project_spend(tx: Transaction, event: Event) -> None:
    """The last totals of each key."""
    if not isinstance(event, SpendTotalsPublished):
        return
    for total in event.totals:
        kind, _, key_id = total.scope.partition(":")
        if kind == "key":
            values = total.model_dump(exclude={"scope", "window_start"})
            await tx.connection.execute(upsert(spend, {"key_id": key_id}, values))


KEYS = Projection("keys", "keys", (keys,), project_key)
OWNERS = Projection("owners", "identity", (owners,), project_owner)
SPEND = Projection("spend", "budgets", (spend,), project_spend)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it stands."""

    key_id: str
    token: str
    key_name: str
    user_id: str | None
    key_type: KeyType
    terms: KeyTerms
    blocked: bool
    created_at: datetime
    created_by: str
    updated_at: datetime
    updated_by: str
    deleted_at: datetime | None
    deleted_by: str | None
    window_end: datetime | None
    window_spent_nano_usd: int
    total_spent_nano_usd: int
    last_used_at: datetime | None

    def status_at(self, now: datetime) -> Status:
        """Blocked comes before expired, as on a call (§5.3)."""
        if self.deleted_at is not None:
            return "deleted"
        if self.blocked:
            return "revoked"
        return "expired" if self.terms.expires_at is not None and self.terms.expires_at <= now else "active"

    def spent_nano_usd_at(self, now: datetime) -> int:
        """This window's spend: what was told of one that is over is not this one's."""
        return self.window_spent_nano_usd if self.window_end is None or now < self.window_end else 0


@dataclass(frozen=True, slots=True)
class Owner:
    """A user as far as their keys go."""

    models: tuple[str, ...]
    max_budget_nano_usd: int | None


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys; null is any. ``seen_by`` is the one user whose keys the caller sees, null for all.

    With ``or_created``, those that ``user_id`` created count as theirs. ``status`` null is all but deleted ones.
    """

    seen_by: str | None = None
    user_id: str | None = None
    or_created: bool = False
    key_id: str | None = None
    alias: str | None = None
    alias_part: str | None = None
    search: str | None = None
    status: Status | None = None
    expired: bool | None = None


SortBy = Literal["created_at", "updated_at", "key_alias", "expires", "max_budget", "spend"]

_spent = func.coalesce(spend.c.window_spent_nano_usd, 0)
_joined = keys.outerjoin(spend, spend.c.key_id == keys.c.key_id)
_select = select(
    keys,
    spend.c.window_end,
    _spent.label("window_spent_nano_usd"),
    func.coalesce(spend.c.total_spent_nano_usd, 0).label("total_spent_nano_usd"),
    spend.c.last_used_at,
).select_from(_joined)


async def find_key(tx: Transaction, name: str, *, locked: bool = False) -> KeyRow | None:
    """By its hash or its ``key_id``; a deleted one too. ``locked`` keeps others from changing it meanwhile."""
    return await _first(tx, _select.where(or_(keys.c.token == name, keys.c.key_id == name)), locked)


async def find_key_by_alias(tx: Transaction, alias: str, *, locked: bool = False) -> KeyRow | None:
    """The one that has the alias, or else the last deleted one that had it."""
    query = _select.where(keys.c.key_alias == alias).order_by(keys.c.deleted_at.desc().nulls_first()).limit(1)
    return await _first(tx, query, locked)


async def get_key(tx: Transaction, key_id: str) -> KeyRow:
    """The key of that id, which is there."""
    return _key((await tx.connection.execute(_select.where(keys.c.key_id == key_id))).one())


async def list_keys(
    tx: Transaction, wanted: KeyFilter, *, sort_by: SortBy, descending: bool, limit: int, offset: int = 0
) -> tuple[list[KeyRow], int]:
    """A page of keys, and how many there are in all."""
    conditions = _conditions(wanted, tx.now)
    column = _column(sort_by, tx.now)
    order = column.desc().nulls_last() if descending else column.asc().nulls_last()
    total = await tx.connection.execute(select(func.count()).select_from(keys).where(*conditions))
    query = _select.where(*conditions).order_by(order, keys.c.created_at.desc(), keys.c.key_id)
    rows = await tx.connection.execute(query.limit(limit).offset(offset))
    return [_key(row) for row in rows], total.scalar_one()


async def count_keys(tx: Transaction, user_ids: Sequence[str]) -> dict[str, int]:
    """How many keys, not counting deleted ones, each of these users has; those who have none are left out."""
    query = (
        select(keys.c.user_id, func.count().label("number"))
        .where(keys.c.user_id.in_(user_ids), keys.c.deleted_at.is_(None))
        .group_by(keys.c.user_id)
    )
    return {row.user_id: row.number for row in await tx.connection.execute(query)}


async def list_keys_of(tx: Transaction, user_id: str) -> list[KeyRow]:
    """All of a user's that live, locked."""
    query = _select.where(keys.c.user_id == user_id, keys.c.deleted_at.is_(None)).order_by(keys.c.key_id)
    return [_key(row) for row in await tx.connection.execute(query.with_for_update(of=keys))]


async def list_due_key_ids(tx: Transaction, limit: int) -> Sequence[str]:
    """Keys that are over by the clock and by no event yet, the oldest first."""
    due = and_(_is_due, keys.c.expires_at <= tx.now)
    query = select(keys.c.key_id).where(due).order_by(keys.c.expires_at, keys.c.key_id).limit(limit)
    return (await tx.connection.execute(query)).scalars().all()


async def find_owner(tx: Transaction, user_id: str) -> Owner | None:
    """The user, locked for share: whoever deletes them comes after us, and then finds what we made (design §3)."""
    query = select(owners).where(owners.c.user_id == user_id).with_for_update(read=True)
    row = (await tx.connection.execute(query)).first()
    return None if row is None or row.deleted else Owner(tuple(row.models), row.max_budget_nano_usd)


async def knows_user(tx: Transaction, user_id: str) -> bool:
    """Whether there is or was such a user."""
    rows = await tx.connection.execute(select(owners.c.user_id).where(owners.c.user_id == user_id))
    return rows.first() is not None


async def _first(tx: Transaction, query: Select[Any], locked: bool) -> KeyRow | None:
    row = (await tx.connection.execute(query.with_for_update(of=keys) if locked else query)).first()
    return None if row is None else _key(row)


def _conditions(wanted: KeyFilter, now: datetime) -> list[ColumnElement[bool]]:
    conditions = [_status_at(now) == wanted.status if wanted.status else keys.c.deleted_at.is_(None)]
    if wanted.seen_by is not None:
        conditions.append(keys.c.user_id == wanted.seen_by)
    if wanted.user_id is not None:
        theirs = keys.c.user_id == wanted.user_id
        conditions.append(or_(theirs, keys.c.created_by == wanted.user_id) if wanted.or_created else theirs)
    if wanted.key_id is not None:
        conditions.append(keys.c.key_id == wanted.key_id)
    if wanted.alias is not None:
        conditions.append(keys.c.key_alias == wanted.alias)
    if wanted.alias_part is not None:
        conditions.append(keys.c.key_alias.icontains(wanted.alias_part, autoescape=True))
    if wanted.search is not None:
        fields = (keys.c.key_alias, keys.c.key_id, keys.c.token, keys.c.key_name)
        conditions.append(or_(*(field.icontains(wanted.search, autoescape=True) for field in fields)))
    if wanted.expired is not None:
        over = func.coalesce(keys.c.expires_at <= now, False)
        conditions.append(over if wanted.expired else ~over)
    return conditions


def _status_at(now: datetime) -> ColumnElement[str]:
    """As ``KeyRow.status_at``."""
    return case(
        (keys.c.deleted_at.is_not(None), "deleted"),
        (keys.c.blocked, "revoked"),
        (keys.c.expires_at <= now, "expired"),
        else_="active",
    )


def _column(sort_by: SortBy, now: datetime) -> ColumnElement[Any]:
    columns: dict[SortBy, ColumnElement[Any]] = {
        "created_at": keys.c.created_at,
        "updated_at": keys.c.updated_at,
        "key_alias": keys.c.key_alias,
        "expires": keys.c.expires_at,
        "max_budget": keys.c.max_budget_nano_usd,
        "spend": case((spend.c.window_end <= now, 0), else_=_spent),
    }
    return columns[sort_by]


def _key(row: Row[Any]) -> KeyRow:
    values = dict(row._mapping)
    terms = KeyTerms.model_validate({name: values.pop(name) for name in KeyTerms.model_fields})
    del values["expiry_noted"]
    return KeyRow(**values, terms=terms)
