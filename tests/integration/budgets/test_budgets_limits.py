"""Limits come from what keys and identity tell; a window has the limit that holds now, and the spend of its calls."""

from datetime import timedelta

import pytest

from services.budgets.events import BudgetSet
from shared.errors import Refused
from tests.support.budgets import NOON
from tests.support.budgets_world import World


async def limits_told(world: World, scope: str) -> list[tuple[int | None, str | None]]:
    return [
        (e.event.max_budget_nano_usd, e.event.budget_duration)
        for e in await world.events(BudgetSet)
        if isinstance(e.event, BudgetSet) and e.event.scope == scope
    ]


async def test_a_keys_and_a_users_limit_are_set_as_they_are_told(world: World) -> None:
    user_id = await world.new_user(500, "30d")
    key = await world.new_key(100, user_id=user_id)
    await world.heard()
    assert await limits_told(world, key.scope) == [(100, None)]
    assert await limits_told(world, f"user:{user_id}") == [(500, "30d")]
    assert (await world.window(key.scope)).limit == 100


async def test_a_limit_is_caused_by_the_event_that_told_of_it(world: World) -> None:
    await world.new_key(100)
    await world.heard()
    *_, told = await world.events(BudgetSet)
    assert told.causation_id is not None


async def test_an_update_that_leaves_the_limit_tells_nothing(world: World) -> None:
    key = await world.new_key(100)
    await world.update_key(key, 100)
    await world.update_key(key, 200)
    await world.heard()
    assert await limits_told(world, key.scope) == [(100, None), (200, None)]


async def test_without_a_limit_there_is_nothing_to_tell(world: World) -> None:
    key = await world.new_key()
    await world.heard()
    assert await limits_told(world, key.scope) == []


async def test_a_raised_limit_is_in_force_for_the_next_call(world: World) -> None:
    key = await world.new_key(100)
    await world.spend(key, 100)
    await world.update_key(key, 150)
    await world.spend(key, 50)
    assert (await world.window(key.scope)).spent == 150


async def test_a_lowered_limit_stops_admission_at_once_and_waits_for_open_holds(world: World) -> None:
    key = await world.new_key(100)
    await world.spend(key, 30)
    hold_id = await world.hold(key, 60)
    await world.update_key(key, 40)
    with pytest.raises(Refused) as refused:
        await world.place(key, 1)
    assert refused.value.code == "budget_held"
    window = await world.window(key.scope)
    assert (window.limit, window.ceiling, window.pending) == (40, 90, True)
    await world.settle(hold_id, 5, key)
    window = await world.window(key.scope)
    assert (window.spent, window.ceiling, window.pending) == (35, 40, False)
    await world.spend(key, 5)


async def test_a_deleted_keys_budget_is_gone_and_its_spend_stays(world: World) -> None:
    key = await world.new_key(100, "1d")
    hold_id = await world.hold(key, 60)
    await world.delete_key(key)
    await world.heard()
    assert await limits_told(world, key.scope) == [(100, "1d"), (None, "1d")]
    await world.settle(hold_id, 50, key)
    window = await world.window(key.scope)
    assert (window.limit, window.spent, window.leased) == (None, 50, 0)


async def test_a_deleted_users_budget_is_gone(world: World) -> None:
    user_id = await world.new_user(100)
    await world.update_user(user_id, 200)
    await world.delete_user(user_id)
    await world.heard()
    assert await limits_told(world, f"user:{user_id}") == [(100, None), (200, None), (None, None)]


# Windows


async def test_a_window_ends_by_the_clock(world: World) -> None:
    key = await world.new_key(100, "1d")
    await world.spend(key, 100)
    with pytest.raises(Refused):
        await world.place(key, 1)
    world.clock.now = NOON.replace(hour=0) + timedelta(days=1)
    await world.spend(key, 100)


async def test_a_new_window_has_the_limit_that_was_set_meanwhile(world: World) -> None:
    key = await world.new_key(100, "1d")
    await world.spend(key, 100)
    await world.update_key(key, 120, "1d")
    world.clock.now = NOON + timedelta(days=1)
    await world.spend(key, 120)
    assert (await world.window(key.scope)).limit == 120


async def test_after_a_change_of_duration_the_window_of_the_new_kind_counts_what_was_spent_in_it(world: World) -> None:
    """Yesterday's and today's spend are this month's; only today's is the day's (§4.6)."""
    key = await world.new_key(1000, "30d", user_id=await world.new_user())
    world.clock.now = NOON - timedelta(days=1)
    await world.spend(key, 200)
    world.clock.now = NOON
    await world.spend(key, 30)
    assert (await world.window(key.scope)).spent == 230
    await world.update_key(key, 1000, "1d")
    await world.heard()
    assert (await world.window(key.scope)).spent == 30
    await world.update_key(key, 1000)
    await world.heard()
    assert (await world.window(key.scope)).spent == 230


async def test_open_holds_of_calls_admitted_in_the_new_window_hold_there_too(world: World) -> None:
    key = await world.new_key(1000, "30d")
    world.clock.now = NOON - timedelta(days=1)
    yesterday = await world.hold(key, 100)
    world.clock.now = NOON
    today = await world.hold(key, 60)
    await world.update_key(key, 70, "1d")
    await world.heard()
    window = await world.window(key.scope)
    assert (window.spent, window.leased) == (0, 60)
    with pytest.raises(Refused) as refused:
        await world.place(key, 11)
    assert refused.value.code == "budget_held"
    settled = await world.settle(today, 25, key)
    await world.settle(yesterday, 100, key)
    window = await world.window(key.scope)
    assert (window.spent, window.leased) == (25, 0)
    assert settled.window_spent_nano_usd[key.scope] == 25


async def test_a_duration_that_comes_back_finds_what_was_spent_meanwhile(world: World) -> None:
    key = await world.new_key(100, "30d")
    await world.spend(key, 10)
    await world.update_key(key, 100, "1d")
    await world.spend(key, 20)
    hold_id = await world.hold(key, 40)
    await world.update_key(key, 100, "30d")
    await world.heard()
    window = await world.window(key.scope)
    assert (window.spent, window.leased) == (30, 40)
    await world.settle(hold_id, 5, key)
    window = await world.window(key.scope)
    assert (window.spent, window.leased) == (35, 0)


async def test_more_may_have_been_spent_than_a_new_window_allows(world: World) -> None:
    key = await world.new_key(1000, "30d")
    await world.spend(key, 500)
    await world.update_key(key, 100, "1d")
    await world.heard()
    window = await world.window(key.scope)
    assert (window.limit, window.spent, window.ceiling) == (100, 500, 500)
    with pytest.raises(Refused):
        await world.place(key, 1)


async def test_a_limit_on_a_scope_that_spent_without_one_counts_that(world: World) -> None:
    key = await world.new_key()
    await world.spend(key, 70)
    await world.update_key(key, 100)
    with pytest.raises(Refused) as refused:
        await world.place(key, 31)
    assert refused.value.code == "budget_exceeded"


async def test_a_day_and_a_month_that_begin_at_one_midnight_are_two_windows(world: World) -> None:
    world.clock.now = NOON.replace(month=12, day=1)
    key = await world.new_key(100, "1d")
    await world.spend(key, 10)
    await world.update_key(key, 100, "30d")
    await world.heard()
    rows = await world.rows("select window_end from windows where scope = $1", key.scope)
    assert len({row["window_end"] for row in rows}) == 2
