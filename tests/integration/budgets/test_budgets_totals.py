"""What scopes spent is published for the other services, batched, and only what changed."""

from datetime import UTC, datetime, timedelta

from services.budgets import jobs
from services.budgets.events import ScopeTotal, SpendTotalsPublished
from tests.support.budgets import NOON
from tests.support.budgets_world import World


async def published(world: World) -> list[SpendTotalsPublished]:
    await jobs.publish_totals(world.budgets)
    return [e.event for e in await world.events(SpendTotalsPublished) if isinstance(e.event, SpendTotalsPublished)]


async def totals(world: World, scope: str) -> list[ScopeTotal]:
    return [total for event in await published(world) for total in event.totals if total.scope == scope]


async def test_what_was_spent_is_published_for_every_scope_of_the_calls(world: World) -> None:
    key = await world.new_key(1000, "1d", user_id=await world.new_user())
    await published(world)
    await world.spend(key, 30, ended_at=NOON + timedelta(seconds=2))
    *_, last = await published(world)
    assert {total.scope for total in last.totals} == set(key.scopes)
    assert (await totals(world, key.scope))[-1] == ScopeTotal(
        scope=key.scope,
        window_start=datetime(2026, 11, 24, tzinfo=UTC),
        window_end=datetime(2026, 11, 25, tzinfo=UTC),
        window_spent_nano_usd=30,
        total_spent_nano_usd=30,
        last_used_at=NOON + timedelta(seconds=2),
    )


async def test_a_total_outlives_its_windows(world: World) -> None:
    key = await world.new_key(1000, "1d")
    await world.spend(key, 30)
    world.clock.now = NOON + timedelta(days=1)
    await world.spend(key, 5)
    last = (await totals(world, key.scope))[-1]
    assert (last.window_spent_nano_usd, last.total_spent_nano_usd) == (5, 35)


async def test_a_scope_that_never_resets_has_no_windows_ends(world: World) -> None:
    key = await world.new_key()
    await world.spend(key, 30)
    last = (await totals(world, key.scope))[-1]
    assert (last.window_start, last.window_end, last.window_spent_nano_usd) == (None, None, 30)


async def test_what_did_not_change_is_not_published_again(world: World) -> None:
    key = await world.new_key()
    await world.spend(key, 30)
    once = await published(world)
    assert await published(world) == once


async def test_many_calls_are_one_total(world: World) -> None:
    key = await world.new_key()
    for _ in range(5):
        await world.spend(key, 30)
    assert [total.window_spent_nano_usd for total in await totals(world, key.scope)] == [150]


async def test_a_change_of_duration_is_published_too(world: World) -> None:
    key = await world.new_key(1000, "30d")
    world.clock.now = NOON - timedelta(days=1)
    await world.spend(key, 200)
    await published(world)
    world.clock.now = NOON
    await world.update_key(key, 1000, "1d")
    await world.heard()
    last = (await totals(world, key.scope))[-1]
    assert (last.window_spent_nano_usd, last.total_spent_nano_usd) == (0, 200)
