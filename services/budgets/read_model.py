"""What budgets reads of events: each scope's budget, and whose a key is."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Column, DateTime, MetaData, Table, Text, or_, select

from services.budgets.events import BudgetSet
from services.identity.events import UserCreated
from services.keys.events import KeyGenerated, KeyUpdated
from shared.event_store import Transaction
from shared.events import Event
from shared.projections import Projection, upsert

METADATA = MetaData()

budgets = Table(
    "budgets_1",
    METADATA,
    Column("scope", Text, primary_key=True),
    Column("max_budget_nano_usd", BigInteger),
    Column("budget_duration", Text),
    Column("set_at", DateTime(timezone=True), nullable=False),
)

# Deleted keys and users stay: what they spent does.
keys = Table(
    "keys_1",
    METADATA,
    Column("key_id", Text, primary_key=True),
    Column("token", Text, nullable=False, unique=True),
    Column("user_id", Text),
)
users = Table("users_1", METADATA, Column("user_id", Text, primary_key=True))


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key ever made, and whose it is."""

    key_id: str
    token: str
    user_id: str | None


async def project_budgets(tx: Transaction, event: Event) -> None:
    """Own events, in the commit that adds them."""
    match event:
        case BudgetSet():
            values: dict[str, Any] = {
                "max_budget_nano_usd": event.max_budget_nano_usd,
                "budget_duration": event.budget_duration,
                "set_at": event.set_at,
            }
            await tx.connection.execute(upsert(budgets, {"scope": event.scope}, values))


async def project_keys(tx: Transaction, event: Event) -> None:
    """Whose each key is now."""
    match event:
        case KeyGenerated() | KeyUpdated():
            values: dict[str, Any] = {"token": event.token, "user_id": event.user_id}
            await tx.connection.execute(upsert(keys, {"key_id": event.key_id}, values))


async def project_users(tx: Transaction, event: Event) -> None:
    """Who was ever a user."""
    match event:
        case UserCreated():
            await tx.connection.execute(upsert(users, {"user_id": event.user_id}, {}))


PROJECTIONS = [
    Projection("budgets", "budgets", (budgets,), project_budgets),
    Projection("keys", "keys", (keys,), project_keys),
    Projection("users", "identity", (users,), project_users),
]


async def find_key(tx: Transaction, *, key_id: str, token: str) -> KeyRow | None:
    """The key that is known by either."""
    condition = or_(keys.c.key_id == key_id, keys.c.token == token)
    row = (await tx.connection.execute(select(keys).where(condition))).first()
    return KeyRow(*row) if row else None


async def user_exists(tx: Transaction, user_id: str) -> bool:
    """Whether there is or was such a user."""
    row = await tx.connection.execute(select(users.c.user_id).where(users.c.user_id == user_id))
    return row.first() is not None
