"""A window's row: what a scope may spend in it, has spent, and has set aside for calls under way. Money in nano-USD.

Invariant of every row with a limit: spent + leased <= ceiling, which the database checks too. Setting aside alone
raises the sum, and only up to the limit; the ceiling is above the limit only where a lowered limit found more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.budgets.domain.budget import Budget
from services.budgets.events import BudgetExhausted, BudgetThresholdReached
from shared.durations import parse_duration, window_of

# A budget that never resets has one window, and that is it.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FOREVER = datetime(9999, 12, 31, tzinfo=UTC)
# Where nobody set a limit, the database's integers still end somewhere.
SUM_MAX_NANO_USD = 4 * 10**18


class WindowKey(NamedTuple):
    """Which window. The end is part of it: a day and a month may begin at the same midnight."""

    scope: str
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Window:
    """``spent`` includes ``presumed``: what calls of lost workers may have cost, until somebody knows.

    ``reached`` and ``exhausted`` are what was told of this window already.
    """

    key: WindowKey
    limit: int | None = None
    spent: int = 0
    leased: int = 0
    presumed: int = 0
    ceiling: int | None = None
    reached: tuple[float, ...] = ()
    exhausted: bool = False

    @property
    def scope(self) -> str:
        return self.key.scope

    @property
    def unspent(self) -> int:
        """What is left of the limit once every open hold is given back; below zero where a limit was lowered."""
        return (SUM_MAX_NANO_USD if self.limit is None else self.limit) - self.spent

    @property
    def free(self) -> int:
        """What a call may still set aside."""
        return self.unspent - self.leased

    @property
    def resets_at(self) -> datetime | None:
        return None if self.key.end == FOREVER else self.key.end

    @property
    def pending(self) -> bool:
        """Whether a lowered limit waits for open holds: more is spent and set aside than it allows."""
        return self.limit is not None and self.leased > 0 and self.spent + self.leased > self.limit


def window_at(scope: str, budget: Budget, now: datetime, zone: ZoneInfo) -> WindowKey:
    """The window of a scope with that budget that ``now`` falls in."""
    if budget.budget_duration is None:
        return WindowKey(scope, EPOCH, FOREVER)
    start, end = window_of(parse_duration(budget.budget_duration), now, budget.set_at or now, zone)
    return WindowKey(scope, start, end)


def set_limit(window: Window, limit: int | None) -> Window:
    """The limit from now on. More than a lower one may be spent or set aside already, and that is not undone."""
    ceiling = None if limit is None else max(limit, window.spent + window.leased)
    return replace(window, limit=limit, ceiling=ceiling)


def set_aside(window: Window, amount: int) -> Window:
    """One more open hold of ``amount``, which must be free."""
    if amount < 0 or amount > max(window.free, 0):
        raise ValueError(f"{amount} of {window.free} free nano-USD can't be set aside in {window.scope}")
    return _checked(replace(window, leased=window.leased + amount))


def settle(window: Window, *, held: int, charged: int) -> Window:
    """A hold's end: of what it held, ``charged`` is spent and the rest is free again."""
    if not 0 <= charged <= held:
        raise ValueError(f"{charged} can't be charged to a hold of {held} nano-USD")
    return _fallen(replace(window, leased=window.leased - held, spent=window.spent + charged))


def write_off(window: Window, *, held: int) -> Window:
    """The end of a lost worker's hold: all of it is spent, as far as anybody knows."""
    settled = settle(window, held=held, charged=held)
    return _checked(replace(settled, presumed=settled.presumed + held))


def prove(window: Window, *, held: int, charged: int) -> Window:
    """The charge of a hold that was written off became known after all: it is recorded, and the rest was not spent."""
    if not 0 <= charged <= held:
        raise ValueError(f"{charged} can't be charged to a hold of {held} nano-USD")
    return _fallen(replace(window, presumed=window.presumed - held, spent=window.spent - held + charged))


News = BudgetThresholdReached | BudgetExhausted


def tell(window: Window, thresholds: Sequence[float], now: datetime) -> tuple[Window, list[News]]:
    """What is to be told of a window's spend, each thing once; and the window that remembers it."""
    if not window.limit:
        return window, []
    news: list[News] = [
        BudgetThresholdReached(
            scope=window.scope,
            window_start=window.key.start,
            threshold=share,
            limit_nano_usd=window.limit,
            spent_nano_usd=window.spent,
            reached_at=now,
        )
        for share in _passed(window, thresholds)
    ]
    reached = window.reached + tuple(event.threshold for event in news if isinstance(event, BudgetThresholdReached))
    exhausted = window.spent >= window.limit
    if exhausted and not window.exhausted:
        news.append(
            BudgetExhausted(
                scope=window.scope,
                window_start=window.key.start,
                limit_nano_usd=window.limit,
                spent_nano_usd=window.spent,
                exhausted_at=now,
            )
        )
    return replace(window, reached=reached, exhausted=window.exhausted or exhausted), news


def _passed(window: Window, thresholds: Sequence[float]) -> list[float]:
    limit = window.limit or 0
    return [s for s in sorted(thresholds) if s not in window.reached and window.spent >= limit * Decimal(str(s))]


def _fallen(window: Window) -> Window:
    """A ceiling above the limit comes down with what made it necessary, and never rises by itself."""
    if window.limit is None or window.ceiling is None:
        return _checked(window)
    ceiling = max(window.limit, min(window.ceiling, window.spent + window.leased))
    return _checked(replace(window, ceiling=ceiling))


def _checked(window: Window) -> Window:
    if min(window.leased, window.spent, window.presumed) < 0 or window.presumed > window.spent:
        raise ValueError(f"the row of {window.scope} would say that less than nothing is spent, leased or presumed")
    if window.ceiling is not None and window.spent + window.leased > window.ceiling:
        raise ValueError(f"the row of {window.scope} would pass its ceiling")
    return window
