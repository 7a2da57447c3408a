"""A scope's budget: set only when something changes."""

from services.budgets.domain.budget import BUDGET, RemoveBudget, SetBudget
from services.budgets.events import BudgetExhausted, BudgetSet
from tests.support.budgets import DAY, NOON
from tests.support.given import given

SCOPE = "key:k1"


def set_to(limit: int | None, duration: str | None = None, at: int = 0) -> SetBudget:
    return SetBudget(SCOPE, limit, duration, NOON + at * DAY)


def was_set(limit: int | None, duration: str | None = None, at: int = 0) -> BudgetSet:
    return BudgetSet(
        scope=SCOPE, max_budget_nano_usd=limit, budget_duration=duration, enforcement="strict", set_at=NOON + at * DAY
    )


def test_a_limit_is_set() -> None:
    given(BUDGET).when(set_to(5)).then(was_set(5))


def test_the_same_limit_again_is_not_set_again() -> None:
    given(BUDGET, was_set(5)).when(set_to(5)).then()


def test_a_scope_without_limit_or_duration_needs_no_budget() -> None:
    given(BUDGET).when(set_to(None)).then()


def test_a_limit_of_nothing_is_a_limit() -> None:
    given(BUDGET).when(set_to(0)).then(was_set(0))


def test_a_limit_is_taken_off() -> None:
    given(BUDGET, was_set(5)).when(set_to(None)).then(was_set(None))


def test_a_duration_without_a_limit_has_windows() -> None:
    given(BUDGET).when(set_to(None, "30d")).then(was_set(None, "30d"))


def test_windows_that_count_from_another_day_are_another_budget() -> None:
    given(BUDGET, was_set(5, "2d")).when(set_to(5, "2d", at=1)).then(was_set(5, "2d", at=1))


def test_when_a_budget_without_windows_was_set_makes_no_difference() -> None:
    given(BUDGET, was_set(5)).when(set_to(5, at=1)).then()


def test_what_is_gone_has_no_limit_but_keeps_its_windows() -> None:
    given(BUDGET, was_set(5, "2d")).when(RemoveBudget(SCOPE, NOON + DAY)).then(was_set(None, "2d"))


def test_what_never_had_a_budget_loses_none() -> None:
    given(BUDGET).when(RemoveBudget(SCOPE, NOON)).then()


def test_what_is_gone_is_gone_once() -> None:
    given(BUDGET, was_set(5), was_set(None)).when(RemoveBudget(SCOPE, NOON)).then()


def test_other_events_do_not_change_a_budget() -> None:
    exhausted = BudgetExhausted(scope=SCOPE, window_start=NOON, limit_nano_usd=5, spent_nano_usd=5, exhausted_at=NOON)
    state = BUDGET.evolve(BUDGET.initial, was_set(5))
    assert BUDGET.evolve(state, exhausted) == state  # type: ignore[arg-type]
