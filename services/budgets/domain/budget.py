"""A scope's budget: the limit that holds from now on, and the duration after which it starts again."""

from dataclasses import dataclass
from datetime import datetime

from services.budgets.events import BudgetSet
from shared.aggregate import Aggregate
from shared.events import Event


@dataclass(frozen=True, slots=True)
class Budget:
    """``max_budget_nano_usd`` null is no limit; without a duration it never resets, and ``set_at`` means nothing."""

    max_budget_nano_usd: int | None = None
    budget_duration: str | None = None
    set_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SetBudget:
    """The scope has this limit, or none."""

    scope: str
    max_budget_nano_usd: int | None
    budget_duration: str | None
    set_at: datetime


@dataclass(frozen=True, slots=True)
class RemoveBudget:
    """The key or user is gone. The duration stays, so that what was spent goes on being shown by the same windows."""

    scope: str
    now: datetime


BudgetCommand = SetBudget | RemoveBudget


def decide(budget: Budget, command: BudgetCommand) -> list[BudgetSet]:
    """A limit that is in force already is not set again."""
    match command:
        case SetBudget(scope, limit, duration, set_at):
            pass
        case RemoveBudget(scope, now):
            limit, duration, set_at = None, budget.budget_duration, budget.set_at or now
    if same(budget, Budget(limit, duration, set_at)):
        return []
    return [
        BudgetSet(
            scope=scope,
            max_budget_nano_usd=limit,
            budget_duration=duration,
            enforcement="strict",
            set_at=set_at,
        )
    ]


def same(one: Budget, other: Budget) -> bool:
    """Whether they limit alike; when a budget without windows was set makes no difference."""
    return one.max_budget_nano_usd == other.max_budget_nano_usd and same_windows(one, other)


def same_windows(one: Budget, other: Budget) -> bool:
    """Whether their windows begin and end alike; some count from the day on which the duration was set (§4.6)."""
    if one.budget_duration is None or other.budget_duration is None:
        return one.budget_duration is other.budget_duration
    return (one.budget_duration, one.set_at) == (other.budget_duration, other.set_at)


def evolve(budget: Budget, event: Event) -> Budget:
    """The budget after ``event``."""
    match event:
        case BudgetSet(max_budget_nano_usd=limit, budget_duration=duration, set_at=set_at):
            return Budget(limit, duration, set_at)
    return budget


BUDGET = Aggregate[Budget, BudgetCommand, BudgetSet](Budget(), decide, evolve)


def stream_of(scope: str) -> str:
    """The stream of a scope's budget."""
    return f"budget-{scope}"
