"""What budgets publishes. These shapes are stored for ever: add a version, never change one.

A scope is ``key:<key_id>``, ``user:<user_id>`` or ``proxy``. Money in nano-USD.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from shared.events import Catalog, Event


class BudgetSet(Event):
    """A scope's limit from now on; ``max_budget_nano_usd`` null is none."""

    scope: str
    max_budget_nano_usd: int | None
    budget_duration: str | None
    enforcement: Literal["strict"]
    set_at: datetime


class BudgetThresholdReached(Event):
    """Recorded spend of a window passed a share of its limit."""

    scope: str
    window_start: datetime
    threshold: float
    limit_nano_usd: int
    spent_nano_usd: int
    reached_at: datetime


class BudgetExhausted(Event):
    """Nothing is left of a window's limit."""

    scope: str
    window_start: datetime
    limit_nano_usd: int
    spent_nano_usd: int
    exhausted_at: datetime


class HoldExceeded(Event):
    """A provider billed more than was held. The excess is the house's, never the budget's."""

    hold_id: str
    held_nano_usd: int
    billed_nano_usd: int
    at: datetime


class UsageSettled(Event):
    """A batch of ledger rows. ``digest`` is the SHA-256 of their canonical form, in hold id order."""

    count: int
    total_nano_usd: int
    digest: str
    settled_at: datetime


class ScopeTotal(BaseModel):
    """What a scope spent: in the window that holds now, and since it began to exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str
    window_start: datetime | None
    window_end: datetime | None
    window_spent_nano_usd: int
    total_spent_nano_usd: int
    last_used_at: datetime | None


class SpendTotalsPublished(Event):
    """The totals of the scopes whose spend changed since they were last published."""

    totals: tuple[ScopeTotal, ...]
    published_at: datetime


CATALOG = Catalog(
    "budgets",
    BudgetSet,
    BudgetThresholdReached,
    BudgetExhausted,
    HoldExceeded,
    UsageSettled,
    SpendTotalsPublished,
)
